//! A node: what Railway knows of a thing, to be cut down to the fields that were asked for.

use serde_json::{Map, Value, json};

use super::document::Field;

/// Something that a field can stand for.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// A value without fields of its own.
    Leaf(Value),
    /// A thing of this type, with all its fields.
    Thing(&'static str, Vec<(&'static str, Node)>),
    /// Things, all at once.
    List(Vec<Node>),
    /// Things, page by page.
    Pages(&'static str, Vec<Node>),
}

impl Node {
    /// A value without fields.
    pub fn leaf(value: impl Into<Value>) -> Self {
        Node::Leaf(value.into())
    }

    /// The fields that were asked for, or what is wrong with the asking.
    pub fn pick(&self, field: &Field, variables: &Value) -> Result<Value, String> {
        match self {
            Node::Leaf(Value::Null) => Ok(Value::Null),
            Node::Leaf(value) => match field.inner().next() {
                None => Ok(value.clone()),
                Some(_) => Err(format!(
                    "Field \"{}\" must not have a selection since its type has no subfields.",
                    field.name
                )),
            },
            Node::List(nodes) => nodes.iter().map(|node| node.pick(field, variables)).collect(),
            Node::Thing(kind, fields) => {
                let mut picked = Map::new();
                for inner in field.inner() {
                    let value = if inner.name == "__typename" {
                        json!(kind)
                    } else {
                        let known = fields.iter().find(|(name, _)| *name == inner.name);
                        let (_, node) = known
                            .ok_or_else(|| format!("Cannot query field \"{}\" on type \"{kind}\".", inner.name))?;
                        node.pick(inner, variables)?
                    };
                    picked.insert(inner.alias.clone(), value);
                }
                if picked.is_empty() {
                    return Err(format!(
                        "Field \"{}\" of type \"{kind}\" must have a selection of subfields.",
                        field.name
                    ));
                }
                Ok(Value::Object(picked))
            }
            Node::Pages(kind, nodes) => page(kind, nodes, &field.values(variables)).pick(field, variables),
        }
    }

    fn cursor(&self, at: usize) -> String {
        match self {
            Node::Thing(_, fields) => fields
                .iter()
                .find(|(name, _)| *name == "id")
                .and_then(|(_, id)| if let Node::Leaf(Value::String(id)) = id { Some(id.clone()) } else { None })
                .unwrap_or_else(|| at.to_string()),
            _ => at.to_string(),
        }
    }
}

/// One page. Its cursor is there even on the last one, so that only `hasNextPage` says when to stop.
fn page(kind: &'static str, nodes: &[Node], arguments: &Map<String, Value>) -> Node {
    let first = arguments.get("first").and_then(Value::as_u64).map_or(usize::MAX, |first| first as usize);
    let from = arguments.get("after").and_then(Value::as_str).map_or(0, |after| {
        let cursors = nodes.iter().enumerate().map(|(at, node)| node.cursor(at));
        cursors.into_iter().position(|cursor| cursor == after).map_or(nodes.len(), |at| at + 1)
    });
    let shown: Vec<_> = nodes.iter().enumerate().skip(from).take(first).collect();
    let has_next = from + shown.len() < nodes.len();
    let end = shown.last().map(|(at, node)| node.cursor(*at)).unwrap_or_else(|| "end".to_string());
    let start = shown.first().map(|(at, node)| node.cursor(*at));
    let edge = |(at, node): (usize, &Node)| {
        Node::Thing("Edge", vec![("node", node.clone()), ("cursor", Node::leaf(node.cursor(at)))])
    };
    let info = Node::Thing(
        "PageInfo",
        vec![
            ("hasNextPage", Node::leaf(has_next)),
            ("hasPreviousPage", Node::leaf(from > 0)),
            ("startCursor", Node::leaf(start)),
            ("endCursor", Node::leaf(end)),
        ],
    );
    Node::Thing(kind, vec![("edges", Node::List(shown.into_iter().map(edge).collect())), ("pageInfo", info)])
}

//! A GraphQL document, read: as much of the language as a client of Railway's API needs.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// How deep a document may nest; deeper ones are refused rather than followed.
const DEPTH_MAX: usize = 32;

/// One field that is asked for.
#[derive(Debug, Clone)]
pub(super) struct Field {
    /// Under what name the answer carries it.
    pub alias: String,
    pub name: String,
    pub arguments: BTreeMap<String, Argument>,
    pub fields: Vec<Selection>,
}

/// What stands between the braces.
#[derive(Debug, Clone)]
pub(super) enum Selection {
    Field(Field),
    Inline(Vec<Selection>),
    Spread(String),
}

/// The value of an argument, before the variables are known.
#[derive(Debug, Clone)]
pub(super) enum Argument {
    Variable(String),
    Literal(Value),
    List(Vec<Argument>),
    Object(BTreeMap<String, Argument>),
}

/// A query or a mutation, with the fragments it may use.
#[derive(Debug, Clone)]
pub(super) struct Document {
    pub is_mutation: bool,
    pub fields: Vec<Field>,
}

/// Reads a document and picks the operation of this name, or the only one.
pub(super) fn read(text: &str, operation: Option<&str>) -> Result<Document, String> {
    let mut reader = Reader { tokens: tokens(text)?, at: 0, depth: 0 };
    let mut operations: Vec<(Option<String>, bool, Vec<Selection>)> = Vec::new();
    let mut fragments = BTreeMap::new();
    while reader.at < reader.tokens.len() {
        if reader.peek_is("{") {
            operations.push((None, false, reader.selections()?));
            continue;
        }
        match reader.name()?.as_str() {
            kind @ ("query" | "mutation") => {
                let is_mutation = kind == "mutation";
                let name = if reader.peek_is("{") || reader.peek_is("(") { None } else { Some(reader.name()?) };
                if reader.take("(") {
                    reader.skip_past_parenthesis()?;
                }
                operations.push((name, is_mutation, reader.selections()?));
            }
            "fragment" => {
                let name = reader.name()?;
                reader.name()?;
                reader.name()?;
                fragments.insert(name, reader.selections()?);
            }
            other => return Err(format!("Syntax Error: Unexpected Name \"{other}\".")),
        }
    }
    let chosen = match operation {
        Some(wanted) => operations.into_iter().find(|(name, ..)| name.as_deref() == Some(wanted)),
        None if operations.len() == 1 => operations.pop(),
        None => return Err("Must provide operation name if query contains multiple operations.".to_string()),
    };
    let Some((_, is_mutation, selections)) = chosen else {
        return Err(format!("Unknown operation named \"{}\".", operation.unwrap_or_default()));
    };
    let fields = flatten(&selections, &fragments, 0)?;
    Ok(Document { is_mutation, fields })
}

/// Puts what the fragments say in their place.
fn flatten(
    selections: &[Selection],
    fragments: &BTreeMap<String, Vec<Selection>>,
    depth: usize,
) -> Result<Vec<Field>, String> {
    if depth > DEPTH_MAX {
        return Err("Query is nested too deeply.".to_string());
    }
    let mut fields = Vec::new();
    for selection in selections {
        match selection {
            Selection::Field(field) => {
                let inner = flatten(&field.fields, fragments, depth + 1)?;
                let inner = inner.into_iter().map(Selection::Field).collect();
                fields.push(Field { fields: inner, ..field.clone() });
            }
            Selection::Inline(inner) => fields.extend(flatten(inner, fragments, depth + 1)?),
            Selection::Spread(name) => {
                let inner = fragments.get(name).ok_or_else(|| format!("Unknown fragment \"{name}\"."))?;
                fields.extend(flatten(inner, fragments, depth + 1)?);
            }
        }
    }
    Ok(fields)
}

impl Field {
    /// The fields asked of this one, fragments put in their place.
    pub fn inner(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter_map(|selection| match selection {
            Selection::Field(field) => Some(field),
            _ => None,
        })
    }

    /// The arguments, with the variables' values. An argument whose variable is not given is not given.
    pub fn values(&self, variables: &Value) -> Map<String, Value> {
        let given = |(name, argument): (&String, &Argument)| Some((name.clone(), argument.value(variables)?));
        self.arguments.iter().filter_map(given).collect()
    }
}

impl Argument {
    fn value(&self, variables: &Value) -> Option<Value> {
        match self {
            Argument::Variable(name) => variables.get(name).cloned(),
            Argument::Literal(value) => Some(value.clone()),
            Argument::List(items) => Some(items.iter().filter_map(|item| item.value(variables)).collect()),
            Argument::Object(fields) => {
                let given =
                    |(name, field): (&String, &Argument)| Some((name.clone(), field.value(variables)?));
                Some(Value::Object(fields.iter().filter_map(given).collect()))
            }
        }
    }
}

/// The smallest parts of a document.
#[derive(Debug, Clone, PartialEq)]
enum Token {
    Mark(&'static str),
    Name(String),
    Literal(Value),
}

const MARKS: [&str; 14] = ["...", "{", "}", "(", ")", "[", "]", ":", "=", "!", "$", "@", "|", "&"];

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if first.is_whitespace() || first == ',' || first == '\u{feff}' {
            rest = &rest[first.len_utf8()..];
        } else if first == '#' {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if let Some(mark) = MARKS.into_iter().find(|mark| rest.starts_with(mark)) {
            tokens.push(Token::Mark(mark));
            rest = &rest[mark.len()..];
        } else if first == '"' {
            let (value, after) = string(rest)?;
            tokens.push(Token::Literal(Value::String(value)));
            rest = after;
        } else if first == '-' || first.is_ascii_digit() {
            let is_part = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
            let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            let number: Value = serde_json::from_str(&rest[..end])
                .map_err(|_| format!("Syntax Error: Invalid number \"{}\".", &rest[..end]))?;
            tokens.push(Token::Literal(number));
            rest = &rest[end..];
        } else if first == '_' || first.is_ascii_alphabetic() {
            let end = rest.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            tokens.push(Token::Name(rest[..end].to_string()));
            rest = &rest[end..];
        } else {
            return Err(format!("Syntax Error: Unexpected character: \"{first}\"."));
        }
    }
    Ok(tokens)
}

fn string(text: &str) -> Result<(String, &str), String> {
    const UNTERMINATED: &str = "Syntax Error: Unterminated string.";
    if let Some(block) = text.strip_prefix("\"\"\"") {
        let end = block.find("\"\"\"").ok_or(UNTERMINATED)?;
        return Ok((block[..end].trim().to_string(), &block[end + 3..]));
    }
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => {
                let value = serde_json::from_str(&text[..=at]).map_err(|_| "Syntax Error: Invalid string.")?;
                return Ok((value, &text[at + 1..]));
            }
            _ => {}
        }
    }
    Err(UNTERMINATED.to_string())
}

struct Reader {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

impl Reader {
    fn peek_is(&self, mark: &str) -> bool {
        matches!(self.tokens.get(self.at), Some(Token::Mark(found)) if *found == mark)
    }

    fn take(&mut self, mark: &str) -> bool {
        let is_here = self.peek_is(mark);
        self.at += usize::from(is_here);
        is_here
    }

    fn expect(&mut self, mark: &str) -> Result<(), String> {
        if self.take(mark) { Ok(()) } else { Err(self.unexpected(mark)) }
    }

    fn unexpected(&self, wanted: &str) -> String {
        match self.tokens.get(self.at) {
            Some(found) => format!("Syntax Error: Expected \"{wanted}\", found {found:?}."),
            None => format!("Syntax Error: Expected \"{wanted}\", found <EOF>."),
        }
    }

    fn name(&mut self) -> Result<String, String> {
        match self.tokens.get(self.at) {
            Some(Token::Name(name)) => {
                self.at += 1;
                Ok(name.clone())
            }
            _ => Err(self.unexpected("Name")),
        }
    }

    /// Variable definitions are not looked at: the values say enough.
    fn skip_past_parenthesis(&mut self) -> Result<(), String> {
        let mut open = 1;
        while open > 0 {
            match self.tokens.get(self.at) {
                Some(Token::Mark("(")) => open += 1,
                Some(Token::Mark(")")) => open -= 1,
                Some(_) => {}
                None => return Err(self.unexpected(")")),
            }
            self.at += 1;
        }
        Ok(())
    }

    fn deeper(&mut self) -> Result<(), String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err("Query is nested too deeply.".to_string()) } else { Ok(()) }
    }

    fn selections(&mut self) -> Result<Vec<Selection>, String> {
        self.deeper()?;
        self.expect("{")?;
        let mut selections = Vec::new();
        while !self.take("}") {
            selections.push(if self.take("...") { self.spread()? } else { Selection::Field(self.field()?) });
        }
        self.depth -= 1;
        if selections.is_empty() { Err("Syntax Error: Expected Name, found \"}\".".to_string()) } else { Ok(selections) }
    }

    fn spread(&mut self) -> Result<Selection, String> {
        if self.peek_is("{") {
            return Ok(Selection::Inline(self.selections()?));
        }
        let name = self.name()?;
        if name == "on" {
            self.name()?;
            return Ok(Selection::Inline(self.selections()?));
        }
        Ok(Selection::Spread(name))
    }

    fn field(&mut self) -> Result<Field, String> {
        let alias = self.name()?;
        let name = if self.take(":") { self.name()? } else { alias.clone() };
        let arguments = if self.take("(") { self.pairs(")")? } else { BTreeMap::new() };
        while self.take("@") {
            self.name()?;
            if self.take("(") {
                self.skip_past_parenthesis()?;
            }
        }
        let fields = if self.peek_is("{") { self.selections()? } else { Vec::new() };
        Ok(Field { alias, name, arguments, fields })
    }

    fn pairs(&mut self, end: &str) -> Result<BTreeMap<String, Argument>, String> {
        let mut pairs = BTreeMap::new();
        while !self.take(end) {
            let name = self.name()?;
            self.expect(":")?;
            pairs.insert(name, self.argument()?);
        }
        Ok(pairs)
    }

    fn argument(&mut self) -> Result<Argument, String> {
        self.deeper()?;
        let argument = if self.take("$") {
            Argument::Variable(self.name()?)
        } else if self.take("{") {
            Argument::Object(self.pairs("}")?)
        } else if self.take("[") {
            let mut items = Vec::new();
            while !self.take("]") {
                items.push(self.argument()?);
            }
            Argument::List(items)
        } else if let Some(Token::Literal(value)) = self.tokens.get(self.at).cloned() {
            self.at += 1;
            Argument::Literal(value)
        } else {
            Argument::Literal(match self.name()?.as_str() {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                "null" => Value::Null,
                name => Value::String(name.to_string()),
            })
        };
        self.depth -= 1;
        Ok(argument)
    }
}

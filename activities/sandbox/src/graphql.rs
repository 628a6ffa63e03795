//! GraphQL: a document is parsed and validated against Railway's schema, and answered as it selects.
//!
//! What an object's field is comes from a [`Resolver`]; aliases, fragments, coercion and introspection are
//! apollo-compiler's.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use apollo_compiler::ast::Type;
use apollo_compiler::executable::Operation;
use apollo_compiler::parser::Parser;
use apollo_compiler::resolvers::{Execution, FieldError, ObjectValue, ResolveInfo, ResolvedValue};
use apollo_compiler::response::{GraphQLError, JsonMap};
use apollo_compiler::validation::Valid;
use apollo_compiler::{ExecutableDocument, Schema};
use serde_json::{Map, Value, json};

use crate::request::Answer;

/// Of larger or deeper documents none is read.
const TOKENS_MAX: usize = 10_000;
const DEPTH_MAX: usize = 100;
/// So many documents are kept after they have been validated. A client has a few dozen.
const KEPT_MAX: usize = 256;

static SCHEMA: LazyLock<Option<Valid<Schema>>> = LazyLock::new(|| {
    let text = include_str!("../../contracts/railway.graphql");
    Schema::parse_and_validate(text, "railway.graphql").ok()
});
static KEPT: Mutex<BTreeMap<String, Arc<Valid<ExecutableDocument>>>> = Mutex::new(BTreeMap::new());

/// A request whose document is valid.
pub(crate) struct Asked {
    document: Arc<Valid<ExecutableDocument>>,
    name: Option<String>,
    variables: JsonMap,
}

/// Where the values of fields come from.
pub(crate) trait Resolver {
    /// A field of the query or the mutation.
    fn root(&self, field: &str, arguments: &Value) -> Result<Value, String>;
    /// A field that is not in the object itself: its type, what it holds, and how the field was called.
    fn related(&self, kind: &str, object: &Value, field: &str, arguments: &Value) -> Result<Value, String>;
}

/// The answer to a request that is not executed.
fn refused(errors: Vec<Value>) -> Answer {
    Answer::json(400, json!({"errors": errors}))
}

fn problem(code: &str, message: &str) -> Answer {
    refused(vec![json!({"message": message, "extensions": {"code": code}})])
}

fn coded(error: &GraphQLError, code: &str) -> Value {
    let mut error = serde_json::to_value(error).unwrap_or_default();
    error["extensions"] = json!({"code": code});
    error
}

impl Asked {
    /// Reads a request's body: `query`, `variables`, `operationName`.
    pub(crate) fn read(body: &Value) -> Result<Self, Answer> {
        let Some(query) = body.get("query").and_then(Value::as_str) else {
            return Err(problem("BAD_REQUEST", "GraphQL operations must contain a non-empty `query`."));
        };
        let document = validated(query)?;
        let name = match body.get("operationName") {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) => Some(name.clone()),
            Some(_) => return Err(problem("BAD_REQUEST", "`operationName` must be a string.")),
        };
        let variables = match body.get("variables") {
            None | Some(Value::Null) => JsonMap::new(),
            Some(Value::Object(given)) => serde_json::from_value(Value::Object(given.clone()))
                .map_err(|_| problem("BAD_REQUEST", "`variables` must be an object."))?,
            Some(_) => return Err(problem("BAD_REQUEST", "`variables` must be an object.")),
        };
        let asked = Self { document, name, variables };
        let operation =
            asked.operation().map_err(|message| problem("OPERATION_RESOLUTION_FAILURE", &message))?;
        let schema = schema()?;
        apollo_compiler::request::coerce_variable_values(schema, operation, &asked.variables).map_err(
            |error| refused(vec![coded(&error.to_graphql_error(&asked.document.sources), "BAD_USER_INPUT")]),
        )?;
        Ok(asked)
    }

    fn operation(&self) -> Result<&Operation, String> {
        let found = self.document.operations.get(self.name.as_deref());
        found.map(|operation| &**operation).map_err(|error| error.message().to_string())
    }

    /// The first field that is not about the schema: the call.
    pub(crate) fn first_field(&self) -> Option<&str> {
        let fields = self.operation().ok()?.root_fields(&self.document);
        fields.map(|field| field.name.as_str()).find(|name| !name.starts_with("__"))
    }

    /// Answers exactly what was selected.
    pub(crate) fn execute(&self, resolver: &dyn Resolver) -> Answer {
        let (schema, operation) = match (schema(), self.operation()) {
            (Ok(schema), Ok(operation)) => (schema, operation),
            (Err(answer), _) => return answer,
            (_, Err(message)) => return problem("OPERATION_RESOLUTION_FAILURE", &message),
        };
        let root = Object { resolver, kind: operation.object_type().to_string(), value: None };
        let execution = Execution::new(schema, &self.document)
            .operation(operation)
            .raw_variable_values(&self.variables)
            .enable_schema_introspection(true);
        let answered = match execution.execute_sync(&root) {
            Ok(answered) => answered,
            Err(error) => {
                let error = error.to_graphql_error(&self.document.sources);
                return refused(vec![coded(&error, "BAD_USER_INPUT")]);
            }
        };
        let data = serde_json::to_value(&answered.data).unwrap_or_default();
        if answered.errors.is_empty() {
            return Answer::json(200, json!({"data": data}));
        }
        let errors: Vec<Value> = answered
            .errors
            .iter()
            .map(|error| {
                let mut error = error.clone();
                if let Some(message) = error.message.strip_prefix("resolver error: ") {
                    error.message = message.to_owned();
                }
                let mut error = coded(&error, "INTERNAL_SERVER_ERROR");
                error["traceId"] = TRACE.into();
                error
            })
            .collect();
        Answer::json(200, json!({"errors": errors, "data": data}))
    }
}

/// What stands for the id of a trace.
pub(crate) const TRACE: &str = "1234567890123456789";

fn schema() -> Result<&'static Valid<Schema>, Answer> {
    SCHEMA
        .as_ref()
        .ok_or_else(|| Answer::json(500, json!({"errors": [{"message": "the schema is not valid"}]})))
}

fn validated(query: &str) -> Result<Arc<Valid<ExecutableDocument>>, Answer> {
    let kept = || KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = kept().get(query) {
        return Ok(known.clone());
    }
    let all = |errors: &apollo_compiler::validation::DiagnosticList, code: &str| {
        refused(errors.iter().map(|error| coded(&error.to_json(), code)).collect())
    };
    let parsed = Parser::new()
        .recursion_limit(DEPTH_MAX)
        .token_limit(TOKENS_MAX)
        .parse_ast(query, "query.graphql")
        .map_err(|failed| all(&failed.errors, "GRAPHQL_PARSE_FAILED"))?;
    let document = parsed
        .to_executable_validate(schema()?)
        .map_err(|failed| all(&failed.errors, "GRAPHQL_VALIDATION_FAILED"))?;
    let document = Arc::new(document);
    let mut kept = kept();
    if kept.len() >= KEPT_MAX {
        kept.clear();
    }
    kept.insert(query.to_owned(), document.clone());
    Ok(document)
}

/// An object on its way out; the root has no value.
struct Object<'r> {
    resolver: &'r dyn Resolver,
    kind: String,
    value: Option<Value>,
}

impl ObjectValue for Object<'_> {
    fn type_name(&self) -> &str {
        &self.kind
    }

    fn resolve_field<'a>(&'a self, info: &'a ResolveInfo<'a>) -> Result<ResolvedValue<'a>, FieldError> {
        let arguments = || serde_json::to_value(info.arguments()).unwrap_or_default();
        let field = info.field_name();
        let value = match &self.value {
            None => self.resolver.root(field, &arguments()),
            Some(object) => match object.get(field) {
                Some(value) => Ok(value.clone()),
                None => self.resolver.related(&self.kind, object, field, &arguments()),
            },
        };
        let value = value.map_err(|message| FieldError { message })?;
        let ty = &info.field_definition().ty;
        let is_object = info.schema().get_object(ty.inner_named_type()).is_some();
        Ok(resolved(self.resolver, ty, is_object, value))
    }
}

/// A value as its type has it: objects and lists of them are looked into.
fn resolved<'r>(resolver: &'r dyn Resolver, ty: &Type, is_object: bool, value: Value) -> ResolvedValue<'r> {
    match value {
        Value::Array(all) if ty.is_list() => {
            let item = ty.item_type().clone();
            ResolvedValue::list(all.into_iter().map(move |one| resolved(resolver, &item, is_object, one)))
        }
        Value::Object(_) if is_object && !ty.is_list() => {
            let kind = ty.inner_named_type().to_string();
            ResolvedValue::object(Object { resolver, kind, value: Some(value) })
        }
        leaf => ResolvedValue::leaf(leaf_value(leaf)),
    }
}

fn leaf_value(value: Value) -> apollo_compiler::response::JsonValue {
    serde_json::from_value(value).unwrap_or_default()
}

/// A page of a list in Relay's form, as `first`, `after`, `last` and `before` ask for.
pub(crate) fn connection(all: Vec<Value>, arguments: &Value, page: usize) -> Value {
    let number = |name: &str| {
        arguments.get(name).and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok())
    };
    let cursor = |name: &str| {
        arguments.get(name).and_then(Value::as_str).and_then(|cursor| cursor.parse::<usize>().ok())
    };
    let total = all.len();
    let mut start = cursor("after").unwrap_or(0).min(total);
    let mut end = cursor("before").map_or(total, |before| before.saturating_sub(1)).clamp(start, total);
    match (number("first"), number("last")) {
        (Some(first), _) => end = end.min(start.saturating_add(first)),
        (None, Some(last)) => start = start.max(end.saturating_sub(last)),
        (None, None) => end = end.min(start.saturating_add(page)),
    }
    let nodes = all.into_iter().enumerate().skip(start).take(end - start);
    let edges: Vec<Value> =
        nodes.map(|(at, node)| json!({"cursor": (at + 1).to_string(), "node": node})).collect();
    // The last page has a cursor too.
    let ends: Map<String, Value> = [("startCursor", edges.first()), ("endCursor", edges.last())]
        .into_iter()
        .map(|(name, edge)| (name.to_owned(), edge.map_or(Value::Null, |edge| edge["cursor"].clone())))
        .collect();
    let mut info = json!({"hasNextPage": end < total, "hasPreviousPage": start > 0});
    if let Value::Object(info) = &mut info {
        info.extend(ends);
    }
    json!({"edges": edges, "pageInfo": info})
}

/// Answers what is about the schema alone.
pub(crate) struct Nothing;

impl Resolver for Nothing {
    fn root(&self, _: &str, _: &Value) -> Result<Value, String> {
        Err("Problem processing request".to_owned())
    }

    fn related(&self, _: &str, _: &Value, _: &str, _: &Value) -> Result<Value, String> {
        Err("Problem processing request".to_owned())
    }
}

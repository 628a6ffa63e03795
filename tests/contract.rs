//! The contracts in `activities/contracts`, to hold a request and its answer against.

use std::collections::BTreeMap;
use std::path::Path;

use apollo_compiler::validation::Valid;
use apollo_compiler::{ExecutableDocument, Schema};
use serde_json::{Map, Value, json};

use crate::recorder::Exchange;

/// All contracts.
pub struct Contracts {
    by_provider: BTreeMap<String, Value>,
    observed: Value,
    graphql: Valid<Schema>,
}

/// By the beginning of a path at the sandbox, the provider; what follows is the contract's path.
const PLACES: &[(&str, &str)] = &[
    ("/railway", "railway"),
    ("/openrouter/api/v1", "openrouter"),
    ("/agentmail", "agentmail"),
    ("/telnyx/v2", "telnyx"),
    ("/ghcr", "ghcr"),
    ("/runtime", "runtime"),
];

/// A call that a contract knows.
struct Known<'c> {
    provider: &'static str,
    operation: String,
    contract: &'c Value,
}

impl Default for Contracts {
    fn default() -> Self {
        Self::load()
    }
}

impl Contracts {
    pub fn load() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../activities/contracts");
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        let parse = |name: &str| serde_json::from_str::<Value>(&read(name)).unwrap();
        let by_provider =
            PLACES.iter().map(|(_, name)| ((*name).to_owned(), parse(&format!("{name}.json")))).collect();
        let graphql = Schema::parse_and_validate(read("railway.graphql"), "railway.graphql").unwrap();
        Self { by_provider, observed: parse("observed.json"), graphql }
    }

    /// The names of a provider's operations.
    pub fn operations(&self, provider: &str) -> Vec<String> {
        self.by_provider[provider]["operations"].as_object().unwrap().keys().cloned().collect()
    }

    /// Whether a contract says that this call may have an answer of this status.
    pub fn lists(&self, provider: &str, operation: &str, status: u16) -> bool {
        let contract = &self.by_provider[provider]["operations"][operation];
        self.answer(provider, operation, contract, status).is_some()
    }

    /// The call, as `provider.operation`, and what in it or its answer is not as the contract has it.
    pub fn check(&self, exchange: &Exchange) -> (String, Vec<String>) {
        let Some(known) = self.known(exchange) else {
            let call = format!("{} {}", exchange.method, exchange.path);
            return (call.clone(), vec![format!("no contract knows {call}")]);
        };
        let mut wrong = Vec::new();
        self.check_request(&known, exchange, &mut wrong);
        if let Some(answer) = &exchange.answer {
            self.check_answer(&known, exchange, answer.status, &answer.headers, &answer.body, &mut wrong);
        }
        (format!("{}.{}", known.provider, known.operation), wrong)
    }

    fn known(&self, exchange: &Exchange) -> Option<Known<'_>> {
        let (place, provider) = PLACES.iter().find(|(place, _)| exchange.path.starts_with(place))?;
        let rest = exchange.path.strip_prefix(place)?;
        // The first part of the runtime's path is the domain.
        let rest =
            if *provider == "runtime" { rest.trim_start_matches('/').split_once('/')?.1 } else { rest };
        let path: Vec<&str> = rest.split('/').filter(|part| !part.is_empty()).collect();
        let operations = self.by_provider[*provider]["operations"].as_object()?;
        let root = (*provider == "railway").then(|| self.root_field(&exchange.body)).flatten();
        let (operation, contract) = operations.iter().find(|(name, contract)| {
            let template: Vec<&str> =
                contract["path"].as_str().unwrap().split('/').filter(|part| !part.is_empty()).collect();
            let is_root = *provider != "railway" || root.as_ref() == Some(*name);
            contract["method"] == exchange.method.as_str() && fits(&template, &path) && is_root
        })?;
        Some(Known { provider, operation: operation.clone(), contract })
    }

    fn root_field(&self, body: &Value) -> Option<String> {
        let document =
            ExecutableDocument::parse(&self.graphql, body["query"].as_str()?, "query.graphql").ok()?;
        let operation = document.operations.iter().next()?;
        operation.root_fields(&document).next().map(|field| field.name.to_string())
    }

    fn check_request(&self, known: &Known<'_>, exchange: &Exchange, wrong: &mut Vec<String>) {
        let root = &self.by_provider[known.provider];
        let parameters: Vec<&Value> = known.contract["parameters"].as_array().into_iter().flatten().collect();
        for parameter in parameters.iter().filter(|one| one["required"] == true && one["in"] == "header") {
            let name = parameter["name"].as_str().unwrap().to_lowercase();
            match exchange.headers.get(&name) {
                Some(value) => validate(root, &parameter["schema"], &json!(value), &name, wrong),
                None => wrong.push(format!("the header {name} is missing")),
            }
        }
        let queried: Vec<&&Value> = parameters.iter().filter(|one| one["in"] == "query").collect();
        for needed in queried.iter().filter(|one| one["required"] == true) {
            let name = needed["name"].as_str().unwrap();
            if !exchange.query.iter().any(|(given, _)| given == name) {
                wrong.push(format!("the parameter {name} is missing"));
            }
        }
        for (name, value) in &exchange.query {
            let named = queried.iter().find(|one| one["name"] == name.as_str());
            let parts: Vec<&str> = name.split(['[', ']']).filter(|part| !part.is_empty()).collect();
            let deep = || {
                let base =
                    queried.iter().find(|one| one["name"] == parts[0] && one["style"] == "deepObject")?;
                parts[1..].iter().try_fold(&base["schema"], |schema, part| schema["properties"].get(*part))
            };
            match named.map(|one| &one["schema"]).or_else(deep) {
                Some(schema) => {
                    let value = from_text(value, schema);
                    validate(root, schema, &value, &format!("the parameter {name}"), wrong);
                }
                None => wrong.push(format!("the parameter {name} is not in the contract")),
            }
        }
        match known.contract.get("request") {
            Some(request) if exchange.body.is_null() => {
                if request["required"] == true {
                    wrong.push("the body is missing".to_owned());
                }
            }
            // A field that the contract does not know is a mistake of ours.
            Some(request) => {
                validate(&closed(root), &closed(&request["body"]), &exchange.body, "the request", wrong)
            }
            None if exchange.body.is_null() => {}
            None => wrong.push("there is a body".to_owned()),
        }
        if known.provider == "railway" {
            self.check_document(&exchange.body, wrong);
        }
    }

    /// A document and its variables, by Railway's schema.
    fn check_document(&self, body: &Value, wrong: &mut Vec<String>) {
        let query = body["query"].as_str().unwrap_or_default();
        let document = match ExecutableDocument::parse_and_validate(&self.graphql, query, "query.graphql") {
            Ok(document) => document,
            Err(failed) => return wrong.push(failed.errors.to_string()),
        };
        let Ok(operation) = document.operations.get(body["operationName"].as_str()) else {
            return wrong.push("which operation is meant is not clear".to_owned());
        };
        let variables = body["variables"].as_object().cloned().unwrap_or_default();
        for name in variables.keys() {
            if !operation.variables.iter().any(|variable| variable.name == name.as_str()) {
                wrong.push(format!("the variable {name} is not declared"));
            }
        }
        let coerced = serde_json::from_value(Value::Object(variables.clone())).unwrap();
        if let Err(error) =
            apollo_compiler::request::coerce_variable_values(&self.graphql, operation, &coerced)
        {
            wrong.push(error.message().to_string());
        }
        if let Some(patch) = variables.get("patch") {
            let root = closed(&self.by_provider["railway"]);
            validate(&root, &json!({"$ref": "#/schemas/EnvironmentConfig"}), patch, "the patch", wrong);
        }
    }

    /// What the contract says of an answer of this status, and whether it was only observed.
    fn answer<'c>(
        &'c self,
        provider: &str,
        operation: &str,
        contract: &'c Value,
        status: u16,
    ) -> Option<(&'c Value, bool)> {
        let family = format!("{}XX", status / 100);
        let answers = &contract["answers"];
        if let Some(said) = answers.get(status.to_string()).or_else(|| answers.get(&family)) {
            return Some((said, false));
        }
        let seen = self.observed["answers"].as_array().unwrap().iter().find(|seen| {
            let operations = seen["operations"].as_array().unwrap();
            seen["provider"] == provider
                && seen["status"] == status.to_string().as_str()
                && operations.iter().any(|one| one == "*" || one == operation)
        });
        seen.map(|seen| (seen, true))
    }

    fn check_answer(
        &self,
        known: &Known<'_>,
        exchange: &Exchange,
        status: u16,
        headers: &BTreeMap<String, String>,
        body: &str,
        wrong: &mut Vec<String>,
    ) {
        let root = &self.by_provider[known.provider];
        let found = self.answer(known.provider, &known.operation, known.contract, status);
        let Some((said, is_observed)) = found else {
            return wrong.push(format!("no contract has the status {status}"));
        };
        for (name, header) in said["headers"].as_object().into_iter().flatten() {
            match headers.get(name) {
                Some(value) => {
                    let value = from_text(value, &header["schema"]);
                    validate(root, &header["schema"], &value, name, wrong);
                }
                None if header["required"] == true => wrong.push(format!("the header {name} is missing")),
                None => {}
            }
        }
        match said.get("body") {
            _ if exchange.method == "HEAD" => {}
            Some(schema) => {
                let is_json =
                    headers.get("content-type").is_some_and(|kind| kind.starts_with("application/json"));
                if !is_json {
                    wrong.push(format!("the answer's kind is {:?}", headers.get("content-type")));
                }
                match serde_json::from_str::<Value>(body) {
                    Ok(body) => validate(root, schema, &body, &format!("the answer ({status})"), wrong),
                    Err(_) => wrong.push(format!("the answer is not JSON: {body}")),
                }
            }
            None if is_observed || body.is_empty() => {}
            None => wrong.push(format!("the answer has a body: {body}")),
        }
    }
}

/// Whether a path is one of a template's; an image's name has several parts.
fn fits(template: &[&str], path: &[&str]) -> bool {
    match (template.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((&"{name}", rest)), Some(_)) => (1..=path.len()).any(|taken| fits(rest, &path[taken..])),
        (Some((part, rest)), Some((given, more))) => {
            (part.starts_with('{') || part == given) && fits(rest, more)
        }
        _ => false,
    }
}

/// The text of a parameter or header as its schema's type has it.
fn from_text(text: &str, schema: &Value) -> Value {
    match schema["type"].as_str() {
        Some("array") => json!([text]),
        Some("integer" | "number" | "boolean") => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
        None if schema["type"].as_array().is_some_and(|all| all.contains(&json!("integer"))) => {
            serde_json::from_str(text).unwrap_or_else(|_| json!(text))
        }
        None => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
        _ => json!(text),
    }
}

/// The same schemas, with no field that they do not name.
fn closed(schema: &Value) -> Value {
    match schema {
        Value::Object(given) => {
            let mut all: Map<String, Value> =
                given.iter().map(|(name, value)| (name.clone(), closed(value))).collect();
            let is_schema = given.get("properties").is_some_and(Value::is_object);
            if is_schema && given.contains_key("type") && !given.contains_key("additionalProperties") {
                all.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            Value::Object(all)
        }
        Value::Array(all) => all.iter().map(closed).collect(),
        other => other.clone(),
    }
}

fn validate(root: &Value, schema: &Value, value: &Value, what: &str, wrong: &mut Vec<String>) {
    const PLACE: &str = "https://contracts.invalid/one.json";
    let whole = json!({"schemas": root["schemas"], "allOf": [local(schema)]});
    let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
    compiler.set_default_draft(boon::Draft::V2020_12);
    compiler.enable_format_assertions();
    compiler.add_resource(PLACE, whole).unwrap();
    let index = compiler.compile(PLACE, &mut schemas).unwrap();
    if let Err(error) = schemas.validate(value, index) {
        wrong.push(format!("{what}: {error:#}"));
    }
}

/// A reference to another file is to that provider's own.
fn local(schema: &Value) -> Value {
    match schema {
        Value::Object(given) => given
            .iter()
            .map(|(name, value)| match value.as_str().and_then(|text| text.split_once(".json#")) {
                Some((_, rest)) if name == "$ref" => (name.clone(), json!(format!("#{rest}"))),
                _ => (name.clone(), local(value)),
            })
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(all) => all.iter().map(local).collect(),
        other => other.clone(),
    }
}

//! Contracts: what a provider's specification, and what was observed of it, let an answer mean.
//!
//! Read from `activities/contracts`, which is made from the specifications; nothing here knows our tables.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

/// What may be concluded from an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claim {
    /// It was done, or what was asked for is in the answer.
    Done,
    /// It was not done and will not be.
    Refused,
    /// It is not there.
    Gone,
    /// It is not there, or the credential or the permission is wrong.
    Ambiguous,
    /// It was not done; later it may be.
    NotDone,
}

pub(super) struct Contracts {
    files: BTreeMap<String, Value>,
    /// Railway's types: field by field, with the type as GraphQL writes it.
    types: BTreeMap<String, BTreeMap<String, String>>,
    enums: BTreeSet<String>,
}

/// By these fields a thing is known, and around them everything else is packed. Of all others a provider may leave one
/// out, and what was done is done.
const ESSENTIAL: &[&str] = &[
    "data",
    "meta",
    "total_pages",
    "key",
    "deleted",
    "hash",
    "name",
    "inboxes",
    "inbox_id",
    "count",
    "id",
    "phone_number",
    "status",
    "token",
    "ok",
    "ready",
    "version",
    "digest",
    "clean",
    "pending",
    "conversationId",
    "errors",
    "error",
    "code",
    "message",
];

/// The same of Railway's types, whose fields are those that were asked for.
const RAILWAY: &[&str] = &[
    "id",
    "edges",
    "node",
    "pageInfo",
    "hasNextPage",
    "workspaces",
    "services",
    "volumeInstances",
    "volumeId",
    "serviceDomains",
    "domain",
    "status",
];

/// The objects that we ask for inside an answer of Railway's.
fn asked(operation: &str) -> &'static [&'static str] {
    match operation {
        "apiToken" => &["workspaces"],
        "projects" | "deployments" | "environmentPatches" => &["edges", "node", "pageInfo"],
        "project" => &["services", "edges", "node"],
        "environment" => &["volumeInstances", "edges", "node", "pageInfo"],
        "domains" => &["serviceDomains"],
        _ => &[],
    }
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/contracts"))
}

impl Contracts {
    pub(super) fn read() -> Self {
        let names = ["railway", "openrouter", "agentmail", "telnyx", "ghcr", "runtime", "observed"];
        let file = |name: &str| {
            let text = std::fs::read(folder().join(format!("{name}.json"))).unwrap();
            (name.to_owned(), serde_json::from_slice(&text).unwrap())
        };
        let mut contracts =
            Self { files: names.map(file).into(), types: BTreeMap::new(), enums: BTreeSet::new() };
        let schema = std::fs::read_to_string(folder().join("railway.graphql")).unwrap();
        let mut current: Option<String> = None;
        for line in schema.lines() {
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("type"), Some(name)) => current = Some(name.to_owned()),
                (Some("enum"), Some(name)) => {
                    contracts.enums.insert(name.to_owned());
                }
                (Some("}"), _) => current = None,
                _ => {}
            }
            if let (Some(name), Some((field, kind))) = (&current, line.trim().rsplit_once(": ")) {
                let field = field.split('(').next().unwrap_or(field);
                let kind = kind.split(' ').next().unwrap_or(kind);
                contracts.types.entry(name.clone()).or_default().insert(field.to_owned(), kind.to_owned());
            }
        }
        contracts
    }

    pub(super) fn has(&self, provider: &str, operation: &str) -> bool {
        self.files[provider]["operations"].get(operation).is_some()
    }

    /// Whether the contract lets this answer mean this.
    pub(super) fn allow(
        &self,
        claim: Claim,
        provider: &str,
        operation: &str,
        status: u16,
        body: Option<&Value>,
        digest: Option<&str>,
    ) -> bool {
        match claim {
            Claim::Done => self.is_done(provider, operation, status, body, digest),
            Claim::Refused => self.says(provider, operation, status, body, &["refused", "exists", "gone"]),
            Claim::Gone => self.says(provider, operation, status, body, &["gone"]),
            Claim::Ambiguous => {
                self.says(provider, operation, status, body, &["ambiguous", "gone", "credential"])
            }
            Claim::NotDone => self.says(
                provider,
                operation,
                status,
                body,
                &["refused", "exists", "gone", "credential", "rate_limited", "wait", "ambiguous"],
            ),
        }
    }

    fn is_done(
        &self,
        provider: &str,
        operation: &str,
        status: u16,
        body: Option<&Value>,
        digest: Option<&str>,
    ) -> bool {
        if !(200..300).contains(&status) {
            return false;
        }
        let Some(answer) = self.files[provider]["operations"][operation]["answers"].get(status.to_string())
        else {
            return false;
        };
        if provider == "ghcr" && operation == "getManifest" {
            let is_hex = |digits: &str| {
                digits.len() == 64 && digits.bytes().all(|byte| b"0123456789abcdef".contains(&byte))
            };
            return digest.is_some_and(|digest| digest.strip_prefix("sha256:").is_some_and(is_hex));
        }
        let (Some(schema), Some(body)) = (answer.get("body"), body) else {
            return answer.get("body").is_none() && body.is_none();
        };
        let says_otherwise = ["error", "errors"].iter().any(|name| match body.get(name) {
            None | Some(Value::Null) => false,
            Some(Value::Array(all)) => !all.is_empty(),
            Some(_) => true,
        });
        // Null is as good as absent here, though the specification of GraphQL asks for the latter.
        let mut body = body.clone();
        for name in ["error", "errors"] {
            if let Some(fields) =
                body.as_object_mut().filter(|fields| fields.get(name).is_some_and(Value::is_null))
            {
                fields.remove(name);
            }
        }
        let body = &body;
        if says_otherwise || !self.conforms(provider, schema, body) {
            return false;
        }
        if provider != "railway" {
            return true;
        }
        let kind = self.files[provider]["operations"][operation]["type"].as_str().unwrap_or_default();
        let data = body.pointer(&format!("/data/{operation}"));
        let is_true = kind != "Boolean!" || data == Some(&json!(true));
        is_true && data.is_some_and(|data| self.is_of_type(kind, data))
    }

    /// Whether one of these meanings is known of this answer.
    fn says(
        &self,
        provider: &str,
        operation: &str,
        status: u16,
        body: Option<&Value>,
        meanings: &[&str],
    ) -> bool {
        let Some(body) = body else { return false };
        let observed = &self.files["observed"];
        let concerns = |entry: &Value| {
            entry["provider"] == provider
                && entry["status"] == status.to_string().as_str()
                && entry["operations"]
                    .as_array()
                    .is_some_and(|all| all.iter().any(|one| one == "*" || one == operation))
        };
        let means = |entry: &Value| entry["means"].as_str().is_some_and(|means| meanings.contains(&means));
        // With GraphQL what comes beside the data of a mutation says nothing.
        let is_half = provider == "railway"
            && match body.get("data") {
                None | Some(Value::Null) => false,
                Some(Value::Object(fields)) => fields.values().any(|field| !field.is_null()),
                Some(_) => true,
            };
        if is_half || !self.is_error_of(provider, operation, status, body) {
            return false;
        }
        let has_errors = matches!(provider, "railway" | "telnyx" | "ghcr");
        let all_errors: Vec<Value> = match body.get("errors").and_then(Value::as_array).filter(|_| has_errors)
        {
            // Each of several errors has to mean one of these.
            Some(errors) => errors.iter().map(|error| json!({"errors": [error]})).collect(),
            None => vec![body.clone()],
        };
        if all_errors.is_empty() {
            return false;
        }
        let codes = observed["codes"].as_array().unwrap();
        let fits = |code: &Value, body: &Value| {
            let value = code["pointer"].as_str().and_then(|at| body.pointer(at));
            match (code.get("equals"), code.get("contains").and_then(Value::as_str)) {
                (Some(wanted), _) => value == Some(wanted),
                (_, Some(part)) => value
                    .and_then(Value::as_str)
                    .is_some_and(|text| text.to_lowercase().contains(&part.to_lowercase())),
                _ => false,
            }
        };
        let by_code =
            |body: &Value| codes.iter().any(|code| concerns(code) && means(code) && fits(code, body));
        if all_errors.iter().all(by_code) {
            return true;
        }
        // What is known of the status alone, where its body is an error of the provider's.
        let by_status =
            observed["answers"].as_array().unwrap().iter().any(|answer| concerns(answer) && means(answer));
        let has_code =
            codes.iter().any(|code| concerns(code) && all_errors.iter().any(|one| fits(code, one)));
        let specified = match status {
            400 | 409 | 412 | 422 => meanings.contains(&"refused"),
            401 => meanings.contains(&"credential"),
            429 if provider == "runtime" => meanings.contains(&"rate_limited"),
            _ => false,
        } && self.answer(provider, operation, status).is_some();
        // A code that is known says more than the status does.
        !has_code && (by_status || specified) && (has_errors || provider == "runtime")
    }

    fn answer(&self, provider: &str, operation: &str, status: u16) -> Option<&Value> {
        let answers = &self.files[provider]["operations"][operation]["answers"];
        let family = format!("{}XX", status / 100);
        answers.get(status.to_string()).or_else(|| answers.get(family))
    }

    /// Whether a body has the form that the provider's errors of this status have.
    fn is_error_of(&self, provider: &str, operation: &str, status: u16, body: &Value) -> bool {
        let specified = self.answer(provider, operation, status).and_then(|answer| answer.get("body"));
        let observed = self.files["observed"]["answers"].as_array().unwrap().iter().filter(|answer| {
            answer["provider"] == provider
                && answer["status"] == status.to_string().as_str()
                && answer["operations"]
                    .as_array()
                    .is_some_and(|all| all.iter().any(|one| one == "*" || one == operation))
        });
        // The gateway's own, of which the documentation gives the whole body.
        if provider == "agentmail" && status == 403 && body == &json!({"message": "Forbidden"}) {
            return true;
        }
        let observed = observed.filter_map(|answer| answer.get("body"));
        body.is_object()
            && specified.into_iter().chain(observed).any(|schema| self.conforms(provider, schema, body))
    }

    /// Whether a value conforms to a schema, as far as the essential fields go.
    fn conforms(&self, file: &str, schema: &Value, value: &Value) -> bool {
        if let Some(reference) = schema["$ref"].as_str() {
            let (other, name) = reference.split_once("#/schemas/").unwrap();
            let file = other.strip_suffix(".json").filter(|name| !name.is_empty()).unwrap_or(file);
            return self.conforms(file, &self.files[file]["schemas"][name], value);
        }
        for (keyword, all) in [("anyOf", false), ("oneOf", false), ("allOf", true)] {
            if let Some(arms) = schema[keyword].as_array() {
                let mut arms = arms.iter().map(|arm| self.conforms(file, arm, value));
                if !(if all { arms.all(|fits| fits) } else { arms.any(|fits| fits) }) {
                    return false;
                }
            }
        }
        let is_of = |kind: &str| match kind {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            other => panic!("the type {other} is not known"),
        };
        let is_typed = match &schema["type"] {
            Value::String(kind) => is_of(kind),
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).any(is_of),
            _ => true,
        };
        let is_constant = schema.get("const").is_none_or(|wanted| wanted == value)
            // A status that is new is a status; what is adopted has a known one.
            && (file == "telnyx" || schema["enum"].as_array().is_none_or(|all| all.contains(value)));
        if !is_typed || !is_constant {
            return false;
        }
        if let (Some(items), Some(values)) = (schema.get("items"), value.as_array())
            && !values.iter().all(|value| self.conforms(file, items, value))
        {
            return false;
        }
        let Some(fields) = value.as_object() else { return true };
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let required: Vec<&str> = required.filter(|name| ESSENTIAL.contains(name)).collect();
        if required.iter().any(|name| !fields.contains_key(*name)) {
            return false;
        }
        let known = schema["properties"].as_object();
        known.into_iter().flatten().filter(|(name, _)| ESSENTIAL.contains(&name.as_str())).all(
            |(name, schema)| {
                let is_optional = required.iter().all(|required| required != name);
                fields.get(name).is_none_or(|value| {
                    // Its definition says "optional", and both forms of that are in use.
                    let is_left_out = file == "agentmail" && is_optional && value.is_null();
                    is_left_out || self.conforms(file, schema, value)
                })
            },
        )
    }

    /// Whether a value can be of this type of Railway's. What was not selected is not there.
    fn is_of_type(&self, kind: &str, value: &Value) -> bool {
        if let Some(inner) = kind.strip_suffix('!') {
            return !value.is_null() && self.is_of_type(inner, value);
        }
        if value.is_null() {
            return true;
        }
        if let Some(inner) = kind.strip_prefix('[').and_then(|kind| kind.strip_suffix(']')) {
            return value.as_array().is_some_and(|all| all.iter().all(|one| self.is_of_type(inner, one)));
        }
        match kind {
            "String" | "ID" | "DateTime" => value.is_string(),
            "Boolean" => value.is_boolean(),
            "Int" => value.is_i64() || value.is_u64(),
            "Float" => value.is_number(),
            _ if self.enums.contains(kind) => value.is_string(),
            _ => {
                // A scalar of its own, as `DeploymentMeta`, is anything.
                let Some(fields) = self.types.get(kind) else { return true };
                let Some(object) = value.as_object() else { return false };
                let of_connection = |name: &str| !fields.contains_key(name) || object.contains_key(name);
                let is_connection = of_connection("edges") && of_connection("node");
                is_connection
                    && object
                        .iter()
                        .filter(|(name, _)| RAILWAY.contains(&name.as_str()))
                        .all(|(name, value)| fields.get(name).is_none_or(|kind| self.is_of_type(kind, value)))
            }
        }
    }

    /// A value that conforms to the schema of an answer, with every field in it.
    pub(super) fn sample(&self, provider: &str, operation: &str) -> Option<(u16, Value)> {
        let operations = &self.files[provider]["operations"][operation];
        let (status, answer) =
            operations["answers"].as_object()?.iter().find(|(status, _)| status.starts_with('2'))?;
        let status = status.parse().ok()?;
        if provider == "railway" {
            let kind = operations["type"].as_str()?;
            return Some((
                status,
                json!({"data": {operation: self.sample_of_type(kind, asked(operation), 0)}}),
            ));
        }
        Some((status, answer.get("body").map_or(Value::Null, |schema| self.sample_of(provider, schema, 0))))
    }

    fn sample_of(&self, file: &str, schema: &Value, depth: usize) -> Value {
        if let Some(reference) = schema["$ref"].as_str() {
            let (other, name) = reference.split_once("#/schemas/").unwrap();
            let file = other.strip_suffix(".json").filter(|name| !name.is_empty()).unwrap_or(file);
            return self.sample_of(file, &self.files[file]["schemas"][name], depth);
        }
        if let Some(constant) = schema.get("const").or_else(|| schema["enum"].get(0)) {
            return constant.clone();
        }
        let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
        match kind {
            Some("object") if depth < 6 => {
                let fields = schema["properties"].as_object();
                let fields = fields.into_iter().flatten();
                // An answer that has errors is none of those that are wanted.
                fields
                    .filter(|(name, _)| *name != "errors" && *name != "error")
                    .map(|(name, schema)| (name.clone(), self.sample_of(file, schema, depth + 1)))
                    .collect()
            }
            Some("array") if depth < 6 => json!([self.sample_of(file, &schema["items"], depth + 1)]),
            Some("array") => json!([]),
            Some("integer" | "number") => json!(1),
            Some("boolean") => json!(true),
            Some("string") => json!("sample"),
            _ => Value::Null,
        }
    }

    fn sample_of_type(&self, kind: &str, asked: &[&str], depth: usize) -> Value {
        let kind = kind.trim_end_matches('!');
        if let Some(inner) = kind.strip_prefix('[').and_then(|kind| kind.strip_suffix(']')) {
            return json!([self.sample_of_type(inner, asked, depth)]);
        }
        match kind {
            "String" | "ID" => json!("sample"),
            "DateTime" => json!("2026-11-27T12:00:00.000Z"),
            "Boolean" => json!(depth == 0),
            "Int" => json!(1),
            "Float" => json!(1.5),
            "WorkflowStatus" => json!("Complete"),
            _ if self.enums.contains(kind) => json!("READY"),
            _ => {
                let fields = self.types.get(kind).into_iter().flatten();
                let is_object = |kind: &str| self.types.contains_key(kind.trim_matches(['[', ']', '!']));
                fields
                    .filter(|(name, kind)| !is_object(kind) || asked.contains(&name.as_str()))
                    .map(|(name, kind)| match name.as_str() {
                        "deletedAt" => (name.clone(), Value::Null),
                        _ => (name.clone(), self.sample_of_type(kind, asked, depth + 1)),
                    })
                    .collect()
            }
        }
    }

    /// Errors that the provider is known to answer: status and body.
    pub(super) fn errors(&self, provider: &str) -> Vec<(u16, Value)> {
        let codes = self.files["observed"]["codes"].as_array().unwrap().iter();
        codes
            .filter(|code| code["provider"] == provider)
            .map(|code| {
                let status = code["status"].as_str().unwrap().parse().unwrap();
                let said = code.get("equals").or_else(|| code.get("contains")).cloned().unwrap();
                (status, error(provider, code["pointer"].as_str().unwrap(), said))
            })
            .chain(
                (provider == "runtime")
                    .then(|| (409, json!({"error": "already bound", "code": "runtime_bound"}))),
            )
            .chain(
                (provider == "runtime")
                    .then(|| (412, json!({"error": "an older epoch", "code": "runtime_superseded"}))),
            )
            .collect()
    }
}

/// An error of a provider's form that says this at this place.
fn error(provider: &str, pointer: &str, said: Value) -> Value {
    let mut body = match provider {
        "railway" => {
            json!({"errors": [{"message": "m", "extensions": {"code": "INTERNAL_SERVER_ERROR"}}], "data": null})
        }
        "openrouter" => json!({"error": {"code": 0, "message": "m"}}),
        "agentmail" => json!({"name": "Error", "code": "c", "message": "m", "errors": []}),
        "telnyx" | "ghcr" => json!({"errors": [{"code": "c", "title": "t", "detail": "d", "message": "m"}]}),
        _ => json!({"error": "e"}),
    };
    if let Some(place) = body.pointer_mut(pointer) {
        *place = said;
    }
    body
}

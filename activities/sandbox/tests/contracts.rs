//! The contracts of the calls that we use: their form, and that they speak of what the sandbox plays.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// No text in a contract is longer, addresses apart: a vendor's sentence is.
const TEXT_MAX: usize = 64;
const MEANINGS: &[&str] =
    &["refused", "exists", "gone", "credential", "rate_limited", "wait", "ambiguous", "in_doubt", "by_code"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../contracts")
}

fn contract(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder().join(name)).unwrap()).unwrap()
}

const PROVIDERS: &[&str] = &["railway", "openrouter", "agentmail", "telnyx", "ghcr", "runtime"];

/// Walks a schema: each keyword is one of those that say a fact, and each reference leads somewhere.
fn check_schema(file: &str, schema: &Value, at: &str) {
    let Value::Object(schema) = schema else { panic!("{file} {at}: not a schema: {schema}") };
    for (keyword, value) in schema {
        let at = format!("{at}/{keyword}");
        match keyword.as_str() {
            "properties" => each(value, |name, field| check_schema(file, field, &format!("{at}/{name}"))),
            "items" => check_schema(file, value, &at),
            "additionalProperties" if value == &Value::Bool(false) => {}
            "additionalProperties" => check_schema(file, value, &at),
            "oneOf" | "anyOf" | "allOf" => {
                value.as_array().unwrap().iter().for_each(|arm| check_schema(file, arm, &at));
            }
            "$ref" => {
                let (other, name) = value.as_str().unwrap().split_once("#/schemas/").unwrap();
                let other = if other.is_empty() { file } else { other };
                assert!(contract(other)["schemas"].get(name).is_some(), "{file} {at}: {value} leads nowhere");
            }
            "type" | "required" | "enum" | "const" | "format" | "pattern" | "minLength" | "maxLength"
            | "minimum" | "maximum" | "minItems" | "maxItems" | "maxProperties" => {}
            other => panic!("{file} {at}: {other} is not a fact"),
        }
    }
}

fn each(value: &Value, mut f: impl FnMut(&str, &Value)) {
    value.as_object().into_iter().flatten().for_each(|(name, value)| f(name, value));
}

fn only(at: &str, value: &Map<String, Value>, known: &[&str]) {
    for key in value.keys() {
        assert!(known.contains(&key.as_str()), "{at}: {key} is not of the form");
    }
}

fn check_texts(at: &str, value: &Value) {
    match value {
        Value::String(text) => {
            let is_long = text.len() > TEXT_MAX && !text.starts_with("https://") && !at.ends_with("/pattern");
            assert!(!is_long, "{at}: too long for a fact: {text}");
        }
        Value::Array(all) => all.iter().for_each(|one| check_texts(at, one)),
        Value::Object(_) => each(value, |name, value| check_texts(&format!("{at}/{name}"), value)),
        _ => {}
    }
}

fn check_answer(file: &str, answer: &Value, at: &str) {
    if let Some(body) = answer.get("body") {
        check_schema(file, body, at);
    }
    each(&answer["headers"], |name, header| {
        assert_eq!(name, name.to_lowercase(), "{file} {at}");
        check_schema(file, &header["schema"], at);
    });
}

#[test]
fn a_contract_is_facts_alone() {
    for provider in PROVIDERS {
        let file = format!("{provider}.json");
        let contract = contract(&file);
        only(
            &file,
            contract.as_object().unwrap(),
            &["provider", "base", "sources", "operations", "schemas", "errors"],
        );
        assert_eq!(contract["provider"], *provider);
        check_texts(&file, &contract);
        let sources = contract["sources"].as_array().unwrap();
        assert!(!sources.is_empty(), "{file}");
        for source in sources {
            assert!(
                source["url"].is_string() && source["date"].as_str().unwrap().starts_with("20"),
                "{file}"
            );
        }
        each(&contract["schemas"], |name, schema| check_schema(&file, schema, name));
        each(&contract["operations"], |name, operation| {
            let at = format!("{file} {name}");
            only(
                &at,
                operation.as_object().unwrap(),
                &[
                    "method",
                    "path",
                    "vendor_name",
                    "parameters",
                    "request",
                    "answers",
                    "kind",
                    "arguments",
                    "type",
                ],
            );
            let path = operation["path"].as_str().unwrap();
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                only(&at, parameter.as_object().unwrap(), &["name", "in", "required", "style", "schema"]);
                check_schema(&file, &parameter["schema"], &at);
                let name = parameter["name"].as_str().unwrap();
                assert!(parameter["in"] != "path" || path.contains(&format!("{{{name}}}")), "{at}");
            }
            if let Some(request) = operation.get("request") {
                check_schema(&file, &request["body"], &at);
            }
            let good = |status: &str| status.starts_with('2');
            assert!(operation["answers"].as_object().unwrap().keys().any(|status| good(status)), "{at}");
            each(&operation["answers"], |status, answer| check_answer(&file, answer, status));
        });
    }
}

#[test]
fn what_was_observed_has_a_mark_and_a_source() {
    let observed = contract("observed.json");
    only("observed", observed.as_object().unwrap(), &["sources", "answers", "codes"]);
    check_texts("observed.json", &observed);
    let known = ["provider", "operations", "status", "means", "mark", "sources"];
    for (part, more) in
        [("answers", &["headers", "body"][..]), ("codes", &["pointer", "equals", "contains"][..])]
    {
        for fact in observed[part].as_array().unwrap() {
            let at = fact.to_string();
            let all: Vec<&str> = known.iter().chain(more).copied().collect();
            only(&at, fact.as_object().unwrap(), &all);
            assert!(MEANINGS.contains(&fact["means"].as_str().unwrap()), "{at}");
            assert!(["spec", "docs", "inferred"].contains(&fact["mark"].as_str().unwrap()), "{at}");
            let sources = fact["sources"].as_array().unwrap();
            assert!(!sources.is_empty(), "{at}");
            for source in sources {
                assert!(observed["sources"].get(source.as_str().unwrap()).is_some(), "{at}");
            }
            let provider = fact["provider"].as_str().unwrap();
            let operations = contract(&format!("{provider}.json"))["operations"].clone();
            for operation in fact["operations"].as_array().unwrap() {
                let operation = operation.as_str().unwrap();
                assert!(operation == "*" || operations.get(operation).is_some(), "{at}");
            }
            let says = fact.get("equals").is_some() != fact.get("contains").is_some();
            assert!(part == "answers" || says, "{at}");
            check_answer("observed.json", fact, &at);
        }
    }
}

#[test]
fn the_schema_of_railway_has_no_prose() {
    let schema = std::fs::read_to_string(folder().join("railway.graphql")).unwrap();
    assert!(schema.starts_with("# https://github.com/railwayapp/cli/blob/"), "its source comes first");
    assert!(!schema.contains('"'), "a description, or a reason");
    let operations: BTreeSet<String> =
        contract("railway.json")["operations"].as_object().unwrap().keys().cloned().collect();
    let of = |root: &str| {
        let body = schema.split_once(&format!("type {root} {{\n")).unwrap().1.split_once("\n}").unwrap().0;
        let name = |line: &str| line.trim().split(['(', ':']).next().unwrap().to_owned();
        body.lines().map(name).collect::<Vec<_>>()
    };
    let fields: BTreeSet<String> = of("Query").into_iter().chain(of("Mutation")).collect();
    assert_eq!(fields, operations);
}

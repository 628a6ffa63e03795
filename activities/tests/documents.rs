//! Every GraphQL document of our client is valid by Railway's schema.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::path::Path;

use apollo_compiler::{ExecutableDocument, Schema};

/// The documents in a file: its string literals that begin as one.
fn documents(source: &str) -> Vec<&str> {
    source.split('"').filter(|text| text.starts_with("query ") || text.starts_with("mutation ")).collect()
}

#[test]
fn our_documents_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let schema = std::fs::read_to_string(folder.join("contracts/railway.graphql")).unwrap();
    let schema = Schema::parse_and_validate(schema, "railway.graphql").unwrap();
    let mut seen = 0;
    for file in std::fs::read_dir(folder.join("src/railway")).unwrap() {
        let file = file.unwrap().path();
        let source = std::fs::read_to_string(&file).unwrap();
        for document in documents(&source) {
            if let Err(wrong) = ExecutableDocument::parse_and_validate(&schema, document, &file) {
                panic!("{document}\n{}", wrong.errors);
            }
            seen += 1;
        }
    }
    assert!(seen >= 13, "only {seen} documents were found");
    println!("{seen} documents, {seen} valid");
}

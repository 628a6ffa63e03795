//! Request and answer, as the fakes see them.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{Response, StatusCode, header};
use serde_json::Value;

/// A call that came in.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Behind the provider's prefix, without the query; percent-decoded in its parts.
    pub(crate) path: Vec<String>,
    pub(crate) query: BTreeMap<String, String>,
    /// Lower-case names.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Value,
}

impl Request {
    pub(crate) fn bearer(&self) -> Option<&str> {
        self.headers.get("authorization")?.strip_prefix("Bearer ")
    }

    /// What the call names: the parts of its path, its query, the texts and names in its body, and what stands before
    /// a tag or digest in any of them.
    pub(crate) fn named(&self) -> Vec<String> {
        let mut named = self.path.clone();
        named.push(self.path.join("/"));
        // An image's name has parts of its own.
        for end in 2..self.path.len() {
            named.push(self.path.get(1..end).unwrap_or_default().join("/"));
        }
        named.extend(self.query.values().cloned());
        texts(&self.body, &mut named);
        let bare = |text: &String| {
            text.split_once('@')
                .map(|(before, _)| before.to_owned())
                .into_iter()
                .chain(
                    text.strip_prefix("repository:")
                        .and_then(|rest| Some(rest.rsplit_once(':')?.0.to_owned())),
                )
                .collect::<Vec<_>>()
        };
        let bare: Vec<String> = named.iter().flat_map(bare).collect();
        named.extend(bare);
        named
    }

    pub(crate) fn text(&self, pointer: &str) -> Option<String> {
        self.body.pointer(pointer)?.as_str().map(str::to_owned)
    }
}

/// What goes back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Option<Value>,
}

impl Answer {
    pub(crate) fn json(status: u16, body: Value) -> Self {
        Self { status, headers: Vec::new(), body: Some(body) }
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: None }
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let text = self.body.map(|body| body.to_string());
        let mut response = Response::new(Body::from(text.clone().unwrap_or_default()));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = text.map(|_| ("content-type".to_owned(), "application/json".to_owned()));
        for (name, value) in kind.into_iter().chain(self.headers) {
            if let (Ok(name), Ok(value)) = (header::HeaderName::try_from(name), value.parse()) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

fn texts(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(all) => all.iter().for_each(|one| texts(one, found)),
        Value::Object(all) => {
            for (name, one) in all {
                found.push(name.clone());
                texts(one, found);
            }
        }
        _ => {}
    }
}

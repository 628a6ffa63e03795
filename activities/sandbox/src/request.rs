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

    pub(crate) fn text(&self, pointer: &str) -> Option<String> {
        self.body.pointer(pointer)?.as_str().map(str::to_owned)
    }
}

/// What goes back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Option<Value>,
}

impl Answer {
    pub(crate) fn json(status: u16, body: Value) -> Self {
        Self { status, headers: Vec::new(), body: Some(body) }
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: None }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let text = self.body.map(|body| body.to_string());
        let mut response = Response::new(Body::from(text.clone().unwrap_or_default()));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = text.map(|_| ("content-type", "application/json".to_owned()));
        for (name, value) in self.headers.into_iter().chain(kind) {
            if let (Ok(name), Ok(value)) = (header::HeaderName::try_from(name), value.parse()) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

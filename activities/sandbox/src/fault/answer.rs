//! A spoiled answer: what a proxy in front of a provider makes of what the provider said.

use std::collections::BTreeMap;

use axum::http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is put in the place of an answer; what is not given stays as the provider said it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spoiled {
    /// The status, from 200 to 599.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Headers that are set, in place of those of the same name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<SpoiledBody>,
    /// The line drops after so many bytes of the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_after: Option<usize>,
    /// The body comes byte by byte, with so many milliseconds before each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drip_ms: Option<u64>,
    /// What `content-length` says, whatever the length is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_length: Option<u64>,
}

/// The body of a spoiled answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpoiledBody {
    /// This JSON.
    Json(Value),
    /// The provider's JSON with the members of this object added or replaced.
    Merge(Value),
    /// This text.
    Text(String),
    /// A gateway's page in HTML.
    Html,
    /// Nothing.
    Empty,
    /// The first half of what the provider said.
    Half,
    /// Arrays nested so deep.
    Deep(u32),
    /// A string of JSON so many bytes long.
    Bytes(u64),
    /// A list of JSON that never ends.
    Endless,
}

/// As deep as nesting goes: deeper than any reader takes, and no more than two megabytes of brackets.
const DEEP_MAX: u32 = 1_000_000;
/// As large as a body that ends may be.
const BYTES_MAX: u64 = 1 << 34;

impl Spoiled {
    /// Only another status.
    pub fn status(status: u16) -> Self {
        Self { status: Some(status), ..Self::default() }
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, body: SpoiledBody) -> Self {
        self.body = Some(body);
        self
    }

    /// With this header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.to_owned(), value.to_owned());
        self
    }

    /// What is wrong with it, if anything.
    pub(crate) fn problem(&self) -> Option<String> {
        if self.status.is_some_and(|status| !(200..=599).contains(&status)) {
            return Some("answer.status is a number from 200 to 599".to_owned());
        }
        for (name, value) in &self.headers {
            if HeaderName::try_from(name.as_str()).is_err() || HeaderValue::try_from(value.as_str()).is_err()
            {
                return Some(format!("answer.headers: {name:?} is not a header that can be sent"));
            }
        }
        match &self.body {
            Some(SpoiledBody::Deep(depth)) if *depth > DEEP_MAX => {
                Some(format!("answer.body.deep is at most {DEEP_MAX}"))
            }
            Some(SpoiledBody::Bytes(bytes)) if *bytes > BYTES_MAX => {
                Some(format!("answer.body.bytes is at most {BYTES_MAX}"))
            }
            Some(SpoiledBody::Merge(value)) if !value.is_object() => {
                Some("answer.body.merge is an object".to_owned())
            }
            _ => None,
        }
    }
}

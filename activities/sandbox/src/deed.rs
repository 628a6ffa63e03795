//! Deed: a call that a fake carried out, for tests that look at what happened in which order.

use serde_json::Value;

use crate::clock::Moment;
use crate::fault::Provider;
use crate::request::{Answer, Request};

/// So many are remembered.
pub(crate) const DEEDS: usize = 5000;

/// A call that was carried out. Whether its caller got to know of it is another matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// When.
    pub at: jiff::Timestamp,
    /// By whom.
    pub provider: Provider,
    /// The provider's name of it, as for faults.
    pub operation: &'static str,
    /// What it was about: an id, an address, a domain; of what is made, the name or the project it was to have.
    pub of: String,
    /// What that was to get: a messaging profile, a reference, the epoch of a claim.
    pub to: Option<String>,
    /// Whether it was answered as done.
    pub done: bool,
    /// Whether it took effect after its caller was left without an answer.
    pub late: bool,
}

impl Deed {
    pub(crate) fn new(
        (provider, operation): (Provider, &'static str),
        request: &Request,
        answer: &Answer,
        (at, late): (Moment, bool),
    ) -> Self {
        let place = if provider == Provider::Runtime { 0 } else { 1 };
        let named = || NAMES.iter().find_map(|name| request.text(name));
        let of = request.path.get(place).cloned().or_else(named).unwrap_or_default();
        let epoch = || request.headers.get("x-amends-epoch").cloned();
        let to = GIVEN.iter().find_map(|given| request.text(given)).or_else(epoch);
        let errors =
            answer.body.as_ref().and_then(|body| body.get("errors")).is_some_and(|all| *all != Value::Null);
        let done = (200..300).contains(&answer.status) && !errors;
        Self { at, provider, operation, of, to, done, late }
    }
}

/// Where a body says what it is about.
const NAMES: [&str; 7] = [
    "/variables/id",
    "/variables/environmentId",
    "/variables/input/projectId",
    "/variables/input/environmentId",
    "/variables/input/name",
    "/client_id",
    "/name",
];
/// Where a body says what it gives.
const GIVEN: [&str; 2] = ["/messaging_profile_id", "/customer_reference"];

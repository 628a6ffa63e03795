//! Problem: every answer that is not a success, as RFC 9457 has it.

use amends_engine::{ActError, store};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// What can be wrong, by a name that programs can rely on.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    strum::Display,
    strum::EnumIter,
    strum::EnumString,
    strum::IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
pub enum Code {
    /// The body or the query is not what is asked for.
    ValidationFailed,
    /// The body is not JSON.
    MalformedJson,
    /// The body is not said to be JSON.
    UnsupportedMediaType,
    /// The body is too large.
    TooLarge,
    /// The body took too long to come.
    TooSlow,
    /// An id that cannot be one.
    MalformedId,
    /// A cursor that no list of ours gave out.
    CursorInvalid,
    /// An `Idempotency-Key` that cannot be one.
    IdempotencyKeyInvalid,
    /// The key stands for something else.
    IdempotencyKeyReused,
    /// There is no such thing.
    NotFound,
    /// This path does not take this method.
    MethodNotAllowed,
    /// The thing is in a state that does not allow it.
    StateConflict,
    /// It has changed since the client read it.
    PreconditionFailed,
    /// The server runs against providers of your own.
    NoSandbox,
    /// This binary does not offer it.
    NotOffered,
    /// As many claims wait as may.
    QueueFull,
    /// Another site sent the request.
    CrossSite,
    /// The request was meant for another host.
    ForeignHost,
    /// The sandbox did not answer.
    SandboxUnavailable,
    /// The database did not take it.
    StoreUnavailable,
    /// The database was put back from a backup, and not every provider was compared with it since.
    NotCompared,
    /// Nothing is written, or nothing driven, for a while.
    EngineTroubled,
    /// The server is stopping.
    Draining,
    /// Our own mistake.
    Internal,
}

impl Code {
    /// The HTTP status that goes with it.
    pub fn status(self) -> StatusCode {
        match self {
            Self::ValidationFailed | Self::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::MalformedJson | Self::MalformedId | Self::CursorInvalid | Self::IdempotencyKeyInvalid => {
                StatusCode::BAD_REQUEST
            }
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::NotFound | Self::NoSandbox => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::StateConflict => StatusCode::CONFLICT,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::NotOffered => StatusCode::NOT_IMPLEMENTED,
            Self::QueueFull => StatusCode::TOO_MANY_REQUESTS,
            Self::CrossSite => StatusCode::FORBIDDEN,
            Self::ForeignHost => StatusCode::MISDIRECTED_REQUEST,
            Self::SandboxUnavailable => StatusCode::BAD_GATEWAY,
            Self::StoreUnavailable | Self::NotCompared | Self::EngineTroubled | Self::Draining => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The same for every occurrence.
    pub fn title(self) -> &'static str {
        match self {
            Self::ValidationFailed => "The request is not what is asked for",
            Self::MalformedJson => "The body is not JSON",
            Self::UnsupportedMediaType => "The body must be application/json",
            Self::TooLarge => "The body is too large",
            Self::TooSlow => "The body took too long to come",
            Self::MalformedId => "This cannot be an id",
            Self::CursorInvalid => "This cursor is not one of ours",
            Self::IdempotencyKeyInvalid => "This cannot be an idempotency key",
            Self::IdempotencyKeyReused => "The idempotency key stands for something else",
            Self::NotFound => "There is no such thing",
            Self::MethodNotAllowed => "The method is not allowed here",
            Self::StateConflict => "Its state does not allow that",
            Self::PreconditionFailed => "It has changed since you read it",
            Self::NoSandbox => "No sandbox runs here",
            Self::NotOffered => "This binary does not offer that",
            Self::QueueFull => "Too many claims wait",
            Self::CrossSite => "The request came from another site",
            Self::ForeignHost => "The request was meant for another host",
            Self::SandboxUnavailable => "The sandbox did not answer",
            Self::StoreUnavailable => "The database is unavailable",
            Self::NotCompared => "The database was put back, and is being compared with the providers",
            Self::EngineTroubled => "Sagas do not get on",
            Self::Draining => "The server is stopping",
            Self::Internal => "Something went wrong here",
        }
    }

    /// What to do about it; the page that `type` names says this.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::ValidationFailed => {
                "Read detail: it names the field. Unknown fields are refused, so that a misspelt one is not ignored."
            }
            Self::MalformedJson => "Send one JSON object; detail says where reading stopped.",
            Self::UnsupportedMediaType => "Send Content-Type: application/json.",
            Self::TooLarge => "Send at most one megabyte.",
            Self::TooSlow => "Nothing was done. Send the request again, its body in one go.",
            Self::MalformedId => "Copy the id again from a list; ids have no spaces or control characters.",
            Self::CursorInvalid => "Begin the list again without a cursor.",
            Self::IdempotencyKeyInvalid => "Use 1 to 255 visible ASCII characters, a UUID for instance.",
            Self::IdempotencyKeyReused => {
                "Use a new key for a new request; repeat the very same body for the same one."
            }
            Self::NotFound => "Look it up in the list it should be in.",
            Self::MethodNotAllowed => "The Allow header says which methods the path takes.",
            Self::StateConflict => "Look at its present state again; detail says what stands against it.",
            Self::PreconditionFailed => {
                "Read it again; if the act is still right, repeat it with the new ETag in If-Match."
            }
            Self::NoSandbox => {
                "Start amends without provider URLs of your own, or with amends sandbox, to have one."
            }
            Self::NotOffered => "Use a version of the program that offers it.",
            Self::QueueFull => {
                "Nothing was started, and the idempotency key is not used up: repeat the request under it later. What was \
                 accepted before waits on; the pool's page says what holds it up."
            }
            Self::CrossSite => "Act from the dashboard itself, the command line or a program.",
            Self::ForeignHost => "Without authentication the server answers only to a loopback name.",
            Self::SandboxUnavailable => "See whether the sandbox still runs; ask again.",
            Self::StoreUnavailable => {
                "It may or may not have been done: repeat the request under the same idempotency key, or read what it was \
                 about again first."
            }
            Self::EngineTroubled => {
                "Mend what detail names (a full disk, a file that is read-only, a server that is down): it goes on by \
                 itself then. If it says so, start the program again."
            }
            Self::NotCompared => {
                "GET /v1/censuses says how far it is. Repeat the request under the same idempotency key then."
            }
            Self::Draining => "Repeat the request under the same idempotency key once the server is back.",
            Self::Internal => "The log has more; the request may be repeated under the same idempotency key.",
        }
    }

    /// The name as it stands in a URL.
    pub fn slug(self) -> String {
        self.to_string().replace('_', "-")
    }
}

/// What went wrong, for a person and for a program.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Problem {
    /// The kind of it.
    pub code: Code,
    /// This occurrence, in words.
    pub detail: String,
}

/// A problem as it goes over the wire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Body {
    /// A page of this server that says more.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same for every occurrence of this code.
    pub title: String,
    /// The HTTP status, again.
    pub status: u16,
    /// This occurrence, in words.
    pub detail: String,
    /// The kind of problem, for programs.
    pub code: String,
}

/// Content type of a problem.
pub const MEDIA_TYPE: &str = "application/problem+json";

impl Problem {
    /// A problem of this kind.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }

    /// There is none.
    pub fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(Code::NotFound, format!("There is no {what}."))
    }

    /// The request's content.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Code::ValidationFailed, detail)
    }

    /// As it goes over the wire.
    pub fn body(&self) -> Body {
        Body {
            kind: format!("/docs/errors/{}", self.code.slug()),
            title: self.code.title().to_owned(),
            status: self.code.status().as_u16(),
            detail: self.detail.clone(),
            code: self.code.to_string(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.code.status(), axum::Json(self.body())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        let again = match self.code.status() {
            StatusCode::SERVICE_UNAVAILABLE => Some("2"),
            StatusCode::TOO_MANY_REQUESTS => Some("60"),
            _ => None,
        };
        if let Some(again) = again {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(again));
        }
        // The page for people shows the problem too, and takes it from here.
        response.extensions_mut().insert(self);
        response
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        match &error {
            store::Error::NoSuchSaga(saga) => Self::not_found(format!("saga {saga}")),
            store::Error::Unavailable(_) | store::Error::Fenced(_) | store::Error::LedgerMoved(_) => {
                tracing::warn!(%error, "the store did not take a request");
                Self::new(Code::StoreUnavailable, "The database cannot take this just now.")
            }
            store::Error::TooLong { .. } => Self::invalid(format!("{error}.")),
            store::Error::Refused(_) | store::Error::KeyTaken(_) => {
                tracing::warn!(%error, "the database refuses what a request asks for");
                Self::invalid(format!("{error}."))
            }
            store::Error::Unstorable(problem) => Self::invalid(sentence(problem)),
            store::Error::InboxFull { .. } => Self::new(Code::StateConflict, format!("{error}.")),
            store::Error::Closed => Self::new(Code::Draining, "The database is being closed."),
            store::Error::Job(amends_engine::Failure::Refused(refusal)) => {
                let code = match refusal.code.as_str() {
                    "not_found" | "no_such_instance" => Code::NotFound,
                    "queue_full" => Code::QueueFull,
                    "key_reused" | "idempotency_key_reused" => Code::IdempotencyKeyReused,
                    "invalid" | "malformed" | "too_long" | "unknown_template" | "unstorable" => {
                        Code::ValidationFailed
                    }
                    _ => Code::StateConflict,
                };
                Self::new(code, refusal.message.clone())
            }
            store::Error::Job(_) => {
                tracing::warn!(%error, "a transaction did not happen");
                Self::new(Code::StoreUnavailable, "The database cannot take this just now.")
            }
            store::Error::Unreadable(_) => {
                tracing::error!(%error, "a row cannot be read");
                Self::new(Code::Internal, "A row of the database cannot be read; the log says which.")
            }
        }
    }
}

/// What exceeds a limit, as a sentence.
fn sentence(problem: &amends_engine::data::Unstorable) -> String {
    let text = problem.to_string();
    let mut signs = text.chars();
    let first = signs.next().map(|sign| sign.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", signs.as_str())
}

impl From<ActError> for Problem {
    fn from(error: ActError) -> Self {
        match error {
            ActError::NoSuchSaga(saga) => Self::not_found(format!("saga {saga}")),
            ActError::TooLate { .. } => Self::new(Code::StateConflict, format!("{error}.")),
            ActError::OperationReused(_) => Self::new(
                Code::IdempotencyKeyReused,
                "The key was used with another act, reason or saga.".to_owned(),
            ),
            ActError::Nameless => Self::new(Code::ValidationFailed, format!("{error}.")),
            ActError::Unstorable(problem) => Self::invalid(sentence(&problem)),
            ActError::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strum::IntoEnumIterator;

    #[test]
    fn a_problem_says_what_it_is_to_people_and_to_programs() {
        let problem = Problem::not_found("saga sg_00000000000000000000000007");
        insta::assert_json_snapshot!(problem.body(), @r#"
        {
          "type": "/docs/errors/not-found",
          "title": "There is no such thing",
          "status": 404,
          "detail": "There is no saga sg_00000000000000000000000007.",
          "code": "not_found"
        }
        "#);
    }

    #[test]
    fn every_code_has_an_error_status_and_its_own_name() {
        for code in Code::iter() {
            let status = code.status();
            assert!(status.is_client_error() || status.is_server_error(), "{code}");
            assert_eq!(code.slug().replace('-', "_").parse(), Ok(code));
            assert!(!code.title().is_empty() && !code.remedy().is_empty());
        }
    }

    #[test]
    fn a_refused_transaction_is_a_conflict_and_keeps_its_words() {
        let refused = amends_engine::Failure::refused("taken", "in_1 is being torn down");
        let problem = Problem::from(store::Error::Job(refused));
        assert_eq!((problem.code, problem.detail.as_str()), (Code::StateConflict, "in_1 is being torn down"));
    }
}

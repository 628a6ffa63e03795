//! Extract: what a request says, read at the door and refused there when it cannot be right.

use std::time::Duration;

use amends_engine::SagaId;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::problem::{Code, Problem};

/// How long a request may wait for a saga.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
/// How long a name or an id from outside may be.
const NAME_MAX: usize = 128;
/// How long an idempotency key may be.
const KEY_MAX: usize = 255;
/// How long a reason may be.
const REASON_MAX: usize = 500;

/// A JSON body; unknown fields are for its type to refuse.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match axum::Json::<T>::from_request(request, state).await {
            Ok(axum::Json(body)) => Ok(Self(body)),
            Err(JsonRejection::JsonDataError(error)) => Err(Problem::invalid(error.body_text())),
            Err(JsonRejection::JsonSyntaxError(error)) => {
                Err(Problem::new(Code::MalformedJson, error.body_text()))
            }
            Err(JsonRejection::MissingJsonContentType(error)) => {
                Err(Problem::new(Code::UnsupportedMediaType, error.body_text()))
            }
            Err(other) if other.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE => {
                Err(Problem::new(Code::TooLarge, other.body_text()))
            }
            Err(other) => Err(Problem::new(Code::MalformedJson, other.body_text())),
        }
    }
}

/// The query string; unknown parameters are for its type to refuse.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        axum::extract::Query::<T>::try_from_uri(&parts.uri)
            .map(|query| Self(query.0))
            .map_err(|error| Problem::invalid(error.body_text()))
    }
}

/// The saga that a path names.
#[derive(Debug)]
pub struct SagaPath(pub SagaId);

impl<S: Send + Sync> FromRequestParts<S> for SagaPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        saga_id(&path(parts, state).await?).map(Self)
    }
}

/// The instance that a path names.
#[derive(Debug)]
pub struct InstancePath(pub String);

impl<S: Send + Sync> FromRequestParts<S> for InstancePath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        name("instance", &path(parts, state).await?).map(Self)
    }
}

async fn path<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<String, Problem> {
    match Path::<String>::from_request_parts(parts, state).await {
        Ok(Path(text)) => Ok(text),
        Err(error) => Err(Problem::new(Code::MalformedId, error.body_text())),
    }
}

/// Reads a saga's id.
pub fn saga_id(text: &str) -> Result<SagaId, Problem> {
    SagaId::parse(text).map_err(|error| Problem::new(Code::MalformedId, format!("{error}.")))
}

/// Reads an id or a name that is ours to choose: short, printable, in one piece.
pub fn name(what: &str, text: &str) -> Result<String, Problem> {
    let wrong = |problem: &str| {
        let shown: String = text.chars().take(40).flat_map(char::escape_default).collect();
        Err(Problem::new(Code::MalformedId, format!("\"{shown}\" cannot be an id of {what}: {problem}.")))
    };
    if text.is_empty() {
        return wrong("it is empty");
    }
    if text.chars().count() > NAME_MAX {
        return wrong("it is longer than 128 characters");
    }
    if text.chars().any(|char| char.is_control() || char.is_whitespace()) {
        return wrong("it has a space or a control character in it");
    }
    Ok(text.to_owned())
}

/// Reads a person's reason for an act.
pub fn reason(text: &str) -> Result<String, Problem> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Problem::invalid("reason: say in a few words why; it is kept with the saga."));
    }
    if text.chars().count() > REASON_MAX {
        return Err(Problem::invalid("reason: at most 500 characters."));
    }
    if text.chars().any(char::is_control) {
        return Err(Problem::invalid("reason: one line, without control characters."));
    }
    Ok(text.to_owned())
}

/// Reads how long to wait, as `30s`; longer waits are cut to what the server allows.
pub fn wait(text: Option<&str>) -> Result<Option<Duration>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let wait = humantime::parse_duration(text)
        .map_err(|error| Problem::invalid(format!("wait: {error}; write it as 30s or 1m.")))?;
    Ok(Some(wait.min(WAIT_MAX)))
}

/// The `If-Match` header: the version of a saga that an act is meant for; nothing if any will do.
#[derive(Debug)]
pub struct IfMatch(Option<Vec<String>>);

impl IfMatch {
    /// Refuses what was meant for another version.
    pub fn check(&self, version: i64) -> Result<(), Problem> {
        let Some(versions) = &self.0 else { return Ok(()) };
        let tag = format!("\"{version}\"");
        if versions.iter().any(|known| known == "*" || *known == tag) {
            return Ok(());
        }
        let detail = format!("The saga is at version {tag} by now; read it again before you act.");
        Err(Problem::new(Code::PreconditionFailed, detail))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut versions = Vec::new();
        for value in parts.headers.get_all(axum::http::header::IF_MATCH) {
            let text = value.to_str().map_err(|_| Problem::invalid("If-Match: it is not ASCII."))?;
            versions.extend(text.split(',').map(|tag| tag.trim().to_owned()).filter(|tag| !tag.is_empty()));
        }
        Ok(Self((!versions.is_empty()).then_some(versions)))
    }
}

/// The `Idempotency-Key` header, if the client sent one.
#[derive(Debug)]
pub struct IdempotencyKey(pub Option<String>);

/// Its name.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut all = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let invalid = |detail: &str| Err(Problem::new(Code::IdempotencyKeyInvalid, detail));
        let Some(value) = all.next() else { return Ok(Self(None)) };
        if all.next().is_some() {
            return invalid("Idempotency-Key was sent more than once.");
        }
        let bytes = value.as_bytes();
        let fits = (1..=KEY_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
        match value.to_str() {
            Ok(text) if fits => Ok(Self(Some(text.to_owned()))),
            _ => invalid("Idempotency-Key takes 1 to 255 visible ASCII characters."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_with_a_control_character_is_refused_and_shown_harmlessly() {
        let problem = name("instance", "in_1\u{1b}[2J").unwrap_err();
        assert_eq!(problem.code, Code::MalformedId);
        assert_eq!(
            problem.detail,
            "\"in_1\\u{1b}[2J\" cannot be an id of instance: it has a space or a control character in it."
        );
        assert!(saga_id("sg_\n").unwrap_err().detail.contains("\\n"));
        assert!(name("instance", &"a".repeat(129)).is_err());
        assert_eq!(name("instance", "k3v9xq2m7p4t").unwrap(), "k3v9xq2m7p4t");
    }

    #[test]
    fn a_wait_is_told_in_words_and_cut_to_what_is_allowed() {
        assert_eq!(wait(Some("1500ms")).unwrap(), Some(Duration::from_millis(1500)));
        assert_eq!(wait(Some("3h")).unwrap(), Some(WAIT_MAX));
        assert_eq!(wait(None).unwrap(), None);
        assert!(wait(Some("soon")).is_err());
    }

    #[test]
    fn a_reason_is_a_line_of_words() {
        assert_eq!(reason("  Telnyx is back ").unwrap(), "Telnyx is back");
        assert!(reason(" ").is_err() && reason("a\nb").is_err());
    }
}

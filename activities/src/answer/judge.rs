//! Judge: what an answer means, by the table of its operation alone.

use amends_engine::activity::Cause;
use amends_engine::data::is_unseen;
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::table::{Body, Field, Is, Kind, Means, Operation, Row, Shape, Wire, is_like};

/// An answer as it came in.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) content: Content,
}

/// The body of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    Empty,
    Json(Value),
    /// It is no JSON, or deeper than a hundred and some levels.
    NotJson,
    /// It is larger than any answer that we ask for.
    TooLarge,
}

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Done,
    /// What the provider's table says of it, and what the provider says in words.
    Known(Means, String),
    /// It stands in no table.
    Unknown(Cause, String),
}

/// An id is no longer.
const TEXT_MAX: usize = 512;
/// And no secret.
const SECRET_MAX: usize = 8192;
/// So much of what a provider says in words is kept.
const WORDS_MAX: usize = 200;

impl Content {
    pub(crate) fn read(bytes: &[u8]) -> Self {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Self::Empty;
        }
        // It refuses by itself what is nested more than 128 deep.
        serde_json::from_slice(bytes).map_or(Self::NotJson, Self::Json)
    }

    fn json(&self) -> Option<&Value> {
        match self {
            Self::Json(value) => Some(value),
            _ => None,
        }
    }
}

/// Where the pointers of what was done begin.
pub(crate) fn root<'a>(operation: &Operation, body: &'a Value) -> Option<&'a Value> {
    match operation.wire {
        Wire::Rest(_) => Some(body),
        Wire::GraphQl => body.get("data")?.get(operation.name),
    }
}

/// What an answer to this operation means.
pub(crate) fn judge(operation: &Operation, answer: &Answer) -> Verdict {
    if is_done(operation, answer) {
        return Verdict::Done;
    }
    let body = answer.content.json();
    if let Some(body) = body
        && let Some(means) = known(operation, answer.status, body)
    {
        return Verdict::Known(means, words(operation, body));
    }
    // Who asks us to slow down need not be the provider. After a write only its own word says that nothing was done.
    if answer.status == 429 && operation.kind != Kind::Write {
        return Verdict::Known(Means::Throttled, String::new());
    }
    unknown(operation, answer)
}

fn is_done(operation: &Operation, answer: &Answer) -> bool {
    if answer.status != operation.done.status {
        return false;
    }
    let fields = match operation.done.body {
        Body::Empty => return matches!(answer.content, Content::Empty),
        Body::Digest(name) => {
            let value = answer.headers.get(name).and_then(|value| value.to_str().ok());
            return value.is_some_and(is_digest) && answer.content != Content::TooLarge;
        }
        Body::Fields(fields) => fields,
        Body::List { page, .. } => page,
    };
    let Some(body) = answer.content.json() else { return false };
    let Some(found) = root(operation, body) else { return false };
    if reports_error(body) || !has_all(found, fields) {
        return false;
    }
    match operation.done.body {
        Body::List { at, row, .. } => found
            .pointer(at)
            .and_then(Value::as_array)
            .is_some_and(|rows| rows.iter().all(|entry| entry.is_object() && has_all(entry, row))),
        _ => true,
    }
}

/// Whether a body says of itself that something went wrong, whatever else is in it.
fn reports_error(body: &Value) -> bool {
    let is_said = |name: &str| match body.get(name) {
        None | Some(Value::Null) => false,
        Some(Value::Array(all)) => !all.is_empty(),
        Some(_) => true,
    };
    is_said("error") || is_said("errors")
}

fn known(operation: &Operation, status: u16, body: &Value) -> Option<Means> {
    if operation.wire == Wire::GraphQl && !is_without_data(operation.kind, status, body) {
        return None;
    }
    let rows = || operation.rows().filter(move |row| row.status == status);
    if let Some(row) = rows().find(|row| fits(row, body)) {
        return Some(row.means);
    }
    let errors = body.get("errors").and_then(Value::as_array).filter(|errors| !errors.is_empty())?;
    if !errors.iter().all(|error| is_error(operation, error)) {
        return None;
    }
    let mut means = errors.iter().map(|error| {
        let row = rows().find(|row| match row.shape {
            Shape::Errors { at, like } => {
                error.pointer(at).and_then(Value::as_str).is_some_and(|text| is_like(text, like))
            }
            _ => false,
        });
        row.map(|row| row.means)
    });
    let first = means.next().flatten()?;
    means.all(|other| other == Some(first)).then_some(first)
}

/// An error of GraphQL with no data beside it: with HTTP 200 the field that was asked for may be null. Another status is
/// about the request as a whole, of which nothing was executed only if there is no entry for data at all, so GraphQL's
/// specification; nothing else proves that of a write.
fn is_without_data(kind: Kind, status: u16, body: &Value) -> bool {
    match body.get("data") {
        None => true,
        Some(Value::Null) => status == 200 || kind != Kind::Write,
        Some(Value::Object(fields)) => status == 200 && fields.values().all(Value::is_null),
        Some(_) => false,
    }
}

/// Whether an entry of `errors` has the form that all providers give it; GraphQL demands a message.
fn is_error(operation: &Operation, error: &Value) -> bool {
    let is_words = |name: &str, without: bool| error.get(name).map_or(without, Value::is_string);
    error.is_object() && is_words("message", operation.wire != Wire::GraphQl) && is_words("title", true)
}

fn fits(row: &Row, body: &Value) -> bool {
    match row.shape {
        Shape::Text { at, is, with } => {
            body.pointer(at).and_then(Value::as_str) == Some(is) && has_all(body, with)
        }
        Shape::Number { at, is, with } => {
            body.pointer(at).and_then(Value::as_u64) == Some(is) && has_all(body, with)
        }
        Shape::Fields(fields) => has_all(body, fields),
        Shape::Errors { .. } => false,
    }
}

fn has_all(value: &Value, fields: &[Field]) -> bool {
    fields.iter().all(|field| is(value.pointer(field.at), field.is))
}

fn is(value: Option<&Value>, wanted: Is) -> bool {
    let is_text = |value: &Value| value.as_str().is_some_and(is_plain);
    match (wanted, value) {
        (Is::MaybeText | Is::MaybeWords | Is::MaybeObject | Is::Absent, None) => true,
        (_, None) => false,
        (Is::MaybeText | Is::MaybeWords | Is::TextOrNull | Is::WordsOrNull, Some(Value::Null)) => true,
        (Is::Text | Is::TextOrNull | Is::MaybeText, Some(value)) => is_text(value),
        (Is::Secret, Some(value)) => value.as_str().is_some_and(is_secret),
        (Is::Words | Is::WordsOrNull | Is::MaybeWords, Some(value)) => value.is_string(),
        (Is::Host, Some(value)) => value.as_str().is_some_and(is_host),
        (Is::Flag, Some(value)) => value.is_boolean(),
        (Is::Yes, Some(value)) => value == &Value::Bool(true),
        (Is::Count, Some(value)) => value.is_u64(),
        (Is::OneOf(words), Some(value)) => value.as_str().is_some_and(|word| words.contains(&word)),
        (Is::List, Some(value)) => value.is_array(),
        (Is::MaybeObject, Some(value)) => value.is_object(),
        (Is::Absent, Some(_)) => false,
    }
}

/// Whether a text can be an id that we keep: not empty, not long, storable in every database, and no step in a path.
fn is_plain(text: &str) -> bool {
    !matches!(text, "" | "." | "..") && text.len() <= TEXT_MAX && !text.chars().any(is_unseen)
}

/// Whether a text is the name of a host and nothing else: a token is sent there.
fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

fn is_secret(text: &str) -> bool {
    (1..=SECRET_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_digest(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:");
    digits.is_some_and(|digits| {
        digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// What the provider says in words: short, and without what a terminal or a database would trip over.
fn words(operation: &Operation, body: &Value) -> String {
    let at = match operation.wire {
        Wire::Rest(at) => at,
        Wire::GraphQl => "/errors/0/message",
    };
    let text = body.pointer(at).and_then(Value::as_str).unwrap_or_default();
    clean(text)
}

/// A provider's words as they may be shown: short, and without control characters.
pub(crate) fn clean(text: &str) -> String {
    let seen = text.chars().filter(|letter| letter.is_control() || !is_unseen(*letter));
    seen.map(|letter| if letter.is_control() { ' ' } else { letter }).take(WORDS_MAX).collect()
}

fn unknown(operation: &Operation, answer: &Answer) -> Verdict {
    let (provider, name, status) = (operation.provider, operation.name, answer.status);
    let (cause, what) = match (&answer.content, status) {
        (Content::TooLarge, _) => (Cause::Unreadable, "is larger than an answer may be".to_owned()),
        (_, 429) => (Cause::RateLimited, "asks to slow down, in a form that stands in no table".to_owned()),
        (_, 300..400) => (Cause::ServerError, format!("is a redirect ({status}), which is not followed")),
        (_, 500..) => (Cause::ServerError, format!("is a server error ({status})")),
        (Content::NotJson, 200..300) => (Cause::Unreadable, "is not JSON".to_owned()),
        (Content::Json(body), 200..300) if reports_error(body) => (
            Cause::ServerError,
            format!("reports an error that stands in no table: {}", words(operation, body)),
        ),
        (_, 200..300) => (Cause::Unreadable, format!("({status}) lacks what it has to have")),
        _ => (Cause::ServerError, format!("({status}) stands in no table")),
    };
    Verdict::Unknown(cause, format!("the answer of {provider} to {name} {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_id_and_no_words_of_a_provider_have_what_cannot_be_seen() {
        assert!(is_plain("am-test 1@é"));
        for unseen in ["", ".", "..", "a\u{202e}b", "a\u{200b}b", "\u{feff}a", "a\u{2066}b", "a\nb"] {
            assert!(!is_plain(unseen), "{unseen:?}");
        }
        assert_eq!(clean("not\u{202e} found\u{200b}\nnow"), "not found now");
        assert_eq!(clean(&"a\u{200d}".repeat(300)).len(), WORDS_MAX);
    }
}

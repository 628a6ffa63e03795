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
            Err(JsonRejection::JsonDataError(error)) => Err(Problem::invalid(plain(&error.body_text()))),
            Err(JsonRejection::JsonSyntaxError(error)) => {
                Err(Problem::new(Code::MalformedJson, plain(&error.body_text())))
            }
            Err(JsonRejection::MissingJsonContentType(_)) => {
                let detail = "The request has a body and no Content-Type: application/json.";
                Err(Problem::new(Code::UnsupportedMediaType, detail))
            }
            Err(other) if other.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE => {
                Err(Problem::new(Code::TooLarge, "The body has more than one megabyte."))
            }
            Err(other) => Err(Problem::new(Code::MalformedJson, plain(&other.body_text()))),
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
            .map_err(|error| Problem::invalid(plain(&error.body_text())))
    }
}

/// What serde says of a body or a query, in words that do not need Rust to be read: which field, and what is wrong.
pub fn plain(error: &str) -> String {
    const PREFIXES: [&str; 4] = [
        "Failed to deserialize the JSON body into the target type: ",
        "Failed to parse the request body as JSON: ",
        "Failed to deserialize query string: ",
        "Failed to deserialize form body: ",
    ];
    let rest = PREFIXES.iter().find_map(|prefix| error.strip_prefix(prefix)).unwrap_or(error);
    // The position helps with a body that is no JSON; a field is found by its name.
    let (rest, position) = match rest.rsplit_once(" at line ") {
        Some((rest, position)) => (rest, Some(position)),
        None => (rest, None),
    };
    let quoted = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let field = |text: &str| text.split_once(": ").map_or("", |(path, _)| path).to_owned();
    if let Some((_, name)) = rest.split_once("missing field ") {
        return format!("{}: it is missing.", name.trim_matches('`'));
    }
    for (what, noun) in [("unknown field ", "field"), ("unknown variant ", "value")] {
        let Some((before, names)) = rest.split_once(what) else { continue };
        let mut names = quoted(names).into_iter();
        let unknown: String =
            names.next().unwrap_or_default().chars().flat_map(char::escape_default).collect();
        let known: Vec<String> = names.collect();
        let path = field(before);
        let name = if noun == "field" { unknown.clone() } else { path };
        return match (noun, known.is_empty()) {
            ("field", true) => format!("{name}: there is no such field."),
            ("field", false) => format!("{name}: there is no such field; there are {}.", known.join(", ")),
            (_, _) => format!("{name}: {unknown} is none of {}.", known.join(", ")),
        };
    }
    if let Some((path, problem)) = rest.split_once("invalid type: ") {
        let path = path.trim_end_matches(": ").trim_end_matches(':');
        let (got, wanted) = problem.split_once(", expected ").unwrap_or((problem, "something else"));
        let wanted = match wanted {
            "a string" => "a text",
            "a boolean" => "true or false",
            "a map" => "a JSON object",
            "a sequence" => "a JSON list",
            other if other.starts_with("struct ") => "a JSON object",
            other if other.starts_with(['u', 'i']) && other[1..].parse::<u32>().is_ok() => "a whole number",
            other => other,
        };
        let what = if path.is_empty() { "body" } else { path };
        return format!("{what}: it has to be {wanted}, not {}.", got.replace("map", "an object"));
    }
    match position {
        Some(position) => format!("{rest}, at line {}.", position.replace(" column ", ", column ")),
        None => format!("{rest}."),
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
    if text.chars().any(|char| is_unseen(char) || char.is_whitespace()) {
        return wrong("it has a space or a control character in it");
    }
    Ok(text.to_owned())
}

/// Reads a field of a body that is an id or a name of ours: short, printable, in one piece.
pub fn field(what: &str, text: &str) -> Result<String, Problem> {
    let wrong = |problem: &str| Problem::invalid(format!("{what}: {problem}."));
    if text.is_empty() {
        return Err(wrong("it is empty"));
    }
    if text.chars().count() > NAME_MAX {
        return Err(wrong("at most 128 characters"));
    }
    if text.chars().any(|char| char.is_whitespace() || is_unseen(char)) {
        return Err(wrong("no spaces, control characters or marks that change the direction of text"));
    }
    Ok(text.to_owned())
}

/// Reads a line that people will read: at most so many characters, and none that cannot be seen.
pub fn line(what: &str, text: &str, characters_max: usize) -> Result<String, Problem> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Problem::invalid(format!("{what}: it is empty.")));
    }
    if text.chars().count() > characters_max {
        return Err(Problem::invalid(format!("{what}: at most {characters_max} characters.")));
    }
    if text.chars().any(is_unseen) {
        let detail = "one line, without control characters or marks that change the direction of text";
        return Err(Problem::invalid(format!("{what}: {detail}.")));
    }
    Ok(text.to_owned())
}

/// Reads an address on the web.
pub fn url(what: &str, text: &str, bytes_max: usize) -> Result<String, Problem> {
    let text = text.trim();
    if text.len() > bytes_max {
        return Err(Problem::invalid(format!("{what}: at most {bytes_max} bytes.")));
    }
    let is_web = reqwest::Url::parse(text)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some());
    if !is_web || text.chars().any(|char| char.is_whitespace() || is_unseen(char)) {
        return Err(Problem::invalid(format!("{what}: it has to be an http or https URL.")));
    }
    Ok(text.to_owned())
}

/// Whether a character cannot be seen where it stands: control characters, and the marks that change the direction of
/// text around them or have no width (Unicode's Bidi_Control, and zero-width characters).
pub fn is_unseen(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{61c}' | '\u{180e}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
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
    if text.chars().any(is_unseen) {
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
    fn what_is_wrong_with_a_body_is_said_without_a_word_of_rust() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code, reason = "it is only read")]
        struct Asked {
            name: String,
            #[serde(default)]
            limit: u32,
        }
        let said = |body: &str| plain(&serde_json::from_str::<Asked>(body).unwrap_err().to_string());
        assert_eq!(said("{}"), "name: it is missing.");
        assert_eq!(said(r#"{"name":"a","nme":1}"#), "nme: there is no such field; there are name, limit.");
        assert_eq!(said("[1"), "body: it has to be a text, not integer.".replace("integer", "integer `1`"));
        assert_eq!(said("{"), "EOF while parsing an object, at line 1, column 1.");
        let query = plain("Failed to deserialize query string: limit: invalid digit found in string");
        assert_eq!(query, "limit: invalid digit found in string.");
        let typed = "Failed to deserialize the JSON body into the target type: limit: invalid type: string \"x\", expected u32 at line 1 column 9";
        assert_eq!(plain(typed), "limit: it has to be a whole number, not string \"x\".");
    }

    #[test]
    fn what_people_are_to_read_is_short_and_can_be_seen() {
        let problem = |result: Result<String, Problem>| result.unwrap_err().detail;
        assert_eq!(line("name", " Ada Lovelace ", 80).unwrap(), "Ada Lovelace");
        assert_eq!(problem(line("name", &"a".repeat(900_000), 80)), "name: at most 80 characters.");
        for hidden in ["a\0b", "a\u{202e}b", "a\u{200b}b", "a\nb"] {
            assert!(problem(line("name", hidden, 80)).starts_with("name: "), "{hidden:?}");
            assert!(problem(field("owner_id", hidden)).starts_with("owner_id: "), "{hidden:?}");
        }
        assert_eq!(url("join_url", "https://chat.example/i/1", 99).unwrap(), "https://chat.example/i/1");
        for no_url in [
            "javascript:alert(1)",
            "data:text/html,x",
            "ftp://a/b",
            "https://",
            "chat.example",
            "https://a/ b",
        ] {
            assert!(problem(url("join_url", no_url, 99)).starts_with("join_url: "), "{no_url}");
        }
    }

    #[test]
    fn a_reason_is_a_line_of_words() {
        assert_eq!(reason("  Telnyx is back ").unwrap(), "Telnyx is back");
        assert!(reason(" ").is_err() && reason("a\nb").is_err());
    }
}

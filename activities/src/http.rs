//! HTTP: from an answer, or its absence, to a failure; once for all providers.
//!
//! | what came | a read | a write |
//! |---|---|---|
//! | no connection | unavailable | unavailable: nothing was sent |
//! | the line broke, or the time was up | unavailable | no answer: it may have happened |
//! | 5xx | unavailable | no answer |
//! | 2xx that cannot be read | unavailable | no answer |
//! | 429 | unavailable, as long as it says | the same |
//! | 401, 403 | unavailable; a person has to look | the same |
//! | any other 4xx | refused | refused |
//!
//! A provider's own manners (errors in a 200, a 403 that is about the request) are its client's.

use std::time::Duration;

use amends_engine::Failure;
use amends_engine::activity::Cause;
use reqwest::header::HeaderMap;
use reqwest::{Client, RequestBuilder};
use serde_json::Value;

/// What a call does when it arrives twice, or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// It changes nothing: a lost answer is simply asked for again.
    Read,
    /// It may have happened when its answer is lost.
    Write,
}

/// An answer below 500 that is not 429.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// Null when it was empty.
    pub(crate) body: Value,
}

impl Reply {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub(crate) fn text(&self, pointer: &str) -> Option<String> {
        self.body.pointer(pointer).and_then(Value::as_str).map(str::to_owned)
    }

    /// The text there, without which the answer is of no use.
    pub(crate) fn needed(&self, pointer: &str) -> Result<String, Failure> {
        self.text(pointer).ok_or_else(|| Failure::NoAnswer {
            cause: Cause::Unreadable,
            detail: format!("the answer has no {pointer}"),
        })
    }
}

/// The client that all providers are called with. It never sends anything twice by itself.
pub(crate) fn client() -> Client {
    // The first one to come installs it; that another did before changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .user_agent(concat!("amends/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(Duration::from_secs(10));
    builder.build().unwrap_or_default()
}

/// Sends, and tells what was answered, or what it means that nothing was.
pub(crate) async fn send(request: RequestBuilder, call: Call) -> Result<Reply, Failure> {
    let answer = request.send().await.map_err(|error| lost(&error, call))?;
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let text = answer.text().await.map_err(|error| lost(&error, call))?;
    read(status, headers, &text, call)
}

/// What an answer means before the provider's own manners are looked at.
pub(crate) fn read(status: u16, headers: HeaderMap, text: &str, call: Call) -> Result<Reply, Failure> {
    let body = if text.trim().is_empty() { Ok(Value::Null) } else { serde_json::from_str(text) };
    match (status, body) {
        (429, _) => Err(Failure::Unavailable {
            cause: Cause::RateLimited,
            detail: "asked to slow down (429)".to_owned(),
            retry_after: retry_after(&headers),
        }),
        (500.., _) => {
            Err(unclear(call, Cause::ServerError, format!("server error {status}"), retry_after(&headers)))
        }
        (_, Ok(body)) => Ok(Reply { status, headers, body }),
        // A page of a proxy's: whoever it is, it is not the provider.
        (200..300, Err(_)) => {
            Err(unclear(call, Cause::Unreadable, "the answer is not JSON".to_owned(), None))
        }
        (_, Err(_)) => Ok(Reply { status, headers, body: Value::Null }),
    }
}

/// What a status means that is an error with every provider.
pub(crate) fn refused(status: u16, code: &str, message: &str) -> Failure {
    let message: String = message.chars().take(200).collect();
    match status {
        401 | 403 => Failure::Unavailable {
            cause: Cause::Credential,
            detail: format!("the credential was refused ({status}): {message}"),
            retry_after: None,
        },
        _ => Failure::refused(code, format!("{message} ({status})")),
    }
}

/// The thing is not ready; it is asked again after a while of ours.
pub(crate) fn not_yet(detail: &str) -> Failure {
    Failure::not_yet(detail, Duration::from_secs(3))
}

fn lost(error: &reqwest::Error, call: Call) -> Failure {
    // Its text may hold a URL, and a URL may hold a query; what kind it is says enough.
    let (cause, detail) = if error.is_connect() {
        let detail = "no connection was made".to_owned();
        return Failure::Unavailable { cause: Cause::Connect, detail, retry_after: None };
    } else if error.is_timeout() {
        (Cause::Timeout, "no answer in time")
    } else if error.is_builder() {
        return Failure::refused("malformed", "the request could not be built");
    } else {
        (Cause::Reset, "the connection broke")
    };
    unclear(call, cause, detail.to_owned(), None)
}

fn unclear(call: Call, cause: Cause, detail: String, retry_after: Option<Duration>) -> Failure {
    match call {
        Call::Read => Failure::Unavailable { cause, detail, retry_after },
        Call::Write => Failure::NoAnswer { cause, detail },
    }
}

/// Seconds, as every provider here sends it; a date is not read, and the usual wait applies.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get("retry-after")?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Letters that need no thought stay, everything else is escaped: for a part of a path or a query.
pub(crate) fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(status: u16, text: &str, call: Call) -> Failure {
        read(status, HeaderMap::new(), text, call).unwrap_err()
    }

    #[test]
    fn only_a_write_whose_answer_is_lost_is_in_doubt() {
        assert!(matches!(fail(500, "", Call::Write), Failure::NoAnswer { .. }));
        assert!(matches!(fail(502, "<html>", Call::Write), Failure::NoAnswer { .. }));
        assert!(matches!(
            fail(200, "<html>", Call::Write),
            Failure::NoAnswer { cause: Cause::Unreadable, .. }
        ));
        assert!(matches!(fail(500, "", Call::Read), Failure::Unavailable { .. }));
        assert!(matches!(fail(429, "", Call::Write), Failure::Unavailable { cause: Cause::RateLimited, .. }));
        assert!(read(204, HeaderMap::new(), "", Call::Write).unwrap().is_success());
    }

    #[test]
    fn a_provider_that_says_how_long_is_taken_at_its_word() {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", "17".parse().unwrap());
        let Err(Failure::Unavailable { retry_after, .. }) = read(429, headers, "", Call::Read) else {
            panic!()
        };
        assert_eq!(retry_after, Some(Duration::from_secs(17)));
    }

    #[test]
    fn a_refused_credential_is_not_a_refused_request() {
        assert!(matches!(refused(401, "x", "no"), Failure::Unavailable { cause: Cause::Credential, .. }));
        assert!(matches!(refused(422, "x", "no"), Failure::Refused(_)));
    }

    #[test]
    fn what_could_mean_something_else_is_escaped() {
        assert_eq!(escaped("a-b@c.d/e"), "a-b%40c.d%2Fe");
    }
}

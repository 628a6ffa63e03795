//! The client: one HTTP request to the server, and what came back.

use std::time::Duration;

use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::exit::Exit;
use crate::extract::IDEMPOTENCY_KEY;
use crate::problem;

/// How often a request that can be repeated is sent at all.
const SENDS: u32 = 3;
/// The server answers within a minute at the latest, waits included.
const LIMIT: Duration = Duration::from_secs(75);

const MIB: usize = 1024 * 1024;
/// The largest answer that is read: a saga with the longest journal has some of these.
const ANSWER_MAX: usize = 256 * MIB;

/// Where a command's requests go.
#[derive(Debug, Clone)]
pub struct Client {
    base: String,
    /// The same without a password, for messages.
    shown: String,
    http: reqwest::Client,
}

/// A successful answer: as it came, and read.
#[derive(Debug)]
pub struct Answer<T> {
    /// The body as it came.
    pub text: String,
    /// The body, read.
    pub body: T,
    /// The key under which the request can be repeated.
    pub key: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers there.
    #[error(
        "no answer from {base}: {detail}\nIs the server running? Start it with: amends serve. Another address: --server URL"
    )]
    Unreachable {
        /// Where.
        base: String,
        /// What the system said.
        detail: String,
    },
    /// The server said no.
    #[error("{}: {}", .0.title, .0.detail)]
    Problem(Box<problem::Body>),
    /// The answer is none of ours.
    #[error(
        "{base} answered in a way this program does not understand ({detail}); is it an amends server of the same version?"
    )]
    Strange {
        /// Where.
        base: String,
        /// What is wrong with it.
        detail: String,
    },
    /// What the user gave cannot be sent.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// What a script learns.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Unreachable { .. } => Exit::Unavailable,
            Self::Problem(problem) => Exit::of_status(problem.status),
            Self::Strange { .. } => Exit::Unexpected,
            Self::Usage(_) => Exit::Usage,
        }
    }
}

impl Client {
    /// A client of the server at this URL.
    pub fn new(base: &str) -> Result<Self, Error> {
        let url = reqwest::Url::parse(base).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        // What cannot be read may hold a password too, so it is not repeated.
        let mut url =
            url.ok_or_else(|| Error::Usage("--server: it is not an http or https URL".to_owned()))?;
        if url.password().is_some() {
            let _ = url.set_password(None);
        }
        let shown = url.as_str().trim_end_matches('/').to_owned();
        let http = crate::program::http(LIMIT)
            .map_err(|error| Error::Usage(format!("no HTTP client can be made: {error}")))?;
        Ok(Self { base: base.trim_end_matches('/').to_owned(), shown, http })
    }

    /// Reads.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<Answer<T>, Error> {
        self.send(Method::GET, path, query, None, None).await
    }

    /// Acts once.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<Answer<T>, Error> {
        self.send(Method::POST, path, &[], Some(body), None).await
    }

    /// Acts under a key, and again under the same key when the answer is lost on the way.
    pub async fn post_keyed<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Option<&Value>,
        key: &str,
    ) -> Result<Answer<T>, Error> {
        for _ in 1..SENDS {
            match self.send(Method::POST, path, &[], body, Some(key)).await {
                Err(error) if error.exit() == Exit::Unavailable => {
                    super::warn(format_args!(
                        "{}\nTrying again under the same key {key}.",
                        super::table::plain(&error.to_string())
                    ));
                    amends_engine::Env::system().sleep(Duration::from_secs(1)).await;
                }
                other => return other,
            }
        }
        self.send(Method::POST, path, &[], body, Some(key)).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Result<Answer<T>, Error> {
        let unreachable = |error: reqwest::Error| Error::Unreachable {
            base: self.shown.clone(),
            detail: innermost(&error.without_url()),
        };
        let strange = |detail: String| Error::Strange { base: self.shown.clone(), detail };
        let mut request = self.http.request(method, format!("{}{path}", self.base)).query(query);
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(key) = key {
            request = request.header(IDEMPOTENCY_KEY, key);
        }
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let key = response.headers().get(IDEMPOTENCY_KEY);
        let key = key.and_then(|key| key.to_str().ok()).map(ToOwned::to_owned);
        let text = match bounded(response).await.map_err(unreachable)? {
            Some(text) => text,
            None => return Err(strange(format!("more than {} MiB", ANSWER_MAX / MIB))),
        };
        if !status.is_success() {
            return Err(match serde_json::from_str::<problem::Body>(&text) {
                Ok(problem) => Error::Problem(Box::new(problem)),
                Err(_) => strange(format!("status {status}")),
            });
        }
        let body = serde_json::from_str(&text).map_err(|error| strange(error.to_string()))?;
        Ok(Answer { text, body, key })
    }
}

/// A body, unless it is larger than an answer of ours is.
async fn bounded(mut response: reqwest::Response) -> Result<Option<String>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > ANSWER_MAX {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(String::from_utf8_lossy(&body).into_owned()))
}

/// The first cause, which is what says something ("connection refused").
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_in_the_server_s_url_is_never_printed() {
        let client = Client::new("http://ann:let-me-in@127.0.0.1:1").unwrap();
        let error = client.get::<Value>("/v1/sagas", &[]).await.unwrap_err().to_string();
        assert!(error.contains("ann@127.0.0.1:1") && !error.contains("let-me-in"), "{error}");
        let error = Client::new("ftp://ann:let-me-in@host").unwrap_err().to_string();
        assert!(!error.contains("let-me-in"), "{error}");
    }
}

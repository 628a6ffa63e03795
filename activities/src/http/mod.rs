//! HTTP: one call sent and its answer read, within bounds; what the answer means is its table's.
//!
//! Nothing is sent twice by itself, no redirect is followed, nothing is decompressed. A call to this machine never
//! goes through a proxy. A connection that was not made sent nothing: unavailable. What breaks later is in doubt after
//! a write.

pub(crate) mod retry_after;
pub(crate) mod walk;

use std::net::IpAddr;
use std::time::Duration;

use amends_engine::activity::Cause;
use amends_engine::{Failure, secs};
use reqwest::{Client, Method, RequestBuilder, Response, Url};

use crate::answer::outcome::unclear;
use crate::answer::{Answer, Answered, Content, Kind, Operation, settle};

/// No answer that we ask for is larger, in bytes.
pub(crate) const ANSWER_MAX: usize = 2 << 20;
/// How long a connection may take.
pub(crate) const CONNECT_LIMIT: Duration = secs(10);
/// How long a read may take, its body included.
pub(crate) const READ_LIMIT: Duration = secs(30);
/// How long a write may take, its body included.
pub(crate) const WRITE_LIMIT: Duration = secs(60);

/// What every provider is called with.
#[derive(Clone)]
pub(crate) struct Http {
    outside: Option<Client>,
    /// For this machine: without a proxy, which would get to see what is meant for a neighbour.
    here: Option<Client>,
    pub(crate) read_limit: Duration,
    pub(crate) write_limit: Duration,
}

impl Http {
    pub(crate) fn new() -> Self {
        // The first one to come installs it; that another did before changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            Client::builder()
                .user_agent(concat!("amends/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .connect_timeout(CONNECT_LIMIT)
                // What is small when it is packed may be endless when it is not.
                .no_gzip()
                .no_brotli()
                .no_zstd()
                .no_deflate()
        };
        Self {
            outside: builder().build().ok(),
            here: builder().no_proxy().build().ok(),
            read_limit: READ_LIMIT,
            write_limit: WRITE_LIMIT,
        }
    }

    /// A request of this operation.
    pub(crate) fn request(
        &self,
        operation: &Operation,
        method: Method,
        url: &str,
    ) -> Result<RequestBuilder, Failure> {
        if has_steps(url) {
            return Err(Failure::refused(
                "malformed",
                "a part of the address would be read as a step in its path",
            ));
        }
        let url = Url::parse(url).map_err(|_| Failure::refused("malformed", "the address is no URL"))?;
        let client = if is_here(&url) { &self.here } else { &self.outside };
        let client = client.as_ref().ok_or_else(|| Failure::Unavailable {
            cause: Cause::Connect,
            detail: "there is no HTTP client: TLS cannot be set up".to_owned(),
            retry_after: None,
        })?;
        let limit = if operation.kind == Kind::Read { self.read_limit } else { self.write_limit };
        Ok(client.request(method, url).timeout(limit))
    }
}

/// Whether an address is of this machine.
fn is_here(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_end_matches('.');
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    match address {
        Ok(address) => address.to_canonical().is_loopback() || address.is_unspecified(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// Sends, and tells what the answer comes to, or what it means that there is none.
pub(crate) async fn send(operation: &Operation, request: RequestBuilder) -> Result<Answered, Failure> {
    let response = request.send().await.map_err(|error| lost(&error, operation.kind))?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let content = read(response).await.map_err(|error| lost(&error, operation.kind))?;
    settle(operation, Answer { status, headers, content })
}

/// The body, as far as one may be long.
async fn read(mut response: Response) -> Result<Content, reqwest::Error> {
    let is_large = |length: u64| length > ANSWER_MAX as u64;
    if response.content_length().is_some_and(is_large) {
        return Ok(Content::TooLarge);
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if bytes.len() + chunk.len() > ANSWER_MAX {
            return Ok(Content::TooLarge);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Content::read(&bytes))
}

fn lost(error: &reqwest::Error, kind: Kind) -> Failure {
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
    unclear(kind, cause, detail.to_owned(), None)
}

/// Whether a part of a path is `.` or `..`, in whichever spelling: it leads to another path, and no escape helps.
fn has_steps(url: &str) -> bool {
    let path = url.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase().replace("%2e", ".");
    path.split('/').any(|part| matches!(part, "." | ".."))
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

    #[test]
    fn what_could_mean_something_else_is_escaped() {
        assert_eq!(escaped("a-b@c.d/e"), "a-b%40c.d%2Fe");
    }

    #[test]
    fn an_id_that_is_a_step_in_a_path_is_sent_nowhere() {
        let http = Http::new();
        let ask = |id: &str| {
            let url = format!("https://api.example/v2/phone_numbers/{}/messaging?x=../y", escaped(id));
            http.request(&crate::telnyx::answers::SETTINGS, Method::GET, &url)
        };
        assert!(ask("1").is_ok() && ask("a..b").is_ok() && ask(".a").is_ok());
        for step in [".", "..", "%2e"] {
            let parts = ask(step).map(|request| {
                let url = request.build().unwrap().url().clone();
                url.path_segments().unwrap().count()
            });
            // A percent sign is escaped itself.
            assert_eq!(parts.ok(), (step == "%2e").then_some(4), "{step}");
        }
        assert!(has_steps("https://a.example/b/%2E%2e/c") && !has_steps("https://a.example/b.c/..d"));
    }

    #[test]
    fn this_machine_is_known_under_all_its_names() {
        for here in [
            "http://localhost:1",
            "http://a.localhost/x",
            "http://127.9.0.1",
            "http://[::1]:80",
            "http://[::ffff:127.0.0.1]",
            "http://0.0.0.0:1",
            "http://LOCALHOST.",
        ] {
            assert!(is_here(&Url::parse(here).unwrap()), "{here}");
        }
        for there in
            ["http://localhost.example.com", "https://10.0.0.1", "https://[::2]", "https://notlocalhost"]
        {
            assert!(!is_here(&Url::parse(there).unwrap()), "{there}");
        }
    }
}

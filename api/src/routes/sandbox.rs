//! Sandbox: the fake providers' own switches, reached through this server.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use crate::problem::{Code, Problem};
use crate::server::App;

/// Where the API's paths of the sandbox begin; what follows is the control API's own path.
const HERE: &str = "/v1/sandbox";

/// The largest answer that is passed on.
const ANSWER_MAX: usize = 2 << 20;
/// So much of what a sandbox says is told.
const TOLD_MAX: usize = 500;

/// The control API of a sandbox.
#[derive(Debug, Clone)]
pub struct Control {
    base: String,
    client: reqwest::Client,
}

impl Control {
    /// The control API at this URL.
    pub fn new(base: &str, client: reqwest::Client) -> Self {
        Self { base: base.trim_end_matches('/').to_owned(), client }
    }
}

/// `GET`, `POST`, `DELETE /v1/sandbox/faults` and `GET /v1/sandbox/providers`
pub async fn forward(
    State(app): State<App>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Result<Response, Problem> {
    let control = app.sandbox.as_ref().ok_or_else(|| {
        Problem::new(Code::NoSandbox, "The providers are your own: there is nothing to switch here.")
    })?;
    let unavailable = |error: reqwest::Error| {
        // The address is ours, and says nothing to the client.
        Problem::new(Code::SandboxUnavailable, error.without_url().to_string())
    };
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    let path = path.strip_prefix(HERE).unwrap_or(path);
    let mut request = control.client.request(method, format!("{}{path}", control.base));
    if !body.is_empty() {
        request = request.header(header::CONTENT_TYPE, "application/json").body(body);
    }
    let mut answer = request.send().await.map_err(unavailable)?;
    let status = StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(unavailable)? {
        if body.len() + part.len() > ANSWER_MAX {
            let detail = format!("Its answer has more than {} MiB.", ANSWER_MAX >> 20);
            return Err(Problem::new(Code::SandboxUnavailable, detail));
        }
        body.extend_from_slice(&part);
    }
    if status.is_client_error() {
        let told = String::from_utf8_lossy(&body).into_owned();
        let detail = serde_json::from_slice::<serde_json::Value>(&body)
            .ok()
            .and_then(|value| Some(value.get("detail").or(value.get("error"))?.as_str()?.to_owned()));
        let told: String = detail.unwrap_or(told).chars().take(TOLD_MAX).collect();
        return Err(Problem::invalid(told));
    }
    if !status.is_success() {
        return Err(Problem::new(Code::SandboxUnavailable, format!("The sandbox answered {status}.")));
    }
    if body.is_empty() {
        return Ok(status.into_response());
    }
    let json = HeaderValue::from_static("application/json");
    Ok((status, [(header::CONTENT_TYPE, json)], body).into_response())
}

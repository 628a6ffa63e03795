//! Server: one listener for all providers; what is asked for befalls a call here, whoever it is for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, Method, Response};
use axum::routing::any;
use serde_json::Value;

use crate::fault::{Fault, Kind, Provider};
use crate::request::{Answer, Request};
use crate::{Shared, agentmail, control, ghcr, openrouter, railway, runtime, telnyx, world};

/// No request is larger.
const BODY_MAX: usize = 1 << 20;

pub(crate) fn app(shared: Arc<Shared>) -> Router {
    let provider = |provider: Provider| {
        any(
            move |State(shared): State<Arc<Shared>>,
                  rest: Option<Path<String>>,
                  query: RawQuery,
                  method: Method,
                  headers: HeaderMap,
                  body: Body| async move {
                let path = rest.map(|Path(rest)| rest).unwrap_or_default();
                match read(path, query.0, &method, &headers, body).await {
                    Ok(request) => serve(shared, provider, request).await,
                    Err(answer) => answer.into_response(),
                }
            },
        )
    };
    Router::new()
        .route("/railway/graphql/v2", provider(Provider::Railway))
        .route("/openrouter/api/v1/{*rest}", provider(Provider::Openrouter))
        .route("/agentmail/v0/{*rest}", provider(Provider::Agentmail))
        .route("/telnyx/v2/{*rest}", provider(Provider::Telnyx))
        .route("/ghcr/{*rest}", provider(Provider::Ghcr))
        .route("/runtime/{*rest}", provider(Provider::Runtime))
        .merge(control::routes())
        .with_state(shared)
}

async fn read(
    path: String,
    query: Option<String>,
    method: &Method,
    headers: &HeaderMap,
    body: Body,
) -> Result<Request, Answer> {
    let bytes = axum::body::to_bytes(body, BODY_MAX).await.map_err(|_| Answer::empty(413))?;
    let body = if bytes.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&bytes).map_err(|_| Answer::json(400, Value::String("not JSON".to_owned())))?
    };
    let named = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    let query: BTreeMap<String, String> = query.map(|query| serde_urlencoded(&query)).unwrap_or_default();
    Ok(Request {
        method: method.to_string(),
        path: path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect(),
        query,
        headers: headers.iter().filter_map(named).collect(),
        body,
    })
}

/// A query's names and values, decoded.
fn serde_urlencoded(query: &str) -> BTreeMap<String, String> {
    let decode = |text: &str| {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            let decoded = match byte {
                b'+' => b' ',
                b'%' => {
                    let digits = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                    std::str::from_utf8(&digits)
                        .ok()
                        .and_then(|digits| u8::from_str_radix(digits, 16).ok())
                        .unwrap_or(b'?')
                }
                plain => plain,
            };
            bytes.push(decoded);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

/// Ends the connection without a word: the task that serves it unwinds, and its socket closes.
fn drop_line() -> ! {
    std::panic::resume_unwind(Box::new("the line was dropped, as asked for"))
}

async fn serve(shared: Arc<Shared>, provider: Provider, request: Request) -> Response<Body> {
    let Some(operation) = operation(provider, &request) else {
        return match provider {
            Provider::Railway => railway::unknown(&request),
            _ => Answer::json(404, serde_json::json!({"error": "no such route"})),
        }
        .into_response();
    };
    // A server does not stop because its caller hung up.
    let answered = tokio::spawn(answer(shared, provider, operation, request)).await;
    match answered {
        Ok(Some(answer)) => answer.into_response(),
        _ => drop_line(),
    }
}

/// What the call is answered; nothing when the line drops.
async fn answer(
    shared: Arc<Shared>,
    provider: Provider,
    operation: &'static str,
    request: Request,
) -> Option<Answer> {
    let take = |kind| shared.world().faults.take(provider, operation, kind);
    *shared.world().calls.entry(format!("{provider}.{operation}")).or_default() += 1;
    if let Some(Fault { ms: Some(ms), .. }) = take(Kind::Latency) {
        world::sleep(Duration::from_millis(ms)).await;
    }
    if take(Kind::Unauthorized).is_some() {
        return Some(unauthorized(provider));
    }
    if let Some(fault) = take(Kind::RateLimited) {
        let answer = too_many(provider);
        return Some(match fault.retry_after {
            Some(seconds) => answer.with("retry-after", seconds.to_string()),
            None => answer,
        });
    }
    if take(Kind::ErrorBefore).is_some() {
        return Some(broken(provider));
    }
    if take(Kind::ThrottleText).is_some() {
        return Some(match provider {
            Provider::Railway => railway::throttle(operation),
            _ => too_many(provider),
        });
    }
    if take(Kind::Refuse).is_some() {
        return Some(refuse(provider, operation));
    }
    if take(Kind::LoseRequest).is_some() {
        return None;
    }
    if let Some(fault) = take(Kind::CommitLate) {
        let most = fault.seconds.unwrap_or(1.0);
        let wait = Duration::from_secs_f64(most * (0.5 + 0.5 * shared.world().dice.unit()));
        tokio::spawn(async move {
            world::sleep(wait).await;
            act(&shared, provider, operation, &request);
        });
        return None;
    }
    let answer = act(&shared, provider, operation, &request);
    if take(Kind::LoseAnswer).is_some() {
        return None;
    }
    if take(Kind::ErrorAfter).is_some() {
        return Some(broken(provider));
    }
    Some(answer)
}

fn operation(provider: Provider, request: &Request) -> Option<&'static str> {
    match provider {
        Provider::Railway => railway::operation(request),
        Provider::Openrouter => openrouter::operation(request),
        Provider::Agentmail => agentmail::operation(request),
        Provider::Telnyx => telnyx::operation(request),
        Provider::Ghcr => ghcr::operation(request),
        Provider::Runtime => runtime::operation(request),
    }
}

fn act(shared: &Shared, provider: Provider, operation: &'static str, request: &Request) -> Answer {
    let mut world = shared.world();
    let answer = match provider {
        Provider::Railway => railway::act(&mut world, request),
        Provider::Openrouter => openrouter::act(&mut world, operation, request),
        Provider::Agentmail => agentmail::act(&mut world, operation, request),
        Provider::Telnyx => telnyx::act(&mut world, operation, request),
        Provider::Ghcr => ghcr::act(&mut world, operation, request),
        Provider::Runtime => runtime::act(&mut world, operation, request),
    };
    // A read changes nothing; what it would keep is kept already.
    if request.method != "GET" && request.method != "HEAD" {
        shared.keep(&world);
    }
    answer
}

fn refuse(provider: Provider, operation: &str) -> Answer {
    match provider {
        Provider::Railway => railway::refuse(operation),
        Provider::Openrouter => openrouter::error(400, "The sandbox was told to refuse this"),
        Provider::Agentmail => agentmail::error(403, "limit_exceeded", "The sandbox was told to refuse this"),
        Provider::Telnyx => telnyx::error(422, "10015", "The sandbox was told to refuse this"),
        Provider::Ghcr => ghcr::error(404, "MANIFEST_UNKNOWN"),
        Provider::Runtime => runtime::error(400, "the sandbox was told to refuse this"),
    }
}

fn unauthorized(provider: Provider) -> Answer {
    match provider {
        Provider::Railway => railway::unauthorized(),
        Provider::Openrouter => openrouter::error(401, "User not found."),
        Provider::Agentmail => agentmail::error(401, "unknown_api_key", "The API key is not known"),
        Provider::Telnyx => telnyx::error(401, "10009", "Authentication failed"),
        Provider::Ghcr => ghcr::error(401, "UNAUTHORIZED"),
        Provider::Runtime => runtime::error(401, "unauthorized"),
    }
}

fn too_many(provider: Provider) -> Answer {
    match provider {
        Provider::Railway => {
            Answer::json(429, serde_json::json!({"errors": [{"message": "Too many requests"}]}))
        }
        Provider::Openrouter => openrouter::error(429, "Rate limit exceeded"),
        Provider::Agentmail => agentmail::error(429, "rate_limit_exceeded", "Too many requests"),
        Provider::Telnyx => telnyx::error(429, "10011", "Too many requests"),
        Provider::Ghcr => ghcr::error(429, "TOOMANYREQUESTS"),
        Provider::Runtime => runtime::error(429, "too many requests"),
    }
}

fn broken(provider: Provider) -> Answer {
    match provider {
        Provider::Railway => {
            Answer::json(500, serde_json::json!({"errors": [{"message": "Internal server error"}]}))
        }
        Provider::Openrouter => openrouter::error(500, "Internal Server Error"),
        Provider::Agentmail => agentmail::error(500, "internal_error", "Internal server error"),
        Provider::Telnyx => telnyx::error(500, "10007", "Unexpected error"),
        Provider::Ghcr => ghcr::error(500, "UNKNOWN"),
        Provider::Runtime => runtime::error(500, "internal error"),
    }
}

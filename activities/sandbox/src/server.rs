//! Server: one listener for all providers; what is asked for befalls a call here, whoever it is for.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, Method, Response};
use axum::response::Html;
use axum::routing::any;
use serde_json::Value;

use crate::call::{Ending, answer};
use crate::deed::{DEEDS, Deed};
use crate::fault::Provider;
use crate::request::{Answer, Request};
use crate::world::World;
use crate::{Shared, agentmail, control, ghcr, guard, openrouter, proxy, railway, runtime, telnyx};

/// No request is larger.
const BODY_MAX: usize = 1 << 20;

pub(crate) fn app(shared: Arc<Shared>, hosts: Arc<[String]>) -> Router {
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
    let routes = Router::new()
        .route("/railway/graphql/v2", provider(Provider::Railway))
        .route("/openrouter/api/v1/{*rest}", provider(Provider::Openrouter))
        .route("/agentmail/v0/{*rest}", provider(Provider::Agentmail))
        .route("/telnyx/v2/{*rest}", provider(Provider::Telnyx))
        .route("/ghcr/{*rest}", provider(Provider::Ghcr))
        .route("/runtime/{*rest}", provider(Provider::Runtime))
        // Where a redirect of the proxy leads to.
        .route("/login", any(|| async { Html(proxy::PAGE) }))
        .merge(control::routes())
        .with_state(shared);
    guard::guarded(routes, hosts)
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

async fn serve(shared: Arc<Shared>, provider: Provider, request: Request) -> Response<Body> {
    let Some(operation) = operation(provider, &request) else {
        return match provider {
            Provider::Railway => railway::unknown(&request),
            _ => Answer::json(404, serde_json::json!({"error": "no such route"})),
        }
        .into_response();
    };
    let clock = shared.world().clock.clone();
    // A server does not stop because its caller hung up.
    match tokio::spawn(answer(shared, provider, operation, request)).await {
        Ok(Ending::Answer(answer)) => answer.into_response(),
        Ok(Ending::Spoiled(answer, spoiled)) => proxy::spoil(answer, &spoiled, &clock),
        Ok(Ending::Hang) => match proxy::hang().await {},
        Ok(Ending::Drop) | Err(_) => proxy::drop_line(),
    }
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

/// Carries a call out.
pub(crate) fn act(
    world: &mut World,
    provider: Provider,
    operation: &'static str,
    request: &Request,
) -> Answer {
    let answer = carry_out(world, provider, operation, request);
    if world.deeds.len() >= DEEDS {
        world.deeds.pop_front();
    }
    let when = (world.now(), world.is_landing);
    world.deeds.push_back(Deed::new((provider, operation), request, &answer, when));
    world.forget();
    answer
}

fn carry_out(world: &mut World, provider: Provider, operation: &'static str, request: &Request) -> Answer {
    match provider {
        Provider::Railway => railway::act(world, request),
        Provider::Openrouter => openrouter::act(world, operation, request),
        Provider::Agentmail => agentmail::act(world, operation, request),
        Provider::Telnyx => telnyx::act(world, operation, request),
        Provider::Ghcr => ghcr::act(world, operation, request),
        Provider::Runtime => runtime::act(world, operation, request),
    }
}

//! Server: one listener for all providers; what is asked for befalls a call here, whoever it is for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, Method, Response};
use axum::response::Html;
use axum::routing::any;
use serde_json::Value;

use crate::fault::{Kind, Provider, Spoiled};
use crate::request::{Answer, Request};
use crate::world::{LateCall, World};
use crate::{
    Shared, agentmail, clock, control, ghcr, guard, happening, lists, openrouter, proxy, railway, runtime,
    telnyx,
};

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

/// What the caller sees of a call.
enum Ending {
    Answer(Answer),
    Spoiled(Answer, Spoiled),
    Hang,
    Drop,
}

/// Lives through one call, with what goes wrong with it.
async fn answer(
    shared: Arc<Shared>,
    provider: Provider,
    operation: &'static str,
    request: Request,
) -> Ending {
    let latency = {
        let mut world = shared.world();
        *world.calls.entry(format!("{provider}.{operation}")).or_default() += 1;
        name(&mut world, provider, &request);
        let latency = world.faults.take(provider, operation, Kind::Latency);
        latency
            .and_then(|fault| fault.ms)
            .map(|ms| (world.clock.clone(), world.later(Duration::from_millis(ms))))
    };
    if let Some((clock, until)) = latency {
        clock.sleep_until(until).await;
    }
    let mut world = shared.world();
    name(&mut world, provider, &request);
    let was_late = world.late.len();
    let ending = live(&mut world, provider, operation, &request);
    if let Some(late) = world.late.get(was_late) {
        // It lands when somebody looks, and at its time if nobody does.
        let (clock, at, shared) = (world.clock.clone(), late.at, shared.clone());
        tokio::spawn(async move {
            clock.sleep_until(at).await;
            drop(shared.world());
        });
    }
    // A read changes nothing; what it would keep is kept already.
    if request.method != "GET" && request.method != "HEAD" {
        shared.keep(&world);
    }
    ending
}

/// Says which things this call is about, for the faults that are about one of them.
fn name(world: &mut World, provider: Provider, request: &Request) {
    if !world.faults.ask_for_names() {
        return;
    }
    let mut named = request.named();
    named.extend(credential(provider, request).map(str::to_owned));
    world.faults.begin(named);
}

/// What faults call the credential of a call.
fn credential(provider: Provider, request: &Request) -> Option<&'static str> {
    let shown = request.bearer();
    let is = |known: &str, name| (shown == Some(known)).then_some(name);
    match provider {
        Provider::Railway => {
            let index = railway::TOKENS.iter().position(|(_, token)| shown == Some(*token))?;
            railway::TOKEN_NAMES.get(index).copied()
        }
        Provider::Openrouter => is(openrouter::MANAGEMENT_KEY, "openrouter"),
        Provider::Agentmail => is(agentmail::KEY, "agentmail"),
        Provider::Telnyx => is(telnyx::KEY, "telnyx"),
        Provider::Ghcr | Provider::Runtime => None,
    }
}

/// One call, from its arrival to what its caller sees.
fn live(world: &mut World, provider: Provider, operation: &'static str, request: &Request) -> Ending {
    happen(world, provider, operation, request, false);
    if let Some(ending) = before(world, provider, operation, request) {
        return ending;
    }
    let first_page = lists::first_page(world, provider, operation, request);
    let mut answer = act(world, provider, operation, first_page.as_ref().unwrap_or(request));
    happen(world, provider, operation, request, true);
    lists::spoil(world, provider, operation, request, first_page.is_some(), &mut answer);
    after(world, provider, operation, answer)
}

/// What changes behind our back at this call.
fn happen(world: &mut World, provider: Provider, operation: &'static str, request: &Request, acted: bool) {
    for kind in happening::KINDS {
        let Some(fault) = world.faults.take_at(provider, operation, kind, acted) else { continue };
        let called = (provider == Provider::Runtime).then(|| request.path.first().cloned()).flatten();
        if let Err(problem) = happening::happen(world, &fault, called.as_deref()) {
            tracing::warn!(%kind, problem, "a fault had nothing to happen to");
        }
    }
}

/// How the call ends before it has done anything, if it does.
fn before(
    world: &mut World,
    provider: Provider,
    operation: &'static str,
    request: &Request,
) -> Option<Ending> {
    if let Some(limited) = quota(world, provider, operation, request) {
        return Some(Ending::Answer(limited));
    }
    let mut take = |kind| world.faults.take(provider, operation, kind);
    if take(Kind::Unauthorized).is_some() {
        return Some(Ending::Answer(unauthorized(provider)));
    }
    if let Some(fault) = take(Kind::RateLimited) {
        let answer = too_many(provider);
        return Some(Ending::Answer(match fault.retry_after {
            Some(seconds) => answer.with("retry-after", seconds.to_string()),
            None => answer,
        }));
    }
    if take(Kind::ErrorBefore).is_some() {
        return Some(Ending::Answer(broken(provider)));
    }
    if take(Kind::ThrottleText).is_some() {
        return Some(Ending::Answer(match provider {
            Provider::Railway => railway::throttle(operation),
            _ => too_many(provider),
        }));
    }
    if take(Kind::Refuse).is_some() {
        return Some(Ending::Answer(refuse(provider, operation)));
    }
    if take(Kind::LoseRequest).is_some() {
        return Some(Ending::Drop);
    }
    if let Some(fault) = take(Kind::CommitLate) {
        let most = fault.seconds.unwrap_or(1.0);
        let least = fault.from_seconds.unwrap_or(most / 2.0);
        let wait = least + (most - least) * world.dice.unit();
        let at = world.in_seconds(wait);
        world.late.push(LateCall { at, provider, operation, request: request.clone() });
        return Some(match fault.preset {
            Some(preset) => Ending::Spoiled(nothing_done(), preset.answer()),
            None => Ending::Drop,
        });
    }
    if world.faults.take_at(provider, operation, Kind::Hang, false).is_some() {
        return Some(Ending::Hang);
    }
    let spoiled = world.faults.take_at(provider, operation, Kind::Spoil, false)?;
    Some(Ending::Spoiled(nothing_done(), spoiled.answered()))
}

/// What a proxy spoils when the provider has said nothing yet.
fn nothing_done() -> Answer {
    Answer::json(200, serde_json::json!({"data": null, "message": "the call has done nothing"}))
}

/// What becomes of the answer.
fn after(world: &mut World, provider: Provider, operation: &'static str, mut answer: Answer) -> Ending {
    let not_found = answer.body.as_mut().and_then(|body| body.pointer_mut("/errors/0/message"));
    if let Some(message) =
        not_found.filter(|message| message.as_str().is_some_and(|text| text.ends_with(" not found")))
        && let Some(text) =
            world.faults.take(provider, operation, Kind::GoneText).and_then(|fault| fault.text)
    {
        *message = Value::String(text);
    }
    if world.faults.take(provider, operation, Kind::LoseAnswer).is_some() {
        return Ending::Drop;
    }
    if world.faults.take(provider, operation, Kind::ErrorAfter).is_some() {
        return Ending::Answer(broken(provider));
    }
    if world.faults.take_at(provider, operation, Kind::Hang, true).is_some() {
        return Ending::Hang;
    }
    match world.faults.take_at(provider, operation, Kind::Spoil, true) {
        Some(spoiled) => Ending::Spoiled(answer, spoiled.answered()),
        None => Ending::Answer(answer),
    }
}

/// Counts the call against the quotas of its credential; the answer, if one is used up.
fn quota(
    world: &mut World,
    provider: Provider,
    operation: &'static str,
    request: &Request,
) -> Option<Answer> {
    let now = world.now();
    for (index, fault) in world.faults.quotas(provider, operation) {
        let (calls, seconds) = (fault.calls.unwrap_or(0), fault.seconds.unwrap_or(1.0));
        let credential = credential(provider, request).unwrap_or("none").to_owned();
        let used = world.quotas.entry((index, credential)).or_insert((now, 0));
        let window = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        if now >= clock::after(used.0, window) {
            *used = (now, 0);
        }
        if used.1 >= calls {
            let left = clock::after(used.0, window).duration_since(now).as_secs_f64().ceil();
            world.faults.note(provider, operation, Kind::Quota);
            let answer = too_many(provider)
                .with("retry-after", format!("{left:.0}"))
                .with("x-ratelimit-limit", calls.to_string())
                .with("x-ratelimit-remaining", "0")
                .with("x-ratelimit-reset", format!("{left:.0}"));
            return Some(answer);
        }
        used.1 += 1;
    }
    None
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
    match provider {
        Provider::Railway => railway::act(world, request),
        Provider::Openrouter => openrouter::act(world, operation, request),
        Provider::Agentmail => agentmail::act(world, operation, request),
        Provider::Telnyx => telnyx::act(world, operation, request),
        Provider::Ghcr => ghcr::act(world, operation, request),
        Provider::Runtime => runtime::act(world, operation, request),
    }
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

//! Routes: the HTTP API, a file per noun.

pub mod claims;
pub mod findings;
pub mod gates;
pub mod health;
pub mod instances;
pub mod pools;
pub mod resources;
pub mod sagas;
pub mod sandbox;

use std::time::Duration;

use amends_engine::SagaId;
use amends_engine::store::Started;
use axum::Router;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use crate::connections::WaitPlace;
use crate::problem::{Code, Problem};
use crate::product;
use crate::server::App;
use crate::view::Saga;

/// Every path of the API.
pub fn api() -> Router<App> {
    Router::new()
        .route("/v1/claims", post(claims::claim))
        .route("/v1/censuses", get(findings::censuses))
        .route("/v1/censuses/{provider}/actions/accept_absence", post(findings::accept_absence))
        .route("/v1/findings", get(findings::list))
        .route("/v1/findings/{id}/actions/settle", post(findings::settle))
        .route("/v1/findings/{id}/actions/remove", post(findings::remove))
        .route("/v1/instances", get(instances::list))
        .route("/v1/instances/{id}/teardown", post(instances::teardown))
        .route("/v1/pools", get(pools::list))
        .route("/v1/resources", get(resources::list))
        .route("/v1/sagas", get(sagas::list))
        .route("/v1/sagas/{id}", get(sagas::show))
        .route("/v1/gates", get(gates::list))
        .route("/v1/gates/actions", post(gates::act))
        .route("/v1/sagas/{id}/actions", post(sagas::act))
        .route("/v1/sagas/{id}/actions/retry", post(sagas::retry))
        .route("/v1/sagas/{id}/actions/cancel", post(sagas::cancel))
        .route("/v1/sandbox/faults", get(sandbox::forward).post(sandbox::forward).delete(sandbox::forward))
        .route("/v1/sandbox/providers", get(sandbox::forward))
        .route("/healthz", get(health::healthz))
}

/// Refuses what gives something away, or takes it away, on a database that was put back, before each provider was
/// compared with it.
async fn compared(app: &App) -> Result<(), Problem> {
    let Some(since) = app.restored_at else { return Ok(()) };
    let missing = product::not_compared(&app.engine, since).await?;
    if missing.is_empty() {
        return Ok(());
    }
    let detail = format!("Not compared yet since the database was put back: {}.", missing.join(", "));
    Err(Problem::new(Code::NotCompared, detail))
}

/// How many rows a page has, unless the client says.
const LIMIT: u32 = 50;
/// How many it may have.
const LIMIT_MAX: u32 = 200;

/// Which page of a list that is asked for nothing else.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// Where the page before ended.
    pub cursor: Option<String>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// Reads how long a page is to be.
fn limit(asked: Option<u32>) -> Result<u32, Problem> {
    match asked {
        None => Ok(LIMIT),
        Some(limit @ 1..=LIMIT_MAX) => Ok(limit),
        Some(other) => Err(Problem::invalid(format!("limit: {other} is not between 1 and {LIMIT_MAX}."))),
    }
}

/// Reads a list of states, separated by commas.
fn states<S: std::str::FromStr + strum::VariantNames>(text: Option<&str>) -> Result<Vec<S>, Problem> {
    let words = text.into_iter().flat_map(|text| text.split(',')).map(str::trim);
    words
        .filter(|word| !word.is_empty())
        .map(|word| {
            word.parse().map_err(|_| {
                let shown: String = word.chars().take(40).flat_map(char::escape_default).collect();
                Problem::invalid(format!("state: {shown} is none of {}.", S::VARIANTS.join(", ")))
            })
        })
        .collect()
}

/// One page of what was read with one row more than asked for.
pub(crate) fn page<R, T>(
    mut rows: Vec<R>,
    limit: u32,
    cursor: impl Fn(&R) -> String,
    show: impl Fn(&R) -> T,
) -> crate::view::Page<T> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = rows.last().filter(|_| more).map(cursor);
    crate::view::Page { items: rows.iter().map(show).collect(), next_cursor }
}

/// Answers a start: the saga as it stands after at most `wait`, where to find it, and under which key it is known.
async fn started(
    app: &App,
    started: Started,
    key: Option<&str>,
    wait: Option<(Duration, WaitPlace)>,
) -> Result<Response, Problem> {
    let (saga, replayed) = match started {
        Started::New(saga) => (saga, false),
        Started::Before(saga) => (saga, true),
        Started::KeyReused(saga) => {
            let detail = format!("The key was used with another body, for saga {saga}.");
            return Err(Problem::new(Code::IdempotencyKeyReused, detail));
        }
    };
    let mut response = accepted(app, &saga, wait).await?;
    let headers = response.headers_mut();
    if let Some(key) = key.and_then(|key| HeaderValue::from_str(key).ok()) {
        headers.insert(HeaderName::from_static(crate::extract::IDEMPOTENCY_KEY), key);
    }
    if replayed {
        headers.insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// A saga that goes on after the answer: 202 while it does, 200 once it has ended.
async fn accepted(
    app: &App,
    saga: &SagaId,
    wait: Option<(Duration, WaitPlace)>,
) -> Result<Response, Problem> {
    let row = match wait {
        Some((wait, _place)) => app.engine.wait(saga, wait, |row| !row.attention.is_empty()).await?,
        None => app.engine.row(saga).await?,
    };
    let row = row.ok_or_else(|| Problem::not_found(format!("saga {saga}")))?;
    let shown = Saga::of(&row, app.now());
    let status = if row.state.is_ended() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let location = HeaderValue::from_str(&shown.links.this)
        .map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    let mut response = (status, axum::Json(shown)).into_response();
    response.headers_mut().insert(header::LOCATION, location);
    if status == StatusCode::ACCEPTED {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    }
    Ok(response)
}

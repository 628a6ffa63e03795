//! Sagas: list them, look at one, act on one.

use amends_engine::ids::OperationId;
use amends_engine::journal::Act;
use amends_engine::store::SagaFilter;
use amends_engine::{SagaId, StepKey};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{limit, page, states};
use crate::act::Words;
use crate::connections::Waits;
use crate::extract::{self, Body, IdempotencyKey, IfMatch, Query, SagaPath};
use crate::fresh::Tag;
use crate::problem::{Code, Problem};
use crate::server::App;
use crate::view::{INSTANCE_LABEL, Page, Saga, SagaDetail};

/// Which sagas to list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// About this instance.
    pub instance: Option<String>,
    /// In these states, separated by commas.
    pub state: Option<String>,
    /// `any`: only those that a person should look at.
    pub attention: Option<String>,
    /// Of this definition.
    pub kind: Option<String>,
    /// Where the page before ended.
    pub cursor: Option<String>,
    /// At most so many.
    pub limit: Option<u32>,
}

impl ListQuery {
    /// The same, as the store understands it, with one row more than asked for.
    pub fn filter(&self) -> Result<(SagaFilter, u32), Problem> {
        let limit = limit(self.limit)?;
        let attention = match self.attention.as_deref() {
            None | Some("") => false,
            Some("any") => true,
            Some(_) => return Err(Problem::invalid("attention: only any can be asked for.")),
        };
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let label = given(&self.instance)
            .map(|instance| extract::name("instance", &instance))
            .transpose()?
            .map(|instance| (INSTANCE_LABEL.to_owned(), instance));
        let before = given(&self.cursor)
            .map(|cursor| {
                extract::saga_id(&cursor).map_err(|problem| Problem::new(Code::CursorInvalid, problem.detail))
            })
            .transpose()?;
        let filter = SagaFilter {
            states: states(self.state.as_deref())?,
            attention,
            workflow: given(&self.kind),
            label,
            fingerprint: None,
            parent: None,
            before,
            limit: limit + 1,
        };
        Ok((filter, limit))
    }
}

/// `GET /v1/sagas`
pub async fn list(
    State(app): State<App>,
    headers: HeaderMap,
    Query(query): Query<ListQuery>,
) -> Result<Response, Problem> {
    let (filter, limit) = query.filter()?;
    let tag = Tag::of_lists(&app).await?;
    if let Some(unchanged) = tag.unchanged(&headers) {
        return Ok(unchanged);
    }
    let rows = app.engine.sagas(filter).await?;
    let now = app.now();
    let page: Page<Saga> = page(rows, limit, |row| row.id.to_string(), |row| Saga::of(row, now));
    Ok(tag.on(axum::Json(page).into_response()))
}

/// How to look at one.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShowQuery {
    /// Answer only once it has ended, or after so long.
    pub wait: Option<String>,
    /// `ended` (if nothing is said) or `attention`: also when a person should look.
    pub until: Option<String>,
    /// Its steps from behind this one on, as `next_steps` names it.
    pub steps_after: Option<String>,
}

/// `GET /v1/sagas/{id}`
pub async fn show(
    State(app): State<App>,
    SagaPath(saga): SagaPath,
    waits: Waits,
    Query(query): Query<ShowQuery>,
) -> Result<Response, Problem> {
    let attention = match query.until.as_deref() {
        None | Some("ended") => false,
        Some("attention") => true,
        Some(_) => return Err(Problem::invalid("until: ended or attention.")),
    };
    let after = steps_after(query.steps_after.as_deref())?;
    let wait = extract::wait(query.wait.as_deref())?;
    let asked = wait.is_some();
    let allowed = waits.allow(wait);
    let is_cut = asked && allowed.is_none();
    if let Some((wait, _place)) = allowed {
        app.engine.wait(&saga, wait, |row| attention && !row.attention.is_empty()).await?;
    }
    let view = app.engine.view(&saga).await?.ok_or_else(|| Problem::not_found(format!("saga {saga}")))?;
    let version = HeaderValue::from_str(&format!("\"{}\"", view.row.seq));
    let mut response = axum::Json(SagaDetail::behind(&view, after.as_ref(), app.now()).0).into_response();
    if let Ok(version) = version {
        response.headers_mut().insert(header::ETAG, version);
    }
    if is_cut {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    }
    Ok(response)
}

/// Reads behind which step a saga's steps are shown; from the first on if nothing is said.
pub(crate) fn steps_after(text: Option<&str>) -> Result<Option<StepKey>, Problem> {
    let given = text.filter(|text| !text.is_empty());
    given
        .map(|text| {
            let problem = |error| Problem::new(Code::CursorInvalid, format!("steps_after: {error}."));
            StepKey::parse(text).map_err(problem)
        })
        .transpose()
}

/// Why a person acts.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// In words; kept with the saga.
    pub reason: String,
}

/// An act that was accepted; what came of it stands in the saga's journal.
#[derive(Debug, Serialize, Deserialize)]
pub struct Accepted {
    /// The act's own id.
    pub operation: String,
    /// The saga as it stood right after.
    pub saga: Saga,
}

/// What acts through the API are signed with, for want of names.
pub(super) const ACTOR: &str = "operator (api)";

/// `POST /v1/sagas/{id}/actions`: `{"kind": …, "step": …, …, "reason": …}`
pub async fn act(
    State(app): State<App>,
    SagaPath(saga): SagaPath,
    IdempotencyKey(key): IdempotencyKey,
    version: IfMatch,
    Body(body): Body<Map<String, Value>>,
) -> Result<Response, Problem> {
    let mut words = Words::of_body(body);
    let reason = extract::reason(&words.text("reason")?)?;
    let act = words.into_act(false, app.now())?;
    do_act(&app, &saga, act, &reason, key.as_deref(), &version).await
}

/// `POST /v1/sagas/{id}/actions/retry`
pub async fn retry(
    State(app): State<App>,
    SagaPath(saga): SagaPath,
    IdempotencyKey(key): IdempotencyKey,
    version: IfMatch,
    Body(body): Body<Reason>,
) -> Result<Response, Problem> {
    do_act(&app, &saga, Act::Retry, &extract::reason(&body.reason)?, key.as_deref(), &version).await
}

/// `POST /v1/sagas/{id}/actions/cancel`
pub async fn cancel(
    State(app): State<App>,
    SagaPath(saga): SagaPath,
    IdempotencyKey(key): IdempotencyKey,
    version: IfMatch,
    Body(body): Body<Reason>,
) -> Result<Response, Problem> {
    do_act(&app, &saga, Act::Cancel, &extract::reason(&body.reason)?, key.as_deref(), &version).await
}

/// Does an act once a key: a repeated request gets the first one's operation, whatever has become of the saga since.
async fn do_act(
    app: &App,
    saga: &SagaId,
    act: Act,
    reason: &str,
    key: Option<&str>,
    version: &IfMatch,
) -> Result<Response, Problem> {
    let row = app.engine.row(saga).await?.ok_or_else(|| Problem::not_found(format!("saga {saga}")))?;
    let operation = match key {
        Some(key) => OperationId::of_key(saga, key),
        None => OperationId::from_uuid(app.engine.env().uuid()),
    };
    let is_known = app.engine.audit(saga).await?.iter().any(|known| known.operation == operation);
    if !is_known {
        version.check(row.seq)?;
    }
    let operation = app.engine.act_as(operation, saga, act, ACTOR, reason).await?;
    let mut response = acted(app, saga, operation.to_string()).await?;
    if let Some(key) = key.and_then(|key| HeaderValue::from_str(key).ok()) {
        response.headers_mut().insert(HeaderName::from_static(extract::IDEMPOTENCY_KEY), key);
    }
    if is_known {
        response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    Ok(response)
}

async fn acted(app: &App, saga: &SagaId, operation: String) -> Result<Response, Problem> {
    let row = app.engine.row(saga).await?.ok_or_else(|| Problem::not_found(format!("saga {saga}")))?;
    let saga = Saga::of(&row, app.now());
    let location = HeaderValue::from_str(&saga.links.this);
    let mut response = (StatusCode::ACCEPTED, axum::Json(Accepted { operation, saga })).into_response();
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

//! Findings: in what the providers and the ledger differ, how old that knowledge is, and what a person says of it.

use amends_engine::ids::FindingId;
use amends_engine::sweep::{FindingClass, FindingFilter, FindingRow, Settlement, SweepError};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::sagas::{ACTOR, Reason};
use super::{limit, page};
use crate::extract::{self, Body, Query};
use crate::problem::{Code, Problem};
use crate::server::App;
use crate::view::{Census, Finding, Page};

/// Which findings to list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// At this provider.
    pub provider: Option<String>,
    /// `orphan`, `ghost`, `foreign` or `drift`.
    pub class: Option<String>,
    /// About what this instance or saga holds.
    pub holder: Option<String>,
    /// `open` (if nothing is said), `settled` or `any`.
    pub state: Option<String>,
    /// Where the page before ended.
    pub cursor: Option<String>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// `GET /v1/findings`
pub async fn list(
    State(app): State<App>,
    Query(query): Query<ListQuery>,
) -> Result<axum::Json<Page<Finding>>, Problem> {
    listed(&app, query).await.map(axum::Json)
}

/// A page of findings, the newest first.
pub(crate) async fn listed(app: &App, query: ListQuery) -> Result<Page<Finding>, Problem> {
    let limit = limit(query.limit)?;
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let class = given(query.class).map(|text| {
        let problem = || Problem::invalid("class: orphan, ghost, foreign or drift.");
        text.parse::<FindingClass>().map_err(|_| problem())
    });
    let open = match query.state.as_deref() {
        None | Some("" | "open") => Some(true),
        Some("settled") => Some(false),
        Some("any") => None,
        Some(_) => return Err(Problem::invalid("state: open, settled or any.")),
    };
    let cursor = given(query.cursor).map(|cursor| {
        FindingId::parse(&cursor).map_err(|error| Problem::new(Code::CursorInvalid, format!("{error}.")))
    });
    let filter = FindingFilter {
        provider: given(query.provider),
        class: class.transpose()?,
        holder: given(query.holder).map(|holder| extract::name("holder", &holder)).transpose()?,
        open,
        id: None,
        before: cursor.transpose()?,
        limit: limit + 1,
    };
    let rows = app.engine.findings(filter).await?;
    Ok(page(rows, limit, |row| row.id.to_string(), Finding::of))
}

/// `GET /v1/censuses`
pub async fn censuses(State(app): State<App>) -> Result<axum::Json<Page<Census>>, Problem> {
    Ok(axum::Json(Page { items: all_censuses(&app).await?, next_cursor: None }))
}

/// How old what is known of each provider is.
pub(crate) async fn all_censuses(app: &App) -> Result<Vec<Census>, Problem> {
    let now = app.now();
    Ok(app.engine.censuses().await?.iter().map(|row| Census::of(row, now)).collect())
}

/// How a person settles a finding.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settle {
    /// `ignored`: it is to be left as it is. `removed`, `adopted`, `vanished`: what was done about it elsewhere.
    pub how: Settlement,
    /// In words; kept with the finding.
    pub reason: String,
}

/// `POST /v1/findings/{id}/actions/settle`
pub async fn settle(
    State(app): State<App>,
    Path(id): Path<String>,
    Body(body): Body<Settle>,
) -> Result<axum::Json<Finding>, Problem> {
    let id = finding_id(&id)?;
    app.engine.settle_finding(&id, body.how, ACTOR, &extract::reason(&body.reason)?).await?;
    Ok(axum::Json(Finding::of(&shown(&app, &id).await?)))
}

/// `POST /v1/findings/{id}/actions/remove`
pub async fn remove(
    State(app): State<App>,
    Path(id): Path<String>,
    Body(body): Body<Reason>,
) -> Result<Response, Problem> {
    let id = finding_id(&id)?;
    app.engine.remove_orphan(&id, ACTOR, &extract::reason(&body.reason)?).await?;
    let finding = Finding::of(&shown(&app, &id).await?);
    Ok((StatusCode::ACCEPTED, axum::Json(finding)).into_response())
}

/// `POST /v1/censuses/{provider}/actions/accept_absence`
pub async fn accept_absence(
    State(app): State<App>,
    Path(provider): Path<String>,
    Body(body): Body<Reason>,
) -> Result<StatusCode, Problem> {
    accepted(&app, &provider, &body.reason, ACTOR).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Says that what the ledger has at a provider may well be absent.
pub(crate) async fn accepted(app: &App, provider: &str, reason: &str, actor: &str) -> Result<(), Problem> {
    let provider = extract::name("provider", provider)?;
    Ok(app.engine.accept_absence(&provider, actor, &extract::reason(reason)?).await?)
}

pub(crate) fn finding_id(text: &str) -> Result<FindingId, Problem> {
    FindingId::parse(text).map_err(|error| Problem::new(Code::MalformedId, format!("{error}.")))
}

async fn shown(app: &App, id: &FindingId) -> Result<FindingRow, Problem> {
    app.engine.finding(id).await?.ok_or_else(|| Problem::not_found(format!("finding {id}")))
}

impl From<SweepError> for Problem {
    fn from(error: SweepError) -> Self {
        match error {
            SweepError::NoSuchFinding(id) => Self::not_found(format!("finding {id}")),
            SweepError::NoSuchProvider(_) => Self::new(Code::NotOffered, format!("{error}.")),
            SweepError::TooLate(_) => Self::new(Code::StateConflict, format!("{error}.")),
            SweepError::ActorRequired => Self::invalid(format!("{error}.")),
            SweepError::Unstorable(problem) => amends_engine::ActError::from(problem).into(),
            SweepError::Store(error) => error.into(),
        }
    }
}

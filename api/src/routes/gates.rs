//! Gates: what each credential lets pass just now, and a person's act of opening or closing one.

use amends_engine::gate::GateView;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::{PageQuery, limit, page};
use crate::extract::{self, Body, Query};
use crate::problem::{Code, Problem};
use crate::server::App;
use crate::view::{Gate, Page};

/// Where so many gates were closed or opened by hand no further one can be closed by its name alone.
pub const GATES_MAX: usize = 1_000;

/// `GET /v1/gates`: every gate that was ever closed, is limited, or holds somebody up, by key.
pub async fn list(
    State(app): State<App>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<Gate>>, Problem> {
    listed(&app, &query).await.map(axum::Json)
}

/// A page of gates, by key.
pub(crate) async fn listed(app: &App, query: &PageQuery) -> Result<Page<Gate>, Problem> {
    let limit = limit(query.limit)?;
    Ok(part(app.engine.gates().await?, query.cursor.as_deref().unwrap_or_default(), limit))
}

/// The gates behind this key, at most so many.
fn part(mut gates: Vec<GateView>, after: &str, limit: u32) -> Page<Gate> {
    gates.retain(|gate| gate.key.as_str() > after);
    gates.sort_by(|one, other| one.key.cmp(&other.key));
    page(gates, limit, |gate| gate.key.clone(), Gate::of)
}

/// What to do to a gate.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GateAction {
    /// Which gate, as the list names it.
    pub gate: String,
    /// `open` or `close`.
    pub kind: GateActionKind,
    /// In words; kept with the gate.
    pub reason: String,
}

/// The acts on a gate.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::VariantNames,
    clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum GateActionKind {
    /// Let calls pass again: one first, then in growing waves.
    Open,
    /// Let nothing pass, compensations neither, until it is opened.
    Close,
}

/// What acts through the API are signed with, for want of names.
const ACTOR: &str = "operator (api)";

/// `POST /v1/gates/actions`
///
/// The gate is named in the body: its key is a credential's, with whatever characters that has.
pub async fn act(State(app): State<App>, Body(action): Body<GateAction>) -> Result<Response, Problem> {
    let gate = acted(&app, action, ACTOR).await?;
    Ok((StatusCode::OK, axum::Json(Gate::of(&gate))).into_response())
}

/// How many gates a person has closed or opened. Others there are as many as calls have named.
fn named_by_hand(gates: &[GateView]) -> usize {
    gates.iter().filter(|gate| !gate.acts.is_empty()).count()
}

/// Does it, and yields the gate as it is then.
pub(crate) async fn acted(app: &App, action: GateAction, actor: &str) -> Result<GateView, Problem> {
    let reason = extract::reason(&action.reason)?;
    let gates = app.engine.gates().await?;
    // One that is known is named by its key, whatever characters that has; what else is asked for has to be a name.
    let is_known = gates.iter().any(|gate| gate.key == action.gate);
    let key = if is_known { action.gate } else { extract::name("gate", &action.gate)? };
    let unknown =
        || Problem::not_found(format!("gate {key}: it was never closed or limited, and nobody waits at it"));
    match action.kind {
        GateActionKind::Open if !is_known => return Err(unknown()),
        GateActionKind::Open => app.engine.open_gate(&key, actor, &reason).await?,
        // Its row stays, so that there may not be any number of them.
        GateActionKind::Close if !is_known && named_by_hand(&gates) >= GATES_MAX => {
            let detail = format!(
                "gate: {key} is not known, and {GATES_MAX} gates were closed by hand already: only what calls name can be closed."
            );
            return Err(Problem::new(Code::StateConflict, detail));
        }
        // Also one that no call has passed yet: a credential can be closed before it is used.
        GateActionKind::Close => app.engine.close_gate(&key, actor, &reason).await?,
    }
    let gates = app.engine.gates().await?;
    gates.into_iter().find(|gate| gate.key == key).ok_or_else(unknown)
}

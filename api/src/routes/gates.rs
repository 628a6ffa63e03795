//! Gates: what each credential lets pass just now, and a person's act of opening or closing one.

use amends_engine::gate::GateView;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::extract::{self, Body};
use crate::problem::Problem;
use crate::server::App;
use crate::view::Gate;

/// Every gate that was ever closed, is limited, or holds somebody up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gates {
    /// By key.
    pub items: Vec<Gate>,
}

/// `GET /v1/gates`
pub async fn list(State(app): State<App>) -> Result<axum::Json<Gates>, Problem> {
    let items = app.engine.gates().await?.iter().map(Gate::of).collect();
    Ok(axum::Json(Gates { items }))
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

/// Does it, and yields the gate as it is then.
pub(crate) async fn acted(app: &App, action: GateAction, actor: &str) -> Result<GateView, Problem> {
    let reason = extract::reason(&action.reason)?;
    let key = extract::name("gate", &action.gate)?;
    let find = async || {
        let all = app.engine.gates().await?;
        Ok::<_, Problem>(all.into_iter().find(|gate| gate.key == key))
    };
    let unknown =
        || Problem::not_found(format!("gate {key}: it was never closed or limited, and nobody waits at it"));
    match action.kind {
        GateActionKind::Open => {
            find().await?.ok_or_else(unknown)?;
            app.engine.open_gate(&key, actor, &reason).await?;
        }
        // Also one that no call has passed yet: a credential can be closed before it is used.
        GateActionKind::Close => app.engine.close_gate(&key, actor, &reason).await?,
    }
    find().await?.ok_or_else(unknown)
}

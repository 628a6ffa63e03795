//! Claims: give a waiting instance to a user.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use crate::extract::{self, Body, IdempotencyKey, Query};
use crate::problem::Problem;
use crate::product::{self, ClaimRequest};
use crate::server::App;

/// How to answer a start.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartQuery {
    /// Answer only once the saga has ended or a person should look, or after so long.
    pub wait: Option<String>,
}

/// `POST /v1/claims`
pub async fn claim(
    State(app): State<App>,
    Query(query): Query<StartQuery>,
    IdempotencyKey(key): IdempotencyKey,
    Body(request): Body<ClaimRequest>,
) -> Result<Response, Problem> {
    let wait = extract::wait(query.wait.as_deref())?;
    // A client that sent none can still repeat the request: under the key that we answer with.
    let key = key.unwrap_or_else(|| app.engine.env().uuid().to_string());
    let started = product::claim(&app.engine, &key, request).await?;
    super::started(&app, started, Some(&key), wait).await
}

//! Claims: give a waiting instance to a user.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use crate::connections::Waits;
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

/// How many characters a name for people may have.
const AGENT_NAME_MAX: usize = 80;
/// How long an invitation may be.
const JOIN_URL_MAX: usize = 2048;

/// A claim whose fields are of a sane size and shape. Whether the template exists is for the pool to say.
fn checked(request: ClaimRequest) -> Result<ClaimRequest, Problem> {
    let ClaimRequest { template_id, name, owner_id, join_url } = request;
    Ok(ClaimRequest {
        template_id: extract::field("template_id", &template_id)?,
        name: name.map(|name| extract::line("name", &name, AGENT_NAME_MAX)).transpose()?,
        owner_id: owner_id.map(|owner| extract::field("owner_id", &owner)).transpose()?,
        join_url: join_url.map(|url| extract::url("join_url", &url, JOIN_URL_MAX)).transpose()?,
    })
}

/// `POST /v1/claims`
pub async fn claim(
    State(app): State<App>,
    waits: Waits,
    Query(query): Query<StartQuery>,
    IdempotencyKey(key): IdempotencyKey,
    Body(request): Body<ClaimRequest>,
) -> Result<Response, Problem> {
    let wait = extract::wait(query.wait.as_deref())?;
    let request = checked(request)?;
    super::compared(&app).await?;
    // A client that sent none can still repeat the request: under the key that we answer with.
    let key = key.unwrap_or_else(|| app.engine.env().uuid().to_string());
    let started = product::claim(&app.engine, &key, request).await?;
    super::started(&app, started, Some(&key), waits.allow(wait)).await
}

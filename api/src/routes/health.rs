//! Health: whether the process answers and its database reads.

use amends_engine::store::SagaFilter;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use crate::problem::Problem;
use crate::server::App;

/// What a probe gets.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// `ok`; anything else is a problem.
    pub status: String,
    /// Of this program.
    pub version: String,
    /// Which environment it serves.
    pub environment: String,
}

/// `GET /healthz`
pub async fn healthz(State(app): State<App>) -> Result<axum::Json<Health>, Problem> {
    app.engine.sagas(SagaFilter { limit: 1, ..SagaFilter::default() }).await?;
    Ok(axum::Json(Health {
        status: "ok".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        environment: app.environment.to_string(),
    }))
}

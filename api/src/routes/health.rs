//! Health: whether the process answers, its database reads and takes writes, and its engine drives sagas.

use amends_engine::store::SagaFilter;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use crate::problem::{Code, Problem};
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
    if let Some(trouble) = app.engine.trouble() {
        return Err(Problem::new(Code::EngineTroubled, format!("{trouble}.")));
    }
    Ok(axum::Json(Health {
        status: "ok".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        environment: app.environment.to_string(),
    }))
}

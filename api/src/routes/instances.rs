//! Instances: list them, and take one apart.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use super::claims::StartQuery;
use super::{limit, states};
use crate::connections::Waits;
use crate::extract::{self, InstancePath, Query};
use crate::problem::Problem;
use crate::product::{self, Instance, InstanceFilter, InstanceState};
use crate::server::App;
use crate::view::Page;

/// Which instances to list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// Only this one.
    pub instance: Option<String>,
    /// In these states, separated by commas.
    pub state: Option<String>,
    /// Where the page before ended.
    pub cursor: Option<String>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// `GET /v1/instances`
pub async fn list(
    State(app): State<App>,
    Query(query): Query<ListQuery>,
) -> Result<axum::Json<Page<Instance>>, Problem> {
    let named = |text: Option<String>| {
        text.filter(|text| !text.is_empty()).map(|text| extract::name("instance", &text)).transpose()
    };
    let filter = InstanceFilter {
        states: states::<InstanceState>(query.state.as_deref())?
            .into_iter()
            .map(|state| state.to_string())
            .collect(),
        instance: named(query.instance)?,
        before: named(query.cursor)?,
        limit: limit(query.limit)?,
    };
    product::instances(&app.engine, filter).await.map(axum::Json)
}

/// `POST /v1/instances/{id}/teardown`
///
/// The instance is the key: two teardowns of it are one saga, and every caller gets it.
pub async fn teardown(
    State(app): State<App>,
    InstancePath(instance): InstancePath,
    waits: Waits,
    Query(query): Query<StartQuery>,
) -> Result<Response, Problem> {
    let wait = extract::wait(query.wait.as_deref())?;
    super::compared(&app).await?;
    let started = product::teardown(&app.engine, &instance).await?;
    super::started(&app, started, None, waits.allow(wait)).await
}

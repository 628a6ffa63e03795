//! Pools: what each has, who waits for it, and what holds it back.

use axum::extract::State;

use super::{PageQuery, limit};
use crate::extract::Query;
use crate::problem::Problem;
use crate::product::{self, Pool};
use crate::server::App;
use crate::view::Page;

/// `GET /v1/pools`
pub async fn list(
    State(app): State<App>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<Pool>>, Problem> {
    listed(&app, &query).await.map(axum::Json)
}

/// A page of pools.
pub(crate) async fn listed(app: &App, query: &PageQuery) -> Result<Page<Pool>, Problem> {
    product::pools(&app.engine, query.cursor.as_deref().unwrap_or_default(), limit(query.limit)?).await
}

//! Resources: the ledger of what exists, or may exist, outside.

use amends_engine::ResourceId;
use amends_engine::store::ResourceFilter;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::{limit, page, states};
use crate::extract::{self, Query};
use crate::fresh::Tag;
use crate::problem::{Code, Problem};
use crate::server::App;
use crate::view::{Page, Resource};

/// Which rows to list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// Held by this instance.
    pub instance: Option<String>,
    /// Made or held by this saga.
    pub saga: Option<String>,
    /// In these states, separated by commas.
    pub state: Option<String>,
    /// At this provider.
    pub provider: Option<String>,
    /// Where the page before ended.
    pub cursor: Option<String>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// `GET /v1/resources`
pub async fn list(
    State(app): State<App>,
    headers: HeaderMap,
    Query(query): Query<ListQuery>,
) -> Result<Response, Problem> {
    let limit = limit(query.limit)?;
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let holder = match (given(query.instance), given(query.saga)) {
        (Some(_), Some(_)) => return Err(Problem::invalid("instance, saga: ask for one of them.")),
        (Some(instance), None) => Some(extract::name("instance", &instance)?),
        (None, Some(saga)) => Some(extract::saga_id(&saga)?.to_string()),
        (None, None) => None,
    };
    let before = given(query.cursor)
        .map(|cursor| {
            ResourceId::parse(&cursor).map_err(|error| Problem::new(Code::CursorInvalid, format!("{error}.")))
        })
        .transpose()?;
    let filter = ResourceFilter {
        unsettled: None,
        states: states(query.state.as_deref())?,
        holder,
        provider: given(query.provider),
        before,
        limit: limit + 1,
        ..ResourceFilter::default()
    };
    let tag = Tag::of_lists(&app).await?;
    if let Some(unchanged) = tag.unchanged(&headers) {
        return Ok(unchanged);
    }
    let rows = app.engine.resources(filter).await?;
    let page: Page<Resource> = page(rows, limit, |row| row.id.to_string(), Resource::of);
    Ok(tag.on(axum::Json(page).into_response()))
}

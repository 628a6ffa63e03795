//! The page of pools: what each has, who waits for it, and what holds it back.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};

use super::frame;
use crate::extract::Query;
use crate::problem::Problem;
use crate::product::{HeldBack, Pool};
use crate::routes::PageQuery;
use crate::routes::pools::listed;
use crate::server::App;
use crate::view::Page;

/// `GET /pools`
pub async fn list(State(app): State<App>, Query(query): Query<PageQuery>) -> Result<Response, Problem> {
    let Page { items: pools, next_cursor } = listed(&app, &query).await?;
    let next = next_cursor.map(|cursor| format!("/pools?cursor={}", frame::encoded(&cursor)));
    let body = html! {
        h1 { "Pools" }
        p.lead { "Instances are made as long as fewer are idle than shall be, or claims wait, up to what a pool may have." }
        div #pools data-live { (table(&pools)) }
        @if let Some(next) = next { p { a href=(next) { "More" } } }
    };
    Ok(super::page(StatusCode::OK, frame::frame(&app, "Pools", true, &body)))
}

fn table(pools: &[Pool]) -> Markup {
    if pools.is_empty() {
        return html! { p.empty { "There is no pool." } };
    }
    html! {
        div.scroll tabindex="0" role="region" aria-label="Pools" {
            table {
                thead { tr {
                    th scope="col" { "Pool" } th scope="col" { "Idle" } th scope="col" { "Being made" }
                    th scope="col" { "In all" } th scope="col" { "Claims that wait" } th scope="col" { "Held back" }
                } }
                tbody {
                    @for pool in pools {
                        tr class=[pool.held_back.is_some().then_some("troubled")] {
                            td.id { (pool.id) }
                            td.number { (pool.idle) " of " (pool.min_idle) }
                            td.number { (pool.under_way) }
                            td.number { (pool.total) " of " (pool.max_total) }
                            td.number { (pool.waiting) }
                            td.error { @if let Some(held) = &pool.held_back { (held_back(held)) } }
                        }
                    }
                }
            }
        }
    }
}

fn held_back(held: &HeldBack) -> Markup {
    html! {
        "⚠ " (held.why)
        @if let Some(since) = &held.since { ", since " time datetime=(since) { (since) } }
        ". "
        @match &held.next_try_at {
            Some(at) => { "Tried again at " time datetime=(at) { (at) } ": " (held.until) "." }
            None => { "Until " (held.until) "." }
        }
    }
}

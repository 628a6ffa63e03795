//! The dashboard: pages for people, drawn on the server from what the API serves.
//!
//! Every page works without script: it then asks itself again every few seconds. With script
//! (`assets/live.js`) only what changed is replaced, so that a reason half written is not lost.

pub mod drawing;
mod frame;
mod gates;
mod saga;
mod sagas;
pub mod scale;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use maud::html;

use crate::problem::{Code, Problem};
use crate::server::App;

/// Every page, and what pages load.
pub fn pages(app: &App) -> Router<App> {
    Router::new()
        .route("/", get(sagas::list))
        .route("/sagas", get(sagas::list))
        .route("/sagas/{id}", get(saga::show))
        .route("/sagas/{id}/actions", post(saga::act))
        .route("/gates", get(gates::list).post(gates::act))
        .route("/docs/errors/{slug}", get(error_page))
        .route_layer(middleware::map_response_with_state(app.clone(), problem_as_page))
        .route("/assets/style.css", get(style))
        .route("/assets/live.js", get(live))
}

async fn style() -> impl IntoResponse {
    asset("text/css; charset=utf-8", include_str!("../../assets/style.css"))
}

async fn live() -> impl IntoResponse {
    asset("text/javascript; charset=utf-8", include_str!("../../assets/live.js"))
}

fn asset(kind: &'static str, body: &'static str) -> impl IntoResponse {
    let kind = HeaderValue::from_static(kind);
    // Asked for again with each new version of the program, since that is when it changes.
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))], body)
}

/// `GET /docs/errors/{slug}`: what a problem's `type` points to.
async fn error_page(State(app): State<App>, Path(slug): Path<String>) -> Result<Response, Problem> {
    let code: Code = slug
        .replace('-', "_")
        .parse()
        .map_err(|_| Problem::not_found(format!("error named {}", slug.escape_default())))?;
    let body = html! {
        h1 { (code.title()) }
        p.lead { (code.remedy()) }
        dl.facts {
            dt { "code" } dd { code { (code) } }
            dt { "status" } dd { (code.status()) }
        }
    };
    Ok(page(StatusCode::OK, frame::frame(&app.environment, code.title(), false, &body)))
}

fn page(status: StatusCode, markup: maud::Markup) -> Response {
    (status, Html(markup.into_string())).into_response()
}

/// A problem on the way to a page becomes a page that says the same.
async fn problem_as_page(State(app): State<App>, response: Response) -> Response {
    let Some(problem) = response.extensions().get::<Problem>() else { return response };
    let code = problem.code;
    let body = html! {
        h1 { (code.title()) }
        p.lead { (problem.detail) }
        p { (code.remedy()) }
        p { a href="/" { "All sagas" } }
    };
    page(code.status(), frame::frame(&app.environment, code.title(), false, &body))
}

//! The dashboard: pages for people, drawn on the server from what the API serves.
//!
//! Every page works without script: it then asks itself again every few seconds. With script
//! (`assets/live.js`) only what changed is replaced, so that a reason half written is not lost.

pub mod drawing;
mod findings;
mod frame;
mod gates;
mod pools;
mod saga;
mod sagas;
pub mod scale;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use maud::html;

use crate::problem::{Code, Problem};
use crate::server::App;

/// Every page, and what pages load.
pub fn pages() -> Router<App> {
    Router::new()
        .route("/", get(sagas::list))
        .route("/sagas", get(sagas::list))
        .route("/sagas/{id}", get(saga::show))
        .route("/sagas/{id}/actions", post(saga::act))
        .route("/gates", get(gates::list).post(gates::act))
        .route("/pools", get(pools::list))
        .route("/findings", get(findings::list))
        .route("/findings/{id}/actions", post(findings::act))
        .route("/censuses/{provider}/actions", post(findings::accept))
        .route("/docs/errors/{slug}", get(error_page))
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
    Ok(page(StatusCode::OK, frame::frame(&app, code.title(), false, &body)))
}

fn page(status: StatusCode, markup: maud::Markup) -> Response {
    (status, Html(markup.into_string())).into_response()
}

/// A problem on the way to a browser becomes a page that says the same; a program gets it as JSON, and so does
/// whoever asks the API.
pub async fn problems_for_browsers(State(app): State<App>, request: Request, next: Next) -> Response {
    let accepts = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let is_browser = accepts.is_some_and(|accepts| accepts.contains("text/html"));
    let is_api = request.uri().path().starts_with("/v1/");
    let response = next.run(request).await;
    if is_api || !is_browser {
        return response;
    }
    let Some(problem) = response.extensions().get::<Problem>() else { return response };
    let code = problem.code;
    let body = html! {
        h1 { (code.title()) }
        p.lead { (problem.detail) }
        p { (code.remedy()) }
        p { a href="/" { "All sagas" } }
    };
    page(code.status(), frame::frame(&app, code.title(), false, &body))
}

#[cfg(test)]
mod tests {
    /// The contrast of two colours, as WCAG 2.2 has it: from 1 to 21.
    fn contrast(one: &str, other: &str) -> f64 {
        let luminance = |colour: &str| -> f64 {
            let channel = |at: usize| {
                let value = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
                if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
        };
        let (one, other) = (luminance(one), luminance(other));
        (one.max(other) + 0.05) / (one.min(other) + 0.05)
    }

    #[test]
    fn every_text_can_be_read_on_every_ground() {
        let sheet = include_str!("../../assets/style.css");
        let schemes: Vec<&str> =
            sheet.split(":root {").skip(1).map(|part| part.split('}').next().unwrap()).collect();
        assert_eq!(schemes.len(), 2, "light and dark");
        for scheme in schemes {
            let colour = |name: &str| {
                let value = scheme.split(&format!("--{name}: ")).nth(1).unwrap();
                value.split(';').next().unwrap()
            };
            for text in ["ink", "soft", "link", "ok", "undo", "doubt", "bad"] {
                for ground in ["paper", "sheet", "stripe", "calm", "trouble"] {
                    let contrast = contrast(colour(text), colour(ground));
                    assert!(contrast >= 4.5, "--{text} on --{ground}: {contrast:.2}");
                }
            }
            // The dark scheme leaves the text of the band as it is.
            assert!(contrast("#ffffff", colour("band")) >= 4.5);
        }
    }
}

//! The page of one saga: what happened, what now, and what can be done.

use amends_engine::journal::story;
use amends_engine::{SagaView, Timestamp};
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::{drawing, frame};
use crate::extract::{self, Query, SagaPath};
use crate::fresh::Tag;
use crate::problem::Problem;
use crate::routes::sagas::Reason;
use crate::server::App;
use crate::timeline::timeline;
use crate::view::{Resource, SagaDetail, Step};

/// What the page was opened with.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// The act that was just accepted.
    pub asked: Option<String>,
}

/// `GET /sagas/{id}`
pub async fn show(
    State(app): State<App>,
    SagaPath(saga): SagaPath,
    headers: HeaderMap,
    Query(query): Query<PageQuery>,
) -> Result<Response, Problem> {
    let row = app.engine.row(&saga).await?.ok_or_else(|| Problem::not_found(format!("saga {saga}")))?;
    let tag = Tag::of_saga(&row, app.now());
    if let Some(unchanged) = tag.unchanged(&headers) {
        return Ok(unchanged);
    }
    let view = app.engine.view(&saga).await?.ok_or_else(|| Problem::not_found(format!("saga {saga}")))?;
    let body = body(&view, query.asked.as_deref(), app.now());
    let title = format!("{} {}", view.row.workflow, view.row.state);
    // One that has ended stays as it is.
    let live = !view.row.state.is_ended();
    Ok(tag.on(super::page(StatusCode::OK, frame::frame(&app.environment, &title, live, &body))))
}

/// What acts through the dashboard are signed with, for want of names.
const ACTOR: &str = "operator (dashboard)";

/// `POST /sagas/{id}/actions/retry`
pub async fn retry(
    State(app): State<App>,
    SagaPath(saga): SagaPath,
    Form(form): Form,
) -> Result<Response, Problem> {
    app.engine.retry(&saga, ACTOR, &extract::reason(&form.reason)?).await?;
    Ok(Redirect::to(&format!("/sagas/{saga}?asked=retry")).into_response())
}

/// `POST /sagas/{id}/actions/cancel`
pub async fn cancel(
    State(app): State<App>,
    SagaPath(saga): SagaPath,
    Form(form): Form,
) -> Result<Response, Problem> {
    app.engine.cancel(&saga, ACTOR, &extract::reason(&form.reason)?).await?;
    Ok(Redirect::to(&format!("/sagas/{saga}?asked=cancel")).into_response())
}

/// A form with a reason.
#[derive(Debug)]
pub struct Form(Reason);

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let form = axum::Form::<Reason>::from_request(request, state).await;
        form.map(|form| Self(form.0)).map_err(|error| Problem::invalid(error.body_text()))
    }
}

fn body(view: &SagaView, asked: Option<&str>, now: Timestamp) -> Markup {
    let detail = SagaDetail::of(view, now);
    let saga = &detail.saga;
    html! {
        p.crumbs { a href="/" { "Sagas" } " › " (saga.kind) " › " span.id { (saga.id) } }
        div #head data-live {
            h1 { (saga.kind) " " (frame::state(saga.state)) " " (frame::attention(&saga.attention)) }
            p.meta {
                @if let Some(instance) = &saga.instance {
                    "of " a.id href={ "/?instance=" (instance) } { (instance) } " · "
                }
                "version " (saga.kind_version) " · started " time datetime=(saga.created_at) { (saga.created_at) }
                " · " @if saga.ended_at.is_some() { "took " } @else { "for " } (saga.age)
                @if let Some(deadline) = &saga.deadline_at { " · turns round at " (deadline) }
            }
        }
        section #short data-live aria-labelledby="in-short" {
            h2 #in-short { "In short" }
            @match asked {
                Some("retry") => { p.notice role="status" { "Retry is accepted; what comes of it shows below." } }
                Some("cancel") => { p.notice role="status" { "Cancel is accepted; the saga turns round as soon as no call is under way." } }
                _ => {}
            }
            dl.short {
                dt { "What happened" } dd { (detail.why.happened) }
                dt { "What it does" } dd { (detail.why.now) }
                dt { "Outside" } dd { (detail.why.outside) }
                dt { "You" } dd { (detail.why.you) }
            }
        }
        div #acts data-live { (acts(&detail)) }
        section #timeline data-live aria-labelledby="timeline-title" {
            h2 #timeline-title { "Timeline" }
            div.scroll tabindex="0" role="region" aria-label="Timeline" {
                (drawing::drawing(&timeline(&view.entries), now))
            }
            (drawing::legend())
        }
        section #outside data-live aria-labelledby="outside-title" {
            h2 #outside-title { "Outside" }
            (resources(&detail.resources))
        }
        section #steps data-live aria-labelledby="steps-title" {
            h2 #steps-title { "Steps" }
            (steps(&detail.steps))
        }
        section #story data-live aria-labelledby="story-title" {
            h2 #story-title { "Story" }
            (told(view))
        }
        section #payload data-live aria-labelledby="payload-title" {
            h2 #payload-title { "Input and output" }
            details #input { summary { "Input" } pre { (pretty(&detail.input)) } }
            @if let Some(output) = &detail.output {
                details #output open { summary { "Output" } pre { (pretty(output)) } }
            }
        }
    }
}

/// The forms. A button that cannot be used says why instead.
fn acts(detail: &SagaDetail) -> Markup {
    let can = |act: &str| detail.allowed_actions.iter().any(|allowed| allowed == act);
    if detail.allowed_actions.is_empty() {
        return html! {};
    }
    let path = |act: &str| format!("/sagas/{}/actions/{act}", detail.saga.id);
    html! {
        form.acts method="post" action=(path("retry")) {
            label for="reason" { "Reason" }
            input #reason name="reason" required maxlength="500" autocomplete="off"
                placeholder="kept with the saga";
            button { "Retry now" }
            @if can("cancel") {
                button.danger formaction=(path("cancel")) { "Cancel and undo" }
            } @else {
                span.why { "It cannot be cancelled: it is past its pivot, or turning round already." }
            }
        }
    }
}

fn resources(all: &[Resource]) -> Markup {
    if all.is_empty() {
        return html! { p.empty { "This saga has made nothing outside." } };
    }
    html! {
        div.scroll tabindex="0" role="region" aria-label="What it made outside" {
            table {
                thead { tr {
                    th scope="col" { "State" } th scope="col" { "What" } th scope="col" { "Name" }
                    th scope="col" { "Provider's id" } th scope="col" { "Step" } th scope="col" { "Held by" }
                    th scope="col" { "Since" }
                } }
                tbody {
                    @for one in all {
                        tr {
                            td { span class={ "outside " (one.state) } { (one.state.to_string().replace('_', " ")) } }
                            td { (one.provider) " " (one.kind) }
                            td.id { (one.name) }
                            td.id { (one.external_id.as_deref().unwrap_or("not known")) }
                            td { (one.step) }
                            td.id { (one.holder) }
                            td { (one.changed_at) }
                        }
                    }
                }
            }
        }
    }
}

fn steps(all: &[Step]) -> Markup {
    if all.is_empty() {
        return html! { p.empty { "No step has begun." } };
    }
    html! {
        div.scroll tabindex="0" role="region" aria-label="Steps and their attempts" {
            table {
                thead { tr {
                    th scope="col" { "Step" } th scope="col" { "Stands" } th scope="col" { "Attempt" }
                    th scope="col" { "Began" } th scope="col" { "Took" } th scope="col" { "Came to" }
                    th scope="col" { "Next" }
                } }
                @for (place, step) in all.iter().enumerate() {
                    tbody {
                        @for (number, attempt) in step.attempts.iter().enumerate() {
                            tr {
                                @if number == 0 { (head(step, place)) }
                                td { (lane(&attempt.lane)) (attempt.number) }
                                td { (attempt.began_at) }
                                td.number { (attempt.took.as_deref().unwrap_or("…")) }
                                td.error {
                                    (attempt.outcome.replace('_', " "))
                                    @if let Some(detail) = &attempt.detail { ": " (detail) }
                                }
                                td { (attempt.next_at.as_deref().unwrap_or_default()) }
                            }
                        }
                        @if step.attempts.is_empty() {
                            tr { (head(step, place)) td colspan="5" { (step.next_at.as_deref().unwrap_or_default()) } }
                        }
                    }
                }
            }
        }
    }
}

fn head(step: &Step, place: usize) -> Markup {
    let rows = step.attempts.len().max(1);
    html! {
        th scope="rowgroup" rowspan=(rows) {
            (step.key)
            @if step.pivot { " ⇥" }
            @if let Some(activity) = &step.activity { br; small { (activity) } }
            @if !step.after.is_empty() { br; small { "after " (step.after.join(", ")) } }
            @if step.input.is_some() || step.output.is_some() {
                details id={ "step-" (place) } {
                    summary { "data" }
                    @if let Some(input) = &step.input { pre { (pretty(input)) } }
                    @if let Some(output) = &step.output { pre { (pretty(output)) } }
                }
            }
        }
        td rowspan=(rows) { span class={ "phase " (step.phase) } { (step.phase.replace('_', " ")) } }
    }
}

fn lane(lane: &str) -> &'static str {
    match lane {
        "undo" => "undo ",
        "clearing" => "clearing ",
        _ => "",
    }
}

fn told(view: &SagaView) -> Markup {
    html! {
        ol.story {
            @for entry in &view.entries {
                @let (what, detail) = story::words(&entry.event);
                li {
                    time datetime=(entry.at) { (entry.at) } " "
                    @if let Some(step) = entry.event.step() { b { (step) } " " }
                    (what) @if !detail.is_empty() { ": " (detail) }
                }
            }
        }
    }
}

fn pretty(value: &serde_json::Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn the_page_of_a_stuck_saga_says_everything_without_its_picture() {
        let page = body(&samples::stuck().view(), None, samples::at(320_000)).into_string();
        // The picture has a snapshot of its own.
        let (before, after) = page.split_once("<svg").unwrap();
        let (_, after) = after.split_once("</svg>").unwrap();
        insta::assert_snapshot!(format!("{before}[picture]{after}").replace("><", ">\n<"));
    }

    #[test]
    fn no_time_that_stands_for_never_is_on_a_page() {
        let page = body(&samples::without_end().view(), None, samples::at(300_000)).into_string();
        assert!(!samples::says_never(&page), "{page}");
    }

    #[test]
    fn what_a_provider_says_is_text_and_never_markup() {
        let evil = "<script>alert(1)</script>\"'";
        let journal = samples::Journal::of("claim")
            .tries(5, "join", "runtime.join", None)
            .deferred(10, "join", 1, evil, 1_000);
        let page = body(&journal.view(), None, samples::at(20)).into_string();
        assert!(!page.contains("<script>alert"));
        assert!(page.contains("&lt;script&gt;alert"));
    }
}

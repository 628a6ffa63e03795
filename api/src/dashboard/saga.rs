//! The page of one saga: what happened, what now, and what can be done.

use amends_engine::ids::OperationId;
use amends_engine::journal::act::ActKind;
use amends_engine::journal::story;
use amends_engine::store::AuditRow;
use amends_engine::{SagaView, StepKey, Timestamp};
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::{drawing, frame};
use crate::act::{Field, FieldForm, Words, fields, meaning};
use crate::extract::{self, Query, SagaPath};
use crate::fresh::Tag;
use crate::problem::Problem;
use crate::routes::sagas::steps_after;
use crate::server::App;
use crate::view::{Resource, SagaDetail, Step};

/// What the page was opened with.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// The operation of the act that was just accepted.
    pub asked: Option<String>,
    /// Its steps from behind this one on.
    pub steps_after: Option<String>,
    /// Its story up to before this entry.
    pub story_before: Option<i64>,
}

/// `GET /sagas/{id}`
pub async fn show(
    State(app): State<App>,
    SagaPath(saga): SagaPath,
    headers: HeaderMap,
    Query(query): Query<PageQuery>,
) -> Result<Response, Problem> {
    let after = steps_after(query.steps_after.as_deref())?;
    let row = app.engine.row(&saga).await?.ok_or_else(|| Problem::not_found(format!("saga {saga}")))?;
    let tag = Tag::of_saga(&row, app.now());
    if let Some(unchanged) = tag.unchanged(&headers) {
        return Ok(unchanged);
    }
    let view = app.engine.view(&saga).await?.ok_or_else(|| Problem::not_found(format!("saga {saga}")))?;
    let audit = if query.asked.is_some() { app.engine.audit(&saga).await? } else { Vec::new() };
    let notice = query.asked.map_or_else(|| html! {}, |operation| notice(&audit, &operation));
    // A form that was drawn at one version is one act, however often it is sent.
    let key = format!("form-{}", view.row.seq);
    let part = Shown { after, story_before: query.story_before };
    let body = body(&view, &part, &notice, &key, app.now());
    let title = format!("{} {}", view.row.workflow, view.row.state);
    // One that has ended stays as it is.
    let live = !view.row.state.is_ended();
    Ok(tag.on(super::page(StatusCode::OK, frame::frame(&app, &title, live, &body))))
}

/// What acts through the dashboard are signed with, for want of names.
pub(super) const ACTOR: &str = "operator (dashboard)";

/// `POST /sagas/{id}/actions`
pub async fn act(
    State(app): State<App>,
    SagaPath(saga): SagaPath,
    Form(mut words): Form,
) -> Result<Response, Problem> {
    let reason = extract::reason(&words.text("reason")?)?;
    // Made when the form was drawn, so that a form sent twice is one act.
    let operation = OperationId::of_key(&saga, &words.text("key")?);
    let act = words.into_act(true, app.now())?;
    app.engine.act_as(operation.clone(), &saga, act, ACTOR, &reason).await?;
    Ok(Redirect::to(&format!("/sagas/{saga}?asked={operation}")).into_response())
}

/// A form's fields, as they were written.
#[derive(Debug)]
pub struct Form(pub Words);

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let form = axum::Form::<Vec<(String, String)>>::from_request(request, state).await;
        form.map(|form| Self(Words::of_text(form.0))).map_err(|error| Problem::invalid(error.body_text()))
    }
}

/// Which part of a long saga is shown.
#[derive(Debug, Default)]
struct Shown {
    after: Option<StepKey>,
    story_before: Option<i64>,
}

/// So many entries of its story are told at a time, the last ones first.
const STORY_MAX: usize = 500;

fn body(view: &SagaView, part: &Shown, notice: &Markup, key: &str, now: Timestamp) -> Markup {
    let (detail, timeline) = SagaDetail::behind(view, part.after.as_ref(), now);
    let saga = &detail.saga;
    html! {
        p.crumbs { a href="/" { "Sagas" } " › " (saga.kind) " › " span.id { (saga.id) } }
        div #head data-live {
            h1 { (saga.kind) " " (frame::state(saga.state)) " " (frame::attention(&saga.attention)) }
            p.meta {
                @if let Some(instance) = &saga.instance {
                    "of " a.id href={ "/?instance=" (frame::encoded(instance)) } { (instance) } " · "
                }
                "version " (saga.kind_version) " · started " time datetime=(saga.created_at) { (saga.created_at) }
                " · " @if saga.ended_at.is_some() { "took " } @else { "for " } (saga.age)
                @if let Some(deadline) = &saga.deadline_at { " · deadline " (deadline) }
            }
        }
        section #short data-live aria-labelledby="in-short" {
            h2 #in-short { "In short" }
            (notice)
            dl.short {
                dt { "What happened" } dd { (detail.why.happened) }
                dt { "What it does" } dd { (detail.why.now) }
                dt { "Outside" } dd { (detail.why.outside) }
                dt { "You" } dd { (detail.why.you) }
            }
        }
        div #acts data-live=[(!detail.saga.state.is_ended()).then_some("")] { (acts(&detail, key)) }
        section #timeline data-live aria-labelledby="timeline-title" {
            h2 #timeline-title { "Timeline" }
            div.scroll tabindex="0" role="region" aria-label="Timeline" {
                (drawing::drawing(&timeline, now))
            }
            (drawing::legend())
        }
        section #outside data-live aria-labelledby="outside-title" {
            h2 #outside-title { "Outside" }
            (resources(&detail.resources))
            @if detail.resources.len() < view.resources.len() {
                p { "The newest are shown; all of them: " code { "amends resource list --saga " (saga.id) } }
            }
        }
        section #steps data-live aria-labelledby="steps-title" {
            h2 #steps-title { "Steps" }
            @if !detail.steps_in_need.is_empty() {
                p.lead.trouble { "⚠ Of the steps that are not on this page a person should know of these." }
                (steps(&detail.steps_in_need, "in-need"))
                p { "The others:" }
            }
            (steps(&detail.steps, "step"))
            (parts(&detail, part))
        }
        section #story data-live aria-labelledby="story-title" {
            h2 #story-title { "Story" }
            (told(view, part.story_before))
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

/// A form for each act that can be done now, with only what that act asks for.
///
/// `key` makes a form that is sent twice one act.
fn acts(detail: &SagaDetail, key: &str) -> Markup {
    if detail.allowed_actions.is_empty() {
        return html! {};
    }
    let path = format!("/sagas/{}/actions", detail.saga.id);
    html! {
        section.acts aria-labelledby="acts-title" {
            h2 #acts-title { "What to do" }
            @for allowed in &detail.allowed_actions {
                @let kind = allowed.kind;
                details id={ "act-" (kind) } {
                    summary { (meaning(kind)) " " small { (kind) } }
                    form method="post" action=(path) {
                        input type="hidden" name="kind" value=(kind);
                        input type="hidden" name="key" value={ (key) "-" (kind) };
                        @if !allowed.steps.is_empty() { (step_choice(kind, &allowed.steps, allowed.more_steps)) }
                        @for field in fields(kind) { (field_input(kind, field)) }
                        label for={ "reason-" (kind) } { "Reason" }
                        input id={ "reason-" (kind) } name="reason" required maxlength="500" autocomplete="off"
                            placeholder="kept with the saga";
                        button.danger[matches!(kind, ActKind::Cancel | ActKind::Skip)] { (label(kind)) }
                    }
                }
            }
        }
    }
}

fn step_choice(kind: ActKind, steps: &[String], more: bool) -> Markup {
    if more {
        return html! {
            label for={ "step-" (kind) } { "Step" }
            input id={ "step-" (kind) } name="step" required list={ "steps-" (kind) } autocomplete="off";
            datalist id={ "steps-" (kind) } { @for step in steps { option value=(step) {} } }
        };
    }
    html! {
        label for={ "step-" (kind) } { "Step" }
        select id={ "step-" (kind) } name="step" required {
            @for step in steps { option value=(step) { (step) } }
        }
    }
}

fn field_input(kind: ActKind, field: &Field) -> Markup {
    let id = format!("{}-{kind}", field.name);
    html! {
        label for=(id) { (field.name.replace('_', " ")) }
        @match field.form {
            FieldForm::Choice(words) => {
                select id=(id) name=(field.name) required[field.required] {
                    @for word in words { option value=(word) { (word) } }
                }
            }
            FieldForm::Json => {
                textarea id=(id) name=(field.name) rows="3" required[field.required] placeholder=(field.hint) {}
            }
            FieldForm::Duration | FieldForm::Text => {
                input id=(id) name=(field.name) required[field.required] autocomplete="off"
                    placeholder=(field.hint);
            }
        }
    }
}

/// What stands on the button.
fn label(kind: ActKind) -> String {
    match kind {
        ActKind::Retry => "Retry now".to_owned(),
        ActKind::Cancel => "Cancel and undo".to_owned(),
        other => {
            let words = other.to_string().replace('_', " ");
            let mut letters = words.chars();
            letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
        }
    }
}

/// What became of the act that the page was opened with.
fn notice(audit: &[AuditRow], operation: &str) -> Markup {
    let Some(row) = audit.iter().find(|row| row.operation.as_str() == operation) else { return html! {} };
    let kind = row.act.kind();
    html! {
        p.notice role="status" {
            @match row.outcome.as_deref() {
                None => { (kind) " is accepted, and is done as soon as no call of this saga stands in its way." }
                Some("done") => { (kind) " was done." }
                Some(other) => { (kind) " was not done: " (other) "." }
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

/// Where the steps that are not shown are.
fn parts(detail: &SagaDetail, part: &Shown) -> Markup {
    let path = format!("/sagas/{}", detail.saga.id);
    html! {
        @if part.after.is_some() || detail.next_steps.is_some() {
            p {
                (detail.steps.len()) " of " (detail.steps_total) " steps. "
                @if part.after.is_some() { a href=(path) { "The first ones" } " " }
                @if let Some(next) = &detail.next_steps {
                    a href={ (path) "?steps_after=" (frame::encoded(next)) } { "The next ones" }
                }
            }
        }
    }
}

/// A table of steps; `id` begins the ids of what can be unfolded in it.
fn steps(all: &[Step], id: &str) -> Markup {
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
                                @if number == 0 { (head(step, &format!("{id}-{place}"))) }
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
                            tr { (head(step, &format!("{id}-{place}"))) td colspan="5" { (step.next_at.as_deref().unwrap_or_default()) } }
                        }
                    }
                }
            }
        }
    }
}

fn head(step: &Step, id: &str) -> Markup {
    let rows = step.attempts.len().max(1);
    html! {
        th scope="rowgroup" rowspan=(rows) {
            (step.key)
            @if step.pivot { " ⇥" }
            @if let Some(activity) = &step.activity { br; small { (activity) } }
            @if step.attempts_before > 0 { br; small { (step.attempts_before) " attempts before these" } }
            @if !step.after.is_empty() { br; small { "after " (step.after.join(", ")) } }
            @if step.input.is_some() || step.output.is_some() {
                details id=(id) {
                    summary { "data" }
                    @if let Some(input) = &step.input { pre { (pretty(input)) } }
                    @if let Some(output) = &step.output { pre { (pretty(output)) } }
                }
            }
        }
        td rowspan=(rows) {
            span class={ "phase " (step.phase) } { (step.phase.replace('_', " ")) }
            @if let Some(until) = &step.unsettled_until {
                br; small { "a lost call may still take effect until " time datetime=(until) { (until) } }
            }
            @if let Some(until) = &step.held_until {
                br; small { "its next call waits until " time datetime=(until) { (until) } }
            }
        }
    }
}

fn lane(lane: &str) -> &'static str {
    match lane {
        "undo" => "undo ",
        "clearing" => "clearing ",
        _ => "",
    }
}

fn told(view: &SagaView, before: Option<i64>) -> Markup {
    let end = before.map_or(view.entries.len(), |seq| view.entries.partition_point(|entry| entry.seq < seq));
    let begin = end.saturating_sub(STORY_MAX);
    let path = format!("/sagas/{}", view.row.id);
    html! {
        @if let Some(first) = view.entries.get(begin).filter(|_| begin > 0) {
            p { a href={ (path) "?story_before=" (first.seq) "#story" } { "Before that: " (begin) " entries" } }
        }
        ol.story {
            @for entry in &view.entries[begin..end] {
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
        let page = body(&samples::stuck().view(), &Shown::default(), &html! {}, "key", samples::at(320_000))
            .into_string();
        // The picture has a snapshot of its own.
        let (before, after) = page.split_once("<svg").unwrap();
        let (_, after) = after.split_once("</svg>").unwrap();
        insta::assert_snapshot!(format!("{before}[picture]{after}").replace("><", ">\n<"));
    }

    #[test]
    fn no_time_that_stands_for_never_is_on_a_page() {
        let page =
            body(&samples::without_end().view(), &Shown::default(), &html! {}, "key", samples::at(300_000))
                .into_string();
        assert!(!samples::says_never(&page), "{page}");
    }

    #[test]
    fn what_a_provider_says_is_text_and_never_markup() {
        let evil = "<script>alert(1)</script>\"'";
        let journal = samples::Journal::of("claim")
            .tries(5, "join", "runtime.join", None)
            .deferred(10, "join", 1, evil, 1_000);
        let page = body(&journal.view(), &Shown::default(), &html! {}, "key", samples::at(20)).into_string();
        assert!(!page.contains("<script>alert"));
        assert!(page.contains("&lt;script&gt;alert"));
    }
}

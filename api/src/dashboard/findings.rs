//! The page of findings: in what providers and ledger differ, how old that knowledge is, and the forms that settle it.

use amends_engine::sweep::{FindingClass, Settlement};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};

use super::frame;
use super::saga::{ACTOR, Form};
use crate::extract::{self, Query};
use crate::problem::Problem;
use crate::routes::findings::{ListQuery, accepted, all_censuses, finding_id, listed};
use crate::server::App;
use crate::view::{Census, Finding};

/// The views that are a click away: what they are called, and their query.
const VIEWS: [(&str, &str); 6] = [
    ("Open", ""),
    ("Orphans", "class=orphan"),
    ("Ghosts", "class=ghost"),
    ("Drift", "class=drift"),
    ("Foreign", "class=foreign"),
    ("Settled", "state=settled"),
];

/// How a person can settle one, and what that says.
const HOW: [(Settlement, &str); 4] = [
    (Settlement::Ignored, "it is left as it is"),
    (Settlement::Removed, "it was removed elsewhere"),
    (Settlement::Adopted, "somebody holds it"),
    (Settlement::Vanished, "it is gone by itself"),
];

/// `GET /findings`
pub async fn list(State(app): State<App>, Query(query): Query<ListQuery>) -> Result<Response, Problem> {
    let here = parts(&query).join("&");
    let censuses = all_censuses(&app).await?;
    let page = listed(&app, query).await?;
    let next = page.next_cursor.as_ref().map(|cursor| {
        let and = if here.is_empty() { "" } else { "&" };
        format!("/findings?{here}{and}cursor={}", frame::encoded(cursor))
    });
    let body = html! {
        h1 { "Findings" }
        p.lead { "What the providers hold is compared with the ledger; each difference is a finding until it is settled." }
        nav.views aria-label="Views" {
            @for (name, view) in VIEWS {
                a href=(if view.is_empty() { "/findings".to_owned() } else { format!("/findings?{view}") })
                    aria-current=[(here == view).then_some("page")] { (name) }
            }
        }
        div #findings data-live {
            @if page.items.is_empty() { p.empty { "No finding is like this." } }
            @for finding in &page.items { (shown(finding)) }
        }
        @if let Some(next) = next { p { a href=(next) { "Older" } } }
        section #censuses data-live aria-labelledby="censuses-title" {
            h2 #censuses-title { "Providers" }
            (compared(&censuses))
        }
    };
    Ok(super::page(StatusCode::OK, frame::frame(&app, "Findings", true, &body)))
}

/// `POST /findings/{id}/actions`
pub async fn act(
    State(app): State<App>,
    Path(id): Path<String>,
    Form(mut words): Form,
) -> Result<Response, Problem> {
    let id = finding_id(&id)?;
    let reason = extract::reason(&words.text("reason")?)?;
    match words.text("kind")?.as_str() {
        "settle" => {
            let how = words.text("how")?;
            let known = HOW.iter().find(|(known, _)| known.to_string() == how);
            let (how, _) = known
                .ok_or_else(|| Problem::invalid("how: ignored, removed, adopted or vanished.".to_owned()))?;
            app.engine.settle_finding(&id, *how, ACTOR, &reason).await?;
        }
        "remove" => drop(app.engine.remove_orphan(&id, ACTOR, &reason).await?),
        _ => return Err(Problem::invalid("kind: settle or remove.")),
    }
    Ok(Redirect::to("/findings").into_response())
}

/// `POST /censuses/{provider}/actions`
pub async fn accept(
    State(app): State<App>,
    Path(provider): Path<String>,
    Form(mut words): Form,
) -> Result<Response, Problem> {
    accepted(&app, &provider, &words.text("reason")?, ACTOR).await?;
    Ok(Redirect::to("/findings").into_response())
}

fn parts(query: &ListQuery) -> Vec<String> {
    let given = [
        ("provider", &query.provider),
        ("class", &query.class),
        ("holder", &query.holder),
        ("state", &query.state),
    ];
    let given = given.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    let given = given.filter(|(_, value)| !value.is_empty());
    given.map(|(name, value)| format!("{name}={}", frame::encoded(value))).collect()
}

fn shown(finding: &Finding) -> Markup {
    let row = |name: &str, value: &Option<String>| {
        html! { @if let Some(value) = value { dt { (name) } dd { (value) } } }
    };
    html! {
        section id={ "finding-" (finding.id) } {
            h2 { (finding.class) " · " (finding.provider) " " (finding.kind) " " span.id { (finding.name) } }
            dl.facts {
                dt { "Finding" } dd.id { (finding.id) }
                dt { "Provider's id" } dd.id { (finding.external_id) }
                (row("Account", &finding.account))
                @if let Some(holder) = &finding.holder {
                    dt { "Held by" }
                    dd {
                        @if holder.starts_with("sg_") {
                            a.id href={ "/sagas/" (frame::encoded(holder)) } { (holder) }
                        } @else {
                            a.id href={ "/?instance=" (frame::encoded(holder)) } { (holder) }
                        }
                    }
                }
                (row("Ledger row", &finding.resource))
                (row("What differs", &finding.detail))
                dt { "First seen" } dd { time datetime=(finding.first_seen_at) { (finding.first_seen_at) } }
                dt { "Last seen" }
                dd {
                    time datetime=(finding.last_seen_at) { (finding.last_seen_at) } ", with " (finding.times_seen)
                    " censuses"
                }
                @if let Some(saga) = &finding.removal {
                    dt { "Removed by" } dd { a.id href={ "/sagas/" (frame::encoded(saga)) } { (saga) } }
                }
                @if let Some(how) = finding.settled {
                    dt { "Settled" }
                    dd {
                        (how) " by " (finding.settled_by.as_deref().unwrap_or_default())
                        @if let Some(at) = &finding.settled_at { ", " time datetime=(at) { (at) } }
                        @if let Some(reason) = &finding.reason { ": " (reason) }
                    }
                }
            }
            // What is ignored may be settled otherwise later.
            @if matches!(finding.settled, None | Some(Settlement::Ignored)) { (acts(finding)) }
        }
    }
}

fn acts(finding: &Finding) -> Markup {
    let path = format!("/findings/{}/actions", finding.id);
    let id = |what: &str| format!("{what}-{}", finding.id);
    html! {
        section.acts aria-label="What to do" {
            details id=(id("settle")) {
                summary { "Say how it ended " small { "settle" } }
                form method="post" action=(path) {
                    input type="hidden" name="kind" value="settle";
                    label for=(id("how")) { "How" }
                    select id=(id("how")) name="how" required {
                        @for (how, meaning) in HOW { option value=(how) { (how) ": " (meaning) } }
                    }
                    (reason(&id("settle-reason")))
                    button { "Settle" }
                }
            }
            @if finding.class == FindingClass::Orphan && finding.settled.is_none() && finding.removal.is_none() {
                details id=(id("remove")) {
                    summary { "Remove it at the provider " small { "remove" } }
                    form method="post" action=(path) {
                        input type="hidden" name="kind" value="remove";
                        (reason(&id("remove-reason")))
                        button.danger { "Remove" }
                    }
                }
            }
        }
    }
}

fn reason(id: &str) -> Markup {
    html! {
        label for=(id) { "Reason" }
        input id=(id) name="reason" required maxlength="500" autocomplete="off" placeholder="kept with the finding";
    }
}

fn compared(censuses: &[Census]) -> Markup {
    if censuses.is_empty() {
        return html! { p.empty { "No provider was compared yet." } };
    }
    html! {
        div.scroll tabindex="0" role="region" aria-label="How old what is known of each provider is" {
            table {
                thead { tr {
                    th scope="col" { "Provider" } th scope="col" { "Compared" } th scope="col" { "Things" }
                    th scope="col" { "Why there is nothing newer" } th scope="col" { "Next" } th scope="col" { "What to do" }
                } }
                tbody {
                    @for census in censuses {
                        tr class=[census.problem.is_some().then_some("troubled")] {
                            td { (census.provider) }
                            td {
                                @match &census.age { Some(age) => { (age) " ago" } None => { "never" } }
                            }
                            td.number { (census.things) }
                            td.error {
                                @if let Some(problem) = &census.problem { (problem) " (" (census.failures) " in a row)" }
                            }
                            td { (census.next_at) }
                            td { @if census.problem.is_some() { (accept_form(&census.provider)) } }
                        }
                    }
                }
            }
        }
    }
}

fn accept_form(provider: &str) -> Markup {
    html! {
        details id={ "accept-" (provider) } {
            summary { "All of it may be absent " small { "accept_absence" } }
            form method="post" action={ "/censuses/" (frame::encoded(provider)) "/actions" } {
                (reason(&format!("accept-reason-{provider}")))
                button.danger { "Believe the next list" }
            }
        }
    }
}

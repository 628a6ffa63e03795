//! The page of gates: which credentials let nothing pass, who waits there, and the forms that open and close them.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};

use super::frame;
use super::saga::{ACTOR, Form};
use crate::extract::Query;
use crate::problem::Problem;
use crate::routes::PageQuery;
use crate::routes::gates::{GateAction, acted, listed};
use crate::server::App;
use crate::view::{Gate, Page};

/// `GET /gates`
pub async fn list(State(app): State<App>, Query(query): Query<PageQuery>) -> Result<Response, Problem> {
    let Page { items: gates, next_cursor } = listed(&app, &query).await?;
    let next = next_cursor.map(|cursor| format!("/gates?cursor={}", frame::encoded(&cursor)));
    let body = html! {
        h1 { "Gates" }
        p.lead { "Each call passes the gate of its credential. A closed gate holds steps back without using their attempts." }
        div #gates data-live { (table(&gates)) }
        @if let Some(next) = next { p { a href=(next) { "More" } } }
        (act_form(&gates))
    };
    Ok(super::page(StatusCode::OK, frame::frame(&app, "Gates", true, &body)))
}

/// `POST /gates`
pub async fn act(State(app): State<App>, Form(mut words): Form) -> Result<Response, Problem> {
    let kind = words.text("kind")?;
    let kind = kind.parse().map_err(|_| Problem::invalid("kind: open or close."))?;
    let action = GateAction { gate: words.text("gate")?, kind, reason: words.text("reason")? };
    acted(&app, action, ACTOR).await?;
    Ok(Redirect::to("/gates").into_response())
}

fn table(gates: &[Gate]) -> Markup {
    if gates.is_empty() {
        return html! { p.empty { "No gate was ever closed or limited, and nobody waits at one." } };
    }
    html! {
        div.scroll tabindex="0" role="region" aria-label="Gates" {
            table {
                thead { tr {
                    th scope="col" { "State" } th scope="col" { "Gate" } th scope="col" { "Waiting" }
                    th scope="col" { "Calls" } th scope="col" { "Why" } th scope="col" { "Opens" }
                    th scope="col" { "Last act" }
                } }
                tbody {
                    @for gate in gates {
                        tr class=[(gate.state == "closed" || gate.trouble.is_some()).then_some("troubled")] {
                            td { (gate.state) }
                            td.id { (gate.key) }
                            td { (gate.waiting) " steps, " (gate.waiting_compensations) " undos" }
                            td.number { (gate.permits_held) }
                            td.error {
                                @if let Some(trouble) = &gate.trouble { "It cannot be moved: " (trouble) }
                                @if let Some(reason) = &gate.closed_reason {
                                    (gate.closed_by.as_deref().unwrap_or_default()) ": " (reason)
                                }
                            }
                            td {
                                @match (&gate.closed_since, &gate.closed_until) {
                                    (None, _) => {}
                                    (Some(_), Some(until)) => { time datetime=(until) { (until) } }
                                    (Some(_), None) => { "when a person opens it" }
                                }
                            }
                            td {
                                @if let Some(last) = gate.acts.last() {
                                    (last.kind) " by " (last.actor) ": " (last.reason) " (" (last.at) ")"
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn act_form(gates: &[Gate]) -> Markup {
    html! {
        section.acts aria-labelledby="acts-title" {
            h2 #acts-title { "Open or close a gate" }
            form method="post" action="/gates" {
                label for="gate" { "Gate" }
                input #gate name="gate" required maxlength="1000" list="known" autocomplete="off";
                datalist #known { @for gate in gates { option value=(gate.key) {} } }
                label for="reason" { "Reason" }
                input #reason name="reason" required maxlength="500" autocomplete="off"
                    placeholder="kept with the gate";
                button name="kind" value="open" { "Open" }
                button.danger name="kind" value="close" { "Close" }
            }
        }
    }
}

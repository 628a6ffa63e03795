//! The list of sagas: which ones need attention, and which are on their way.

use amends_engine::gate::GateView;
use amends_engine::store::SagaFilter;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use maud::{Markup, html};

use super::frame;
use crate::extract::Query;
use crate::fresh::Tag;
use crate::problem::Problem;
use crate::routes::sagas::ListQuery;
use crate::server::App;
use crate::view::Saga;

/// How many sagas that need a person are counted; beyond it the page says "or more".
const COUNT_MAX: u32 = 200;

/// How many gates are named that hold sagas up.
const GATES_SHOWN: usize = 5;

/// The views that a click away: what they are called, and their query.
const VIEWS: [(&str, &str); 6] = [
    ("All", ""),
    ("Needs attention", "attention=any"),
    ("Running", "state=queued,running"),
    ("Waiting", "state=waiting"),
    ("Compensating", "state=compensating"),
    ("Ended", "state=completed,compensated,failed"),
];

/// `GET /`
pub async fn list(
    State(app): State<App>,
    headers: HeaderMap,
    Query(query): Query<ListQuery>,
) -> Result<Response, Problem> {
    let (filter, limit) = query.filter()?;
    let tag = Tag::of_lists(&app).await?;
    if let Some(unchanged) = tag.unchanged(&headers) {
        return Ok(unchanged);
    }
    let rows = app.engine.sagas(filter).await?;
    let troubled = SagaFilter { attention: true, limit: COUNT_MAX, ..SagaFilter::default() };
    let troubled = app.engine.sagas(troubled).await?.len();
    let gates = app.engine.gates().await?;
    let now = app.now();
    let page = crate::routes::page(rows, limit, |row| row.id.to_string(), |row| Saga::of(row, now));
    let next = page.next_cursor.as_ref().map(|cursor| format!("/?{}", with_cursor(&query, cursor)));
    let body = html! {
        h1 { "Sagas" }
        div #troubled data-live {
            @if troubled == 0 && !gates.iter().any(|gate| gate.needs_person() && gate.queue.waiting() > 0) {
                p.lead.calm { "✓ Nothing needs attention." }
            } @else if troubled > 0 {
                p.lead.trouble {
                    "⚠ " (troubled) @if troubled >= 200 { " or more" }
                    @if troubled == 1 { " saga needs" } @else { " sagas need" } " attention. "
                    a href="/?attention=any" { "Show" }
                }
            }
            (held_up(&gates))
        }
        nav.views aria-label="Views" {
            @for (name, view) in VIEWS {
                a href=(if view.is_empty() { "/".to_owned() } else { format!("/?{view}") })
                    aria-current=[is_current(&query, view).then_some("page")] { (name) }
            }
        }
        form.filter method="get" action="/" {
            label for="instance" { "Instance" }
            input #instance name="instance" value=(query.instance.as_deref().unwrap_or_default()) autocomplete="off";
            @if let Some(state) = &query.state { input type="hidden" name="state" value=(state); }
            @if let Some(attention) = &query.attention { input type="hidden" name="attention" value=(attention); }
            button { "Filter" }
        }
        div #list data-live { (table(&page.items)) }
        @if let Some(next) = next { p { a href=(next) { "Older" } } }
    };
    Ok(tag.on(super::page(StatusCode::OK, frame::frame(&app, "Sagas", true, &body))))
}

/// A line for each gate at which sagas wait for a person: it is told once, however many wait there.
fn held_up(gates: &[GateView]) -> Markup {
    let all: Vec<&GateView> =
        gates.iter().filter(|gate| gate.needs_person() && gate.queue.waiting() > 0).collect();
    html! {
        @for gate in all.iter().take(GATES_SHOWN) {
            p.lead.trouble {
                "⚠ " (gate.queue.waiting())
                @if gate.queue.waiting() == 1 { " step waits" } @else { " steps wait" } " at gate " (gate.key) ", "
                @if let Some(trouble) = &gate.trouble { "which cannot be moved: " (trouble) }
                @else { "which is closed until a person opens it" }
                @if let (None, Some(closed)) = (&gate.trouble, &gate.closed) { ": " (closed.reason) }
                ". " a href="/gates" { "Show" }
            }
        }
        @if all.len() > GATES_SHOWN {
            p.lead.trouble { "⚠ " (all.len() - GATES_SHOWN) " more gates hold sagas up. " a href="/gates" { "Show" } }
        }
    }
}

fn table(sagas: &[Saga]) -> Markup {
    if sagas.is_empty() {
        return html! { p.empty { "No saga is like this." } };
    }
    html! {
        div.scroll tabindex="0" role="region" aria-label="Sagas" {
            table.cards {
                thead {
                    tr {
                        th scope="col" { "State" }
                        th scope="col" { "Kind" }
                        th scope="col" { "Cause" }
                        th scope="col" { "Current step" }
                        th scope="col" { "Age" }
                        th scope="col" { "Saga" }
                        th scope="col" { "Instance" }
                    }
                }
                tbody {
                    @for saga in sagas {
                        tr class=[(!saga.attention.is_empty()).then_some("troubled")] {
                            td { (frame::state(saga.state)) " " (frame::attention(&saga.attention)) }
                            td { (saga.kind) }
                            td.error { (saga.error.as_deref().unwrap_or_default()) }
                            td data-label="at" { (saga.step.as_deref().unwrap_or_default()) }
                            td.number data-label="age" { (saga.age) }
                            td { a.id href=(saga.links.ui) { (saga.id) } }
                            td {
                                @if let Some(instance) = &saga.instance {
                                    a.id href={ "/?instance=" (frame::encoded(instance)) } { (instance) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn is_current(query: &ListQuery, view: &str) -> bool {
    let given = |name: &str, value: &Option<String>| {
        value.as_ref().filter(|value| !value.is_empty()).map(|value| format!("{name}={value}"))
    };
    let here = given("attention", &query.attention).or_else(|| given("state", &query.state));
    here.unwrap_or_default() == view
}

fn with_cursor(query: &ListQuery, cursor: &str) -> String {
    let mut parts = Vec::new();
    let given = [
        ("instance", &query.instance),
        ("state", &query.state),
        ("attention", &query.attention),
        ("kind", &query.kind),
    ];
    for (name, value) in given {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            parts.push(format!("{name}={}", frame::encoded(value)));
        }
    }
    parts.push(format!("cursor={cursor}"));
    parts.join("&")
}

#[cfg(test)]
mod tests {
    use amends_engine::Timestamp;
    use amends_engine::gate::{Closed, Queue, Rule, Why};

    use super::*;

    fn gate(key: &str, waiting: u32, until: Option<Timestamp>, trouble: Option<&str>) -> GateView {
        let closed = Closed { by: Why::Person, reason: "ann: moving".into(), since: Timestamp(0), until };
        GateView {
            key: key.to_owned(),
            rule: Rule::default(),
            closed: trouble.is_none().then_some(closed),
            wave: None,
            queue: Queue { forward: waiting, undo: 0, granted: 0 },
            in_hand: 0,
            acts: Vec::new(),
            trouble: trouble.map(str::to_owned),
        }
    }

    #[test]
    fn a_gate_at_which_sagas_wait_for_a_person_is_told_once_with_how_many() {
        let gates = [
            gate("railway", 10_000, None, None),
            gate("empty", 0, None, None),
            gate("soon", 3, Some(Timestamp(1)), None),
            gate("stuck", 1, None, Some("no")),
        ];
        let text = held_up(&gates).into_string();
        assert!(text.contains(
            "10000 steps wait at gate railway, which is closed until a person opens it: ann: moving"
        ));
        assert!(text.contains("1 step waits at gate stuck, which cannot be moved: no"), "{text}");
        assert!(!text.contains("empty") && !text.contains("soon"), "{text}");
        let many: Vec<GateView> = (0..9).map(|number| gate(&number.to_string(), 1, None, None)).collect();
        assert!(held_up(&many).into_string().contains("4 more gates hold sagas up"));
    }
}

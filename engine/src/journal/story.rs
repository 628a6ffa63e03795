//! Story: a journal told in lines, one fact each, as logs, tests and pages show it.

use std::fmt::Write as _;

use super::event::{ChildFate, Event, FoundKind, SkipReason};
use super::state::turned;
use super::{Entry, State};
use crate::env::Timestamp;
use crate::ids::SagaId;

/// The journal in lines: a heading, then number, time since the start, step, what happened, and what of it is
/// worth knowing.
pub fn story(saga: &SagaId, entries: &[Entry]) -> String {
    let Some(first) = entries.first() else { return format!("{saga}: nothing has happened\n") };
    let (name, state) = match State::fold(saga.clone(), entries) {
        Ok(state) => (state.workflow.0.clone(), state.state().to_string()),
        Err(error) => (String::new(), error.to_string()),
    };
    let last = entries.last().map_or(first.at, |entry| entry.at);
    let mut text = format!("{name} {state} after {}\n", seconds(first.at, last));
    for entry in entries {
        let step = entry.event.step().map_or("", |step| step.as_str());
        let (what, detail) = words(&entry.event);
        let line =
            format!("{:>3} {:>9}  {step:<22} {what:<16} {detail}", entry.seq, seconds(first.at, entry.at));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn seconds(from: Timestamp, to: Timestamp) -> String {
    format!("{:.1} s", to.since(from).as_secs_f64())
}

/// A fact in a word or two, and what of it is worth knowing.
pub fn words(event: &Event) -> (&'static str, String) {
    match event {
        Event::SagaStarted { workflow, workflow_version, .. } => {
            ("started", format!("{workflow} version {workflow_version}"))
        }
        Event::AttemptStarted { attempt, asked, resource, .. } => {
            let activity = asked.as_ref().map(|asked| asked.activity.clone());
            let resource = resource.as_ref().map(|named| format!("names {}", named.resource.name));
            let try_ = (*attempt > 1).then(|| format!("try {attempt}"));
            ("attempt", [activity, try_, resource].into_iter().flatten().collect::<Vec<_>>().join(", "))
        }
        Event::AttemptDeferred { cause, detail, .. } => ("waits", format!("{cause}: {detail}")),
        Event::AttemptLost { cause, detail, .. } => ("in doubt", format!("{cause}: {detail}")),
        Event::WriteHeld { until, .. } => {
            ("waits it out", format!("a lost call may still take effect until {until}"))
        }
        Event::AbsenceSeen { look_at, counts, by_hand, .. } => {
            let who = if *by_hand { "says a person; " } else { "" };
            let what =
                if *counts { "looked for once more" } else { "looked for again when the lost call is over" };
            ("not seen", format!("{who}{what}, at {look_at}"))
        }
        Event::StepFound { found, external_id, .. } => {
            let id = external_id.clone().unwrap_or_default();
            match found {
                FoundKind::Nothing => ("not there", "it never happened, and is tried again".to_owned()),
                FoundKind::Usable => ("found", id),
                FoundKind::Unusable => ("found useless", id),
                FoundKind::Unknowable => ("undecidable", "no way to tell whether it happened".to_owned()),
            }
        }
        Event::StepCompleted { by_hand: true, .. } => ("done by hand", String::new()),
        Event::StepCompleted { external_id, .. } => ("done", external_id.clone().unwrap_or_default()),
        Event::StepFailed { refusal, .. } => ("refused", refusal.to_string()),
        Event::PivotPassed { .. } => ("pivot", "from here only forward".to_owned()),
        Event::ScopeUnwound { .. } => ("scope undone", String::new()),
        Event::TimerSet { signal: Some(signal), .. } => ("waits for", format!("signal {signal}")),
        Event::TimerSet { signal: None, due_at, .. } => ("sleeps", format!("until {due_at}")),
        Event::TimerFired { .. } => ("time is up", String::new()),
        Event::SignalReceived { .. } => ("signal", String::new()),
        Event::ValueDrawn { .. } => ("drawn", String::new()),
        Event::ChildStarted { child, asked, .. } => {
            let workflow = asked.as_ref().map_or(String::new(), |asked| format!(", {}", asked.activity));
            ("starts", format!("{child}{workflow}"))
        }
        Event::ChildEnded { fate, child, refusal, .. } => match (fate, refusal) {
            (ChildFate::Done | ChildFate::Kept, _) => ("child done", child.to_string()),
            (ChildFate::Gone, Some(refusal)) => ("child undone", refusal.to_string()),
            (ChildFate::Gone, None) => ("child undone", child.to_string()),
        },
        Event::ResultOffered { .. } => ("offers", "until the saga that called it ends".to_owned()),
        Event::ParentEnded {} => ("may end", "the saga that called it has ended".to_owned()),
        Event::RaceDecided { winner, losers, .. } => {
            let losers = losers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            ("race won", format!("by {winner}; taken back: {losers}"))
        }
        Event::DeferRegistered { asked, .. } => ("put off", format!("{} to the end", asked.activity)),
        Event::LabelSet { name, value, .. } => ("label", format!("{name} = {value}")),
        Event::Parked { attention, detail } => ("parked", format!("{attention}: {detail}")),
        Event::Paused { until, actor, reason } => ("paused", format!("until {until} by {actor}: {reason}")),
        Event::Resumed { actor } => ("goes on", actor.clone().unwrap_or_else(|| "by itself".to_owned())),
        Event::CancelRequested { actor, reason } => ("cancel", format!("{actor}: {reason}")),
        Event::UnwindingStarted { cause, refusal } => ("turns round", turned(*cause, refusal)),
        Event::CompensationStarted { attempt, .. } => {
            ("undo", if *attempt > 1 { format!("try {attempt}") } else { String::new() })
        }
        Event::CompensationDeferred { cause, detail, .. } => {
            let cause = cause.map_or_else(|| "refused".to_owned(), |cause| cause.to_string());
            ("undo waits", format!("{cause}: {detail}"))
        }
        Event::CompensationLost { cause, detail, .. } => ("undo lost", format!("{cause}: {detail}")),
        Event::StepCompensated { by_hand: true, .. } => ("undone by hand", String::new()),
        Event::StepCompensated { .. } => ("undone", String::new()),
        Event::StepSkipped { reason: SkipReason::Within, .. } => {
            ("goes along", "with what it lives in".to_owned())
        }
        Event::StepSkipped { reason: SkipReason::Kept, .. } => ("kept", "by its keeper".to_owned()),
        Event::StepSkipped { reason: SkipReason::Struck, .. } => ("struck", "from the undo plan".to_owned()),
        Event::StepSkipped { reason: SkipReason::HandedOver, to, .. } => {
            ("handed over", to.clone().unwrap_or_default())
        }
        Event::StepSkipped { reason: SkipReason::Irrevocable, .. } => {
            ("stays", "the child is past its pivot".to_owned())
        }
        Event::StepSkipped { reason: SkipReason::Ended, .. } => ("nothing left", "of the child".to_owned()),
        Event::ScopeTurned { refusal, .. } => ("scope turns", refusal.to_string()),
        Event::ResourceGone { resource, .. } => ("gone", resource.to_string()),
        Event::ResourceTaken { row } => ("takes over", format!("{} {} {}", row.provider, row.kind, row.name)),
        Event::OperatorIntervened { act, actor, reason, .. } => {
            ("act", format!("{} by {actor}: {reason}", act.kind()))
        }
        Event::SagaCompleted { .. } => ("completed", String::new()),
        Event::SagaCompensated {} => ("compensated", "nothing of it is left outside".to_owned()),
        Event::SagaFailed { refusal } => ("failed", refusal.to_string()),
    }
}

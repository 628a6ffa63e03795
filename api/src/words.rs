//! Words: a saga in three sentences, the same on the page, in the API and on the command line.

use std::time::Duration;

use amends_engine::journal::State;
use amends_engine::journal::event::UnwindCause;
use amends_engine::journal::state::{Attention, Phase, SagaState, Step};
use amends_engine::store::{ResourceRow, ResourceState};
use amends_engine::{SagaView, Timestamp};
use serde::{Deserialize, Serialize};

/// What happened, what the engine is doing, and what a person can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// What happened.
    pub happened: String,
    /// What the engine does about it.
    pub doing: String,
    /// What is left outside, or that nothing is.
    pub outside: String,
    /// What a person can do.
    pub you_can: Vec<String>,
}

/// A duration as people read it: the two largest units, and nothing finer than a tenth of a second.
pub fn span(duration: Duration) -> String {
    if duration.is_zero() {
        return "0s".to_owned();
    }
    let rounded = if duration < Duration::from_secs(1) {
        Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(0).max(1))
    } else if duration < Duration::from_secs(10) {
        Duration::from_millis(u64::try_from(duration.as_millis() / 100).unwrap_or(0) * 100)
    } else {
        Duration::from_secs(duration.as_secs())
    };
    let text = humantime::format_duration(rounded).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// How far a moment is from now.
pub fn when(at: Timestamp, now: Timestamp) -> String {
    if at > now { format!("in {}", span(at.since(now))) } else { "now".to_owned() }
}

/// One thing outside, as a list names it.
pub fn thing(row: &ResourceRow) -> String {
    let id = row.external_id.as_ref().map(|id| format!(" ({id})")).unwrap_or_default();
    format!("{} {} {}{id}", row.provider, row.kind, row.name)
}

/// What is meant by a word of attention.
pub fn attention(attention: Attention) -> &'static str {
    match attention {
        Attention::InDoubt => "nobody knows yet whether a call happened",
        Attention::Retrying => "one step has been tried again and again",
        Attention::UndoStuck => "something outside cannot be taken back yet",
        Attention::NeedsDecision => "only a person can decide how it goes on",
        Attention::NoWorker => "this program does not offer the saga's definition",
        Attention::NoProgress => "it waits for something that is not the engine's",
        Attention::Late => "its deadline has passed",
        Attention::Diverged => "its function asks for something else than its journal holds",
        Attention::Unreadable => "a line of its journal cannot be read",
    }
}

/// Tells a saga.
pub fn why(view: &SagaView, now: Timestamp) -> Why {
    Why {
        happened: happened(&view.state, view.row.state),
        doing: doing(&view.state, now),
        outside: outside(view),
        you_can: you_can(view),
    }
}

fn happened(state: &State, standing: SagaState) -> String {
    let kind = &state.workflow.0;
    if let Some(unwinding) = &state.unwinding {
        let at = unwinding.since;
        let cause = match unwinding.cause {
            UnwindCause::Refused => "It could not go on",
            UnwindCause::Cancelled => "It was cancelled",
            UnwindCause::Deadline => "Its deadline passed",
        };
        return format!("{cause} at {at}: {}. It turned round.", unwinding.refusal);
    }
    if standing == SagaState::Completed {
        let took = span(state.at.since(state.started_at));
        return format!("The {kind} did what it was asked for, in {took}.");
    }
    if standing == SagaState::Failed {
        return format!("The {kind} ended before it had any effect.");
    }
    let failing = state.steps().iter().rev().find(|step| !is_settled(step) && step.last_failure.is_some());
    if let Some(step) = failing
        && let Some((cause, detail)) = &step.last_failure
    {
        let cause =
            cause.map(|cause| format!(" ({})", cause.to_string().replace('_', " "))).unwrap_or_default();
        let tries = match step.attempts {
            0 => "has not been sent".to_owned(),
            1 => "did not get through".to_owned(),
            many => format!("did not get through in {many} tries"),
        };
        return format!("Step {} {tries}{cause}: {detail}.", step.key);
    }
    let done = state.steps().iter().filter(|step| step.phase == Phase::Completed).count();
    match done {
        0 => format!("The {kind} was asked for at {}.", state.started_at),
        1 => "1 step is done.".to_owned(),
        many => format!("{many} steps are done."),
    }
}

fn is_settled(step: &Step) -> bool {
    matches!(step.phase, Phase::Completed | Phase::Refused | Phase::Undone | Phase::Skipped(_))
}

fn doing(state: &State, now: Timestamp) -> String {
    if let Some(ended) = state.ended {
        return match ended {
            SagaState::Completed => "Nothing more: it is completed.".to_owned(),
            SagaState::Compensated => "Nothing more: all it did is taken back.".to_owned(),
            _ => "Nothing more: it has ended.".to_owned(),
        };
    }
    if let Some((attention, detail)) = &state.parked {
        return format!("It waits: {}. {detail}.", self::attention(*attention));
    }
    if state.unwinding.is_some() {
        let back = |step: &&Step| matches!(step.phase, Phase::Undone | Phase::Skipped(_));
        let done = state.steps().iter().filter(back).count();
        let left = state.steps().iter().filter(|step| is_left(step)).count();
        let progress = format!("{done} of {} steps are taken back.", done + left);
        return match state.steps().iter().rev().find_map(|step| current(step, now)) {
            Some(current) => format!("{progress} {current}"),
            None => progress,
        };
    }
    match state.steps().iter().rev().find_map(|step| current(step, now)) {
        Some(current) => current,
        None if state.seq <= 1 => "It is about to begin.".to_owned(),
        None => "It is deciding what comes next.".to_owned(),
    }
}

fn is_left(step: &Step) -> bool {
    match step.phase {
        Phase::Removing { .. } => true,
        Phase::Completed | Phase::InDoubt { .. } | Phase::Undecidable | Phase::Trying { .. } => {
            step.is_compensable()
        }
        _ => false,
    }
}

fn current(step: &Step, now: Timestamp) -> Option<String> {
    let key = &step.key;
    Some(match &step.phase {
        Phase::Trying { .. } => format!("It is trying {key}, attempt {}.", step.attempts),
        Phase::Deferred { retry_at } => format!("It tries {key} again {}.", when(*retry_at, now)),
        Phase::InDoubt { look_at } => {
            format!("Nobody knows whether {key} happened; it asks {}.", when(*look_at, now))
        }
        Phase::Undecidable => format!("Whether {key} happened cannot be told; a person has to decide."),
        Phase::Waiting { due_at, signal: Some(signal) } => {
            format!("It waits for {signal}, at most until {due_at} ({}).", when(*due_at, now))
        }
        Phase::Waiting { due_at, signal: None } => {
            format!("It lets time pass until {due_at} ({}).", when(*due_at, now))
        }
        Phase::Removing { under_way: Some(_), .. } => {
            format!("It is taking {key} back, attempt {}.", step.undo_attempts)
        }
        Phase::Removing { due_at, .. } => {
            let failed = match (&step.last_failure, step.undo_attempts) {
                (Some((_, detail)), 1) => format!("Undo of {key} failed: {detail}. "),
                (Some((_, detail)), many) => format!("Undo of {key} failed {many} times: {detail}. "),
                (None, _) => format!("Undo of {key} is next. "),
            };
            format!("{failed}Next try {}.", when(*due_at, now))
        }
        _ => return None,
    })
}

fn outside(view: &SagaView) -> String {
    let open = |row: &&ResourceRow| row.state != ResourceState::Gone;
    let all: Vec<&ResourceRow> = view.resources.iter().filter(open).collect();
    if all.is_empty() {
        return "Nothing of this saga is outside.".to_owned();
    }
    let mut parts = Vec::new();
    for state in
        [ResourceState::Live, ResourceState::InDoubt, ResourceState::Removing, ResourceState::Intended]
    {
        let names: Vec<String> = all.iter().filter(|row| row.state == state).map(|row| thing(row)).collect();
        if !names.is_empty() {
            let word = match state {
                ResourceState::Live => "there",
                ResourceState::InDoubt => "may be there",
                ResourceState::Removing => "being taken away",
                _ => "about to be made",
            };
            parts.push(format!("{} {word}: {}", names.len(), names.join(", ")));
        }
    }
    format!("{}.", parts.join("; "))
}

fn you_can(view: &SagaView) -> Vec<String> {
    let id = &view.row.id;
    let mut can = Vec::new();
    let allowed = allowed(&view.state);
    if allowed.is_empty() {
        return vec!["do nothing: it has ended".to_owned()];
    }
    if view.row.attention.is_empty() {
        can.push("wait: it goes on by itself".to_owned());
    }
    if view.row.attention.contains(&Attention::NeedsDecision) {
        can.push("look at the provider and mend what it complains of, then retry".to_owned());
    }
    if allowed.contains(&"retry") {
        can.push(format!("amends saga retry {id} --reason \"…\""));
    }
    if allowed.contains(&"cancel") {
        can.push(format!("amends saga cancel {id} --reason \"…\""));
    }
    can
}

/// What a person can do to a saga as it stands.
pub fn allowed(state: &State) -> Vec<&'static str> {
    if state.ended.is_some() {
        return Vec::new();
    }
    let mut acts = vec!["retry"];
    if state.pivot.is_none() && state.unwinding.is_none() && state.cancel.is_none() {
        acts.push("cancel");
    }
    acts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saga_says_what_happened_what_it_does_and_what_is_left() {
        let told = |journal: crate::samples::Journal, ms| why(&journal.view(), crate::samples::at(ms));
        insta::assert_json_snapshot!([
            told(crate::samples::stuck(), 300_100),
            told(crate::samples::completed(), 2_000_000),
            told(crate::samples::in_doubt(), 40_000),
        ]);
    }

    #[test]
    fn a_duration_is_told_in_two_units_at_most() {
        let told = |ms| span(Duration::from_millis(ms));
        assert_eq!(told(0), "0s");
        assert_eq!(told(420), "420ms");
        assert_eq!(told(1_940), "1s 900ms");
        assert_eq!(told(61_250), "1m 1s");
        assert_eq!(told(3_600_000 * 26 + 61_000), "1day 2h");
    }
}

//! Words: durations, things and a saga's situation, the same on the page, in the API and on the command line.

use std::time::Duration;

use amends_engine::journal::state::Attention;
use amends_engine::journal::why as engine;
use amends_engine::store::{ResourceRow, ResourceState};
use amends_engine::{SagaView, Timestamp};
use serde::{Deserialize, Serialize};

/// What happened, what happens now, what is left outside, and what a person can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// What brought it here.
    pub happened: String,
    /// What it does now, and when something is next due.
    pub now: String,
    /// What is left outside, or that nothing is.
    pub outside: String,
    /// What a person can do.
    pub you: String,
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
        Attention::NoWorker => "this program does not offer its workflow, or one of its activities",
        Attention::NoProgress => "it waits for something that is not the engine's",
        Attention::Late => "its deadline has passed",
        Attention::PauseEnding => "its pause ends within a quarter of an hour",
        Attention::Leak => "it has ended, and something it made is outside",
        Attention::StoreRefused => "the database refuses what it has to write",
        Attention::OverLimit => "its function has asked for too much, and it was parked for that",
        Attention::Diverged => "its function asks for something else than its journal holds",
        Attention::Unreadable => "a line of its journal, or a letter in its inbox, cannot be read",
    }
}

/// Tells a saga as it stands at `now`.
pub fn why(view: &SagaView, now: Timestamp) -> Why {
    let mut told = engine::why(&view.state, now);
    // Its journal reads, or it could not be shown.
    if view.row.attention.contains(&Attention::Unreadable) {
        engine::tell_unread_letter(&mut told);
    }
    if let Some(gate) = &view.gate {
        engine::tell_gate(&mut told, gate);
    }
    let engine::Why { happened, now, you } = told;
    Why { happened, now, outside: outside(view), you }
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

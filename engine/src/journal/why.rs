//! Why: a saga's situation in three sentences.

use super::State;
use super::state::{Attention, Phase, SagaState};
use crate::env::Timestamp;
use crate::store::ResourceState;

/// What happened, what happens now, what a person can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// What brought it here.
    pub happened: String,
    /// What it does now, and when something is next due.
    pub now: String,
    /// What a person can do.
    pub you: String,
}

impl std::fmt::Display for Why {
    /// The three sentences, a line each.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n{}\n{}", self.happened, self.now, self.you)
    }
}

/// Explains a saga from its state and the time alone.
pub fn why(state: &State, now: Timestamp) -> Why {
    Why { happened: happened(state), now: doing(state, now), you: advice(state) }
}

fn happened(state: &State) -> String {
    let name = &state.workflow.0;
    if let Some((attention, detail)) = &state.parked {
        return format!("{name} cannot go on by itself ({attention}): {detail}.");
    }
    let trouble = state.last_error();
    match (state.state(), &state.unwinding) {
        (SagaState::Completed, _) => format!("{name} did what it was asked for."),
        (SagaState::Compensated, Some(unwinding)) => {
            format!(
                "{name} turned round ({}: {}) and took back all it had done.",
                unwinding.cause, unwinding.refusal
            )
        }
        (SagaState::Compensated | SagaState::Failed, _) => {
            format!(
                "{name} ended without effect{}.",
                trouble.map_or(String::new(), |error| format!(": {error}"))
            )
        }
        (_, Some(unwinding)) => format!(
            "{name} turned round ({}: {}){}.",
            unwinding.cause,
            unwinding.refusal,
            trouble
                .filter(|error| *error != unwinding.refusal.to_string())
                .map_or(String::new(), |error| format!(", and an undo has trouble: {error}"))
        ),
        (_, None) => match trouble {
            Some(error) => format!("{name} has trouble: {error}."),
            None => format!("{name} is on its way, and nothing went wrong."),
        },
    }
}

fn doing(state: &State, now: Timestamp) -> String {
    if state.ended.is_some() {
        let left = state.ledger.rows().filter(|row| row.state != ResourceState::Gone).count();
        return match left {
            0 => "It has ended, and nothing of it is outside.".to_owned(),
            1 => "It has ended; one thing it made is outside.".to_owned(),
            many => format!("It has ended; {many} things it made are outside."),
        };
    }
    let at = state.current_step().map_or(String::new(), |step| format!(" at {step}"));
    match state.due_at() {
        None => format!("It waits{at}, and nothing is due by itself."),
        Some(due) if due <= now => format!("It is working{at}."),
        Some(due) => {
            let wait = std::time::Duration::from_secs(due.since(now).as_secs().max(1));
            format!("It waits{at}; next in {}.", humantime::format_duration(wait))
        }
    }
}

fn advice(state: &State) -> String {
    let attention = state.attention();
    let has = |what: Attention| attention.contains(&what);
    let text = if state.ended.is_some() {
        "There is nothing to do."
    } else if has(Attention::NoWorker) {
        "Run a version of the program that offers this definition; the saga then goes on by itself."
    } else if has(Attention::Diverged) {
        "Run the version that began it, or one whose function asks for the same steps; then retry."
    } else if has(Attention::NeedsDecision)
        && state.steps().iter().any(|step| step.phase == Phase::Undecidable)
    {
        "Look at the provider whether the thing is there, then retry."
    } else if has(Attention::NeedsDecision) {
        "Mend what the provider refuses (a credential, a limit, a setting), then retry."
    } else if has(Attention::UndoStuck) {
        "Nothing is given up: it is tried until it works. Once the provider is well, retry does it now."
    } else if has(Attention::Retrying) {
        "It is tried again by itself; once the provider is well, retry does it now."
    } else if state.unwinding.is_some() {
        "Nothing: it takes back what it did by itself."
    } else if state.pivot.is_none() {
        "Nothing is needed; cancel would take back what it did."
    } else {
        "Nothing is needed; it is past its pivot and can only go forward."
    };
    text.to_owned()
}

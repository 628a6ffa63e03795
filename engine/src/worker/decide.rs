//! Decide: what is to be done next, from a saga's state and the time alone.

use std::collections::HashSet;

use crate::env::Timestamp;
use crate::ids::StepKey;
use crate::journal::State;
use crate::journal::event::{LocalRule, SkipReason};
use crate::journal::state::{Phase, Step};

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Make an attempt, its intent first.
    Execute(StepKey),
    /// It has been unavailable for too long: it counts as refused.
    GiveUp(StepKey),
    /// Let it wait until then: a lost call to what it writes to may still take effect.
    Hold(StepKey, Timestamp),
    /// Ask whether a lost attempt left something.
    Find(StepKey),
    /// Run a local activity; there was no commit, so there is no doubt.
    Apply(StepKey),
    /// Take a step back, the intent first.
    Compensate(StepKey),
    /// Take a local step back.
    Revert(StepKey),
    /// A step needs no taking back of its own; who holds what it made from then on, if that is not its keeper.
    Skip(StepKey, SkipReason, Option<String>),
    /// A call of ours was under way when its process died.
    Lost(StepKey),
    /// A timer has run out.
    Fire(StepKey),
    /// Everything in a scope is taken back.
    EndScope(StepKey),
    /// Somebody asked the saga to turn round, or its deadline passed.
    Turn,
    /// Ask a child saga to turn round.
    CancelChild(StepKey),
    /// Everything is taken back.
    EndUnwinding,
    /// Its pause is over.
    Resume,
}

/// What is tried before its time.
#[derive(Debug, Default)]
pub(crate) struct Nudge {
    /// Everything that waits to be tried again.
    pub(crate) all: bool,
    /// These, which were let go by the gates at which they waited.
    pub(crate) let_go: HashSet<StepKey>,
}

/// What is to be done now.
///
/// `in_flight` are the steps of which this process has a call under way; `nudge` says what of that which waits is
/// tried now.
pub(crate) fn decide(
    state: &State,
    in_flight: &HashSet<StepKey>,
    now: Timestamp,
    nudge: &Nudge,
) -> Vec<Action> {
    let mut actions = Vec::new();
    if state.ended.is_some() {
        return actions;
    }
    if let Some((until, _)) = &state.paused {
        if *until <= now {
            return vec![Action::Resume];
        }
        // What was under way when its process died is in doubt, paused or not; nothing is begun.
        let died = |step: &&Step| step.is_under_way() && !step.is_local() && !in_flight.contains(&step.key);
        return state.steps().iter().filter(died).map(|step| Action::Lost(step.key.clone())).collect();
    }
    if state.can_turn()
        && (state.cancel.is_some() || state.deadline_at.is_some_and(|deadline| deadline <= now))
    {
        return vec![Action::Turn];
    }
    let back: Vec<bool> = state.steps().iter().map(|step| state.goes_back(&step.key)).collect();
    let held_back = held_back(state, &back);
    // What is parked waits for a person, or for another program: nothing more of it is begun meanwhile.
    let is_parked = state.is_parked();
    for (place, step) in state.steps().iter().enumerate() {
        if in_flight.contains(&step.key) {
            continue;
        }
        let goes_back = back.get(place).copied().unwrap_or(false);
        let is_held = held_back.get(place).copied().unwrap_or(false);
        let action = if step.is_under_way() {
            Some(interrupted(step, goes_back))
        } else if is_parked {
            None
        } else if step.at_gate.is_some() && (nudge.all || nudge.let_go.contains(&step.key)) {
            // It has no time of its own: let go, it is as if that had come.
            let otherwise = if goes_back { backward(state, step, is_held, now) } else { None };
            otherwise.or_else(|| let_go(step, goes_back, now))
        } else if goes_back {
            backward(state, step, is_held, now)
        } else {
            forward(state, step, now, nudge.all)
        };
        actions.extend(action.and_then(|action| held(state, step, action, now)));
    }
    let is_open =
        |scope: &StepKey| state.is_left_in(scope) || in_flight.iter().any(|key| key.is_inside(scope));
    // The innermost scope turned last, and ends first.
    let ended = state.turned_scopes.iter().rev().filter(|scope| !is_open(scope));
    if state.unwinding.is_none() {
        actions.extend(ended.cloned().map(Action::EndScope));
    } else if !is_open(&StepKey::root()) {
        match state.next_deferred() {
            Some(step) if step.phase == Phase::Registered => {
                actions.push(Action::Execute(step.key.clone()));
            }
            Some(_) => {}
            None => actions.push(Action::EndUnwinding),
        }
    }
    actions
}

/// A call that writes waits while a lost one to the same object may still take effect; nothing if it waits already.
fn held(state: &State, step: &Step, action: Action, now: Timestamp) -> Option<Action> {
    if !matches!(action, Action::Execute(_) | Action::Compensate(_)) || !step.is_outside() {
        return Some(action);
    }
    match state.held_until(step, now) {
        Some(until) if step.waits_out.is_some_and(|(_, known)| known == until) && !is_due(step, now) => None,
        Some(until) => Some(Action::Hold(step.key.clone(), until)),
        None => Some(action),
    }
}

/// Whether the time at which it goes on by itself has come.
fn is_due(step: &Step, now: Timestamp) -> bool {
    match step.phase {
        Phase::Deferred { retry_at: at } | Phase::InDoubt { look_at: at } => at <= now,
        Phase::Removing { due_at, .. } => due_at <= now,
        _ => true,
    }
}

fn interrupted(step: &Step, goes_back: bool) -> Action {
    match step.phase {
        // Its transaction was not committed, or the journal would say so.
        Phase::Trying { .. } if step.is_local() && !goes_back => Action::Apply(step.key.clone()),
        _ => Action::Lost(step.key.clone()),
    }
}

fn settle(step: &Step, now: Timestamp) -> Action {
    if step.is_known_again(now) { Action::Execute(step.key.clone()) } else { Action::Find(step.key.clone()) }
}

/// What a step does that its gate lets go: the time it waited there does not count against it.
fn let_go(step: &Step, goes_back: bool, now: Timestamp) -> Option<Action> {
    match step.phase {
        Phase::Removing { .. } => Some(Action::Compensate(step.key.clone())),
        Phase::InDoubt { .. } => Some(settle(step, now)),
        // It is dropped.
        _ if goes_back => None,
        _ => Some(Action::Execute(step.key.clone())),
    }
}

fn forward(state: &State, step: &Step, now: Timestamp, nudged: bool) -> Option<Action> {
    let key = step.key.clone();
    match step.phase {
        Phase::Deferred { .. } if step.at_gate.is_some() => None,
        Phase::Deferred { retry_at } => {
            let too_late = step.asked.as_ref().is_some_and(|asked| {
                let too_often =
                    asked.every.is_none() && asked.attempts_max.is_some_and(|max| step.attempts >= max);
                too_often || asked.give_up_at.plus(step.held_by(now)) <= now
            });
            // Past the pivot there is no way back, so there is no giving up either; nor is there at the very end.
            if too_late && state.pivot.is_none() && !step.is_deferred() {
                Some(Action::GiveUp(key))
            } else if nudged || retry_at <= now {
                Some(Action::Execute(key))
            } else {
                None
            }
        }
        Phase::InDoubt { look_at } if look_at <= now => Some(settle(step, now)),
        Phase::Waiting { due_at, .. } if due_at <= now => Some(Action::Fire(key)),
        Phase::Removing { due_at, .. } if due_at <= now => Some(Action::Compensate(key)),
        _ => None,
    }
}

fn backward(state: &State, step: &Step, is_held: bool, now: Timestamp) -> Option<Action> {
    let key = step.key.clone();
    let row = step.resource.as_ref().and_then(|id| state.ledger.get(id));
    let outer = state.outer(step);
    match step.phase {
        // What lives in another thing goes with it: neither its doubt nor its undo holds anybody up.
        Phase::InDoubt { .. } | Phase::Undecidable | Phase::Completed
            if step.is_compensable()
                && let Some(way) = outer.and_then(|outer| goes_along(state, outer)) =>
        {
            let (reason, to) = way;
            Some(Action::Skip(key, reason, to))
        }
        Phase::InDoubt { look_at } if step.is_compensable() && look_at <= now && outer.is_none() => {
            Some(settle(step, now))
        }
        Phase::Child if !is_held => Some(Action::CancelChild(key)),
        Phase::Completed if step.is_compensable() && !is_held => {
            if step.child.is_some() {
                Some(Action::CancelChild(key))
            } else if row.is_some_and(|row| row.keeper.is_some()) {
                Some(Action::Skip(key, SkipReason::Kept, None))
            } else if step.asked.as_ref().is_some_and(|asked| asked.local == Some(LocalRule::Reverts)) {
                Some(Action::Revert(key))
            } else if outer.is_some() {
                None
            } else {
                Some(Action::Compensate(key))
            }
        }
        Phase::Removing { due_at, .. } if due_at <= now => {
            if step.is_local() {
                Some(Action::Revert(key))
            } else {
                Some(Action::Compensate(key))
            }
        }
        _ => None,
    }
}

/// How what lives in a thing goes with that one, if that one goes: with its removal, or to whom it is handed over.
fn goes_along(state: &State, outer: &Step) -> Option<(SkipReason, Option<String>)> {
    match outer.phase {
        Phase::Skipped(SkipReason::HandedOver | SkipReason::Kept) => {
            let row = state.ledger.get(outer.resource.as_ref()?)?;
            Some((SkipReason::HandedOver, Some(row.holder.clone())))
        }
        Phase::Removing { .. } | Phase::Undone | Phase::Skipped(_) | Phase::Refused => {
            Some((SkipReason::Within, None))
        }
        _ => None,
    }
}

/// For each step, whether one that depends on it, directly or through others, still has to be taken back.
///
/// A step is asked for after those that it depends on, so one walk from the last to the first is enough. A
/// resource that lives in another holds nobody back; edges pass through it, and through reads.
fn held_back(state: &State, back: &[bool]) -> Vec<bool> {
    let steps = state.steps();
    let mut held = vec![false; steps.len()];
    for (place, step) in steps.iter().enumerate().rev() {
        if !back.get(place).copied().unwrap_or(false) {
            continue;
        }
        let pending = step.is_under_way() || step.is_left() && state.outer(step).is_none();
        if pending || held.get(place).copied().unwrap_or(false) {
            for earlier in step.asked.iter().flat_map(|asked| &asked.after) {
                if let Some(place) = steps.iter().position(|candidate| candidate.key == *earlier)
                    && let Some(held) = held.get_mut(place)
                {
                    *held = true;
                }
            }
        }
    }
    held
}

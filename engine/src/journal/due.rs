//! Due: when a saga is next to be taken up, and what it waits for that has no time.

use super::state::{PAUSE_ENDING, State};
use super::step::{AtGate, Phase, Step};
use crate::env::Timestamp;
use crate::gate::{GateWait, Lane};
use crate::ids::StepKey;

/// What waits for another saga, or at a gate, is due at no time.
pub(super) const NEVER: Timestamp = Timestamp::NEVER;

impl Step {
    /// When something is next done about it by itself; nothing while a call is under way, while it waits at a gate, for
    /// another saga or for a person, and when it is settled.
    pub fn next_at(&self) -> Option<Timestamp> {
        let at = match self.phase {
            _ if self.at_gate.is_some() => return None,
            Phase::Deferred { retry_at } => retry_at,
            Phase::InDoubt { look_at } => look_at,
            Phase::Waiting { due_at, .. } | Phase::Removing { under_way: None, due_at, .. } => due_at,
            _ => return None,
        };
        at.ever()
    }
}

impl State {
    /// When something is next to be done: now while a call is under way; never while it is parked or ended, or
    /// waits for another saga.
    pub fn due_at(&self) -> Option<Timestamp> {
        if self.ended.is_some() {
            return None;
        }
        if self.steps.iter().any(Step::is_under_way) {
            return Some(self.at);
        }
        if let Some((until, _)) = &self.paused {
            return Some(*until);
        }
        if self.is_parked() && (self.cancel.is_none() || self.unwinding.is_some()) {
            return self.deadline_at.filter(|_| self.can_turn());
        }
        if !self.begun {
            return Some(self.start_at.unwrap_or(self.at));
        }
        let is_held = self.offered.is_some() && !self.parent_ended;
        if is_held && self.unwinding.is_none() && self.cancel.is_none() {
            return self.deadline_at;
        }
        // What waits for nothing is to be gone on with.
        let waits = self.steps.iter().any(|step| match &step.phase {
            _ if self.waits_at_gate(step).is_some() => true,
            Phase::Undecidable => true,
            Phase::Child => !self.goes_back(&step.key),
            // A time that never comes is waited for as a signal is.
            Phase::Removing { due_at, .. } | Phase::Waiting { due_at, .. } => *due_at == NEVER,
            Phase::Deferred { retry_at } => *retry_at == NEVER,
            Phase::InDoubt { look_at } => *look_at == NEVER,
            _ => false,
        });
        self.next_due(|_| false).or((!waits).then_some(self.at))
    }

    /// The earliest time at which something that waits for a time is due, except steps that are `busy`.
    pub(crate) fn next_due(&self, busy: impl Fn(&StepKey) -> bool) -> Option<Timestamp> {
        let idle = self.steps.iter().filter(|step| !busy(&step.key) && step.at_gate.is_none());
        let times = idle.filter_map(|step| match &step.phase {
            Phase::Deferred { retry_at } if !self.goes_back(&step.key) => Some(*retry_at),
            Phase::Waiting { due_at, .. } if !self.goes_back(&step.key) => Some(*due_at),
            Phase::InDoubt { look_at } => Some(*look_at),
            Phase::Removing { due_at, .. } => Some(*due_at),
            _ => None,
        });
        let turns = self.deadline_at.filter(|_| self.can_turn());
        times.chain(turns).filter_map(Timestamp::ever).min()
    }

    /// When time alone next adds to what a person should know; nothing if it will not after `now`.
    pub(crate) fn noticed_at(&self, now: Timestamp) -> Option<Timestamp> {
        let just_after = |at: Timestamp| Timestamp(at.0.saturating_add(1));
        let late = self.deadline_at.filter(|_| self.unwinding.is_none()).map(just_after);
        let pause_ending = self.paused.as_ref().map(|(until, _)| {
            Timestamp(until.0.saturating_sub(i64::try_from(PAUSE_ENDING.as_micros()).unwrap_or(0)))
        });
        let next = late.into_iter().chain(pause_ending.map(just_after)).filter(|at| *at > now).min();
        next.filter(|_| self.ended.is_none())
    }

    /// The steps that wait at gates until they are let go; none while the saga would not go on.
    pub fn gate_waits(&self) -> Vec<GateWait> {
        if self.ended.is_some() || self.paused.is_some() || self.is_parked() {
            return Vec::new();
        }
        let wait = |step: &Step| {
            let at_gate = self.waits_at_gate(step)?;
            let undoes = matches!(step.phase, Phase::Removing { .. }) || self.goes_back(&step.key);
            Some(GateWait {
                gate: at_gate.gate.clone(),
                saga: self.saga.clone(),
                step: step.key.clone(),
                lane: if undoes { Lane::Undo } else { Lane::Forward },
                since: at_gate.since,
            })
        };
        self.steps.iter().filter_map(wait).collect()
    }

    /// The gate at which a step waits; one that is dropped on the way back waits for nothing.
    pub(super) fn waits_at_gate<'s>(&self, step: &'s Step) -> Option<&'s AtGate> {
        let is_dropped = matches!(step.phase, Phase::Deferred { .. }) && self.goes_back(&step.key);
        step.at_gate.as_ref().filter(|_| !is_dropped)
    }
}

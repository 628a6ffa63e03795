//! State: a saga's events folded to where it stands; which fact may follow which.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::Value;

use super::act::Act;
use super::event::{
    Asked, ChildFate, ChildRule, Event, FoundKind, Parent, SkipReason, UnwindCause, closed_set,
};
use super::failure::{Cause, Refusal};
pub use super::step::{AtGate, Phase, Step, Trouble};
use super::{Entry, Ledger};
use crate::env::Timestamp;
use crate::gate::{GateWait, Lane};
use crate::ids::{ResourceId, SagaId, StepKey};
use crate::store::{ResourceRow, ResourceState};

closed_set! {
    /// Where a saga stands.
    SagaState {
        /// Accepted, not yet begun.
        Queued,
        /// A step is being tried.
        Running,
        /// For a time, a signal, a provider or a person.
        Waiting,
        /// Stopped for a while, by a person.
        Paused,
        /// Turned round: what it did is being taken back.
        Compensating,
        /// Done.
        Completed,
        /// Taken back; nothing of it is left outside.
        Compensated,
        /// Ended before it had any effect.
        Failed,
    }
}

impl SagaState {
    /// Whether nothing more will happen.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated | Self::Failed)
    }
}

closed_set! {
    /// What a person should know about a saga, beside its state.
    Attention {
        /// An attempt ended without a known outcome, and asking has not settled it.
        InDoubt,
        /// One step has been tried five times or for ten minutes.
        Retrying,
        /// One compensation has been tried five times or for ten minutes.
        UndoStuck,
        /// Only a person can decide how it goes on.
        NeedsDecision,
        /// This binary does not offer the saga's definition.
        NoWorker,
        /// The saga waits for something that is not the engine's.
        NoProgress,
        /// Its deadline has passed.
        Late,
        /// Its pause ends within a quarter of an hour.
        PauseEnding,
        /// It has ended, and something that it holds is still outside.
        Leak,
        /// Its function asks for something else than its journal holds.
        Diverged,
        /// A line of its journal cannot be read.
        Unreadable,
        /// It has grown beyond a limit, and was parked for it.
        OverLimit,
    }
}

/// How long before its end a pause is pointed out.
const PAUSE_ENDING: Duration = Duration::from_secs(15 * 60);

/// A fact that may not follow what is there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{event} may not follow here: {reason}")]
pub struct IllegalEvent {
    /// The fact's name.
    pub event: &'static str,
    /// What stands against it.
    pub reason: String,
}

/// Why a saga turned round, and since when.
#[derive(Debug, Clone, PartialEq)]
pub struct Unwinding {
    /// Why.
    pub cause: UnwindCause,
    /// What exactly.
    pub refusal: Refusal,
    /// When.
    pub since: Timestamp,
}

/// Where one saga stands.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// Which saga.
    pub saga: SagaId,
    /// Its definition's name and version.
    pub workflow: (String, u32),
    /// What it was asked for.
    pub input: Value,
    /// What it yielded.
    pub output: Option<Value>,
    /// For lists.
    pub labels: BTreeMap<String, String>,
    /// When it turns round by itself.
    pub deadline_at: Option<Timestamp>,
    /// Before this its function does not run.
    pub start_at: Option<Timestamp>,
    /// The saga that called it.
    pub parent: Option<Parent>,
    /// Whether that one has ended, so that this one may.
    pub parent_ended: bool,
    /// What it will yield, and to whom its rows will pass, once the saga that called it has ended.
    pub offered: Option<(Value, Option<String>)>,
    /// Until when it is paused, and who said so and why.
    pub paused: Option<(Timestamp, String)>,
    /// Its place in the journal: the last entry's.
    pub seq: i64,
    /// When it was asked for.
    pub started_at: Timestamp,
    /// The time of the last entry.
    pub at: Timestamp,
    /// The step after which there is only forward, once it has passed.
    pub pivot: Option<StepKey>,
    /// Set while it is taken back.
    pub unwinding: Option<Unwinding>,
    /// The scopes that are being taken back, in the order in which they turned round.
    pub turned_scopes: Vec<StepKey>,
    /// The scopes whose steps are all taken back.
    pub ended_scopes: Vec<StepKey>,
    /// The races that are decided, each with the branch that won.
    pub races: BTreeMap<StepKey, StepKey>,
    /// Who asked for it to turn round, and why.
    pub cancel: Option<(String, String)>,
    /// What the engine cannot go on with by itself.
    pub parked: Option<(Attention, String)>,
    /// How it ended.
    pub ended: Option<SagaState>,
    /// What exists outside by its doing.
    pub ledger: Ledger,
    steps: Vec<Step>,
    places: HashMap<StepKey, usize>,
    begun: bool,
}

impl State {
    /// A saga of which nothing is known yet.
    pub fn new(saga: SagaId) -> Self {
        Self {
            saga,
            workflow: (String::new(), 0),
            input: Value::Null,
            output: None,
            labels: BTreeMap::new(),
            deadline_at: None,
            start_at: None,
            parent: None,
            parent_ended: false,
            offered: None,
            paused: None,
            seq: 0,
            started_at: Timestamp(0),
            at: Timestamp(0),
            pivot: None,
            unwinding: None,
            turned_scopes: Vec::new(),
            ended_scopes: Vec::new(),
            races: BTreeMap::new(),
            cancel: None,
            parked: None,
            ended: None,
            ledger: Ledger::default(),
            steps: Vec::new(),
            places: HashMap::new(),
            begun: false,
        }
    }

    /// The state after all these entries.
    pub fn fold<'e>(
        saga: SagaId,
        entries: impl IntoIterator<Item = &'e Entry>,
    ) -> Result<Self, IllegalEvent> {
        let mut state = Self::new(saga);
        for entry in entries {
            state.apply(entry)?;
        }
        Ok(state)
    }

    /// The steps, in the order in which they were asked for.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// One step.
    pub fn step(&self, key: &StepKey) -> Option<&Step> {
        self.places.get(key).and_then(|place| self.steps.get(*place))
    }

    /// The step whose thing this one's lives in and goes with; nothing if a person has left that one where it is.
    pub(crate) fn outer(&self, step: &Step) -> Option<&Step> {
        let within = self.ledger.get(step.resource.as_ref()?)?.within.as_ref()?;
        let outer = self.steps.iter().find(|candidate| candidate.resource.as_ref() == Some(within))?;
        (outer.phase != Phase::Skipped(SkipReason::Struck)).then_some(outer)
    }

    /// Where the saga stands, in one word.
    pub fn state(&self) -> SagaState {
        match self.ended {
            Some(ended) => ended,
            None if self.paused.is_some() => SagaState::Paused,
            None if self.unwinding.is_some() => SagaState::Compensating,
            None if !self.begun => SagaState::Queued,
            None if self.steps.iter().any(Step::is_under_way) => SagaState::Running,
            None => SagaState::Waiting,
        }
    }

    /// What a person should know when the last entry was written, in the order of the enumeration.
    pub fn attention(&self) -> Vec<Attention> {
        self.attention_at(self.at)
    }

    /// What a person should know now, in the order of the enumeration.
    pub fn attention_at(&self, now: Timestamp) -> Vec<Attention> {
        if self.ended.is_some() {
            let leaks = self.ended != Some(SagaState::Completed) && self.held().next().is_some();
            return if leaks { vec![Attention::Leak] } else { Vec::new() };
        }
        let mut all: Vec<Attention> = self.steps.iter().flat_map(|step| step.attention(now)).collect();
        if self.deadline_at.is_some_and(|deadline| now > deadline) {
            all.push(Attention::Late);
        }
        if self.paused.as_ref().is_some_and(|(until, _)| until.since(now) < PAUSE_ENDING) {
            all.push(Attention::PauseEnding);
        }
        if let Some((attention, _)) = &self.parked {
            all.push(*attention);
        }
        all.sort();
        all.dedup();
        all
    }

    /// When time alone next adds to what a person should know; nothing if it will not after `now`.
    pub(crate) fn noticed_at(&self, now: Timestamp) -> Option<Timestamp> {
        let just_after = |at: Timestamp| Timestamp(at.0.saturating_add(1));
        let late = self.deadline_at.map(just_after);
        let pause_ending = self.paused.as_ref().map(|(until, _)| {
            Timestamp(until.0.saturating_sub(i64::try_from(PAUSE_ENDING.as_micros()).unwrap_or(0)))
        });
        let next = late.into_iter().chain(pause_ending.map(just_after)).filter(|at| *at > now).min();
        next.filter(|_| self.ended.is_none())
    }

    /// What it made or took over, is outside, and is held by this saga.
    pub fn held(&self) -> impl Iterator<Item = &ResourceRow> {
        let is_held =
            |row: &&ResourceRow| row.holder == self.saga.as_str() && row.state != ResourceState::Gone;
        self.ledger.rows().filter(is_held)
    }

    /// Adds one entry. What is not in this match is illegal, and leaves the state as it was.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), IllegalEvent> {
        let at = entry.at;
        let illegal = |reason: String| Err(IllegalEvent { event: entry.event.name(), reason });
        if entry.seq != self.seq + 1 {
            return illegal(format!("it is number {}, and {} is next", entry.seq, self.seq + 1));
        }
        if let Some(ended) = self.ended {
            return illegal(format!("the saga is {ended}"));
        }
        if (self.seq == 0) != matches!(entry.event, Event::SagaStarted { .. }) {
            return illegal("a journal begins with saga_started, once".into());
        }
        if let Some(objection) = self.objection(&entry.event) {
            return illegal(objection);
        }
        self.record(&entry.event, at);
        self.close_what_never_was(&entry.event, at);
        self.seq = entry.seq;
        self.at = at;
        // What a person does to a saga that has not begun does not begin it.
        self.begun |= !matches!(
            entry.event,
            Event::SagaStarted { .. }
                | Event::OperatorIntervened { .. }
                | Event::Paused { .. }
                | Event::Resumed { .. }
        );
        Ok(())
    }

    /// Whether its function has run, or something was decided about it.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether its pivot may have happened, and nobody knows yet: until then it neither turns round nor is safe.
    pub fn is_at_pivot(&self) -> bool {
        let is_open = |step: &Step| {
            let may_have =
                matches!(step.phase, Phase::Trying { .. } | Phase::InDoubt { .. } | Phase::Undecidable);
            // One in our own database is there with the entry that says so, or it is not.
            may_have && !step.is_local() && step.asked.as_ref().is_some_and(|asked| asked.pivot)
        };
        self.pivot.is_none() && self.unwinding.is_none() && self.steps.iter().any(is_open)
    }

    /// Whether it can still turn round at once.
    pub fn can_turn(&self) -> bool {
        self.unwinding.is_none() && self.pivot.is_none() && !self.is_at_pivot()
    }

    /// Whether a scope that holds this step is being taken back.
    pub fn is_turned(&self, key: &StepKey) -> bool {
        self.turned_scopes.iter().any(|scope| key.is_inside(scope))
    }

    /// Whether this step is on the way back: the whole saga is, or a scope that it stands in, or was.
    pub fn goes_back(&self, key: &StepKey) -> bool {
        let is_deferred = || self.step(key).is_some_and(Step::is_deferred);
        let is_taken_back = || self.ended_scopes.iter().any(|scope| key.is_inside(scope));
        (self.unwinding.is_some() || self.is_turned(key) || is_taken_back()) && !is_deferred()
    }

    /// Whether a step in this scope that happened, or may have, still waits to be taken back.
    pub fn is_left_in(&self, scope: &StepKey) -> bool {
        self.steps.iter().any(|step| step.key.is_inside(scope) && step.is_left())
    }

    /// Whether no call is under way, none is in doubt, and no scope is being taken back.
    pub fn is_settled(&self) -> bool {
        let open = |step: &Step| {
            matches!(step.phase, Phase::Trying { .. } | Phase::InDoubt { .. } | Phase::Removing { .. })
        };
        self.turned_scopes.is_empty() && !self.steps.iter().any(open)
    }

    /// Whether a step that was put off until the end is still to be done.
    pub fn has_deferred(&self) -> bool {
        self.next_deferred().is_some()
    }

    /// The step put off last of those still to be done.
    pub fn next_deferred(&self) -> Option<&Step> {
        let open =
            |step: &&Step| step.is_deferred() && !matches!(step.phase, Phase::Completed | Phase::Refused);
        self.steps.iter().rfind(open)
    }

    /// What did not happen, and is not tried again since the saga or its scope has turned round, is nowhere.
    fn close_what_never_was(&mut self, event: &Event, at: Timestamp) {
        let turns = matches!(
            event,
            Event::UnwindingStarted { .. } | Event::ScopeTurned { .. } | Event::RaceDecided { .. }
        );
        let settles = matches!(event, Event::AttemptDeferred { .. } | Event::StepFound { .. });
        let is_over = |step: &&Step| {
            matches!(step.phase, Phase::Deferred { .. })
                && (turns || settles && event.step() == Some(&step.key))
                && self.goes_back(&step.key)
        };
        let rows: Vec<_> =
            self.steps.iter().filter(is_over).filter_map(|step| step.resource.clone()).collect();
        for row in rows {
            self.ledger.set(&row, ResourceState::Gone, at);
        }
    }

    /// Whatever happens to a step that waits at a gate ends that wait.
    fn leave_gate(&mut self, event: &Event, at: Timestamp) {
        let place = event.step().and_then(|key| self.places.get(key).copied());
        if let Some(step) = place.and_then(|place| self.steps.get_mut(place))
            && let Some(left) = step.at_gate.take()
        {
            step.held = step.held.saturating_add(at.since(left.since));
        }
    }

    fn record(&mut self, event: &Event, at: Timestamp) {
        self.leave_gate(event, at);
        match event {
            Event::SagaStarted {
                workflow,
                workflow_version,
                input,
                deadline_at,
                labels,
                start_at,
                parent,
            } => {
                self.workflow = (workflow.clone(), *workflow_version);
                self.input = input.clone();
                self.deadline_at = *deadline_at;
                self.labels = labels.clone();
                self.start_at = *start_at;
                self.parent = parent.clone();
                self.started_at = at;
            }
            Event::AttemptStarted { step, attempt, generation, not_after, asked, resource } => {
                let within = resource.as_ref().and_then(|named| named.resource.within.as_ref());
                let outer =
                    within.and_then(|outer| self.step(outer)).and_then(|outer| outer.resource.clone());
                let place = self.place(step, asked.as_deref(), at);
                place.phase = Phase::Trying { not_after: *not_after };
                place.attempts = *attempt;
                place.generation = *generation;
                place.since = at;
                place.sent_at.get_or_insert(at);
                if let Some(named) = resource {
                    place.resource = Some(named.id.clone());
                    self.ledger.intend(&self.saga.clone(), step, named, outer, at);
                }
                self.parked = None;
            }
            Event::AttemptDeferred { step, cause, detail, gate: Some(gate), asked, fingerprint, .. } => {
                let place = self.place(step, asked.as_deref(), at);
                place.phase = match place.phase {
                    Phase::InDoubt { .. } => Phase::InDoubt { look_at: NEVER },
                    _ => Phase::Deferred { retry_at: NEVER },
                };
                place.wait_at(gate, detail, at);
                // What went wrong before is still what a person should know.
                place.trouble.get_or_insert_with(|| trouble(Some(*cause), detail, fingerprint));
            }
            Event::AttemptDeferred { step, attempt, cause, detail, retry_at, asked, fingerprint, .. } => {
                let place = self.place(step, asked.as_deref(), at);
                place.phase = match (&place.phase, attempt) {
                    // Asking whether it is there did not work: the doubt stays.
                    (Phase::InDoubt { .. }, None) => {
                        place.looks += 1;
                        Phase::InDoubt { look_at: *retry_at }
                    }
                    // Sent again after a lost attempt, and this one did not happen: that one still may have.
                    (_, Some(_)) if place.doubted => Phase::InDoubt { look_at: *retry_at },
                    _ => {
                        place.sent_at = None;
                        Phase::Deferred { retry_at: *retry_at }
                    }
                };
                place.trouble = Some(trouble(Some(*cause), detail, fingerprint));
            }
            Event::AttemptLost { step, cause, detail, look_at, fingerprint, .. } => {
                let place = self.place(step, None, at);
                place.phase = Phase::InDoubt { look_at: *look_at };
                // What leaves nothing that would have to be taken back is not worth a doubt.
                place.doubted = place.is_compensable();
                place.trouble = Some(trouble(Some(*cause), detail, fingerprint));
                self.set_resource(step, ResourceState::InDoubt, at);
            }
            Event::StepFound { step, found, output, external_id } => {
                let place = self.place(step, None, at);
                if let Some(output) = output {
                    place.output = Some(output.clone());
                }
                place.doubted = *found == FoundKind::Unknowable;
                match found {
                    FoundKind::Nothing => {
                        place.sent_at = None;
                        place.phase = Phase::Deferred { retry_at: at };
                    }
                    FoundKind::Usable => {
                        place.phase = Phase::Completed;
                        place.trouble = None;
                        self.made(step, external_id.as_ref(), at);
                    }
                    FoundKind::Unusable => {
                        place.phase = Phase::Removing { under_way: None, due_at: at, clearing: true };
                        place.undo_attempts = 0;
                        place.undo_at = Some(at);
                        self.made(step, external_id.as_ref(), at);
                    }
                    FoundKind::Unknowable => {
                        place.looks += 1;
                        place.phase = Phase::Undecidable;
                    }
                }
            }
            Event::StepCompleted { step, output, external_id, .. } => {
                let place = self.place(step, None, at);
                place.phase = Phase::Completed;
                place.doubted = false;
                place.output = Some(output.clone());
                place.trouble = None;
                self.made(step, external_id.as_ref(), at);
            }
            Event::StepFailed { step, refusal, fingerprint } => {
                let place = self.place(step, None, at);
                place.phase = Phase::Refused;
                place.trouble = Some(trouble(None, &refusal.message, fingerprint));
                place.refusal = Some(refusal.clone());
                self.set_resource(step, ResourceState::Gone, at);
            }
            Event::PivotPassed { step } => self.pivot = Some(step.clone()),
            Event::TimerSet { step, due_at, signal } => {
                let place = self.place(step, None, at);
                place.phase = Phase::Waiting { due_at: *due_at, signal: signal.clone() };
            }
            Event::TimerFired { step } => {
                let place = self.place(step, None, at);
                place.phase = Phase::Completed;
                place.output = Some(Value::Null);
            }
            Event::SignalReceived { step, value } | Event::ValueDrawn { step, value } => {
                let place = self.place(step, None, at);
                place.phase = Phase::Completed;
                place.output = Some(value.clone());
            }
            Event::ChildStarted { step, child, asked: Some(asked) } => {
                let place = self.place(step, Some(asked), at);
                place.child = Some((child.clone(), None));
                place.phase = Phase::Child;
                if asked.child == Some(ChildRule::Started) {
                    place.phase = Phase::Completed;
                    place.output = Some(Value::from(child.as_str()));
                }
            }
            Event::ChildStarted { asked: None, .. } => {}
            Event::ChildEnded { step, child, fate, output, refusal } => {
                let place = self.place(step, None, at);
                place.child = Some((child.clone(), Some(*fate)));
                place.phase = match (&place.phase, fate) {
                    (Phase::Child, ChildFate::Done | ChildFate::Kept) => {
                        place.output.clone_from(output);
                        Phase::Completed
                    }
                    (Phase::Child, ChildFate::Gone) => {
                        place.refusal.clone_from(refusal);
                        Phase::Refused
                    }
                    (Phase::Removing { .. }, ChildFate::Gone) => Phase::Undone,
                    (Phase::Removing { .. }, ChildFate::Kept) => Phase::Skipped(SkipReason::Irrevocable),
                    (phase, _) => (*phase).clone(),
                };
            }
            Event::ResultOffered { output, owner } => self.offered = Some((output.clone(), owner.clone())),
            Event::ParentEnded {} => self.parent_ended = true,
            Event::RaceDecided { scope, winner, losers } => {
                self.races.insert(scope.clone(), winner.clone());
                for loser in losers {
                    if !self.turned_scopes.contains(loser) && !self.ended_scopes.contains(loser) {
                        self.turned_scopes.push(loser.clone());
                    }
                }
            }
            Event::DeferRegistered { step, asked } => {
                self.place(step, Some(asked), at).phase = Phase::Registered;
            }
            Event::LabelSet { step, name, value } => {
                if let Some(step) = step {
                    self.place(step, None, at).phase = Phase::Completed;
                }
                self.labels.insert(name.clone(), value.clone());
            }
            Event::Paused { until, actor, reason } => {
                self.paused = Some((*until, format!("{actor}: {reason}")));
            }
            Event::Resumed { .. } => self.paused = None,
            Event::Parked { attention, detail } => self.parked = Some((*attention, detail.clone())),
            Event::CancelRequested { actor, reason } => self.cancel = Some((actor.clone(), reason.clone())),
            Event::UnwindingStarted { cause, refusal } => {
                self.unwinding = Some(Unwinding { cause: *cause, refusal: refusal.clone(), since: at });
                self.parked = None;
            }
            Event::CompensationStarted { step, attempt, not_after } => {
                let place = self.place(step, None, at);
                let clearing = matches!(place.phase, Phase::Removing { clearing: true, .. });
                place.phase = Phase::Removing { under_way: Some(*not_after), due_at: at, clearing };
                if place.child.is_some() {
                    // It was asked to turn round, and says when it has; nothing is under way until then.
                    place.phase = Phase::Removing { under_way: None, due_at: NEVER, clearing };
                }
                place.undo_attempts = *attempt;
                place.undo_at.get_or_insert(at);
                place.since = at;
                self.set_resource(step, ResourceState::Removing, at);
            }
            Event::CompensationDeferred { step, cause, detail, gate: Some(gate), fingerprint, .. } => {
                let place = self.place(step, None, at);
                let clearing = matches!(place.phase, Phase::Removing { clearing: true, .. });
                place.phase = Phase::Removing { under_way: None, due_at: NEVER, clearing };
                place.undo_at.get_or_insert(at);
                place.wait_at(gate, detail, at);
                place.trouble.get_or_insert_with(|| trouble(*cause, detail, fingerprint));
            }
            Event::CompensationDeferred { step, cause, detail, retry_at, fingerprint, .. } => {
                self.undo_failed(step, trouble(*cause, detail, fingerprint), *retry_at, at);
            }
            Event::CompensationLost { step, cause, detail, retry_at, fingerprint } => {
                self.undo_failed(step, trouble(Some(*cause), detail, fingerprint), *retry_at, at);
            }
            Event::StepCompensated { step, .. } => {
                let place = self.place(step, None, at);
                place.trouble = None;
                if matches!(place.phase, Phase::Removing { clearing: true, .. }) {
                    place.phase = Phase::Deferred { retry_at: at };
                    place.output = None;
                    place.sent_at = None;
                    place.generation += 1;
                    self.set_resource(step, ResourceState::Gone, at);
                    self.place(step, None, at).resource = None;
                } else {
                    place.phase = Phase::Undone;
                    self.set_resource(step, ResourceState::Gone, at);
                }
            }
            Event::StepSkipped { step, reason, to } => {
                let place = self.place(step, None, at);
                let before = std::mem::replace(&mut place.phase, Phase::Skipped(*reason));
                let in_doubt = matches!(before, Phase::InDoubt { .. } | Phase::Undecidable);
                place.went_along = (*reason == SkipReason::Within).then_some(before);
                place.trouble = None;
                if let Some(id) = place.resource.clone() {
                    if *reason != SkipReason::Within {
                        self.leave_behind(&id);
                    }
                    let keeper = self.ledger.get(&id).and_then(|row| row.keeper.clone());
                    match (reason, to.clone().or(keeper)) {
                        (SkipReason::Within, _) => self.ledger.set(&id, ResourceState::Removing, at),
                        (SkipReason::Struck | SkipReason::HandedOver, Some(holder)) => {
                            // It is not being taken away any more.
                            if self.ledger.get(&id).is_some_and(|row| row.state == ResourceState::Removing) {
                                let state =
                                    if in_doubt { ResourceState::InDoubt } else { ResourceState::Live };
                                self.ledger.set(&id, state, at);
                            }
                            self.ledger.hand_over(&id, &holder, at);
                        }
                        (_, Some(holder)) => self.ledger.hand_over(&id, &holder, at),
                        (_, None) => {}
                    }
                }
            }
            Event::ScopeTurned { scope, .. } => self.turned_scopes.push(scope.clone()),
            Event::ScopeUnwound { scope } => {
                self.turned_scopes.retain(|turned| turned != scope);
                self.ended_scopes.push(scope.clone());
                // What was still waited for in it, or to be tried again, is not any more.
                for step in self.steps.iter_mut().filter(|step| step.key.is_inside(scope)) {
                    if !step.is_deferred() && step.is_open() {
                        step.phase = Phase::Refused;
                    }
                }
            }
            Event::ResourceGone { resource, .. } => self.ledger.set(resource, ResourceState::Gone, at),
            Event::ResourceTaken { row } => self.ledger.take_over(row, &self.saga.clone(), at),
            Event::OperatorIntervened { act, .. } => self.intervene(act, at),
            Event::SagaCompleted { output, owner } => {
                self.output = Some(output.clone());
                self.ledger.hand_all_over(&self.saga.clone(), owner.as_ref(), at);
                self.ended = Some(SagaState::Completed);
            }
            Event::SagaCompensated {} => self.ended = Some(SagaState::Compensated),
            Event::SagaFailed { .. } => self.ended = Some(SagaState::Failed),
        }
    }

    /// What an act changes by itself; what else it does is a fact of its own behind it.
    fn intervene(&mut self, act: &Act, at: Timestamp) {
        match act {
            Act::Retry => {
                self.due_now(at);
                self.parked = None;
            }
            Act::Policy { step, max_wait } => {
                let latest = at.plus(*max_wait);
                let place = self.place(step, None, at);
                place.max_wait = Some(*max_wait);
                match &mut place.phase {
                    Phase::Deferred { retry_at } if *retry_at != NEVER => {
                        *retry_at = (*retry_at).min(latest);
                    }
                    Phase::Removing { under_way: None, due_at, .. } if *due_at != NEVER => {
                        *due_at = (*due_at).min(latest);
                    }
                    _ => {}
                }
            }
            Act::Patch { step, input } => {
                let place = self.place(step, None, at);
                place.patched = Some(input.clone());
                if let Phase::Deferred { retry_at } = &mut place.phase
                    && *retry_at != NEVER
                {
                    *retry_at = (*retry_at).min(at);
                }
            }
            _ => {}
        }
    }

    /// A thing is not taken away after all: what went along with it stands where it stood before.
    fn leave_behind(&mut self, outer: &ResourceId) {
        for step in &mut self.steps {
            let row = step.resource.as_ref().and_then(|id| self.ledger.get(id));
            if row.is_some_and(|row| row.within.as_ref() == Some(outer))
                && let Some(before) = step.went_along.take()
            {
                step.phase = before;
            }
        }
    }

    fn undo_failed(&mut self, step: &StepKey, trouble: Trouble, retry_at: Timestamp, at: Timestamp) {
        let place = self.place(step, None, at);
        let clearing = matches!(place.phase, Phase::Removing { clearing: true, .. });
        // A revert in our own database has no intent of its own: its first try is counted here.
        place.undo_attempts = place.undo_attempts.max(1);
        place.undo_at.get_or_insert(at);
        place.phase = Phase::Removing { under_way: None, due_at: retry_at, clearing };
        place.trouble = Some(trouble);
    }

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
        if self.parked.is_some() && self.unwinding.is_none() && self.cancel.is_none() {
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
            Phase::Removing { due_at, .. } => *due_at == NEVER,
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
            Phase::Removing { due_at, .. } if *due_at != NEVER => Some(*due_at),
            _ => None,
        });
        let turns = self.deadline_at.filter(|_| self.can_turn());
        times.chain(turns).min()
    }

    /// The steps that wait at gates until they are let go; none while the saga would not go on.
    pub fn gate_waits(&self) -> Vec<GateWait> {
        let is_parked = self.parked.is_some() && self.unwinding.is_none();
        if self.ended.is_some() || self.paused.is_some() || is_parked {
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
    fn waits_at_gate<'s>(&self, step: &'s Step) -> Option<&'s AtGate> {
        let is_dropped = matches!(step.phase, Phase::Deferred { .. }) && self.goes_back(&step.key);
        step.at_gate.as_ref().filter(|_| !is_dropped)
    }

    /// The step that it is at, and what it is doing there, for lists.
    pub(crate) fn current_step(&self) -> Option<String> {
        let open = self.steps.iter().rev().find_map(|step| match &step.phase {
            _ if self.waits_at_gate(step).is_some() => Some(format!("{} waits at a gate", step.key)),
            Phase::Trying { .. } => Some(format!("{} try {}", step.key, step.attempts)),
            Phase::Deferred { .. } if !self.goes_back(&step.key) => Some(format!("{} waits", step.key)),
            Phase::Child => Some(format!("{} runs", step.key)),
            Phase::InDoubt { .. } | Phase::Undecidable => Some(format!("{} in doubt", step.key)),
            Phase::Waiting { .. } if !self.goes_back(&step.key) => Some(format!("{} waits", step.key)),
            Phase::Removing { .. } => Some(format!("undo {} try {}", step.key, step.undo_attempts)),
            _ => None,
        });
        open.or_else(|| self.steps.last().map(|step| step.key.to_string()))
    }

    /// What groups its trouble with that of other sagas.
    pub(crate) fn fingerprint(&self) -> Option<String> {
        let troubled = |step: &&Step| {
            !matches!(step.phase, Phase::Completed | Phase::Undone | Phase::Skipped(_))
                && step.trouble.is_some()
        };
        let trouble = self.steps.iter().rfind(troubled).and_then(|step| step.trouble.as_ref())?;
        Some(trouble.fingerprint.clone()).filter(|text| !text.is_empty())
    }

    /// Its last failure, in words: of a step that has not got through, or what turned it round.
    pub(crate) fn last_error(&self) -> Option<String> {
        let open = self.steps.iter().rev().find_map(|step| {
            let settled =
                matches!(step.phase, Phase::Completed | Phase::Refused | Phase::Undone | Phase::Skipped(_))
                // On the way back it is not tried again.
                || self.goes_back(&step.key) && matches!(step.phase, Phase::Deferred { .. });
            let trouble = step.trouble.as_ref().filter(|_| !settled)?;
            Some(format!("{}: {}", step.key, trouble.detail))
        });
        let parked = || self.parked.as_ref().map(|(attention, detail)| format!("{attention}: {detail}"));
        let turned = || self.unwinding.as_ref().map(|unwinding| unwinding.refusal.to_string());
        open.or_else(parked).or_else(turned)
    }

    /// Everything that waits to be tried again is due at once: a person said so, or something woke the saga.
    pub(crate) fn due_now(&mut self, at: Timestamp) {
        for step in &mut self.steps {
            match &mut step.phase {
                Phase::Deferred { retry_at } if *retry_at != NEVER => *retry_at = (*retry_at).min(at),
                Phase::Removing { under_way: None, due_at, .. } if *due_at != NEVER => {
                    *due_at = (*due_at).min(at);
                }
                Phase::Undecidable => step.phase = Phase::InDoubt { look_at: at },
                _ => {}
            }
        }
    }

    fn made(&mut self, step: &StepKey, external_id: Option<&String>, at: Timestamp) {
        if let Some(id) = self.step(step).and_then(|step| step.resource.clone()) {
            self.ledger.made(&id, external_id, at);
        }
    }

    fn set_resource(&mut self, step: &StepKey, state: ResourceState, at: Timestamp) {
        if let Some(id) = self.step(step).and_then(|step| step.resource.clone()) {
            self.ledger.set(&id, state, at);
        }
    }

    fn place(&mut self, key: &StepKey, asked: Option<&Asked>, at: Timestamp) -> &mut Step {
        let next = self.steps.len();
        let place = *self.places.entry(key.clone()).or_insert(next);
        if place == next {
            self.steps.push(Step::new(key.clone(), asked.cloned(), at));
        }
        // `places` and `steps` are only ever extended together.
        &mut self.steps[place]
    }
}

fn trouble(cause: Option<Cause>, detail: &str, fingerprint: &str) -> Trouble {
    Trouble { cause, detail: detail.to_owned(), fingerprint: fingerprint.to_owned() }
}

/// What waits for another saga, or at a gate, is due at no time.
const NEVER: Timestamp = Timestamp(i64::MAX);

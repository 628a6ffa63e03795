//! State: a saga's events folded to where it stands; which fact may follow which.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::Value;

use super::event::{Asked, Event, FoundKind, LocalRule, SkipReason, UnwindCause, closed_set};
use super::failure::{Cause, Refusal};
use super::{Entry, Ledger};
use crate::env::Timestamp;
use crate::ids::{ResourceId, SagaId, StepKey};
use crate::store::{Act, ResourceState};

closed_set! {
    /// Where a saga stands.
    SagaState {
        /// Accepted, not yet begun.
        Queued,
        /// A step is being tried.
        Running,
        /// For a time, a signal, a provider or a person.
        Waiting,
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
        /// Its function asks for something else than its journal holds.
        Diverged,
        /// A line of its journal cannot be read.
        Unreadable,
    }
}

/// From how many attempts on a step counts as retrying, or an undo as stuck.
pub const STUCK_ATTEMPTS: u32 = 5;
/// From what time on it does.
pub const STUCK_AFTER: Duration = Duration::from_secs(600);

/// Where a step stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// An attempt is under way, at the latest until then.
    Trying {
        /// When its call is certainly over.
        not_after: Timestamp,
    },
    /// It did not happen; it is tried again.
    Deferred {
        /// When.
        retry_at: Timestamp,
    },
    /// It may have happened; it is settled.
    InDoubt {
        /// Not before this.
        look_at: Timestamp,
    },
    /// It may have happened, and there is no way to tell.
    Undecidable,
    /// A timer, or a signal with a time limit.
    Waiting {
        /// When it ends by itself.
        due_at: Timestamp,
        /// The signal that ends it earlier.
        signal: Option<String>,
    },
    /// It happened.
    Completed,
    /// It did not happen and will not.
    Refused,
    /// It is being taken back: to be tried anew when `clearing`, for good otherwise.
    Removing {
        /// A call is under way, at the latest until then.
        under_way: Option<Timestamp>,
        /// When the next attempt is due, if none is under way.
        due_at: Timestamp,
        /// Only what was found useless is taken away; the step itself goes on in its next generation.
        clearing: bool,
    },
    /// It is taken back.
    Undone,
    /// It needs no taking back of its own.
    Skipped(SkipReason),
}

/// One step of a saga.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Its name.
    pub key: StepKey,
    /// What it is; nothing for timers, signals and drawn values.
    pub asked: Option<Asked>,
    /// Where it stands.
    pub phase: Phase,
    /// How often it was tried.
    pub attempts: u32,
    /// How often asking about a lost attempt failed, or told nothing.
    pub looks: u32,
    /// Which generation it is in.
    pub generation: u32,
    /// When it was first asked for.
    pub asked_at: Timestamp,
    /// What it yielded, or what was found.
    pub output: Option<Value>,
    /// Why it was refused.
    pub refusal: Option<Refusal>,
    /// The ledger row of its generation.
    pub resource: Option<ResourceId>,
    /// Where its last attempt, or its last compensation, failed.
    pub last_failure: Option<(Option<Cause>, String)>,
    /// How often it was tried to take it back.
    pub undo_attempts: u32,
    /// When taking it back began.
    pub undo_at: Option<Timestamp>,
    /// When its present attempt began.
    pub since: Timestamp,
    /// Whether an attempt of this generation was lost and nothing has settled since whether it happened.
    pub doubted: bool,
}

impl Step {
    /// Whether something is to be taken back for this step once it is known to have happened.
    pub fn is_compensable(&self) -> bool {
        self.resource.is_some()
            || self.asked.as_ref().is_some_and(|asked| asked.local == Some(LocalRule::Reverts))
    }

    /// Whether it has failed so often, or for so long, that a person should know. Waiting for what is not ready
    /// yet is no failure.
    fn is_tried_in_vain(&self, for_long: bool) -> bool {
        let is_polled = self.asked.as_ref().is_none_or(|asked| asked.every.is_some());
        let has_failed = self.last_failure.as_ref().is_some_and(|(cause, _)| *cause != Some(Cause::NotYet));
        !is_polled && has_failed && (self.attempts >= STUCK_ATTEMPTS || for_long)
    }

    /// Whether a call of it may be under way.
    pub fn is_under_way(&self) -> bool {
        matches!(self.phase, Phase::Trying { .. } | Phase::Removing { under_way: Some(_), .. })
    }
}

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
            seq: 0,
            started_at: Timestamp(0),
            at: Timestamp(0),
            pivot: None,
            unwinding: None,
            turned_scopes: Vec::new(),
            ended_scopes: Vec::new(),
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

    /// Where the saga stands, in one word.
    pub fn state(&self) -> SagaState {
        match self.ended {
            Some(ended) => ended,
            None if self.unwinding.is_some() => SagaState::Compensating,
            None if !self.begun => SagaState::Queued,
            None if self.steps.iter().any(|step| matches!(step.phase, Phase::Trying { .. })) => {
                SagaState::Running
            }
            None if self.steps.iter().any(Step::is_under_way) => SagaState::Running,
            None => SagaState::Waiting,
        }
    }

    /// What a person should know, in the order of the enumeration.
    pub fn attention(&self) -> Vec<Attention> {
        let mut all = Vec::new();
        if self.ended.is_some() {
            return all;
        }
        for step in &self.steps {
            let tried_for = |since: Timestamp| self.at.since(since) >= STUCK_AFTER;
            match &step.phase {
                Phase::Undecidable => all.push(Attention::NeedsDecision),
                Phase::InDoubt { .. } if step.looks > 0 => all.push(Attention::InDoubt),
                Phase::Removing { .. }
                    if step.undo_attempts >= STUCK_ATTEMPTS || step.undo_at.is_some_and(tried_for) =>
                {
                    all.push(Attention::UndoStuck);
                }
                Phase::Deferred { .. } | Phase::Trying { .. } | Phase::InDoubt { .. }
                    if step.is_tried_in_vain(tried_for(step.asked_at)) =>
                {
                    all.push(Attention::Retrying);
                }
                _ => {}
            }
            let unsettled =
                !matches!(step.phase, Phase::Completed | Phase::Refused | Phase::Undone | Phase::Skipped(_));
            if unsettled && let Some((cause, _)) = &step.last_failure {
                let refused_undo = cause.is_none() && matches!(step.phase, Phase::Removing { .. });
                if refused_undo || matches!(cause, Some(Cause::Credential | Cause::Refused)) {
                    all.push(Attention::NeedsDecision);
                }
            }
        }
        if self.deadline_at.is_some_and(|deadline| self.at > deadline) {
            all.push(Attention::Late);
        }
        if let Some((attention, _)) = &self.parked {
            all.push(*attention);
        }
        all.sort();
        all.dedup();
        all
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
        if let Some(key) = self.illegal_for_step(&entry.event) {
            return illegal(key);
        }
        self.record(&entry.event, at);
        self.seq = entry.seq;
        self.at = at;
        self.begun |= self.seq > 1;
        Ok(())
    }

    /// The legality table: which fact may follow in which phase of its step.
    fn illegal_for_step(&self, event: &Event) -> Option<String> {
        use Event as E;
        use Phase as P;
        let phase = event.step().and_then(|key| self.step(key)).map(|step| &step.phase);
        let unwinding = self.unwinding.is_some();
        let legal = match (event, phase) {
            (E::AttemptStarted { asked, .. } | E::AttemptDeferred { asked, attempt: None, .. }, None) => {
                asked.is_some() && !unwinding
            }
            (E::AttemptStarted { asked: None, .. }, Some(P::Deferred { .. })) => !unwinding,
            (E::AttemptStarted { asked: None, step, .. }, Some(P::InDoubt { .. })) => self
                .step(step)
                .and_then(|step| step.asked.as_ref())
                .is_some_and(|asked| asked.effect.is_sent_again()),
            (E::AttemptDeferred { attempt: None, .. }, Some(P::Deferred { .. } | P::InDoubt { .. })) => true,
            (E::AttemptDeferred { attempt: Some(_), .. } | E::AttemptLost { .. }, Some(P::Trying { .. })) => {
                true
            }
            (E::StepCompleted { .. } | E::StepFailed { .. }, Some(P::Trying { .. })) => true,
            (E::StepFailed { .. }, Some(P::Deferred { .. })) => true,
            (E::StepFound { .. }, Some(P::InDoubt { .. } | P::Undecidable)) => true,
            (E::PivotPassed { .. }, Some(P::Completed)) => self.pivot.is_none() && !unwinding,
            (E::TimerSet { .. } | E::ValueDrawn { .. }, None) => !unwinding,
            (E::TimerFired { .. } | E::SignalReceived { .. }, Some(P::Waiting { .. })) => true,
            (E::ChildStarted { .. }, Some(P::Completed)) => true,
            (E::ResourceGone { .. }, Some(P::Completed)) => true,
            (E::CompensationStarted { .. }, Some(P::Completed)) => {
                unwinding || event.step().is_some_and(|key| self.is_turned(key))
            }
            (E::CompensationStarted { .. }, Some(P::Removing { under_way: None, .. })) => true,
            (E::CompensationDeferred { .. }, Some(P::Completed)) => {
                unwinding || event.step().is_some_and(|key| self.is_turned(key))
            }
            (
                E::CompensationDeferred { .. } | E::CompensationLost { .. } | E::StepCompensated { .. },
                Some(P::Removing { .. }),
            ) => true,
            (E::StepCompensated { .. }, Some(P::Completed)) => {
                unwinding || event.step().is_some_and(|key| self.is_turned(key))
            }
            (
                E::StepSkipped { .. },
                Some(P::Completed | P::InDoubt { .. } | P::Undecidable | P::Removing { .. }),
            ) => true,
            (E::ScopeTurned { .. }, _) => !unwinding,
            (E::ScopeUnwound { scope }, _) => self.turned_scopes.contains(scope),
            (E::UnwindingStarted { .. }, _) => !unwinding && self.pivot.is_none(),
            (E::SagaCompleted { .. }, _) => !unwinding && !self.is_unsettled(),
            (E::SagaCompensated {}, _) => unwinding && !self.has_something_left(),
            (E::SagaFailed { .. }, _) => unwinding && !self.has_something_left() && self.pivot.is_none(),
            (
                E::SagaStarted { .. }
                | E::LabelSet { .. }
                | E::Parked { .. }
                | E::CancelRequested { .. }
                | E::ResourceTaken { .. }
                | E::OperatorIntervened { .. },
                _,
            ) => true,
            _ => false,
        };
        if legal {
            return None;
        }
        let about = event.step().map_or_else(|| "the saga".to_owned(), |key| format!("step {key}"));
        Some(match phase {
            Some(phase) => format!("{about} is {phase:?}{}", if unwinding { ", unwinding" } else { "" }),
            None => format!("{about} is new{}", if unwinding { ", and the saga unwinds" } else { "" }),
        })
    }

    /// Whether a scope that holds this step is being taken back.
    pub fn is_turned(&self, key: &StepKey) -> bool {
        self.turned_scopes.iter().any(|scope| key.is_inside(scope))
    }

    /// Whether a step that happened, or may have, still waits to be taken back.
    pub fn has_something_left(&self) -> bool {
        self.steps.iter().any(|step| match step.phase {
            Phase::Trying { .. } | Phase::Removing { .. } => true,
            Phase::InDoubt { .. } | Phase::Undecidable | Phase::Completed => step.is_compensable(),
            _ => false,
        })
    }

    /// Whether a call is under way, or it is not known what one came to.
    pub fn is_unsettled(&self) -> bool {
        self.steps.iter().any(|step| {
            matches!(step.phase, Phase::Trying { .. } | Phase::InDoubt { .. } | Phase::Removing { .. })
        })
    }

    fn record(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::SagaStarted { workflow, workflow_version, input, deadline_at, labels } => {
                self.workflow = (workflow.clone(), *workflow_version);
                self.input = input.clone();
                self.deadline_at = *deadline_at;
                self.labels = labels.clone();
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
                if let Some(named) = resource {
                    place.resource = Some(named.id.clone());
                    self.ledger.intend(&self.saga.clone(), step, named, outer, at);
                }
                self.parked = None;
            }
            Event::AttemptDeferred { step, attempt, cause, detail, retry_at, asked } => {
                let place = self.place(step, asked.as_deref(), at);
                place.phase = match (&place.phase, attempt) {
                    // Asking whether it is there did not work: the doubt stays.
                    (Phase::InDoubt { .. }, None) => {
                        place.looks += 1;
                        Phase::InDoubt { look_at: *retry_at }
                    }
                    // Sent again after a lost attempt, and this one did not happen: that one still may have.
                    (_, Some(_)) if place.doubted => Phase::InDoubt { look_at: *retry_at },
                    _ => Phase::Deferred { retry_at: *retry_at },
                };
                place.last_failure = Some((Some(*cause), detail.clone()));
            }
            Event::AttemptLost { step, cause, detail, look_at, .. } => {
                let place = self.place(step, None, at);
                place.phase = Phase::InDoubt { look_at: *look_at };
                // What leaves nothing that would have to be taken back is not worth a doubt.
                place.doubted = place.is_compensable();
                place.last_failure = Some((Some(*cause), detail.clone()));
                self.set_resource(step, ResourceState::InDoubt, at);
            }
            Event::StepFound { step, found, output, external_id } => {
                let place = self.place(step, None, at);
                if let Some(output) = output {
                    place.output = Some(output.clone());
                }
                place.doubted = *found == FoundKind::Unknowable;
                match found {
                    FoundKind::Nothing => place.phase = Phase::Deferred { retry_at: at },
                    FoundKind::Usable => {
                        place.phase = Phase::Completed;
                        place.last_failure = None;
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
            Event::StepCompleted { step, output, external_id } => {
                let place = self.place(step, None, at);
                place.phase = Phase::Completed;
                place.doubted = false;
                place.output = Some(output.clone());
                place.last_failure = None;
                self.made(step, external_id.as_ref(), at);
            }
            Event::StepFailed { step, refusal } => {
                let place = self.place(step, None, at);
                place.phase = Phase::Refused;
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
            Event::ChildStarted { .. } => {}
            Event::LabelSet { name, value } => {
                self.labels.insert(name.clone(), value.clone());
            }
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
                place.undo_attempts = *attempt;
                place.undo_at.get_or_insert(at);
                place.since = at;
                self.set_resource(step, ResourceState::Removing, at);
            }
            Event::CompensationDeferred { step, cause, detail, retry_at } => {
                self.undo_failed(step, *cause, detail, *retry_at, at);
            }
            Event::CompensationLost { step, cause, detail, retry_at } => {
                self.undo_failed(step, Some(*cause), detail, *retry_at, at);
            }
            Event::StepCompensated { step } => {
                let place = self.place(step, None, at);
                place.last_failure = None;
                if matches!(place.phase, Phase::Removing { clearing: true, .. }) {
                    place.phase = Phase::Deferred { retry_at: at };
                    place.output = None;
                    place.generation += 1;
                    self.set_resource(step, ResourceState::Gone, at);
                    self.place(step, None, at).resource = None;
                } else {
                    place.phase = Phase::Undone;
                    self.set_resource(step, ResourceState::Gone, at);
                }
            }
            Event::StepSkipped { step, reason } => {
                let place = self.place(step, None, at);
                place.phase = Phase::Skipped(*reason);
                let resource = place.resource.clone();
                match (reason, resource) {
                    (SkipReason::Within, Some(id)) => self.ledger.set(&id, ResourceState::Removing, at),
                    (SkipReason::Kept, Some(id)) => {
                        if let Some(keeper) = self.ledger.get(&id).and_then(|row| row.keeper.clone()) {
                            self.ledger.hand_over(&id, &keeper, at);
                        }
                    }
                    (_, None) => {}
                }
            }
            Event::ScopeTurned { scope, .. } => self.turned_scopes.push(scope.clone()),
            Event::ScopeUnwound { scope } => {
                self.turned_scopes.retain(|turned| turned != scope);
                self.ended_scopes.push(scope.clone());
            }
            Event::ResourceGone { resource, .. } => self.ledger.set(resource, ResourceState::Gone, at),
            Event::ResourceTaken { row } => self.ledger.take_over(row, &self.saga.clone(), at),
            Event::OperatorIntervened { act, .. } => {
                if *act == Act::Retry {
                    self.due_now(at);
                    self.parked = None;
                }
            }
            Event::SagaCompleted { output, owner } => {
                self.output = Some(output.clone());
                self.ledger.hand_all_over(&self.saga.clone(), owner.as_ref(), at);
                self.ended = Some(SagaState::Completed);
            }
            Event::SagaCompensated {} => self.ended = Some(SagaState::Compensated),
            Event::SagaFailed { .. } => self.ended = Some(SagaState::Failed),
        }
    }

    fn undo_failed(
        &mut self,
        step: &StepKey,
        cause: Option<Cause>,
        detail: &str,
        retry_at: Timestamp,
        at: Timestamp,
    ) {
        let place = self.place(step, None, at);
        let clearing = matches!(place.phase, Phase::Removing { clearing: true, .. });
        // A revert in our own database has no intent of its own: its first try is counted here.
        place.undo_attempts = place.undo_attempts.max(1);
        place.undo_at.get_or_insert(at);
        place.phase = Phase::Removing { under_way: None, due_at: retry_at, clearing };
        place.last_failure = Some((cause, detail.to_owned()));
    }

    /// When something is next to be done: now while a call is under way, never while it is parked or ended.
    pub fn due_at(&self) -> Option<Timestamp> {
        if self.ended.is_some() || self.parked.is_some() && self.unwinding.is_none() && self.cancel.is_none()
        {
            return None;
        }
        if !self.begun || self.steps.iter().any(Step::is_under_way) {
            return Some(self.at);
        }
        let waits = self.steps.iter().filter_map(|step| match &step.phase {
            Phase::Deferred { retry_at } if self.unwinding.is_none() => Some(*retry_at),
            Phase::InDoubt { look_at } => Some(*look_at),
            Phase::Waiting { due_at, .. } if self.unwinding.is_none() => Some(*due_at),
            Phase::Removing { due_at, .. } => Some(*due_at),
            _ => None,
        });
        let turns = self.deadline_at.filter(|_| self.pivot.is_none() && self.unwinding.is_none());
        let is_undecided = self.steps.iter().any(|step| step.phase == Phase::Undecidable);
        // What waits for nothing is to be gone on with.
        waits.chain(turns).min().or((!is_undecided).then_some(self.at))
    }

    /// The step that it is at, and what it is doing there, for lists.
    pub(crate) fn current_step(&self) -> Option<String> {
        let open = self.steps.iter().rev().find_map(|step| match &step.phase {
            Phase::Trying { .. } => Some(format!("{} try {}", step.key, step.attempts)),
            Phase::Deferred { .. } if self.unwinding.is_none() => Some(format!("{} waits", step.key)),
            Phase::InDoubt { .. } | Phase::Undecidable => Some(format!("{} in doubt", step.key)),
            Phase::Waiting { .. } if self.unwinding.is_none() => Some(format!("{} waits", step.key)),
            Phase::Removing { .. } => Some(format!("undo {} try {}", step.key, step.undo_attempts)),
            _ => None,
        });
        open.or_else(|| self.steps.last().map(|step| step.key.to_string()))
    }

    /// Its last failure, in words: of a step that has not got through, or what turned it round.
    pub(crate) fn last_error(&self) -> Option<String> {
        let open = self.steps.iter().rev().find_map(|step| {
            let settled =
                matches!(step.phase, Phase::Completed | Phase::Refused | Phase::Undone | Phase::Skipped(_))
                // On the way back it is not tried again.
                || self.unwinding.is_some() && matches!(step.phase, Phase::Deferred { .. });
            let (_, detail) = step.last_failure.as_ref().filter(|_| !settled)?;
            Some(format!("{}: {detail}", step.key))
        });
        let parked = || self.parked.as_ref().map(|(attention, detail)| format!("{attention}: {detail}"));
        let turned = || self.unwinding.as_ref().map(|unwinding| unwinding.refusal.to_string());
        open.or_else(parked).or_else(turned)
    }

    /// Everything that waits to be tried again is due at once: a person said so, or something woke the saga.
    pub(crate) fn due_now(&mut self, at: Timestamp) {
        for step in &mut self.steps {
            match &mut step.phase {
                Phase::Deferred { retry_at } => *retry_at = (*retry_at).min(at),
                Phase::Removing { under_way: None, due_at, .. } => *due_at = (*due_at).min(at),
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
            self.steps.push(Step {
                key: key.clone(),
                asked: asked.cloned(),
                phase: Phase::Deferred { retry_at: at },
                attempts: 0,
                looks: 0,
                generation: 1,
                asked_at: at,
                output: None,
                refusal: None,
                resource: None,
                last_failure: None,
                undo_attempts: 0,
                undo_at: None,
                since: at,
                doubted: false,
            });
        }
        // `places` and `steps` are only ever extended together.
        &mut self.steps[place]
    }
}

//! What is to be done: the decisions, carried out.

use super::*;
use crate::activity::registry::ActivityFacts;
use crate::activity::{Cause, Effect, Refusal, retry};
use crate::env::Timestamp;
use crate::ids::StepKey;
use crate::journal::event::{Event, UnwindCause};
use crate::journal::state::{Attention, Phase};
use crate::worker::decide::{Action, decide};

impl Executor {
    pub(super) fn act(&mut self) {
        let mut busy = self.in_flight.clone();
        busy.extend(self.turn.launches.iter().map(|launch| launch.step().clone()));
        let now = self.shared.env.now();
        for action in decide(&self.state, &busy, now, self.nudged) {
            self.perform(action, now);
        }
    }

    pub(super) fn perform(&mut self, action: Action, now: Timestamp) {
        match action {
            Action::Execute(key) => {
                let Some(step) = self.state.step(&key) else { return };
                let Some(asked) = step.asked.clone() else { return };
                if asked.local.is_some() {
                    return self.intend_local(&key, None);
                }
                let call = self.call(&key, step.generation, step.attempts + 1);
                match self.facts(&asked, &call) {
                    Ok(facts) => self.attempt(&key, None, facts),
                    Err(detail) => self.no_worker(detail),
                }
            }
            Action::GiveUp(step) => {
                let message = self.state.step(&step).and_then(|step| step.last_failure.clone());
                let message = message.map_or_else(|| "not within its time".to_owned(), |(_, detail)| detail);
                let refusal = Refusal { code: "gave_up".into(), message };
                self.record(Event::StepFailed { step, refusal });
            }
            Action::Find(step) => self.turn.launches.push(Launch::Find(step)),
            Action::Apply(step) => self.turn.launches.push(Launch::Apply(step)),
            Action::Revert(step) => self.turn.launches.push(Launch::Revert(step)),
            Action::Compensate(key) => {
                let Some(step) = self.state.step(&key) else { return };
                let (attempt, generation) = (step.undo_attempts + 1, step.generation);
                let Some(asked) = step.asked.clone() else { return };
                let call = self.call(&key, generation, attempt);
                match self.facts(&asked, &call) {
                    Ok(facts) => {
                        let env = &self.shared.env;
                        match self.shared.gates.pass(&credential_gates(&facts), env) {
                            Ok(_) => {
                                let not_after = env.now().plus(env.time_limit(facts.time_limit));
                                self.record(Event::CompensationStarted {
                                    step: key.clone(),
                                    attempt,
                                    not_after,
                                });
                                self.turn.launches.push(Launch::Compensate(key));
                            }
                            Err(gate) => self.record(Event::CompensationDeferred {
                                step: key,
                                cause: Some(Cause::RateLimited),
                                detail: format!("gate {} is closed: {}", gate.key, gate.reason),
                                retry_at: gate.next_allowed_at,
                            }),
                        }
                    }
                    Err(detail) => self.no_worker(detail),
                }
            }
            Action::Skip(step, reason) => self.record(Event::StepSkipped { step, reason }),
            Action::Lost(key) => self.lost(key, now),
            Action::Fire(step) => self.record(Event::TimerFired { step }),
            Action::EndScope(scope) => self.record(Event::ScopeUnwound { scope }),
            Action::Turn => {
                let (cause, refusal) = match &self.state.cancel {
                    Some((actor, reason)) => (
                        UnwindCause::Cancelled,
                        Refusal { code: "cancelled".into(), message: format!("{actor}: {reason}") },
                    ),
                    None => (
                        UnwindCause::Deadline,
                        Refusal { code: "deadline".into(), message: "its deadline passed".into() },
                    ),
                };
                self.turn_round(cause, refusal);
            }
            Action::EndUnwinding => {
                let had_effect = self.state.steps().iter().any(|step| {
                    matches!(step.phase, Phase::Undone | Phase::Skipped(_))
                        || step.resource.is_some() && step.phase != Phase::Refused
                });
                let refusal = self.state.unwinding.as_ref().map(|unwinding| unwinding.refusal.clone());
                match refusal {
                    Some(refusal) if !had_effect => self.record(Event::SagaFailed { refusal }),
                    _ => self.record(Event::SagaCompensated {}),
                }
            }
        }
    }

    /// A call of a process that died: it may still be under way until its time is up, and then needs its quiet.
    pub(super) fn lost(&mut self, key: StepKey, now: Timestamp) {
        let Some(step) = self.state.step(&key) else { return };
        let detail = "the process that made the call ended before it recorded the outcome".to_owned();
        let cause = Cause::WorkerLost;
        let env = &self.shared.env;
        match (&step.phase, &step.asked) {
            (Phase::Trying { .. }, Some(asked)) if asked.local.is_some() || asked.effect == Effect::Read => {
                let attempt = Some(step.attempts);
                self.record(Event::AttemptDeferred {
                    step: key,
                    attempt,
                    cause,
                    detail,
                    retry_at: now,
                    asked: None,
                });
            }
            (Phase::Trying { not_after }, Some(asked)) => {
                let attempt = step.attempts;
                let look_at = if asked.effect.is_sent_again() {
                    now.plus(retry::delay(1, None, env))
                } else {
                    not_after.plus(env.paced(asked.effect.quiet()))
                };
                self.record(Event::AttemptLost { step: key, attempt, cause, detail, look_at });
            }
            _ => {
                let retry_at = now.plus(retry::delay(step.undo_attempts.max(1), None, env));
                self.record(Event::CompensationLost { step: key, cause, detail, retry_at });
            }
        }
    }

    pub(super) fn no_worker(&mut self, detail: String) {
        if self.state.parked.is_none() {
            self.record(Event::Parked { attention: Attention::NoWorker, detail });
        }
    }

    pub(super) fn turn_round(&mut self, cause: UnwindCause, refusal: Refusal) {
        // The function is never run to undo what it did.
        self.function = None;
        self.asks.clear();
        self.record(Event::UnwindingStarted { cause, refusal });
    }

    /// Ends the saga, or turns it round, once its function has returned and nothing is under way or in doubt.
    pub(super) fn finish(&mut self) {
        let settled =
            self.in_flight.is_empty() && self.turn.launches.is_empty() && !self.state.is_unsettled();
        match self.returned.take() {
            None => {
                let foreign = self.function.is_some()
                    && self.asks.is_empty()
                    && self.state.parked.is_none()
                    && self.context.core().waits_for_nothing();
                if foreign {
                    let detail = "its function waits for something that is not one of its steps".to_owned();
                    self.record(Event::Parked { attention: Attention::NoProgress, detail });
                }
            }
            Some(Ok(output)) if settled => {
                let owner = self
                    .shared
                    .registry
                    .find_workflow(&self.state.workflow.0, self.state.workflow.1)
                    .and_then(|workflow| workflow.owner(&self.state.input, &output));
                self.record(Event::SagaCompleted { output, owner });
            }
            Some(Ok(output)) => self.returned = Some(Ok(output)),
            Some(Err(halt)) if self.state.unwinding.is_none() => {
                let refusal = halt.refusal();
                if self.state.pivot.is_none() {
                    self.turn_round(UnwindCause::Refused, refusal);
                } else if self.state.parked.is_none() {
                    let detail = format!("past its pivot it cannot go on: {refusal}");
                    self.record(Event::Parked { attention: Attention::NeedsDecision, detail });
                }
            }
            Some(Err(_)) => {}
        }
    }
}

/// A compensation passes its credential's gate, but not the spacing that its making had.
fn credential_gates(facts: &ActivityFacts) -> Vec<crate::activity::Gate> {
    facts.gates.iter().filter(|gate| gate.spacing.is_zero()).cloned().collect()
}

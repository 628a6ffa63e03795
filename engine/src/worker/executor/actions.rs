//! What is to be done: the decisions, carried out.

use super::*;
use crate::activity::{Cause, Effect, Refusal, retry};
use crate::data::limits;
use crate::env::Timestamp;
use crate::gate::Lane;
use crate::ids::StepKey;
use crate::journal::event::{ChildFate, Event, FoundKind, SkipReason, UnwindCause};
use crate::journal::state::{Attention, Phase, Trouble};
use crate::store::{Letter, Message};
use crate::worker::decide::{Action, decide};
use crate::worker::executor::calls::NoFacts;

impl Executor {
    pub(super) fn act(&mut self) {
        let mut busy = self.in_flight.clone();
        busy.extend(self.turn.launches.iter().map(|launch| launch.step().clone()));
        let now = self.shared.env.now();
        for action in decide(&self.state, &busy, now, &self.nudge) {
            self.perform(action, now);
        }
    }

    pub(super) fn perform(&mut self, action: Action, now: Timestamp) {
        match action {
            Action::Execute(key) => {
                let Some(step) = self.state.step(&key) else { return };
                let Some(asked) = step.current() else { return };
                if asked.local.is_some() {
                    return self.intend_local(&key, None);
                }
                let call = self.call(&key, step.generation, step.attempts + 1);
                match self.facts(&asked, &call) {
                    Ok(facts) => {
                        self.attempt(&key, None, facts);
                    }
                    Err(NoFacts::NoWorker(detail)) => self.no_worker(detail),
                    Err(NoFacts::Failed(failure)) => self.not_called(key, failure),
                }
            }
            Action::GiveUp(step) => {
                let message = self.state.step(&step).map_or_else(String::new, gave_up);
                let refusal = Refusal { code: "gave_up".into(), message };
                self.fail(step, refusal);
            }
            Action::Hold(step, until) => self.record(Event::WriteHeld { step, until, asked: None }),
            Action::Find(step) => self.look(step, now),
            Action::Apply(step) => self.turn.launches.push(Launch::Apply(step)),
            Action::Revert(step) => self.turn.launches.push(Launch::Revert(step)),
            Action::Compensate(key) => {
                let Some(step) = self.state.step(&key) else { return };
                let attempt = step.undo_attempts + 1;
                let Some(asked) = step.current() else { return };
                let (effect, object) = (asked.effect, asked.object.clone());
                let facts = match self.passage(&asked) {
                    Ok(facts) => facts,
                    Err(NoFacts::NoWorker(detail)) => return self.no_worker(detail),
                    Err(NoFacts::Failed(failure)) => return self.undo_not_called(key, &failure),
                };
                match self.waits_out(&key, effect, object.as_ref(), Vec::new(), true) {
                    None => return,
                    Some(Some(until)) if self.waits_already(&key, until) => return,
                    Some(Some(until)) => {
                        return self.record(Event::WriteHeld { step: key, until, asked: None });
                    }
                    Some(None) => {}
                }
                let limit = self.shared.env.time_limit(facts.time_limit);
                match self.knock(&key, &facts.gates, Lane::Undo, now.plus(limit)) {
                    None => {}
                    Some(Ok(permit)) => {
                        let not_after = permit.bound(self.shared.env.now().plus(limit));
                        self.record(Event::CompensationStarted { step: key.clone(), attempt, not_after });
                        let verb = Verb::Compensate;
                        let outgoing = Outgoing { step: key, verb, permit, limit, not_after };
                        self.turn.launches.push(Launch::Call(outgoing));
                    }
                    Some(Err(barrier)) if self.waits_at(&key, &barrier) => {}
                    Some(Err(barrier)) => self.record(Event::CompensationDeferred {
                        step: key,
                        cause: Some(Cause::RateLimited),
                        detail: barrier.detail,
                        retry_at: barrier.until,
                        gate: Some(barrier.gate),
                        fingerprint: String::new(),
                    }),
                }
            }
            Action::Skip(step, reason, to) => self.record(Event::StepSkipped { step, reason, to }),
            Action::CancelChild(step) => self.cancel_child(step, now),
            Action::Resume => self.record(Event::Resumed { actor: None }),
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

    /// Asks whether a lost attempt left something, past the gates of its activity; what cannot be looked for is a
    /// person's to say.
    fn look(&mut self, key: StepKey, now: Timestamp) {
        let Some(step) = self.state.step(&key) else { return };
        let Some(asked) = step.current() else { return };
        if asked.effect == Effect::Blind {
            let found = step.unless_seen_by_a_person(FoundKind::Unknowable);
            return self.record(Event::StepFound { step: key, found, output: None, external_id: None });
        }
        let facts = match self.passage(&asked) {
            Ok(facts) => facts,
            Err(NoFacts::NoWorker(detail)) => return self.no_worker(detail),
            Err(NoFacts::Failed(failure)) => return self.not_called(key, failure),
        };
        let limit = self.shared.env.time_limit(facts.time_limit);
        match self.knock(&key, &facts.gates, self.lane(&key), now.plus(limit)) {
            None => {}
            Some(Ok(permit)) => {
                let not_after = permit.bound(self.shared.env.now().plus(limit));
                let outgoing = Outgoing { step: key, verb: Verb::Find, permit, limit, not_after };
                self.turn.launches.push(Launch::Call(outgoing));
            }
            Some(Err(barrier)) if self.waits_at(&key, &barrier) => {}
            Some(Err(barrier)) => self.record(Event::AttemptDeferred {
                step: key,
                attempt: None,
                cause: Cause::RateLimited,
                detail: barrier.detail,
                retry_at: barrier.until,
                gate: Some(barrier.gate),
                asked: None,
                fingerprint: String::new(),
                bookmark: None,
            }),
        }
    }

    /// An activity that does not say what it should before a call: nothing was called. It is asked again slowly, since
    /// another program may bear it.
    fn not_called(&mut self, step: StepKey, failure: Failure) {
        let retry_at = self.shared.env.now().plus(self.shared.env.paced(retry::CAP));
        let (cause, detail) = (failure.cause(), failure.detail());
        self.defer(step, None, cause, detail, retry_at);
    }

    fn undo_not_called(&mut self, step: StepKey, failure: &Failure) {
        let retry_at = self.shared.env.now().plus(self.shared.env.paced(retry::CAP));
        let (cause, detail) = (Some(failure.cause()), failure.detail());
        let fingerprint = String::new();
        self.record(Event::CompensationDeferred { step, cause, detail, retry_at, gate: None, fingerprint });
    }

    /// A call of a process that died: it may still be under way until its time is up, and take effect a while behind.
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
                    gate: None,
                    asked: None,
                    fingerprint: String::new(),
                    bookmark: None,
                });
            }
            (Phase::Trying { not_after }, Some(asked)) => {
                let attempt = step.attempts;
                let look_at = if asked.effect.is_sent_again() {
                    // Whether it is known again is asked of the time when the call is over.
                    let again = now.plus(retry::delay(1, None, env));
                    step.settled_at(again, not_after.plus(asked.settle_after).max(now))
                } else {
                    not_after.plus(asked.settle_after)
                };
                let fingerprint = String::new();
                self.record(Event::AttemptLost { step: key, attempt, cause, detail, look_at, fingerprint });
            }
            _ => {
                let retry_at = now.plus(retry::delay(step.undo_attempts.max(1), None, env));
                let fingerprint = String::new();
                self.record(Event::CompensationLost { step: key, cause, detail, retry_at, fingerprint });
            }
        }
    }

    /// Asks a child to turn round; it says when it has, so that nothing is due until then.
    fn cancel_child(&mut self, key: StepKey, now: Timestamp) {
        let Some((child, fate)) = self.state.step(&key).and_then(|step| step.child.clone()) else { return };
        match fate {
            Some(ChildFate::Gone) => {
                self.record(Event::StepSkipped { step: key, reason: SkipReason::Ended, to: None });
            }
            Some(ChildFate::Kept) => {
                self.record(Event::StepSkipped { step: key, reason: SkipReason::Irrevocable, to: None });
            }
            Some(ChildFate::Done) | None => {
                let reason = "the saga that called it takes back what it did".to_owned();
                let message = Message::Cancel { actor: self.saga.to_string(), reason };
                let id = format!("{child}:undo");
                self.turn.letters.push(Letter { id, saga: child, message, at: now });
                self.record(Event::CompensationStarted { step: key, attempt: 1, not_after: now });
            }
        }
    }

    /// The step did not happen and will not.
    pub(super) fn fail(&mut self, step: StepKey, refusal: Refusal) {
        self.record(Event::StepFailed { step, refusal, fingerprint: String::new() });
    }

    pub(super) fn no_worker(&mut self, detail: String) {
        if self.state.parked.is_none() {
            self.record(Event::Parked { attention: Attention::NoWorker, detail });
        }
    }

    /// Something that only whoever wrote the program can mend: nothing more is begun until a person says so.
    pub(super) fn needs_decision(&mut self, detail: String) {
        if self.state.parked.is_none() {
            self.record(Event::Parked { attention: Attention::NeedsDecision, detail });
        }
    }

    pub(super) fn turn_round(&mut self, cause: UnwindCause, refusal: Refusal) {
        // The function is never run to undo what it did, and what it came to counts no more.
        self.function.stop();
        self.function.returned = None;
        self.record(Event::UnwindingStarted { cause, refusal });
    }

    /// Ends the saga, or turns it round, once its function has returned and nothing is under way or in doubt.
    pub(super) fn finish(&mut self) {
        if self.state.paused.is_some() || self.state.ended.is_some() {
            return;
        }
        let settled = self.in_flight.is_empty() && self.turn.launches.is_empty() && self.state.is_settled();
        if let Some((output, owner)) = &self.state.offered {
            if self.state.parent_ended && self.state.unwinding.is_none() && settled {
                let (output, owner) = (output.clone(), owner.clone());
                self.end_well(output, owner);
            }
            return;
        }
        match self.function.returned.take() {
            None => self.look_for_foreign_wait(),
            Some(Ok(output)) if settled && !self.state.is_parked() => {
                let (name, version) = &self.state.workflow;
                let workflow = self.shared.registry.find_workflow(name, *version);
                let owner = workflow.map_or(Ok(None), |workflow| workflow.owner(&self.state.input, &output));
                let owner = owner.and_then(|owner| {
                    let fits = owner.iter().try_for_each(|one| limits::owner_of_any_length("its owner", one));
                    Ok(fits.map(|()| owner)?)
                });
                let can_be_undone = self.state.pivot.is_none() && !self.state.parent_ended;
                match owner {
                    Err(failure) => {
                        self.function.returned = Some(Ok(output));
                        self.needs_decision(failure.detail());
                    }
                    Ok(owner) if self.state.parent.is_some() && can_be_undone => {
                        self.record(Event::ResultOffered { output, owner });
                    }
                    Ok(owner) => {
                        self.function.returned = Some(Ok(output.clone()));
                        self.end_well(output, owner);
                    }
                }
            }
            Some(Ok(output)) => self.function.returned = Some(Ok(output)),
            // Whether there is a way back is not known yet.
            Some(Err(halt)) if self.state.is_at_pivot() => self.function.returned = Some(Err(halt)),
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

    /// Completes the saga, once what was put off to its end is done.
    fn end_well(&mut self, output: Value, owner: Option<String>) {
        match self.state.next_deferred() {
            None => self.record(Event::SagaCompleted { output, owner }),
            Some(step) if step.phase == Phase::Registered => {
                let key = step.key.clone();
                self.perform(Action::Execute(key), self.shared.env.now());
            }
            // It is being tried; a refusal leaves it waiting for a person, like that of an undo.
            Some(_) => {}
        }
    }

    /// A function that waits for something that is not the engine's would wait for ever.
    fn look_for_foreign_wait(&mut self) {
        let dropped = |key: &StepKey| {
            self.state.is_turned(key) || self.state.ended_scopes.iter().any(|s| key.is_inside(s))
        };
        if self.state.parked.is_none() && self.function.waits_for_nothing(dropped) {
            let last = self.function.last_key().map_or(String::new(), |key| format!(", behind step {key}"));
            let detail = format!("its function waits for something that is not one of its steps{last}");
            self.record(Event::Parked { attention: Attention::NoProgress, detail });
        }
    }
}

/// Why a step is given up, and what it failed of last.
fn gave_up(step: &Step) -> String {
    let asked = step.asked.as_ref();
    let is_too_often = asked.and_then(|asked| asked.attempts_max).is_some_and(|most| step.attempts >= most);
    let why = match step.attempts {
        _ if !is_too_often => "not within its time".to_owned(),
        1 => "not at its only try".to_owned(),
        many => format!("not in {many} tries"),
    };
    match &step.trouble {
        Some(Trouble { cause: Some(cause), detail, .. }) => {
            format!("{why}; the last cause: {cause}: {detail}")
        }
        Some(Trouble { detail, .. }) => format!("{why}; the last cause: {detail}"),
        None => why,
    }
}

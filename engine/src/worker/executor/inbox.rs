//! What has happened: letters and answers, turned into facts.

use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::activity::{Cause, Effect, Failure, Found, retry};
use crate::env::Timestamp;
use crate::ids::StepKey;
use crate::journal::event::{Event, FoundKind};
use crate::journal::state::Phase;
use crate::store::{Act, Error, Message};

impl Executor {
    pub(super) async fn read_letters(&mut self) -> Result<(), Error> {
        let letters = self.shared.store.letters(&self.saga).await?;
        self.has_waiting_letters = false;
        for letter in letters {
            if self.turn.consumed.contains(&letter.id) {
                continue;
            }
            if self.open(letter.message) {
                self.turn.consumed.push(letter.id);
            } else {
                self.has_waiting_letters = true;
            }
        }
        Ok(())
    }

    /// Turns a letter into events; says whether it is used up.
    pub(super) fn open(&mut self, message: Message) -> bool {
        match message {
            Message::Wake => self.nudged = true,
            Message::Signal { name, value } => {
                let waiting = self.state.steps().iter().find(|step| {
                    matches!(&step.phase, Phase::Waiting { signal: Some(awaited), .. } if *awaited == name)
                });
                let Some(step) = waiting.map(|step| step.key.clone()) else { return false };
                self.record(Event::SignalReceived { step, value });
            }
            Message::Cancel { actor, reason } => self.cancel(actor, reason),
            Message::Act { operation, act, actor, reason } => {
                let said = (actor.clone(), reason.clone());
                self.record(Event::OperatorIntervened { operation, act, actor, reason });
                if act == Act::Cancel {
                    self.cancel(said.0, said.1);
                } else {
                    self.reload |= self.function.is_none() && self.state.unwinding.is_none();
                }
            }
        }
        true
    }

    pub(super) fn cancel(&mut self, actor: String, reason: String) {
        if self.state.pivot.is_none() && self.state.unwinding.is_none() && self.state.cancel.is_none() {
            self.record(Event::CancelRequested { actor, reason });
        }
    }

    pub(super) fn take(&mut self, answer: Result<Answer, tokio::task::JoinError>) {
        let Ok(answer) = answer else { return };
        let Answer { step, outcome, external_id, sealed, gates } = answer;
        self.in_flight.remove(&step);
        self.turn.sealed.extend(sealed);
        match outcome {
            Outcome::Executed(Ok(output)) => self.completed(step, output, external_id),
            Outcome::Executed(Err(failure)) => self.failed(step, failure, &gates),
            Outcome::Found(Ok(found)) => {
                let (found, output) = match found {
                    Found::Nothing => (FoundKind::Nothing, None),
                    Found::Usable(made) => (FoundKind::Usable, Some(made)),
                    Found::Unusable(made) => (FoundKind::Unusable, Some(made)),
                    Found::Unknowable => (FoundKind::Unknowable, None),
                };
                self.record(Event::StepFound { step: step.clone(), found, output, external_id });
                if found == FoundKind::Usable {
                    self.close_rows(&step);
                }
            }
            Outcome::Found(Err(failure)) => {
                let looks = self.state.step(&step).map_or(1, |step| step.looks + 1);
                let (cause, detail, retry_at) = self.wait_after(failure, looks, &gates);
                self.record(Event::AttemptDeferred {
                    step,
                    attempt: None,
                    cause,
                    detail,
                    retry_at,
                    asked: None,
                });
            }
            Outcome::Compensated(Ok(())) => self.record(Event::StepCompensated { step }),
            Outcome::Compensated(Err(failure)) => self.undo_failed(step, failure, &gates),
        }
    }

    pub(super) fn completed(&mut self, step: StepKey, output: Value, external_id: Option<String>) {
        let Some(asked) = self.state.step(&step).and_then(|step| step.asked.clone()) else { return };
        if let Some(every) = asked.every
            && output.is_null()
        {
            let attempt = self.state.step(&step).map(|step| step.attempts);
            let retry_at = self.shared.env.now().plus(self.shared.env.paced(every));
            let detail = "not yet".to_owned();
            let cause = Cause::NotYet;
            self.record(Event::AttemptDeferred { step, attempt, cause, detail, retry_at, asked: None });
            return;
        }
        self.record(Event::StepCompleted { step: step.clone(), output, external_id });
        self.close_rows(&step);
        if asked.pivot && self.state.unwinding.is_none() {
            self.record(Event::PivotPassed { step });
        }
    }

    /// What the step was to take away is gone.
    pub(super) fn close_rows(&mut self, step: &StepKey) {
        let removed =
            self.state.step(step).and_then(|step| step.asked.as_ref()).map(|asked| asked.removes.clone());
        for resource in removed.unwrap_or_default() {
            if self.state.ledger.get(&resource).is_some() {
                self.record(Event::ResourceGone { resource, step: step.clone() });
            }
        }
    }

    pub(super) fn failed(&mut self, step: StepKey, failure: Failure, gates: &[String]) {
        let Some(known) = self.state.step(&step) else { return };
        let (attempt, doubted) = (known.attempts, known.doubted);
        let quiet = known.asked.as_ref().map_or(Duration::ZERO, |asked| asked.effect.quiet());
        let sent_again = known.asked.as_ref().is_some_and(|asked| asked.effect.is_sent_again());
        let is_read = known.asked.as_ref().is_some_and(|asked| asked.effect == Effect::Read);
        match failure {
            // Past the pivot there is no way back, and a lost attempt may have happened all the same: a person
            // has to look, and until then it is tried again, slowly.
            Failure::Refused(refusal) if self.state.pivot.is_some() || doubted => {
                let retry_at = self.shared.env.now().plus(self.shared.env.paced(retry::CAP));
                let (cause, detail) = (Cause::Refused, refusal.to_string());
                let attempt = Some(attempt);
                self.record(Event::AttemptDeferred { step, attempt, cause, detail, retry_at, asked: None });
            }
            Failure::Refused(refusal) => self.record(Event::StepFailed { step, refusal }),
            Failure::NoAnswer { cause, detail } if !is_read => {
                let env = &self.shared.env;
                let wait = if sent_again { retry::delay(attempt, None, env) } else { env.paced(quiet) };
                let look_at = env.now().plus(wait);
                self.record(Event::AttemptLost { step, attempt, cause, detail, look_at });
            }
            unavailable => {
                let (cause, detail, retry_at) = self.wait_after(unavailable, attempt, gates);
                let attempt = Some(attempt);
                self.record(Event::AttemptDeferred { step, attempt, cause, detail, retry_at, asked: None });
            }
        }
    }

    pub(super) fn undo_failed(&mut self, step: StepKey, failure: Failure, gates: &[String]) {
        let attempt = self.state.step(&step).map_or(1, |step| step.undo_attempts.max(1));
        match failure {
            Failure::Refused(refusal) => {
                let retry_at = self.shared.env.now().plus(self.shared.env.paced(retry::CAP));
                let detail = refusal.to_string();
                self.record(Event::CompensationDeferred { step, cause: None, detail, retry_at });
            }
            Failure::NoAnswer { cause, detail } => {
                let retry_at = self.shared.env.now().plus(retry::delay(attempt, None, &self.shared.env));
                self.record(Event::CompensationLost { step, cause, detail, retry_at });
            }
            unavailable => {
                let (cause, detail, retry_at) = self.wait_after(unavailable, attempt, gates);
                self.record(Event::CompensationDeferred { step, cause: Some(cause), detail, retry_at });
            }
        }
    }

    /// When to try again after a failure, with the gates closed until then that the failure speaks of.
    pub(super) fn wait_after(
        &mut self,
        failure: Failure,
        attempt: u32,
        gates: &[String],
    ) -> (Cause, String, Timestamp) {
        let env = &self.shared.env;
        let (cause, detail, asked) = match failure {
            Failure::Unavailable { cause, detail, retry_after } => (cause, detail, retry_after),
            Failure::NoAnswer { cause, detail } => (cause, detail, None),
            Failure::Refused(refusal) => (Cause::Refused, refusal.to_string(), Some(env.paced(retry::CAP))),
        };
        // What our own side asks to wait is paced; what a provider asks for is taken by its word.
        let asked = if cause == Cause::NotYet { asked.map(|wait| env.paced(wait)) } else { asked };
        let mut wait = retry::delay(attempt, asked, env);
        if cause == Cause::NotYet {
            wait = asked.unwrap_or(wait);
        }
        if cause == Cause::Credential {
            wait = wait.max(env.paced(Duration::from_secs(60)));
        }
        let retry_at = env.now().plus(wait);
        if matches!(cause, Cause::RateLimited | Cause::Credential)
            && let Some(gate) = gates.first()
        {
            let row = self.shared.gates.close(gate, retry_at, &detail);
            self.turn.gates.push(row);
        }
        (cause, detail, retry_at)
    }
}

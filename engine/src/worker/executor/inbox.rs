//! What has happened: letters and answers, turned into facts.

use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::activity::registry::Yield;
use crate::activity::{Cause, Effect, Failure, Found, retry};
use crate::env::Timestamp;
use crate::ids::StepKey;
use crate::journal::event::{Event, FoundKind};
use crate::journal::state::{Attention, Phase};
use crate::store::{Error, LETTERS_PAGE, Letter, Message};

/// So many letters are opened in one turn.
const OPENED_MAX: usize = 1_000;

impl Executor {
    /// Looks through the inbox, a page at a time, and opens what the saga waits for. Once so many were opened, what is
    /// behind them is looked at with the next turn, which follows at once.
    pub(super) async fn read_letters(&mut self) -> Result<(), Error> {
        self.waiting_letters.clear();
        let had_unreadable = std::mem::take(&mut self.has_unreadable);
        let mut after: Option<String> = None;
        loop {
            let page = self.shared.store.letters_page(&self.saga, after.as_deref(), LETTERS_PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.id.clone());
            self.open_all(page, had_unreadable);
            if self.turn.consumed.len() >= OPENED_MAX {
                self.has_mail = true;
                return Ok(());
            }
        }
    }

    fn open_all(&mut self, letters: Vec<Letter>, had_unreadable: bool) {
        for letter in letters {
            if let Message::Unreadable { detail } = &letter.message {
                if !had_unreadable && !self.has_unreadable {
                    tracing::error!(saga = %self.saga, letter = letter.id, detail, "a letter cannot be read");
                }
                self.has_unreadable = true;
            }
            if self.turn.consumed.contains(&letter.id) {
                continue;
            }
            let is_refused = matches!(self.state.parked, Some((Attention::StoreRefused, _)));
            if is_refused && self.withheld.contains(&letter.id) {
                self.waiting_letters.push(letter.id);
            } else if self.open(letter.message) {
                self.turn.consumed.push(letter.id);
            } else {
                self.waiting_letters.push(letter.id);
            }
        }
    }

    /// Turns a letter into events; says whether it is used up.
    pub(super) fn open(&mut self, message: Message) -> bool {
        match message {
            Message::Wake => self.nudge.all = true,
            Message::LetGo { gate, step } => {
                let at_gate = self.state.step(&step).and_then(|step| step.at_gate.as_ref());
                if at_gate.is_some_and(|at_gate| at_gate.gate == gate) {
                    self.nudge.let_go.insert(step);
                }
            }
            Message::Signal { name, value } => {
                let waiting = self.state.steps().iter().find(|step| {
                    matches!(&step.phase, Phase::Waiting { signal: Some(awaited), .. } if *awaited == name)
                        && !self.state.goes_back(&step.key)
                });
                let Some(step) = waiting.map(|step| step.key.clone()) else { return false };
                self.record(Event::SignalReceived { step, value });
            }
            Message::Cancel { actor, reason } => self.cancel(actor, reason),
            Message::ChildEnded { step, child, fate, output, refusal } => {
                // A fate that is already known, or that came after the step was settled otherwise, changes nothing.
                let waits = self.state.step(&step).is_some_and(|place| {
                    matches!(place.phase, Phase::Child | Phase::Completed | Phase::Removing { .. })
                        && place
                            .child
                            .as_ref()
                            .is_some_and(|(id, known)| *id == child && *known != Some(fate))
                });
                if waits {
                    self.record(Event::ChildEnded { step, child, fate, output, refusal });
                }
            }
            Message::ParentEnded => {
                if !self.state.parent_ended {
                    self.record(Event::ParentEnded {});
                }
            }
            Message::Act { operation, act, actor, reason } => self.intervene(operation, act, actor, reason),
            Message::Unreadable { .. } => return false,
        }
        true
    }

    pub(super) fn cancel(&mut self, actor: String, reason: String) {
        if self.state.pivot.is_none() && self.state.unwinding.is_none() && self.state.cancel.is_none() {
            if self.state.paused.is_some() {
                self.record(Event::Resumed { actor: Some(actor.clone()) });
            }
            self.record(Event::CancelRequested { actor, reason });
        }
    }

    pub(super) fn take(&mut self, answer: Result<Answer, tokio::task::JoinError>) {
        let Ok(answer) = answer else {
            // A fault of the engine's own, as a call bears whatever the user's code does: what it was is lost, as if the
            // process had died, and is settled from the journal.
            tracing::error!(saga = %self.saga, "a call ended without an outcome, reloading");
            self.reload = true;
            return;
        };
        let Answer { step, outcome, sealed, gate, began, bookmark } = answer;
        self.in_flight.remove(&step);
        self.turn.sealed.extend(sealed);
        match outcome {
            Outcome::Executed(Ok(Yield::Kept { value, is_none, external_id })) => {
                let external_id = self.known_id(external_id);
                self.completed(step, value, is_none, external_id, began);
            }
            Outcome::Executed(Ok(Yield::Unkept(unkept)))
            | Outcome::Found(Ok(
                Found::Usable(Yield::Unkept(unkept)) | Found::Unusable(Yield::Unkept(unkept)),
            )) => {
                self.not_kept(step, unkept);
            }
            Outcome::Executed(Err(failure)) => self.failed(step, failure, gate.as_deref()),
            Outcome::Found(Ok(found)) => {
                let (found, made) = match found {
                    Found::Nothing => (FoundKind::Nothing, None),
                    Found::Usable(made) => (FoundKind::Usable, Some(made)),
                    Found::Unusable(made) => (FoundKind::Unusable, Some(made)),
                    Found::Unknowable => (FoundKind::Unknowable, None),
                };
                let Some(known) = self.state.step(&step) else { return };
                let found = known.unless_seen_by_a_person(found);
                if found == FoundKind::Nothing
                    && let Some(look_at) = known.look_again_at(began, self.shared.env.now())
                {
                    let counts = known.look_counts(began);
                    return self.record(Event::AbsenceSeen { step, look_at, counts, by_hand: false });
                }
                let (output, external_id) = match made {
                    Some(Yield::Kept { value, external_id, .. }) => (Some(value), self.known_id(external_id)),
                    _ => (None, None),
                };
                self.record(Event::StepFound { step: step.clone(), found, output, external_id });
                if found == FoundKind::Usable {
                    self.close_rows(&step);
                    self.pass_pivot(step);
                }
            }
            Outcome::Found(Err(failure)) => {
                let looks = self.state.step(&step).map_or(1, |step| step.looks + 1);
                let waited = self.waited_for(&step);
                let (cause, detail, retry_at) =
                    self.wait_after(failure, (looks, waited), None, gate.as_deref());
                self.record(Event::AttemptDeferred {
                    step,
                    attempt: None,
                    cause,
                    detail,
                    retry_at,
                    gate: None,
                    asked: None,
                    fingerprint: String::new(),
                    bookmark,
                });
            }
            Outcome::Compensated(Ok(())) => self.compensated(step, false),
            Outcome::Compensated(Err(failure)) => self.undo_failed(step, failure, gate.as_deref()),
        }
    }

    /// The provider's id of what was made. It was made also where its activity panics instead of reading that: it is
    /// known by its name, and a person is told.
    pub(super) fn known_id(&mut self, read: Result<Option<String>, Failure>) -> Option<String> {
        read.unwrap_or_else(|failure| {
            let detail =
                format!("{}, so that what was made is on the ledger without its id", failure.detail());
            self.needs_decision(detail);
            None
        })
    }

    /// It happened; to whoever polls, `None` says not yet.
    pub(super) fn completed(
        &mut self,
        step: StepKey,
        output: Value,
        is_none: bool,
        external_id: Option<String>,
        began: Timestamp,
    ) {
        let Some(asked) = self.state.step(&step).and_then(|step| step.asked.clone()) else { return };
        if let Some(every) = asked.every
            && is_none
        {
            let attempt = self.state.step(&step).map(|step| step.attempts);
            let env = &self.shared.env;
            let wait = retry::poll(env.paced(every), self.waited_for(&step), env);
            let retry_at = env.now().plus(wait);
            let detail = "not yet".to_owned();
            let cause = Cause::NotYet;
            self.defer(step, attempt, cause, detail, retry_at);
            return;
        }
        // What closes ledger rows because it is seen to be gone is seen so twice.
        if let Some(known) = self.state.step(&step).filter(|step| step.is_seen_gone())
            && let Some(look_at) = known.look_again_at(began, self.shared.env.now())
        {
            let env = &self.shared.env;
            let wait = env.paced(asked.every.unwrap_or(retry::BASE));
            let look_at = look_at.max(env.now().plus(retry::poll(wait, Duration::ZERO, env)));
            return self.record(Event::AbsenceSeen { step, look_at, counts: true, by_hand: false });
        }
        self.record(Event::StepCompleted { step: step.clone(), output, external_id, by_hand: false });
        self.close_rows(&step);
        self.pass_pivot(step);
    }

    /// A step that happened, however that became known, is the pivot if it was asked for as that.
    pub(super) fn pass_pivot(&mut self, step: StepKey) {
        let asked = self.state.step(&step).and_then(|step| step.asked.as_ref());
        if asked.is_some_and(|asked| asked.pivot) && self.state.unwinding.is_none() {
            self.record(Event::PivotPassed { step });
        }
    }

    /// It did not happen, and is tried again.
    pub(super) fn defer(
        &mut self,
        step: StepKey,
        attempt: Option<u32>,
        cause: Cause,
        detail: String,
        retry_at: Timestamp,
    ) {
        let fingerprint = String::new();
        self.record(Event::AttemptDeferred {
            step,
            attempt,
            cause,
            detail,
            retry_at,
            gate: None,
            asked: None,
            fingerprint,
            bookmark: None,
        });
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

    pub(super) fn failed(&mut self, step: StepKey, failure: Failure, gate: Option<&str>) {
        let Some(known) = self.state.step(&step) else { return };
        let (attempt, doubted, is_deferred) = (known.attempts, known.doubted, known.is_deferred());
        let max_wait = known.max_wait;
        let over = match known.phase {
            Phase::Trying { not_after } => not_after.plus(known.settle_after()),
            _ => self.shared.env.now().plus(known.settle_after()),
        };
        let sent_again = known.asked.as_ref().is_some_and(|asked| asked.effect.is_sent_again());
        let is_read = known.asked.as_ref().is_some_and(|asked| asked.effect == Effect::Read);
        match failure {
            // Past the pivot there is no way back, and a lost attempt may have happened all the same: a person
            // has to look, and until then it is tried again, slowly.
            Failure::Refused(refusal) if self.state.pivot.is_some() || doubted || is_deferred => {
                let retry_at = self.shared.env.now().plus(self.shared.env.paced(retry::CAP));
                let (cause, detail) = (Cause::Refused, refusal.to_string());
                let attempt = Some(attempt);
                self.defer(step, attempt, cause, detail, retry_at);
            }
            Failure::Refused(refusal) => self.fail(step, refusal),
            Failure::NoAnswer { cause, detail } if !is_read => {
                let env = &self.shared.env;
                let is_blind = known.asked.as_ref().is_some_and(|asked| asked.effect == Effect::Blind);
                let settle_after = known.settle_after();
                let slowly = retry::delay(attempt, None, env);
                let look_at = if sent_again {
                    known.settled_at(env.now().plus(slowly), over)
                } else if is_blind {
                    // A person who looked earlier could not tell.
                    over
                } else {
                    // What is there may be seen long before it is known what is not. One that is lost each time is
                    // looked for more and more slowly.
                    let is_slow = env.paced(retry::ceiling(attempt)) > settle_after;
                    env.now().plus(if is_slow { slowly.max(settle_after) } else { settle_after })
                };
                let fingerprint = String::new();
                self.record(Event::AttemptLost { step, attempt, cause, detail, look_at, fingerprint });
            }
            unavailable => {
                let waited = self.waited_for(&step);
                let (cause, detail, mut retry_at) =
                    self.wait_after(unavailable, (attempt, waited), max_wait, gate);
                if doubted && let Some(known) = self.state.step(&step) {
                    retry_at = known.settled_at(retry_at, known.unsettled_until().unwrap_or(retry_at));
                }
                let attempt = Some(attempt);
                self.defer(step, attempt, cause, detail, retry_at);
            }
        }
    }

    pub(super) fn undo_failed(&mut self, step: StepKey, failure: Failure, gate: Option<&str>) {
        let attempt = self.state.step(&step).map_or(1, |step| step.undo_attempts.max(1));
        let max_wait = self.state.step(&step).and_then(|step| step.max_wait);
        let fingerprint = String::new();
        match failure {
            Failure::Refused(refusal) => {
                let retry_at = self.shared.env.now().plus(self.shared.env.paced(retry::CAP));
                let detail = refusal.to_string();
                self.record(Event::CompensationDeferred {
                    step,
                    cause: None,
                    detail,
                    retry_at,
                    gate: None,
                    fingerprint,
                });
            }
            Failure::NoAnswer { cause, detail } => {
                let retry_at = self.shared.env.now().plus(retry::delay(attempt, None, &self.shared.env));
                self.record(Event::CompensationLost { step, cause, detail, retry_at, fingerprint });
            }
            unavailable => {
                let waited = self.waited_for(&step);
                let (cause, detail, retry_at) =
                    self.wait_after(unavailable, (attempt, waited), max_wait, gate);
                let cause = Some(cause);
                self.record(Event::CompensationDeferred {
                    step,
                    cause,
                    detail,
                    retry_at,
                    gate: None,
                    fingerprint,
                });
            }
        }
    }

    /// How long a step, or its undo, has been waited for; without the time at gates.
    fn waited_for(&self, step: &StepKey) -> Duration {
        let Some(step) = self.state.step(step) else { return Duration::ZERO };
        let now = self.shared.env.now();
        match step.undo_at {
            Some(since) if matches!(step.phase, Phase::Removing { .. }) => now.since(since),
            _ => now.since(step.asked_at).saturating_sub(step.held_by(now)),
        }
    }

    /// When to try again after a failure, with the gates closed until then that the failure speaks of; `attempt` was the
    /// last one, after so long.
    pub(super) fn wait_after(
        &mut self,
        failure: Failure,
        (attempt, waited): (u32, Duration),
        max_wait: Option<Duration>,
        gate: Option<&str>,
    ) -> (Cause, String, Timestamp) {
        let env = &self.shared.env;
        let (cause, detail, asked) = match failure {
            Failure::Unavailable { cause, detail, retry_after } => (cause, detail, retry_after),
            Failure::NoAnswer { cause, detail } => (cause, detail, None),
            Failure::Refused(refusal) => (Cause::Refused, refusal.to_string(), Some(env.paced(retry::CAP))),
        };
        // What our own side asks to wait is paced; what a provider asks for is taken by its word, within reason.
        let asked =
            if cause == Cause::NotYet { asked.map(|wait| env.paced(wait)) } else { retry::asked(asked) };
        let mut wait = retry::delay(attempt, asked, env);
        if let Some(max_wait) = max_wait {
            wait = wait.min(max_wait).max(asked.unwrap_or_default());
        }
        if matches!(cause, Cause::NotYet | Cause::AbsentOnce) {
            wait = retry::poll(asked.unwrap_or(wait), waited, env);
        }
        wait = wait.max(env.paced(retry::LEAST));
        let closes = retry::least(cause, env);
        let retry_at = env.now().plus(wait.max(closes.unwrap_or_default()));
        if closes.is_some()
            && let Some(gate) = gate
        {
            let closing = self.shared.gates.close(gate, retry_at, &detail);
            self.turn.closings.push(closing);
        }
        (cause, detail, retry_at)
    }
}

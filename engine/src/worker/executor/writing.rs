//! Writing: facts become entries, and a turn's entries one append.

use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::activity::{Cause, Failure, retry};
use crate::ids::StepKey;
use crate::journal::event::{ChildFate, Event, Parent};
use crate::journal::fingerprint::fingerprint;
use crate::journal::state::Phase;
use crate::journal::{Entry, State};
use crate::store::tx::{Beside, Tx};
use crate::store::{Append, Error, Job, Letter, Message, SagaRow, SecretFate};

impl Executor {
    /// Adds a fact to the state and to this turn, and tells the function what it decides.
    pub(super) fn record(&mut self, event: Event) {
        let event = fingerprinted(&self.state, event);
        let entry = Entry { seq: self.state.seq + 1, at: self.shared.env.now(), epoch: self.epoch, event };
        if let Err(illegal) = self.state.apply(&entry) {
            // A fault of the engine's own: it is said, and nothing is written that the journal could not bear.
            tracing::error!(saga = %self.saga, %illegal, "an illegal event was not recorded");
            debug_assert!(false, "saga {}: {illegal}", self.saga);
            return;
        }
        let event = entry.event.clone();
        self.turn.entries.push(entry);
        self.function.tell(&self.state, &event);
        self.note_divergence();
    }

    /// A function that asks for something else than its journal holds is parked, with both sides shown.
    pub(super) fn note_divergence(&mut self) {
        if let Some(detail) = self.function.take_divergence()
            && self.state.parked.is_none()
        {
            self.record(Event::Parked { attention: Attention::Diverged, detail });
        }
    }

    pub(super) async fn append(&mut self, is_due_at_once: bool) -> Result<(), Stop> {
        let turn = std::mem::take(&mut self.turn);
        if turn.entries.is_empty() && turn.consumed.is_empty() {
            return Ok(());
        }
        let mut append = build(&mut self.state, self.epoch, turn.entries, Beside::default());
        if is_due_at_once {
            append.row.due_at = Some(self.state.at);
        }
        append.row.progress = self.function.progress();
        append.sealed = turn.sealed;
        append.consumed = turn.consumed;
        append.gates = turn.gates;
        append.settled = turn.settled;
        append.starts = turn.starts;
        append.letters.extend(turn.letters);
        let mut attempt = 0;
        loop {
            match self.shared.store.append(append.clone()).await {
                Ok(()) => {
                    self.is_due_at_once = is_due_at_once;
                    self.shared.written(&self.saga);
                    append.letters.iter().for_each(|letter| self.shared.poke(&letter.saga));
                    return Ok(());
                }
                Err(Error::Unavailable(detail)) => {
                    attempt += 1;
                    tracing::warn!(saga = %self.saga, detail, "the journal could not be written, trying again");
                    self.shared.env.sleep(retry::delay(attempt.min(5), None, &self.shared.env)).await;
                }
                Err(error) => {
                    tracing::warn!(saga = %self.saga, %error, "reloading");
                    return Err(Stop::Reload);
                }
            }
            if self.shared.is_draining() && attempt > 3 {
                return Err(Stop::Reload);
            }
        }
    }

    /// Runs a local activity, or its revert, in the transaction that records it.
    pub(super) async fn transact(&mut self, key: &StepKey, revert: bool) -> Result<(), Stop> {
        // What an earlier transaction of this turn came to has to be durable first.
        self.append(true).await?;
        let Some(step) = self.state.step(key) else { return Ok(()) };
        let Some(asked) = step.current() else { return Ok(()) };
        let Some(local) = self.shared.registry.find_local(&asked.activity).cloned() else {
            self.no_worker(format!("no worker here offers the local activity {}", asked.activity));
            return Ok(());
        };
        let input = self.resolved(&asked.input);
        let made = step.output.clone().unwrap_or(Value::Null);
        let shared = self.shared.clone();
        let (saga, epoch, state, key) = (self.saga.clone(), self.epoch, self.state.clone(), key.clone());
        let step = key.clone();
        let job: Job = Arc::new(move |statements| {
            let (local, input, made, shared) = (local.clone(), input.clone(), made.clone(), shared.clone());
            let (saga, step, pivot) = (saga.clone(), step.clone(), asked.pivot);
            let mut state = state.clone();
            Box::pin(async move {
                let mut tx = Tx {
                    saga: &saga,
                    step: &step,
                    env: &shared.env,
                    vault: &shared.outside.vault,
                    statements,
                    beside: Beside::default(),
                };
                let mut events = Vec::new();
                if revert {
                    local.revert(&input, &made, &mut tx).await?;
                    events.push(Event::StepCompensated { step: step.clone(), by_hand: false });
                } else {
                    let output = local.apply(&input, &mut tx).await?;
                    events.push(Event::StepCompleted {
                        step: step.clone(),
                        output,
                        external_id: None,
                        by_hand: false,
                    });
                    if pivot {
                        events.push(Event::PivotPassed { step: step.clone() });
                    }
                }
                let beside = tx.beside;
                for new in &beside.starts {
                    let child = new.id.clone();
                    events.push(Event::ChildStarted { step: step.clone(), child, asked: None });
                }
                for (name, value) in &beside.labels {
                    let (name, value) = (name.clone(), value.clone());
                    events.push(Event::LabelSet { step: None, name, value });
                }
                for row in &beside.taken {
                    events.push(Event::ResourceTaken { row: Box::new(row.clone()) });
                }
                let mut entries = Vec::new();
                for event in events {
                    let entry = Entry { seq: state.seq + 1, at: shared.env.now(), epoch, event };
                    state
                        .apply(&entry)
                        .map_err(|illegal| Failure::refused("illegal", illegal.to_string()))?;
                    entries.push(entry);
                }
                let mut append = build(&mut state, epoch, entries, beside);
                // What the function does next is not asked for yet: whoever loads the saga now has to go on.
                append.row.due_at = Some(state.at);
                Ok(append)
            })
        });
        match self.shared.store.transact(self.saga.clone(), job).await {
            Ok(mut append) => {
                for entry in std::mem::take(&mut append.entries) {
                    if let Err(illegal) = self.state.apply(&entry) {
                        tracing::error!(saga = %self.saga, %illegal, "reloading");
                        return Err(Stop::Reload);
                    }
                    self.function.tell(&self.state, &entry.event);
                    self.note_divergence();
                }
                // They are written: only what changes from here on is written again.
                self.state.ledger.take_changed();
                self.is_due_at_once = true;
                self.shared.written(&self.saga);
                append.letters.iter().for_each(|letter| self.shared.poke(&letter.saga));
                Ok(())
            }
            Err(Error::Job(failure)) => {
                if revert {
                    self.undo_failed(key, failure, &[]);
                } else {
                    self.failed(key, failure, &[]);
                }
                Ok(())
            }
            Err(Error::Unavailable(detail)) => {
                let failure = Failure::Unavailable { cause: Cause::Database, detail, retry_after: None };
                if revert {
                    self.undo_failed(key, failure, &[]);
                } else {
                    self.failed(key, failure, &[]);
                }
                Ok(())
            }
            Err(error) => {
                tracing::warn!(saga = %self.saga, %error, "reloading");
                Err(Stop::Reload)
            }
        }
    }
}

/// A failure, with what groups it with the same trouble elsewhere.
fn fingerprinted(state: &State, mut event: Event) -> Event {
    let (lane, step, cause, detail, place) = match &mut event {
        Event::AttemptDeferred { step, cause, detail, fingerprint, .. }
        | Event::AttemptLost { step, cause, detail, fingerprint, .. } => {
            ("forward", step, cause.to_string(), detail, fingerprint)
        }
        Event::StepFailed { step, refusal, fingerprint } => {
            ("forward", step, refusal.code.clone(), &mut refusal.message, fingerprint)
        }
        Event::CompensationDeferred { step, cause, detail, fingerprint, .. } => {
            let cause = cause.map_or_else(|| "refused".to_owned(), |cause| cause.to_string());
            ("undo", step, cause, detail, fingerprint)
        }
        Event::CompensationLost { step, cause, detail, fingerprint, .. } => {
            ("undo", step, cause.to_string(), detail, fingerprint)
        }
        _ => return event,
    };
    let asked = state.step(step).and_then(|step| step.asked.as_ref());
    let activity = asked.map_or("", |asked| asked.activity.as_str());
    *place = fingerprint(&state.workflow.0, lane, step.as_str(), activity, &cause, detail);
    event
}

/// The word that a child's end, or its offer, sends to the saga that called it, and the word that a saga's end sends
/// to its children.
fn family(state: &State, entries: &[Entry]) -> Vec<Letter> {
    let mut letters = Vec::new();
    let Some(last) = entries.last() else { return letters };
    if let Some(Parent { saga, step }) = &state.parent {
        let (fate, output, refusal) = match &last.event {
            Event::ResultOffered { output, .. } => (ChildFate::Done, Some(output.clone()), None),
            Event::SagaCompleted { output, .. } if state.offered.is_none() => {
                (ChildFate::Kept, Some(output.clone()), None)
            }
            Event::SagaCompensated {} | Event::SagaFailed { .. } => {
                let refusal = state.unwinding.as_ref().map(|unwinding| unwinding.refusal.clone());
                (ChildFate::Gone, None, refusal)
            }
            _ => return children(state, last),
        };
        let (child, step) = (state.saga.clone(), step.clone());
        let message = Message::ChildEnded { step, child, fate, output, refusal };
        letters.push(Letter {
            id: format!("{}:{fate}", state.saga),
            saga: saga.clone(),
            message,
            at: state.at,
        });
    }
    letters.extend(children(state, last));
    letters
}

fn children(state: &State, last: &Entry) -> Vec<Letter> {
    if state.ended.is_none() {
        return Vec::new();
    }
    let steps = state.steps().iter().filter(|step| !matches!(step.phase, Phase::Undone | Phase::Refused));
    let held = steps
        .filter_map(|step| step.child.as_ref())
        .filter(|(_, fate)| !matches!(fate, Some(ChildFate::Gone | ChildFate::Kept)));
    let letter = |(child, _): &(crate::ids::SagaId, _)| Letter {
        id: format!("{child}:parent_ended"),
        saga: child.clone(),
        message: Message::ParentEnded,
        at: last.at,
    };
    held.map(letter).collect()
}

/// When the saga is next to be taken up: when something is to be done, or when time alone adds to what a person
/// should know of it.
pub(super) fn due_at(state: &State, now: Timestamp) -> Option<Timestamp> {
    state.due_at().into_iter().chain(state.noticed_at(now)).min()
}

/// The append that makes these entries durable, with the projections that go with them.
pub(super) fn build(state: &mut State, epoch: i64, entries: Vec<Entry>, beside: Beside) -> Append {
    let resources = state.ledger.take_changed();
    let at = state.at;
    let mut letters = Vec::new();
    for (number, post) in beside.posts.into_iter().enumerate() {
        // Made of the entry that sends it, so that a transaction that is run again posts the same letter.
        let id = format!("{}:{}:{number}", state.saga, state.seq);
        letters.push(Letter { id, saga: post.saga, message: post.message, at });
    }
    letters.extend(family(state, &entries));
    let ended = state.ended.is_some();
    let secrets = match entries.last().map(|entry| &entry.event) {
        Some(Event::SagaCompleted { owner: Some(owner), .. }) => SecretFate::PassTo(owner.clone()),
        Some(
            Event::SagaCompleted { owner: None, .. } | Event::SagaCompensated {} | Event::SagaFailed { .. },
        ) => SecretFate::Destroyed,
        _ => SecretFate::Stay,
    };
    Append {
        row: SagaRow {
            id: state.saga.clone(),
            workflow: state.workflow.0.clone(),
            workflow_version: state.workflow.1,
            state: state.state(),
            attention: state.attention(),
            step: if ended { None } else { state.current_step() },
            error: state.last_error(),
            fingerprint: if ended { None } else { state.fingerprint() },
            progress: None,
            parent: state.parent.as_ref().map(|parent| parent.saga.clone()),
            labels: state.labels.clone(),
            deadline_at: state.deadline_at,
            due_at: due_at(state, at),
            epoch,
            seq: state.seq,
            created_at: state.started_at,
            updated_at: at,
            ended_at: ended.then_some(at),
        },
        output: state.output.clone().filter(|_| ended),
        entries,
        resources,
        sealed: beside.sealed,
        consumed: Vec::new(),
        gates: Vec::new(),
        starts: beside.starts,
        letters,
        settled: Vec::new(),
        secrets,
        destroyed: beside.destroyed,
    }
}

//! Writing: facts become entries, and a turn's entries one append.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::*;
use crate::activity::{Cause, Failure, retry};
use crate::data::limits;
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
        let event = fingerprinted(&self.state, shortened(event));
        let entry = Entry { seq: self.state.seq + 1, at: self.shared.env.now(), epoch: self.epoch, event };
        if let Err(illegal) = self.state.apply(&entry) {
            // A fault of the engine's own: it is said, and nothing is written that the journal could not bear.
            tracing::error!(saga = %self.saga, %illegal, "an illegal event was not recorded");
            debug_assert!(false, "saga {}: {illegal}", self.saga);
            return;
        }
        self.function.tell(&self.state, &entry.event);
        self.turn.entries.push(entry);
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

    /// What this turn has decided, as one append.
    fn turn_append(&mut self, is_due_at_once: bool) -> Append {
        let turn = std::mem::take(&mut self.turn);
        let mut append = build(&mut self.state, self.epoch, turn.entries, Beside::default());
        if is_due_at_once {
            append.row.due_at = Some(self.state.at);
        }
        append.row.progress = self.function.progress();
        self.add_unreadable(&mut append.row.attention);
        append.sealed = turn.sealed;
        append.consumed = turn.consumed;
        append.closings = turn.closings;
        append.waits = Some(self.state.gate_waits()).filter(|waits| *waits != self.waits);
        append.settled = turn.settled;
        append.starts = turn.starts;
        append.letters.extend(turn.letters);
        append
    }

    /// What the journal does not know of: a letter that cannot be read is left in the inbox, and the row says so.
    pub(super) fn add_unreadable(&self, attention: &mut Vec<Attention>) {
        if self.has_unreadable && self.state.ended.is_none() && !attention.contains(&Attention::Unreadable) {
            attention.push(Attention::Unreadable);
            attention.sort();
        }
    }

    pub(super) async fn append(&mut self, is_due_at_once: bool) -> Result<(), Stop> {
        if self.turn.entries.is_empty() && self.turn.consumed.is_empty() {
            return Ok(());
        }
        let append = Arc::new(self.turn_append(is_due_at_once));
        write(&self.shared.clone(), &append).await?;
        self.is_due_at_once = is_due_at_once;
        self.told(&append);
        Ok(())
    }

    /// Tells those in this process who wait for what was written.
    fn told(&mut self, append: &Arc<Append>) {
        self.shared.written(append);
        if let Some(waits) = &append.waits {
            self.waits.clone_from(waits);
            self.shared.gates.stir();
        }
        append.letters.iter().for_each(|letter| self.shared.poke(&letter.saga));
    }

    /// Runs a local activity, or its revert, in the transaction that records it; what the turn has decided before
    /// is written in the same one, and stays also when the activity fails.
    pub(super) async fn transact(&mut self, key: &StepKey, revert: bool) -> Result<(), Stop> {
        let Some(step) = self.state.step(key) else { return Ok(()) };
        let Some(asked) = step.current() else { return Ok(()) };
        let Some(local) = self.shared.registry.find_local(&asked.activity).cloned() else {
            self.no_worker(format!("no worker here offers the local activity {}", asked.activity));
            return Ok(());
        };
        let made = step.output.clone().unwrap_or(Value::Null);
        let input = match self.resolved(&asked.request()) {
            Ok(input) => input,
            Err(failure) => {
                self.failed(key.clone(), failure, None);
                return Ok(());
            }
        };
        let turn = Arc::new(self.turn_append(true));
        // The job changes the state once its SQL is through. What is run again after that, since its group was not
        // written, cannot know what it was: the saga is loaded again then.
        let state = std::mem::replace(&mut self.state, State::new(self.saga.clone()));
        let place = Arc::new(Mutex::new((state, false)));
        let work =
            Work { shared: self.shared.clone(), step: key.clone(), epoch: self.epoch, pivot: asked.pivot };
        let (job_place, work) = (place.clone(), Arc::new(work));
        let job: Job = Arc::new(move |statements| {
            let (local, input, made) = (local.clone(), input.clone(), made.clone());
            let (place, work) = (job_place.clone(), work.clone());
            Box::pin(async move {
                let saga = locked(&place).0.saga.clone();
                let mut tx = Tx {
                    saga: &saga,
                    step: &work.step,
                    env: &work.shared.env,
                    vault: &work.shared.outside.vault,
                    statements,
                    beside: Beside::default(),
                };
                let done = if revert {
                    local.revert(&input, &made, &mut tx).await?;
                    Event::StepCompensated { step: work.step.clone(), by_hand: false }
                } else {
                    let output = local.apply(&input, &mut tx).await?;
                    Event::StepCompleted {
                        step: work.step.clone(),
                        output,
                        external_id: None,
                        by_hand: false,
                    }
                };
                let beside = tx.beside;
                beside.check()?;
                work.recorded(&mut locked(&place), done, beside)
            })
        });
        let done = offer(&self.shared, &turn, true, || self.shared.store.transact(turn.clone(), job.clone()))
            .await?;
        let (state, changed) = std::mem::replace(&mut *locked(&place), (State::new(self.saga.clone()), true));
        if done.is_ok() != changed {
            return Err(Stop::Reload);
        }
        self.state = state;
        self.is_due_at_once = true;
        self.told(&turn);
        match done {
            Ok(append) => {
                for entry in &append.entries {
                    self.function.tell(&self.state, &entry.event);
                    self.note_divergence();
                }
                self.told(&Arc::new(append));
            }
            Err(failure) if revert => self.undo_failed(key.clone(), failure, None),
            Err(failure) => self.failed(key.clone(), failure, None),
        }
        Ok(())
    }
}

/// A saga's state, and whether its transaction has changed it.
type Place = (State, bool);

fn locked(place: &Mutex<Place>) -> std::sync::MutexGuard<'_, Place> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One transaction of a saga's.
struct Work {
    shared: Arc<Shared>,
    step: StepKey,
    epoch: i64,
    pivot: bool,
}

impl Work {
    /// What a local activity came to, as facts and as the append that makes them durable.
    fn recorded(&self, place: &mut Place, done: Event, beside: Beside) -> Result<Append, Failure> {
        let (state, changed) = place;
        if std::mem::replace(changed, true) {
            let detail = "its transaction was not written".to_owned();
            return Err(Failure::Unavailable { cause: Cause::Database, detail, retry_after: None });
        }
        let step = || self.step.clone();
        let pivot = (self.pivot && matches!(done, Event::StepCompleted { .. }))
            .then(|| Event::PivotPassed { step: step() });
        let children = beside.starts.iter().map(|new| Event::ChildStarted {
            step: step(),
            child: new.id.clone(),
            asked: None,
        });
        let labels = beside.labels.iter().map(|(name, value)| Event::LabelSet {
            step: None,
            name: name.clone(),
            value: value.clone(),
        });
        let taken = beside.taken.iter().map(|row| Event::ResourceTaken { row: Box::new(row.clone()) });
        let mut entries = Vec::new();
        for event in std::iter::once(done).chain(pivot).chain(children).chain(labels).chain(taken) {
            let entry = Entry { seq: state.seq + 1, at: self.shared.env.now(), epoch: self.epoch, event };
            state.apply(&entry).map_err(|illegal| Failure::refused("illegal", illegal.to_string()))?;
            entries.push(entry);
        }
        let mut append = build(state, self.epoch, entries, beside);
        // What the function does next is not asked for yet: whoever loads the saga now has to go on.
        append.row.due_at = Some(state.at);
        Ok(append)
    }
}

/// Offers an append until the store takes it.
pub(super) async fn write(shared: &Shared, append: &Arc<Append>) -> Result<(), Stop> {
    // It has no part of a user's that could fail.
    offer(shared, append, false, || shared.store.append(append.clone())).await.map(drop)
}

/// After so many tries it is said which saga it is: of a store that can be written otherwise nobody else would know.
const ALONE_AFTER: u32 = 8;

fn unwritten(saga: &SagaId) -> String {
    format!("the journal of saga {saga} cannot be written")
}

/// Offers a write until the store takes it; the failure is that of a user's part in it. Stops where another has
/// written meanwhile, or this very write has and its answer was lost: the journal knows; and where the store says that
/// it will never take it.
async fn offer<T, F>(
    shared: &Shared,
    turn: &Append,
    has_job: bool,
    write: impl Fn() -> F,
) -> Result<Result<T, Failure>, Stop>
where
    F: Future<Output = Result<T, Error>>,
{
    let saga = &turn.row.id;
    let mut attempt = 0;
    loop {
        match shared.noted(write().await) {
            Ok(done) => {
                if attempt >= ALONE_AFTER {
                    shared.trouble.went_well(&unwritten(saga));
                }
                return Ok(Ok(done));
            }
            Err(Error::Job(failure)) => return Ok(Err(failure)),
            // A job looks again whose the key is.
            Err(Error::KeyTaken(other)) if has_job && attempt < KEY_TAKEN_MAX => {
                attempt += 1;
                tracing::debug!(saga = %saga, %other, "the key of a start was taken meanwhile");
            }
            Err(Error::Unavailable(detail)) => {
                attempt += 1;
                tracing::debug!(saga = %saga, detail, "the journal could not be written, trying again");
                // That nothing can be written is said for all of them; here the others may be.
                if attempt >= ALONE_AFTER {
                    shared.trouble.failed(&unwritten(saga), detail, &shared.env);
                }
                shared.env.sleep(retry::delay(attempt.min(5), None, &shared.env)).await;
            }
            // Nobody writes any more, and it is not for this engine's end: nothing is gained by loading anything again.
            Err(Error::Closed) if !shared.is_draining() => {
                attempt += 1;
                tracing::error!(saga = %saga, "the store is closed, and the journal cannot be written");
                tokio::select! {
                    biased;
                    () = shared.draining() => {}
                    () = shared.env.sleep(retry::delay(attempt.min(5), None, &shared.env)) => {}
                }
            }
            Err(error) if error.is_permanent() => {
                let acts = turn.settled.iter().map(|act| act.operation.clone()).collect();
                let refused = Refused { detail: error.to_string(), acts, letters: turn.consumed.clone() };
                return Err(Stop::Refused(refused));
            }
            Err(error @ (Error::Fenced(_) | Error::Closed)) => {
                tracing::warn!(saga = %saga, %error, "reloading");
                return Err(Stop::Reload);
            }
            Err(error) => {
                tracing::warn!(saga = %saga, %error, "reloading");
                return Err(Stop::Failed(error.to_string()));
            }
        }
        if shared.is_draining() && attempt > 3 {
            return Err(Stop::Reload);
        }
    }
}

/// How often a job is run again since the key of a start was taken under it.
const KEY_TAKEN_MAX: u32 = 8;

/// What others say when something goes wrong has no bound of theirs; the beginning is enough to know it by.
fn shortened(mut event: Event) -> Event {
    match &mut event {
        Event::AttemptDeferred { detail, .. }
        | Event::AttemptLost { detail, .. }
        | Event::CompensationDeferred { detail, .. }
        | Event::CompensationLost { detail, .. }
        | Event::Parked { detail, .. } => limits::cut(detail),
        Event::StepFailed { refusal, .. }
        | Event::UnwindingStarted { refusal, .. }
        | Event::ScopeTurned { refusal, .. }
        | Event::SagaFailed { refusal }
        | Event::ChildEnded { refusal: Some(refusal), .. } => {
            limits::cut(&mut refusal.code);
            limits::cut(&mut refusal.message);
        }
        _ => {}
    }
    event
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
        passed_over: Vec::new(),
        closings: Vec::new(),
        waits: None,
        starts: beside.starts,
        letters,
        settled: Vec::new(),
        secrets,
        destroyed: beside.destroyed,
    }
}

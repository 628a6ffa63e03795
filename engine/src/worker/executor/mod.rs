//! The executor: one saga, one lease; replays it, drives it forward, and turns it round.
//!
//! A turn takes what has happened (answers, letters, time), gives it to the saga's function, adds what the
//! function asks for and what unwinding needs, and appends all of it at once. Only after that commit do
//! calls leave.

mod actions;
mod acts;
mod asks;
mod calls;
mod inbox;
mod park;
mod unkept;
mod writing;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

pub(super) use self::calls::resolved;
use super::Shared;
use super::decide::Nudge;
use super::function::Function;
use super::gates::{Barrier, Passing, Permit};
use crate::activity::registry::{Unkept, Yield};
use crate::activity::{Failure, Found, Object};
use crate::env::Timestamp;
use crate::gate::GateWait;
use crate::ids::{SagaId, StepKey};
use crate::journal::event::Event;
use crate::journal::state::{Attention, Phase, Step};
use crate::journal::{Entry, State};
use crate::secret::Sealed;
use crate::store::tx::Beside;
use crate::store::{Closing, Error, Letter, Loaded, NewSaga, ResourceFilter, Settled};

/// A saga whose next due time is further away than this is put down.
const IDLE: Duration = Duration::from_secs(60);
/// And when more are due than can be driven at a time, one whose next due time is further away than this.
const CROWDED: Duration = Duration::from_secs(1);
/// How long a saga that may not begin yet is kept from being looked at again for its letters.
const UNBEGUN: Duration = Duration::from_secs(1);
/// After so many turns without anything to do, a saga that says it is due is wrong.
const IDLE_TURNS_MAX: u32 = 20;
/// When an inbox that could not be read is read again.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// The longest wait until a ledger that could not be read is read again.
const READ_LEDGER_MAX: Duration = Duration::from_secs(60);
/// How long a shut-down waits for calls that are under way.
const DRAIN: Duration = Duration::from_secs(20);

/// What is said of an inbox that cannot be read.
fn unread_inbox(saga: &SagaId) -> String {
    format!("the inbox of saga {saga} cannot be read, so that nothing of it is begun")
}

/// What a call came to.
enum Outcome {
    Executed(Result<Yield, Failure>),
    Found(Result<Found<Yield>, Failure>),
    Compensated(Result<(), Failure>),
}

struct Answer {
    step: StepKey,
    outcome: Outcome,
    sealed: Vec<Sealed>,
    /// The gate of the call's credential.
    gate: Option<String>,
    /// When the call left.
    began: Timestamp,
    /// How far a look has read.
    bookmark: Option<Value>,
}

/// What is to be done once the turn is durable.
enum Launch {
    Call(Outgoing),
    Apply(StepKey),
    Revert(StepKey),
}

/// A call that may leave once its intent is durable: it has the permit for that in its hand.
struct Outgoing {
    step: StepKey,
    verb: Verb,
    permit: Permit,
    /// As its activity limits it.
    limit: Duration,
    /// It is over by then, or is not made.
    not_after: Timestamp,
}

/// What is asked of an activity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Execute,
    Find,
    Compensate,
}

/// Why an executor stops.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The saga has ended, or has nothing to do for a while.
    Rest,
    /// Another may have written: the saga has to be loaded again.
    Reload,
    /// The same for want of anything better: if it comes to this again and again, the saga is parked with these words.
    Failed(String),
    /// The store refuses for ever what was to be written: the saga is parked with what it said.
    Refused(Refused),
}

/// What one turn will append.
#[derive(Default)]
struct Turn {
    entries: Vec<Entry>,
    sealed: Vec<Sealed>,
    consumed: Vec<String>,
    closings: Vec<Closing>,
    starts: Vec<NewSaga>,
    letters: Vec<Letter>,
    settled: Vec<Settled>,
    launches: Vec<Launch>,
    /// Steps whose gates have to be asked before it is known whether they pass.
    to_ask: BTreeMap<StepKey, Passing>,
    /// And what their gates said.
    gates_said: BTreeMap<StepKey, Result<Permit, Barrier>>,
    /// Objects of which it has to be read until when another saga's lost call to them may still take effect.
    to_read: Vec<Object>,
    /// And those for which that was done.
    unsettled: HashMap<Object, Option<Timestamp>>,
}

pub(crate) use park::{Refused, park};

pub(crate) struct Executor {
    shared: Arc<Shared>,
    saga: SagaId,
    epoch: i64,
    state: State,
    function: Function,
    in_flight: HashSet<StepKey>,
    calls: JoinSet<Answer>,
    turn: Turn,
    nudge: Nudge,
    /// What was made in this process and cannot be kept, until it is taken back.
    unkept: BTreeMap<StepKey, Unkept>,
    /// Its steps that wait at gates, as the database has them.
    waits: Vec<GateWait>,
    /// The letters in the inbox that nothing waits for yet.
    waiting_letters: Vec<String>,
    /// Of those, whether there is one that this program cannot read.
    has_unreadable: bool,
    /// Whether the inbox could not be read when it was asked for last.
    has_unread_inbox: bool,
    /// Letters that were part of what the store refused: not opened before a person lets the saga go on.
    withheld: HashSet<String>,
    /// The inbox is to be looked into: somebody said so, or a step now waits for what may lie there.
    has_mail: bool,
    /// A person wants a parked saga tried again: it is replayed.
    reload: bool,
    /// The row says that it is due now: what follows from its last entry is not written yet.
    is_due_at_once: bool,
    /// How many turns in a row had nothing to do.
    idle_turns: u32,
    /// Its function does not run before this.
    early_until: Option<Timestamp>,
}

impl Executor {
    /// A saga as it was loaded under the lease that the store has given us.
    pub(crate) fn new(
        shared: Arc<Shared>,
        saga: SagaId,
        loaded: Loaded,
        withheld: HashSet<String>,
    ) -> Result<Self, Error> {
        let mut state = State::fold(saga.clone(), &loaded.entries)
            .map_err(|error| Error::Unreadable(error.to_string()))?;
        // What the fold made of the ledger is what is written there.
        state.ledger.take_changed();
        let waits = state.gate_waits();
        let mut executor = Self {
            shared,
            saga,
            epoch: loaded.epoch,
            state,
            function: Function::absent(),
            in_flight: HashSet::new(),
            calls: JoinSet::new(),
            turn: Turn::default(),
            nudge: Nudge::default(),
            unkept: BTreeMap::new(),
            waits,
            waiting_letters: Vec::new(),
            has_unreadable: false,
            has_unread_inbox: false,
            withheld,
            has_mail: loaded.has_mail,
            reload: false,
            is_due_at_once: true,
            idle_turns: 0,
            early_until: None,
        };
        executor.replay(&loaded.entries, loaded.may_begin);
        Ok(executor)
    }

    /// Brings the saga's function to where its journal ends: one recorded outcome, one poll.
    fn replay(&mut self, entries: &[Entry], may_begin: bool) {
        self.look_for_worker();
        if self.state.unwinding.is_some() || self.state.ended.is_some() {
            return;
        }
        if !self.state.has_begun() {
            let start_at = self.state.start_at.filter(|at| *at > self.shared.env.now());
            self.early_until = start_at.or((!may_begin).then_some(Timestamp(i64::MAX)));
        }
        if self.early_until.is_some() {
            return;
        }
        // What it will yield is in its journal already; it waits for the saga that called it.
        if self.state.offered.is_some() {
            return;
        }
        let (name, version) = &self.state.workflow;
        let Some(workflow) = self.shared.registry.find_workflow(name, *version) else {
            if self.state.parked.is_none() {
                let detail = format!("no worker here offers {name} version {version}");
                self.record(Event::Parked { attention: Attention::NoWorker, detail });
            }
            return;
        };
        self.function = Function::replay(workflow, &self.state, entries);
        self.note_divergence();
    }

    /// What nobody offered before this process may.
    fn look_for_worker(&mut self) {
        let is_without = matches!(self.state.parked, Some((Attention::NoWorker, _)));
        if is_without && self.state.paused.is_none() && self.state.ended.is_none() && self.offers_all() {
            self.record(Event::Resumed { actor: None });
        }
    }

    /// Whether this process offers its workflow, while that still has something to say, and the activities of all
    /// steps that may be called again.
    fn offers_all(&self) -> bool {
        let registry = &self.shared.registry;
        let (name, version) = &self.state.workflow;
        let goes_on = self.state.unwinding.is_some() || registry.find_workflow(name, *version).is_some();
        let may_be_called = |step: &&Step| {
            !matches!(step.phase, Phase::Completed | Phase::Undone | Phase::Refused | Phase::Skipped(_))
                || step.is_left() && self.state.goes_back(&step.key)
        };
        goes_on
            && self.state.steps().iter().filter(may_be_called).all(|step| {
                step.asked.as_ref().filter(|asked| asked.child.is_none()).is_none_or(|asked| {
                    match asked.local {
                        Some(_) => registry.find_local(&asked.activity).is_some(),
                        None => registry.find_activity(&asked.activity).is_some(),
                    }
                })
            })
    }

    /// Drives the saga until it rests.
    pub(crate) async fn drive(mut self, poke: &tokio::sync::Notify) -> Stop {
        loop {
            if self.shared.is_draining() {
                return self.drain().await;
            }
            // It may have been loaded at its end, when the answer of the append that ended it was lost.
            if self.state.ended.is_some() {
                return Stop::Rest;
            }
            if let Err(stop) = self.turn().await {
                return stop;
            }
            if self.state.ended.is_some() {
                return Stop::Rest;
            }
            if self.reload {
                return Stop::Reload;
            }
            let now = self.shared.env.now();
            match self.early_until {
                Some(until) if until <= now => return Stop::Reload,
                Some(until) => {
                    // A letter that it does not read before it begins, or cannot, would wake it again at once, for ever.
                    if !self.waiting_letters.is_empty() || self.has_unread_inbox {
                        tokio::select! {
                            biased;
                            () = self.shared.draining() => {}
                            () = self.shared.env.sleep(until.since(now).min(UNBEGUN)) => {}
                        }
                    }
                    return Stop::Rest;
                }
                None => {}
            }
            let mut wait = self.state.due_at().map(|due| due.since(now));
            if self.in_flight.is_empty() && self.idle_turns > IDLE_TURNS_MAX && wait == Some(Duration::ZERO) {
                // A fault of the engine's own: it is said, and costs no processor.
                tracing::error!(saga = %self.saga, state = %self.state.state(), "due, and nothing to be done");
                debug_assert!(false, "saga {}: due, and nothing to be done", self.saga);
                wait = Some(CROWDED);
            }
            let long = if self.shared.is_crowded() { CROWDED } else { IDLE };
            if self.in_flight.is_empty() && !self.has_mail && wait.is_none_or(|wait| wait > long) {
                return self.rest().await;
            }
            // An answer, a letter or the time: whatever comes first begins the next turn.
            let wait = if self.in_flight.is_empty() { wait.unwrap_or(IDLE) } else { self.next_wait(now) };
            let wait = match (self.has_unread_inbox, self.has_mail) {
                (true, _) => READ_AGAIN,
                (false, true) => wait.min(READ_AGAIN),
                (false, false) => wait,
            };
            let may_rest = self.in_flight.is_empty() && !self.has_mail && wait > CROWDED;
            tokio::select! {
                biased;
                Some(answer) = self.calls.join_next(), if !self.calls.is_empty() => self.take(answer),
                () = poke.notified() => self.has_mail = true,
                () = self.shared.env.sleep(wait.min(IDLE)) => {}
                () = self.shared.draining() => {}
                () = self.shared.crowded(), if may_rest => {}
            }
            while let Some(answer) = self.calls.try_join_next() {
                self.take(answer);
            }
        }
    }

    /// Hands the saga back, with the row saying when it is next due.
    async fn rest(&mut self) -> Stop {
        // A letter that it does not read yet would have it taken up again at once.
        let passed_over = std::mem::take(&mut self.waiting_letters);
        if self.is_due_at_once || !passed_over.is_empty() {
            let now = self.shared.env.now();
            let mut row_alone = writing::build(&mut self.state, self.epoch, Vec::new(), Beside::default());
            row_alone.row.attention = self.state.attention_at(now);
            self.add_unreadable(&mut row_alone.row.attention);
            row_alone.row.due_at = writing::due_at(&self.state, now);
            row_alone.passed_over = passed_over;
            if let Err(stop) = writing::write(&self.shared.clone(), &Arc::new(row_alone)).await {
                return stop;
            }
        }
        Stop::Rest
    }

    /// When something besides the calls under way is next due.
    fn next_wait(&self, now: Timestamp) -> Duration {
        let due = self
            .state
            .paused
            .as_ref()
            .map(|(until, _)| *until)
            .or_else(|| self.state.next_due(|step| self.in_flight.contains(step)));
        due.map_or(IDLE, |due| due.since(now).max(Duration::from_millis(1)))
    }

    /// No new attempts; what is under way may end, within limits, and is recorded.
    async fn drain(mut self) -> Stop {
        let limit = self.shared.env.time_limit(DRAIN);
        let _ = tokio::time::timeout(limit, async {
            while let Some(answer) = self.calls.join_next().await {
                self.take(answer);
            }
        })
        .await;
        // What was taken is durable before the lease goes; what was not is in doubt, as after a crash.
        let _ = self.append(true).await;
        Stop::Rest
    }

    /// Reads from the ledger until when a lost call to these objects, of whichever saga, may still take effect. What
    /// cannot be read is asked again in a while, ever more slowly, and nothing is written to it before; that it cannot
    /// for long is trouble of the engine.
    async fn read_unsettled(&mut self, objects: Vec<Object>) {
        for object in objects {
            let now = self.shared.env.now();
            let filter =
                ResourceFilter { unsettled: Some((object.clone(), now)), ..ResourceFilter::default() };
            let Object { provider, kind, id } = &object;
            let what = format!("the ledger cannot be read for the {provider} {kind} {id:?}");
            let until = match self.shared.store.resources(filter).await {
                Ok(rows) => {
                    self.shared.trouble.went_well(&what);
                    rows.into_iter()
                        .filter(|row| row.holder != self.saga.as_str())
                        .filter_map(|row| row.unsettled_until)
                        .max()
                }
                Err(error) => {
                    tracing::debug!(saga = %self.saga, %error, "the ledger could not be read");
                    self.shared.trouble.failed(&what, error.to_string(), &self.shared.env);
                    Some(now.plus(self.read_ledger_again(&object)))
                }
            };
            self.turn.unsettled.insert(object, until);
        }
    }

    /// How long until the ledger is read again for an object: each time an entry says so, so that it is twice as long as
    /// before.
    fn read_ledger_again(&self, object: &Object) -> Duration {
        let is_of = |step: &&Step| self.state.objects_of(step).contains(object);
        let before = self.state.steps().iter().filter(is_of).filter_map(|step| step.waits_out).max();
        let before = before.map_or(Duration::ZERO, |(since, until)| until.since(since));
        before.saturating_mul(2).clamp(READ_AGAIN, READ_LEDGER_MAX)
    }

    /// Gives the function what has happened, and decides what follows from that, until nothing more does.
    async fn begin_what_is_due(&mut self) {
        loop {
            let before = (self.turn.entries.len(), self.function.asks.len());
            self.accept_asks();
            self.act();
            self.finish();
            if (self.turn.entries.len(), self.function.asks.len()) != before {
                continue;
            }
            // What is not in hand is asked for once.
            let to_ask = std::mem::take(&mut self.turn.to_ask);
            let to_read = std::mem::take(&mut self.turn.to_read);
            if to_ask.is_empty() && to_read.is_empty() {
                break;
            }
            self.read_unsettled(to_read).await;
            let gates = &self.shared.gates;
            let asks = to_ask.into_iter().map(async |(step, passing)| (step, gates.ask(passing).await));
            self.turn.gates_said.extend(futures::future::join_all(asks).await);
        }
    }

    async fn turn(&mut self) -> Result<(), Stop> {
        let mut is_unread = false;
        let opened = self.turn.consumed.len();
        if std::mem::take(&mut self.has_mail) {
            match self.read_letters().await {
                Ok(()) if !self.has_unread_inbox => {}
                Ok(()) => {
                    self.has_unread_inbox = false;
                    self.shared.trouble.went_well(&unread_inbox(&self.saga));
                }
                Err(error) => {
                    let what = unread_inbox(&self.saga);
                    self.shared.trouble.failed(&what, error.to_string(), &self.shared.env);
                    (is_unread, self.has_unread_inbox) = (true, true);
                }
            }
        }
        // In an inbox that could not be read there may be a pause, or a cancel: nothing is begun before that is known.
        // What was opened before it could not be read on is acted on at once, as it is written at once.
        if !is_unread || self.turn.consumed.len() > opened {
            self.begin_what_is_due().await;
        }
        // A permit that nobody needs any more is given back.
        self.turn.gates_said.clear();
        self.nudge = Nudge::default();
        let is_idle = self.turn.entries.is_empty() && self.turn.launches.is_empty();
        self.idle_turns = if is_idle && !is_unread { self.idle_turns + 1 } else { 0 };
        let launches = std::mem::take(&mut self.turn.launches);
        let (mut calls, mut locals) = (Vec::new(), Vec::new());
        for launch in launches {
            match launch {
                Launch::Call(outgoing) => calls.push(outgoing),
                Launch::Apply(step) => locals.push((step, false)),
                Launch::Revert(step) => locals.push((step, true)),
            }
        }
        // The turn rides in the first transaction, if there is one.
        let transacted = !locals.is_empty();
        for (local, reverts) in &locals {
            self.transact(local, *reverts).await?;
        }
        if !transacted {
            // A letter that was passed over makes the saga due no more, and what now waits for it may be in this append:
            // whoever loads the saga next, should this process die here, has to look.
            let is_to_look = self.has_mail && !self.waiting_letters.is_empty();
            self.append(is_to_look).await?;
        }
        calls.into_iter().for_each(|call| self.launch(call));
        if transacted || self.has_mail {
            self.has_mail |= is_unread;
            return Box::pin(self.turn()).await;
        }
        // The letters are still there, and are asked for again in a while.
        self.has_mail = is_unread;
        Ok(())
    }
}

//! The executor: one saga, one lease; replays it, drives it forward, and turns it round.
//!
//! A turn takes what has happened (answers, letters, time), gives it to the saga's function, adds what the
//! function asks for and what unwinding needs, and appends all of it at once. Only after that commit do
//! calls leave.

mod actions;
mod asks;
mod calls;
mod function;
mod inbox;
mod writing;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::Value;
use tokio::task::JoinSet;

use super::Shared;
use crate::activity::{Failure, Found};
use crate::env::Timestamp;
use crate::ids::{SagaId, StepKey};
use crate::journal::event::Event;
use crate::journal::state::{Attention, Phase};
use crate::journal::{Entry, State};
use crate::saga::{Ask, Saga};
use crate::secret::Sealed;
use crate::store::tx::Beside;
use crate::store::{Error, GateRow};

/// A saga whose next due time is further away than this is put down.
const IDLE: Duration = Duration::from_secs(60);
/// How long a shut-down waits for calls that are under way.
const DRAIN: Duration = Duration::from_secs(20);

/// What a call came to.
enum Outcome {
    Executed(Result<Value, Failure>),
    Found(Result<Found<Value>, Failure>),
    Compensated(Result<(), Failure>),
}

struct Answer {
    step: StepKey,
    outcome: Outcome,
    external_id: Option<String>,
    sealed: Vec<Sealed>,
    gates: Vec<String>,
}

/// A call to make once its intent is durable.
enum Launch {
    Execute(StepKey),
    Find(StepKey),
    Compensate(StepKey),
    Apply(StepKey),
    Revert(StepKey),
}

/// Why an executor stops.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The saga has ended, or has nothing to do for a while.
    Rest,
    /// Another may have written: the saga has to be loaded again.
    Reload,
}

/// What one turn will append.
#[derive(Default)]
struct Turn {
    entries: Vec<Entry>,
    sealed: Vec<Sealed>,
    consumed: Vec<String>,
    gates: Vec<GateRow>,
    launches: Vec<Launch>,
}

pub(crate) struct Executor {
    shared: Arc<Shared>,
    saga: SagaId,
    epoch: i64,
    state: State,
    context: Saga,
    function: Option<BoxFuture<'static, crate::saga::Result<Value>>>,
    /// What the function came to, until what is still under way is settled.
    returned: Option<crate::saga::Result<Value>>,
    in_flight: HashSet<StepKey>,
    calls: JoinSet<Answer>,
    /// What the function asked for and what is not in the journal yet.
    asks: Vec<Ask>,
    turn: Turn,
    nudged: bool,
    /// A letter lies in the inbox that nothing waits for yet.
    has_waiting_letters: bool,
    /// The inbox is to be looked into again at once.
    reread: bool,
    /// A person wants a parked saga tried again: it is replayed.
    reload: bool,
    /// The row says that it is due now: what follows from its last entry is not written yet.
    is_due_at_once: bool,
}

impl Executor {
    /// Loads a saga under the lease that the store has given us.
    pub(crate) async fn load(shared: Arc<Shared>, saga: SagaId) -> Result<Self, Error> {
        let loaded = shared.store.load(&saga).await?;
        let mut state = State::fold(saga.clone(), &loaded.entries)
            .map_err(|error| Error::Unreadable(error.to_string()))?;
        // What the fold made of the ledger is what is written there.
        state.ledger.take_changed();
        let mut executor = Self {
            shared,
            saga,
            epoch: loaded.epoch,
            state,
            context: Saga::new(),
            function: None,
            returned: None,
            in_flight: HashSet::new(),
            calls: JoinSet::new(),
            asks: Vec::new(),
            turn: Turn::default(),
            nudged: false,
            has_waiting_letters: false,
            reread: false,
            reload: false,
            is_due_at_once: true,
        };
        executor.replay(&loaded.entries);
        Ok(executor)
    }

    /// Brings the saga's function to where its journal ends: one recorded outcome, one poll.
    fn replay(&mut self, entries: &[Entry]) {
        if self.state.unwinding.is_some() || self.state.ended.is_some() {
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
        self.function = Some(workflow.run(self.context.clone(), self.state.input.clone()));
        self.poll();
        for entry in entries {
            self.tell(&entry.event);
        }
    }

    /// Drives the saga until it rests.
    pub(crate) async fn drive(mut self, poke: &tokio::sync::Notify) -> Stop {
        loop {
            if self.shared.is_draining() {
                return self.drain().await;
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
            let wait = self.state.due_at().map(|due| due.since(now));
            if self.in_flight.is_empty() && !self.has_waiting_letters && wait.is_none_or(|wait| wait > IDLE) {
                return self.rest().await;
            }
            // An answer, a letter or the time: whatever comes first begins the next turn.
            let wait = if self.in_flight.is_empty() { wait.unwrap_or(IDLE) } else { self.next_wait(now) };
            tokio::select! {
                Some(answer) = self.calls.join_next(), if !self.calls.is_empty() => self.take(answer),
                () = poke.notified() => {}
                () = self.shared.env.sleep(wait.min(IDLE)) => {}
                () = self.shared.draining() => {}
            }
            while let Some(answer) = self.calls.try_join_next() {
                self.take(answer);
            }
        }
    }

    /// Hands the saga back, with the row saying when it is next due.
    async fn rest(&mut self) -> Stop {
        if self.is_due_at_once {
            let row_alone = writing::build(&mut self.state, self.epoch, Vec::new(), Beside::default());
            if let Err(error) = self.shared.store.append(row_alone).await {
                tracing::warn!(saga = %self.saga, %error, "the saga's next time could not be written");
                return Stop::Reload;
            }
        }
        Stop::Rest
    }

    /// When something besides the calls under way is next due.
    fn next_wait(&self, now: Timestamp) -> Duration {
        let idle = self.state.steps().iter().filter(|step| !self.in_flight.contains(&step.key));
        let due = idle.filter_map(|step| match step.phase {
            Phase::Deferred { retry_at } => Some(retry_at),
            Phase::InDoubt { look_at } => Some(look_at),
            Phase::Waiting { due_at, .. } => Some(due_at),
            Phase::Removing { due_at, .. } => Some(due_at),
            _ => None,
        });
        let turns =
            self.state.deadline_at.filter(|_| self.state.pivot.is_none() && self.state.unwinding.is_none());
        due.chain(turns).min().map_or(IDLE, |due| due.since(now).max(Duration::from_millis(1)))
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

    async fn turn(&mut self) -> Result<(), Stop> {
        if self.read_letters().await.is_err() {
            // The letters are still there; the next turn asks again.
            self.has_waiting_letters = true;
        }
        loop {
            let before = self.turn.entries.len();
            self.accept_asks();
            self.act();
            self.finish();
            if self.turn.entries.len() == before && self.asks.is_empty() {
                break;
            }
        }
        self.nudged = false;
        let launches = std::mem::take(&mut self.turn.launches);
        // A transaction has no intent of its own in the journal, so the row says that there is more to do.
        let transacts = launches.iter().any(|launch| matches!(launch, Launch::Apply(_) | Launch::Revert(_)));
        self.append(transacts).await?;
        let mut transacted = false;
        for launch in launches {
            match launch {
                Launch::Apply(key) => {
                    self.transact(&key, false).await?;
                    transacted = true;
                }
                Launch::Revert(key) => {
                    self.transact(&key, true).await?;
                    transacted = true;
                }
                call => self.launch(call),
            }
        }
        if transacted || std::mem::take(&mut self.reread) { Box::pin(self.turn()).await } else { Ok(()) }
    }
}

//! The engine: build it, start sagas, look at them, act on them, stop it.

use std::sync::Arc;

use crate::activity::{Failure, Local, Registry};
use crate::env::Env;
use crate::ids::{OperationId, SagaId};
use crate::journal::{Entry, State};
use crate::saga::Workflow;
use crate::secret::Vault;
use crate::store::tx::{Beside, Tx};
use crate::store::{
    Act, Error, Letter, Loose, LooseJob, Message, NewSaga, ResourceFilter, ResourceRow, SagaFilter, SagaRow,
    Started, Store,
};
use crate::worker::{self, Shared};

/// How long a waiting caller may miss a write that another process made.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(250);

/// A running engine. Clones share it.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    worker: Arc<std::sync::Mutex<Option<tokio::task::JoinHandle<()>>>>,
}

/// All that is known of one saga.
#[derive(Debug, Clone)]
pub struct SagaView {
    /// Its row.
    pub row: SagaRow,
    /// Its journal, folded.
    pub state: State,
    /// Its journal.
    pub entries: Vec<Entry>,
    /// The ledger rows it made or holds, as they are now, whoever holds them.
    pub resources: Vec<ResourceRow>,
}

/// Why an act on a saga was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// There is no such saga.
    #[error("there is no saga {0}")]
    NoSuchSaga(SagaId),
    /// It has ended, or is past the point where the act could do anything.
    #[error("saga {saga} is {state}: {problem}")]
    TooLate {
        /// Which.
        saga: SagaId,
        /// Where it stands.
        state: crate::journal::state::SagaState,
        /// Why the act cannot be done.
        problem: &'static str,
    },
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] Error),
}

impl Engine {
    /// An engine over this store, and its worker. Must be called inside a tokio runtime.
    pub fn start(
        store: Arc<dyn Store>,
        vault: Vault,
        registry: Registry,
        env: Env,
        environment: &str,
    ) -> Self {
        let shared = Arc::new(Shared::new(store, registry, env, environment.to_owned(), vault));
        let worker = tokio::spawn(worker::run(shared.clone()));
        Self { shared, worker: Arc::new(std::sync::Mutex::new(Some(worker))) }
    }

    /// The clock and the dice.
    pub fn env(&self) -> &Env {
        &self.shared.env
    }

    /// The store, for reads of one's own tables.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }

    /// A saga of this workflow, to be started; repeated under the same key it is the same saga.
    pub fn new_saga<W: Workflow>(
        &self,
        key: impl Into<String>,
        input: &W::Input,
    ) -> Result<NewSaga, serde_json::Error> {
        NewSaga::of::<W>(&self.shared.env, key, input)
    }

    /// Starts a saga. It is durable when this answers.
    pub async fn begin(&self, new: NewSaga) -> Result<Started, Error> {
        self.shared.store.start(new).await
    }

    /// Runs a local activity by itself, in a transaction that belongs to no saga: sagas it starts are started
    /// with what it writes, or not at all.
    pub async fn transact<L: Local>(&self, local: L) -> Result<L::Output, Error> {
        let shared = self.shared.clone();
        let local = Arc::new(local);
        let job: LooseJob = Arc::new(move |statements| {
            let (shared, local) = (shared.clone(), local.clone());
            Box::pin(async move {
                let saga = SagaId::from_uuid(shared.env.uuid());
                let step = crate::ids::StepKey::from(L::NAME);
                let mut tx = Tx {
                    saga: &saga,
                    step: &step,
                    env: &shared.env,
                    vault: &shared.outside.vault,
                    statements,
                    beside: Beside::default(),
                };
                let output = local.apply(&mut tx).await?;
                let mut beside = tx.beside;
                let output = serde_json::to_value(output)
                    .map_err(|error| Failure::refused("unreadable", error.to_string()))?;
                let at = shared.env.now();
                let letters = std::mem::take(&mut beside.posts)
                    .into_iter()
                    .enumerate()
                    .map(|(number, post)| Letter {
                        id: format!("{saga}:{number}"),
                        saga: post.saga,
                        message: post.message,
                        at,
                    })
                    .collect();
                Ok(Loose { output, beside, letters })
            })
        });
        let (output, posted) = self.shared.store.run(job).await?;
        for saga in posted {
            self.shared.poke(&saga);
        }
        serde_json::from_value(output).map_err(|error| Error::Unreadable(error.to_string()))
    }

    /// A saga's row.
    pub async fn row(&self, saga: &SagaId) -> Result<Option<SagaRow>, Error> {
        self.shared.store.saga(saga).await
    }

    /// All that is known of one saga.
    pub async fn view(&self, saga: &SagaId) -> Result<Option<SagaView>, Error> {
        let Some(row) = self.shared.store.saga(saga).await? else { return Ok(None) };
        let entries = self.shared.store.journal(saga).await?;
        let state = State::fold(saga.clone(), &entries)
            .map_err(|error| Error::Unreadable(format!("saga {saga}: {error}")))?;
        let filter =
            ResourceFilter { holder: Some(saga.to_string()), limit: 1000, ..ResourceFilter::default() };
        let resources = self.shared.store.resources(filter).await?;
        Ok(Some(SagaView { row, state, entries, resources }))
    }

    /// A page of sagas, newest first.
    pub async fn sagas(&self, filter: SagaFilter) -> Result<Vec<SagaRow>, Error> {
        self.shared.store.sagas(filter).await
    }

    /// A page of the ledger, newest first.
    pub async fn resources(&self, filter: ResourceFilter) -> Result<Vec<ResourceRow>, Error> {
        self.shared.store.resources(filter).await
    }

    /// Tries now what the saga would try again later.
    pub async fn retry(&self, saga: &SagaId, actor: &str, reason: &str) -> Result<OperationId, ActError> {
        self.act(saga, Act::Retry, actor, reason).await
    }

    /// Turns the saga round: what it did is undone. Refused past its pivot.
    pub async fn cancel(&self, saga: &SagaId, actor: &str, reason: &str) -> Result<OperationId, ActError> {
        self.act(saga, Act::Cancel, actor, reason).await
    }

    async fn act(&self, saga: &SagaId, act: Act, actor: &str, reason: &str) -> Result<OperationId, ActError> {
        let row = self.shared.store.saga(saga).await?.ok_or_else(|| ActError::NoSuchSaga(saga.clone()))?;
        if row.state.is_ended() {
            let problem = "it has ended";
            return Err(ActError::TooLate { saga: saga.clone(), state: row.state, problem });
        }
        if act == Act::Cancel {
            let state = self.shared.store.journal(saga).await?;
            let state =
                State::fold(saga.clone(), &state).map_err(|error| Error::Unreadable(error.to_string()))?;
            let problem = match (&state.pivot, &state.unwinding) {
                (Some(_), _) => Some("it is past its pivot and can only go forward"),
                (None, Some(_)) => Some("it is being undone already"),
                (None, None) => None,
            };
            if let Some(problem) = problem {
                return Err(ActError::TooLate { saga: saga.clone(), state: row.state, problem });
            }
        }
        let operation = OperationId::from_uuid(self.shared.env.uuid());
        let (actor, reason) = (actor.to_owned(), reason.to_owned());
        let message = Message::Act { operation: operation.clone(), act, actor, reason };
        self.post(operation.to_string(), saga, message).await?;
        Ok(operation)
    }

    /// Leaves a signal for a saga; the same id again changes nothing.
    pub async fn signal(
        &self,
        saga: &SagaId,
        id: &str,
        name: &str,
        value: serde_json::Value,
    ) -> Result<(), Error> {
        self.post(id.to_owned(), saga, Message::Signal { name: name.to_owned(), value }).await
    }

    async fn post(&self, id: String, saga: &SagaId, message: Message) -> Result<(), Error> {
        let letter = Letter { id, saga: saga.clone(), message, at: self.shared.env.now() };
        self.shared.store.post(letter).await?;
        self.shared.poke(saga);
        Ok(())
    }

    /// Waits until the saga's row changes from `seen`, or has ended, or the time is up; the row as it is then.
    pub async fn wait(
        &self,
        saga: &SagaId,
        limit: std::time::Duration,
        until: impl Fn(&SagaRow) -> bool,
    ) -> Result<Option<SagaRow>, Error> {
        let deadline = self.shared.env.now().plus(limit);
        let watch = self.shared.watch(saga);
        loop {
            // Before the row is read, so that no write falls between.
            let written = watch.notified();
            tokio::pin!(written);
            written.as_mut().enable();
            let row = self.shared.store.saga(saga).await?;
            let now = self.shared.env.now();
            if row.as_ref().is_none_or(|row| row.state.is_ended() || until(row)) || now >= deadline {
                return Ok(row);
            }
            tokio::select! {
                () = written => {}
                () = self.shared.env.sleep(LOOK_AGAIN.min(deadline.since(now))) => {}
            }
        }
    }

    /// Stops taking new attempts, lets calls under way end, records them, hands the leases back, and closes.
    pub async fn stop(&self) {
        self.shared.drain();
        let worker = self.worker.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(worker) = worker {
            let _ = worker.await;
        }
        self.shared.store.close().await;
    }

    /// Stops at once, as a crash would: nothing more is recorded.
    pub fn abort(&self) {
        let worker = self.worker.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(worker) = worker {
            worker.abort();
        }
    }
}

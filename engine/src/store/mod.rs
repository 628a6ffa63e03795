//! The store: the few promises a database makes to the engine.
//!
//! A store keeps, for each saga, one row and one journal; beside them the ledger, sealed secrets, inboxes,
//! gates and the audit of acts. Whatever belongs together is written together: an [`Append`] is one
//! transaction, fenced by the epoch of the lease under which it is made.

pub mod lease;
pub mod memory;
pub mod open;
mod page;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod sqlite;
pub mod tx;
mod user_sql;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::open::{Migrations, OpenError};
use crate::env::{Env, Timestamp};
use crate::gate::{GateState, GateWait, Lane, Queue, Why};
use crate::ids::{InstallationId, OperationId, ResourceId, SagaId, SecretRef, StepKey};
use crate::journal::act::Act;
use crate::journal::event::{ChildFate, Parent, closed_set};
use crate::journal::failure::{Failure, Refusal};
use crate::journal::state::{Attention, SagaState};
use crate::journal::{Entry, Event};
use crate::saga::{Progress, Workflow};
use crate::secret::Sealed;

closed_set! {
    /// Where a resource stands.
    ResourceState {
        /// It is about to be made.
        Intended,
        /// It is there.
        Live,
        /// It may be there.
        InDoubt,
        /// It is being taken away.
        Removing,
        /// It is gone, or was never made.
        Gone,
    }
}

/// One thing that exists, or may exist, outside by our doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceRow {
    /// The row's own id.
    pub id: ResourceId,
    /// Who holds it, as `railway`.
    pub provider: String,
    /// What it is, as `project`.
    pub kind: String,
    /// The name or tag by which it is found again.
    pub name: String,
    /// The provider's id, once known.
    pub external_id: Option<String>,
    /// Where it stands.
    pub state: ResourceState,
    /// Who alone writes this row: a saga, or the owner it was handed to.
    pub holder: String,
    /// Who gets it when its saga ends, if not the saga's owner.
    pub keeper: Option<String>,
    /// The saga that made it.
    pub saga: SagaId,
    /// The step that made it.
    pub step: StepKey,
    /// The row in which it lives, and with which it goes.
    pub within: Option<ResourceId>,
    /// Raised by every change.
    pub rev: i64,
    /// When it was named.
    pub intended_at: Timestamp,
    /// When it last changed.
    pub changed_at: Timestamp,
}

/// A ledger row to write, and what must be stored for the write to be right.
#[derive(Debug, Clone, PartialEq)]
pub struct ResourceWrite {
    /// As it shall be.
    pub row: ResourceRow,
    /// Holder and `rev` as they must be; nothing for a new row.
    pub stored: Option<(String, i64)>,
}

/// What a list or a page shows of a saga, kept beside its journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SagaRow {
    /// Which.
    pub id: SagaId,
    /// Its definition.
    pub workflow: String,
    /// And that one's version.
    pub workflow_version: u32,
    /// Where it stands.
    pub state: SagaState,
    /// What a person should know.
    pub attention: Vec<Attention>,
    /// The step that it is at.
    pub step: Option<String>,
    /// Its last failure, in words.
    pub error: Option<String>,
    /// What groups its trouble with that of other sagas.
    pub fingerprint: Option<String>,
    /// How far it says that it is; a write without it leaves it as it was.
    pub progress: Option<Progress>,
    /// The saga that called it.
    pub parent: Option<SagaId>,
    /// For lists.
    pub labels: BTreeMap<String, String>,
    /// When it turns round by itself.
    pub deadline_at: Option<Timestamp>,
    /// When something is next to be done; nothing while it is parked or ended.
    pub due_at: Option<Timestamp>,
    /// The number of the lease.
    pub epoch: i64,
    /// The number of its last journal entry.
    pub seq: i64,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its journal last grew.
    pub updated_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// A saga to be started.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSaga {
    /// Its id.
    pub id: SagaId,
    /// Its definition.
    pub workflow: String,
    /// And that one's version.
    pub workflow_version: u32,
    /// What it is asked for.
    pub input: Value,
    /// A start repeated under the same key is the same saga.
    pub key: String,
    /// When it turns round by itself if it has not passed its pivot.
    pub deadline_at: Option<Timestamp>,
    /// For lists.
    pub labels: BTreeMap<String, String>,
    /// Higher ones are begun first; 0 if not set.
    pub priority: i32,
    /// Before this it does not begin.
    pub start_at: Option<Timestamp>,
    /// Under which key only so many run at a time.
    pub concurrency: Option<Concurrency>,
    /// The saga that called it.
    pub parent: Option<Parent>,
    /// When it was asked for.
    pub at: Timestamp,
    /// Secrets that came with it.
    pub sealed: Vec<Sealed>,
}

/// A bound on how many sagas run at a time: those above it wait in the queue, by priority and age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concurrency {
    /// What they have in common, as `customer-7`.
    pub key: String,
    /// How many of them may run.
    pub limit: u32,
}

impl NewSaga {
    /// A saga of this workflow; a start repeated under the same `key` is the same saga.
    pub fn of<W: Workflow>(
        env: &Env,
        key: impl Into<String>,
        input: &W::Input,
    ) -> Result<Self, serde_json::Error> {
        let id = SagaId::from_uuid(env.uuid());
        Ok(Self { key: key.into(), ..Self::raw(env, id, W::NAME, W::VERSION, serde_json::to_value(input)?) })
    }

    /// A saga of a workflow that is known by name alone, under its own id as its key.
    pub fn raw(env: &Env, id: SagaId, workflow: &str, workflow_version: u32, input: Value) -> Self {
        Self {
            key: id.to_string(),
            id,
            workflow: workflow.to_owned(),
            workflow_version,
            input,
            deadline_at: None,
            labels: BTreeMap::new(),
            priority: 0,
            start_at: None,
            concurrency: None,
            parent: None,
            at: env.now(),
            sealed: Vec::new(),
        }
    }

    /// The first entry of its journal.
    pub fn started(&self) -> Event {
        Event::SagaStarted {
            workflow: self.workflow.clone(),
            workflow_version: self.workflow_version,
            input: self.input.clone(),
            deadline_at: self.deadline_at,
            labels: self.labels.clone(),
            start_at: self.start_at,
            parent: self.parent.clone(),
        }
    }

    /// Higher priorities are begun first; 0 if not set.
    #[must_use]
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// Begins this long after it was asked for, as this engine's pace has it.
    #[must_use]
    pub fn delayed(mut self, env: &Env, wait: Duration) -> Self {
        self.start_at = Some(self.at.plus(env.paced(wait)));
        self
    }

    /// Of those started with this key, `limit` run at a time; the others wait in the queue.
    #[must_use]
    pub fn one_of(mut self, key: impl Into<String>, limit: u32) -> Self {
        self.concurrency = Some(Concurrency { key: key.into(), limit: limit.max(1) });
        self
    }

    /// Turns round by itself this long after its start, as this engine's pace has it.
    #[must_use]
    pub fn within(mut self, env: &Env, limit: Duration) -> Self {
        self.deadline_at = Some(self.at.plus(env.paced(limit)));
        self
    }

    /// With a label, for lists.
    #[must_use]
    pub fn labelled(mut self, name: &str, value: impl Into<String>) -> Self {
        self.labels.insert(name.to_owned(), value.into());
        self
    }

    /// What a repeated start must have in common with the first.
    pub fn fingerprint(&self) -> String {
        blake3::hash(format!("{}\n{}", self.workflow, self.input).as_bytes()).to_hex().to_string()
    }
}

/// What a start came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Started {
    /// A new saga.
    New(SagaId),
    /// The same was started before.
    Before(SagaId),
    /// The key was used for something else.
    KeyReused(SagaId),
}

impl Started {
    /// The saga that bears the key, whether it was started now, before, or for something else.
    pub fn saga(&self) -> &SagaId {
        match self {
            Self::New(saga) | Self::Before(saga) | Self::KeyReused(saga) => saga,
        }
    }
}

/// A word left in a saga's inbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Message {
    /// Something it may be waiting for.
    Signal {
        /// Its name.
        name: String,
        /// What it says.
        value: Value,
    },
    /// Try now what you try again later.
    Wake,
    /// The gate at which a step waits lets it go.
    LetGo {
        /// Which gate.
        gate: String,
        /// Which step.
        step: StepKey,
    },
    /// Turn round.
    Cancel {
        /// Who asks.
        actor: String,
        /// Why.
        reason: String,
    },
    /// A child says what became of it.
    ChildEnded {
        /// In which step it was asked for.
        step: StepKey,
        /// Which saga it is.
        child: SagaId,
        /// What became of it.
        fate: ChildFate,
        /// What it yields, if it did what it was asked for.
        output: Option<Value>,
        /// Why it did not.
        refusal: Option<Refusal>,
    },
    /// The saga that called it has ended.
    ParentEnded,
    /// A person's act.
    Act {
        /// Its id.
        operation: OperationId,
        /// What.
        act: Act,
        /// Who.
        actor: String,
        /// Why.
        reason: String,
    },
}

/// A message with its id, unique for ever.
#[derive(Debug, Clone, PartialEq)]
pub struct Letter {
    /// Posting it again under this id changes nothing.
    pub id: String,
    /// To whom.
    pub saga: SagaId,
    /// What.
    pub message: Message,
    /// When.
    pub at: Timestamp,
}

/// What a provider said of a credential with the answer to a call: nothing passes before then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// The credential's gate.
    pub key: String,
    /// Nothing passes before this.
    pub until: Timestamp,
    /// Why, in words.
    pub reason: String,
}

/// A gate as it is stored, and those who stand before it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GateRow {
    /// The credential, or the credential and the operation.
    pub key: String,
    /// Raised by every change; 0 if there is no row yet.
    pub rev: i64,
    /// The latest [`Closing`] since the state was last moved, if any: its time and its reason.
    pub closing: Option<(Timestamp, String)>,
    /// Everything else.
    pub state: GateState,
    /// Who stands before it, counted.
    pub queue: Queue,
}

impl GateRow {
    /// The state with what the provider said last taken into it, as it is now.
    pub fn settled(&self, now: Timestamp) -> GateState {
        let mut state = self.state.clone();
        if let Some((until, reason)) = &self.closing {
            state.close(Why::Provider, Some(*until), reason, now);
        }
        state.tick(&self.queue, now);
        state
    }
}

/// One step of a gate from one state to the next: written as a whole, and only if nobody else moved it meanwhile.
#[derive(Debug, Clone, PartialEq)]
pub struct GateMove {
    /// Which gate.
    pub key: String,
    /// The `rev` of the row that it follows; 0 if there was none.
    pub seen: i64,
    /// Its state from then on, in which any closing is taken in.
    pub state: GateState,
    /// Those it lets go: from `at` on they count as granted, not as waiting.
    pub let_go: Vec<GateWait>,
    /// The letters that tell them.
    pub letters: Vec<Letter>,
    /// When.
    pub at: Timestamp,
}

/// One act of a person on a saga: who, what, why, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditRow {
    /// The act's id.
    pub operation: OperationId,
    /// What.
    pub act: Act,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// Where the saga stood then.
    pub state_before: SagaState,
    /// Where it stood afterwards; nothing until it is settled.
    pub state_after: Option<SagaState>,
    /// `done`, or `too_late` and why; nothing until it is settled.
    pub outcome: Option<String>,
}

/// What came of a person's act, for the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Which.
    pub operation: OperationId,
    /// `done`, or `too_late` and why.
    pub outcome: String,
}

/// All that one turn of a saga writes: one transaction, fenced.
#[derive(Debug, Clone)]
pub struct Append {
    /// The saga, as it shall be; its `epoch` is the fence, and its `seq` the number of the last entry.
    pub row: SagaRow,
    /// What it yielded, when it ends.
    pub output: Option<Value>,
    /// The new entries, the first of which follows the stored `seq`.
    pub entries: Vec<Entry>,
    /// The ledger rows that they change.
    pub resources: Vec<ResourceWrite>,
    /// The secrets that they bring.
    pub sealed: Vec<Sealed>,
    /// The letters that they consume.
    pub consumed: Vec<String>,
    /// What providers said of their credentials; of two closings of one gate the later time stands.
    pub closings: Vec<Closing>,
    /// The steps of this saga that wait at gates, all of them; nothing if they are the same as before.
    pub waits: Option<Vec<GateWait>>,
    /// The sagas that they start.
    pub starts: Vec<NewSaga>,
    /// The letters that they send.
    pub letters: Vec<Letter>,
    /// What came of acts; one that still lies in the inbox of a saga that ends came too late.
    pub settled: Vec<Settled>,
    /// Owners to whom the saga's secrets pass, or nobody's: then they are destroyed.
    pub secrets: SecretFate,
    /// Owners whose secrets are destroyed.
    pub destroyed: Vec<String>,
}

/// What becomes of a saga's secrets with an append.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SecretFate {
    /// They stay the saga's.
    #[default]
    Stay,
    /// They pass to this owner.
    PassTo(String),
    /// They are destroyed.
    Destroyed,
}

/// The part of an append that needs a transaction of its own: user SQL, and the append made of its outcome.
/// Run again from the start if the group it was in has to be.
pub type Job =
    Arc<dyn for<'t> Fn(&'t mut dyn tx::Statements) -> BoxFuture<'t, Result<Append, Failure>> + Send + Sync>;

/// Why something was not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another holds the lease now, or the journal has grown without us.
    #[error("saga {0} is held by another, or its journal has grown: reload it")]
    Fenced(SagaId),
    /// A ledger row is not as this saga knew it.
    #[error("a ledger row of saga {0} was changed by another")]
    LedgerMoved(SagaId),
    /// There is no such saga.
    #[error("there is no saga {0}")]
    NoSuchSaga(SagaId),
    /// The user's part of a transaction did not happen.
    #[error(transparent)]
    Job(#[from] Failure),
    /// The database cannot, just now.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// A row cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// The store is being closed.
    #[error("the store is closed")]
    Closed,
}

/// What a saga's journal held when its lease was taken.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The epoch under which it is now held.
    pub epoch: i64,
    /// The journal.
    pub entries: Vec<Entry>,
    /// Whether its function may begin: not while it waits for a place among those of its concurrency key.
    pub may_begin: bool,
    /// Whether there may be letters for it.
    pub has_mail: bool,
}

/// Which sagas a list shows.
#[derive(Debug, Clone, Default)]
pub struct SagaFilter {
    /// In these states.
    pub states: Vec<SagaState>,
    /// Only with some attention.
    pub attention: bool,
    /// Of this workflow.
    pub workflow: Option<String>,
    /// With this label.
    pub label: Option<(String, String)>,
    /// With this trouble.
    pub fingerprint: Option<String>,
    /// Called by this saga.
    pub parent: Option<SagaId>,
    /// Older than this id (the cursor of the page before).
    pub before: Option<SagaId>,
    /// At most so many.
    pub limit: u32,
}

/// Which ledger rows a list shows.
#[derive(Debug, Clone, Default)]
pub struct ResourceFilter {
    /// In these states.
    pub states: Vec<ResourceState>,
    /// Held by, or made by, this saga or owner.
    pub holder: Option<String>,
    /// At this provider.
    pub provider: Option<String>,
    /// Older than this id.
    pub before: Option<ResourceId>,
    /// At most so many.
    pub limit: u32,
}

/// One append, with the number under which it is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fed {
    /// Given after the append was committed: once a reader has seen this one, none below it will appear.
    pub number: i64,
    /// Whose journal grew.
    pub saga: SagaId,
    /// From this entry.
    pub first_seq: i64,
    /// To this one.
    pub last_seq: i64,
}

/// What a database promises the engine.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Whose database this is.
    fn installation(&self) -> &InstallationId;

    /// Starts a saga, or answers which one was started under its key before.
    async fn start(&self, new: NewSaga) -> Result<Started, Error>;

    /// Writes one turn. All of it or nothing; nothing if the epoch or the `seq` is not the stored one.
    async fn append(&self, append: Arc<Append>) -> Result<(), Error>;

    /// Writes one turn as [`append`](Self::append) does, runs a local activity, and writes the append that it came
    /// to, all in one transaction; that append is answered. When the activity fails, the turn alone is written, and
    /// [`Error::Job`] answered.
    async fn transact(&self, turn: Arc<Append>, job: Job) -> Result<Append, Error>;

    /// Leaves a letter, with the audit of it if it is an act; the same id again changes nothing.
    async fn post(&self, letter: Letter) -> Result<(), Error>;

    /// Sagas that are due or have a letter, and that nobody holds: held from now on.
    async fn claim(&self, now: Timestamp, limit: usize) -> Result<Vec<SagaId>, Error>;

    /// Gives a saga back.
    async fn release(&self, saga: &SagaId) -> Result<(), Error>;

    /// Gives back all that this process holds except these: the answer of a claim or of a release may have been
    /// lost, and what nobody drives and somebody holds would be driven by nobody.
    async fn keep_only(&self, live: &[SagaId]) -> Result<(), Error>;

    /// Renews this process's right to write to the sagas it holds. For how long that is, counted from before it was
    /// asked; nothing if it lasts until the store is closed.
    async fn renew(&self) -> Result<Option<Duration>, Error>;

    /// Those of the sagas held here that have letters which another process may have left.
    async fn mail(&self) -> Result<Vec<SagaId>, Error>;

    /// A held saga's journal.
    async fn load(&self, saga: &SagaId) -> Result<Loaded, Error>;

    /// Says on a saga's row that its journal cannot be read, and why; the journal itself is not touched, and the row
    /// is due as it was. The next append writes what the journal says again.
    ///
    /// What is here is for a store with the engine's tables in SQL; another says it in its own way.
    async fn mark_unreadable(&self, saga: &SagaId, detail: &str) -> Result<(), Error> {
        let (saga, detail) = (saga.clone(), detail.to_owned());
        let job: LooseJob = Arc::new(move |statements| {
            let params = crate::params![&saga, &detail];
            Box::pin(async move {
                let sql = "update saga set attention = '[\"unreadable\"]', error = $2
                   where id = $1 and ended_at is null";
                statements.execute(sql.into(), params).await?;
                Ok(Loose { output: Value::Null, beside: tx::Beside::default(), letters: Vec::new() })
            })
        });
        self.run(job).await.map(drop)
    }

    /// The journals of held sagas, in their order; at once where the store can.
    async fn load_all(&self, sagas: &[SagaId]) -> Vec<Result<Loaded, Error>> {
        let mut all = Vec::with_capacity(sagas.len());
        for saga in sagas {
            all.push(self.load(saga).await);
        }
        all
    }

    /// A saga's letters that are not consumed, in the order of their arrival.
    async fn letters(&self, saga: &SagaId) -> Result<Vec<Letter>, Error>;

    /// Returns when something may have become due: a start, a letter; or after a while.
    async fn changed(&self);

    /// A saga's row.
    async fn saga(&self, saga: &SagaId) -> Result<Option<SagaRow>, Error>;

    /// What a completed saga yielded.
    async fn output(&self, saga: &SagaId) -> Result<Option<Value>, Error>;

    /// A saga's journal, for showing.
    async fn journal(&self, saga: &SagaId) -> Result<Vec<Entry>, Error>;

    /// A page of sagas, newest first.
    async fn sagas(&self, filter: SagaFilter) -> Result<Vec<SagaRow>, Error>;

    /// A page of the ledger, newest first.
    async fn resources(&self, filter: ResourceFilter) -> Result<Vec<ResourceRow>, Error>;

    /// A sealed secret.
    async fn secret(&self, reference: &SecretRef) -> Result<Option<Sealed>, Error>;

    /// The acts on a saga, oldest first.
    async fn audit(&self, saga: &SagaId) -> Result<Vec<AuditRow>, Error>;

    /// Every gate that has a row or at which a step waits, in the order of their keys. In `queue`, those let go after
    /// `granted_since` are `granted`; all others wait, also those let go earlier, who never came.
    async fn gates(&self, granted_since: Timestamp) -> Result<Vec<GateRow>, Error>;

    /// Those who wait at a gate in a lane and were not let go after `granted_since`: at most `limit`, by `since`,
    /// saga and step.
    async fn gate_queue(
        &self,
        key: &str,
        lane: Lane,
        granted_since: Timestamp,
        limit: u32,
    ) -> Result<Vec<GateWait>, Error>;

    /// Moves a gate, if its `rev` is still `moved.seen` (for 0: if it has no row); says whether it was. All in one
    /// transaction: the state is written, `rev` rises by one, the stored closing is taken away, those let go get
    /// the time `at` in their rows as far as they still wait there, and the letters are posted as by
    /// [`post`](Self::post) (one for a saga that there is not is left out).
    ///
    /// An append that brings a [`Closing`] raises `rev` too, so that no move writes over it unseen; it makes the row
    /// if there is none. An append with `waits` makes the rows of its saga in the table of those who wait the same
    /// as these: rows that are not in it go, new ones come, and one that is there with the same gate and `since`
    /// keeps the time at which it was let go.
    async fn move_gate(&self, moved: GateMove) -> Result<bool, Error>;

    /// The appends with a number above this one, in the order of their numbers: each entry of each journal once, a
    /// saga's in their order. An append may have to wait a moment for its number.
    async fn feed(&self, after: i64, limit: u32) -> Result<Vec<Fed>, Error>;

    /// Runs user SQL in a transaction that belongs to no saga, with the starts and letters it asks for; its
    /// output, and the sagas that got a letter.
    async fn run(&self, job: LooseJob) -> Result<(Value, Vec<SagaId>), Error>;

    /// Reads with user SQL.
    async fn fetch(&self, sql: tx::Sql, params: Vec<tx::Param>) -> Result<Vec<tx::Row>, Error>;

    /// Writes what is left to be written, and closes.
    async fn close(&self);
}

/// What a transaction that belongs to no saga came to.
#[derive(Debug)]
pub struct Loose {
    /// What it answers.
    pub output: Value,
    /// What it asks for besides its SQL.
    pub beside: tx::Beside,
    /// The letters it sends.
    pub letters: Vec<Letter>,
}

/// A transaction that belongs to no saga. Run again from the start if the group it was in has to be.
pub type LooseJob =
    Arc<dyn for<'t> Fn(&'t mut dyn tx::Statements) -> BoxFuture<'t, Result<Loose, Failure>> + Send + Sync>;

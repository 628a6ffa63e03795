//! The store: the few promises a database makes to the engine.
//!
//! A store keeps, for each saga, one row and one journal; beside them the ledger, sealed secrets, inboxes,
//! gates, the audit of acts, and the [feed](Store::feed) by which a reader follows all journals. Whatever
//! belongs together is written together: an [`Append`] is one transaction, fenced by the epoch of the lease
//! under which it is made.

mod filter;
mod findings;
mod gate_row;
pub mod lease;
mod letter;
pub(crate) mod limits;
mod lists;
pub mod memory;
mod new_saga;
pub mod open;
mod page;
#[cfg(feature = "postgres")]
pub mod postgres;
mod rows;
pub mod sqlite;
pub mod tx;
mod user_sql;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use serde_json::Value;

pub use self::filter::{ResourceFilter, SagaFilter};
pub use self::gate_row::{Closing, GateMove, GateRow};
pub use self::letter::{Letter, Message};
pub use self::limits::INDEXED_MAX;
pub use self::new_saga::{Concurrency, NewSaga, Started};
pub use self::open::{Migrations, OpenError};
pub use self::rows::{AuditRow, ResourceRow, ResourceState, ResourceWrite, SagaRow, Settled};
use crate::data::Unstorable;
use crate::env::{Env, Timestamp};
use crate::gate::{GateWait, Lane};
use crate::ids::{FindingId, InstallationId, SagaId, SecretRef};
use crate::journal::Entry;
use crate::journal::failure::Failure;
use crate::secret::Sealed;
use crate::sweep::{
    CensusClaim, CensusEnd, CensusRow, FindingFilter, FindingRow, Settled as FindingSettled, Sighting,
};

/// How many letters are read at a time: each may be as large as a value.
pub(crate) const LETTERS_PAGE: u32 = 64;
/// How many letters that are not consumed a saga may have before no signal is taken for it.
pub const UNREAD_MAX: u32 = 10_000;

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
    /// The letters that were read and that nothing waits for: they stay, and make the saga due no more.
    pub passed_over: Vec<String>,
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
    /// It exceeds a limit, or cannot be kept as it is; the same again would too.
    #[error(transparent)]
    Unstorable(#[from] Unstorable),
    /// The database cannot, just now.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The database refuses it, and will refuse it each time: its own words.
    #[error("the database refuses it: {0}")]
    Refused(String),
    /// A text by which things are found is longer than a store takes.
    #[error("{field} is too long: {bytes} bytes, and at most {limit} are taken")]
    TooLong {
        /// Which.
        field: &'static str,
        /// How long it is, in bytes of UTF-8.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// The key of a saga that a turn starts was used for another one.
    #[error("the key of a start was taken by saga {0}")]
    KeyTaken(SagaId),
    /// So many letters wait for the saga that no signal is taken for it until some were read.
    #[error("{most} letters wait for saga {saga}, and no signal is taken until it has read some")]
    InboxFull {
        /// Which saga.
        saga: SagaId,
        /// How many may wait.
        most: u32,
    },
    /// A row cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// The store is being closed.
    #[error("the store is closed")]
    Closed,
}

impl Error {
    /// Whether the same write, tried again, fails again.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::TooLong { .. } | Self::KeyTaken(_) | Self::Unstorable(_))
    }
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

    /// Starts a saga as [`start`](Self::start) does; a new one that is due may be held by this process at once, as if
    /// it had been claimed. Says whether it is. One of a concurrency key or with a time of its own is not.
    async fn start_held(&self, new: NewSaga) -> Result<(Started, bool), Error> {
        Ok((self.start(new).await?, false))
    }

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

    /// A page of a saga's letters that are not consumed, in the order of their arrival: at most `limit`, from the first
    /// on, or those behind the letter of the id `after`. One that cannot be read is [`Message::Unreadable`], and holds
    /// up no other.
    async fn letters_page(
        &self,
        saga: &SagaId,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Letter>, Error>;

    /// All of a saga's letters that are not consumed, as [`letters_page`](Self::letters_page) has them.
    async fn letters(&self, saga: &SagaId) -> Result<Vec<Letter>, Error> {
        let mut all: Vec<Letter> = Vec::new();
        loop {
            let after = all.last().map(|letter| letter.id.clone());
            let page = self.letters_page(saga, after.as_deref(), LETTERS_PAGE).await?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    /// How many of a saga's letters are not consumed; it is not counted beyond `most`.
    async fn unread(&self, saga: &SagaId, most: u32) -> Result<u32, Error>;

    /// What of the store's own work (not of what it was asked for) has failed for a while, in words; nothing while all
    /// is well.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// Returns when something may have become due: a start, a letter; or after a while.
    async fn changed(&self);

    /// A saga's row.
    async fn saga(&self, saga: &SagaId) -> Result<Option<SagaRow>, Error>;

    /// The rows of these sagas, in their order: at once where the store can.
    async fn rows(&self, sagas: &[SagaId]) -> Result<Vec<Option<SagaRow>>, Error> {
        let mut rows = Vec::with_capacity(sagas.len());
        for saga in sagas {
            rows.push(self.saga(saga).await?);
        }
        Ok(rows)
    }

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

    /// The number of the last append that has one; 0 before the first. What lists show has hardly changed while this
    /// has not: only what time alone adds to a row is written without a number.
    async fn feed_head(&self) -> Result<i64, Error>;

    /// Runs user SQL in a transaction that belongs to no saga, with the starts and letters it asks for; its
    /// output, and the sagas that got a letter.
    async fn run(&self, job: LooseJob) -> Result<(Value, Vec<SagaId>), Error>;

    /// Reads with user SQL.
    async fn fetch(&self, sql: tx::Sql, params: Vec<tx::Param>) -> Result<Vec<tx::Row>, Error>;

    /// What is known of each provider's censuses, by provider. This and what follows is for a store with the engine's
    /// tables in SQL.
    async fn censuses(&self) -> Result<Vec<CensusRow>, Error> {
        findings::censuses(self).await
    }

    /// Takes the right to make a provider's census, if it is due and nobody else has it.
    async fn begin_census(&self, claim: CensusClaim) -> Result<Option<CensusRow>, Error> {
        findings::begin_census(self, &claim).await
    }

    /// Writes what a census came to, and gives the right back; says whether whoever made it still had it.
    async fn end_census(&self, end: CensusEnd) -> Result<bool, Error> {
        findings::end_census(self, &end).await
    }

    /// Says that all that the ledger has at a provider may well be absent, for one census; says whether there is a row
    /// of that provider.
    async fn accept_absence(&self, provider: &str, reason: &str) -> Result<bool, Error> {
        findings::accept_absence(self, provider, reason).await
    }

    /// Writes what a census that was begun at `at` saw: new findings, or one more sight of those that are open or
    /// ignored. The same census again is no further sight.
    async fn sighted(
        &self,
        env: &Env,
        provider: &str,
        sightings: &[Sighting],
        at: Timestamp,
    ) -> Result<(), Error> {
        findings::sighted(self, env, provider, sightings, at).await
    }

    /// A page of findings, newest first.
    async fn findings(&self, filter: FindingFilter) -> Result<Vec<FindingRow>, Error> {
        findings::findings(self, &filter).await
    }

    /// Settles a finding that is open, or was ignored; says whether it was.
    async fn settle_finding(&self, id: &FindingId, settled: FindingSettled) -> Result<bool, Error> {
        findings::settle_finding(self, id, &settled).await
    }

    /// Notes which saga removes an orphan; says whether there is such a finding.
    async fn note_removal(&self, id: &FindingId, saga: &SagaId) -> Result<bool, Error> {
        findings::note_removal(self, id, saga).await
    }

    /// Forgets findings that were settled before this; not those that are ignored.
    async fn forget_findings(&self, before: Timestamp) -> Result<(), Error> {
        findings::forget_findings(self, before).await
    }

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

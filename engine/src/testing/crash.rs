//! A store whose process dies at a chosen write: just before it is durable, or just after.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::env::Timestamp;
use crate::gate::{GateWait, Lane};
use crate::ids::InstallationId;
use crate::ids::{SagaId, SecretRef};
use crate::journal::Entry;
use crate::secret::Sealed;
use crate::store::{
    Append, AuditRow, Error, Fed, GateMove, GateRow, Job, Letter, Loaded, LooseJob, NewSaga, ResourceFilter,
    ResourceRow, SagaFilter, SagaRow, Started, Store, tx,
};
use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::Notify;

use crate::store::lease::LEASE;

/// At which of a saga's appends the process dies, counted from 1, and on which side of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// Just before this one is durable.
    Before(usize),
    /// Just after.
    After(usize),
    /// It does not die, but stands still there for four leases, and then writes.
    Stall(usize),
}

/// A store that does what another does, until its process dies.
pub struct CrashingStore {
    inner: Arc<dyn Store>,
    crash: Option<Crash>,
    /// The crash is counted in moves of gates instead.
    at_moves: bool,
    appends: AtomicUsize,
    moves: AtomicUsize,
    is_dead: AtomicBool,
    crashed: Notify,
    stands_still: AtomicBool,
}

impl CrashingStore {
    /// Over this store, dying there, or never.
    pub fn new(inner: Arc<dyn Store>, crash: Option<Crash>) -> Self {
        Self {
            inner,
            crash,
            at_moves: false,
            appends: AtomicUsize::new(0),
            moves: AtomicUsize::new(0),
            is_dead: AtomicBool::new(false),
            crashed: Notify::new(),
            stands_still: AtomicBool::new(false),
        }
    }

    /// As [`new`](Self::new), with the crash at that move of a gate instead of at that append.
    pub fn at_move(inner: Arc<dyn Store>, crash: Crash) -> Self {
        Self { at_moves: true, ..Self::new(inner, Some(crash)) }
    }

    /// How many moves of gates there were.
    pub fn moves(&self) -> usize {
        self.moves.load(Ordering::SeqCst)
    }

    /// How many appends there were.
    pub fn appends(&self) -> usize {
        self.appends.load(Ordering::SeqCst)
    }

    /// Returns when the process has "died".
    pub async fn crashed(&self) {
        self.crashed.notified().await;
    }

    async fn die(&self) -> ! {
        self.is_dead.store(true, Ordering::SeqCst);
        self.crashed.notify_one();
        std::future::pending().await
    }

    async fn append_or_die<T>(&self, write: impl Future<Output = T>) -> T {
        let number = self.appends.fetch_add(1, Ordering::SeqCst) + 1;
        self.write_or_die(if self.at_moves { 0 } else { number }, write).await
    }

    async fn move_or_die<T>(&self, write: impl Future<Output = T>) -> T {
        let number = self.moves.fetch_add(1, Ordering::SeqCst) + 1;
        self.write_or_die(if self.at_moves { number } else { 0 }, write).await
    }

    /// A write that is counted by another number has none.
    async fn write_or_die<T>(&self, number: usize, write: impl Future<Output = T>) -> T {
        let crash = self.crash.filter(|crash| match crash {
            Crash::Before(at) => number >= *at,
            Crash::After(at) => number > *at,
            Crash::Stall(_) => false,
        });
        // Nothing is written from the crash on.
        if crash.is_some() || self.is_dead.load(Ordering::SeqCst) {
            self.die().await;
        }
        if self.crash == Some(Crash::Stall(number)) {
            self.stands_still.store(true, Ordering::SeqCst);
            self.crashed.notify_one();
            stand_still().await;
            self.stands_still.store(false, Ordering::SeqCst);
        }
        let done = write.await;
        if self.crash == Some(Crash::After(number)) {
            self.die().await;
        }
        done
    }
}

#[allow(clippy::disallowed_methods, reason = "the process as a whole stands still, whatever its clock")]
async fn stand_still() {
    tokio::time::sleep(LEASE * 4).await;
}

#[async_trait]
impl Store for CrashingStore {
    fn installation(&self) -> &InstallationId {
        self.inner.installation()
    }
    async fn start(&self, new: NewSaga) -> Result<Started, Error> {
        self.inner.start(new).await
    }
    async fn start_held(&self, new: NewSaga) -> Result<(Started, bool), Error> {
        self.inner.start_held(new).await
    }
    async fn append(&self, append: Arc<Append>) -> Result<(), Error> {
        self.append_or_die(self.inner.append(append)).await
    }
    async fn transact(&self, turn: Arc<Append>, job: Job) -> Result<Append, Error> {
        self.append_or_die(self.inner.transact(turn, job)).await
    }
    async fn post(&self, letter: Letter) -> Result<(), Error> {
        self.inner.post(letter).await
    }
    async fn claim(&self, now: Timestamp, limit: usize) -> Result<Vec<SagaId>, Error> {
        self.inner.claim(now, limit).await
    }
    async fn renew(&self) -> Result<Option<std::time::Duration>, Error> {
        if self.stands_still.load(Ordering::SeqCst) {
            return Err(Error::Unavailable("it stands still".to_owned()));
        }
        self.inner.renew().await
    }

    async fn mail(&self) -> Result<Vec<SagaId>, Error> {
        self.inner.mail().await
    }

    async fn audit(&self, saga: &SagaId) -> Result<Vec<AuditRow>, Error> {
        self.inner.audit(saga).await
    }

    async fn release(&self, saga: &SagaId) -> Result<(), Error> {
        self.inner.release(saga).await
    }
    async fn keep_only(&self, live: &[SagaId]) -> Result<(), Error> {
        self.inner.keep_only(live).await
    }
    async fn load(&self, saga: &SagaId) -> Result<Loaded, Error> {
        self.inner.load(saga).await
    }
    async fn mark_unreadable(&self, saga: &SagaId, detail: &str) -> Result<(), Error> {
        self.inner.mark_unreadable(saga, detail).await
    }
    async fn letters_page(
        &self,
        saga: &SagaId,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Letter>, Error> {
        self.inner.letters_page(saga, after, limit).await
    }
    async fn unread(&self, saga: &SagaId, most: u32) -> Result<u32, Error> {
        self.inner.unread(saga, most).await
    }
    fn trouble(&self) -> Option<String> {
        self.inner.trouble()
    }
    async fn changed(&self) {
        self.inner.changed().await;
    }
    async fn saga(&self, saga: &SagaId) -> Result<Option<SagaRow>, Error> {
        self.inner.saga(saga).await
    }
    async fn rows(&self, sagas: &[SagaId]) -> Result<Vec<Option<SagaRow>>, Error> {
        self.inner.rows(sagas).await
    }
    async fn output(&self, saga: &SagaId) -> Result<Option<Value>, Error> {
        self.inner.output(saga).await
    }
    async fn journal(&self, saga: &SagaId) -> Result<Vec<Entry>, Error> {
        self.inner.journal(saga).await
    }
    async fn sagas(&self, filter: SagaFilter) -> Result<Vec<SagaRow>, Error> {
        self.inner.sagas(filter).await
    }
    async fn resources(&self, filter: ResourceFilter) -> Result<Vec<ResourceRow>, Error> {
        self.inner.resources(filter).await
    }
    async fn secret(&self, reference: &SecretRef) -> Result<Option<Sealed>, Error> {
        self.inner.secret(reference).await
    }
    async fn gates(&self, granted_since: Timestamp) -> Result<Vec<GateRow>, Error> {
        self.inner.gates(granted_since).await
    }
    async fn gate_queue(
        &self,
        key: &str,
        lane: Lane,
        granted_since: Timestamp,
        limit: u32,
    ) -> Result<Vec<GateWait>, Error> {
        self.inner.gate_queue(key, lane, granted_since, limit).await
    }
    async fn move_gate(&self, moved: GateMove) -> Result<bool, Error> {
        self.move_or_die(self.inner.move_gate(moved)).await
    }
    async fn feed(&self, after: i64, limit: u32) -> Result<Vec<Fed>, Error> {
        self.inner.feed(after, limit).await
    }
    async fn feed_head(&self) -> Result<i64, Error> {
        self.inner.feed_head().await
    }
    async fn run(&self, job: LooseJob) -> Result<(Value, Vec<SagaId>), Error> {
        self.inner.run(job).await
    }
    async fn fetch(&self, sql: tx::Sql, params: Vec<tx::Param>) -> Result<Vec<tx::Row>, Error> {
        self.inner.fetch(sql, params).await
    }
    async fn close(&self) {
        self.inner.close().await;
    }
}

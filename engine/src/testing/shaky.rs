//! A store whose answers come late, get lost, or do not come at all for a while, at random.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::Notify;

use crate::env::{Env, Timestamp};
use crate::gate::{GateWait, Lane};
use crate::ids::{InstallationId, SagaId, SecretRef};
use crate::journal::Entry;
use crate::secret::Sealed;
use crate::store::{
    Append, AuditRow, Error, Fed, GateMove, GateRow, Job, Letter, Loaded, LooseJob, NewSaga, ResourceFilter,
    ResourceRow, SagaFilter, SagaRow, Started, Store, tx,
};

/// How often, in thousandths of all writes, and how long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shakes {
    /// Nothing is written, and an error is answered.
    pub fails: u64,
    /// It is written, and an error is answered.
    pub answer_lost: u64,
    /// The longest that an answer takes.
    pub latency: Duration,
}

/// One process's connection to a store.
pub struct ShakyStore {
    inner: Arc<dyn Store>,
    env: Env,
    shakes: Mutex<Shakes>,
    frozen: AtomicBool,
    /// It freezes behind so many writes that got through; 0 for never.
    freezes_behind: AtomicU64,
    thawed: Notify,
    /// How many answers were errors.
    shaken: Mutex<u64>,
    /// How often rows of sagas were read, however many at a time.
    row_reads: AtomicU64,
    /// The saga whose journal lies on a page that cannot be read.
    damaged: Mutex<Option<SagaId>>,
    /// Everything can be read, and nothing written.
    is_full: AtomicBool,
    /// The gate whose row is never written again.
    immovable: Mutex<Option<String>>,
    /// The ledger does not say which objects are in doubt.
    hides_unsettled: AtomicBool,
    hides_letters: AtomicBool,
    /// The table of gates cannot be read.
    hides_gates: AtomicBool,
}

impl ShakyStore {
    /// Over this store, shaking like that.
    pub fn new(inner: Arc<dyn Store>, env: Env, shakes: Shakes) -> Self {
        let (shakes, shaken) = (Mutex::new(shakes), Mutex::new(0));
        let (frozen, freezes_behind) = (AtomicBool::new(false), AtomicU64::new(0));
        let (row_reads, damaged, is_full) = (AtomicU64::new(0), Mutex::new(None), AtomicBool::new(false));
        Self {
            inner,
            env,
            shakes,
            frozen,
            freezes_behind,
            thawed: Notify::new(),
            shaken,
            row_reads,
            damaged,
            is_full,
            immovable: Mutex::new(None),
            hides_unsettled: AtomicBool::new(false),
            hides_letters: AtomicBool::new(false),
            hides_gates: AtomicBool::new(false),
        }
    }

    /// Its disk is full from now on, or no longer.
    pub fn fill_up(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::SeqCst);
    }

    /// The journal of this saga cannot be read from now on; of none, if none is named.
    pub fn damage(&self, saga: Option<SagaId>) {
        *self.damaged.lock().unwrap_or_else(PoisonError::into_inner) = saga;
    }

    /// The row of this gate is refused from now on; of none, if none is named.
    pub fn refuse_gate(&self, key: Option<&str>) {
        *self.immovable.lock().unwrap_or_else(PoisonError::into_inner) = key.map(str::to_owned);
    }

    /// Which objects on the ledger are in doubt cannot be read from now on, or can again.
    pub fn hide_unsettled(&self, hides: bool) {
        self.hides_unsettled.store(hides, Ordering::SeqCst);
    }

    /// Gates cannot be read from now on, or can again.
    pub fn hide_gates(&self, hides: bool) {
        self.hides_gates.store(hides, Ordering::SeqCst);
    }

    /// No inbox can be read from now on, or each can again.
    pub fn hide_letters(&self, hides: bool) {
        self.hides_letters.store(hides, Ordering::SeqCst);
    }

    /// Shakes like that from now on.
    pub fn set_shakes(&self, shakes: Shakes) {
        *self.shakes.lock().unwrap_or_else(PoisonError::into_inner) = shakes;
    }

    /// Nothing gets through until it thaws: the process stands still.
    pub fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::SeqCst);
        if !frozen {
            self.thawed.notify_waiters();
        }
    }

    /// It freezes by itself behind that many more appends: they are written, and the process does not learn of the
    /// last before it thaws.
    pub fn freeze_behind_write(&self, number: u64) {
        self.freezes_behind.store(number, Ordering::SeqCst);
    }

    /// How often rows of sagas were asked for; many at a time are one.
    pub fn row_reads(&self) -> u64 {
        self.row_reads.load(Ordering::Relaxed)
    }

    /// How many answers were errors of its own making.
    pub fn shaken(&self) -> u64 {
        *self.shaken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn arrive(&self) -> Shakes {
        self.stand_still().await;
        let shakes = *self.shakes.lock().unwrap_or_else(PoisonError::into_inner);
        let micros = u64::try_from(shakes.latency.as_micros()).unwrap_or(0);
        if micros > 0 {
            self.env.sleep(Duration::from_micros(self.env.below(micros))).await;
            self.stand_still().await;
        }
        shakes
    }

    async fn stand_still(&self) {
        while self.frozen.load(Ordering::SeqCst) {
            self.thawed.notified().await;
        }
    }

    fn shake<T>(&self, what: &str) -> Result<T, Error> {
        *self.shaken.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Err(Error::Unavailable(what.to_owned()))
    }

    async fn write<T>(&self, write: impl Future<Output = Result<T, Error>> + Send) -> Result<T, Error> {
        let shakes = self.arrive().await;
        let dice = self.env.below(1000);
        if self.is_full.load(Ordering::SeqCst) {
            return self.shake("no space left on device");
        }
        if dice < shakes.fails {
            return self.shake("it did not get through");
        }
        let done = write.await;
        // A process may also stand still between a commit and what it does then.
        self.stand_still().await;
        if done.is_ok() && dice < shakes.fails + shakes.answer_lost {
            return self.shake("the answer was lost");
        }
        done
    }

    async fn read<T>(&self, read: impl Future<Output = Result<T, Error>> + Send) -> Result<T, Error> {
        let shakes = self.arrive().await;
        if self.env.below(1000) < shakes.fails { self.shake("it could not be read") } else { read.await }
    }
}

#[async_trait]
impl Store for ShakyStore {
    fn installation(&self) -> &InstallationId {
        self.inner.installation()
    }
    async fn start(&self, new: NewSaga) -> Result<Started, Error> {
        self.write(self.inner.start(new)).await
    }
    async fn start_held(&self, new: NewSaga) -> Result<(Started, bool), Error> {
        self.write(self.inner.start_held(new)).await
    }
    async fn append(&self, append: Arc<Append>) -> Result<(), Error> {
        let write = async {
            let done = self.inner.append(append).await;
            let left = self.freezes_behind.load(Ordering::SeqCst);
            self.freezes_behind.store(left.saturating_sub(1), Ordering::SeqCst);
            if left == 1 {
                self.freeze(true);
            }
            done
        };
        self.write(write).await
    }
    async fn transact(&self, turn: Arc<Append>, job: Job) -> Result<Append, Error> {
        self.write(self.inner.transact(turn, job)).await
    }
    async fn post(&self, letter: Letter) -> Result<(), Error> {
        self.write(self.inner.post(letter)).await
    }
    async fn claim(&self, now: Timestamp, limit: usize) -> Result<Vec<SagaId>, Error> {
        self.write(self.inner.claim(now, limit)).await
    }
    async fn renew(&self) -> Result<Option<Duration>, Error> {
        self.write(self.inner.renew()).await
    }
    async fn mail(&self) -> Result<Vec<SagaId>, Error> {
        self.read(self.inner.mail()).await
    }
    async fn audit(&self, saga: &SagaId) -> Result<Vec<AuditRow>, Error> {
        self.read(self.inner.audit(saga)).await
    }
    async fn release(&self, saga: &SagaId) -> Result<(), Error> {
        self.write(self.inner.release(saga)).await
    }
    async fn keep_only(&self, live: &[SagaId]) -> Result<(), Error> {
        self.write(self.inner.keep_only(live)).await
    }
    async fn load(&self, saga: &SagaId) -> Result<Loaded, Error> {
        if self.damaged.lock().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(saga) {
            return Err(Error::Unavailable("database disk image is malformed".to_owned()));
        }
        self.read(self.inner.load(saga)).await
    }
    async fn mark_unreadable(&self, saga: &SagaId, detail: &str) -> Result<(), Error> {
        self.write(self.inner.mark_unreadable(saga, detail)).await
    }
    async fn letters_page(
        &self,
        saga: &SagaId,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Letter>, Error> {
        if self.hides_letters.load(Ordering::SeqCst) {
            return Err(Error::Unavailable("the inbox cannot be read".to_owned()));
        }
        self.read(self.inner.letters_page(saga, after, limit)).await
    }
    async fn unread(&self, saga: &SagaId, most: u32) -> Result<u32, Error> {
        self.read(self.inner.unread(saga, most)).await
    }
    fn trouble(&self) -> Option<String> {
        self.inner.trouble()
    }
    async fn changed(&self) {
        self.inner.changed().await;
    }
    async fn saga(&self, saga: &SagaId) -> Result<Option<SagaRow>, Error> {
        self.row_reads.fetch_add(1, Ordering::Relaxed);
        self.read(self.inner.saga(saga)).await
    }
    async fn rows(&self, sagas: &[SagaId]) -> Result<Vec<Option<SagaRow>>, Error> {
        self.row_reads.fetch_add(1, Ordering::Relaxed);
        self.read(self.inner.rows(sagas)).await
    }
    async fn output(&self, saga: &SagaId) -> Result<Option<Value>, Error> {
        self.read(self.inner.output(saga)).await
    }
    async fn journal(&self, saga: &SagaId) -> Result<Vec<Entry>, Error> {
        self.read(self.inner.journal(saga)).await
    }
    async fn sagas(&self, filter: SagaFilter) -> Result<Vec<SagaRow>, Error> {
        self.read(self.inner.sagas(filter)).await
    }
    async fn resources(&self, filter: ResourceFilter) -> Result<Vec<ResourceRow>, Error> {
        if filter.unsettled.is_some() && self.hides_unsettled.load(Ordering::SeqCst) {
            return self.shake("the page of the ledger is malformed");
        }
        self.read(self.inner.resources(filter)).await
    }
    async fn secret(&self, reference: &SecretRef) -> Result<Option<Sealed>, Error> {
        self.read(self.inner.secret(reference)).await
    }
    async fn gates(&self, granted_since: Timestamp) -> Result<Vec<GateRow>, Error> {
        if self.hides_gates.load(Ordering::SeqCst) {
            return self.shake("the page of gates is malformed");
        }
        self.read(self.inner.gates(granted_since)).await
    }
    async fn gate_queue(
        &self,
        key: &str,
        lane: Lane,
        granted_since: Timestamp,
        limit: u32,
    ) -> Result<Vec<GateWait>, Error> {
        self.read(self.inner.gate_queue(key, lane, granted_since, limit)).await
    }
    async fn move_gate(&self, moved: GateMove) -> Result<bool, Error> {
        if self.immovable.lock().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(&moved.key) {
            return Err(Error::Refused("a rule of the table of gates".to_owned()));
        }
        self.write(self.inner.move_gate(moved)).await
    }
    async fn feed(&self, after: i64, limit: u32) -> Result<Vec<Fed>, Error> {
        self.read(self.inner.feed(after, limit)).await
    }
    async fn feed_head(&self) -> Result<i64, Error> {
        self.read(self.inner.feed_head()).await
    }
    async fn run(&self, job: LooseJob) -> Result<(Value, Vec<SagaId>), Error> {
        self.write(self.inner.run(job)).await
    }
    async fn fetch(&self, sql: tx::Sql, params: Vec<tx::Param>) -> Result<Vec<tx::Row>, Error> {
        self.read(self.inner.fetch(sql, params)).await
    }
    async fn close(&self) {
        self.inner.close().await;
    }
}

//! Recorder: a store that remembers what the engine wrote through it, so that a bare loop can write the same.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use amends_engine::gate::{GateWait, Lane};
use amends_engine::ids::{InstallationId, SecretRef};
use amends_engine::journal::Entry;
use amends_engine::secret::Sealed;
use amends_engine::store::{
    Append, AuditRow, Error, Fed, GateMove, GateRow, Job, Letter, Loaded, LooseJob, NewSaga, ResourceFilter,
    ResourceRow, SagaFilter, SagaRow, Started, Store, tx,
};
use amends_engine::{SagaId, Timestamp};
use async_trait::async_trait;
use serde_json::Value;

/// One thing that was written.
pub enum Written {
    /// A saga was started.
    Start(Box<NewSaga>),
    /// A saga made a turn.
    Turn(Arc<Append>),
    /// A saga made a turn, and one more with what its local step came to, in the same transaction.
    Transacted(Arc<Append>, Box<Append>),
    /// A saga was given back.
    Release(SagaId),
}

/// A store that does what another does, and remembers what was written, each saga's in the order in which it became
/// durable. Whoever asked for a write that fails ends the bench with it.
pub struct Recorder {
    inner: Arc<dyn Store>,
    written: Mutex<Vec<Written>>,
}

impl Recorder {
    /// Over this store.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, written: Mutex::default() }
    }

    /// All that was written so far.
    pub fn take(&self) -> Vec<Written> {
        std::mem::take(&mut self.written.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, written: Written) {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).push(written);
    }
}

#[async_trait]
impl Store for Recorder {
    fn installation(&self) -> &InstallationId {
        self.inner.installation()
    }
    async fn start(&self, new: NewSaga) -> Result<Started, Error> {
        // Before it is written: once it is, its first turn may be noted before this goes on. The same below.
        self.note(Written::Start(Box::new(new.clone())));
        self.inner.start(new).await
    }
    async fn start_held(&self, new: NewSaga) -> Result<(Started, bool), Error> {
        self.note(Written::Start(Box::new(new.clone())));
        self.inner.start_held(new).await
    }
    async fn append(&self, append: Arc<Append>) -> Result<(), Error> {
        self.inner.append(append.clone()).await?;
        self.note(Written::Turn(append));
        Ok(())
    }
    async fn transact(&self, turn: Arc<Append>, job: Job) -> Result<Append, Error> {
        match self.inner.transact(turn.clone(), job).await {
            Ok(append) => {
                self.note(Written::Transacted(turn, Box::new(append.clone())));
                Ok(append)
            }
            Err(Error::Job(failure)) => {
                self.note(Written::Turn(turn));
                Err(Error::Job(failure))
            }
            Err(error) => Err(error),
        }
    }
    async fn post(&self, letter: Letter) -> Result<(), Error> {
        self.inner.post(letter).await
    }
    async fn claim(&self, now: Timestamp, limit: usize) -> Result<Vec<SagaId>, Error> {
        self.inner.claim(now, limit).await
    }
    async fn release(&self, saga: &SagaId) -> Result<(), Error> {
        self.note(Written::Release(saga.clone()));
        self.inner.release(saga).await
    }
    async fn keep_only(&self, live: &[SagaId]) -> Result<(), Error> {
        self.inner.keep_only(live).await
    }
    async fn renew(&self) -> Result<Option<Duration>, Error> {
        self.inner.renew().await
    }
    async fn mail(&self) -> Result<Vec<SagaId>, Error> {
        self.inner.mail().await
    }
    async fn load(&self, saga: &SagaId) -> Result<Loaded, Error> {
        self.inner.load(saga).await
    }
    async fn load_all(&self, sagas: &[SagaId]) -> Vec<Result<Loaded, Error>> {
        self.inner.load_all(sagas).await
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
    async fn audit(&self, saga: &SagaId) -> Result<Vec<AuditRow>, Error> {
        self.inner.audit(saga).await
    }
    async fn gates(&self, now: Timestamp) -> Result<Vec<GateRow>, Error> {
        self.inner.gates(now).await
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
        self.inner.move_gate(moved).await
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

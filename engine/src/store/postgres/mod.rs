//! The Postgres store: any number of processes on one database.
//!
//! What a process may write is said by a lease on each saga and by a row of its own that it renews; that it writes
//! nothing else is seen to by the fence, which is part of every write. Nothing here needs more than READ COMMITTED and
//! row locks: no advisory locks, no session state, so that it works through a transaction pooler too
//! (`?pooler=transaction` in the address).

mod again;
mod background;
mod beside;
mod connection;
mod error;
mod feed;
mod gates;
mod lease;
mod open;
mod place;
mod reach;
mod read;
mod start;
mod statements;
mod transaction;
mod write;
mod writer;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;

use self::connection::Connection;
use self::error::{Remedy, read_error, remedy, write_error};
use self::reach::{Reach, in_time};
use self::writer::{Outside, Turn};
use super::open::{Migrations, OpenError};
use super::{
    Append, AuditRow, Error, Fed, GateMove, GateRow, Job, Letter, Loaded, LooseJob, NewSaga, ResourceFilter,
    ResourceRow, SagaFilter, SagaRow, Started, Store, limits, page, tx,
};
use crate::env::{Env, Timestamp};
use crate::gate::{GateWait, Lane};
use crate::ids::{self, InstallationId, SagaId, SecretRef};
use crate::journal::Entry;
use crate::secret::{Sealed, Vault};
use crate::trouble::Trouble;

/// How many writes may wait before those who ask have to.
const WAITING_MAX: usize = 4096;
/// How late something that another process left may be noticed by looking alone.
const POLL: Duration = Duration::from_millis(500);

/// One process's handle on a database.
pub struct PostgresStore {
    installation: InstallationId,
    env: Env,
    reach: Reach,
    /// The name under which this process holds sagas.
    worker: String,
    is_registered: AtomicBool,
    lease: tokio::sync::Mutex<Connection>,
    turns: Mutex<Option<mpsc::Sender<Turn>>>,
    outside: Mutex<Option<mpsc::Sender<Outside>>>,
    writers: Mutex<JoinSet<()>>,
    background: Mutex<JoinSet<()>>,
    signals: Signals,
    trouble: Arc<Trouble>,
}

/// What the tasks of one store tell each other.
#[derive(Clone, Default)]
struct Signals {
    /// Something may have become due.
    changed: Arc<Notify>,
    /// Other processes should know.
    to_tell: Arc<Notify>,
    /// Something has no number in the feed yet.
    unnumbered: Arc<Notify>,
}

impl Signals {
    fn something_is_due(&self) {
        self.changed.notify_one();
        self.to_tell.notify_one();
        self.unnumbered.notify_one();
    }

    fn written(&self, append: &Append) {
        self.unnumbered.notify_one();
        if !append.letters.is_empty() || !append.starts.is_empty() {
            self.something_is_due();
        }
    }
}

impl PostgresStore {
    /// Opens the database at `url` and brings the engine's and the program's `own` tables up to date; several
    /// processes may do so at once. The key is read from `key_path`, or made with a new database.
    ///
    /// With `pooler=transaction` among the address's parameters it goes through a pooler that gives each transaction
    /// another server connection, as pgbouncer does in that mode.
    ///
    /// # Errors
    /// The server cannot be reached, is a standby, is too old, or would lose what it acknowledges; the database is
    /// newer or for another environment, or its key is missing: nothing was changed then.
    pub async fn open(
        url: &str,
        key_path: &Path,
        environment: &str,
        own: &[Migrations],
        env: &Env,
    ) -> Result<(Self, Vault), OpenError> {
        let reach = Reach::new(url)?;
        let (installation, vault) = open::open(&reach, key_path, environment, own, env).await?;
        let (signals, trouble) = (Signals::default(), Arc::new(Trouble::default()));
        let (turns, waiting_turns) = mpsc::channel(WAITING_MAX);
        let (outside, waiting_outside) = mpsc::channel(WAITING_MAX);
        let mut writers = JoinSet::new();
        writers.spawn(writer::turns(reach.clone(), env.clone(), waiting_turns, signals.clone()));
        writers.spawn(writer::outside(reach.clone(), env.clone(), waiting_outside, signals.clone()));
        let store = Self {
            installation,
            env: env.clone(),
            worker: format!("wk_{}", ids::base32(env.uuid())),
            is_registered: AtomicBool::new(false),
            lease: tokio::sync::Mutex::new(Connection::new(&reach)),
            turns: Mutex::new(Some(turns)),
            outside: Mutex::new(Some(outside)),
            writers: Mutex::new(writers),
            background: Mutex::new(background::spawn(&reach, env, &signals, &trouble)),
            reach,
            signals,
            trouble,
        };
        Ok((store, vault))
    }

    /// How the database reads a page of sagas and a page of the ledger: a line a step.
    ///
    /// # Errors
    /// The database cannot be read just now.
    #[cfg(feature = "testing")]
    pub async fn explain(
        &self,
        sagas: Option<&SagaFilter>,
        resources: Option<&ResourceFilter>,
    ) -> Result<Vec<String>, Error> {
        read::explain(&self.reach, sagas, resources).await.map_err(read_error)
    }

    async fn ask_outside<T>(
        &self,
        ask: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Outside,
    ) -> Result<T, Error> {
        let outside =
            self.outside.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Error::Closed)?;
        let (reply, answer) = oneshot::channel();
        outside.send(ask(reply)).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// How long until something is due by time alone, or is looked for.
    async fn until_due(&self) -> Duration {
        match lease::next_due(&self.reach).await {
            Ok(Some(due)) => Timestamp(due).since(self.env.now()).max(Duration::from_millis(1)).min(POLL),
            Ok(None) | Err(_) => POLL,
        }
    }
}

#[async_trait]
impl Store for PostgresStore {
    fn installation(&self) -> &InstallationId {
        &self.installation
    }

    async fn start(&self, new: NewSaga) -> Result<Started, Error> {
        limits::start(&new)?;
        self.ask_outside(|reply| Outside::Start(Box::new(new), None, reply)).await.map(|(started, _)| started)
    }

    async fn start_held(&self, new: NewSaga) -> Result<(Started, bool), Error> {
        limits::start(&new)?;
        let may_hold = new.begins_at_once() && self.is_registered.load(Ordering::Relaxed);
        let holder = may_hold.then(|| self.worker.clone());
        self.ask_outside(|reply| Outside::Start(Box::new(new), holder, reply)).await
    }

    async fn append(&self, append: Arc<Append>) -> Result<(), Error> {
        limits::append(&append)?;
        let turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Error::Closed)?;
        let (reply, answer) = oneshot::channel();
        turns.send(Turn { append, reply }).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    async fn transact(&self, turn: Arc<Append>, job: Job) -> Result<Append, Error> {
        limits::append(&turn)?;
        let done = transaction::transact(&self.reach, &self.env, &turn, &job).await;
        if matches!(done, Ok(_) | Err(Error::Job(_))) {
            self.signals.written(&turn);
        }
        let (append, places) = done?;
        self.signals.written(&append);
        for key in places {
            writer::fill(&self.reach, &self.env, Some(&key), &self.signals).await;
        }
        Ok(append)
    }

    async fn post(&self, letter: Letter) -> Result<(), Error> {
        limits::letter(&letter)?;
        self.ask_outside(|reply| Outside::Post(Box::new(letter), reply)).await
    }

    async fn claim(&self, now: Timestamp, limit: usize) -> Result<Vec<SagaId>, Error> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        if !self.is_registered.load(Ordering::Relaxed) {
            self.renew().await?;
        }
        // Each by itself: what the first has claimed is held, whatever becomes of the second.
        let claim = || lease::claim(&self.reach, &self.worker, now.0, limit);
        let (mut claimed, waiting) = again::write(&self.env, claim).await?;
        if !waiting.is_empty() {
            let placed = again::write(&self.env, || lease::with_places(&self.reach, &waiting, now.0)).await?;
            claimed.extend(placed);
        }
        Ok(claimed)
    }

    async fn release(&self, saga: &SagaId) -> Result<(), Error> {
        again::write(&self.env, || lease::release(&self.reach, &self.worker, saga)).await.map(drop)
    }

    async fn keep_only(&self, live: &[SagaId]) -> Result<(), Error> {
        again::write(&self.env, || lease::keep_only(&self.reach, &self.worker, live)).await.map(drop)
    }

    async fn renew(&self) -> Result<Option<Duration>, Error> {
        let held = again::write(&self.env, || async {
            let mut lease = self.lease.lock().await;
            lease.run(async |connection| lease::renew(&self.reach, connection, &self.worker).await).await
        })
        .await?;
        self.is_registered.store(true, Ordering::Relaxed);
        Ok(Some(held))
    }

    async fn mail(&self) -> Result<Vec<SagaId>, Error> {
        lease::mail(&self.reach, &self.worker).await.map_err(read_error)
    }

    async fn load(&self, saga: &SagaId) -> Result<Loaded, Error> {
        self.load_all(std::slice::from_ref(saga)).await.pop().unwrap_or(Err(Error::Closed))
    }

    async fn load_all(&self, sagas: &[SagaId]) -> Vec<Result<Loaded, Error>> {
        let read = async {
            // First how they are held: what is written behind that is refused by its fence.
            let held = lease::held(&self.reach, sagas).await?;
            Ok((held, read::journals(&self.reach, sagas).await?))
        };
        let (mut held, mut journals) = match read.await.map_err(read_error) {
            Ok(read) => read,
            Err(error) => return vec![Err(error); sagas.len()],
        };
        let load = |saga: &SagaId| {
            let held = held.remove(saga.as_str()).ok_or_else(|| Error::NoSuchSaga(saga.clone()))?;
            if held.holder.as_ref() != Some(&self.worker) {
                return Err(Error::Fenced(saga.clone()));
            }
            let entries =
                journals.remove(saga.as_str()).unwrap_or_else(|| Ok(Vec::new())).map_err(read_error)?;
            Ok(Loaded { epoch: held.epoch, entries, may_begin: held.may_begin, has_mail: held.has_mail })
        };
        sagas.iter().map(load).collect()
    }

    async fn mark_unreadable(&self, saga: &SagaId, detail: &str) -> Result<(), Error> {
        again::write(&self.env, || {
            let query = self
                .reach
                .query("update saga set attention = '[\"unreadable\"]', error = $2 where id = $1 and ended_at is null")
                .bind(saga.to_string())
                .bind(write::clean(detail).into_owned());
            self.reach.execute(query)
        })
        .await
        .map(drop)
    }

    async fn letters_page(
        &self,
        saga: &SagaId,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Letter>, Error> {
        read::letters(&self.reach, saga, after, limit).await.map_err(read_error)
    }

    async fn unread(&self, saga: &SagaId, most: u32) -> Result<u32, Error> {
        read::unread(&self.reach, saga, most).await.map_err(read_error)
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.said(&self.env)
    }

    async fn changed(&self) {
        let look = async {
            let wait = self.until_due().await;
            self.env.sleep(wait).await;
        };
        tokio::select! {
            biased;
            () = self.signals.changed.notified() => {}
            () = look => {}
        }
    }

    async fn saga(&self, saga: &SagaId) -> Result<Option<SagaRow>, Error> {
        read::saga(&self.reach, saga).await.map_err(read_error)
    }

    async fn rows(&self, sagas: &[SagaId]) -> Result<Vec<Option<SagaRow>>, Error> {
        read::rows(&self.reach, sagas).await.map_err(read_error)
    }

    async fn output(&self, saga: &SagaId) -> Result<Option<Value>, Error> {
        let output = read::output(&self.reach, saga).await.map_err(read_error)?;
        output
            .map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(|error| Error::Unreadable(error.to_string()))
    }

    async fn journal(&self, saga: &SagaId) -> Result<Vec<Entry>, Error> {
        read::entries(&self.reach, saga).await.map_err(read_error)
    }

    async fn sagas(&self, filter: SagaFilter) -> Result<Vec<SagaRow>, Error> {
        read::sagas(&self.reach, filter).await.map_err(read_error)
    }

    async fn resources(&self, filter: ResourceFilter) -> Result<Vec<ResourceRow>, Error> {
        read::resources(&self.reach, filter).await.map_err(read_error)
    }

    async fn secret(&self, reference: &SecretRef) -> Result<Option<Sealed>, Error> {
        read::secret(&self.reach, reference).await.map_err(read_error)
    }

    async fn audit(&self, saga: &SagaId) -> Result<Vec<AuditRow>, Error> {
        read::audit(&self.reach, saga).await.map_err(read_error)
    }

    async fn gates(&self, granted_since: Timestamp) -> Result<Vec<GateRow>, Error> {
        gates::all(&self.reach, granted_since).await.map_err(read_error)
    }

    async fn gate_queue(
        &self,
        key: &str,
        lane: Lane,
        granted_since: Timestamp,
        limit: u32,
    ) -> Result<Vec<GateWait>, Error> {
        gates::queue(&self.reach, key, lane, granted_since, limit).await.map_err(read_error)
    }

    async fn move_gate(&self, moved: GateMove) -> Result<bool, Error> {
        limits::gate(&moved)?;
        match in_time(gates::move_gate(&self.reach, &moved)).await {
            Ok(is_moved) => {
                if is_moved && !moved.letters.is_empty() {
                    self.signals.something_is_due();
                }
                Ok(is_moved)
            }
            // Others were at it: whoever asked looks again.
            Err(error) if remedy(&error) == Remedy::Again => Ok(false),
            Err(error) => Err(write_error(error)),
        }
    }

    async fn feed(&self, after: i64, limit: u32) -> Result<Vec<Fed>, Error> {
        feed::read(&self.reach, after, page::page(limit)).await.map_err(read_error)
    }

    async fn feed_head(&self) -> Result<i64, Error> {
        read::feed_head(&self.reach).await.map_err(read_error)
    }

    async fn run(&self, job: LooseJob) -> Result<(Value, Vec<SagaId>), Error> {
        let done = transaction::run(&self.reach, &self.env, &job).await?;
        self.signals.something_is_due();
        Ok(done)
    }

    async fn fetch(&self, sql: tx::Sql, params: Vec<tx::Param>) -> Result<Vec<tx::Row>, Error> {
        let query = statements::bound(&self.reach, sql, params);
        let read = async {
            let mut transaction = self.reach.begin_foreign().await?;
            let rows = query.fetch_all(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(rows)
        };
        let rows = in_time(read).await.map_err(read_error)?;
        rows.iter()
            .map(statements::read_row)
            .collect::<Result<_, _>>()
            .map_err(|error| Error::Unreadable(error.to_string()))
    }

    async fn close(&self) {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.outside.lock().unwrap_or_else(PoisonError::into_inner).take();
        // They end once what waits is written.
        let mut writers = std::mem::take(&mut *self.writers.lock().unwrap_or_else(PoisonError::into_inner));
        while writers.join_next().await.is_some() {}
        let mut background =
            std::mem::take(&mut *self.background.lock().unwrap_or_else(PoisonError::into_inner));
        background.shutdown().await;
        if self.is_registered.load(Ordering::Relaxed)
            && let Err(error) = lease::resign(&self.reach, &self.worker).await
        {
            tracing::debug!(%error, "what is held here is taken over when the lease runs out");
        }
        self.lease.lock().await.close().await;
        self.reach.pool.close().await;
    }
}

//! The SQLite store: one file, one process, one writer, and readers that never wait for it.

mod error;
mod gates;
mod lock;
mod open;
mod read;
mod statements;
mod write;
mod writer;

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use sqlx::SqlitePool;
use sqlx::sqlite::SqlitePoolOptions;
use tokio::sync::{Notify, mpsc, oneshot};

use lock::Lock;
use write::Bound;
use writer::{Answer, Ask, Write, Writer};

use super::open::{Migrations, OpenError};
use super::{
    Append, AuditRow, Error, Fed, GateMove, GateRow, Job, Letter, Loaded, LooseJob, NewSaga, ResourceFilter,
    ResourceRow, SagaFilter, SagaRow, Started, Store, limits, tx,
};
use crate::env::{Env, Timestamp};
use crate::gate::{GateWait, Lane};
use crate::ids::{InstallationId, SagaId, SecretRef};
use crate::journal::Entry;
use crate::secret::{Sealed, Vault};

const READERS: u32 = 4;
/// How many writes may wait before those who ask have to.
const WAITING_MAX: usize = 4096;
/// How late something that becomes due by time alone may be noticed.
const TICK: Duration = Duration::from_millis(100);

/// An open database. Closing it lets another process have it.
///
/// One process has the file at a time, and a second one that opens it gets [`OpenError::InUse`]. A person's tool is
/// therefore no program of its own beside a running one: what it does ([`Engine::act`](crate::Engine::act),
/// [`Engine::why`](crate::Engine::why)) needs a door in the program that has the file.
pub struct SqliteStore {
    installation: InstallationId,
    env: Env,
    writes: Mutex<Option<mpsc::Sender<Write>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    readers: SqlitePool,
    /// Let go when the last connection is closed.
    lock: Mutex<Option<Arc<Lock>>>,
    held: Mutex<HashSet<SagaId>>,
    woken: Arc<Woken>,
}

/// What may have something to do now.
#[derive(Default)]
struct Woken {
    changed: Notify,
    /// Sagas that got a letter.
    mail: Mutex<HashSet<SagaId>>,
}

impl Woken {
    fn tell(&self, written: &[Ask]) {
        let letters = written.iter().flat_map(|ask| match ask {
            Ask::Post(letter) => std::slice::from_ref(&**letter),
            Ask::MoveGate(moved) => &moved.letters,
            _ => &[],
        });
        let sagas = letters.map(|letter| letter.saga.clone());
        self.mail.lock().unwrap_or_else(PoisonError::into_inner).extend(sagas);
        self.changed.notify_one();
    }
}

impl SqliteStore {
    /// Opens the database at `path`, makes it and its folder if there is none, and brings the engine's and the
    /// program's `own` tables up to date. The key is read from `key_path`, or made with a new database.
    ///
    /// The files, and the folder if it is made, are for their owner alone; a looser mode of one that is there is
    /// tightened, and that is logged.
    ///
    /// # Errors
    /// Another process has it, by whatever name, it is newer, foreign or for another environment, or its key is missing: nothing
    /// was changed then.
    pub async fn open(
        path: &Path,
        key_path: &Path,
        environment: &str,
        own: &[Migrations],
        env: &Env,
    ) -> Result<(Self, Vault), OpenError> {
        let opened = open::open(path, key_path, environment, own, env).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_lazy_with(opened.options.clone().pragma("query_only", "on"));
        let woken = Arc::new(Woken::default());
        let (writes, waiting) = mpsc::channel(WAITING_MAX);
        let runtime = tokio::runtime::Handle::current();
        let writer = Writer {
            connection: opened.connection,
            lock: opened.lock.clone(),
            woken: woken.clone(),
            runtime,
            limit: env.time_limit(tx::LOCAL_MAX),
        };
        let writer = thread::Builder::new()
            .name("amends-writer".to_owned())
            .spawn(move || writer.run(waiting))
            .map_err(|source| OpenError::File { place: path.display().to_string(), source })?;
        let store = Self {
            installation: opened.installation,
            env: env.clone(),
            writes: Mutex::new(Some(writes)),
            writer: Mutex::new(Some(writer)),
            readers,
            lock: Mutex::new(Some(opened.lock)),
            held: Mutex::default(),
            woken,
        };
        Ok((store, opened.vault))
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
        read::explain(&self.readers, sagas, resources).await.map_err(read_error)
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashSet<SagaId>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives these back, with the time from which they may be claimed again.
    async fn give_back(&self, sagas: Vec<SagaId>) -> Result<(), Error> {
        if !sagas.is_empty() {
            self.write(Ask::Release(sagas.clone())).await?;
        }
        let mut held = self.held();
        sagas.iter().for_each(|saga| {
            held.remove(saga);
        });
        Ok(())
    }

    async fn take_place(&self, saga: &SagaId) -> Result<bool, Error> {
        match self.write(Ask::TakePlace(saga.clone())).await? {
            Answer::Placed(placed) => Ok(placed),
            _ => Err(Error::Closed),
        }
    }

    async fn write(&self, ask: Ask) -> Result<Answer, Error> {
        let writes =
            self.writes.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Error::Closed)?;
        let (reply, answer) = oneshot::channel();
        writes.send(Write { ask, reply }).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn installation(&self) -> &InstallationId {
        &self.installation
    }

    async fn start(&self, new: NewSaga) -> Result<Started, Error> {
        limits::start(&new)?;
        match self.write(Ask::Start(Box::new(new))).await? {
            Answer::Started(started) => Ok(started),
            _ => Err(Error::Closed),
        }
    }

    async fn start_held(&self, new: NewSaga) -> Result<(Started, bool), Error> {
        if !new.begins_at_once() {
            return Ok((self.start(new).await?, false));
        }
        limits::start(&new)?;
        // Held before it is there, so that no claim comes between. One that is held already is only asked for again.
        let saga = new.id.clone();
        if !self.held().insert(saga.clone()) {
            return Ok((self.start(new).await?, false));
        }
        let answer = self.write(Ask::StartHeld(Box::new(new))).await;
        let is_held = matches!(answer, Ok(Answer::Started(Started::New(_))));
        if !is_held {
            self.held().remove(&saga);
        }
        match answer? {
            Answer::Started(started) => Ok((started, is_held)),
            _ => Err(Error::Closed),
        }
    }

    async fn append(&self, append: Arc<Append>) -> Result<(), Error> {
        limits::append(&append)?;
        let ended = append.row.ended_at.is_some().then(|| append.row.id.clone());
        self.write(Ask::Append(Bound::new(append)?)).await?;
        if let Some(saga) = ended {
            self.held().remove(&saga);
        }
        Ok(())
    }

    async fn transact(&self, turn: Arc<Append>, job: Job) -> Result<Append, Error> {
        limits::append(&turn)?;
        match self.write(Ask::Transact(Bound::new(turn)?, job)).await? {
            Answer::Appended(append) => Ok(*append),
            _ => Err(Error::Closed),
        }
    }

    async fn post(&self, letter: Letter) -> Result<(), Error> {
        limits::letter(&letter)?;
        self.write(Ask::Post(Box::new(letter))).await.map(drop)
    }

    async fn claim(&self, now: Timestamp, limit: usize) -> Result<Vec<SagaId>, Error> {
        let mut many = limit;
        loop {
            let due = read::due(&self.readers, now, many).await.map_err(read_error)?;
            let is_all = due.len() < many;
            let mut claimed = Vec::new();
            let held = |saga: &SagaId| self.held().contains(saga);
            // What is held and has not made its first turn is due too: more are read if these leave too few.
            let free = due.iter().filter(|due| !held(&due.saga)).count();
            if free < limit && !is_all {
                many = many.saturating_mul(2);
                continue;
            }
            for due in due {
                if claimed.len() == limit {
                    break;
                }
                let is_free = self.held().insert(due.saga.clone());
                if !is_free {
                    continue;
                }
                if !due.needs_place || self.take_place(&due.saga).await? {
                    claimed.push(due.saga);
                } else {
                    self.held().remove(&due.saga);
                }
            }
            return Ok(claimed);
        }
    }

    async fn release(&self, saga: &SagaId) -> Result<(), Error> {
        // One that has ended is held no more.
        let is_held = self.held().contains(saga);
        if is_held { self.give_back(vec![saga.clone()]).await } else { Ok(()) }
    }

    async fn keep_only(&self, live: &[SagaId]) -> Result<(), Error> {
        let live: HashSet<&SagaId> = live.iter().collect();
        let idle = self.held().iter().filter(|saga| !live.contains(saga)).cloned().collect();
        self.give_back(idle).await
    }

    async fn renew(&self) -> Result<Option<Duration>, Error> {
        // The lock on the file is the lease.
        Ok(None)
    }

    async fn mail(&self) -> Result<Vec<SagaId>, Error> {
        let mail = std::mem::take(&mut *self.woken.mail.lock().unwrap_or_else(PoisonError::into_inner));
        let held = self.held();
        Ok(mail.into_iter().filter(|saga| held.contains(saga)).collect())
    }

    async fn load(&self, saga: &SagaId) -> Result<Loaded, Error> {
        let mut loaded = self.load_all(std::slice::from_ref(saga)).await;
        loaded.pop().unwrap_or_else(|| Err(Error::NoSuchSaga(saga.clone())))
    }

    async fn load_all(&self, sagas: &[SagaId]) -> Vec<Result<Loaded, Error>> {
        match read::loaded(&self.readers, sagas).await {
            Ok(loaded) => loaded,
            Err(error) => {
                let error = read_error(error);
                sagas.iter().map(|_| Err(error.clone())).collect()
            }
        }
    }

    async fn letters_page(
        &self,
        saga: &SagaId,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Letter>, Error> {
        read::letters(&self.readers, saga, after, limit).await.map_err(read_error)
    }

    async fn unread(&self, saga: &SagaId, most: u32) -> Result<u32, Error> {
        read::unread(&self.readers, saga, most).await.map_err(read_error)
    }

    async fn changed(&self) {
        tokio::select! {
            biased;
            () = self.woken.changed.notified() => {}
            () = self.env.sleep(TICK) => {}
        }
    }

    async fn saga(&self, saga: &SagaId) -> Result<Option<SagaRow>, Error> {
        read::saga(&self.readers, saga).await.map_err(read_error)
    }

    async fn rows(&self, sagas: &[SagaId]) -> Result<Vec<Option<SagaRow>>, Error> {
        read::rows(&self.readers, sagas).await.map_err(read_error)
    }

    async fn output(&self, saga: &SagaId) -> Result<Option<Value>, Error> {
        let output: Option<Option<String>> = sqlx::query_scalar("select output from saga where id = $1")
            .bind(saga.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(read_error)?;
        output
            .flatten()
            .map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(|error| Error::Unreadable(error.to_string()))
    }

    async fn journal(&self, saga: &SagaId) -> Result<Vec<Entry>, Error> {
        read::entries(&self.readers, saga).await.map_err(read_error)
    }

    async fn sagas(&self, filter: SagaFilter) -> Result<Vec<SagaRow>, Error> {
        read::sagas(&self.readers, filter).await.map_err(read_error)
    }

    async fn resources(&self, filter: ResourceFilter) -> Result<Vec<ResourceRow>, Error> {
        read::resources(&self.readers, filter).await.map_err(read_error)
    }

    async fn secret(&self, reference: &SecretRef) -> Result<Option<Sealed>, Error> {
        read::secret(&self.readers, reference).await.map_err(read_error)
    }

    async fn audit(&self, saga: &SagaId) -> Result<Vec<AuditRow>, Error> {
        read::audit(&self.readers, saga).await.map_err(read_error)
    }

    async fn gates(&self, granted_since: Timestamp) -> Result<Vec<GateRow>, Error> {
        gates::all(&self.readers, granted_since).await.map_err(read_error)
    }

    async fn gate_queue(
        &self,
        key: &str,
        lane: Lane,
        granted_since: Timestamp,
        limit: u32,
    ) -> Result<Vec<GateWait>, Error> {
        gates::queue(&self.readers, key, lane, granted_since, limit).await.map_err(read_error)
    }

    async fn move_gate(&self, moved: GateMove) -> Result<bool, Error> {
        limits::gate(&moved)?;
        match self.write(Ask::MoveGate(Box::new(moved))).await? {
            Answer::Moved(moved) => Ok(moved),
            _ => Err(Error::Closed),
        }
    }

    async fn feed(&self, after: i64, limit: u32) -> Result<Vec<Fed>, Error> {
        read::feed(&self.readers, after, limit).await.map_err(read_error)
    }

    async fn feed_head(&self) -> Result<i64, Error> {
        read::feed_head(&self.readers).await.map_err(read_error)
    }

    async fn run(&self, job: LooseJob) -> Result<(Value, Vec<SagaId>), Error> {
        match self.write(Ask::Run(job)).await? {
            Answer::Ran(output, posted) => Ok((output, posted)),
            _ => Err(Error::Closed),
        }
    }

    async fn fetch(&self, sql: tx::Sql, params: Vec<tx::Param>) -> Result<Vec<tx::Row>, Error> {
        read::fetch(&self.readers, sql.sqlite, params).await.map_err(read_error)
    }

    async fn close(&self) {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner).take();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // It ends once what waits is written; that it may have panicked changes nothing here.
            let _ = tokio::task::spawn_blocking(|| writer.join()).await;
        }
        self.readers.close().await;
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

fn read_error(error: sqlx::Error) -> Error {
    match error {
        sqlx::Error::Decode(what) => Error::Unreadable(what.to_string()),
        sqlx::Error::ColumnDecode { .. } => Error::Unreadable(error.to_string()),
        other => Error::Unavailable(other.to_string()),
    }
}

//! The memory store: the promises of a store as plainly as Rust can say them, for tests and for readers.
//!
//! Everything is in maps behind one lock. User SQL runs on a SQLite database in memory, on the caller's own thread,
//! and its transaction is committed together with the maps. Several workers may share one: each has a handle.

mod moment;
mod statements;
mod tables;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use rusqlite::Connection;
use serde_json::Value;
use tokio::sync::{Mutex, Notify};

pub use self::moment::{Moment, SagaSeen};
use self::statements::MemoryStatements;
use self::tables::{Known, Tables};
use super::lease::LEASE;
use super::open::Migrations;
use super::tx::{self, Param, Sql};
use super::{
    Append, AuditRow, Error, Fed, GateMove, GateRow, Job, Letter, Loaded, Loose, LooseJob, NewSaga,
    ResourceFilter, ResourceRow, SagaFilter, SagaRow, Started, Store, limits, user_sql,
};
use crate::env::{Env, Timestamp};
use crate::gate::{GateWait, Lane};
use crate::ids::{InstallationId, SagaId, SecretRef};
use crate::journal::Entry;
use crate::journal::failure::{Cause, Failure};
use crate::journal::state::Attention;
use crate::journal::unsettled::is_it;
use crate::secret::{Key, Sealed, Vault};

/// Of the engine's tables, those that hold what the sweep found: they are read and written by one text everywhere.
const FINDINGS: &str = include_str!("../../../migrations/sqlite/0002_census_and_finding.sql");

/// How long it waits for something to become due when it knows of nothing.
const LONG: Duration = Duration::from_secs(3600);

/// One worker's handle on a store that lives as long as the process.
pub struct MemoryStore {
    env: Env,
    worker: u64,
    shared: Arc<Shared>,
    changed: Arc<Notify>,
}

struct Shared {
    installation: InstallationId,
    inner: Mutex<(Tables, Connection)>,
    workers: AtomicU64,
    /// One for each worker: something may have become due.
    changed: std::sync::Mutex<Vec<Weak<Notify>>>,
    /// Something was written.
    written: Notify,
}

impl MemoryStore {
    /// An empty store with these tables of the program's own.
    ///
    /// # Errors
    /// SQLite cannot open a database in memory, or a script of `own` is wrong.
    pub async fn new(own: &[Migrations], env: &Env) -> Result<(Self, Vault), Error> {
        let connection = Connection::open_in_memory().map_err(unavailable)?;
        connection.execute_batch(FINDINGS).map_err(unavailable)?;
        for (_, script) in own.iter().flat_map(|part| part.sqlite) {
            connection.execute_batch(script).map_err(unavailable)?;
        }
        let installation = InstallationId::from_uuid(env.uuid());
        let vault = Vault::new(&Key::from_bytes(env.bytes()), installation.clone());
        let shared = Shared {
            installation,
            inner: Mutex::new((Tables::default(), connection)),
            workers: AtomicU64::new(1),
            changed: std::sync::Mutex::default(),
            written: Notify::new(),
        };
        let changed = shared.subscribe();
        Ok((Self { env: env.clone(), worker: 0, shared: Arc::new(shared), changed }, vault))
    }

    /// Another worker's handle on the same store: the two never hold one saga at a time.
    #[must_use]
    pub fn another(&self, env: &Env) -> Self {
        let worker = self.shared.workers.fetch_add(1, Ordering::Relaxed);
        let changed = self.shared.subscribe();
        Self { env: env.clone(), worker, shared: self.shared.clone(), changed }
    }

    async fn read<T>(&self, read: impl FnOnce(&Tables) -> T) -> T {
        read(&self.shared.inner.lock().await.0)
    }

    /// Changes the tables; what fails, changes nothing.
    async fn write<T>(&self, write: impl FnOnce(&mut Tables) -> Result<T, Error>) -> Result<T, Error> {
        let done = write(&mut self.shared.inner.lock().await.0)?;
        self.shared.tell();
        Ok(done)
    }

    /// Waits for a local activity, and no longer than one may take; a panic of it is its failure.
    async fn in_time<T>(&self, job: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let limit = self.env.time_limit(tx::LOCAL_MAX);
        let done = tokio::time::timeout(limit, std::panic::AssertUnwindSafe(job).catch_unwind()).await;
        done.unwrap_or_else(|_| Ok(Err(tx::overdue(limit)))).unwrap_or_else(|_| {
            let detail = "the local activity panicked".to_owned();
            Err(Failure::Unavailable { cause: Cause::Panic, detail, retry_after: None })
        })
    }

    /// Looks at everything there is at one moment.
    pub async fn look<T>(&self, look: impl FnOnce(&Moment<'_>) -> T) -> T {
        self.read(|tables| look(&Moment(tables))).await
    }

    /// Returns when something was written after this was first polled.
    pub async fn written(&self) {
        self.shared.written.notified().await;
    }
}

impl Shared {
    fn subscribe(&self) -> Arc<Notify> {
        let changed = Arc::new(Notify::new());
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&changed));
        changed
    }

    fn tell(&self) {
        let mut workers = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        workers.retain(|worker| worker.upgrade().inspect(|changed| changed.notify_one()).is_some());
        drop(workers);
        self.written.notify_waiters();
    }
}

fn unavailable(error: rusqlite::Error) -> Error {
    Error::Unavailable(error.to_string())
}

/// Undoes what is left of a transaction whose job was dropped before its end.
fn clear(connection: &Connection) -> Result<(), Error> {
    if connection.is_autocommit() {
        Ok(())
    } else {
        connection.execute_batch("rollback").map_err(unavailable)
    }
}

/// Runs user SQL and what follows from it; the connection and the tables change together or not at all.
macro_rules! together {
    ($store:expr, $job:expr, |$tables:ident, $output:ident| $apply:expr) => {{
        let mut inner = $store.shared.inner.lock().await;
        let ($tables, connection) = &mut *inner;
        clear(connection)?;
        connection.execute_batch("begin").map_err(unavailable)?;
        let mut statements = MemoryStatements { connection, tables: $tables };
        let outcome: Result<_, Failure> = $store.in_time($job(&mut statements)).await;
        let outcome: Result<_, Error> = outcome.map_err(Error::from).and_then(|$output| $apply);
        let end = if outcome.is_ok() { "commit" } else { "rollback" };
        connection.execute_batch(end).map_err(unavailable)?;
        if outcome.is_ok() {
            $store.shared.tell();
        }
        outcome
    }};
}

#[async_trait]
impl Store for MemoryStore {
    fn installation(&self) -> &InstallationId {
        &self.shared.installation
    }

    async fn start(&self, new: NewSaga) -> Result<Started, Error> {
        limits::start(&new)?;
        self.write(|tables| Ok(tables.start(new))).await
    }

    async fn start_held(&self, new: NewSaga) -> Result<(Started, bool), Error> {
        limits::start(&new)?;
        let begins_at_once = new.begins_at_once();
        let until = self.env.now().plus(LEASE);
        self.write(|tables| {
            let started = tables.start(new);
            let is_held = begins_at_once && matches!(started, Started::New(_));
            if is_held && let Some(known) = tables.sagas.get_mut(started.saga()) {
                known.holder = Some(self.worker);
                tables.workers.entry(self.worker).or_insert(until);
            }
            Ok((started, is_held))
        })
        .await
    }

    async fn append(&self, append: Arc<Append>) -> Result<(), Error> {
        limits::append(&append)?;
        self.write(|tables| tables.append(Arc::unwrap_or_clone(append))).await
    }

    async fn transact(&self, turn: Arc<Append>, job: Job) -> Result<Append, Error> {
        self.append(turn).await?;
        together!(self, job, |tables, append| limits::append(&append)
            .and_then(|()| tables.append(append.clone()))
            .map(|()| append))
    }

    async fn post(&self, letter: Letter) -> Result<(), Error> {
        limits::letter(&letter)?;
        let saga = letter.saga.clone();
        self.write(|tables| if tables.post(letter) { Ok(()) } else { Err(Error::NoSuchSaga(saga)) }).await
    }

    async fn claim(&self, now: Timestamp, limit: usize) -> Result<Vec<SagaId>, Error> {
        let mut inner = self.shared.inner.lock().await;
        let tables = &mut inner.0;
        // The store's clock says whose lease holds.
        let clock = self.env.now();
        tables.workers.entry(self.worker).or_insert_with(|| clock.plus(LEASE));
        let holds = |worker: u64| tables.workers.get(&worker).is_some_and(|until| *until > clock);
        let is_due = |known: &&Known| {
            !known.row.state.is_ended()
                && (known.row.due_at.is_some_and(|due| due <= now) || known.has_mail())
                && known.holder.is_none_or(|worker| !holds(worker))
        };
        let mut due: Vec<&Known> = tables.sagas.values().filter(is_due).collect();
        due.sort_by_key(|known| (-i64::from(known.priority), known.row.due_at.map_or(0, |due| due.0)));
        let due: Vec<SagaId> = due.into_iter().map(|known| known.row.id.clone()).collect();
        let mut claimed = Vec::new();
        for id in due {
            if claimed.len() == limit {
                break;
            }
            let has_mail = tables.sagas.get(&id).is_some_and(Known::has_mail);
            if !tables.take_place(&id) && !has_mail {
                continue;
            }
            let Some(known) = tables.sagas.get_mut(&id) else { continue };
            // The number of the lease rises when it is taken over from a worker that did not give it back.
            known.row.epoch += i64::from(known.holder.is_some());
            known.holder = Some(self.worker);
            claimed.push(id);
        }
        Ok(claimed)
    }

    async fn release(&self, saga: &SagaId) -> Result<(), Error> {
        let mut inner = self.shared.inner.lock().await;
        if let Some(known) = inner.0.sagas.get_mut(saga).filter(|known| known.holder == Some(self.worker)) {
            known.holder = None;
            self.shared.tell();
        }
        Ok(())
    }

    async fn keep_only(&self, live: &[SagaId]) -> Result<(), Error> {
        let mut inner = self.shared.inner.lock().await;
        let held = inner.0.sagas.values_mut().filter(|known| known.holder == Some(self.worker));
        held.filter(|known| !live.contains(&known.row.id)).for_each(|known| known.holder = None);
        self.shared.tell();
        Ok(())
    }

    async fn renew(&self) -> Result<Option<Duration>, Error> {
        let until = self.env.now().plus(LEASE);
        self.shared.inner.lock().await.0.workers.insert(self.worker, until);
        Ok(Some(LEASE))
    }

    async fn mail(&self) -> Result<Vec<SagaId>, Error> {
        let mine = |known: &&Known| known.holder == Some(self.worker) && known.has_mail();
        Ok(self
            .read(|tables| tables.sagas.values().filter(mine).map(|known| known.row.id.clone()).collect())
            .await)
    }

    async fn load(&self, saga: &SagaId) -> Result<Loaded, Error> {
        self.read(|tables| {
            let known = tables.sagas.get(saga).ok_or_else(|| Error::NoSuchSaga(saga.clone()))?;
            if known.holder != Some(self.worker) {
                return Err(Error::Fenced(saga.clone()));
            }
            let (epoch, entries) = (known.row.epoch, known.journal.clone());
            let has_mail = known.inbox.iter().any(|(_, consumed)| !consumed);
            Ok(Loaded { epoch, entries, may_begin: known.may_begin(), has_mail })
        })
        .await
    }

    async fn mark_unreadable(&self, saga: &SagaId, detail: &str) -> Result<(), Error> {
        self.write(|tables| {
            if let Some(known) = tables.sagas.get_mut(saga).filter(|known| !known.row.state.is_ended()) {
                known.row.attention = vec![Attention::Unreadable];
                known.row.error = Some(detail.to_owned());
            }
            Ok(())
        })
        .await
    }

    async fn letters_page(
        &self,
        saga: &SagaId,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Letter>, Error> {
        self.read(|tables| {
            let inbox = tables.sagas.get(saga).map(|known| known.inbox.as_slice()).unwrap_or_default();
            let read = after.and_then(|after| inbox.iter().position(|(letter, _)| letter.id == after));
            let unread =
                inbox.iter().skip(read.map_or(0, |place| place + 1)).filter(|(_, consumed)| !consumed);
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            Ok(unread.take(limit).map(|(letter, _)| letter.clone()).collect())
        })
        .await
    }

    async fn unread(&self, saga: &SagaId, most: u32) -> Result<u32, Error> {
        self.read(|tables| {
            let inbox = tables.sagas.get(saga).map(|known| known.inbox.as_slice()).unwrap_or_default();
            let unread = inbox.iter().filter(|(_, consumed)| !consumed).count();
            Ok(u32::try_from(unread).unwrap_or(u32::MAX).min(most))
        })
        .await
    }

    async fn changed(&self) {
        let now = self.env.now();
        // A lease that is about to end makes what its worker holds claimable.
        let due = |tables: &Tables| {
            let next = |known: &Known| {
                let until = known.holder.and_then(|worker| tables.workers.get(&worker).copied());
                let due = if known.has_mail() { Some(now) } else { known.row.due_at };
                due.filter(|_| known.holder != Some(self.worker)).map(|due| due.max(until.unwrap_or(due)))
            };
            tables.sagas.values().filter(|known| !known.row.state.is_ended()).filter_map(next).min()
        };
        let wait = self.read(due).await.map_or(LONG, |due| due.since(now).max(Duration::from_millis(1)));
        tokio::select! {
            biased;
            () = self.changed.notified() => {}
            () = self.env.sleep(wait) => {}
        }
    }

    async fn saga(&self, saga: &SagaId) -> Result<Option<SagaRow>, Error> {
        Ok(self.read(|tables| tables.sagas.get(saga).map(|known| known.row.clone())).await)
    }

    async fn rows(&self, sagas: &[SagaId]) -> Result<Vec<Option<SagaRow>>, Error> {
        let row = |tables: &Tables, saga| tables.sagas.get(saga).map(|known| known.row.clone());
        Ok(self.read(|tables| sagas.iter().map(|saga| row(tables, saga)).collect()).await)
    }

    async fn output(&self, saga: &SagaId) -> Result<Option<Value>, Error> {
        Ok(self.read(|tables| tables.sagas.get(saga).and_then(|known| known.output.clone())).await)
    }

    async fn journal(&self, saga: &SagaId) -> Result<Vec<Entry>, Error> {
        let journal = |tables: &Tables| tables.sagas.get(saga).map(|known| known.journal.clone());
        Ok(self.read(journal).await.unwrap_or_default())
    }

    async fn sagas(&self, filter: SagaFilter) -> Result<Vec<SagaRow>, Error> {
        let wanted = |row: &&SagaRow| {
            (filter.states.is_empty() || filter.states.contains(&row.state))
                && (!filter.attention || !row.attention.is_empty())
                && filter.workflow.as_ref().is_none_or(|name| *name == row.workflow)
                && filter.label.as_ref().is_none_or(|(name, value)| row.labels.get(name) == Some(value))
                && filter.fingerprint.as_ref().is_none_or(|text| row.fingerprint.as_ref() == Some(text))
                && filter.parent.as_ref().is_none_or(|parent| row.parent.as_ref() == Some(parent))
                && filter.before.as_ref().is_none_or(|before| row.id < *before)
        };
        let limit = page(filter.limit);
        let rows = |tables: &Tables| {
            tables.sagas.values().rev().map(|known| &known.row).filter(wanted).take(limit).cloned().collect()
        };
        Ok(self.read(rows).await)
    }

    async fn resources(&self, filter: ResourceFilter) -> Result<Vec<ResourceRow>, Error> {
        let wanted = |row: &&ResourceRow| {
            (filter.states.is_empty() || filter.states.contains(&row.state))
                && filter.holder.as_ref().is_none_or(|id| *id == row.holder || id == row.saga.as_str())
                && filter.provider.as_ref().is_none_or(|name| *name == row.provider)
                && filter.name.as_ref().is_none_or(|name| *name == row.name)
                && filter.before.as_ref().is_none_or(|before| row.id < *before)
                && filter.unsettled.as_ref().is_none_or(|(object, now)| {
                    is_it(row, object) && row.unsettled_until.is_some_and(|until| until > *now)
                })
        };
        let limit = page(filter.limit);
        Ok(self
            .read(|tables| tables.resources.values().rev().filter(wanted).take(limit).cloned().collect())
            .await)
    }

    async fn secret(&self, reference: &SecretRef) -> Result<Option<Sealed>, Error> {
        Ok(self.read(|tables| tables.secrets.get(reference).map(|(_, sealed)| sealed.clone())).await)
    }

    async fn audit(&self, saga: &SagaId) -> Result<Vec<AuditRow>, Error> {
        let of_saga = |tables: &Tables| {
            tables.audit.iter().filter(|(id, _)| id == saga).map(|(_, row)| row.clone()).collect()
        };
        Ok(self.read(of_saga).await)
    }

    async fn gates(&self, granted_since: Timestamp) -> Result<Vec<GateRow>, Error> {
        Ok(self.read(|tables| tables.all_gates(granted_since)).await)
    }

    async fn gate_queue(
        &self,
        key: &str,
        lane: Lane,
        granted_since: Timestamp,
        limit: u32,
    ) -> Result<Vec<GateWait>, Error> {
        let mut queue = self.read(|tables| tables.gate_queue(key, lane, granted_since)).await;
        queue.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(queue)
    }

    async fn move_gate(&self, moved: GateMove) -> Result<bool, Error> {
        limits::gate(&moved)?;
        self.write(|tables| Ok(tables.move_gate(moved))).await
    }

    async fn feed(&self, after: i64, limit: u32) -> Result<Vec<Fed>, Error> {
        let after = usize::try_from(after).unwrap_or(0);
        Ok(self.read(|tables| tables.feed.iter().skip(after).take(page(limit)).cloned().collect()).await)
    }

    async fn feed_head(&self) -> Result<i64, Error> {
        Ok(self.read(|tables| tables.feed.last().map_or(0, |last| last.number)).await)
    }

    async fn run(&self, job: LooseJob) -> Result<(Value, Vec<SagaId>), Error> {
        together!(self, job, |tables, loose| limits::loose(&loose).map(|()| {
            let Loose { output, beside, letters } = loose;
            let owner = beside.starts.first().map_or(String::new(), |saga| saga.id.to_string());
            for new in beside.starts {
                tables.start(new);
            }
            for sealed in beside.sealed {
                tables.secrets.insert(sealed.id.clone(), (owner.clone(), sealed));
            }
            for owner in beside.destroyed {
                tables.pass_secrets(&owner, None);
            }
            let sagas = letters.iter().map(|letter| letter.saga.clone()).collect();
            for letter in letters {
                tables.post(letter);
            }
            (output, sagas)
        }))
    }

    async fn fetch(&self, sql: Sql, params: Vec<Param>) -> Result<Vec<tx::Row>, Error> {
        let inner = self.shared.inner.lock().await;
        clear(&inner.1)?;
        user_sql::fetch(&inner.1, sql.sqlite, params).map_err(|error| Error::Unreadable(error.to_string()))
    }

    async fn close(&self) {}
}

fn page(limit: u32) -> usize {
    usize::try_from(super::page::page(limit)).unwrap_or(usize::MAX)
}

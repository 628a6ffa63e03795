//! The memory store: the promises of a store as plainly as Rust can say them, for tests and for readers.
//!
//! Everything is in maps behind one lock. User SQL runs on a SQLite database in memory, whose transaction is
//! committed together with the maps.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use sqlx::{Connection, Executor, SqliteConnection};
use tokio::sync::{Mutex, Notify};

use super::sqlite::{Migrations, SqliteStatements};
use super::tx::{self, Param, Statements};
use super::{
    Append, Error, GateRow, Job, Letter, Loaded, Loose, LooseJob, NewSaga, ResourceFilter, ResourceRow,
    ResourceState, SagaFilter, SagaRow, SecretFate, Started, Store,
};
use crate::env::{Env, Timestamp};
use crate::ids::{InstallationId, ResourceId, SagaId, SecretRef};
use crate::journal::failure::Failure;
use crate::journal::state::SagaState;
use crate::journal::{Entry, Event};
use crate::secret::{Key, Sealed, Vault};

const TICK: Duration = Duration::from_millis(100);
const PAGE: usize = 50;

#[derive(Default, Clone)]
struct Tables {
    sagas: BTreeMap<SagaId, SagaRow>,
    keys: HashMap<String, (SagaId, String)>,
    outputs: HashMap<SagaId, Value>,
    journal: HashMap<SagaId, Vec<Entry>>,
    resources: BTreeMap<ResourceId, ResourceRow>,
    /// With the owner of each.
    secrets: HashMap<SecretRef, (String, Sealed)>,
    /// In the order of arrival; the flag says whether it is consumed.
    inbox: Vec<(Letter, bool)>,
    gates: HashMap<String, GateRow>,
    held: BTreeSet<SagaId>,
}

/// A store that lives as long as the process.
pub struct MemoryStore {
    installation: InstallationId,
    env: Env,
    inner: Mutex<(Tables, SqliteConnection)>,
    changed: Notify,
}

impl MemoryStore {
    /// An empty store with these tables of the program's own.
    ///
    /// # Errors
    /// SQLite cannot open a database in memory, or a script of `own` is wrong.
    pub async fn new(own: &[Migrations], env: &Env) -> Result<(Self, Vault), Error> {
        let unavailable = |error: sqlx::Error| Error::Unavailable(error.to_string());
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.map_err(unavailable)?;
        for (_, script) in own.iter().flat_map(|part| part.scripts) {
            connection.execute(*script).await.map_err(unavailable)?;
        }
        let installation = InstallationId::from_uuid(env.uuid());
        let vault = Vault::new(&Key::from_bytes(env.bytes()), installation.clone());
        let inner = Mutex::new((Tables::default(), connection));
        Ok((Self { installation, env: env.clone(), inner, changed: Notify::new() }, vault))
    }

    async fn read<T>(&self, read: impl FnOnce(&Tables) -> T) -> T {
        read(&self.inner.lock().await.0)
    }

    /// Changes the tables; a change that fails changes nothing.
    async fn write<T>(&self, write: impl FnOnce(&mut Tables) -> Result<T, Error>) -> Result<T, Error> {
        let mut inner = self.inner.lock().await;
        let mut tables = inner.0.clone();
        let done = write(&mut tables)?;
        inner.0 = tables;
        self.changed.notify_one();
        Ok(done)
    }
}

impl Tables {
    fn start(&mut self, new: NewSaga) -> Started {
        let fingerprint = new.fingerprint();
        if let Some((id, known)) = self.keys.get(&new.key) {
            let same = *known == fingerprint;
            return if same { Started::Before(id.clone()) } else { Started::KeyReused(id.clone()) };
        }
        let NewSaga { id, workflow, workflow_version, input, key, deadline_at, labels, at, sealed } = new;
        self.keys.insert(key, (id.clone(), fingerprint));
        let event = Event::SagaStarted {
            workflow: workflow.clone(),
            workflow_version,
            input,
            deadline_at,
            labels: labels.clone(),
        };
        self.journal.insert(id.clone(), vec![Entry { seq: 1, at, epoch: 1, event }]);
        for sealed in sealed {
            self.secrets.insert(sealed.id.clone(), (id.to_string(), sealed));
        }
        let row = SagaRow {
            id: id.clone(),
            workflow,
            workflow_version,
            state: SagaState::Queued,
            attention: Vec::new(),
            step: None,
            error: None,
            labels,
            deadline_at,
            due_at: Some(at),
            epoch: 1,
            seq: 1,
            created_at: at,
            updated_at: at,
            ended_at: None,
        };
        self.sagas.insert(id.clone(), row);
        Started::New(id)
    }

    fn append(&mut self, append: Append) -> Result<(), Error> {
        let id = append.row.id.clone();
        let length = i64::try_from(append.entries.len()).unwrap_or(i64::MAX);
        let stored = self.sagas.get_mut(&id).ok_or_else(|| Error::NoSuchSaga(id.clone()))?;
        if stored.epoch != append.row.epoch || stored.seq != append.row.seq - length {
            return Err(Error::Fenced(id));
        }
        *stored = SagaRow { created_at: stored.created_at, ..append.row };
        if let Some(output) = append.output {
            self.outputs.insert(id.clone(), output);
        }
        self.journal.entry(id.clone()).or_default().extend(append.entries);
        for write in append.resources {
            let stored = self.resources.get(&write.row.id).map(|row| (row.holder.clone(), row.rev));
            if stored != write.stored {
                return Err(Error::LedgerMoved(id));
            }
            self.resources.insert(write.row.id.clone(), write.row);
        }
        for sealed in append.sealed {
            self.secrets.insert(sealed.id.clone(), (id.to_string(), sealed));
        }
        for (letter, consumed) in &mut self.inbox {
            *consumed |= append.consumed.contains(&letter.id);
        }
        for gate in append.gates {
            let known = self.gates.entry(gate.key.clone()).or_insert_with(|| gate.clone());
            if known.next_allowed_at < gate.next_allowed_at {
                *known = gate;
            }
        }
        for new in append.starts {
            if let Started::Before(other) | Started::KeyReused(other) = self.start(new) {
                return Err(Error::Unavailable(format!("the key of a start was taken by saga {other}")));
            }
        }
        for letter in append.letters {
            self.post(letter);
        }
        match append.secrets {
            SecretFate::Stay => {}
            SecretFate::PassTo(owner) => self.pass_secrets(id.as_str(), Some(&owner)),
            SecretFate::Destroyed => self.pass_secrets(id.as_str(), None),
        }
        for owner in append.destroyed {
            self.pass_secrets(&owner, None);
        }
        Ok(())
    }

    fn pass_secrets(&mut self, from: &str, to: Option<&str>) {
        match to {
            Some(to) => {
                let owned = self.secrets.values_mut().filter(|(owner, _)| owner == from);
                owned.for_each(|(owner, _)| to.clone_into(owner));
            }
            None => self.secrets.retain(|_, (owner, _)| owner != from),
        }
    }

    /// Leaves a letter; says whether the saga exists.
    fn post(&mut self, letter: Letter) -> bool {
        let is_known = self.sagas.contains_key(&letter.saga);
        if is_known && !self.inbox.iter().any(|(other, _)| other.id == letter.id) {
            self.inbox.push((letter, false));
        }
        is_known
    }
}

/// User SQL on the database in memory, and the engine's own tables beside it.
struct MemoryStatements<'m> {
    sql: SqliteStatements<'m>,
    tables: &'m Tables,
}

#[async_trait]
impl Statements for MemoryStatements<'_> {
    async fn execute(&mut self, sql: &'static str, params: Vec<Param>) -> Result<u64, tx::Error> {
        self.sql.execute(sql, params).await
    }

    async fn fetch(&mut self, sql: &'static str, params: Vec<Param>) -> Result<Vec<tx::Row>, tx::Error> {
        self.sql.fetch(sql, params).await
    }

    async fn held_by(&mut self, holder: &str) -> Result<Vec<ResourceRow>, tx::Error> {
        let held = |row: &&ResourceRow| row.holder == holder && row.state != ResourceState::Gone;
        Ok(self.tables.resources.values().filter(held).cloned().collect())
    }

    async fn started_under(&mut self, key: &str) -> Result<Option<(SagaId, String)>, tx::Error> {
        Ok(self.tables.keys.get(key).cloned())
    }

    async fn saga_state(&mut self, saga: &SagaId) -> Result<Option<(SagaState, Vec<String>)>, tx::Error> {
        let row = self.tables.sagas.get(saga);
        Ok(row.map(|row| (row.state, row.attention.iter().map(ToString::to_string).collect())))
    }
}

fn unavailable(error: sqlx::Error) -> Error {
    Error::Unavailable(error.to_string())
}

/// Runs user SQL and what follows from it; the connection and the tables change together or not at all.
macro_rules! together {
    ($store:expr, $job:expr, |$tables:ident, $output:ident| $apply:expr) => {{
        let mut inner = $store.inner.lock().await;
        let (tables, connection) = &mut *inner;
        connection.execute("begin").await.map_err(unavailable)?;
        let outcome: Result<_, Failure> =
            $job(&mut MemoryStatements { sql: SqliteStatements(connection), tables }).await;
        let mut $tables = tables.clone();
        let outcome = outcome.map_err(Error::from).and_then(|$output| $apply);
        let end = if outcome.is_ok() { "commit" } else { "rollback" };
        connection.execute(end).await.map_err(unavailable)?;
        if outcome.is_ok() {
            *tables = $tables;
            $store.changed.notify_one();
        }
        outcome
    }};
}

#[async_trait]
impl Store for MemoryStore {
    fn installation(&self) -> &InstallationId {
        &self.installation
    }

    async fn start(&self, new: NewSaga) -> Result<Started, Error> {
        self.write(|tables| Ok(tables.start(new))).await
    }

    async fn append(&self, append: Append) -> Result<(), Error> {
        self.write(|tables| tables.append(append)).await
    }

    async fn transact(&self, _saga: SagaId, job: Job) -> Result<Append, Error> {
        together!(self, job, |tables, append| tables.append(append.clone()).map(|()| append))
    }

    async fn post(&self, letter: Letter) -> Result<(), Error> {
        let saga = letter.saga.clone();
        self.write(|tables| if tables.post(letter) { Ok(()) } else { Err(Error::NoSuchSaga(saga)) }).await
    }

    async fn claim(&self, now: Timestamp, limit: usize) -> Result<Vec<SagaId>, Error> {
        let mut inner = self.inner.lock().await;
        let tables = &mut inner.0;
        let has_letter =
            |row: &SagaRow| tables.inbox.iter().any(|(letter, consumed)| !consumed && letter.saga == row.id);
        let is_due = |row: &&SagaRow| row.due_at.is_some_and(|due| due <= now) || has_letter(row);
        let claimable =
            |row: &&SagaRow| !row.state.is_ended() && !tables.held.contains(&row.id) && is_due(row);
        let claimed: Vec<SagaId> =
            tables.sagas.values().filter(claimable).take(limit).map(|row| row.id.clone()).collect();
        tables.held.extend(claimed.iter().cloned());
        Ok(claimed)
    }

    async fn release(&self, saga: &SagaId) {
        self.inner.lock().await.0.held.remove(saga);
    }

    async fn load(&self, saga: &SagaId) -> Result<Loaded, Error> {
        self.read(|tables| {
            let row = tables.sagas.get(saga).ok_or_else(|| Error::NoSuchSaga(saga.clone()))?;
            let entries = tables.journal.get(saga).cloned().unwrap_or_default();
            Ok(Loaded { epoch: row.epoch, entries })
        })
        .await
    }

    async fn letters(&self, saga: &SagaId) -> Result<Vec<Letter>, Error> {
        self.read(|tables| {
            let waiting = |(letter, consumed): &&(Letter, bool)| letter.saga == *saga && !consumed;
            Ok(tables.inbox.iter().filter(waiting).map(|(letter, _)| letter.clone()).collect())
        })
        .await
    }

    async fn changed(&self) {
        tokio::select! {
            () = self.changed.notified() => {}
            () = self.env.sleep(TICK) => {}
        }
    }

    async fn saga(&self, saga: &SagaId) -> Result<Option<SagaRow>, Error> {
        Ok(self.read(|tables| tables.sagas.get(saga).cloned()).await)
    }

    async fn output(&self, saga: &SagaId) -> Result<Option<Value>, Error> {
        Ok(self.read(|tables| tables.outputs.get(saga).cloned()).await)
    }

    async fn journal(&self, saga: &SagaId) -> Result<Vec<Entry>, Error> {
        Ok(self.read(|tables| tables.journal.get(saga).cloned().unwrap_or_default()).await)
    }

    async fn sagas(&self, filter: SagaFilter) -> Result<Vec<SagaRow>, Error> {
        let wanted = |row: &&SagaRow| {
            (filter.states.is_empty() || filter.states.contains(&row.state))
                && (!filter.attention || !row.attention.is_empty())
                && filter.workflow.as_ref().is_none_or(|name| *name == row.workflow)
                && filter.label.as_ref().is_none_or(|(name, value)| row.labels.get(name) == Some(value))
                && filter.before.as_ref().is_none_or(|before| row.id < *before)
        };
        let limit = page(filter.limit);
        Ok(self
            .read(|tables| tables.sagas.values().rev().filter(wanted).take(limit).cloned().collect())
            .await)
    }

    async fn resources(&self, filter: ResourceFilter) -> Result<Vec<ResourceRow>, Error> {
        let wanted = |row: &&ResourceRow| {
            (filter.states.is_empty() || filter.states.contains(&row.state))
                && filter.holder.as_ref().is_none_or(|id| *id == row.holder || id == row.saga.as_str())
                && filter.provider.as_ref().is_none_or(|name| *name == row.provider)
                && filter.before.as_ref().is_none_or(|before| row.id < *before)
        };
        let limit = page(filter.limit);
        Ok(self
            .read(|tables| tables.resources.values().rev().filter(wanted).take(limit).cloned().collect())
            .await)
    }

    async fn secret(&self, reference: &SecretRef) -> Result<Option<Sealed>, Error> {
        Ok(self.read(|tables| tables.secrets.get(reference).map(|(_, sealed)| sealed.clone())).await)
    }

    async fn gates(&self, now: Timestamp) -> Result<Vec<GateRow>, Error> {
        let closed = |gate: &&GateRow| gate.next_allowed_at > now;
        Ok(self.read(|tables| tables.gates.values().filter(closed).cloned().collect()).await)
    }

    async fn run(&self, job: LooseJob) -> Result<(Value, Vec<SagaId>), Error> {
        together!(self, job, |tables, loose| {
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
            Ok((output, sagas))
        })
    }

    async fn fetch(&self, sql: &'static str, params: Vec<Param>) -> Result<Vec<tx::Row>, Error> {
        let mut inner = self.inner.lock().await;
        let rows = SqliteStatements(&mut inner.1).fetch(sql, params).await;
        rows.map_err(|error| Error::Unreadable(error.to_string()))
    }

    async fn close(&self) {}
}

fn page(limit: u32) -> usize {
    if limit == 0 { PAGE } else { usize::try_from(limit).unwrap_or(usize::MAX) }
}

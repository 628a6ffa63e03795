//! Tx: the transaction that a local activity works in, the same on every database.

use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use serde::Serialize;
use serde_json::Value;

use super::{Message, NewSaga, ResourceRow};
use crate::data::{self, Unstorable, limits};
use crate::env::{Env, Timestamp};
use crate::ids::{SagaId, SecretRef, StepKey};
use crate::journal::failure::{Cause, Failure};
use crate::journal::state::SagaState;
use crate::saga::Workflow;
use crate::secret::{Sealed, Vault};

/// How long a local activity may take: others wait for it, on SQLite and in memory everybody who writes.
pub(super) const LOCAL_MAX: Duration = Duration::from_secs(30);

/// What a local activity comes to that was not over in time: its transaction is undone.
pub(super) fn overdue(limit: Duration) -> Failure {
    let detail = format!("the local activity was not over within {}", humantime::format_duration(limit));
    Failure::Unavailable { cause: Cause::Timeout, detail, retry_after: None }
}

/// A statement with `$1`, `$2`, …, as each database takes it. Plain text is the same for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sql {
    /// For SQLite, and for the memory store.
    pub sqlite: &'static str,
    /// For Postgres.
    pub postgres: &'static str,
}

impl From<&'static str> for Sql {
    fn from(text: &'static str) -> Self {
        Self { sqlite: text, postgres: text }
    }
}

/// A value that goes into SQL or comes out of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Param {
    /// Text.
    Text(String),
    /// A whole number; times are microseconds.
    Int(i64),
    /// A number.
    Real(f64),
    /// Bytes.
    Blob(Vec<u8>),
    /// Nothing.
    Null,
}

macro_rules! param_from {
    ($($kind:ty => $make:expr),* $(,)?) => {$(
        impl From<$kind> for Param {
            fn from(value: $kind) -> Self {
                #[allow(clippy::redundant_closure_call)]
                ($make)(value)
            }
        }
    )*};
}
param_from! {
    &str => |text: &str| Param::Text(text.to_owned()),
    String => Param::Text,
    &String => |text: &String| Param::Text(text.clone()),
    i64 => Param::Int,
    i32 => |number| Param::Int(i64::from(number)),
    u32 => |number| Param::Int(i64::from(number)),
    bool => |yes| Param::Int(i64::from(yes)),
    f64 => Param::Real,
    Vec<u8> => Param::Blob,
    Timestamp => |at: Timestamp| Param::Int(at.0),
    &SagaId => |id: &SagaId| Param::Text(id.to_string()),
    &SecretRef => |id: &SecretRef| Param::Text(id.to_string()),
    Value => |json: Value| Param::Text(json.to_string()),
}

impl<T: Into<Param>> From<Option<T>> for Param {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// The values of one statement, in the order of `$1`, `$2`, …
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => { vec![$($crate::store::tx::Param::from($value)),*] };
}

/// One row of an answer, by column name.
#[derive(Debug, Clone, PartialEq)]
pub struct Row(pub Vec<(String, Param)>);

impl Row {
    fn column(&self, name: &str) -> Result<&Param, Error> {
        self.0
            .iter()
            .find_map(|(column, value)| (column == name).then_some(value))
            .ok_or_else(|| Error::Malformed(format!("the answer has no column {name}")))
    }

    /// The text in a column.
    pub fn text(&self, name: &str) -> Result<String, Error> {
        self.optional_text(name)?.ok_or_else(|| Error::Malformed(format!("column {name} is null")))
    }

    /// The text in a column, if it is not null.
    pub fn optional_text(&self, name: &str) -> Result<Option<String>, Error> {
        match self.column(name)? {
            Param::Text(text) => Ok(Some(text.clone())),
            Param::Null => Ok(None),
            other => Err(Error::Malformed(format!("column {name} is not text but {other:?}"))),
        }
    }

    /// The whole number in a column.
    pub fn int(&self, name: &str) -> Result<i64, Error> {
        self.optional_int(name)?.ok_or_else(|| Error::Malformed(format!("column {name} is null")))
    }

    /// The whole number in a column, if it is not null.
    pub fn optional_int(&self, name: &str) -> Result<Option<i64>, Error> {
        match self.column(name)? {
            Param::Int(number) => Ok(Some(*number)),
            Param::Null => Ok(None),
            other => Err(Error::Malformed(format!("column {name} is not a whole number but {other:?}"))),
        }
    }
}

/// Why a statement did not do what it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A `unique`, `check` or `foreign key` of the database refused it.
    #[error("the database refused: {0}")]
    Constraint(String),
    /// The database could not, just now.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The statement or the answer is not what the program takes it for.
    #[error("{0}")]
    Malformed(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Constraint(_) => Failure::refused("conflict", error.to_string()),
            Error::Malformed(_) => Failure::refused("malformed", error.to_string()),
            Error::Unavailable(detail) => {
                Failure::Unavailable { cause: Cause::Database, detail, retry_after: None }
            }
        }
    }
}

/// What a database does for a [`Tx`].
#[async_trait]
pub trait Statements: Send {
    /// Runs a statement; the number of rows it changed.
    async fn execute(&mut self, sql: Sql, params: Vec<Param>) -> Result<u64, Error>;
    /// Runs a query.
    async fn fetch(&mut self, sql: Sql, params: Vec<Param>) -> Result<Vec<Row>, Error>;
    /// The rows on the ledger that `holder` holds and that are not gone.
    async fn held_by(&mut self, holder: &str) -> Result<Vec<ResourceRow>, Error>;
    /// The saga that was started under this key, and its fingerprint.
    async fn started_under(&mut self, key: &str) -> Result<Option<(SagaId, String)>, Error>;
    /// Where a saga is; nothing if there is none of this id.
    async fn saga_state(&mut self, saga: &SagaId) -> Result<Option<(SagaState, Vec<String>)>, Error>;
}

/// A word for another saga, left in its inbox by the transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Post {
    /// To whom.
    pub saga: SagaId,
    /// What.
    pub message: super::Message,
}

/// What a transaction does besides its SQL; recorded with the step.
#[derive(Debug, Clone, Default)]
pub struct Beside {
    /// Sagas to start.
    pub starts: Vec<NewSaga>,
    /// Words for other sagas.
    pub posts: Vec<Post>,
    /// Labels for this saga.
    pub labels: Vec<(String, String)>,
    /// Ledger rows taken over from their holder.
    pub taken: Vec<ResourceRow>,
    /// Secrets to keep.
    pub sealed: Vec<Sealed>,
    /// Owners whose secrets are destroyed.
    pub destroyed: Vec<String>,
}

/// Refuses a number that is none: SQLite would keep null for it, and Postgres what it is.
fn check(params: &[Param]) -> Result<(), Error> {
    match params.iter().position(|param| matches!(param, Param::Real(number) if number.is_nan())) {
        Some(place) => Err(Error::Malformed(format!("the value of ${} is not a number", place + 1))),
        None => Ok(()),
    }
}

impl Beside {
    /// Refuses what exceeds a limit: what one saga leaves for another is that one's trouble once it is posted.
    pub(crate) fn check(&self) -> Result<(), Unstorable> {
        self.labels.iter().try_for_each(|(name, value)| limits::label(name, value))?;
        self.posts.iter().try_for_each(|post| match &post.message {
            Message::Act { act, reason, .. } => act.check().and_then(|()| limits::reason(reason)),
            Message::Cancel { reason, .. } => limits::reason(reason),
            _ => Ok(()),
        })
    }
}

/// The transaction of one local activity.
pub struct Tx<'t> {
    pub(crate) saga: &'t SagaId,
    pub(crate) step: &'t StepKey,
    pub(crate) env: &'t Env,
    pub(crate) vault: &'t Vault,
    pub(crate) statements: &'t mut dyn Statements,
    pub(crate) beside: Beside,
}

impl Tx<'_> {
    /// The saga this is done for; in a transaction that belongs to none, an id that no saga bears.
    pub fn saga(&self) -> &SagaId {
        self.saga
    }

    /// The step this is done for.
    pub fn step(&self) -> &StepKey {
        self.step
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        self.env.now()
    }

    /// A fresh UUID (version 7); recorded as part of the output it ends up in.
    pub fn uuid(&self) -> uuid::Uuid {
        self.env.uuid()
    }

    /// A number from 0 up to, and not including, `below`.
    pub fn below(&self, below: u64) -> u64 {
        self.env.below(below)
    }

    /// A duration as this engine waits it.
    pub fn paced(&self, wait: std::time::Duration) -> std::time::Duration {
        self.env.paced(wait)
    }

    /// Runs a statement with `$1`, `$2`, …; the number of rows it changed.
    pub async fn execute(&mut self, sql: impl Into<Sql>, params: Vec<Param>) -> Result<u64, Error> {
        check(&params)?;
        self.statements.execute(sql.into(), params).await
    }

    /// Runs a query with `$1`, `$2`, …
    pub async fn fetch(&mut self, sql: impl Into<Sql>, params: Vec<Param>) -> Result<Vec<Row>, Error> {
        check(&params)?;
        self.statements.fetch(sql.into(), params).await
    }

    /// Starts a saga in this transaction. The same start under the same key before is the same saga; the key
    /// used for something else is refused.
    pub async fn start<W: Workflow>(&mut self, new: NewSaga) -> Result<SagaId, Failure> {
        if new.workflow != W::NAME {
            return Err(Failure::refused("malformed", format!("{} is not {}", new.workflow, W::NAME)));
        }
        super::limits::start(&new).map_err(|error| Failure::refused("too_long", error.to_string()))?;
        new.check()?;
        let same_key = |other: &&NewSaga| other.key == new.key;
        if let Some(other) = self.beside.starts.iter().find(same_key) {
            return Ok(other.id.clone());
        }
        match self.statements.started_under(&new.key).await? {
            Some((id, fingerprint)) if fingerprint == new.fingerprint() => Ok(id),
            Some((id, _)) => Err(Failure::refused("key_reused", format!("key {} started {id}", new.key))),
            None => {
                let id = new.id.clone();
                self.beside.starts.push(new);
                Ok(id)
            }
        }
    }

    /// The engine's clock and dice, for a saga to be started.
    pub fn env(&self) -> &Env {
        self.env
    }

    /// Leaves a signal for another saga.
    pub fn signal(&mut self, saga: &SagaId, name: &str, value: impl Serialize) -> Result<(), Failure> {
        limits::name("the name of the signal", name)?;
        let value = data::written("the signal", &value)?;
        let message = super::Message::Signal { name: name.to_owned(), value };
        self.beside.posts.push(Post { saga: saga.clone(), message });
        Ok(())
    }

    /// Wakes another saga: what it tries again later, it tries now.
    pub fn wake(&mut self, saga: &SagaId) {
        self.beside.posts.push(Post { saga: saga.clone(), message: super::Message::Wake });
    }

    /// Asks another saga to turn round and undo what it did.
    pub fn cancel(&mut self, saga: &SagaId, reason: &str) {
        let message = super::Message::Cancel { actor: self.saga.to_string(), reason: reason.to_owned() };
        self.beside.posts.push(Post { saga: saga.clone(), message });
    }

    /// Labels this saga, for lists. A label that exceeds a limit refuses the whole.
    pub fn label(&mut self, name: &str, value: &str) {
        self.beside.labels.push((name.to_owned(), value.to_owned()));
    }

    /// Takes over every ledger row that `owner` holds: from here on only this saga writes them.
    pub async fn take(&mut self, owner: &str) -> Result<Vec<ResourceRow>, Error> {
        let rows = self.statements.held_by(owner).await?;
        self.beside.taken.extend(rows.iter().cloned());
        Ok(rows)
    }

    /// As [`take`](Self::take), but only the rows that `which` says; the others stay with `owner`.
    pub async fn take_some(
        &mut self,
        owner: &str,
        which: impl Fn(&ResourceRow) -> bool,
    ) -> Result<Vec<ResourceRow>, Error> {
        let mut rows = self.statements.held_by(owner).await?;
        rows.retain(which);
        self.beside.taken.extend(rows.iter().cloned());
        Ok(rows)
    }

    /// The ledger rows that `holder` holds, an owner or a saga, and that are not gone.
    pub async fn held_by(&mut self, holder: &str) -> Result<Vec<ResourceRow>, Error> {
        self.statements.held_by(holder).await
    }

    /// Asks another saga, which takes back what it did, to hand what a step of it made over to `owner` instead. It is
    /// asked through its inbox: whoever drives it does so in its next turn, if the step still waits to be taken back.
    pub fn release(&mut self, saga: &SagaId, step: &StepKey, owner: &str, reason: &str) {
        let message = super::Message::Act {
            operation: crate::ids::OperationId::from_uuid(self.env.uuid()),
            act: crate::journal::Act::Release { step: step.clone(), owner: owner.to_owned() },
            actor: self.saga.to_string(),
            reason: reason.to_owned(),
        };
        self.beside.posts.push(Post { saga: saga.clone(), message });
    }

    /// Where another saga is, and what is the matter with it; nothing if there is none of this id.
    pub async fn saga_state(&mut self, saga: &SagaId) -> Result<Option<(SagaState, Vec<String>)>, Error> {
        self.statements.saga_state(saga).await
    }

    /// Puts a secret away with this step; the reference is for the output.
    ///
    /// # Errors
    /// The kind is empty, longer than a [name](crate::data::NAME_MAX), or has a NUL.
    pub fn seal(&mut self, kind: &str, value: &SecretString) -> Result<SecretRef, Failure> {
        limits::secret_kind(kind)?;
        let sealed = self
            .vault
            .seal(kind, value, self.env)
            .map_err(|error| Failure::refused("secret_unreadable", error.to_string()))?;
        let id = sealed.id.clone();
        self.beside.sealed.push(sealed);
        Ok(id)
    }

    /// Destroys the secrets that `owner` holds.
    pub fn destroy_secrets(&mut self, owner: &str) {
        self.beside.destroyed.push(owner.to_owned());
    }
}

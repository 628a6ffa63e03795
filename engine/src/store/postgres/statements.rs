//! Statements: what a local activity's transaction does, on Postgres.
//!
//! Here a statement that fails ends its transaction, and on SQLite it is undone alone. So that a program sees the same
//! on both, each statement stands behind a savepoint.

use async_trait::async_trait;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgRow, PgTypeInfo};
use sqlx::query::Query;
use sqlx::{Column, Encode, Executor, PgConnection, Postgres, Row as _, Type, TypeInfo, ValueRef};

use super::error::{Remedy, refused, remedy};
use super::reach::Reach;
use super::read::{resource_row, saga_state};
use super::write::clean;
use crate::ids::SagaId;
use crate::journal::state::SagaState;
use crate::store::ResourceRow;
use crate::store::tx::{Error, Param, Row, Sql, Statements};

/// A transaction that is open on this connection.
pub(super) struct PgStatements<'c> {
    reach: &'c Reach,
    connection: &'c mut PgConnection,
    /// The transaction lost against another, and is to be run again as a whole, whatever the program made of it.
    pub(super) lost: bool,
    has_savepoint: bool,
}

/// Nothing, of a type that the server may choose: it fits any column.
struct Nothing;

impl Type<Postgres> for Nothing {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(0))
    }
}

impl Encode<'_, Postgres> for Nothing {
    fn encode_by_ref(&self, _: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Ok(IsNull::Yes)
    }
}

/// Binds user SQL. The driver keeps a prepared statement by its text, and values of other types make it another
/// statement: so they are part of the text.
pub(super) fn bound(reach: &Reach, sql: Sql, params: Vec<Param>) -> Query<'static, Postgres, PgArguments> {
    let types: String = params
        .iter()
        .map(|param| match param {
            Param::Text(_) => 't',
            Param::Int(_) => 'i',
            Param::Real(_) => 'r',
            Param::Blob(_) => 'b',
            Param::Null => 'n',
        })
        .collect();
    // The text is the program's own, and letters are added behind it.
    let text = sqlx::AssertSqlSafe(format!("{}\n-- {types}", sql.postgres));
    let query = sqlx::query(text).persistent(!reach.is_pooled);
    params.into_iter().fold(query, |query, param| match param {
        Param::Text(text) => query.bind(text),
        Param::Int(number) => query.bind(number),
        Param::Real(number) => query.bind(number),
        Param::Blob(bytes) => query.bind(bytes),
        Param::Null => query.bind(Nothing),
    })
}

pub(super) fn read_row(row: &PgRow) -> Result<Row, Error> {
    let mut columns = Vec::with_capacity(row.len());
    for column in row.columns() {
        let value = read(row, column.ordinal())
            .map_err(|error| Error::Malformed(format!("column {}: {error}", column.name())))?;
        columns.push((column.name().to_owned(), value));
    }
    Ok(Row(columns))
}

fn read(row: &PgRow, place: usize) -> Result<Param, sqlx::Error> {
    let raw = row.try_get_raw(place)?;
    if raw.is_null() {
        return Ok(Param::Null);
    }
    let kind = raw.type_info().name().to_owned();
    Ok(match kind.as_str() {
        "INT8" => Param::Int(row.try_get(place)?),
        "INT4" => Param::Int(row.try_get::<i32, _>(place)?.into()),
        "INT2" => Param::Int(row.try_get::<i16, _>(place)?.into()),
        "BOOL" => Param::Int(row.try_get::<bool, _>(place)?.into()),
        "FLOAT8" => Param::Real(row.try_get(place)?),
        "FLOAT4" => Param::Real(row.try_get::<f32, _>(place)?.into()),
        "BYTEA" => Param::Blob(row.try_get(place)?),
        "JSONB" => {
            // Its binary form is the text behind one byte that says which form it is.
            let bytes = raw.as_bytes().map_err(sqlx::Error::Decode)?;
            let text = bytes.strip_prefix(&[1]).unwrap_or(bytes);
            Param::Text(String::from_utf8_lossy(text).into_owned())
        }
        "JSON" => Param::Text(raw.as_str().map_err(sqlx::Error::Decode)?.to_owned()),
        "TEXT" | "VARCHAR" | "CHAR" | "NAME" | "UNKNOWN" => Param::Text(row.try_get(place)?),
        other => {
            let detail = format!("{other} is not read here; cast it to text, bigint or double precision");
            return Err(sqlx::Error::Decode(detail.into()));
        }
    })
}

impl<'c> PgStatements<'c> {
    pub(super) fn new(reach: &'c Reach, connection: &'c mut PgConnection) -> Self {
        Self { reach, connection, lost: false, has_savepoint: false }
    }

    /// What fails from here on is undone to here.
    async fn guard(&mut self) -> Result<(), Error> {
        // Only the newest is of use; one that stays behind each statement would slow the transaction down.
        let sql = if self.has_savepoint {
            "release savepoint statement; savepoint statement"
        } else {
            "savepoint statement"
        };
        let done = self.connection.execute(sql).await;
        self.has_savepoint = true;
        done.map(drop).map_err(|error| self.failed(error))
    }

    fn failed(&mut self, error: sqlx::Error) -> Error {
        self.lost |= remedy(&error) == Remedy::Again;
        refused(error)
    }

    async fn undo<T>(&mut self, outcome: Result<T, sqlx::Error>) -> Result<T, Error> {
        match outcome {
            Ok(done) => Ok(done),
            Err(error) => {
                let error = self.failed(error);
                match self.connection.execute("rollback to savepoint statement").await {
                    Ok(_) => Err(error),
                    // The transaction is gone, and with it what the program may have thought was done.
                    Err(lost) => Err(Error::Unavailable(lost.to_string())),
                }
            }
        }
    }

    async fn rows(&mut self, query: Query<'static, Postgres, PgArguments>) -> Result<Vec<PgRow>, Error> {
        self.guard().await?;
        let rows = query.fetch_all(&mut *self.connection).await;
        self.undo(rows).await
    }
}

#[async_trait]
impl Statements for PgStatements<'_> {
    async fn execute(&mut self, sql: Sql, params: Vec<Param>) -> Result<u64, Error> {
        self.guard().await?;
        let done = bound(self.reach, sql, params).execute(&mut *self.connection).await;
        Ok(self.undo(done).await?.rows_affected())
    }

    async fn fetch(&mut self, sql: Sql, params: Vec<Param>) -> Result<Vec<Row>, Error> {
        self.rows(bound(self.reach, sql, params)).await?.iter().map(read_row).collect()
    }

    async fn held_by(&mut self, holder: &str) -> Result<Vec<ResourceRow>, Error> {
        let query = self
            .reach
            .query(
                "select * from resource
                 where holder = $1 and state in ('intended', 'live', 'in_doubt', 'removing') order by id",
            )
            .bind(clean(holder).into_owned());
        self.rows(query).await?.iter().map(resource_row).collect::<Result<_, _>>().map_err(refused)
    }

    async fn started_under(&mut self, key: &str) -> Result<Option<(SagaId, String)>, Error> {
        let query = self
            .reach
            .query("select id, start_fingerprint from saga where start_key = $1")
            .bind(clean(key).into_owned());
        let rows = self.rows(query).await?;
        let read = |row: &PgRow| {
            Ok((SagaId::stored(row.try_get::<String, _>("id")?), row.try_get("start_fingerprint")?))
        };
        rows.first().map(read).transpose().map_err(refused)
    }

    async fn saga_state(&mut self, saga: &SagaId) -> Result<Option<(SagaState, Vec<String>)>, Error> {
        let query =
            self.reach.query("select state, attention from saga where id = $1").bind(saga.to_string());
        self.rows(query).await?.first().map(saga_state).transpose().map_err(refused)
    }
}

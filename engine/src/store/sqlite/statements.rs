//! Statements: what a local activity's transaction does, on SQLite.

use async_trait::async_trait;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Column, Row as _, SqliteConnection, TypeInfo, ValueRef};

use super::read::{resource_row, saga_state};
use crate::ids::SagaId;
use crate::journal::state::SagaState;
use crate::store::ResourceRow;
use crate::store::tx::{Error, Param, Row, Sql, Statements};

/// A transaction that is open on this connection.
pub(in crate::store) struct SqliteStatements<'c>(pub(in crate::store) &'c mut SqliteConnection);

pub(super) fn bound(
    sql: &'static str,
    params: Vec<Param>,
) -> sqlx::query::Query<'static, sqlx::Sqlite, SqliteArguments> {
    params.into_iter().fold(sqlx::query(sql), |query, param| match param {
        Param::Text(text) => query.bind(text),
        Param::Int(number) => query.bind(number),
        Param::Real(number) => query.bind(number),
        Param::Blob(bytes) => query.bind(bytes),
        Param::Null => query.bind(None::<String>),
    })
}

pub(super) fn read_row(row: &SqliteRow) -> Result<Row, Error> {
    let malformed = |error: sqlx::Error| Error::Malformed(error.to_string());
    let mut columns = Vec::with_capacity(row.len());
    for column in row.columns() {
        let place = column.ordinal();
        let raw = row.try_get_raw(place).map_err(malformed)?;
        let kind = raw.type_info().name().to_owned();
        let value = if raw.is_null() {
            Param::Null
        } else {
            match kind.as_str() {
                "TEXT" => Param::Text(row.try_get_unchecked(place).map_err(malformed)?),
                "REAL" => Param::Real(row.try_get_unchecked(place).map_err(malformed)?),
                "BLOB" => Param::Blob(row.try_get_unchecked(place).map_err(malformed)?),
                _ => Param::Int(row.try_get_unchecked(place).map_err(malformed)?),
            }
        };
        columns.push((column.name().to_owned(), value));
    }
    Ok(Row(columns))
}

pub(super) fn refused(error: sqlx::Error) -> Error {
    match &error {
        sqlx::Error::Database(inner)
            if inner.is_unique_violation()
                || inner.is_foreign_key_violation()
                || inner.is_check_violation() =>
        {
            Error::Constraint(inner.message().to_owned())
        }
        // "SQL error or missing table": the statement is wrong, and stays wrong. With STRICT tables, 3091 is a wrong type.
        sqlx::Error::Database(inner) if matches!(inner.code().as_deref(), Some("1" | "3091" | "1299")) => {
            Error::Malformed(inner.message().to_owned())
        }
        _ => Error::Unavailable(error.to_string()),
    }
}

#[async_trait]
impl Statements for SqliteStatements<'_> {
    async fn execute(&mut self, sql: Sql, params: Vec<Param>) -> Result<u64, Error> {
        let done = bound(sql.sqlite, params).execute(&mut *self.0).await.map_err(refused)?;
        Ok(done.rows_affected())
    }

    async fn fetch(&mut self, sql: Sql, params: Vec<Param>) -> Result<Vec<Row>, Error> {
        let rows = bound(sql.sqlite, params).fetch_all(&mut *self.0).await.map_err(refused)?;
        rows.iter().map(read_row).collect()
    }

    async fn held_by(&mut self, holder: &str) -> Result<Vec<ResourceRow>, Error> {
        let rows = sqlx::query("select * from resource where holder = $1 and state <> 'gone' order by id")
            .bind(holder)
            .fetch_all(&mut *self.0)
            .await
            .map_err(refused)?;
        rows.iter().map(resource_row).collect::<Result<_, _>>().map_err(refused)
    }

    async fn started_under(&mut self, key: &str) -> Result<Option<(SagaId, String)>, Error> {
        let row: Option<(String, String)> =
            sqlx::query_as("select id, start_fingerprint from saga where start_key = $1")
                .bind(key)
                .fetch_optional(&mut *self.0)
                .await
                .map_err(refused)?;
        Ok(row.map(|(id, fingerprint)| (SagaId::stored(id), fingerprint)))
    }

    async fn saga_state(&mut self, saga: &SagaId) -> Result<Option<(SagaState, Vec<String>)>, Error> {
        let row = sqlx::query("select state, attention from saga where id = $1")
            .bind(saga.as_str())
            .fetch_optional(&mut *self.0)
            .await
            .map_err(refused)?;
        row.as_ref().map(saga_state).transpose().map_err(refused)
    }
}

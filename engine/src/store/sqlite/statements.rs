//! Statements: what a local activity's transaction does, on SQLite.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension};

use super::write;
use crate::env::Timestamp;
use crate::ids::{ResourceId, SagaId, StepKey};
use crate::journal::state::SagaState;
use crate::store::tx::{Error, Param, Row, Sql, Statements};
use crate::store::{self, ResourceRow, user_sql};

/// A transaction that is open on this connection.
// Its future may cross threads, which `&Connection` may not.
pub(super) struct SqliteStatements<'c>(pub(super) &'c mut Connection);

#[async_trait]
impl Statements for SqliteStatements<'_> {
    async fn execute(&mut self, sql: Sql, params: Vec<Param>) -> Result<u64, Error> {
        user_sql::execute(self.0, sql.sqlite, params)
    }

    async fn fetch(&mut self, sql: Sql, params: Vec<Param>) -> Result<Vec<Row>, Error> {
        user_sql::fetch(self.0, sql.sqlite, params)
    }

    async fn held_by(&mut self, holder: &str) -> Result<Vec<ResourceRow>, Error> {
        let sql = "select * from resource
                   where holder = $1 and state in ('intended', 'live', 'in_doubt', 'removing') order by id";
        let rows = user_sql::fetch(self.0, sql, vec![holder.into()])?;
        rows.iter().map(resource_row).collect()
    }

    async fn started_under(&mut self, key: &str) -> Result<Option<(SagaId, String)>, Error> {
        write::started_under(self.0, key).map_err(|error| match error {
            store::Error::Unavailable(detail) => Error::Unavailable(detail),
            store::Error::Refused(detail) => Error::Constraint(detail),
            other => Error::Malformed(other.to_string()),
        })
    }

    async fn saga_state(&mut self, saga: &SagaId) -> Result<Option<(SagaState, Vec<String>)>, Error> {
        let row: Option<(String, String)> = self
            .0
            .prepare_cached("select state, attention from saga where id = ?1")
            .and_then(|mut read| {
                read.query_row([saga.as_str()], |row| Ok((row.get(0)?, row.get(1)?))).optional()
            })
            .map_err(user_sql::refused)?;
        let Some((state, attention)) = row else { return Ok(None) };
        let attention =
            serde_json::from_str(&attention).map_err(|error| Error::Malformed(error.to_string()))?;
        Ok(Some((word(&state)?, attention)))
    }
}

fn word<T: std::str::FromStr>(text: &str) -> Result<T, Error> {
    text.parse().map_err(|_| Error::Malformed(format!("{text} is none of its column's words")))
}

fn resource_row(row: &Row) -> Result<ResourceRow, Error> {
    Ok(ResourceRow {
        id: ResourceId::stored(row.text("id")?),
        provider: row.text("provider")?,
        kind: row.text("kind")?,
        name: row.text("name")?,
        external_id: row.optional_text("external_id")?,
        state: word(&row.text("state")?)?,
        holder: row.text("holder")?,
        keeper: row.optional_text("keeper")?,
        saga: SagaId::stored(row.text("saga")?),
        step: StepKey::stored(row.text("step")?),
        within: row.optional_text("within")?.map(ResourceId::stored),
        rev: row.int("rev")?,
        intended_at: Timestamp(row.int("intended_at")?),
        changed_at: Timestamp(row.int("changed_at")?),
        unsettled_until: row.optional_int("unsettled_until")?.map(Timestamp),
    })
}

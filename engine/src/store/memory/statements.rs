//! User SQL on a SQLite database in memory, called on the caller's own thread, and the engine's tables beside it.

use async_trait::async_trait;
use rusqlite::types::{Value as Bound, ValueRef};
use rusqlite::{Connection, ErrorCode, params_from_iter};

use super::tables::Tables;
use crate::ids::SagaId;
use crate::journal::state::SagaState;
use crate::store::tx::{Error, Param, Row, Sql, Statements};
use crate::store::{ResourceRow, ResourceState};

pub(super) struct MemoryStatements<'m> {
    // A transaction's future may cross threads, which `&Connection` may not.
    pub(super) connection: &'m mut Connection,
    pub(super) tables: &'m Tables,
}

pub(super) fn fetch(connection: &Connection, sql: &str, params: Vec<Param>) -> Result<Vec<Row>, Error> {
    let mut statement = connection.prepare_cached(sql).map_err(refused)?;
    let names: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
    let mut rows = statement.query(params_from_iter(params.into_iter().map(bound))).map_err(refused)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(refused)? {
        let column = |(place, name): (usize, &String)| {
            row.get_ref(place).map(|value| (name.clone(), read(value))).map_err(refused)
        };
        found.push(Row(names.iter().enumerate().map(column).collect::<Result<_, _>>()?));
    }
    Ok(found)
}

#[async_trait]
impl Statements for MemoryStatements<'_> {
    async fn execute(&mut self, sql: Sql, params: Vec<Param>) -> Result<u64, Error> {
        let mut statement = self.connection.prepare_cached(sql.sqlite).map_err(refused)?;
        let changed = statement.execute(params_from_iter(params.into_iter().map(bound))).map_err(refused)?;
        Ok(u64::try_from(changed).unwrap_or(u64::MAX))
    }

    async fn fetch(&mut self, sql: Sql, params: Vec<Param>) -> Result<Vec<Row>, Error> {
        fetch(self.connection, sql.sqlite, params)
    }

    async fn held_by(&mut self, holder: &str) -> Result<Vec<ResourceRow>, Error> {
        let held = |row: &&ResourceRow| row.holder == holder && row.state != ResourceState::Gone;
        Ok(self.tables.resources.values().filter(held).cloned().collect())
    }

    async fn started_under(&mut self, key: &str) -> Result<Option<(SagaId, String)>, Error> {
        Ok(self.tables.keys.get(key).cloned())
    }

    async fn saga_state(&mut self, saga: &SagaId) -> Result<Option<(SagaState, Vec<String>)>, Error> {
        let row = self.tables.sagas.get(saga).map(|known| &known.row);
        Ok(row.map(|row| (row.state, row.attention.iter().map(ToString::to_string).collect())))
    }
}

fn bound(param: Param) -> Bound {
    match param {
        Param::Text(text) => Bound::Text(text),
        Param::Int(number) => Bound::Integer(number),
        Param::Real(number) => Bound::Real(number),
        Param::Blob(bytes) => Bound::Blob(bytes),
        Param::Null => Bound::Null,
    }
}

fn read(value: ValueRef<'_>) -> Param {
    match value {
        ValueRef::Null => Param::Null,
        ValueRef::Integer(number) => Param::Int(number),
        ValueRef::Real(number) => Param::Real(number),
        ValueRef::Text(text) => Param::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Param::Blob(bytes.to_vec()),
    }
}

fn refused(error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation) => Error::Constraint(error.to_string()),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::DiskFull) => {
            Error::Unavailable(error.to_string())
        }
        _ => Error::Malformed(error.to_string()),
    }
}

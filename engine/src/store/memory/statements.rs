//! User SQL on a SQLite database in memory, and the engine's tables beside it.

use async_trait::async_trait;
use rusqlite::Connection;

use super::tables::Tables;
use crate::ids::SagaId;
use crate::journal::state::SagaState;
use crate::store::tx::{Error, Param, Row, Sql, Statements};
use crate::store::{ResourceRow, ResourceState, user_sql};

pub(super) struct MemoryStatements<'m> {
    // A transaction's future may cross threads, which `&Connection` may not.
    pub(super) connection: &'m mut Connection,
    pub(super) tables: &'m Tables,
}

#[async_trait]
impl Statements for MemoryStatements<'_> {
    async fn execute(&mut self, sql: Sql, params: Vec<Param>) -> Result<u64, Error> {
        user_sql::execute(self.connection, sql.sqlite, params)
    }

    async fn fetch(&mut self, sql: Sql, params: Vec<Param>) -> Result<Vec<Row>, Error> {
        user_sql::fetch(self.connection, sql.sqlite, params)
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

//! Reach: how statements get to the server, directly or through a transaction pooler.
//!
//! A pooler in transaction mode gives each transaction another server connection, so that nothing may stay behind on
//! one: no named statement, no setting, no LISTEN. There every statement runs in a transaction that says what it is.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::query::Query;
use sqlx::{Executor, PgConnection, PgPool, Postgres, Transaction};

use crate::store::open::OpenError;

/// How long somebody waits for a connection before the database counts as unavailable.
const ACQUIRE: Duration = Duration::from_secs(10);
/// Connections for reads and transactions; the writers and the lease have their own.
const CONNECTIONS: u32 = 8;
/// How long a statement waits for a lock, in milliseconds: the server gives up before whoever asked does
/// ([`PATIENCE`]), so that nothing is left waiting there for somebody who has gone. A row is held for so long by a
/// process that stands still, or by one that has lost its connection.
const LOCK_TIMEOUT: &str = "25000";
/// What a transaction begins with, whatever the server's default is.
pub(super) const BEGIN: &str = "begin isolation level read committed";

/// And one with SQL of a program's own, whose tables may be made to be read as a whole.
pub(super) const BEGIN_FOREIGN: &str = "begin isolation level read committed; set local enable_seqscan = on";

/// The server, and how it is spoken to.
#[derive(Clone)]
pub(super) struct Reach {
    pub(super) pool: PgPool,
    /// Through a transaction pooler.
    pub(super) is_pooled: bool,
    /// Where it is, without the password.
    pub(super) place: String,
}

impl Reach {
    /// Reads the address; nothing is connected yet.
    pub(super) fn new(url: &str) -> Result<Self, OpenError> {
        let (url, is_pooled) = without_pooler(url);
        let mut options = PgConnectOptions::from_str(&url).map_err(|error| OpenError::Database {
            place: "the address of the database".to_owned(),
            detail: error.to_string(),
        })?;
        let database = options.get_database().unwrap_or("its default database").to_owned();
        let place = format!("{}:{}/{database}", options.get_host(), options.get_port());
        if is_pooled {
            options = options.statement_cache_capacity(0);
        } else {
            // One plan a statement: planning the large ones anew each time costs more than they do. One that was made
            // while the tables were small must not read the whole of them when they have grown.
            options = options.options([
                ("default_transaction_isolation", "read committed"),
                ("plan_cache_mode", "force_generic_plan"),
                ("enable_seqscan", "off"),
                ("jit", "off"),
                ("lock_timeout", LOCK_TIMEOUT),
            ]);
        }
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE)
            .connect_lazy_with(options.application_name("amends"));
        Ok(Self { pool, is_pooled, place })
    }

    /// A statement, ready for its values.
    pub(super) fn query(&self, sql: &'static str) -> Query<'static, Postgres, PgArguments> {
        sqlx::query(sql).persistent(!self.is_pooled)
    }

    /// A transaction; dropped without a commit, nothing of it stays.
    pub(super) async fn begin(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        self.pool.begin_with(BEGIN).await
    }

    /// The same for SQL of a program's own.
    pub(super) async fn begin_foreign(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        self.pool.begin_with(BEGIN_FOREIGN).await
    }

    /// Runs one statement by itself, and answers its rows.
    pub(super) async fn fetch(
        &self,
        query: Query<'static, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        in_time(async {
            if !self.is_pooled {
                return query.fetch_all(&self.pool).await;
            }
            let mut transaction = self.begin().await?;
            let rows = query.fetch_all(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(rows)
        })
        .await
    }

    /// Runs one statement by itself; the number of rows it changed.
    pub(super) async fn execute(
        &self,
        query: Query<'static, Postgres, PgArguments>,
    ) -> Result<u64, sqlx::Error> {
        in_time(async {
            if !self.is_pooled {
                return Ok(query.execute(&self.pool).await?.rows_affected());
            }
            let mut transaction = self.begin().await?;
            let done = query.execute(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(done.rows_affected())
        })
        .await
    }

    /// The same on a connection that is not the pool's.
    pub(super) async fn execute_on(
        &self,
        connection: &mut PgConnection,
        query: Query<'static, Postgres, PgArguments>,
    ) -> Result<u64, sqlx::Error> {
        in_time(async {
            if !self.is_pooled {
                return Ok(query.execute(connection).await?.rows_affected());
            }
            connection.execute(BEGIN).await?;
            let done = query.execute(&mut *connection).await?;
            connection.execute("commit").await?;
            Ok(done.rows_affected())
        })
        .await
    }

    /// A connection of its own, outside the pool.
    pub(super) async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        in_time(<PgConnection as sqlx::Connection>::connect_with(&self.pool.connect_options())).await
    }
}

/// A server that answers nothing for so long counts as gone: the machine itself would wait for a connection that is cut
/// a quarter of an hour or more.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Within the time that a server has to answer: a whole transaction, or what else is waited for there.
pub(super) async fn in_time<T>(act: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    let tried = tokio::time::timeout(PATIENCE, act).await;
    tried.unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))
}

/// The address as the driver takes it, and whether it asked for the manners of a transaction pooler.
fn without_pooler(url: &str) -> (String, bool) {
    let Some((base, query)) = url.split_once('?') else { return (url.to_owned(), false) };
    let (ours, theirs): (Vec<&str>, Vec<&str>) =
        query.split('&').partition(|pair| *pair == "pooler=transaction");
    let rest = theirs.join("&");
    (if rest.is_empty() { base.to_owned() } else { format!("{base}?{rest}") }, !ours.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_says_whether_there_is_a_pooler() {
        let of = |url| without_pooler(url);
        assert_eq!(of("postgres://h/d"), ("postgres://h/d".to_owned(), false));
        assert_eq!(of("postgres://h/d?pooler=transaction"), ("postgres://h/d".to_owned(), true));
        assert_eq!(of("postgres://h/d?a=b&pooler=transaction"), ("postgres://h/d?a=b".to_owned(), true));
        assert_eq!(of("postgres://h/d?a=b"), ("postgres://h/d?a=b".to_owned(), false));
    }
}

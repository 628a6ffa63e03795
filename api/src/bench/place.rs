//! Places: a fresh database for each run, what it holds and weighs, and its removal.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use amends_engine::Env;
use amends_engine::secret::Vault;
use amends_engine::store::Store;
use amends_engine::store::postgres::PostgresStore;
use amends_engine::store::sqlite::SqliteStore;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use super::meter::{self, Beside};
use super::sagas::NOTES;

/// Where the databases of a bench are made; it removes them all.
pub struct Ground {
    folder: PathBuf,
    server: Option<String>,
    made: Mutex<usize>,
}

impl Ground {
    /// A folder of this bench's own inside this one, and a server to make databases on if they are not to be files.
    pub fn new(inside: &Path, server: Option<&str>) -> anyhow::Result<Self> {
        let folder = inside.join(format!("amends-bench-{}", std::process::id()));
        std::fs::create_dir(&folder)
            .with_context(|| format!("a folder for the databases could not be made: {}", folder.display()))?;
        Ok(Self { folder, server: server.map(str::to_owned), made: Mutex::default() })
    }

    /// A new place, with the tables in it.
    pub async fn place(&self) -> anyhow::Result<Place> {
        let number = {
            let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            *made += 1;
            *made
        };
        let folder = self.folder.join(number.to_string());
        std::fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        let place = match &self.server {
            None => Place::Sqlite { folder },
            Some(server) => {
                let name = database(number);
                self.tell_server(server, format!("create database {name}")).await?;
                let beside = server_process(server).await?;
                Place::Postgres { folder, url: with_database(server, &name), name, beside }
            }
        };
        let (store, _) = place.open().await?;
        store.close().await;
        Ok(place)
    }

    /// Removes a place.
    pub async fn remove(&self, place: Place) -> anyhow::Result<()> {
        if let (Place::Postgres { name, .. }, Some(server)) = (&place, &self.server) {
            self.tell_server(server, format!("drop database {name} with (force)")).await?;
        }
        let folder = place.folder();
        std::fs::remove_dir_all(folder).with_context(|| folder.display().to_string())
    }

    /// Removes whatever is left.
    pub async fn clear(&self) -> anyhow::Result<()> {
        // The folder first: a server that is gone does not keep it.
        std::fs::remove_dir_all(&self.folder).with_context(|| self.folder.display().to_string())?;
        let made = *self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = &self.server {
            for number in 1..=made {
                let name = database(number);
                self.tell_server(server, format!("drop database if exists {name} with (force)")).await?;
            }
        }
        Ok(())
    }

    async fn tell_server(&self, server: &str, sql: String) -> anyhow::Result<()> {
        let mut connection =
            PgConnection::connect(server).await.context("the server at --database-url cannot be reached")?;
        // The name in it is ours, of letters and digits.
        connection.execute(AssertSqlSafe(sql)).await?;
        Ok(connection.close().await?)
    }
}

fn database(number: usize) -> String {
    format!("amends_bench_{}_{number}", std::process::id())
}

/// The address of another database on the same server.
fn with_database(server: &str, name: &str) -> String {
    let (address, query) =
        server.split_once('?').map_or((server, None), |(address, query)| (address, Some(query)));
    let (scheme, rest) = address.split_once("://").unwrap_or(("postgres", address));
    let host = rest.split('/').next().unwrap_or(rest);
    let query = query.map_or(String::new(), |query| format!("?{query}"));
    format!("{scheme}://{host}/{name}{query}")
}

/// The server's first process, if it runs on this machine.
async fn server_process(server: &str) -> anyhow::Result<Beside> {
    let mut connection = PgConnection::connect(server).await?;
    let backend: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut connection).await?;
    let is_here =
        std::fs::read_to_string(format!("/proc/{backend}/comm")).is_ok_and(|name| name.trim() == "postgres");
    let first = if is_here { meter::parent(&backend.to_string()) } else { None };
    connection.close().await?;
    Ok(first)
}

/// One database.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// A file in this folder.
    Sqlite {
        /// Which.
        folder: PathBuf,
    },
    /// A database on a server.
    Postgres {
        /// Where its key is.
        folder: PathBuf,
        /// Its address.
        url: String,
        /// Its name.
        name: String,
        /// The server's first process, if it runs on this machine.
        beside: Beside,
    },
}

impl Place {
    /// Opens it as the engine does.
    pub async fn open(&self) -> anyhow::Result<(Arc<dyn Store>, Vault)> {
        let (key, env) = (self.folder().join("key"), Env::system());
        match self {
            Self::Sqlite { .. } => {
                let (store, vault) = SqliteStore::open(&self.file(), &key, "bench", NOTES, &env).await?;
                Ok((Arc::new(store), vault))
            }
            Self::Postgres { url, .. } => {
                let (store, vault) = PostgresStore::open(url, &key, "bench", NOTES, &env).await?;
                Ok((Arc::new(store), vault))
            }
        }
    }

    fn folder(&self) -> &Path {
        match self {
            Self::Sqlite { folder } | Self::Postgres { folder, .. } => folder,
        }
    }

    /// The database's file.
    pub fn file(&self) -> PathBuf {
        self.folder().join("bench.db")
    }

    /// The processes that work for us besides our own.
    pub fn beside(&self) -> Beside {
        match self {
            Self::Sqlite { .. } => None,
            Self::Postgres { beside, .. } => *beside,
        }
    }

    /// How many bytes it takes on the disk.
    pub async fn bytes(&self) -> anyhow::Result<u64> {
        match self {
            Self::Sqlite { .. } => {
                let file = self.file();
                let log = std::fs::metadata(with_suffix(&file, "-wal")).map_or(0, |log| log.len());
                Ok(std::fs::metadata(&file).with_context(|| file.display().to_string())?.len() + log)
            }
            Self::Postgres { url, .. } => ask(url, "select pg_database_size(current_database())").await,
        }
    }

    /// How many bytes its server has written to the write-ahead log; only the difference of two answers says
    /// something. Nothing for SQLite, whose process writes all it writes itself.
    pub async fn log_bytes(&self) -> anyhow::Result<Option<u64>> {
        match self {
            Self::Sqlite { .. } => Ok(None),
            Self::Postgres { url, .. } => {
                ask(url, "select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint").await.map(Some)
            }
        }
    }

    /// How many transactions have written to a journal in it; only the difference of two answers says something.
    ///
    /// SQLite counts commits in the index of its write-ahead log, in the four bytes from the eighth on
    /// (<https://www.sqlite.org/walformat.html>, `iChange`); the file is there while the database is open. In Postgres
    /// each row says which transaction wrote it.
    pub async fn commits(&self) -> anyhow::Result<u64> {
        use std::io::{Read, Seek, SeekFrom};
        match self {
            Self::Sqlite { .. } => {
                let file = with_suffix(&self.file(), "-shm");
                let mut index = std::fs::File::open(&file).with_context(|| file.display().to_string())?;
                let mut count = [0; 4];
                index.seek(SeekFrom::Start(8))?;
                index.read_exact(&mut count)?;
                Ok(u64::from(u32::from_ne_bytes(count)))
            }
            Self::Postgres { url, .. } => ask(url, "select count(distinct xmin::text) from journal").await,
        }
    }
}

/// The one number that a query answers.
async fn ask(url: &str, sql: &'static str) -> anyhow::Result<u64> {
    let mut connection = PgConnection::connect(url).await?;
    let number: i64 = sqlx::query_scalar(sql).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(u64::try_from(number)?)
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_database_of_a_server_has_the_same_address_but_for_its_name() {
        for (server, other) in [
            ("postgres://u:p@h:1/a", "postgres://u:p@h:1/b"),
            ("postgres://h", "postgres://h/b"),
            ("postgresql://h/a?sslmode=disable", "postgresql://h/b?sslmode=disable"),
        ] {
            assert_eq!(with_database(server, "b"), other);
        }
    }
}

//! Opening a SQLite database: its lock, its version, its migrations, its key.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection, SqlSafeStr, SqliteConnection};

use super::lock::{self, Lock};
use crate::env::Env;
use crate::ids::InstallationId;
use crate::secret::{Key, Vault};
use crate::store::open::{ENGINE, Known, Migrations, OpenError};

/// `AMND`, in the file's header.
const APPLICATION_ID: i32 = 0x414d_4e44;
/// The first release without the reset that could lose a write-ahead log (<https://www.sqlite.org/wal.html>).
const SQLITE_MIN: [u32; 3] = [3, 51, 3];
const BUSY: Duration = Duration::from_secs(10);
/// How many statements stay prepared: the engine's own, and many of the user's.
const STATEMENTS: usize = 256;

/// What an opened database is made of, in the order in which it is let go where nobody takes it: the lock last.
pub(super) struct Opened {
    pub(super) options: SqliteConnectOptions,
    pub(super) connection: rusqlite::Connection,
    pub(super) lock: Arc<Lock>,
    pub(super) vault: Vault,
    pub(super) installation: InstallationId,
}

pub(super) async fn open(
    path: &Path,
    key_path: &Path,
    environment: &str,
    own: &[Migrations],
    env: &Env,
) -> Result<Opened, OpenError> {
    let database = |error: sqlx::Error| match &error {
        sqlx::Error::Database(inner) if inner.code().as_deref() == Some("26") => {
            OpenError::Foreign(place_of(path))
        }
        _ => OpenError::Database { place: place_of(path), detail: error.to_string() },
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        lock::make_folder(folder)
            .map_err(|source| OpenError::File { place: folder.display().to_string(), source })?;
    }
    let is_new = !path.exists();
    let lock = Arc::new(lock::lock(path, env).await?);
    lock::tighten(path);
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY);
    // Each connection is closed before the lock is let go, also where the database is refused: SQLite has one index of
    // the log for all connections of a process to one file, by whatever name, and one that is still open would have the
    // next open take the log of another name for empty.
    //
    // Look before anything is changed: turning the journal mode of a foreign file would be a change.
    if !is_new {
        let read_only = SqliteConnectOptions::new().filename(path).busy_timeout(BUSY);
        let mut connection = SqliteConnection::connect_with(&read_only).await.map_err(database)?;
        let checked = check(path, own, &mut connection).await;
        let closed = connection.close().await;
        checked.map_err(database)??;
        closed.map_err(database)?;
    }
    let mut connection = SqliteConnection::connect_with(&options).await.map_err(database)?;
    let prepared = prepare(path, key_path, environment, own, &mut connection, env, &database).await;
    let closed = connection.close().await;
    let (installation, vault) = prepared?;
    closed.map_err(database)?;
    let connection = writing(path)
        .map_err(|error| OpenError::Database { place: place_of(path), detail: error.to_string() })?;
    Ok(Opened { lock, options, connection, vault, installation })
}

/// Whether this is a database of ours that this program knows, and that may be opened by this name.
async fn check(
    path: &Path,
    own: &[Migrations],
    connection: &mut SqliteConnection,
) -> Result<Result<(), OpenError>, sqlx::Error> {
    let mut checked = check_owner(path, connection).await?;
    for part in std::iter::once(&ENGINE).chain(own) {
        if checked.is_ok() {
            checked = check_not_newer(path, part, connection).await?;
        }
    }
    if checked.is_ok() { check_log(path, connection).await } else { Ok(checked) }
}

/// Brings the tables up to date, reads or makes the key, and takes the sagas from whoever held them before.
async fn prepare(
    path: &Path,
    key_path: &Path,
    environment: &str,
    own: &[Migrations],
    connection: &mut SqliteConnection,
    env: &Env,
    database: &impl Fn(sqlx::Error) -> OpenError,
) -> Result<(InstallationId, Vault), OpenError> {
    check_version(connection).await.map_err(database)??;
    for part in std::iter::once(&ENGINE).chain(own) {
        migrate(path, part, connection).await?;
    }
    sqlx::query("pragma application_id = 0x414d4e44").execute(&mut *connection).await.map_err(database)?;
    let bound = bind_key(path, key_path, environment, connection, env, database).await?;
    // In the file itself, where it is read by whatever name the file is opened next.
    let name = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    sqlx::query("update installation set opened_as = $1")
        .bind(name.display().to_string())
        .execute(&mut *connection)
        .await
        .map_err(database)?;
    sqlx::query("pragma wal_checkpoint(truncate)").execute(&mut *connection).await.map_err(database)?;
    // Whoever held a saga before is dead, since the lock is ours: from here on its writes would be refused. What
    // waited for a program that knows its definition may find it in this one.
    sqlx::query(
        "update saga set epoch = epoch + 1,
           due_at = case when attention like '%no_worker%' or attention like '%diverged%' then updated_at else due_at end,
           claimable_at = case when attention like '%no_worker%' or attention like '%diverged%' then updated_at else due_at end
         where ended_at is null and claimable_at is null",
    )
    .execute(connection)
    .await
    .map_err(database)?;
    Ok(bound)
}

/// The writer's own connection, with as much durability as there is.
fn writing(path: &Path) -> Result<rusqlite::Connection, rusqlite::Error> {
    let connection = rusqlite::Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", "on")?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

async fn check_owner(
    path: &Path,
    connection: &mut SqliteConnection,
) -> Result<Result<(), OpenError>, sqlx::Error> {
    let application: i32 = sqlx::query_scalar("pragma application_id").fetch_one(&mut *connection).await?;
    let tables: i64 = sqlx::query_scalar("select count(*) from sqlite_schema").fetch_one(connection).await?;
    let is_ours = application == APPLICATION_ID || application == 0 && tables == 0;
    Ok(if is_ours { Ok(()) } else { Err(OpenError::Foreign(place_of(path))) })
}

/// Refuses a database that was not put away in order when it was opened by another name, as long as its log still bears
/// that name: what was written last is there, and would be lost.
async fn check_log(
    path: &Path,
    connection: &mut SqliteConnection,
) -> Result<Result<(), OpenError>, sqlx::Error> {
    let is_made: i64 = sqlx::query_scalar("select count(*) from sqlite_schema where name = 'installation'")
        .fetch_one(&mut *connection)
        .await?;
    if is_made == 0 {
        return Ok(Ok(()));
    }
    let name: Option<Option<String>> =
        sqlx::query_scalar("select opened_as from installation").fetch_optional(connection).await?;
    let Some(name) = name.flatten() else { return Ok(Ok(())) };
    let here = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let log = lock::beside(Path::new(&name), "-wal");
    let is_left = Path::new(&name) != here && std::fs::metadata(&log).is_ok_and(|log| log.len() > 0);
    if !is_left {
        return Ok(Ok(()));
    }
    let reason = format!(
        "it was last opened as {name} and not closed in order, and what was written last is in {}; open it by that \
         name once more, or move the log with it",
        log.display()
    );
    Ok(Err(OpenError::Unfit { place: place_of(path), reason }))
}

async fn check_version(connection: &mut SqliteConnection) -> Result<Result<(), OpenError>, sqlx::Error> {
    let version: String = sqlx::query_scalar("select sqlite_version()").fetch_one(connection).await?;
    let numbers: Vec<u32> = version.split('.').filter_map(|part| u32::from_str(part).ok()).collect();
    Ok(if numbers.as_slice() >= SQLITE_MIN.as_slice() {
        Ok(())
    } else {
        Err(OpenError::SqliteTooOld(version))
    })
}

fn place_of(path: &Path) -> String {
    path.display().to_string()
}

fn migrator(part: &Migrations) -> Migrator {
    let scripts = part.sqlite.iter().zip(1..).map(|((name, sql), version)| {
        Migration::new(version, (*name).into(), MigrationType::Simple, (*sql).into_sql_str(), false)
    });
    let mut migrator = Migrator::with_migrations(scripts.collect());
    migrator.dangerous_set_table_name(part.table);
    migrator
}

fn newer(path: &Path, part: &Migrations, version: i64) -> OpenError {
    OpenError::Newer { place: place_of(path), table: part.table, version, known: part.sqlite.len() }
}

/// Refuses a database that a newer program has migrated, before anything in it is touched.
async fn check_not_newer(
    path: &Path,
    part: &Migrations,
    connection: &mut SqliteConnection,
) -> Result<Result<(), OpenError>, sqlx::Error> {
    let known: i64 =
        sqlx::query_scalar("select count(*) from sqlite_schema where type = 'table' and name = $1")
            .bind(part.table)
            .fetch_one(&mut *connection)
            .await?;
    if known == 0 {
        return Ok(Ok(()));
    }
    // The table's name is a constant of the program's.
    let sql = sqlx::AssertSqlSafe(format!("select coalesce(max(version), 0) from {}", part.table));
    let version: i64 = sqlx::query_scalar(sql).fetch_one(connection).await?;
    let is_newer = usize::try_from(version).is_ok_and(|version| version > part.sqlite.len());
    Ok(if is_newer { Err(newer(path, part, version)) } else { Ok(()) })
}

async fn migrate(path: &Path, part: &Migrations, connection: &mut SqliteConnection) -> Result<(), OpenError> {
    migrator(part).run_direct(None, connection, false).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) => newer(path, part, version),
        other => OpenError::Database { place: place_of(path), detail: other.to_string() },
    })
}

/// The installation and its vault; both are made, the key first, when the database is new.
async fn bind_key(
    path: &Path,
    key_path: &Path,
    environment: &str,
    connection: &mut SqliteConnection,
    env: &Env,
    database: &impl Fn(sqlx::Error) -> OpenError,
) -> Result<(InstallationId, Vault), OpenError> {
    let row: Option<(String, String, String)> =
        sqlx::query_as("select id, environment, key_fingerprint from installation")
            .fetch_optional(&mut *connection)
            .await
            .map_err(database)?;
    if let Some((id, stored, fingerprint)) = row {
        let known = Known { id, environment: stored, fingerprint };
        return known.unlock(&place_of(path), key_path, environment);
    }
    let key = Key::read_or_make(key_path, env)?;
    let installation = InstallationId::from_uuid(env.uuid());
    sqlx::query(
        "insert into installation (id, environment, key_fingerprint, created_at) values ($1, $2, $3, $4)",
    )
    .bind(installation.as_str())
    .bind(environment)
    .bind(key.fingerprint())
    .bind(env.now().0)
    .execute(connection)
    .await
    .map_err(database)?;
    let vault = Vault::new(&key, installation.clone());
    Ok((installation, vault))
}

//! Opening a Postgres database: what the server must be like, migrations, the key.

use std::path::Path;

use sqlx::{Executor, PgConnection, Row};

use super::reach::Reach;
use crate::env::Env;
use crate::ids::InstallationId;
use crate::secret::{Key, Vault};
use crate::store::open::{ENGINE, Known, Migrations, OpenError};

/// The oldest major version that is tried.
const VERSION_MIN: i64 = 130_000;
/// How often the making of a table is tried that another process makes at the same time.
const TRIES: usize = 10;

pub(super) async fn open(
    reach: &Reach,
    key_path: &Path,
    environment: &str,
    own: &[Migrations],
    env: &Env,
) -> Result<(InstallationId, Vault), OpenError> {
    let database =
        |error: sqlx::Error| OpenError::Database { place: reach.place.clone(), detail: error.to_string() };
    if let Some(reason) = unfit(reach).await.map_err(database)? {
        return Err(OpenError::Unfit { place: reach.place.clone(), reason });
    }
    let parts: Vec<Migrations> = std::iter::once(ENGINE).chain(own.iter().copied()).collect();
    // Look at all of them before anything is changed.
    for part in &parts {
        let exists = reach
            .fetch(reach.query("select to_regclass($1) is not null as found").bind(part.table))
            .await
            .and_then(|rows| rows.first().map_or(Ok(false), |row| row.try_get("found")))
            .map_err(database)?;
        if exists {
            let mut transaction = reach.begin().await.map_err(database)?;
            let version = version(&mut transaction, part).await.map_err(database)?;
            known(reach, part, version)?;
        }
    }
    for part in &parts {
        migrate(reach, part, env).await?;
    }
    let bound = bind_key(reach, key_path, environment, env).await?;
    // What waited for a program that knows its definition may find it in this one.
    let wake = reach.query(
        "with waiting as (
           update saga s set due_at = s.updated_at from saga_lease l
           where l.saga = s.id and l.holder is null and s.ended_at is null
             and (s.attention like '%no_worker%' or s.attention like '%diverged%')
           returning s.id, s.due_at
         )
         update saga_lease l set due_at = w.due_at from waiting w where l.saga = w.id and l.holder is null",
    );
    reach.execute(wake).await.map_err(database)?;
    Ok(bound)
}

/// Why this server cannot be used; nothing if it can.
async fn unfit(reach: &Reach) -> Result<Option<String>, sqlx::Error> {
    let query = reach.query(
        "select current_setting('server_version_num')::bigint as version, pg_is_in_recovery() as is_standby,
           current_setting('synchronous_commit') as durability, current_setting('fsync') as fsync,
           current_setting('server_encoding') as encoding",
    );
    let rows = reach.fetch(query).await?;
    let Some(row) = rows.first() else { return Ok(Some("it does not say what it is".to_owned())) };
    let version: i64 = row.try_get("version")?;
    let durability: String = row.try_get("durability")?;
    if version < VERSION_MIN {
        let major = version / 10_000;
        return Ok(Some(format!("it is Postgres {major}, and 13 or later is needed")));
    }
    if row.try_get("is_standby")? {
        return Ok(Some("it is a standby, and takes no writes; name the primary".to_owned()));
    }
    if matches!(durability.as_str(), "off" | "local") {
        return Ok(Some(format!(
            "synchronous_commit is {durability}, so that what it has acknowledged may be lost; set it to on for this \
             database or role"
        )));
    }
    let encoding: String = row.try_get("encoding")?;
    if encoding != "UTF8" {
        return Ok(Some(format!(
            "its encoding is {encoding}, which lacks characters that keys, inputs and outputs may have; make it with \
             encoding UTF8"
        )));
    }
    if row.try_get::<String, _>("fsync")? == "off" {
        return Ok(Some(
            "fsync is off, so that a crash may lose or damage everything; turn it on".to_owned(),
        ));
    }
    Ok(None)
}

fn known(reach: &Reach, part: &Migrations, version: i64) -> Result<(), OpenError> {
    let known = part.postgres.len();
    if usize::try_from(version).is_ok_and(|version| version <= known) {
        return Ok(());
    }
    Err(OpenError::Newer { place: reach.place.clone(), table: part.table, version, known })
}

/// What a part of the database is at.
async fn version(connection: &mut PgConnection, part: &Migrations) -> Result<i64, sqlx::Error> {
    // The table's name is a constant of the program's.
    let sql = sqlx::AssertSqlSafe(format!("select coalesce(max(version), 0) as version from {}", part.table));
    sqlx::query(sql).persistent(false).fetch_one(connection).await?.try_get("version")
}

/// Brings one part up to date. Processes that start at once wait for each other at its table; no advisory lock, which
/// a transaction pooler would leave behind on a connection of somebody else's.
async fn migrate(reach: &Reach, part: &Migrations, env: &Env) -> Result<(), OpenError> {
    let database =
        |error: sqlx::Error| OpenError::Database { place: reach.place.clone(), detail: error.to_string() };
    make_table(reach, part).await.map_err(database)?;
    let mut transaction = reach.begin().await.map_err(database)?;
    // A migration of another process may take its time.
    transaction.execute("set local lock_timeout = 0").await.map_err(database)?;
    let lock = format!("lock table {} in exclusive mode", part.table);
    transaction.execute(sqlx::AssertSqlSafe(lock)).await.map_err(database)?;
    let at = version(&mut transaction, part).await.map_err(database)?;
    known(reach, part, at)?;
    for ((name, script), number) in part.postgres.iter().zip(1_i64..) {
        if number <= at {
            continue;
        }
        sqlx::raw_sql(*script).execute(&mut *transaction).await.map_err(database)?;
        let note = format!("insert into {} (version, name, applied_at) values ($1, $2, $3)", part.table);
        sqlx::query(sqlx::AssertSqlSafe(note))
            .persistent(false)
            .bind(number)
            .bind(*name)
            .bind(env.now().0)
            .execute(&mut *transaction)
            .await
            .map_err(database)?;
    }
    transaction.commit().await.map_err(database)
}

async fn make_table(reach: &Reach, part: &Migrations) -> Result<(), sqlx::Error> {
    let sql = format!(
        "create table if not exists {} (version bigint primary key, name text not null, applied_at bigint not null)",
        part.table
    );
    let mut tries = 0;
    loop {
        let mut transaction = reach.begin().await?;
        match transaction.execute(sqlx::AssertSqlSafe(sql.clone())).await {
            Ok(_) => return transaction.commit().await,
            // Two that make it at the same moment may both find that it is not there: then one of them fails, on the
            // index of names, or on the look at it right before.
            Err(sqlx::Error::Database(error)) if is_made(error.as_ref()) && tries < TRIES => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Whether a table was not made because it was there a moment before.
fn is_made(error: &dyn sqlx::error::DatabaseError) -> bool {
    // duplicate_table, and duplicate_object: the type of the same name.
    error.is_unique_violation() || matches!(error.code().as_deref(), Some("42P07" | "42710"))
}

/// The installation and its vault; both are made, the key first, when the database is new.
async fn bind_key(
    reach: &Reach,
    key_path: &Path,
    environment: &str,
    env: &Env,
) -> Result<(InstallationId, Vault), OpenError> {
    let database =
        |error: sqlx::Error| OpenError::Database { place: reach.place.clone(), detail: error.to_string() };
    let mut transaction = reach.begin().await.map_err(database)?;
    transaction.execute("set local lock_timeout = 0").await.map_err(database)?;
    transaction.execute("lock table installation in exclusive mode").await.map_err(database)?;
    let row = reach
        .query("select id, environment, key_fingerprint from installation")
        .fetch_optional(&mut *transaction)
        .await
        .map_err(database)?;
    if let Some(row) = row {
        let text = |column| row.try_get::<String, _>(column).map_err(database);
        let known = Known {
            id: text("id")?,
            environment: text("environment")?,
            fingerprint: text("key_fingerprint")?,
        };
        return known.unlock(&reach.place, key_path, environment);
    }
    let key = Key::read_or_make(key_path, env)?;
    let installation = InstallationId::from_uuid(env.uuid());
    reach
        .query(
            "insert into installation (id, environment, key_fingerprint, created_at) values ($1, $2, $3, $4)",
        )
        .bind(installation.as_str().to_owned())
        .bind(environment.to_owned())
        .bind(key.fingerprint())
        .bind(env.now().0)
        .execute(&mut *transaction)
        .await
        .map_err(database)?;
    transaction.commit().await.map_err(database)?;
    let vault = Vault::new(&key, installation.clone());
    Ok((installation, vault))
}

//! Bench: sagas a second on this machine's disk, beside a bare loop that writes the same rows.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use amends_engine::store::Started;
use amends_engine::store::open::Migrations;
use amends_engine::store::sqlite::SqliteStore;
use amends_engine::{
    Activity, Call, Effect, Engine, Env, Failure, Local, Registry, Resource, Saga, Tx, Workflow, params,
};
use anyhow::{Context, bail};
use futures::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection, Executor, SqliteConnection};
use tokio::time::Instant;

const NOTES: &[Migrations] = &[Migrations {
    table: "bench_migration",
    sqlite: &[(
        "note",
        "create table note (saga text, number integer, primary key (saga, number)) strict, without rowid;",
    )],
    postgres: &[],
}];

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many sagas.
    pub sagas: usize,
    /// How many steps each has.
    pub steps: u32,
    /// How many are under way at a time.
    pub concurrency: usize,
    /// Where the databases are made, and removed afterwards.
    pub folder: PathBuf,
}

/// What one kind of saga came to.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// `local` or `resource`.
    pub kind: &'static str,
    /// How many sagas ran.
    pub sagas: usize,
    /// Steps in each.
    pub steps: u32,
    /// Sagas under way at a time.
    pub concurrency: usize,
    /// Sagas a second.
    pub sagas_per_second: f64,
    /// Steps a second.
    pub steps_per_second: f64,
    /// Half of the sagas took at most this long a step, in microseconds.
    pub step_p50_us: u64,
    /// 99 of 100 did.
    pub step_p99_us: u64,
    /// Steps a second of a bare loop that writes the same rows in groups of the same size.
    pub bare_steps_per_second: f64,
    /// Ours over the bare loop's.
    pub ratio: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Note {
    number: u32,
}

impl Local for Note {
    const NAME: &'static str = "bench.note";
    type Output = u32;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<u32, Failure> {
        let saga = tx.saga().clone();
        tx.execute("insert into note (saga, number) values ($1, $2)", params![&saga, self.number]).await?;
        Ok(self.number)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Thing {
    number: u32,
}

impl Activity for Thing {
    const NAME: &'static str = "bench.thing";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = ();
    type Output = u32;

    fn resource(&self, _: &Call) -> Option<Resource> {
        Some(Resource::new("bench", "thing", format!("thing-{}", self.number)))
    }

    async fn execute(&self, (): &(), _: &Call) -> Result<u32, Failure> {
        Ok(self.number)
    }
}

struct Locals;
struct Resources;

impl Workflow for Locals {
    const NAME: &'static str = "bench-local";
    const VERSION: u32 = 1;
    type Input = u32;
    type Output = u32;

    async fn run(&self, saga: &Saga, steps: u32) -> amends_engine::saga::Result<u32> {
        for number in 0..steps {
            saga.transact(&format!("note-{number}"), Note { number }).await?;
        }
        Ok(steps)
    }
}

impl Workflow for Resources {
    const NAME: &'static str = "bench-resource";
    const VERSION: u32 = 1;
    type Input = u32;
    type Output = u32;

    async fn run(&self, saga: &Saga, steps: u32) -> amends_engine::saga::Result<u32> {
        for number in 0..steps {
            saga.step(&format!("thing-{number}"), Thing { number }).await?;
        }
        Ok(steps)
    }
}

/// Measures both kinds, each beside its bare loop in the same run.
pub async fn run(options: &Options) -> anyhow::Result<Vec<Measured>> {
    if options.sagas == 0 || options.steps == 0 || options.concurrency == 0 {
        bail!("sagas, steps and concurrency begin at 1");
    }
    Ok(vec![measure::<Locals>("local", options).await?, measure::<Resources>("resource", options).await?])
}

async fn measure<W: Workflow<Input = u32>>(
    kind: &'static str,
    options: &Options,
) -> anyhow::Result<Measured> {
    let folder = options.folder.join(format!("amends-bench-{}-{kind}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let measured = measure_in::<W>(kind, options, &folder).await;
    std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    measured
}

async fn measure_in<W: Workflow<Input = u32>>(
    kind: &'static str,
    options: &Options,
    folder: &Path,
) -> anyhow::Result<Measured> {
    let env = Env::system();
    let (store, vault) =
        SqliteStore::open(&folder.join("engine.db"), &folder.join("key"), "bench", NOTES, &env).await?;
    let registry = Registry::default()
        .activity::<Thing>(Arc::new(()))
        .local::<Note>()
        .workflow(Locals)
        .workflow(Resources);
    let engine = Engine::start(Arc::new(store), vault, registry, env, "bench");
    let started = Instant::now();
    let mut took: Vec<Duration> = stream::iter(0..options.sagas)
        .map(|number| one::<W>(&engine, number, options.steps))
        .buffer_unordered(options.concurrency)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .collect::<Result<_, _>>()?;
    let elapsed = started.elapsed();
    took.sort();
    engine.stop().await;
    let bare = bare_loop(folder, options.steps, options.concurrency).await?;
    #[allow(clippy::cast_precision_loss, reason = "counts of a benchmark")]
    let steps = (options.sagas * options.steps as usize) as f64;
    let per_step = |part: usize| {
        let whole = took.get(took.len() * part / 100).or(took.last()).map_or(0, Duration::as_micros);
        u64::try_from(whole).unwrap_or(u64::MAX) / u64::from(options.steps)
    };
    #[allow(clippy::cast_precision_loss, reason = "counts of a benchmark")]
    let sagas_per_second = options.sagas as f64 / elapsed.as_secs_f64();
    let steps_per_second = steps / elapsed.as_secs_f64();
    let bare_steps_per_second = steps / bare.as_secs_f64();
    Ok(Measured {
        kind,
        sagas: options.sagas,
        steps: options.steps,
        concurrency: options.concurrency,
        sagas_per_second,
        steps_per_second,
        step_p50_us: per_step(50),
        step_p99_us: per_step(99),
        bare_steps_per_second,
        ratio: steps_per_second / bare_steps_per_second,
    })
}

/// Starts one saga and waits for its end.
async fn one<W: Workflow<Input = u32>>(
    engine: &Engine,
    number: usize,
    steps: u32,
) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let Started::New(saga) = engine.begin(engine.new_saga::<W>(format!("bench-{number}"), &steps)?).await?
    else {
        bail!("the database was not new");
    };
    let row = engine.wait(&saga, Duration::from_secs(600), |_| false).await?;
    match row {
        Some(row) if row.ended_at.is_some() => Ok(started.elapsed()),
        _ => bail!("saga {saga} did not end within ten minutes"),
    }
}

/// Writes, for every saga and step, the rows that the engine wrote for it: one transaction for a step of as many
/// sagas as are under way at a time, a statement a table, the same settings.
async fn bare_loop(folder: &Path, steps: u32, concurrency: usize) -> anyhow::Result<Duration> {
    let mut source = connect(&folder.join("engine.db")).await?;
    let schema: Vec<String> =
        sqlx::query_scalar("select sql from sqlite_schema where tbl_name in ('saga', 'journal', 'resource', 'note') and sql is not null order by rowid")
            .fetch_all(&mut source)
            .await?;
    let sagas: Vec<String> =
        sqlx::query_scalar("select id from saga order by id").fetch_all(&mut source).await?;
    let mut groups = Vec::new();
    for group in sagas.chunks(concurrency) {
        let ids = serde_json::to_string(group)?;
        let mut written = Vec::new();
        for step in 0..i64::from(steps) {
            written.push(rows_of(&mut source, &ids, step).await?);
        }
        groups.push((ids, written));
    }
    let mut bare = connect(&folder.join("bare.db")).await?;
    for statement in schema {
        bare.execute(sqlx::AssertSqlSafe(statement)).await?;
    }
    let started = Instant::now();
    for (ids, written) in groups {
        bare.execute("begin immediate").await?;
        sqlx::query(
            "insert into saga (id, workflow, workflow_version, state, start_key, start_fingerprint, epoch, seq,
               created_at, updated_at)
             select value, 'bench', 1, 'queued', value, value, 1, 1, 0, 0 from json_each($1)",
        )
        .bind(&ids)
        .execute(&mut bare)
        .await?;
        bare.execute("commit").await?;
        for [journal, resources, notes] in written {
            bare.execute("begin immediate").await?;
            sqlx::query("update saga set seq = seq + 2, state = 'running' from json_each($1) j where saga.id = j.value")
                .bind(&ids)
                .execute(&mut bare)
                .await?;
            sqlx::query(
                "insert into journal select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4,
                   value ->> 5, value ->> 6 from json_each($1)",
            )
            .bind(journal)
            .execute(&mut bare)
            .await?;
            if resources != "[]" {
                sqlx::query(
                    "insert into resource (id, provider, kind, name, external_id, state, holder, keeper, saga, step,
                       within, rev, intended_at, changed_at)
                     select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6,
                       value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12, value ->> 13
                     from json_each($1)",
                )
                .bind(resources)
                .execute(&mut bare)
                .await?;
            }
            if notes != "[]" {
                sqlx::query("insert into note select value ->> 0, value ->> 1 from json_each($1)")
                    .bind(notes)
                    .execute(&mut bare)
                    .await?;
            }
            bare.execute("commit").await?;
        }
    }
    let elapsed = started.elapsed();
    bare.close().await?;
    source.close().await?;
    Ok(elapsed)
}

async fn connect(file: &Path) -> anyhow::Result<SqliteConnection> {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    Ok(SqliteConnection::connect_with(&options).await?)
}

/// The journal, ledger and user rows of one step of these sagas, as JSON arrays. The first entry is the start;
/// each step has two more.
async fn rows_of(source: &mut SqliteConnection, ids: &str, step: i64) -> anyhow::Result<[String; 3]> {
    let journal: String = sqlx::query_scalar(
        "select json_group_array(json_array(saga, seq, at, epoch, version, kind, event)) from journal
         where saga in (select value from json_each($1)) and seq in (2 * $2 + 2, 2 * $2 + 3)",
    )
    .bind(ids)
    .bind(step)
    .fetch_one(&mut *source)
    .await?;
    let resources: String = sqlx::query_scalar(
        "select json_group_array(json_array(id, provider, kind, name, external_id, state, holder, keeper, saga, step,
           within, rev, intended_at, changed_at)) from resource
         where saga in (select value from json_each($1)) and step = 'thing-' || $2",
    )
    .bind(ids)
    .bind(step)
    .fetch_one(&mut *source)
    .await?;
    let notes: String = sqlx::query_scalar(
        "select json_group_array(json_array(saga, number)) from note
         where saga in (select value from json_each($1)) and number = $2",
    )
    .bind(ids)
    .bind(step)
    .fetch_one(&mut *source)
    .await?;
    Ok([journal, resources, notes])
}

//! The bare loop: writes the rows that the engine wrote, in commits as large as the engine's, without an engine.
//!
//! The rows lie ready in memory. They go through the driver that the engine's writer uses, at the same durability,
//! into the same tables with the same indexes. So what lies between its rate and the engine's is the engine.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use rusqlite::{Connection, params};
use tokio::time::Instant;

use super::meter::{Beside, Meter, Metered};
use super::place::Place;
use super::rows::{Change, SagaWrite, Write, grouped};

/// What the bare loop came to.
pub struct Played {
    /// What it took.
    pub metered: Metered,
    /// How many commits it made.
    pub commits: usize,
    /// How long the commits of each saga took together; one saga's, if each has commits of its own.
    pub sagas: Vec<Duration>,
}

/// Writes all of it, of which only what is measured counts, in commits of this many writes.
pub async fn play(place: &Place, writes: Vec<Write>, size: f64) -> anyhow::Result<Played> {
    let (measured, before): (Vec<Write>, Vec<Write>) =
        writes.into_iter().partition(|write| write.is_measured);
    let (before, groups) = (grouped(before, 100.0), grouped(measured, size));
    match place {
        Place::Sqlite { .. } => {
            let (file, beside) = (place.file(), place.beside());
            tokio::task::spawn_blocking(move || on_sqlite(&file, beside, &before, &groups)).await?
        }
    }
}

fn on_sqlite(
    file: &Path,
    beside: Beside,
    before: &[Vec<Write>],
    groups: &[Vec<Write>],
) -> anyhow::Result<Played> {
    let connection = Connection::open(file)?;
    connection.execute_batch(
        "pragma journal_mode = wal; pragma synchronous = full; pragma foreign_keys = on; pragma busy_timeout = 10000;",
    )?;
    connection.set_prepared_statement_cache_capacity(32);
    for group in before {
        write_group(&connection, group)?;
    }
    let mut sagas: HashMap<&str, Duration> = HashMap::new();
    let mut took = Vec::with_capacity(groups.len());
    let meter = Meter::start(beside);
    for group in groups {
        let began = Instant::now();
        write_group(&connection, group)?;
        took.push(began.elapsed());
    }
    let metered = meter.stop();
    for (group, took) in groups.iter().zip(took) {
        for write in group {
            *sagas.entry(&write.saga.id).or_default() += took;
        }
    }
    let expected: usize =
        before.iter().chain(groups).flatten().flat_map(Write::each).map(|write| write.journal.len()).sum();
    let stored: i64 = connection.query_one("select count(*) from journal", [], |row| row.get(0))?;
    if stored != i64::try_from(expected)? {
        bail!("the bare loop wrote {stored} journal rows, and the engine {expected}");
    }
    Ok(Played { metered, commits: groups.len(), sagas: sagas.into_values().collect() })
}

fn write_group(connection: &Connection, group: &[Write]) -> rusqlite::Result<()> {
    connection.prepare_cached("begin immediate")?.execute([])?;
    for write in group.iter().flat_map(Write::each) {
        write_saga(connection, &write.saga)?;
        write_rest(connection, write)?;
    }
    connection.prepare_cached("commit")?.execute([])?;
    Ok(())
}

fn write_saga(connection: &Connection, saga: &SagaWrite) -> rusqlite::Result<()> {
    match &saga.change {
        Change::New(new) => connection
            .prepare_cached(
                "insert into saga (id, workflow, workflow_version, state, labels, start_key, start_fingerprint, due_at,
                   claimable_at, epoch, seq, created_at, updated_at)
                 values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8, ?9, ?10, ?11, ?11)",
            )?
            .execute(params![
                saga.id,
                new.workflow,
                new.workflow_version,
                saga.state,
                saga.labels,
                new.start_key,
                new.start_fingerprint,
                saga.due_at,
                saga.epoch,
                saga.seq,
                saga.updated_at,
            ])?,
        Change::Turn => connection
            .prepare_cached(
                "update saga set seq = ?4, state = ?5, attention = ?6, step = ?7, error = ?8, labels = ?9, output = ?10,
                   deadline_at = ?11, due_at = ?12, claimable_at = null, updated_at = ?13, ended_at = ?14,
                   fingerprint = ?15, progress = coalesce(?16, progress)
                 where id = ?1 and epoch = ?2 and seq = ?3",
            )?
            .execute(params![
                saga.id,
                saga.epoch,
                saga.seq_before,
                saga.seq,
                saga.state,
                saga.attention,
                saga.step,
                saga.error,
                saga.labels,
                saga.output,
                saga.deadline_at,
                saga.due_at,
                saga.updated_at,
                saga.ended_at,
                saga.fingerprint,
                saga.progress,
            ])?,
        Change::Release => connection
            .prepare_cached("update saga set claimable_at = due_at where id = ?1 and ended_at is null")?
            .execute([&saga.id])?,
    };
    Ok(())
}

fn write_rest(connection: &Connection, write: &Write) -> rusqlite::Result<()> {
    let Write { saga, journal, resources, notes, .. } = write;
    for row in journal {
        connection
            .prepare_cached(
                "insert into journal (saga, seq, at, epoch, version, kind, event) values (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![saga.id, row.seq, row.at, row.epoch, row.version, row.kind, row.event])?;
    }
    for row in resources {
        connection
            .prepare_cached(
                "insert into resource (id, provider, kind, name, external_id, state, holder, keeper, saga, step,
                   within, rev, intended_at, changed_at)
                 values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
                 on conflict (id) do update set external_id = excluded.external_id, state = excluded.state,
                   holder = excluded.holder, keeper = excluded.keeper, rev = excluded.rev,
                   changed_at = excluded.changed_at",
            )?
            .execute(params![
                row.id,
                row.provider,
                row.kind,
                row.name,
                row.external_id,
                row.state,
                row.holder,
                row.keeper,
                row.saga,
                row.step,
                row.within,
                row.rev,
                row.intended_at,
                row.changed_at,
            ])?;
    }
    for number in notes {
        connection
            .prepare_cached("insert into note (saga, number) values (?1, ?2)")?
            .execute(params![saga.id, number])?;
    }
    Ok(())
}

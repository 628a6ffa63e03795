//! SQLite: a prepared statement a row, on the thread's own connection.

use std::path::Path;

use anyhow::bail;
use rusqlite::{Connection, params};
use tokio::time::Instant;

use super::{Played, by_saga, journal_rows};
use crate::bench::groups::grouped;
use crate::bench::meter::Meter;
use crate::bench::rows::{Change, SagaWrite, Write};

pub(super) fn play(
    file: &Path,
    before: Vec<Write>,
    measured: Vec<Write>,
    size: f64,
) -> anyhow::Result<Played> {
    let connection = Connection::open(file)?;
    connection.execute_batch(
        "pragma journal_mode = wal; pragma synchronous = full; pragma foreign_keys = on; pragma busy_timeout = 10000;",
    )?;
    connection.set_prepared_statement_cache_capacity(32);
    let (before, groups) = (grouped(before, 100.0), grouped(measured, size));
    for group in &before {
        write_group(&connection, group)?;
    }
    let mut took = Vec::with_capacity(groups.len());
    let meter = Meter::start(None);
    for group in &groups {
        let began = Instant::now();
        write_group(&connection, group)?;
        took.push(began.elapsed());
    }
    let metered = meter.stop();
    let expected = journal_rows(before.iter().chain(&groups).flatten());
    let stored: i64 = connection.query_one("select count(*) from journal", [], |row| row.get(0))?;
    if stored != i64::try_from(expected)? {
        bail!("the bare loop wrote {stored} journal rows, and the engine {expected}");
    }
    let sagas = by_saga(groups.iter().map(Vec::as_slice).zip(took));
    Ok(Played { metered, commits: groups.len(), sagas })
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
    if let (Some(first), Some(last)) = (journal.first(), journal.last()) {
        connection
            .prepare_cached("insert into feed (saga, first_seq, last_seq) values (?1, ?2, ?3)")?
            .execute(params![saga.id, first.seq, last.seq])?;
    }
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
                   within, rev, intended_at, changed_at, unsettled_until)
                 values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
                 on conflict (id) do update set external_id = excluded.external_id, state = excluded.state,
                   holder = excluded.holder, keeper = excluded.keeper, rev = excluded.rev,
                   changed_at = excluded.changed_at, unsettled_until = excluded.unsettled_until",
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
                row.unsettled_until,
            ])?;
    }
    for number in notes {
        connection
            .prepare_cached("insert into note (saga, number) values (?1, ?2)")?
            .execute(params![saga.id, number])?;
    }
    Ok(())
}

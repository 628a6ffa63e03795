//! Postgres: one statement a commit, over arrays that `unnest` spreads, on a connection of its own.
//!
//! A local step is a transaction by itself there, with what comes before it; the engine has as many of those at a time
//! as its pool has connections, and so has this.

use std::time::Duration;

use anyhow::bail;
use sqlx::postgres::{PgArguments, PgConnectOptions};
use sqlx::query::Query;
use sqlx::{Connection, Executor, PgConnection, Postgres};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Played, by_saga, journal_rows};
use crate::bench::groups::grouped;
use crate::bench::meter::Meter;
use crate::bench::place::Place;
use crate::bench::rows::{Change, Write};

/// How many connections the engine has for transactions.
const LANES: usize = 8;

const STARTS: &str = "with new as materialized (
       select * from unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::bigint[],
         $8::bigint[])
       as new (id, workflow, version, labels, key, fingerprint, due_at, at)
     ), saga as (
       insert into saga (id, workflow, workflow_version, state, labels, start_key, start_fingerprint, due_at,
         created_at, updated_at)
       select id, workflow, version, 'queued', labels, key, fingerprint, due_at, at, at from new
     ), lease as (
       insert into saga_lease (saga, epoch, seq, due_at) select id, 1, 1, due_at from new
     ), line as (
       insert into journal (saga, seq, at, epoch, version, kind, event)
       select * from unnest($9::text[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::text[],
         $15::text[])
     )
     insert into feed (number, saga, first_seq, last_seq)
     select * from unnest($16::bigint[], $17::text[], $18::bigint[], $19::bigint[])";

const TURNS: &str = "with turn as materialized (
       select * from unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::text[],
         $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::bigint[], $14::bigint[], $15::bigint[],
         $16::bigint[])
       as turn (saga, epoch, before, seq, state, attention, step, error, fingerprint, progress, labels, output,
         deadline_at, due_at, updated_at, ended_at)
     ), lease as (
       update saga_lease l set seq = t.seq, due_at = null
       from turn t where l.saga = t.saga and l.epoch = t.epoch and l.seq = t.before
     ), shown as (
       update saga s set state = t.state, attention = t.attention, step = t.step, error = t.error,
         fingerprint = t.fingerprint, progress = coalesce(t.progress, s.progress), labels = t.labels,
         output = t.output, deadline_at = t.deadline_at, due_at = t.due_at, updated_at = t.updated_at,
         ended_at = t.ended_at
       from turn t where s.id = t.saga
     ), line as (
       insert into journal (saga, seq, at, epoch, version, kind, event)
       select * from unnest($17::text[], $18::bigint[], $19::bigint[], $20::bigint[], $21::bigint[], $22::text[],
         $23::text[])
     ), ledger as (
       insert into resource (id, provider, kind, name, external_id, state, holder, keeper, saga, step, within, rev,
         intended_at, changed_at, unsettled_until)
       select * from unnest($24::text[], $25::text[], $26::text[], $27::text[], $28::text[], $29::text[], $30::text[],
         $31::text[], $32::text[], $33::text[], $34::text[], $35::bigint[], $36::bigint[], $37::bigint[], $38::bigint[])
       on conflict (id) do update set external_id = excluded.external_id, state = excluded.state,
         holder = excluded.holder, keeper = excluded.keeper, rev = excluded.rev, changed_at = excluded.changed_at,
         unsettled_until = excluded.unsettled_until
     )
     insert into feed (number, saga, first_seq, last_seq)
     select * from unnest($39::bigint[], $40::text[], $41::bigint[], $42::bigint[])";

const RELEASES: &str = "update saga_lease l set holder = null, due_at = s.due_at
     from saga s where l.saga = s.id and s.id = any ($1::text[])";

const NOTES: &str = "insert into note (saga, number) select * from unnest($1::text[], $2::bigint[])";

/// One commit: the writes of it, and for each of its statements the number that its first row has in the feed.
struct Commit {
    writes: Vec<Write>,
    number: i64,
}

pub(super) async fn play(
    place: &Place,
    url: &str,
    before: Vec<Write>,
    measured: Vec<Write>,
    size: f64,
) -> anyhow::Result<Played> {
    let expected = journal_rows(before.iter().chain(&measured));
    let mut number = 0;
    let mut first = connect(url).await?;
    for commit in commits(before, 100.0, &mut number) {
        write(&mut first, &commit).await?;
    }
    let lanes = lanes(measured, size, &mut number);
    let mut connections = vec![first];
    while connections.len() < lanes.len() {
        connections.push(connect(url).await?);
    }
    let count = lanes.iter().map(Vec::len).sum();
    let meter = Meter::start(place.beside());
    let mut running = JoinSet::new();
    for (mut connection, lane) in connections.into_iter().zip(lanes) {
        running.spawn(async move {
            let mut took = Vec::with_capacity(lane.len());
            for commit in &lane {
                let began = Instant::now();
                write(&mut connection, commit).await?;
                took.push(began.elapsed());
            }
            anyhow::Ok((lane, took))
        });
    }
    let mut done: Vec<(Vec<Commit>, Vec<Duration>)> = Vec::new();
    while let Some(lane) = running.join_next().await {
        done.push(lane??);
    }
    let metered = meter.stop();
    let mut connection = connect(url).await?;
    let stored: i64 = sqlx::query_scalar("select count(*) from journal").fetch_one(&mut connection).await?;
    connection.close().await?;
    if stored != i64::try_from(expected)? {
        bail!("the bare loop wrote {stored} journal rows, and the engine {expected}");
    }
    let all = done.iter().flat_map(|(lane, took)| lane.iter().zip(took));
    let sagas = by_saga(all.map(|(commit, took)| (commit.writes.as_slice(), *took)));
    Ok(Played { metered, commits: count, sagas })
}

/// As the engine speaks to the server.
async fn connect(url: &str) -> anyhow::Result<PgConnection> {
    let options: PgConnectOptions = url.parse()?;
    let options = options.options([
        ("default_transaction_isolation", "read committed"),
        ("plan_cache_mode", "force_generic_plan"),
        ("jit", "off"),
    ]);
    Ok(PgConnection::connect_with(&options).await?)
}

/// What each connection commits: all on one, but local steps side by side.
fn lanes(writes: Vec<Write>, size: f64, number: &mut i64) -> Vec<Vec<Commit>> {
    let (local, other): (Vec<Write>, Vec<Write>) = writes.into_iter().partition(|write| write.then.is_some());
    if local.is_empty() {
        return vec![commits(other, size, number)];
    }
    // Every write of a saga on the same connection, so that they stay in order.
    let mut lanes: Vec<Vec<Commit>> = (0..LANES).map(|_| Vec::new()).collect();
    let mut at: std::collections::HashMap<String, usize> = std::collections::HashMap::new();
    let (starts, ends): (Vec<Write>, Vec<Write>) =
        other.into_iter().partition(|write| matches!(write.saga.change, Change::New(_)));
    for write in starts.into_iter().chain(local).chain(ends) {
        let next = at.len() % LANES;
        let lane = *at.entry(write.saga.id.clone()).or_insert(next);
        if let Some(lane) = lanes.get_mut(lane) {
            lane.extend(commits(vec![write], 1.0, number));
        }
    }
    lanes
}

/// Starts first, in commits of their own, as the engine has them.
fn commits(writes: Vec<Write>, size: f64, number: &mut i64) -> Vec<Commit> {
    let (mut starts, mut turns, mut releases) = (Vec::new(), Vec::new(), Vec::new());
    for write in writes {
        match write.saga.change {
            Change::New(_) => starts.push(write),
            Change::Turn => turns.push(write),
            Change::Release => releases.push(write),
        }
    }
    let groups = [starts, turns, releases].into_iter().flat_map(|writes| grouped(writes, size));
    groups
        .map(|writes| {
            let commit = Commit { number: *number, writes };
            *number += commit.writes.iter().flat_map(Write::each).count() as i64;
            commit
        })
        .collect()
}

async fn write(connection: &mut PgConnection, commit: &Commit) -> anyhow::Result<()> {
    let (Some(first), writes) = (commit.writes.first(), &commit.writes) else { return Ok(()) };
    let all: Vec<&Write> = writes.iter().collect();
    match (&first.saga.change, &first.then) {
        (Change::New(_), _) => {
            starts(&all, commit.number).execute(connection).await?;
        }
        (Change::Release, _) => {
            let ids: Vec<&str> = all.iter().map(|write| write.saga.id.as_str()).collect();
            sqlx::query(RELEASES).bind(ids).execute(connection).await?;
        }
        (Change::Turn, None) => {
            turns(&all, commit.number).execute(connection).await?;
        }
        (Change::Turn, Some(then)) => {
            connection.execute("begin isolation level read committed").await?;
            turns(&all, commit.number).execute(&mut *connection).await?;
            let numbers = &then.notes;
            let sagas = vec![then.saga.id.as_str(); numbers.len()];
            sqlx::query(NOTES).bind(sagas).bind(numbers).execute(&mut *connection).await?;
            turns(&[then.as_ref()], commit.number + 1).execute(&mut *connection).await?;
            connection.execute("commit").await?;
        }
    }
    Ok(())
}

type Bound<'w> = Query<'w, Postgres, PgArguments>;

fn starts<'w>(writes: &[&'w Write], number: i64) -> Bound<'w> {
    let new = |write: &&'w Write| match &write.saga.change {
        Change::New(new) => Some((&write.saga, new)),
        _ => None,
    };
    let rows: Vec<_> = writes.iter().filter_map(new).collect();
    let query = sqlx::query(STARTS)
        .bind(rows.iter().map(|(saga, _)| saga.id.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, new)| new.workflow.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, new)| new.workflow_version).collect::<Vec<_>>())
        .bind(rows.iter().map(|(saga, _)| saga.labels.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, new)| new.start_key.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, new)| new.start_fingerprint.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(saga, _)| saga.due_at).collect::<Vec<_>>())
        .bind(rows.iter().map(|(saga, _)| saga.updated_at).collect::<Vec<_>>());
    feed(journal(query, writes), writes, number)
}

fn turns<'w>(writes: &[&'w Write], number: i64) -> Bound<'w> {
    let query = sqlx::query(TURNS)
        .bind(writes.iter().map(|write| write.saga.id.as_str()).collect::<Vec<_>>())
        .bind(writes.iter().map(|write| write.saga.epoch).collect::<Vec<_>>())
        .bind(writes.iter().map(|write| write.saga.seq_before).collect::<Vec<_>>())
        .bind(writes.iter().map(|write| write.saga.seq).collect::<Vec<_>>())
        .bind(writes.iter().map(|write| write.saga.state.as_str()).collect::<Vec<_>>())
        .bind(writes.iter().map(|write| write.saga.attention.as_str()).collect::<Vec<_>>())
        .bind(writes.iter().map(|write| write.saga.step.as_deref()).collect::<Vec<_>>())
        .bind(writes.iter().map(|write| write.saga.error.as_deref()).collect::<Vec<_>>())
        .bind(writes.iter().map(|write| write.saga.fingerprint.as_deref()).collect::<Vec<_>>())
        .bind(writes.iter().map(|write| write.saga.progress.as_deref()).collect::<Vec<_>>())
        .bind(writes.iter().map(|write| write.saga.labels.as_str()).collect::<Vec<_>>())
        .bind(writes.iter().map(|write| write.saga.output.as_deref()).collect::<Vec<_>>())
        .bind(writes.iter().map(|write| write.saga.deadline_at).collect::<Vec<_>>())
        .bind(writes.iter().map(|write| write.saga.due_at).collect::<Vec<_>>())
        .bind(writes.iter().map(|write| write.saga.updated_at).collect::<Vec<_>>())
        .bind(writes.iter().map(|write| write.saga.ended_at).collect::<Vec<_>>());
    feed(ledger(journal(query, writes), writes), writes, number)
}

fn journal<'w>(query: Bound<'w>, writes: &[&'w Write]) -> Bound<'w> {
    let rows: Vec<_> = writes
        .iter()
        .flat_map(|write| write.journal.iter().map(|row| (write.saga.id.as_str(), row)))
        .collect();
    query
        .bind(rows.iter().map(|(saga, _)| *saga).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.seq).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.at).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.epoch).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.version).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.kind.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.event.as_str()).collect::<Vec<_>>())
}

fn ledger<'w>(query: Bound<'w>, writes: &[&'w Write]) -> Bound<'w> {
    let rows: Vec<_> = writes.iter().flat_map(|write| &write.resources).collect();
    query
        .bind(rows.iter().map(|row| row.id.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.provider.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.kind.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.external_id.as_deref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.state.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.holder.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.keeper.as_deref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.saga.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.step.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.within.as_deref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.rev).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.intended_at).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.changed_at).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.unsettled_until).collect::<Vec<_>>())
}

/// The rows that the engine's appends leave in the feed once they have their numbers.
fn feed<'w>(query: Bound<'w>, writes: &[&'w Write], number: i64) -> Bound<'w> {
    let rows: Vec<_> = writes
        .iter()
        .filter_map(|write| {
            Some((write.saga.id.as_str(), write.journal.first()?.seq, write.journal.last()?.seq))
        })
        .collect();
    query
        .bind((number + 1..).take(rows.len()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(saga, _, _)| *saga).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, first, _)| *first).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, _, last)| *last).collect::<Vec<_>>())
}

//! Writing: what an open transaction does for starts, appends and letters, a prepared statement a row.

use std::sync::Arc;

use rusqlite::types::ToSql;
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};
use serde::Serialize;
use serde_json::Value;

use crate::env::Timestamp;
use crate::ids::SagaId;
use crate::journal::{Event, SCHEMA_VERSION};
use crate::secret::Sealed;
use crate::store::limits::LABEL_INDEXED_MAX;
use crate::store::{Append, Error, Letter, Message, NewSaga, ResourceWrite, SecretFate, Settled, Started};

use super::error::write_error;

pub(super) type Done<T> = Result<T, Error>;

pub(super) fn json(value: &impl Serialize) -> Done<String> {
    serde_json::to_string(value).map_err(|error| Error::Refused(error.to_string()))
}

fn prepared<'c>(connection: &'c Connection, sql: &str) -> Done<CachedStatement<'c>> {
    connection.prepare_cached(sql).map_err(write_error)
}

/// Runs a statement; how many rows it changed.
pub(super) fn run(connection: &Connection, sql: &str, params: &[&dyn ToSql]) -> Done<usize> {
    prepared(connection, sql)?.execute(params).map_err(write_error)
}

/// An append as it is bound: whoever asks for it serialises it, so that the writer only writes.
pub(super) struct Bound {
    pub(super) append: Arc<Append>,
    events: Vec<String>,
    attention: String,
    labels: String,
    output: Option<String>,
    progress: Option<String>,
}

impl Bound {
    pub(super) fn new(append: Arc<Append>) -> Done<Self> {
        Ok(Self {
            events: append.entries.iter().map(|entry| json(&entry.event)).collect::<Done<_>>()?,
            attention: json(&append.row.attention)?,
            labels: json(&append.row.labels)?,
            output: append.output.as_ref().map(Value::to_string),
            progress: append.row.progress.as_ref().map(json).transpose()?,
            append,
        })
    }
}

/// Starts a saga; under a key that is taken, nothing.
pub(super) fn start(connection: &Connection, saga: &NewSaga) -> Done<Started> {
    let concurrency = saga.concurrency.as_ref();
    let due_at = saga.start_at.unwrap_or(saga.at).0;
    let fingerprint = saga.fingerprint();
    let fresh = run(
        connection,
        "insert into saga (id, workflow, workflow_version, state, labels, start_key, start_fingerprint,
           deadline_at, due_at, claimable_at, priority, concurrency_key, concurrency_limit, parent, epoch, seq,
           created_at, updated_at)
         values (?1, ?2, ?3, 'queued', ?4, ?5, ?6, ?7, ?8, ?8, ?9, ?10, ?11, ?12, 1, 1, ?13, ?13)
         on conflict (start_key) do nothing",
        params![
            saga.id.as_str(),
            saga.workflow,
            saga.workflow_version,
            json(&saga.labels)?,
            saga.key,
            fingerprint,
            saga.deadline_at.map(|at| at.0),
            due_at,
            saga.priority,
            concurrency.map(|bound| &bound.key),
            concurrency.map(|bound| bound.limit),
            saga.parent.as_ref().map(|parent| parent.saga.as_str()),
            saga.at.0,
        ],
    )?;
    if fresh == 0 {
        let before = started_under(connection, &saga.key)?;
        return Ok(match before {
            Some((id, known)) if known == fingerprint => Started::Before(id),
            Some((id, _)) => Started::KeyReused(id),
            // The key is the only thing that can have been in the way.
            None => return Err(Error::Unavailable(format!("saga {} was not started", saga.id))),
        });
    }
    saga.labels.iter().try_for_each(|(name, value)| label(connection, &saga.id, name, value))?;
    if concurrency.is_some() && saga.start_at.is_none() {
        take_place(connection, &saga.id)?;
    }
    let event = saga.started();
    write_entry(connection, &saga.id, (1, saga.at, 1), &event, &json(&event)?)?;
    feed(connection, &saga.id, 1, 1)?;
    saga.sealed.iter().try_for_each(|sealed| keep_secret(connection, saga.id.as_str(), sealed))?;
    Ok(Started::New(saga.id.clone()))
}

/// Notes a label for lists. One that is too long is looked for in the rows.
fn label(connection: &Connection, saga: &SagaId, name: &str, value: &str) -> Done<()> {
    let saga = saga.as_str();
    if name.len().saturating_add(value.len()) > LABEL_INDEXED_MAX {
        return run(connection, "delete from saga_label where saga = ?1 and name = ?2", params![saga, name])
            .map(drop);
    }
    run(
        connection,
        "insert into saga_label (saga, name, value) values (?1, ?2, ?3)
         on conflict (saga, name) do update set value = excluded.value",
        params![saga, name, value],
    )
    .map(drop)
}

/// The saga that was started under this key, and its fingerprint.
pub(super) fn started_under(connection: &Connection, key: &str) -> Done<Option<(SagaId, String)>> {
    prepared(connection, "select id, start_fingerprint from saga where start_key = ?1")?
        .query_row([key], |row| Ok((SagaId::stored(row.get::<_, String>(0)?), row.get(1)?)))
        .optional()
        .map_err(write_error)
}

/// Gives a saga that runs under a concurrency key its place, or lets it wait, due at no time, until one is free.
/// Whether it has one.
pub(super) fn take_place(connection: &Connection, saga: &SagaId) -> Done<bool> {
    let has_place: Option<bool> = prepared(
        connection,
        "update saga set
           has_place = (select count(*) from saga other where other.concurrency_key = saga.concurrency_key
             and other.has_place = 1 and other.ended_at is null) < concurrency_limit
         where id = ?1 and has_place = 0 and ended_at is null returning has_place",
    )?
    .query_row([saga.as_str()], |row| row.get(0))
    .optional()
    .map_err(write_error)?;
    if has_place == Some(false) {
        let sql = "update saga set due_at = null, claimable_at = null where id = ?1";
        run(connection, sql, &[&saga.as_str()])?;
    }
    Ok(has_place.unwrap_or(true))
}

/// Gives the place that an ended saga had to one that waits for it, by priority and age.
fn pass_place(connection: &Connection, ended: &SagaId, at: Timestamp) -> Done<usize> {
    run(
        connection,
        "update saga set has_place = 1, due_at = ?2, claimable_at = ?2
         from saga ended
         where ended.id = ?1 and ended.has_place = 1 and saga.id = (
           select id from saga waiting where waiting.concurrency_key = ended.concurrency_key
             and waiting.has_place = 0 and waiting.due_at is null and waiting.ended_at is null
           order by priority desc, id limit 1)",
        params![ended.as_str(), at.0],
    )
}

/// Gives a saga back: from now on it is claimed when it is due.
pub(super) fn release(connection: &Connection, saga: &SagaId) -> Done<()> {
    let sql = "update saga set claimable_at = due_at where id = ?1 and ended_at is null";
    run(connection, sql, &[&saga.as_str()]).map(drop)
}

/// Why an append may not be written, apart from its fence.
fn objection(connection: &Connection, append: &Append) -> Done<Option<Error>> {
    for ResourceWrite { row, stored } in &append.resources {
        let Some((holder, rev)) = stored else { continue };
        let is_known =
            prepared(connection, "select 1 from resource where id = ?1 and holder = ?2 and rev = ?3")?
                .exists(params![row.id.as_str(), holder, rev])
                .map_err(write_error)?;
        if !is_known {
            return Ok(Some(Error::LedgerMoved(append.row.id.clone())));
        }
    }
    for new in &append.starts {
        // Whoever asked for it has looked whether the key was free, so this is somebody's doing in between.
        if let Some((id, _)) = started_under(connection, &new.key)? {
            return Ok(Some(Error::KeyTaken(id)));
        }
    }
    Ok(None)
}

/// Writes a turn, or nothing of it: then the inner error says why. Whether something may have become due by it.
pub(super) fn append(connection: &Connection, bound: &Bound) -> Done<Result<bool, Error>> {
    let Bound { append, events, attention, labels, output, progress } = bound;
    if let Some(objection) = objection(connection, append)? {
        return Ok(Err(objection));
    }
    let row = &append.row;
    let length = i64::try_from(append.entries.len()).unwrap_or(i64::MAX);
    // The fence: a write that finds another epoch, or a longer journal, changes nothing.
    let held = run(
        connection,
        "update saga set seq = ?4, state = ?5, attention = ?6, step = ?7, error = ?8, labels = ?9, output = ?10,
           deadline_at = ?11, due_at = ?12, claimable_at = null, updated_at = ?13, ended_at = ?14, fingerprint = ?15,
           progress = coalesce(?16, progress)
         where id = ?1 and epoch = ?2 and seq = ?3",
        params![
            row.id.as_str(),
            row.epoch,
            row.seq - length,
            row.seq,
            <&str>::from(row.state),
            attention,
            row.step,
            row.error,
            labels,
            output,
            row.deadline_at.map(|at| at.0),
            row.due_at.map(|at| at.0),
            row.updated_at.0,
            row.ended_at.map(|at| at.0),
            row.fingerprint,
            progress,
        ],
    )?;
    if held == 0 {
        return Ok(Err(Error::Fenced(row.id.clone())));
    }
    for (entry, text) in append.entries.iter().zip(events) {
        write_entry(connection, &row.id, (entry.seq, entry.at, entry.epoch), &entry.event, text)?;
        if let Event::LabelSet { name, value, .. } = &entry.event {
            label(connection, &row.id, name, value)?;
        }
    }
    if length > 0 {
        feed(connection, &row.id, row.seq - length + 1, row.seq)?;
    }
    append.resources.iter().try_for_each(|write| write_resource(connection, write))?;
    append.sealed.iter().try_for_each(|sealed| keep_secret(connection, row.id.as_str(), sealed))?;
    for id in &append.passed_over {
        run(connection, "update inbox set is_passed_over = 1 where id = ?1", params![id])?;
    }
    for id in &append.consumed {
        run(connection, "update inbox set consumed_at = ?2 where id = ?1", params![id, row.updated_at.0])?;
    }
    super::gates::append(connection, append)?;
    for new in &append.starts {
        start(connection, new)?;
    }
    for letter in &append.letters {
        post(connection, letter)?;
    }
    settle(connection, append)?;
    let mut wakes = !append.starts.is_empty() || !append.letters.is_empty();
    if row.ended_at.is_some() {
        wakes |= pass_place(connection, &row.id, row.updated_at)? > 0;
    }
    pass_secrets(connection, append)?;
    Ok(Ok(wakes))
}

/// Writes what came of acts; those that nobody will read any more came too late.
fn settle(connection: &Connection, append: &Append) -> Done<()> {
    let state = <&str>::from(append.row.state);
    for Settled { operation, outcome } in &append.settled {
        let sql = "update audit set outcome = ?2, state_after = ?3 where id = ?1";
        run(connection, sql, params![operation.as_str(), outcome, state])?;
    }
    if append.row.ended_at.is_some() {
        run(
            connection,
            "update audit set outcome = 'too_late: it had ended', state_after = ?2
             where saga = ?1 and outcome is null",
            params![append.row.id.as_str(), state],
        )?;
    }
    Ok(())
}

fn write_entry(
    connection: &Connection,
    saga: &SagaId,
    (seq, at, epoch): (i64, Timestamp, i64),
    event: &Event,
    text: &str,
) -> Done<()> {
    run(
        connection,
        "insert into journal (saga, seq, at, epoch, version, kind, event) values (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![saga.as_str(), seq, at.0, epoch, SCHEMA_VERSION, event.name(), text],
    )
    .map(drop)
}

/// Numbers an append for those who follow: there is one writer, so that the order of numbers is that of commits.
fn feed(connection: &Connection, saga: &SagaId, first_seq: i64, last_seq: i64) -> Done<()> {
    let sql = "insert into feed (saga, first_seq, last_seq) values (?1, ?2, ?3)";
    run(connection, sql, params![saga.as_str(), first_seq, last_seq]).map(drop)
}

/// A ledger row that is known is as its holder knows it: that was looked at before anything was written.
fn write_resource(connection: &Connection, write: &ResourceWrite) -> Done<()> {
    let row = &write.row;
    run(
        connection,
        "insert into resource (id, provider, kind, name, external_id, state, holder, keeper, saga, step, within,
           rev, intended_at, changed_at, unsettled_until)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
         on conflict (id) do update set external_id = excluded.external_id, state = excluded.state,
           holder = excluded.holder, keeper = excluded.keeper, rev = excluded.rev, changed_at = excluded.changed_at,
           unsettled_until = excluded.unsettled_until",
        params![
            row.id.as_str(),
            row.provider,
            row.kind,
            row.name,
            row.external_id,
            <&str>::from(row.state),
            row.holder,
            row.keeper,
            row.saga.as_str(),
            row.step.as_str(),
            row.within.as_ref().map(crate::ids::ResourceId::as_str),
            row.rev,
            row.intended_at.0,
            row.changed_at.0,
            row.unsettled_until.map(|until| until.0),
        ],
    )
    .map(drop)
}

/// Puts a secret away for an owner.
pub(super) fn keep_secret(connection: &Connection, owner: &str, sealed: &Sealed) -> Done<()> {
    run(
        connection,
        "insert into secret (id, owner, kind, sealed, created_at) values (?1, ?2, ?3, ?4, ?5)",
        params![sealed.id.as_str(), owner, sealed.kind, sealed.bytes, sealed.at.0],
    )
    .map(drop)
}

/// Destroys what an owner holds.
pub(super) fn destroy_secrets(connection: &Connection, owner: &str) -> Done<()> {
    run(connection, "delete from secret where owner = ?1", &[&owner]).map(drop)
}

fn pass_secrets(connection: &Connection, append: &Append) -> Done<()> {
    match &append.secrets {
        SecretFate::Stay => {}
        SecretFate::PassTo(owner) => {
            let sql = "update secret set owner = ?2 where owner = ?1";
            run(connection, sql, params![append.row.id.as_str(), owner])?;
        }
        SecretFate::Destroyed => destroy_secrets(connection, append.row.id.as_str())?,
    }
    append.destroyed.iter().try_for_each(|owner| destroy_secrets(connection, owner))
}

/// Leaves a letter, and the audit of it if it is a person's act. One under a known id changes nothing; one for a
/// saga that there is not is left out: whether there is one.
pub(super) fn post(connection: &Connection, letter: &Letter) -> Done<bool> {
    let saga = letter.saga.as_str();
    let is_known =
        prepared(connection, "select 1 from saga where id = ?1")?.exists([saga]).map_err(write_error)?;
    if !is_known {
        return Ok(false);
    }
    run(
        connection,
        "insert into inbox (id, saga, message, posted_at) values (?1, ?2, ?3, ?4) on conflict (id) do nothing",
        params![letter.id, saga, json(&letter.message)?, letter.at.0],
    )?;
    if let Message::Act { operation, act, actor, reason } = &letter.message {
        run(
            connection,
            "insert into audit (id, saga, actor, act, reason, state_before, at, state_after, outcome)
             select ?1, saga.id, ?3, ?4, ?5, saga.state, ?6, iif(saga.ended_at is null, null, saga.state),
               iif(saga.ended_at is null, null, 'too_late: it had ended')
             from saga where saga.id = ?2
             on conflict (id) do nothing",
            params![operation.as_str(), saga, actor, json(act)?, reason, letter.at.0],
        )?;
    }
    Ok(true)
}

//! Writing: what an open transaction does for starts, appends and letters, one statement a table.
//!
//! Each statement takes its rows as one JSON array and spreads them with `json_each`, so that a group of many
//! turns costs about as many statements as one turn does.

use std::collections::HashSet;

use serde_json::{Value, json};
use sqlx::SqliteConnection;

use crate::ids::SagaId;
use crate::journal::SCHEMA_VERSION;
use crate::secret::Sealed;
use crate::store::{Append, Error, Letter, Message, NewSaga, SecretFate, Started};

type Done<T> = Result<T, Error>;

/// A statement that failed may be tried again: nothing of its transaction stays.
pub(super) fn unavailable(error: sqlx::Error) -> Error {
    Error::Unavailable(error.to_string())
}

fn unreadable(error: serde_json::Error) -> Error {
    Error::Unreadable(error.to_string())
}

/// Runs a statement over rows, unless there are none.
async fn spread(connection: &mut SqliteConnection, sql: &'static str, rows: Vec<Value>) -> Done<()> {
    if !rows.is_empty() {
        let rows = Value::Array(rows).to_string();
        sqlx::query(sql).bind(rows).execute(connection).await.map_err(unavailable)?;
    }
    Ok(())
}

/// Runs a statement over rows, and answers the first column of what it returns.
async fn spread_returning(
    connection: &mut SqliteConnection,
    sql: &'static str,
    rows: Vec<Value>,
) -> Done<HashSet<String>> {
    if rows.is_empty() {
        return Ok(HashSet::new());
    }
    let rows = Value::Array(rows).to_string();
    let returned = sqlx::query_scalar(sql).bind(rows).fetch_all(connection).await.map_err(unavailable)?;
    Ok(returned.into_iter().collect())
}

/// Starts sagas; a key that is taken starts nothing.
pub(super) async fn start(connection: &mut SqliteConnection, new: &[&NewSaga]) -> Done<Vec<Started>> {
    let mut sagas = Vec::with_capacity(new.len());
    for saga in new {
        let labels = serde_json::to_string(&saga.labels).map_err(unreadable)?;
        let concurrency = saga.concurrency.as_ref();
        sagas.push(json!([
            saga.id,
            saga.workflow,
            saga.workflow_version,
            labels,
            saga.key,
            saga.fingerprint(),
            saga.deadline_at,
            saga.start_at.unwrap_or(saga.at),
            saga.at,
            saga.priority,
            concurrency.map(|bound| &bound.key),
            concurrency.map(|bound| bound.limit),
            saga.parent.as_ref().map(|parent| &parent.saga),
        ]));
    }
    let fresh = spread_returning(
        connection,
        "insert into saga (id, workflow, workflow_version, state, labels, start_key, start_fingerprint,
           deadline_at, due_at, priority, concurrency_key, concurrency_limit, parent, epoch, seq, created_at, updated_at)
         select value ->> 0, value ->> 1, value ->> 2, 'queued', value ->> 3, value ->> 4, value ->> 5,
           value ->> 6, value ->> 7, value ->> 9, value ->> 10, value ->> 11, value ->> 12, 1, 1,
           value ->> 8, value ->> 8
         from json_each($1) where true
         on conflict (start_key) do nothing
         returning id",
        sagas,
    )
    .await?;
    // One by one: each takes the place that the next one then finds taken.
    for saga in new.iter().filter(|saga| saga.concurrency.is_some() && saga.start_at.is_none()) {
        if fresh.contains(saga.id.as_str()) {
            take_place(connection, &saga.id).await?;
        }
    }
    let is_fresh = |saga: &&&NewSaga| fresh.contains(saga.id.as_str());
    let mut first_entries = Vec::new();
    let mut sealed = Vec::new();
    for saga in new.iter().filter(is_fresh) {
        let event = saga.started();
        let text = serde_json::to_string(&event).map_err(unreadable)?;
        first_entries.push(json!([saga.id, 1, saga.at, 1, SCHEMA_VERSION, event.name(), text]));
        sealed.extend(saga.sealed.iter().map(|sealed| secret_row(saga.id.as_str(), sealed)));
    }
    write_journal(connection, first_entries).await?;
    write_secrets(connection, sealed).await?;
    let mut started = Vec::with_capacity(new.len());
    for saga in new {
        if fresh.contains(saga.id.as_str()) {
            started.push(Started::New(saga.id.clone()));
            continue;
        }
        let (id, fingerprint): (String, String) =
            sqlx::query_as("select id, start_fingerprint from saga where start_key = $1")
                .bind(&saga.key)
                .fetch_one(&mut *connection)
                .await
                .map_err(unavailable)?;
        let id = SagaId::stored(id);
        let same = fingerprint == saga.fingerprint();
        started.push(if same { Started::Before(id) } else { Started::KeyReused(id) });
    }
    Ok(started)
}

/// Gives a saga that runs under a concurrency key its place, or lets it wait, due at no time, until one is free.
/// Whether it has one.
pub(super) async fn take_place(connection: &mut SqliteConnection, saga: &SagaId) -> Done<bool> {
    let has_place: Option<bool> = sqlx::query_scalar(
        "update saga set
           has_place = (select count(*) from saga other where other.concurrency_key = saga.concurrency_key
             and other.has_place = 1 and other.ended_at is null) < concurrency_limit
         where id = $1 and has_place = 0 and ended_at is null returning has_place",
    )
    .bind(saga.as_str())
    .fetch_optional(&mut *connection)
    .await
    .map_err(unavailable)?;
    if has_place == Some(false) {
        sqlx::query("update saga set due_at = null where id = $1")
            .bind(saga.as_str())
            .execute(connection)
            .await
            .map_err(unavailable)?;
    }
    Ok(has_place.unwrap_or(true))
}

/// Gives the places that ended sagas had to those that wait for one, by priority and age.
async fn pass_places(connection: &mut SqliteConnection, ended: Vec<Value>) -> Done<()> {
    spread(
        connection,
        "update saga set has_place = 1, due_at = j.value ->> 1
         from json_each($1) j join saga ended on ended.id = j.value ->> 0
         where ended.has_place = 1 and saga.id = (
           select id from saga waiting where waiting.concurrency_key = ended.concurrency_key
             and waiting.has_place = 0 and waiting.due_at is null and waiting.ended_at is null
           order by priority desc, id limit 1)",
        ended,
    )
    .await
}

/// Writes turns; answers the sagas whose fence did not hold, of which nothing was written.
///
/// A ledger row that another has changed fails the whole group: the caller finds out whose it was.
pub(super) async fn append(connection: &mut SqliteConnection, appends: &[&Append]) -> Done<HashSet<SagaId>> {
    let mut rows = Vec::with_capacity(appends.len());
    for Append { row, output, entries, .. } in appends {
        let length = i64::try_from(entries.len()).unwrap_or(i64::MAX);
        rows.push(json!([
            row.id,
            row.epoch,
            row.seq - length,
            row.seq,
            row.state,
            serde_json::to_string(&row.attention).map_err(unreadable)?,
            row.step,
            row.error,
            serde_json::to_string(&row.labels).map_err(unreadable)?,
            output.as_ref().map(Value::to_string),
            row.deadline_at,
            row.due_at,
            row.updated_at,
            row.ended_at,
            row.fingerprint,
            row.progress.as_ref().map(serde_json::to_string).transpose().map_err(unreadable)?,
        ]));
    }
    // The fence: a write that finds another epoch, or a longer journal, changes nothing.
    let held = spread_returning(
        connection,
        "update saga set seq = j.value ->> 3, state = j.value ->> 4, attention = j.value ->> 5,
           step = j.value ->> 6, error = j.value ->> 7, labels = j.value ->> 8, output = j.value ->> 9,
           deadline_at = j.value ->> 10, due_at = j.value ->> 11, updated_at = j.value ->> 12,
           ended_at = j.value ->> 13, fingerprint = j.value ->> 14,
           progress = coalesce(j.value ->> 15, saga.progress)
         from json_each($1) j
         where saga.id = j.value ->> 0 and saga.epoch = j.value ->> 1 and saga.seq = j.value ->> 2
         returning saga.id",
        rows,
    )
    .await?;
    let (held, fenced): (Vec<&Append>, Vec<&Append>) =
        appends.iter().partition(|append| held.contains(append.row.id.as_str()));
    write_journal(connection, journal_rows(&held)?).await?;
    write_resources(connection, &held).await?;
    let all =
        |rows: fn(&Append) -> Vec<Value>| held.iter().flat_map(|append| rows(append)).collect::<Vec<_>>();
    let secrets =
        all(|append| append.sealed.iter().map(|sealed| secret_row(append.row.id.as_str(), sealed)).collect());
    write_secrets(connection, secrets).await?;
    let consumed =
        all(|append| append.consumed.iter().map(|id| json!([id, append.row.updated_at])).collect());
    spread(
        connection,
        "update inbox set consumed_at = j.value ->> 1 from json_each($1) j where inbox.id = j.value ->> 0",
        consumed,
    )
    .await?;
    let gates = all(|append| {
        append.gates.iter().map(|gate| json!([gate.key, gate.next_allowed_at, gate.reason])).collect()
    });
    spread(
        connection,
        "insert into gate (key, next_allowed_at, reason)
         select value ->> 0, value ->> 1, value ->> 2 from json_each($1) where true
         on conflict (key) do update set next_allowed_at = excluded.next_allowed_at, reason = excluded.reason
         where excluded.next_allowed_at > gate.next_allowed_at",
        gates,
    )
    .await?;
    let starts: Vec<&NewSaga> = held.iter().flat_map(|append| &append.starts).collect();
    for started in start(connection, &starts).await? {
        // The transaction itself looked whether the key was free, so this is somebody's doing in between.
        if let Started::KeyReused(id) | Started::Before(id) = started {
            return Err(Error::Unavailable(format!("the key of a start was taken by saga {id} meanwhile")));
        }
    }
    let letters: Vec<&Letter> = held.iter().flat_map(|append| &append.letters).collect();
    post(connection, &letters).await?;
    settle(connection, &held).await?;
    // One by one, so that two places that become free go to two sagas.
    for append in held.iter().filter(|append| append.row.ended_at.is_some()) {
        pass_places(connection, vec![json!([append.row.id, append.row.updated_at])]).await?;
    }
    pass_secrets(connection, &held).await?;
    Ok(fenced.into_iter().map(|append| append.row.id.clone()).collect())
}

/// Writes what came of acts; those that nobody will read any more came too late.
async fn settle(connection: &mut SqliteConnection, appends: &[&Append]) -> Done<()> {
    let settled = appends.iter().flat_map(|append| {
        append.settled.iter().map(|act| json!([act.operation, act.outcome, append.row.state]))
    });
    spread(
        connection,
        "update audit set outcome = j.value ->> 1, state_after = j.value ->> 2
         from json_each($1) j where audit.id = j.value ->> 0",
        settled.collect(),
    )
    .await?;
    let ended = appends.iter().filter(|append| append.row.ended_at.is_some());
    let ended: Vec<Value> = ended.map(|append| json!([append.row.id, append.row.state])).collect();
    spread(
        connection,
        "update audit set outcome = 'too_late: it had ended', state_after = j.value ->> 1
         from json_each($1) j where audit.saga = j.value ->> 0 and audit.outcome is null",
        ended,
    )
    .await
}

fn journal_rows(appends: &[&Append]) -> Done<Vec<Value>> {
    let entries =
        appends.iter().flat_map(|append| append.entries.iter().map(|entry| (&append.row.id, entry)));
    entries
        .map(|(saga, entry)| {
            let text = serde_json::to_string(&entry.event).map_err(unreadable)?;
            Ok(json!([saga, entry.seq, entry.at, entry.epoch, SCHEMA_VERSION, entry.event.name(), text]))
        })
        .collect()
}

async fn write_journal(connection: &mut SqliteConnection, rows: Vec<Value>) -> Done<()> {
    spread(
        connection,
        "insert into journal (saga, seq, at, epoch, version, kind, event)
         select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6
         from json_each($1)",
        rows,
    )
    .await
}

async fn write_resources(connection: &mut SqliteConnection, appends: &[&Append]) -> Done<()> {
    let writes =
        || appends.iter().flat_map(|append| append.resources.iter().map(|write| (&append.row.id, write)));
    let expected: Vec<Value> = writes()
        .filter_map(|(saga, write)| {
            let (holder, rev) = write.stored.as_ref()?;
            Some(json!([write.row.id, holder, rev, saga]))
        })
        .collect();
    let moved = spread_returning(
        connection,
        "select j.value ->> 3 from json_each($1) j
         where not exists (select 1 from resource
           where resource.id = j.value ->> 0 and holder = j.value ->> 1 and rev = j.value ->> 2)",
        expected,
    )
    .await?;
    if let Some(saga) = moved.into_iter().next() {
        return Err(Error::LedgerMoved(SagaId::stored(saga)));
    }
    let rows = writes()
        .map(|(_, write)| {
            let row = &write.row;
            json!([
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
            ])
        })
        .collect();
    spread(
        connection,
        "insert into resource (id, provider, kind, name, external_id, state, holder, keeper, saga, step, within,
           rev, intended_at, changed_at)
         select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6,
           value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12, value ->> 13
         from json_each($1) where true
         on conflict (id) do update set external_id = excluded.external_id, state = excluded.state,
           holder = excluded.holder, keeper = excluded.keeper, rev = excluded.rev, changed_at = excluded.changed_at",
        rows,
    )
    .await
}

fn secret_row(owner: &str, sealed: &Sealed) -> Value {
    let hex: String = sealed.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    json!([sealed.id, owner, sealed.kind, hex, sealed.at])
}

async fn write_secrets(connection: &mut SqliteConnection, rows: Vec<Value>) -> Done<()> {
    spread(
        connection,
        "insert into secret (id, owner, kind, sealed, created_at)
         select value ->> 0, value ->> 1, value ->> 2, unhex(value ->> 3), value ->> 4 from json_each($1)",
        rows,
    )
    .await
}

/// Puts away the secrets that came with a transaction of no saga.
pub(super) async fn keep_secrets(
    connection: &mut SqliteConnection,
    owner: &str,
    sealed: &[Sealed],
) -> Done<()> {
    write_secrets(connection, sealed.iter().map(|sealed| secret_row(owner, sealed)).collect()).await
}

/// Destroys what these owners hold.
pub(super) async fn destroy_secrets(connection: &mut SqliteConnection, owners: &[String]) -> Done<()> {
    let owners = owners.iter().map(|owner| json!(owner)).collect();
    spread(connection, "delete from secret where owner in (select value from json_each($1))", owners).await
}

async fn pass_secrets(connection: &mut SqliteConnection, appends: &[&Append]) -> Done<()> {
    let passed = appends.iter().filter_map(|append| match &append.secrets {
        SecretFate::PassTo(owner) => Some(json!([append.row.id, owner])),
        _ => None,
    });
    spread(
        connection,
        "update secret set owner = j.value ->> 1 from json_each($1) j where secret.owner = j.value ->> 0",
        passed.collect(),
    )
    .await?;
    let ended = appends.iter().filter(|append| append.secrets == SecretFate::Destroyed);
    let mut owners: Vec<String> = ended.map(|append| append.row.id.to_string()).collect();
    owners.extend(appends.iter().flat_map(|append| append.destroyed.iter().cloned()));
    destroy_secrets(connection, &owners).await
}

/// Leaves letters, and the audit of those that are a person's acts. One under a known id changes nothing; one
/// for a saga that there is not is left out. Answers the sagas that exist.
pub(super) async fn post(connection: &mut SqliteConnection, letters: &[&Letter]) -> Done<HashSet<String>> {
    let mut rows = Vec::with_capacity(letters.len());
    let mut acts = Vec::new();
    for letter in letters {
        let message = serde_json::to_string(&letter.message).map_err(unreadable)?;
        rows.push(json!([letter.id, letter.saga, message, letter.at]));
        if let Message::Act { operation, act, actor, reason } = &letter.message {
            let act = serde_json::to_string(act).map_err(unreadable)?;
            acts.push(json!([operation, letter.saga, actor, act, reason, letter.at]));
        }
    }
    let known = spread_returning(
        connection,
        "select id from saga where id in (select value ->> 1 from json_each($1))",
        rows.clone(),
    )
    .await?;
    spread(
        connection,
        "insert into inbox (id, saga, number, message, posted_at)
         select j.value ->> 0, j.value ->> 1,
           (select coalesce(max(number), 0) from inbox where saga = j.value ->> 1) + 1 + j.key,
           j.value ->> 2, j.value ->> 3
         from json_each($1) j join saga on saga.id = j.value ->> 1 where true
         on conflict (id) do nothing",
        rows,
    )
    .await?;
    spread(
        connection,
        "insert into audit (id, saga, actor, act, reason, state_before, at, state_after, outcome)
         select j.value ->> 0, j.value ->> 1, j.value ->> 2, j.value ->> 3, j.value ->> 4, saga.state, j.value ->> 5,
           iif(saga.ended_at is null, null, saga.state), iif(saga.ended_at is null, null, 'too_late: it had ended')
         from json_each($1) j join saga on saga.id = j.value ->> 1 where true
         on conflict (id) do nothing",
        acts,
    )
    .await?;
    Ok(known)
}

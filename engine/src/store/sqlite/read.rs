//! Reading: rows of the engine's tables as the engine knows them, and the lists people page through.

use std::collections::{HashMap, HashSet};

use serde::de::DeserializeOwned;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Column, Row, SqliteConnection, SqlitePool, TypeInfo, ValueRef};

use crate::activity::Object;
use crate::env::Timestamp;
use crate::ids::{OperationId, ResourceId, SagaId, SecretRef, StepKey};
use crate::journal::{Entry, Event};
use crate::secret::Sealed;
use crate::store::lists::{self, Dialect, SagaRange, Statement};
use crate::store::page::page;
use crate::store::tx::{self, Param};
use crate::store::{
    AuditRow, Error, Fed, Letter, Loaded, Message, ResourceFilter, ResourceRow, SagaFilter, SagaRow,
};

fn json<T: DeserializeOwned>(row: &SqliteRow, column: &str) -> Result<T, sqlx::Error> {
    let text: String = row.try_get(column)?;
    serde_json::from_str(&text).map_err(|error| sqlx::Error::Decode(format!("{column}: {error}").into()))
}

/// What a letter says; of one that cannot be read, why.
fn message(row: &SqliteRow) -> Result<Message, sqlx::Error> {
    let text: String = row.try_get("message")?;
    Ok(serde_json::from_str(&text).unwrap_or_else(|error| Message::Unreadable { detail: error.to_string() }))
}

fn word<T: std::str::FromStr>(row: &SqliteRow, column: &str) -> Result<T, sqlx::Error> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(|_| sqlx::Error::Decode(format!("{column} is {text}").into()))
}

fn time(row: &SqliteRow, column: &str) -> Result<Timestamp, sqlx::Error> {
    row.try_get(column).map(Timestamp)
}

fn optional_time(row: &SqliteRow, column: &str) -> Result<Option<Timestamp>, sqlx::Error> {
    row.try_get::<Option<i64>, _>(column).map(|at| at.map(Timestamp))
}

fn saga_row(row: &SqliteRow) -> Result<SagaRow, sqlx::Error> {
    Ok(SagaRow {
        id: SagaId::stored(row.try_get::<String, _>("id")?),
        workflow: row.try_get("workflow")?,
        workflow_version: row.try_get("workflow_version")?,
        state: word(row, "state")?,
        attention: json(row, "attention")?,
        step: row.try_get("step")?,
        error: row.try_get("error")?,
        fingerprint: row.try_get("fingerprint")?,
        progress: row
            .try_get::<Option<String>, _>("progress")?
            .and_then(|text| serde_json::from_str(&text).ok()),
        parent: row.try_get::<Option<String>, _>("parent")?.map(SagaId::stored),
        labels: json(row, "labels")?,
        deadline_at: optional_time(row, "deadline_at")?,
        due_at: optional_time(row, "due_at")?,
        epoch: row.try_get("epoch")?,
        seq: row.try_get("seq")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
        ended_at: optional_time(row, "ended_at")?,
    })
}

fn resource_row(row: &SqliteRow) -> Result<ResourceRow, sqlx::Error> {
    Ok(ResourceRow {
        id: ResourceId::stored(row.try_get::<String, _>("id")?),
        provider: row.try_get("provider")?,
        kind: row.try_get("kind")?,
        name: row.try_get("name")?,
        external_id: row.try_get("external_id")?,
        state: word(row, "state")?,
        holder: row.try_get("holder")?,
        keeper: row.try_get("keeper")?,
        saga: SagaId::stored(row.try_get::<String, _>("saga")?),
        step: StepKey::stored(row.try_get::<String, _>("step")?),
        within: row.try_get::<Option<String>, _>("within")?.map(ResourceId::stored),
        rev: row.try_get("rev")?,
        intended_at: time(row, "intended_at")?,
        changed_at: time(row, "changed_at")?,
        unsettled_until: optional_time(row, "unsettled_until")?,
    })
}

pub(super) async fn saga(pool: &SqlitePool, saga: &SagaId) -> Result<Option<SagaRow>, sqlx::Error> {
    let row =
        sqlx::query("select * from saga where id = $1").bind(saga.as_str()).fetch_optional(pool).await?;
    row.as_ref().map(saga_row).transpose()
}

/// What is wrong with a value, without the driver's own preface.
fn about(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Decode(what) => what.to_string(),
        other => other.to_string(),
    }
}

fn entry(row: &SqliteRow) -> Result<Entry, sqlx::Error> {
    let seq: i64 = row.try_get("seq")?;
    let event: Event = json(row, "event")
        .map_err(|error| sqlx::Error::Decode(format!("line {seq}, {}", about(&error)).into()))?;
    Ok(Entry { seq, at: time(row, "at")?, epoch: row.try_get("epoch")?, event })
}

pub(super) async fn entries(pool: &SqlitePool, saga: &SagaId) -> Result<Vec<Entry>, sqlx::Error> {
    let rows = sqlx::query("select seq, at, epoch, event from journal where saga = $1 order by seq")
        .bind(saga.as_str())
        .fetch_all(pool)
        .await?;
    rows.iter().map(entry).collect()
}

/// What is known of each of these, in their order; a row that does not read is that saga's trouble alone.
pub(super) async fn loaded(
    pool: &SqlitePool,
    sagas: &[SagaId],
) -> Result<Vec<Result<Loaded, Error>>, sqlx::Error> {
    let ids = serde_json::json!(sagas).to_string();
    let mut read = pool.begin().await?;
    let rows: Vec<(String, i64, bool, bool)> = sqlx::query_as(
        "select saga.id, saga.epoch, concurrency_key is null or has_place = 1,
           exists (select 1 from inbox where inbox.saga = saga.id and consumed_at is null)
         from json_each($1) j join saga on saga.id = j.value",
    )
    .bind(&ids)
    .fetch_all(&mut *read)
    .await?;
    let lines = sqlx::query(
        "select journal.saga, seq, at, epoch, event from json_each($1) j join journal on journal.saga = j.value
         order by journal.saga, seq",
    )
    .bind(&ids)
    .fetch_all(&mut *read)
    .await?;
    read.commit().await?;
    let mut known: HashMap<String, Result<Loaded, Error>> = HashMap::with_capacity(rows.len());
    for (id, epoch, may_begin, has_mail) in rows {
        known.insert(id, Ok(Loaded { epoch, entries: Vec::new(), may_begin, has_mail }));
    }
    for line in &lines {
        let Some(place) = known.get_mut(line.try_get::<&str, _>("saga")?) else { continue };
        match (entry(line), &mut *place) {
            (Ok(entry), Ok(loaded)) => loaded.entries.push(entry),
            (Err(error), Ok(_)) => *place = Err(super::read_error(error)),
            (_, Err(_)) => {}
        }
    }
    let mut take =
        |saga: &SagaId| known.remove(saga.as_str()).unwrap_or_else(|| Err(Error::NoSuchSaga(saga.clone())));
    Ok(sagas.iter().map(&mut take).collect())
}

/// How many letters of a saga are not consumed; counted as far as `most`.
pub(super) async fn unread(pool: &SqlitePool, saga: &SagaId, most: u32) -> Result<u32, sqlx::Error> {
    let sql = "select count(*) from (select 1 from inbox where saga = $1 and consumed_at is null limit $2)";
    let count: i64 = sqlx::query_scalar(sql).bind(saga.as_str()).bind(most).fetch_one(pool).await?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

pub(super) async fn letters(
    pool: &SqlitePool,
    saga: &SagaId,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<Letter>, sqlx::Error> {
    let rows = sqlx::query(
        "select id, saga, message, posted_at from inbox where saga = $1 and consumed_at is null
           and number > coalesce((select number from inbox where id = $2), -1)
         order by number limit $3",
    )
    .bind(saga.as_str())
    .bind(after)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Letter {
                id: row.try_get("id")?,
                saga: SagaId::stored(row.try_get::<String, _>("saga")?),
                message: message(row)?,
                at: time(row, "posted_at")?,
            })
        })
        .collect()
}

fn listed(statement: Statement) -> sqlx::query::Query<'static, sqlx::Sqlite, SqliteArguments> {
    // Made of constants; what came from outside is among its values.
    let query = sqlx::query(sqlx::AssertSqlSafe(statement.sql));
    statement.params.into_iter().fold(query, sqlx::query::Query::bind)
}

/// The range by which a list is read: the first that is narrow, where there are several.
async fn saga_range(pool: &SqlitePool, filter: &SagaFilter) -> Result<SagaRange, sqlx::Error> {
    let ranges = lists::saga_ranges(filter);
    let first = ranges.first().copied().unwrap_or(SagaRange::All);
    if ranges.len() < 2 {
        return Ok(first);
    }
    for range in ranges {
        let count = listed(lists::count_sagas(Dialect::Sqlite, filter, range)).fetch_one(pool).await?;
        if count.try_get::<i64, _>("count")? <= lists::FEW {
            return Ok(range);
        }
    }
    Ok(first)
}

async fn sagas_statement(pool: &SqlitePool, filter: &SagaFilter) -> Result<Statement, sqlx::Error> {
    let range = saga_range(pool, filter).await?;
    Ok(lists::sagas(Dialect::Sqlite, filter, range, page(filter.limit)))
}

pub(super) async fn sagas(pool: &SqlitePool, filter: SagaFilter) -> Result<Vec<SagaRow>, sqlx::Error> {
    let rows = listed(sagas_statement(pool, &filter).await?).fetch_all(pool).await?;
    let rows = rows.iter().map(saga_row).collect::<Result<_, _>>()?;
    Ok(lists::in_order(rows, |row: &SagaRow| row.id.clone(), page(filter.limit)))
}

/// The rows of an object to which a lost call may still take effect behind this time: read by an index of their own.
async fn unsettled(
    pool: &SqlitePool,
    (object, now): (Object, Timestamp),
) -> Result<Vec<ResourceRow>, sqlx::Error> {
    let rows = sqlx::query(
        "select * from resource
         where unsettled_until > $4 and provider = $1 and kind = $2 and (name = $3 or external_id = $3)",
    )
    .bind(object.provider)
    .bind(object.kind)
    .bind(object.id)
    .bind(now.0)
    .fetch_all(pool)
    .await?;
    rows.iter().map(resource_row).collect()
}

pub(super) async fn resources(
    pool: &SqlitePool,
    filter: ResourceFilter,
) -> Result<Vec<ResourceRow>, sqlx::Error> {
    if let Some(of) = filter.unsettled {
        return unsettled(pool, of).await;
    }
    let limit = page(filter.limit);
    let rows = listed(lists::resources(Dialect::Sqlite, &filter, limit)).fetch_all(pool).await?;
    let rows = rows.iter().map(resource_row).collect::<Result<_, _>>()?;
    Ok(lists::in_order(rows, |row: &ResourceRow| row.id.clone(), limit))
}

/// How the database reads a page of a list: a line a step.
#[cfg(feature = "testing")]
pub(super) async fn explain(
    pool: &SqlitePool,
    sagas: Option<&SagaFilter>,
    resources: Option<&ResourceFilter>,
) -> Result<Vec<String>, sqlx::Error> {
    let mut lines = Vec::new();
    let mut statements = Vec::new();
    if let Some(filter) = sagas {
        statements.push(sagas_statement(pool, filter).await?);
    }
    statements.extend(resources.map(|filter| lists::resources(Dialect::Sqlite, filter, page(filter.limit))));
    for Statement { sql, params } in statements {
        let statement = Statement { sql: format!("explain query plan {sql}"), params };
        for row in listed(statement).fetch_all(pool).await? {
            lines.push(row.try_get("detail")?);
        }
    }
    Ok(lines)
}

/// The number of the last append.
pub(super) async fn feed_head(pool: &SqlitePool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("select coalesce(max(number), 0) from feed").fetch_one(pool).await
}

/// The rows of these sagas, in their order.
pub(super) async fn rows(pool: &SqlitePool, sagas: &[SagaId]) -> Result<Vec<Option<SagaRow>>, sqlx::Error> {
    let rows = sqlx::query("select saga.* from json_each($1) j join saga on saga.id = j.value")
        .bind(serde_json::json!(sagas).to_string())
        .fetch_all(pool)
        .await?;
    let mut known = HashMap::with_capacity(rows.len());
    for row in &rows {
        let row = saga_row(row)?;
        known.insert(row.id.clone(), row);
    }
    Ok(sagas.iter().map(|saga| known.get(saga).cloned()).collect())
}

pub(super) async fn secret(pool: &SqlitePool, reference: &SecretRef) -> Result<Option<Sealed>, sqlx::Error> {
    let row: Option<(String, Vec<u8>, i64)> =
        sqlx::query_as("select kind, sealed, created_at from secret where id = $1")
            .bind(reference.as_str())
            .fetch_optional(pool)
            .await?;
    Ok(row.map(|(kind, bytes, at)| Sealed { id: reference.clone(), kind, bytes, at: Timestamp(at) }))
}

pub(super) async fn feed(pool: &SqlitePool, after: i64, limit: u32) -> Result<Vec<Fed>, sqlx::Error> {
    let rows: Vec<(i64, String, i64, i64)> = sqlx::query_as(
        "select number, saga, first_seq, last_seq from feed where number > $1 order by number limit $2",
    )
    .bind(after)
    .bind(page(limit))
    .fetch_all(pool)
    .await?;
    let fed = |(number, saga, first_seq, last_seq): (i64, String, i64, i64)| Fed {
        number,
        saga: SagaId::stored(saga),
        first_seq,
        last_seq,
    };
    Ok(rows.into_iter().map(fed).collect())
}

/// The acts on a saga, oldest first.
pub(super) async fn audit(pool: &SqlitePool, saga: &SagaId) -> Result<Vec<AuditRow>, sqlx::Error> {
    let rows = sqlx::query("select * from audit where saga = $1 order by at, id")
        .bind(saga.as_str())
        .fetch_all(pool)
        .await?;
    rows.iter()
        .map(|row| {
            let after: Option<String> = row.try_get("state_after")?;
            Ok(AuditRow {
                operation: OperationId::stored(row.try_get::<String, _>("id")?),
                act: json(row, "act")?,
                actor: row.try_get("actor")?,
                reason: row.try_get("reason")?,
                at: time(row, "at")?,
                state_before: word(row, "state_before")?,
                state_after: after.map(|_| word(row, "state_after")).transpose()?,
                outcome: row.try_get("outcome")?,
            })
        })
        .collect()
}

/// A saga that may be taken up.
pub(super) struct Due {
    pub(super) saga: SagaId,
    /// It runs under a concurrency key, and has no place yet.
    pub(super) needs_place: bool,
    priority: i64,
    since: i64,
}

/// The first `limit` sagas that are due or have a letter: those of the highest priority, and of these the longest due,
/// first.
///
/// Each priority is read by itself, in the order of the index: what else is due, or sleeps, is not looked at.
pub(super) async fn due(pool: &SqlitePool, now: Timestamp, limit: usize) -> Result<Vec<Due>, sqlx::Error> {
    let many = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut read = pool.begin().await?;
    let mut due = with_mail(&mut read, many).await?;
    let mut level: Option<i64> = sqlx::query_scalar(HIGHEST).bind(i64::MAX).fetch_one(&mut *read).await?;
    let mut found = 0;
    while let Some(priority) = level.filter(|_| found < limit) {
        let rows: Vec<(String, bool, i64)> = sqlx::query_as(
            "select id, concurrency_key is not null and has_place = 0, claimable_at from saga
             where priority = $1 and claimable_at <= $2 order by claimable_at limit $3",
        )
        .bind(priority)
        .bind(now.0)
        .bind(many)
        .fetch_all(&mut *read)
        .await?;
        found += rows.len();
        due.extend(rows.into_iter().map(|(id, needs_place, since)| Due {
            saga: SagaId::stored(id),
            needs_place,
            priority,
            since,
        }));
        level = sqlx::query_scalar(HIGHEST).bind(priority).fetch_one(&mut *read).await?;
    }
    read.commit().await?;
    due.sort_by_key(|due| (-due.priority, due.since));
    // One that is due and has a letter is in here twice; that it needs a place is known of the one that is due.
    let places: HashSet<SagaId> =
        due.iter().filter(|due| due.needs_place).map(|due| due.saga.clone()).collect();
    let mut seen = HashSet::new();
    due.retain(|due| seen.insert(due.saga.clone()));
    due.iter_mut().for_each(|due| due.needs_place = places.contains(&due.saga));
    due.truncate(limit);
    Ok(due)
}

/// The highest priority below this one at which anything is claimable at some time.
const HIGHEST: &str = "select max(priority) from saga where claimable_at is not null and priority < $1";

async fn with_mail(read: &mut SqliteConnection, many: i64) -> Result<Vec<Due>, sqlx::Error> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "select distinct saga.id, saga.priority from inbox join saga on saga.id = inbox.saga
         where inbox.consumed_at is null and inbox.is_passed_over = 0 and saga.ended_at is null
           -- What has not begun reads only what may end it before it does.
           and (saga.state <> 'queued' or inbox.message ->> 'kind' in ('act', 'cancel'))
         order by saga.priority desc limit $1",
    )
    .bind(many)
    .fetch_all(read)
    .await?;
    let due =
        |(id, priority)| Due { saga: SagaId::stored(id), needs_place: false, priority, since: i64::MIN };
    Ok(rows.into_iter().map(due).collect())
}

/// Reads with user SQL.
pub(super) async fn fetch(
    pool: &SqlitePool,
    sql: &'static str,
    params: Vec<Param>,
) -> Result<Vec<tx::Row>, sqlx::Error> {
    let rows = bound(sql, params).fetch_all(pool).await?;
    rows.iter().map(read_row).collect()
}

fn bound(
    sql: &'static str,
    params: Vec<Param>,
) -> sqlx::query::Query<'static, sqlx::Sqlite, SqliteArguments> {
    params.into_iter().fold(sqlx::query(sql), |query, param| match param {
        Param::Text(text) => query.bind(text),
        Param::Int(number) => query.bind(number),
        Param::Real(number) => query.bind(number),
        Param::Blob(bytes) => query.bind(bytes),
        Param::Null => query.bind(None::<String>),
    })
}

fn read_row(row: &SqliteRow) -> Result<tx::Row, sqlx::Error> {
    let mut columns = Vec::with_capacity(row.len());
    for column in row.columns() {
        let place = column.ordinal();
        let raw = row.try_get_raw(place)?;
        let kind = raw.type_info().name().to_owned();
        let value = if raw.is_null() {
            Param::Null
        } else {
            match kind.as_str() {
                "TEXT" => Param::Text(row.try_get_unchecked(place)?),
                "REAL" => Param::Real(row.try_get_unchecked(place)?),
                "BLOB" => Param::Blob(row.try_get_unchecked(place)?),
                _ => Param::Int(row.try_get_unchecked(place)?),
            }
        };
        columns.push((column.name().to_owned(), value));
    }
    Ok(tx::Row(columns))
}

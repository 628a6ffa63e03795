//! Reading: rows of the engine's tables as the engine knows them, and the lists people page through.

use std::collections::HashMap;

use serde::de::DeserializeOwned;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Postgres, Row};

use super::reach::Reach;
use super::write::clean;
use crate::activity::Object;
use crate::env::Timestamp;
use crate::ids::{OperationId, ResourceId, SagaId, SecretRef, StepKey};
use crate::journal::state::SagaState;
use crate::journal::{Entry, Event};
use crate::secret::Sealed;
use crate::store::lists::{self, Dialect, SagaRange, Statement};
use crate::store::page::page;
use crate::store::{AuditRow, Letter, Message, ResourceFilter, ResourceRow, SagaFilter, SagaRow};

fn json<T: DeserializeOwned>(row: &PgRow, column: &str) -> Result<T, sqlx::Error> {
    let text: String = row.try_get(column)?;
    serde_json::from_str(&text).map_err(|error| sqlx::Error::Decode(format!("{column}: {error}").into()))
}

/// What a letter says; of one that cannot be read, why.
fn message(row: &PgRow) -> Result<Message, sqlx::Error> {
    let text: String = row.try_get("message")?;
    Ok(serde_json::from_str(&text).unwrap_or_else(|error| Message::Unreadable { detail: error.to_string() }))
}

fn word<T: std::str::FromStr>(row: &PgRow, column: &str) -> Result<T, sqlx::Error> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(|_| sqlx::Error::Decode(format!("{column} is {text}").into()))
}

fn time(row: &PgRow, column: &str) -> Result<Timestamp, sqlx::Error> {
    row.try_get(column).map(Timestamp)
}

fn optional_time(row: &PgRow, column: &str) -> Result<Option<Timestamp>, sqlx::Error> {
    row.try_get::<Option<i64>, _>(column).map(|at| at.map(Timestamp))
}

pub(super) fn saga_row(row: &PgRow) -> Result<SagaRow, sqlx::Error> {
    Ok(SagaRow {
        id: SagaId::stored(row.try_get::<String, _>("id")?),
        workflow: row.try_get("workflow")?,
        workflow_version: u32::try_from(row.try_get::<i64, _>("workflow_version")?).unwrap_or(u32::MAX),
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

pub(super) fn saga_state(row: &PgRow) -> Result<(SagaState, Vec<String>), sqlx::Error> {
    Ok((word(row, "state")?, json(row, "attention")?))
}

pub(super) fn resource_row(row: &PgRow) -> Result<ResourceRow, sqlx::Error> {
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

/// A saga's columns: what lists show, and its number and length from the lease.
macro_rules! saga_sql {
    ($rest:literal) => {
        concat!("select s.*, l.epoch, l.seq from saga s join saga_lease l on l.saga = s.id ", $rest)
    };
}

pub(super) async fn saga(reach: &Reach, saga: &SagaId) -> Result<Option<SagaRow>, sqlx::Error> {
    let query = reach.query(saga_sql!("where s.id = $1")).bind(saga.to_string());
    reach.fetch(query).await?.first().map(saga_row).transpose()
}

pub(super) async fn output(reach: &Reach, saga: &SagaId) -> Result<Option<String>, sqlx::Error> {
    let query = reach.query("select output from saga where id = $1").bind(saga.to_string());
    Ok(reach.fetch(query).await?.first().map(|row| row.try_get("output")).transpose()?.flatten())
}

pub(super) async fn entries(reach: &Reach, saga: &SagaId) -> Result<Vec<Entry>, sqlx::Error> {
    let query = reach
        .query("select seq, at, epoch, event from journal where saga = $1 order by seq")
        .bind(saga.to_string());
    reach.fetch(query).await?.iter().map(entry).collect()
}

/// The journals of these sagas; a line that cannot be read fails its own alone.
pub(super) async fn journals(
    reach: &Reach,
    sagas: &[SagaId],
) -> Result<HashMap<String, Result<Vec<Entry>, sqlx::Error>>, sqlx::Error> {
    let query = reach
        .query(
            "select saga, seq, at, epoch, event from journal where saga = any ($1::text[]) order by saga, seq",
        )
        .bind(sagas.iter().map(ToString::to_string).collect::<Vec<_>>());
    let mut journals: HashMap<String, Result<Vec<Entry>, sqlx::Error>> = HashMap::new();
    for row in &reach.fetch(query).await? {
        let journal = journals.entry(row.try_get("saga")?).or_insert_with(|| Ok(Vec::new()));
        if let Ok(entries) = journal {
            match entry(row) {
                Ok(entry) => entries.push(entry),
                Err(error) => *journal = Err(error),
            }
        }
    }
    Ok(journals)
}

fn entry(row: &PgRow) -> Result<Entry, sqlx::Error> {
    let event: Event = json(row, "event")?;
    Ok(Entry { seq: row.try_get("seq")?, at: time(row, "at")?, epoch: row.try_get("epoch")?, event })
}

/// How many letters of a saga are not consumed; counted as far as `most`.
pub(super) async fn unread(reach: &Reach, saga: &SagaId, most: u32) -> Result<u32, sqlx::Error> {
    let sql = "select count(*) as count from
        (select 1 from inbox where saga = $1 and consumed_at is null limit $2) as unread";
    let rows = reach.fetch(reach.query(sql).bind(saga.to_string()).bind(i64::from(most))).await?;
    let count = rows.first().map_or(Ok(0), |row| row.try_get::<i64, _>("count"))?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

pub(super) async fn letters(
    reach: &Reach,
    saga: &SagaId,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<Letter>, sqlx::Error> {
    let query = match after {
        None => reach
            .query(
                "select id, saga, message, posted_at from inbox where saga = $1 and consumed_at is null
                 order by arrived, number, id limit $2",
            )
            .bind(saga.to_string())
            .bind(i64::from(limit)),
        // An arrival is a time of the server: two may have the same.
        Some(after) => reach
            .query(
                "select id, saga, message, posted_at from inbox where saga = $1 and consumed_at is null
                   and (arrived, number, id) > (select arrived, number, id from inbox where id = $3)
                 order by arrived, number, id limit $2",
            )
            .bind(saga.to_string())
            .bind(i64::from(limit))
            .bind(clean(after).into_owned()),
    };
    let rows = reach.fetch(query).await?;
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

fn listed(reach: &Reach, statement: Statement) -> Query<'static, Postgres, PgArguments> {
    // Made of constants; what came from outside is among its values.
    let query = sqlx::query(sqlx::AssertSqlSafe(statement.sql)).persistent(!reach.is_pooled);
    statement.params.into_iter().fold(query, |query, text| query.bind(clean(&text).into_owned()))
}

/// The range by which a list is read: the first that is narrow, where there are several.
async fn saga_range(reach: &Reach, filter: &SagaFilter) -> Result<SagaRange, sqlx::Error> {
    let ranges = lists::saga_ranges(filter);
    let first = ranges.first().copied().unwrap_or(SagaRange::All);
    if ranges.len() < 2 {
        return Ok(first);
    }
    for range in ranges {
        let query = listed(reach, lists::count_sagas(Dialect::Postgres, filter, range));
        let rows = reach.fetch(query).await?;
        let count = rows.first().map_or(Ok(0), |row| row.try_get::<i64, _>("count"))?;
        if count <= lists::FEW {
            return Ok(range);
        }
    }
    Ok(first)
}

async fn sagas_statement(reach: &Reach, filter: &SagaFilter) -> Result<Statement, sqlx::Error> {
    let range = saga_range(reach, filter).await?;
    Ok(lists::sagas(Dialect::Postgres, filter, range, page(filter.limit)))
}

pub(super) async fn sagas(reach: &Reach, filter: SagaFilter) -> Result<Vec<SagaRow>, sqlx::Error> {
    let rows = reach.fetch(listed(reach, sagas_statement(reach, &filter).await?)).await?;
    let rows = rows.iter().map(saga_row).collect::<Result<_, _>>()?;
    Ok(lists::in_order(rows, |row: &SagaRow| row.id.clone(), page(filter.limit)))
}

/// The rows of an object to which a lost call may still take effect behind this time: read by an index of their own.
async fn unsettled(
    reach: &Reach,
    (object, now): (Object, Timestamp),
) -> Result<Vec<ResourceRow>, sqlx::Error> {
    let query = reach
        .query(
            "select * from resource
             where unsettled_until > $4 and provider = $1 and kind = $2 and (name = $3 or external_id = $3)",
        )
        .bind(clean(&object.provider).into_owned())
        .bind(clean(&object.kind).into_owned())
        .bind(clean(&object.id).into_owned())
        .bind(now.0);
    reach.fetch(query).await?.iter().map(resource_row).collect()
}

pub(super) async fn resources(
    reach: &Reach,
    filter: ResourceFilter,
) -> Result<Vec<ResourceRow>, sqlx::Error> {
    if let Some(of) = filter.unsettled {
        return unsettled(reach, of).await;
    }
    let limit = page(filter.limit);
    let rows = reach.fetch(listed(reach, lists::resources(Dialect::Postgres, &filter, limit))).await?;
    let rows = rows.iter().map(resource_row).collect::<Result<_, _>>()?;
    Ok(lists::in_order(rows, |row: &ResourceRow| row.id.clone(), limit))
}

/// How the database reads a page of a list: a line a step.
#[cfg(feature = "testing")]
pub(super) async fn explain(
    reach: &Reach,
    sagas: Option<&SagaFilter>,
    resources: Option<&ResourceFilter>,
) -> Result<Vec<String>, sqlx::Error> {
    let mut lines = Vec::new();
    let mut statements = Vec::new();
    if let Some(filter) = sagas {
        statements.push(sagas_statement(reach, filter).await?);
    }
    statements
        .extend(resources.map(|filter| lists::resources(Dialect::Postgres, filter, page(filter.limit))));
    let mut connection = reach.pool.acquire().await?;
    for Statement { sql, params } in statements {
        // As it is run: prepared, with one plan for all values.
        let values: Vec<String> =
            params.iter().map(|text| format!("'{}'", text.replace('\'', "''"))).collect();
        let values = if values.is_empty() { String::new() } else { format!("({})", values.join(", ")) };
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("prepare explained as {sql}")))
            .execute(&mut *connection)
            .await?;
        let explain = sqlx::AssertSqlSafe(format!("explain execute explained{values}"));
        for row in sqlx::raw_sql(explain).fetch_all(&mut *connection).await? {
            lines.push(row.try_get(0)?);
        }
        sqlx::raw_sql("deallocate explained").execute(&mut *connection).await?;
    }
    Ok(lines)
}

/// The number of the last append that has one.
pub(super) async fn feed_head(reach: &Reach) -> Result<i64, sqlx::Error> {
    let rows = reach.fetch(reach.query("select last from feed_head")).await?;
    rows.first().map_or(Ok(0), |row| row.try_get("last"))
}

/// The rows of these sagas, in their order.
pub(super) async fn rows(reach: &Reach, sagas: &[SagaId]) -> Result<Vec<Option<SagaRow>>, sqlx::Error> {
    let ids: Vec<String> = sagas.iter().map(ToString::to_string).collect();
    let query = reach.query(saga_sql!("where s.id = any ($1::text[])")).bind(ids);
    let mut known = HashMap::with_capacity(sagas.len());
    for row in &reach.fetch(query).await? {
        let row = saga_row(row)?;
        known.insert(row.id.clone(), row);
    }
    Ok(sagas.iter().map(|saga| known.get(saga).cloned()).collect())
}

pub(super) async fn secret(reach: &Reach, reference: &SecretRef) -> Result<Option<Sealed>, sqlx::Error> {
    let query = reach
        .query("select kind, sealed, created_at from secret where id = $1")
        .bind(reference.as_str().to_owned());
    let rows = reach.fetch(query).await?;
    let sealed = |row: &PgRow| {
        Ok(Sealed {
            id: reference.clone(),
            kind: row.try_get("kind")?,
            bytes: row.try_get("sealed")?,
            at: time(row, "created_at")?,
        })
    };
    rows.first().map(sealed).transpose()
}

/// The acts on a saga, oldest first.
pub(super) async fn audit(reach: &Reach, saga: &SagaId) -> Result<Vec<AuditRow>, sqlx::Error> {
    let query = reach.query("select * from audit where saga = $1 order by at, id").bind(saga.to_string());
    let rows = reach.fetch(query).await?;
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

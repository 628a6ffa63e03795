//! Reading: rows of the engine's tables as the engine knows them, and the lists people page through.

use std::collections::HashMap;

use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::reach::Reach;
use super::write::clean;
use crate::env::Timestamp;
use crate::ids::{OperationId, ResourceId, SagaId, SecretRef, StepKey};
use crate::journal::state::SagaState;
use crate::journal::{Entry, Event};
use crate::secret::Sealed;
use crate::store::page::page;
use crate::store::{AuditRow, Letter, ResourceFilter, ResourceRow, SagaFilter, SagaRow};

fn json<T: DeserializeOwned>(row: &PgRow, column: &str) -> Result<T, sqlx::Error> {
    let text: String = row.try_get(column)?;
    serde_json::from_str(&text).map_err(|error| sqlx::Error::Decode(format!("{column}: {error}").into()))
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
        step: StepKey::new(row.try_get::<String, _>("step")?),
        within: row.try_get::<Option<String>, _>("within")?.map(ResourceId::stored),
        rev: row.try_get("rev")?,
        intended_at: time(row, "intended_at")?,
        changed_at: time(row, "changed_at")?,
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

pub(super) async fn letters(reach: &Reach, saga: &SagaId) -> Result<Vec<Letter>, sqlx::Error> {
    let query = reach
        .query(
            "select id, saga, message, posted_at from inbox where saga = $1 and consumed_at is null
             order by arrived, number, id",
        )
        .bind(saga.to_string());
    let rows = reach.fetch(query).await?;
    rows.iter()
        .map(|row| {
            Ok(Letter {
                id: row.try_get("id")?,
                saga: SagaId::stored(row.try_get::<String, _>("saga")?),
                message: json(row, "message")?,
                at: time(row, "posted_at")?,
            })
        })
        .collect()
}

pub(super) async fn sagas(reach: &Reach, filter: SagaFilter) -> Result<Vec<SagaRow>, sqlx::Error> {
    let states: Vec<&str> = filter.states.iter().map(Into::into).collect();
    let (label, value) = filter.label.unzip();
    let clean = |text: Option<String>| text.map(|text| clean(&text).into_owned());
    let query = reach
        .query(saga_sql!(
            "where (cardinality($1::text[]) = 0 or s.state = any ($1::text[]))
               and (not $2::boolean or s.attention <> '[]')
               and ($3::text is null or s.workflow = $3::text)
               and ($4::text is null or s.labels::jsonb @> jsonb_build_object($4::text, $5::text))
               and ($6::text is null or s.id < $6::text)
               and ($8::text is null or s.fingerprint = $8::text)
               and ($9::text is null or s.parent = $9::text)
             order by s.id desc limit $7"
        ))
        .bind(states)
        .bind(filter.attention)
        .bind(clean(filter.workflow))
        .bind(clean(label))
        .bind(clean(value))
        .bind(filter.before.map(|id| id.to_string()))
        .bind(i64::from(page(filter.limit)))
        .bind(clean(filter.fingerprint))
        .bind(filter.parent.map(|id| id.to_string()));
    reach.fetch(query).await?.iter().map(saga_row).collect()
}

pub(super) async fn resources(
    reach: &Reach,
    filter: ResourceFilter,
) -> Result<Vec<ResourceRow>, sqlx::Error> {
    let states: Vec<&str> = filter.states.iter().map(Into::into).collect();
    let clean = |text: Option<String>| text.map(|text| clean(&text).into_owned());
    let query = reach
        .query(
            "select * from resource
             where (cardinality($1::text[]) = 0 or state = any ($1::text[]))
               and ($2::text is null or holder = $2::text or saga = $2::text)
               and ($3::text is null or provider = $3::text)
               and ($4::text is null or id < $4::text)
             order by id desc limit $5",
        )
        .bind(states)
        .bind(clean(filter.holder))
        .bind(clean(filter.provider))
        .bind(filter.before.map(|id| id.to_string()))
        .bind(i64::from(page(filter.limit)));
    reach.fetch(query).await?.iter().map(resource_row).collect()
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

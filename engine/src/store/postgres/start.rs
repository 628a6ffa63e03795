//! Starting: new sagas, many in one statement, and those whose key was taken.

use std::collections::HashMap;

use sqlx::{PgConnection, Row};

use super::reach::Reach;
use super::write::{clean, json, labels_json};
use super::{beside, place};
use crate::ids::SagaId;
use crate::journal::SCHEMA_VERSION;
use crate::store::limits::LABEL_INDEXED_MAX;
use crate::store::{Error, NewSaga, Started};

/// Whether a saga's start is more than one statement.
pub(super) fn has_more(new: &NewSaga) -> bool {
    new.concurrency.is_some() || !new.sealed.is_empty()
}

/// Starts sagas in this transaction, each held by its worker if that is one; a key that is taken starts nothing. What
/// each came to, and whether it is held.
pub(super) async fn start(
    reach: &Reach,
    connection: &mut PgConnection,
    new: &[(&NewSaga, Option<&str>)],
) -> Result<Vec<(Started, bool)>, sqlx::Error> {
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let fresh = insert(reach, connection, new).await?;
    let new: Vec<&NewSaga> = new.iter().map(|(saga, _)| *saga).collect();
    let is_fresh = |saga: &&&NewSaga| fresh.contains_key(saga.id.as_str());
    // One by one: each takes the place that the next one then finds taken.
    for saga in new.iter().filter(is_fresh).filter(|saga| saga.start_at.is_none()) {
        if let Some(bound) = &saga.concurrency {
            place::try_take(reach, connection, &saga.id, &clean(&bound.key)).await?;
        }
    }
    let sealed = new.iter().filter(is_fresh);
    let sealed = sealed.flat_map(|saga| saga.sealed.iter().map(|sealed| (saga.id.to_string(), sealed)));
    beside::write_secrets(reach, connection, sealed.collect()).await?;
    let known =
        if fresh.len() == new.len() { HashMap::new() } else { known(reach, connection, &new).await? };
    let answer = |saga: &&NewSaga| {
        if let Some(is_held) = fresh.get(saga.id.as_str()) {
            return Ok((Started::New(saga.id.clone()), *is_held));
        }
        let (id, fingerprint) = known.get(&*clean(&saga.key)).ok_or(sqlx::Error::RowNotFound)?;
        let same = *fingerprint == saga.fingerprint();
        Ok((if same { Started::Before(id.clone()) } else { Started::KeyReused(id.clone()) }, false))
    };
    new.iter().map(answer).collect()
}

/// Those whose key was free, and whether they are held.
async fn insert(
    reach: &Reach,
    connection: &mut PgConnection,
    new: &[(&NewSaga, Option<&str>)],
) -> Result<HashMap<String, bool>, sqlx::Error> {
    let encode = |error: Error| sqlx::Error::Encode(error.to_string().into());
    // In the order of their keys, so that two processes do not wait for each other.
    let mut new = new.to_vec();
    new.sort_by(|(one, _), (other, _)| one.key.cmp(&other.key));
    let (new, holders): (Vec<&NewSaga>, Vec<Option<&str>>) = new.into_iter().unzip();
    let mut labels = Vec::with_capacity(new.len());
    let mut events = Vec::with_capacity(new.len());
    let mut kinds = Vec::with_capacity(new.len());
    for saga in &new {
        let started = saga.started();
        labels.push(labels_json(&saga.labels).map_err(encode)?);
        kinds.push(started.name().to_string());
        events.push(json(&started).map_err(encode)?);
    }
    let text = |value: fn(&NewSaga) -> &str| {
        new.iter().map(|saga| clean(value(saga)).into_owned()).collect::<Vec<String>>()
    };
    let rows = reach
        .query(
            "with new as materialized (
               select * from unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[],
                 $7::text[], $8::bigint[], $9::bigint[], $10::bigint[], $11::text[], $12::bigint[], $13::bigint[],
                 $14::text[], $15::text[], $16::text[])
               as new (id, workflow, version, labels, key, fingerprint, parent, deadline_at, due_at, at,
                 concurrency_key, concurrency_limit, priority, kind, event, holder)
             ), fresh as (
               insert into saga (id, workflow, workflow_version, state, labels, start_key, start_fingerprint, parent,
                 deadline_at, due_at, concurrency_key, concurrency_limit, created_at, updated_at)
               select id, workflow, version, 'queued', labels, key, fingerprint, parent, deadline_at, due_at,
                 concurrency_key, concurrency_limit, at, at
               from new
               on conflict (start_key) do nothing
               returning id
             ), lease as (
               insert into saga_lease (saga, epoch, seq, due_at, priority, needs_place, holder)
               select id, 1, 1, due_at, priority, concurrency_key is not null,
                 (select worker.id from worker where worker.id = new.holder)
               from new join fresh using (id)
               returning saga, holder
             ), line as (
               insert into journal (saga, seq, at, epoch, version, kind, event)
               select id, 1, at, 1, $17, kind, event from new join fresh using (id)
             ), label as (
               insert into saga_label (saga, name, value)
               select id, l.key, l.value from new join fresh using (id), json_each_text(new.labels::json) l
               where octet_length(l.key) + octet_length(l.value) <= $18
             ), unnumbered as (
               insert into outbox (saga, first_seq, last_seq) select id, 1, 1 from fresh
             )
             select saga, holder is not null as is_held from lease",
        )
        .bind(new.iter().map(|saga| saga.id.to_string()).collect::<Vec<_>>())
        .bind(text(|saga| &saga.workflow))
        .bind(new.iter().map(|saga| i64::from(saga.workflow_version)).collect::<Vec<_>>())
        .bind(labels)
        .bind(text(|saga| &saga.key))
        .bind(new.iter().map(|saga| saga.fingerprint()).collect::<Vec<_>>())
        .bind(new.iter().map(|saga| saga.parent.as_ref().map(|p| p.saga.to_string())).collect::<Vec<_>>())
        .bind(new.iter().map(|saga| saga.deadline_at.map(|at| at.0)).collect::<Vec<_>>())
        .bind(new.iter().map(|saga| saga.start_at.unwrap_or(saga.at).0).collect::<Vec<_>>())
        .bind(new.iter().map(|saga| saga.at.0).collect::<Vec<_>>())
        .bind(
            new.iter()
                .map(|saga| saga.concurrency.as_ref().map(|bound| clean(&bound.key).into_owned()))
                .collect::<Vec<_>>(),
        )
        .bind(
            new.iter()
                .map(|saga| saga.concurrency.as_ref().map(|bound| i64::from(bound.limit)))
                .collect::<Vec<_>>(),
        )
        .bind(new.iter().map(|saga| i64::from(saga.priority)).collect::<Vec<_>>())
        .bind(kinds)
        .bind(events)
        .bind(holders)
        .bind(SCHEMA_VERSION)
        .bind(i32::try_from(LABEL_INDEXED_MAX).unwrap_or(i32::MAX))
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| Ok((row.try_get("saga")?, row.try_get("is_held")?))).collect()
}

/// Under which sagas these keys were used before.
async fn known(
    reach: &Reach,
    connection: &mut PgConnection,
    new: &[&NewSaga],
) -> Result<HashMap<String, (SagaId, String)>, sqlx::Error> {
    let rows = reach
        .query("select start_key, id, start_fingerprint from saga where start_key = any ($1::text[])")
        .bind(new.iter().map(|saga| clean(&saga.key).into_owned()).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| {
            let id = SagaId::stored(row.try_get::<String, _>("id")?);
            Ok((row.try_get("start_key")?, (id, row.try_get("start_fingerprint")?)))
        })
        .collect()
}

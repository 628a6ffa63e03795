//! Gates in Postgres: their rows, and those of the steps that wait there.

use std::collections::BTreeMap;

use sqlx::{PgConnection, Row};

use super::beside;
use super::reach::Reach;
use super::write::{clean, json};
use crate::env::Timestamp;
use crate::gate::{GateState, GateWait, Lane};
use crate::ids::{SagaId, StepKey};
use crate::store::{Append, Error, GateMove, GateRow, Letter};

/// What turns say of gates: closings, and which steps of their sagas wait.
pub(super) async fn append(
    reach: &Reach,
    connection: &mut PgConnection,
    appends: &[&Append],
) -> Result<(), sqlx::Error> {
    close(reach, connection, appends).await?;
    wait(reach, connection, appends).await
}

async fn close(reach: &Reach, connection: &mut PgConnection, appends: &[&Append]) -> Result<(), sqlx::Error> {
    let mut latest: BTreeMap<String, (Timestamp, &str)> = BTreeMap::new();
    for closing in appends.iter().flat_map(|append| &append.closings) {
        let told = (closing.until, closing.reason.as_str());
        let known = latest.entry(clean(&closing.key).into_owned()).or_insert(told);
        if known.0 < closing.until {
            *known = told;
        }
    }
    if latest.is_empty() {
        return Ok(());
    }
    let reasons: Vec<String> = latest.values().map(|(_, reason)| clean(reason).into_owned()).collect();
    let until: Vec<i64> = latest.values().map(|(until, _)| until.0).collect();
    // In the order of their keys, so that two groups do not wait for each other.
    reach
        .query(
            "insert into gate (key, rev, closed_until, closed_for)
             select key, 1, until, reason from unnest($1::text[], $2::bigint[], $3::text[]) as c (key, until, reason)
             on conflict (key) do update set rev = gate.rev + 1,
               closed_for = case when gate.closed_until >= excluded.closed_until then gate.closed_for
                 else excluded.closed_for end,
               closed_until = greatest(gate.closed_until, excluded.closed_until)",
        )
        .bind(latest.into_keys().collect::<Vec<_>>())
        .bind(until)
        .bind(reasons)
        .execute(connection)
        .await?;
    Ok(())
}

async fn wait(reach: &Reach, connection: &mut PgConnection, appends: &[&Append]) -> Result<(), sqlx::Error> {
    let changed = || appends.iter().filter(|append| append.waits.is_some());
    let sagas: Vec<String> = changed().map(|append| append.row.id.to_string()).collect();
    if sagas.is_empty() {
        return Ok(());
    }
    let mut waits: Vec<&GateWait> = changed().filter_map(|append| append.waits.as_ref()).flatten().collect();
    waits.sort_by_key(|wait| (&wait.saga, &wait.step));
    let holders: Vec<String> = waits.iter().map(|wait| wait.saga.to_string()).collect();
    let steps: Vec<String> = waits.iter().map(|wait| clean(wait.step.as_str()).into_owned()).collect();
    reach
        .query(
            "delete from gate_waiter where saga = any ($1::text[])
               and (saga, step) not in (select * from unnest($2::text[], $3::text[]))",
        )
        .bind(sagas)
        .bind(holders.clone())
        .bind(steps.clone())
        .execute(&mut *connection)
        .await?;
    if waits.is_empty() {
        return Ok(());
    }
    reach
        .query(
            "insert into gate_waiter (saga, step, gate, lane, since)
             select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[])
             on conflict (saga, step) do update set gate = excluded.gate, lane = excluded.lane,
               since = excluded.since,
               let_go_at = case when gate_waiter.gate = excluded.gate and gate_waiter.since = excluded.since
                 then gate_waiter.let_go_at end",
        )
        .bind(holders)
        .bind(steps)
        .bind(waits.iter().map(|wait| clean(&wait.gate).into_owned()).collect::<Vec<_>>())
        .bind(waits.iter().map(|wait| <&str>::from(wait.lane)).collect::<Vec<_>>())
        .bind(waits.iter().map(|wait| wait.since.0).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

/// Moves a gate if it is as it was seen; says whether it was.
pub(super) async fn move_gate(reach: &Reach, moved: &GateMove) -> Result<bool, sqlx::Error> {
    let encode = |error: Error| sqlx::Error::Encode(error.to_string().into());
    let state = json(&moved.state).map_err(encode)?;
    let key = clean(&moved.key).into_owned();
    let mut transaction = reach.begin().await?;
    let query = if moved.seen == 0 {
        reach.query(
            "insert into gate (key, rev, state) select $1, $2 + 1, $3 where $2 = 0 on conflict (key) do nothing",
        )
    } else {
        reach.query(
            "update gate set rev = rev + 1, state = $3, closed_until = null, closed_for = null
             where key = $1 and rev = $2",
        )
    };
    let query = query.bind(key.clone()).bind(moved.seen).bind(state);
    if query.execute(&mut *transaction).await?.rows_affected() == 0 {
        return Ok(false);
    }
    if !moved.let_go.is_empty() {
        let mut let_go: Vec<&GateWait> = moved.let_go.iter().collect();
        let_go.sort_by_key(|wait| (&wait.saga, &wait.step));
        reach
            .query(
                "update gate_waiter set let_go_at = $4
                 from unnest($2::text[], $3::text[]) as l (saga, step)
                 where gate_waiter.saga = l.saga and gate_waiter.step = l.step and gate_waiter.gate = $1",
            )
            .bind(key)
            .bind(let_go.iter().map(|wait| wait.saga.to_string()).collect::<Vec<_>>())
            .bind(let_go.iter().map(|wait| clean(wait.step.as_str()).into_owned()).collect::<Vec<_>>())
            .bind(moved.at.0)
            .execute(&mut *transaction)
            .await?;
    }
    let letters: Vec<&Letter> = moved.letters.iter().collect();
    beside::post(reach, &mut transaction, &letters).await?;
    transaction.commit().await?;
    Ok(true)
}

/// Every gate, with those who stand before it counted.
pub(super) async fn all(reach: &Reach, granted_since: Timestamp) -> Result<Vec<GateRow>, sqlx::Error> {
    let mut gates = BTreeMap::new();
    let rows = reach.fetch(reach.query("select key, rev, closed_until, closed_for, state from gate")).await?;
    for row in rows {
        let (key, rev): (String, i64) = (row.try_get("key")?, row.try_get("rev")?);
        let until: Option<i64> = row.try_get("closed_until")?;
        let reason: Option<String> = row.try_get("closed_for")?;
        let closing = until.map(|until| (Timestamp(until), reason.unwrap_or_default()));
        let state: String = row.try_get("state")?;
        // It is this gate's trouble alone.
        let state = serde_json::from_str(&state).unwrap_or_else(|error| GateState::unreadable(&error));
        gates.insert(key.clone(), GateRow { key, rev, closing, state, ..GateRow::default() });
    }
    let counts = reach.query(
        "select gate, lane, count(*) as everybody, count(*) filter (where let_go_at > $1) as granted
         from gate_waiter group by gate, lane",
    );
    for row in reach.fetch(counts.bind(granted_since.0)).await? {
        let (key, lane): (String, String) = (row.try_get("gate")?, row.try_get("lane")?);
        let (all, granted): (i64, i64) = (row.try_get("everybody")?, row.try_get("granted")?);
        let queue =
            &mut gates.entry(key.clone()).or_insert_with(|| GateRow { key, ..GateRow::default() }).queue;
        let count = |count: i64| u32::try_from(count).unwrap_or(u32::MAX);
        queue.granted = queue.granted.saturating_add(count(granted));
        match lane.parse() {
            Ok(Lane::Undo) => queue.undo = count(all - granted),
            _ => queue.forward = count(all - granted),
        }
    }
    Ok(gates.into_values().collect())
}

/// Who is next.
pub(super) async fn queue(
    reach: &Reach,
    key: &str,
    lane: Lane,
    granted_since: Timestamp,
    limit: u32,
) -> Result<Vec<GateWait>, sqlx::Error> {
    let query = reach
        .query(
            "select saga, step, since from gate_waiter
             where gate = $1 and lane = $2 and (let_go_at is null or let_go_at <= $3)
             order by since, saga, step limit $4",
        )
        .bind(clean(key).into_owned())
        .bind(<&str>::from(lane))
        .bind(granted_since.0)
        .bind(i64::from(limit));
    let rows = reach.fetch(query).await?;
    rows.iter()
        .map(|row| {
            Ok(GateWait {
                gate: key.to_owned(),
                saga: SagaId::stored(row.try_get::<String, _>("saga")?),
                step: StepKey::stored(row.try_get::<String, _>("step")?),
                lane,
                since: Timestamp(row.try_get("since")?),
            })
        })
        .collect()
}

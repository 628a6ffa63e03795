//! Gates in SQLite: their rows, and those of the steps that wait there.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use sqlx::{Row, SqlitePool};

use super::write::{Done, json, post, run};
use crate::env::Timestamp;
use crate::gate::{GateState, GateWait, Lane};
use crate::ids::{SagaId, StepKey};
use crate::store::{Append, GateMove, GateRow};

/// What an append says of gates: closings, and which steps of its saga wait.
pub(super) fn append(connection: &Connection, append: &Append) -> Done<()> {
    for closing in &append.closings {
        run(
            connection,
            "insert into gate (key, rev, closed_until, closed_for) values (?1, 1, ?2, ?3)
             on conflict (key) do update set rev = rev + 1,
               closed_for = iif(closed_until >= excluded.closed_until, closed_for, excluded.closed_for),
               closed_until = max(coalesce(closed_until, excluded.closed_until), excluded.closed_until)",
            params![closing.key, closing.until.0, closing.reason],
        )?;
    }
    let Some(waits) = &append.waits else { return Ok(()) };
    let saga = append.row.id.as_str();
    let steps: Vec<&str> = waits.iter().map(|wait| wait.step.as_str()).collect();
    run(
        connection,
        "delete from gate_waiter where saga = ?1 and step not in (select value from json_each(?2))",
        params![saga, json(&steps)?],
    )?;
    for wait in waits {
        run(
            connection,
            "insert into gate_waiter (saga, step, gate, lane, since) values (?1, ?2, ?3, ?4, ?5)
             on conflict (saga, step) do update set gate = excluded.gate, lane = excluded.lane,
               since = excluded.since,
               let_go_at = iif(gate = excluded.gate and since = excluded.since, let_go_at, null)",
            params![saga, wait.step.as_str(), wait.gate, <&str>::from(wait.lane), wait.since.0],
        )?;
    }
    Ok(())
}

/// Moves a gate if it is as it was seen; says whether it was.
pub(super) fn move_gate(connection: &Connection, moved: &GateMove) -> Done<bool> {
    let GateMove { key, seen, state, let_go, letters, at } = moved;
    let state = json(state)?;
    let changed = if *seen == 0 {
        let sql = "insert into gate (key, rev, state) values (?1, 1, ?2) on conflict (key) do nothing";
        run(connection, sql, params![key, state])?
    } else {
        run(
            connection,
            "update gate set rev = rev + 1, state = ?3, closed_until = null, closed_for = null
             where key = ?1 and rev = ?2",
            params![key, seen, state],
        )?
    };
    if changed == 0 {
        return Ok(false);
    }
    for wait in let_go {
        run(
            connection,
            "update gate_waiter set let_go_at = ?4 where saga = ?1 and step = ?2 and gate = ?3",
            params![wait.saga.as_str(), wait.step.as_str(), key, at.0],
        )?;
    }
    for letter in letters {
        post(connection, letter)?;
    }
    Ok(true)
}

/// Every gate, with those who stand before it counted.
pub(super) async fn all(pool: &SqlitePool, granted_since: Timestamp) -> Result<Vec<GateRow>, sqlx::Error> {
    let mut rows = BTreeMap::new();
    let gates =
        sqlx::query("select key, rev, closed_until, closed_for, state from gate").fetch_all(pool).await?;
    for row in gates {
        let (key, rev): (String, i64) = (row.try_get("key")?, row.try_get("rev")?);
        let until: Option<i64> = row.try_get("closed_until")?;
        let reason: Option<String> = row.try_get("closed_for")?;
        let closing = until.map(|until| (Timestamp(until), reason.unwrap_or_default()));
        let state: String = row.try_get("state")?;
        // It is this gate's trouble alone.
        let state = serde_json::from_str(&state).unwrap_or_else(|error| GateState::unreadable(&error));
        rows.insert(key.clone(), GateRow { key, rev, closing, state, ..GateRow::default() });
    }
    let counts: Vec<(String, String, i64, i64)> = sqlx::query_as(
        "select gate, lane, count(*), coalesce(sum(let_go_at > $1), 0) from gate_waiter group by gate, lane",
    )
    .bind(granted_since.0)
    .fetch_all(pool)
    .await?;
    for (key, lane, all, granted) in counts {
        let queue =
            &mut rows.entry(key.clone()).or_insert_with(|| GateRow { key, ..GateRow::default() }).queue;
        let count = |count: i64| u32::try_from(count).unwrap_or(u32::MAX);
        queue.granted = queue.granted.saturating_add(count(granted));
        match lane.parse() {
            Ok(Lane::Undo) => queue.undo = count(all - granted),
            _ => queue.forward = count(all - granted),
        }
    }
    Ok(rows.into_values().collect())
}

/// Who is next.
pub(super) async fn queue(
    pool: &SqlitePool,
    key: &str,
    lane: Lane,
    granted_since: Timestamp,
    limit: u32,
) -> Result<Vec<GateWait>, sqlx::Error> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "select saga, step, since from gate_waiter
         where gate = $1 and lane = $2 and (let_go_at is null or let_go_at <= $3)
         order by since, saga, step limit $4",
    )
    .bind(key)
    .bind(<&str>::from(lane))
    .bind(granted_since.0)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    let wait = |(saga, step, since)| GateWait {
        gate: key.to_owned(),
        saga: SagaId::stored(saga),
        step: StepKey::stored(step),
        lane,
        since: Timestamp(since),
    };
    Ok(rows.into_iter().map(wait).collect())
}

//! Leases: a row a process that says until when its sagas are its own, by the server's clock.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sqlx::{PgConnection, Row};

use super::place;
use super::reach::Reach;
use crate::ids::SagaId;
use crate::store::lease::LEASE;

/// The server's clock in microseconds. It goes on within a transaction, as `now()` does not.
macro_rules! clock {
    () => {
        "(extract(epoch from clock_timestamp()) * 1000000)::bigint"
    };
}

/// Says that this process is alive; for how long that counts.
pub(super) async fn renew(
    reach: &Reach,
    connection: &mut PgConnection,
    worker: &str,
) -> Result<Duration, sqlx::Error> {
    let query = reach
        .query(concat!(
            "insert into worker (id, until) values ($1, ",
            clock!(),
            " + $2) on conflict (id) do update set until = excluded.until"
        ))
        .bind(worker.to_owned())
        .bind(i64::try_from(LEASE.as_micros()).unwrap_or(i64::MAX));
    reach.execute_on(connection, query).await?;
    Ok(LEASE)
}

/// Says that this process writes nothing more, so that others need not wait for its lease to run out.
pub(super) async fn resign(reach: &Reach, worker: &str) -> Result<(), sqlx::Error> {
    let query = reach.query("update worker set until = 0 where id = $1").bind(worker.to_owned());
    reach.execute(query).await.map(drop)
}

/// Forgets processes that have been dead for a day and hold nothing.
pub(super) async fn forget(reach: &Reach) -> Result<u64, sqlx::Error> {
    let query = reach.query(concat!(
        "delete from worker where until < ",
        clock!(),
        " - 86400000000 and not exists (select 1 from saga_lease where holder = worker.id)"
    ));
    reach.execute(query).await
}

/// Takes sagas that are due, have a letter, or belonged to a process whose lease has run out. The number of the lease
/// rises in the last case alone. Those that still need a place under their concurrency key are the second ones.
pub(super) async fn claim(
    reach: &Reach,
    worker: &str,
    now: i64,
    limit: usize,
) -> Result<(Vec<SagaId>, Vec<(SagaId, String)>), sqlx::Error> {
    let query = reach
        .query(concat!(
            "with due as materialized (
               select saga, needs_place, priority, due_at from saga_lease where holder is null and due_at <= $2
               order by priority desc, due_at limit $3 for update skip locked
             ), mail as materialized (
               select l.saga, l.priority from saga_lease l where l.holder is null and l.saga in (
                 select i.saga from inbox i join saga s on s.id = i.saga
                 where i.consumed_at is null and not i.is_passed_over and s.ended_at is null
                   -- What has not begun reads only what may end it before it does.
                   and (s.state <> 'queued' or i.kind in ('act', 'cancel')))
               limit $3 for update skip locked
             ), lost as materialized (
               select l.saga, l.needs_place, l.priority from worker w join saga_lease l on l.holder = w.id
               where w.until <= ",
            clock!(),
            " and w.id <> $1
               limit $3 for update of l skip locked
             ), found as (
               select saga, bool_or(needs_place) as needs_place, max(priority) as priority, min(since) as since,
                 bool_or(is_lost) as is_lost
               from (select saga, needs_place, priority, due_at as since, false as is_lost from due
                 union all select saga, false, priority, 0, false from mail
                 union all select saga, false, priority, 0, true from lost) all_of_them
               group by saga order by max(priority) desc, min(since) limit $3
             ), taken as (
               update saga_lease l set holder = $1, epoch = l.epoch + case when f.is_lost then 1 else 0 end
               from found f where l.saga = f.saga and (l.holder is null or f.is_lost)
                 and exists (select 1 from worker where id = $1)
               returning l.saga
             )
             select f.saga, f.needs_place, s.concurrency_key
             from found f join taken using (saga) join saga s on s.id = f.saga
             order by f.priority desc, f.since"
        ))
        .bind(worker.to_owned())
        .bind(now)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX));
    let (mut claimed, mut waiting) = (Vec::new(), Vec::new());
    for row in &reach.fetch(query).await? {
        let saga = SagaId::stored(row.try_get::<String, _>("saga")?);
        let key: Option<String> = row.try_get("concurrency_key")?;
        match key.filter(|_| row.try_get("needs_place").unwrap_or(false)) {
            Some(key) => waiting.push((saga, key)),
            None => claimed.push(saga),
        }
    }
    Ok((claimed, waiting))
}

/// How long a claim leaves a key alone under which another gives places.
const PLACES_AGAIN: Duration = Duration::from_secs(5);

/// Those of these claimed sagas for which there is a place; the others are given back. Those under a key of which
/// nobody gives places just now are due again a little later: they hold up no other.
pub(super) async fn with_places(
    reach: &Reach,
    waiting: &[(SagaId, String)],
    now: i64,
) -> Result<Vec<SagaId>, sqlx::Error> {
    let mut transaction = reach.begin().await?;
    let (mut placed, mut placeless, mut later) = (Vec::new(), Vec::new(), Vec::new());
    let mut locked: HashSet<&str> = HashSet::new();
    for (saga, key) in waiting {
        if locked.contains(key.as_str()) {
            later.push(saga.to_string());
            continue;
        }
        match place::try_take(reach, &mut transaction, saga, key).await? {
            Some(true) => placed.push(saga.clone()),
            Some(false) => placeless.push(saga.to_string()),
            None => {
                locked.insert(key);
                later.push(saga.to_string());
            }
        }
    }
    if !later.is_empty() {
        let again = now.saturating_add(i64::try_from(PLACES_AGAIN.as_micros()).unwrap_or(0));
        reach
            .query("update saga_lease set holder = null, due_at = $2 where saga = any ($1::text[])")
            .bind(later)
            .bind(again)
            .execute(&mut *transaction)
            .await?;
    }
    if !placeless.is_empty() {
        reach
            .query("update saga_lease set holder = null where saga = any ($1::text[])")
            .bind(placeless)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(placed)
}

/// Gives a saga back, due as its row says.
pub(super) async fn release(reach: &Reach, worker: &str, saga: &SagaId) -> Result<u64, sqlx::Error> {
    let query = reach
        .query(
            "update saga_lease l set holder = null, due_at = s.due_at from saga s
             where l.saga = $2 and l.holder = $1 and s.id = $2",
        )
        .bind(worker.to_owned())
        .bind(saga.to_string());
    reach.execute(query).await
}

/// Gives back all that this process holds except these.
pub(super) async fn keep_only(reach: &Reach, worker: &str, live: &[SagaId]) -> Result<u64, sqlx::Error> {
    let query = reach
        .query(
            "update saga_lease l set holder = null, due_at = s.due_at from saga s
             where l.holder = $1 and s.id = l.saga and l.saga <> all ($2::text[])",
        )
        .bind(worker.to_owned())
        .bind(live.iter().map(ToString::to_string).collect::<Vec<_>>());
    reach.execute(query).await
}

/// Those of the sagas held here that have letters.
pub(super) async fn mail(reach: &Reach, worker: &str) -> Result<Vec<SagaId>, sqlx::Error> {
    let query = reach
        .query(
            "select distinct l.saga from inbox i join saga_lease l on l.saga = i.saga
             where i.consumed_at is null and not i.is_passed_over and l.holder = $1",
        )
        .bind(worker.to_owned());
    let rows = reach.fetch(query).await?;
    rows.iter().map(|row| row.try_get::<String, _>("saga").map(SagaId::stored)).collect()
}

/// How one saga is held.
pub(super) struct Held {
    pub(super) holder: Option<String>,
    pub(super) epoch: i64,
    pub(super) may_begin: bool,
    pub(super) has_mail: bool,
}

/// How these sagas are held, by their ids.
pub(super) async fn held(reach: &Reach, sagas: &[SagaId]) -> Result<HashMap<String, Held>, sqlx::Error> {
    let query = reach
        .query(
            "select l.saga, l.holder, l.epoch, l.needs_place,
               exists (select 1 from inbox i where i.saga = l.saga and i.consumed_at is null) as has_mail
             from saga_lease l where l.saga = any ($1::text[])",
        )
        .bind(sagas.iter().map(ToString::to_string).collect::<Vec<_>>());
    let rows = reach.fetch(query).await?;
    let read = |row: &sqlx::postgres::PgRow| {
        let held = Held {
            holder: row.try_get("holder")?,
            epoch: row.try_get("epoch")?,
            may_begin: !row.try_get::<bool, _>("needs_place")?,
            has_mail: row.try_get("has_mail")?,
        };
        Ok((row.try_get("saga")?, held))
    };
    rows.iter().map(read).collect()
}

/// When the next saga that nobody holds is due.
pub(super) async fn next_due(reach: &Reach) -> Result<Option<i64>, sqlx::Error> {
    let query = reach.query(
        "select due_at from saga_lease where holder is null and due_at is not null order by due_at limit 1",
    );
    reach.fetch(query).await?.first().map(|row| row.try_get("due_at")).transpose()
}

//! Places: of the sagas with one concurrency key only so many run. Whoever gives a place locks the key's row first.

use sqlx::{Executor, PgConnection, Row};

use super::error::is_locked;
use super::reach::{Reach, in_time};
use crate::ids::SagaId;

/// Until the end of this transaction nobody else gives places under this key.
async fn lock(reach: &Reach, connection: &mut PgConnection, key: &str) -> Result<(), sqlx::Error> {
    let key = key.to_owned();
    reach
        .query("insert into concurrency (key) values ($1) on conflict (key) do nothing")
        .bind(key.clone())
        .execute(&mut *connection)
        .await?;
    reach
        .query("select key from concurrency where key = $1 for update")
        .bind(key)
        .execute(connection)
        .await?;
    Ok(())
}

/// Gives a saga its place, or lets it wait, due at no time, until one is free. Whether it has one.
async fn take(
    reach: &Reach,
    connection: &mut PgConnection,
    saga: &SagaId,
    key: &str,
) -> Result<bool, sqlx::Error> {
    lock(reach, connection, key).await?;
    let row = reach
        .query(
            "with free as (
               select s.id, s.concurrency_limit > (
                   select count(*) from saga other join saga_lease l on l.saga = other.id
                   where other.concurrency_key = s.concurrency_key and other.ended_at is null and not l.needs_place
                 ) as is_free
               from saga s join saga_lease mine on mine.saga = s.id
               where s.id = $1 and mine.needs_place and s.ended_at is null
             ), lease as (
               update saga_lease l set needs_place = not is_free, due_at = case when is_free then l.due_at end
               from free where l.saga = free.id
             ), shown as (
               update saga s set due_at = case when is_free then s.due_at end from free where s.id = free.id
             )
             select is_free from free",
        )
        .bind(saga.as_str().to_owned())
        .fetch_optional(connection)
        .await?;
    row.map_or(Ok(true), |row| row.try_get("is_free"))
}

/// As [`take`], in a transaction that goes on whatever becomes of it: nothing where another gives places under this key
/// and is not done within a second. Then it waits as it did, for whoever claims it.
pub(super) async fn try_take(
    reach: &Reach,
    connection: &mut PgConnection,
    saga: &SagaId,
    key: &str,
) -> Result<Option<bool>, sqlx::Error> {
    connection.execute("savepoint place; set local lock_timeout = '1s'").await?;
    match take(reach, connection, saga, key).await {
        Ok(is_placed) => {
            connection.execute("release savepoint place; set local lock_timeout to default").await?;
            Ok(Some(is_placed))
        }
        Err(error) if is_locked(&error) => {
            tracing::debug!(key, "another gives places under this key, and is waited for later");
            connection.execute("rollback to savepoint place; release savepoint place").await?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Gives free places under this key to those that wait for one, by priority and age.
pub(super) async fn fill(reach: &Reach, key: &str, now: i64) -> Result<u64, sqlx::Error> {
    let mut transaction = reach.begin().await?;
    lock(reach, &mut transaction, key).await?;
    let done = reach
        .query(
            "with waiting as (
               select s.id, s.concurrency_limit,
                 row_number() over (order by l.priority desc, s.id) as number
               from saga s join saga_lease l on l.saga = s.id
               where s.concurrency_key = $1 and l.needs_place and s.due_at is null and s.ended_at is null
             ), next as (
               select id from waiting where number + (
                   select count(*) from saga other join saga_lease l on l.saga = other.id
                   where other.concurrency_key = $1 and other.ended_at is null and not l.needs_place
                 ) <= concurrency_limit
             ), shown as (
               update saga s set due_at = $2 from next where s.id = next.id
             )
             update saga_lease l set needs_place = false, due_at = $2 from next where l.saga = next.id",
        )
        .bind(key.to_owned())
        .bind(now)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(done.rows_affected())
}

/// Fills the places of every key under which somebody waits: what an end has freed and its process did not pass on.
pub(super) async fn fill_all(reach: &Reach, now: i64) -> Result<u64, sqlx::Error> {
    let query = reach.query(
        "select distinct s.concurrency_key as key from saga_lease l join saga s on s.id = l.saga
         where l.needs_place and l.due_at is null and s.concurrency_key is not null",
    );
    let mut filled = 0;
    for row in reach.fetch(query).await? {
        let key: String = row.try_get("key")?;
        match in_time(fill(reach, &key, now)).await {
            Ok(more) => filled += more,
            // Whoever has the row of this key has it alone.
            Err(error) => tracing::debug!(%error, key, "free places are passed on later"),
        }
    }
    Ok(filled)
}

//! The feed: appends get the numbers that readers follow after they are committed.
//!
//! Each append leaves a row in the outbox. Whoever has the lock on the feed's head numbers what it sees and empties
//! the outbox; only committed rows are seen, so that no number ever appears below one that was read.

use sqlx::Row;

use super::reach::Reach;
use crate::ids::SagaId;
use crate::store::Fed;

/// Numbers what has none yet; how many there were. Nothing if another process is at it.
pub(super) async fn number(reach: &Reach) -> Result<u64, sqlx::Error> {
    let mut transaction = reach.begin().await?;
    let head = reach
        .query("select last from feed_head for update skip locked")
        .fetch_optional(&mut *transaction)
        .await?;
    let Some(head) = head else { return Ok(0) };
    // A statement of its own, so that it sees whatever was committed before the lock was had.
    let done = reach
        .query(
            "with taken as (
               delete from outbox returning saga, first_seq, last_seq
             ), numbered as (
               insert into feed (number, saga, first_seq, last_seq)
               select $1 + row_number() over (order by saga, first_seq), saga, first_seq, last_seq from taken
               returning number
             )
             update feed_head set last = (select max(number) from numbered) where exists (select 1 from numbered)
             returning last",
        )
        .bind(head.try_get::<i64, _>("last")?)
        .fetch_optional(&mut *transaction)
        .await?;
    transaction.commit().await?;
    let Some(done) = done else { return Ok(0) };
    let (before, after): (i64, i64) = (head.try_get("last")?, done.try_get("last")?);
    Ok(u64::try_from(after - before).unwrap_or(0))
}

/// The appends with a number above this one, in the order of their numbers.
pub(super) async fn read(reach: &Reach, after: i64, limit: u32) -> Result<Vec<Fed>, sqlx::Error> {
    let query = reach
        .query(
            "select number, saga, first_seq, last_seq from feed where number > $1 order by number limit $2",
        )
        .bind(after)
        .bind(i64::from(limit));
    let rows = reach.fetch(query).await?;
    rows.iter()
        .map(|row| {
            Ok(Fed {
                number: row.try_get("number")?,
                saga: SagaId::stored(row.try_get::<String, _>("saga")?),
                first_seq: row.try_get("first_seq")?,
                last_seq: row.try_get("last_seq")?,
            })
        })
        .collect()
}

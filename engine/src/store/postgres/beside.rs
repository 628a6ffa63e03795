//! Beside: the rarer parts of a turn, in the transaction that writes it: secrets, letters, gates, starts, acts.

use std::borrow::Cow;
use std::collections::BTreeMap;

use sqlx::{PgConnection, Row};

use super::reach::Reach;
use super::write::{clean, json};
use super::{gates, start};
use crate::journal::Event;
use crate::secret::Sealed;
use crate::store::limits::LABEL_INDEXED_MAX;
use crate::store::{Append, Error, Letter, Message, NewSaga, SecretFate, Started};

/// Writes what turns bring besides rows, entries and ledger; their fences hold. The inner error is that of the
/// program, and nothing may be committed then.
pub(super) async fn write(
    reach: &Reach,
    connection: &mut PgConnection,
    appends: &[&Append],
) -> Result<Result<(), Error>, sqlx::Error> {
    for append in appends {
        // The one statement has already passed on what was there.
        let owner = match &append.secrets {
            SecretFate::Stay => append.row.id.as_str(),
            SecretFate::PassTo(owner) => owner,
            SecretFate::Destroyed => continue,
        };
        keep_secrets(reach, connection, owner, &append.sealed).await?;
    }
    write_labels(reach, connection, appends).await?;
    consume(reach, connection, appends).await?;
    gates::append(reach, connection, appends).await?;
    let starts: Vec<(&NewSaga, Option<&str>)> =
        appends.iter().flat_map(|append| &append.starts).map(|saga| (saga, None)).collect();
    for (started, _) in start::start(reach, connection, &starts).await? {
        // The transaction itself looked whether the key was free, so this is somebody's doing in between.
        if let Started::KeyReused(id) | Started::Before(id) = started {
            return Ok(Err(Error::KeyTaken(id)));
        }
    }
    let letters: Vec<&Letter> = appends.iter().flat_map(|append| &append.letters).collect();
    post(reach, connection, &letters).await?;
    settle(reach, connection, appends).await?;
    let destroyed: Vec<String> =
        appends.iter().flat_map(|append| &append.destroyed).map(|owner| clean(owner).into_owned()).collect();
    destroy_secrets(reach, connection, destroyed).await?;
    Ok(Ok(()))
}

/// The labels that a turn sets.
pub(super) fn labels(append: &Append) -> impl Iterator<Item = (&str, &str)> {
    append.entries.iter().filter_map(|entry| match &entry.event {
        Event::LabelSet { name, value, .. } => Some((name.as_str(), value.as_str())),
        _ => None,
    })
}

/// Notes labels for lists. One that is too long is looked for in the rows.
async fn write_labels(
    reach: &Reach,
    connection: &mut PgConnection,
    appends: &[&Append],
) -> Result<(), sqlx::Error> {
    // Of two values of one label the last stands.
    let mut latest: BTreeMap<(&str, Cow<'_, str>), Cow<'_, str>> = BTreeMap::new();
    for append in appends {
        for (name, value) in labels(append) {
            latest.insert((append.row.id.as_str(), clean(name)), clean(value));
        }
    }
    if latest.is_empty() {
        return Ok(());
    }
    reach
        .query(
            "with label as materialized (
               select * from unnest($1::text[], $2::text[], $3::text[]) as l (saga, name, value)
             ), gone as (
               delete from saga_label s using label l
               where s.saga = l.saga and s.name = l.name and octet_length(l.name) + octet_length(l.value) > $4
             )
             insert into saga_label (saga, name, value)
             select * from label where octet_length(name) + octet_length(value) <= $4
             on conflict (saga, name) do update set value = excluded.value",
        )
        .bind(latest.keys().map(|(saga, _)| (*saga).to_owned()).collect::<Vec<_>>())
        .bind(latest.keys().map(|(_, name)| name.clone().into_owned()).collect::<Vec<_>>())
        .bind(latest.values().map(|value| value.clone().into_owned()).collect::<Vec<_>>())
        .bind(i32::try_from(LABEL_INDEXED_MAX).unwrap_or(i32::MAX))
        .execute(connection)
        .await?;
    Ok(())
}

/// Puts secrets away for an owner.
pub(super) async fn keep_secrets(
    reach: &Reach,
    connection: &mut PgConnection,
    owner: &str,
    sealed: &[Sealed],
) -> Result<(), sqlx::Error> {
    let owners = vec![clean(owner).into_owned(); sealed.len()];
    let owned = sealed.iter().zip(owners).map(|(sealed, owner)| (owner, sealed)).collect();
    write_secrets(reach, connection, owned).await
}

/// Puts secrets away, each for its owner.
pub(super) async fn write_secrets(
    reach: &Reach,
    connection: &mut PgConnection,
    owned: Vec<(String, &Sealed)>,
) -> Result<(), sqlx::Error> {
    if owned.is_empty() {
        return Ok(());
    }
    reach
        .query(
            "insert into secret (id, owner, kind, sealed, created_at)
             select * from unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::bigint[])",
        )
        .bind(owned.iter().map(|(_, sealed)| sealed.id.as_str().to_owned()).collect::<Vec<_>>())
        .bind(owned.iter().map(|(owner, _)| owner.clone()).collect::<Vec<_>>())
        .bind(owned.iter().map(|(_, sealed)| clean(&sealed.kind).into_owned()).collect::<Vec<_>>())
        .bind(owned.iter().map(|(_, sealed)| sealed.bytes.clone()).collect::<Vec<_>>())
        .bind(owned.iter().map(|(_, sealed)| sealed.at.0).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

/// Destroys what these owners hold.
pub(super) async fn destroy_secrets(
    reach: &Reach,
    connection: &mut PgConnection,
    owners: Vec<String>,
) -> Result<(), sqlx::Error> {
    if !owners.is_empty() {
        reach
            .query("delete from secret where owner = any ($1::text[])")
            .bind(owners)
            .execute(connection)
            .await?;
    }
    Ok(())
}

async fn consume(
    reach: &Reach,
    connection: &mut PgConnection,
    appends: &[&Append],
) -> Result<(), sqlx::Error> {
    let consumed: Vec<(String, i64)> = appends
        .iter()
        .flat_map(|append| append.consumed.iter().map(|id| (clean(id).into_owned(), append.row.updated_at.0)))
        .collect();
    let passed_over: Vec<String> = appends
        .iter()
        .flat_map(|append| append.passed_over.iter().map(|id| clean(id).into_owned()))
        .collect();
    if !passed_over.is_empty() {
        let query = reach.query("update inbox set is_passed_over = true where id = any ($1::text[])");
        query.bind(passed_over).execute(&mut *connection).await?;
    }
    if consumed.is_empty() {
        return Ok(());
    }
    let (ids, at): (Vec<String>, Vec<i64>) = consumed.into_iter().unzip();
    reach
        .query(
            "update inbox set consumed_at = read.at from unnest($1::text[], $2::bigint[]) as read (id, at)
             where inbox.id = read.id",
        )
        .bind(ids)
        .bind(at)
        .execute(connection)
        .await?;
    Ok(())
}

async fn settle(
    reach: &Reach,
    connection: &mut PgConnection,
    appends: &[&Append],
) -> Result<(), sqlx::Error> {
    let settled: Vec<_> = appends
        .iter()
        .flat_map(|append| append.settled.iter().map(|act| (act, <&str>::from(append.row.state))))
        .collect();
    if settled.is_empty() {
        return Ok(());
    }
    reach
        .query(
            "update audit set outcome = act.outcome, state_after = act.state
             from unnest($1::text[], $2::text[], $3::text[]) as act (id, outcome, state) where audit.id = act.id",
        )
        .bind(settled.iter().map(|(act, _)| act.operation.to_string()).collect::<Vec<_>>())
        .bind(settled.iter().map(|(act, _)| clean(&act.outcome).into_owned()).collect::<Vec<_>>())
        .bind(settled.iter().map(|(_, state)| *state).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

/// Leaves letters, and the audit of those that are a person's acts. One under a known id changes nothing; one for a
/// saga that there is not is left out. Answers the sagas that exist.
///
/// No saga's row is touched: whoever holds it finds the letter when it looks.
pub(super) async fn post(
    reach: &Reach,
    connection: &mut PgConnection,
    letters: &[&Letter],
) -> Result<std::collections::HashSet<String>, sqlx::Error> {
    if letters.is_empty() {
        return Ok(std::collections::HashSet::new());
    }
    // In the order of their ids, so that two groups do not wait for each other; `number` keeps the order of arrival.
    let mut order: Vec<(usize, &&Letter)> = letters.iter().enumerate().collect();
    order.sort_by(|(_, one), (_, other)| one.id.cmp(&other.id));
    let encode = |error: Error| sqlx::Error::Encode(error.to_string().into());
    let messages: Result<Vec<String>, Error> =
        order.iter().map(|(_, letter)| json(&letter.message)).collect();
    let acts: Vec<Option<(String, String, String)>> = order
        .iter()
        .map(|(_, letter)| match &letter.message {
            Message::Act { act, actor, reason, .. } => {
                Ok(Some((json(act)?, clean(actor).into_owned(), clean(reason).into_owned())))
            }
            _ => Ok(None),
        })
        .collect::<Result<_, Error>>()
        .map_err(encode)?;
    let operation = |letter: &Letter| match &letter.message {
        Message::Act { operation, .. } => Some(operation.to_string()),
        _ => None,
    };
    let rows = reach
        .query(
            "with letter as materialized (
               select l.*, s.state, s.ended_at
               from unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::bigint[], $7::text[],
                   $8::text[], $9::text[], $10::text[])
                 as l (id, saga, number, kind, message, at, operation, act, actor, reason)
               join saga s on s.id = l.saga
             ), put as (
               insert into inbox (id, saga, arrived, number, kind, message, posted_at)
               select id, saga, (extract(epoch from clock_timestamp()) * 1000000)::bigint, number, kind, message, at
               from letter on conflict (id) do nothing
             ), told as (
               insert into audit (id, saga, actor, act, reason, state_before, at, state_after, outcome)
               select operation, saga, actor, act, reason, state, at,
                 case when ended_at is not null then state end,
                 case when ended_at is not null then 'too_late: it had ended' end
               from letter where operation is not null on conflict (id) do nothing
             )
             select distinct saga from letter",
        )
        .bind(order.iter().map(|(_, letter)| clean(&letter.id).into_owned()).collect::<Vec<_>>())
        .bind(order.iter().map(|(_, letter)| letter.saga.to_string()).collect::<Vec<_>>())
        .bind(order.iter().map(|(place, _)| i64::try_from(*place).unwrap_or(i64::MAX)).collect::<Vec<_>>())
        .bind(order.iter().map(|(_, letter)| kind(&letter.message)).collect::<Vec<_>>())
        .bind(messages.map_err(encode)?)
        .bind(order.iter().map(|(_, letter)| letter.at.0).collect::<Vec<_>>())
        .bind(order.iter().map(|(_, letter)| operation(letter)).collect::<Vec<_>>())
        .bind(acts.iter().map(|act| act.as_ref().map(|(act, ..)| act.clone())).collect::<Vec<_>>())
        .bind(acts.iter().map(|act| act.as_ref().map(|(_, actor, _)| actor.clone())).collect::<Vec<_>>())
        .bind(acts.iter().map(|act| act.as_ref().map(|(.., reason)| reason.clone())).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| row.try_get("saga")).collect()
}

/// How the inbox tells apart what a saga that has not begun reads, and what it does not.
fn kind(message: &Message) -> &'static str {
    match message {
        Message::Act { .. } => "act",
        Message::Cancel { .. } => "cancel",
        Message::Signal { .. }
        | Message::Wake
        | Message::LetGo { .. }
        | Message::ChildEnded { .. }
        | Message::ParentEnded
        | Message::Unreadable { .. } => "other",
    }
}

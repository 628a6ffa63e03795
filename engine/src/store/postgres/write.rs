//! Writing: the turns of many sagas as one statement, over arrays that `unnest` spreads.
//!
//! The statement locks the lease rows of its group in the order of their ids, writes only the turns whose fence
//! holds, and fails as a whole if a ledger row was moved: then each turn is written by itself.

use std::borrow::Cow;

use serde_json::Value;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, Row};

use super::beside;
use super::reach::Reach;
use crate::journal::SCHEMA_VERSION;
use crate::store::{Append, Error, SecretFate};

/// Text as Postgres takes it, which knows no NUL: the sign for "unreadable" stands in its place.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

pub(super) fn json<T: serde::Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::Refused(error.to_string()))
}

/// The statement, with what it does about rows that others have locked.
macro_rules! append_sql {
    ($locking:literal) => {
        concat!(
            "with turn as materialized (
               select * from unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::text[],
                 $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::bigint[],
                 $14::bigint[], $15::bigint[], $16::bigint[], $17::text[])
               as turn (saga, epoch, before, seq, state, attention, step, error, fingerprint, progress, labels,
                 output, deadline_at, due_at, updated_at, ended_at, heir)
             ), locked as materialized (
               select saga, epoch, seq from saga_lease where saga = any ($1) order by saga ",
            $locking,
            "
             ), fenced as materialized (
               select turn.* from turn join locked using (saga)
               where locked.epoch = turn.epoch and locked.seq = turn.before
             ), lease as (
               update saga_lease l set seq = f.seq,
                 holder = case when f.ended_at is null then l.holder end,
                 due_at = case when f.ended_at is not null then null
                   when l.holder is null then f.due_at else l.due_at end
               from fenced f
               where l.saga = f.saga and l.epoch = f.epoch and l.seq = f.before
               returning l.saga
             ), held as materialized (
               select f.* from fenced f join lease using (saga)
             ), shown as (
               update saga s set state = h.state, attention = h.attention, step = h.step, error = h.error,
                 fingerprint = h.fingerprint, progress = coalesce(h.progress, s.progress), labels = h.labels,
                 output = h.output, deadline_at = h.deadline_at, due_at = h.due_at, updated_at = h.updated_at,
                 ended_at = h.ended_at
               from held h where s.id = h.saga
               returning s.id, s.concurrency_key, s.ended_at
             ), line as (
               insert into journal (saga, seq, at, epoch, version, kind, event)
               select h.saga, l.seq, l.at, l.epoch, $18, l.kind, l.event
               from unnest($19::text[], $20::bigint[], $21::bigint[], $22::bigint[], $23::text[], $24::text[])
                 as l (saga, seq, at, epoch, kind, event)
               join held h using (saga)
             ), unnumbered as (
               insert into outbox (saga, first_seq, last_seq)
               select saga, before + 1, seq from held where seq > before
             ), ledger as materialized (
               select r.* from unnest($25::text[], $26::text[], $27::text[], $28::text[], $29::text[], $30::text[],
                   $31::text[], $32::text[], $33::text[], $34::text[], $35::text[], $36::bigint[], $37::bigint[],
                   $38::bigint[], $39::text[], $40::bigint[], $41::text[], $42::bigint[])
                 as r (id, provider, kind, name, external_id, state, holder, keeper, saga, step, within, rev,
                   intended_at, changed_at, known_holder, known_rev, writer, unsettled_until)
               join held h on h.saga = r.writer
             ), kept as (
               update resource r set external_id = n.external_id, state = n.state, holder = n.holder,
                 keeper = n.keeper, rev = n.rev, changed_at = n.changed_at,
                 unsettled_until = n.unsettled_until
               from ledger n where r.id = n.id and r.holder = n.known_holder and r.rev = n.known_rev
               returning r.id
             ), named as (
               insert into resource (id, provider, kind, name, external_id, state, holder, keeper, saga, step,
                 within, rev, intended_at, changed_at, unsettled_until)
               select id, provider, kind, name, external_id, state, holder, keeper, saga, step, within, rev,
                 intended_at, changed_at, unsettled_until
               from ledger where known_rev is null
             ), moved as (
               -- A row that was not found as it had to be: this insert cannot succeed, and nothing of it all stays.
               insert into resource (id)
               select id from ledger where known_rev is not null and id not in (select id from kept)
             ), too_late as (
               update audit a set outcome = 'too_late: it had ended', state_after = h.state
               from held h where h.ended_at is not null and a.saga = h.saga and a.outcome is null
             ), inherited as (
               update secret s set owner = h.heir from held h where h.heir <> '' and s.owner = h.saga
             ), destroyed as (
               delete from secret s using held h where h.heir = '' and s.owner = h.saga
             )
             select turn.saga, locked.saga is not null as seen, shown.id is not null as written,
               case when shown.ended_at is not null then shown.concurrency_key end as place
             from turn left join locked on locked.saga = turn.saga left join shown on shown.id = turn.saga"
        )
    };
}

const WAITING: &str = append_sql!("for update");
const SKIPPING: &str = append_sql!("for update skip locked");

/// What became of one turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wrote {
    /// It is written; with the concurrency key under which its end has freed a place.
    Done(Option<String>),
    /// The fence did not hold.
    Fenced,
    /// Another transaction has its lease row, or there is none.
    Locked,
}

/// Whether a turn has parts that the one statement does not write.
pub(super) fn has_more(append: &Append) -> bool {
    !(append.sealed.is_empty()
        && append.consumed.is_empty()
        && append.passed_over.is_empty()
        && append.closings.is_empty()
        && append.waits.is_none()
        && append.starts.is_empty()
        && append.letters.is_empty()
        && append.settled.is_empty()
        && append.destroyed.is_empty()
        && beside::labels(append).next().is_none())
}

/// Writes turns of different sagas, all but the parts that [`has_more`] speaks of: what became of each, in their
/// order. With `waits` it waits for rows that others have locked; otherwise it leaves them out.
pub(super) async fn turns(
    reach: &Reach,
    connection: &mut PgConnection,
    appends: &[&Append],
    waits: bool,
) -> Result<Vec<Wrote>, sqlx::Error> {
    let query = reach.query(if waits { WAITING } else { SKIPPING });
    let query = bind_ledger(bind_lines(bind_turns(query, appends)?, appends)?, appends);
    let rows = query.fetch_all(connection).await?;
    let mut wrote = std::collections::HashMap::with_capacity(rows.len());
    for row in &rows {
        let became = match (row.try_get("seen")?, row.try_get("written")?) {
            (_, true) => Wrote::Done(row.try_get("place")?),
            (true, false) => Wrote::Fenced,
            (false, false) => Wrote::Locked,
        };
        wrote.insert(row.try_get::<String, _>("saga")?, became);
    }
    Ok(appends.iter().map(|append| wrote.remove(append.row.id.as_str()).unwrap_or(Wrote::Fenced)).collect())
}

/// Writes one turn with all its parts in this transaction, waiting for its row.
pub(super) async fn whole_turn(
    reach: &Reach,
    connection: &mut PgConnection,
    append: &Append,
) -> Result<Result<Option<String>, Error>, sqlx::Error> {
    let wrote = match turns(reach, connection, &[append], true).await {
        Err(error) if super::error::is_moved_ledger(&error) => {
            return Ok(Err(Error::LedgerMoved(append.row.id.clone())));
        }
        other => other?,
    };
    match wrote.into_iter().next() {
        Some(Wrote::Done(place)) => {
            let beside = beside::write(reach, connection, &[append]).await?;
            Ok(beside.map(|()| place))
        }
        _ => Ok(Err(Error::Fenced(append.row.id.clone()))),
    }
}

type Bound = Query<'static, Postgres, PgArguments>;

fn column<T>(appends: &[&Append], value: impl Fn(&Append) -> T) -> Vec<T> {
    appends.iter().map(|append| value(append)).collect()
}

fn texts<'a, T: AsRef<str> + 'a>(values: impl Iterator<Item = Option<&'a T>>) -> Vec<Option<String>> {
    values.map(|text| text.map(|text| clean(text.as_ref()).into_owned())).collect()
}

fn encode(error: Error) -> sqlx::Error {
    sqlx::Error::Encode(error.to_string().into())
}

fn bind_turns(query: Bound, appends: &[&Append]) -> Result<Bound, sqlx::Error> {
    let rows = || appends.iter().map(|append| &append.row);
    let mut attention = Vec::with_capacity(appends.len());
    let mut labels = Vec::with_capacity(appends.len());
    let mut progress = Vec::with_capacity(appends.len());
    for row in rows() {
        attention.push(json(&row.attention).map_err(encode)?);
        labels.push(labels_json(&row.labels).map_err(encode)?);
        progress.push(row.progress.as_ref().map(json).transpose().map_err(encode)?);
    }
    let length = |append: &Append| i64::try_from(append.entries.len()).unwrap_or(i64::MAX);
    Ok(query
        .bind(column(appends, |append| append.row.id.to_string()))
        .bind(column(appends, |append| append.row.epoch))
        .bind(column(appends, |append| append.row.seq - length(append)))
        .bind(column(appends, |append| append.row.seq))
        .bind(column(appends, |append| <&str>::from(append.row.state)))
        .bind(attention)
        .bind(texts(rows().map(|row| row.step.as_ref())))
        .bind(texts(rows().map(|row| row.error.as_ref())))
        .bind(texts(rows().map(|row| row.fingerprint.as_ref())))
        .bind(progress)
        .bind(labels)
        .bind(column(appends, |append| append.output.as_ref().map(Value::to_string)))
        .bind(column(appends, |append| append.row.deadline_at.map(|at| at.0)))
        .bind(column(appends, |append| append.row.due_at.map(|at| at.0)))
        .bind(column(appends, |append| append.row.updated_at.0))
        .bind(column(appends, |append| append.row.ended_at.map(|at| at.0)))
        .bind(column(appends, |append| match &append.secrets {
            SecretFate::Stay => None,
            SecretFate::PassTo(owner) => Some(clean(owner).into_owned()),
            SecretFate::Destroyed => Some(String::new()),
        })))
}

fn bind_lines(query: Bound, appends: &[&Append]) -> Result<Bound, sqlx::Error> {
    let lines =
        || appends.iter().flat_map(|append| append.entries.iter().map(|entry| (&append.row.id, entry)));
    let events: Result<Vec<String>, Error> = lines().map(|(_, entry)| json(&entry.event)).collect();
    Ok(query
        .bind(SCHEMA_VERSION)
        .bind(lines().map(|(saga, _)| saga.to_string()).collect::<Vec<_>>())
        .bind(lines().map(|(_, entry)| entry.seq).collect::<Vec<_>>())
        .bind(lines().map(|(_, entry)| entry.at.0).collect::<Vec<_>>())
        .bind(lines().map(|(_, entry)| entry.epoch).collect::<Vec<_>>())
        .bind(lines().map(|(_, entry)| entry.event.name().to_string()).collect::<Vec<_>>())
        .bind(events.map_err(encode)?))
}

fn bind_ledger(query: Bound, appends: &[&Append]) -> Bound {
    let writes: Vec<_> = appends
        .iter()
        .flat_map(|append| append.resources.iter().map(|write| (&append.row.id, write)))
        .collect();
    let rows = || writes.iter().map(|(_, write)| &write.row);
    query
        .bind(rows().map(|row| row.id.to_string()).collect::<Vec<_>>())
        .bind(texts(rows().map(|row| Some(&row.provider))))
        .bind(texts(rows().map(|row| Some(&row.kind))))
        .bind(texts(rows().map(|row| Some(&row.name))))
        .bind(texts(rows().map(|row| row.external_id.as_ref())))
        .bind(rows().map(|row| <&str>::from(row.state)).collect::<Vec<_>>())
        .bind(texts(rows().map(|row| Some(&row.holder))))
        .bind(texts(rows().map(|row| row.keeper.as_ref())))
        .bind(rows().map(|row| row.saga.to_string()).collect::<Vec<_>>())
        .bind(rows().map(|row| clean(row.step.as_str()).into_owned()).collect::<Vec<_>>())
        .bind(rows().map(|row| row.within.as_ref().map(ToString::to_string)).collect::<Vec<_>>())
        .bind(rows().map(|row| row.rev).collect::<Vec<_>>())
        .bind(rows().map(|row| row.intended_at.0).collect::<Vec<_>>())
        .bind(rows().map(|row| row.changed_at.0).collect::<Vec<_>>())
        .bind(texts(writes.iter().map(|(_, write)| write.stored.as_ref().map(|(holder, _)| holder))))
        .bind(writes.iter().map(|(_, write)| write.stored.as_ref().map(|(_, rev)| *rev)).collect::<Vec<_>>())
        .bind(writes.iter().map(|(saga, _)| saga.to_string()).collect::<Vec<_>>())
        .bind(rows().map(|row| row.unsettled_until.map(|until| until.0)).collect::<Vec<_>>())
}

/// Labels as they are found by: without NUL, which no text of Postgres holds.
pub(super) fn labels_json(labels: &std::collections::BTreeMap<String, String>) -> Result<String, Error> {
    let clean: std::collections::BTreeMap<_, _> =
        labels.iter().map(|(name, value)| (clean(name), clean(value))).collect();
    json(&clean)
}

//! Findings: what the sweep keeps of its censuses and of what they found, in SQL that every database takes.
//!
//! The memory store keeps these two tables in its SQLite, so that one text serves all.

use std::sync::Arc;

use serde_json::Value;

use super::page::page;
use super::tx::{Beside, Error as SqlError, Row, Sql};
use super::{Error, Loose, LooseJob, Store};
use crate::data::limits::{DETAIL_MAX, NAME_MAX, kept};
use crate::env::{Env, Timestamp};
use crate::ids::{FindingId, ResourceId, SagaId};
use crate::params;
use crate::sweep::{
    CensusClaim, CensusEnd, CensusRow, FindingClass, FindingFilter, FindingRow, Settled, Sighting,
};

/// So many sights are written in one transaction, so that others get their turn.
const AT_ONCE: usize = 50;

const CLAIM: &str = "insert into census (provider, holder, held_until, started_at, next_at)
  values ($1, $2, $3, $4, $4)
  on conflict (provider) do update set
    holder = excluded.holder, held_until = excluded.held_until,
    started_at = case when census.holder = excluded.holder then census.started_at else excluded.started_at end
  where (census.next_at <= $4 or $5 = 1 or census.holder = excluded.holder)
    and (census.holder is null or census.held_until <= $4 or census.holder = excluded.holder)
  returning *";

const END_WELL: &str = "update census set
    holder = null, held_until = 0, completed_at = $3, pages = $5, things = $6, problem = null, failed_at = null,
    failures = 0, accepts_absence = null, next_at = $4
  where provider = $1 and holder = $2";

const END_ILL: &str = "update census set
    holder = null, held_until = 0, problem = $5, failed_at = $3, failures = failures + 1, next_at = $4
  where provider = $1 and holder = $2";

const SEEN: &str = "insert into finding
    (id, provider, account, class, kind, external_id, name, resource, holder, detail,
     first_seen_at, last_seen_at, times_seen)
  values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11, 1)
  on conflict (provider, class, kind, external_id) where settled is null or settled = 'ignored' do update set
    account = excluded.account, name = excluded.name, resource = excluded.resource, holder = excluded.holder,
    detail = excluded.detail, last_seen_at = excluded.last_seen_at, times_seen = finding.times_seen + 1
  where finding.last_seen_at < excluded.last_seen_at";

const LIST: Sql = Sql {
    sqlite: "select * from finding
      where ($1 is null or provider = $1) and ($2 is null or class = $2) and ($3 is null or holder = $3)
        and ($4 is null or (settled is null) = $4) and ($5 is null or id = $5) and ($6 is null or id < $6)
      order by id desc limit $7",
    postgres: "select * from finding
      where ($1::text is null or provider = $1::text) and ($2::text is null or class = $2::text)
        and ($3::text is null or holder = $3::text) and ($4::bigint is null or (settled is null) = ($4::bigint = 1))
        and ($5::text is null or id = $5::text) and ($6::text is null or id < $6::text)
      order by id desc limit $7",
};

/// Runs statements in a transaction that belongs to no saga; how many rows each changed.
async fn write(
    store: &(impl Store + ?Sized),
    statements: Vec<(Sql, Vec<super::tx::Param>)>,
) -> Result<Vec<u64>, Error> {
    let job: LooseJob = Arc::new(move |tx| {
        let statements = statements.clone();
        Box::pin(async move {
            let mut changed = Vec::with_capacity(statements.len());
            for (sql, params) in statements {
                changed.push(tx.execute(sql, params).await?);
            }
            Ok(Loose { output: serde_json::json!(changed), beside: Beside::default(), letters: Vec::new() })
        })
    });
    let (changed, _) = store.run(job).await?;
    serde_json::from_value(changed).map_err(|error| Error::Unreadable(error.to_string()))
}

async fn write_one(
    store: &(impl Store + ?Sized),
    sql: &'static str,
    params: Vec<super::tx::Param>,
) -> Result<bool, Error> {
    let changed = write(store, vec![(sql.into(), params)]).await?;
    Ok(changed.first().is_some_and(|changed| *changed > 0))
}

pub(super) async fn censuses(store: &(impl Store + ?Sized)) -> Result<Vec<CensusRow>, Error> {
    let rows = store.fetch("select * from census order by provider".into(), Vec::new()).await?;
    rows.iter().map(|row| census_row(row).map_err(unreadable)).collect()
}

pub(super) async fn begin_census(
    store: &(impl Store + ?Sized),
    claim: &CensusClaim,
) -> Result<Option<CensusRow>, Error> {
    let params = params![&claim.provider, &claim.holder, claim.until, claim.at, claim.now];
    let job: LooseJob = Arc::new(move |tx| {
        let params = params.clone();
        Box::pin(async move {
            let rows = tx.fetch(CLAIM.into(), params).await?;
            let row = rows.first().map(census_row).transpose()?;
            let output = serde_json::to_value(row).unwrap_or(Value::Null);
            Ok(Loose { output, beside: Beside::default(), letters: Vec::new() })
        })
    });
    let (row, _) = store.run(job).await?;
    serde_json::from_value(row).map_err(|error| Error::Unreadable(error.to_string()))
}

pub(super) async fn end_census(store: &(impl Store + ?Sized), end: &CensusEnd) -> Result<bool, Error> {
    let CensusEnd { provider, holder, at, next_at, outcome } = end;
    let count = |count: &usize| i64::try_from(*count).unwrap_or(i64::MAX);
    match outcome {
        Ok((pages, things)) => {
            let params = params![provider, holder, *at, *next_at, count(pages), count(things)];
            write_one(store, END_WELL, params).await
        }
        Err(problem) => {
            let problem = kept(problem, DETAIL_MAX);
            write_one(store, END_ILL, params![provider, holder, *at, *next_at, problem]).await
        }
    }
}

pub(super) async fn accept_absence(
    store: &(impl Store + ?Sized),
    provider: &str,
    reason: &str,
) -> Result<bool, Error> {
    write_one(store, "update census set accepts_absence = $2 where provider = $1", params![provider, reason])
        .await
}

pub(super) async fn sighted(
    store: &(impl Store + ?Sized),
    env: &Env,
    provider: &str,
    sightings: &[Sighting],
    at: Timestamp,
) -> Result<(), Error> {
    for some in sightings.chunks(AT_ONCE) {
        let seen = some.iter().map(|sighting| {
            let Sighting { class, account, kind, external_id, name, resource, holder, detail } = sighting;
            let id = FindingId::from_uuid(env.uuid()).to_string();
            let class: &str = class.into();
            let resource = resource.as_ref().map(ToString::to_string);
            // What a provider says of itself has no bound of ours, and one text that the database does not take would
            // keep all others out.
            let (kind, external_id, name) =
                (kept(kind, NAME_MAX), kept(external_id, NAME_MAX), kept(name, NAME_MAX));
            let account = account.as_ref().map(|account| kept(account, NAME_MAX));
            let detail = detail.as_ref().map(|detail| kept(detail, DETAIL_MAX));
            let holder = holder.clone();
            let params =
                params![id, provider, account, class, kind, external_id, name, resource, holder, detail, at];
            (SEEN.into(), params)
        });
        write(store, seen.collect()).await?;
    }
    Ok(())
}

pub(super) async fn findings(
    store: &(impl Store + ?Sized),
    filter: &FindingFilter,
) -> Result<Vec<FindingRow>, Error> {
    let FindingFilter { provider, class, holder, open, id, before, limit } = filter.clone();
    let class: Option<&str> = class.map(Into::into);
    let id = id.map(|id| id.to_string());
    let before = before.map(|id| id.to_string());
    let params = params![provider, class, holder, open, id, before, page(limit)];
    let rows = store.fetch(LIST, params).await?;
    rows.iter().map(|row| finding_row(row).map_err(unreadable)).collect()
}

pub(super) async fn settle_finding(
    store: &(impl Store + ?Sized),
    id: &FindingId,
    settled: &Settled,
) -> Result<bool, Error> {
    let how: &str = settled.how.into();
    let sql = "update finding set settled = $2, settled_at = $3, settled_by = $4, reason = $5
      where id = $1 and (settled is null or settled = 'ignored')";
    let params = params![id.as_str(), how, settled.at, &settled.by, settled.reason.clone()];
    write_one(store, sql, params).await
}

pub(super) async fn note_removal(
    store: &(impl Store + ?Sized),
    id: &FindingId,
    saga: &SagaId,
) -> Result<bool, Error> {
    write_one(store, "update finding set removal = $2 where id = $1", params![id.as_str(), saga]).await
}

pub(super) async fn forget_findings(store: &(impl Store + ?Sized), before: Timestamp) -> Result<(), Error> {
    // One that is ignored is still to be ignored.
    let sql = "delete from finding where settled_at < $1 and settled <> 'ignored'";
    write_one(store, sql, params![before]).await.map(drop)
}

fn unreadable(error: SqlError) -> Error {
    Error::Unreadable(error.to_string())
}

fn time(row: &Row, column: &str) -> Result<Option<Timestamp>, SqlError> {
    Ok(row.optional_int(column)?.map(Timestamp))
}

fn census_row(row: &Row) -> Result<CensusRow, SqlError> {
    let held_until = Timestamp(row.int("held_until")?);
    let failed_at = time(row, "failed_at")?;
    Ok(CensusRow {
        provider: row.text("provider")?,
        holder: row.optional_text("holder")?.map(|holder| (holder, held_until)),
        started_at: time(row, "started_at")?,
        completed_at: time(row, "completed_at")?,
        pages: row.int("pages")?,
        things: row.int("things")?,
        problem: row.optional_text("problem")?.zip(failed_at),
        failures: row.int("failures")?,
        accepts_absence: row.optional_text("accepts_absence")?,
        next_at: Timestamp(row.int("next_at")?),
    })
}

fn word<T: std::str::FromStr>(row: &Row, column: &str) -> Result<Option<T>, SqlError> {
    let Some(text) = row.optional_text(column)? else { return Ok(None) };
    let read = text.parse().map_err(|_| SqlError::Malformed(format!("column {column} is {text}")))?;
    Ok(Some(read))
}

fn finding_row(row: &Row) -> Result<FindingRow, SqlError> {
    let missing = || SqlError::Malformed("a finding has no class".to_owned());
    let settled = match (word(row, "settled")?, time(row, "settled_at")?, row.optional_text("settled_by")?) {
        (Some(how), Some(at), Some(by)) => {
            Some(Settled { how, at, by, reason: row.optional_text("reason")? })
        }
        _ => None,
    };
    Ok(FindingRow {
        id: FindingId::stored(row.text("id")?),
        provider: row.text("provider")?,
        account: row.optional_text("account")?,
        class: word::<FindingClass>(row, "class")?.ok_or_else(missing)?,
        kind: row.text("kind")?,
        external_id: row.text("external_id")?,
        name: row.text("name")?,
        resource: row.optional_text("resource")?.map(ResourceId::stored),
        holder: row.optional_text("holder")?,
        detail: row.optional_text("detail")?,
        first_seen_at: Timestamp(row.int("first_seen_at")?),
        last_seen_at: Timestamp(row.int("last_seen_at")?),
        times_seen: row.int("times_seen")?,
        removal: row.optional_text("removal")?.map(SagaId::stored),
        settled,
    })
}

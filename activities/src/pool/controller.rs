//! The controller's arithmetic: how many instances a pool is short of.

use std::time::Duration;

use amends_engine::journal::state::SagaState;
use amends_engine::store::tx::{Error as SqlError, Row};
use amends_engine::store::{Error, Store};
use amends_engine::{Env, Failure, SagaId, Timestamp, Tx, params};
use serde::{Deserialize, Serialize};

use super::one;

/// What a look at a pool came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refilled {
    /// How many instances are to be made now.
    pub missing: u32,
    /// Whether three broken boots in a row allow only one at a time.
    pub is_probing: bool,
    /// When the next probe may be made, while it may not be made yet.
    pub probe_at: Option<Timestamp>,
    /// Whether more are wanted than may be paid for: a person should know, claims may wait in vain.
    pub is_capped: bool,
}

impl Refilled {
    /// Why fewer instances are made than are wanted; nothing where that is not so.
    pub fn held_back(&self) -> Option<&'static str> {
        if self.is_capped {
            Some("more instances are wanted than the pool may have")
        } else if self.is_probing {
            Some("its last instances broke, so that one at a time is made")
        } else {
            None
        }
    }
}

/// What a pool has, and who waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Stock {
    min_idle: u32,
    max_total: u32,
    idle: u32,
    under_way: u32,
    total: u32,
    waiting: u32,
    broken_in_a_row: u32,
    /// When the last of those was seen to be broken.
    broken_at: Timestamp,
    /// When the third of them was: since then one at a time is made.
    stopped_at: Timestamp,
    now: Timestamp,
}

/// So many failures in a row, and only a probe is made.
const BREAKER: u32 = 3;
/// How long the breaker is open before the first probe; twice as long after each probe that breaks too, up to the cap.
const COOL_DOWN: Duration = Duration::from_secs(300);
const COOL_DOWN_MAX: Duration = Duration::from_secs(3600);
/// As many failures in a row make the longest wait.
const COUNTED: u32 = 16;

/// How many instances the pool is short of, from what it has and who waits.
pub async fn count_missing(tx: &mut Tx<'_>, pool: &str) -> Result<Refilled, Failure> {
    settle_refills(tx, pool).await?;
    // What may cost something: every instance of which something may be left, and those without a row as yet.
    let row = tx.fetch(STOCK, params![pool]).await?;
    let row = one(row, || Failure::refused("no_such_pool", format!("there is no pool {pool}")))?;
    let newest = tx.fetch(NEWEST, params![pool, COUNTED]).await?;
    let stock = stock(&row, &newest, tx.now())?;
    Ok(missing(stock, tx.paced(cool_down(stock.broken_in_a_row))))
}

/// What a pool has, is to have, and who waits for it.
const STOCK: &str = "select min_idle, max_total,
     (select count(*) from instance where pool = $1 and state = 'idle') as idle,
     (select count(*) from refill where pool = $1 and settled_at is null)
       + (select count(*) from instance
          join instance_saga on instance = id and kind = 'recheck' and ended_at is null
          where pool = $1 and state = 'tainted') as under_way,
     (select count(*) from instance where pool = $1 and state not in ('gone', 'failed'))
       + (select count(*) from refill where pool = $1 and settled_at is null
            and instance not in (select id from instance)) as total,
     (select count(*) from claim_queue where pool = $1) as waiting
   from pool where id = $1";

/// How the last attempts to make an instance ended.
const NEWEST: &str = "select outcome, settled_at from refill where pool = $1 and settled_at is not null
   order by settled_at desc, saga desc limit $2";

fn stock(row: &Row, newest: &[Row], now: Timestamp) -> Result<Stock, SqlError> {
    let mut broken_in_a_row = 0_u32;
    for row in newest {
        if row.text("outcome")? != "broken" {
            break;
        }
        broken_in_a_row += 1;
    }
    let settled = |row: Option<&Row>| row.map_or(Ok(now.0), |row| row.int("settled_at")).map(Timestamp);
    let broken_at = settled(newest.first())?;
    // The third of them is so far behind the newest.
    let third = usize::try_from(broken_in_a_row.saturating_sub(BREAKER)).unwrap_or(usize::MAX);
    let stopped_at = settled(newest.get(third))?;
    let number = |name: &str| row.int(name).map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    Ok(Stock {
        min_idle: number("min_idle")?,
        max_total: number("max_total")?,
        idle: number("idle")?,
        under_way: number("under_way")?,
        total: number("total")?,
        waiting: number("waiting")?,
        broken_in_a_row,
        broken_at,
        stopped_at,
        now,
    })
}

/// A pool as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolStock {
    /// Its id.
    pub id: String,
    /// How many idle instances there shall be.
    pub min_idle: u32,
    /// How many instances there may be.
    pub max_total: u32,
    /// How many are idle.
    pub idle: u32,
    /// How many are being made, or made idle again.
    pub under_way: u32,
    /// How many there are, those under way too.
    pub total: u32,
    /// How many claims wait.
    pub waiting: u32,
    /// Why fewer are made than are wanted.
    pub held_back: Option<HeldBack>,
}

/// Why fewer instances of a pool are made than are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldBack {
    /// In words.
    pub why: &'static str,
    /// Since when, where something began it: a claim that cannot be served, or the third boot in a row that broke.
    pub since: Option<Timestamp>,
    /// When it is tried again by itself; nothing where that hangs on something else.
    pub next_try_at: Option<Timestamp>,
    /// On what it hangs, in words.
    pub until: &'static str,
}

impl Stock {
    /// How many of the claims that wait can be served by what may be made; nothing where even what shall be idle cannot be.
    fn room(&self) -> Option<u32> {
        let may_have = self.max_total.saturating_sub(self.total).saturating_add(self.idle);
        may_have.saturating_add(self.under_way).checked_sub(self.min_idle)
    }

    /// What is said of a pool that is held back; `waits_since` is when the first claim came that is not served.
    fn held_back(&self, refilled: &Refilled, waits_since: Option<Timestamp>) -> Option<HeldBack> {
        let why = refilled.held_back()?;
        if refilled.is_capped {
            let until = "an instance of it is torn down, or it may have more";
            return Some(HeldBack { why, since: waits_since, next_try_at: None, until });
        }
        let until = match refilled.probe_at {
            Some(_) => "one more is made then, to see whether that one works",
            None if self.under_way > 0 => "the one that is being made works, or breaks too",
            None => "one is made with the next look, to see whether that one works",
        };
        Some(HeldBack { why, since: Some(self.stopped_at), next_try_at: refilled.probe_at, until })
    }
}

/// So many pools behind this one, by id, as they are now.
pub async fn pool_stocks(
    store: &dyn Store,
    env: &Env,
    after: &str,
    most: usize,
) -> Result<Vec<PoolStock>, Error> {
    let unreadable = |error: SqlError| Error::Unreadable(error.to_string());
    let mut all = Vec::new();
    let ids = pools(store).await?.into_iter().filter(|id| id.as_str() > after);
    for id in ids.take(most) {
        let rows = store.fetch(STOCK.into(), params![&id]).await?;
        let newest = store.fetch(NEWEST.into(), params![&id, COUNTED]).await?;
        let Some(row) = rows.first() else { continue };
        let stock = stock(row, &newest, env.now()).map_err(unreadable)?;
        let refilled = missing(stock, env.paced(cool_down(stock.broken_in_a_row)));
        let first = "select since from claim_queue where pool = $1 order by since limit 1 offset $2";
        let waits = match stock.room().filter(|_| refilled.is_capped) {
            Some(room) => store.fetch(first.into(), params![&id, room]).await?,
            None => Vec::new(),
        };
        let waits_since = waits.first().map(|row| row.int("since")).transpose().map_err(unreadable)?;
        let Stock { min_idle, max_total, idle, under_way, total, waiting, .. } = stock;
        let held_back = stock.held_back(&refilled, waits_since.map(Timestamp));
        all.push(PoolStock { id, min_idle, max_total, idle, under_way, total, waiting, held_back });
    }
    Ok(all)
}

/// Writes that a saga was started to make this instance: from now on it is counted.
pub async fn record_refill(
    tx: &mut Tx<'_>,
    saga: &SagaId,
    pool: &str,
    instance: &str,
) -> Result<(), Failure> {
    let now = tx.now();
    tx.execute(
        "insert into refill (saga, pool, instance, started_at) values ($1, $2, $3, $4)",
        params![saga, pool, instance, now],
    )
    .await?;
    Ok(())
}

/// The saga kept its promise: its instance is idle.
pub(super) async fn settle_idle(tx: &mut Tx<'_>, instance: &str) -> Result<(), Failure> {
    let now = tx.now();
    tx.execute(
        "update refill set outcome = 'idle', settled_at = $2 where instance = $1 and settled_at is null",
        params![instance, now],
    )
    .await?;
    Ok(())
}

/// A saga that has turned round makes no instance any more, however long its undoing takes. It cannot be left to
/// that saga to say so: one that is cancelled before its first step never writes anything here.
async fn settle_refills(tx: &mut Tx<'_>, pool: &str) -> Result<(), Failure> {
    let now = tx.now();
    let open =
        tx.fetch("select saga from refill where pool = $1 and settled_at is null", params![pool]).await?;
    for row in open {
        let saga = SagaId::stored(row.text("saga")?);
        let is_making = match tx.saga_state(&saga).await? {
            Some((state, _)) => !state.is_ended() && state != SagaState::Compensating,
            None => false,
        };
        if !is_making {
            tx.execute(
                "update refill set outcome = 'broken', settled_at = $2 where saga = $1",
                params![&saga, now],
            )
            .await?;
        }
    }
    Ok(())
}

/// How long after the last of so many failures in a row the next instance may be made.
fn cool_down(broken_in_a_row: u32) -> Duration {
    let Some(probes) = broken_in_a_row.checked_sub(BREAKER) else { return Duration::ZERO };
    let factor = 1_u32.checked_shl(probes).unwrap_or(u32::MAX);
    COOL_DOWN.saturating_mul(factor).min(COOL_DOWN_MAX)
}

/// What is short, with a breaker that cools down for so long.
fn missing(stock: Stock, cool_down: Duration) -> Refilled {
    let wanted = stock.min_idle.saturating_add(stock.waiting);
    let short = wanted.saturating_sub(stock.idle.saturating_add(stock.under_way));
    let allowed = short.min(stock.max_total.saturating_sub(stock.total));
    let is_probing = stock.broken_in_a_row >= BREAKER;
    let probe_at = Some(stock.broken_at.plus(cool_down)).filter(|at| is_probing && stock.now < *at);
    let missing = match (probe_at, is_probing) {
        (Some(_), _) => 0,
        (None, true) => allowed.min(1_u32.saturating_sub(stock.under_way)),
        (None, false) => allowed,
    };
    Refilled { missing, is_probing, probe_at, is_capped: allowed < short }
}

/// The ids of all pools.
pub async fn pools(store: &dyn Store) -> Result<Vec<String>, Error> {
    let rows = store.fetch("select id from pool order by id".into(), params![]).await?;
    rows.iter().map(|row| row.text("id").map_err(|error| Error::Unreadable(error.to_string()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: Stock = Stock {
        min_idle: 3,
        max_total: 10,
        idle: 0,
        under_way: 0,
        total: 0,
        waiting: 0,
        broken_in_a_row: 0,
        broken_at: Timestamp(0),
        stopped_at: Timestamp(0),
        now: Timestamp(0),
    };

    fn missing(stock: Stock) -> Refilled {
        super::missing(stock, cool_down(stock.broken_in_a_row))
    }

    #[test]
    fn a_pool_that_is_held_back_says_why() {
        assert_eq!(missing(EMPTY).held_back(), None);
        assert!(missing(Stock { max_total: 2, ..EMPTY }).held_back().unwrap().contains("may have"));
        assert!(missing(Stock { broken_in_a_row: 3, ..EMPTY }).held_back().unwrap().contains("broke"));
    }

    #[test]
    fn a_pool_that_is_held_back_says_since_when_and_until_when() {
        let told = |stock: Stock| stock.held_back(&missing(stock), Some(Timestamp(5)));
        assert_eq!(told(EMPTY), None);
        let capped = told(Stock { max_total: 2, ..EMPTY }).unwrap();
        assert_eq!((capped.since, capped.next_try_at), (Some(Timestamp(5)), None));
        let hot = Stock { broken_in_a_row: 3, stopped_at: Timestamp(7), now: Timestamp(9), ..EMPTY };
        let cools = told(hot).unwrap();
        assert_eq!(
            (cools.since, cools.next_try_at),
            (Some(Timestamp(7)), Some(Timestamp(0).plus(COOL_DOWN)))
        );
        let probes = told(Stock { under_way: 1, total: 1, now: Timestamp(i64::MAX), ..hot }).unwrap();
        assert_eq!((probes.next_try_at, probes.until.contains("being made")), (None, true));
    }

    #[test]
    fn the_first_claim_that_is_not_served_is_behind_what_may_be_made() {
        let full = Stock { min_idle: 0, max_total: 4, total: 4, waiting: 9, ..EMPTY };
        assert_eq!(full.room(), Some(0));
        assert_eq!(Stock { idle: 1, under_way: 1, ..full }.room(), Some(2));
        assert_eq!(Stock { min_idle: 3, total: 2, ..full }.room(), None);
    }

    #[test]
    fn what_is_under_way_is_counted_so_that_bursts_do_not_overshoot() {
        assert_eq!(missing(EMPTY).missing, 3);
        assert_eq!(missing(Stock { idle: 1, under_way: 2, total: 3, ..EMPTY }).missing, 0);
        let waited_for = Stock { min_idle: 0, under_way: 1, total: 1, waiting: 3, ..EMPTY };
        assert_eq!(missing(waited_for).missing, 2, "claims that wait count too");
    }

    #[test]
    fn what_may_be_spent_is_never_exceeded_and_the_want_is_told() {
        let full = missing(Stock { max_total: 4, total: 4, waiting: 2, ..EMPTY });
        assert_eq!(full, Refilled { missing: 0, is_probing: false, probe_at: None, is_capped: true });
        assert!(!missing(Stock { idle: 3, total: 10, ..EMPTY }).is_capped, "full, and nobody wants more");
    }

    #[test]
    fn after_three_broken_boots_one_probe_at_a_time_once_they_cooled_down() {
        let probe_at = Timestamp(0).plus(COOL_DOWN);
        let hot = Stock { broken_in_a_row: 3, now: Timestamp(probe_at.0 - 1), ..EMPTY };
        let open = Refilled { missing: 0, is_probing: true, probe_at: Some(probe_at), is_capped: false };
        assert_eq!(missing(hot), open);
        let broken = Stock { now: probe_at, ..hot };
        assert_eq!(missing(broken).missing, 1);
        assert_eq!(missing(Stock { under_way: 1, total: 1, ..broken }).missing, 0);
        assert_eq!(missing(Stock { broken_in_a_row: 2, ..EMPTY }).missing, 3);
    }

    /// The controller looks every second, and whatever it starts breaks at once.
    #[test]
    fn an_image_that_does_not_exist_makes_a_few_sagas_an_hour() {
        let (mut started, mut broken_in_a_row, mut broken_at) = (Vec::new(), 0, Timestamp(0));
        for second in 0..24 * 3600_u64 {
            let now = Timestamp(0).plus(Duration::from_secs(second));
            let made = missing(Stock { min_idle: 1, broken_in_a_row, broken_at, now, ..EMPTY }).missing;
            if made > 0 {
                (broken_in_a_row, broken_at) = (broken_in_a_row + made, now);
                started.push(second);
            }
        }
        let within = |from: u64, to: u64| started.iter().filter(|at| (from..to).contains(at)).count();
        assert_eq!(within(0, 120), 3, "{started:?}");
        assert_eq!(within(0, 3600), 6, "{started:?}");
        assert!(within(3600, 24 * 3600) <= 24, "one an hour from then on: {started:?}");
    }

    #[test]
    fn no_number_is_too_large() {
        let huge = u32::MAX;
        let stock = Stock {
            min_idle: huge,
            max_total: huge,
            idle: huge,
            under_way: huge,
            total: huge,
            waiting: huge,
            broken_in_a_row: huge,
            broken_at: Timestamp(i64::MAX),
            stopped_at: Timestamp(i64::MAX),
            now: Timestamp(i64::MAX),
        };
        assert_eq!(missing(stock).missing, 0);
        stock.room();
    }
}

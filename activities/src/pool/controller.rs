//! The controller's arithmetic: how many instances a pool is short of.

use amends_engine::store::{Error, Store};
use amends_engine::{Failure, Tx, params};
use serde::{Deserialize, Serialize};

use super::one;

/// What a look at a pool came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refilled {
    /// How many instances are to be made now.
    pub missing: u32,
    /// Whether three broken boots in a row allow only one at a time.
    pub is_probing: bool,
}

/// So many failures in a row, and only a probe is made.
const BREAKER: usize = 3;

/// How many instances the pool is short of, from what it has and who waits.
pub async fn count_missing(tx: &mut Tx<'_>, pool: &str) -> Result<Refilled, Failure> {
    let row = tx
        .fetch(
            "select min_idle, max_total,
               (select count(*) from instance where pool = $1 and state = 'idle') as idle,
               (select count(*) from instance where pool = $1 and state = 'provisioning') as provisioning,
               (select count(*) from instance where pool = $1 and state not in ('gone', 'failed')) as total,
               (select count(*) from claim_queue where pool = $1) as waiting
             from pool where id = $1",
            params![pool],
        )
        .await?;
    let row = one(row, || Failure::refused("no_such_pool", format!("there is no pool {pool}")))?;
    let newest = tx
        .fetch(
            "select state from instance where pool = $1 and state <> 'provisioning' order by created_at desc limit 3",
            params![pool],
        )
        .await?;
    let mut failures = 0;
    for row in &newest {
        failures += usize::from(row.text("state")? == "failed");
    }
    let number = |name: &str| row.int(name).map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    Ok(missing(
        number("min_idle")?,
        number("max_total")?,
        number("idle")?,
        number("provisioning")?,
        number("total")?,
        number("waiting")?,
        failures,
    ))
}

fn missing(
    min_idle: u32,
    max_total: u32,
    idle: u32,
    under_way: u32,
    total: u32,
    waiting: u32,
    failures: usize,
) -> Refilled {
    let short = (min_idle + waiting).saturating_sub(idle + under_way);
    let allowed = short.min(max_total.saturating_sub(total));
    let is_probing = failures >= BREAKER;
    let missing = if is_probing { allowed.min(1_u32.saturating_sub(under_way)) } else { allowed };
    Refilled { missing, is_probing }
}

/// The ids of all pools.
pub async fn pools(store: &dyn Store) -> Result<Vec<String>, Error> {
    let rows = store.fetch("select id from pool order by id", params![]).await?;
    rows.iter().map(|row| row.text("id").map_err(|error| Error::Unreadable(error.to_string()))).collect()
}

#[cfg(test)]
mod tests {
    use super::missing;

    #[test]
    fn what_is_under_way_is_counted_so_that_bursts_do_not_overshoot() {
        assert_eq!(missing(3, 10, 0, 0, 0, 0, 0).missing, 3);
        assert_eq!(missing(3, 10, 1, 2, 3, 0, 0).missing, 0);
        assert_eq!(missing(0, 10, 0, 1, 1, 3, 0).missing, 2, "claims that wait count too");
        assert_eq!(missing(3, 4, 0, 0, 4, 2, 0).missing, 0, "never above what may be spent");
    }

    #[test]
    fn after_three_broken_boots_one_probe_at_a_time() {
        assert_eq!(missing(3, 10, 0, 0, 0, 0, 3).missing, 1);
        assert_eq!(missing(3, 10, 0, 1, 1, 0, 3).missing, 0);
    }
}

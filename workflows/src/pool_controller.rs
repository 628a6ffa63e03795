//! The pool controller: decides how many instances to make, and starts that many sagas, in one transaction.

use amends_activities::pool::{Refilled, count_missing, record_refill};
use amends_engine::ids::short;
use amends_engine::store::NewSaga;
use amends_engine::{Failure, Local, Tx};
use serde::{Deserialize, Serialize};

use crate::replenish::{Replenish, ReplenishRequest};

/// Fills a pool up to what it should have. Run as often as one likes: what is under way counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefillPool {
    /// Which pool.
    pub pool: String,
    /// `<prefix>-<environment>`: what names at providers begin with.
    pub prefix: String,
}

/// So many sagas are started in one transaction, in which nobody else writes; the rest with the next look.
const AT_ONCE: u32 = 20;

impl Local for RefillPool {
    const NAME: &'static str = "pool.refill";
    type Output = Refilled;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Refilled, Failure> {
        let refilled = count_missing(tx, &self.pool).await?;
        for _ in 0..refilled.missing.min(AT_ONCE) {
            let unique = short(tx.uuid());
            let instance = format!("in_{unique}");
            let request = ReplenishRequest {
                pool: self.pool.clone(),
                name: format!("{}-{unique}", self.prefix),
                instance: instance.clone(),
            };
            let new = NewSaga::of::<Replenish>(tx.env(), format!("replenish:{instance}"), &request)?
                .labelled("instance", &instance)
                .labelled("pool", &self.pool);
            let saga = tx.start::<Replenish>(new).await?;
            record_refill(tx, &saga, &self.pool, &instance).await?;
        }
        Ok(refilled)
    }
}

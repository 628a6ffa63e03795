//! Findings: what the pool does about what the sweep found.

use amends_engine::store::Error;
use amends_engine::sweep::{FindingClass, FindingRow};
use amends_engine::{Engine, Failure, Local, Tx, params};
use serde::{Deserialize, Serialize};

/// Takes an idle instance out of the pool of which something has vanished; only a teardown ends it. One that somebody
/// has, or that a saga has in hand, stays as it is: the finding says what is missing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaintIncomplete {
    /// Which.
    pub instance: String,
}

impl Local for TaintIncomplete {
    const NAME: &'static str = "pool.taint_incomplete";
    /// Whether it was idle.
    type Output = bool;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<bool, Failure> {
        let now = tx.now();
        let tainted = tx
            .execute(
                "update instance set state = 'tainted', claim_epoch = claim_epoch + 1, changed_at = $2
                 where id = $1 and state = 'idle'",
                params![&self.instance, now],
            )
            .await?;
        Ok(tainted > 0)
    }
}

/// Takes a number that is not the account's any more out of the stock: no claim is given it. Whoever has it keeps it
/// on his instance's page, where the finding says what is missing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetireNumber {
    /// In E.164.
    pub phone_number: String,
}

impl Local for RetireNumber {
    const NAME: &'static str = "number.retire";
    /// Whether it was in the stock.
    type Output = bool;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<bool, Failure> {
        let now = tx.now();
        let retired = tx
            .execute(
                "update number set telnyx_id = null, changed_at = $2
                 where phone_number = $1 and state in ('available', 'quarantine') and telnyx_id is not null",
                params![&self.phone_number, now],
            )
            .await?;
        Ok(retired > 0)
    }
}

/// What the finding means for the stock of numbers.
pub(crate) async fn retire(engine: &Engine, finding: &FindingRow) -> Result<(), Error> {
    if finding.class != FindingClass::Ghost || finding.kind != "number" {
        return Ok(());
    }
    engine.transact(RetireNumber { phone_number: finding.name.clone() }).await.map(drop)
}

/// What a finding means for the instance that holds what it is about.
pub(crate) async fn taint(engine: &Engine, finding: &FindingRow) -> Result<(), Error> {
    let instance = finding.holder.as_ref().filter(|holder| holder.starts_with("in_"));
    let (FindingClass::Ghost, Some(instance)) = (finding.class, instance) else { return Ok(()) };
    engine.transact(TaintIncomplete { instance: instance.clone() }).await.map(drop)
}

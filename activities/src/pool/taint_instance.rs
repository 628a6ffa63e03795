//! Taint an instance: it turned out to be somebody else's, or not clean, and nobody gets it before a person looked.

use amends_engine::{Failure, Local, Tx, params};
use serde::{Deserialize, Serialize};

/// Takes an instance out of the pool for good; only a teardown ends it. It frees the conversation for another one.
///
/// Done before the claim is undone: the release then finds the instance tainted, and leaves it so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaintInstance {
    /// Which.
    pub instance: String,
    /// Under which number of claim it was seen.
    pub epoch: i64,
}

impl Local for TaintInstance {
    const NAME: &'static str = "pool.taint_instance";
    type Output = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), Failure> {
        let now = tx.now();
        // Fenced meanwhile, it is the teardown's already.
        tx.execute(
            "update instance set state = 'tainted', conversation_target = null, changed_at = $3
             where id = $1 and claim_epoch = $2 and state in ('claiming', 'pending_acceptance')",
            params![&self.instance, self.epoch, now],
        )
        .await?;
        Ok(())
    }
}

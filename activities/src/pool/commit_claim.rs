//! Record a claim: the instance is its owner's. Forward only.

use amends_engine::{Failure, Local, Tx, params};
use serde::{Deserialize, Serialize};

use super::vacate;

/// Writes what the claim came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordClaim {
    /// Which instance.
    pub instance: String,
    /// Under which number of claim.
    pub epoch: i64,
    /// What the agent is called.
    pub agent_name: String,
    /// The conversation it is in.
    pub conversation: Option<String>,
}

/// What a claim was recorded as.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Committed {
    /// Whether the instance is claimed; not when a teardown has fenced it meanwhile.
    pub is_claimed: bool,
}

impl Local for RecordClaim {
    const NAME: &'static str = "pool.record_claim";
    type Output = Committed;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Committed, Failure> {
        let now = tx.now();
        let changed = tx
            .execute(
                "update instance set state = 'claimed', agent_name = $3, conversation = $4, changed_at = $5
                 where id = $1 and claim_epoch = $2 and state in ('claiming', 'pending_acceptance')",
                params![&self.instance, self.epoch, &self.agent_name, self.conversation.clone(), now],
            )
            .await?;
        vacate(tx, &self.instance).await?;
        Ok(Committed { is_claimed: changed > 0 })
    }
}

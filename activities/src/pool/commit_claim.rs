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

/// Writes which conversation the claim's instance is in, before there is no way back: no other instance may be in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NoteConversation {
    /// Which instance.
    pub instance: String,
    /// Under which number of claim.
    pub epoch: i64,
    /// The conversation, as the runtime reports it.
    pub conversation: String,
}

impl Local for NoteConversation {
    const NAME: &'static str = "pool.note_conversation";
    type Output = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), Failure> {
        let now = tx.now();
        let noted = tx
            .execute(
                "update instance set conversation = $3, changed_at = $4
                 where id = $1 and claim_epoch = $2 and state in ('claiming', 'pending_acceptance')",
                params![&self.instance, self.epoch, &self.conversation, now],
            )
            .await;
        noted.map(drop).map_err(|error| match error {
            amends_engine::store::tx::Error::Constraint(_) => {
                Failure::refused("conversation_claimed", "another instance is in this conversation")
            }
            other => other.into(),
        })
    }
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

//! See that an AgentMail inbox is gone: only then is it crossed off the ledger.

use amends_engine::{Activity, Call, Effect, Failure, Gate, ResourceId};
use serde::{Deserialize, Serialize};

use super::AgentMail;
use crate::Gone;

/// Asks for an inbox that should be gone; none while it is still there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InboxGone {
    /// Its address.
    pub address: String,
    /// The ledger rows that its absence closes.
    pub resources: Vec<ResourceId>,
}

impl Activity for InboxGone {
    const NAME: &'static str = "agentmail.inbox_gone";
    const EFFECT: Effect = Effect::Read;
    type Client = AgentMail;
    type Output = Option<Gone>;

    fn removes(&self) -> Vec<ResourceId> {
        self.resources.clone()
    }

    fn gates(&self, _: &AgentMail) -> Vec<Gate> {
        vec![Gate::credential("agentmail")]
    }

    async fn execute(&self, agentmail: &AgentMail, _: &Call) -> Result<Option<Gone>, Failure> {
        Ok(agentmail.get(&self.address).await?.is_none().then_some(Gone {}))
    }
}

//! Delete an AgentMail inbox, with the mail in it.

use amends_engine::{Activity, Call, Effect, Failure, Gate, Object};
use serde::{Deserialize, Serialize};

use super::AgentMail;

/// Deletes an inbox; one that is gone already is success.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeleteInbox {
    /// Its address.
    pub address: String,
}

impl Activity for DeleteInbox {
    const NAME: &'static str = "agentmail.delete_inbox";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = AgentMail;
    type Output = ();

    fn object(&self, _: &Call) -> Option<Object> {
        Some(Object::new("agentmail", "inbox", &self.address))
    }

    fn gates(&self, _: &AgentMail) -> Vec<Gate> {
        vec![Gate::credential("agentmail")]
    }

    async fn execute(&self, agentmail: &AgentMail, _: &Call) -> Result<(), Failure> {
        agentmail.delete(&self.address).await
    }
}

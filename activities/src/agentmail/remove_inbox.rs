//! Remove an AgentMail inbox, with the mail in it, and see it gone.

use std::time::Duration;

use amends_engine::{Call, Failure, Gate, Object, Removal, ResourceId, secs};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::AgentMail;

/// Takes an inbox away.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RemoveInbox {
    /// Its address; none where that was never known, and then it is looked for by its client id.
    pub address: Option<String>,
    /// Its client id, which is ours alone.
    pub name: String,
    /// The ledger rows that its absence closes.
    pub resources: Vec<ResourceId>,
}

/// How long an inbox that was made, or deleted, may be shown wrongly.
pub(crate) const SETTLE_AFTER: Duration = secs(10);

impl RemoveInbox {
    async fn addresses(&self, agentmail: &AgentMail) -> Result<Vec<String>, Failure> {
        if let Some(address) = &self.address {
            return Ok(vec![address.clone()]);
        }
        let text = |inbox: &Value, field: &str| inbox[field].as_str().map(str::to_owned);
        let listed = agentmail.list().await?;
        let ours = listed.iter().filter(|inbox| text(inbox, "client_id").as_ref() == Some(&self.name));
        Ok(ours.filter_map(|inbox| text(inbox, "inbox_id")).collect())
    }
}

impl Removal for RemoveInbox {
    const NAME: &'static str = "agentmail.remove_inbox";
    const SETTLE_AFTER: Duration = SETTLE_AFTER;
    type Client = AgentMail;

    fn resources(&self) -> Vec<ResourceId> {
        self.resources.clone()
    }

    fn object(&self, _: &Call) -> Option<Object> {
        self.address.as_ref().map(|id| Object::new("agentmail", "inbox", id))
    }

    fn gates(&self, _: &AgentMail) -> Vec<Gate> {
        vec![Gate::credential("agentmail")]
    }

    async fn is_there(&self, agentmail: &AgentMail, _: &Call) -> Result<bool, Failure> {
        for address in self.addresses(agentmail).await? {
            if agentmail.get(&address).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn request(&self, agentmail: &AgentMail, _: &Call) -> Result<(), Failure> {
        for address in self.addresses(agentmail).await? {
            agentmail.delete(&address).await?;
        }
        Ok(())
    }
}

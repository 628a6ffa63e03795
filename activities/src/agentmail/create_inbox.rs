//! Create an AgentMail inbox: an instance's own address.
//!
//! AgentMail remembers our `client_id` and answers a repeated call with the inbox it made the first time.

use std::time::Duration;

use crate::answer::{Answered, in_doubt, still_there, unreadable};
use amends_engine::{Activity, Call, Effect, Failure, Gate, Resource, secs};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::AgentMail;
use super::remove_inbox::SETTLE_AFTER;

/// Asks for an inbox under our `client_id`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CreateInbox {
    /// `<prefix>-<environment>-<instance>`: client id and user name.
    pub name: String,
    /// The name that mail from it bears.
    pub display_name: String,
}

/// An AgentMail inbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inbox {
    /// The address, which is also its id.
    pub address: String,
}

impl CreateInbox {
    /// The inbox that has our name as its user name, if it is ours.
    async fn taken(&self, agentmail: &AgentMail, name: &str) -> Result<Option<Inbox>, Failure> {
        let there = agentmail.get(&format!("{name}@{DOMAIN}")).await?;
        let ours = there.filter(|inbox| inbox.text("/client_id").as_deref() == Some(name));
        ours.map(|inbox| Ok(Inbox { address: inbox.needed("/inbox_id")? })).transpose()
    }
}

/// Where an inbox is whose domain is not said.
const DOMAIN: &str = "agentmail.to";

impl Activity for CreateInbox {
    const NAME: &'static str = "agentmail.create_inbox";
    const EFFECT: Effect = Effect::Repeatable;
    const TIME_LIMIT: Duration = secs(90);
    type Client = AgentMail;
    type Output = Inbox;

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("agentmail", "inbox", call.name(&self.name)))
    }

    fn gates(&self, _: &AgentMail) -> Vec<Gate> {
        vec![Gate::credential("agentmail")]
    }

    fn external_id(made: &Inbox) -> Option<String> {
        Some(made.address.clone())
    }

    async fn execute(&self, agentmail: &AgentMail, call: &Call) -> Result<Inbox, Failure> {
        let name = call.name(&self.name);
        let asked = json!({
            "client_id": name, "username": name, "display_name": self.display_name,
            "metadata": {"amends": call.tag()},
        });
        match agentmail.create(&asked).await? {
            Answered::Taken(words) => match self.taken(agentmail, &name).await.map_err(in_doubt)? {
                Some(inbox) => Ok(inbox),
                None => Err(Failure::refused("resource_taken", words)),
            },
            answered => {
                let reply = answered.done()?;
                if reply.text("/client_id").as_deref() != Some(&name) {
                    return Err(in_doubt(unreadable("AgentMail answered an inbox that is not ours")));
                }
                let address = reply.needed("/inbox_id")?;
                // It may remember an inbox that is gone by now.
                match agentmail.get(&address).await.map_err(in_doubt)? {
                    Some(_) => Ok(Inbox { address }),
                    None => Err(in_doubt(unreadable("AgentMail answered an inbox that does not show"))),
                }
            }
        }
    }

    async fn compensate(&self, agentmail: &AgentMail, made: &Inbox, call: &Call) -> Result<(), Failure> {
        if agentmail.get(&made.address).await?.is_none() {
            return call.absent(SETTLE_AFTER);
        }
        agentmail.delete(&made.address).await?;
        Err(still_there("AgentMail was asked to delete the inbox"))
    }
}

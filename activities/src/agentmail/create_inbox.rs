//! Create an AgentMail inbox: an instance's own address.
//!
//! AgentMail remembers our `client_id` and answers a repeated call with the inbox it made the first time.

use std::time::Duration;

use amends_engine::{Activity, Call, Effect, Failure, Gate, Resource, secs};
use serde::{Deserialize, Serialize};

use super::AgentMail;

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

    // BODY
    async fn execute(&self, _: &AgentMail, _: &Call) -> Result<Self::Output, Failure> {
        Err(Failure::refused("unfinished", Self::NAME))
    }
    // END
}

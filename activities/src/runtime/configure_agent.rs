//! Configure an agent: who it is, what it may do, and with which handles.

use std::time::Duration;

use crate::answer::Answered;
use amends_engine::{Activity, Call, Effect, Failure, Gate, Made, Resource, SecretRef, secs};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{Agent, operation_id};
use super::hold_container::Held;
use super::{Runtime, answers};

/// Sends the runtime its instructions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigureAgent {
    /// The container, as it is on the ledger.
    pub container: Made<Held>,
    /// Where the runtime answers, without a scheme.
    pub domain: String,
    /// The instance's bearer token.
    pub token: SecretRef,
    /// The claim it speaks for; an older one is refused by the runtime.
    pub epoch: i64,
    /// What the agent is called.
    pub agent_name: String,
    /// What it is told.
    pub instructions: String,
    /// The model it thinks with; the runtime's own choice if none.
    pub model: Option<String>,
    /// The tools it was given.
    pub tools: Vec<ToolHandle>,
}

/// A tool and the handle by which the agent has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolHandle {
    /// The tool's id in the registry, as `agentmail`.
    pub tool: String,
    /// An address, a number.
    pub handle: String,
}

/// A runtime that took its configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Configured {}

impl ConfigureAgent {
    fn agent(&self) -> Agent<'_> {
        Agent { domain: &self.domain, token: &self.token, epoch: self.epoch }
    }
}

impl Activity for ConfigureAgent {
    const NAME: &'static str = "runtime.configure_agent";
    const EFFECT: Effect = Effect::Repeatable;
    const TIME_LIMIT: Duration = secs(90);
    type Client = Runtime;
    type Output = Configured;

    fn resource(&self, _: &Call) -> Option<Resource> {
        let resource = Resource::new("runtime", "configuration", self.domain.clone());
        Some(resource.within(self.container.step().clone()))
    }

    fn gates(&self, _: &Runtime) -> Vec<Gate> {
        super::gates(&self.domain)
    }

    async fn execute(&self, runtime: &Runtime, call: &Call) -> Result<Configured, Failure> {
        let body = json!({
            "agentName": self.agent_name, "instructions": self.instructions,
            "metadata": {"model": self.model, "tools": self.tools},
        });
        let id = operation_id(call, &answers::PROVISION);
        match runtime.tell(&answers::PROVISION, self.agent(), &id, call, &body).await? {
            // A call of ours that is repeated gets its stored answer, so that who bound it was somebody else.
            Answered::Taken(words) => Err(Failure::refused("foreign_conversation", words)),
            answered => answered.done().map(|_| Configured {}),
        }
    }
}

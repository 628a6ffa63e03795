//! Await acceptance: a join is asked for at once, and let in later by a person.

use amends_engine::{Activity, Call, Effect, Failure, Made, SecretRef};
use serde::{Deserialize, Serialize};

use super::Runtime;
use super::join_conversation::Joined;

/// Asks whether the runtime was let into its conversation; none while it waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AwaitAcceptance {
    /// Where the runtime answers, without a scheme.
    pub domain: String,
    /// The instance's bearer token.
    pub token: SecretRef,
    /// The join that waits.
    pub joined: Made<Joined>,
}

/// A runtime that was let in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// The conversation's id.
    pub conversation: String,
}

impl Activity for AwaitAcceptance {
    const NAME: &'static str = "runtime.await_acceptance";
    const EFFECT: Effect = Effect::Read;
    type Client = Runtime;
    type Output = Option<Accepted>;

    async fn execute(&self, runtime: &Runtime, call: &Call) -> Result<Option<Accepted>, Failure> {
        let status = runtime.status(&self.domain, &self.token, call).await?;
        let is_ours = status.operation.as_ref() == Some(&self.joined.operation);
        match status.conversation {
            Some(conversation) if is_ours => Ok(Some(Accepted { conversation })),
            Some(_) => {
                Err(Failure::refused("foreign_conversation", "the runtime is bound to another conversation"))
            }
            None => Ok(None),
        }
    }
}

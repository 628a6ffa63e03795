//! Observe a conversation: the read on which a claim turns from undoable to done.

use std::time::Duration;

use crate::answer::not_yet;
use amends_engine::{Activity, Call, Effect, Failure, Made, SecretRef, secs};
use serde::{Deserialize, Serialize};

use super::Runtime;
use super::join_conversation::Joined;

/// Asks whether the runtime is in the conversation it joined, by the operation that joined it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObserveConversation {
    /// Where the runtime answers, without a scheme.
    pub domain: String,
    /// The instance's bearer token.
    pub token: SecretRef,
    /// The join.
    pub joined: Made<Joined>,
    /// The conversation that it led to.
    pub conversation: String,
}

/// A runtime that was seen in its conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    /// The conversation's id.
    pub conversation: String,
}

impl Activity for ObserveConversation {
    const NAME: &'static str = "runtime.observe_conversation";
    const EFFECT: Effect = Effect::Read;
    const GIVE_UP_AFTER: Duration = secs(600);
    type Client = Runtime;
    type Output = Bound;

    async fn execute(&self, runtime: &Runtime, call: &Call) -> Result<Bound, Failure> {
        let status = runtime.status(&self.domain, &self.token, call).await?;
        let is_ours = status.operation.as_ref() == Some(&self.joined.operation);
        match status.conversation {
            Some(bound) if is_ours && bound == self.conversation => Ok(Bound { conversation: bound }),
            Some(_) => {
                Err(Failure::refused("foreign_conversation", "the runtime is bound to another conversation"))
            }
            None => Err(not_yet("the runtime is not in its conversation yet")),
        }
    }
}

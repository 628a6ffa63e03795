//! Join a conversation: the step after which an instance is somebody's.
//!
//! When the answer is lost the runtime is asked, never reset: a reset would throw a bound user out. A conversation is ours
//! if the runtime says that our operation made it; which one it is proves nothing.

use std::time::Duration;

use crate::answer::{Answered, Operation, in_doubt, not_yet};
use amends_engine::activity::Cause;
use amends_engine::{Activity, Call, Effect, Failure, Found, Resource, SecretRef, secs};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{Agent, operation_id};
use super::{Runtime, answers};

/// Has the runtime join a conversation, or open one of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JoinConversation {
    /// Where the runtime answers, without a scheme.
    pub domain: String,
    /// The instance's bearer token.
    pub token: SecretRef,
    /// The claim it speaks for; an older one is refused by the runtime.
    pub epoch: i64,
    /// The invitation; without one the runtime opens a conversation.
    pub join_url: Option<String>,
}

/// A conversation that the runtime joined.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Joined {
    /// The conversation's id.
    pub conversation: String,
}

impl Activity for JoinConversation {
    const NAME: &'static str = "runtime.join_conversation";
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(2) };
    const TIME_LIMIT: Duration = secs(90);
    type Client = Runtime;
    type Output = Joined;

    fn resource(&self, _: &Call) -> Option<Resource> {
        Some(Resource::new("runtime", "binding", self.domain.clone()))
    }

    fn external_id(made: &Joined) -> Option<String> {
        Some(made.conversation.clone())
    }

    async fn execute(&self, runtime: &Runtime, call: &Call) -> Result<Joined, Failure> {
        let body = match &self.join_url {
            Some(url) => json!({"inviteUrl": url}),
            None => json!({}),
        };
        let operation = self.operation();
        let id = operation_id(call, operation);
        match runtime.tell(operation, self.agent(), &id, call, &body).await? {
            // Bound already: by an attempt of ours, or by somebody else.
            Answered::Taken(_) => match self.find(runtime, call).await.map_err(in_doubt)? {
                Found::Usable(joined) => Ok(joined),
                _ => Err(waits("the runtime says that it is bound, and shows no conversation")),
            },
            answered => match answered.done()?.text("/conversationId") {
                Some(conversation) => Ok(Joined { conversation }),
                None => Err(waits("the invitation is not accepted yet")),
            },
        }
    }

    // Never a reset: only the runtime knows what became of a join whose answer was lost.
    async fn find(&self, runtime: &Runtime, call: &Call) -> Result<Found<Joined>, Failure> {
        let status = runtime.status(&self.domain, &self.token, call).await?;
        let id = operation_id(call, self.operation());
        let is_ours = status.operation.as_ref() == Some(&id);
        match status.conversation {
            Some(bound) if is_ours => Ok(Found::Usable(Joined { conversation: bound })),
            None if status.is_pending && (is_ours || status.operation.is_none()) => {
                Err(not_yet("the runtime is still joining"))
            }
            None if !status.is_pending => Ok(Found::Nothing),
            _ => {
                Err(Failure::refused("foreign_conversation", "the runtime is bound to another conversation"))
            }
        }
    }

    async fn compensate(&self, runtime: &Runtime, made: &Joined, call: &Call) -> Result<(), Failure> {
        runtime.reset(self.agent(), call, Some(&made.conversation)).await
    }
}

impl JoinConversation {
    fn agent(&self) -> Agent<'_> {
        Agent { domain: &self.domain, token: &self.token, epoch: self.epoch }
    }

    fn operation(&self) -> &'static Operation {
        if self.join_url.is_some() { &answers::JOIN } else { &answers::CONVERSATION }
    }
}

/// It may come yet: the runtime is asked later what became of it.
fn waits(detail: &str) -> Failure {
    Failure::NoAnswer { cause: Cause::NotYet, detail: detail.to_owned() }
}

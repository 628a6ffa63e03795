//! Join a conversation: the step after which an instance is somebody's.
//!
//! When the answer is lost the runtime is asked, never reset: a reset would throw a bound user out. A conversation is ours
//! if the runtime says that our operation made it; which one it is proves nothing. A runtime that does not say whose
//! doing its conversation is, is not believed.

use std::time::Duration;

use crate::answer::{Answered, Operation, in_doubt};
use amends_engine::activity::Cause;
use amends_engine::{Activity, Call, Effect, Failure, Found, Gate, Made, Resource, SecretRef, secs};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{Agent, operation_id};
use super::hold_container::Held;
use super::{Runtime, answers};

/// Has the runtime join a conversation, or open one of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JoinConversation {
    /// The container, as it is on the ledger.
    pub container: Made<Held>,
    /// Where the runtime answers, without a scheme.
    pub domain: String,
    /// The instance's bearer token.
    pub token: SecretRef,
    /// The claim it speaks for; an older one is refused by the runtime.
    pub epoch: i64,
    /// The invitation; without one the runtime opens a conversation.
    pub join_url: Option<String>,
}

/// A conversation that the runtime joined, or asked to join.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Joined {
    /// The conversation's id; none while a person has to let the agent in.
    pub conversation: Option<String>,
    /// The operation that joined it.
    pub operation: String,
}

impl Activity for JoinConversation {
    const NAME: &'static str = "runtime.join_conversation";
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(2) };
    const TIME_LIMIT: Duration = secs(90);
    type Client = Runtime;
    type Output = Joined;

    fn resource(&self, _: &Call) -> Option<Resource> {
        let resource = Resource::new("runtime", "binding", self.domain.clone());
        Some(resource.within(self.container.step().clone()))
    }

    fn external_id(made: &Joined) -> Option<String> {
        made.conversation.clone()
    }

    fn gates(&self, _: &Runtime) -> Vec<Gate> {
        super::gates(&self.domain)
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
            Answered::Taken(_) => match self.look(runtime, call).await.map_err(in_doubt)? {
                Looked::Ours(joined) => Ok(joined),
                Looked::Nothing => Err(waits("the runtime says that it is bound, and shows nothing")),
                Looked::Foreign => Err(Failure::refused(
                    "foreign_conversation",
                    "the runtime is bound to another conversation",
                )),
            },
            answered => {
                let conversation = answered.done()?.text("/conversationId");
                Ok(Joined { conversation, operation: id })
            }
        }
    }

    // Never a reset: only the runtime knows what became of a join whose answer was lost.
    async fn find(&self, runtime: &Runtime, call: &Call) -> Result<Found<Joined>, Failure> {
        Ok(match self.look(runtime, call).await? {
            Looked::Ours(joined) => Found::Usable(joined),
            // Somebody else's is not ours: asked again, the runtime says that it is bound.
            Looked::Nothing | Looked::Foreign => Found::Nothing,
        })
    }
}

/// What the runtime says of our join.
enum Looked {
    Ours(Joined),
    Nothing,
    Foreign,
}

impl JoinConversation {
    async fn look(&self, runtime: &Runtime, call: &Call) -> Result<Looked, Failure> {
        let status = runtime.status(&self.domain, &self.token, call).await?;
        let id = operation_id(call, self.operation());
        let is_busy = status.conversation.is_some() || status.is_pending;
        Ok(if !is_busy {
            Looked::Nothing
        } else if status.operation.as_ref() == Some(&id) {
            Looked::Ours(Joined { conversation: status.conversation, operation: id })
        } else {
            Looked::Foreign
        })
    }

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

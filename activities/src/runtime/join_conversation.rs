//! Join a conversation: the step after which an instance is somebody's.
//!
//! When the answer is lost the runtime is asked, never reset: a reset would throw a bound user out.

use std::time::Duration;

use crate::http;
use amends_engine::{Activity, Call, Effect, Failure, Found, Resource, SecretRef, secs};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Runtime;

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
    const EFFECT: Effect = Effect::Searchable { quiet: secs(2) };
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
        let (path, body) = match &self.join_url {
            Some(url) => ("/convos/join", json!({"inviteUrl": url})),
            None => ("/convos/conversation", json!({})),
        };
        let reply = runtime.tell(&self.domain, path, &self.token, self.epoch, call, &body).await?;
        match reply.status {
            404 => Err(http::not_yet("the runtime does not answer")),
            409 => match self.find(runtime, call).await? {
                Found::Usable(joined) => Ok(joined),
                _ => Err(Failure::refused(
                    "foreign_conversation",
                    "the runtime is bound to another conversation",
                )),
            },
            412 => Err(Failure::refused("superseded", "the runtime speaks for another claim")),
            _ => Ok(Joined { conversation: reply.needed("/conversationId")? }),
        }
    }

    // Never a reset: only the runtime knows what became of a join whose answer was lost.
    async fn find(&self, runtime: &Runtime, call: &Call) -> Result<Found<Joined>, Failure> {
        let Some(status) = runtime.status(&self.domain, &self.token, call).await? else {
            return Ok(Found::Nothing);
        };
        if status.is_pending {
            return Err(http::not_yet("the runtime is still joining"));
        }
        let wanted = self.join_url.as_ref().and_then(|url| url.rsplit('/').next());
        match status.conversation {
            None => Ok(Found::Nothing),
            Some(bound) if wanted.is_none_or(|wanted| wanted == bound) => {
                Ok(Found::Usable(Joined { conversation: bound }))
            }
            Some(_) => {
                Err(Failure::refused("foreign_conversation", "the runtime is bound to another conversation"))
            }
        }
    }

    async fn compensate(&self, runtime: &Runtime, made: &Joined, call: &Call) -> Result<(), Failure> {
        // Under the next epoch, so that a call of this claim that is still on its way is refused.
        runtime.reset(&self.domain, &self.token, self.epoch + 1, call, Some(&made.conversation)).await
    }
}

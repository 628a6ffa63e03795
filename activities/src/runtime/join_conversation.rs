//! Join a conversation: the step after which an instance is somebody's.
//!
//! When the answer is lost the runtime is asked, never reset: a reset would throw a bound user out.

use std::time::Duration;

use amends_engine::{Activity, Call, Effect, Failure, Resource, SecretRef, secs};
use serde::{Deserialize, Serialize};

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

    // BODY
    async fn execute(&self, _: &Runtime, _: &Call) -> Result<Self::Output, Failure> {
        Err(Failure::refused("unfinished", Self::NAME))
    }
    // END
}

//! Look up a messaging profile: whether it is there, and nothing is made.

use amends_engine::{Activity, Call, Effect, Failure, Gate};
use serde::{Deserialize, Serialize};

use super::Telnyx;
use super::ensure_messaging_profile::MessagingProfile;

/// Asks for the profile of this name; none where none shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LookUpMessagingProfile {
    /// The environment's.
    pub name: String,
}

impl Activity for LookUpMessagingProfile {
    const NAME: &'static str = "telnyx.look_up_messaging_profile";
    const EFFECT: Effect = Effect::Read;
    type Client = Telnyx;
    type Output = Option<MessagingProfile>;

    fn gates(&self, _: &Telnyx) -> Vec<Gate> {
        vec![Gate::credential("telnyx")]
    }

    async fn execute(&self, telnyx: &Telnyx, _: &Call) -> Result<Option<MessagingProfile>, Failure> {
        let profiles = telnyx.profiles(&self.name).await?;
        Ok(profiles.into_iter().next().map(|id| MessagingProfile { id }))
    }
}

//! Ensure the messaging profile that the numbers of an environment share.
//!
//! Whoever asks sees to it that nobody else does meanwhile: what one makes, another may not see yet.

use std::time::Duration;

use crate::answer::{Answered, in_doubt, not_yet};
use amends_engine::{Activity, Call, Effect, Failure, Found, Gate, Object, Resource, secs};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Telnyx, answers};

/// Asks for the profile of this name; adopts the one that is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnsureMessagingProfile {
    /// The environment's.
    pub name: String,
}

/// A Telnyx messaging profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MessagingProfile {
    /// Telnyx's id.
    pub id: String,
}

/// A profile that was made is listed within that.
pub const LISTED_IN: Duration = secs(10);

impl EnsureMessagingProfile {
    async fn look(&self, telnyx: &Telnyx) -> Result<Option<MessagingProfile>, Failure> {
        let profiles = telnyx.profiles(&self.name).await?;
        Ok(profiles.into_iter().next().map(|id| MessagingProfile { id }))
    }
}

impl Activity for EnsureMessagingProfile {
    const NAME: &'static str = "telnyx.ensure_messaging_profile";
    const EFFECT: Effect = Effect::Searchable { settle_after: LISTED_IN };
    const TIME_LIMIT: Duration = secs(90);
    type Client = Telnyx;
    type Output = MessagingProfile;

    // The environment's, not the saga's: it stays when the saga unwinds, and so its name has no generation.
    fn resource(&self, _: &Call) -> Option<Resource> {
        Some(Resource::new("telnyx", "messaging_profile", self.name.clone()).kept_by("numbers"))
    }

    fn object(&self, _: &Call) -> Option<Object> {
        Some(Object::new("telnyx", "messaging_profile", &self.name))
    }

    fn gates(&self, _: &Telnyx) -> Vec<Gate> {
        vec![Gate::credential("telnyx")]
    }

    fn external_id(made: &MessagingProfile) -> Option<String> {
        Some(made.id.clone())
    }

    async fn execute(&self, telnyx: &Telnyx, call: &Call) -> Result<MessagingProfile, Failure> {
        if let Some(there) = self.look(telnyx).await? {
            return Ok(there);
        }
        // One list which lacks it would make another: that is believed at the second, behind the making of another saga.
        if call.attempt() == 1 {
            return Err(Failure::not_yet(
                "no profile of this name shows; it is made at the second look",
                LISTED_IN,
            ));
        }
        let asked = json!({"name": self.name, "whitelisted_destinations": ["US", "CA"]});
        match telnyx.post(&answers::PROFILE_CREATE, "/messaging_profiles", &asked).await? {
            // Another process made it a moment ago, and it is listed a little later.
            Answered::Taken(_) => {
                let there = self.look(telnyx).await.map_err(in_doubt)?;
                there.ok_or_else(|| in_doubt(not_yet("the profile is there and does not show yet")))
            }
            answered => Ok(MessagingProfile { id: answered.done()?.needed("/data/id")? }),
        }
    }

    async fn find(&self, telnyx: &Telnyx, _: &Call) -> Result<Found<MessagingProfile>, Failure> {
        Ok(self.look(telnyx).await?.map_or(Found::Nothing, Found::Usable))
    }
}

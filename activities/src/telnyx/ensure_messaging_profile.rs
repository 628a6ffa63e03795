//! Ensure the messaging profile that a pool's numbers share.

use std::time::Duration;

use crate::answer::{Answered, in_doubt, not_yet};
use crate::http::escaped;
use amends_engine::{Activity, Call, Effect, Failure, Found, Gate, Object, Resource, secs};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Telnyx, answers};

/// Asks for the profile of this name; adopts the one that is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnsureMessagingProfile {
    /// One for each pool.
    pub name: String,
}

/// A Telnyx messaging profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MessagingProfile {
    /// Telnyx's id.
    pub id: String,
}

/// A profile that was made is listed within that.
const LISTED_IN: Duration = secs(10);

impl EnsureMessagingProfile {
    async fn look(&self, telnyx: &Telnyx) -> Result<Option<MessagingProfile>, Failure> {
        let filter = format!("filter%5Bname%5D%5Beq%5D={}", escaped(&self.name));
        let found = telnyx.list(&answers::PROFILES, "/messaging_profiles", &filter).await?;
        // Of two that two processes made at once all take the same one.
        let ours = found
            .iter()
            .filter(|profile| profile["name"] == self.name.as_str())
            .min_by_key(|profile| (profile["created_at"].as_str(), profile["id"].as_str()));
        Ok(ours.and_then(|profile| profile["id"].as_str()).map(|id| MessagingProfile { id: id.to_owned() }))
    }
}

impl Activity for EnsureMessagingProfile {
    const NAME: &'static str = "telnyx.ensure_messaging_profile";
    const EFFECT: Effect = Effect::Searchable { settle_after: LISTED_IN };
    const TIME_LIMIT: Duration = secs(90);
    type Client = Telnyx;
    type Output = MessagingProfile;

    // The pool's, not the saga's: it stays when the saga unwinds, and so its name has no generation.
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
        // Every claim asks for it, so that one list which lacks it would make another: that is believed at the second.
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

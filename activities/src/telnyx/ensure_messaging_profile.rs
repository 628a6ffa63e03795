//! Ensure the messaging profile that a pool's numbers share.

use std::time::Duration;

use amends_engine::{Activity, Call, Effect, Failure, Gate, Resource, secs};
use serde::{Deserialize, Serialize};

use super::Telnyx;

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

impl Activity for EnsureMessagingProfile {
    const NAME: &'static str = "telnyx.ensure_messaging_profile";
    const EFFECT: Effect = Effect::Searchable { quiet: secs(10) };
    const TIME_LIMIT: Duration = secs(90);
    type Client = Telnyx;
    type Output = MessagingProfile;

    // The pool's, not the saga's: it stays when the saga unwinds, and so its name has no generation.
    fn resource(&self, _: &Call) -> Option<Resource> {
        Some(Resource::new("telnyx", "messaging_profile", self.name.clone()).kept_by("numbers"))
    }

    fn gates(&self, _: &Telnyx) -> Vec<Gate> {
        vec![Gate::credential("telnyx")]
    }

    fn external_id(made: &MessagingProfile) -> Option<String> {
        Some(made.id.clone())
    }

    // BODY
    async fn execute(&self, _: &Telnyx, _: &Call) -> Result<Self::Output, Failure> {
        Err(Failure::refused("unfinished", Self::NAME))
    }
    // END
}

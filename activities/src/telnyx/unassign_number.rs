//! Unassign a number and see it unassigned: it stays ours, and no message reaches an instance by it any more.

use std::time::Duration;

use amends_engine::{Call, Failure, Gate, Object, Removal, ResourceId, secs};
use serde::{Deserialize, Serialize};

use super::Telnyx;

/// Takes our messaging profile off a number; one that is gone has none. One that delivers to another profile by now was
/// moved by somebody: that is left, and nothing of ours is assigned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnassignNumber {
    /// Telnyx's id; none where it was never known, and then it is looked for by the number.
    pub number_id: Option<String>,
    /// In E.164.
    pub phone_number: String,
    /// The name of our messaging profile.
    pub profile: String,
    /// The ledger rows that its absence closes.
    pub resources: Vec<ResourceId>,
}

/// How long an assignment that was made, or taken back, may be shown wrongly.
pub(crate) const SETTLE_AFTER: Duration = secs(10);

impl UnassignNumber {
    async fn id(&self, telnyx: &Telnyx) -> Result<Option<String>, Failure> {
        if self.number_id.is_some() {
            return Ok(self.number_id.clone());
        }
        let number = telnyx.numbered(&self.phone_number).await?;
        Ok(number.and_then(|number| number["id"].as_str().map(str::to_owned)))
    }

    /// Whether the number delivers to a profile of ours.
    async fn is_ours(&self, telnyx: &Telnyx, id: &str) -> Result<bool, Failure> {
        match telnyx.profile_of(id).await? {
            Some(profile) => Ok(telnyx.profiles(&self.profile).await?.contains(&profile)),
            None => Ok(false),
        }
    }
}

impl Removal for UnassignNumber {
    const NAME: &'static str = "telnyx.unassign_number";
    const SETTLE_AFTER: Duration = SETTLE_AFTER;
    type Client = Telnyx;

    fn resources(&self) -> Vec<ResourceId> {
        self.resources.clone()
    }

    fn object(&self, _: &Call) -> Option<Object> {
        self.number_id.as_ref().map(|id| Object::new("telnyx", "assignment", id))
    }

    fn gates(&self, _: &Telnyx) -> Vec<Gate> {
        vec![Gate::credential("telnyx")]
    }

    async fn is_there(&self, telnyx: &Telnyx, _: &Call) -> Result<bool, Failure> {
        match self.id(telnyx).await? {
            Some(id) => self.is_ours(telnyx, &id).await,
            None => Ok(false),
        }
    }

    async fn request(&self, telnyx: &Telnyx, _: &Call) -> Result<(), Failure> {
        match self.id(telnyx).await? {
            Some(id) => telnyx.unassign(&id).await,
            None => Ok(()),
        }
    }
}

//! Assign a number to a messaging profile: from then on messages reach the instance.

use crate::answer::{Answered, in_doubt, not_yet, still_there, unreadable};
use crate::http::escaped;
use amends_engine::{Activity, Call, Effect, Failure, Gate, Object, Resource};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::unassign_number::SETTLE_AFTER;
use super::{Telnyx, answers};

/// Sets the messaging profile of a number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssignNumber {
    /// Telnyx's id of the number.
    pub number_id: String,
    /// In E.164.
    pub phone_number: String,
    /// Telnyx's id of the messaging profile.
    pub profile: String,
}

/// A number that has its messaging profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// Telnyx's id of the number.
    pub number_id: String,
    /// Telnyx's id of the messaging profile.
    pub profile: String,
}

/// The code of a refusal that is about the number: it is not ours any more, and another one may be taken.
pub const NUMBER_GONE: &str = "number_gone";

/// So often a number that is not there is asked for: one that was bought a moment ago shows a little later.
const LOOKS: u32 = 10;

impl Activity for AssignNumber {
    const NAME: &'static str = "telnyx.assign_number";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Telnyx;
    type Output = Assignment;

    fn resource(&self, _: &Call) -> Option<Resource> {
        Some(Resource::new("telnyx", "assignment", self.phone_number.clone()))
    }

    // Sagas set and clear it one after the other.
    fn object(&self, _: &Call) -> Option<Object> {
        Some(Object::new("telnyx", "assignment", &self.phone_number))
    }

    fn gates(&self, _: &Telnyx) -> Vec<Gate> {
        vec![Gate::credential("telnyx")]
    }

    fn external_id(made: &Assignment) -> Option<String> {
        Some(made.number_id.clone())
    }

    async fn execute(&self, telnyx: &Telnyx, call: &Call) -> Result<Assignment, Failure> {
        let path = format!("/phone_numbers/{}/messaging", escaped(&self.number_id));
        let asked = json!({"messaging_profile_id": self.profile});
        let reply = match telnyx.patch(&answers::ASSIGN, &path, &asked).await? {
            Answered::Gone if call.attempt() < LOOKS => return Err(not_yet("the number does not show yet")),
            Answered::Gone => {
                return Err(Failure::refused(NUMBER_GONE, "Telnyx has no such number any more"));
            }
            answered => answered.done()?,
        };
        if reply.text("/data/messaging_profile_id").as_deref() != Some(&self.profile) {
            return Err(in_doubt(unreadable("Telnyx answered another profile than was assigned")));
        }
        Ok(Assignment { number_id: self.number_id.clone(), profile: self.profile.clone() })
    }

    async fn compensate(&self, telnyx: &Telnyx, made: &Assignment, call: &Call) -> Result<(), Failure> {
        // One that delivers to another profile by now was moved by somebody, and is theirs.
        if telnyx.profile_of(&made.number_id).await?.as_ref() != Some(&made.profile) {
            return call.absent(SETTLE_AFTER);
        }
        telnyx.unassign(&made.number_id).await?;
        Err(still_there("Telnyx was asked to unassign the number"))
    }
}

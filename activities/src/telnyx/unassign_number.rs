//! Unassign a number: it stays ours, and no message reaches an instance by it any more.

use amends_engine::{Activity, Call, Effect, Failure, Gate, Object};
use serde::{Deserialize, Serialize};

use super::Telnyx;

/// Takes the messaging profile off a number; one that is gone is success.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnassignNumber {
    /// Telnyx's id.
    pub number_id: String,
}

impl Activity for UnassignNumber {
    const NAME: &'static str = "telnyx.unassign_number";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Telnyx;
    type Output = ();

    fn object(&self, _: &Call) -> Option<Object> {
        Some(Object::new("telnyx", "assignment", &self.number_id))
    }

    fn gates(&self, _: &Telnyx) -> Vec<Gate> {
        vec![Gate::credential("telnyx")]
    }

    async fn execute(&self, telnyx: &Telnyx, _: &Call) -> Result<(), Failure> {
        telnyx.unassign(&self.number_id).await
    }
}

//! See that a number is unassigned: only then is its assignment crossed off the ledger.

use amends_engine::{Activity, Call, Effect, Failure, Gate, ResourceId};
use serde::{Deserialize, Serialize};

use super::Telnyx;
use crate::Gone;

/// Asks for the messaging profile of a number; none while it still has one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NumberUnassigned {
    /// Telnyx's id.
    pub number_id: String,
    /// The ledger rows that its absence closes.
    pub resources: Vec<ResourceId>,
}

impl Activity for NumberUnassigned {
    const NAME: &'static str = "telnyx.number_unassigned";
    const EFFECT: Effect = Effect::Read;
    type Client = Telnyx;
    type Output = Option<Gone>;

    fn removes(&self) -> Vec<ResourceId> {
        self.resources.clone()
    }

    fn gates(&self, _: &Telnyx) -> Vec<Gate> {
        vec![Gate::credential("telnyx")]
    }

    async fn execute(&self, telnyx: &Telnyx, _: &Call) -> Result<Option<Gone>, Failure> {
        Ok(telnyx.profile_of(&self.number_id).await?.is_none().then_some(Gone {}))
    }
}

//! Void an order: closes the ledger rows of a number that an order did not bring.

use amends_engine::{Activity, Call, Effect, Failure, ResourceId};
use serde::{Deserialize, Serialize};

use super::Telnyx;
use crate::Gone;

/// Closes the rows of an order that an earlier step saw fail. Nothing is called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VoidOrder {
    /// The rows.
    pub resources: Vec<ResourceId>,
}

impl Activity for VoidOrder {
    const NAME: &'static str = "telnyx.void_order";
    const EFFECT: Effect = Effect::Read;
    const STRONGLY_CONSISTENT: bool = true;
    type Client = Telnyx;
    type Output = Gone;

    fn removes(&self) -> Vec<ResourceId> {
        self.resources.clone()
    }

    async fn execute(&self, _: &Telnyx, _: &Call) -> Result<Gone, Failure> {
        Ok(Gone {})
    }
}

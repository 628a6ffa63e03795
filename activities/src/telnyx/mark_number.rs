//! Mark a number as ours, so that a sweep knows it again.

use amends_engine::{Activity, Call, Effect, Failure, Gate};
use serde::{Deserialize, Serialize};

use super::Telnyx;

/// Sets reference and tags of a number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MarkNumber {
    /// Telnyx's id.
    pub number_id: String,
    /// In E.164.
    pub phone_number: String,
    /// What it is to carry.
    pub reference: String,
}

impl Activity for MarkNumber {
    const NAME: &'static str = "telnyx.mark_number";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Telnyx;
    type Output = ();

    fn gates(&self, _: &Telnyx) -> Vec<Gate> {
        vec![Gate::credential("telnyx")]
    }

    // BODY
    async fn execute(&self, _: &Telnyx, _: &Call) -> Result<Self::Output, Failure> {
        Err(Failure::refused("unfinished", Self::NAME))
    }
    // END
}

//! Search numbers that can be bought: only what a search returned can be ordered.

use amends_engine::{Activity, Call, Effect, Failure, Gate};
use serde::{Deserialize, Serialize};

use super::Telnyx;

/// Asks for numbers of a country that can send messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchNumbers {
    /// Two letters, as `US`.
    pub country: String,
}

/// Numbers that were free when we asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidates {
    /// In E.164, as `+13125550100`.
    pub phone_numbers: Vec<String>,
}

impl Activity for SearchNumbers {
    const NAME: &'static str = "telnyx.search_numbers";
    const EFFECT: Effect = Effect::Read;
    type Client = Telnyx;
    type Output = Candidates;

    fn gates(&self, _: &Telnyx) -> Vec<Gate> {
        vec![Gate::credential("telnyx")]
    }

    // BODY
    async fn execute(&self, _: &Telnyx, _: &Call) -> Result<Self::Output, Failure> {
        Err(Failure::refused("unfinished", Self::NAME))
    }
    // END
}

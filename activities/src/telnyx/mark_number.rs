//! Mark a number as ours, so that a sweep knows it again.

use crate::http;
use amends_engine::{Activity, Call, Effect, Failure, Gate};
use serde::{Deserialize, Serialize};
use serde_json::json;

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

    async fn execute(&self, telnyx: &Telnyx, _: &Call) -> Result<(), Failure> {
        let path = format!("/phone_numbers/{}", http::escaped(&self.number_id));
        let reply = telnyx.patch(&path, &json!({"customer_reference": self.reference})).await?;
        if reply.status == 404 { Err(http::not_yet("the number does not show yet")) } else { Ok(()) }
    }
}

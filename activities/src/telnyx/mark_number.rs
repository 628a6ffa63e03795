//! Mark a number as ours, so that a sweep knows it again.

use crate::answer::{in_doubt, unreadable};
use crate::http::escaped;
use amends_engine::{Activity, Call, Effect, Failure, Gate};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Telnyx, answers};

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
        let path = format!("/phone_numbers/{}", escaped(&self.number_id));
        let asked = json!({"customer_reference": self.reference});
        let reply = telnyx.patch(&answers::MARK, &path, &asked).await?.done()?;
        if reply.text("/data/customer_reference").as_deref() != Some(&self.reference) {
            return Err(in_doubt(unreadable("Telnyx answered another reference than was set")));
        }
        Ok(())
    }
}

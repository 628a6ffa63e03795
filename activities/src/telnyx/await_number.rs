//! Await a number: an order is taken at once, and filled later.

use crate::http::escaped;
use amends_engine::{Activity, Call, Effect, Failure, Gate};
use serde::{Deserialize, Serialize};

use super::order_number::Order;
use super::{Telnyx, answers};

/// Asks whether the number is ours yet; none while it is not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AwaitNumber {
    /// The order.
    pub order: Order,
    /// In E.164.
    pub phone_number: String,
    /// What the order was given.
    pub reference: String,
}

/// The code of a refusal that is about the order: it failed, and the number is not ours.
pub const ORDER_FAILED: &str = "order_failed";

/// A number that is ours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Number {
    /// Telnyx's id of the number, which is not the one in the order.
    pub id: String,
    /// In E.164.
    pub phone_number: String,
}

impl Activity for AwaitNumber {
    const NAME: &'static str = "telnyx.await_number";
    const EFFECT: Effect = Effect::Read;
    type Client = Telnyx;
    type Output = Option<Number>;

    fn gates(&self, _: &Telnyx) -> Vec<Gate> {
        vec![Gate::credential("telnyx")]
    }

    async fn execute(&self, telnyx: &Telnyx, _: &Call) -> Result<Option<Number>, Failure> {
        let mut is_filled = false;
        if !self.order.id.is_empty() {
            let path = format!("/number_orders/{}", escaped(&self.order.id));
            let order = telnyx.get(&answers::ORDER_GET, &path).await?.done()?;
            is_filled = match order.text("/data/status").as_deref() {
                Some("failure") => {
                    return Err(Failure::refused(ORDER_FAILED, "Telnyx did not fill the order"));
                }
                status => status == Some("success"),
            };
        }
        // That the account has the number says nothing of who ordered it: our order was filled, or it bears our mark.
        let number = telnyx.owned(&self.phone_number).await?;
        let ours =
            number.filter(|number| is_filled || number["customer_reference"] == self.reference.as_str());
        let id = ours.and_then(|number| number["id"].as_str().map(str::to_owned));
        Ok(id.map(|id| Number { id, phone_number: self.phone_number.clone() }))
    }
}

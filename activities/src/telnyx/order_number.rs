//! Order a number: the one call here that costs money twice if it is made twice.
//!
//! One number can be sold once, so an order is repeated only for the same number. It is found again by its
//! reference, and then by the number being ours.

use std::time::Duration;

use amends_engine::{Activity, Call, Effect, Failure, Found, Gate, Resource, secs};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Telnyx;

/// Orders one number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrderNumber {
    /// In E.164; chosen and recorded before the order.
    pub phone_number: String,
    /// Ours, unique to the number's place in the pool.
    pub reference: String,
}

/// An order that Telnyx took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Telnyx's id of the order; empty where the number was found to be ours without one.
    pub id: String,
}

impl OrderNumber {
    /// By our reference, and then by the number being ours and not spoken for.
    async fn look(&self, telnyx: &Telnyx) -> Result<Option<Order>, Failure> {
        if let Some(order) = telnyx.ordered(&self.reference, &self.phone_number).await? {
            return Ok(Some(Order { id: order["id"].as_str().unwrap_or_default().to_owned() }));
        }
        let owned = telnyx.owned(&self.phone_number).await?;
        let is_free = |number: &Value| {
            number["customer_reference"]
                .as_str()
                .is_none_or(|reference| reference.is_empty() || reference == self.reference)
        };
        Ok(owned.filter(is_free).map(|_| Order { id: String::new() }))
    }
}

impl Activity for OrderNumber {
    const NAME: &'static str = "telnyx.order_number";
    const EFFECT: Effect = Effect::Searchable { quiet: secs(10) };
    const TIME_LIMIT: Duration = secs(90);
    type Client = Telnyx;
    type Output = Order;

    // A number belongs to the pool of numbers, whatever becomes of the saga that bought it.
    fn resource(&self, _: &Call) -> Option<Resource> {
        Some(Resource::new("telnyx", "number", self.phone_number.clone()).kept_by("numbers"))
    }

    fn gates(&self, _: &Telnyx) -> Vec<Gate> {
        vec![Gate::credential("telnyx")]
    }

    fn external_id(made: &Order) -> Option<String> {
        Some(made.id.clone()).filter(|id| !id.is_empty())
    }

    async fn execute(&self, telnyx: &Telnyx, _: &Call) -> Result<Order, Failure> {
        let asked = json!({
            "phone_numbers": [{"phone_number": self.phone_number}], "customer_reference": self.reference,
        });
        match telnyx.post("/number_orders", &asked).await {
            Ok(reply) => Ok(Order { id: reply.needed("/data/id")? }),
            // Taken: by somebody else, or by an attempt of ours.
            Err(Failure::Refused(refusal)) => match self.look(telnyx).await? {
                Some(order) => Ok(order),
                None => Err(Failure::Refused(refusal)),
            },
            Err(failure) => Err(failure),
        }
    }

    async fn find(&self, telnyx: &Telnyx, _: &Call) -> Result<Found<Order>, Failure> {
        Ok(self.look(telnyx).await?.map_or(Found::Nothing, Found::Usable))
    }
}

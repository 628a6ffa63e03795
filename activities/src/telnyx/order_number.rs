//! Order a number: the one call here that costs money twice if it is made twice.
//!
//! One number can be sold once, so an order is repeated only for the same number. It is found again by its
//! reference, which the order has and later the number.

use std::time::Duration;

use crate::answer::{Answered, in_doubt, not_yet};
use amends_engine::{Activity, Call, Effect, Failure, Found, Gate, Resource, secs};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Telnyx, answers};

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

/// The code of a refusal that is about the number: somebody else has it by now, and another one may be tried.
pub const NUMBER_TAKEN: &str = "number_taken";

/// So often an order that shows nowhere is looked for, where the number is said to be taken.
const LOOKS: u32 = 3;

impl OrderNumber {
    /// By our reference alone: that the account has the number says nothing of who ordered it.
    pub(super) async fn look(&self, telnyx: &Telnyx) -> Result<Option<Order>, Failure> {
        if let Some(order) = telnyx.ordered(&self.reference, &self.phone_number).await? {
            return Ok(order["id"].as_str().map(|id| Order { id: id.to_owned() }));
        }
        let owned = telnyx.owned(&self.phone_number).await?;
        let ours = owned.filter(|number| number["customer_reference"] == self.reference.as_str());
        Ok(ours.map(|_| Order { id: String::new() }))
    }
}

impl Activity for OrderNumber {
    const NAME: &'static str = "telnyx.order_number";
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(10) };
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

    async fn execute(&self, telnyx: &Telnyx, call: &Call) -> Result<Order, Failure> {
        let asked = json!({
            "phone_numbers": [{"phone_number": self.phone_number}], "customer_reference": self.reference,
        });
        match telnyx.post(&answers::ORDER, "/number_orders", &asked).await? {
            // Taken: by somebody else, or by an attempt of ours, whose order may not show yet.
            Answered::Taken(words) => match self.look(telnyx).await.map_err(in_doubt)? {
                Some(order) => Ok(order),
                None if call.attempt() < LOOKS => {
                    Err(in_doubt(not_yet("the number is taken, and no order of ours shows yet")))
                }
                None => Err(Failure::refused(NUMBER_TAKEN, words)),
            },
            answered => Ok(Order { id: answered.done()?.needed("/data/id")? }),
        }
    }

    async fn find(&self, telnyx: &Telnyx, _: &Call) -> Result<Found<Order>, Failure> {
        Ok(self.look(telnyx).await?.map_or(Found::Nothing, Found::Usable))
    }
}

//! Order a number: the one call here that costs money twice if it is made twice.
//!
//! One number can be sold once, so an order is repeated only for the same number. It is found again by its
//! reference, and then by the number being ours.

use std::time::Duration;

use amends_engine::{Activity, Call, Effect, Failure, Gate, Resource, secs};
use serde::{Deserialize, Serialize};

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

    // BODY
    async fn execute(&self, _: &Telnyx, _: &Call) -> Result<Self::Output, Failure> {
        Err(Failure::refused("unfinished", Self::NAME))
    }
    // END
}

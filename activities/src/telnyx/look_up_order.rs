//! Look up an order by what it was given: for whoever comes after the saga that made it.

use amends_engine::{Activity, Call, Effect, Failure, Gate};
use serde::{Deserialize, Serialize};

use super::Telnyx;
use super::order_number::{Order, OrderNumber};

/// Asks for the order of a number under a reference of ours; none where there is none. One that failed is an order too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LookUpOrder {
    /// In E.164.
    pub phone_number: String,
    /// What the order was given.
    pub reference: String,
}

impl Activity for LookUpOrder {
    const NAME: &'static str = "telnyx.look_up_order";
    const EFFECT: Effect = Effect::Read;
    type Client = Telnyx;
    type Output = Option<Order>;

    fn gates(&self, _: &Telnyx) -> Vec<Gate> {
        vec![Gate::credential("telnyx")]
    }

    async fn execute(&self, telnyx: &Telnyx, _: &Call) -> Result<Option<Order>, Failure> {
        let (phone_number, reference) = (self.phone_number.clone(), self.reference.clone());
        OrderNumber { phone_number, reference }.look(telnyx).await
    }
}

//! Restock: a number that was ordered for a claim which came to nothing goes into the stock, or its row is closed.

use amends_activities::pool::{PickNumber, Picked, RestockNumber, TakeNumberRows};
use amends_activities::telnyx::{AwaitNumber, LookUpOrder, MarkNumber, ORDER_FAILED, VoidOrder};
use amends_engine::store::NewSaga;
use amends_engine::{Failure, Halt, Local, Saga, Tx, Workflow, saga, secs};
use serde::{Deserialize, Serialize};

/// The saga that looks after what a claim ordered and did not keep: it is paid for.
pub struct Restock;

/// Which order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestockRequest {
    /// In E.164.
    pub phone_number: String,
    /// What the order was given, if it was made.
    pub reference: String,
}

/// An order that was made a moment ago may be listed so much later.
const LISTED_LATER: std::time::Duration = secs(60);
/// So long an order may take to be filled.
const FILLED_WITHIN: std::time::Duration = secs(7 * 86_400);

impl Workflow for Restock {
    const NAME: &'static str = "restock";
    const VERSION: u32 = 1;
    type Input = RestockRequest;
    /// Whether a number came into the stock.
    type Output = bool;

    async fn run(&self, saga: &Saga, request: RestockRequest) -> saga::Result<bool> {
        let RestockRequest { phone_number, reference } = request;
        let mut ordered = None;
        // What shows nowhere is forgotten here, and it may be paid for: that is believed at the second look.
        for look in ["first", "second"] {
            saga.sleep(&format!("listed-{look}"), LISTED_LATER).await?;
            let order = LookUpOrder { phone_number: phone_number.clone(), reference: reference.clone() };
            ordered = saga.step(&format!("look-{look}"), order).await?.take();
            if ordered.is_some() {
                break;
            }
        }
        let Some(order) = ordered else { return Ok(false) };
        let wait = AwaitNumber { order, phone_number: phone_number.clone(), reference: reference.clone() };
        let number = match saga.poll_until("await", wait, secs(60), FILLED_WITHIN).await {
            Err(Halt::Refused { refusal, .. }) if refusal.code == ORDER_FAILED => {
                let rows = saga.transact("failed", TakeNumberRows { phone_number }).await?.take();
                let resources = rows.into_iter().map(|row| row.id).collect();
                saga.step("void", VoidOrder { resources }).await?;
                return Ok(false);
            }
            number => number?,
        };
        let mark = MarkNumber { number_id: number.id.clone(), phone_number: phone_number.clone(), reference };
        saga.step("mark", mark).await?;
        let stock = RestockNumber { phone_number, telnyx_id: number.id.clone() };
        Ok(saga.transact("stock", stock).await?.take())
    }
}

/// Picks a number that is for sale, for an order under this reference; undone, what was ordered is looked after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pick {
    /// Among which.
    #[serde(flatten)]
    pub pick: PickNumber,
    /// What its order is given.
    pub reference: String,
}

impl Local for Pick {
    const NAME: &'static str = PickNumber::NAME;
    const REVERTS: bool = true;
    type Output = Picked;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Picked, Failure> {
        self.pick.apply(tx).await
    }

    async fn revert(&self, made: &Picked, tx: &mut Tx<'_>) -> Result<(), Failure> {
        self.pick.revert(made, tx).await?;
        let (phone_number, reference) = (made.phone_number.clone(), self.reference.clone());
        let key = format!("restock:{reference}:{phone_number}");
        let request = RestockRequest { phone_number, reference };
        let new = NewSaga::of::<Restock>(tx.env(), key, &request)?.labelled("instance", &self.pick.instance);
        tx.start::<Restock>(new).await.map(drop)
    }
}

//! Numbers: a stock that outlives instances; one that an instance had rests before the next one gets it.

use std::time::Duration;

use amends_engine::store::ResourceRow;
use amends_engine::{Failure, Local, Tx, params};
use serde::{Deserialize, Serialize};

/// How long a number rests after it was taken off an instance.
const QUARANTINE: Duration = Duration::from_secs(7 * 86_400);

/// Takes a number from the stock, if one is free.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChooseNumber {
    /// For which instance.
    pub instance: String,
}

/// A number from the stock, or none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chosen {
    /// In E.164, with Telnyx's id.
    pub number: Option<(String, String)>,
}

impl Local for ChooseNumber {
    const NAME: &'static str = "number.choose";
    const REVERTS: bool = true;
    type Output = Chosen;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Chosen, Failure> {
        let now = tx.now();
        let free = tx
            .fetch(
                "update number set state = 'assigned', instance = $1, quarantined_until = null, changed_at = $2
                 where phone_number = (select phone_number from number
                   where telnyx_id is not null
                     and (state = 'available' or state = 'quarantine' and quarantined_until <= $2)
                   order by changed_at limit 1)
                 returning phone_number, telnyx_id",
                params![&self.instance, now],
            )
            .await?;
        let number = match free.first() {
            Some(row) => Some((row.text("phone_number")?, row.text("telnyx_id")?)),
            None => None,
        };
        Ok(Chosen { number })
    }

    async fn revert(&self, made: &Chosen, tx: &mut Tx<'_>) -> Result<(), Failure> {
        match &made.number {
            Some((phone_number, _)) => quarantine(tx, phone_number).await,
            None => Ok(()),
        }
    }
}

/// Picks one of the numbers that are for sale, before it is ordered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PickNumber {
    /// For which instance.
    pub instance: String,
    /// In E.164.
    pub candidates: Vec<String>,
}

/// A number that only we will order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Picked {
    /// In E.164.
    pub phone_number: String,
}

impl Local for PickNumber {
    const NAME: &'static str = "number.pick";
    const REVERTS: bool = true;
    type Output = Picked;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Picked, Failure> {
        let mut left = self.candidates.clone();
        let now = tx.now();
        while !left.is_empty() {
            let place = usize::try_from(tx.below(left.len() as u64)).unwrap_or(0);
            let phone_number = left.swap_remove(place);
            let picked = tx
                .execute(
                    "insert into number (phone_number, state, instance, changed_at) values ($1, 'ordering', $2, $3)
                     on conflict (phone_number) do nothing",
                    params![&phone_number, &self.instance, now],
                )
                .await?;
            if picked > 0 {
                return Ok(Picked { phone_number });
            }
        }
        Err(Failure::refused("no_number", "no number is for sale that we do not know already"))
    }

    /// Bought or not, it is not picked again by itself: the ledger says whether it is ours.
    async fn revert(&self, made: &Picked, tx: &mut Tx<'_>) -> Result<(), Failure> {
        quarantine(tx, &made.phone_number).await
    }
}

/// Takes over the ledger rows of a number that came to nothing, so that they can be closed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TakeNumberRows {
    /// In E.164.
    pub phone_number: String,
}

impl Local for TakeNumberRows {
    const NAME: &'static str = "number.take_rows";
    type Output = Vec<ResourceRow>;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Vec<ResourceRow>, Failure> {
        let is_it = |row: &ResourceRow| {
            row.provider == "telnyx" && row.kind == "number" && row.name == self.phone_number
        };
        Ok(tx.take_some("numbers", is_it).await?)
    }
}

/// A number that was bought is on stock, and with the instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StockNumber {
    /// In E.164.
    pub phone_number: String,
    /// Telnyx's id.
    pub telnyx_id: String,
}

impl Local for StockNumber {
    const NAME: &'static str = "number.stock";
    type Output = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), Failure> {
        let now = tx.now();
        tx.execute(
            "update number set state = 'assigned', telnyx_id = $2, changed_at = $3 where phone_number = $1",
            params![&self.phone_number, &self.telnyx_id, now],
        )
        .await?;
        Ok(())
    }
}

/// A number that was bought for a claim which came to nothing can be chosen, once it has rested.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestockNumber {
    /// In E.164.
    pub phone_number: String,
    /// Telnyx's id.
    pub telnyx_id: String,
}

impl Local for RestockNumber {
    const NAME: &'static str = "number.restock";
    /// Whether it was not in the stock already.
    type Output = bool;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<bool, Failure> {
        let stocked = tx
            .execute(
                "update number set telnyx_id = $2 where phone_number = $1 and telnyx_id is null",
                params![&self.phone_number, &self.telnyx_id],
            )
            .await?;
        Ok(stocked > 0)
    }
}

/// A number that was taken off an instance rests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuarantineNumber {
    /// In E.164.
    pub phone_number: String,
}

impl Local for QuarantineNumber {
    const NAME: &'static str = "number.quarantine";
    type Output = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), Failure> {
        quarantine(tx, &self.phone_number).await
    }
}

async fn quarantine(tx: &mut Tx<'_>, phone_number: &str) -> Result<(), Failure> {
    let now = tx.now();
    let until = now.plus(tx.paced(QUARANTINE));
    tx.execute(
        "update number set state = 'quarantine', instance = null, quarantined_until = $2, changed_at = $3
         where phone_number = $1",
        params![phone_number, until, now],
    )
    .await?;
    Ok(())
}

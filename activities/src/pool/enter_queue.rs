//! Enter the queue: a claim takes its place among those that wait for an idle instance.

use amends_engine::{Failure, Local, Tx, params};
use serde::{Deserialize, Serialize};

use super::one;

/// Takes a place in the queue of the template's pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnterQueue {
    /// What is claimed.
    pub template: String,
}

/// A place in the queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Queued {
    /// The pool that is waited for.
    pub pool: String,
}

impl Local for EnterQueue {
    const NAME: &'static str = "pool.enter_queue";
    const REVERTS: bool = true;
    type Output = Queued;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Queued, Failure> {
        let found = tx.fetch("select pool from template where id = $1", params![&self.template]).await?;
        let unknown =
            || Failure::refused("unknown_template", format!("there is no template {}", self.template));
        let pool = one(found, unknown)?.text("pool")?;
        let (saga, now) = (tx.saga().clone(), tx.now());
        tx.execute(
            "insert into claim_queue (saga, pool, since) values ($1, $2, $3)",
            params![&saga, &pool, now],
        )
        .await?;
        Ok(Queued { pool })
    }

    async fn revert(&self, _: &Queued, tx: &mut Tx<'_>) -> Result<(), Failure> {
        let saga = tx.saga().clone();
        tx.execute("delete from claim_queue where saga = $1", params![&saga]).await?;
        Ok(())
    }
}

//! Enter the queue: a claim takes its place among those that wait for an idle instance.

use amends_engine::{Failure, Local, Timestamp, Tx, params};
use serde::{Deserialize, Serialize};

use super::one;

/// Takes a place in the queue of the template's pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnterQueue {
    /// What is claimed.
    pub template: String,
    /// Since when it waits, for one that was served before and in vain; from now on if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// A place in the queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Queued {
    /// The pool that is waited for.
    pub pool: String,
    /// Since when.
    pub since: Timestamp,
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
        let saga = tx.saga().clone();
        let since = self.since.unwrap_or_else(|| tx.now());
        tx.execute(
            "insert into claim_queue (saga, pool, since) values ($1, $2, $3)",
            params![&saga, &pool, since],
        )
        .await?;
        Ok(Queued { pool, since })
    }

    async fn revert(&self, _: &Queued, tx: &mut Tx<'_>) -> Result<(), Failure> {
        let saga = tx.saga().clone();
        tx.execute("delete from claim_queue where saga = $1", params![&saga]).await?;
        Ok(())
    }
}

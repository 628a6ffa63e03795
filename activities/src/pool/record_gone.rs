//! Record that an instance is gone: its row stays as a tombstone, its secrets are destroyed.

use amends_engine::{Failure, Local, Tx, params};
use serde::{Deserialize, Serialize};

use super::vacate;

/// Tombstones an instance of which nothing is left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordGone {
    /// Which.
    pub instance: String,
}

impl Local for RecordGone {
    const NAME: &'static str = "pool.record_gone";
    type Output = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), Failure> {
        let now = tx.now();
        tx.execute(
            "update instance set state = 'gone', conversation_target = null, changed_at = $2 where id = $1",
            params![&self.instance, now],
        )
        .await?;
        tx.destroy_secrets(&self.instance);
        vacate(tx, &self.instance).await
    }
}

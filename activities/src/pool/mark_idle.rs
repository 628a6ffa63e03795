//! Mark an instance idle: healthy, verified clean, unbound, at its digest; and tell the claims that wait.

use amends_engine::{Failure, Local, Tx, params};
use serde::{Deserialize, Serialize};

use super::controller::settle_idle;
use super::{one, vacate, wake_queue};

/// Makes a provisioned instance claimable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MarkIdle {
    /// Which.
    pub instance: String,
    /// The image it runs, by digest.
    pub image: String,
    /// Where its container answers.
    pub domain: String,
    /// Railway's id of its project.
    pub project_id: String,
    /// Railway's id of its service.
    pub service_id: String,
}

impl Local for MarkIdle {
    const NAME: &'static str = "pool.mark_idle";
    type Output = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), Failure> {
        let now = tx.now();
        let changed = tx
            .execute(
                "update instance set state = 'idle', image = $2, domain = $3, project_id = $4, service_id = $5,
                   changed_at = $6
                 where id = $1 and state = 'provisioning'",
                params![&self.instance, &self.image, &self.domain, &self.project_id, &self.service_id, now],
            )
            .await?;
        if changed == 0 {
            return Err(Failure::refused("fenced", "the instance is not being provisioned any more"));
        }
        vacate(tx, &self.instance).await?;
        settle_idle(tx, &self.instance).await?;
        let pool = tx.fetch("select pool from instance where id = $1", params![&self.instance]).await?;
        let pool =
            one(pool, || Failure::refused("no_such_instance", "the instance is gone"))?.text("pool")?;
        wake_queue(tx, &pool).await
    }
}

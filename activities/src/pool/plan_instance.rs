//! Plan an instance: its row, its names and its token, before anything of it exists.

use amends_engine::ids::short;
use amends_engine::{Failure, Local, SecretRef, Tx, params};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{PoolSettings, occupy, one, vacate};

/// Writes the row of a new instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanInstance {
    /// Its id, `in_` and 12 characters.
    pub instance: String,
    /// The pool it is for.
    pub pool: String,
    /// `<prefix>-<environment>-<12>`: its name at every provider.
    pub name: String,
}

/// What an instance will be made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Its name at every provider.
    pub name: String,
    /// The bearer token of its container.
    pub token: SecretRef,
    /// What the instances of its pool are like, as it was when this one was planned.
    pub settings: PoolSettings,
}

impl Local for PlanInstance {
    const NAME: &'static str = "pool.plan_instance";
    const REVERTS: bool = true;
    type Output = Plan;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Plan, Failure> {
        let pool = tx.fetch("select settings from pool where id = $1", params![&self.pool]).await?;
        let pool = one(pool, || Failure::refused("no_such_pool", format!("there is no pool {}", self.pool)))?;
        let settings: PoolSettings = serde_json::from_str(&pool.text("settings")?)
            .map_err(|error| Failure::refused("unreadable", format!("pool {}: {error}", self.pool)))?;
        // Four times sixty random bits.
        let token: String = (0..4).map(|_| short(tx.uuid())).collect();
        let token = tx.seal("instance.token", &SecretString::from(token))?;
        let now = tx.now();
        tx.execute(
            "insert into instance (id, pool, state, claim_epoch, name, workspace, token, created_at, changed_at)
             values ($1, $2, 'provisioning', 0, $3, $4, $5, $6, $6)",
            params![&self.instance, &self.pool, &self.name, &settings.workspace, &token, now],
        )
        .await?;
        occupy(tx, &self.instance, "replenish").await?;
        tx.label("instance", &self.instance);
        Ok(Plan { name: self.name.clone(), token, settings })
    }

    async fn revert(&self, _: &Plan, tx: &mut Tx<'_>) -> Result<(), Failure> {
        let now = tx.now();
        // Fenced by a teardown, it is that one's to end.
        tx.execute(
            "update instance set state = 'failed', changed_at = $2 where id = $1 and state = 'provisioning'",
            params![&self.instance, now],
        )
        .await?;
        vacate(tx, &self.instance).await
    }
}

//! Recheck: the way of a tainted instance back to the pool, behind a container that was seen clean, or on to its end.

use amends_engine::store::ResourceRow;
use amends_engine::{Failure, Local, SagaId, SecretRef, Tx, params};
use serde::{Deserialize, Serialize};

use super::{one, vacate, wake_queue};
use crate::runtime::ContainerSeen;

/// What a recheck is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecheckRequest {
    /// Which instance.
    pub instance: String,
    /// The epoch under which it was released.
    pub epoch: i64,
    /// The claim that released it.
    pub claim: SagaId,
}

/// Reads how the container of a tainted instance is reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReadContainer {
    /// Which instance.
    pub instance: String,
    /// The epoch under which it was released.
    pub epoch: i64,
}

/// How a container is reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Container {
    /// Where it answers.
    pub domain: String,
    /// Its bearer token.
    pub token: SecretRef,
}

impl Local for ReadContainer {
    const NAME: &'static str = "pool.read_container";
    /// Undone, the recheck no longer has the instance; that stays tainted.
    const REVERTS: bool = true;
    type Output = Container;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Container, Failure> {
        let found = tx
            .fetch(
                "select domain, token from instance where id = $1 and state = 'tainted' and claim_epoch = $2",
                params![&self.instance, self.epoch],
            )
            .await?;
        let found =
            one(found, || Failure::refused("fenced", "the instance is not to be rechecked any more"))?;
        Ok(Container { domain: found.text("domain")?, token: SecretRef::stored(found.text("token")?) })
    }

    async fn revert(&self, _: &Container, tx: &mut Tx<'_>) -> Result<(), Failure> {
        vacate(tx, &self.instance).await
    }
}

/// What became of a tainted instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Fate {
    /// It can be claimed again.
    Idle,
    /// It stays tainted: somebody may be using it, so that a person decides.
    Kept,
    /// It could not be seen clean: it is to be torn down.
    Condemned,
    /// A teardown has it already.
    Fenced,
}

/// How a recheck ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settled {
    /// What became of the instance.
    pub fate: Fate,
    /// The ledger rows of what claims did in its container, none of which is left; empty unless it is idle.
    pub rows: Vec<ResourceRow>,
}

/// The only way from tainted to idle: `seen` has to be [`ContainerSeen::Clean`].
pub async fn settle_recheck(
    tx: &mut Tx<'_>,
    instance: &str,
    epoch: i64,
    seen: ContainerSeen,
) -> Result<Settled, Failure> {
    let now = tx.now();
    let (state, fate) = match seen {
        ContainerSeen::Clean => ("idle", Fate::Idle),
        ContainerSeen::Foreign => ("tainted", Fate::Kept),
        ContainerSeen::Dirty | ContainerSeen::Unreachable => ("tainted", Fate::Condemned),
    };
    let settled = tx
        .fetch(
            "update instance set state = $3, changed_at = $4
             where id = $1 and claim_epoch = $2 and state = 'tainted' returning pool",
            params![instance, epoch, state, now],
        )
        .await?;
    vacate(tx, instance).await?;
    let Some(row) = settled.first() else { return Ok(Settled { fate: Fate::Fenced, rows: Vec::new() }) };
    let mut rows = Vec::new();
    if fate == Fate::Idle {
        rows = tx.take_some(instance, |row| row.provider == "runtime").await?;
        wake_queue(tx, &row.text("pool")?).await?;
    }
    Ok(Settled { fate, rows })
}

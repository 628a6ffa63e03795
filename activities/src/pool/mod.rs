//! The pool: instances, templates, the queue of claims and the stock of numbers, in our own database.

mod commit_claim;
mod controller;
mod enter_queue;
mod fence_instance;
mod finding;
mod join_url;
mod mark_idle;
mod number;
mod plan_instance;
mod query;
mod recheck;
mod record_gone;
mod reserve_instance;
mod seed;
mod start;

use amends_engine::store::open::Migrations;
use amends_engine::store::tx::{Row, Tx};
use amends_engine::{Failure, params};
pub use commit_claim::{Committed, NoteConversation, RecordClaim};
pub use controller::{HeldBack, PoolStock, Refilled, count_missing, pool_stocks, pools, record_refill};
pub use enter_queue::{EnterQueue, Queued};
pub use fence_instance::{AwaitSagaEnd, FenceInstance, Fenced, SagaEnd, TakeResources, Taken};
pub use finding::{RetireNumber, TaintIncomplete};
pub(crate) use finding::{retire, taint};
pub use mark_idle::MarkIdle;
pub use number::{
    ChooseNumber, Chosen, PickNumber, Picked, QuarantineNumber, RestockNumber, StockNumber, TakeNumberRows,
};
pub use plan_instance::{Plan, PlanInstance};
pub use query::{Instance, InstanceFilter, instance, instances};
pub use recheck::{Container, Fate, ReadContainer, RecheckRequest, Settled, settle_recheck};
pub use record_gone::RecordGone;
pub use reserve_instance::{RESERVE_GIVE_UP, ReserveInstance, Reserved};
pub use seed::{
    ApplySeed, PoolSeed, PoolSettings, SEED_MAX, Seed, SeedError, TemplateDefinition, TemplateSeed, Tool,
    ToolSpec,
};
use serde::{Deserialize, Serialize};
pub use start::{ClaimRequest, Requested, StartClaim, StartTeardown, TeardownRequest, WAITING_MAX};

/// The tables of the pool.
pub const MIGRATIONS: Migrations = Migrations {
    table: "pool_migration",
    sqlite: &[("pool", include_str!("../../../migrations/pool/sqlite/0001_pool.sql"))],
    postgres: &[],
};

/// Where an instance stands.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumIter,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum InstanceState {
    /// Its saga makes it.
    Provisioning,
    /// Healthy, clean, unbound: to be claimed.
    Idle,
    /// A claim is being carried out.
    Claiming,
    /// A person has to accept the claim.
    PendingAcceptance,
    /// Somebody has it.
    Claimed,
    /// It is being taken apart.
    TearingDown,
    /// Nothing of it is left.
    Gone,
    /// Bound to something we do not know, or not verifiably clean.
    Tainted,
    /// Claimed, and its container died.
    Crashed,
    /// Claimed, and its container sleeps.
    Sleeping,
    /// Its making was undone.
    Failed,
}

/// The one row of an answer.
pub(crate) fn one(rows: Vec<Row>, missing: impl FnOnce() -> Failure) -> Result<Row, Failure> {
    rows.into_iter().next().ok_or_else(missing)
}

/// Gives the instance to this saga alone.
pub(crate) async fn occupy(tx: &mut Tx<'_>, instance: &str, kind: &str) -> Result<(), Failure> {
    let saga = tx.saga().clone();
    occupy_for(tx, instance, &saga, kind).await
}

/// Gives the instance to a saga alone.
pub(crate) async fn occupy_for(
    tx: &mut Tx<'_>,
    instance: &str,
    saga: &amends_engine::SagaId,
    kind: &str,
) -> Result<(), Failure> {
    let now = tx.now();
    tx.execute(
        // A claim may be given the instance again that was emptied because of it.
        "insert into instance_saga (instance, saga, kind, began_at) values ($1, $2, $3, $4)
         on conflict (instance, saga) do update set began_at = excluded.began_at, ended_at = null",
        params![instance, saga, kind, now],
    )
    .await?;
    Ok(())
}

/// The saga no longer has the instance to itself.
pub(crate) async fn vacate(tx: &mut Tx<'_>, instance: &str) -> Result<(), Failure> {
    let (saga, now) = (tx.saga().clone(), tx.now());
    tx.execute(
        "update instance_saga set ended_at = $3 where instance = $1 and saga = $2 and ended_at is null",
        params![instance, &saga, now],
    )
    .await?;
    Ok(())
}

/// Wakes the claims that wait for an instance of this pool.
pub(crate) async fn wake_queue(tx: &mut Tx<'_>, pool: &str) -> Result<(), Failure> {
    let waiting = tx
        .fetch("select saga from claim_queue where pool = $1 order by since limit 5", params![pool])
        .await?;
    for row in waiting {
        tx.wake(&amends_engine::SagaId::stored(row.text("saga")?));
    }
    Ok(())
}

//! Fence an instance: from here on only the teardown acts on it; what ran on it is asked to undo itself.

use std::time::Duration;

use amends_engine::journal::state::{Attention, SagaState};
use amends_engine::store::ResourceRow;
use amends_engine::{Failure, Local, SagaId, Tx, params};
use serde::{Deserialize, Serialize};

use super::{occupy, one};

/// Marks the instance as being torn down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FenceInstance {
    /// Which.
    pub instance: String,
}

/// An instance that is fenced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fenced {
    /// The sagas that have, or had, it and have not ended: each has to end first.
    pub running: Vec<SagaId>,
    /// Its name at every provider.
    pub name: String,
    /// The Railway workspace it is in.
    pub workspace: String,
    /// Railway's id of its project, if it came so far.
    pub project_id: Option<String>,
}

impl Local for FenceInstance {
    const NAME: &'static str = "pool.fence_instance";
    type Output = Fenced;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Fenced, Failure> {
        let now = tx.now();
        let unknown =
            || Failure::refused("no_such_instance", format!("there is no instance {}", self.instance));
        let row = tx
            .fetch("select name, workspace, project_id from instance where id = $1", params![&self.instance])
            .await?;
        let row = one(row, unknown)?;
        tx.execute(
            "update instance set state = 'tearing_down', claim_epoch = claim_epoch + 1, changed_at = $2
             where id = $1 and state <> 'gone'",
            params![&self.instance, now],
        )
        .await?;
        tx.label("instance", &self.instance);
        // A teardown pre-empts: whoever has the instance no longer has it to himself.
        tx.execute(
            "update instance_saga set ended_at = $2 where instance = $1 and ended_at is null",
            params![&self.instance, now],
        )
        .await?;
        // Also one that has let go of the instance and not ended yet: what it made is still its own, and passes to
        // the instance only with its end. To take what the instance holds before that would be to take nothing.
        let all = tx
            .fetch(
                "select saga from instance_saga where instance = $1 order by began_at",
                params![&self.instance],
            )
            .await?;
        let mut running = Vec::new();
        for row in all {
            let saga = SagaId::stored(row.text("saga")?);
            let state = tx.saga_state(&saga).await?;
            if saga != *tx.saga() && state.is_some_and(|(state, _)| !state.is_ended()) {
                tx.cancel(&saga, "the instance is being torn down");
                running.push(saga);
            }
        }
        occupy(tx, &self.instance, "teardown").await?;
        Ok(Fenced {
            running,
            name: row.text("name")?,
            workspace: row.text("workspace")?,
            project_id: row.optional_text("project_id")?,
        })
    }
}

/// Waits until the saga that had the instance has ended, undone or through; or, with `takes_over`, until it is stuck.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AwaitSagaEnd {
    /// Which saga.
    pub saga: SagaId,
    /// The instance, if the saga is to hand over what it cannot take back: to that instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takes_over: Option<String>,
}

/// What was waited for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SagaEnd {
    /// Whether the saga has ended; otherwise it is stuck, and was asked to hand over what it holds.
    pub has_ended: bool,
}

/// How soon it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// By these a saga that takes back what it did shows that it gets no further by itself.
const STUCK: [Attention; 6] = [
    Attention::UndoStuck,
    Attention::InDoubt,
    Attention::NeedsDecision,
    Attention::NoWorker,
    Attention::Unreadable,
    Attention::StoreRefused,
];

impl Local for AwaitSagaEnd {
    const NAME: &'static str = "pool.await_saga_end";
    type Output = SagaEnd;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<SagaEnd, Failure> {
        let (state, attention) = match tx.saga_state(&self.saga).await? {
            Some((state, attention)) if !state.is_ended() => (state, attention),
            _ => return Ok(SagaEnd { has_ended: true }),
        };
        let is_stuck = state == SagaState::Compensating
            && attention.iter().any(|word| STUCK.iter().any(|stuck| stuck.to_string() == *word));
        match &self.takes_over {
            Some(instance) if is_stuck => {
                for row in tx.held_by(self.saga.as_str()).await? {
                    tx.release(&self.saga, &row.step, instance, "the instance is being torn down");
                }
                Ok(SagaEnd { has_ended: false })
            }
            _ => Err(Failure::not_yet(format!("saga {} is {state}", self.saga), ASK_AGAIN)),
        }
    }
}

/// Takes over every ledger row that the instance holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TakeResources {
    /// Which instance.
    pub instance: String,
}

/// What is to be removed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Taken {
    /// Every row, outer and inner.
    pub rows: Vec<ResourceRow>,
}

impl Taken {
    /// The rows of a kind that stand by themselves.
    pub fn of(&self, provider: &str, kind: &str) -> impl Iterator<Item = &ResourceRow> {
        self.rows.iter().filter(move |row| row.provider == provider && row.kind == kind)
    }
}

impl Local for TakeResources {
    const NAME: &'static str = "pool.take_resources";
    type Output = Taken;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Taken, Failure> {
        Ok(Taken { rows: tx.take(&self.instance).await? })
    }
}

//! Recheck: bring a tainted instance back to the pool once its container was seen clean, or tear it down.

use amends_activities::pool::{
    Container, Fate, ReadContainer, RecheckRequest, Settled, StartTeardown, settle_recheck,
};
use amends_activities::runtime::{CleanContainer, ContainerSeen, ReleaseContainer};
use amends_engine::{Failure, Halt, Local, Saga, Tx, Workflow, saga, secs};
use serde::{Deserialize, Serialize};

use crate::teardown::Teardown;

/// The saga that decides about an instance which a claim gave back.
pub struct Recheck;

/// So often a container is emptied that does not become clean.
const TRIES: u32 = 8;
/// So long all of that may take: a container that restarts or wakes is back within that.
const LIMIT: std::time::Duration = secs(1800);

impl Workflow for Recheck {
    const NAME: &'static str = "recheck";
    const VERSION: u32 = 1;
    type Input = RecheckRequest;
    type Output = Fate;

    fn owner(request: &RecheckRequest, _: &Fate) -> Option<String> {
        Some(request.instance.clone())
    }

    async fn run(&self, saga: &Saga, request: RecheckRequest) -> saga::Result<Fate> {
        let RecheckRequest { instance, epoch, .. } = request.clone();
        let read = ReadContainer { instance: instance.clone(), epoch };
        let container = saga.transact("container", read).await?.take();
        let ways = [("tries", true), ("limit", false)];
        let (_, seen) = saga
            .race("clean", ways, |saga, tries| {
                let (container, request) = (&container, &request);
                async move {
                    if tries {
                        return clean(&saga, container, request).await;
                    }
                    saga.sleep("limit", LIMIT).await?;
                    Ok(ContainerSeen::Unreachable)
                }
            })
            .await?;
        let settle = SettleRecheck { instance, epoch, seen };
        let settled = saga.pivot_transact("settle", settle).await?.take();
        if !settled.rows.is_empty() {
            let resources = settled.rows.into_iter().map(|row| row.id).collect();
            saga.step("release", ReleaseContainer { resources }).await?;
        }
        Ok(settled.fate)
    }
}

/// Empties the container until it is clean; what was seen last.
async fn clean(saga: &Saga, container: &Container, request: &RecheckRequest) -> saga::Result<ContainerSeen> {
    let mut seen = ContainerSeen::Unreachable;
    for number in 1..=TRIES {
        let try_it = CleanContainer {
            domain: container.domain.clone(),
            token: container.token.clone(),
            epoch: request.epoch,
            claim: request.claim.clone(),
        };
        seen = match saga.step(&format!("try-{number}"), try_it).await {
            Ok(tried) => tried.seen,
            // It did not answer; why not stands with the step.
            Err(Halt::Refused { .. }) => ContainerSeen::Unreachable,
            Err(halt) => return Err(halt),
        };
        if matches!(seen, ContainerSeen::Clean | ContainerSeen::Foreign) {
            break;
        }
        if number < TRIES {
            saga.sleep(&format!("rest-{number}"), secs(5 << number.min(6))).await?;
        }
    }
    Ok(seen)
}

/// Decides about the instance; one that could not be seen clean is torn down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SettleRecheck {
    /// Which instance.
    pub instance: String,
    /// The epoch under which it was released.
    pub epoch: i64,
    /// What its container was seen to be.
    pub seen: ContainerSeen,
}

impl Local for SettleRecheck {
    const NAME: &'static str = "pool.settle_recheck";
    type Output = Settled;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Settled, Failure> {
        let settled = settle_recheck(tx, &self.instance, self.epoch, self.seen).await?;
        if settled.fate == Fate::Condemned {
            StartTeardown::apply::<Teardown>(tx, &self.instance).await?;
        }
        Ok(settled)
    }
}

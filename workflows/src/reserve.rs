//! Reserve: an idle instance for a claim, and its way back through a recheck.

use amends_activities::pool::{RESERVE_GIVE_UP, ReserveInstance, Reserved};
use amends_engine::{Failure, Local, Tx};
use serde::{Deserialize, Serialize};

use crate::recheck::Recheck;

/// Takes an idle instance for a claim; undone, the instance is rechecked before anybody else gets it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reserve(pub ReserveInstance);

impl Local for Reserve {
    const NAME: &'static str = "pool.reserve_instance";
    const REVERTS: bool = true;
    const GIVE_UP_AFTER: std::time::Duration = RESERVE_GIVE_UP;
    type Output = Reserved;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Reserved, Failure> {
        self.0.reserve(tx).await
    }

    async fn revert(&self, made: &Reserved, tx: &mut Tx<'_>) -> Result<(), Failure> {
        ReserveInstance::release::<Recheck>(made, tx).await
    }
}

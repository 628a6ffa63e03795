//! Release a container: closes the ledger rows of claims of which nothing is left in it.

use amends_engine::{Activity, Call, Effect, Failure, ResourceId};
use serde::{Deserialize, Serialize};

use super::Runtime;
use crate::Gone;

/// Closes rows whose container was seen clean by an earlier step. Nothing is called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReleaseContainer {
    /// The rows.
    pub resources: Vec<ResourceId>,
}

impl Activity for ReleaseContainer {
    const NAME: &'static str = "runtime.release_container";
    const EFFECT: Effect = Effect::Read;
    const STRONGLY_CONSISTENT: bool = true;
    type Client = Runtime;
    type Output = Gone;

    fn removes(&self) -> Vec<ResourceId> {
        self.resources.clone()
    }

    async fn execute(&self, _: &Runtime, _: &Call) -> Result<Gone, Failure> {
        Ok(Gone {})
    }
}

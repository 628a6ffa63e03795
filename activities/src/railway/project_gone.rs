//! See that a Railway project is gone: only then is what it held crossed off the ledger.

use amends_engine::{Activity, Call, Effect, Failure, Gate, ResourceId};
use serde::{Deserialize, Serialize};

use super::Railway;
use crate::Gone;

/// Asks for a project that should be gone; none while it is still there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProjectGone {
    /// The workspace it was in.
    pub workspace: String,
    /// Railway's id.
    pub project_id: String,
    /// The ledger rows that its absence closes.
    pub resources: Vec<ResourceId>,
}

impl Activity for ProjectGone {
    const NAME: &'static str = "railway.project_gone";
    const EFFECT: Effect = Effect::Read;
    type Client = Railway;
    type Output = Option<Gone>;

    fn removes(&self) -> Vec<ResourceId> {
        self.resources.clone()
    }

    fn gates(&self, _: &Railway) -> Vec<Gate> {
        super::gates(&self.workspace)
    }

    async fn execute(&self, railway: &Railway, _: &Call) -> Result<Option<Gone>, Failure> {
        Ok(railway.is_gone(&self.workspace, &self.project_id).await?.then_some(Gone {}))
    }
}

//! See that an OpenRouter key is gone: only then is it crossed off the ledger.

use amends_engine::{Activity, Call, Effect, Failure, Gate, ResourceId};
use serde::{Deserialize, Serialize};

use super::OpenRouter;
use crate::Gone;

/// Asks for a key that should be gone; none while it is still there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeyGone {
    /// By what OpenRouter knows it.
    pub hash: String,
    /// The ledger rows that its absence closes.
    pub resources: Vec<ResourceId>,
}

impl Activity for KeyGone {
    const NAME: &'static str = "openrouter.key_gone";
    const EFFECT: Effect = Effect::Read;
    type Client = OpenRouter;
    type Output = Option<Gone>;

    fn removes(&self) -> Vec<ResourceId> {
        self.resources.clone()
    }

    fn gates(&self, _: &OpenRouter) -> Vec<Gate> {
        vec![Gate::credential("openrouter")]
    }

    async fn execute(&self, openrouter: &OpenRouter, _: &Call) -> Result<Option<Gone>, Failure> {
        Ok((!openrouter.is_there(&self.hash).await?).then_some(Gone {}))
    }
}

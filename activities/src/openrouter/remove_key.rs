//! Remove an OpenRouter key and see it gone: the first thing a teardown does, since it stops the money.

use std::time::Duration;

use amends_engine::{Call, Failure, Gate, Object, Removal, ResourceId, secs};
use serde::{Deserialize, Serialize};

use super::OpenRouter;

/// Takes a key away.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RemoveKey {
    /// By what OpenRouter knows it; none where that was never known, and then it is looked for by its name.
    pub hash: Option<String>,
    /// Its name, which is ours alone.
    pub name: String,
    /// The ledger rows that its absence closes.
    pub resources: Vec<ResourceId>,
}

/// How long a key that was made, or deleted, may be shown wrongly.
pub(crate) const SETTLE_AFTER: Duration = secs(10);

impl RemoveKey {
    async fn hashes(&self, openrouter: &OpenRouter) -> Result<Vec<String>, Failure> {
        match &self.hash {
            Some(hash) => Ok(vec![hash.clone()]),
            None => Ok(openrouter.named(&self.name).await?.into_iter().map(|key| key.hash).collect()),
        }
    }
}

impl Removal for RemoveKey {
    const NAME: &'static str = "openrouter.remove_key";
    const SETTLE_AFTER: Duration = SETTLE_AFTER;
    type Client = OpenRouter;

    fn resources(&self) -> Vec<ResourceId> {
        self.resources.clone()
    }

    fn object(&self, _: &Call) -> Option<Object> {
        self.hash.as_ref().map(|id| Object::new("openrouter", "key", id))
    }

    fn gates(&self, _: &OpenRouter) -> Vec<Gate> {
        vec![Gate::credential("openrouter")]
    }

    async fn is_there(&self, openrouter: &OpenRouter, _: &Call) -> Result<bool, Failure> {
        for hash in self.hashes(openrouter).await? {
            if openrouter.is_there(&hash).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn request(&self, openrouter: &OpenRouter, _: &Call) -> Result<(), Failure> {
        for hash in self.hashes(openrouter).await? {
            openrouter.delete(&hash).await?;
        }
        Ok(())
    }
}

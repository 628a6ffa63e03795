//! Revoke an OpenRouter key: the first thing a teardown does, since it stops the money.

use amends_engine::{Activity, Call, Effect, Failure, Gate, Object};
use serde::{Deserialize, Serialize};

use super::OpenRouter;

/// Deletes a key; one that is gone already is success.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RevokeKey {
    /// By what OpenRouter knows it.
    pub hash: String,
}

impl Activity for RevokeKey {
    const NAME: &'static str = "openrouter.revoke_key";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = OpenRouter;
    type Output = ();

    fn object(&self, _: &Call) -> Option<Object> {
        Some(Object::new("openrouter", "key", &self.hash))
    }

    fn gates(&self, _: &OpenRouter) -> Vec<Gate> {
        vec![Gate::credential("openrouter")]
    }

    async fn execute(&self, openrouter: &OpenRouter, _: &Call) -> Result<(), Failure> {
        openrouter.delete(&self.hash).await
    }
}

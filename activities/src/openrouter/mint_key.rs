//! Mint an OpenRouter key: what an instance pays its model with, up to a limit.
//!
//! The secret is shown once, and names are not unique. So a key that is found again is of no use: it is
//! deleted and another one minted.

use crate::answer::still_there;
use amends_engine::{Activity, Call, Effect, Failure, Found, Gate, Resource, SecretRef, secs};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::OpenRouter;
use super::remove_key::SETTLE_AFTER;

/// Asks for a key with a limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MintKey {
    /// `<prefix>-<environment>-<instance>`.
    pub name: String,
    /// What it may spend, in dollars.
    pub limit_usd: u32,
    /// After how many seconds it stops working by itself, should nobody revoke it.
    pub expires_after_secs: Option<u64>,
}

/// An OpenRouter key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LlmKey {
    /// By what OpenRouter knows it.
    pub hash: String,
    /// The key itself, sealed; none for one that was found again.
    pub secret: Option<SecretRef>,
}

impl Activity for MintKey {
    const NAME: &'static str = "openrouter.mint_key";
    const EFFECT: Effect = Effect::SearchableOnce { settle_after: secs(10) };
    type Client = OpenRouter;
    type Output = LlmKey;

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("openrouter", "key", call.name(&self.name)))
    }

    fn gates(&self, _: &OpenRouter) -> Vec<Gate> {
        vec![Gate::credential("openrouter")]
    }

    fn external_id(made: &LlmKey) -> Option<String> {
        Some(made.hash.clone())
    }

    async fn execute(&self, openrouter: &OpenRouter, call: &Call) -> Result<LlmKey, Failure> {
        let expires_at = self.expires_after_secs.and_then(|seconds| {
            let at = call.now().plus(secs(seconds));
            jiff::Timestamp::from_microsecond(at.0).ok().map(|at| format!("{at:.0}"))
        });
        let asked = json!({"name": call.name(&self.name), "limit": self.limit_usd, "expires_at": expires_at});
        let reply = openrouter.create(&asked).await?;
        let (hash, key) = (reply.needed("/data/hash")?, reply.needed("/key")?);
        Ok(LlmKey { hash, secret: Some(call.seal("openrouter.key", &key.into())?) })
    }

    async fn find(&self, openrouter: &OpenRouter, call: &Call) -> Result<Found<LlmKey>, Failure> {
        let found = openrouter.named(&call.name(&self.name)).await?;
        // Its secret was told to a process that did not keep it.
        Ok(found
            .first()
            .map_or(Found::Nothing, |key| Found::Unusable(LlmKey { hash: key.hash.clone(), secret: None })))
    }

    async fn compensate(&self, openrouter: &OpenRouter, made: &LlmKey, call: &Call) -> Result<(), Failure> {
        // Names are not unique: whatever else came of this generation goes too.
        let twins = openrouter.named(&call.name(&self.name)).await?;
        if twins.is_empty() && !openrouter.is_there(&made.hash).await? {
            return call.absent(SETTLE_AFTER);
        }
        openrouter.delete(&made.hash).await?;
        for twin in twins.iter().filter(|twin| twin.hash != made.hash) {
            openrouter.delete(&twin.hash).await?;
        }
        Err(still_there("OpenRouter was asked to delete the key"))
    }
}

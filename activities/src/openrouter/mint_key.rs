//! Mint an OpenRouter key: what an instance pays its model with, up to a limit.
//!
//! The secret is shown once, and names are not unique. So a key that is found again is of no use: it is
//! deleted and another one minted.

use amends_engine::{Activity, Call, Effect, Failure, Gate, Resource, SecretRef, secs};
use serde::{Deserialize, Serialize};

use super::OpenRouter;

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
    const EFFECT: Effect = Effect::SearchableOnce { quiet: secs(10) };
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

    // BODY
    async fn execute(&self, _: &OpenRouter, _: &Call) -> Result<Self::Output, Failure> {
        Err(Failure::refused("unfinished", Self::NAME))
    }
    // END
}

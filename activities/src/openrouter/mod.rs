//! OpenRouter.

pub(crate) mod answers;
mod census;
mod client;
pub mod mint_key;
pub mod remove_key;

pub use census::OpenRouterCensus;
pub use client::OpenRouter;
pub use mint_key::{LlmKey, MintKey};
pub use remove_key::RemoveKey;

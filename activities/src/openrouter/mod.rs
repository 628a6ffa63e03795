//! OpenRouter.

pub(crate) mod answers;
mod census;
mod client;
pub mod key_gone;
pub mod mint_key;
pub mod revoke_key;

pub use census::OpenRouterCensus;
pub use client::OpenRouter;
pub use key_gone::KeyGone;
pub use mint_key::{LlmKey, MintKey};
pub use revoke_key::RevokeKey;

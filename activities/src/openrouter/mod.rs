//! OpenRouter.

pub(crate) mod answers;
mod client;
pub mod mint_key;
pub mod remove_key;

pub use client::OpenRouter;
pub use mint_key::{LlmKey, MintKey};
pub use remove_key::RemoveKey;

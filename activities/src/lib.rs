//! activities.

pub mod agentmail;
pub mod ghcr;
pub mod openrouter;
pub mod railway;
pub mod runtime;
pub mod telnyx;

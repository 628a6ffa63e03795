//! Runtime.

pub(crate) mod answers;
pub mod check_health;
mod client;
pub mod configure_agent;
pub mod join_conversation;
pub mod observe_conversation;
pub mod verify_clean;
pub mod verify_configured;

pub use check_health::{CheckHealth, Healthy};
pub use client::Runtime;
pub use configure_agent::{ConfigureAgent, Configured, ToolHandle};
pub use join_conversation::{JoinConversation, Joined};
pub use observe_conversation::{Bound, ObserveConversation};
pub use verify_clean::{Clean, VerifyClean};
pub use verify_configured::VerifyConfigured;

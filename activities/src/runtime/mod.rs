//! Runtime.

pub(crate) mod answers;
pub mod await_acceptance;
pub mod check_container;
pub mod check_health;
pub mod clean_container;
mod client;
pub mod configure_agent;
pub mod hold_container;
pub mod join_conversation;
pub mod observe_conversation;
pub mod release_container;
pub mod verify_clean;
pub mod verify_configured;

pub use await_acceptance::{Accepted, AwaitAcceptance};
pub use check_container::{CheckContainer, Checked};
pub use check_health::{CheckHealth, Healthy};
pub use clean_container::{CleanContainer, ContainerSeen, Tried};
pub use client::Runtime;
pub use configure_agent::{ConfigureAgent, Configured, ToolHandle};
pub use hold_container::{Held, HoldContainer};
pub use join_conversation::{JoinConversation, Joined};
pub use observe_conversation::{Bound, ObserveConversation};
pub use release_container::ReleaseContainer;
pub use verify_clean::{Clean, VerifyClean};
pub use verify_configured::VerifyConfigured;

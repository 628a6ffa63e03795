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

use amends_engine::Gate;

use crate::http::escaped;

/// The gate of a container, which closes for as long as the container asks to be left alone.
///
/// What does something to it names the gate: each such step is in a race against a time of its saga. What reads names
/// none, since the time at a gate does not count against how long a read is tried: behind a gate a claim would stay with a
/// container that throttles until its deadline, where it goes on with another instance.
pub(crate) fn gates(domain: &str) -> Vec<Gate> {
    vec![Gate::credential(format!("runtime:{}", escaped(domain)))]
}

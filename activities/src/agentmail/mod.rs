//! AgentMail.

pub(crate) mod answers;
mod census;
mod client;
pub mod create_inbox;
pub mod remove_inbox;

pub use census::AgentMailCensus;
pub use client::AgentMail;
pub use create_inbox::{CreateInbox, Inbox};
pub use remove_inbox::RemoveInbox;

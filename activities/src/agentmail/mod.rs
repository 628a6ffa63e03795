//! AgentMail.

pub(crate) mod answers;
mod census;
mod client;
pub mod create_inbox;
pub mod delete_inbox;
pub mod inbox_gone;

pub use census::AgentMailCensus;
pub use client::AgentMail;
pub use create_inbox::{CreateInbox, Inbox};
pub use delete_inbox::DeleteInbox;
pub use inbox_gone::InboxGone;

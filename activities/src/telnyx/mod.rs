//! Telnyx.

pub(crate) mod answers;
pub mod assign_number;
pub mod await_number;
mod census;
mod client;
pub mod ensure_messaging_profile;
pub mod look_up_messaging_profile;
pub mod look_up_order;
pub mod mark_number;
pub mod order_number;
pub mod search_numbers;
pub mod unassign_number;
pub mod void_order;

pub use assign_number::{AssignNumber, Assignment, NUMBER_GONE};
pub use await_number::{AwaitNumber, Number, ORDER_FAILED};
pub use census::TelnyxCensus;
pub use client::Telnyx;
pub use ensure_messaging_profile::{EnsureMessagingProfile, LISTED_IN, MessagingProfile};
pub use look_up_messaging_profile::LookUpMessagingProfile;
pub use look_up_order::LookUpOrder;
pub use mark_number::MarkNumber;
pub use order_number::{NUMBER_TAKEN, Order, OrderNumber};
pub use search_numbers::{Candidates, SearchNumbers};
pub use unassign_number::UnassignNumber;
pub use void_order::VoidOrder;

//! The journal: what happened to a saga, in order; pure, without IO, clock or async.
//!
//! An [`Entry`] is one line of it and an [`Event`] the fact in that line. [`State`] folds a saga's
//! entries to where it stands and says which fact may follow which; [`Ledger`] folds the same entries to
//! what exists outside.
//!
//! ```text
//! a step:          AttemptStarted ─► StepCompleted ─► (undo) CompensationStarted ─► StepCompensated
//!                    ▲   │  │ └────► StepFailed                 ▲  │
//!   AttemptDeferred ─┘◄──┘  └► AttemptLost ─► StepFound ────────┘  └► CompensationDeferred / Lost ─┐
//!                                              (nothing: again)    ▲───────────────────────────────┘
//! ```

pub mod act;
mod due;
pub mod event;
pub mod failure;
pub mod fingerprint;
mod fold;
pub mod ledger;
mod legality;
pub mod plan;
pub mod state;
pub mod step;
pub mod story;
#[cfg(test)]
mod tests;
pub(crate) mod unsettled;
pub mod why;

use serde::{Deserialize, Serialize};

pub use act::Act;
pub use event::Event;
pub use ledger::Ledger;
pub use plan::{Plan, plan};
pub use state::State;
pub use story::story;
pub use why::{Why, why};

use crate::env::Timestamp;

/// One line of a saga's journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place: 1, 2, 3, … without gaps.
    pub seq: i64,
    /// When it was written.
    pub at: Timestamp,
    /// The epoch of the lease under which it was written.
    pub epoch: i64,
    /// What happened.
    pub event: Event,
}

/// The shape of [`Event`] as stored; raised when an old shape needs reading in another way.
pub const SCHEMA_VERSION: i64 = 1;

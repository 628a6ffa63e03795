//! Data: what users hand over, written as JSON so that it reads back as it was, or known not to before it matters.
//!
//! Everything that a journal keeps of a user's passes through here on its way in: inputs and outputs, signals, starts,
//! names. What cannot be kept is an [`Unstorable`] that says which thing it is and what is wrong with it.

pub(crate) mod limits;
mod present;
mod reference;
mod round_trip;
mod unseen;
mod writer;

pub use limits::{
    DEPTH_MAX, KEY_MAX, LABELS_MAX, MADE_MAX, NAME_MAX, PLACES_MAX, REASON_MAX, SIGNAL_ID_MAX, VALUE_MAX,
};
pub(crate) use present::present;
pub use reference::Reference;
pub(crate) use reference::{Input, Resolved, Token};
pub(crate) use round_trip::{canonical, input, output, plain};
pub use unseen::is_unseen;
pub(crate) use writer::{check, written};

use crate::journal::failure::Failure;

/// Something that cannot be kept as it is: too large, too deep, or not what JSON or a database can hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {problem}")]
pub struct Unstorable {
    /// What it is, as `the key of the start`.
    pub what: String,
    /// What is wrong with it, as `is too long: 3000 bytes, and 1024 are allowed`.
    pub problem: String,
}

/// It is refused: nothing was done for it yet, or that was undone with its transaction.
impl From<Unstorable> for Failure {
    fn from(error: Unstorable) -> Self {
        Self::refused("unstorable", error.to_string())
    }
}

impl Unstorable {
    pub(crate) fn new(what: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { what: what.into(), problem: problem.into() }
    }
}

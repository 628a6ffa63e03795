//! Answers: the one place where what a provider sends becomes done, refused, gone, or in doubt.
//!
//! A definite answer is one that stands in the provider's table: `<provider>/answers.rs`, data alone, each line with
//! its source. What stands in no table is in doubt after a write and unavailable after a read, whatever its status.
//! `docs/provider-answers.md` is made from the tables.

pub(crate) mod judge;
pub(crate) mod outcome;
pub(crate) mod page;
pub(crate) mod table;

pub(crate) use judge::{Answer, Content};
pub(crate) use outcome::{Answered, Reply, in_doubt, not_yet, settle, still_there, unreadable};
pub(crate) use table::{Body, Done, Field, Is, Kind, Means, Operation, Row, Shape, Source, Wire};

/// Every operation that is ever asked of a provider.
pub(crate) fn operations() -> Vec<&'static Operation> {
    let all = [
        crate::railway::answers::OPERATIONS,
        crate::openrouter::answers::OPERATIONS,
        crate::agentmail::answers::OPERATIONS,
        crate::telnyx::answers::OPERATIONS,
        crate::ghcr::answers::OPERATIONS,
        crate::runtime::answers::OPERATIONS,
    ];
    all.into_iter().flatten().copied().collect()
}

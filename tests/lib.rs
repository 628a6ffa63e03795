//! What the tests of promises share: databases that can be crashed, and a small world to act on.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

mod agreement;
pub mod contract;
pub mod database;
pub mod depot;
pub mod door;
pub mod market;
pub mod postgres;
pub mod process;
pub mod recorder;
pub mod shop;
pub mod world;
pub mod yard;

/// The pages whose examples have to compile.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../docs/lost-calls.md")]
    mod lost_calls {}
}

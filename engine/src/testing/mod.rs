//! For tests: what every store must keep, a process that dies at a chosen write, the kit that tries a saga, and a call
//! for the unit tests of an activity.

mod call;
pub mod conformance;
pub mod conformance_findings;
pub mod crash;
pub mod inject;
pub mod kit;
pub mod person;
pub mod shaky;

pub use call::{CallBuilder, call};

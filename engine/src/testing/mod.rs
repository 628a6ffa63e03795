//! For tests: what every store must keep, a process that dies at a chosen write, and the kit that tries a saga.

pub mod conformance;
pub mod crash;
pub mod inject;
pub mod kit;
pub mod person;
pub mod shaky;

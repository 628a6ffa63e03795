//! What the fakes do on the wire, and each fault as a client meets it. The time is held: nothing here depends on how
//! fast the machine is.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

mod bench;
mod calls;
mod catalogue;
mod containers;
mod deletes;
mod guard;
mod lists;
mod numbers;
mod proxy;
mod railway;

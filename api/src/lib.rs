//! The surface of Amends: HTTP API, dashboard and command line.

pub mod problem;
pub mod timeline;

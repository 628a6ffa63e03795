//! The surface of Amends: HTTP API, dashboard and command line.

pub mod dashboard;
pub mod problem;
pub mod timeline;
pub mod words;

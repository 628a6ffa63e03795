//! The surface of Amends: HTTP API, dashboard and command line.

pub mod bench;
pub mod dashboard;
pub mod problem;
#[cfg(test)]
mod samples;
pub mod timeline;
pub mod view;
pub mod words;

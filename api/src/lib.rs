//! The surface of Amends: HTTP API, dashboard and command line.

pub mod act;
pub mod bench;
pub mod cli;
pub mod connections;
pub mod dashboard;
pub mod extract;
pub mod fresh;
pub mod jobs;
pub mod problem;
pub mod product;
pub mod program;
pub mod routes;
#[cfg(test)]
mod samples;
pub mod server;
pub mod settings;
pub mod timeline;
pub mod view;
pub mod words;

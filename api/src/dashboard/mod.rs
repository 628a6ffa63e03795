//! The dashboard: pages for people, drawn on the server from what the API serves.

pub mod drawing;
pub mod scale;

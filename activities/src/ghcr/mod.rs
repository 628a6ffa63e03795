//! Ghcr.

pub(crate) mod answers;
mod client;
pub mod pin_digest;

pub use client::Ghcr;
pub use pin_digest::{PinDigest, Pinned};

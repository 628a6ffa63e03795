//! The client.

/// The client.
#[derive(Debug)]
pub struct OpenRouter;

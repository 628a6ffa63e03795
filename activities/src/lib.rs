//! Activities: what can be asked of each provider, found again, and taken back.

pub mod agentmail;
mod answer;
mod census;
#[cfg(test)]
mod fuzz;
pub mod ghcr;
mod gone;
mod http;
pub mod openrouter;
pub mod pool;
pub mod railway;
pub mod runtime;
pub mod telnyx;

pub use answer::page::page as provider_answers;
pub use gone::Gone;

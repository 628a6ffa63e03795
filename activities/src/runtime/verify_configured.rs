//! Verify a configuration: the runtime says that it has one. The pivot of a claim without conversation.

use amends_engine::{Activity, Call, Effect, Failure, SecretRef};
use serde::{Deserialize, Serialize};

use super::Runtime;
use super::configure_agent::Configured;
use crate::http;

/// Asks whether the runtime is configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerifyConfigured {
    /// Where the runtime answers, without a scheme.
    pub domain: String,
    /// The instance's bearer token.
    pub token: SecretRef,
}

impl Activity for VerifyConfigured {
    const NAME: &'static str = "runtime.verify_configured";
    const EFFECT: Effect = Effect::Read;
    type Client = Runtime;
    type Output = Configured;

    async fn execute(&self, runtime: &Runtime, call: &Call) -> Result<Configured, Failure> {
        let status = runtime.status(&self.domain, &self.token, call).await?;
        match status {
            Some(status) if !status.is_clean => Ok(Configured {}),
            _ => Err(http::not_yet("the runtime does not show its configuration yet")),
        }
    }
}

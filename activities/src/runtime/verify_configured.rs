//! Verify a configuration: the runtime says that it has one. The pivot of a claim without conversation.

use std::time::Duration;

use amends_engine::{Activity, Call, Effect, Failure, SecretRef, secs};
use serde::{Deserialize, Serialize};

use super::Runtime;
use super::configure_agent::Configured;
use crate::answer::not_yet;

/// Asks whether the runtime is configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerifyConfigured {
    /// Where the runtime answers, without a scheme.
    pub domain: String,
    /// The instance's bearer token.
    pub token: SecretRef,
    /// The claim that configured it.
    pub epoch: i64,
}

impl Activity for VerifyConfigured {
    const NAME: &'static str = "runtime.verify_configured";
    const EFFECT: Effect = Effect::Read;
    const GIVE_UP_AFTER: Duration = secs(600);
    type Client = Runtime;
    type Output = Configured;

    async fn execute(&self, runtime: &Runtime, call: &Call) -> Result<Configured, Failure> {
        let status = runtime.status(&self.domain, &self.token, call).await?;
        // Another claim's configuration is none of ours.
        if !status.is_clean && status.epoch == self.epoch {
            Ok(Configured {})
        } else {
            Err(not_yet("the runtime does not show its configuration yet"))
        }
    }
}

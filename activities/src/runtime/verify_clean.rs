//! Verify that a runtime is clean: bound to no conversation, and with nothing left of one.

use amends_engine::{Activity, Call, Effect, Failure, SecretRef};
use serde::{Deserialize, Serialize};

use super::Runtime;

/// Asks whether nothing of a former claim is left; none while something is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerifyClean {
    /// Where the runtime answers, without a scheme.
    pub domain: String,
    /// The instance's bearer token.
    pub token: SecretRef,
}

/// A runtime that is clean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Clean {}

impl Activity for VerifyClean {
    const NAME: &'static str = "runtime.verify_clean";
    const EFFECT: Effect = Effect::Read;
    type Client = Runtime;
    type Output = Option<Clean>;

    async fn execute(&self, runtime: &Runtime, call: &Call) -> Result<Option<Clean>, Failure> {
        let status = runtime.status(&self.domain, &self.token, call).await?;
        Ok(status.is_vacant().then_some(Clean {}))
    }
}

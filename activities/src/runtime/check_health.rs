//! Check a runtime's health: ready, and made of the image we deployed.

use amends_engine::{Activity, Call, Effect, Failure};
use serde::{Deserialize, Serialize};

use super::Runtime;

/// Asks whether the container is ready; none while it is not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckHealth {
    /// Where the runtime answers, without a scheme.
    pub domain: String,
    /// The digest it should be made of, as `sha256:..`.
    pub digest: String,
}

/// A runtime that is ready.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Healthy {
    /// The version it says it is.
    pub version: String,
}

impl Activity for CheckHealth {
    const NAME: &'static str = "runtime.check_health";
    const EFFECT: Effect = Effect::Read;
    type Client = Runtime;
    type Output = Option<Healthy>;

    async fn execute(&self, runtime: &Runtime, _: &Call) -> Result<Option<Healthy>, Failure> {
        let Some(health) = runtime.health(&self.domain).await? else { return Ok(None) };
        // Another digest is a container of before that is not replaced yet.
        let is_it = health.body["ready"] == true && health.body["digest"] == self.digest.as_str();
        let version = health.text("/version").unwrap_or_default();
        Ok(is_it.then_some(Healthy { version }))
    }
}

//! Check a runtime's health: ready, and made of the image we deployed.

use amends_engine::{Activity, Call, Effect, Failure};
use serde::{Deserialize, Serialize};

use super::Runtime;
use super::client::ASK_AGAIN;

/// Asks whether the container is ready; unavailable, with the cause, while it is not.
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
        let health = runtime.health(&self.domain).await?;
        if health.body["ready"] != true {
            return Err(Failure::not_yet("the container says that it is not ready", ASK_AGAIN));
        }
        if health.body["digest"] != self.digest.as_str() {
            let detail = "the container is of another image: one of before, that is not replaced yet";
            return Err(Failure::not_yet(detail, ASK_AGAIN));
        }
        Ok(Some(Healthy { version: health.text("/version").unwrap_or_default() }))
    }
}

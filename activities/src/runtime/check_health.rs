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

    // BODY
    async fn execute(&self, _: &Runtime, _: &Call) -> Result<Self::Output, Failure> {
        Err(Failure::refused("unfinished", Self::NAME))
    }
    // END
}

//! Check a container before a claim touches it: it answers itself, and nothing of a former claim is left in it.

use std::time::Duration;

use amends_engine::{Activity, Call, Effect, Failure, SecretRef, secs};
use serde::{Deserialize, Serialize};

use super::Runtime;

/// Asks whether the container can be given to somebody. Refused as `not_clean` where it says that it cannot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckContainer {
    /// Where the runtime answers, without a scheme.
    pub domain: String,
    /// The instance's bearer token.
    pub token: SecretRef,
}

/// A container that answers, and is clean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checked {}

impl Activity for CheckContainer {
    const NAME: &'static str = "runtime.check_container";
    const EFFECT: Effect = Effect::Read;
    /// As long as a container that sleeps may take to wake.
    const GIVE_UP_AFTER: Duration = secs(300);
    type Client = Runtime;
    type Output = Checked;

    async fn execute(&self, runtime: &Runtime, call: &Call) -> Result<Checked, Failure> {
        let status = runtime.status(&self.domain, &self.token, call).await?;
        if status.is_vacant() {
            Ok(Checked {})
        } else {
            Err(Failure::refused("not_clean", "something of another claim is in the container"))
        }
    }
}

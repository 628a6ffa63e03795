//! Hold a container: names it on the ledger as one that a claim does something to.

use amends_engine::{Activity, Call, Effect, Failure, Resource};
use serde::{Deserialize, Serialize};

use super::Runtime;

/// Says that a claim is about to act on a container.
///
/// What the claim does to it lives within this row, which passes to the instance when the claim is undone. So an undo
/// never waits for a container, whatever state it is in: the instance's recheck brings it back to a known state.
/// Nothing is called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HoldContainer {
    /// The instance, which gets the row in the end.
    pub instance: String,
    /// Where the runtime answers, without a scheme.
    pub domain: String,
}

/// A container that a claim acts on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Held {}

impl Activity for HoldContainer {
    const NAME: &'static str = "runtime.hold_container";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Runtime;
    type Output = Held;

    fn resource(&self, _: &Call) -> Option<Resource> {
        Some(Resource::new("runtime", "container", self.domain.clone()).kept_by(self.instance.clone()))
    }

    async fn execute(&self, _: &Runtime, _: &Call) -> Result<Held, Failure> {
        Ok(Held {})
    }
}

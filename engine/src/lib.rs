//! The saga engine.

pub mod activity;
mod engine;
pub mod env;
pub mod ids;
pub mod journal;
pub mod saga;
pub mod secret;
pub mod store;
mod worker;

pub use activity::{Activity, Call, Effect, Failure, Found, Gate, Local, Refusal, Registry, Resource, secs};
pub use engine::{ActError, Engine, SagaView};
pub use env::{Env, Timestamp};
pub use ids::{ResourceId, SagaId, SecretRef, StepKey};
pub use saga::{Halt, Made, Saga, Workflow};
pub use store::tx::Tx;

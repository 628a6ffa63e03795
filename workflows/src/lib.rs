//! The sagas of the product.
//!
//! | saga | when it completes | when it unwinds |
//! |---|---|---|
//! | [`Replenish`] | one more instance is idle: healthy, clean, at its digest | nothing of it is outside |
//! | [`Claim`] | one instance is its owner's, with its tools, in its conversation | the instance is idle again, its tools are gone |
//! | [`Teardown`] | nothing of the instance is outside, and that was seen | it never does: forward only |

mod claim;
mod pool_controller;
mod reconcile;
mod registry;
mod replenish;
mod requests;
mod teardown;

pub use claim::{Claim, Claimed};
pub use pool_controller::RefillPool;
pub use reconcile::providers;
pub use registry::{Clients, registry};
pub use replenish::{Replenish, ReplenishRequest};
pub use requests::{RequestClaim, RequestTeardown};
pub use teardown::Teardown;

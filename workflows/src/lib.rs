//! The sagas of the product.
//!
//! | saga | when it completes | when it unwinds |
//! |---|---|---|
//! | [`Replenish`] | one more instance is idle: healthy, clean, at its digest | nothing of it is outside |
//! | [`Claim`] | one instance is its owner's, with its tools, in its conversation | its tools are gone, and a recheck decides about the instance |
//! | [`Recheck`] | the instance is idle, seen clean; or tainted, and torn down unless somebody may be using it | the instance is tainted |
//! | [`Restock`] | a number that was ordered for a claim which came to nothing is in the stock, or its row is closed | it never does: it looks and marks |
//! | [`MakeProfile`] | the environment has its messaging profile | it never does: the profile stays |
//! | [`Teardown`] | nothing of the instance is outside, and that was seen | it never does: forward only |

mod claim;
mod pool_controller;
mod profile;
mod recheck;
mod reconcile;
mod registry;
mod replenish;
mod requests;
mod reserve;
mod restock;
mod teardown;

pub use claim::{Claim, Claimed};
pub use pool_controller::RefillPool;
pub use profile::{MakeProfile, StartProfile};
pub use recheck::{Recheck, SettleRecheck};
pub use reconcile::providers;
pub use registry::{Clients, registry};
pub use replenish::{Replenish, ReplenishRequest};
pub use requests::{RequestClaim, RequestTeardown};
pub use reserve::Reserve;
pub use restock::{Restock, RestockRequest};
pub use teardown::Teardown;

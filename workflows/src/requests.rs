//! Requests from outside: checked, and started in the transaction that checked them.

use amends_activities::pool::{ClaimRequest, Requested, StartClaim, StartTeardown};
use amends_engine::{Failure, Local, Tx};
use serde::{Deserialize, Serialize};

use crate::claim::Claim;
use crate::teardown::Teardown;

/// Starts a claim; the same key is the same saga, and refused for another request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestClaim {
    /// The client's idempotency key.
    pub key: String,
    /// What is asked for.
    pub request: ClaimRequest,
}

impl Local for RequestClaim {
    const NAME: &'static str = "pool.request_claim";
    type Output = Requested;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Requested, Failure> {
        StartClaim::apply::<Claim>(tx, &self.key, &self.request).await
    }
}

/// Starts an instance's teardown, or answers the one there is: there is one for each instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestTeardown {
    /// Which instance.
    pub instance: String,
}

impl Local for RequestTeardown {
    const NAME: &'static str = "pool.request_teardown";
    type Output = Requested;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Requested, Failure> {
        StartTeardown::apply::<Teardown>(tx, &self.instance).await
    }
}

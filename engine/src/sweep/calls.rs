//! Calls: how a call that belongs to no saga passes its gates.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::activity::{Cause, Failure, Gate, secs};
use crate::env::Timestamp;
use crate::gate::Lane;
use crate::worker::Shared;

/// How long one call may take.
pub(super) const CALL: Duration = secs(60);
/// How often a gate that lets others go first is asked again.
const AGAIN: Duration = secs(1);

/// The calls of one sweep: none of them leaves without a permit, and none behind `deadline`.
pub(super) struct Calls<'s> {
    pub(super) shared: &'s Arc<Shared>,
    pub(super) deadline: Timestamp,
}

impl Calls<'_> {
    /// Makes one call behind its gates; `what` names it, as `list of cloud`. Its permit tells the gates what it came to.
    pub(super) async fn call<T: Send>(
        &self,
        what: &str,
        gates: Vec<Gate>,
        call: impl Future<Output = Result<T, Failure>> + Send,
    ) -> Result<T, Failure> {
        let env = &self.shared.env;
        let limit = env.time_limit(CALL);
        loop {
            let barrier = match self.shared.gates.admit(&gates, Lane::Forward, limit).await {
                Ok(permit) => return permit.call(limit, what, |_| call).await,
                Err(barrier) => barrier,
            };
            // What sagas wait for comes first: a sweep that finds no gap is made later.
            let again = barrier.until.max(env.now().plus(env.paced(AGAIN)));
            if again >= self.deadline {
                let detail = barrier.detail;
                return Err(Failure::Unavailable { cause: Cause::NotYet, detail, retry_after: None });
            }
            env.sleep(again.since(env.now()).max(Duration::from_millis(1))).await;
        }
    }
}

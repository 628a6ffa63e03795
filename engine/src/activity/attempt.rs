//! One attempt: an activity called under a time limit, with its panics and lost answers turned into failures.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;

use super::{Cause, Failure};

/// Runs a call to its end or to its limit. A call that panics or that is cut off may have happened.
pub(crate) async fn bounded<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let caught = AssertUnwindSafe(call).catch_unwind();
    match tokio::time::timeout(limit, caught).await {
        Ok(Ok(outcome)) => outcome,
        // What a panic says may hold a secret, so it is not repeated.
        Ok(Err(_)) => {
            Err(Failure::NoAnswer { cause: Cause::Panic, detail: "the activity panicked".to_owned() })
        }
        Err(_) => Err(Failure::NoAnswer {
            cause: Cause::Timeout,
            detail: format!("no answer within {}", humantime::format_duration(limit)),
        }),
    }
}

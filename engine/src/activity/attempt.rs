//! One attempt: the user's code called under a time limit, with its panics and lost answers turned into failures.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use futures::FutureExt;

use super::{Cause, Failure};

/// Runs a call to its end or to its limit. A call that panics or that is cut off may have happened. `what` names the
/// function, as `execute of railway.create_project`.
pub(crate) async fn bounded<T>(
    limit: Duration,
    what: &str,
    call: impl Future<Output = Result<T, Failure>> + Send,
) -> Result<T, Failure> {
    let mut call = Box::pin(call);
    let ended = tokio::time::timeout(limit, AssertUnwindSafe(&mut call).catch_unwind()).await;
    // What it holds may panic as it is dropped: what the call came to is known by then.
    unpanicked(|| drop(call));
    match ended {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(Failure::NoAnswer { cause: Cause::Panic, detail: panicked(what) }),
        Err(_) => Err(Failure::NoAnswer {
            cause: Cause::Timeout,
            detail: format!("no answer within {}", humantime::format_duration(limit)),
        }),
    }
}

/// What a function of the user's says, and that it panicked where it does: nothing was called then, and nothing
/// happened.
pub(crate) fn said<T>(function: &str, name: &str, says: impl FnOnce() -> T) -> Result<T, Failure> {
    unpanicked(says).ok_or_else(|| not_called(function, name))
}

/// The same of what has to be waited for.
pub(crate) async fn done<T>(
    function: &str,
    name: &str,
    does: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    AssertUnwindSafe(does).catch_unwind().await.unwrap_or_else(|_| Err(not_called(function, name)))
}

/// Nothing where it panics.
pub(crate) fn unpanicked<T>(does: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(does)).ok()
}

fn not_called(function: &str, name: &str) -> Failure {
    let detail = panicked(&format!("{function} of {name}"));
    Failure::Unavailable { cause: Cause::Panic, detail, retry_after: None }
}

/// What a panic says may hold a secret, so it is not repeated.
pub(crate) fn panicked(what: &str) -> String {
    format!("{what} panicked")
}

impl Failure {
    /// Whether it is a panic of the user's code before anything was called.
    pub(crate) fn is_panic(&self) -> bool {
        matches!(self, Self::Unavailable { cause: Cause::Panic, .. })
    }
}

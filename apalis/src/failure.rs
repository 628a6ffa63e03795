//! Which of the three failures a job's error is, decided by what apalis' own error types promise.

use std::error::Error;
use std::time::Duration;

use amends_engine::Failure;
use amends_engine::activity::Cause;
use apalis::layers::catch_panic::PanicError;
use apalis::prelude::{AbortError, BoxDynError, DeferredError, MissingDataError, RetryAfterError};
use tower::timeout::error::Elapsed;

/// Why a service did not answer with its output.
pub(crate) enum Trouble {
    /// It was not ready within this time, and was not called.
    Busy(Duration),
    /// It said that it will not be ready, and was not called.
    NotReady(BoxDynError),
    /// It was called and answered with this.
    Answer(BoxDynError),
}

/// What the trouble says of whether the job happened.
pub(crate) fn failure_of(trouble: &Trouble) -> Failure {
    match trouble {
        Trouble::Busy(patience) => unavailable(
            Cause::NotYet,
            format!("the service was not ready within {patience:?}; nothing was sent"),
            None,
        ),
        Trouble::NotReady(error) => unavailable(
            Cause::ServerError,
            format!("the service is not ready, nothing was sent: {error}"),
            None,
        ),
        Trouble::Answer(error) => answered(error),
    }
}

fn answered(error: &BoxDynError) -> Failure {
    if is_panic(error.as_ref()) {
        // apalis' layer calls a panic an abort, but a handler that panics may have done half its work. What a
        // panic says may hold a secret, so it is not repeated.
        Failure::NoAnswer { cause: Cause::Panic, detail: "the job panicked".to_owned() }
    } else if let Some(error) = error.downcast_ref::<AbortError>() {
        Failure::refused("aborted", inner(error))
    } else if let Some(error) = error.downcast_ref::<RetryAfterError>() {
        unavailable(Cause::ServerError, inner(error), Some(error.get_duration()))
    } else if let Some(error) = error.downcast_ref::<DeferredError>() {
        unavailable(Cause::ServerError, inner(error), None)
    } else if let Some(error) = error.downcast_ref::<MissingDataError>() {
        unavailable(Cause::ServerError, format!("the handler was not called: {error}"), None)
    } else if error.is::<Elapsed>() {
        Failure::NoAnswer { cause: Cause::Timeout, detail: "the service's own time-out passed".to_owned() }
    } else {
        Failure::NoAnswer { cause: Cause::ServerError, detail: error.to_string() }
    }
}

fn unavailable(cause: Cause, detail: String, retry_after: Option<Duration>) -> Failure {
    Failure::Unavailable { cause, detail, retry_after }
}

fn is_panic(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| (*error).source()).any(|error| error.is::<PanicError>())
}

/// What was wrapped, without the wrapper's name.
fn inner(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(error: impl Into<BoxDynError>) -> Failure {
        failure_of(&Trouble::Answer(error.into()))
    }

    #[test]
    fn what_says_that_nothing_happened_is_believed() {
        assert_eq!(of(AbortError::new("no such box")), Failure::refused("aborted", "no such box"));
        let later = of(RetryAfterError::new("full", Duration::from_secs(9)));
        assert_eq!(later, unavailable(Cause::ServerError, "full".into(), Some(Duration::from_secs(9))));
        assert!(matches!(of(DeferredError::new("busy")), Failure::Unavailable { retry_after: None, .. }));
        assert!(matches!(of(MissingDataError::NotFound("Smtp".into())), Failure::Unavailable { .. }));
    }

    #[test]
    fn what_says_nothing_leaves_it_unknown() {
        assert!(matches!(of("the line dropped"), Failure::NoAnswer { cause: Cause::ServerError, .. }));
        assert!(matches!(of(Elapsed::new()), Failure::NoAnswer { cause: Cause::Timeout, .. }));
    }

    #[test]
    fn a_panic_that_apalis_calls_an_abort_may_have_happened_and_is_not_repeated() {
        for error in [
            Box::new(PanicError("key sk-1".into())) as BoxDynError,
            Box::new(AbortError::new(PanicError("key sk-1".into()))),
        ] {
            let failure = of(error);
            assert!(matches!(failure, Failure::NoAnswer { cause: Cause::Panic, .. }));
            assert!(!failure.to_string().contains("sk-1"));
        }
    }
}

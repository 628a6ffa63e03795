//! Permit: the right to one call, which only gates give, and without which none leaves.

use std::sync::Arc;
use std::time::Duration;

use super::Gates;
use crate::activity::attempt::bounded;
use crate::activity::{Cause, Failure, retry};
use crate::env::Timestamp;
use crate::gate::Lane;

/// How long a gate is closed by an answer that does not say for how long.
const UNTOLD: Duration = Duration::from_secs(10);

/// The right to one call: made by [`Gates`] alone, used up by [`call`](Self::call). Dropped, it gives back what it took,
/// whatever became of the call. A call that has no gates needs one too.
#[derive(Debug)]
pub(crate) struct Permit {
    gates: Arc<Gates>,
    /// The gates of the call; the first is its credential's.
    keys: Vec<String>,
    /// Those of them that are to be told what became of it.
    spent: Vec<Spent>,
    lane: Lane,
    /// Its call is over by then, where calls under way are counted.
    until: Option<Timestamp>,
    sent: Sent,
}

/// What a call took from one gate.
#[derive(Debug)]
pub(super) struct Spent {
    pub(super) key: String,
    /// A place in the wave with which the gate is tried.
    pub(super) has_place: bool,
}

/// What became of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// It was not made.
    No,
    /// It was, and nothing is known of the provider by it.
    Untold,
    /// It got through, or it failed.
    Told(bool),
}

/// Proof that a call is made with a permit: without one, no activity can be called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leave(());

impl Permit {
    pub(super) fn new(
        gates: Arc<Gates>,
        keys: Vec<String>,
        spent: Vec<Spent>,
        lane: Lane,
        until: Option<Timestamp>,
    ) -> Self {
        Self { gates, keys, spent, lane, until, sent: Sent::No }
    }

    /// The latest time at which its call is over, if it would be over at `not_after` by itself.
    pub(crate) fn bound(&self, not_after: Timestamp) -> Timestamp {
        over_by(self.until, not_after)
    }

    /// The gate of the call's credential.
    pub(crate) fn credential(&self) -> Option<&String> {
        self.keys.first()
    }

    /// Makes the call, and tells the gates what it came to. A panic in it is a lost answer, and so is an answer that
    /// has not come within `limit`; `what` names the function, as `execute of railway.create_project`.
    ///
    /// Whoever was told that there were too many calls, or that the credential is refused, has closed its gate with
    /// that for everybody.
    pub(crate) async fn call<T, F>(
        mut self,
        limit: Duration,
        what: &str,
        call: impl FnOnce(Leave) -> F + Send,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>> + Send,
        T: Send,
    {
        self.sent = Sent::Untold;
        let outcome = bounded(limit, what, async { call(Leave(())).await }).await;
        self.sent = told(&outcome);
        if let (Some(key), Some((until, reason))) = (self.keys.first(), closes(&outcome, &self.gates)) {
            self.gates.close(key, until, &reason);
        }
        outcome
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gates.give_back(&self.spent, self.lane, self.sent);
    }
}

/// What an outcome says of the provider, for the breaker and for the waves.
fn told<T>(outcome: &Result<T, Failure>) -> Sent {
    match outcome {
        Ok(_) | Err(Failure::Refused(_)) => Sent::Told(true),
        Err(Failure::Unavailable { cause, .. } | Failure::NoAnswer { cause, .. }) => match cause {
            Cause::Connect | Cause::Timeout | Cause::Reset | Cause::ServerError | Cause::Unreadable => {
                Sent::Told(false)
            }
            Cause::NotYet | Cause::StillThere | Cause::AbsentOnce | Cause::Refused => Sent::Told(true),
            // These close the gate by themselves, or say nothing of the provider.
            Cause::RateLimited
            | Cause::Credential
            | Cause::Database
            | Cause::Panic
            | Cause::Unstorable
            | Cause::WorkerLost => Sent::Untold,
        },
    }
}

/// Until when an outcome closes the gate of its credential, and why.
fn closes<T>(outcome: &Result<T, Failure>, gates: &Gates) -> Option<(Timestamp, String)> {
    let (cause, detail, asked) = match outcome {
        Err(Failure::Unavailable { cause, detail, retry_after }) => (cause, detail, *retry_after),
        // It heard so behind a write of its own, of which it is not known what came. For how long is not told then.
        Err(Failure::NoAnswer { cause, detail }) => (cause, detail, Some(gates.env.paced(UNTOLD))),
        Ok(_) | Err(Failure::Refused(_)) => return None,
    };
    let least = retry::least(*cause, &gates.env)?;
    let wait = retry::asked(asked).unwrap_or_default().max(least);
    Some((gates.env.now().plus(wait), detail.clone()))
}

/// Whichever comes first: the end of the permit, or the time at which the call is over by itself.
fn over_by(until: Option<Timestamp>, not_after: Timestamp) -> Timestamp {
    until.map_or(not_after, |until| until.min(not_after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_over_before_somebody_else_may_have_its_place() {
        assert_eq!(over_by(Some(Timestamp(7)), Timestamp(9)), Timestamp(7));
        assert_eq!(over_by(Some(Timestamp(9)), Timestamp(7)), Timestamp(7));
        assert_eq!(over_by(None, Timestamp(9)), Timestamp(9));
    }
}

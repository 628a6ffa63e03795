//! The sandbox's clock: real time, or a time that stands still until a test moves it.

use std::time::Duration;

use tokio::sync::watch;

/// A point on the sandbox's clock.
pub(crate) type Moment = jiff::Timestamp;

/// What a sandbox reads the time from. Everything in it that takes time (throttles, boots, pending orders, lags,
/// lingering deletes, late writes, latency) follows this clock.
#[derive(Debug, Clone, Default)]
pub struct Clock(Source);

#[derive(Debug, Clone, Default)]
enum Source {
    #[default]
    System,
    Manual(ManualClock),
}

/// A clock that moves only when it is told to. Clones share the time.
#[derive(Debug, Clone)]
pub struct ManualClock(watch::Sender<Moment>);

impl ManualClock {
    /// A clock that stands at the present.
    pub fn new() -> Self {
        Self(watch::Sender::new(system_now()))
    }

    /// What it shows.
    pub fn now(&self) -> jiff::Timestamp {
        *self.0.borrow()
    }

    /// Moves it forward. What was due in between happens before the sandbox is next looked at.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|now| *now = after(*now, by));
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl From<&ManualClock> for Clock {
    fn from(clock: &ManualClock) -> Self {
        Self(Source::Manual(clock.clone()))
    }
}

impl Clock {
    /// Real time.
    pub fn system() -> Self {
        Self(Source::System)
    }

    pub(crate) fn now(&self) -> Moment {
        match &self.0 {
            Source::System => system_now(),
            Source::Manual(clock) => clock.now(),
        }
    }

    #[allow(clippy::disallowed_methods, reason = "the sandbox's own clock: its door")]
    pub(crate) async fn sleep_until(&self, until: Moment) {
        match &self.0 {
            Source::System => {
                let wait = until.duration_since(system_now());
                tokio::time::sleep(Duration::try_from(wait).unwrap_or_default()).await;
            }
            Source::Manual(clock) => {
                // A clock that nobody holds any more is never moved: the wait does not end.
                if clock.0.subscribe().wait_for(|now| *now >= until).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

/// So much later; the end of time where that is beyond it.
pub(crate) fn after(moment: Moment, wait: Duration) -> Moment {
    jiff::SignedDuration::try_from(wait)
        .ok()
        .and_then(|wait| moment.checked_add(wait).ok())
        .unwrap_or(Moment::MAX)
}

#[allow(clippy::disallowed_methods, reason = "the sandbox's own clock: its door")]
fn system_now() -> Moment {
    jiff::Timestamp::now()
}

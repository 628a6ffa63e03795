//! Work: what one process does to be measured, on a database that is there.

use amends_engine::Timestamp;
use serde::{Deserialize, Serialize};

use super::closed::Closed;
use super::desk::Desk;
use super::figures::Sample;
use super::{sleepers, starts, unwinding};

/// What is to be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Sagas from start to end, so many at a time.
    Closed(Closed),
    /// Sagas that all turn round at once, wave after wave.
    Unwind {
        /// How many waves.
        waves: usize,
        /// How many sagas in each.
        in_flight: usize,
        /// How many steps each has.
        steps: u32,
    },
    /// Starts, which nothing takes up.
    Starts {
        /// How many.
        starts: usize,
        /// How many at a time.
        callers: usize,
        /// How many steps each would have.
        steps: u32,
    },
    /// Sleepers, until all of them sleep; then on until they have woken, unless this process is killed before.
    Sleep {
        /// How many.
        sleepers: usize,
        /// When they wake.
        until: Timestamp,
        /// Whether it waits for that.
        stays: bool,
    },
    /// Whatever is due, so many at a time, until this process is killed. It begins when it is told to go.
    Serve {
        /// How many at a time.
        in_flight: usize,
        /// How many bytes a step yields.
        payload: usize,
    },
    /// A database whose sleepers are due, until all are done.
    Wake {
        /// How many.
        sleepers: usize,
        /// When this process was asked for.
        asked_at: Timestamp,
    },
}

impl Work {
    /// Does it, and says what it came to. `say` is told when sleepers sleep, or who serves is ready.
    pub async fn perform(&self, desk: &Desk, say: impl Fn(&Sample)) -> anyhow::Result<Sample> {
        match self {
            Self::Closed(closed) => closed.perform(desk).await,
            Self::Unwind { waves, in_flight, steps } => {
                unwinding::unwind(desk, *waves, *in_flight, *steps).await
            }
            Self::Starts { starts, callers, steps } => starts::start(desk, *starts, *callers, *steps).await,
            Self::Sleep { sleepers, until, stays } => {
                sleepers::sleep(desk, *sleepers, *until, *stays, say).await
            }
            Self::Serve { in_flight, payload } => {
                say(&Sample::default().with("open_ms", desk.opened.as_secs_f64() * 1000.0));
                tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
                let _engine = desk.bounded_engine(*payload, *in_flight);
                std::future::pending().await
            }
            Self::Wake { sleepers, asked_at } => sleepers::wake(desk, *sleepers, *asked_at).await,
        }
    }
}

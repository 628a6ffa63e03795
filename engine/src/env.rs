//! Env: the clock and the dice, the only doors to both.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A point in time: microseconds since 1970 in UTC, which is how SQL and journals hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The end of time, which stands for *never*: what is due then is due at no time. It is said as that to nobody.
    pub const NEVER: Self = Self(i64::MAX);

    /// Itself, unless it stands for *never*.
    pub fn ever(self) -> Option<Self> {
        (self != Self::NEVER).then_some(self)
    }

    /// This much later; stays at the end of time rather than wrapping.
    pub fn plus(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, with milliseconds; `never` behind the last year that has four digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(at) => write!(f, "{at:.3}"),
            Err(_) if self.0 > 0 => f.write_str("never"),
            Err(_) => write!(f, "{} us", self.0),
        }
    }
}

/// The clock and the dice of one engine.
#[derive(Clone)]
pub struct Env {
    clock: Clock,
    dice: Arc<Mutex<StdRng>>,
    pace: u32,
    shortest_limit: Duration,
}

/// Where the time comes from.
#[derive(Clone, Copy)]
enum Clock {
    /// The machine.
    System,
    /// The runtime, which a test may have paused; this long ago it was `EPOCH`.
    Runtime(tokio::time::Instant),
}

/// When a simulation begins: 2026-01-01.
const EPOCH: Timestamp = Timestamp(1_767_225_600_000_000);

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env").field("pace", &self.pace).finish_non_exhaustive()
    }
}

impl Env {
    /// The system's clock and randomness.
    pub fn system() -> Self {
        let dice = Arc::new(Mutex::new(rand::make_rng()));
        Self { clock: Clock::System, dice, pace: 1, shortest_limit: Duration::from_secs(2) }
    }

    /// The system's clock, with dice that fall the same way for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Self { dice: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))), ..Self::system() }
    }

    /// The clock of the tokio runtime, which stands still or runs ahead where a test has paused it, with dice that
    /// fall the same way for the same seed. It begins with the year 2026.
    #[allow(clippy::disallowed_methods, reason = "this is the door")]
    pub fn simulated(seed: u64) -> Self {
        Self { clock: Clock::Runtime(tokio::time::Instant::now()), ..Self::seeded(seed) }
    }

    /// Divides every wait, deadline and settle time of the engine's own by `pace`. For sandboxes and tests,
    /// whose providers are as much quicker; never for real ones.
    #[must_use]
    pub fn with_pace(mut self, pace: u32) -> Self {
        self.pace = pace.max(1);
        self
    }

    /// No attempt's time limit becomes shorter than this by the pace (2 s if not set).
    #[must_use]
    pub fn with_shortest_limit(mut self, limit: Duration) -> Self {
        self.shortest_limit = limit;
        self
    }

    /// How long one attempt may take: paced, but real calls over real sockets need some time.
    pub fn time_limit(&self, limit: Duration) -> Duration {
        self.paced(limit).max(self.shortest_limit)
    }

    /// A duration as this engine waits it: divided by the pace.
    pub fn paced(&self, wait: Duration) -> Duration {
        wait / self.pace
    }

    /// The time now.
    #[allow(clippy::disallowed_methods, reason = "this is the door")]
    pub fn now(&self) -> Timestamp {
        match self.clock {
            Clock::System => Timestamp(jiff::Timestamp::now().as_microsecond()),
            Clock::Runtime(began) => EPOCH.plus(began.elapsed()),
        }
    }

    /// Waits this long in real time.
    #[allow(clippy::disallowed_methods, reason = "this is the door")]
    pub async fn sleep(&self, wait: Duration) {
        tokio::time::sleep(wait).await;
    }

    /// A time-ordered UUID (version 7).
    pub fn uuid(&self) -> Uuid {
        let now = u64::try_from(self.now().0 / 1000).unwrap_or(0);
        let mut random = [0u8; 10];
        self.roll(|dice| dice.fill(&mut random));
        uuid::Builder::from_unix_timestamp_millis(now, &random).into_uuid()
    }

    /// A number from 0 up to, and not including, `below`; 0 when `below` is 0.
    pub fn below(&self, below: u64) -> u64 {
        if below == 0 { 0 } else { self.roll(|dice| dice.random_range(0..below)) }
    }

    /// Bytes for keys and nonces.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0u8; N];
        self.roll(|dice| dice.fill(&mut bytes));
        bytes
    }

    fn roll<T>(&self, roll: impl FnOnce(&mut StdRng) -> T) -> T {
        roll(&mut self.dice.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

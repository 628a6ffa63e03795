//! The token bucket: how many calls may begin now, in whole numbers and without drift upwards.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Bucket;
use crate::env::Timestamp;

/// A token, in the unit in which a bucket counts.
const TOKEN: u128 = 1_000_000;
/// The longest that a worker may keep tokens in hand.
const HOLD: Duration = Duration::from_secs(1);

/// How full a bucket was, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// In millionths of a token.
    pub level: u64,
    /// As of then.
    pub at: Timestamp,
}

/// How long tokens that were taken may be kept before they are used.
///
/// A worker takes tokens in blocks, and a block that is used late would come on top of those taken since. So the
/// bucket is made smaller by what flows in during this time, and over any time no more calls begin than `burst` and
/// the rate allow, whenever they were taken. A bucket of one has nothing to spare: its token is for now.
pub(crate) fn hold(bucket: &Bucket) -> Duration {
    if bucket.burst <= 1 {
        return Duration::ZERO;
    }
    let half =
        bucket.per.as_micros().saturating_mul(u128::from(bucket.burst / 2)) / u128::from(bucket.calls.max(1));
    HOLD.min(Duration::from_micros(u64::try_from(half).unwrap_or(u64::MAX)))
}

/// What flows in during this time.
fn inflow(bucket: &Bucket, time: Duration) -> u128 {
    let calls = u128::from(bucket.calls).saturating_mul(TOKEN);
    time.as_micros().saturating_mul(calls) / bucket.per.as_micros().max(1)
}

/// How much it holds at most.
fn capacity(bucket: &Bucket) -> u64 {
    let all = u128::from(bucket.burst.max(1)).saturating_mul(TOKEN);
    let spared = inflow(bucket, hold(bucket)).min(all.saturating_sub(TOKEN));
    u64::try_from(all - spared).unwrap_or(u64::MAX)
}

impl Tokens {
    /// A full bucket.
    pub fn full(bucket: &Bucket, now: Timestamp) -> Self {
        Self { level: capacity(bucket), at: now }
    }

    /// As it is now. A clock that was set back fills nothing until it has caught up, or at once loses what it was
    /// ahead when that is more than the bucket could ever need.
    pub fn refill(&mut self, bucket: &Bucket, now: Timestamp) {
        let capacity = capacity(bucket);
        if now < self.at {
            let to_fill = u128::from(capacity).saturating_mul(bucket.per.as_micros())
                / u128::from(bucket.calls.max(1)).saturating_mul(TOKEN);
            if u128::from(self.at.0.abs_diff(now.0)) > to_fill {
                *self = Self { level: 0, at: now };
            }
            self.level = self.level.min(capacity);
            return;
        }
        let inflow = u64::try_from(inflow(bucket, now.since(self.at))).unwrap_or(u64::MAX);
        // What is less than a millionth is left to flow in later.
        if inflow > 0 || self.level >= capacity {
            self.level = self.level.saturating_add(inflow).min(capacity);
            self.at = now;
        }
    }

    /// How many there are.
    pub fn whole(&self) -> u32 {
        u32::try_from(u128::from(self.level) / TOKEN).unwrap_or(u32::MAX)
    }

    /// Takes at most so many; how many it were.
    pub fn take(&mut self, want: u32) -> u32 {
        let taken = want.min(self.whole());
        self.level = self.level.saturating_sub(u64::from(taken).saturating_mul(TOKEN as u64));
        taken
    }

    /// When there will be `want` of them.
    pub fn due(&self, bucket: &Bucket, want: u32) -> Timestamp {
        let wanted = u128::from(want.max(1)).saturating_mul(TOKEN).min(u128::from(capacity(bucket)));
        let missing = wanted.saturating_sub(u128::from(self.level));
        let micros = missing
            .saturating_mul(bucket.per.as_micros())
            .div_ceil(u128::from(bucket.calls.max(1)).saturating_mul(TOKEN));
        self.at.plus(Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)))
    }
}

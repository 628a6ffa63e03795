//! What an activity declares of a gate.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A gate that a call passes before it is sent: the same for everyone who uses its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// The credential, or the credential and the operation that has a limit of its own.
    pub key: String,
    /// What holds there.
    pub rule: Rule,
}

/// What holds at a gate besides what the provider says. Whoever declares a key last says what holds for all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// How many calls may be under way at a time, over all workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// How many may begin in a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<Bucket>,
    /// When nobody calls at all for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Breaker>,
    /// Of a hundred calls, how many are compensations while both wait.
    pub undo_share: u8,
    /// It does not concern compensations.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forward_only: bool,
}

/// So many calls in each `per`, and at most `burst` at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// How many.
    pub calls: u32,
    /// In which time.
    #[serde(with = "humantime_serde")]
    pub per: Duration,
    /// How many of them at once.
    pub burst: u32,
}

/// After `after` failures in a row nobody calls for `cool_down`; for twice as long each time the first call after it
/// fails too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaker {
    /// How many.
    pub after: u32,
    /// How long.
    #[serde(with = "humantime_serde")]
    pub cool_down: Duration,
}

impl Default for Rule {
    fn default() -> Self {
        Self { concurrency: None, bucket: None, breaker: None, undo_share: 25, forward_only: false }
    }
}

impl Rule {
    /// Whether the gate closes only when the provider or a person says so: then a call costs it nothing.
    pub fn is_plain(&self) -> bool {
        self.concurrency.is_none() && self.bucket.is_none() && self.breaker.is_none()
    }

    /// With every time in it as an engine waits it.
    #[must_use]
    pub(crate) fn paced(mut self, paced: impl Fn(Duration) -> Duration) -> Self {
        if let Some(bucket) = &mut self.bucket {
            bucket.per = paced(bucket.per);
        }
        if let Some(breaker) = &mut self.breaker {
            breaker.cool_down = paced(breaker.cool_down);
        }
        self
    }
}

impl Gate {
    /// A gate that closes only when the provider asks for it.
    pub fn credential(key: impl Into<String>) -> Self {
        Self { key: key.into(), rule: Rule::default() }
    }

    /// A gate that lets one call pass in each `spacing`; it does not concern compensations.
    pub fn spaced(key: impl Into<String>, spacing: Duration) -> Self {
        Self::credential(key).rate(1, spacing).forward_only()
    }

    /// At most so many calls under way at a time, over all workers; at least one.
    #[must_use]
    pub fn concurrency(mut self, limit: u32) -> Self {
        self.rule.concurrency = Some(limit.max(1));
        self
    }

    /// At most `calls` in each `per`, one at a time unless a [`burst`](Self::burst) is said. What is counted are runs of
    /// an activity's function, however many requests each makes: to be declared with room for that.
    #[must_use]
    pub fn rate(mut self, calls: u32, per: Duration) -> Self {
        self.rule.bucket = Some(Bucket { calls: calls.max(1), per, burst: 1 });
        self
    }

    /// So many of the calls of its rate may begin at once.
    #[must_use]
    pub fn burst(mut self, burst: u32) -> Self {
        if let Some(bucket) = &mut self.rule.bucket {
            bucket.burst = burst.max(1);
        }
        self
    }

    /// After so many failures in a row nobody calls for `cool_down`. A failure is no answer, or an error of the
    /// provider's own; a refusal is an answer. Compensations are tried all the same, and do not count.
    #[must_use]
    pub fn breaker(mut self, after: u32, cool_down: Duration) -> Self {
        self.rule.breaker = Some(Breaker { after: after.max(1), cool_down });
        self
    }

    /// Of a hundred calls, so many are compensations while both wait (25 if not said); what they do not need,
    /// forward steps have, and the other way round.
    #[must_use]
    pub fn undo_share(mut self, percent: u8) -> Self {
        self.rule.undo_share = percent.min(100);
        self
    }

    /// It does not concern compensations.
    #[must_use]
    pub fn forward_only(mut self) -> Self {
        self.rule.forward_only = true;
        self
    }
}

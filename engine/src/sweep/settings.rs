//! Settings: how often providers are compared with the ledger, and what may be done about what is found.

use std::time::Duration;

use crate::activity::secs;

/// How the sweep goes. [`Default`] reports every five minutes, and removes nothing.
///
/// ```
/// # use amends_engine::sweep::Sweep;
/// let removes_what_is_old = Sweep { removes: true, ..Sweep::default() };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sweep {
    /// How often each provider's census is made: 5 minutes.
    pub every: Duration,
    /// How long something has to have been seen before anything is done about it: 15 minutes, and never less than the
    /// provider's own [`settle_after`](super::Provider::settle_after).
    pub grace: Duration,
    /// Whether orphans are removed; they are only reported if not.
    pub removes: bool,
    /// So many are under removal at a time, at each provider: 10. If we are wrong about many, somebody notices first.
    pub budget: usize,
    /// How long one sweep of one provider may take: 10 minutes. What is not over then counts as unavailable.
    pub time_limit: Duration,
    /// How many pages a list may have: 1,000.
    pub pages_max: usize,
    /// How many things it may show: 100,000.
    pub things_max: usize,
    /// How many rows that a list lacks are looked at one by one: 200. A list that lacks more is not believed.
    pub looks_max: usize,
    /// How long settled findings are kept: 30 days.
    pub kept: Duration,
}

impl Default for Sweep {
    fn default() -> Self {
        Self {
            every: secs(300),
            grace: secs(900),
            removes: false,
            budget: 10,
            time_limit: secs(600),
            pages_max: 1000,
            things_max: 100_000,
            looks_max: 200,
            kept: secs(30 * 86_400),
        }
    }
}

//! The lease: how long a worker may write to the sagas it holds without saying that it is alive.

use std::time::Duration;

/// From one renewal to its end, by the store's clock: 15 s; it is renewed every 5 s. Once it has run out, another
/// process may take up what a dead one held. A SQLite file needs none: who has the file has all of its sagas.
pub const LEASE: Duration = Duration::from_secs(15);
/// How often it is renewed.
pub(crate) const RENEW: Duration = Duration::from_secs(5);

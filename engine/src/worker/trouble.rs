//! Trouble: that nothing can be written, and since when, for whoever asks how the engine is.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Shared;
use crate::env::Timestamp;
use crate::store::Error;

/// How long writes may fail before that is said: a server that is started anew takes less.
const AFTER: Duration = Duration::from_secs(30);
/// What nobody has met for so long may be over. Whoever has something to write tries it more often.
const UNTIL: Duration = Duration::from_secs(120);

/// Since when every write has failed, when the last one did, and of what.
#[derive(Debug, Default)]
pub(super) struct Trouble(Mutex<Option<(Timestamp, Timestamp, String)>>);

impl Shared {
    /// Takes note of what a write came to: that the store cannot, or that it can.
    pub(crate) fn noted<T>(&self, written: Result<T, Error>) -> Result<T, Error> {
        let mut known = self.trouble.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &written {
            Err(error @ (Error::Unavailable(_) | Error::Closed)) => {
                let now = self.env.now();
                let since = known.as_ref().filter(|(_, last, _)| now.since(*last) < UNTIL);
                let since = since.map_or(now, |(since, ..)| *since);
                *known = Some((since, now, error.to_string()));
            }
            // It is about this write alone, and the store looked at it.
            Ok(_) | Err(_) => *known = None,
        }
        written
    }

    /// That nothing has been written for a while, though something was to be.
    pub(crate) fn unwritten(&self) -> Option<String> {
        let known = self.trouble.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.env.now();
        let (since, last, detail) = known.as_ref()?;
        let is_long = now.since(*since) >= self.env.paced(AFTER) && now.since(*last) < UNTIL;
        is_long.then(|| format!("nothing can be written since {since}: {detail}"))
    }
}

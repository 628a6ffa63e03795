//! Trouble: what has failed each time for a while, since when, and of what, for whoever asks how the engine is.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::env::{Env, Timestamp};

/// How long something may fail before that is said: a server that is started anew takes less.
const AFTER: Duration = Duration::from_secs(30);
/// What nobody has met for so long may be over. Whoever has something to do tries it more often.
const UNTIL: Duration = Duration::from_secs(120);
/// So many things are kept in mind at a time. Of more, the first are enough to know that there is trouble.
const KEPT: usize = 256;

/// One thing that fails.
#[derive(Debug)]
struct Failing {
    since: Timestamp,
    last: Timestamp,
    detail: String,
}

/// What fails, each by what it means, as `nothing can be written`.
#[derive(Debug, Default)]
pub(crate) struct Trouble(Mutex<BTreeMap<String, Failing>>);

impl Trouble {
    /// It failed once more.
    pub(crate) fn failed(&self, what: &str, detail: String, env: &Env) {
        let now = env.now();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, failing| now.since(failing.last) < UNTIL);
        if let Some(failing) = known.get_mut(what) {
            (failing.last, failing.detail) = (now, detail);
        } else if known.len() < KEPT {
            known.insert(what.to_owned(), Failing { since: now, last: now, detail });
        }
    }

    /// It did not fail.
    pub(crate) fn went_well(&self, what: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(what);
    }

    /// What has failed for a while, the longest first; nothing if nothing has.
    pub(crate) fn said(&self, env: &Env) -> Option<String> {
        let (now, after) = (env.now(), env.paced(AFTER));
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_long =
            |failing: &Failing| now.since(failing.since) >= after && now.since(failing.last) < UNTIL;
        let (what, failing) =
            known.iter().filter(|(_, failing)| is_long(failing)).min_by_key(|(_, failing)| failing.since)?;
        Some(format!("{what} since {}: {}", failing.since, failing.detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_said_after_half_a_minute_and_no_more_once_it_went_well_or_was_not_met_for_long() {
        let (env, trouble) = (Env::simulated(1), Trouble::default());
        for _ in 0..20 {
            trouble.failed("the feed stands still", "down".to_owned(), &env);
            env.sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(trouble.said(&env), None);
        for _ in 0..20 {
            trouble.failed("the feed stands still", "down".to_owned(), &env);
            env.sleep(Duration::from_secs(1)).await;
        }
        let said = trouble.said(&env).unwrap_or_default();
        assert!(said.starts_with("the feed stands still since ") && said.ends_with(": down"), "{said}");
        trouble.failed("another", "x".to_owned(), &env);
        trouble.went_well("the feed stands still");
        assert_eq!(trouble.said(&env), None);
        env.sleep(Duration::from_secs(119)).await;
        assert!(trouble.said(&env).is_some());
        env.sleep(Duration::from_secs(1)).await;
        assert_eq!(trouble.said(&env), None);
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_things_are_kept_in_mind_and_no_more() {
        let (env, trouble) = (Env::simulated(1), Trouble::default());
        for number in 0..2 * KEPT {
            trouble.failed(&number.to_string(), String::new(), &env);
        }
        assert_eq!(trouble.0.lock().unwrap_or_else(PoisonError::into_inner).len(), KEPT);
    }
}

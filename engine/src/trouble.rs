//! Trouble: what has failed each time for a while, since when, and of what, for whoever asks how the engine is; and a
//! line in the log when that begins, each minute that it lasts, and when it has ended.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::env::{Env, Timestamp};

/// How long something may fail before that is said: a server that is started anew takes less.
const AFTER: Duration = Duration::from_secs(30);
/// What nobody has met for so long may be over. Whoever has something to do tries it more often.
const UNTIL: Duration = Duration::from_secs(120);
/// How often the log says of one thing that it fails.
const LOGGED_EACH: Duration = Duration::from_secs(60);
/// So many things are kept in mind at a time. Of more, the first are enough to know that there is trouble.
const KEPT: usize = 256;

/// One thing that fails, or did within the last minutes.
#[derive(Debug)]
struct Failing {
    since: Timestamp,
    last: Timestamp,
    detail: String,
    /// Whether the engine is in trouble while it lasts.
    is_trouble: bool,
    /// It went well since.
    is_over: bool,
    logged_at: Option<Timestamp>,
}

/// What fails, each by what it means, as `nothing can be written`.
#[derive(Debug, Default)]
pub(crate) struct Trouble(Mutex<BTreeMap<String, Failing>>);

impl Trouble {
    /// It failed once more.
    pub(crate) fn failed(&self, what: &str, detail: String, env: &Env) {
        self.note(what, detail, true, env);
    }

    /// It failed once more, and is tried again; nothing stands still for it.
    pub(crate) fn retried(&self, what: &str, detail: String, env: &Env) {
        self.note(what, detail, false, env);
    }

    fn note(&self, what: &str, detail: String, is_trouble: bool, env: &Env) {
        let now = env.now();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, failing| now.since(failing.last) < UNTIL);
        if known.len() >= KEPT && !known.contains_key(what) {
            known.retain(|_, failing| !failing.is_over);
        }
        let is_full = known.len() >= KEPT;
        let failing = match known.get_mut(what) {
            Some(failing) => failing,
            None if is_full => return,
            None => known.entry(what.to_owned()).or_insert(Failing {
                since: now,
                last: now,
                detail: String::new(),
                is_trouble,
                is_over: false,
                logged_at: None,
            }),
        };
        if std::mem::take(&mut failing.is_over) {
            failing.since = now;
        }
        (failing.last, failing.detail) = (now, detail);
        let since = &failing.since;
        if failing.logged_at.is_some_and(|at| now.since(at) < LOGGED_EACH) {
            tracing::debug!(what, %since, detail = failing.detail, "it fails");
        } else {
            failing.logged_at = Some(now);
            tracing::warn!(what, %since, detail = failing.detail, "it fails");
        }
    }

    /// It did not fail.
    pub(crate) fn went_well(&self, what: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(failing) = known.get_mut(what).filter(|failing| !failing.is_over) {
            failing.is_over = true;
            // As often as the log says that it fails.
            if failing.logged_at.is_some_and(|at| at >= failing.since) {
                tracing::info!(what, since = %failing.since, "it works again");
            }
        }
    }

    /// What has failed for a while, the longest first; nothing if nothing has.
    pub(crate) fn said(&self, env: &Env) -> Option<String> {
        let (now, after) = (env.now(), env.paced(AFTER));
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_long = |failing: &Failing| {
            failing.is_trouble
                && !failing.is_over
                && now.since(failing.since) >= after
                && now.since(failing.last) < UNTIL
        };
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

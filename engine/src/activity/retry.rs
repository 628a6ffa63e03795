//! Retry: how long to wait before the next attempt; attempt number in, wait out.

use std::time::Duration;

use super::Cause;
use crate::env::Env;

/// The first wait: 1 s.
pub const BASE: Duration = Duration::from_secs(1);
/// The longest wait: 10 minutes.
pub const CAP: Duration = Duration::from_secs(600);

/// The longest wait that another side is taken by its word for: a day. What it asks for beyond that is asked again then.
pub const ASKED_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long nobody calls with a credential that was refused, at the least.
const CREDENTIAL: Duration = Duration::from_secs(60);

/// The shortest wait before something is asked again, whoever says that none is needed: half a second.
pub const LEAST: Duration = Duration::from_millis(500);
/// What has been waited for so many times as long as the next wait is asked for less often.
const SHARE: u32 = 100;

/// How long until what is not ready is asked for again, if `wait` is how often that was asked for and it has been waited
/// for since `waited`: a hundredth of that at the least, up to [`CAP`]. So the number of entries in a journal grows as
/// the logarithm of the time, and a wait over a weekend is no more of a load than one of an hour.
pub fn poll(wait: Duration, waited: Duration, env: &Env) -> Duration {
    let slowed = (waited / SHARE).min(env.paced(CAP));
    wait.min(env.paced(ASKED_MAX)).max(env.paced(LEAST)).max(slowed)
}

/// How long the other side asks to wait, as far as it is followed.
pub fn asked(wait: Option<Duration>) -> Option<Duration> {
    wait.map(|wait| wait.min(ASKED_MAX))
}

/// How long, at the least, nobody calls with a credential after this cause; nothing where the cause is no matter of the
/// credential's.
pub fn least(cause: Cause, env: &Env) -> Option<Duration> {
    match cause {
        Cause::RateLimited => Some(env.paced(LEAST)),
        Cause::Credential => Some(env.paced(CREDENTIAL)),
        _ => None,
    }
}

/// The upper bound of the wait behind attempt number `attempt` (1 for the first): doubling, capped.
pub fn ceiling(attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(20);
    BASE.saturating_mul(1 << doublings).min(CAP)
}

/// The wait behind an attempt: between half its ceiling and the whole, so that many that failed together do
/// not come back together; never less than the other side asked for.
pub fn delay(attempt: u32, asked: Option<Duration>, env: &Env) -> Duration {
    let ceiling = env.paced(ceiling(attempt));
    let micros = u64::try_from(ceiling.as_micros()).unwrap_or(u64::MAX);
    let jittered = Duration::from_micros(micros / 2 + env.below(micros / 2 + 1));
    asked.map_or(jittered, |asked| asked.max(jittered))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap() {
        assert_eq!(ceiling(1), Duration::from_secs(1));
        assert_eq!(ceiling(4), Duration::from_secs(8));
        assert_eq!(ceiling(30), CAP);
    }

    #[test]
    fn a_wait_that_another_side_asks_for_is_followed_up_to_a_day() {
        let (minute, year) = (Duration::from_secs(60), Duration::from_secs(365 * 86_400));
        assert_eq!(asked(Some(minute)), Some(minute));
        assert_eq!(asked(Some(year)), Some(ASKED_MAX));
        assert_eq!(asked(None), None);
    }

    #[test]
    fn what_is_not_ready_is_asked_for_neither_in_a_circle_nor_never_and_less_often_with_time() {
        let env = Env::seeded(1);
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let every = Duration::from_secs(5);
        assert_eq!(poll(Duration::ZERO, Duration::ZERO, &env), LEAST);
        assert_eq!(poll(every, Duration::from_secs(499), &env), every);
        assert_eq!(poll(every, hours(10), &env), Duration::from_secs(360));
        assert_eq!(poll(every, hours(1000), &env), CAP);
        assert_eq!(poll(hours(2), hours(1000), &env), hours(2));
        assert_eq!(poll(Duration::MAX, Duration::MAX, &env), ASKED_MAX);
        let (mut waited, mut asked) = (Duration::ZERO, 0);
        while waited < hours(60) {
            waited += poll(every, waited, &env);
            asked += 1;
        }
        assert!(asked < 1000, "{asked}");
    }

    #[test]
    fn a_provider_that_asks_for_more_gets_it() {
        let env = Env::seeded(1);
        assert_eq!(delay(1, Some(Duration::from_secs(60)), &env), Duration::from_secs(60));
        let plain = delay(3, None, &env);
        assert!(plain >= Duration::from_secs(2) && plain <= Duration::from_secs(4));
    }
}

//! The times of the gates that no rule declares.

use std::time::Duration;

use crate::activity::CALL_MAX;
use crate::env::Env;

/// How long a wave waits for who was let go and never came, since its saga turned round or its worker died: after
/// that others are let go in their place. A call that takes longer counts in a later wave.
const WAVE: Duration = Duration::from_secs(10);
/// The longest that a breaker that trips again and again keeps a gate closed.
const COOL_DOWN_MAX: Duration = Duration::from_secs(600);
/// How long who was let go has to come.
const GRANT: Duration = Duration::from_secs(10);
/// How much longer than any call may take a worker has its permits: it can always be told of a call whether it is over
/// before its permit is.
const SPARE: Duration = Duration::from_secs(30);

/// Waits of the gates' own, as one engine waits them.
///
/// All of them are paced. Those in which a process or its database has something to do are never shorter than a call's
/// shortest time limit, at whatever pace: a machine does not become quicker with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// How long a wave waits for who was let go and never came.
    pub wave: Duration,
    /// The longest cool-down of a breaker.
    pub cool_down_max: Duration,
    /// How long who was let go has to come.
    pub grant: Duration,
    /// For how long a worker has permits before it has to ask again.
    pub block: Duration,
}

impl Times {
    /// As this engine waits them.
    pub fn of(env: &Env) -> Self {
        Self {
            wave: env.time_limit(WAVE),
            cool_down_max: env.paced(COOL_DOWN_MAX),
            grant: env.time_limit(GRANT),
            block: env.time_limit(CALL_MAX) + env.time_limit(SPARE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_paced_and_what_a_machine_has_to_do_keeps_its_time() {
        let (slow, quick) = (Times::of(&Env::seeded(1)), Times::of(&Env::seeded(1).with_pace(100)));
        assert_eq!((slow.wave, slow.cool_down_max, slow.grant), (WAVE, COOL_DOWN_MAX, GRANT));
        assert_eq!(quick.cool_down_max, Duration::from_secs(6));
        let shortest = Env::seeded(1).with_pace(100).time_limit(Duration::ZERO);
        assert_eq!((quick.wave, quick.grant, quick.block), (shortest, shortest, shortest * 2));
        assert_eq!(slow.block, Duration::from_secs(120));
    }
}

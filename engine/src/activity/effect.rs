//! Effect: what sending a call again would do, from which the engine derives how it settles doubt.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::secs;
use crate::env::Timestamp;

/// The longest that one call may be under way.
pub(crate) const CALL_MAX: Duration = secs(90);

/// How long behind its time limit a lost call may still take effect where nothing else is said: a minute, in which the
/// gateways in front of most providers have given up too.
pub const SETTLE_AFTER: Duration = secs(60);

/// What sending a call again would do.
///
/// Whatever it is, a call whose answer was lost may take effect later: see
/// [`Activity::settle_after`](crate::Activity::settle_after).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Changes nothing: simply asked again.
    Read,
    /// The same call again has no further effect while the thing is there (a set, or a key under which it is known):
    /// sent again. When the thing is deleted its key may be free again, so that a lost call that lands then makes it
    /// anew: the undo waits until every lost call is surely over.
    Repeatable,
    /// As repeatable, and the provider knows the key for ever, also when what was made under it is deleted: a call
    /// that lands late makes nothing. In doubt it is sent again before it is undone, and its undo waits for nothing.
    RepeatableForever,
    /// The same call again has no further effect for a while, as long as the provider remembers its key: sent again
    /// until then. Later it is looked for first, and never sent without an answer to that.
    RepeatableWithin {
        /// How long the key is remembered behind the first attempt that used it.
        #[serde(with = "humantime_serde")]
        window: Duration,
    },
    /// Found by its name once a lost call is either done or dead.
    Searchable {
        /// How long a lost call may still take effect, and how long until it is seen.
        #[serde(with = "humantime_serde")]
        settle_after: Duration,
    },
    /// As searchable, but what is found is of no use (a secret shown once): taken away and made anew.
    SearchableOnce {
        /// How long a lost call may still take effect, and how long until it is seen.
        #[serde(with = "humantime_serde")]
        settle_after: Duration,
    },
    /// Happens again when it is sent again, and cannot be looked for: in doubt, a person says what came of it
    /// ([`Engine::settle`](crate::Engine::settle)), once a lost call is surely over.
    ///
    /// It is in doubt also when the answer had come and the process died before it was written (see
    /// [`Saga::step`](crate::Saga::step)), and when the process died before the call left.
    Blind,
}

impl Effect {
    /// How long behind its time limit a lost call may still take effect, unless its activity says otherwise: nothing
    /// for a read, [`SETTLE_AFTER`] where the effect has no time of its own.
    pub const fn settle_after(self) -> Duration {
        match self {
            Self::Read => Duration::ZERO,
            Self::Repeatable | Self::RepeatableForever | Self::RepeatableWithin { .. } | Self::Blind => {
                SETTLE_AFTER
            }
            Self::Searchable { settle_after } | Self::SearchableOnce { settle_after } => settle_after,
        }
    }

    /// Whether doubt is settled by sending the call again rather than by looking; with a window, as long as it is
    /// open.
    pub fn is_sent_again(self) -> bool {
        matches!(
            self,
            Self::Read | Self::Repeatable | Self::RepeatableForever | Self::RepeatableWithin { .. }
        )
    }

    /// Whether a call that is sent at `at` is certain to arrive while its key is remembered, if the first attempt that
    /// used it left at `first`.
    pub(crate) fn is_in_window(self, first: Timestamp, at: Timestamp) -> bool {
        match self {
            Self::RepeatableWithin { window } => at.plus(CALL_MAX) <= first.plus(window),
            _ => true,
        }
    }
}

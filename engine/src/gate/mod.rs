//! Gates: what a call passes before it is sent, shared by everyone who uses a credential.
//!
//! A [`Gate`] is what an activity declares: a key, and how many calls may be under way, how many may begin in a
//! time, and after how many failures nobody calls at all. [`GateState`] is what the database keeps of it. Every
//! decision here is a function of that state, the queue before the gate and the time: no clock, no database, no
//! waiting. The workers' side of it is `worker/gates`.
//!
//! ```text
//!            429, 401, breaker, a person                 its time is up, or a person
//!   open  ──────────────────────────────►  closed  ──────────────────────────────►  probing: 1, 2, 4, 8 …
//!    ▲                                        ▲                                        │        │
//!    │                                        └──────────── a canary fails ────────────┘        │
//!    └────────────────────── a whole wave got through, and nobody waits ────────────────────────┘
//! ```

mod bucket;
mod rule;
mod state;
#[cfg(test)]
mod tests;
mod times;
mod view;

use serde::{Deserialize, Serialize};

pub use bucket::Tokens;
pub(crate) use bucket::hold;
pub use rule::{Breaker, Bucket, Gate, Rule};
pub use state::{Closed, GateAct, GateState, Probe, Share, Taken, Why};
pub use times::Times;
pub use view::GateView;

use crate::env::Timestamp;
use crate::ids::{SagaId, StepKey};
use crate::journal::event::closed_set;

closed_set! {
    /// In which direction a call goes: compensations have a share of their own.
    #[derive(Default)]
    Lane {
        /// What a saga does.
        Forward,
        /// What takes it back.
        #[default]
        Undo,
    }
}

/// One step that waits before a gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateWait {
    /// Which gate.
    pub gate: String,
    /// Whose step.
    pub saga: SagaId,
    /// Which.
    pub step: StepKey,
    /// In which lane.
    pub lane: Lane,
    /// Since when: the oldest goes first.
    pub since: Timestamp,
}

/// How many stand before a gate, by lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Forward steps that wait.
    pub forward: u32,
    /// Compensations that wait.
    pub undo: u32,
    /// Those that were let go and have not passed yet.
    pub granted: u32,
}

impl Queue {
    /// Whether nobody stands there.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How many wait to be let go.
    pub fn waiting(&self) -> u32 {
        self.forward.saturating_add(self.undo)
    }
}

/// Divides what is free between the lanes: each that waits gets something as soon as there are two, and in turns
/// while there is one; what one lane does not need, the other has.
pub(crate) fn split(free: u32, forward: u32, undo: u32, undo_share: u8, favoured: Lane) -> (u32, u32) {
    if u64::from(forward) + u64::from(undo) <= u64::from(free) {
        return (forward, undo);
    }
    if free <= 1 {
        let is_undo = undo > 0 && (favoured == Lane::Undo || forward == 0);
        return if is_undo { (0, free.min(undo)) } else { (free.min(forward), 0) };
    }
    let share = u64::from(free).saturating_mul(u64::from(undo_share)).div_ceil(100);
    let claimed = u32::try_from(share).unwrap_or(free).clamp(1, free - 1).min(undo);
    let forward = (free - claimed).min(forward);
    (forward, (free - forward).min(undo))
}

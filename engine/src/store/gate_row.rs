//! Gates as they are stored, and the moves from one state to the next.

use super::Letter;
use crate::env::Timestamp;
use crate::gate::{GateState, GateWait, Queue, Times, Why};

/// What a provider said of a credential with the answer to a call: nothing passes before then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// The credential's gate.
    pub key: String,
    /// Nothing passes before this.
    pub until: Timestamp,
    /// Why, in words.
    pub reason: String,
}

/// A gate as it is stored, and those who stand before it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GateRow {
    /// The credential, or the credential and the operation.
    pub key: String,
    /// Raised by every change; 0 if there is no row yet.
    pub rev: i64,
    /// The latest [`Closing`] since the state was last moved, if any: its time and its reason.
    pub closing: Option<(Timestamp, String)>,
    /// Everything else.
    pub state: GateState,
    /// Who stands before it, counted.
    pub queue: Queue,
}

impl GateRow {
    /// The state with what the provider said last taken into it, as it is now.
    pub fn settled(&self, now: Timestamp, times: &Times) -> GateState {
        let mut state = self.state.clone();
        if let Some((until, reason)) = &self.closing {
            state.close(Why::Provider, Some(*until), reason, now);
        }
        state.tick(&self.queue, now, times);
        state
    }
}

/// One step of a gate from one state to the next: written as a whole, and only if nobody else moved it meanwhile.
#[derive(Debug, Clone, PartialEq)]
pub struct GateMove {
    /// Which gate.
    pub key: String,
    /// The `rev` of the row that it follows; 0 if there was none.
    pub seen: i64,
    /// Its state from then on, in which any closing is taken in.
    pub state: GateState,
    /// Those it lets go: from `at` on they count as granted, not as waiting.
    pub let_go: Vec<GateWait>,
    /// The letters that tell them.
    pub letters: Vec<Letter>,
    /// When.
    pub at: Timestamp,
}

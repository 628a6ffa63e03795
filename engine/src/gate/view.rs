//! A gate as a person sees it.

use serde::Serialize;

use super::{Closed, GateAct, Queue, Rule, Times};
use crate::env::Timestamp;
use crate::store::GateRow;

/// What holds at a gate, who closed it, and who stands before it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GateView {
    /// The credential, or the credential and the operation.
    pub key: String,
    /// What holds there, as it was last declared.
    pub rule: Rule,
    /// Why nobody passes, and until when.
    pub closed: Option<Closed>,
    /// How many are let go at a time, while it is tried after it was closed.
    pub wave: Option<u32>,
    /// Who stands before it.
    pub queue: Queue,
    /// How many permits workers have in hand: calls that are under way, or may be.
    pub in_hand: u32,
    /// What people did to it, oldest first; the last hundred.
    pub acts: Vec<GateAct>,
    /// Why this process cannot move it: the database refuses each time. Nobody who waits there is let go before that
    /// is mended.
    pub trouble: Option<String>,
}

impl GateView {
    /// Whether nobody passes before a person has done something: opened it, or mended what does not let it move.
    pub fn needs_person(&self) -> bool {
        self.trouble.is_some() || self.closed.as_ref().is_some_and(|closed| closed.until.is_none())
    }

    /// As it is now; `trouble` is why it cannot be moved.
    pub(crate) fn of(row: &GateRow, trouble: Option<String>, now: Timestamp, times: &Times) -> Self {
        let state = row.settled(now, times);
        Self {
            key: row.key.clone(),
            closed: state.closed,
            wave: state.probe.map(|probe| probe.wave),
            queue: row.queue,
            in_hand: state.shares.values().fold(0, |sum, share| sum.saturating_add(share.permits)),
            rule: state.rule,
            acts: state.acts,
            trouble,
        }
    }
}

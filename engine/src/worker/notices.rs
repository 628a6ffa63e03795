//! Notices: what this process logs of its sagas, a line when something changes, and the counts of a summary.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::ids::SagaId;
use crate::journal::state::{Attention, SagaState};
use crate::store::SagaRow;

/// What the sagas that one process drives came to since the counts were last taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// How many completed.
    pub completed: u64,
    /// How many were compensated.
    pub compensated: u64,
    /// How many failed before any effect.
    pub failed: u64,
    /// How many are driven at this moment.
    pub live: u64,
    /// How many of those that were written since the start of the process need attention.
    pub need_attention: u64,
}

/// What is counted, and which sagas needed attention when they were last written.
#[derive(Debug, Default)]
pub(super) struct Notices {
    completed: AtomicU64,
    compensated: AtomicU64,
    failed: AtomicU64,
    need_attention: Mutex<HashMap<SagaId, Vec<Attention>>>,
}

impl Notices {
    /// Logs what a write changed: attention that came or went, and an end that is not a success.
    pub(super) fn written(&self, row: &SagaRow) {
        let saga = &row.id;
        let words = |attention: &[Attention]| {
            attention.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let before = {
            let mut known = self.need_attention.lock().unwrap_or_else(PoisonError::into_inner);
            if row.attention.is_empty() {
                known.remove(saga)
            } else {
                known.insert(saga.clone(), row.attention.clone())
            }
        };
        let before = before.unwrap_or_default();
        if before != row.attention {
            let (workflow, attention) = (&row.workflow, words(&row.attention));
            let error = row.error.as_deref().unwrap_or_default();
            if row.attention.is_empty() {
                tracing::info!(%saga, workflow, was = words(&before), "a saga needs no attention any more");
            } else {
                tracing::warn!(%saga, workflow, attention, error, "a saga needs attention");
            }
        }
        if row.ended_at.is_none() {
            return;
        }
        let (workflow, error) = (&row.workflow, row.error.as_deref().unwrap_or_default());
        let count = match row.state {
            SagaState::Completed => &self.completed,
            SagaState::Compensated => {
                tracing::info!(%saga, workflow, error, "a saga was compensated");
                &self.compensated
            }
            _ => {
                tracing::info!(%saga, workflow, error, "a saga failed before any effect");
                &self.failed
            }
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes the counts; the next ones begin at zero.
    pub(super) fn take(&self, live: usize) -> Counts {
        let taken = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        let need_attention = self.need_attention.lock().unwrap_or_else(PoisonError::into_inner).len();
        Counts {
            completed: taken(&self.completed),
            compensated: taken(&self.compensated),
            failed: taken(&self.failed),
            live: live.try_into().unwrap_or(u64::MAX),
            need_attention: need_attention.try_into().unwrap_or(u64::MAX),
        }
    }
}

//! A moment: everything in a memory store at one time, for those who check it while it runs.

use super::tables::{Known, Tables};
use crate::ids::SagaId;
use crate::journal::Entry;
use crate::store::{AuditRow, Concurrency, Letter, ResourceRow, SagaRow};

/// What a memory store holds, seen under its lock.
pub struct Moment<'a>(pub(super) &'a Tables);

/// One saga at that moment.
pub struct SagaSeen<'a> {
    /// Its row.
    pub row: &'a SagaRow,
    /// Its whole journal.
    pub journal: &'a [Entry],
    /// Its letters in the order of arrival, each with whether it is consumed.
    pub letters: &'a [(Letter, bool)],
    /// Whether a letter lies there that wakes it.
    pub has_mail: bool,
    /// Under what bound it runs, if under one, and whether it has a place.
    pub bound: Option<(&'a Concurrency, bool)>,
}

impl<'a> Moment<'a> {
    /// Every saga, the oldest first.
    pub fn sagas(&self) -> impl Iterator<Item = SagaSeen<'a>> + use<'a> {
        self.0.sagas.values().map(seen)
    }

    /// One saga.
    pub fn saga(&self, id: &SagaId) -> Option<SagaSeen<'a>> {
        self.0.sagas.get(id).map(seen)
    }

    /// The whole ledger.
    pub fn resources(&self) -> impl Iterator<Item = &'a ResourceRow> + use<'a> {
        self.0.resources.values()
    }

    /// What was asked by people, of which saga, and what came of it.
    pub fn audit(&self) -> &'a [(SagaId, AuditRow)] {
        &self.0.audit
    }
}

fn seen(known: &Known) -> SagaSeen<'_> {
    SagaSeen {
        row: &known.row,
        journal: &known.journal,
        letters: &known.inbox,
        has_mail: known.has_mail(),
        bound: known.concurrency.as_ref().map(|bound| (bound, known.has_place)),
    }
}

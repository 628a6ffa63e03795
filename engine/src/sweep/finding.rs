//! Finding: one thing in which a provider and the ledger differ, from its first sight to its end.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::env::Timestamp;
use crate::ids::{FindingId, ResourceId, SagaId};
use crate::journal::event::closed_set;

use super::{Identity, Observed};

closed_set! {
    /// In what way they differ.
    FindingClass {
        /// It is there, it is ours, and no ledger row explains it.
        Orphan,
        /// The ledger has it as live, and it is not there.
        Ghost,
        /// It looks like ours and is not: never touched.
        Foreign,
        /// It is there, and not as it was declared.
        Drift,
    }
}

closed_set! {
    /// How a finding came to its end.
    Settlement {
        /// A saga removed the orphan, or the ledger no longer has what had gone.
        Removed,
        /// It was not to be found any more, by itself.
        Vanished,
        /// The ledger explains it now.
        Adopted,
        /// A person said that it is to be left as it is. It stays so for as long as it is seen.
        Ignored,
    }
}

/// A finding, as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingRow {
    /// Its id.
    pub id: FindingId,
    /// At which provider.
    pub provider: String,
    /// In which account of that, where there are several.
    pub account: Option<String>,
    /// In what way it differs.
    pub class: FindingClass,
    /// What the thing is.
    pub kind: String,
    /// The provider's id of it; of a ghost whose row has none, its name.
    pub external_id: String,
    /// The name it bears.
    pub name: String,
    /// The ledger row, of a ghost and of a drift.
    pub resource: Option<ResourceId>,
    /// Who holds that row.
    pub holder: Option<String>,
    /// In words, what differs.
    pub detail: Option<String>,
    /// When it was first seen.
    pub first_seen_at: Timestamp,
    /// When it was last seen.
    pub last_seen_at: Timestamp,
    /// With how many censuses it was seen.
    pub times_seen: i64,
    /// The saga that removes it, or tried to.
    pub removal: Option<SagaId>,
    /// How it came to its end; nothing while it is open.
    pub settled: Option<Settled>,
}

/// How, when and by whom a finding was settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// How.
    pub how: Settlement,
    /// When.
    pub at: Timestamp,
    /// Who: a person, a saga, or `sweep`.
    pub by: String,
    /// Why, in words, where somebody said.
    pub reason: Option<String>,
}

impl FindingRow {
    /// Whether it is certain: seen by more than one census, that far apart. Nothing is done on first sight.
    pub fn is_certain(&self, grace: Duration) -> bool {
        self.times_seen >= 2 && self.last_seen_at.since(self.first_seen_at) >= grace
    }

    /// Whether it is open: neither at its end nor ignored.
    pub fn is_open(&self) -> bool {
        self.settled.is_none()
    }

    /// What the thing is asked for by.
    pub fn identity(&self) -> Identity {
        Identity {
            kind: self.kind.clone(),
            external_id: Some(self.external_id.clone()),
            name: self.name.clone(),
            account: self.account.clone(),
        }
    }
}

/// Something that a census saw, to be written as a finding or as one more sight of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// In what way it differs.
    pub class: FindingClass,
    /// In which account.
    pub account: Option<String>,
    /// What the thing is.
    pub kind: String,
    /// The provider's id.
    pub external_id: String,
    /// The name it bears.
    pub name: String,
    /// The ledger row that it is about.
    pub resource: Option<ResourceId>,
    /// Who holds that row.
    pub holder: Option<String>,
    /// In words, what differs.
    pub detail: Option<String>,
}

impl Sighting {
    /// Of a thing that no row explains.
    pub fn unexplained(class: FindingClass, thing: &Observed) -> Self {
        Self {
            class,
            account: thing.account.clone(),
            kind: thing.kind.clone(),
            external_id: thing.external_id.clone(),
            name: thing.name.clone(),
            resource: None,
            holder: None,
            detail: None,
        }
    }

    /// Of a ledger row: its thing is not there, or not as it should be.
    pub fn of_row(class: FindingClass, row: &crate::store::ResourceRow, detail: String) -> Self {
        Self {
            class,
            account: None,
            kind: row.kind.clone(),
            external_id: row.external_id.clone().unwrap_or_else(|| row.name.clone()),
            name: row.name.clone(),
            resource: Some(row.id.clone()),
            holder: Some(row.holder.clone()),
            detail: Some(detail),
        }
    }

    fn is_of(&self, row: &FindingRow) -> bool {
        self.class == row.class && self.kind == row.kind && self.external_id == row.external_id
    }
}

/// Which findings a believed census ends, and how: those that it did not see again, some time after they were last.
pub fn ended(
    open: &[FindingRow],
    seen: &[Sighting],
    is_listed: impl Fn(&FindingRow) -> bool,
    is_live: impl Fn(&ResourceId) -> bool,
    began: Timestamp,
    settle_after: Duration,
) -> Vec<(FindingId, Settlement)> {
    let is_over = |row: &&FindingRow| {
        let is_seen = seen.iter().any(|sighting| sighting.is_of(row));
        !is_seen && row.last_seen_at.plus(settle_after) <= began
    };
    let how = |row: &FindingRow| match (row.class, &row.resource) {
        (FindingClass::Orphan | FindingClass::Foreign, _) if is_listed(row) => Settlement::Adopted,
        (FindingClass::Ghost | FindingClass::Drift, Some(resource)) if !is_live(resource) => {
            Settlement::Removed
        }
        _ => Settlement::Vanished,
    };
    open.iter().filter(is_over).map(|row| (row.id.clone(), how(row))).collect()
}

/// Which orphans are to be removed with this sweep: those that are certain and may be, the oldest first, and no more
/// than the budget. Those under removal count.
pub fn to_remove(
    open: &[FindingRow],
    is_removable: impl Fn(&FindingRow) -> bool,
    under_removal: usize,
    grace: Duration,
    budget: usize,
) -> Vec<&FindingRow> {
    let may_go = |row: &&FindingRow| {
        row.class == FindingClass::Orphan && row.is_open() && row.is_certain(grace) && is_removable(row)
    };
    let mut all: Vec<&FindingRow> = open.iter().filter(may_go).collect();
    all.sort_by_key(|row| (row.first_seen_at, row.id.clone()));
    all.truncate(budget.saturating_sub(under_removal));
    all
}

/// Which findings a list shows, the newest id first.
#[derive(Debug, Clone, Default)]
pub struct FindingFilter {
    /// At this provider.
    pub provider: Option<String>,
    /// Of this class.
    pub class: Option<FindingClass>,
    /// About a row that this saga or owner holds.
    pub holder: Option<String>,
    /// Only those that are open, or only those that are settled.
    pub open: Option<bool>,
    /// Only this one.
    pub id: Option<FindingId>,
    /// Older than this id (the cursor of the page before).
    pub before: Option<FindingId>,
    /// At most so many; 0 stands for 50, and more than 1000 for 1000.
    pub limit: u32,
}

//! The ledger: a saga's events folded, by resource, to what exists or may exist outside.

use std::collections::{BTreeMap, BTreeSet};

use crate::env::Timestamp;
use crate::ids::{ResourceId, SagaId, StepKey};
use crate::journal::event::Named;
use crate::store::{ResourceRow, ResourceState, ResourceWrite};

/// The rows that one saga holds or held, and which of them changed since they were last written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ledger {
    rows: BTreeMap<ResourceId, ResourceRow>,
    /// Holder and `rev` of a changed row when it was last written, so that the write can insist on them.
    changed: BTreeMap<ResourceId, Option<(String, i64)>>,
    /// Those that were handed over: they are their new holder's to write. A write of ours would be refused for ever.
    passed: BTreeSet<ResourceId>,
}

impl Ledger {
    /// Every row, oldest id first.
    pub fn rows(&self) -> impl Iterator<Item = &ResourceRow> {
        self.rows.values()
    }

    /// One row.
    pub fn get(&self, id: &ResourceId) -> Option<&ResourceRow> {
        self.rows.get(id)
    }

    /// The rows to write, each with the holder and `rev` that must still be stored (none for a new row).
    pub(crate) fn take_changed(&mut self) -> Vec<ResourceWrite> {
        std::mem::take(&mut self.changed)
            .into_iter()
            .filter_map(|(id, stored)| Some(ResourceWrite { row: self.rows.get(&id)?.clone(), stored }))
            .collect()
    }

    pub(crate) fn intend(
        &mut self,
        saga: &SagaId,
        step: &StepKey,
        named: &Named,
        within: Option<ResourceId>,
        at: Timestamp,
    ) {
        let row = ResourceRow {
            id: named.id.clone(),
            provider: named.resource.provider.clone(),
            kind: named.resource.kind.clone(),
            name: named.resource.name.clone(),
            external_id: None,
            state: ResourceState::Intended,
            holder: saga.to_string(),
            keeper: named.resource.keeper.clone(),
            saga: saga.clone(),
            step: step.clone(),
            within,
            rev: 1,
            intended_at: at,
            changed_at: at,
            unsettled_until: None,
        };
        self.changed.insert(named.id.clone(), None);
        self.rows.insert(named.id.clone(), row);
    }

    pub(crate) fn take_over(&mut self, row: &ResourceRow, saga: &SagaId, at: Timestamp) {
        let mut taken = row.clone();
        taken.holder = saga.to_string();
        taken.rev += 1;
        taken.changed_at = at;
        self.changed.insert(row.id.clone(), Some((row.holder.clone(), row.rev)));
        self.passed.remove(&row.id);
        self.rows.insert(row.id.clone(), taken);
    }

    pub(crate) fn set(&mut self, id: &ResourceId, state: ResourceState, at: Timestamp) {
        self.change(id, at, |row| row.state = state);
        if state == ResourceState::Gone {
            for inner in self.inside(id) {
                self.change(&inner, at, |row| row.state = ResourceState::Gone);
            }
        }
    }

    pub(crate) fn made(&mut self, id: &ResourceId, external_id: Option<&String>, at: Timestamp) {
        self.change(id, at, |row| {
            row.state = ResourceState::Live;
            if external_id.is_some() {
                row.external_id = external_id.cloned();
            }
        });
    }

    /// A call to it was lost, and may take effect until then.
    pub(crate) fn unsettle(&mut self, id: &ResourceId, until: Timestamp, at: Timestamp) {
        self.change(id, at, |row| row.unsettled_until = row.unsettled_until.max(Some(until)));
    }

    /// Every lost call to it is known to be without effect.
    pub(crate) fn settle(&mut self, id: &ResourceId, at: Timestamp) {
        self.change(id, at, |row| row.unsettled_until = None);
    }

    pub(crate) fn hand_over(&mut self, id: &ResourceId, holder: &str, at: Timestamp) {
        self.change(id, at, |row| row.holder = holder.to_owned());
        self.passed.insert(id.clone());
    }

    /// When a saga completes, its rows pass to their keeper, or to the owner it named.
    pub(crate) fn hand_all_over(&mut self, saga: &SagaId, owner: Option<&String>, at: Timestamp) {
        let ids: Vec<ResourceId> = self.rows.keys().cloned().collect();
        for id in ids {
            let row = self
                .rows
                .get(&id)
                .filter(|row| row.holder == saga.as_str() && row.state != ResourceState::Gone);
            if let Some(holder) = row.and_then(|row| row.keeper.as_ref().or(owner)).cloned() {
                self.hand_over(&id, &holder, at);
            }
        }
    }

    fn inside(&self, outer: &ResourceId) -> BTreeSet<ResourceId> {
        let mut found = BTreeSet::new();
        let mut todo = vec![outer.clone()];
        while let Some(outer) = todo.pop() {
            for row in self.rows.values().filter(|row| row.within.as_ref() == Some(&outer)) {
                if found.insert(row.id.clone()) {
                    todo.push(row.id.clone());
                }
            }
        }
        found
    }

    fn change(&mut self, id: &ResourceId, at: Timestamp, change: impl FnOnce(&mut ResourceRow)) {
        if self.passed.contains(id) {
            return;
        }
        let Some(row) = self.rows.get_mut(id) else { return };
        let before = row.clone();
        change(row);
        if *row != before {
            // Counted by event, not by write, so that a fold from the start arrives at the same number.
            row.rev += 1;
            row.changed_at = at;
            self.changed.entry(id.clone()).or_insert(Some((before.holder, before.rev)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activity::Resource;

    #[test]
    fn a_row_that_was_handed_over_is_its_new_holders_alone_to_write() {
        let saga = SagaId::stored("sg_1");
        let (id, at) = (ResourceId::stored("rs_1"), Timestamp(1));
        let named = Named { id: id.clone(), resource: Resource::new("runtime", "container", "a.example") };
        let mut ledger = Ledger::default();
        ledger.intend(&saga, &"container".into(), &named, None, at);
        ledger.made(&id, None, at);
        ledger.hand_over(&id, "in_1", at);
        let written = ledger.take_changed();
        assert_eq!(written.len(), 1);
        // A lost call to another row of the same object, and whatever else may come.
        ledger.unsettle(&id, Timestamp(9), at);
        ledger.set(&id, ResourceState::Gone, at);
        ledger.hand_over(&id, "in_2", at);
        assert!(ledger.take_changed().is_empty());
        // Taken over again, it is this saga's.
        ledger.take_over(&written[0].row, &saga, at);
        ledger.unsettle(&id, Timestamp(9), at);
        let again = ledger.take_changed();
        assert_eq!(again[0].stored, Some(("in_1".to_owned(), written[0].row.rev)));
        assert_eq!(again[0].row.unsettled_until, Some(Timestamp(9)));
    }
}

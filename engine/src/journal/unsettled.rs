//! Unsettled: until when a call that was lost may still take effect, and which calls wait for that.

use std::collections::BTreeSet;

use super::State;
use super::step::{Phase, Step};
use crate::activity::Object;
use crate::env::Timestamp;
use crate::ids::{ResourceId, StepKey};
use crate::store::ResourceRow;

impl State {
    /// What a step writes to: what it says, what its ledger row names, and what it takes away of others.
    pub(crate) fn objects_of(&self, step: &Step) -> Vec<Object> {
        let said = step.asked.as_ref().and_then(|asked| asked.object.clone());
        let row = step.resource.as_ref().and_then(|id| self.ledger.get(id));
        let removed = step.asked.iter().flat_map(|asked| self.named(&asked.removes));
        said.into_iter().chain(row.map(named)).chain(removed).collect()
    }

    /// What these rows are, as objects.
    pub(crate) fn named(&self, rows: &[ResourceId]) -> Vec<Object> {
        rows.iter().filter_map(|id| self.ledger.get(id)).map(named).collect()
    }

    /// The ledger rows of this saga that are one of these objects.
    pub(super) fn rows_of<'s>(&'s self, objects: &'s [Object]) -> impl Iterator<Item = &'s ResourceRow> {
        self.ledger.rows().filter(|row| objects.iter().any(|object| is_it(row, object)))
    }

    /// The same objects by each of their names.
    fn every_name(&self, objects: &[Object]) -> BTreeSet<Object> {
        let known = self.rows_of(objects).flat_map(|row| {
            let by_id = row.external_id.as_ref().map(|id| Object::new(&row.provider, &row.kind, id));
            std::iter::once(named(row)).chain(by_id)
        });
        known.chain(objects.iter().cloned()).collect()
    }

    /// Before when a step must not write to these objects, if that is not over by `now`: a lost call to one of them
    /// may still take effect, and would be the last to do so. What is taken back also waits for its own lost attempts,
    /// since a thing that is made behind its removal stays; what is made anew, for the lost call of its removal.
    pub(crate) fn write_from(
        &self,
        key: &StepKey,
        objects: &[Object],
        undoes: bool,
        now: Timestamp,
    ) -> Option<Timestamp> {
        if self.unsettled_until <= now {
            return None;
        }
        let own = self.step(key).and_then(
            |step| {
                if undoes { step.unsettled_until() } else { step.undo_lost_until }
            },
        );
        let names = self.every_name(objects);
        let is_one = |objects: &[Object]| !names.is_disjoint(&self.every_name(objects));
        let others = self.steps().iter().filter(|other| other.key != *key).filter_map(|other| {
            let until = other.unsettled_until().max(other.undo_lost_until)?;
            (until > now && is_one(&self.objects_of(other))).then_some(until)
        });
        let came = self.came_unsettled.iter().filter_map(|(id, until)| {
            let row = self.ledger.get(id)?;
            names.contains(&named(row)).then_some(*until)
        });
        own.into_iter().chain(others).chain(came).max().filter(|until| *until > now)
    }

    /// Before when a step that is there must not make its next call that writes, forward or back as it stands.
    pub(crate) fn held_until(&self, step: &Step, now: Timestamp) -> Option<Timestamp> {
        let undoes = matches!(step.phase, Phase::Completed | Phase::Removing { .. });
        self.write_from(&step.key, &self.objects_of(step), undoes, now)
    }

    /// A call of this step was lost, and may take effect until then.
    pub(super) fn unsettle(&mut self, key: &StepKey, until: Timestamp, at: Timestamp) {
        self.unsettled_until = self.unsettled_until.max(until);
        let Some(step) = self.step(key) else { return };
        let objects = self.objects_of(step);
        let rows: Vec<ResourceId> = self.rows_of(&objects).map(|row| row.id.clone()).collect();
        for row in rows {
            self.ledger.unsettle(&row, until, at);
        }
    }
}

/// The name under which a row is an object.
fn named(row: &ResourceRow) -> Object {
    Object::new(&row.provider, &row.kind, &row.name)
}

/// Whether a ledger row is of this object.
pub(crate) fn is_it(row: &ResourceRow, object: &Object) -> bool {
    row.provider == object.provider
        && row.kind == object.kind
        && (row.name == object.id || row.external_id.as_ref() == Some(&object.id))
}

//! The sweep of the leak saga: what is there and on no ledger, seen twice, is removed.

use std::collections::BTreeSet;

use amends_engine::store::{ResourceRow, ResourceState};

use crate::provider::Provider;

/// What is there and on no ledger; nothing that may be in the making.
pub fn orphans(things: &[(String, String)], rows: &[ResourceRow]) -> BTreeSet<String> {
    let is_known = |name: &str, id: &str| {
        rows.iter().any(|row| match row.state {
            ResourceState::Gone => false,
            ResourceState::Intended | ResourceState::InDoubt => row.name == name,
            _ => row.external_id.as_deref() == Some(id),
        })
    };
    let unknown = things.iter().filter(|(name, id)| !is_known(name, id));
    unknown.map(|(_, id)| id.clone()).collect()
}

/// What was seen in the round before.
#[derive(Default)]
pub struct Sweep {
    seen: BTreeSet<String>,
}

impl Sweep {
    /// One round: removes what is an orphan for the second time, and says how many there were.
    pub fn round(&mut self, provider: &Provider, rows: &[ResourceRow]) -> usize {
        let found = orphans(&provider.things(), rows);
        let removed: Vec<_> = found.intersection(&self.seen).cloned().collect();
        removed.iter().for_each(|id| provider.remove(id));
        self.seen = found;
        removed.len()
    }
}

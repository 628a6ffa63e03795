//! Reconcile: compares what the providers hold with the ledger, without end.
//!
//! A create whose answer was lost may land after we looked for it. So whatever bears our name and is on no ledger
//! row is an orphan: reported, and after a grace time removed, if that is allowed. A list that could not be read
//! to its end says nothing at all. What the ledger has as gone while the provider still shows it is seen here too.

use std::time::Duration;

use amends_activities::census::Seen;
use amends_activities::pool::{self, RecordFinding, RecordFindingRemoved};
use amends_engine::store::{ResourceFilter, ResourceRow, ResourceState};
use amends_engine::{Engine, Failure};

use crate::Clients;

/// What a sweep may do.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// `<prefix>-<environment>-`: what our names begin with.
    pub prefix: String,
    /// Whether orphans are removed; they are only reported otherwise.
    pub deletes: bool,
    /// How long something has to have been seen before it is removed.
    pub grace: Duration,
}

/// What a sweep found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Things at providers that no ledger row explains.
    pub orphans: Vec<Seen>,
    /// How many of them were removed.
    pub removed: usize,
    /// How many bear our prefix and are not ours: they are never touched.
    pub foreign: usize,
    /// Providers that could not be read to the end, and why.
    pub unread: Vec<String>,
}

/// So many removals in one sweep at most: if we are wrong about many, somebody notices first.
const BUDGET: usize = 10;

/// The sweep over all providers.
pub struct Reconciler {
    engine: Engine,
    clients: Clients,
}

impl Reconciler {
    /// A sweep of this engine's ledger.
    pub fn new(engine: Engine, clients: Clients) -> Self {
        Self { engine, clients }
    }

    /// Looks once at every provider.
    pub async fn sweep(&self, how: &Sweep) -> Result<Found, amends_engine::store::Error> {
        let mut found = Found::default();
        let censuses = [
            ("railway", self.clients.railway.census(&how.prefix).await),
            ("openrouter", self.clients.openrouter.census(&how.prefix).await),
            ("agentmail", self.clients.agentmail.census(&how.prefix).await),
            ("telnyx", self.clients.telnyx.census(&how.prefix).await),
        ];
        for (provider, census) in censuses {
            match census {
                Ok(seen) => self.compare(provider, seen, how, &mut found).await?,
                Err(failure) => {
                    tracing::warn!(provider, %failure, "a provider could not be read; nothing is concluded");
                    found.unread.push(format!("{provider}: {failure}"));
                }
            }
        }
        Ok(found)
    }

    async fn compare(
        &self,
        provider: &'static str,
        seen: Vec<Seen>,
        how: &Sweep,
        found: &mut Found,
    ) -> Result<(), amends_engine::store::Error> {
        let rows = self.ledger(provider).await?;
        for thing in seen.into_iter().filter(|thing| !is_explained(thing, &rows)) {
            // Another installation may use our prefix: what is for an instance that we never planned is not ours.
            let store = self.engine.store().as_ref();
            let is_ours = match instance_of(&thing.name, &how.prefix) {
                Some(instance) => pool::instance(store, &instance).await?.is_some(),
                None => false,
            };
            if !is_ours {
                found.foreign += 1;
                continue;
            }
            let finding = RecordFinding {
                provider: provider.to_owned(),
                kind: thing.kind.to_owned(),
                external_id: thing.external_id.clone(),
                name: thing.name.clone(),
            };
            let first_seen = self.engine.transact(finding).await?;
            let now = self.engine.env().now();
            tracing::warn!(
                provider,
                kind = thing.kind,
                name = thing.name,
                "an orphan: no ledger row explains it"
            );
            // Never on first sight, whatever the provider says of its age.
            let is_old_enough = first_seen.is_some_and(|first_seen| now.since(first_seen) >= how.grace);
            if how.deletes && is_old_enough && found.removed < BUDGET {
                found.removed += usize::from(self.remove(&thing).await?);
            }
            found.orphans.push(thing);
        }
        Ok(())
    }

    async fn ledger(&self, provider: &str) -> Result<Vec<ResourceRow>, amends_engine::store::Error> {
        let mut rows = Vec::new();
        let mut before = None;
        loop {
            let filter = ResourceFilter {
                states: vec![
                    ResourceState::Intended,
                    ResourceState::Live,
                    ResourceState::InDoubt,
                    ResourceState::Removing,
                ],
                provider: Some(provider.to_owned()),
                before: before.take(),
                limit: 1000,
                ..ResourceFilter::default()
            };
            let page = self.engine.resources(filter).await?;
            before = page.last().map(|row| row.id.clone());
            let is_last = page.len() < 1000;
            rows.extend(page);
            if is_last {
                return Ok(rows);
            }
        }
    }

    /// Removes an orphan, unless the ledger has come to explain it since.
    async fn remove(&self, thing: &Seen) -> Result<bool, amends_engine::store::Error> {
        if is_explained(thing, &self.ledger(thing.provider).await?) {
            return Ok(false);
        }
        let removed = match thing.provider {
            "railway" => self.clients.railway.remove(thing).await,
            "openrouter" => self.clients.openrouter.remove(thing).await,
            "agentmail" => self.clients.agentmail.remove(thing).await,
            // A number costs money to get again: a person decides.
            _ => return Ok(false),
        };
        match removed {
            Ok(()) => {
                let (provider, external_id) = (thing.provider.to_owned(), thing.external_id.clone());
                self.engine.transact(RecordFindingRemoved { provider, external_id }).await?;
                tracing::info!(
                    provider = thing.provider,
                    kind = thing.kind,
                    name = thing.name,
                    "an orphan was removed"
                );
                Ok(true)
            }
            Err(failure @ Failure::Refused(_)) => {
                tracing::warn!(provider = thing.provider, name = thing.name, %failure, "an orphan stays");
                Ok(false)
            }
            Err(failure) => {
                tracing::info!(provider = thing.provider, name = thing.name, %failure, "an orphan is tried again");
                Ok(false)
            }
        }
    }
}

/// Whether a ledger row speaks of it: by its id, or by its name while the row has no id yet.
fn is_explained(thing: &Seen, rows: &[ResourceRow]) -> bool {
    rows.iter().filter(|row| row.kind == thing.kind).any(|row| match &row.external_id {
        // A number's row has the id of its order, and its name is the number.
        _ if thing.kind == "number" => row.name == thing.external_id,
        Some(id) => *id == thing.external_id,
        None => row.name == thing.name,
    })
}

/// The instance that a name speaks of: the 12 characters behind our prefix.
fn instance_of(name: &str, prefix: &str) -> Option<String> {
    Some(format!("in_{}", name.strip_prefix(prefix)?.get(..12)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_speaks_of_its_instance() {
        let instance = instance_of("am-dev-0123456789ab-2-g3", "am-dev-");
        assert_eq!(instance.as_deref(), Some("in_0123456789ab"));
        assert_eq!(instance_of("am-prod-0123456789ab", "am-dev-"), None);
        assert_eq!(instance_of("am-dev-short", "am-dev-"), None);
    }
}

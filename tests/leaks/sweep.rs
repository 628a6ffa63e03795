//! The leak saga's provider as the engine's sweep asks it: its list lags and is empty now and then, a direct look is true.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use amends_engine::store::{ResourceRow, ResourceState};
use amends_engine::sweep::{Ask, Identity, Kind, ListPage, Observed, Provider, Sweep, async_trait};
use amends_engine::{Failure, Gate, Registry};

use crate::provider::{Line, SETTLE_AFTER, offers};

/// Its name on the ledger.
pub const LEAKY: &str = "leaky";

/// How it is swept when it is.
pub fn sweep() -> Sweep {
    Sweep { removes: true, grace: Duration::ZERO, ..Sweep::default() }
}

#[async_trait]
impl Provider for Line {
    fn name(&self) -> &'static str {
        LEAKY
    }

    fn kinds(&self) -> Vec<Kind> {
        ["house", "coin", "lease", "deed", "loan", "flare", "door"].map(Kind::new).into()
    }

    fn settle_after(&self) -> Duration {
        SETTLE_AFTER
    }

    /// Every name here is made of a saga's.
    fn is_ours(&self, _: &str) -> bool {
        true
    }

    fn register(self: Arc<Self>, registry: Registry) -> Registry {
        offers(&self, registry)
    }

    fn gates(&self, _: Ask<'_>) -> Vec<Gate> {
        Vec::new()
    }

    async fn list(&self, _: Option<&str>) -> Result<ListPage, Failure> {
        let things = if self.provider.shows_nothing() { Vec::new() } else { self.provider.shown() };
        Ok(ListPage { things, next: None })
    }

    async fn read(&self, thing: &Identity) -> Result<Option<Observed>, Failure> {
        let there = self.provider.things();
        Ok(there.into_iter().find(|known| thing.external_id.as_ref() == Some(&known.external_id)))
    }

    async fn remove(&self, thing: &Identity) -> Result<(), Failure> {
        self.provider.remove_exactly(thing.external_id.as_deref().unwrap_or_default());
        Ok(())
    }
}

/// What is there and on no ledger; nothing that may be in the making.
pub fn orphans(things: &[Observed], rows: &[ResourceRow]) -> BTreeSet<String> {
    let is_known = |thing: &Observed| {
        rows.iter().any(|row| match row.state {
            ResourceState::Gone => false,
            ResourceState::Intended | ResourceState::InDoubt => row.name == thing.name,
            _ => row.external_id.as_ref() == Some(&thing.external_id),
        })
    };
    let unknown = things.iter().filter(|thing| !is_known(thing));
    unknown.map(|thing| thing.external_id.clone()).collect()
}

//! Remove: the saga that takes one orphan away, and sees that it is gone.
//!
//! The orphan becomes a row of the ledger before anything is asked of its provider, so that whoever looks meanwhile
//! sees who has it in hand. It is read once more first, and what a ledger row or a saga that has not ended could speak
//! of is left alone. Behind that there is only forward: the removal is asked for, and again, until the thing is seen
//! gone twice.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Ask, FindingRow, Identity, Observed, Provider, Providers, Settled, Settlement, is_explained, read_ledger,
};
use crate::activity::{Activity, Call, Cause, Effect, Failure, Gate, Registry, Removed, Resource};
use crate::ids::{FindingId, ResourceId, SagaId};
use crate::saga::{Halt, Result, Saga, Workflow};
use crate::store::{ResourceFilter, ResourceState, Store};

/// The workflow that removes an orphan.
pub struct RemoveOrphan;

/// Which orphan, and who wants it gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrphanRemoval {
    /// The finding.
    pub finding: FindingId,
    /// At which provider.
    pub provider: String,
    /// What.
    pub thing: Identity,
    /// How long its absence has to last.
    #[serde(with = "humantime_serde")]
    pub settle_after: Duration,
}

impl OrphanRemoval {
    /// Of this finding.
    pub(crate) fn of(finding: &FindingRow, settle_after: Duration) -> Self {
        Self {
            finding: finding.id.clone(),
            provider: finding.provider.clone(),
            thing: finding.identity(),
            settle_after,
        }
    }
}

impl Workflow for RemoveOrphan {
    const NAME: &'static str = "amends.remove_orphan";
    const VERSION: u32 = 1;
    type Input = OrphanRemoval;
    /// How the finding came to its end.
    type Output = Settlement;

    async fn run(&self, saga: &Saga, removal: OrphanRemoval) -> Result<Settlement> {
        let OrphanRemoval { finding, provider, thing, settle_after } = removal;
        let look = LookAtOrphan { provider: provider.clone(), thing: thing.clone() };
        let seen = match saga.step("look", look).await?.take() {
            OrphanSeen::Absent => {
                let settle = SettleFinding { finding, how: Settlement::Vanished };
                saga.step("settle", settle).await?;
                return Ok(Settlement::Vanished);
            }
            OrphanSeen::Changed(detail) => return Err(Halt::give_up("changed", detail)),
            OrphanSeen::There(seen) => seen,
        };
        saga.step("take_up", TakeUpOrphan { provider: provider.clone(), thing: seen.clone() }).await?;
        let row = saga.pivot("check", CheckOrphan { provider: provider.clone(), thing: seen }).await?.take();
        let remove = RemoveUntilGone { provider, thing, settle_after, rows: vec![row] };
        saga.step("remove", remove).await?;
        saga.step("settle", SettleFinding { finding, how: Settlement::Removed }).await?;
        Ok(Settlement::Removed)
    }
}

/// What removals are made with.
pub(crate) struct Removals {
    providers: Providers,
    store: Arc<dyn Store>,
}

impl Removals {
    fn provider(&self, name: &str) -> std::result::Result<&Arc<dyn Provider>, Failure> {
        // Another program may offer it: it is not gone for good.
        self.providers.get(name).ok_or_else(|| Failure::Unavailable {
            cause: Cause::Refused,
            detail: format!("this program does not offer the provider {name}"),
            retry_after: None,
        })
    }

    fn gates(&self, name: &str, ask: Ask<'_>) -> Vec<Gate> {
        self.providers.get(name).map(|provider| provider.gates(ask)).unwrap_or_default()
    }
}

/// What a last look at an orphan saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OrphanSeen {
    /// It is there, as it was.
    There(Observed),
    /// It is not there.
    Absent,
    /// It is not what was found any more.
    Changed(String),
}

/// Looks at an orphan once more.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LookAtOrphan {
    provider: String,
    thing: Identity,
}

impl Activity for LookAtOrphan {
    const NAME: &'static str = "amends.look_at_orphan";
    const EFFECT: Effect = Effect::Read;
    type Client = Removals;
    type Output = OrphanSeen;

    fn gates(&self, removals: &Removals) -> Vec<Gate> {
        removals.gates(&self.provider, Ask::Read(&self.thing))
    }

    async fn execute(&self, removals: &Removals, _: &Call) -> std::result::Result<OrphanSeen, Failure> {
        let provider = removals.provider(&self.provider)?;
        let Some(seen) = provider.read(&self.thing).await? else { return Ok(OrphanSeen::Absent) };
        let is_same = seen.kind == self.thing.kind
            && seen.name == self.thing.name
            && self.thing.external_id.as_ref() == Some(&seen.external_id);
        if is_same && provider.is_ours(&seen.name) {
            return Ok(OrphanSeen::There(seen));
        }
        let detail = format!("{} {} is {} now: it is left alone", seen.kind, seen.external_id, seen.name);
        Ok(OrphanSeen::Changed(detail))
    }
}

/// Puts an orphan on the ledger, under the saga that removes it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TakeUpOrphan {
    provider: String,
    thing: Observed,
}

impl Activity for TakeUpOrphan {
    const NAME: &'static str = "amends.take_up_orphan";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Removals;
    type Output = Observed;

    fn resource(&self, _: &Call) -> Option<Resource> {
        Some(Resource::new(&self.provider, &self.thing.kind, &self.thing.name))
    }

    fn external_id(made: &Observed) -> Option<String> {
        Some(made.external_id.clone())
    }

    async fn execute(&self, _: &Removals, _: &Call) -> std::result::Result<Observed, Failure> {
        Ok(self.thing.clone())
    }

    /// Nothing was done to it: it is the orphan that it was.
    async fn compensate(&self, _: &Removals, _: &Observed, _: &Call) -> std::result::Result<(), Failure> {
        Ok(())
    }
}

/// Sees that nobody else can speak of the orphan; its row on the ledger.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CheckOrphan {
    provider: String,
    thing: Observed,
}

impl Activity for CheckOrphan {
    const NAME: &'static str = "amends.check_orphan";
    const EFFECT: Effect = Effect::Read;
    type Client = Removals;
    type Output = ResourceId;

    async fn execute(&self, removals: &Removals, call: &Call) -> std::result::Result<ResourceId, Failure> {
        let store = removals.store.as_ref();
        if let Some(objection) = objection(store, &self.provider, &self.thing, Some(call.saga())).await? {
            return Err(Failure::refused("explained", objection));
        }
        let filter = ResourceFilter { holder: Some(call.saga().to_string()), ..ResourceFilter::default() };
        let held = store.resources(filter).await.map_err(|error| database(&error))?;
        let own = held.into_iter().find(|row| row.state != ResourceState::Gone).map(|row| row.id);
        own.ok_or_else(|| Failure::refused("no_row", "the orphan is not on the ledger"))
    }
}

/// What stands against removing an orphan: a ledger row that explains it, or a saga that has not ended and named it.
pub(crate) async fn objection(
    store: &dyn Store,
    provider: &str,
    thing: &Observed,
    own: Option<&SagaId>,
) -> std::result::Result<Option<String>, Failure> {
    let is_own = |holder: &str| own.is_some_and(|own| own.as_str() == holder);
    let mut open = read_ledger(store, provider).await.map_err(|error| database(&error))?;
    open.retain(|row| !is_own(&row.holder));
    if is_explained(thing, &open) {
        return Ok(Some(format!("a ledger row explains the {} {}", thing.kind, thing.name)));
    }
    let filter = ResourceFilter {
        provider: Some(provider.to_owned()),
        name: Some(thing.name.clone()),
        limit: 1000,
        ..ResourceFilter::default()
    };
    for row in store.resources(filter).await.map_err(|error| database(&error))? {
        for saga in [row.saga.as_str(), row.holder.as_str()] {
            if is_own(saga) || SagaId::parse(saga).is_err() {
                continue;
            }
            let named = store.saga(&SagaId::stored(saga)).await.map_err(|error| database(&error))?;
            if named.is_some_and(|named| !named.state.is_ended()) {
                return Ok(Some(format!("saga {saga} named it and has not ended")));
            }
        }
    }
    Ok(None)
}

/// Takes the orphan away and sees it gone, as [`Saga::remove`] does; how long its absence has to last is the provider's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RemoveUntilGone {
    provider: String,
    thing: Identity,
    #[serde(with = "humantime_serde")]
    settle_after: Duration,
    rows: Vec<ResourceId>,
}

impl Activity for RemoveUntilGone {
    const NAME: &'static str = "amends.remove_until_gone";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Removals;
    type Output = Removed;

    fn removes(&self) -> Vec<ResourceId> {
        self.rows.clone()
    }

    fn gates(&self, removals: &Removals) -> Vec<Gate> {
        removals.gates(&self.provider, Ask::Remove(&self.thing))
    }

    async fn execute(&self, removals: &Removals, call: &Call) -> std::result::Result<Removed, Failure> {
        let provider = removals.provider(&self.provider)?;
        let Some(seen) = provider.read(&self.thing).await? else {
            return call.absent(self.settle_after).map(|()| Removed {});
        };
        if seen.name != self.thing.name {
            let detail = format!("{} {} is {} now: it is left alone", seen.kind, seen.external_id, seen.name);
            return Err(Failure::refused("changed", detail));
        }
        provider.remove(&self.thing).await?;
        Err(Failure::Unavailable {
            cause: Cause::StillThere,
            detail: "it was asked to go and is looked for again".to_owned(),
            retry_after: None,
        })
    }
}

/// Writes how a finding came to its end.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SettleFinding {
    finding: FindingId,
    how: Settlement,
}

impl Activity for SettleFinding {
    const NAME: &'static str = "amends.settle_finding";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Removals;
    /// Whether it was open.
    type Output = bool;

    async fn execute(&self, removals: &Removals, call: &Call) -> std::result::Result<bool, Failure> {
        let settled = Settled { how: self.how, at: call.now(), by: call.saga().to_string(), reason: None };
        removals.store.settle_finding(&self.finding, settled).await.map_err(|error| database(&error))
    }
}

pub(crate) fn database(error: &crate::store::Error) -> Failure {
    Failure::Unavailable { cause: Cause::Database, detail: error.to_string(), retry_after: None }
}

impl Registry {
    /// Offers the removal of orphans at every provider that is offered, which every engine does.
    pub(crate) fn with_removals(self, store: &Arc<dyn Store>) -> Self {
        let providers = self.providers().clone();
        let removals = Arc::new(Removals { providers, store: store.clone() });
        self.workflow(RemoveOrphan)
            .activity::<LookAtOrphan>(removals.clone())
            .activity::<TakeUpOrphan>(removals.clone())
            .activity::<CheckOrphan>(removals.clone())
            .activity::<RemoveUntilGone>(removals.clone())
            .activity::<SettleFinding>(removals)
    }
}

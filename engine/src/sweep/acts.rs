//! Acts: what a person can ask of the sweep, and see of it.

use super::{
    CensusRow, FindingClass, FindingFilter, FindingRow, Run, Settled, Settlement, Sweep, Swept, begin_removal,
};
use crate::data::{Unstorable, limits};
use crate::engine::Engine;
use crate::ids::{FindingId, SagaId};
use crate::store::Error;

/// Why something asked of the sweep was not done.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// This program offers no provider of that name.
    #[error("there is no provider {0}")]
    NoSuchProvider(String),
    /// There is no such finding.
    #[error("there is no finding {0}")]
    NoSuchFinding(FindingId),
    /// It is settled, or is of a class that this cannot be done to, or something speaks against it.
    #[error("{0}")]
    TooLate(String),
    /// Whoever acts says who they are and why.
    #[error("an act needs an actor and a reason")]
    ActorRequired,
    /// What it says exceeds a limit, or cannot be kept.
    #[error(transparent)]
    Unstorable(#[from] Unstorable),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] Error),
}

fn named(actor: &str, reason: &str) -> Result<(), SweepError> {
    if actor.trim().is_empty() || reason.trim().is_empty() {
        return Err(SweepError::ActorRequired);
    }
    limits::name("the actor", actor)?;
    Ok(limits::reason(reason)?)
}

impl Engine {
    /// Sweeps one provider now, whenever the next one is due; nothing if another process is at it.
    ///
    /// # Errors
    /// This program offers no such provider, or the store cannot.
    pub async fn sweep(&self, provider: &str, sweep: &Sweep) -> Result<Option<Swept>, SweepError> {
        let shared = self.shared();
        let found = shared.registry.providers().get(provider);
        let provider = found.ok_or_else(|| SweepError::NoSuchProvider(provider.to_owned()))?;
        Ok(Run { shared, provider, sweep }.once(true).await?)
    }

    /// The names of the providers that this program sweeps.
    pub fn swept(&self) -> Vec<&'static str> {
        self.shared().registry.providers().iter().map(|provider| provider.name()).collect()
    }

    /// What is known of each provider's censuses, by provider: how old the last one is, and why there is no newer one.
    ///
    /// # Errors
    /// The store cannot.
    pub async fn censuses(&self) -> Result<Vec<CensusRow>, Error> {
        self.store().censuses().await
    }

    /// A page of findings, newest first.
    ///
    /// # Errors
    /// The store cannot.
    pub async fn findings(&self, filter: FindingFilter) -> Result<Vec<FindingRow>, Error> {
        self.store().findings(filter).await
    }

    /// One finding.
    ///
    /// # Errors
    /// The store cannot.
    pub async fn finding(&self, id: &FindingId) -> Result<Option<FindingRow>, Error> {
        let filter = FindingFilter { id: Some(id.clone()), ..FindingFilter::default() };
        Ok(self.findings(filter).await?.pop())
    }

    /// Settles a finding as a person sees it. One that is ignored is not shown as open for as long as it is seen; one
    /// that is settled in any other way comes again if it is.
    ///
    /// # Errors
    /// Nobody says who they are and why, there is no such finding, it is settled, or the store cannot.
    pub async fn settle_finding(
        &self,
        id: &FindingId,
        how: Settlement,
        actor: &str,
        reason: &str,
    ) -> Result<(), SweepError> {
        named(actor, reason)?;
        if self.finding(id).await?.is_none() {
            return Err(SweepError::NoSuchFinding(id.clone()));
        }
        let at = self.env().now();
        let settled = Settled { how, at, by: actor.to_owned(), reason: Some(reason.to_owned()) };
        if self.store().settle_finding(id, settled).await? {
            return Ok(());
        }
        Err(SweepError::TooLate(format!("finding {id} is settled")))
    }

    /// Removes an orphan, whatever the sweep itself may do: the saga that does. It reads the thing once more, and
    /// leaves it alone if anything could speak of it.
    ///
    /// # Errors
    /// Nobody says who they are and why; there is no such finding, it is none of an orphan, is settled, or something
    /// speaks against it; this program does not offer its provider; or the store cannot.
    pub async fn remove_orphan(
        &self,
        id: &FindingId,
        actor: &str,
        reason: &str,
    ) -> Result<SagaId, SweepError> {
        named(actor, reason)?;
        let row = self.finding(id).await?.ok_or_else(|| SweepError::NoSuchFinding(id.clone()))?;
        if row.class != FindingClass::Orphan || !row.is_open() {
            return Err(SweepError::TooLate(format!("finding {id} is no orphan that is open")));
        }
        let found = self.shared().registry.providers().get(&row.provider);
        let provider = found.ok_or_else(|| SweepError::NoSuchProvider(row.provider.clone()))?;
        if !provider.kinds().iter().any(|kind| kind.name == row.kind && kind.is_removable) {
            let detail = format!("a {} is not removed from here: do it at {}", row.kind, row.provider);
            return Err(SweepError::TooLate(detail));
        }
        tracing::info!(finding = %id, actor, reason, "an orphan's removal was asked for");
        begin_removal(self.shared(), provider, &row).await?.map_err(SweepError::TooLate)
    }

    /// Says that all that the ledger has at a provider may well be absent, so that the next census believes a list that
    /// lacks all of it; the one after that does not any more.
    ///
    /// # Errors
    /// Nobody says who they are and why, there was no census of that provider yet, or the store cannot.
    pub async fn accept_absence(&self, provider: &str, actor: &str, reason: &str) -> Result<(), SweepError> {
        named(actor, reason)?;
        if self.store().accept_absence(provider, &format!("{actor}: {reason}")).await? {
            return Ok(());
        }
        Err(SweepError::NoSuchProvider(provider.to_owned()))
    }
}

//! Filters: which rows a list shows.

use crate::activity::Object;
use crate::env::Timestamp;
use crate::ids::{ResourceId, SagaId};
use crate::journal::state::SagaState;

use super::ResourceState;

/// Which sagas a list shows.
#[derive(Debug, Clone, Default)]
pub struct SagaFilter {
    /// In these states.
    pub states: Vec<SagaState>,
    /// Only with some attention.
    pub attention: bool,
    /// Of this workflow.
    pub workflow: Option<String>,
    /// With this label.
    pub label: Option<(String, String)>,
    /// With this trouble.
    pub fingerprint: Option<String>,
    /// Called by this saga.
    pub parent: Option<SagaId>,
    /// Older than this id (the cursor of the page before).
    pub before: Option<SagaId>,
    /// At most so many; 0 stands for 50, and more than 1000 for 1000.
    pub limit: u32,
}

/// Which ledger rows a list shows.
#[derive(Debug, Clone, Default)]
pub struct ResourceFilter {
    /// In these states.
    pub states: Vec<ResourceState>,
    /// Held by, or made by, this saga or owner.
    pub holder: Option<String>,
    /// At this provider.
    pub provider: Option<String>,
    /// Of this object, and such that a lost call to it may still take effect behind this time.
    pub unsettled: Option<(Object, Timestamp)>,
    /// Of this name.
    pub name: Option<String>,
    /// Older than this id.
    pub before: Option<ResourceId>,
    /// At most so many; 0 stands for 50, and more than 1000 for 1000.
    pub limit: u32,
}

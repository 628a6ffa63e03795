//! Rows: what lists and pages show of sagas, of what is outside, and of acts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::env::Timestamp;
use crate::ids::{OperationId, ResourceId, SagaId, StepKey};
use crate::journal::act::Act;
use crate::journal::event::closed_set;
use crate::journal::state::{Attention, SagaState};
use crate::saga::Progress;

closed_set! {
    /// Where a resource stands.
    ResourceState {
        /// It is about to be made.
        Intended,
        /// It is there.
        Live,
        /// It may be there.
        InDoubt,
        /// It is being taken away.
        Removing,
        /// It is gone, or was never made.
        Gone,
    }
}

/// One thing that exists, or may exist, outside by our doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceRow {
    /// The row's own id.
    pub id: ResourceId,
    /// Who holds it, as `railway`.
    pub provider: String,
    /// What it is, as `project`.
    pub kind: String,
    /// The name or tag by which it is found again.
    pub name: String,
    /// The provider's id, once known.
    pub external_id: Option<String>,
    /// Where it stands.
    pub state: ResourceState,
    /// Who alone writes this row: a saga, or the owner it was handed to.
    pub holder: String,
    /// Who gets it when its saga ends, if not the saga's owner.
    pub keeper: Option<String>,
    /// The saga that made it.
    pub saga: SagaId,
    /// The step that made it.
    pub step: StepKey,
    /// The row in which it lives, and with which it goes.
    pub within: Option<ResourceId>,
    /// Raised by every change.
    pub rev: i64,
    /// When it was named.
    pub intended_at: Timestamp,
    /// When it last changed.
    pub changed_at: Timestamp,
    /// Until when a lost call to it may still take effect; kept when it is gone, for whoever makes it anew.
    pub unsettled_until: Option<Timestamp>,
}

/// A ledger row to write, and what must be stored for the write to be right.
#[derive(Debug, Clone, PartialEq)]
pub struct ResourceWrite {
    /// As it shall be.
    pub row: ResourceRow,
    /// Holder and `rev` as they must be; nothing for a new row.
    pub stored: Option<(String, i64)>,
}

/// What a list or a page shows of a saga, kept beside its journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SagaRow {
    /// Which.
    pub id: SagaId,
    /// Its definition.
    pub workflow: String,
    /// And that one's version.
    pub workflow_version: u32,
    /// Where it stands.
    pub state: SagaState,
    /// What a person should know.
    pub attention: Vec<Attention>,
    /// The step that it is at.
    pub step: Option<String>,
    /// Its last failure, in words.
    pub error: Option<String>,
    /// What groups its trouble with that of other sagas.
    pub fingerprint: Option<String>,
    /// How far it says that it is; a write without it leaves it as it was.
    pub progress: Option<Progress>,
    /// The saga that called it.
    pub parent: Option<SagaId>,
    /// For lists.
    pub labels: BTreeMap<String, String>,
    /// When it turns round by itself.
    pub deadline_at: Option<Timestamp>,
    /// When something is next to be done; nothing while it is parked or ended.
    pub due_at: Option<Timestamp>,
    /// The number of the lease.
    pub epoch: i64,
    /// The number of its last journal entry.
    pub seq: i64,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its journal last grew.
    pub updated_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// One act of a person on a saga: who, what, why, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditRow {
    /// The act's id.
    pub operation: OperationId,
    /// What.
    pub act: Act,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// Where the saga stood then.
    pub state_before: SagaState,
    /// Where it stood afterwards; nothing until it is settled.
    pub state_after: Option<SagaState>,
    /// `done`, `too_late` and why, or `refused` and what the database said; nothing until it is settled.
    pub outcome: Option<String>,
}

/// What came of a person's act, for the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Which.
    pub operation: OperationId,
    /// `done`, `too_late` and why, or `refused` and what the database said.
    pub outcome: String,
}

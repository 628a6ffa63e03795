//! Object: a thing outside that calls write to, as every step that writes to it names it.

use serde::{Deserialize, Serialize};

/// A thing that more than one step writes to, or more than one saga.
///
/// It is the same as a ledger row if provider and kind are the same, and `id` is the row's name or the provider's id
/// on it. So what one saga lost is known to the next that writes to the same row, or to a row of the same name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Object {
    /// Who holds it, as `telnyx`.
    pub provider: String,
    /// What it is, as `assignment`.
    pub kind: String,
    /// Its name on the ledger, or the provider's id of it.
    pub id: String,
}

impl Object {
    /// An object by these words.
    pub fn new(provider: &str, kind: &str, id: impl Into<String>) -> Self {
        Self { provider: provider.into(), kind: kind.into(), id: id.into() }
    }
}

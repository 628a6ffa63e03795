//! Provider: what one must be able to say of what it holds, so that the sweep can compare it with the ledger.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::FindingRow;
use crate::activity::{Failure, Gate, Registry};
use crate::engine::Engine;
use crate::env::Timestamp;
use crate::store::{Error, ResourceRow};

/// One provider account, as the sweep asks it.
///
/// The `provider` and `kind` of an activity's [`Resource`](crate::Resource) are this one's [`name`](Self::name) and one
/// of its [`kinds`](Self::kinds): by them the ledger's rows are compared with what is listed here.
///
/// Each method makes at most one call, behind the [`gates`](Self::gates) of that call: the engine passes them first,
/// and tells them of a 429 or a refused credential. A call that takes longer than a minute is cut off.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// Its name, as the ledger has it.
    fn name(&self) -> &'static str;

    /// The kinds of things that [`list`](Self::list) shows. Rows of other kinds are not compared.
    fn kinds(&self) -> Vec<Kind>;

    /// How long what was made may be missing from a list, and how long a lost call may take to land. Whatever is
    /// concluded from an absence was absent twice, this far apart.
    fn settle_after(&self) -> Duration;

    /// Whether a name is ours: one that our grammar makes, whole. [`Names`](super::Names) is such a grammar.
    fn is_ours(&self, name: &str) -> bool;

    /// Whether a name looks like one of ours without being one: it is shown as foreign then. Nothing else does, if
    /// this is not said.
    fn resembles_ours(&self, _name: &str) -> bool {
        false
    }

    /// Offers its activities; none if not said.
    fn register(self: Arc<Self>, registry: Registry) -> Registry {
        registry
    }

    /// The gates that a call passes, the credential's first.
    fn gates(&self, call: Ask<'_>) -> Vec<Gate>;

    /// One page of everything of these kinds, whoever made it: from the start, or from the cursor of the page before.
    ///
    /// # Errors
    /// The page could not be had, or is not the list that the provider's contract describes: an answer without its
    /// list is no empty list.
    async fn list(&self, cursor: Option<&str>) -> Result<ListPage, Failure>;

    /// One thing, asked for directly; nothing only where the provider itself says that there is none, in its own
    /// documented shape.
    ///
    /// # Errors
    /// Anything else.
    async fn read(&self, thing: &Identity) -> Result<Option<Observed>, Failure>;

    /// Asks for one thing to be removed; success also if it is gone already. Whether it is gone is
    /// [read](Self::read) afterwards.
    ///
    /// # Errors
    /// It was not done, or it is not known whether it was. Asked again either way.
    async fn remove(&self, thing: &Identity) -> Result<(), Failure>;

    /// Whether a name that our ledger never had is ours all the same; not, unless said. What nobody can say this of is
    /// foreign, since another installation may have the same prefix.
    ///
    /// # Errors
    /// It cannot be told just now: the thing is left out of this sweep.
    async fn knows(&self, _engine: &Engine, _name: &str) -> Result<bool, Failure> {
        Ok(false)
    }

    /// The account in which a live row's thing was made, where there are several and the row does not say; nothing, if
    /// not said. One that is looked for in another account is absent there, and that says nothing of it.
    ///
    /// # Errors
    /// It cannot be told just now: the row counts as one that could not be looked at.
    async fn account(&self, _engine: &Engine, _row: &ResourceRow) -> Result<Option<String>, Failure> {
        Ok(None)
    }

    /// What a live row's thing should be like, by the names of [`Observed::attributes`]; nothing is compared if not
    /// said.
    ///
    /// # Errors
    /// It cannot be told just now: the row is left out of this sweep.
    async fn desired(
        &self,
        _engine: &Engine,
        _row: &ResourceRow,
    ) -> Result<BTreeMap<String, String>, Failure> {
        Ok(BTreeMap::new())
    }

    /// Told of each finding that is certain by now, with every sweep until it is settled; so what it does must bear
    /// being done again. Does nothing, unless said.
    ///
    /// # Errors
    /// The store could not; it is told again with the next sweep.
    async fn found(&self, _engine: &Engine, _finding: &FindingRow) -> Result<(), Error> {
        Ok(())
    }
}

/// A kind of thing that a list shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// As the ledger has it.
    pub name: &'static str,
    /// Whether an orphan of it may be removed: not if it costs money to have it again.
    pub is_removable: bool,
}

impl Kind {
    /// A kind whose orphans may be removed.
    pub const fn new(name: &'static str) -> Self {
        Self { name, is_removable: true }
    }

    /// A kind that is only ever reported; a person decides.
    pub const fn kept(name: &'static str) -> Self {
        Self { name, is_removable: false }
    }
}

/// What is asked of a provider.
#[derive(Debug, Clone, Copy)]
pub enum Ask<'a> {
    /// A page.
    List(Option<&'a str>),
    /// One thing.
    Read(&'a Identity),
    /// That one thing be removed.
    Remove(&'a Identity),
}

/// A page of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// What is on it.
    pub things: Vec<Observed>,
    /// Where the next page begins; nothing on the last.
    pub next: Option<String>,
}

/// One thing at a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// What it is, as the ledger has it.
    pub kind: String,
    /// The provider's id.
    pub external_id: String,
    /// The name or tag it bears.
    pub name: String,
    /// The name on the ledger, where that is another: such a row is known by it whatever its provider's id is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger_name: Option<String>,
    /// The account or workspace it is in, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// When it was made, if the provider says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// What it is like, as far as that is compared with what it should be.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

impl Observed {
    /// A thing of which no more is known than what and which it is.
    pub fn new(kind: &str, external_id: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            kind: kind.to_owned(),
            external_id: external_id.into(),
            name: name.into(),
            ledger_name: None,
            account: None,
            created_at: None,
            attributes: BTreeMap::new(),
        }
    }

    /// What it is asked for by.
    pub fn identity(&self) -> Identity {
        Identity {
            kind: self.kind.clone(),
            external_id: Some(self.external_id.clone()),
            name: self.name.clone(),
            account: self.account.clone(),
        }
    }
}

/// What a thing is asked for by: from a list, or from the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// What it is, as the ledger has it.
    pub kind: String,
    /// The provider's id; nothing of a row that has none.
    pub external_id: Option<String>,
    /// The name it bears, or that the ledger has.
    pub name: String,
    /// The account or workspace it is in; nothing where only the ledger says so.
    pub account: Option<String>,
}

impl Identity {
    /// Of a ledger row.
    pub fn of(row: &ResourceRow) -> Self {
        Self {
            kind: row.kind.clone(),
            external_id: row.external_id.clone(),
            name: row.name.clone(),
            account: None,
        }
    }
}

/// The providers of an engine, in the order in which they were given.
#[derive(Clone, Default)]
pub struct Providers(pub(crate) Vec<Arc<dyn Provider>>);

impl Providers {
    /// One of them.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Provider>> {
        self.0.iter().find(|provider| provider.name() == name)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Provider>> {
        self.0.iter()
    }
}

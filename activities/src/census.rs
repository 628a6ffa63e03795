//! Census: what a provider holds that may be ours, for the sweep.

use amends_engine::Timestamp;

/// One thing at a provider that bears our name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Who holds it.
    pub provider: &'static str,
    /// What it is.
    pub kind: &'static str,
    /// The provider's id.
    pub external_id: String,
    /// The name it bears.
    pub name: String,
    /// When it was made, if the provider says.
    pub created_at: Option<Timestamp>,
    /// The account or workspace it is in, where there are several.
    pub workspace: Option<String>,
}

pub(crate) fn time(text: Option<&str>) -> Option<Timestamp> {
    text?.parse::<jiff::Timestamp>().ok().map(|at| Timestamp(at.as_microsecond()))
}

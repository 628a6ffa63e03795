//! The sweep: compares what providers hold with the ledger, for as long as the engine runs.
//!
//! A create whose answer was lost may land when everybody has given it up and its saga is over: then something of ours
//! is outside, and on no ledger. Things also vanish behind our back, and are changed there. So each provider's list is
//! read again and again, and what differs becomes a [finding](FindingRow):
//!
//! | finding | what it is | what is done |
//! |---|---|---|
//! | orphan | it is there, it is ours, no ledger row explains it | a saga removes it, if [that is allowed](Sweep::removes) |
//! | ghost | the ledger has it as live, and it is not there | shown with its holder; [told](Provider::found) to the program |
//! | foreign | it looks like ours and is not | shown; never touched |
//! | drift | it is there, and not as it [should be](Provider::desired) | shown; told to the program |
//!
//! It is turned on in the registry, with a [`Provider`] for each account:
//!
//! ```ignore
//! let registry = Registry::default()
//!     .provider(cloud.clone())
//!     .sweep(Sweep { removes: true, ..Sweep::default() })
//!     .workflow(OpenShop);
//! ```
//!
//! **Nothing is believed once.** A list that was not read to its end says nothing at all. One that lacks what the
//! ledger has is followed by a look at each of these things: one that answers shows that the list was wrong; one that
//! is absent twice, [`settle_after`](Provider::settle_after) apart, is a ghost. Nothing is removed on first sight, nor
//! before its [grace](Sweep::grace) is over, nor what a live saga or a row of the ledger could speak of, nor more than
//! the [budget](Sweep::budget) at a time; it is read once more before it is.
//!
//! **What is ours** bears a name that our [grammar](Names) makes, whole, and that this ledger once had, or that the
//! program [knows](Provider::knows).
//!
//! **Each provider alone.** One that does not answer, or whose list has no end, holds up no other; its
//! [row](CensusRow) says how old its last census is and why there is no newer one. All calls pass the gates of their
//! credential, and close them when they are told to. Of several processes on one store one makes a provider's census.

mod acts;
mod calls;
mod census;
mod compare;
mod finding;
mod names;
mod provider;
mod remove;
mod run;
mod settings;

pub use acts::SweepError;
/// What stands above an `impl` of [`Provider`].
pub use async_trait::async_trait;
pub use census::{Bounds, CensusClaim, CensusEnd, CensusRow, Listed, read_list};
pub use compare::{Comparison, Difference, Look, Looks, Verdict, compare, differences, is_explained, judge};
pub use finding::{FindingClass, FindingFilter, FindingRow, Settled, Settlement, Sighting, ended, to_remove};
pub use names::{Names, OurName};
pub use provider::{Ask, Identity, Kind, ListPage, Observed, Provider, Providers};
pub use remove::{OrphanRemoval, RemoveOrphan};
pub use run::Swept;
pub(crate) use run::{Run, begin_removal, keep, read_ledger};
pub use settings::Sweep;

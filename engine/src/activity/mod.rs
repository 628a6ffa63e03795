//! Activities: what can be done outside or in our own database, found again, and taken back.
//!
//! An activity *is* its request: one value that is journalled, shown and called. [`Activity`] is for
//! the outside world, [`Local`] for our own database. Each has its catalogue name, and the
//! [`Registry`] calls it by that name from a journal alone.

pub mod attempt;
pub mod call;
pub mod effect;
pub mod object;
pub mod registry;
pub mod removal;
pub mod retry;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use call::Call;
pub(crate) use effect::CALL_MAX;
pub use effect::{Effect, SETTLE_AFTER};
pub use object::Object;
pub use registry::Registry;
pub use removal::{Removal, Removed};

use crate::data::{Unstorable, limits};
pub use crate::gate::Gate;
use crate::ids::{ResourceId, StepKey};
pub use crate::journal::failure::{Cause, Failure, Found, Refusal};
use crate::store::tx::Tx;

/// Shorthand for constants: so many seconds.
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The thing outside that a call is about to make: named before anything is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// Who holds it, as `railway`.
    pub provider: String,
    /// What it is, as `project`.
    pub kind: String,
    /// The name or tag by which it is found again.
    pub name: String,
    /// The step whose resource this one lives in and goes with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<StepKey>,
    /// Who gets it when the saga unwinds, instead of its being taken back (a number goes to its pool).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeper: Option<String>,
}

impl Resource {
    /// A resource that stands by itself.
    pub fn new(provider: &str, kind: &str, name: impl Into<String>) -> Self {
        Self { provider: provider.into(), kind: kind.into(), name: name.into(), within: None, keeper: None }
    }

    /// Lives inside the resource of that step, and is gone when that one is. A text is the key of a step outside all
    /// scopes; one in a scope is named by its parts, or by what it made: `within(self.project.step())`.
    #[must_use]
    pub fn within(mut self, step: impl Into<StepKey>) -> Self {
        self.within = Some(step.into());
        self
    }

    /// Refuses what exceeds a limit.
    pub(crate) fn check(&self) -> Result<(), Unstorable> {
        limits::name("the name of its resource", &self.name)?;
        limits::name("the provider of its resource", &self.provider)?;
        limits::name("the kind of its resource", &self.kind)?;
        self.keeper.iter().try_for_each(|keeper| limits::owner("the keeper of its resource", keeper))
    }

    /// Is handed to `keeper` when the saga unwinds; never compensated.
    #[must_use]
    pub fn kept_by(mut self, keeper: impl Into<String>) -> Self {
        self.keeper = Some(keeper.into());
        self
    }
}

/// Something done outside, found again, and taken back.
///
/// An activity that names a [`Resource`] is compensable: what it makes is on the ledger before the
/// call leaves, and is taken back when the saga unwinds. One that names none has nothing to take back. The two go
/// together: a [`compensate`](Self::compensate) without a [`resource`](Self::resource) would never be called, and a
/// resource without a `compensate` could not be taken back, unless it is [kept](Resource::kept_by) by somebody or lives
/// [within](Resource::within) another. A saga that asks for one like that is told so before anything is called.
///
/// **What panics.** Each function of an activity may; it is caught, and shown by its name and without its text, which
/// may hold a secret. In `execute`, `find` and `compensate` it is an answer that did not come. Before a call
/// (`resource`, `removes`, `gates`, or reading the activity from its journal) nothing leaves: a saga that asks for the
/// step waits for a person, and goes on with a [retry](crate::Engine::retry) once it is mended; on the way back it is
/// tried again every ten minutes. `external_id` is asked for when it is known what was made: without an answer the thing
/// is on the ledger by its name alone, and a person is told.
///
/// Journals hold activities and their outputs as JSON for as long as their sagas last, and an older one must still
/// read: a new field has `#[serde(default)]`, and `skip_serializing_if` so that what was recorded without it still
/// [compares](crate::Workflow#changing-it) as the same.
pub trait Activity: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Its name in journals: `provider.verb_noun`, for ever.
    const NAME: &'static str;
    /// What sending it twice would do.
    const EFFECT: Effect;
    /// The longest one attempt may take: 60 s if not said. More than 90 s counts as 90 s; longer work waits durably
    /// ([`poll_until`](crate::Saga::poll_until)).
    const TIME_LIMIT: Duration = secs(60);
    /// How long an unavailable step is tried before the saga's `?` sees it refused, as `gave_up`: an hour if not said.
    /// Past the pivot nothing is given up. Time at a gate does not count.
    const GIVE_UP_AFTER: Duration = secs(3600);
    /// How many attempts an unavailable step has before the saga's `?` sees it refused, as `gave_up`: no bound but
    /// time if not said. Polls have none, nor has what is past the pivot; what may have happened is settled first.
    const ATTEMPTS_MAX: Option<u32> = None;
    /// Whether [`find`](Self::find) sees at once whatever has taken effect, as a read of the primary by its key does
    /// and a list behind a cache or a replica does not: not if not said. Then one look counts, where otherwise
    /// *nothing there* is believed at the second look, [`settle_after`](Self::settle_after) behind the first.
    ///
    /// The same holds for a read that [`removes`](Self::removes) ledger rows.
    const STRONGLY_CONSISTENT: bool = false;
    /// What the calls are made with: a provider's client.
    type Client: ?Sized + Send + Sync + 'static;
    /// What it yields. Secrets in it are references.
    type Output: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// The thing to be, named before the call; none for a read or a removal.
    ///
    /// The name is what [`find`](Self::find) looks for, so it must be one saga's alone: made of the saga's input, or
    /// of [`Call::key`], and passed through [`Call::name`], which makes each generation's another. Asked again for
    /// the same call it must answer the same.
    fn resource(&self, call: &Call) -> Option<Resource> {
        call.no_resource()
    }

    /// The ledger rows that success closes, for an activity that takes away what another saga made and saw it gone.
    fn removes(&self) -> Vec<ResourceId> {
        Vec::new()
    }

    /// What the call writes to, if other steps or later sagas write to it too: a number that is assigned and
    /// unassigned, a record that is set again and again. What is made by this step alone needs none; that is its
    /// [`resource`](Self::resource).
    ///
    /// While a lost call to an object may still take effect, no other call of a step that names the same object
    /// leaves, so that the last write is the last one that takes effect. Asked again for the same call it must answer
    /// the same.
    fn object(&self, _call: &Call) -> Option<Object> {
        None
    }

    /// How long behind the end of its time limit a lost call may still take effect and come to be seen by
    /// [`find`](Self::find): as [`EFFECT`](Self::EFFECT) says, if not said otherwise. It may come from the client,
    /// and so from a configuration. What it was when the step was asked for is recorded with the step.
    fn settle_after(&self, _client: &Self::Client) -> Duration {
        Self::EFFECT.settle_after()
    }

    /// The gates the call passes: its credential's first, which closes when a provider asks to be left alone, and any of
    /// its operation's own. [`find`](Self::find) and [`compensate`](Self::compensate) pass them too.
    fn gates(&self, _client: &Self::Client) -> Vec<Gate> {
        Vec::new()
    }

    /// The provider's id of what was made, for the ledger.
    fn external_id(_made: &Self::Output) -> Option<String> {
        None
    }

    /// Does it. Its intent is durable by now. An answer that did not come is [`Failure::NoAnswer`], never a guess; to
    /// panic or to run over the time limit counts as that.
    fn execute(
        &self,
        client: &Self::Client,
        call: &Call,
    ) -> impl Future<Output = Result<Self::Output, Failure>> + Send;

    /// Looks whether an earlier attempt of this generation left it. Asked only of searchable effects and of a
    /// repeatable one outside its window, and not before the call has had [`settle_after`](Self::settle_after).
    ///
    /// - `Nothing` means looked everywhere, and not there. It is believed at the second look, `settle_after` behind the
    ///   first, or at the first if the activity is [`STRONGLY_CONSISTENT`](Self::STRONGLY_CONSISTENT); looks from
    ///   before the lost call was surely over can find it, and do not count otherwise. Then the call is made again.
    /// - A list that was read in part says nothing: a page that failed, an answer without the list in it or a cursor
    ///   that came twice is [`Failure::Unavailable`], never `Nothing`. What was seen on the pages before counts: a
    ///   thing that is there is there.
    /// - A look that cannot end within [`TIME_LIMIT`](Self::TIME_LIMIT) keeps where it is with
    ///   [`Call::read_up_to`] after each page, and begins at [`Call::resumes_at`]. The next look goes on there, also
    ///   in another process. One that does not is cut off, and the step says so and stays in doubt.
    /// - Of two things of one name that both bear this call's mark the oldest is adopted. The other is a twin that
    ///   this call made too: `find` may remove it, [`compensate`](Self::compensate) must.
    /// - What does not bear the mark (the whole name, the tag, the key) is somebody else's, also where it is the only
    ///   one there.
    fn find(
        &self,
        _client: &Self::Client,
        _call: &Call,
    ) -> impl Future<Output = Result<Found<Self::Output>, Failure>> + Send {
        async { Ok(Found::Unknowable) }
    }

    /// Takes it back; what is already gone is success. Asked only of activities that name a resource, only when it is
    /// known what was made, not before every lost attempt is surely over, and again until it works: a refusal is shown to a person, and tried again too. One that
    /// names a resource and does not say how it is taken back refuses.
    fn compensate(
        &self,
        _client: &Self::Client,
        _made: &Self::Output,
        _call: &Call,
    ) -> impl Future<Output = Result<(), Failure>> + Send {
        Uncompensated(Self::NAME)
    }
}

/// What an activity answers that does not say how it is taken back.
pub(crate) struct Uncompensated(&'static str);

impl Future for Uncompensated {
    type Output = Result<(), Failure>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Err(Failure::refused("no_undo", format!("{} does not say how it is taken back", self.0))))
    }
}

/// Something done in our own database, in the transaction that records it: never in doubt.
///
/// Refused ends the step; unavailable rolls back and is tried again when due, or when the saga is woken.
pub trait Local: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Its name in journals, for ever.
    const NAME: &'static str;
    /// Whether it has a `revert` that unwinding must run; not if not said.
    const REVERTS: bool = false;
    /// How long an unavailable step is tried before it counts as refused, as `gave_up`: an hour if not said. Past the
    /// pivot nothing is given up.
    const GIVE_UP_AFTER: Duration = secs(3600);
    /// How many attempts an unavailable step has before it counts as refused, as `gave_up`: no bound but time if not
    /// said. Past the pivot nothing is given up.
    const ATTEMPTS_MAX: Option<u32> = None;
    /// What it yields.
    type Output: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Does it.
    fn apply(&self, tx: &mut Tx<'_>) -> impl Future<Output = Result<Self::Output, Failure>> + Send;

    /// Takes it back.
    fn revert(
        &self,
        _made: &Self::Output,
        _tx: &mut Tx<'_>,
    ) -> impl Future<Output = Result<(), Failure>> + Send {
        async { Ok(()) }
    }
}

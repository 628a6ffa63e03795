//! Removal: take away a thing that another saga made, and see it gone; asked again until it is.

use std::future::Future;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Activity, Call, Cause, Effect, Failure, Gate, Object};
use crate::ids::ResourceId;

/// A thing that a saga takes away for good, as a teardown does; run by [`Saga::remove`](crate::Saga::remove).
///
/// A provider may accept a removal and not do it, and may not list for a while what is there. So each attempt looks
/// first: what is there is asked to go, and the attempt counts as unavailable; what is not there is believed at the
/// second look, [`SETTLE_AFTER`](Self::SETTLE_AFTER) after the first. Only then is the step completed and are its
/// ledger rows closed. A removal that does not take is sent again with the usual back-off, and is shown as
/// [`Retrying`](crate::journal::state::Attention::Retrying) at the usual threshold.
pub trait Removal: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Its name in journals: `provider.remove_noun`, for ever.
    const NAME: &'static str;
    /// How long an absence has to last before it is believed: the time within which the provider shows what it has.
    const SETTLE_AFTER: Duration;
    /// The longest one attempt may take, the look and the request together: 60 s if not said, 90 s at most.
    const TIME_LIMIT: Duration = Duration::from_secs(60);
    /// What the calls are made with: a provider's client.
    type Client: ?Sized + Send + Sync + 'static;

    /// The ledger rows that are closed once it is gone: its own, and those of what lives in it.
    fn resources(&self) -> Vec<ResourceId>;

    /// The object it removes, as [`Activity::object`] has it, so that a write to it that was lost is waited out first.
    fn object(&self, _call: &Call) -> Option<Object> {
        None
    }

    /// The gates the calls pass, as [`Activity::gates`] has them.
    fn gates(&self, _client: &Self::Client) -> Vec<Gate> {
        Vec::new()
    }

    /// Looks whether it is there. A failed read is a failure, never `false`.
    fn is_there(
        &self,
        client: &Self::Client,
        call: &Call,
    ) -> impl Future<Output = Result<bool, Failure>> + Send;

    /// Asks for its removal. That the provider says it is gone already is success here; the next look decides.
    fn request(&self, client: &Self::Client, call: &Call)
    -> impl Future<Output = Result<(), Failure>> + Send;
}

/// What was removed was seen gone, twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {}

/// A removal as the activity that a step runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent, bound(deserialize = "R: DeserializeOwned"))]
pub(crate) struct Remove<R> {
    removal: R,
    #[serde(skip)]
    kind: PhantomData<R>,
}

impl<R> Remove<R> {
    pub(crate) fn new(removal: R) -> Self {
        Self { removal, kind: PhantomData }
    }
}

impl<R: Removal> Activity for Remove<R> {
    const NAME: &'static str = R::NAME;
    const EFFECT: Effect = Effect::Repeatable;
    const TIME_LIMIT: Duration = R::TIME_LIMIT;
    // Ten years: a removal is tried for as long as it takes.
    const GIVE_UP_AFTER: Duration = Duration::from_secs(10 * 365 * 86_400);
    type Client = R::Client;
    type Output = Removed;

    fn removes(&self) -> Vec<ResourceId> {
        self.removal.resources()
    }

    fn object(&self, call: &Call) -> Option<Object> {
        self.removal.object(call)
    }

    fn gates(&self, client: &R::Client) -> Vec<Gate> {
        self.removal.gates(client)
    }

    fn settle_after(&self, _: &R::Client) -> Duration {
        R::SETTLE_AFTER
    }

    async fn execute(&self, client: &R::Client, call: &Call) -> Result<Removed, Failure> {
        if !self.removal.is_there(client, call).await? {
            return call.absent(R::SETTLE_AFTER).map(|()| Removed {});
        }
        self.removal.request(client, call).await?;
        Err(Failure::Unavailable {
            cause: Cause::StillThere,
            detail: "it was asked to go and is looked for again".to_owned(),
            retry_after: None,
        })
    }
}

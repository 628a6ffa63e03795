//! Profile: the messaging profile that all numbers of an environment share, made by one saga at a time.

use amends_activities::pool::{AwaitSagaEnd, Requested};
use amends_activities::telnyx::{EnsureMessagingProfile, LISTED_IN, LookUpMessagingProfile};
use amends_engine::store::NewSaga;
use amends_engine::{Failure, Local, Saga, Tx, Workflow, saga, secs};
use serde::{Deserialize, Serialize};

/// The saga that alone may make a profile: of those that would make the same one, one runs at a time, in whichever
/// process, and it has not ended while it is not known whether it made one.
pub struct MakeProfile;

impl Workflow for MakeProfile {
    const NAME: &'static str = "make_profile";
    const VERSION: u32 = 1;
    type Input = EnsureMessagingProfile;
    /// Telnyx's id of it.
    type Output = String;

    async fn run(&self, saga: &Saga, ensure: EnsureMessagingProfile) -> saga::Result<String> {
        // What the saga before this one made may not be listed yet.
        let look = LookUpMessagingProfile { name: ensure.name.clone() };
        for at in ["shown", "shown-later"] {
            if let Some(shown) = saga.step(at, look.clone()).await?.take() {
                return Ok(shown.id);
            }
            saga.sleep(&format!("{at}-not"), LISTED_IN).await?;
        }
        Ok(saga.step("profile", ensure).await?.take().id)
    }
}

/// Has a profile made by a saga of its own, once those before it have ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartProfile {
    /// Its name.
    pub name: String,
}

impl Local for StartProfile {
    const NAME: &'static str = "pool.start_profile";
    type Output = Requested;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Requested, Failure> {
        let key = format!("profile:{}:{}", tx.saga(), tx.step());
        let ensure = EnsureMessagingProfile { name: self.name.clone() };
        let new = NewSaga::of::<MakeProfile>(tx.env(), key, &ensure)?;
        let new = new.one_of(format!("profile:{}", self.name), 1);
        let id = new.id.clone();
        let saga = tx.start::<MakeProfile>(new).await?;
        Ok(Requested { is_new: saga == id, saga })
    }
}

/// So long a profile that was made may not show: the claim's deadline comes before, and a process that is down meanwhile
/// costs no claim.
const SHOWS_WITHIN: std::time::Duration = secs(3600);

/// Telnyx's id of the profile of this name: of the one that shows, or else of the one that is made.
pub(crate) async fn messaging_profile(saga: &Saga, name: &str) -> saga::Result<String> {
    let look = LookUpMessagingProfile { name: name.to_owned() };
    if let Some(shown) = saga.step("profile", look.clone()).await?.take() {
        return Ok(shown.id);
    }
    let maker = saga.transact("profile-maker", StartProfile { name: name.to_owned() }).await?.take().saga;
    saga.transact("profile-made", AwaitSagaEnd { saga: maker, takes_over: None }).await?;
    Ok(saga.poll_until("profile-shown", look, secs(3), SHOWS_WITHIN).await?.take().id)
}

/// The name of the profile of an instance's environment: the instance's name up to its last part.
pub(crate) fn profile_name(instance: &str) -> String {
    instance.rsplit_once('-').map_or(instance, |(environment, _)| environment).to_owned()
}

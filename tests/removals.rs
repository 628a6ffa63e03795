//! Removals: what another saga made is taken away for good, whatever the provider says of it meanwhile.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends_engine::activity::Cause;
use amends_engine::journal::state::{Attention, SagaState};
use amends_engine::store::memory::MemoryStore;
use amends_engine::store::{ResourceFilter, ResourceState, SagaRow, Started};
use amends_engine::{
    Activity, Call, Effect, Engine, Env, Failure, Found, Local, Registry, Removal, Resource, ResourceId,
    Saga, SagaId, Tx, Workflow, saga, secs,
};
use serde::{Deserialize, Serialize};

/// What a provider does with removals, and what its reads say.
#[derive(Default)]
struct Provider {
    is_there: Mutex<bool>,
    /// So many removals are accepted and not done.
    ignores: Mutex<u32>,
    /// What the next reads say, whatever is true.
    reads: Mutex<VecDeque<Result<bool, Failure>>>,
    removals: Mutex<u32>,
}

impl Provider {
    fn look(&self) -> Result<bool, Failure> {
        self.reads.lock().unwrap().pop_front().unwrap_or_else(|| Ok(*self.is_there.lock().unwrap()))
    }

    fn remove(&self) {
        *self.removals.lock().unwrap() += 1;
        let mut ignores = self.ignores.lock().unwrap();
        if *ignores > 0 {
            *ignores -= 1;
        } else {
            *self.is_there.lock().unwrap() = false;
        }
    }

    fn removals(&self) -> u32 {
        *self.removals.lock().unwrap()
    }
}

const SETTLE: Duration = secs(30);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Make {}

impl Activity for Make {
    const NAME: &'static str = "test.make";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Provider;
    type Output = String;

    fn resource(&self, _: &Call) -> Option<Resource> {
        Some(Resource::new("test", "thing", "thing-1"))
    }

    async fn execute(&self, provider: &Provider, _: &Call) -> Result<String, Failure> {
        *provider.is_there.lock().unwrap() = true;
        Ok("thing-1".to_owned())
    }

    async fn find(&self, _: &Provider, _: &Call) -> Result<Found<String>, Failure> {
        Ok(Found::Nothing)
    }

    async fn compensate(&self, provider: &Provider, _: &String, call: &Call) -> Result<(), Failure> {
        if provider.look()? {
            provider.remove();
            return Err(Failure::Unavailable {
                cause: Cause::StillThere,
                detail: "asked".into(),
                retry_after: None,
            });
        }
        call.absent(SETTLE)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct RemoveThing {
    rows: Vec<ResourceId>,
}

impl Removal for RemoveThing {
    const NAME: &'static str = "test.remove";
    const SETTLE_AFTER: Duration = SETTLE;
    type Client = Provider;

    fn resources(&self) -> Vec<ResourceId> {
        self.rows.clone()
    }

    async fn is_there(&self, provider: &Provider, _: &Call) -> Result<bool, Failure> {
        provider.look()
    }

    async fn request(&self, provider: &Provider, _: &Call) -> Result<(), Failure> {
        provider.remove();
        Ok(())
    }
}

/// Makes the thing and gives it to `shelf`.
struct Build;

impl Workflow for Build {
    const NAME: &'static str = "build";
    const VERSION: u32 = 1;
    type Input = bool;
    type Output = ();

    fn owner(_: &bool, (): &()) -> Option<String> {
        Some("shelf".to_owned())
    }

    async fn run(&self, saga: &Saga, fails: bool) -> saga::Result<()> {
        saga.step("make", Make {}).await?;
        if fails {
            saga.sleep("rest", secs(1)).await?;
            return Err(saga::Halt::give_up("test", "it is to be undone"));
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Take {}

impl Local for Take {
    const NAME: &'static str = "test.take";
    type Output = Vec<ResourceId>;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Vec<ResourceId>, Failure> {
        Ok(tx.take("shelf").await?.into_iter().map(|row| row.id).collect())
    }
}

/// Takes away what is on the shelf.
struct Clear;

impl Workflow for Clear {
    const NAME: &'static str = "clear";
    const VERSION: u32 = 1;
    type Input = ();
    type Output = ();

    async fn run(&self, saga: &Saga, (): ()) -> saga::Result<()> {
        let rows = saga.pivot_transact("take", Take {}).await?.take();
        saga.remove("thing", RemoveThing { rows }).await.map(drop)
    }
}

struct Setup {
    engine: Engine,
    provider: Arc<Provider>,
}

impl Setup {
    async fn new() -> Self {
        let env = Env::simulated(5);
        let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
        let provider = Arc::new(Provider::default());
        let registry = Registry::default()
            .activity::<Make>(provider.clone())
            .removal::<RemoveThing>(provider.clone())
            .local::<Take>()
            .workflow(Build)
            .workflow(Clear);
        let engine = Engine::start(Arc::new(store), vault, registry, env, "test");
        Self { engine, provider }
    }

    async fn built(&self) {
        let new = self.engine.new_saga::<Build>("build", &false).unwrap();
        let saga = self.engine.begin(new).await.unwrap();
        self.until(saga.saga(), |row| row.state == SagaState::Completed).await;
    }

    async fn clear(&self) -> SagaId {
        let Started::New(saga) =
            self.engine.begin(self.engine.new_saga::<Clear>("clear", &()).unwrap()).await.unwrap()
        else {
            panic!()
        };
        saga
    }

    async fn until(&self, saga: &SagaId, what: impl Fn(&SagaRow) -> bool) -> SagaRow {
        let row = self.engine.wait(saga, secs(7 * 24 * 3600), &what).await.unwrap().unwrap();
        assert!(what(&row), "{row:#?}");
        row
    }

    async fn states(&self) -> Vec<ResourceState> {
        let rows = self.engine.resources(ResourceFilter { limit: 10, ..ResourceFilter::default() }).await;
        rows.unwrap().into_iter().map(|row| row.state).collect()
    }
}

/// A provider answers that it deletes, and does nothing: with one request the thing would stay for ever.
#[tokio::test(start_paused = true)]
async fn a_removal_that_does_not_take_is_sent_again_and_shown_until_it_does() {
    let setup = Setup::new().await;
    setup.built().await;
    *setup.provider.ignores.lock().unwrap() = 12;
    let saga = setup.clear().await;
    setup.until(&saga, |row| row.attention.contains(&Attention::Retrying)).await;
    assert!(*setup.provider.is_there.lock().unwrap());
    assert_ne!(setup.states().await, [ResourceState::Gone]);
    setup.until(&saga, |row| row.state == SagaState::Completed).await;
    assert_eq!(setup.provider.removals(), 13, "asked again until it took");
    assert_eq!(setup.states().await, [ResourceState::Gone]);
}

#[tokio::test(start_paused = true)]
async fn an_absence_is_believed_at_the_second_look_and_not_before_its_time() {
    let setup = Setup::new().await;
    setup.built().await;
    // It is not listed for a moment, and then it is: nothing was removed.
    *setup.provider.reads.lock().unwrap() = VecDeque::from([Ok(false)]);
    let began = setup.engine.env().now();
    let saga = setup.clear().await;
    let row = setup.until(&saga, |row| row.state == SagaState::Completed).await;
    assert_eq!(setup.provider.removals(), 1, "seen again, it was asked to go");
    assert!(!*setup.provider.is_there.lock().unwrap());
    // The first absence, the look that saw it, and two absences a settle time apart.
    let took = row.updated_at.since(began);
    assert!(took >= 2 * SETTLE && took < 4 * SETTLE, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_look_that_fails_is_no_absence() {
    let setup = Setup::new().await;
    setup.built().await;
    let down = || Failure::Unavailable { cause: Cause::ServerError, detail: "502".into(), retry_after: None };
    let reads = [Err(down()), Ok(false), Err(down()), Ok(true), Ok(false), Ok(true)];
    *setup.provider.reads.lock().unwrap() = VecDeque::from(reads);
    let saga = setup.clear().await;
    setup.until(&saga, |row| row.state == SagaState::Completed).await;
    assert!(!*setup.provider.is_there.lock().unwrap());
    assert_eq!(setup.provider.removals(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_person_who_retries_does_not_make_an_absence_believed_early() {
    let setup = Setup::new().await;
    setup.built().await;
    *setup.provider.is_there.lock().unwrap() = false;
    let began = setup.engine.env().now();
    let saga = setup.clear().await;
    for _ in 0..5 {
        setup.engine.env().sleep(secs(2)).await;
        setup.engine.retry(&saga, "ann", "I am in a hurry").await.unwrap();
    }
    let row = setup.until(&saga, |row| row.state == SagaState::Completed).await;
    assert!(row.updated_at.since(began) >= SETTLE);
}

#[tokio::test(start_paused = true)]
async fn an_undo_sees_what_it_removes_gone_twice_too() {
    let setup = Setup::new().await;
    *setup.provider.ignores.lock().unwrap() = 3;
    *setup.provider.reads.lock().unwrap() = VecDeque::from([Ok(false), Ok(true)]);
    let new = setup.engine.new_saga::<Build>("undone", &true).unwrap();
    let saga = setup.engine.begin(new).await.unwrap().saga().clone();
    setup.until(&saga, |row| row.state == SagaState::Compensated).await;
    assert!(!*setup.provider.is_there.lock().unwrap());
    assert_eq!(setup.states().await, [ResourceState::Gone]);
    assert_eq!(setup.provider.removals(), 4, "three were ignored, one was done");
}

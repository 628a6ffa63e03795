//! A call as an activity sees one, for the unit tests of activities.

use std::sync::Arc;

use crate::activity::Call;
use crate::activity::call::Outside;
use crate::env::Env;
use crate::ids::{SagaId, StepKey};
use crate::store::Store;
use crate::store::memory::MemoryStore;

/// The first attempt of a step in a saga of its own, in the environment `test`: changed as a test needs it, then
/// [built](CallBuilder::build).
///
/// ```
/// # use std::sync::Mutex;
/// # use amends_engine::{Activity, Call, Effect, Failure, Found, Resource, secs};
/// # type Cloud = Mutex<Vec<String>>;
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct RentMachine { name: String }
/// # impl Activity for RentMachine {
/// #     const NAME: &'static str = "cloud.rent_machine";
/// #     const EFFECT: Effect = Effect::Searchable { settle_after: secs(31) };
/// #     type Client = Cloud;
/// #     type Output = String;
/// #     fn resource(&self, call: &Call) -> Option<Resource> {
/// #         Some(Resource::new("cloud", "machine", call.name(&self.name)))
/// #     }
/// #     async fn execute(&self, cloud: &Cloud, call: &Call) -> Result<String, Failure> {
/// #         cloud.lock().unwrap().push(call.name(&self.name));
/// #         Ok(call.name(&self.name))
/// #     }
/// #     async fn compensate(&self, cloud: &Cloud, made: &String, _: &Call) -> Result<(), Failure> {
/// #         cloud.lock().unwrap().retain(|machine| machine != made);
/// #         Ok(())
/// #     }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use amends_engine::testing::call;
///
/// let cloud = Cloud::default();
/// let rent = RentMachine { name: "shop-1".into() };
/// let call = call("machine").generation(2).build().await;
///
/// let made = rent.execute(&cloud, &call).await.unwrap();
/// assert_eq!(made, rent.resource(&call).unwrap().name, "it makes what it says");
/// rent.compensate(&cloud, &made, &call).await.unwrap();
/// assert!(cloud.lock().unwrap().is_empty());
///
/// // What it puts away can be opened by the same call.
/// let key = call.seal("cloud.key", &"hush".into()).unwrap();
/// assert!(call.open(&key).await.is_ok());
/// # }
/// ```
pub fn call(step: impl Into<StepKey>) -> CallBuilder {
    CallBuilder {
        step: step.into(),
        environment: "test".to_owned(),
        generation: 1,
        attempt: 1,
        saga: None,
        env: None,
    }
}

/// A [`call`] before it is built.
#[derive(Debug, Clone)]
pub struct CallBuilder {
    step: StepKey,
    environment: String,
    generation: u32,
    attempt: u32,
    saga: Option<SagaId>,
    env: Option<Env>,
}

impl CallBuilder {
    /// The saga that it is made for (a new id if not said): calls of one saga, step and generation have the same
    /// [key](Call::key).
    #[must_use]
    pub fn saga(mut self, saga: SagaId) -> Self {
        self.saga = Some(saga);
        self
    }

    /// The number of the attempt, from 1.
    #[must_use]
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt.max(1);
        self
    }

    /// The generation, from 1: from 2 on [`Call::name`] puts it behind the name.
    #[must_use]
    pub fn generation(mut self, generation: u32) -> Self {
        self.generation = generation.max(1);
        self
    }

    /// The environment of the installation.
    #[must_use]
    pub fn environment(mut self, environment: &str) -> Self {
        environment.clone_into(&mut self.environment);
        self
    }

    /// The clock and the dice (the system's if not said).
    #[must_use]
    pub fn env(mut self, env: Env) -> Self {
        self.env = Some(env);
        self
    }

    /// The call, with a vault of its own in memory: what it [seals](Call::seal) it can [open](Call::open).
    ///
    /// # Panics
    /// The store in memory cannot be made.
    pub async fn build(self) -> Call {
        let env = self.env.unwrap_or_else(Env::system);
        let (store, vault) =
            MemoryStore::new(&[], &env).await.unwrap_or_else(|error| panic!("no store: {error}"));
        let installation = store.installation().clone();
        let saga = self.saga.unwrap_or_else(|| SagaId::from_uuid(env.uuid()));
        Call {
            installation,
            environment: self.environment,
            saga,
            step: self.step,
            generation: self.generation,
            attempt: self.attempt,
            outside: Arc::new(Outside { env, vault, store: Arc::new(store) }),
            absent_since: None,
            sealed: Arc::default(),
            says_no_resource: Arc::default(),
            not_after: None,
            bookmark: Arc::default(),
        }
    }
}

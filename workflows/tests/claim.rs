//! A claim whose instance turns out to be somebody else's: it goes on with another, and that one is kept from the pool.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends_activities::pool::{self, ApplySeed, ClaimRequest, InstanceFilter, Seed};
use amends_activities::runtime::{Bound, Configured, Joined};
use amends_engine::journal::state::SagaState;
use amends_engine::store::sqlite::SqliteStore;
use amends_engine::{
    Activity, Call, Effect, Engine, Env, Failure, Local, Registry, Resource, SagaId, Tx, secs,
};
use amends_workflows::{Claim, RequestClaim};
use serde::{Deserialize, Serialize};
use serde_json::Value;

const SEED: &str = r#"{
  "pools": [{"id": "default", "min_idle": 0, "max_total": 9, "workspace": "ws", "image": "ghcr.io/o/i",
    "tag": "production"}],
  "templates": [{"id": "tp_demo", "name": "Demo", "pool": "default", "agent_name": "Ada",
    "instructions": "Help."}]
}"#;

/// What is said to the containers, and which of them are in a conversation that is not ours.
#[derive(Default)]
struct Containers {
    foreign: Vec<String>,
    said: Mutex<Vec<String>>,
}

impl Containers {
    fn say(&self, act: &str, input: &Value) -> String {
        let domain = input["domain"].as_str().unwrap().to_owned();
        self.said.lock().unwrap().push(format!("{act} {domain}"));
        domain
    }
}

// The runtime's activities under their names in journals, done to containers in memory.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Configure(Value);
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Join(Value);
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Observe(Value);

impl Activity for Configure {
    const NAME: &'static str = "runtime.configure_agent";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Containers;
    type Output = Configured;

    fn resource(&self, _: &Call) -> Option<Resource> {
        Some(Resource::new("runtime", "configuration", self.0["domain"].as_str().unwrap_or_default()))
    }
    async fn execute(&self, containers: &Containers, _: &Call) -> Result<Configured, Failure> {
        containers.say("configure", &self.0);
        Ok(Configured {})
    }
    async fn compensate(&self, containers: &Containers, _: &Configured, _: &Call) -> Result<(), Failure> {
        containers.say("undo", &self.0);
        Ok(())
    }
}

impl Activity for Join {
    const NAME: &'static str = "runtime.join_conversation";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Containers;
    type Output = Joined;

    fn resource(&self, _: &Call) -> Option<Resource> {
        Some(Resource::new("runtime", "binding", self.0["domain"].as_str().unwrap_or_default()))
    }
    async fn execute(&self, containers: &Containers, _: &Call) -> Result<Joined, Failure> {
        let domain = containers.say("join", &self.0);
        if containers.foreign.contains(&domain) {
            return Err(Failure::refused("foreign_conversation", "bound to another conversation"));
        }
        Ok(Joined { conversation: "c1".to_owned() })
    }
    async fn compensate(&self, containers: &Containers, _: &Joined, _: &Call) -> Result<(), Failure> {
        containers.say("leave", &self.0);
        Ok(())
    }
}

impl Activity for Observe {
    const NAME: &'static str = "runtime.observe_conversation";
    const EFFECT: Effect = Effect::Read;
    type Client = Containers;
    type Output = Bound;

    async fn execute(&self, _: &Containers, _: &Call) -> Result<Bound, Failure> {
        Ok(Bound { conversation: "c1".to_owned() })
    }
}

/// An idle instance, as if a Replenish had made it.
#[derive(Serialize, Deserialize)]
struct Idle(String);

impl Local for Idle {
    const NAME: &'static str = "test.idle";
    type Output = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), Failure> {
        let token = tx.seal("instance.token", &"hush".to_owned().into())?;
        let now = tx.now();
        tx.execute(
            "insert into instance (id, pool, state, claim_epoch, name, workspace, token, image, domain,
               created_at, changed_at)
             values ($1, 'default', 'idle', 0, $1, 'ws', $2, 'i', $1, $3, $3)",
            amends_engine::params![&self.0, &token, now],
        )
        .await?;
        Ok(())
    }
}

struct World {
    engine: Engine,
    containers: Arc<Containers>,
    _folder: tempfile::TempDir,
}

impl World {
    /// A pool of these idle instances, the last of which is offered first.
    async fn of(instances: &[&str], foreign: &[&str]) -> Self {
        let foreign = foreign.iter().map(|id| (*id).to_owned()).collect();
        let containers = Arc::new(Containers { foreign, said: Mutex::default() });
        let folder = tempfile::tempdir().unwrap();
        let env = Env::seeded(5).with_pace(60);
        let (file, key) = (folder.path().join("amends.db"), folder.path().join("key"));
        let (store, vault) = SqliteStore::open(&file, &key, "test", &[pool::MIGRATIONS], &env).await.unwrap();
        let registry = Registry::default()
            .activity::<Configure>(containers.clone())
            .activity::<Join>(containers.clone())
            .activity::<Observe>(containers.clone())
            .local::<pool::EnterQueue>()
            .local::<pool::ReserveInstance>()
            .local::<pool::TaintInstance>()
            .local::<pool::RecordClaim>()
            .workflow(Claim);
        let engine = Engine::start(Arc::new(store), vault, registry, env, "test");
        engine.transact(ApplySeed { seed: Seed::parse(SEED).unwrap() }).await.unwrap();
        for instance in instances {
            engine.transact(Idle((*instance).to_owned())).await.unwrap();
        }
        Self { engine, containers, _folder: folder }
    }

    async fn claims(&self) -> (SagaId, SagaState) {
        let request = ClaimRequest {
            template_id: "tp_demo".to_owned(),
            name: None,
            owner_id: None,
            join_url: Some("https://talk/c1".to_owned()),
        };
        let saga = self.engine.transact(RequestClaim { key: "k".to_owned(), request }).await.unwrap().saga;
        let row = self.engine.wait(&saga, secs(20), |_| false).await.unwrap().unwrap();
        assert!(row.state.is_ended(), "{row:#?}");
        (saga, row.state)
    }

    async fn states(&self) -> BTreeMap<String, String> {
        let filter = InstanceFilter { limit: 100, ..InstanceFilter::default() };
        let all = pool::instances(self.engine.store().as_ref(), &filter).await.unwrap();
        all.into_iter().map(|instance| (instance.id, instance.state)).collect()
    }
}

fn states(wanted: &[(&str, &str)]) -> BTreeMap<String, String> {
    wanted.iter().map(|(id, state)| ((*id).to_owned(), (*state).to_owned())).collect()
}

#[tokio::test]
async fn a_claim_goes_on_with_another_instance_and_the_first_is_tainted() {
    let world = World::of(&["in_a", "in_b"], &["in_b"]).await;
    assert_eq!(world.claims().await.1, SagaState::Completed);
    assert_eq!(world.states().await, states(&[("in_a", "claimed"), ("in_b", "tainted")]));
    let said = world.containers.said.lock().unwrap().clone();
    assert_eq!(said, ["configure in_b", "join in_b", "undo in_b", "configure in_a", "join in_a"]);
}

#[tokio::test]
async fn a_claim_gives_up_after_three_that_are_somebody_elses() {
    let all = ["in_a", "in_b", "in_c", "in_d"];
    let world = World::of(&all, &all).await;
    let (saga, state) = world.claims().await;
    assert_eq!(state, SagaState::Compensated);
    let wanted = [("in_a", "idle"), ("in_b", "tainted"), ("in_c", "tainted"), ("in_d", "tainted")];
    assert_eq!(world.states().await, states(&wanted));
    let row = world.engine.row(&saga).await.unwrap().unwrap();
    assert!(row.error.unwrap_or_default().contains("foreign_conversation"));
    tokio::time::timeout(Duration::from_secs(10), world.engine.stop()).await.unwrap();
}

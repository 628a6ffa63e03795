//! A claim whose instance turns out to be of no use: it goes on with another, and that one is kept from the pool. And one
//! whose deadline passes.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends_activities::pool::{self, ApplySeed, ClaimRequest, InstanceFilter, RecheckRequest, Seed};
use amends_activities::runtime::{Accepted, Bound, Checked, Configured, ContainerSeen, Held, Joined, Tried};
use amends_engine::journal::state::SagaState;
use amends_engine::secret::Vault;
use amends_engine::store::Store;
use amends_engine::store::memory::MemoryStore;
use amends_engine::store::sqlite::SqliteStore;
use amends_engine::{
    Activity, Call, Effect, Engine, Env, Failure, Local, Registry, Resource, SagaId, Tx, secs,
};
use amends_workflows::{Claim, Recheck, RequestClaim, Reserve, SettleRecheck, Teardown};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

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
    /// Whether they cannot be configured just now, and whether nobody lets them into their conversation.
    is_deaf: bool,
    is_kept_out: bool,
    said: Mutex<Vec<(Instant, String)>>,
}

impl Containers {
    fn say(&self, act: &str, input: &Value) -> String {
        let domain = input["domain"].as_str().unwrap().to_owned();
        self.said.lock().unwrap().push((Instant::now(), format!("{act} {domain}")));
        domain
    }

    fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().iter().map(|(_, said)| said.clone()).collect()
    }
}

// The runtime's activities under their names in journals, done to containers in memory.
macro_rules! stand_in {
    ($name:ident, $journal:literal, $effect:expr, $output:ty, $resource:expr,
     |$containers:ident, $input:ident| $body:expr) => {
        #[derive(Serialize, Deserialize)]
        #[serde(transparent)]
        struct $name(Value);

        impl Activity for $name {
            const NAME: &'static str = $journal;
            const EFFECT: Effect = $effect;
            type Client = Containers;
            type Output = $output;

            fn resource(&self, _: &Call) -> Option<Resource> {
                let make: fn(&str) -> Option<Resource> = $resource;
                make(self.0["domain"].as_str().unwrap_or_default())
            }
            async fn execute(&self, $containers: &Containers, _: &Call) -> Result<$output, Failure> {
                let $input = &self.0;
                $body
            }
        }
    };
}

fn kept(domain: &str) -> Option<Resource> {
    Some(Resource::new("runtime", "container", domain).kept_by(domain))
}

stand_in!(Hold, "runtime.hold_container", Effect::Repeatable, Held, kept, |containers, input| {
    containers.say("hold", input);
    Ok(Held {})
});
stand_in!(Check, "runtime.check_container", Effect::Read, Checked, |_| None, |containers, input| {
    containers.say("check", input);
    Ok(Checked {})
});
stand_in!(Configure, "runtime.configure_agent", Effect::Repeatable, Configured, kept, |containers, input| {
    containers.say("configure", input);
    if containers.is_deaf {
        return Err(Failure::not_yet("it is busy", secs(1)));
    }
    Ok(Configured {})
});
stand_in!(Join, "runtime.join_conversation", Effect::Repeatable, Joined, kept, |containers, input| {
    let domain = containers.say("join", input);
    if containers.foreign.contains(&domain) {
        return Err(Failure::refused("foreign_conversation", "bound to another conversation"));
    }
    let conversation = (!containers.is_kept_out).then(|| "c1".to_owned());
    Ok(Joined { conversation, operation: "o".to_owned() })
});
stand_in!(
    Await,
    "runtime.await_acceptance",
    Effect::Read,
    Option<Accepted>,
    |_| None,
    |containers, input| {
        containers.say("await", input);
        Ok(None)
    }
);
stand_in!(Observe, "runtime.observe_conversation", Effect::Read, Bound, |_| None, |containers, input| {
    containers.say("observe", input);
    Ok(Bound { conversation: "c1".to_owned() })
});
stand_in!(Clean, "runtime.clean_container", Effect::Repeatable, Tried, |_| None, |containers, input| {
    let domain = containers.say("clean", input);
    let is_foreign = containers.foreign.contains(&domain);
    Ok(Tried { seen: if is_foreign { ContainerSeen::Foreign } else { ContainerSeen::Clean } })
});

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
    _folder: Option<tempfile::TempDir>,
}

impl World {
    /// A pool of these idle instances, the last of which is offered first.
    async fn of(instances: &[&str], foreign: &[&str]) -> Self {
        let foreign = foreign.iter().map(|id| (*id).to_owned()).collect();
        let containers = Containers { foreign, ..Containers::default() };
        let folder = tempfile::tempdir().unwrap();
        let env = Env::seeded(5).with_pace(60);
        let (file, key) = (folder.path().join("amends.db"), folder.path().join("key"));
        let (store, vault) = SqliteStore::open(&file, &key, "test", &[pool::MIGRATIONS], &env).await.unwrap();
        Self { _folder: Some(folder), ..Self::on(Arc::new(store), vault, env, containers, instances).await }
    }

    /// The same in memory, at the runtime's own time.
    async fn simulated(instances: &[&str], containers: Containers) -> Self {
        let env = Env::simulated(5);
        let (store, vault) = MemoryStore::new(&[pool::MIGRATIONS], &env).await.unwrap();
        Self::on(Arc::new(store), vault, env, containers, instances).await
    }

    async fn on(
        store: Arc<dyn Store>,
        vault: Vault,
        env: Env,
        containers: Containers,
        instances: &[&str],
    ) -> Self {
        let containers = Arc::new(containers);
        let registry = Registry::default()
            .activity::<Hold>(containers.clone())
            .activity::<Check>(containers.clone())
            .activity::<Clean>(containers.clone())
            .activity::<Configure>(containers.clone())
            .activity::<Join>(containers.clone())
            .activity::<Await>(containers.clone())
            .activity::<Observe>(containers.clone())
            .local::<pool::EnterQueue>()
            .local::<Reserve>()
            .local::<pool::ReadContainer>()
            .local::<pool::NoteConversation>()
            .local::<SettleRecheck>()
            .local::<pool::RecordClaim>()
            .workflow(Claim)
            .workflow(Recheck)
            .workflow(Teardown);
        let engine = Engine::start(store, vault, registry, env, "test");
        engine.transact(ApplySeed { seed: Seed::parse(SEED).unwrap() }).await.unwrap();
        for instance in instances {
            engine.transact(Idle((*instance).to_owned())).await.unwrap();
        }
        Self { engine, containers, _folder: None }
    }

    async fn asks(&self) -> SagaId {
        let request = ClaimRequest {
            template_id: "tp_demo".to_owned(),
            name: None,
            owner_id: None,
            join_url: Some("https://talk.example/c1".to_owned()),
        };
        self.engine.transact(RequestClaim { key: "k".to_owned(), request }).await.unwrap().saga
    }

    async fn claims(&self) -> (SagaId, SagaState) {
        let saga = self.asks().await;
        let row = self.engine.wait(&saga, secs(120), |_| false).await.unwrap().unwrap();
        assert!(row.state.is_ended(), "{row:#?}");
        (saga, row.state)
    }

    /// Waits until the recheck of an instance has ended; it is started with the release.
    async fn rechecked(&self, instance: &str, claim: &SagaId) {
        let request = RecheckRequest { instance: instance.to_owned(), epoch: 2, claim: claim.clone() };
        let again = self.engine.new_saga::<Recheck>(&format!("recheck:{instance}:2"), &request).unwrap();
        let saga = self.engine.begin(again).await.unwrap().saga().clone();
        let row = self.engine.wait(&saga, secs(120), |_| false).await.unwrap().unwrap();
        assert_eq!(row.state, SagaState::Completed, "{row:#?}");
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
    let (saga, state) = world.claims().await;
    assert_eq!(state, SagaState::Completed);
    world.rechecked("in_b", &saga).await;
    assert_eq!(world.states().await, states(&[("in_a", "claimed"), ("in_b", "tainted")]));
    let mut said = world.containers.said();
    said.retain(|said| said.starts_with("configure") || said.starts_with("join"));
    assert_eq!(said, ["configure in_b", "join in_b", "configure in_a", "join in_a"]);
}

#[tokio::test]
async fn a_claim_gives_up_after_three_that_are_somebody_elses() {
    let all = ["in_a", "in_b", "in_c", "in_d"];
    let world = World::of(&all, &all).await;
    let (saga, state) = world.claims().await;
    assert_eq!(state, SagaState::Compensated);
    for instance in ["in_b", "in_c", "in_d"] {
        world.rechecked(instance, &saga).await;
    }
    let wanted = [("in_a", "idle"), ("in_b", "tainted"), ("in_c", "tainted"), ("in_d", "tainted")];
    assert_eq!(world.states().await, states(&wanted));
    let row = world.engine.row(&saga).await.unwrap().unwrap();
    assert!(row.error.unwrap_or_default().contains("foreign_conversation"));
    tokio::time::timeout(Duration::from_secs(120), world.engine.stop()).await.unwrap();
}

/// What a claim waits for when its deadline passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    InTheQueue,
    ForTheContainer,
    ToBeLetIn,
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_deadline_passes_asks_nothing_more_of_any_provider() {
    for waits in [Waits::ToBeLetIn, Waits::ForTheContainer, Waits::InTheQueue] {
        let containers = Containers {
            is_deaf: waits == Waits::ForTheContainer,
            is_kept_out: waits == Waits::ToBeLetIn,
            ..Containers::default()
        };
        let at_once: &[&str] = if waits == Waits::ToBeLetIn { &["in_a"] } else { &[] };
        let world = World::simulated(at_once, containers).await;
        let claim = world.asks().await;
        let env = world.engine.env();
        let deadline_at = world.engine.row(&claim).await.unwrap().unwrap().deadline_at.unwrap();
        let left = deadline_at.since(env.now());
        let deadline = Instant::now() + left;
        if waits == Waits::ForTheContainer {
            // It gets its instance at the end of its time.
            env.sleep(left - secs(300)).await;
            world.engine.transact(Idle("in_a".to_owned())).await.unwrap();
        }
        let row = world.engine.wait(&claim, secs(24 * 3600), |_| false).await.unwrap().unwrap();
        if waits == Waits::InTheQueue {
            world.engine.transact(Idle("in_a".to_owned())).await.unwrap();
        }
        env.sleep(secs(24 * 3600)).await;

        let said = world.containers.said.lock().unwrap().clone();
        // The recheck of what it let go of is a saga of its own.
        let asked: Vec<_> = said.iter().filter(|(_, said)| !said.starts_with("clean")).collect();
        let late: Vec<_> = asked.iter().filter(|(at, _)| *at >= deadline).collect();
        assert!(late.is_empty(), "{waits:?}: {late:?}");
        assert!(row.state.is_ended() && row.state != SagaState::Completed, "{waits:?}: {row:#?}");
        let view = world.engine.view(&claim).await.unwrap().unwrap();
        let turned = view.state.unwinding.as_ref().unwrap();
        assert_eq!((turned.refusal.code.as_str(), turned.since), ("deadline", deadline_at), "{waits:?}");
        match waits {
            Waits::InTheQueue => assert!(said.is_empty(), "{said:?}"),
            // It was at it until then.
            _ => {
                assert!(asked.last().is_some_and(|(at, _)| *at > deadline - secs(60)), "{waits:?}: {asked:?}")
            }
        }
        assert_eq!(world.states().await, states(&[("in_a", "idle")]), "{waits:?}");
        world.engine.stop().await;
    }
}

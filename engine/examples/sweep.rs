//! A create that lands when its saga is long over is found by the sweep, which is turned on in ten lines, and removed.
//!
//! `cargo run -p amends-engine --example sweep`

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use amends_engine::activity::Cause;
use amends_engine::store::memory::MemoryStore;
use amends_engine::sweep::{
    Ask, FindingFilter, Identity, Kind, ListPage, Names, Observed, Provider, Sweep, async_trait,
};
use amends_engine::{
    Activity, Call, Effect, Engine, Env, Failure, Found, Gate, Registry, Resource, Saga, Workflow, saga, secs,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

/// A cloud whose first order is cut off, and carried out much later than anybody waits for it.
#[derive(Default)]
struct Cloud {
    machines: Mutex<Vec<Observed>>,
    late: Mutex<Option<String>>,
}

impl Cloud {
    async fn carry_out_what_is_late(&self) {
        if let Some(name) = self.late.lock().await.take() {
            self.machines.lock().await.push(Observed::new("machine", format!("id-of-{name}"), name));
        }
    }
}

#[derive(Serialize, Deserialize)]
struct RentMachine {
    name: String,
}

impl Activity for RentMachine {
    const NAME: &'static str = "cloud.rent_machine";
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(1) };
    const GIVE_UP_AFTER: Duration = secs(1);
    type Client = Cloud;
    type Output = String;

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("cloud", "machine", call.name(&self.name)))
    }

    fn gates(&self, _: &Cloud) -> Vec<Gate> {
        vec![Gate::credential("cloud")]
    }

    async fn execute(&self, cloud: &Cloud, call: &Call) -> Result<String, Failure> {
        *cloud.late.lock().await = Some(call.name(&self.name));
        Err(Failure::NoAnswer { cause: Cause::Reset, detail: "the line broke after sending".into() })
    }

    async fn find(&self, cloud: &Cloud, call: &Call) -> Result<Found<String>, Failure> {
        let name = call.name(&self.name);
        let is_there = cloud.machines.lock().await.iter().any(|machine| machine.name == name);
        Ok(if is_there { Found::Usable(name) } else { Found::Nothing })
    }

    async fn compensate(&self, cloud: &Cloud, made: &String, _: &Call) -> Result<(), Failure> {
        cloud.machines.lock().await.retain(|machine| machine.name != *made);
        Ok(())
    }
}

/// What the sweep asks of the cloud.
#[async_trait]
impl Provider for Cloud {
    fn name(&self) -> &'static str {
        "cloud"
    }

    fn kinds(&self) -> Vec<Kind> {
        vec![Kind::new("machine")]
    }

    fn settle_after(&self) -> Duration {
        secs(1)
    }

    /// Our names, whole; what a colleague calls `…-backup` is the colleague's.
    fn is_ours(&self, name: &str) -> bool {
        Names::of("shop", "example").read(name).is_some()
    }

    fn register(self: Arc<Self>, registry: Registry) -> Registry {
        registry.activity::<RentMachine>(self)
    }

    fn gates(&self, _: Ask<'_>) -> Vec<Gate> {
        vec![Gate::credential("cloud")]
    }

    async fn list(&self, _: Option<&str>) -> Result<ListPage, Failure> {
        Ok(ListPage { things: self.machines.lock().await.clone(), next: None })
    }

    async fn read(&self, thing: &Identity) -> Result<Option<Observed>, Failure> {
        Ok(self.machines.lock().await.iter().find(|machine| machine.name == thing.name).cloned())
    }

    async fn remove(&self, thing: &Identity) -> Result<(), Failure> {
        self.machines.lock().await.retain(|machine| machine.name != thing.name);
        Ok(())
    }
}

struct OpenShop;

impl Workflow for OpenShop {
    const NAME: &'static str = "open-shop";
    const VERSION: u32 = 1;
    type Input = String;
    type Output = String;

    async fn run(&self, saga: &Saga, name: String) -> saga::Result<String> {
        Ok(saga.step("machine", RentMachine { name }).await?.take())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // Ten times as quick as a real one.
    let env = Env::system().with_pace(10);
    let (store, vault) = MemoryStore::new(&[], &env).await?;
    let cloud = Arc::new(Cloud::default());
    let sweep = Sweep { every: secs(5), grace: secs(10), removes: true, ..Sweep::default() };
    let registry = Registry::default().provider(cloud.clone()).sweep(sweep).workflow(OpenShop);
    let engine = Engine::start(Arc::new(store), vault, registry, env, "example");

    let name = "shop-example-0123456789ab".to_owned();
    let saga = engine.begin(engine.new_saga::<OpenShop>("shop-1", &name)?).await?.saga().clone();
    engine.cancel(&saga, "ann", "nobody needs it any more").await?;
    let row = engine.wait(&saga, secs(60), |_| false).await?.ok_or("the saga is gone")?;
    println!("the saga is {}, and the cloud has {} machines", row.state, cloud.machines.lock().await.len());

    cloud.carry_out_what_is_late().await;
    cloud.machines.lock().await.push(Observed::new("machine", "alices", format!("{name}-backup")));
    println!("now it has {}", cloud.machines.lock().await.len());
    let finding = loop {
        engine.env().sleep(Duration::from_millis(100)).await;
        let found = engine.findings(FindingFilter { open: Some(false), ..FindingFilter::default() }).await?;
        if let Some(finding) = found.into_iter().next() {
            break finding;
        }
    };
    let settled = finding.settled.ok_or("it is not settled")?;
    println!(
        "{} {}: seen {} times, {} by {}",
        finding.class, finding.name, finding.times_seen, settled.how, settled.by
    );
    engine.stop().await;

    let left: Vec<String> = cloud.machines.lock().await.iter().map(|machine| machine.name.clone()).collect();
    assert_eq!(left, [format!("{name}-backup")]);
    println!(
        "Look at: an orphan, {} by a saga, and {} machine left, which is a colleague's.",
        settled.how,
        left.len()
    );
    Ok(())
}

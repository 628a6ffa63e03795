//! A call whose answer was lost is not made twice: the engine waits, asks whether it happened, and adopts what it finds.
//!
//! `cargo run -p amends-engine --example in_doubt`

use std::error::Error;
use std::sync::Arc;

use amends_engine::activity::Cause;
use amends_engine::journal::{story, why};
use amends_engine::store::memory::MemoryStore;
use amends_engine::{
    Activity, Call, Effect, Engine, Env, Failure, Found, Registry, Resource, Saga, Workflow, saga, secs,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

/// A cloud that bills for each machine, and whose first answer is lost on the way.
#[derive(Default)]
struct Cloud {
    machines: Mutex<Vec<String>>,
    calls: Mutex<u32>,
}

#[derive(Serialize, Deserialize)]
struct RentMachine {
    name: String,
}

impl Activity for RentMachine {
    const NAME: &'static str = "cloud.rent_machine";
    /// It is found again by its name, one second after the doubt arose at the earliest: so long may a request that
    /// was lost still be on its way.
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(1) };
    type Client = Cloud;
    type Output = String;

    /// The name is chosen before the call: it is on the ledger before anything is sent, and is what `find` looks for.
    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("cloud", "machine", call.name(&self.name)))
    }

    fn external_id(made: &String) -> Option<String> {
        Some(made.clone())
    }

    async fn execute(&self, cloud: &Cloud, call: &Call) -> Result<String, Failure> {
        *cloud.calls.lock().await += 1;
        cloud.machines.lock().await.push(call.name(&self.name));
        Err(Failure::NoAnswer { cause: Cause::Reset, detail: "the line broke after sending".into() })
    }

    async fn find(&self, cloud: &Cloud, call: &Call) -> Result<Found<String>, Failure> {
        let name = call.name(&self.name);
        let is_there = cloud.machines.lock().await.contains(&name);
        Ok(if is_there { Found::Usable(name) } else { Found::Nothing })
    }

    async fn compensate(&self, cloud: &Cloud, made: &String, _: &Call) -> Result<(), Failure> {
        cloud.machines.lock().await.retain(|machine| machine != made);
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
    let env = Env::system();
    let (store, vault) = MemoryStore::new(&[], &env).await?;
    let cloud = Arc::new(Cloud::default());
    let registry = Registry::default().activity::<RentMachine>(cloud.clone()).workflow(OpenShop);
    let engine = Engine::start(Arc::new(store), vault, registry, env, "example");

    let saga = engine.begin(engine.new_saga::<OpenShop>("shop-1", &"shop-1".into())?).await?.saga().clone();
    let in_doubt = |row: &amends_engine::store::SagaRow| row.step.as_deref() == Some("machine in doubt");
    engine.wait(&saga, secs(60), in_doubt).await?;
    let view = engine.view(&saga).await?.ok_or("the saga is gone")?;
    println!("{}\n", why(&view.state, engine.env().now()));

    let row = engine.wait(&saga, secs(60), |_| false).await?.ok_or("the saga is gone")?;
    let view = engine.view(&saga).await?.ok_or("the saga is gone")?;
    print!("{}", story(&saga, &view.entries));
    println!("{}", why(&view.state, engine.env().now()));
    engine.stop().await;

    let (calls, machines) = (*cloud.calls.lock().await, cloud.machines.lock().await.len());
    assert_eq!(row.state.to_string(), "completed");
    assert_eq!((calls, machines), (1, 1));
    println!(
        "Look at: {calls} call, no answer, and {machines} machine; it was found by its name and adopted."
    );
    Ok(())
}

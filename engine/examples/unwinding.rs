//! A saga that fails half-way gives back what it made: what depends on others first, and each until it worked.
//!
//! `cargo run -p amends-engine --example unwinding`

use std::error::Error;
use std::sync::Arc;

use amends_engine::activity::Cause;
use amends_engine::journal::{story, why};
use amends_engine::store::memory::MemoryStore;
use amends_engine::{
    Activity, Call, Effect, Engine, Env, Failure, Found, Made, Registry, Resource, Saga, Workflow, saga, secs,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

/// A travel agent: what is booked, what was cancelled in which order, and how often it will not pick up the phone.
#[derive(Default)]
struct Agent {
    booked: Mutex<Vec<String>>,
    cancelled: Mutex<Vec<String>>,
    deaf: Mutex<u32>,
}

/// A booking. What it goes with is booked before it, and cancelled after it.
#[derive(Serialize, Deserialize)]
struct Book {
    what: String,
    #[serde(default)]
    with: Option<Made<String>>,
}

impl Activity for Book {
    const NAME: &'static str = "agent.book";
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(1) };
    type Client = Agent;
    type Output = String;

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("agent", "booking", call.name(&self.what)))
    }

    async fn execute(&self, agent: &Agent, _: &Call) -> Result<String, Failure> {
        if self.what == "opera" {
            return Err(Failure::refused("sold_out", "there is no seat left"));
        }
        agent.booked.lock().await.push(self.what.clone());
        Ok(self.what.clone())
    }

    async fn find(&self, agent: &Agent, _: &Call) -> Result<Found<String>, Failure> {
        let is_booked = agent.booked.lock().await.contains(&self.what);
        Ok(if is_booked { Found::Usable(self.what.clone()) } else { Found::Nothing })
    }

    async fn compensate(&self, agent: &Agent, made: &String, _: &Call) -> Result<(), Failure> {
        let mut deaf = agent.deaf.lock().await;
        if made == "hotel" && *deaf > 0 {
            *deaf -= 1;
            let detail = "nobody picks up".to_owned();
            return Err(Failure::Unavailable { cause: Cause::Connect, detail, retry_after: None });
        }
        agent.booked.lock().await.retain(|booking| booking != made);
        agent.cancelled.lock().await.push(made.clone());
        Ok(())
    }
}

struct Travel;

impl Workflow for Travel {
    const NAME: &'static str = "travel";
    const VERSION: u32 = 1;
    type Input = ();
    type Output = ();

    async fn run(&self, saga: &Saga, (): ()) -> saga::Result<()> {
        let flight = saga.step("flight", Book { what: "flight".into(), with: None }).await?;
        saga.step("hotel", Book { what: "hotel".into(), with: Some(flight) }).await?;
        // It has to do with neither, so that neither waits for it on the way back.
        saga.step("cat-sitter", Book { what: "cat-sitter".into(), with: None }).independent().await?;
        saga.step("opera", Book { what: "opera".into(), with: None }).await?;
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // A tenth of every wait, so that nobody waits for an example.
    let env = Env::system().with_pace(10);
    let (store, vault) = MemoryStore::new(&[], &env).await?;
    let agent = Arc::new(Agent { deaf: Mutex::new(2), ..Agent::default() });
    let registry = Registry::default().activity::<Book>(agent.clone()).workflow(Travel);
    let engine = Engine::start(Arc::new(store), vault, registry, env, "example");

    let saga = engine.begin(engine.new_saga::<Travel>("trip-1", &())?).await?.saga().clone();
    let row = engine.wait(&saga, secs(60), |_| false).await?.ok_or("the saga is gone")?;
    let view = engine.view(&saga).await?.ok_or("the saga is gone")?;
    print!("{}", story(&saga, &view.entries));
    println!("{}", why(&view.state, engine.env().now()));
    engine.stop().await;

    let order = agent.cancelled.lock().await.clone();
    assert_eq!(row.state.to_string(), "compensated");
    assert!(agent.booked.lock().await.is_empty());
    assert_eq!(order, ["cat-sitter", "hotel", "flight"]);
    println!("Look at: undone were {}; the hotel at the third try, the flight only then.", order.join(", "));
    Ok(())
}

//! Branches side by side: all or unwind, keep what got through, and at least so many.
//!
//! `cargo run -p amends-engine --example parallel`

use std::error::Error;
use std::sync::Arc;

use amends_engine::journal::{story, why};
use amends_engine::store::memory::MemoryStore;
use amends_engine::{
    Activity, Call, Effect, Engine, Env, Failure, Found, Registry, Resource, Saga, Workflow, saga, secs,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

/// The copies that are there.
type Mirrors = Mutex<Vec<String>>;

#[derive(Serialize, Deserialize)]
struct Copy {
    to: String,
}

impl Activity for Copy {
    const NAME: &'static str = "mirror.copy";
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(1) };
    type Client = Mirrors;
    type Output = String;

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("mirror", "copy", call.name(&self.to)))
    }

    async fn execute(&self, mirrors: &Mirrors, call: &Call) -> Result<String, Failure> {
        if self.to == "lisbon" {
            return Err(Failure::refused("full", "lisbon has no room"));
        }
        mirrors.lock().await.push(call.name(&self.to));
        Ok(self.to.clone())
    }

    async fn find(&self, mirrors: &Mirrors, call: &Call) -> Result<Found<String>, Failure> {
        let is_there = mirrors.lock().await.contains(&call.name(&self.to));
        Ok(if is_there { Found::Usable(self.to.clone()) } else { Found::Nothing })
    }

    async fn compensate(&self, mirrors: &Mirrors, _: &String, call: &Call) -> Result<(), Failure> {
        mirrors.lock().await.retain(|copy| *copy != call.name(&self.to));
        Ok(())
    }
}

/// What to do when not every branch gets through.
#[derive(Clone, Copy, Serialize, Deserialize)]
enum Policy {
    All,
    AtLeast(usize),
}

/// Copies to three towns, one of which has no room.
struct Spread;

impl Workflow for Spread {
    const NAME: &'static str = "spread";
    const VERSION: u32 = 1;
    type Input = Policy;
    type Output = Vec<String>;

    async fn run(&self, saga: &Saga, policy: Policy) -> saga::Result<Vec<String>> {
        let towns = ["bern", "lisbon", "oslo"].map(|town| (town, town.to_owned()));
        // Each branch is a scope of its own: this step's key is `copy/bern/put` in the journal.
        let copy = async |inner: Saga, to: String| Ok(inner.step("put", Copy { to }).await?.take());
        match policy {
            Policy::All => saga.each("copy", towns, copy).await,
            Policy::AtLeast(few) => {
                let ended = saga.each_kept("copy", few, towns, copy).await?;
                Ok(ended.into_iter().filter_map(Result::ok).collect())
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    for (policy, ends, left) in [
        (Policy::All, "compensated", 0),
        (Policy::AtLeast(0), "completed", 2),
        (Policy::AtLeast(2), "completed", 2),
        (Policy::AtLeast(3), "compensated", 0),
    ] {
        let env = Env::system();
        let (store, vault) = MemoryStore::new(&[], &env).await?;
        let mirrors = Arc::new(Mirrors::default());
        let registry = Registry::default().activity::<Copy>(mirrors.clone()).workflow(Spread);
        let engine = Engine::start(Arc::new(store), vault, registry, env, "example");
        let name = match policy {
            Policy::All => "all or unwind".to_owned(),
            Policy::AtLeast(few) => format!("at least {few}"),
        };
        let saga = engine.begin(engine.new_saga::<Spread>(name.as_str(), &policy)?).await?.saga().clone();
        let row = engine.wait(&saga, secs(60), |_| false).await?.ok_or("the saga is gone")?;
        let view = engine.view(&saga).await?.ok_or("the saga is gone")?;
        println!("{name}: copies in {:?}", mirrors.lock().await);
        print!("{}", story(&saga, &view.entries));
        println!("{}\n", why(&view.state, engine.env().now()));
        engine.stop().await;
        assert_eq!((row.state.to_string().as_str(), mirrors.lock().await.len()), (ends, left));
    }
    println!(
        "Look at: with lisbon full, two copies stay where two are enough, and none where all were asked for."
    );
    Ok(())
}

//! The smallest saga: two steps and a sleep on a SQLite file, started twice under one key, run once.
//!
//! `cargo run -p amends-engine --example hello_saga`

use std::error::Error;
use std::sync::Arc;

use amends_engine::journal::{story, why};
use amends_engine::store::{Store, sqlite::SqliteStore};
use amends_engine::{Activity, Call, Effect, Engine, Env, Failure, Registry, Saga, Workflow, saga, secs};
use serde::{Deserialize, Serialize};

/// The activity is its request: one value that is journalled, shown and called.
#[derive(Serialize, Deserialize)]
struct Greet {
    name: String,
}

impl Activity for Greet {
    const NAME: &'static str = "town.greet";
    /// To be greeted twice does no harm, so a lost answer is settled by asking again.
    const EFFECT: Effect = Effect::Repeatable;
    type Client = str;
    type Output = String;

    async fn execute(&self, greeting: &str, call: &Call) -> Result<String, Failure> {
        println!("  (step {} really runs)", call.step());
        Ok(format!("{greeting}, {}!", self.name))
    }
}

struct Hello;

impl Workflow for Hello {
    const NAME: &'static str = "hello";
    const VERSION: u32 = 1;
    type Input = String;
    type Output = String;

    async fn run(&self, saga: &Saga, name: String) -> saga::Result<String> {
        let first = saga.step("first", Greet { name }).await?;
        saga.sleep("a moment", secs(1)).await?;
        let second = saga.step("second", Greet { name: "world".into() }).await?;
        Ok(format!("{} {}", *first, *second))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let env = Env::system();
    let (database, key) = (folder.path().join("amends.db"), folder.path().join("key"));
    let (store, vault) = SqliteStore::open(&database, &key, "example", &[], &env).await?;
    let store = Arc::new(store);
    let registry = Registry::default().activity::<Greet>(Arc::from("Good morning")).workflow(Hello);
    let engine = Engine::start(store.clone(), vault, registry, env, "example");

    let saga = engine.begin(engine.new_saga::<Hello>("hello-1", &"Ann".into())?).await?.saga().clone();
    // A caller that does not know whether its start arrived asks again, and gets the same saga.
    let again = engine.begin(engine.new_saga::<Hello>("hello-1", &"Ann".into())?).await?;
    assert_eq!(*again.saga(), saga);

    let row = engine.wait(&saga, secs(60), |_| false).await?.ok_or("the saga is gone")?;
    assert_eq!(row.state.to_string(), "completed");
    let view = engine.view(&saga).await?.ok_or("the saga is gone")?;
    print!("{}", story(&saga, &view.entries));
    println!("{}", why(&view.state, engine.env().now()));
    let output = store.output(&saga).await?.ok_or("it yielded nothing")?;
    engine.stop().await;

    println!("Look at: each step once, although the saga was started twice; it yielded {output}.");
    Ok(())
}

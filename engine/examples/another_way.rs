//! A scope that fails takes back its own steps and hands the failure back, so that the saga can try another way.
//!
//! `cargo run -p amends-engine --example another_way`

use std::error::Error;
use std::sync::Arc;

use amends_engine::journal::{story, why};
use amends_engine::store::memory::MemoryStore;
use amends_engine::{
    Activity, Call, Effect, Engine, Env, Failure, Found, Halt, Registry, Resource, Saga, Workflow, saga, secs,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

/// What is reserved, as `dealer/thing`.
type Market = Mutex<Vec<String>>;

#[derive(Serialize, Deserialize)]
struct Reserve {
    dealer: String,
    thing: String,
}

impl Reserve {
    fn name(&self) -> String {
        format!("{}/{}", self.dealer, self.thing)
    }
}

impl Activity for Reserve {
    const NAME: &'static str = "market.reserve";
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(1) };
    type Client = Market;
    type Output = String;

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("market", "reservation", call.name(&self.name())))
    }

    async fn execute(&self, market: &Market, _: &Call) -> Result<String, Failure> {
        if self.name() == "cheap/saddle" {
            return Err(Failure::refused("none_left", "the last saddle is sold"));
        }
        market.lock().await.push(self.name());
        Ok(self.name())
    }

    async fn find(&self, market: &Market, _: &Call) -> Result<Found<String>, Failure> {
        let is_there = market.lock().await.contains(&self.name());
        Ok(if is_there { Found::Usable(self.name()) } else { Found::Nothing })
    }

    async fn compensate(&self, market: &Market, made: &String, _: &Call) -> Result<(), Failure> {
        market.lock().await.retain(|reserved| reserved != made);
        Ok(())
    }
}

/// A bicycle and a saddle, both from one dealer.
struct Equip;

impl Workflow for Equip {
    const NAME: &'static str = "equip";
    const VERSION: u32 = 1;
    type Input = Vec<String>;
    type Output = String;

    async fn run(&self, saga: &Saga, dealers: Vec<String>) -> saga::Result<String> {
        let mut last = Halt::give_up("no_dealer", "nobody was asked");
        for dealer in dealers {
            let both = async |inner: Saga| {
                for thing in ["bicycle", "saddle"] {
                    let (dealer, thing) = (dealer.clone(), thing.to_owned());
                    inner.step(&thing.clone(), Reserve { dealer, thing }).await?;
                }
                Ok(())
            };
            match saga.scope(&dealer, both).await {
                Ok(()) => return Ok(dealer),
                // What was reserved there is given back by now.
                Err(halt) => last = halt,
            }
        }
        Err(last)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let env = Env::system();
    let (store, vault) = MemoryStore::new(&[], &env).await?;
    let market = Arc::new(Market::default());
    let registry = Registry::default().activity::<Reserve>(market.clone()).workflow(Equip);
    let engine = Engine::start(Arc::new(store), vault, registry, env, "example");

    let dealers = vec!["cheap".to_owned(), "dear".to_owned()];
    let saga = engine.begin(engine.new_saga::<Equip>("equip-1", &dealers)?).await?.saga().clone();
    let row = engine.wait(&saga, secs(60), |_| false).await?.ok_or("the saga is gone")?;
    let view = engine.view(&saga).await?.ok_or("the saga is gone")?;
    print!("{}", story(&saga, &view.entries));
    println!("{}", why(&view.state, engine.env().now()));
    engine.stop().await;

    let reserved = market.lock().await.join(" and ");
    assert_eq!(row.state.to_string(), "completed");
    assert_eq!(reserved, "dear/bicycle and dear/saddle");
    println!("Look at: cheap/bicycle was given back before dear was asked; reserved are {reserved}.");
    Ok(())
}

//! A saga that waits for a person, with a limit: one order is approved, one is forgotten and gives its money back.
//!
//! `cargo run -p amends-engine --example human_approval`

use std::error::Error;
use std::sync::Arc;

use amends_engine::journal::{story, why};
use amends_engine::store::memory::MemoryStore;
use amends_engine::{
    Activity, Call, Effect, Engine, Env, Failure, Found, Halt, Registry, Resource, Saga, Workflow, saga, secs,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

/// The orders for which money is held.
type Bank = Mutex<Vec<String>>;

#[derive(Serialize, Deserialize)]
struct HoldMoney {
    order: String,
}

impl Activity for HoldMoney {
    const NAME: &'static str = "bank.hold_money";
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(1) };
    type Client = Bank;
    type Output = String;

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("bank", "hold", call.name(&self.order)))
    }

    async fn execute(&self, bank: &Bank, call: &Call) -> Result<String, Failure> {
        bank.lock().await.push(call.name(&self.order));
        Ok(call.name(&self.order))
    }

    async fn find(&self, bank: &Bank, call: &Call) -> Result<Found<String>, Failure> {
        let hold = call.name(&self.order);
        let is_held = bank.lock().await.contains(&hold);
        Ok(if is_held { Found::Usable(hold) } else { Found::Nothing })
    }

    async fn compensate(&self, bank: &Bank, hold: &String, _: &Call) -> Result<(), Failure> {
        bank.lock().await.retain(|held| held != hold);
        Ok(())
    }
}

/// What the person says.
#[derive(Serialize, Deserialize)]
struct Decision {
    by: String,
    yes: bool,
}

struct Purchase;

impl Workflow for Purchase {
    const NAME: &'static str = "purchase";
    const VERSION: u32 = 1;
    type Input = String;
    type Output = String;

    async fn run(&self, saga: &Saga, order: String) -> saga::Result<String> {
        saga.step("money", HoldMoney { order }).await?;
        // The wait is a row in the database: no process has to live for it. Two days, say; here two seconds.
        match saga.signal::<Decision>("decision", "decision", secs(2)).await? {
            Some(Decision { by, yes: true }) => Ok(by),
            Some(Decision { by, yes: false }) => Err(Halt::give_up("declined", format!("{by} said no"))),
            None => Err(Halt::give_up("nobody_decided", "two seconds went by without a word")),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let env = Env::system();
    let (store, vault) = MemoryStore::new(&[], &env).await?;
    let bank = Arc::new(Bank::default());
    let registry = Registry::default().activity::<HoldMoney>(bank.clone()).workflow(Purchase);
    let engine = Engine::start(Arc::new(store), vault, registry, env, "example");

    let mut sagas = Vec::new();
    for order in ["approved", "forgotten"] {
        let new = engine.new_saga::<Purchase>(order, &order.to_owned())?;
        sagas.push(engine.begin(new).await?.saga().clone());
    }
    // Each word has an id of its own, so that a form that is sent twice counts once. It may come before the saga
    // waits for it, and is kept until then.
    let yes = serde_json::to_value(Decision { by: "ann".into(), yes: true })?;
    engine.signal(&sagas[0], "form-17", "decision", yes.clone()).await?;
    engine.signal(&sagas[0], "form-17", "decision", yes).await?;

    let mut ends = Vec::new();
    for saga in &sagas {
        let row = engine.wait(saga, secs(60), |_| false).await?.ok_or("the saga is gone")?;
        let view = engine.view(saga).await?.ok_or("the saga is gone")?;
        print!("{}", story(saga, &view.entries));
        println!("{}\n", why(&view.state, engine.env().now()));
        ends.push(row.state.to_string());
    }
    engine.stop().await;

    assert_eq!(ends, ["completed", "compensated"]);
    assert_eq!(*bank.lock().await, ["approved"]);
    println!(
        "Look at: one order was approved and is {}, the other was forgotten and is {}.",
        ends[0], ends[1]
    );
    Ok(())
}

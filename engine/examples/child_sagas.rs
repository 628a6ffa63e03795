//! Sagas of sagas: what a child yields comes up, and a cancel goes down and is waited for.
//!
//! `cargo run -p amends-engine --example child_sagas`

use std::error::Error;
use std::sync::Arc;

use amends_engine::journal::{story, why};
use amends_engine::store::{SagaFilter, SagaRow, memory::MemoryStore};
use amends_engine::{
    Activity, Call, Effect, Engine, Env, Failure, Found, Registry, Resource, Saga, Workflow, saga, secs,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

/// The rooms that are built.
type Site = Mutex<Vec<String>>;

#[derive(Serialize, Deserialize)]
struct Build {
    room: String,
}

impl Activity for Build {
    const NAME: &'static str = "site.build";
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(1) };
    type Client = Site;
    type Output = String;

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("site", "room", call.name(&self.room)))
    }

    async fn execute(&self, site: &Site, _: &Call) -> Result<String, Failure> {
        site.lock().await.push(self.room.clone());
        Ok(self.room.clone())
    }

    async fn find(&self, site: &Site, _: &Call) -> Result<Found<String>, Failure> {
        let is_there = site.lock().await.contains(&self.room);
        Ok(if is_there { Found::Usable(self.room.clone()) } else { Found::Nothing })
    }

    async fn compensate(&self, site: &Site, room: &String, _: &Call) -> Result<(), Failure> {
        site.lock().await.retain(|built| built != room);
        Ok(())
    }
}

/// One room, by a builder who may have to wait for the paint to dry.
struct Room;

impl Workflow for Room {
    const NAME: &'static str = "room";
    const VERSION: u32 = 1;
    type Input = (String, u64);
    type Output = String;

    async fn run(&self, saga: &Saga, (room, dries): (String, u64)) -> saga::Result<String> {
        let built = saga.step("walls", Build { room }).await?;
        saga.sleep("paint", secs(dries)).await?;
        Ok(format!("a painted {}", *built))
    }
}

/// A house: one room that is waited for, and one that is only begun.
struct House;

impl Workflow for House {
    const NAME: &'static str = "house";
    const VERSION: u32 = 1;
    type Input = (String, u64);
    type Output = String;

    async fn run(&self, saga: &Saga, (name, dries): (String, u64)) -> saga::Result<String> {
        // It may only end after this saga has, so that until then it can be taken back with it.
        saga.start::<Room>("shed", &(format!("{name}-shed"), 0)).await?;
        let kitchen = saga.call::<Room>("kitchen", &(format!("{name}-kitchen"), dries)).await?;
        Ok(format!("{name} with {}", *kitchen))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let env = Env::system();
    let (store, vault) = MemoryStore::new(&[], &env).await?;
    let site = Arc::new(Site::default());
    let registry = Registry::default().activity::<Build>(site.clone()).workflow(Room).workflow(House);
    let engine = Engine::start(Arc::new(store), vault, registry, env, "example");

    let mut ends = Vec::new();
    for (name, dries) in [("red", 1), ("blue", 3600)] {
        let new = engine.new_saga::<House>(name, &(name.to_owned(), dries))?;
        let house = engine.begin(new).await?.saga().clone();
        if name == "blue" {
            // Both rooms stand, and the paint will not be dry for an hour.
            while site.lock().await.len() < 4 {
                engine.env().sleep(std::time::Duration::from_millis(10)).await;
            }
            engine.cancel(&house, "ann", "the plot is sold").await?;
        }
        let row = engine.wait(&house, secs(60), |_| false).await?.ok_or("the saga is gone")?;
        let view = engine.view(&house).await?.ok_or("the saga is gone")?;
        print!("{}", story(&house, &view.entries));
        println!("{}", why(&view.state, engine.env().now()));
        let rooms = SagaFilter { parent: Some(house.clone()), ..SagaFilter::default() };
        for room in engine.sagas(rooms).await? {
            // A child that offered its result ends right after the saga that called it.
            let ended = |row: &SagaRow| row.state.is_ended();
            let room = engine.wait(&room.id, secs(60), ended).await?.ok_or("the room is gone")?;
            println!("  child {} is {}", room.id, room.state);
            assert_eq!(room.state, row.state);
        }
        println!();
        ends.push(row.state.to_string());
    }
    engine.stop().await;

    let rooms = site.lock().await.join(", ");
    assert_eq!(ends, ["completed", "compensated"]);
    println!(
        "Look at: red stands with its rooms, blue was cancelled and its rooms with it; there are {rooms}."
    );
    Ok(())
}

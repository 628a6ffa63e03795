//! An apalis job that moves under a saga unchanged: first run by a worker, then as a step that is taken back.
//!
//! `cargo run -p amends-apalis --example moving_in`

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use amends_apalis::{Handler, Job, JobActivity, NoUndo, Undoes};
use amends_engine::store::{Started, memory::MemoryStore};
use amends_engine::{Engine, Env, Registry, Saga, Workflow, saga, secs};
use apalis::prelude::{
    AbortError, Attempt, Data, Event, EventListenerExt, MemoryStorage, TaskId, TaskSink, WorkerBuilder,
    WorkerBuilderExt, task_fn,
};
use serde::{Deserialize, Serialize};
use tower::ServiceBuilder;

// ---- What the team has: three jobs and the state they share. Nothing here knows of sagas. ----

/// The rooms that are taken.
#[derive(Clone, Default)]
struct Hotel(Arc<Mutex<BTreeSet<u32>>>);

impl Hotel {
    fn taken(&self) -> Vec<u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Reserve {
    room: u32,
}

async fn reserve(job: Reserve, id: TaskId, attempt: Attempt, hotel: Data<Hotel>) -> Result<u32, AbortError> {
    println!("  reserve  room {} (task {id}, attempt {})", job.room, attempt.current());
    if !hotel.0.0.lock().unwrap_or_else(PoisonError::into_inner).insert(job.room) {
        return Err(AbortError::new(format!("room {} is taken", job.room)));
    }
    Ok(job.room)
}

#[derive(Clone, Serialize, Deserialize)]
struct Release {
    room: u32,
}

async fn release(job: Release, id: TaskId, hotel: Data<Hotel>) {
    println!("  release  room {} (task {id})", job.room);
    hotel.0.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&job.room);
}

#[derive(Clone, Serialize, Deserialize)]
struct Charge {
    cents: u64,
}

async fn charge(job: Charge) -> Result<(), AbortError> {
    println!("  charge   {} cents: the card is declined", job.cents);
    Err(AbortError::new("the card is declined"))
}

// ---- What is new: what a saga has to know of the jobs, and the saga. ----

impl JobActivity for Reserve {
    const NAME: &'static str = "hotel.reserve_room";
    type Output = u32;
    type Undo = Release;
}

impl Undoes<Reserve> for Release {
    fn undoing(_: &Reserve, room: &u32) -> Self {
        Self { room: *room }
    }
}

impl JobActivity for Charge {
    const NAME: &'static str = "bank.charge_card";
    type Output = ();
    type Undo = NoUndo;
}

/// A room, and the money for it.
struct Visit;

impl Workflow for Visit {
    const NAME: &'static str = "visit";
    const VERSION: u32 = 1;
    type Input = u32;
    type Output = u32;

    async fn run(&self, saga: &Saga, room: u32) -> saga::Result<u32> {
        let room = saga.step("room", Job(Reserve { room })).await?;
        saga.step("money", Job(Charge { cents: 12_000 })).await?;
        Ok(room.take())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let hotel = Hotel::default();

    println!("as an apalis worker runs it:");
    let mut queue = MemoryStorage::new();
    queue.push(Reserve { room: 11 }).await?;
    WorkerBuilder::new("hotel")
        .backend(queue)
        .data(hotel.clone())
        .timeout(secs(20))
        .on_event(|worker, event| {
            if matches!(event, Event::Success(_) | Event::Error(_)) {
                // The queue is empty: there is nothing to stop that could be lost.
                worker.stop().unwrap_or_else(|error| eprintln!("{error}"));
            }
        })
        .build(reserve)
        .run()
        .await?;
    println!("  rooms taken: {:?}", hotel.taken());
    assert_eq!(hotel.taken(), [11]);

    println!("as a step of a saga, whose next step fails:");
    let room = Handler::with_undo(
        ServiceBuilder::new().timeout(secs(20)).layer(Data::new(hotel.clone())).service(task_fn(reserve)),
        ServiceBuilder::new().timeout(secs(20)).layer(Data::new(hotel.clone())).service(task_fn(release)),
    );
    let registry = Registry::default()
        .activity::<Job<Reserve>>(Arc::new(room))
        .activity::<Job<Charge>>(Arc::new(Handler::new(task_fn(charge))))
        .workflow(Visit);
    let env = Env::system();
    let (store, vault) = MemoryStore::new(&[], &env).await?;
    let engine = Engine::start(Arc::new(store), vault, registry, env, "example");

    let Started::New(saga) = engine.begin(engine.new_saga::<Visit>("visit-1", &12)?).await? else {
        return Err("there was a saga before the first".into());
    };
    let row = engine.wait(&saga, secs(60), |_| false).await?.ok_or("the saga is gone")?;

    println!("  the saga is {}: {}", row.state, row.error.as_deref().unwrap_or("without error"));
    println!("  rooms taken: {:?}", hotel.taken());
    assert_eq!(row.state.to_string(), "compensated");
    assert_eq!(hotel.taken(), [11], "room 12 was reserved, and given back");
    engine.stop().await;
    Ok(())
}

#[test]
fn what_it_shows_is_so() {
    main().unwrap();
}

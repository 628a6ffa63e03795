//! A saga that stays at the desk's hotel, and the engine that runs it.

use std::sync::Arc;
use std::time::Duration;

use amends_apalis::{Handler, Job};
use amends_engine::journal::event::Event;
use amends_engine::store::memory::MemoryStore;
use amends_engine::store::{SagaRow, Started};
use amends_engine::{Engine, Env, Made, Registry, Saga, SagaId, Workflow, saga, secs};

use super::{Book, Tell};

/// Waits are so much shorter: the settle time of `NEVER_BLINDLY` is 150 ms, the first wait for a retry 5 ms.
pub const PACE: u32 = 200;

/// How long anything is waited for that will happen.
pub const PATIENCE: Duration = secs(120);

/// Books rooms side by side, then sends word.
pub struct Stay;

impl Workflow for Stay {
    const NAME: &'static str = "stay";
    const VERSION: u32 = 1;
    type Input = Vec<String>;
    type Output = Vec<String>;

    async fn run(&self, saga: &Saga, rooms: Vec<String>) -> saga::Result<Vec<String>> {
        let rooms = rooms.into_iter().map(|room| (room.clone(), room));
        let booked = saga
            .each("rooms", rooms, async |saga: Saga, room: String| {
                saga.step("book", Job(Book { room })).await.map(Made::take)
            })
            .await?;
        saga.step("word", Job(Tell { text: "we come".into() })).await?;
        Ok(booked)
    }
}

/// An engine in memory, and its one saga.
pub struct Running {
    pub engine: Engine,
    pub saga: SagaId,
}

/// An engine in memory, and a saga that books these rooms and then sends word.
pub async fn stay(booking: Handler<Book>, telling: Handler<Tell>, rooms: &[&str]) -> Running {
    stay_within(secs(2), booking, telling, rooms).await
}

/// The same, where each job has so long until the engine cuts it short, and until a lost one is surely over.
pub async fn stay_within(
    limit: Duration,
    booking: Handler<Book>,
    telling: Handler<Tell>,
    rooms: &[&str],
) -> Running {
    begin(engine_within(limit, booking, telling).await, rooms).await
}

/// An engine in memory that has these jobs.
pub async fn engine(booking: Handler<Book>, telling: Handler<Tell>) -> Engine {
    engine_within(secs(2), booking, telling).await
}

async fn engine_within(limit: Duration, booking: Handler<Book>, telling: Handler<Tell>) -> Engine {
    let env = Env::seeded(7).with_pace(PACE).with_shortest_limit(limit);
    let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
    Engine::start(Arc::new(store), vault, registry(booking, telling), env, "test")
}

pub fn registry(booking: Handler<Book>, telling: Handler<Tell>) -> Registry {
    Registry::default()
        .activity::<Job<Book>>(Arc::new(booking))
        .activity::<Job<Tell>>(Arc::new(telling))
        .workflow(Stay)
}

/// Begins the saga, or goes on with it.
pub async fn begin(engine: Engine, rooms: &[&str]) -> Running {
    let rooms: Vec<String> = rooms.iter().map(|room| (*room).to_owned()).collect();
    match engine.begin(engine.new_saga::<Stay>("stay-1", &rooms).unwrap()).await.unwrap() {
        Started::New(saga) | Started::Before(saga) => Running { engine, saga },
        Started::KeyReused(saga) => panic!("{saga}"),
    }
}

impl Running {
    /// The saga's row once this holds, or it has ended.
    pub async fn until(&self, until: impl Fn(&SagaRow) -> bool) -> SagaRow {
        let is_there = |row: &SagaRow| row.state.is_ended() || until(row);
        let row = self.engine.wait(&self.saga, PATIENCE, &is_there).await.unwrap().unwrap();
        assert!(is_there(&row), "{row:#?}");
        row
    }

    pub async fn end(&self) -> SagaRow {
        self.until(|_| false).await
    }

    /// Waits until something of this kind is in the journal.
    pub async fn happens(&self, is_it: impl Fn(&Event) -> bool) {
        let happens = async {
            while !self.events().await.iter().any(&is_it) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let is_in_time = tokio::time::timeout(PATIENCE, happens).await.is_ok();
        assert!(is_in_time, "{:#?}", self.events().await);
    }

    pub async fn events(&self) -> Vec<Event> {
        let view = self.engine.view(&self.saga).await.unwrap().unwrap();
        view.entries.into_iter().map(|entry| entry.event).collect()
    }
}

//! Those who wait for sagas share what is read for them.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::sync::Arc;
use std::time::Duration;

use amends_engine::journal::state::SagaState;
use amends_engine::store::memory::MemoryStore;
use amends_engine::store::{Append, NewSaga, SagaRow, SecretFate, Store};
use amends_engine::testing::shaky::{Shakes, ShakyStore};
use amends_engine::{Engine, Env, Registry, Saga, SagaId, Workflow, saga, secs};

const WAITERS: usize = 1000;

fn ending(mut row: SagaRow, env: &Env) -> Append {
    row.state = SagaState::Completed;
    row.ended_at = Some(env.now());
    row.due_at = None;
    Append {
        row,
        output: None,
        entries: Vec::new(),
        resources: Vec::new(),
        sealed: Vec::new(),
        consumed: Vec::new(),
        passed_over: Vec::new(),
        closings: Vec::new(),
        waits: None,
        starts: Vec::new(),
        letters: Vec::new(),
        settled: Vec::new(),
        secrets: SecretFate::Stay,
        destroyed: Vec::new(),
    }
}

/// Sagas that another process holds, and an engine beside it that is asked for them.
async fn held_elsewhere(count: usize) -> (Engine, Arc<ShakyStore>, MemoryStore, Env, Vec<SagaId>) {
    let env = Env::simulated(5);
    let (here, vault) = MemoryStore::new(&[], &env).await.unwrap();
    let elsewhere = here.another(&env);
    elsewhere.renew().await.unwrap();
    let mut sagas = Vec::new();
    for _ in 0..count {
        let new = NewSaga::raw(&env, SagaId::from_uuid(env.uuid()), "far", 1, 1.into());
        sagas.push(elsewhere.start_held(new).await.unwrap().0.saga().clone());
    }
    let here = Arc::new(ShakyStore::new(Arc::new(here), env.clone(), Shakes::default()));
    let engine = Engine::start(here.clone(), vault, Registry::default(), env.clone(), "test");
    (engine, here, elsewhere, env, sagas)
}

#[tokio::test(start_paused = true)]
async fn a_thousand_who_wait_cost_one_read_a_look_and_see_what_another_process_wrote() {
    for different in [1, WAITERS] {
        let (engine, store, elsewhere, env, sagas) = held_elsewhere(different).await;
        let before = store.row_reads();
        let mut waiters = tokio::task::JoinSet::new();
        for number in 0..WAITERS {
            let (engine, saga) = (engine.clone(), sagas[number % different].clone());
            waiters.spawn(async move { engine.wait(&saga, secs(60), |_| false).await.unwrap().unwrap() });
        }
        env.sleep(secs(5)).await;
        let reads = store.row_reads() - before;
        eprintln!("{WAITERS} waiters for {different} sagas, 5 s: {reads} reads of rows");
        assert!(reads <= 60, "{reads} reads of rows in 5 s, for {WAITERS} who wait for {different} sagas");
        for saga in &sagas {
            let row = elsewhere.saga(saga).await.unwrap().unwrap();
            elsewhere.append(Arc::new(ending(row, &env))).await.unwrap();
        }
        let told = env.now();
        while let Some(row) = waiters.join_next().await {
            assert_eq!(row.unwrap().state, SagaState::Completed);
        }
        assert!(env.now().since(told) <= Duration::from_millis(500), "{:?}", env.now().since(told));
        engine.stop().await;
    }
}

/// Waits for half a minute.
struct Rest;

impl Workflow for Rest {
    const NAME: &'static str = "rest";
    const VERSION: u32 = 1;
    type Input = ();
    type Output = ();

    async fn run(&self, saga: &Saga, (): ()) -> saga::Result<()> {
        saga.sleep("rest", secs(30)).await
    }
}

#[tokio::test(start_paused = true)]
async fn for_a_saga_that_is_driven_here_the_store_is_hardly_read_however_many_wait() {
    let env = Env::simulated(6);
    let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
    let store = Arc::new(ShakyStore::new(Arc::new(store), env.clone(), Shakes::default()));
    let engine = Engine::start(store.clone(), vault, Registry::default().workflow(Rest), env.clone(), "test");
    let saga = engine.begin(engine.new_saga::<Rest>("k", &()).unwrap()).await.unwrap().saga().clone();
    let mut waiters = tokio::task::JoinSet::new();
    for _ in 0..WAITERS {
        let (engine, saga) = (engine.clone(), saga.clone());
        waiters.spawn(async move { engine.wait(&saga, secs(60), |_| false).await.unwrap().unwrap() });
    }
    env.sleep(secs(1)).await;
    let before = store.row_reads();
    env.sleep(secs(20)).await;
    // Each five seconds, in case it was taken over; what is driven elsewhere is looked for twenty times as often.
    let reads = store.row_reads() - before;
    assert!((3..=5).contains(&reads), "{reads} reads of rows in 20 s");
    while let Some(row) = waiters.join_next().await {
        assert_eq!(row.unwrap().state, SagaState::Completed);
    }
    engine.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_whose_time_is_up_at_once_are_answered_by_a_few_reads() {
    let (engine, store, _elsewhere, env, sagas) = held_elsewhere(1).await;
    let mut waiters = tokio::task::JoinSet::new();
    for _ in 0..WAITERS {
        let (engine, saga) = (engine.clone(), sagas[0].clone());
        waiters.spawn(async move { engine.wait(&saga, secs(3), |_| false).await.unwrap().unwrap() });
    }
    env.sleep(secs(1)).await;
    let before = store.row_reads();
    while let Some(row) = waiters.join_next().await {
        assert_eq!(row.unwrap().state, SagaState::Queued);
    }
    let reads = store.row_reads() - before;
    assert!(reads <= 30, "{reads}");
    let nobody = engine.wait(&SagaId::from_uuid(env.uuid()), secs(3), |_| false).await.unwrap();
    assert_eq!(nobody, None, "who waits for nothing is told so at once");
    engine.stop().await;
    assert!(engine.wait(&sagas[0], secs(3), |_| false).await.is_ok(), "the store is still there to be asked");
}

/// What was driven here is looked for too: another process may have taken it over unawares.
#[tokio::test(start_paused = true)]
async fn who_waits_for_a_saga_that_was_taken_over_is_told_when_it_ends() {
    let env = Env::simulated(8);
    let (here, vault) = MemoryStore::new(&[], &env).await.unwrap();
    let elsewhere = Arc::new(here.another(&env));
    let store = Arc::new(ShakyStore::new(Arc::new(here), env.clone(), Shakes::default()));
    let registry = || Registry::default().workflow(Rest);
    let engine = Engine::start(store.clone(), vault.clone(), registry(), env.clone(), "test");
    let saga = engine.begin(engine.new_saga::<Rest>("k", &()).unwrap()).await.unwrap().saga().clone();
    let waiter = {
        let (engine, saga) = (engine.clone(), saga.clone());
        tokio::spawn(async move { engine.wait(&saga, secs(3600), |_| false).await.unwrap().unwrap() })
    };
    env.sleep(secs(1)).await;
    // It stands still, until another process has its sagas.
    store.freeze(true);
    let other = Engine::start(elsewhere, vault, registry(), env.clone(), "test");
    let row = other.wait(&saga, secs(600), |_| false).await.unwrap().unwrap();
    assert_eq!(row.state, SagaState::Completed);
    store.freeze(false);
    let told = env.now();
    assert_eq!(waiter.await.unwrap().state, SagaState::Completed);
    assert!(env.now().since(told) <= secs(10), "{:?}", env.now().since(told));
    engine.stop().await;
    other.stop().await;
}

//! Sagas through a transaction pooler, while the server's connections behind it are ended: nothing is lost, nothing is
//! doubled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amends_engine::ids::{OperationId, SagaId};
use amends_engine::journal::act::Act;
use amends_engine::journal::state::{Attention, SagaState};
use amends_engine::journal::{Event, State};
use amends_engine::store::{
    Error, Letter, Message, NewSaga, ResourceFilter, ResourceState, SagaFilter, Store,
};
use amends_engine::{Engine, Env};
use amends_tests::postgres::{Base, Server};
use amends_tests::yard::{self, Yard};

/// How many of each workflow there are.
const EACH: usize = 4;
/// How many of the server's connections are ended at a time, and how often.
const ENDED: (usize, usize) = (3, 12);

/// Asks until the database answers, as somebody does who wants it done.
async fn until_answered<T, F: Future<Output = Result<T, Error>>>(ask: impl Fn() -> F) -> T {
    let began = Instant::now();
    loop {
        match ask().await {
            Ok(done) => return done,
            Err(Error::Unavailable(detail)) => {
                assert!(began.elapsed() < Duration::from_secs(60), "{detail}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// A store that reads past the pooler, by connections that nobody ends.
async fn watch(server: &Server, base: &Base, env: &Env) -> Arc<dyn Store> {
    server.psql("postgres", "create role watcher superuser login");
    let url = base.url.replace("postgres@", "watcher@");
    Arc::new(base.try_open(&url, yard::NOTES, env).await.unwrap().0)
}

/// Waits until a saga has done something and waits for a word.
async fn until_waiting(watch: &dyn Store, saga: &SagaId) {
    let began = Instant::now();
    loop {
        let step = watch.saga(saga).await.unwrap().and_then(|row| row.step);
        if step.is_some_and(|step| ["word waits", "never waits"].contains(&&*step)) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{saga} does not come to wait");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sagas_go_to_their_end_through_a_pooler_whose_servers_are_ended_under_it() {
    let server = Server::shared();
    let base = server.database();
    let pooler = server.pgbouncer();
    let env = Env::seeded(95).with_pace(100);
    let watch = watch(&server, &base, &env).await;
    let yard = Arc::new(Yard::default());
    yard.watch(watch.clone());
    let mut engines = Vec::new();
    for _ in 0..2 {
        let (store, vault) = base.try_open(&pooler.url(&base), yard::NOTES, &env).await.unwrap();
        engines.push(Engine::start(Arc::new(store), vault, yard::registry(&yard), env.clone(), "test"));
    }

    // Behind every few starts some connections are ended, in the midst of what they do.
    let mut ended = 0;
    let end_some = || server.terminate_some(&base.name, "postgres", ENDED.0);
    // Among them they use steps, scopes that are undone, sleeps, children, signals and a pivot.
    let workflows = ["straight", "parallel", "choice", "racing", "family", "waiting", "waiting"];
    let mut started: Vec<(SagaId, &str, bool)> = Vec::new();
    for number in 0..EACH {
        for (place, workflow) in workflows.iter().enumerate() {
            let id = SagaId::from_uuid(env.uuid());
            let input = format!("y{number}{place}");
            let new = NewSaga::raw(&env, id.clone(), workflow, 1, input.into());
            let engine = &engines[place % 2];
            until_answered(|| engine.begin(new.clone())).await;
            // The second of those that wait is taken back while it waits.
            started.push((id, *workflow, place + 1 == workflows.len()));
            if place % 3 == 1 {
                ended += end_some();
            }
        }
    }
    let waiting = started.iter().filter(|(_, workflow, _)| *workflow == "waiting");
    let words = waiting.zip(1..).map(|((saga, _, is_cancelled), number)| {
        let (watch, env, store) = (&watch, &env, engines[number % 2].store());
        async move {
            let message = if *is_cancelled {
                until_waiting(&**watch, saga).await;
                let operation = OperationId::from_uuid(env.uuid());
                let (actor, reason) = ("ann".to_owned(), "no more".to_owned());
                Message::Act { operation, act: Act::Cancel, actor, reason }
            } else {
                Message::Signal { name: "word".into(), value: "go".into() }
            };
            // Under one id: asking again is the same word.
            let letter = Letter { id: format!("word-{number}"), saga: saga.clone(), message, at: env.now() };
            until_answered(|| store.post(letter.clone())).await;
        }
    });
    futures::future::join_all(words).await;
    for _ in 0..ENDED.1 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        ended += end_some();
    }
    assert!(ended > ENDED.1, "only {ended} connections were there to be ended");

    // Then it is left alone, and everything ends as it was to.
    let began = Instant::now();
    let mut all;
    loop {
        all = watch.sagas(SagaFilter { limit: 1000, ..SagaFilter::default() }).await.unwrap();
        let open: Vec<_> = all.iter().filter(|row| !row.state.is_ended()).collect();
        if open.is_empty() {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(120), "{} have not ended: {:#?}", open.len(), open[0]);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(all.len(), started.len() + 2 * EACH, "with the family's children");
    let rows: BTreeMap<_, _> = all.iter().map(|row| (&row.id, row)).collect();
    let mut undone = 0;
    for (saga, workflow, is_cancelled) in &started {
        let wanted = if *is_cancelled { SagaState::Compensated } else { SagaState::Completed };
        assert_eq!(rows[saga].state, wanted, "{workflow} {saga}: {:?}", rows[saga]);
    }
    for row in &all {
        assert_eq!(row.attention, [] as [Attention; 0], "{row:?}");
        let entries = watch.journal(&row.id).await.unwrap();
        assert!(entries.iter().zip(1..).all(|(entry, seq)| entry.seq == seq), "{}", row.id);
        let state = State::fold(row.id.clone(), &entries).unwrap();
        assert_eq!(state.state(), row.state, "{} {}", row.workflow, row.id);
        let is_word = |event: &Event| matches!(event, Event::SignalReceived { .. });
        let words = entries.iter().filter(|entry| is_word(&entry.event)).count();
        assert!(words <= 1, "{} heard its word {words} times", row.id);
        undone += entries.iter().filter(|entry| matches!(entry.event, Event::StepCompensated { .. })).count();
    }
    assert!(undone > EACH, "only {undone} steps were taken back");
    let filter =
        ResourceFilter { states: vec![ResourceState::Live], limit: 1000, ..ResourceFilter::default() };
    let mut live: Vec<String> =
        watch.resources(filter).await.unwrap().into_iter().filter_map(|row| row.external_id).collect();
    let mut there: Vec<String> = yard.things().into_iter().map(|thing| thing.id).collect();
    live.sort();
    there.sort();
    assert_eq!(live, there, "what is there is on the ledger, and the other way round");
    let open = [ResourceState::Intended, ResourceState::InDoubt, ResourceState::Removing];
    let filter = ResourceFilter { states: open.to_vec(), limit: 1000, ..ResourceFilter::default() };
    assert_eq!(watch.resources(filter).await.unwrap(), []);
    assert_eq!(yard.doubled(), [] as [&str; 0]);
    assert_eq!(*yard.violations.lock().unwrap(), [] as [&str; 0]);
    assert_eq!(server.psql(&base.name, "select count(*) from note"), (2 * EACH).to_string());
    assert_eq!(server.psql(&base.name, "select count(*) from saga_lease where holder is not null"), "0");
    eprintln!(
        "{} sagas through a pooler, {ended} of its servers ended, {undone} steps taken back",
        all.len()
    );
    for engine in engines {
        engine.stop().await;
    }
    yard.forget();
    watch.close().await;
}

//! What the Postgres store promises beyond what every store does: two sessions, many processes, servers that go away.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    clippy::disallowed_methods,
    clippy::cloned_ref_to_slice_refs,
    reason = "tests fail by panicking"
)]

mod pooler;
mod retries;

use std::sync::Arc;
use std::time::{Duration, Instant};

use amends_engine::ids::SagaId;
use amends_engine::journal::state::SagaState;
use amends_engine::journal::{Event, State};
use amends_engine::store::open::{Migrations, OpenError};
use amends_engine::store::postgres::PostgresStore;
use amends_engine::store::{
    Error, Job, Letter, Message, NewSaga, ResourceFilter, ResourceState, SagaFilter, Started, Store,
};
use amends_engine::testing::conformance::{NOTES, Subject};
use amends_engine::{Engine, Env, params, secs};
use amends_tests::postgres::{Base, Server};
use amends_tests::yard::{self, Yard};
use futures::FutureExt;

/// Everything that two sessions do here is what two processes would do; the server is real.
#[tokio::test]
async fn an_old_holder_with_an_open_transaction_is_waited_for_and_then_writes_nothing_more() {
    let server = Server::shared();
    let base = server.database();
    let env = Env::seeded(9);
    let (old, vault) = base.open(NOTES, &env).await;
    let (new, _) = base.open(NOTES, &env).await;
    let (old, new): (Arc<dyn Store>, Arc<dyn Store>) = (Arc::new(old), Arc::new(new));
    let subject = Subject { name: "two sessions", store: old.clone(), vault, env, another: None };
    let saga = subject.started("k").await;
    assert_eq!(old.claim(subject.env.now(), 1).await.unwrap(), [saga.clone()]);
    let turn = subject.next(&saga).await;

    // The old holder's transaction is open: its turn is written, and its user SQL does not end.
    let (entered, is_open) = tokio::sync::oneshot::channel();
    let (go, may_go) = tokio::sync::oneshot::channel::<()>();
    let (entered, may_go) = (std::sync::Mutex::new(Some(entered)), tokio::sync::Mutex::new(Some(may_go)));
    let shared = Arc::new((entered, may_go));
    let mut behind = turn.clone();
    behind.row.seq += 1;
    behind.entries.iter_mut().for_each(|entry| entry.seq += 1);
    let job: Job = Arc::new(move |statements| {
        let (shared, behind) = (shared.clone(), behind.clone());
        Box::pin(async move {
            statements.execute("insert into note (text) values ($1)".into(), params!["old"]).await?;
            shared.0.lock().unwrap().take().unwrap().send(()).unwrap();
            let may_go = shared.1.lock().await.take().unwrap();
            may_go.await.unwrap();
            Ok(behind)
        })
    });
    let writing = tokio::spawn({
        let (old, turn) = (old.clone(), turn.clone());
        async move { old.transact(turn.into(), job).await }
    });
    is_open.await.unwrap();

    // Its lease runs out, and another wants the saga: it does not get it while the transaction is open.
    server.psql(&base.name, "update worker set until = 0");
    new.renew().await.unwrap();
    assert!(new.claim(subject.env.now(), 1).await.unwrap().is_empty(), "its row is locked");
    go.send(()).unwrap();
    writing.await.unwrap().unwrap();
    assert_eq!(new.claim(subject.env.now(), 1).await.unwrap(), [saga.clone()]);
    let loaded = new.load(&saga).await.unwrap();
    assert_eq!((loaded.epoch, loaded.entries.len()), (turn.row.epoch + 1, 3), "what was committed is read");

    // Whatever the old holder still believes, its writes match nothing.
    let mut late = subject.next(&saga).await;
    late.row.epoch -= 1;
    assert_eq!(old.append(late.clone().into()).await, Err(Error::Fenced(saga.clone())));
    let job: Job = Arc::new(|statements| {
        Box::pin(async move {
            statements.execute("insert into note (text) values ($1)".into(), params!["late"]).await?;
            Err(amends_engine::Failure::refused("unreached", "the fence comes first"))
        })
    });
    assert_eq!(old.transact(late.into(), job).await.unwrap_err(), Error::Fenced(saga.clone()));
    assert_eq!(old.load(&saga).await.unwrap_err(), Error::Fenced(saga.clone()));
    new.append(subject.next(&saga).await.into()).await.unwrap();
    assert_eq!(new.journal(&saga).await.unwrap().len(), 4);
    assert_eq!(server.psql(&base.name, "select string_agg(text, ',') from note"), "old");
    old.close().await;
    new.close().await;
}

#[tokio::test]
async fn a_held_row_does_not_hold_up_the_turns_of_others() {
    let server = Server::shared();
    let base = server.database();
    let env = Env::seeded(10);
    let (store, vault) = base.open(NOTES, &env).await;
    let store: Arc<dyn Store> = Arc::new(store);
    let subject = Subject { name: "a held row", store: store.clone(), vault, env, another: None };
    let (held, free) = (subject.started("held").await, subject.started("free").await);
    let pool = sqlx::PgPool::connect(&base.url).await.unwrap();
    let mut other = pool.begin().await.unwrap();
    sqlx::query("select * from saga_lease where saga = $1 for update")
        .bind(held.as_str())
        .execute(&mut *other)
        .await
        .unwrap();
    let (waits, goes) = (subject.next(&held).await, subject.next(&free).await);
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.append(waits.into()).await }
    });
    store.append(goes.into()).await.unwrap();
    assert!(!waiting.is_finished());
    other.rollback().await.unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(store.journal(&held).await.unwrap().len(), 2);
    pool.close().await;
    store.close().await;
}

#[tokio::test]
async fn a_postgres_database_is_made_once_by_many_and_refused_when_it_does_not_fit() {
    let server = Server::shared();
    let base = server.database();
    let pooler = server.pgbouncer();
    // Four at once, two of them through a pooler, each as a process of its own would.
    let urls = [base.url.clone(), pooler.url(&base), base.url.clone(), pooler.url(&base)];
    let opened = futures::future::join_all(urls.iter().enumerate().map(|(number, url)| {
        let env = Env::seeded(20 + u64::try_from(number).unwrap());
        let base = &base;
        async move { base.try_open(url, NOTES, &env).await }
    }))
    .await;
    let mut installations = std::collections::BTreeSet::new();
    for opened in opened {
        let (store, _) = opened.unwrap();
        installations.insert(store.installation().to_string());
        store.close().await;
    }
    assert_eq!(installations.len(), 1);

    let env = Env::seeded(30);
    let open = async |own: &[Migrations]| base.try_open(&base.url, own, &env).await.map(drop);
    let older = &[Migrations { table: "note_migration", sqlite: &[], postgres: &[] }];
    assert!(matches!(open(older).await, Err(OpenError::Newer { version: 2, known: 0, .. })));
    let elsewhere = PostgresStore::open(&base.url, &base.key, "production", NOTES, &env).await;
    assert!(matches!(elsewhere.map(drop), Err(OpenError::OtherEnvironment { .. })));
    let text = std::fs::read_to_string(&base.key).unwrap();
    std::fs::remove_file(&base.key).unwrap();
    assert!(matches!(open(NOTES).await, Err(OpenError::Key(_))), "a new key would orphan its secrets");
    assert!(!base.key.exists());
    std::fs::write(&base.key, text.replace(|digit: char| digit.is_ascii_hexdigit(), "0")).unwrap();
    assert!(matches!(open(NOTES).await, Err(OpenError::Key(_))));
    std::fs::write(&base.key, text).unwrap();
    for lax in ["off", "local"] {
        server.psql("postgres", &format!("alter database {} set synchronous_commit = {lax}", base.name));
        let refused = open(NOTES).await;
        assert!(
            matches!(&refused, Err(OpenError::Unfit { reason, .. }) if reason.contains("synchronous_commit")),
            "{refused:?}"
        );
    }
    server.psql("postgres", &format!("alter database {} reset synchronous_commit", base.name));
    open(NOTES).await.unwrap();
}

#[tokio::test]
async fn a_standby_is_refused_until_it_is_promoted_and_then_has_everything() {
    let mut server = Server::start_new();
    let base = server.database();
    let env = Env::seeded(40);
    let standby = server.standby();
    let (store, vault) = base.open(NOTES, &env).await;
    let store: Arc<dyn Store> = Arc::new(store);
    let subject = Subject { name: "primary", store: store.clone(), vault, env: env.clone(), another: None };
    let saga = subject.started("k").await;
    let url = format!("postgres://postgres@127.0.0.1:{}/{}", standby.port(), base.name);
    let refused = base.try_open(&url, NOTES, &env).await.map(drop);
    assert!(
        matches!(&refused, Err(OpenError::Unfit { reason, .. }) if reason.contains("standby")),
        "{refused:?}"
    );
    server.stop_immediately();
    standby.promote();
    let (after, _) = base.try_open(&url, NOTES, &env).await.unwrap();
    assert_eq!(after.saga(&saga).await.unwrap().unwrap().id, saga);
    after.close().await;
    store.close().await;
}

#[tokio::test]
async fn backends_that_are_ended_and_a_server_that_comes_back_cost_a_retry_and_nothing_else() {
    let mut server = Server::start_new();
    let base = server.database();
    let env = Env::seeded(50);
    let (store, vault) = base.open(NOTES, &env).await;
    let store: Arc<dyn Store> = Arc::new(store);
    let subject = Subject { name: "restarts", store: store.clone(), vault, env, another: None };
    let saga = subject.started("k").await;
    let append: Arc<_> = subject.next(&saga).await.into();
    server.terminate_backends(&base.name);
    let mut answers = Vec::new();
    for _ in 0..20 {
        let answer = store.append(append.clone()).await;
        let is_done = !matches!(answer, Err(Error::Unavailable(_)));
        answers.push(answer);
        if is_done {
            break;
        }
    }
    // It may have been written although the answer was lost: then it is fenced, by itself.
    assert!(matches!(answers.last(), Some(Ok(()) | Err(Error::Fenced(_)))), "{answers:?}");
    server.stop_immediately();
    let down = store.append(append.clone()).await;
    assert!(matches!(down, Err(Error::Unavailable(_))), "{down:?}");
    server.start();
    assert_eq!(store.append(append).await, Err(Error::Fenced(saga.clone())), "it was written before");
    assert_eq!(store.journal(&saga).await.unwrap().len(), 2);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_engines_on_one_database_end_every_saga_between_them() {
    const EACH: usize = 4;
    let server = Server::shared();
    let base = server.database();
    let env = Env::seeded(60).with_pace(100);
    let yard = Arc::new(Yard::default());
    let mut engines = Vec::new();
    for _ in 0..2 {
        let (store, vault) = base.open(yard::NOTES, &env).await;
        engines.push(Engine::start(Arc::new(store), vault, yard::registry(&yard), env.clone(), "test"));
    }
    let mut started = Vec::new();
    for number in 0..EACH {
        let input = format!("y{number}");
        for (place, workflow) in
            ["straight", "parallel", "choice", "racing", "family", "waiting"].iter().enumerate()
        {
            let id = SagaId::from_uuid(env.uuid());
            let name = format!("{input}{place}");
            let new = NewSaga::raw(&env, id.clone(), workflow, 1, name.into());
            engines[number % 2].begin(new).await.unwrap();
            started.push((id, *workflow));
        }
    }
    for (number, (saga, _)) in started.iter().filter(|(_, workflow)| *workflow == "waiting").enumerate() {
        let engine = &engines[(number + 1) % 2];
        engine.signal(saga, &format!("word-{number}"), "word", "go".into()).await.unwrap();
    }
    for (saga, workflow) in &started {
        let row = engines[0].wait(saga, secs(120), |_| false).await.unwrap().unwrap();
        assert_eq!(row.state, SagaState::Completed, "{workflow} {saga}: {row:?}");
    }
    let store = engines[0].store().clone();
    let all = store.sagas(SagaFilter { limit: 1000, ..SagaFilter::default() }).await.unwrap();
    assert_eq!(all.len(), started.len() + 2 * EACH, "with the family's children");
    for row in &all {
        engines[1].wait(&row.id, secs(120), |_| false).await.unwrap();
        let entries = store.journal(&row.id).await.unwrap();
        assert!(entries.iter().zip(1..).all(|(entry, seq)| entry.seq == seq), "{}", row.id);
        let state = State::fold(row.id.clone(), &entries).unwrap();
        assert!(state.state().is_ended(), "{} {}", row.workflow, row.id);
    }
    let filter =
        ResourceFilter { states: vec![ResourceState::Live], limit: 1000, ..ResourceFilter::default() };
    let mut live: Vec<String> =
        store.resources(filter).await.unwrap().into_iter().filter_map(|row| row.external_id).collect();
    let mut there: Vec<String> = yard.things().into_iter().map(|thing| thing.id).collect();
    live.sort();
    there.sort();
    assert_eq!(live, there, "what is there is on the ledger, and the other way round");
    assert_eq!(server.psql(&base.name, "select count(*) from note"), (2 * EACH).to_string());
    assert_eq!(server.psql(&base.name, "select count(*) from saga_lease where holder is not null"), "0");
    for engine in engines {
        engine.stop().await;
    }
}

/// How long a word from another process takes to be in a saga's journal, in order.
async fn latencies(base: &Base, url: &str, pace: u32, words: u64) -> Vec<Duration> {
    let env = Env::seeded(70 + u64::from(pace)).with_pace(pace);
    let yard = Arc::new(Yard::default());
    let (store, vault) = base.try_open(url, yard::NOTES, &env).await.unwrap();
    let (elsewhere, _) = base.try_open(url, yard::NOTES, &env).await.unwrap();
    let engine = Engine::start(Arc::new(store), vault, yard::registry(&yard), env.clone(), "test");
    let mut took = Vec::new();
    for number in 0..words {
        let id = SagaId::from_uuid(env.uuid());
        let new = NewSaga::raw(&env, id.clone(), "waiting", 1, format!("p{pace}-{number}").into());
        elsewhere.start(new).await.unwrap();
        let waits = |row: &amends_engine::store::SagaRow| row.state == SagaState::Waiting;
        let row = engine.wait(&id, secs(120), waits).await.unwrap().unwrap();
        assert!(waits(&row), "{row:?}");
        // So that the words come at any moment between two looks.
        env.sleep(Duration::from_millis(env.below(600))).await;
        let message = Message::Signal { name: "word".into(), value: "go".into() };
        let letter = Letter { id: format!("w-{id}"), saga: id.clone(), message, at: env.now() };
        let began = Instant::now();
        elsewhere.post(letter).await.unwrap();
        let heard = |event: &Event| matches!(event, Event::SignalReceived { .. });
        while !elsewhere.journal(&id).await.unwrap().iter().any(|entry| heard(&entry.event)) {
            assert!(began.elapsed() < secs(120), "{id} does not hear it");
            env.sleep(Duration::from_millis(3)).await;
        }
        took.push(began.elapsed());
    }
    engine.stop().await;
    elsewhere.close().await;
    took.sort();
    took
}

/// Sends words to sagas that rest on disk and to such as are held; how long they took with notifications, and by
/// looking alone.
async fn words_are_heard(words: u64) -> [(Vec<Duration>, Vec<Duration>); 2] {
    let server = Server::shared();
    let pooler = server.pgbouncer();
    let mut all = Vec::new();
    // At pace 1 the saga rests on disk while it waits, at pace 10 it is held.
    for (pace, how) in [(1, "resting"), (10, "held")] {
        let base = server.database();
        let told = latencies(&base, &base.url, pace, words).await;
        let base = server.database();
        let looked = latencies(&base, &pooler.url(&base), pace, words).await;
        let figures = |took: &[Duration]| {
            let of = |part: usize| took[(took.len() * part / 100).min(took.len() - 1)];
            format!("p50 {:?} p99 {:?} max {:?}", of(50), of(99), of(100))
        };
        eprintln!("{how}, {words} words: with NOTIFY {}; by looking {}", figures(&told), figures(&looked));
        all.push((told, looked));
    }
    all.try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_from_another_process_is_heard_with_notifications_and_without() {
    words_are_heard(5).await;
}

/// `AMENDS_TEST_WORDS` says how many words of each kind (30 if not said).
///
/// `cargo test -p amends-tests --test store_postgres -- --ignored --nocapture a_word_from_another_process`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn a_word_from_another_process_is_heard_soon_with_notifications_and_within_a_second_without() {
    let words = std::env::var("AMENDS_TEST_WORDS").map_or(30, |words| words.parse().unwrap());
    for (told, looked) in words_are_heard(words).await {
        // Twice what is promised, as the machine may be busy with other things.
        assert!(told.iter().all(|took| *took < Duration::from_millis(500)), "{told:?}");
        assert!(looked.iter().all(|took| *took < secs(2)), "{looked:?}");
    }
}

/// How long it takes until somebody who waits at this address is woken by each of so many words from another process.
async fn woken_by(base: &Base, url: &str, words: u32) -> Duration {
    let env = Env::seeded(72);
    let (listening, _) = base.try_open(url, NOTES, &env).await.unwrap();
    let (elsewhere, _) = base.try_open(url, NOTES, &env).await.unwrap();
    // Held by the one that speaks, so that nothing is due for the one that listens.
    elsewhere.renew().await.unwrap();
    let new = NewSaga::raw(&env, SagaId::from_uuid(env.uuid()), "w", 1, 1.into());
    let (Started::New(saga), true) = elsewhere.start_held(new).await.unwrap() else { panic!("it is held") };
    let mut took = Duration::ZERO;
    for word in 0..words {
        // Whatever else there was to hear, before this word.
        while listening.changed().now_or_never().is_some() {}
        let began = Instant::now();
        let message = Message::Signal { name: "word".into(), value: "go".into() };
        let letter = Letter { id: format!("w-{word}"), saga: saga.clone(), message, at: env.now() };
        let ((), posted) = tokio::join!(listening.changed(), elsewhere.post(letter));
        took += began.elapsed();
        posted.unwrap();
    }
    listening.close().await;
    elsewhere.close().await;
    took
}

/// Whoever waits looks by itself half a second later, and no machine makes that shorter: so many words in less than as
/// many half seconds were not all found by looking.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notification_wakes_whoever_waits_before_it_looks_by_itself() {
    const WORDS: u32 = 6;
    let by_looking = Duration::from_millis(490) * WORDS;
    let server = Server::shared();
    let pooler = server.pgbouncer();
    let base = server.database();
    let looked = woken_by(&base, &pooler.url(&base), WORDS).await;
    assert!(looked >= by_looking, "without notifications it was woken early: {looked:?}");
    // A machine that is busy for a moment may be so for one try, or for two.
    let mut told = Vec::new();
    while told.len() < 5 && told.iter().all(|took| *took >= by_looking) {
        let base = server.database();
        told.push(woken_by(&base, &base.url, WORDS).await);
    }
    eprintln!("{WORDS} words: with NOTIFY {told:?}; by looking {looked:?}");
    assert!(told.iter().any(|took| *took < by_looking), "{told:?}");
}

/// Turns through the store beside a bare loop that writes the same rows in groups of the same size, interleaved.
///
/// `cargo test --release -p amends-tests --test store_postgres -- --ignored --nocapture as_fast`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn turns_are_written_at_least_half_as_fast_as_by_a_bare_loop() {
    const TURNS: usize = 60;
    let server = Server::shared();
    let base = server.database();
    let env = Env::seeded(80);
    let (store, vault) = base.open(NOTES, &env).await;
    let store: Arc<dyn Store> = Arc::new(store);
    let subject = Subject { name: "speed", store: store.clone(), vault, env, another: None };
    let pool = sqlx::PgPool::connect(&base.url).await.unwrap();
    let mut number = 0;
    let mut slow = false;
    for width in [1, 16, 64] {
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..3 {
            let mut appends = Vec::new();
            let mut bare = Vec::new();
            for _ in 0..width {
                number += 2;
                let saga = subject.started(&format!("k{number}")).await;
                appends.push(subject.next(&saga).await);
                bare.push(subject.started(&format!("k{}", number + 1)).await.to_string());
            }
            let began = Instant::now();
            let writes = appends.into_iter().map(|mut append| {
                let store = store.clone();
                async move {
                    for _ in 0..TURNS {
                        store.append(append.clone().into()).await.unwrap();
                        append.row.seq += 1;
                        append.entries[0].seq += 1;
                    }
                }
            });
            futures::future::join_all(writes).await;
            let count = f64::from(u32::try_from(width * TURNS).unwrap());
            rates[0].push(count / began.elapsed().as_secs_f64());
            let began = Instant::now();
            let event = r#"{"LabelSet":{"step":null,"name":"colour","value":"blue"}}"#;
            for turn in 0..i64::try_from(TURNS).unwrap() {
                let mut group = pool.begin().await.unwrap();
                for sql in [
                    "update saga_lease set seq = $2 + 2 where saga = any ($1) and epoch = 1 and seq = $2 + 1",
                    "update saga set state = 'running', attention = '[]', labels = '{}', updated_at = $2 where id = any ($1)",
                    "insert into outbox (saga, first_seq, last_seq) select unnest($1), $2 + 2, $2 + 2",
                ] {
                    sqlx::query(sql).bind(&bare).bind(turn).execute(&mut *group).await.unwrap();
                }
                sqlx::query(
                    "insert into journal (saga, seq, at, epoch, version, kind, event)
                     select unnest($1), $2 + 2, 0, 1, 1, 'LabelSet', $3",
                )
                .bind(&bare)
                .bind(turn)
                .bind(event)
                .execute(&mut *group)
                .await
                .unwrap();
                group.commit().await.unwrap();
            }
            rates[1].push(count / began.elapsed().as_secs_f64());
        }
        rates.iter_mut().for_each(|rates| rates.sort_by(f64::total_cmp));
        let (ours, bare) = (rates[0][1], rates[1][1]);
        eprintln!("{width} at a time: {ours:.0} turns/s, bare {bare:.0}, ratio {:.2}", ours / bare);
        slow |= ours < bare / 2.0;
    }
    pool.close().await;
    store.close().await;
    assert!(!slow, "less than half of a bare loop");
}

/// Waits until the server has ended every connection whose last statement was one of these.
async fn idle_ones_are_ended(server: &Server, base: &Base, statements: &[&str]) {
    let likes: Vec<String> = statements.iter().map(|text| format!("query like '%{text}%'")).collect();
    let sql = format!(
        "select count(*) from pg_stat_activity where datname = '{}' and pid <> pg_backend_pid() and ({})",
        base.name,
        likes.join(" or ")
    );
    let deadline = tokio::time::Instant::now() + secs(120);
    while server.psql("postgres", &sql) != "0" {
        assert!(tokio::time::Instant::now() < deadline, "the server keeps {statements:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_idle_connections_costs_no_write_an_error() {
    let server = Server::with_settings(&[
        "idle_session_timeout = 1s",
        "idle_in_transaction_session_timeout = 1s",
        "statement_timeout = 60s",
    ]);
    let base = server.database();
    let env = Env::seeded(51);
    let (store, vault) = base.open(NOTES, &env).await;
    let store: Arc<dyn Store> = Arc::new(store);
    let subject = Subject { name: "idle", store: store.clone(), vault, env, another: None };
    let writers = ["with turn as", "insert into saga (", "insert into worker"];
    for round in 0..3 {
        store.renew().await.unwrap();
        let saga = subject.started(&format!("k-{round}")).await;
        let append: Arc<_> = subject.next(&saga).await.into();
        idle_ones_are_ended(&server, &base, &writers).await;
        // Each of them is the first on its connection since.
        assert_eq!(store.append(append).await, Ok(()), "round {round}");
        subject.started(&format!("again-{round}")).await;
        store.renew().await.unwrap();
        store.claim(subject.env.now(), 10).await.unwrap();
        assert_eq!(store.gates(subject.env.now()).await.map(|rows| rows.len()), Ok(0));
        assert_eq!(store.journal(&saga).await.unwrap().len(), 2);
    }
    // A connection that ends between two statements of one transaction is noticed, and the next one is whole.
    let ended = server.errors(&base.name, "57P05") + server.fatals(&base.name, "57P05");
    assert!(ended >= 9, "{ended}");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_listens_hears_on_where_the_server_ends_idle_connections() {
    let server = Server::with_settings(&["idle_session_timeout = 1s"]);
    let base = server.database();
    let env = Env::seeded(52);
    let (store, _) = base.open(NOTES, &env).await;
    let listening = format!(
        "select count(*) from pg_stat_activity where datname = '{}' and query ilike 'listen%'
           and state_change < now() - interval '3 seconds'",
        base.name
    );
    // One and the same connection has listened for three times as long as an idle one may.
    let deadline = tokio::time::Instant::now() + secs(120);
    while server.psql("postgres", &listening) == "0" {
        assert!(tokio::time::Instant::now() < deadline, "nobody listens for long");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    store.close().await;
}

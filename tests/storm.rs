//! Several processes on one Postgres while they are killed, cut off, stopped and promoted: nothing acknowledged is
//! lost, nothing is done twice, nothing is written by who has lost the right to.
//!
//! `AMENDS_TEST_KILLS` says how many processes are killed, one a second (10 if not said; 60 for the figure in the
//! docs), `AMENDS_TEST_STORM_SAGAS` how many sagas there are.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use amends_engine::journal::State;
use amends_engine::journal::state::SagaState;
use amends_engine::store::{
    NewSaga, ResourceFilter, ResourceRow, ResourceState, SagaFilter, SagaRow, Started, Store,
};
use amends_engine::{Engine, Env, SagaId};
use amends_tests::door::Door;
use amends_tests::market::{Basket, List, Market, notes, registry};
use amends_tests::postgres::{Base, Server};
use amends_tests::yard::NOTES;
use tokio::time::Instant;

fn wanted(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|number| number.parse().ok()).unwrap_or(otherwise)
}

/// A process that drives sagas.
struct Worker(Child);

impl Worker {
    fn start(database: &str, key: &Path, market: SocketAddr) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_amends-market-worker"))
            .env("DATABASE", database)
            .env("KEY", key)
            .env("MARKET", market.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("ready"), "it did not start: {line}");
        Self(child)
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts baskets at an even pace, each until it is told that it is started; what it was told.
async fn start_all(
    store: &dyn Store,
    env: &Env,
    first: u64,
    sagas: u64,
    over: Duration,
) -> BTreeMap<String, SagaId> {
    let began = Instant::now();
    let pace = over / u32::try_from(sagas).unwrap();
    let mut acknowledged = BTreeMap::new();
    for number in 0..sagas {
        tokio::time::sleep_until(began + pace * u32::try_from(number).unwrap()).await;
        let number = first + number;
        let list = List { name: format!("n{number}"), enough: !number.is_multiple_of(5) };
        loop {
            let new = NewSaga::of::<Basket>(env, list.name.clone(), &list).unwrap();
            match store.start(new).await {
                Ok(Started::New(saga) | Started::Before(saga)) => {
                    acknowledged.insert(list.name, saga);
                    break;
                }
                Ok(Started::KeyReused(saga)) => panic!("{} was {saga}", list.name),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }
    acknowledged
}

async fn all_sagas(store: &dyn Store) -> Option<Vec<SagaRow>> {
    let mut all: Vec<SagaRow> = Vec::new();
    loop {
        let before = all.last().map(|row| row.id.clone());
        let page = store.sagas(SagaFilter { before, limit: 1000, ..SagaFilter::default() }).await.ok()?;
        if page.is_empty() {
            return Some(all);
        }
        all.extend(page);
    }
}

async fn ledger(store: &dyn Store) -> Vec<ResourceRow> {
    let mut all: Vec<ResourceRow> = Vec::new();
    loop {
        let before = all.last().map(|row| row.id.clone());
        let filter = ResourceFilter { before, limit: 1000, ..ResourceFilter::default() };
        let page = store.resources(filter).await.unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

async fn until_all_ended(store: &dyn Store, limit: Duration) {
    let deadline = Instant::now() + limit;
    loop {
        let open = match all_sagas(store).await {
            Some(all) => all.into_iter().filter(|row| !row.state.is_ended()).collect(),
            None => Vec::new(),
        };
        let reached = all_sagas(store).await.is_some();
        if reached && open.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{} have not ended: {:#?}", open.len(), open.first());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// What was found when everything had ended.
#[derive(Debug, Default)]
struct Found {
    ended: BTreeMap<String, usize>,
    take_overs: Vec<Duration>,
}

/// Compares what was acknowledged, the journals, the ledger, our own table and the market.
async fn check(store: &dyn Store, market: &Market, acknowledged: &BTreeMap<String, SagaId>) -> Found {
    let mut found = Found::default();
    let rows: BTreeMap<SagaId, SagaRow> =
        all_sagas(store).await.unwrap().into_iter().map(|row| (row.id.clone(), row)).collect();
    assert_eq!(rows.len(), acknowledged.len(), "as many as were acknowledged");
    let mut wanted_things = Vec::new();
    let mut wanted_notes = Vec::new();
    for (name, saga) in acknowledged {
        let row =
            rows.get(saga).unwrap_or_else(|| panic!("the start of {name} was acknowledged, {saga} is lost"));
        *found.ended.entry(row.state.to_string()).or_default() += 1;
        let entries = store.journal(saga).await.unwrap();
        let gapless = entries.iter().zip(1..).all(|(entry, seq)| entry.seq == seq);
        assert!(gapless && entries.is_sorted_by_key(|entry| entry.epoch), "{saga}: an unfenced write");
        let state = State::fold(saga.clone(), &entries).unwrap();
        assert_eq!((state.state(), state.seq), (row.state, row.seq), "{saga}");
        let mut before = State::new(saga.clone());
        for pair in entries.windows(2) {
            if let [last, first] = pair {
                before.apply(last).unwrap();
                if first.epoch > last.epoch {
                    // What waits for a time of its own is not waited for: from when it was due.
                    let due = before.due_at().unwrap_or(first.at);
                    found.take_overs.push(first.at.since(last.at.max(due)));
                }
            }
        }
        let list: List = serde_json::from_value(state.input.clone()).unwrap();
        assert_eq!(row.state == SagaState::Completed, list.enough, "{name} is {}", row.state);
        if list.enough {
            wanted_things.extend(list.wanted());
            wanted_notes.push(name.clone());
        }
    }
    let things = market.things();
    for (name, ids) in &things {
        assert_eq!(ids.len(), 1, "{name} was bought twice: {ids:?}");
    }
    wanted_things.sort();
    assert!(things.keys().eq(&wanted_things), "what is on the market is not what was paid for");
    wanted_notes.sort();
    assert_eq!(notes(store).await, wanted_notes);
    let live: Vec<ResourceRow> =
        ledger(store).await.into_iter().filter(|row| row.state != ResourceState::Gone).collect();
    assert!(live.iter().all(|row| row.state == ResourceState::Live), "the ledger is not closed");
    let mut ids: Vec<&String> = live.iter().filter_map(|row| row.external_id.as_ref()).collect();
    let mut there: Vec<&String> = things.values().flatten().collect();
    ids.sort();
    there.sort();
    assert_eq!(ids, there, "the ledger is not the market");
    found
}

fn part(sorted: &[Duration], of_a_hundred: usize) -> Duration {
    sorted.get(sorted.len().saturating_sub(1) * of_a_hundred / 100).copied().unwrap_or_default()
}

/// How long the last of a killed process's leases lasts, and what then has to be done.
const ENDS_WITHIN: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_of_which_one_is_killed_each_second_lose_and_double_nothing() {
    let kills = wanted("AMENDS_TEST_KILLS", 10);
    let sagas = wanted("AMENDS_TEST_STORM_SAGAS", kills * 30);
    let server = Server::start_new();
    let base = server.database();
    let (market, place) = Market::open().await;
    let env = Env::system();
    let (store, _) = base.open(NOTES, &env).await;
    let worker = || Worker::start(&base.url, &base.key, place);
    let mut workers: Vec<Worker> = (0..4).map(|_| worker()).collect();
    let over = Duration::from_secs(kills);
    let storm = async {
        for number in 0..kills {
            tokio::time::sleep(Duration::from_secs(1)).await;
            workers.remove(usize::try_from(number % 4).unwrap()).kill();
            workers.push(tokio::task::block_in_place(worker));
        }
    };
    let (acknowledged, ()) = tokio::join!(start_all(&store, &env, 0, sagas, over), storm);
    until_all_ended(&store, ENDS_WITHIN).await;
    let mut found = check(&store, &market, &acknowledged).await;
    found.take_overs.sort();
    let (calls, lost) = market.calls();
    eprintln!(
        "{kills} kills, {sagas} sagas, ended {:?}, {calls} calls of which {lost} lost their answer; \
         {} take-overs, p50 {:?}, p99 {:?}; lost 0, doubled 0, unfenced writes 0",
        found.ended,
        found.take_overs.len(),
        part(&found.take_overs, 50),
        part(&found.take_overs, 99),
    );
    assert!(!found.take_overs.is_empty(), "nobody was killed while it held something");
}

/// Two engines drive baskets on one database while `trouble` goes on, and until everything has ended after it.
async fn under(base: &Base, url: &str, pace: Duration, trouble: impl Future<Output = String>) {
    let (market, place) = Market::open().await;
    let env = Env::system();
    let mut engines = Vec::new();
    for _ in 0..2 {
        let (store, vault) = base.try_open(url, NOTES, &env).await.unwrap();
        engines.push(Engine::start(Arc::new(store), vault, registry(place), env.clone(), "test"));
    }
    let (store, _) = base.try_open(url, NOTES, &env).await.unwrap();
    let over = AtomicBool::new(false);
    let starts = async {
        let mut acknowledged = BTreeMap::new();
        while !over.load(Ordering::SeqCst) {
            acknowledged.append(&mut start_all(&store, &env, acknowledged.len() as u64, 10, pace * 10).await);
        }
        acknowledged
    };
    let trouble = async {
        let told = trouble.await;
        over.store(true, Ordering::SeqCst);
        told
    };
    let (acknowledged, told) = tokio::join!(starts, trouble);
    until_all_ended(&store, ENDS_WITHIN).await;
    let found = check(&store, &market, &acknowledged).await;
    eprintln!("{told}: {} starts acknowledged, lost 0; ended {:?}", acknowledged.len(), found.ended);
    assert!(!acknowledged.is_empty());
    for engine in engines {
        engine.stop().await;
    }
}

/// Calls of other programs, which take their time.
async fn aside<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_cut_lose_nothing() {
    let times = wanted("AMENDS_TEST_CUTS", 20);
    let server = Server::start_new();
    let base = server.database();
    under(&base, &base.url, Duration::from_millis(25), async {
        let mut cut = 0;
        for _ in 0..times {
            tokio::time::sleep(Duration::from_millis(150)).await;
            cut += aside(|| server.terminate_backends(&base.name)).await;
        }
        format!("backends terminated {times} times, {cut} in all")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_at_once_loses_nothing_acknowledged() {
    let times = wanted("AMENDS_TEST_STOPS", 2);
    let mut server = Server::start_new();
    let base = server.database();
    under(&base, &base.url, Duration::from_millis(25), async {
        for _ in 0..times {
            tokio::time::sleep(Duration::from_secs(1)).await;
            aside(|| {
                server.stop_immediately();
                server.start();
            })
            .await;
        }
        format!("server stopped immediately {times} times")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_synchronous_standby_that_is_promoted_has_everything_acknowledged() {
    let times = wanted("AMENDS_TEST_PROMOTIONS", 1);
    let mut primary = Server::start_new();
    let base = primary.database();
    let door = Door::to(primary.port()).await;
    let url = format!("postgres://postgres@{}/{}", door.address, base.name);
    under(&base, &url, Duration::from_millis(25), async {
        for _ in 0..times {
            let standby = aside(|| primary.standby()).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            aside(|| {
                primary.stop_immediately();
                standby.promote();
            })
            .await;
            door.lead_to(standby.port());
            primary = standby;
        }
        format!("a synchronous standby promoted {times} times")
    })
    .await;
}

//! Gates over several workers and restarts: what may be under way, what waits, and how it goes on.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends_engine::activity::Cause;
use amends_engine::gate::Why;
use amends_engine::journal::Event;
use amends_engine::journal::state::{Attention, SagaState};
use amends_engine::secret::Vault;
use amends_engine::store::memory::MemoryStore;
use amends_engine::store::{SagaFilter, SagaRow, Started, Store};
use amends_engine::testing::crash::{Crash, CrashingStore};
use amends_engine::testing::shaky::{Shakes, ShakyStore};
use amends_engine::{
    Activity, Call, Effect, Engine, Env, Failure, Gate, Registry, Resource, Saga, SagaId, Timestamp,
    Workflow, saga, secs,
};
use serde::{Deserialize, Serialize};

/// A provider that takes its time, and may be down.
struct Desk {
    env: Env,
    gates: Vec<Gate>,
    takes: Duration,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    under_way: usize,
    most: usize,
    calls: Vec<(Timestamp, &'static str)>,
    answers: BTreeMap<&'static str, Failure>,
}

impl Desk {
    fn new(env: &Env, gates: Vec<Gate>, takes: Duration) -> Arc<Self> {
        Arc::new(Self { env: env.clone(), gates, takes, seen: Mutex::default() })
    }

    async fn call(&self, verb: &'static str) -> Result<(), Failure> {
        let answer = {
            let mut seen = self.seen.lock().unwrap();
            seen.under_way += 1;
            seen.most = seen.most.max(seen.under_way);
            seen.calls.push((self.env.now(), verb));
            seen.answers.get(verb).cloned()
        };
        // Given back also when the call is cut off.
        let _leaves = Leaves(self);
        self.env.sleep(self.takes).await;
        answer.map_or(Ok(()), Err)
    }

    fn answer(&self, verb: &'static str, failure: Option<Failure>) {
        let answers = &mut self.seen.lock().unwrap().answers;
        match failure {
            Some(failure) => answers.insert(verb, failure),
            None => answers.remove(verb),
        };
    }

    fn calls(&self, verb: &str) -> Vec<Timestamp> {
        let seen = self.seen.lock().unwrap();
        seen.calls.iter().filter(|(_, called)| *called == verb).map(|(at, _)| *at).collect()
    }

    fn most(&self) -> usize {
        self.seen.lock().unwrap().most
    }
}

struct Leaves<'d>(&'d Desk);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.seen.lock().unwrap().under_way -= 1;
    }
}

fn down() -> Failure {
    Failure::Unavailable { cause: Cause::ServerError, detail: "down".into(), retry_after: None }
}

fn too_many(wait: u64) -> Failure {
    let detail = "too many requests".to_owned();
    Failure::Unavailable { cause: Cause::RateLimited, detail, retry_after: Some(secs(wait)) }
}

#[derive(Debug, Serialize, Deserialize)]
struct Ring;

impl Activity for Ring {
    const NAME: &'static str = "desk.ring";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Desk;
    type Output = ();

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("desk", "visit", call.name("visit")))
    }

    fn gates(&self, desk: &Desk) -> Vec<Gate> {
        desk.gates.clone()
    }

    async fn execute(&self, desk: &Desk, _: &Call) -> Result<(), Failure> {
        desk.call("ring").await
    }

    async fn compensate(&self, desk: &Desk, (): &(), _: &Call) -> Result<(), Failure> {
        desk.call("leave").await
    }
}

/// Rings once.
struct Visit;

impl Workflow for Visit {
    const NAME: &'static str = "visit";
    const VERSION: u32 = 1;
    type Input = String;
    type Output = ();

    async fn run(&self, saga: &Saga, _: String) -> saga::Result<()> {
        saga.step("ring", Ring).await?;
        Ok(())
    }
}

/// Rings, and changes its mind.
struct Regret;

impl Workflow for Regret {
    const NAME: &'static str = "regret";
    const VERSION: u32 = 1;
    type Input = String;
    type Output = ();

    async fn run(&self, saga: &Saga, _: String) -> saga::Result<()> {
        saga.step("ring", Ring).await?;
        saga.sleep("think", secs(60)).await?;
        Err(saga::Halt::give_up("regret", "it was a bad idea"))
    }
}

struct House {
    env: Env,
    store: Arc<MemoryStore>,
    vault: Vault,
    desk: Arc<Desk>,
}

impl House {
    async fn new(seed: u64, gates: Vec<Gate>, takes: Duration) -> Self {
        let env = Env::simulated(seed);
        let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
        let desk = Desk::new(&env, gates, takes);
        Self { env, store: Arc::new(store), vault, desk }
    }

    fn registry(&self) -> Registry {
        Registry::default().activity::<Ring>(self.desk.clone()).workflow(Visit).workflow(Regret)
    }

    fn worker(&self) -> Engine {
        let store = Arc::new(self.store.another(&self.env));
        Engine::start(store, self.vault.clone(), self.registry(), self.env.clone(), "test")
    }

    async fn begin<W: Workflow<Input = String>>(
        &self,
        engine: &Engine,
        names: std::ops::Range<u32>,
    ) -> Vec<SagaId> {
        let mut sagas = Vec::new();
        for number in names {
            let key = format!("{} {number}", W::NAME);
            let new = engine.new_saga::<W>(key.clone(), &key).unwrap();
            let Started::New(saga) = engine.begin(new).await.unwrap() else { panic!() };
            sagas.push(saga);
        }
        sagas
    }

    async fn all_end(&self, engine: &Engine, sagas: &[SagaId], within: Duration) {
        let deadline = self.env.now().plus(within);
        for saga in sagas {
            let left = deadline.since(self.env.now());
            let row = engine.wait(saga, left, |_| false).await.unwrap().unwrap();
            if !row.state.is_ended() {
                let entries = self.store.journal(saga).await.unwrap();
                let gates = engine.gates().await.unwrap();
                let raw = self.store.gates(Timestamp(0)).await.unwrap();
                panic!(
                    "{}\n{row:?}\n{gates:?}\n{raw:?} now {:?}",
                    amends_engine::journal::story(saga, &entries),
                    self.env.now()
                );
            }
        }
        let left = engine.gates().await.unwrap().into_iter().filter(|gate| !gate.queue.is_empty());
        assert_eq!(left.count(), 0, "nobody stands at a gate any more");
    }

    /// How often each saga's step was tried.
    async fn attempts(&self, saga: &SagaId) -> usize {
        let journal = self.store.journal(saga).await.unwrap();
        journal.iter().filter(|entry| matches!(entry.event, Event::AttemptStarted { .. })).count()
    }

    async fn until(&self, engine: &Engine, saga: &SagaId, what: impl Fn(&SagaRow) -> bool) -> SagaRow {
        let row = engine.wait(saga, secs(600), &what).await.unwrap().unwrap();
        assert!(what(&row), "{row:#?}");
        row
    }

    async fn waiting(&self, engine: &Engine, count: u32) {
        for _ in 0..600 {
            let gates = engine.gates().await.unwrap();
            if gates.iter().map(|gate| gate.queue.waiting()).sum::<u32>() == count {
                return;
            }
            self.env.sleep(Duration::from_millis(100)).await;
        }
        let rows = engine.sagas(SagaFilter::default()).await.unwrap();
        let rows: Vec<_> = rows.into_iter().map(|row| (row.state, row.step, row.error)).collect();
        panic!("{:#?}\n{rows:#?}", engine.gates().await.unwrap());
    }
}

fn at_gate(row: &SagaRow) -> bool {
    row.step.as_deref().is_some_and(|step| step.ends_with("waits at a gate"))
}

#[tokio::test(start_paused = true)]
async fn two_workers_never_have_more_calls_under_way_than_their_gate_allows() {
    let house = House::new(1, vec![Gate::credential("desk").concurrency(3)], secs(2)).await;
    let (first, second) = (house.worker(), house.worker());
    let began = house.env.now();
    let sagas = house.begin::<Visit>(&first, 0..200).await;
    house.all_end(&first, &sagas, secs(3600)).await;
    let took = house.env.now().since(began);
    assert_eq!(house.desk.calls("ring").len(), 200, "each once");
    assert_eq!(house.desk.most(), 3, "never more, and all that may be");
    // 200 calls of 2 s, three at a time, are 134 s of work.
    assert!(took < secs(200), "{took:?}");
    for engine in [first, second] {
        engine.stop().await;
    }
    let rows = house.store.gates(Timestamp(0)).await.unwrap();
    assert!(rows.iter().all(|row| row.state.shares.is_empty()), "{rows:#?}");
}

/// At this pace both a call's time and a permit's are at the shortest that there is; a database takes a moment between
/// giving the permit and the call.
#[tokio::test(start_paused = true)]
async fn a_permit_outlives_its_call_at_any_pace() {
    let mut house = House::new(3, vec![Gate::credential("desk").concurrency(2)], secs(1)).await;
    house.env = house.env.with_pace(100);
    let shakes = Shakes { latency: Duration::from_millis(20), ..Shakes::default() };
    let store = Arc::new(ShakyStore::new(house.store.clone(), house.env.clone(), shakes));
    let engine = Engine::start(store, house.vault.clone(), house.registry(), house.env.clone(), "test");
    let sagas = house.begin::<Visit>(&engine, 0..20).await;
    house.all_end(&engine, &sagas, secs(120)).await;
    assert_eq!((house.desk.calls("ring").len(), house.desk.most()), (20, 2));
    engine.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept_over_workers_and_over_a_restart() {
    let house = House::new(2, vec![Gate::credential("desk").rate(10, secs(1)).burst(10)], secs(1)).await;
    let (first, second) = (house.worker(), house.worker());
    let sagas = house.begin::<Visit>(&first, 0..150).await;
    house.env.sleep(secs(5)).await;
    first.abort();
    let third = house.worker();
    house.all_end(&second, &sagas, secs(600)).await;
    let calls = house.desk.calls("ring");
    assert!(calls.len() >= 150);
    for (place, at) in calls.iter().enumerate() {
        let within = calls.iter().skip(place).filter(|later| later.since(*at) < secs(1)).count();
        assert!(within <= 20, "{within} in a second");
    }
    for (place, at) in calls.iter().enumerate() {
        let within = calls.iter().skip(place).filter(|later| later.since(*at) < secs(5)).count();
        assert!(within <= 60, "{within} in five seconds");
    }
    drop(third);
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_lets_one_pass_in_a_while_costs_no_attempts() {
    let house = House::new(3, vec![Gate::spaced("desk:make", secs(31))], secs(1)).await;
    let engine = house.worker();
    let sagas = house.begin::<Visit>(&engine, 0..10).await;
    house.all_end(&engine, &sagas, secs(600)).await;
    let calls = house.desk.calls("ring");
    for pair in calls.windows(2) {
        let apart = pair[1].since(pair[0]);
        assert!(apart >= secs(31) && apart < secs(33), "{apart:?}");
    }
    for saga in &sagas {
        assert_eq!(house.attempts(saga).await, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn one_429_stops_every_worker_until_it_may_ask_again_also_after_a_restart() {
    let house = House::new(4, vec![Gate::credential("desk")], secs(1)).await;
    let (first, second) = (house.worker(), house.worker());
    house.desk.answer("ring", Some(too_many(300)));
    let canary = house.begin::<Visit>(&first, 0..1).await;
    let told = house.until(&first, &canary[0], |row| row.fingerprint.is_some()).await.updated_at;
    house.env.sleep(secs(1)).await;
    house.desk.answer("ring", None);
    // Both workers take from these; none of them calls.
    let sagas = house.begin::<Visit>(&second, 1..40).await;
    house.waiting(&second, 39).await;
    house.env.sleep(secs(100)).await;
    for engine in [first, second] {
        engine.stop().await;
    }
    let third = house.worker();
    house.env.sleep(secs(100)).await;
    assert_eq!(house.desk.calls("ring").len(), 1, "nobody called");
    let row = house.until(&third, &sagas[0], at_gate).await;
    assert_eq!(
        (row.due_at, row.state),
        (None, SagaState::Waiting),
        "it waits at the gate, for no time of its own"
    );
    house.all_end(&third, &sagas, secs(600)).await;
    house.all_end(&third, &canary, secs(600)).await;
    let calls = house.desk.calls("ring");
    assert!(calls[1].since(told) >= secs(298), "{:?}", calls[1].since(told));
    assert_eq!(waves(&calls[1..]), [1, 2, 4, 8, 16, 9], "in growing waves");
}

/// How many calls began at about the same time.
fn waves(calls: &[Timestamp]) -> Vec<usize> {
    let mut waves: Vec<(Timestamp, usize)> = Vec::new();
    for at in calls {
        match waves.last_mut() {
            Some((began, count)) if at.since(*began) < Duration::from_millis(900) => *count += 1,
            _ => waves.push((*at, 1)),
        }
    }
    waves.into_iter().map(|(_, count)| count).collect()
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_down_is_left_alone_and_all_go_on_in_waves_when_it_is_back() {
    let gate = Gate::credential("desk").breaker(5, secs(60));
    let house = House::new(5, vec![gate], secs(1)).await;
    let (first, second) = (house.worker(), house.worker());
    house.desk.answer("ring", Some(down()));
    let tried = house.begin::<Visit>(&first, 0..5).await;
    for saga in &tried {
        house.until(&first, saga, |row| row.error.is_some()).await;
    }
    house.env.sleep(secs(2)).await;
    let gate = first.gates().await.unwrap().remove(0);
    assert_eq!(gate.closed.as_ref().unwrap().by, Why::Breaker, "{gate:#?}");
    let sagas = house.begin::<Visit>(&second, 5..100).await;
    house.waiting(&second, 100).await;
    let before = house.desk.calls("ring").len();
    // Two canaries fail: after 60 s and 120 s more.
    house.env.sleep(secs(230)).await;
    let canaries = house.desk.calls("ring").len() - before;
    assert!((1..=3).contains(&canaries), "{canaries} canaries");
    let mut attempts = 0;
    for saga in &sagas {
        attempts += house.attempts(saga).await;
    }
    assert!(attempts <= 3, "those that waited used {attempts} attempts");
    house.desk.answer("ring", None);
    let before = house.desk.calls("ring").len();
    house.all_end(&first, &sagas, secs(3600)).await;
    house.all_end(&first, &tried, secs(3600)).await;
    let after = waves(&house.desk.calls("ring")[before..]);
    assert_eq!(after[..6], [1, 2, 4, 8, 16, 32], "{after:?}");
    let gate = first.gates().await.unwrap().remove(0);
    house.env.sleep(secs(5)).await;
    assert_eq!((gate.closed, gate.queue.waiting()), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_back_goes_on_while_forward_steps_wait() {
    let gate = Gate::credential("desk").concurrency(2).breaker(3, secs(7200));
    let house = House::new(6, vec![gate], secs(1)).await;
    let engine = house.worker();
    let regrets = house.begin::<Regret>(&engine, 0..6).await;
    for saga in &regrets {
        house.until(&engine, saga, |row| row.step.as_deref().is_some_and(|at| at.starts_with("think"))).await;
    }
    house.desk.answer("ring", Some(down()));
    let visits = house.begin::<Visit>(&engine, 0..20).await;
    house.waiting(&engine, 20).await;
    house.all_regret(&engine, &regrets).await;
    let row = house.until(&engine, &visits[19], at_gate).await;
    assert_eq!(row.state, SagaState::Waiting);
    engine.cancel(&visits[19], "ann", "no longer needed").await.unwrap();
    house.until(&engine, &visits[19], |row| row.state.is_ended()).await;
    let gate = engine.gates().await.unwrap().remove(0);
    assert_eq!(gate.queue.forward, 19, "who turns round waits no longer");
}

impl House {
    async fn all_regret(&self, engine: &Engine, sagas: &[SagaId]) {
        for saga in sagas {
            let row = engine.wait(saga, secs(300), |_| false).await.unwrap().unwrap();
            assert_eq!(row.state, SagaState::Compensated, "{row:#?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn both_lanes_get_their_share_of_a_full_gate() {
    let gate = Gate::credential("desk").concurrency(4);
    let house = House::new(7, vec![gate], secs(2)).await;
    let engine = house.worker();
    let regrets = house.begin::<Regret>(&engine, 0..40).await;
    for saga in &regrets {
        house.until(&engine, saga, |row| row.step.as_deref().is_some_and(|at| at.starts_with("think"))).await;
    }
    let visits = house.begin::<Visit>(&engine, 0..400).await;
    house.env.sleep(secs(140)).await;
    // In 140 s the gate lets 280 pass; of the 40 that go back most have, and so did many that go forward.
    let (forward, undo) = (house.desk.calls("ring").len() - 40, house.desk.calls("leave").len());
    assert!(undo >= 30 && forward >= 100, "{forward} forward, {undo} back");
    house.all_end(&engine, &visits, secs(3600)).await;
    house.all_end(&engine, &regrets, secs(3600)).await;
    assert_eq!(house.desk.most(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_person_closes_a_gate_and_opens_it_and_both_are_remembered() {
    let house = House::new(8, vec![Gate::credential("desk")], secs(1)).await;
    let (first, second) = (house.worker(), house.worker());
    assert!(first.close_gate("desk", " ", "x").await.is_err(), "nameless");
    first.close_gate("desk", "ann", "the desk is moving").await.unwrap();
    let sagas = house.begin::<Visit>(&second, 0..7).await;
    house.waiting(&second, 7).await;
    house.env.sleep(secs(24 * 3600)).await;
    assert!(house.desk.calls("ring").is_empty(), "it has no end of its own");
    let view = first.view(&sagas[0]).await.unwrap().unwrap();
    let why = amends_engine::journal::why(&view.state, house.env.now());
    assert!(why.now.contains("gate desk is closed until it is opened: ann: the desk is moving"), "{why:?}");
    second.open_gate("desk", "bob", "it has moved").await.unwrap();
    house.all_end(&first, &sagas, secs(60)).await;
    assert_eq!(waves(&house.desk.calls("ring")), [1, 2, 4], "one first");
    let acts = first.gates().await.unwrap().remove(0).acts;
    let told: Vec<_> = acts.iter().map(|act| (act.opened, act.actor.as_str(), act.reason.as_str())).collect();
    assert_eq!(told, [(false, "ann", "the desk is moving"), (true, "bob", "it has moved")]);
}

#[tokio::test(start_paused = true)]
async fn who_waits_at_a_gate_that_only_a_person_opens_is_told_whenever_it_came() {
    let house = House::new(15, vec![Gate::credential("desk").concurrency(1)], secs(50)).await;
    let engine = house.worker();
    let early = house.begin::<Visit>(&engine, 0..3).await;
    house.waiting(&engine, 2).await;
    engine.close_gate("desk", "ann", "the desk is moving").await.unwrap();
    let late = house.begin::<Visit>(&engine, 3..5).await;
    house.waiting(&engine, 4).await;
    house.env.sleep(secs(3600)).await;
    let mut told = 0;
    for saga in early.iter().chain(&late) {
        let row = engine.row(saga).await.unwrap().unwrap();
        if row.state.is_ended() {
            continue;
        }
        told += 1;
        let why = engine.why(saga).await.unwrap().unwrap();
        assert!(why.now.contains("closed until a person opens it: ann: the desk is moving"), "{why}");
        assert!(why.you.contains("desk"), "{why}");
    }
    assert_eq!(told, 4);
    engine.open_gate("desk", "bob", "it has moved").await.unwrap();
    for saga in early.iter().chain(&late) {
        let why = engine.why(saga).await.unwrap().unwrap();
        assert!(!why.now.contains("a person opens it"), "{why}");
    }
    house.all_end(&engine, &early, secs(1200)).await;
    house.all_end(&engine, &late, secs(1200)).await;
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_is_refused_asks_for_a_person_and_turns_nobody_round() {
    let house = House::new(9, vec![Gate::credential("desk")], secs(1)).await;
    let engine = house.worker();
    let detail = "401: no such token".to_owned();
    let refused = Failure::Unavailable { cause: Cause::Credential, detail, retry_after: None };
    house.desk.answer("ring", Some(refused));
    let sagas = house.begin::<Visit>(&engine, 0..1).await;
    let row = house.until(&engine, &sagas[0], |row| row.attention.contains(&Attention::NeedsDecision)).await;
    assert_eq!(row.state, SagaState::Waiting);
    let more = house.begin::<Visit>(&engine, 1..5).await;
    house.env.sleep(secs(3 * 3600)).await;
    house.desk.answer("ring", None);
    house.all_end(&engine, &sagas, secs(1200)).await;
    house.all_end(&engine, &more, secs(1200)).await;
    for row in engine.sagas(SagaFilter::default()).await.unwrap() {
        assert_eq!(row.state, SagaState::Completed, "{row:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn time_at_a_gate_does_not_count_against_a_step() {
    let house = House::new(10, vec![Gate::credential("desk")], secs(1)).await;
    let engine = house.worker();
    engine.close_gate("desk", "ann", "x").await.unwrap();
    let sagas = house.begin::<Visit>(&engine, 0..3).await;
    house.waiting(&engine, 3).await;
    // Longer than the hour after which a step is given up.
    house.env.sleep(secs(10 * 3600)).await;
    house.desk.answer("ring", Some(down()));
    engine.open_gate("desk", "ann", "x").await.unwrap();
    house.env.sleep(secs(60)).await;
    house.desk.answer("ring", None);
    house.all_end(&engine, &sagas, secs(1200)).await;
    for row in engine.sagas(SagaFilter::default()).await.unwrap() {
        assert_eq!(row.state, SagaState::Completed, "{row:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_dies_at_any_append_strands_nobody_at_a_gate() {
    die_everywhere(|store| store.appends(), |inner, crash| CrashingStore::new(inner, Some(crash))).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_dies_at_any_move_of_a_gate_strands_nobody_there() {
    die_everywhere(|store| store.moves(), CrashingStore::at_move).await;
}

async fn die_everywhere(
    count: impl Fn(&CrashingStore) -> usize,
    crashing: impl Fn(Arc<dyn Store>, Crash) -> CrashingStore,
) {
    let gate =
        || vec![Gate::credential("desk").concurrency(2).rate(5, secs(1)).burst(3).breaker(4, secs(20))];
    let begin = async |house: &House, engine: &Engine| {
        let visits = house.begin::<Visit>(engine, 0..8).await;
        [visits, house.begin::<Regret>(engine, 0..2).await].concat()
    };
    let (mut number, mut crashes) = (0, 0);
    loop {
        number += 1;
        let mut was_reached = false;
        for crash in [Crash::Before(number), Crash::After(number)] {
            let house = House::new(11, gate(), secs(1)).await;
            let store = Arc::new(crashing(Arc::new(house.store.another(&house.env)), crash));
            let vault = house.vault.clone();
            let dying = Engine::start(store.clone(), vault, house.registry(), house.env.clone(), "test");
            let all = begin(&house, &dying).await;
            tokio::select! {
                () = store.crashed() => { was_reached = true; crashes += 1; }
                () = house.env.sleep(secs(200)) => {}
            }
            dying.abort();
            let heir = house.worker();
            house.all_end(&heir, &all, secs(900)).await;
            assert!(house.desk.most() <= 2, "{crash:?}");
            heir.abort();
            assert!(count(&store) > 0);
        }
        if !was_reached {
            break;
        }
    }
    println!("{crashes} crashes at {} writes", number - 1);
    assert!(number > 10, "{number}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_panics_or_is_cut_off_gives_its_permit_back() {
    let house = House::new(12, vec![Gate::credential("desk").concurrency(1)], secs(30)).await;
    let engine = house.worker();
    let sagas = house.begin::<Visit>(&engine, 0..2).await;
    house.env.sleep(secs(5)).await;
    assert_eq!(house.desk.calls("ring").len(), 1);
    // Stopped with a call under way: what it had in hand is given back.
    engine.stop().await;
    let rows = house.store.gates(Timestamp(0)).await.unwrap();
    assert!(rows.iter().all(|row| row.state.shares.is_empty()), "{rows:#?}");
    let heir = house.worker();
    house.all_end(&heir, &sagas, secs(600)).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_at_an_open_gate_touches_no_store() {
    let house = House::new(
        13,
        vec![Gate::credential("desk").concurrency(64).rate(1000, secs(1)).burst(1000)],
        secs(1),
    )
    .await;
    let engine = house.worker();
    let sagas = house.begin::<Visit>(&engine, 0..100).await;
    house.all_end(&engine, &sagas, secs(60)).await;
    let rev = house.store.gates(Timestamp(0)).await.unwrap().remove(0).rev;
    assert!(rev < 30, "{rev} moves for 100 calls");
}

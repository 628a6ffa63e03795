//! A call leaves with a permit of its gates or not at all: whatever kind of call, whoever else is due, in a fresh
//! process as in an old one, on every store.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends_engine::activity::Cause;
use amends_engine::gate::Why;
use amends_engine::journal::state::Attention;
use amends_engine::journal::{Event, story};
use amends_engine::secret::Vault;
use amends_engine::store::memory::MemoryStore;
use amends_engine::store::{Message, SagaRow, Started, Store};
use amends_engine::testing::shaky::{Shakes, ShakyStore};
use amends_engine::{
    Activity, Call, Effect, Engine, Env, Failure, Found, Gate, Registry, Resource, Saga, SagaId, Seen,
    Timestamp, Workflow, saga, secs,
};
use amends_tests::database::Database;
use amends_tests::postgres::Server;
use serde::{Deserialize, Serialize};

/// How long a test in real time waits for what must come.
const PATIENCE: Duration = Duration::from_secs(120);

/// A provider that notes each call, and answers as it was told to.
struct Provider {
    env: Env,
    calls: Mutex<Vec<(Timestamp, String)>>,
    answers: Mutex<BTreeMap<String, VecDeque<Failure>>>,
    gates: Vec<Gate>,
}

impl Provider {
    fn new(env: &Env, gates: Vec<Gate>) -> Arc<Self> {
        Arc::new(Self { env: env.clone(), calls: Mutex::default(), answers: Mutex::default(), gates })
    }

    fn call(&self, what: String) -> Result<(), Failure> {
        self.calls.lock().unwrap().push((self.env.now(), what.clone()));
        let answer = self.answers.lock().unwrap().get_mut(&what).and_then(VecDeque::pop_front);
        answer.map_or(Ok(()), Err)
    }

    /// What the next call of this kind comes to.
    fn answer(&self, what: &str, failure: Failure) {
        self.answers.lock().unwrap().entry(what.to_owned()).or_default().push_back(failure);
    }

    fn calls(&self, what: &str) -> usize {
        self.calls.lock().unwrap().iter().filter(|(_, called)| called.starts_with(what)).count()
    }

    fn at(&self, what: &str) -> Vec<Timestamp> {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|(_, called)| called.starts_with(what)).map(|(at, _)| *at).collect()
    }
}

fn lost() -> Failure {
    Failure::NoAnswer { cause: Cause::Reset, detail: "the line broke".to_owned() }
}

fn too_many(wait: u64) -> Failure {
    let detail = "too many requests".to_owned();
    Failure::Unavailable { cause: Cause::RateLimited, detail, retry_after: Some(secs(wait)) }
}

fn revoked() -> Failure {
    let detail = "401: no such token".to_owned();
    Failure::Unavailable { cause: Cause::Credential, detail, retry_after: None }
}

/// Makes a thing, behind the provider's gate or without any.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Make {
    name: String,
    gated: bool,
}

impl Activity for Make {
    const NAME: &'static str = "provider.make";
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(5) };
    type Client = Provider;
    type Output = String;

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("provider", "thing", call.name(&self.name)))
    }

    fn gates(&self, provider: &Provider) -> Vec<Gate> {
        if self.gated { provider.gates.clone() } else { Vec::new() }
    }

    async fn execute(&self, provider: &Provider, _: &Call) -> Result<String, Failure> {
        provider.call(format!("make {}", self.name)).map(|()| self.name.clone())
    }

    async fn find(&self, provider: &Provider, _: &Call) -> Result<Found<String>, Failure> {
        provider.call(format!("find {}", self.name)).map(|()| Found::Usable(self.name.clone()))
    }

    async fn compensate(&self, provider: &Provider, _: &String, _: &Call) -> Result<(), Failure> {
        provider.call(format!("unmake {}", self.name))
    }
}

/// Makes all of them, side by side.
struct MakeAll;

impl Workflow for MakeAll {
    const NAME: &'static str = "make-all";
    const VERSION: u32 = 1;
    type Input = Vec<Make>;
    type Output = ();

    async fn run(&self, saga: &Saga, things: Vec<Make>) -> saga::Result<()> {
        let things = things.into_iter().map(|thing| (thing.name.clone(), thing));
        let branch = |saga: Saga, thing: Make| async move { saga.step("make", thing).await.map(drop) };
        saga.each("thing", things, branch).await.map(drop)
    }
}

/// What is knocked at so takes a while.
const SLOW: &str = "slow";

/// This gate lets one pass at a time.
const ONE: &str = "one";

/// Calls the provider past a gate of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Knock {
    name: String,
    gate: String,
}

impl Activity for Knock {
    const NAME: &'static str = "provider.knock";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Provider;
    type Output = ();

    fn gates(&self, _: &Provider) -> Vec<Gate> {
        let gate = Gate::credential(self.gate.as_str());
        vec![if self.gate == ONE { gate.concurrency(1) } else { gate }]
    }

    async fn execute(&self, provider: &Provider, _: &Call) -> Result<(), Failure> {
        provider.call(format!("knock {}", self.name))?;
        let takes = if self.name == SLOW { secs(50) } else { Duration::from_millis(500) };
        provider.env.sleep(takes).await;
        Ok(())
    }
}

/// Knocks at all of them, side by side, in this order.
struct KnockAll;

impl Workflow for KnockAll {
    const NAME: &'static str = "knock-all";
    const VERSION: u32 = 1;
    type Input = Vec<Knock>;
    type Output = ();

    async fn run(&self, saga: &Saga, all: Vec<Knock>) -> saga::Result<()> {
        let all = all.into_iter().map(|one| (one.name.clone(), one));
        let branch = |saga: Saga, one: Knock| async move { saga.step("knock", one).await.map(drop) };
        saga.each("door", all, branch).await.map(drop)
    }
}

/// Makes one, and thinks better of it after a minute.
struct Regret;

impl Workflow for Regret {
    const NAME: &'static str = "regret";
    const VERSION: u32 = 1;
    type Input = Vec<Make>;
    type Output = ();

    async fn run(&self, saga: &Saga, things: Vec<Make>) -> saga::Result<()> {
        for thing in things {
            saga.step(&thing.name.clone(), thing).await?;
        }
        saga.sleep("think", secs(60)).await?;
        Err(saga::Halt::give_up("regret", "it was a bad idea"))
    }
}

/// Waits for a word that may come at any time.
struct Listen;

impl Workflow for Listen {
    const NAME: &'static str = "listen";
    const VERSION: u32 = 1;
    type Input = Vec<Make>;
    type Output = ();

    async fn run(&self, saga: &Saga, _: Vec<Make>) -> saga::Result<()> {
        saga.signal::<()>("word", "word", Duration::MAX).await.map(drop)
    }
}

fn gated(name: &str) -> Make {
    Make { name: name.to_owned(), gated: true }
}

fn free(name: &str) -> Make {
    Make { name: name.to_owned(), gated: false }
}

fn registry(provider: &Arc<Provider>) -> Registry {
    Registry::default()
        .activity::<Make>(provider.clone())
        .activity::<Knock>(provider.clone())
        .workflow(MakeAll)
        .workflow(KnockAll)
        .workflow(Regret)
        .workflow(Listen)
}

struct House {
    env: Env,
    store: Arc<MemoryStore>,
    vault: Vault,
    provider: Arc<Provider>,
}

impl House {
    async fn new(gate: Gate) -> Self {
        Self::at(Env::simulated(1), vec![gate]).await
    }

    async fn at(env: Env, gates: Vec<Gate>) -> Self {
        let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
        let provider = Provider::new(&env, gates);
        Self { env, store: Arc::new(store), vault, provider }
    }

    fn engine(&self) -> Engine {
        self.on(Arc::new(self.store.another(&self.env)))
    }

    fn on(&self, store: Arc<dyn Store>) -> Engine {
        Engine::start(store, self.vault.clone(), registry(&self.provider), self.env.clone(), "test")
    }

    /// Each call of a person or of a program that shows a saga, put together.
    async fn told(&self, engine: &Engine, saga: &SagaId) -> String {
        let view = engine.view(saga).await.unwrap().unwrap();
        let why = engine.why(saga).await.unwrap().unwrap();
        let gates: Vec<String> =
            engine.gates().await.unwrap().iter().map(|gate| serde_json::to_string(gate).unwrap()).collect();
        format!(
            "{why}\n{:?}\n{}\n{:?}\n{gates:?}",
            view.row,
            story(saga, &view.entries),
            engine.plan(saga).await.unwrap()
        )
    }
}

async fn start<W: Workflow<Input = Vec<Make>>>(engine: &Engine, key: &str, things: &[Make]) -> SagaId {
    let new = engine.new_saga::<W>(key, &things.to_vec()).unwrap();
    let Started::New(saga) = engine.begin(new).await.unwrap() else { panic!() };
    saga
}

async fn until(engine: &Engine, saga: &SagaId, limit: Duration, what: impl Fn(&SagaRow) -> bool) -> SagaRow {
    let row = engine.wait(saga, limit, &what).await.unwrap().unwrap();
    if !what(&row) {
        let entries = engine.store().journal(saga).await.unwrap();
        panic!("{row:#?}\n{}\n{:#?}", story(saga, &entries), engine.gates().await.unwrap());
    }
    row
}

fn waits_at_gate(row: &SagaRow) -> bool {
    row.step.as_deref().is_some_and(|step| step.ends_with("waits at a gate"))
}

fn is_over(row: &SagaRow) -> bool {
    row.state.is_ended()
}

#[tokio::test(start_paused = true)]
async fn a_closed_gate_is_never_passed_whoever_else_is_due() {
    for company in [vec![], vec![free("b")], vec![free("b"), free("c"), gated("d"), free("e")]] {
        let house = House::new(Gate::credential("g")).await;
        let engine = house.engine();
        engine.close_gate("g", "ann", "it is being moved").await.unwrap();
        let things = [vec![gated("a")], company].concat();
        let saga = start::<MakeAll>(&engine, "one", &things).await;
        until(&engine, &saga, secs(60), waits_at_gate).await;
        house.env.sleep(secs(3600)).await;
        for thing in &things {
            let calls = house.provider.calls(&format!("make {}", thing.name));
            assert_eq!(calls, usize::from(!thing.gated), "{} among {}", thing.name, things.len());
        }
        engine.open_gate("g", "ann", "it was moved").await.unwrap();
        until(&engine, &saga, secs(60), is_over).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_for_the_step_that_asked_for_it() {
    let house = House::at(Env::simulated(1), Vec::new()).await;
    let engine = house.engine();
    engine.close_gate("shut", "ann", "it is being moved").await.unwrap();
    // They are asked about together, and what is said of them has another order than they are asked for in.
    let names = ["e", "d", "c", "b", "a"].map(str::to_owned);
    let knocks = names.map(|name| {
        let gate = if name == "a" || name == "d" { "open" } else { "shut" };
        Knock { gate: gate.to_owned(), name }
    });
    let new = engine.new_saga::<KnockAll>("all", &knocks.to_vec()).unwrap();
    engine.begin(new).await.unwrap();
    house.env.sleep(secs(60)).await;
    let mut called: Vec<String> =
        house.provider.calls.lock().unwrap().iter().map(|(_, call)| call.clone()).collect();
    called.sort();
    assert_eq!(called, ["knock a", "knock d"]);
}

#[tokio::test(start_paused = true)]
async fn who_was_let_go_does_not_pass_a_gate_that_was_closed_meanwhile() {
    let house = House::at(Env::simulated(1), Vec::new()).await;
    let store = Arc::new(house.store.another(&house.env));
    let store = Arc::new(ShakyStore::new(store, house.env.clone(), Shakes::default()));
    let driver = house.on(store.clone());
    driver.close_gate("g", "ann", "it is being moved").await.unwrap();
    // The call that is under way keeps the saga with its worker, which stands still while another lets the step go.
    let knocks = [("a", "g"), (SLOW, "h")];
    let knocks = knocks.map(|(name, gate)| Knock { name: name.to_owned(), gate: gate.to_owned() });
    let new = driver.new_saga::<KnockAll>("all", &knocks.to_vec()).unwrap();
    let saga = driver.begin(new).await.unwrap().saga().clone();
    house.env.sleep(secs(5)).await;
    assert_eq!(house.provider.calls("knock"), 1);
    store.freeze(true);
    let another = house.engine();
    another.open_gate("g", "ann", "it was moved").await.unwrap();
    house.env.sleep(secs(3)).await;
    let letters = house.store.letters(&saga).await.unwrap();
    assert!(letters.iter().any(|letter| matches!(letter.message, Message::LetGo { .. })), "{letters:?}");
    another.close_gate("g", "ann", "not yet, after all").await.unwrap();
    store.freeze(false);
    house.env.sleep(secs(600)).await;
    assert_eq!(house.provider.calls("knock a"), 0);
    another.open_gate("g", "ann", "now").await.unwrap();
    until(&another, &saga, secs(60), is_over).await;
    assert_eq!(house.provider.calls("knock a"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_429_holds_after_idle_time_and_after_a_restart_in_any_company() {
    for restarts in [false, true] {
        let house = House::new(Gate::credential("g")).await;
        let mut engine = house.engine();
        house.provider.answer("make a", too_many(600));
        let told = start::<MakeAll>(&engine, "told", &[gated("a")]).await;
        until(&engine, &told, secs(60), |row| row.fingerprint.is_some()).await;
        let closed_at = house.env.now();
        house.env.sleep(secs(14)).await;
        if restarts {
            engine.stop().await;
            engine = house.engine();
        }
        let saga = start::<MakeAll>(&engine, "one", &[gated("b"), free("c"), free("d")]).await;
        until(&engine, &saga, secs(60), waits_at_gate).await;
        let back = start::<MakeAll>(&engine, "two", &[free("e"), gated("f")]).await;
        until(&engine, &back, secs(900), is_over).await;
        for thing in ["b", "f"] {
            let at = house.provider.at(&format!("make {thing}"));
            assert!(at.iter().all(|at| at.since(closed_at) >= secs(599)), "{thing} {at:?} {closed_at}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_closing_holds_in_its_own_process_as_soon_as_it_is_answered() {
    let house = House::new(Gate::credential("g")).await;
    let engine = house.engine();
    let first = start::<MakeAll>(&engine, "first", &[gated("a")]).await;
    until(&engine, &first, secs(60), is_over).await;
    // The gate is in use, and known to be open.
    engine.close_gate("g", "ann", "at once").await.unwrap();
    let saga = start::<MakeAll>(&engine, "one", &[gated("b"), free("c")]).await;
    house.env.sleep(secs(600)).await;
    assert_eq!((house.provider.calls("make b"), house.provider.calls("make c")), (0, 1));
    engine.open_gate("g", "ann", "again").await.unwrap();
    until(&engine, &saga, secs(60), is_over).await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_at_a_gate_goes_before_those_who_come_later() {
    let house = House::at(Env::simulated(1), Vec::new()).await;
    let store = Arc::new(house.store.another(&house.env));
    let shakes = Shakes { latency: Duration::from_millis(300), ..Shakes::default() };
    let engine = house.on(Arc::new(ShakyStore::new(store, house.env.clone(), shakes)));
    let knocks = |what: &str, count: usize| -> Vec<Knock> {
        (0..count).map(|one| Knock { name: format!("{what} {one}"), gate: ONE.to_owned() }).collect()
    };
    engine.begin(engine.new_saga::<KnockAll>("first", &knocks("first", 10)).unwrap()).await.unwrap();
    house.env.sleep(secs(3)).await;
    for knock in knocks("later", 60) {
        let new = engine.new_saga::<KnockAll>(knock.name.clone(), &vec![knock]).unwrap();
        engine.begin(new).await.unwrap();
        house.env.sleep(Duration::from_millis(20)).await;
    }
    house.env.sleep(secs(300)).await;
    let (first, later) = (house.provider.at("knock first"), house.provider.at("knock later"));
    assert_eq!((first.len(), later.len()), (10, 60));
    assert!(first.iter().max() < later.iter().min(), "{first:?} {later:?}");
}

#[tokio::test(start_paused = true)]
async fn a_closing_by_another_process_is_known_within_two_seconds_however_busy_the_gate_is() {
    let house = House::new(Gate::credential("g")).await;
    let (here, there) = (house.engine(), house.engine());
    for number in 0..40_u32 {
        start::<MakeAll>(&here, &format!("{number}"), &[gated(&format!("x{number}"))]).await;
        house.env.sleep(Duration::from_millis(100)).await;
    }
    there.close_gate("g", "ann", "x").await.unwrap();
    let closed_at = house.env.now();
    for number in 40..100_u32 {
        start::<MakeAll>(&here, &format!("{number}"), &[gated(&format!("x{number}")), free("y")]).await;
        house.env.sleep(Duration::from_millis(100)).await;
    }
    let late = house.provider.at("make x").into_iter().filter(|at| at.since(closed_at) > secs(2)).count();
    assert_eq!(late, 0);
}

#[tokio::test(start_paused = true)]
async fn a_gate_whose_state_cannot_be_read_is_not_passed() {
    let house = House::new(Gate::credential("g")).await;
    let shakes = Shakes::default();
    let shaky =
        Arc::new(ShakyStore::new(Arc::new(house.store.another(&house.env)), house.env.clone(), shakes));
    let first = house.engine();
    first.close_gate("g", "ann", "x").await.unwrap();
    first.abort();
    let engine = house.on(shaky.clone());
    let saga = start::<MakeAll>(&engine, "one", &[gated("a"), free("b")]).await;
    shaky.set_shakes(Shakes { fails: 900, ..Shakes::default() });
    house.env.sleep(secs(600)).await;
    shaky.set_shakes(Shakes::default());
    house.env.sleep(secs(60)).await;
    assert_eq!(house.provider.calls("make a"), 0);
    engine.open_gate("g", "ann", "x").await.unwrap();
    until(&engine, &saga, secs(600), is_over).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_known_of_a_gate_is_good_for_two_seconds_where_it_cannot_be_looked_at() {
    let house = House::new(Gate::credential("g")).await;
    let store = Arc::new(house.store.another(&house.env));
    let store = Arc::new(ShakyStore::new(store, house.env.clone(), Shakes::default()));
    let here = house.on(store.clone());
    let mut sagas = Vec::new();
    for number in 0..50 {
        let name = format!("x{number}");
        sagas.push(start::<Regret>(&here, &name, &[gated(&name)]).await);
        house.env.sleep(Duration::from_millis(200)).await;
    }
    // They think better of it one after the other. Some have when another closes the gate, and this one cannot see it.
    while house.provider.calls("unmake") < 5 {
        house.env.sleep(Duration::from_millis(100)).await;
    }
    store.set_shakes(Shakes { fails: 1000, ..Shakes::default() });
    let there = house.engine();
    there.close_gate("g", "ann", "x").await.unwrap();
    there.abort();
    let closed_at = house.env.now();
    house.env.sleep(secs(6)).await;
    store.set_shakes(Shakes::default());
    house.env.sleep(secs(60)).await;
    let mut passed = Vec::new();
    for saga in &sagas {
        let entries = house.store.journal(saga).await.unwrap();
        let leaves = entries.iter().filter(|entry| matches!(entry.event, Event::CompensationStarted { .. }));
        passed.extend(leaves.map(|entry| entry.at.since(closed_at)));
    }
    assert!(passed.iter().all(|late| *late <= secs(2)) && passed.len() < 50, "{passed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_look_passes_its_gate_like_any_call() {
    let house = House::new(Gate::credential("g")).await;
    let engine = house.engine();
    house.provider.answer("make a", lost());
    let saga = start::<MakeAll>(&engine, "one", &[gated("a")]).await;
    until(&engine, &saga, secs(60), |row| row.step.as_deref() == Some("thing/a/make in doubt")).await;
    engine.close_gate("g", "ann", "x").await.unwrap();
    until(&engine, &saga, secs(60), waits_at_gate).await;
    house.env.sleep(secs(3600)).await;
    assert_eq!(house.provider.calls("find"), 0);
    engine.open_gate("g", "ann", "x").await.unwrap();
    until(&engine, &saga, secs(60), is_over).await;
    assert_eq!((house.provider.calls("make"), house.provider.calls("find")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_look_on_the_way_back_and_a_compensation_pass_the_gate_too() {
    let house = House::new(Gate::credential("g")).await;
    let engine = house.engine();
    house.provider.answer("make a", lost());
    let looked = start::<MakeAll>(&engine, "looked", &[gated("a"), free("b")]).await;
    let undone = start::<Regret>(&engine, "undone", &[gated("c"), free("d")]).await;
    until(&engine, &looked, secs(60), |row| row.step.as_deref() == Some("thing/a/make in doubt")).await;
    until(&engine, &undone, secs(60), |row| row.step.as_deref() == Some("think waits")).await;
    engine.close_gate("g", "ann", "x").await.unwrap();
    engine.cancel(&looked, "ann", "x").await.unwrap();
    engine.cancel(&undone, "ann", "x").await.unwrap();
    house.env.sleep(secs(3600)).await;
    let calls =
        ["find a", "unmake a", "unmake b", "unmake c", "unmake d"].map(|call| house.provider.calls(call));
    assert_eq!(calls, [0, 0, 1, 0, 1]);
    engine.open_gate("g", "ann", "x").await.unwrap();
    until(&engine, &looked, secs(60), is_over).await;
    until(&engine, &undone, secs(60), is_over).await;
    let calls = ["find a", "unmake a", "unmake c"].map(|call| house.provider.calls(call));
    assert_eq!(calls, [1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_429_told_to_a_look_stops_everybody() {
    let house = House::new(Gate::credential("g")).await;
    let engine = house.engine();
    house.provider.answer("make a", lost());
    house.provider.answer("find a", too_many(300));
    let saga = start::<MakeAll>(&engine, "one", &[gated("a")]).await;
    while house.provider.calls("find a") == 0 {
        house.env.sleep(Duration::from_millis(100)).await;
    }
    let told = house.env.now();
    let other = start::<MakeAll>(&engine, "two", &[gated("b"), free("c")]).await;
    until(&engine, &other, secs(900), is_over).await;
    until(&engine, &saga, secs(900), is_over).await;
    assert!(house.provider.at("make b")[0].since(told) >= secs(299));
    assert!(house.provider.at("find a")[1].since(told) >= secs(299));
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_passes_gates_and_a_429_that_it_is_told_stops_everybody() {
    let house = House::new(Gate::credential("g")).await;
    let engine = house.engine();
    let saga = start::<Regret>(&engine, "one", &[gated("a")]).await;
    until(&engine, &saga, secs(60), |row| row.step.as_deref() == Some("think waits")).await;
    engine.close_gate("g", "ann", "it is being moved").await.unwrap();
    let seen = engine.dry_run(&saga).await.unwrap().remove(0).seen;
    assert!(matches!(&seen, Seen::Failed(why) if why.contains("it is being moved")), "{seen:?}");
    assert_eq!(house.provider.calls("find"), 0);
    engine.open_gate("g", "ann", "it was moved").await.unwrap();
    house.env.sleep(secs(20)).await;
    house.provider.answer("find a", too_many(300));
    let seen = engine.dry_run(&saga).await.unwrap().remove(0).seen;
    assert!(matches!(&seen, Seen::Failed(why) if why.contains("too many")), "{seen:?}");
    let told = house.env.now();
    // Nobody wrote an entry of it, and yet it holds: here, in another process, and after both are gone.
    house.env.sleep(secs(3)).await;
    let there = house.engine();
    engine.stop().await;
    let other = start::<MakeAll>(&there, "two", &[gated("b"), free("c")]).await;
    until(&there, &other, secs(900), is_over).await;
    assert!(house.provider.at("make b")[0].since(told) >= secs(299));
    let gate = there.gates().await.unwrap().remove(0);
    assert_eq!(gate.closed.map(|closed| closed.by), None::<Why>);
}

#[tokio::test(start_paused = true)]
async fn looks_count_against_what_a_gate_lets_pass() {
    let house = House::new(Gate::credential("g").rate(1, secs(10))).await;
    let engine = house.engine();
    let names = ["a", "b", "c", "d"];
    names.iter().for_each(|name| house.provider.answer(&format!("make {name}"), lost()));
    let things: Vec<Make> = names.iter().map(|name| gated(name)).collect();
    let saga = start::<MakeAll>(&engine, "one", &things).await;
    until(&engine, &saga, secs(3600), is_over).await;
    let mut calls = house.provider.at("");
    calls.sort();
    assert_eq!(calls.len(), 8);
    for pair in calls.windows(2) {
        assert!(pair[1].since(pair[0]) >= secs(10), "{calls:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_time_that_stands_for_never_reaches_a_person() {
    let house = House::new(Gate::credential("g")).await;
    let engine = house.engine();
    house.provider.answer("make a", revoked());
    house.provider.answer("make l", lost());
    let forward = start::<MakeAll>(&engine, "forward", &[gated("a"), free("b")]).await;
    let doubt = start::<MakeAll>(&engine, "doubt", &[gated("l")]).await;
    let back = start::<Regret>(&engine, "back", &[free("m"), gated("c")]).await;
    let listens = start::<Listen>(&engine, "listens", &[]).await;
    until(&engine, &forward, secs(60), |row| row.attention.contains(&Attention::NeedsDecision)).await;
    engine.close_gate("g", "ann", "until there is a new token").await.unwrap();
    house.env.sleep(secs(300)).await;
    let every = Duration::from_secs(3600);
    for hours in 0..3 {
        for saga in [&forward, &doubt, &back, &listens] {
            let told = house.told(&engine, saga).await;
            for wrong in ["292", "294247", "9223372036854775807", "106751"] {
                assert!(!told.contains(wrong), "{hours} h: {wrong} in {told}");
            }
        }
        let why = engine.why(&forward).await.unwrap().unwrap();
        assert!(why.now.contains("gate g"), "what it waits for: {why}");
        assert!(why.now.contains("until there is a new token"), "and who closed it: {why}");
        assert!(why.you.contains("open"), "and what opens it: {why}");
        house.env.sleep(every).await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_calls_leave_while_a_burst_of_sagas_is_told_to_wait() {
    let house = House::new(Gate::credential("g").concurrency(2)).await;
    let (here, there) = (house.engine(), house.engine());
    house.provider.answer("make x0", too_many(600));
    let mut sagas = Vec::new();
    for number in 0..50_u32 {
        let engine = if number % 2 == 0 { &here } else { &there };
        let things = [gated(&format!("x{number}")), free("y"), gated(&format!("z{number}"))];
        sagas.push(start::<MakeAll>(engine, &format!("{number}"), &things).await);
    }
    house.env.sleep(secs(5)).await;
    let before = house.provider.calls("make x") + house.provider.calls("make z");
    house.env.sleep(secs(500)).await;
    let after = house.provider.calls("make x") + house.provider.calls("make z");
    assert_eq!(before, after);
    for saga in &sagas {
        until(&here, saga, secs(3600), is_over).await;
    }
    let mut attempts = 0;
    for saga in &sagas {
        let journal = house.store.journal(saga).await.unwrap();
        attempts +=
            journal.iter().filter(|entry| matches!(entry.event, Event::AttemptStarted { .. })).count();
    }
    assert_eq!(attempts, 151, "only the one that was told used a second attempt");
}

/// Between a gate's answer and its use there is a database and a scheduler, and they are no quicker at a quicker pace.
#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_at_a_quick_pace_on_a_slow_store_than_the_gates_say() {
    for (gates, within) in [
        (vec![Gate::credential("z").concurrency(2), Gate::spaced("a", secs(31))], secs(30)),
        (
            vec![
                Gate::credential("g").concurrency(2),
                Gate::credential("g:make").rate(20, secs(60)).burst(2),
            ],
            secs(30),
        ),
    ] {
        let house = House::at(Env::simulated(4).with_pace(100), gates).await;
        let latency = Duration::from_millis(150);
        let store =
            ShakyStore::new(house.store.clone(), house.env.clone(), Shakes { latency, ..Shakes::default() });
        let engine = house.on(Arc::new(store));
        house.provider.answer("make 3", too_many(1));
        let mut sagas = Vec::new();
        for number in 0..20 {
            sagas.push(start::<MakeAll>(&engine, &format!("{number}"), &[gated(&format!("{number}"))]).await);
        }
        let began = house.env.now();
        for saga in &sagas {
            let left = began.plus(within).since(house.env.now());
            until(&engine, saga, left, is_over).await;
        }
        println!("all after {:?}", house.env.now().since(began));
    }
}

/// A wave that stands still is moved on at the engine's pace.
#[tokio::test(start_paused = true)]
async fn a_wave_that_stands_still_at_a_quick_pace_is_moved_on_at_that_pace() {
    let house = House::at(Env::simulated(5).with_pace(100), vec![Gate::credential("g")]).await;
    let engine = house.engine();
    house.provider.answer("make 0", too_many(2));
    let mut sagas = Vec::new();
    for number in 0..15 {
        // What panics says nothing of the provider, so that each of these holds a wave up for a while.
        sagas.push(start::<MakeAll>(&engine, &format!("{number}"), &[gated(&format!("{number}"))]).await);
        house.provider.answer(
            &format!("make {number}"),
            Failure::NoAnswer { cause: Cause::Panic, detail: "nothing is known of the provider".to_owned() },
        );
    }
    let began = house.env.now();
    for saga in &sagas {
        let left = began.plus(secs(60)).since(house.env.now());
        until(&engine, saga, left, is_over).await;
    }
    println!("all after {:?}", house.env.now().since(began));
}

/// The same where the state of a gate is really shared: one file over a restart, and two processes on one server.
async fn is_never_passed(here: &Engine, there: &Engine, provider: &Provider) {
    here.close_gate("g", "ann", "it is being moved").await.unwrap();
    let mut sagas = Vec::new();
    for (number, engine) in [here, there, here, there].into_iter().enumerate() {
        let things =
            [gated(&format!("a{number}")), free(&format!("b{number}")), gated(&format!("c{number}"))];
        let saga = start::<MakeAll>(engine, &format!("{number}"), &things).await;
        until(engine, &saga, PATIENCE, waits_at_gate).await;
        sagas.push(saga);
    }
    let closed = (provider.calls("make a"), provider.calls("make c"));
    assert_eq!(closed, (0, 0), "{:?}", provider.calls.lock().unwrap());
    there.open_gate("g", "bob", "it was moved").await.unwrap();
    for saga in &sagas {
        until(here, saga, PATIENCE, is_over).await;
    }
    assert_eq!(provider.calls("make"), 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_gate_is_never_passed_on_sqlite_and_after_a_restart() {
    let env = Env::seeded(2).with_pace(10);
    let provider = Provider::new(&env, vec![Gate::credential("g")]);
    let database = Database::new(env.clone(), &[]);
    let first = database.run(registry(&provider), None).await;
    first.engine.close_gate("g", "ann", "it is being moved").await.unwrap();
    let things = [gated("x"), free("y")];
    let saga = start::<MakeAll>(&first.engine, "first", &things).await;
    until(&first.engine, &saga, PATIENCE, waits_at_gate).await;
    first.die().await;
    let heir = database.run(registry(&provider), None).await;
    let other = start::<MakeAll>(&heir.engine, "second", &[free("v"), gated("w")]).await;
    until(&heir.engine, &other, PATIENCE, waits_at_gate).await;
    assert_eq!((provider.calls("make x"), provider.calls("make w")), (0, 0));
    heir.engine.open_gate("g", "ann", "it was moved").await.unwrap();
    for saga in [&saga, &other] {
        until(&heir.engine, saga, PATIENCE, is_over).await;
    }
    provider.calls.lock().unwrap().clear();
    is_never_passed(&heir.engine, &heir.engine, &provider).await;
    heir.engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_gate_is_never_passed_by_two_processes_on_postgres() {
    let server = Server::shared();
    let base = server.database();
    let env = Env::seeded(3).with_pace(10);
    let provider = Provider::new(&env, vec![Gate::credential("g")]);
    let mut engines = Vec::new();
    for _ in 0..2 {
        let (store, vault) = base.open(&[], &env).await;
        engines.push(Engine::start(Arc::new(store), vault, registry(&provider), env.clone(), "test"));
    }
    is_never_passed(&engines[0], &engines[1], &provider).await;
    for engine in engines {
        engine.stop().await;
    }
}

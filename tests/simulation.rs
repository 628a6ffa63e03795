//! Whole clusters in one thread, from a seed: three workers that die, freeze and come back, an API whose answers get
//! lost, operators, a sweep, and providers that fail in every way; then the faults stop, and everything must end.
//!
//! `AMENDS_SIMULATION_SEEDS` says how many (1,000 if not said), `AMENDS_SIMULATION_SEED` replays one and tells its
//! stories.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends_engine::env::Timestamp;
use amends_engine::journal::state::SagaState;
use amends_engine::journal::{Act, State, story};
use amends_engine::store::memory::MemoryStore;
use amends_engine::store::{
    Letter, Message, NewSaga, ResourceFilter, ResourceRow, ResourceState, SagaFilter, SagaRow, Started, Store,
};
use amends_engine::testing::inject::{Injector, Rates};
use amends_engine::testing::shaky::{Shakes, ShakyStore};
use amends_engine::{Engine, Env, Registry, SagaId, Workflow, secs};
use amends_tests::yard::{
    Choice, Drawing, Family, NOTES, Parallel, Racing, Straight, Waiting, Yard, registry,
};

/// How long things go wrong.
const STORM: Duration = secs(3600);
/// How long everything may take to end after that.
const CALM: Duration = secs(12 * 3600);
const WORKERS: usize = 3;

#[derive(Debug, Default)]
struct Told {
    sagas: usize,
    ended: BTreeMap<String, usize>,
    faults: BTreeMap<String, u64>,
    hours: f64,
    violations: Vec<String>,
    stories: String,
    /// Of every journal: what a replay of the same seed has in common.
    hash: u64,
}

/// One seed's cluster.
struct Cluster {
    env: Env,
    store: Arc<MemoryStore>,
    yard: Arc<Yard>,
    injector: Injector,
    registry: Registry,
    vault: amends_engine::secret::Vault,
    shakes: Shakes,
    faults: Mutex<BTreeMap<String, u64>>,
    /// Starts that were acknowledged: the key, and which saga it was.
    started: Mutex<BTreeMap<String, SagaId>>,
    violations: Mutex<Vec<String>>,
}

struct Worker {
    engine: Engine,
    store: Arc<ShakyStore>,
}

impl Cluster {
    async fn new(seed: u64) -> Self {
        let env = Env::simulated(seed);
        let (store, vault) = MemoryStore::new(NOTES, &env).await.unwrap();
        let store = Arc::new(store);
        let yard = Arc::new(Yard::watched(env.clone(), store.clone()));
        let injector = Injector::new(env.clone());
        let registry = injector.around(registry(&yard));
        // Each seed has its own mix: what is off in one shows what the others hide.
        let some = |most: u64| if env.below(2) == 0 { 0 } else { env.below(most) };
        injector.set_rates(Rates {
            refused: some(30),
            unavailable: some(200),
            lost: some(200),
            twice: some(100),
            latency: Duration::from_millis(1 + some(8000)),
        });
        let shakes = Shakes {
            fails: some(100),
            answer_lost: some(100),
            latency: Duration::from_millis(1 + some(2000)),
        };
        Self {
            env,
            store,
            yard,
            injector,
            registry,
            vault,
            shakes,
            faults: Mutex::default(),
            started: Mutex::default(),
            violations: Mutex::default(),
        }
    }

    fn count(&self, fault: &str) {
        *self.faults.lock().unwrap().entry(fault.to_owned()).or_default() += 1;
    }

    fn worker(&self, shakes: Shakes) -> Worker {
        let handle = Arc::new(self.store.another(&self.env));
        let store = Arc::new(ShakyStore::new(handle, self.env.clone(), shakes));
        let engine = Engine::start(
            store.clone(),
            self.vault.clone(),
            self.registry.clone(),
            self.env.clone(),
            "simulation",
        );
        Worker { engine, store }
    }

    async fn some_time(&self, at_most: Duration) {
        let micros = u64::try_from(at_most.as_micros()).unwrap();
        self.env.sleep(Duration::from_micros(self.env.below(micros))).await;
    }

    /// Workers that die and come back, or freeze for longer than their lease and go on as if nothing had happened.
    async fn workers(&self, storm_ends: Timestamp) -> Vec<Worker> {
        let mut workers: Vec<Worker> = (0..WORKERS).map(|_| self.worker(self.shakes)).collect();
        while self.env.now() < storm_ends {
            self.some_time(secs(240)).await;
            let place = usize::try_from(self.env.below(WORKERS as u64)).unwrap();
            if self.env.below(3) > 0 {
                self.count("worker killed");
                let dead = workers.remove(place);
                dead.engine.abort();
                *self.faults.lock().unwrap().entry("store shaken".into()).or_default() += dead.store.shaken();
                self.some_time(secs(60)).await;
                workers.push(self.worker(self.shakes));
            } else {
                self.count("worker frozen");
                workers[place].store.freeze(true);
                self.some_time(secs(90)).await;
                workers[place].store.freeze(false);
            }
        }
        for worker in &workers {
            worker.store.set_shakes(Shakes::default());
        }
        workers
    }

    fn saga(&self, number: u64) -> NewSaga {
        fn of<W: Workflow<Input = String>>(env: &Env, name: String) -> NewSaga {
            NewSaga::of::<W>(env, name.clone(), &name).unwrap()
        }
        let name = format!("n{number}");
        let env = &self.env;
        let new = match self.env.below(7) {
            0 => of::<Straight>(env, name),
            1 => of::<Parallel>(env, name),
            2 => of::<Choice>(env, name),
            3 => of::<Racing>(env, name),
            4 => of::<Family>(env, name),
            5 => of::<Drawing>(env, name),
            _ => of::<Waiting>(env, name),
        };
        match self.env.below(8) {
            0 => new.delayed(env, secs(300)),
            1 => new.priority(5),
            2 => new.one_of("customer-7", 2),
            3 => new.within(env, secs(40)),
            _ => new,
        }
    }

    /// A client that starts a saga until it is told that it is started.
    async fn client(&self, number: u64) {
        self.some_time(STORM).await;
        let api = ShakyStore::new(self.store.clone(), self.env.clone(), self.shakes);
        let new = self.saga(number);
        let (key, mut id) = (new.key.clone(), None);
        let mut tries = 1 + self.env.below(2);
        while tries > 0 {
            // What is sent again is the same request under another id of ours.
            let again = NewSaga { id: SagaId::from_uuid(self.env.uuid()), ..new.clone() };
            match api.start(again).await {
                Ok(Started::New(saga) | Started::Before(saga)) => {
                    let first = id.get_or_insert(saga.clone()).clone();
                    if first != saga {
                        self.violations.lock().unwrap().push(format!("{key}: one key, two sagas"));
                    }
                    tries -= 1;
                }
                Ok(Started::KeyReused(_)) => {
                    self.violations.lock().unwrap().push(format!("{key}: not known again"));
                    return;
                }
                Err(_) => self.some_time(secs(10)).await,
            }
        }
        let saga = id.unwrap();
        self.started.lock().unwrap().insert(key, saga.clone());
        self.operator(&saga).await;
    }

    /// Somebody who acts on one saga, now and then.
    async fn operator(&self, saga: &SagaId) {
        for number in 0..self.env.below(4) {
            self.some_time(secs(600)).await;
            let (actor, reason) = ("ann".to_owned(), "to see what happens".to_owned());
            let operation = amends_engine::ids::OperationId::from_uuid(self.env.uuid());
            let act = match self.env.below(5) {
                0 => Act::Cancel,
                1 => Act::Pause { until: self.env.now().plus(secs(1 + self.env.below(900))) },
                2 => Act::Resume,
                _ => Act::Retry,
            };
            let message = if self.env.below(3) == 0 {
                Message::Signal { name: "word".into(), value: "hello".into() }
            } else {
                self.count(&format!("act {}", act.kind()));
                Message::Act { operation: operation.clone(), act, actor, reason }
            };
            let letter = Letter {
                id: format!("{operation}-{number}"),
                saga: saga.clone(),
                message,
                at: self.env.now(),
            };
            let _ = self.store.post(letter).await;
        }
    }

    /// Compares the ledger with what is there, for ever: never on first sight, and nothing that may be in the making.
    async fn sweep(&self) {
        let mut seen: BTreeSet<String> = BTreeSet::new();
        loop {
            self.env.sleep(secs(120)).await;
            // The census first: what is made after it is not in it, and what was made before is on the ledger.
            let things = self.yard.things();
            let rows = ledger(&self.store).await;
            let known = |name: &str, id: &str| {
                rows.iter().any(|row| match row.state {
                    ResourceState::Gone => false,
                    ResourceState::Intended | ResourceState::InDoubt => row.name == name,
                    _ => row.external_id.as_deref() == Some(id),
                })
            };
            let orphans: BTreeSet<String> = things
                .iter()
                .filter(|thing| !known(&thing.name, &thing.id))
                .map(|thing| thing.id.clone())
                .collect();
            for id in orphans.intersection(&seen) {
                self.count("orphan swept");
                self.yard.remove(id);
            }
            seen = orphans;
        }
    }

    async fn live(&self, seed: u64) -> Told {
        let began = self.env.now();
        let storm_ends = began.plus(STORM);
        let clients = 5 + self.env.below(16);
        let storm = async {
            let clients = futures::future::join_all((0..clients).map(|number| self.client(number)));
            let (_, workers) = tokio::join!(clients, self.workers(storm_ends));
            workers
        };
        let all = async {
            let workers = storm.await;
            self.injector.set_rates(Rates::default());
            let ends = async {
                while open(&self.store).await > 0 {
                    self.env.sleep(secs(30)).await;
                }
            };
            let in_time = tokio::time::timeout(CALM, ends).await.is_ok();
            // What commits late lands, and the sweep has looked twice.
            self.env.sleep(secs(600)).await;
            for worker in workers {
                worker.engine.abort();
            }
            in_time
        };
        let in_time = tokio::select! {
            biased;
            in_time = all => in_time,
            () = self.sweep() => unreachable!("it sweeps for ever"),
        };
        self.yard.forget();
        self.check(seed, in_time, began).await
    }

    async fn check(&self, seed: u64, in_time: bool, began: Timestamp) -> Told {
        let mut told = Told {
            faults: self.faults.lock().unwrap().clone(),
            hours: self.env.now().since(began).as_secs_f64() / 3600.0,
            violations: std::mem::take(&mut *self.violations.lock().unwrap()),
            ..Told::default()
        };
        told.violations.append(&mut self.yard.violations.lock().unwrap());
        for (_, fault) in self.injector.fired() {
            *told.faults.entry(fault.to_string()).or_default() += 1;
        }
        let rows = sagas(&self.store).await;
        told.sagas = rows.len();
        let mut broken = |problem: String| told.violations.push(format!("seed {seed}: {problem}"));
        if !in_time {
            let open: Vec<_> = rows.iter().filter(|row| !row.state.is_ended()).collect();
            broken(format!("not ended: {open:#?}"));
        }
        for (key, saga) in self.started.lock().unwrap().iter() {
            if !rows.iter().any(|row| row.id == *saga) {
                broken(format!("the start of {key} was acknowledged, and {saga} is not there"));
            }
        }
        let mut hash = std::hash::DefaultHasher::new();
        for row in &rows {
            *told.ended.entry(row.state.to_string()).or_default() += 1;
            let entries = self.store.journal(&row.id).await.unwrap();
            std::hash::Hash::hash(&serde_json::to_string(&entries).unwrap(), &mut hash);
            let in_order = entries.iter().zip(1..).all(|(entry, seq)| entry.seq == seq);
            if !in_order || !entries.is_sorted_by_key(|entry| entry.epoch) {
                broken(format!("{}: its journal has a gap, or its epochs fall", row.id));
            }
            match State::fold(row.id.clone(), &entries) {
                Ok(state) if state.state() == row.state => {}
                Ok(state) => {
                    broken(format!("{}: its row says {}, its journal {}", row.id, row.state, state.state()))
                }
                Err(illegal) => broken(format!("{}: {illegal}", row.id)),
            }
            let _ = writeln!(told.stories, "{} {}\n{}", row.id, row.state, story(&row.id, &entries));
        }
        told.hash = std::hash::Hasher::finish(&hash);
        let ledger = ledger(&self.store).await;
        for row in ledger.iter().filter(|row| row.state != ResourceState::Gone) {
            let holder = rows.iter().find(|saga| saga.id.as_str() == row.holder);
            let is_right = row.state == ResourceState::Live
                && holder.is_some_and(|saga| saga.state == SagaState::Completed);
            if !is_right {
                broken(format!("the ledger is not closed: {row:?}"));
            }
        }
        let live: BTreeSet<&str> = ledger
            .iter()
            .filter(|row| row.state == ResourceState::Live)
            .filter_map(|row| row.external_id.as_deref())
            .collect();
        let things = self.yard.things();
        let there: BTreeSet<&str> = things.iter().map(|thing| thing.id.as_str()).collect();
        for id in there.difference(&live) {
            let name = things.iter().find(|thing| thing.id == *id).map(|thing| thing.name.clone());
            broken(format!("{id} ({name:?}) is there, and on no ledger"));
        }
        for id in live.difference(&there) {
            broken(format!("{id} is on the ledger, and not there"));
        }
        self.check_notes(&rows, &mut broken).await;
        told
    }

    /// Our own table agrees too: a line for each that completed, none for what was taken back.
    async fn check_notes(&self, rows: &[SagaRow], broken: &mut impl FnMut(String)) {
        let notes = self.store.fetch("select text from note order by text".into(), vec![]).await.unwrap();
        let notes: Vec<String> = notes.iter().map(|row| row.text("text").unwrap()).collect();
        let mut wanted = Vec::new();
        for row in rows.iter().filter(|row| row.workflow == "straight" && row.state == SagaState::Completed) {
            let entries = self.store.journal(&row.id).await.unwrap();
            let state = State::fold(row.id.clone(), &entries).unwrap();
            let name = state.input.as_str().unwrap_or_default().to_owned();
            wanted.extend([format!("{name}-begun"), format!("{name}-signed")]);
        }
        wanted.sort();
        if notes != wanted {
            broken(format!("our own table holds {notes:?} instead of {wanted:?}"));
        }
    }
}

async fn sagas(store: &MemoryStore) -> Vec<SagaRow> {
    store.sagas(SagaFilter { limit: u32::MAX, ..SagaFilter::default() }).await.unwrap()
}

async fn open(store: &MemoryStore) -> usize {
    sagas(store).await.iter().filter(|row| !row.state.is_ended()).count()
}

async fn ledger(store: &MemoryStore) -> Vec<ResourceRow> {
    store.resources(ResourceFilter { limit: u32::MAX, ..ResourceFilter::default() }).await.unwrap()
}

fn simulate(seed: u64) -> Told {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async { Cluster::new(seed).await.live(seed).await })
}

fn wanted(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn whatever_goes_wrong_in_a_cluster_everything_ends_and_nothing_is_left_or_doubled() {
    if let Some(seed) = wanted("AMENDS_SIMULATION_SEED") {
        let told = simulate(seed);
        println!("{}\n{:#?}", told.stories, told.violations);
        assert!(told.violations.is_empty());
        return;
    }
    // A panic that the engine catches is a violation too.
    static PANICS: AtomicU64 = AtomicU64::new(0);
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        told(panic);
    }));
    let seeds = wanted("AMENDS_SIMULATION_SEEDS").unwrap_or(1_000);
    let next = AtomicU64::new(1);
    let all: Mutex<Vec<(u64, Told)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let failed = all.lock().unwrap().iter().any(|(_, told)| !told.violations.is_empty());
                    if seed > seeds || failed {
                        return;
                    }
                    let told = std::panic::catch_unwind(|| simulate(seed)).unwrap_or_else(|_| Told {
                        violations: vec![format!("seed {seed}: it panicked")],
                        ..Told::default()
                    });
                    all.lock().unwrap().push((seed, Told { stories: String::new(), ..told }));
                }
            });
        }
    });
    let all = all.into_inner().unwrap();
    let (mut sagas, mut hours) = (0, 0.0);
    let (mut ended, mut faults) = (BTreeMap::<&str, usize>::new(), BTreeMap::<&str, u64>::new());
    let mut violations = Vec::new();
    for (_, told) in &all {
        sagas += told.sagas;
        hours += told.hours;
        told.ended.iter().for_each(|(state, count)| *ended.entry(state).or_default() += count);
        told.faults.iter().for_each(|(fault, count)| *faults.entry(fault).or_default() += count);
        violations.extend(&told.violations);
    }
    eprintln!(
        "{} seeds, {sagas} sagas, {hours:.0} simulated hours, {} violations",
        all.len(),
        violations.len()
    );
    eprintln!("ended: {ended:?}\nfaults: {faults:?}");
    assert!(violations.is_empty(), "{violations:#?}");
    assert!(PANICS.load(Ordering::Relaxed) == 0, "something panicked");
    for fault in ["worker killed", "worker frozen", "commits_late", "lost_after", "refused", "twice"] {
        assert!(seeds < 100 || faults.contains_key(fault), "{fault} never happened");
    }
}

#[test]
fn a_seed_replays_identically() {
    for seed in [3, 14, 15] {
        let (first, second) = (simulate(seed), simulate(seed));
        assert!(first.hash == second.hash && first.stories == second.stories, "seed {seed} differs");
        assert!(first.sagas > 0);
    }
}

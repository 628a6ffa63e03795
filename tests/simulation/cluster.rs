//! Cluster: one seed's workers, store and yard, and the hour in which everything goes wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends_engine::activity::retry;
use amends_engine::env::Timestamp;
use amends_engine::store::lease;
use amends_engine::store::memory::MemoryStore;
use amends_engine::sweep::Sweep;
use amends_engine::testing::inject::{Injector, Rates};
use amends_engine::testing::person::settle_all;
use amends_engine::testing::shaky::{Shakes, ShakyStore};
use amends_engine::{Engine, Env, Registry, SagaId, secs};
use amends_tests::yard::{NOTES, Yard, registry};

use crate::watch::Watch;

/// How long things go wrong.
const STORM: Duration = secs(3600);
/// How often somebody looks in on what only a person can decide.
const DUTY: Duration = secs(600);
/// The longest that any saga of the yard waits by its own will: the slow way up, twice paused.
const WILL: Duration = secs(3600 + 600 + 2 * 900);
/// The longest pause that an operator asks for.
pub(crate) const PAUSE: Duration = secs(900);
/// How long before a step is given up that does not get through.
const GIVE_UP: Duration = secs(3600);
const WORKERS: usize = 3;

/// How long everything may take to end once nothing goes wrong any more: a lease to run out, the longest wait between
/// two tries on the way there and one on the way back, a person to come by for either, a step to be given up, and what
/// the sagas wait for by themselves.
fn calm() -> Duration {
    lease::LEASE + 2 * retry::CAP + 2 * DUTY + GIVE_UP + PAUSE + WILL
}

/// What one seed came to.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) sagas: usize,
    pub(crate) ended: BTreeMap<String, usize>,
    pub(crate) faults: BTreeMap<String, u64>,
    /// How often the cluster was looked at while it ran.
    pub(crate) looks: u64,
    pub(crate) hours: f64,
    pub(crate) violations: Vec<String>,
    pub(crate) stories: String,
    /// Of every journal: what a replay of the same seed has in common.
    pub(crate) hash: u64,
}

/// One seed's cluster.
pub(crate) struct Cluster {
    pub(crate) env: Env,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) yard: Arc<Yard>,
    pub(crate) injector: Injector,
    registry: Registry,
    vault: amends_engine::secret::Vault,
    pub(crate) shakes: Shakes,
    /// How many sagas a worker keeps in memory.
    live_max: usize,
    pub(crate) faults: Mutex<BTreeMap<String, u64>>,
    /// The processes that run.
    fronts: Mutex<Vec<Engine>>,
    /// Starts that were acknowledged: the key, and which saga it was.
    pub(crate) started: Mutex<BTreeMap<String, SagaId>>,
    /// How many acts were accepted by the store.
    pub(crate) acts: Mutex<usize>,
    pub(crate) violations: Mutex<Vec<String>>,
}

pub(crate) struct Worker {
    pub(crate) engine: Engine,
    store: Arc<ShakyStore>,
}

impl Cluster {
    pub(crate) async fn new(seed: u64) -> Self {
        let env = Env::simulated(seed);
        let (store, vault) = MemoryStore::new(NOTES, &env).await.unwrap();
        let store = Arc::new(store);
        let yard = Arc::new(Yard::watched(env.clone(), store.clone()));
        let injector = Injector::new(env.clone());
        let sweep = Sweep { every: secs(120), grace: secs(120), removes: true, ..Sweep::default() };
        let registry = injector.around(registry(&yard)).sweep(sweep);
        // Each seed has its own mix: what is off in one shows what the others hide.
        let some = |most: u64| if env.below(2) == 0 { 0 } else { env.below(most) };
        injector.set_rates(Rates {
            refused: some(30),
            unavailable: some(200),
            lost: some(200),
            twice: some(100),
            limited: some(50),
            panics: some(50),
            straggles: some(50),
            latency: Duration::from_millis(1 + some(8000)),
        });
        let shakes = Shakes {
            fails: some(100),
            answer_lost: some(100),
            latency: Duration::from_millis(1 + some(2000)),
        };
        let live_max = if env.below(3) == 0 { 1 + usize::try_from(env.below(4)).unwrap() } else { 4096 };
        Self {
            env,
            store,
            yard,
            injector,
            registry,
            vault,
            shakes,
            live_max,
            faults: Mutex::default(),
            fronts: Mutex::default(),
            started: Mutex::default(),
            acts: Mutex::default(),
            violations: Mutex::default(),
        }
    }

    pub(crate) fn count(&self, fault: &str) {
        *self.faults.lock().unwrap().entry(fault.to_owned()).or_default() += 1;
    }

    pub(crate) fn worker(&self, shakes: Shakes) -> Worker {
        let handle = Arc::new(self.store.another(&self.env));
        let store = Arc::new(ShakyStore::new(handle, self.env.clone(), shakes));
        let engine = Engine::start_bounded(
            store.clone(),
            self.vault.clone(),
            self.registry.clone(),
            self.env.clone(),
            "simulation",
            self.live_max,
        );
        Worker { engine, store }
    }

    /// One of the processes that run, for a start.
    pub(crate) fn front(&self) -> Option<Engine> {
        let fronts = self.fronts.lock().unwrap();
        let place = usize::try_from(self.env.below(WORKERS as u64)).unwrap();
        fronts.get(place).cloned()
    }

    fn runs(&self, workers: &[Worker]) {
        *self.fronts.lock().unwrap() = workers.iter().map(|worker| worker.engine.clone()).collect();
    }

    pub(crate) async fn some_time(&self, at_most: Duration) {
        let micros = u64::try_from(at_most.as_micros()).unwrap();
        self.env.sleep(Duration::from_micros(self.env.below(micros))).await;
    }

    /// Workers that die and come back, or freeze for longer than their lease and go on as if nothing had happened.
    async fn workers(&self, storm_ends: Timestamp) -> Vec<Worker> {
        let mut workers: Vec<Worker> = (0..WORKERS).map(|_| self.worker(self.shakes)).collect();
        while self.env.now() < storm_ends {
            self.runs(&workers);
            self.some_time(secs(240)).await;
            let place = usize::try_from(self.env.below(WORKERS as u64)).unwrap();
            if self.env.below(3) > 0 {
                self.count("worker killed");
                let dead = workers.remove(place);
                self.runs(&workers);
                dead.engine.abort();
                *self.faults.lock().unwrap().entry("store shaken".into()).or_default() += dead.store.shaken();
                self.some_time(secs(60)).await;
                workers.push(self.worker(self.shakes));
            } else {
                self.count("worker frozen");
                workers[place].store.freeze(true);
                self.some_time(secs(150)).await;
                workers[place].store.freeze(false);
            }
        }
        for worker in &workers {
            worker.store.set_shakes(Shakes::default());
        }
        workers
    }

    /// Somebody who comes by and says what came of what the engine cannot tell.
    async fn person(&self) {
        loop {
            self.env.sleep(DUTY).await;
            let settled = settle_all(self.store.as_ref(), &self.injector, &self.env).await.unwrap();
            *self.acts.lock().unwrap() += settled;
            (0..settled).for_each(|_| self.count("settled by a person"));
        }
    }

    pub(crate) async fn live(&self, seed: u64) -> Told {
        let began = self.env.now();
        let storm_ends = began.plus(STORM);
        let clients = 5 + self.env.below(16);
        let office = self.worker(self.shakes);
        let storm = async {
            let clients =
                futures::future::join_all((0..clients).map(|number| self.client(number, &office, STORM)));
            let (_, _, workers) = tokio::join!(clients, self.in_bulk(STORM), self.workers(storm_ends));
            workers
        };
        let all = async {
            let workers = storm.await;
            office.store.set_shakes(Shakes::default());
            self.injector.set_rates(Rates::default());
            let ends = async {
                while self.open().await > 0 {
                    self.env.sleep(secs(30)).await;
                }
            };
            let in_time = tokio::time::timeout(calm(), ends).await.is_ok();
            // What commits late lands, the sweep has looked twice, and its removals have been seen to be done.
            self.env.sleep(secs(1800)).await;
            workers.iter().for_each(|worker| worker.engine.abort());
            in_time
        };
        let watch = Watch::default();
        let in_time = tokio::select! {
            biased;
            in_time = all => in_time,
            () = self.person() => unreachable!("there is always somebody on duty"),
            () = watch.keep(self) => unreachable!("it watches for ever"),
        };
        office.engine.abort();
        self.yard.forget();
        watch.look(self).await;
        self.told(seed, in_time, began, &watch).await
    }

    async fn open(&self) -> usize {
        self.store.look(|moment| moment.sagas().filter(|seen| !seen.row.state.is_ended()).count()).await
    }
}

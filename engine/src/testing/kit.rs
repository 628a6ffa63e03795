//! The kit: tries a saga in every way in which its calls, its process and its operators can go wrong.
//!
//! Give it a workflow, an input and a fresh world of fakes; it runs the saga once as it should go, and lets that run
//! say how many doors there are. Then, a world each: the process dies before and after every write, or stands still
//! there while another takes over; every call is refused, unavailable, lost before or after it happened, commits
//! late or at the last moment, arrives twice; every undo fails so too, and three times in a row; the saga is cancelled behind every write;
//! and many worlds in which all of that happens at random. In each the saga must end whole or leave nothing, its
//! ledger must be closed, nothing may be there twice, and the fault must have happened. Where the registry has a
//! [provider](crate::Registry::provider), a create may also land long after everybody has given it up, and the sweep has
//! to take it.
//!
//! ```
//! # use std::sync::{Arc, Mutex};
//! # use amends_engine::{Activity, Call, Effect, Failure, Found, Registry, Resource, Saga, Workflow, saga, secs};
//! # #[derive(serde::Serialize, serde::Deserialize)]
//! # struct RentMachine { name: String }
//! # type Cloud = Mutex<Vec<String>>;
//! # impl Activity for RentMachine {
//! #     const NAME: &'static str = "cloud.rent_machine";
//! #     const EFFECT: Effect = Effect::Searchable { settle_after: secs(1) };
//! #     type Client = Cloud;
//! #     type Output = String;
//! #     fn resource(&self, call: &Call) -> Option<Resource> {
//! #         Some(Resource::new("cloud", "machine", call.name(&self.name)))
//! #     }
//! #     async fn execute(&self, cloud: &Cloud, call: &Call) -> Result<String, Failure> {
//! #         cloud.lock().unwrap().push(call.name(&self.name));
//! #         Ok(call.name(&self.name))
//! #     }
//! #     async fn find(&self, cloud: &Cloud, call: &Call) -> Result<Found<String>, Failure> {
//! #         let name = call.name(&self.name);
//! #         let is_there = cloud.lock().unwrap().contains(&name);
//! #         Ok(if is_there { Found::Usable(name) } else { Found::Nothing })
//! #     }
//! #     async fn compensate(&self, cloud: &Cloud, made: &String, _: &Call) -> Result<(), Failure> {
//! #         cloud.lock().unwrap().retain(|machine| machine != made);
//! #         Ok(())
//! #     }
//! # }
//! # struct OpenShop;
//! # impl Workflow for OpenShop {
//! #     const NAME: &'static str = "open-shop";
//! #     const VERSION: u32 = 1;
//! #     type Input = u32;
//! #     type Output = ();
//! #     async fn run(&self, saga: &Saga, _: u32) -> saga::Result<()> {
//! #         saga.step("machine", RentMachine { name: "shop-1".into() }).await?;
//! #         Ok(())
//! #     }
//! # }
//! use amends_engine::testing::kit::{Kit, World};
//!
//! // The saga and the cloud of the crate's first page, in a plain `#[test]`.
//! fn a_shop_is_opened_or_leaves_nothing() {
//!     let report = Kit::<OpenShop>::new(100, || {
//!         let cloud = Arc::new(Cloud::default());
//!         let registry = Registry::default().activity::<RentMachine>(cloud.clone()).workflow(OpenShop);
//!         World::new(registry, move || cloud.lock().unwrap().clone())
//!     })
//!     .run();
//!     println!("{report}");
//!     assert_eq!(report.reached, report.points, "something went wrong at every point");
//! }
//! # a_shop_is_opened_or_leaves_nothing();
//! ```
//!
//! - It is a plain `#[test]`, without `tokio::test`: each world has a runtime of its own, whose clock runs ahead. So
//!   fakes do no real IO and wait for nothing but tokio's time.
//! - A fake that is called twice makes a second thing: a list, not a set, or what is made twice is not seen. Only what
//!   is [repeatable](crate::Effect) makes one. Faults are put around the fakes, which know of none.
//! - A thing's name is the same in every world, and worlds differ in their dice: it is made of the input, and holds no
//!   id of a saga, no [`Call::key`](crate::Call::key) or [`tag`](crate::Call::tag), no drawn value and no time. What is
//!   made anew because its only answer was lost bears [its generation](crate::Call::name) (`shop-1-g2`); say so with
//!   [`may_leave`](Kit::may_leave).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use strum::IntoEnumIterator;

use super::crash::{Crash, CrashingStore};
use super::inject::{Fault, Injector, Point, Rates, Seen, Verb, fits, may_straggle};
use super::person::settle_all;
use crate::activity::{Effect, Registry, secs};
use crate::engine::Engine;
use crate::env::Env;
use crate::ids::{OperationId, SagaId};
use crate::journal::act::Act;
use crate::journal::state::SagaState;
use crate::journal::{State, story, why};
use crate::saga::Workflow;
use crate::store::memory::MemoryStore;
use crate::store::open::Migrations;
use crate::store::{
    Letter, Message, NewSaga, ResourceFilter, ResourceRow, ResourceState, SagaFilter, Started, Store,
};
use crate::sweep::Sweep;

/// A saga that has not ended after so long, with all faults over, never will.
const PATIENCE: Duration = Duration::from_secs(2 * 24 * 3600);
/// How long it takes until a person comes by.
const DUTY: Duration = Duration::from_secs(600);
/// Whatever commits late has landed after this.
const LANDED: Duration = Duration::from_secs(600);
/// And the sweep has seen it, seen it again, removed it, and seen that it is gone.
const SWEPT: Duration = Duration::from_secs(3 * 3600);
/// How often an undo fails in a row where it fails more than once.
const IN_A_ROW: usize = 3;

/// A fresh world: what the saga's activities are called with, and a look at what is there.
pub struct World {
    registry: Registry,
    things: Box<dyn Fn() -> Vec<String>>,
    own: &'static [Migrations],
    rows: Option<&'static str>,
}

impl World {
    /// The registry with the fakes in it, and what exists outside now: each thing by a name that is the same in
    /// every world, as often as it is there.
    pub fn new(registry: Registry, things: impl Fn() -> Vec<String> + 'static) -> Self {
        Self { registry, things: Box::new(things), own: &[], rows: None }
    }

    fn is_swept(&self) -> bool {
        self.registry.providers().iter().next().is_some()
    }

    /// With tables of the program's own, and a query for what in them counts as being there.
    #[must_use]
    pub fn tables(mut self, own: &'static [Migrations], rows: &'static str) -> Self {
        self.own = own;
        self.rows = Some(rows);
        self
    }
}

/// What the kit tried.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// How many worlds of each kind there were.
    pub worlds: BTreeMap<&'static str, usize>,
    /// The calls and writes that exist on the way there and on the way back.
    pub points: usize,
    /// Those at which something went wrong in some world.
    pub reached: usize,
    /// How many faults there were in all.
    pub faults: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let worlds: usize = self.worlds.values().sum();
        write!(
            f,
            "{worlds} worlds, {} faults, {} of {} points reached (",
            self.faults, self.reached, self.points
        )?;
        let kinds = self.worlds.iter().map(|(kind, count)| format!("{kind} {count}"));
        write!(f, "{})", kinds.collect::<Vec<_>>().join(", "))
    }
}

/// Tries one saga.
pub struct Kit<W: Workflow> {
    input: W::Input,
    world: Box<dyn Fn() -> World>,
    signals: Vec<(String, Value)>,
    seeds: u64,
    also_right: Vec<Vec<String>>,
}

/// One world to be lived through.
#[derive(Debug, Clone, Default)]
struct Scenario {
    faults: Vec<(Point, Fault)>,
    crash: Option<Crash>,
    cancel_behind: Option<usize>,
    rates: Rates,
    seed: u64,
    /// Whether the sweep runs, and the world is given time for it.
    is_swept: bool,
}

struct Ending {
    state: SagaState,
    things: Vec<String>,
    rows: Vec<ResourceRow>,
    saga: SagaId,
    appends: usize,
    crashed: bool,
    seen: Vec<Seen>,
    fired: Vec<(Point, Fault)>,
    story: String,
}

impl<W: Workflow> Kit<W> {
    /// Tries the saga with this input, in worlds that `world` makes afresh each time. The registry of each has the
    /// workflow in it.
    pub fn new(input: W::Input, world: impl Fn() -> World + 'static) -> Self {
        Self { input, world: Box::new(world), signals: Vec::new(), seeds: 40, also_right: Vec::new() }
    }

    /// Leaves this signal in the saga's inbox at its start.
    #[must_use]
    pub fn signal(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.signals.push((name.to_owned(), value.into()));
        self
    }

    /// It may also end with these things there: another way that it may take, or what is done whichever way it ends.
    #[must_use]
    pub fn may_leave(mut self, things: &[&str]) -> Self {
        self.also_right.push(sorted(things.iter().map(|thing| (*thing).to_owned()).collect()));
        self
    }

    /// So many worlds of random faults and latencies (40 if not said).
    #[must_use]
    pub fn seeds(mut self, seeds: u64) -> Self {
        self.seeds = seeds;
        self
    }

    /// Runs every world.
    ///
    /// # Panics
    /// A world did not end as it must: says which, and tells the saga's story in it.
    pub fn run(&self) -> Report {
        let mut report = Report::default();
        let nothing = self.before();
        let whole = self.live(&Scenario::default());
        assert!(
            whole.state == SagaState::Completed,
            "the saga does not complete where nothing goes wrong:\n{}",
            whole.story
        );
        self.check(&Scenario::default(), &whole, &whole.things, &nothing);
        let back = self.way_back(&whole);
        let mut scenarios: Vec<(&'static str, Scenario)> = Vec::new();
        for base in std::iter::once((&whole, Vec::new()))
            .chain(back.iter().map(|(fault, end)| (end, vec![fault.clone()])))
        {
            let (run, faults) = base;
            for at in 1..=run.appends {
                for (kind, crash) in
                    [("crash", Crash::Before(at)), ("crash", Crash::After(at)), ("stall", Crash::Stall(at))]
                {
                    scenarios.push((
                        kind,
                        Scenario { faults: faults.clone(), crash: Some(crash), ..Scenario::default() },
                    ));
                }
            }
        }
        for seen in whole.seen.iter().filter(|seen| matches!(seen.point.verb, Verb::Execute | Verb::Apply)) {
            scenarios
                .extend(faults_of(seen).map(|faults| ("call", Scenario { faults, ..Scenario::default() })));
        }
        // What lands when nobody looks for it any more is the sweep's, where the world has a provider to be swept.
        if (self.world)().is_swept() {
            for seen in
                whole.seen.iter().filter(|seen| may_straggle(seen.point.verb, seen.effect, seen.makes))
            {
                let stray = (seen.point.clone(), Fault::Straggles);
                let mut strays = vec![vec![stray.clone()]];
                if let Some((turn, _)) = back.as_ref().filter(|(turn, _)| turn.0 != seen.point) {
                    strays.push(vec![stray, turn.clone()]);
                }
                let scenario = |faults| Scenario { faults, is_swept: true, ..Scenario::default() };
                scenarios.extend(strays.into_iter().map(|faults| ("stray", scenario(faults))));
            }
        }
        if let Some((turn, run)) = &back {
            for seen in
                run.seen.iter().filter(|seen| matches!(seen.point.verb, Verb::Compensate | Verb::Revert))
            {
                let worlds = faults_of(seen).chain(std::iter::once(in_a_row(&seen.point)));
                scenarios.extend(worlds.map(|mut faults| {
                    faults.push(turn.clone());
                    ("undo", Scenario { faults, ..Scenario::default() })
                }));
            }
        }
        for at in 1..=whole.appends {
            scenarios.push(("cancel", Scenario { cancel_behind: Some(at), ..Scenario::default() }));
        }
        for seed in 1..=self.seeds {
            let rates = Rates {
                refused: 20,
                unavailable: 100,
                lost: 100,
                twice: 100,
                latency: secs(3),
                ..Rates::default()
            };
            // In every other world somebody also cancels, and in every third the process also dies.
            let number = usize::try_from(seed).unwrap_or(1);
            let behind = 1 + number % whole.appends;
            let cancel_behind = (number % 2 == 0).then_some(behind);
            let crash = (number % 3 == 0).then_some(Crash::After(behind));
            scenarios.push(("random", Scenario { rates, seed, cancel_behind, crash, ..Scenario::default() }));
        }
        let mut reached: BTreeSet<String> = BTreeSet::new();
        for (kind, scenario) in scenarios {
            tracing::debug!(kind, ?scenario, "a world");
            let ending = self.live(&scenario);
            self.check(&scenario, &ending, &whole.things, &nothing);
            *report.worlds.entry(kind).or_default() += 1;
            report.faults += ending.fired.len() + usize::from(ending.crashed);
            reached.extend(ending.fired.iter().map(|(point, _)| format!("{} {}", point.verb, point.step)));
        }
        let of = |run: &Ending| -> BTreeSet<String> {
            run.seen.iter().map(|seen| format!("{} {}", seen.point.verb, seen.point.step)).collect()
        };
        let mut points = of(&whole);
        points.extend(back.iter().flat_map(|(_, run)| of(run)));
        let writes = whole.appends + back.as_ref().map_or(0, |(_, run)| run.appends);
        report.points = points.len() + writes;
        report.reached = points.intersection(&reached).count() + writes;
        report
    }

    /// The run in which the last step that can still be refused is, so that everything before it is taken back.
    fn way_back(&self, whole: &Ending) -> Option<((Point, Fault), Ending)> {
        let asked = whole.seen.iter().filter(|seen| matches!(seen.point.verb, Verb::Execute | Verb::Apply));
        asked.rev().find_map(|seen| {
            let fault = (seen.point.clone(), Fault::Refused);
            let end = self.live(&Scenario { faults: vec![fault.clone()], ..Scenario::default() });
            (end.state == SagaState::Compensated).then_some((fault, end))
        })
    }

    /// What is there before the saga.
    fn before(&self) -> Vec<String> {
        sorted(((self.world)().things)())
    }

    fn check(&self, scenario: &Scenario, ending: &Ending, whole: &[String], nothing: &[String]) {
        let told = || format!("{scenario:?}\n{}", ending.story);
        let expected = if ending.state == SagaState::Completed { whole } else { nothing };
        assert!(
            ending.things == expected || self.also_right.contains(&ending.things),
            "what is outside is {:?} instead of {expected:?} in the world {}",
            ending.things,
            told()
        );
        for row in ending.rows.iter().filter(|row| row.state != ResourceState::Gone) {
            let is_closed = row.state == ResourceState::Live
                && (ending.state == SagaState::Completed || row.holder != ending.saga.as_str());
            assert!(is_closed, "its ledger is not closed: {row:?} in the world {}", told());
        }
        let planned = scenario.faults.iter().all(|planned| ending.fired.contains(planned));
        assert!(planned, "the fault did not happen in the world {}", told());
    }

    fn live(&self, scenario: &Scenario) -> Ending {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
        runtime.block_on(self.lives(scenario))
    }

    async fn lives(&self, scenario: &Scenario) -> Ending {
        let env = Env::simulated(scenario.seed);
        let world = (self.world)();
        let injector = Injector::new(env.clone());
        for (point, fault) in &scenario.faults {
            injector.plan(point.clone(), *fault);
        }
        injector.set_rates(scenario.rates);
        let mut registry = injector.around(world.registry);
        if scenario.is_swept {
            let every = secs(300);
            registry = registry.sweep(Sweep { every, grace: every, removes: true, ..Sweep::default() });
        }
        let (store, vault) =
            MemoryStore::new(world.own, &env).await.unwrap_or_else(|error| panic!("no store: {error}"));
        let first = Arc::new(CrashingStore::new(Arc::new(store.another(&env)), scenario.crash));
        let engine =
            |store: Arc<dyn Store>| Engine::start(store, vault.clone(), registry.clone(), env.clone(), "kit");
        let mut engines = vec![engine(first.clone())];
        let new =
            NewSaga::of::<W>(&env, "kit", &self.input).unwrap_or_else(|error| panic!("its input: {error}"));
        let saga = new.id.clone();
        assert!(store.start(new).await == Ok(Started::New(saga.clone())), "it does not start");
        for (number, (name, value)) in self.signals.iter().enumerate() {
            let message = Message::Signal { name: name.clone(), value: value.clone() };
            post(&store, format!("signal-{number}"), &saga, message, &env).await;
        }
        let mut crashed = false;
        let mut cancel = scenario.cancel_behind;
        // By the clock: what writes now and then, as a sweep does, keeps nobody from coming.
        let mut duty_at = env.now().plus(DUTY);
        let ends = async {
            loop {
                let written = store.written();
                if cancel.is_some_and(|at| first.appends() >= at) {
                    cancel = None;
                    let operation = OperationId::from_uuid(env.uuid());
                    let (actor, reason) = ("the kit".to_owned(), "to see whether it can be".to_owned());
                    let message = Message::Act { operation, act: Act::Cancel, actor, reason };
                    post(&store, "cancel".to_owned(), &saga, message, &env).await;
                }
                // Its children end a little later than it does.
                if open_sagas(&store).await.is_empty() {
                    return;
                }
                tokio::select! {
                    biased;
                    () = written => {}
                    // Somebody looks in now and then, for what only a person can decide.
                    () = env.sleep(duty_at.since(env.now())) => {
                        duty_at = env.now().plus(DUTY);
                        let _ = settle_all(&store, &injector, &env).await;
                    }
                    () = first.crashed(), if !crashed => {
                        crashed = true;
                        if !matches!(scenario.crash, Some(Crash::Stall(_))) {
                            engines.iter().for_each(Engine::abort);
                        }
                        engines.push(engine(Arc::new(store.another(&env))));
                    }
                }
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, ends).await.is_ok();
        let entries = store.journal(&saga).await.unwrap_or_default();
        let mut told = story(&saga, &entries);
        if let Ok(state) = State::fold(saga.clone(), &entries) {
            let why = why(&state, env.now());
            told.push_str(&format!("{}\n{}\n{}", why.happened, why.now, why.you));
        }
        let open = open_sagas(&store).await;
        assert!(in_time, "{open:?} have not ended in the world {scenario:?}\n{told}");
        env.sleep(if scenario.is_swept { SWEPT } else { LANDED }).await;
        engines.iter().for_each(Engine::abort);
        let filter = ResourceFilter { limit: u32::MAX, ..ResourceFilter::default() };
        let mut things = (world.things)();
        if let Some(sql) = world.rows {
            let rows =
                store.fetch(sql.into(), Vec::new()).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
            things.extend(rows.iter().map(|row| format!("{:?}", row.0)));
        }
        Ending {
            state: store.saga(&saga).await.ok().flatten().map_or(SagaState::Failed, |row| row.state),
            things: sorted(things),
            rows: store.resources(filter).await.unwrap_or_default(),
            saga,
            appends: first.appends(),
            crashed,
            seen: injector.seen(),
            fired: injector.fired(),
            story: told,
        }
    }
}

async fn open_sagas(store: &MemoryStore) -> Vec<String> {
    let all = store.sagas(SagaFilter { limit: u32::MAX, ..SagaFilter::default() }).await.unwrap_or_default();
    let open = all.iter().filter(|row| !row.state.is_ended());
    open.map(|row| format!("{} {} {:?}", row.workflow, row.state, row.step)).collect()
}

async fn post(store: &MemoryStore, id: String, saga: &SagaId, message: Message, env: &Env) {
    let letter = Letter { id, saga: saga.clone(), message, at: env.now() };
    // A saga that has ended meanwhile needs none.
    let _ = store.post(letter).await;
}

fn sorted(mut things: Vec<String>) -> Vec<String> {
    things.sort();
    things
}

/// Each fault that can happen to a call; and where it is asked about afterwards, also that the asking fails first.
fn faults_of(seen: &Seen) -> impl Iterator<Item = Vec<(Point, Fault)>> {
    let find = Point { verb: Verb::Find, step: seen.point.step.clone(), nth: 1 };
    let is_asked_about = seen.point.verb == Verb::Execute
        && matches!(seen.effect, Effect::Searchable { .. } | Effect::SearchableOnce { .. });
    Fault::iter().filter(|fault| fits(*fault, seen.point.verb, seen.effect)).flat_map(move |fault| {
        let alone = vec![(seen.point.clone(), fault)];
        let is_lost = matches!(
            fault,
            Fault::LostBefore | Fault::LostAfter | Fault::CommitsLate | Fault::LandsLast | Fault::Panics
        );
        let asked = (is_asked_about && is_lost)
            .then(|| vec![(seen.point.clone(), fault), (find.clone(), Fault::Unavailable)]);
        std::iter::once(alone).chain(asked)
    })
}

fn in_a_row(point: &Point) -> Vec<(Point, Fault)> {
    let nth = |more| Point { nth: point.nth + more, ..point.clone() };
    (0..IN_A_ROW).map(|more| (nth(more), Fault::Unavailable)).collect()
}

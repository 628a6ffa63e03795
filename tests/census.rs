//! The sweep of the engine: what a provider holds is compared with the ledger, nothing is believed once, and nothing
//! is removed that could be somebody's.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends_engine::activity::Cause;
use amends_engine::env::Timestamp;
use amends_engine::journal::state::SagaState;
use amends_engine::store::memory::MemoryStore;
use amends_engine::store::{ResourceFilter, ResourceRow, ResourceState, SagaFilter};
use amends_engine::sweep::{
    Ask, Bounds, FindingClass, FindingFilter, FindingRow, Identity, Kind, ListPage, Look, Looks, Names,
    Observed, Provider, RemoveOrphan, Settlement, Sweep, SweepError, Swept, Verdict, async_trait, compare,
    differences, judge, read_list,
};
use amends_engine::{
    Activity, Call, Effect, Engine, Env, Failure, Found, Gate, Registry, Resource, ResourceId, Saga, SagaId,
    StepKey, Workflow, saga, secs,
};

use amends_tests::database::Database;
use serde::{Deserialize, Serialize};

const SETTLE: Duration = secs(30);
const GRACE: Duration = secs(900);

/// A cloud with a list that can lag, lie, hang or go round, and removals that need not take.
struct Cloud {
    name: &'static str,
    env: Mutex<Option<Env>>,
    machines: Mutex<Vec<Observed>>,
    /// Those that the list does not show.
    hidden: Mutex<HashSet<String>>,
    /// What the list says instead, if anything.
    list: Mutex<List>,
    /// What a direct look says instead of the truth.
    read: Mutex<Option<Failure>>,
    /// So many removals are acknowledged and do nothing.
    dead_removals: AtomicUsize,
    /// Something is made while the list is read.
    made_meanwhile: Mutex<Option<Observed>>,
    desired: Mutex<BTreeMap<String, String>>,
    known: Mutex<BTreeSet<String>>,
    calls: Mutex<Vec<String>>,
    told: Mutex<Vec<FindingRow>>,
    page: usize,
    made: AtomicUsize,
    loses: AtomicBool,
    /// Its function that panics, or, where that is `hangs`, `found` that does not end.
    trap: Mutex<&'static str>,
}

#[derive(Default, Clone)]
enum List {
    #[default]
    True,
    Empty,
    Fails(Failure),
    Hangs,
    GoesRound,
    Endless,
}

impl Cloud {
    fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self {
            name,
            env: Mutex::default(),
            machines: Mutex::default(),
            hidden: Mutex::default(),
            list: Mutex::default(),
            read: Mutex::default(),
            dead_removals: AtomicUsize::default(),
            made_meanwhile: Mutex::default(),
            desired: Mutex::default(),
            known: Mutex::default(),
            calls: Mutex::default(),
            told: Mutex::default(),
            page: 2,
            made: AtomicUsize::default(),
            loses: AtomicBool::default(),
            trap: Mutex::default(),
        })
    }

    fn step_into(&self, function: &str) {
        if *self.trap.lock().unwrap() == function {
            // As a panic, without its noise.
            std::panic::resume_unwind(Box::new(()));
        }
    }

    fn put(&self, name: &str) -> Observed {
        let id = format!("m-{}", self.made.fetch_add(1, SeqCst) + 1);
        let machine = Observed::new("machine", id, name);
        self.machines.lock().unwrap().push(machine.clone());
        machine
    }

    fn vanish(&self, name: &str) {
        self.machines.lock().unwrap().retain(|machine| machine.name != name);
    }

    fn names(&self) -> Vec<String> {
        self.machines.lock().unwrap().iter().map(|machine| machine.name.clone()).collect()
    }

    fn set(&self, list: List) {
        *self.list.lock().unwrap() = list;
    }

    fn count(&self, what: &str) -> usize {
        self.calls.lock().unwrap().iter().filter(|call| call.starts_with(what)).count()
    }

    fn called(&self, what: String) {
        let at = self.env.lock().unwrap().as_ref().map_or(0, |env| env.now().0);
        self.calls.lock().unwrap().push(format!("{what} at {at}"));
    }
}

fn unavailable(detail: &str) -> Failure {
    Failure::Unavailable { cause: Cause::ServerError, detail: detail.into(), retry_after: None }
}

#[async_trait]
impl Provider for Cloud {
    fn name(&self) -> &'static str {
        self.name
    }

    fn kinds(&self) -> Vec<Kind> {
        self.step_into("kinds");
        vec![Kind::new("machine"), Kind::kept("number")]
    }

    fn settle_after(&self) -> Duration {
        SETTLE
    }

    fn is_ours(&self, name: &str) -> bool {
        self.step_into("is_ours");
        Names::of("am", "dev").read(name).is_some()
    }

    fn resembles_ours(&self, name: &str) -> bool {
        self.step_into("resembles_ours");
        Names::of("am", "dev").begins(name)
    }

    fn register(self: Arc<Self>, registry: Registry) -> Registry {
        registry.activity::<Rent>(self)
    }

    fn gates(&self, _: Ask<'_>) -> Vec<Gate> {
        self.step_into("gates");
        vec![Gate::credential(self.name)]
    }

    async fn list(&self, cursor: Option<&str>) -> Result<ListPage, Failure> {
        self.called(format!("list {cursor:?}"));
        let list = self.list.lock().unwrap().clone();
        match list {
            List::True => {}
            List::Empty => return Ok(ListPage::default()),
            List::Fails(failure) => return Err(failure),
            List::Hangs => return std::future::pending().await,
            List::GoesRound => {
                return Ok(ListPage { things: Vec::new(), next: Some("again".into()) });
            }
            List::Endless => {
                let next = cursor.and_then(|cursor| cursor.parse().ok()).unwrap_or(0_u64) + 1;
                return Ok(ListPage { things: Vec::new(), next: Some(next.to_string()) });
            }
        }
        let from: usize = cursor.map_or(0, |cursor| cursor.parse().unwrap());
        let hidden = self.hidden.lock().unwrap().clone();
        let mut shown = self.machines.lock().unwrap().clone();
        shown.retain(|machine| !hidden.contains(&machine.name));
        let things: Vec<Observed> = shown.iter().skip(from).take(self.page).cloned().collect();
        let next = (from + self.page < shown.len()).then(|| (from + self.page).to_string());
        if let Some(made) = self.made_meanwhile.lock().unwrap().take() {
            self.machines.lock().unwrap().push(made);
        }
        Ok(ListPage { things, next })
    }

    async fn read(&self, thing: &Identity) -> Result<Option<Observed>, Failure> {
        self.called(format!("read {}", thing.name));
        if let Some(failure) = self.read.lock().unwrap().clone() {
            return Err(failure);
        }
        let machines = self.machines.lock().unwrap();
        let is_it = |machine: &&Observed| match &thing.external_id {
            Some(id) => machine.external_id == *id,
            None => machine.name == thing.name,
        };
        Ok(machines.iter().find(is_it).cloned())
    }

    async fn remove(&self, thing: &Identity) -> Result<(), Failure> {
        self.called(format!("remove {}", thing.name));
        if self.dead_removals.load(SeqCst) > 0 {
            self.dead_removals.fetch_sub(1, SeqCst);
            return Ok(());
        }
        self.machines
            .lock()
            .unwrap()
            .retain(|machine| Some(&machine.external_id) != thing.external_id.as_ref());
        Ok(())
    }

    async fn knows(&self, _: &Engine, name: &str) -> Result<bool, Failure> {
        self.step_into("knows");
        Ok(self.known.lock().unwrap().contains(name))
    }

    async fn desired(&self, _: &Engine, _: &ResourceRow) -> Result<BTreeMap<String, String>, Failure> {
        self.step_into("desired");
        Ok(self.desired.lock().unwrap().clone())
    }

    async fn found(&self, _: &Engine, finding: &FindingRow) -> Result<(), amends_engine::store::Error> {
        self.step_into("found");
        if *self.trap.lock().unwrap() == "hangs" {
            return std::future::pending().await;
        }
        self.told.lock().unwrap().push(finding.clone());
        Ok(())
    }
}

/// Rents a machine of this name; found again by it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Rent {
    name: String,
}

impl Activity for Rent {
    const NAME: &'static str = "cloud.rent";
    const EFFECT: Effect = Effect::Searchable { settle_after: SETTLE };
    type Client = Cloud;
    type Output = String;

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("cloud", "machine", call.name(&self.name)))
    }

    fn gates(&self, cloud: &Cloud) -> Vec<Gate> {
        vec![Gate::credential(cloud.name)]
    }

    fn external_id(made: &String) -> Option<String> {
        Some(made.clone())
    }

    async fn execute(&self, cloud: &Cloud, call: &Call) -> Result<String, Failure> {
        cloud.called(format!("rent {}", self.name));
        if cloud.loses.load(SeqCst) {
            return Err(Failure::NoAnswer { cause: Cause::Timeout, detail: "cut".into() });
        }
        Ok(cloud.put(&call.name(&self.name)).external_id)
    }

    async fn find(&self, cloud: &Cloud, call: &Call) -> Result<Found<String>, Failure> {
        let name = call.name(&self.name);
        let machines = cloud.machines.lock().unwrap();
        let found = machines.iter().find(|machine| machine.name == name);
        Ok(found.map_or(Found::Nothing, |machine| Found::Usable(machine.external_id.clone())))
    }

    async fn compensate(&self, cloud: &Cloud, made: &String, _: &Call) -> Result<(), Failure> {
        cloud.machines.lock().unwrap().retain(|machine| machine.external_id != *made);
        Ok(())
    }
}

/// Rents one machine for an owner, or gives it back if it is to fail; it may be held open.
struct Hire;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Wish {
    name: String,
    fails: bool,
    #[serde(default)]
    waits: bool,
}

impl Workflow for Hire {
    const NAME: &'static str = "hire";
    const VERSION: u32 = 1;
    type Input = Wish;
    type Output = String;

    async fn run(&self, saga: &Saga, wish: Wish) -> saga::Result<String> {
        let machine = saga.step("machine", Rent { name: wish.name }).await?;
        if wish.waits {
            saga.signal::<bool>("go", "go", secs(30 * 86_400)).await?;
        }
        if wish.fails {
            return Err(saga::Halt::give_up("no", "as it was asked to"));
        }
        Ok(machine.take())
    }

    fn owner(wish: &Wish, output: &String) -> Option<String> {
        (wish.name != name(9)).then(|| format!("owner-of-{output}"))
    }
}

fn name(number: usize) -> String {
    format!("am-dev-{number:012}")
}

struct Room {
    env: Env,
    store: Arc<MemoryStore>,
    vault: amends_engine::secret::Vault,
    cloud: Arc<Cloud>,
    engine: Engine,
    sweep: Sweep,
}

fn registry(clouds: &[Arc<Cloud>]) -> Registry {
    clouds.iter().fold(Registry::default().workflow(Hire), |registry, cloud| registry.provider(cloud.clone()))
}

impl Room {
    async fn new() -> Self {
        let env = Env::simulated(7);
        let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
        let (store, cloud) = (Arc::new(store), Cloud::new("cloud"));
        *cloud.env.lock().unwrap() = Some(env.clone());
        let registry = registry(std::slice::from_ref(&cloud));
        let engine = Engine::start(store.clone(), vault.clone(), registry, env.clone(), "dev");
        Self { env, store, vault, cloud, engine, sweep: Sweep::default() }
    }

    fn removing(mut self) -> Self {
        self.sweep.removes = true;
        self
    }

    async fn hire(&self, wish: Wish) -> SagaId {
        let new = self.engine.new_saga::<Hire>(wish.name.clone(), &wish).unwrap();
        self.engine.begin(new).await.unwrap().saga().clone()
    }

    async fn hired(&self, number: usize, fails: bool) -> SagaId {
        let saga = self.hire(Wish { name: name(number), fails, waits: false }).await;
        self.engine.wait(&saga, secs(3600), |_| false).await.unwrap().unwrap();
        saga
    }

    /// A saga of this name was taken back, and then its create landed all the same.
    async fn orphan(&self, number: usize) -> Observed {
        self.hired(number, true).await;
        self.cloud.put(&name(number))
    }

    async fn sweep(&self) -> Swept {
        self.engine.sweep("cloud", &self.sweep).await.unwrap().unwrap()
    }

    /// Sweeps again and again for so long.
    async fn sweeps(&self, long: Duration) -> Swept {
        let until = self.env.now().plus(long);
        loop {
            let swept = self.sweep().await;
            if self.env.now() >= until {
                return swept;
            }
            self.env.sleep(secs(300)).await;
        }
    }

    async fn all(&self) -> Vec<FindingRow> {
        self.engine.findings(FindingFilter { limit: 1000, ..FindingFilter::default() }).await.unwrap()
    }

    async fn removals(&self) -> Vec<SagaState> {
        let filter = SagaFilter { workflow: Some(RemoveOrphan::NAME.into()), ..SagaFilter::default() };
        self.engine.sagas(filter).await.unwrap().iter().map(|row| row.state).collect()
    }

    async fn ledger(&self) -> Vec<ResourceRow> {
        self.engine.resources(ResourceFilter { limit: 1000, ..ResourceFilter::default() }).await.unwrap()
    }
}

fn told(swept: &Swept) -> Vec<(FindingClass, String)> {
    let mut all: Vec<_> = swept.findings.iter().map(|row| (row.class, row.name.clone())).collect();
    all.sort();
    all
}

#[tokio::test(start_paused = true)]
async fn a_late_create_is_an_orphan_and_is_removed_by_a_saga_that_sees_it_gone() {
    let room = Room::new().await.removing();
    room.hired(1, false).await;
    let orphan = room.orphan(2).await;
    let first = room.sweep().await;
    assert_eq!(told(&first), [(FindingClass::Orphan, name(2))]);
    assert_eq!((first.problem, first.removals), (None, 0));
    room.sweeps(secs(2400)).await;
    assert_eq!(room.cloud.names(), [name(1)]);
    assert_eq!(room.removals().await, [SagaState::Completed]);
    let row = room.all().await.pop().unwrap();
    assert_eq!(
        (row.external_id.as_str(), row.settled.map(|s| s.how)),
        (&*orphan.external_id, Some(Settlement::Removed))
    );
    // It was on the ledger while it was removed, and is struck out there.
    let rows = room.ledger().await;
    let of_it: Vec<_> =
        rows.iter().filter(|row| row.external_id.as_ref() == Some(&orphan.external_id)).collect();
    assert_eq!(of_it.iter().map(|row| row.state).collect::<Vec<_>>(), [ResourceState::Gone]);
    assert!(told(&room.sweep().await).is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_removed_on_first_sight() {
    let room = Room::new().await.removing();
    room.orphan(1).await;
    // However long ago it was made, and whatever the grace.
    room.env.sleep(secs(86_400)).await;
    let hasty = Sweep { grace: Duration::ZERO, ..room.sweep.clone() };
    let first = room.engine.sweep("cloud", &hasty).await.unwrap().unwrap();
    assert_eq!(first.removals, 0);
    // A second look at once is no second sight: whoever made it may still be about to write it down.
    let second = room.engine.sweep("cloud", &hasty).await.unwrap().unwrap();
    assert_eq!(second.removals, 0);
    room.env.sleep(SETTLE).await;
    assert_eq!(room.engine.sweep("cloud", &hasty).await.unwrap().unwrap().removals, 1);
}

#[tokio::test(start_paused = true)]
async fn an_orphan_that_a_list_lacks_is_no_longer_one_only_if_it_is_not_there() {
    let room = Room::new().await.removing();
    room.hired(1, false).await;
    let orphan = room.orphan(2).await;
    let first = room.sweep().await.findings[0].id.clone();
    // A list that lacks it now and then, and a look at it that fails, say nothing of it.
    for look in [None, Some(unavailable("down"))] {
        room.env.sleep(secs(300)).await;
        room.cloud.hidden.lock().unwrap().insert(name(2));
        room.cloud.read.lock().unwrap().clone_from(&look);
        let swept = room.sweep().await;
        assert_eq!(told(&swept), [(FindingClass::Orphan, name(2))], "{look:?}");
        room.cloud.read.lock().unwrap().take();
        room.cloud.hidden.lock().unwrap().clear();
    }
    room.env.sleep(secs(300)).await;
    assert_eq!(room.sweep().await.removals, 1, "its grace began when it was first seen");
    room.sweeps(secs(600)).await;
    assert_eq!(room.cloud.names(), [name(1)]);
    let all = room.all().await;
    assert_eq!(all.iter().map(|row| &row.id).collect::<Vec<_>>(), [&first]);
    assert_eq!(
        (&all[0].external_id, all[0].settled.as_ref().unwrap().how),
        (&orphan.external_id, Settlement::Removed)
    );
    // One that somebody took away is settled as that.
    room.orphan(3).await;
    room.sweep().await;
    room.cloud.vanish(&name(3));
    room.env.sleep(secs(300)).await;
    assert!(told(&room.sweep().await).is_empty());
    let vanished = room.all().await.into_iter().find(|row| row.name == name(3)).unwrap();
    assert_eq!(vanished.settled.unwrap().how, Settlement::Vanished);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_removed_before_its_grace_is_over_nor_where_that_is_not_allowed() {
    let room = Room::new().await.removing();
    room.orphan(1).await;
    room.sweep().await;
    room.env.sleep(GRACE - secs(1)).await;
    assert_eq!(room.sweep().await.removals, 0);
    let reports = Sweep { removes: false, ..room.sweep.clone() };
    room.env.sleep(secs(86_400)).await;
    assert_eq!(room.engine.sweep("cloud", &reports).await.unwrap().unwrap().removals, 0);
    assert_eq!(room.cloud.names(), [name(1)]);
    assert_eq!(room.sweep().await.removals, 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_foreign_is_never_removed() {
    let room = Room::new().await.removing();
    room.hired(1, false).await;
    room.hired(2, true).await;
    let foreign = [
        format!("{}-backup", name(1)),
        format!("{}x", name(1)),
        format!("{}-by-alice", name(1)),
        // Whole, but of another installation: this ledger never had it.
        name(77),
    ];
    let others = ["dont touch".to_owned(), "am-prod-000000000001".to_owned()];
    for name in foreign.iter().chain(&others) {
        room.cloud.put(name);
    }
    // Whatever the program takes for its own: what is not a whole name is never asked about.
    room.cloud.known.lock().unwrap().insert(foreign[0].clone());
    let swept = room.sweeps(secs(86_400)).await;
    let mut shown: Vec<_> = foreign.iter().map(|name| (FindingClass::Foreign, name.clone())).collect();
    shown.sort();
    assert_eq!(told(&swept), shown);
    assert_eq!(room.cloud.count("remove"), 0);
    assert!(room.removals().await.is_empty());
    assert_eq!(room.cloud.names().len(), 7);
    // Nor when a person asks for it.
    let id = swept.findings[0].id.clone();
    let asked = room.engine.remove_orphan(&id, "ann", "away with it").await;
    assert!(matches!(asked, Err(SweepError::TooLate(_))), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn what_the_program_knows_as_ours_is_an_orphan_without_a_row() {
    let room = Room::new().await;
    room.cloud.put(&name(5));
    room.cloud.known.lock().unwrap().insert(name(5));
    assert_eq!(told(&room.sweep().await), [(FindingClass::Orphan, name(5))]);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_lacks_a_living_row_is_thrown_away() {
    let room = Room::new().await.removing();
    room.hired(1, false).await;
    room.hired(2, false).await;
    room.orphan(3).await;
    room.env.sleep(secs(3600)).await;
    room.cloud.hidden.lock().unwrap().insert(name(2));
    let swept = room.sweeps(secs(86_400)).await;
    assert!(swept.problem.unwrap().contains("which is there"));
    assert!(room.all().await.is_empty(), "nothing of it is believed, nor what else it shows");
    room.cloud.hidden.lock().unwrap().clear();
    assert_eq!(told(&room.sweep().await), [(FindingClass::Orphan, name(3))]);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_is_absent_twice_is_a_ghost_and_the_list_stands() {
    let room = Room::new().await;
    room.hired(1, false).await;
    room.hired(2, false).await;
    room.orphan(3).await;
    room.env.sleep(secs(3600)).await;
    room.cloud.vanish(&name(2));
    let before = room.env.now();
    let swept = room.sweep().await;
    assert_eq!(told(&swept), [(FindingClass::Orphan, name(3)), (FindingClass::Ghost, name(2))]);
    assert_eq!(room.cloud.count(&format!("read {}", name(2))), 2);
    assert!(room.env.now().since(before) >= SETTLE, "the two looks are apart");
    let ghost = swept.findings.iter().find(|row| row.class == FindingClass::Ghost).unwrap().clone();
    assert_eq!(ghost.holder.as_deref(), Some("owner-of-m-2"));
    assert_eq!(
        *room.cloud.told.lock().unwrap(),
        std::slice::from_ref(&ghost),
        "the program is told within one sweep"
    );
    let of_holder = FindingFilter { holder: ghost.holder.clone(), ..FindingFilter::default() };
    assert_eq!(room.engine.findings(of_holder).await.unwrap().len(), 1);
    // The row is not touched: whoever holds it says what becomes of it.
    let rows = room.ledger().await;
    assert!(rows.iter().any(|row| row.name == name(2) && row.state == ResourceState::Live));
    // One that is there again is none any more.
    room.cloud.machines.lock().unwrap().push(Observed::new("machine", "m-2", name(2)));
    room.env.sleep(secs(300)).await;
    assert_eq!(told(&room.sweep().await), [(FindingClass::Orphan, name(3))]);
}

#[tokio::test(start_paused = true)]
async fn a_saga_that_holds_what_has_vanished_says_so() {
    let room = Room::new().await;
    room.hired(1, false).await;
    let saga = room.hired(9, false).await;
    room.env.sleep(secs(3600)).await;
    assert!(!room.engine.why(&saga).await.unwrap().unwrap().now.contains("vanished"));
    room.cloud.vanish(&name(9));
    let swept = room.sweep().await;
    assert_eq!(swept.findings[0].holder.as_deref(), Some(saga.as_str()));
    let why = room.engine.why(&saga).await.unwrap().unwrap();
    assert!(why.now.contains(&format!("has vanished: the cloud machine {}", name(9))), "{}", why.now);
    room.engine
        .settle_finding(&swept.findings[0].id, Settlement::Ignored, "ann", "it is known")
        .await
        .unwrap();
    assert!(!room.engine.why(&saga).await.unwrap().unwrap().now.contains("vanished"));
}

#[tokio::test(start_paused = true)]
async fn one_that_comes_back_between_two_looks_is_no_ghost() {
    let room = Room::new().await;
    room.hired(1, false).await;
    room.hired(2, false).await;
    room.env.sleep(secs(3600)).await;
    let machine = room.cloud.machines.lock().unwrap().remove(1);
    let comes_back = async {
        room.env.sleep(SETTLE / 2).await;
        room.cloud.machines.lock().unwrap().push(machine);
    };
    let (swept, ()) = tokio::join!(room.sweep(), comes_back);
    assert!(swept.problem.unwrap().contains("which is there") && room.all().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_direct_look_that_fails_is_no_absence() {
    let room = Room::new().await;
    room.hired(1, false).await;
    room.hired(2, false).await;
    room.env.sleep(secs(3600)).await;
    room.cloud.vanish(&name(2));
    *room.cloud.read.lock().unwrap() = Some(unavailable("not now"));
    let swept = room.sweeps(secs(3600)).await;
    assert!(swept.problem.unwrap().contains("could not be looked at"));
    assert!(room.all().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_its_saga_takes_back_or_hands_over_while_it_is_looked_for_is_no_ghost() {
    for fails in [true, false] {
        let room = Room::new().await;
        room.hired(1, false).await;
        let saga = room.hire(Wish { name: name(2), fails, waits: true }).await;
        room.env.sleep(secs(3600)).await;
        room.cloud.vanish(&name(2));
        let goes_on = async {
            room.env.sleep(SETTLE / 2).await;
            room.engine.signal(&saga, "go", "go", serde_json::json!(true)).await.unwrap();
        };
        let (swept, ()) = tokio::join!(room.sweep(), goes_on);
        assert_eq!(swept.problem, None, "the list stands");
        assert_eq!(room.cloud.count(&format!("read {}", name(2))), 2);
        assert!(room.all().await.is_empty(), "{fails}: {:?}", told(&swept));
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_lacks_all_that_is_known_counts_as_unavailable() {
    let room = Room::new().await.removing();
    for number in 1..=5 {
        room.hired(number, false).await;
    }
    room.env.sleep(secs(3600)).await;
    // Another account: the list has none of ours, and neither has anybody who is asked directly.
    let ours = std::mem::take(&mut *room.cloud.machines.lock().unwrap());
    let swept = room.sweeps(secs(86_400)).await;
    assert!(swept.problem.unwrap().contains("is this the account"), "no ghost is made of that");
    assert!(room.all().await.is_empty());
    let census = room.engine.censuses().await.unwrap().pop().unwrap();
    assert!(census.problem.is_some() && census.failures > 100 && census.completed_at.is_none());
    // An empty page by error, while all are there.
    *room.cloud.machines.lock().unwrap() = ours;
    room.cloud.set(List::Empty);
    assert!(room.sweep().await.problem.unwrap().contains("which is there"));
    assert!(room.all().await.is_empty());
    // It is so, and a person says it: once.
    room.cloud.set(List::True);
    room.cloud.machines.lock().unwrap().clear();
    room.engine.accept_absence("cloud", "ann", "the account was closed").await.unwrap();
    assert_eq!(room.sweep().await.findings.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_fails_or_is_half_read_changes_nothing() {
    let room = Room::new().await.removing();
    room.hired(1, false).await;
    room.orphan(2).await;
    room.orphan(3).await;
    room.sweep().await;
    let before = room.all().await;
    for list in [List::Fails(unavailable("503")), List::Fails(Failure::refused("no", "no list today"))] {
        room.cloud.set(list);
        let swept = room.sweeps(secs(7200)).await;
        assert!(swept.problem.is_some() && swept.removals == 0);
    }
    assert_eq!(room.all().await, before, "no sight, no end, no removal");
    assert_eq!(room.cloud.count("remove"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_cursor_that_repeats_ends_the_census_with_a_cause() {
    let room = Room::new().await;
    room.cloud.set(List::GoesRound);
    let swept = room.sweep().await;
    assert!(swept.problem.unwrap().contains("cursor came again after 2 pages"));
    room.cloud.set(List::Endless);
    let swept = room.sweep().await;
    assert!(swept.problem.unwrap().contains("does not end within 1000 pages"));
    assert_eq!(room.cloud.count("list"), 1002);
    let things = |number: usize| Observed::new("machine", format!("{number}"), name(number));
    let mut from = 0;
    let endless = read_list(Bounds { pages: 100, things: 250 }, |_| {
        let page = (from..from + 100).map(things).collect();
        from += 100;
        async move { Ok(ListPage { things: page, next: Some(from.to_string()) }) }
    });
    assert!(endless.await.unwrap_err().to_string().contains("more than 250 things"));
    let nameless = read_list(Bounds { pages: 1, things: 1 }, |_| async {
        Ok(ListPage { things: vec![Observed::new("machine", "", "x")], next: None })
    });
    assert!(nameless.await.is_err(), "what has no id cannot be told from another");
}

#[tokio::test(start_paused = true)]
async fn one_provider_that_hangs_holds_up_no_other_and_its_age_is_shown() {
    let room = Room::new().await;
    let (hangs, well) = (Cloud::new("hangs"), Cloud::new("well"));
    hangs.set(List::Hangs);
    let registry = registry(&[hangs.clone(), well.clone()]).sweep(Sweep::default());
    let store = Arc::new(room.store.another(&room.env));
    let engine = Engine::start(store, room.vault.clone(), registry, room.env.clone(), "dev");
    room.env.sleep(secs(3600)).await;
    assert!(well.count("list") >= 11, "{}", well.count("list"));
    let rows = engine.censuses().await.unwrap();
    let of = |name: &str| rows.iter().find(|row| row.provider == name).unwrap();
    let now = room.env.now();
    assert!(of("well").problem.is_none() && of("well").age(now).unwrap() <= secs(300));
    assert!(of("hangs").age(now).is_none(), "there never was a whole one");
    assert!(of("hangs").problem.as_ref().unwrap().0.contains("no answer within"), "{:?}", of("hangs"));
    assert!(of("hangs").failures >= 2);
}

#[tokio::test(start_paused = true)]
async fn a_provider_whose_own_code_panics_is_not_compared_says_so_and_is_swept_again() {
    for function in ["kinds", "gates", "is_ours", "resembles_ours", "knows", "desired"] {
        let room = Room::new().await;
        room.hired(1, false).await;
        room.cloud.put(&name(2));
        room.cloud.put("am-dev-odd");
        *room.cloud.trap.lock().unwrap() = function;
        let swept = room.sweep().await;
        assert_eq!(swept.problem.as_deref(), Some("the provider cloud panicked"), "{function}");
        let census = room.engine.censuses().await.unwrap().pop().unwrap();
        assert!(census.problem.is_some() && census.holder.is_none(), "{function}: {census:?}");
        *room.cloud.trap.lock().unwrap() = "";
        let swept = room.sweep().await;
        assert_eq!((swept.problem, swept.findings.len()), (None, 2), "{function}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_panics_or_hangs_when_it_is_told_of_a_finding_is_told_again() {
    let room = Room::new().await;
    room.hired(1, false).await;
    room.env.sleep(SETTLE * 2).await;
    room.cloud.vanish(&name(1));
    for trap in ["found", "hangs"] {
        *room.cloud.trap.lock().unwrap() = trap;
        let swept = tokio::time::timeout(secs(600), room.sweep()).await.unwrap();
        assert_eq!((swept.problem, swept.findings.len()), (None, 1), "{trap}");
        assert!(room.cloud.told.lock().unwrap().is_empty(), "{trap}");
    }
    *room.cloud.trap.lock().unwrap() = "";
    room.sweep().await;
    assert_eq!(room.cloud.told.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_thing_of_ours_that_somebody_gave_an_odd_name_is_still_there() {
    for odd in ["n".repeat(2000), "a\0b".to_owned()] {
        let room = Room::new().await;
        room.hired(1, false).await;
        room.env.sleep(SETTLE * 2).await;
        room.cloud.machines.lock().unwrap()[0].name = odd;
        let swept = room.sweep().await;
        assert_eq!((swept.problem, swept.findings.len()), (None, 0), "{:?}", swept.findings);
    }
}

#[tokio::test(start_paused = true)]
async fn an_act_of_the_sweep_is_held_to_the_limits_of_any_act() {
    let room = Room::new().await;
    room.cloud.known.lock().unwrap().insert(name(2));
    room.cloud.put(&name(2));
    let finding = room.sweep().await.findings.pop().unwrap();
    let long = "n".repeat(5000);
    for (actor, reason) in [(long.as_str(), "so"), ("ann", long.as_str()), ("a\0", "so"), ("ann", "s\0")] {
        let settled = room.engine.settle_finding(&finding.id, Settlement::Ignored, actor, reason).await;
        assert!(matches!(settled, Err(SweepError::Unstorable(_))), "{settled:?}");
        let accepted = room.engine.accept_absence("cloud", actor, reason).await;
        assert!(matches!(accepted, Err(SweepError::Unstorable(_))), "{accepted:?}");
        let removed = room.engine.remove_orphan(&finding.id, actor, reason).await;
        assert!(matches!(removed, Err(SweepError::Unstorable(_))), "{removed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_made_or_removed_while_the_list_is_read_is_no_orphan() {
    let room = Room::new().await;
    // Twenty-two are taken back while the list, which still shows them, is read: they are on the first reading.
    for number in 1..=22 {
        room.hire(Wish { name: name(number), fails: true, waits: true }).await;
    }
    let count = || room.cloud.names().len();
    while count() < 22 {
        room.env.sleep(secs(1)).await;
    }
    room.env.sleep(secs(3600)).await;
    let shown = room.cloud.machines.lock().unwrap().clone();
    let before = room.ledger().await;
    for number in 1..=22 {
        let saga = room.hire(Wish { name: name(number), fails: true, waits: true }).await;
        room.engine.signal(&saga, &format!("go-{number}"), "go", serde_json::json!(true)).await.unwrap();
        room.engine.wait(&saga, secs(60), |_| false).await.unwrap();
    }
    let after = room.ledger().await;
    assert_eq!(after.iter().filter(|row| row.state == ResourceState::Gone).count(), 22);
    let comparison = compare(&before, &after, &shown, room.env.now(), SETTLE);
    assert_eq!(comparison.unexplained, [], "all 22 were ours at the first reading");
    let blind = compare(&after, &after, &shown, room.env.now(), SETTLE);
    assert_eq!(blind.unexplained.len(), 22, "one reading alone takes every one of them for an orphan");
}

#[tokio::test(start_paused = true)]
async fn what_a_saga_that_has_not_ended_named_is_not_removed() {
    let room = Room::new().await.removing();
    let saga = room.hire(Wish { name: name(1), fails: true, waits: true }).await;
    while room.cloud.names().is_empty() {
        room.env.sleep(secs(1)).await;
    }
    // A twin that landed late, of a saga that may still be looking for it.
    room.cloud.put(&name(1));
    let swept = room.sweeps(secs(86_400)).await;
    assert_eq!(told(&swept), [(FindingClass::Orphan, name(1))]);
    assert!(room.removals().await.is_empty());
    let asked = room.engine.remove_orphan(&swept.findings[0].id, "ann", "now").await;
    assert!(matches!(asked, Err(SweepError::TooLate(why)) if why.contains("has not ended")));
    room.engine.signal(&saga, "go", "go", serde_json::json!(true)).await.unwrap();
    room.sweeps(secs(3600)).await;
    assert!(room.cloud.names().is_empty());
    assert_eq!(room.removals().await, [SagaState::Completed]);
}

#[tokio::test(start_paused = true)]
async fn no_more_are_under_removal_than_the_budget() {
    let mut room = Room::new().await.removing();
    room.sweep.budget = 3;
    for number in 1..=10 {
        room.orphan(number).await;
    }
    room.sweep().await;
    room.env.sleep(GRACE).await;
    // None of them gets through: those under removal count.
    room.engine.close_gate("cloud", "ann", "stop").await.unwrap();
    room.engine.open_gate("cloud", "ann", "go").await.unwrap();
    assert_eq!(room.sweep().await.removals, 3);
    assert_eq!(room.removals().await.len(), 3);
    room.sweeps(secs(7200)).await;
    assert!(room.cloud.names().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_orphan_is_read_once_more_before_it_is_removed() {
    let room = Room::new().await.removing();
    room.orphan(1).await;
    room.orphan(2).await;
    room.sweep().await;
    room.env.sleep(GRACE).await;
    // Between the list and the removal one is renamed, and one goes by itself.
    *room.cloud.read.lock().unwrap() = Some(unavailable("not now"));
    assert_eq!(room.sweep().await.removals, 2);
    room.env.sleep(secs(5)).await;
    room.cloud.machines.lock().unwrap()[0].name = "alices".to_owned();
    room.cloud.vanish(&name(2));
    *room.cloud.read.lock().unwrap() = None;
    room.env.sleep(secs(3600)).await;
    assert_eq!(room.cloud.count("remove"), 0);
    assert_eq!(room.cloud.names(), ["alices"]);
    let mut ends = room.removals().await;
    ends.sort();
    assert_eq!(ends, [SagaState::Completed, SagaState::Failed]);
    let gone = room.all().await.into_iter().find(|row| row.name == name(2)).unwrap();
    assert_eq!(gone.settled.unwrap().how, Settlement::Vanished);
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_does_not_take_is_sent_again_until_the_thing_is_gone() {
    let room = Room::new().await.removing();
    room.orphan(1).await;
    room.cloud.dead_removals.store(8, SeqCst);
    room.sweeps(GRACE).await;
    assert_eq!(room.cloud.names(), [name(1)]);
    let filter = SagaFilter { workflow: Some(RemoveOrphan::NAME.into()), ..SagaFilter::default() };
    let mut seen = BTreeSet::new();
    for _ in 0..2000 {
        let row = room.engine.sagas(filter.clone()).await.unwrap().pop().unwrap();
        seen.extend(row.attention.iter().map(ToString::to_string));
        if row.state.is_ended() {
            break;
        }
        room.env.sleep(secs(10)).await;
    }
    assert!(room.cloud.names().is_empty());
    assert_eq!(room.cloud.count("remove"), 9);
    assert!(seen.contains("retrying"), "it is pointed out meanwhile: {seen:?}");
    assert_eq!(room.removals().await, [SagaState::Completed]);
}

#[tokio::test(start_paused = true)]
async fn what_is_being_removed_is_settled_by_its_removal_and_by_no_census_meanwhile() {
    let room = Room::new().await.removing();
    room.orphan(1).await;
    room.cloud.dead_removals.store(12, SeqCst);
    room.sweeps(GRACE).await;
    // It is listed, and on the ledger now: nobody has adopted it for that.
    room.sweeps(secs(300)).await;
    assert_eq!((room.cloud.names(), room.removals().await.len()), (vec![name(1)], 1));
    assert_eq!(room.all().await[0].settled, None);
    room.sweeps(secs(7200)).await;
    let row = room.all().await.pop().unwrap();
    assert_eq!((room.cloud.names(), row.settled.unwrap().how), (vec![], Settlement::Removed));
}

#[tokio::test(start_paused = true)]
async fn what_bears_another_name_before_its_removal_has_taken_is_left_alone() {
    let room = Room::new().await.removing();
    room.orphan(1).await;
    room.cloud.dead_removals.store(1, SeqCst);
    room.sweeps(GRACE).await;
    assert_eq!((room.cloud.count("remove"), room.cloud.names()), (1, vec![name(1)]));
    room.cloud.machines.lock().unwrap()[0].name = "alices".to_owned();
    room.env.sleep(secs(86_400)).await;
    assert_eq!((room.cloud.count("remove"), room.cloud.names()), (1, vec!["alices".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn what_a_row_explains_by_the_time_it_is_to_be_removed_is_left_alone() {
    let room = Room::new().await.removing();
    room.orphan(1).await;
    room.sweep().await;
    room.env.sleep(GRACE).await;
    // The removal has begun and cannot look yet, when somebody makes a thing of that name whose answer is lost.
    *room.cloud.read.lock().unwrap() = Some(unavailable("not now"));
    assert_eq!(room.sweep().await.removals, 1);
    room.cloud.loses.store(true, SeqCst);
    let new =
        room.engine.new_saga::<Hire>("again", &Wish { name: name(1), fails: false, waits: true }).unwrap();
    room.engine.begin(new).await.unwrap();
    room.env.sleep(secs(5)).await;
    *room.cloud.read.lock().unwrap() = None;
    room.env.sleep(secs(3600)).await;
    assert_eq!((room.cloud.count("remove"), room.cloud.names()), (0, vec![name(1)]));
}

#[tokio::test(start_paused = true)]
async fn what_costs_money_to_have_again_is_only_shown() {
    let room = Room::new().await.removing();
    room.hired(1, true).await;
    room.cloud.known.lock().unwrap().insert(name(1));
    room.cloud.machines.lock().unwrap().push(Observed::new("number", "n-1", name(1)));
    let swept = room.sweeps(secs(7200)).await;
    assert_eq!(told(&swept), [(FindingClass::Orphan, name(1))]);
    assert!(room.removals().await.is_empty() && room.cloud.count("remove") == 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_person_ignores_is_left_alone_for_as_long_as_it_is_seen() {
    let room = Room::new().await.removing();
    room.orphan(1).await;
    let id = room.sweep().await.findings[0].id.clone();
    let nobody = room.engine.settle_finding(&id, Settlement::Ignored, " ", "").await;
    assert!(matches!(nobody, Err(SweepError::ActorRequired)));
    room.engine.settle_finding(&id, Settlement::Ignored, "ann", "kept for the auditors").await.unwrap();
    let swept = room.sweeps(secs(86_400)).await;
    assert!(swept.findings.is_empty() && room.cloud.names() == [name(1)]);
    let row = room.all().await.pop().unwrap();
    assert!(row.times_seen > 50 && row.settled.unwrap().by == "ann");
}

#[tokio::test(start_paused = true)]
async fn what_was_declared_and_is_otherwise_is_a_drift() {
    let room = Room::new().await;
    room.hired(1, false).await;
    room.cloud.desired.lock().unwrap().insert("limit".into(), "10".into());
    room.cloud.desired.lock().unwrap().insert("image".into(), "a".into());
    assert!(room.sweep().await.findings.is_empty(), "what is not shown says nothing");
    room.cloud.machines.lock().unwrap()[0].attributes.insert("limit".into(), "500".into());
    let swept = room.sweep().await;
    assert_eq!(swept.findings[0].detail.as_deref(), Some("limit is 500 and should be 10"));
    assert!(room.cloud.told.lock().unwrap().is_empty(), "it may be on its way: not on first sight");
    room.env.sleep(GRACE).await;
    room.sweep().await;
    assert_eq!(room.cloud.told.lock().unwrap().len(), 1);
    room.cloud.machines.lock().unwrap()[0].attributes.insert("limit".into(), "10".into());
    room.env.sleep(secs(60)).await;
    assert!(room.sweep().await.findings.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_census_passes_the_gates_and_closes_them_when_it_is_told_to() {
    let room = Room::new().await;
    room.hired(1, false).await;
    let slow =
        Failure::Unavailable { cause: Cause::RateLimited, detail: "429".into(), retry_after: Some(secs(37)) };
    room.cloud.set(List::Fails(slow));
    assert!(room.sweep().await.problem.is_some());
    let closed = room.env.now();
    room.cloud.set(List::True);
    let calls = room.cloud.calls.lock().unwrap().len();
    // Sagas and further sweeps alike: nobody calls within the 37 seconds.
    let saga = room.hire(Wish { name: name(2), fails: false, waits: false }).await;
    let swept = room.sweep().await;
    assert!(swept.problem.is_none());
    room.engine.wait(&saga, secs(600), |_| false).await.unwrap();
    let later: Vec<i64> = room.cloud.calls.lock().unwrap()[calls..]
        .iter()
        .map(|call| call.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    assert!(
        !later.is_empty() && later.iter().all(|at| *at >= closed.plus(secs(36)).0),
        "{later:?} {closed:?}"
    );
    // A gate that a person closed holds for the sweep too, which says why there is no newer census.
    room.engine.close_gate("cloud", "ann", "maintenance").await.unwrap();
    let calls = room.cloud.calls.lock().unwrap().len();
    let swept = room.sweep().await;
    assert!(swept.problem.unwrap().contains("maintenance"));
    assert_eq!(room.cloud.calls.lock().unwrap().len(), calls);
}

#[tokio::test(start_paused = true)]
async fn of_several_processes_one_sweeps_and_another_takes_over_when_it_dies() {
    let room = Room::new().await;
    let cloud = Cloud::new("cloud");
    let start = || {
        let registry = registry(std::slice::from_ref(&cloud)).sweep(Sweep::default());
        let store = Arc::new(room.store.another(&room.env));
        Engine::start(store, room.vault.clone(), registry, room.env.clone(), "dev")
    };
    let (one, two) = (start(), start());
    room.env.sleep(secs(3600)).await;
    let lists = cloud.count("list");
    assert!((11..=14).contains(&lists), "one census every five minutes, whoever makes it: {lists}");
    one.abort();
    cloud.set(List::Hangs);
    room.env.sleep(secs(310)).await;
    two.abort();
    cloud.set(List::True);
    let three = start();
    room.env.sleep(secs(360)).await;
    assert!(three.censuses().await.unwrap()[0].age(room.env.now()).unwrap() <= secs(310), "it is taken over");
}

#[tokio::test(start_paused = true)]
async fn a_sweep_that_is_under_way_is_not_made_twice_and_two_by_mistake_are_one_sight() {
    let room = Room::new().await.removing();
    room.orphan(1).await;
    let hasty = Sweep { grace: Duration::ZERO, ..room.sweep.clone() };
    for _ in 0..2 {
        room.engine.sweep("cloud", &hasty).await.unwrap().unwrap();
    }
    assert_eq!(room.all().await[0].times_seen, 1, "at one moment");
    room.cloud.set(List::Hangs);
    let (_, second) = tokio::join!(room.engine.sweep("cloud", &hasty), async {
        room.env.sleep(secs(20)).await;
        room.engine.sweep("cloud", &hasty).await.unwrap()
    });
    assert_eq!(second, None, "the other has no right to");
}

/// Waits for what another task does, for a minute of real time at most.
async fn until<T, F: Future<Output = Option<T>>>(mut look: impl FnMut() -> F) -> T {
    for _ in 0..6000 {
        if let Some(seen) = look().await {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come");
}

#[tokio::test]
async fn on_a_real_file_an_orphan_is_found_over_a_restart_and_removed() {
    let database = Database::new(Env::seeded(5).with_pace(1000), &[]);
    let cloud = Cloud::new("cloud");
    let offers = |sweep: Sweep| registry(std::slice::from_ref(&cloud)).sweep(sweep);
    let running = database.run(offers(Sweep::default()), None).await;
    let wish = Wish { name: name(1), fails: true, waits: false };
    let new = running.engine.new_saga::<Hire>("k", &wish).unwrap();
    let saga = running.engine.begin(new).await.unwrap().saga().clone();
    let row = running.engine.wait(&saga, secs(60), |row| row.state.is_ended()).await.unwrap().unwrap();
    assert_eq!(row.state, SagaState::Compensated);
    cloud.put(&name(1));
    let found =
        |engine: Engine| async move { engine.findings(FindingFilter::default()).await.unwrap().pop() };
    let first = until(|| found(running.engine.clone())).await;
    running.die().await;
    let removes = Sweep { removes: true, ..Sweep::default() };
    let running = database.run(offers(removes), None).await;
    let settled =
        until(|| async { found(running.engine.clone()).await.filter(|row| row.settled.is_some()) }).await;
    assert_eq!((settled.id, settled.first_seen_at), (first.id, first.first_seen_at));
    assert_eq!(settled.settled.unwrap().how, Settlement::Removed);
    assert!(cloud.names().is_empty());
    let census = running.engine.censuses().await.unwrap().pop().unwrap();
    assert!(census.completed_at.is_some() && census.problem.is_none());
    running.engine.stop().await;
}

// ---- the pure part

fn row(number: usize, id: Option<&str>, state: ResourceState, changed: i64) -> ResourceRow {
    ResourceRow {
        id: ResourceId::stored(format!("rs_{number}")),
        provider: "cloud".into(),
        kind: "machine".into(),
        name: name(number),
        external_id: id.map(str::to_owned),
        state,
        holder: "x".into(),
        keeper: None,
        saga: SagaId::stored("sg_1"),
        step: StepKey::from("machine"),
        unsettled_until: None,
        within: None,
        rev: 1,
        intended_at: Timestamp(changed),
        changed_at: Timestamp(changed),
    }
}

fn thing(number: usize, id: &str) -> Observed {
    Observed::new("machine", id, name(number))
}

const NOW: Timestamp = Timestamp(1_000_000_000);

#[test]
fn a_row_without_an_id_explains_what_bears_its_name_and_one_with_an_id_only_that() {
    use ResourceState::{Gone, InDoubt, Intended, Live};
    let explains = |rows: &[ResourceRow], thing: Observed| {
        compare(rows, rows, &[thing], NOW, SETTLE).unexplained.is_empty()
    };
    assert!(explains(&[row(1, None, Intended, 0)], thing(1, "a")));
    assert!(explains(&[row(1, None, InDoubt, 0)], thing(1, "a")));
    assert!(explains(&[row(1, Some("a"), Live, 0)], thing(1, "a")));
    assert!(!explains(&[row(1, Some("b"), Live, 0)], thing(1, "a")), "a twin of it");
    assert!(!explains(&[row(1, None, Gone, 0)], thing(1, "a")));
    assert!(!explains(&[row(2, None, Intended, 0)], thing(1, "a")));
    let number = Observed { ledger_name: Some(name(9)), ..thing(1, "a") };
    assert!(explains(&[row(9, Some("order-7"), Live, 0)], number.clone()), "known by another name there");
    assert!(!explains(&[row(1, Some("order-7"), Live, 0)], number));
    let mut other = thing(1, "a");
    other.kind = "key".into();
    assert!(!explains(&[row(1, Some("a"), Live, 0)], other), "of another kind");
}

#[test]
fn a_row_that_changed_a_moment_ago_need_not_be_listed() {
    let live = |changed| row(1, Some("a"), ResourceState::Live, changed);
    let missing = |before: &[ResourceRow], after: &[ResourceRow]| {
        compare(before, after, &[], NOW, SETTLE).missing.len()
    };
    let (old, young) = (live(0), live(NOW.0 - 1_000_000));
    assert_eq!(missing(std::slice::from_ref(&old), std::slice::from_ref(&old)), 1);
    assert_eq!(missing(std::slice::from_ref(&young), std::slice::from_ref(&young)), 0);
    assert_eq!(missing(&[], std::slice::from_ref(&old)), 0, "it was not there when the list was begun");
    let removing = ResourceRow { state: ResourceState::Removing, ..old.clone() };
    assert_eq!(missing(std::slice::from_ref(&old), &[removing]), 0, "somebody is taking it away");
    let moved = ResourceRow { rev: 2, ..old.clone() };
    assert_eq!(missing(&[old], &[moved]), 0, "somebody changed it meanwhile");
}

#[test]
fn a_list_is_judged_by_the_direct_looks_at_what_it_lacks() {
    let rows: Vec<ResourceRow> =
        (1..=3).map(|n| row(n, Some(&format!("m{n}")), ResourceState::Live, 0)).collect();
    let comparison = compare(&rows, &rows, &[thing(1, "m1")], NOW, SETTLE);
    assert_eq!((comparison.expected, comparison.missing.len()), (3, 2));
    let looks = |looks: &[(usize, Look)]| -> BTreeMap<ResourceId, Look> {
        looks.iter().map(|(n, look)| (ResourceId::stored(format!("rs_{n}")), look.clone())).collect()
    };
    let judged = |first: &[(usize, Look)], second: &[(usize, Look)]| {
        let (first, second) = (looks(first), looks(second));
        judge(&comparison, &Looks { first, second, most: 10, ..Looks::default() })
    };
    let gone = [(2, Look::Absent), (3, Look::Absent)];
    assert!(matches!(judged(&[], &[]), Verdict::LookAgain(again) if again.len() == 2));
    assert!(matches!(judged(&gone, &[]), Verdict::LookAgain(_)), "an absence is not believed once");
    assert!(matches!(judged(&gone, &gone), Verdict::Stands(ghosts) if ghosts.len() == 2));
    assert!(matches!(judged(&[(2, Look::Absent), (3, Look::Alive)], &[]), Verdict::ThrownAway(_)));
    assert!(matches!(judged(&gone, &[(2, Look::Alive), (3, Look::Absent)]), Verdict::ThrownAway(_)));
    assert!(matches!(judged(&[(2, Look::Unknown("503".into()))], &[]), Verdict::Unavailable(_)));
    assert!(matches!(judged(&gone, &[(2, Look::Unknown("503".into()))]), Verdict::Unavailable(_)));
    let few = Looks { most: 1, ..Looks::default() };
    assert!(matches!(judge(&comparison, &few), Verdict::Unavailable(_)));
    let none = compare(&rows, &rows, &[], NOW, SETTLE);
    let all = looks(&[(1, Look::Absent), (2, Look::Absent), (3, Look::Absent)]);
    let twice = Looks { first: all.clone(), second: all.clone(), most: 10, ..Looks::default() };
    assert!(
        matches!(judge(&none, &twice), Verdict::Unavailable(_)),
        "all at once is somebody else's account"
    );
    let accepted = Looks { accepts_absence: true, ..twice.clone() };
    assert!(matches!(judge(&none, &accepted), Verdict::Stands(ghosts) if ghosts.len() == 3));
    let one = compare(&rows[..1], &rows[..1], &[], NOW, SETTLE);
    assert!(matches!(judge(&one, &twice), Verdict::Stands(_)), "one that is alone may well have gone");
    // Of another account's list the young are missing too, though they need not be listed yet.
    let young: Vec<ResourceRow> = (1..=3)
        .map(|n| row(n, Some(&format!("m{n}")), ResourceState::Live, if n == 1 { 0 } else { NOW.0 }))
        .collect();
    let mixed = compare(&young, &young, &[], NOW, SETTLE);
    assert_eq!((mixed.missing.len(), mixed.live), (1, 3));
    assert!(matches!(judge(&mixed, &twice), Verdict::Unavailable(_)), "one is old, and all are missing");
    let ghosts = all.keys().skip(1).cloned().collect();
    let known = Looks { ghosts, ..twice };
    assert!(matches!(judge(&none, &known), Verdict::Stands(_)), "the others are known to have");
}

#[test]
fn only_what_was_declared_and_is_shown_is_compared() {
    let desired =
        BTreeMap::from([("limit".to_owned(), "10".to_owned()), ("image".to_owned(), "a".to_owned())]);
    let mut seen = thing(1, "a");
    assert!(differences(&desired, &seen).is_empty());
    seen.attributes =
        BTreeMap::from([("limit".to_owned(), "11".to_owned()), ("colour".to_owned(), "red".to_owned())]);
    let differences = differences(&desired, &seen);
    assert_eq!(
        differences.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["limit is 11 and should be 10"]
    );
}

/// Dice for the property, the same for every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// A world of things and rows in every state, and lists of it that lack, lag and repeat.
#[test]
fn no_comparison_takes_what_is_explained_for_an_orphan_nor_what_is_there_for_a_ghost() {
    let rounds: u64 =
        std::env::var("AMENDS_TEST_COMPARISONS").ok().and_then(|n| n.parse().ok()).unwrap_or(5_000);
    let (mut orphans, mut ghosts, mut thrown, mut unavailable) = (0, 0, 0, 0);
    for seed in 1..=rounds {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let count = 1 + dice.below(8) as usize;
        let (mut before, mut after, mut listed) = (Vec::new(), Vec::new(), Vec::new());
        let (mut alive, mut owned) = (BTreeSet::new(), BTreeSet::new());
        for number in 1..=count {
            let id = format!("m{number}");
            let changed = if dice.below(3) == 0 { NOW.0 - 1_000_000 } else { 0 };
            let states = [
                None,
                Some(ResourceState::Intended),
                Some(ResourceState::Live),
                Some(ResourceState::Live),
                Some(ResourceState::InDoubt),
                Some(ResourceState::Removing),
                Some(ResourceState::Gone),
            ];
            let reading = |state: Option<ResourceState>| {
                let state = state?;
                let has_id =
                    matches!(state, ResourceState::Live | ResourceState::Removing | ResourceState::Gone);
                Some(row(number, has_id.then_some(id.as_str()), state, changed))
            };
            let first = states[dice.below(7) as usize];
            let last = if dice.below(2) == 0 { first } else { states[dice.below(7) as usize] };
            before.extend(reading(first));
            after.extend(reading(last));
            let is_open =
                |state: Option<ResourceState>| state.is_some_and(|state| state != ResourceState::Gone);
            if is_open(first) || is_open(last) {
                owned.insert(id.clone());
            }
            if dice.below(4) > 0 {
                alive.insert(id.clone());
                // Mostly it is listed; a page that shifts lists it twice.
                for _ in 0..[1, 1, 1, 1, 2, 0][dice.below(6) as usize] {
                    listed.push(thing(number, &id));
                }
            }
        }
        let comparison = compare(&before, &after, &listed, NOW, SETTLE);
        for orphan in &comparison.unexplained {
            assert!(!owned.contains(&orphan.external_id), "seed {seed}: {orphan:?} is explained");
            assert!(listed.contains(orphan), "seed {seed}");
        }
        let mut looks = Looks { most: 5, ..Looks::default() };
        let look = |row: &ResourceRow, dice: &mut Dice| match dice.below(20) {
            0 => Look::Unknown("503".into()),
            _ if alive.contains(row.external_id.as_ref().unwrap()) => Look::Alive,
            _ => Look::Absent,
        };
        for pass in 0..3 {
            match judge(&comparison, &looks) {
                Verdict::LookAgain(again) => {
                    assert!(pass < 2, "seed {seed}: it does not end");
                    let rows = comparison.missing.iter().filter(|row| again.contains(&row.id));
                    let seen = rows.map(|row| (row.id.clone(), look(row, &mut dice))).collect();
                    if pass == 0 { looks.first = seen } else { looks.second = seen }
                }
                Verdict::Stands(all) => {
                    for id in &all {
                        let row = after.iter().find(|row| row.id == *id).unwrap();
                        assert!(
                            row.state == ResourceState::Live && row.changed_at == Timestamp(0),
                            "seed {seed}"
                        );
                        assert!(
                            !alive.contains(row.external_id.as_ref().unwrap()),
                            "seed {seed}: it is there"
                        );
                        assert_eq!(looks.second.get(id), Some(&Look::Absent), "seed {seed}: not seen twice");
                    }
                    // A list that stands lacks nothing that is known to be there.
                    for row in &comparison.missing {
                        assert!(!alive.contains(row.external_id.as_ref().unwrap()), "seed {seed}");
                    }
                    assert!(all.len() <= 1 || !comparison.matched.is_empty(), "seed {seed}: all at once");
                    orphans += comparison.unexplained.len();
                    ghosts += all.len();
                    break;
                }
                Verdict::ThrownAway(_) => {
                    let is_alive = |row: &ResourceRow| alive.contains(row.external_id.as_ref().unwrap());
                    assert!(comparison.missing.iter().any(is_alive), "seed {seed}: for nothing");
                    thrown += 1;
                    break;
                }
                Verdict::Unavailable(_) => {
                    unavailable += 1;
                    break;
                }
            }
        }
    }
    println!(
        "{rounds} comparisons: {orphans} orphans, {ghosts} ghosts, {thrown} thrown away, {unavailable} unavailable"
    );
    assert!([orphans, ghosts, thrown, unavailable].iter().all(|count| *count > 30), "too little happened");
}

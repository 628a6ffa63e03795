//! What the engine promises of any saga, shown on a small world that fails in every way.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use amends_engine::journal::state::SagaState;
use amends_engine::store::open::Migrations;
use amends_engine::store::{ResourceFilter, ResourceState, Started};
use amends_engine::testing::crash::Crash;
use amends_engine::{
    Activity, Call, Effect, Env, Failure, Local, Registry, Resource, Saga, SagaId, SecretRef, Tx, Workflow,
    params,
};
use amends_tests::database::{Database, Running};
use amends_tests::world::{FAULTS, Fails, Fault, Make, PACE, World};
use serde::{Deserialize, Serialize};

const NOTES: &[Migrations] = &[Migrations {
    table: "note_migration",
    sqlite: &[("note", "create table note (text text primary key) strict;")],
    postgres: &[],
}];

/// Writes a line into a table of our own, and takes it out again.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct WriteNote {
    text: String,
}

impl Local for WriteNote {
    const NAME: &'static str = "note.write";
    const REVERTS: bool = true;
    type Output = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), Failure> {
        tx.execute("insert into note (text) values ($1)", params![&self.text]).await?;
        Ok(())
    }

    async fn revert(&self, _: &(), tx: &mut Tx<'_>) -> Result<(), Failure> {
        let gone = tx.execute("delete from note where text = $1", params![&self.text]).await?;
        if gone == 1 { Ok(()) } else { Err(Failure::refused("missing", "the note is not there")) }
    }
}

/// A note, a house with a room in it, two trees side by side, and a lamp that needs the house.
struct Build;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Plan {
    ends_badly: bool,
}

impl Workflow for Build {
    const NAME: &'static str = "build";
    const VERSION: u32 = 1;
    type Input = Plan;
    type Output = String;

    async fn run(&self, saga: &Saga, plan: Plan) -> amends_engine::saga::Result<String> {
        saga.transact("note", WriteNote { text: "building".into() }).await?;
        let house = saga.step("house", Make::new("house")).await?;
        let room = Make { inside: Some("house".into()), ..Make::new("house.room") };
        saga.step("room", room).await?;
        saga.each("trees", [("oak", "oak"), ("elm", "elm")], async |saga: Saga, kind: &str| {
            saga.step("plant", Make::new(kind)).await.map(drop)
        })
        .await?;
        saga.sleep("rest", Duration::from_millis(400)).await?;
        saga.step("lamp", Make { needs: Some(house.clone()), ..Make::new("lamp") }).await?;
        if plan.ends_badly {
            saga.step("inspect", Fails).await?;
        }
        Ok(house.name.clone())
    }
}

/// How long anything is waited for that will happen.
const PATIENCE: Duration = Duration::from_secs(120);

fn env() -> Env {
    // A call that a slow machine cuts short is in doubt once more, and what it comes to in the end is the same.
    Env::seeded(7).with_pace(PACE).with_shortest_limit(Duration::from_millis(300))
}

fn registry(world: &Arc<World>) -> Registry {
    Registry::default()
        .activity::<Make>(Arc::new(world.clone()))
        .activity::<Fails>(Arc::new(world.clone()))
        .local::<WriteNote>()
        .workflow(Build)
}

async fn begin(running: &Running, ends_badly: bool) -> SagaId {
    let new = running.engine.new_saga::<Build>("build-1", &Plan { ends_badly }).unwrap();
    match running.engine.begin(new).await.unwrap() {
        Started::New(id) | Started::Before(id) => id,
        Started::KeyReused(id) => panic!("{id}"),
    }
}

/// Runs one saga to its end, through a crash if there is one, and says how often it appended and how it ended.
async fn live(
    world: &Arc<World>,
    ends_badly: bool,
    crash: Option<Crash>,
) -> (Database, Running, SagaId, bool) {
    // Where nothing goes wrong, no call is cut short however slow the machine is, so that its appends are always as many.
    let is_well = crash.is_none() && world.is_well();
    let env = if is_well { env().with_shortest_limit(PATIENCE) } else { env() };
    let database = Database::new(env, NOTES);
    let mut running = database.run(registry(world), crash).await;
    let saga = begin(&running, ends_badly).await;
    let ended = || running.engine.wait(&saga, PATIENCE, |_| false);
    let crashed = tokio::select! {
        row = ended() => { row.unwrap(); false }
        () = running.store.crashed() => true,
    };
    if crashed {
        running.die().await;
        running = database.run(registry(world), None).await;
    }
    let row = running.engine.wait(&saga, PATIENCE, |_| false).await.unwrap().unwrap();
    if !row.state.is_ended() {
        let view = running.engine.view(&saga).await.unwrap().unwrap();
        for entry in &view.entries {
            eprintln!("{} {} {:?}", entry.seq, entry.at, entry.event);
        }
        panic!("{row:#?}");
    }
    (database, running, saga, crashed)
}

/// The world and our own books agree: all of it is there once, or nothing is.
async fn check(world: &Arc<World>, running: &Running, saga: &SagaId) -> SagaState {
    world.all_landed().await;
    let row = running.engine.row(saga).await.unwrap().unwrap();
    let notes = running.store.fetch("select text from note".into(), vec![]).await.unwrap();
    let filter = ResourceFilter { limit: 100, ..ResourceFilter::default() };
    let ledger = running.engine.resources(filter).await.unwrap();
    let live: BTreeMap<String, usize> = ledger
        .iter()
        .filter(|row| row.state != ResourceState::Gone)
        .map(|row| {
            assert_eq!(row.state, ResourceState::Live, "{row:#?}");
            (row.external_id.clone().unwrap(), 1)
        })
        .collect();
    assert_eq!(world.things(), live, "the world and the ledger differ: {row:#?}");
    if row.state == SagaState::Completed {
        assert_eq!(live.len(), 5);
        assert_eq!(notes.len(), 1);
    } else {
        assert!(live.is_empty() && notes.is_empty(), "{row:#?}");
    }
    row.state
}

use amends_engine::store::Store as _;

#[tokio::test]
async fn a_saga_completes_and_its_ledger_is_the_world() {
    let world = Arc::new(World::default());
    let (_database, running, saga, _) = live(&world, false, None).await;
    assert_eq!(check(&world, &running, &saga).await, SagaState::Completed);
    assert_eq!(running.store.output(&saga).await.unwrap(), Some("house".into()));
    running.engine.stop().await;
}

#[tokio::test]
async fn a_saga_that_fails_takes_back_what_it_did_dependents_first() {
    let world = Arc::new(World::default());
    let (_database, running, saga, _) = live(&world, true, None).await;
    assert_eq!(check(&world, &running, &saga).await, SagaState::Compensated);
    let calls = world.calls.lock().unwrap().clone();
    let undone: Vec<&str> = calls.iter().filter_map(|call| call.strip_prefix("unmake ")).collect();
    assert_eq!(undone.first(), Some(&"lamp"), "{calls:?}");
    assert_eq!(undone.last(), Some(&"house"), "{calls:?}");
    assert!(!undone.contains(&"house.room"), "it goes with the house: {calls:?}");
    running.engine.stop().await;
}

#[tokio::test]
async fn a_crash_at_any_append_changes_nothing_about_how_it_ends() {
    let mut worlds = 0;
    for ends_badly in [false, true] {
        let world = Arc::new(World::default());
        let (_database, running, _, _) = live(&world, ends_badly, None).await;
        let appends = running.store.appends();
        running.engine.stop().await;
        for at in 1..=appends {
            for crash in [Crash::Before(at), Crash::After(at)] {
                let world = Arc::new(World::default());
                let (_database, running, saga, crashed) = live(&world, ends_badly, Some(crash)).await;
                let wanted = if ends_badly { SagaState::Compensated } else { SagaState::Completed };
                assert_eq!(check(&world, &running, &saga).await, wanted, "{crash:?}");
                // After its last append there is nothing left to be interrupted.
                assert!(crashed || crash == Crash::After(appends), "{crash:?} did not happen");
                running.engine.stop().await;
                worlds += 1;
            }
        }
    }
    eprintln!("{worlds} crashes");
    assert!(worlds > 30);
}

#[tokio::test]
async fn whatever_one_call_comes_to_all_or_nothing_is_left() {
    let mut worlds = 0;
    for thing in ["house", "house.room", "oak", "lamp"] {
        for fault in FAULTS {
            for (verb, ends_badly) in [("make", false), ("make", true), ("unmake", true)] {
                if verb == "unmake" && (thing == "house.room" || fault == Fault::Refused) {
                    continue;
                }
                let world = Arc::new(World::default());
                world.fail(&format!("{verb} {thing}"), &[fault]);
                let (_database, running, saga, _) = live(&world, ends_badly, None).await;
                let state = check(&world, &running, &saga).await;
                let refused = ends_badly || fault == Fault::Refused;
                assert_eq!(state == SagaState::Completed, !refused, "{verb} {thing} {fault:?}");
                assert_eq!(*world.fired.lock().unwrap(), [fault]);
                running.engine.stop().await;
                worlds += 1;
            }
        }
    }
    eprintln!("{worlds} faults");
}

/// Asks for a mast, and takes it back for a pole when it cannot be had; then waits for word, and for the time.
struct Signal;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Word {
    patience_ms: u64,
}

impl Workflow for Signal {
    const NAME: &'static str = "signal";
    const VERSION: u32 = 1;
    type Input = Word;
    type Output = (String, Option<String>, bool);

    async fn run(
        &self,
        saga: &Saga,
        word: Word,
    ) -> amends_engine::saga::Result<(String, Option<String>, bool)> {
        let began = saga.now("began").await?;
        let mast = saga
            .scope("mast", |saga| async move {
                saga.step("base", Make::new("base")).await?;
                saga.step("raise", Fails).await?;
                Ok("mast".to_owned())
            })
            .await;
        let held = match mast {
            Ok(mast) => mast,
            Err(_) => saga.step("pole", Make::new("pole")).await?.name.clone(),
        };
        let limit = Duration::from_millis(word.patience_ms * u64::from(PACE));
        let said: Option<String> = saga.signal("word", "word", limit).await?;
        let ended = saga.now("ended").await?;
        Ok((held, said, ended >= began))
    }
}

#[tokio::test]
async fn a_scope_is_taken_back_alone_and_a_signal_comes_early_late_or_never() {
    for (when, patience_ms, wanted) in
        [("before", 120_000, Some("hello")), ("after", 120_000, Some("hello")), ("never", 100, None)]
    {
        let world = Arc::new(World::default());
        let database = Database::new(env(), NOTES);
        let registry = || registry(&world).workflow(Signal);
        let mut running = database.run(registry(), None).await;
        let new = running.engine.new_saga::<Signal>("s", &Word { patience_ms }).unwrap();
        let Started::New(saga) = running.engine.begin(new).await.unwrap() else { panic!() };
        let send = async |running: &Running| {
            running.engine.signal(&saga, "letter-1", "word", "hello".into()).await.unwrap();
        };
        if when == "before" {
            send(&running).await;
        }
        let waits = |row: &amends_engine::store::SagaRow| row.step.as_deref() == Some("word waits");
        if when == "after" {
            let row = running.engine.wait(&saga, PATIENCE, waits).await.unwrap().unwrap();
            assert!(waits(&row), "{row:?}");
            // It waits through a restart too.
            running.die().await;
            running = database.run(registry(), None).await;
            send(&running).await;
            send(&running).await;
        }
        let row = running.engine.wait(&saga, PATIENCE, |_| false).await.unwrap().unwrap();
        assert_eq!(row.state, SagaState::Completed, "{row:?}");
        let output = running.store.output(&saga).await.unwrap().unwrap();
        assert_eq!(output, serde_json::json!(["pole", wanted, true]), "{when}");
        assert_eq!(world.things().into_keys().collect::<Vec<_>>(), ["pole"], "the base went with its scope");
        running.engine.stop().await;
    }
}

#[tokio::test]
async fn a_saga_that_is_not_past_its_pivot_by_its_deadline_turns_round() {
    let world = Arc::new(World::default());
    world.fail("make lamp", &[Fault::Unavailable; 50]);
    let database = Database::new(env(), NOTES);
    let running = database.run(registry(&world), None).await;
    let new = running.engine.new_saga::<Build>("late", &Plan { ends_badly: false }).unwrap();
    // Six seconds at this pace: the first step is done long before.
    let new = new.within(running.engine.env(), Duration::from_secs(120));
    let Started::New(saga) = running.engine.begin(new).await.unwrap() else { panic!() };
    let row = running.engine.wait(&saga, PATIENCE, |_| false).await.unwrap().unwrap();
    assert_eq!(row.state, SagaState::Compensated, "{row:?}");
    assert!(row.error.unwrap().contains("deadline"));
    assert!(world.things().is_empty());
    running.engine.stop().await;
}

#[tokio::test]
async fn the_memory_store_runs_the_same_saga() {
    let world = Arc::new(World::default());
    let (store, vault) = amends_engine::store::memory::MemoryStore::new(NOTES, &env()).await.unwrap();
    let store = Arc::new(store);
    let engine = amends_engine::Engine::start(store.clone(), vault, registry(&world), env(), "test");
    for ends_badly in [false, true] {
        let new = engine.new_saga::<Build>(format!("m-{ends_badly}"), &Plan { ends_badly }).unwrap();
        let Started::New(saga) = engine.begin(new).await.unwrap() else { panic!() };
        let row = engine.wait(&saga, PATIENCE, |_| false).await.unwrap().unwrap();
        let wanted = if ends_badly { SagaState::Failed } else { SagaState::Completed };
        // The second one finds the first one's note in its place.
        assert_eq!(row.state, wanted, "{row:?}");
    }
    assert_eq!(world.things().len(), 5);
    engine.stop().await;
}

/// Puts a secret away.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Hide;

impl Activity for Hide {
    const NAME: &'static str = "safe.hide";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = ();
    type Output = SecretRef;

    async fn execute(&self, (): &(), call: &Call) -> Result<SecretRef, Failure> {
        call.seal("test", &"hush".into())
    }
}

/// Makes something that is taken back.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Lock(String);

impl Activity for Lock {
    const NAME: &'static str = "safe.lock";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = ();
    type Output = ();

    fn resource(&self, _: &Call) -> Option<Resource> {
        Some(Resource::new("safe", "lock", self.0.clone()))
    }

    async fn execute(&self, (): &(), _: &Call) -> Result<(), Failure> {
        Ok(())
    }

    async fn compensate(&self, (): &(), (): &(), _: &Call) -> Result<(), Failure> {
        Ok(())
    }
}

/// Puts a secret away for an owner, for nobody, or in vain.
struct Keep;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct For {
    owner: Option<String>,
    ends_badly: bool,
    is_locked: bool,
}

impl Workflow for Keep {
    const NAME: &'static str = "keep";
    const VERSION: u32 = 1;
    type Input = For;
    type Output = ();

    fn owner(of: &For, (): &()) -> Option<String> {
        of.owner.clone()
    }

    async fn run(&self, saga: &Saga, of: For) -> amends_engine::saga::Result<()> {
        saga.step("hide", Hide).await?;
        if of.is_locked {
            saga.step("lock", Lock(format!("{of:?}"))).await?;
        }
        if of.ends_badly { Err(amends_engine::Halt::give_up("no", "as it was asked to")) } else { Ok(()) }
    }
}

#[tokio::test]
async fn a_secret_is_its_owners_and_is_destroyed_with_a_saga_that_leaves_it_to_nobody() {
    let (store, vault) = amends_engine::store::memory::MemoryStore::new(NOTES, &env()).await.unwrap();
    let store = Arc::new(store);
    let registry = Registry::default().activity::<Hide>(Arc::new(())).activity::<Lock>(Arc::new(()));
    let registry = registry.workflow(Keep);
    let engine = amends_engine::Engine::start(store.clone(), vault, registry, env(), "test");
    let ways = [false, true].map(|ends_badly| [false, true].map(|is_locked| (ends_badly, is_locked)));
    let ways = ways.into_iter().flatten().flat_map(|way| [Some("house"), None].map(|owner| (owner, way)));
    for (owner, (ends_badly, is_locked)) in ways {
        let of = For { owner: owner.map(str::to_owned), ends_badly, is_locked };
        let new = engine.new_saga::<Keep>(format!("{of:?}"), &of).unwrap();
        let saga = engine.begin(new).await.unwrap().saga().clone();
        let row = engine.wait(&saga, Duration::from_secs(20), |_| false).await.unwrap().unwrap();
        // What did nothing that could be taken back has failed, and is not compensated.
        let wanted = match (ends_badly, is_locked) {
            (false, _) => SagaState::Completed,
            (true, true) => SagaState::Compensated,
            (true, false) => SagaState::Failed,
        };
        assert_eq!(row.state, wanted, "{row:?}");
        let view = engine.view(&saga).await.unwrap().unwrap();
        let hidden = view.state.step(&"hide".into()).unwrap().output.clone().unwrap();
        let hidden: SecretRef = serde_json::from_value(hidden).unwrap();
        let is_there = store.secret(&hidden).await.unwrap().is_some();
        assert_eq!(is_there, owner.is_some() && !ends_badly, "{of:?}: {}", row.state);
    }
    engine.stop().await;
}

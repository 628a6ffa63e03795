//! Whatever the user's own code panics in: it is said at once and by the function's name, it can be cancelled and
//! retried, nothing runs in a circle, and other sagas go on.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use amends_engine::activity::Cause;
use amends_engine::journal::act::{Act, Verdict};
use amends_engine::journal::state::SagaState;
use amends_engine::journal::story;
use amends_engine::secret::Vault;
use amends_engine::store::memory::MemoryStore;
use amends_engine::store::{ResourceFilter, ResourceState, SagaRow, Started, Store};
use amends_engine::{
    Activity, Call, Effect, Engine, Env, Failure, Found, Gate, Local, Registry, Resource, ResourceId, Saga,
    SagaId, Seen, Tx, Workflow, saga, secs,
};
use amends_tests::database::Database;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a panic says may hold a secret, so it is shown nowhere.
const SECRET: &str = "hunter2";

/// The traps that are set, as `name function`: the tests run side by side, and a trap's name is its test's own.
static SET: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

fn set(trap: &str, function: &str) {
    SET.lock().unwrap_or_else(PoisonError::into_inner).insert(format!("{trap} {function}"));
}

fn unset(trap: &str) {
    SET.lock().unwrap_or_else(PoisonError::into_inner).retain(|set| !set.starts_with(&format!("{trap} ")));
}

fn step_into(trap: &str, function: &str) {
    let is_set = SET.lock().unwrap_or_else(PoisonError::into_inner).contains(&format!("{trap} {function}"));
    if is_set {
        // As a panic, without its noise.
        std::panic::resume_unwind(Box::new(SECRET));
    }
}

/// The name of a trap, which is one itself when it is read.
#[derive(Debug, Clone)]
struct Trap(String);

impl Serialize for Trap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Trap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        step_into(&name, "deserialize");
        Ok(Self(name))
    }
}

/// What a call made; a trap when it is written, and when it is read.
#[derive(Debug, Clone)]
struct Caught(String);

impl Serialize for Caught {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        step_into(&self.0, "serialize");
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Caught {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        step_into(&name, "read output");
        Ok(Self(name))
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            step_into(&self.0, "drop");
        }
    }
}

#[derive(Default)]
struct Field {
    things: Mutex<Vec<String>>,
    calls: Mutex<Vec<String>>,
    loses: Mutex<bool>,
}

impl Field {
    fn call(&self, what: String) {
        self.calls.lock().unwrap().push(what);
    }

    fn calls(&self, what: &str) -> usize {
        self.calls.lock().unwrap().iter().filter(|called| called.starts_with(what)).count()
    }

    fn things(&self) -> Vec<String> {
        self.things.lock().unwrap().clone()
    }
}

/// Makes a thing.
#[derive(Serialize, Deserialize)]
struct Make {
    trap: Trap,
}

impl Activity for Make {
    const NAME: &'static str = "field.make";
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(5) };
    type Client = Field;
    type Output = Caught;

    fn resource(&self, call: &Call) -> Option<Resource> {
        step_into(&self.trap.0, "resource");
        Some(Resource::new("field", "thing", call.name(&self.trap.0)))
    }

    fn removes(&self) -> Vec<ResourceId> {
        step_into(&self.trap.0, "removes");
        Vec::new()
    }

    fn gates(&self, _: &Field) -> Vec<Gate> {
        step_into(&self.trap.0, "gates");
        vec![Gate::credential("field")]
    }

    fn external_id(made: &Caught) -> Option<String> {
        step_into(&made.0, "external_id");
        Some(made.0.clone())
    }

    async fn execute(&self, field: &Field, _: &Call) -> Result<Caught, Failure> {
        field.call(format!("execute {}", self.trap.0));
        step_into(&self.trap.0, "execute");
        field.things.lock().unwrap().push(self.trap.0.clone());
        step_into(&self.trap.0, "behind");
        if *field.loses.lock().unwrap() && !self.trap.0.starts_with("safe") {
            return Err(Failure::NoAnswer { cause: Cause::Reset, detail: "lost".to_owned() });
        }
        Ok(Caught(self.trap.0.clone()))
    }

    async fn find(&self, field: &Field, _: &Call) -> Result<Found<Caught>, Failure> {
        field.call(format!("find {}", self.trap.0));
        step_into(&self.trap.0, "find");
        let is_there = field.things().contains(&self.trap.0);
        Ok(if is_there { Found::Usable(Caught(self.trap.0.clone())) } else { Found::Nothing })
    }

    async fn compensate(&self, field: &Field, _: &Caught, _: &Call) -> Result<(), Failure> {
        field.call(format!("compensate {}", self.trap.0));
        step_into(&self.trap.0, "compensate");
        field.things.lock().unwrap().retain(|thing| *thing != self.trap.0);
        Ok(())
    }
}

/// Writes a note.
#[derive(Serialize, Deserialize)]
struct Note {
    trap: Trap,
}

impl Local for Note {
    const NAME: &'static str = "field.note";
    const REVERTS: bool = true;
    type Output = Caught;

    async fn apply(&self, _: &mut Tx<'_>) -> Result<Caught, Failure> {
        step_into(&self.trap.0, "apply");
        Ok(Caught(self.trap.0.clone()))
    }

    async fn revert(&self, _: &Caught, _: &mut Tx<'_>) -> Result<(), Failure> {
        step_into(&self.trap.0, "revert");
        Ok(())
    }
}

/// Makes what is safe, then what may be a trap, and rests.
struct Walk;

impl Workflow for Walk {
    const NAME: &'static str = "walk";
    const VERSION: u32 = 1;
    type Input = (String, String);
    type Output = String;

    fn owner((_, trap): &(String, String), _: &String) -> Option<String> {
        step_into(trap, "owner");
        Some("a farmer".to_owned())
    }

    async fn run(&self, saga: &Saga, (kind, trap): (String, String)) -> saga::Result<String> {
        let held = Trap(trap.clone());
        saga.step("safe", Make { trap: Trap(format!("safe-{trap}")) }).await?;
        step_into(&trap, "run");
        match kind.as_str() {
            "note" => drop(saga.transact("note", Note { trap: Trap(trap.clone()) }).await?),
            "make" => drop(saga.step("make", Make { trap: Trap(trap.clone()) }).await?),
            _ => {}
        }
        saga.sleep("rest", secs(7200)).await?;
        let trap = held.0.clone();
        Ok(trap)
    }
}

struct Ground {
    env: Env,
    store: Arc<MemoryStore>,
    vault: Vault,
    field: Arc<Field>,
    engine: Engine,
}

fn registry(field: &Arc<Field>) -> Registry {
    Registry::default().activity::<Make>(field.clone()).local::<Note>().workflow(Walk)
}

impl Ground {
    async fn new() -> Self {
        let env = Env::simulated(1);
        let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
        let (store, field) = (Arc::new(store), Arc::new(Field::default()));
        let engine = Engine::start(store.clone(), vault.clone(), registry(&field), env.clone(), "test");
        Self { env, store, vault, field, engine }
    }

    /// Another process, after this one has died.
    fn restart(&mut self) {
        self.engine.abort();
        let store = Arc::new(self.store.another(&self.env));
        self.engine =
            Engine::start(store, self.vault.clone(), registry(&self.field), self.env.clone(), "test");
    }

    async fn start(&self, kind: &str, trap: &str) -> SagaId {
        start(&self.engine, kind, trap).await
    }

    async fn until(&self, saga: &SagaId, limit: Duration, what: impl Fn(&SagaRow) -> bool) -> SagaRow {
        let row = self.engine.wait(saga, limit, &what).await.unwrap().unwrap();
        assert!(what(&row), "{row:#?}\n{}", self.story(saga).await);
        row
    }

    async fn story(&self, saga: &SagaId) -> String {
        let entries = self.store.journal(saga).await.unwrap();
        let why = self.engine.why(saga).await.unwrap().unwrap();
        format!("{}\n{why}\n{:?}", story(saga, &entries), self.field.calls.lock().unwrap())
    }

    /// Within a minute there is an attention that says which function panicked, and not what it said.
    async fn is_said(&self, saga: &SagaId, said: &str) {
        self.until(saga, secs(60), |row| !row.attention.is_empty()).await;
        let why = self.engine.why(saga).await.unwrap().unwrap().to_string();
        let told = format!("{why}\n{}", self.story(saga).await);
        assert!(why.contains(said), "{said} is not in\n{told}");
        assert!(!told.contains(SECRET), "{told}");
        let journal = format!("{:?}", self.store.journal(saga).await.unwrap());
        assert!(!journal.contains(SECRET), "{journal}");
    }

    /// Nothing runs in a circle, and others go on.
    async fn is_quiet(&self, saga: &SagaId, other: &str) {
        let before = self.store.journal(saga).await.unwrap().len();
        let bystander = self.start("none", other).await;
        self.env.sleep(secs(3600)).await;
        self.until(&bystander, secs(60), |row| row.step.as_deref() == Some("rest waits")).await;
        let after = self.store.journal(saga).await.unwrap().len();
        assert!(after - before < 100, "{before} {after}\n{}", self.story(saga).await);
    }

    async fn is_taken_back(&self, saga: &SagaId, trap: &str) {
        self.until(saga, secs(3600), |row| row.state.is_ended()).await;
        let row = self.engine.row(saga).await.unwrap().unwrap();
        assert_eq!(row.state, SagaState::Compensated, "{}", self.story(saga).await);
        let own = [trap.to_owned(), format!("safe-{trap}")];
        let left: Vec<_> = self.field.things().into_iter().filter(|thing| own.contains(thing)).collect();
        assert_eq!(left, Vec::<String>::new(), "{}", self.story(saga).await);
        let filter =
            ResourceFilter { holder: Some(saga.to_string()), limit: 100, ..ResourceFilter::default() };
        let rows = self.store.resources(filter).await.unwrap();
        assert!(rows.iter().all(|row| row.state == ResourceState::Gone), "{rows:#?}");
    }
}

async fn start(engine: &Engine, kind: &str, trap: &str) -> SagaId {
    let new = engine.new_saga::<Walk>(trap, &(kind.to_owned(), trap.to_owned())).unwrap();
    let Started::New(saga) = engine.begin(new).await.unwrap() else { panic!() };
    saga
}

fn rests(row: &SagaRow) -> bool {
    row.step.as_deref() == Some("rest waits")
}

#[tokio::test(start_paused = true)]
async fn what_panics_before_a_call_is_said_at_once_and_nothing_leaves() {
    for function in ["deserialize", "resource", "removes", "gates"] {
        let mut ground = Ground::new().await;
        let trap = format!("before-{function}");
        set(&trap, function);
        let saga = ground.start("make", &trap).await;
        ground.is_said(&saga, &format!("{function} of field.make panicked")).await;
        ground.is_quiet(&saga, &format!("other-{function}")).await;
        ground.restart();
        ground.is_quiet(&saga, &format!("another-{function}")).await;
        ground.is_said(&saga, &format!("{function} of field.make panicked")).await;
        assert_eq!(ground.field.calls(&format!("execute {trap}")), 0);
        ground.engine.cancel(&saga, "ann", "x").await.unwrap();
        ground.is_taken_back(&saga, &trap).await;

        let trap = format!("mended-{function}");
        set(&trap, function);
        let saga = ground.start("make", &trap).await;
        ground.is_said(&saga, &format!("{function} of field.make panicked")).await;
        unset(&trap);
        ground.engine.retry(&saga, "ann", "it was mended").await.unwrap();
        ground.until(&saga, secs(60), rests).await;
        assert_eq!(ground.field.calls(&format!("execute {trap}")), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_panics_in_a_call_is_said_at_once_and_settled_like_any_lost_call() {
    for function in ["execute", "serialize", "find"] {
        let ground = Ground::new().await;
        let trap = format!("in-{function}");
        set(&trap, function);
        *ground.field.loses.lock().unwrap() = function == "find";
        let saga = ground.start("make", &trap).await;
        ground.until(&saga, secs(60), |row| row.error.is_some()).await;
        *ground.field.loses.lock().unwrap() = false;
        ground.is_said(&saga, &format!("{function} of field.make panicked")).await;
        let rows = ground.store.resources(ResourceFilter { limit: 100, ..ResourceFilter::default() }).await;
        let rows = rows.unwrap();
        let row = rows.iter().find(|row| row.name == trap).unwrap();
        assert_ne!(row.state, ResourceState::Gone, "what may be there is not said to be gone");
        ground.is_quiet(&saga, &format!("beside-{function}")).await;
        ground.engine.cancel(&saga, "ann", "x").await.unwrap();
        ground.env.sleep(secs(60)).await;
        unset(&trap);
        ground.is_taken_back(&saga, &trap).await;

        let trap = format!("in-mended-{function}");
        set(&trap, function);
        let saga = ground.start("make", &trap).await;
        ground.env.sleep(secs(30)).await;
        unset(&trap);
        ground.until(&saga, secs(3600), rests).await;
        assert_eq!(ground.field.things().iter().filter(|thing| **thing == trap).count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_made_before_its_call_panicked_is_found_and_not_made_again() {
    let ground = Ground::new().await;
    let trap = "made-and-panicked";
    set(trap, "behind");
    let saga = ground.start("make", trap).await;
    ground.until(&saga, secs(3600), rests).await;
    assert_eq!(ground.field.calls(&format!("execute {trap}")), 1);
    assert_eq!(ground.field.things().iter().filter(|thing| *thing == trap).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_made_and_has_no_id_for_a_panic_is_known_to_be_made() {
    let ground = Ground::new().await;
    for (trap, found) in [("id-cancelled", false), ("id-found", true)] {
        set(trap, "external_id");
        *ground.field.loses.lock().unwrap() = found;
        let saga = ground.start("make", trap).await;
        ground.env.sleep(secs(2)).await;
        *ground.field.loses.lock().unwrap() = false;
        ground.is_said(&saga, "external_id of field.make panicked").await;
        ground.is_quiet(&saga, &format!("beside-{trap}")).await;
        assert_eq!(ground.field.calls(&format!("execute {trap}")), 1, "known to be made, so not made again");
        ground.engine.cancel(&saga, "ann", "x").await.unwrap();
        ground.is_taken_back(&saga, trap).await;
    }
    set("id-retried", "external_id");
    let saga = ground.start("make", "id-retried").await;
    ground.is_said(&saga, "external_id of field.make panicked").await;
    ground.engine.retry(&saga, "ann", "it has no id, and needs none").await.unwrap();
    ground.until(&saga, secs(60), rests).await;
}

#[tokio::test(start_paused = true)]
async fn what_panics_on_the_way_back_is_said_at_once_and_holds_up_nothing_else() {
    // What it makes and removes is on the ledger by then, and is not asked for again.
    let ground = Ground::new().await;
    let saga = ground.start("make", "not-asked").await;
    ground.until(&saga, secs(60), rests).await;
    set("not-asked", "resource");
    set("not-asked", "removes");
    ground.engine.cancel(&saga, "ann", "x").await.unwrap();
    ground.is_taken_back(&saga, "not-asked").await;
    for function in ["deserialize", "gates", "compensate", "read output"] {
        let mut ground = Ground::new().await;
        let trap = format!("back-{}", function.replace(' ', "-"));
        let saga = ground.start("make", &trap).await;
        ground.until(&saga, secs(60), rests).await;
        set(&trap, function);
        ground.engine.cancel(&saga, "ann", "x").await.unwrap();
        let said = if function == "read output" { "deserialize" } else { function };
        ground.is_said(&saga, &format!("{said} of field.make panicked")).await;
        ground.is_quiet(&saga, &format!("beside-{trap}")).await;
        ground.restart();
        ground.is_quiet(&saga, &format!("behind-{trap}")).await;
        assert!(ground.field.things().contains(&trap));
        unset(&trap);
        ground.engine.retry(&saga, "ann", "it was mended").await.unwrap();
        ground.is_taken_back(&saga, &trap).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_panics_in_a_transaction_is_rolled_back_and_said_at_once() {
    for function in ["deserialize", "apply", "serialize"] {
        let ground = Ground::new().await;
        let trap = format!("note-{function}");
        set(&trap, function);
        let saga = ground.start("note", &trap).await;
        ground.is_said(&saga, &format!("{function} of field.note panicked")).await;
        ground.is_quiet(&saga, &format!("beside-{trap}")).await;
        ground.engine.cancel(&saga, "ann", "x").await.unwrap();
        ground.is_taken_back(&saga, &trap).await;
    }
    for function in ["deserialize", "revert", "read output"] {
        let ground = Ground::new().await;
        let trap = format!("unnote-{}", function.replace(' ', "-"));
        let saga = ground.start("note", &trap).await;
        ground.until(&saga, secs(60), rests).await;
        set(&trap, function);
        ground.engine.cancel(&saga, "ann", "x").await.unwrap();
        let said = if function == "read output" { "deserialize" } else { function };
        ground.is_said(&saga, &format!("{said} of field.note panicked")).await;
        unset(&trap);
        ground.engine.retry(&saga, "ann", "it was mended").await.unwrap();
        ground.is_taken_back(&saga, &trap).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_function_that_panics_is_taken_back_and_says_so() {
    let ground = Ground::new().await;
    set("runs", "run");
    let saga = ground.start("make", "runs").await;
    ground.is_taken_back(&saga, "runs").await;
    let row = ground.engine.row(&saga).await.unwrap().unwrap();
    let error = row.error.unwrap();
    assert!(error.contains("run of walk panicked") && !error.contains(SECRET), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_function_whose_values_panic_when_they_are_dropped_is_taken_back_all_the_same() {
    let ground = Ground::new().await;
    let saga = ground.start("none", "drops").await;
    ground.until(&saga, secs(60), rests).await;
    set("drops", "drop");
    ground.engine.cancel(&saga, "ann", "x").await.unwrap();
    ground.is_taken_back(&saga, "drops").await;
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_panics_leaves_what_was_made_with_its_saga() {
    let ground = Ground::new().await;
    for (trap, act) in [("owner-cancelled", "cancel"), ("owner-mended", "retry")] {
        set(trap, "owner");
        let saga = ground.start("make", trap).await;
        ground.until(&saga, secs(60), rests).await;
        ground.env.sleep(secs(7200)).await;
        ground.is_said(&saga, "owner of walk panicked").await;
        ground.is_quiet(&saga, &format!("beside-{trap}")).await;
        if act == "cancel" {
            ground.engine.cancel(&saga, "ann", "x").await.unwrap();
            ground.is_taken_back(&saga, trap).await;
        } else {
            unset(trap);
            ground.engine.retry(&saga, "ann", "it was mended").await.unwrap();
            let row = ground.until(&saga, secs(60), |row| row.state.is_ended()).await;
            assert_eq!(row.state, SagaState::Completed);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_and_an_act_bear_what_panics() {
    let ground = Ground::new().await;
    let saga = ground.start("make", "dry").await;
    ground.until(&saga, secs(60), rests).await;
    for function in ["deserialize", "gates", "find"] {
        set("dry", function);
        let seen = ground.engine.dry_run(&saga).await.unwrap().remove(0).seen;
        let said = format!("{function} of field.make panicked");
        assert!(matches!(&seen, Seen::Failed(why) if why.contains(&said)), "{function}: {seen:?}");
        unset("dry");
    }
    *ground.field.loses.lock().unwrap() = true;
    set("settled", "find");
    let saga = ground.start("make", "settled").await;
    ground.is_said(&saga, "find of field.make panicked").await;
    set("settled", "read output");
    let adopt = || Verdict::Adopt { output: "settled".into(), external_id: None };
    let refused = ground.engine.settle(&saga, "make", adopt(), "ann", "I saw it").await.unwrap_err();
    assert!(refused.to_string().contains("deserialize of field.make panicked"), "{refused}");
    unset("settled");
    set("settled", "external_id");
    ground.engine.settle(&saga, "make", adopt(), "ann", "I saw it").await.unwrap();
    ground.env.sleep(secs(5)).await;
    ground.is_said(&saga, "external_id of field.make panicked").await;
    ground.engine.act(&saga, Act::Cancel, "ann", "x").await.unwrap();
    ground.is_taken_back(&saga, "settled").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_a_transaction_leaves_the_writer_of_a_file_alive() {
    let env = Env::seeded(5).with_pace(10);
    let database = Database::new(env.clone(), &[]);
    let field = Arc::new(Field::default());
    let running = database.run(registry(&field), None).await;
    set("file", "apply");
    let saga = start(&running.engine, "note", "file").await;
    let said = |row: &SagaRow| row.error.as_ref().is_some_and(|error| error.contains("apply of field.note"));
    let row = running.engine.wait(&saga, secs(120), said).await.unwrap().unwrap();
    assert!(said(&row), "{row:#?}");
    let other = start(&running.engine, "note", "file-2").await;
    let row = running.engine.wait(&other, secs(120), rests).await.unwrap().unwrap();
    assert!(rests(&row), "{row:#?}");
    unset("file");
    let row = running.engine.wait(&saga, secs(120), rests).await.unwrap().unwrap();
    assert!(rests(&row), "{row:#?}");
    running.engine.stop().await;
}

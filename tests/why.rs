//! Each thing that a person should know of a saga is raised by a real one, said in three sentences, and got over.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends_engine::activity::Cause;
use amends_engine::journal::act::{Act, ActKind, NOBODY, Verdict};
use amends_engine::journal::plan::Way;
use amends_engine::journal::state::{Attention, SagaState};
use amends_engine::store::memory::MemoryStore;
use amends_engine::store::{Letter, Message, ResourceFilter, ResourceState, SagaFilter, SagaRow, Store};
use amends_engine::{
    Activity, Call, Effect, Engine, Env, Failure, Found, Local, Made, Registry, Resource, Saga, SagaId, Tx,
    Workflow, saga, secs,
};
use amends_tests::database::Database;
use serde::{Deserialize, Serialize};

/// What calls come to, `verb name` to a failure, all else works; and what is there.
#[derive(Default)]
struct Shed {
    wrong: Mutex<BTreeMap<String, Failure>>,
    things: Mutex<Vec<String>>,
}

impl Shed {
    fn check(&self, verb: &str, name: &str) -> Result<(), Failure> {
        self.wrong
            .lock()
            .unwrap()
            .get(&format!("{verb} {name}"))
            .map_or(Ok(()), |failure| Err(failure.clone()))
    }

    fn breaks(&self, call: &str, failure: Failure) {
        self.wrong.lock().unwrap().insert(call.to_owned(), failure);
    }

    fn mended(&self) {
        self.wrong.lock().unwrap().clear();
    }
}

fn unavailable(cause: Cause, detail: &str) -> Failure {
    Failure::Unavailable { cause, detail: detail.to_owned(), retry_after: None }
}

fn lost() -> Failure {
    Failure::NoAnswer { cause: Cause::Reset, detail: "the line broke".to_owned() }
}

#[derive(Serialize, Deserialize)]
struct Put {
    name: String,
    #[serde(default)]
    on: Option<Made<String>>,
    #[serde(default)]
    within: Option<String>,
}

fn put(name: &str) -> Put {
    Put { name: name.to_owned(), on: None, within: None }
}

impl Activity for Put {
    const NAME: &'static str = "shed.put";
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(5) };
    const GIVE_UP_AFTER: Duration = secs(24 * 3600);
    type Client = Shed;
    type Output = String;

    fn resource(&self, call: &Call) -> Option<Resource> {
        let thing = Resource::new("shed", "thing", call.name(&self.name));
        Some(match &self.within {
            Some(outer) => thing.within(outer.as_str()),
            None => thing,
        })
    }

    fn external_id(made: &String) -> Option<String> {
        Some(made.clone())
    }

    async fn execute(&self, shed: &Shed, _: &Call) -> Result<String, Failure> {
        shed.check("put", &self.name)?;
        shed.things.lock().unwrap().push(self.name.clone());
        Ok(format!("thing-{}", self.name.len()))
    }

    async fn find(&self, shed: &Shed, _: &Call) -> Result<Found<String>, Failure> {
        match shed.check("find", &self.name) {
            Err(Failure::Refused(_)) => Ok(Found::Unknowable),
            other => other.map(|()| Found::Nothing),
        }
    }

    async fn compensate(&self, shed: &Shed, _: &String, _: &Call) -> Result<(), Failure> {
        shed.check("take", &self.name)?;
        shed.things.lock().unwrap().retain(|thing| *thing != self.name);
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct Look;

impl Activity for Look {
    const NAME: &'static str = "shed.look";
    const EFFECT: Effect = Effect::Read;
    type Client = Shed;
    type Output = ();

    async fn execute(&self, shed: &Shed, _: &Call) -> Result<(), Failure> {
        shed.check("look", "shed")
    }
}

/// A shelf, a box on it with a lid inside, and a rest. After a pivot, if it is to have one.
struct Stack;

impl Workflow for Stack {
    const NAME: &'static str = "stack";
    const VERSION: u32 = 1;
    type Input = bool;
    type Output = ();

    async fn run(&self, saga: &Saga, pivots: bool) -> saga::Result<()> {
        let shelf = saga.step("shelf", put("shelf")).await?;
        saga.step("box", Put { on: Some(shelf), ..put("box") }).await?;
        saga.step("lid", Put { within: Some("box".into()), ..put("lid") }).await?;
        if pivots {
            saga.pivot("seen", Look).await?;
        }
        saga.signal::<()>("rest", "enough", secs(30 * 24 * 3600)).await?;
        Ok(())
    }
}

/// Takes over what somebody holds.
#[derive(Serialize, Deserialize)]
struct Inherit {
    from: String,
}

impl Local for Inherit {
    const NAME: &'static str = "shed.inherit";
    type Output = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), Failure> {
        tx.take(&self.from).await?;
        Ok(())
    }
}

/// Takes over what somebody holds, and rests.
struct Heir;

impl Workflow for Heir {
    const NAME: &'static str = "heir";
    const VERSION: u32 = 1;
    type Input = String;
    type Output = ();

    async fn run(&self, saga: &Saga, from: String) -> saga::Result<()> {
        saga.transact("inherit", Inherit { from }).await?;
        saga.signal::<()>("rest", "enough", secs(30 * 24 * 3600)).await?;
        Ok(())
    }
}

/// The same name and version with another body: another shelf, a step less, a key renamed, a wait for nothing, or no end.
enum Changed {
    Other,
    Less,
    Renamed,
    Foreign,
    Endless,
}

impl Workflow for Changed {
    const NAME: &'static str = "stack";
    const VERSION: u32 = 1;
    type Input = bool;
    type Output = ();

    async fn run(&self, saga: &Saga, _: bool) -> saga::Result<()> {
        match self {
            Self::Other => saga.step("shelf", put("board")).await.map(drop),
            Self::Less => saga.step("shelf", put("shelf")).await.map(drop),
            Self::Renamed => {
                let shelf = saga.step("board", put("shelf")).await?;
                saga.step("box", Put { on: Some(shelf), ..put("box") }).await.map(drop)
            }
            Self::Foreign => {
                saga.step("shelf", put("shelf")).await?;
                std::future::pending().await
            }
            Self::Endless => {
                saga.step("shelf", put("shelf")).await?;
                // More than a journal may hold; asked for side by side, so that it is one turn.
                let draws = (0..21_000).map(|number| async move { saga.now(&format!("now-{number}")).await });
                futures::future::try_join_all(draws).await?;
                Ok(())
            }
        }
    }
}

struct Room {
    engine: Engine,
    store: Arc<MemoryStore>,
    shed: Arc<Shed>,
    env: Env,
    saga: SagaId,
}

fn registry(shed: &Arc<Shed>) -> Registry {
    Registry::default().activity::<Put>(shed.clone()).activity::<Look>(shed.clone())
}

impl Room {
    /// A saga in a world in which these calls fail.
    async fn new(pivots: bool, broken: &[(&str, Failure)]) -> Self {
        Self::of(Stack, pivots, broken).await
    }

    async fn of<W: Workflow<Input = bool>>(workflow: W, pivots: bool, broken: &[(&str, Failure)]) -> Self {
        let env = Env::simulated(7);
        let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
        let (store, shed) = (Arc::new(store), Arc::new(Shed::default()));
        for (call, failure) in broken {
            shed.breaks(call, failure.clone());
        }
        let registry = registry(&shed).local::<Inherit>().workflow(Heir).workflow(workflow);
        let engine = Engine::start(store.clone(), vault, registry, env.clone(), "test");
        let new = engine.new_saga::<W>("a", &pivots).unwrap().within(&env, secs(3 * 3600));
        let saga = engine.begin(new).await.unwrap().saga().clone();
        Self { engine, store, shed, env, saga }
    }

    /// The same saga under a program that offers something else.
    async fn again(self, registry: Registry) -> Self {
        self.engine.abort();
        let store = Arc::new(self.store.another(&self.env));
        let (_, vault) = MemoryStore::new(&[], &self.env).await.unwrap();
        let engine = Engine::start(store.clone(), vault, registry, self.env.clone(), "test");
        // A store in a file has them looked at when it is opened.
        let wake = Letter {
            id: format!("wake {}", self.env.uuid()),
            saga: self.saga.clone(),
            message: Message::Wake,
            at: self.env.now(),
        };
        store.post(wake).await.unwrap();
        Self { engine, store, ..self }
    }

    async fn until(&self, what: impl Fn(&SagaRow) -> bool) -> SagaRow {
        let row = self.engine.wait(&self.saga, secs(2 * 24 * 3600), &what).await.unwrap().unwrap();
        assert!(what(&row), "{row:#?}");
        row
    }

    /// Waits until a list shows this, and tells why.
    async fn told(&self, attention: Attention) -> String {
        self.until(|row| row.attention.contains(&attention)).await;
        let filter = SagaFilter { attention: true, ..SagaFilter::default() };
        assert_eq!(self.engine.sagas(filter).await.unwrap().len(), 1, "lists show it");
        let told = self.engine.why(&self.saga).await.unwrap().unwrap().to_string();
        // Every act that is named can be done now.
        let state = self.engine.view(&self.saga).await.unwrap().unwrap().state;
        for act in told.split('`').skip(1).step_by(2).filter_map(|word| word.parse::<ActKind>().ok()) {
            assert!(!act.possible(&state, self.env.now()).is_empty(), "`{act}` cannot be done: {told}");
        }
        told
    }

    async fn rests(&self) {
        self.until(|row| row.step.as_deref() == Some("rest waits")).await;
    }

    async fn cancel(&self) {
        self.engine.cancel(&self.saga, "ann", "no more").await.unwrap();
    }

    /// Turns it round where the box cannot be taken away, and does this about it then.
    async fn asks_about_the_box(&self, act: Act) {
        let stands = |row: &SagaRow| row.step.as_deref().is_some_and(|step| step.starts_with("undo box"));
        self.until(|row| matches!(row.step.as_deref(), Some("rest waits" | "lid in doubt"))).await;
        self.cancel().await;
        self.until(|row| stands(row) && row.attention.contains(&Attention::NeedsDecision)).await;
        self.engine.act(&self.saga, act, "ann", "leave it").await.unwrap();
    }

    /// What is not gone: its name, its state, and who holds it.
    async fn ledger(&self) -> Vec<String> {
        let rows = self.engine.resources(ResourceFilter::default()).await.unwrap();
        let left = rows.iter().filter(|row| row.state != ResourceState::Gone);
        let mut left: Vec<_> = left.map(|row| format!("{} {} {}", row.name, row.state, row.holder)).collect();
        left.sort();
        left
    }
}

#[tokio::test(start_paused = true)]
async fn in_doubt() {
    let broken = [("put box", lost()), ("find box", unavailable(Cause::Connect, "connection refused"))];
    let room = Room::new(false, &broken).await;
    insta::assert_snapshot!(room.told(Attention::InDoubt).await);
}

#[tokio::test(start_paused = true)]
async fn retrying() {
    let broken = [("put box", unavailable(Cause::ServerError, "503, try later"))];
    let room = Room::new(false, &broken).await;
    insta::assert_snapshot!(room.told(Attention::Retrying).await);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_something_that_is_not_ready_has_no_trouble() {
    let room = Room::new(false, &[("put lid", Failure::not_yet("closed until nine", secs(60)))]).await;
    room.until(|row| row.step.as_deref().is_some_and(|step| step.starts_with("lid waits"))).await;
    let told = room.engine.why(&room.saga).await.unwrap().unwrap().to_string();
    assert!(!told.contains("trouble") && told.contains("waits at lid"), "{told}");
    assert_eq!(room.until(|_| true).await.error, None);
}

#[tokio::test(start_paused = true)]
async fn undo_stuck() {
    let broken = [("take box", unavailable(Cause::ServerError, "503, try later"))];
    let room = Room::new(false, &broken).await;
    room.rests().await;
    room.cancel().await;
    insta::assert_snapshot!(room.told(Attention::UndoStuck).await);
}

#[tokio::test(start_paused = true)]
async fn needs_decision_since_nobody_can_tell() {
    let room =
        Room::new(false, &[("put box", lost()), ("find box", Failure::refused("blind", "no list"))]).await;
    insta::assert_snapshot!(room.told(Attention::NeedsDecision).await);
}

#[tokio::test(start_paused = true)]
async fn needs_decision_since_a_credential_is_refused() {
    let broken = [("put box", unavailable(Cause::Credential, "401, no such token"))];
    let room = Room::new(false, &broken).await;
    insta::assert_snapshot!(room.told(Attention::NeedsDecision).await);
}

#[tokio::test(start_paused = true)]
async fn needs_decision_since_an_undo_is_refused() {
    let room = Room::new(false, &[("take box", Failure::refused("locked", "the box is locked"))]).await;
    room.rests().await;
    room.cancel().await;
    insta::assert_snapshot!(room.told(Attention::NeedsDecision).await);
}

#[tokio::test(start_paused = true)]
async fn no_worker() {
    let room = Room::new(false, &[]).await;
    room.rests().await;
    let nothing = Registry::default().activity::<Put>(room.shed.clone());
    let room = room.again(nothing).await;
    room.engine.signal(&room.saga, "1", "enough", serde_json::Value::Null).await.unwrap();
    insta::assert_snapshot!(room.told(Attention::NoWorker).await);
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_nobody_offers_waits_and_goes_on_when_somebody_does() {
    let room = Room::new(false, &[]).await;
    room.rests().await;
    let room = room.again(Registry::default().workflow(Stack)).await;
    room.cancel().await;
    room.told(Attention::NoWorker).await;
    tokio::time::sleep(secs(3600)).await;
    let row = room.engine.row(&room.saga).await.unwrap().unwrap();
    // But for what is to be noticed later.
    assert!(row.due_at.is_none_or(|due| due > room.env.now()), "it is due at {:?}", row.due_at);
    let shed = room.shed.clone();
    let room = room.again(registry(&shed)).await;
    let row = room.until(|row| row.ended_at.is_some()).await;
    assert_eq!((row.state, row.error.as_deref()), (SagaState::Compensated, Some("cancelled: ann: no more")));
}

#[tokio::test(start_paused = true)]
async fn a_step_that_nobody_offers_waits_and_goes_on_when_somebody_does() {
    // It has not been asked for yet, or its answer was lost, or it is to be tried again.
    for broken in [None, Some(("put box", lost())), Some(("put box", unavailable(Cause::Connect, "down")))] {
        let room = Room::new(false, broken.as_slice()).await;
        if broken.is_some() {
            room.until(|row| row.step.as_deref().is_some_and(|step| step.starts_with("box "))).await;
            tokio::time::sleep(secs(1)).await;
        }
        let shed = room.shed.clone();
        let mut room = room.again(Registry::default().activity::<Look>(shed.clone()).workflow(Stack)).await;
        if broken.is_none() {
            let new = room.engine.new_saga::<Stack>("b", &false).unwrap();
            room.saga = room.engine.begin(new).await.unwrap().saga().clone();
        }
        room.told(Attention::NoWorker).await;
        shed.mended();
        let room = room.again(registry(&shed).workflow(Stack)).await;
        room.rests().await;
    }
}

/// Makes something, and does not say how that is taken back.
#[derive(Serialize, Deserialize)]
struct Strew;

impl Activity for Strew {
    const NAME: &'static str = "shed.strew";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Shed;
    type Output = String;

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("shed", "nails", call.name("nails")))
    }

    async fn execute(&self, _: &Shed, _: &Call) -> Result<String, Failure> {
        Ok("nails".to_owned())
    }
}

struct Strewing;

impl Workflow for Strewing {
    const NAME: &'static str = "strewing";
    const VERSION: u32 = 1;
    type Input = bool;
    type Output = ();

    async fn run(&self, saga: &Saga, _: bool) -> saga::Result<()> {
        saga.step("nails", Strew).await?;
        saga.sleep("rest", secs(600)).await
    }
}

/// The same, as an earlier program had it.
#[derive(Serialize, Deserialize)]
struct StrewBefore;

impl Activity for StrewBefore {
    const NAME: &'static str = Strew::NAME;
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Shed;
    type Output = String;

    fn resource(&self, call: &Call) -> Option<Resource> {
        Strew.resource(call)
    }

    async fn execute(&self, shed: &Shed, call: &Call) -> Result<String, Failure> {
        Strew.execute(shed, call).await
    }

    async fn compensate(&self, _: &Shed, _: &String, _: &Call) -> Result<(), Failure> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_say_how_it_is_taken_back_is_not_taken_for_gone() {
    let room = Room::new(false, &[]).await;
    let shed = room.shed.clone();
    let offers = |registry: Registry| registry.workflow(Stack).workflow(Strewing);
    let mut room = room.again(offers(registry(&shed).activity::<StrewBefore>(shed.clone()))).await;
    let new = room.engine.new_saga::<Strewing>("b", &false).unwrap();
    room.saga = room.engine.begin(new).await.unwrap().saga().clone();
    room.until(|row| row.step.as_deref() == Some("rest waits")).await;
    let room = room.again(offers(registry(&shed).activity::<Strew>(shed.clone()))).await;
    room.cancel().await;
    let told = room.told(Attention::NeedsDecision).await;
    assert!(told.contains("shed.strew does not say how it is taken back"), "{told}");
}

/// Says how it is taken back, and not what.
#[derive(Serialize, Deserialize)]
struct Vanish;

impl Activity for Vanish {
    const NAME: &'static str = "shed.vanish";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Shed;
    type Output = ();

    async fn execute(&self, shed: &Shed, _: &Call) -> Result<(), Failure> {
        shed.things.lock().unwrap().push("vanish".to_owned());
        Ok(())
    }

    async fn compensate(&self, _: &Shed, (): &(), _: &Call) -> Result<(), Failure> {
        Ok(())
    }
}

/// Makes something only when it is asked to, and what somebody keeps.
#[derive(Serialize, Deserialize)]
struct Perhaps {
    makes: bool,
    kept: bool,
}

impl Activity for Perhaps {
    const NAME: &'static str = "shed.perhaps";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Shed;
    type Output = ();

    fn resource(&self, call: &Call) -> Option<Resource> {
        let thing = Resource::new("shed", "thing", call.name("perhaps"));
        self.makes.then(|| if self.kept { thing.kept_by("the neighbour") } else { thing })
    }

    async fn execute(&self, _: &Shed, _: &Call) -> Result<(), Failure> {
        Ok(())
    }

    async fn compensate(&self, _: &Shed, (): &(), _: &Call) -> Result<(), Failure> {
        Ok(())
    }
}

struct Trying;

impl Workflow for Trying {
    const NAME: &'static str = "trying";
    const VERSION: u32 = 1;
    type Input = String;
    type Output = ();

    async fn run(&self, saga: &Saga, what: String) -> saga::Result<()> {
        match what.as_str() {
            "look" => drop(saga.step("it", Look).await?),
            "strew" => drop(saga.step("it", Strew).await?),
            "vanish" => drop(saga.step("it", Vanish).await?),
            "vanish at the end" => saga.defer("it", Vanish).await?,
            "nothing" => drop(saga.step("it", Perhaps { makes: false, kept: false }).await?),
            "kept" => drop(saga.step("it", Perhaps { makes: true, kept: true }).await?),
            _ => drop(saga.step("it", Perhaps { makes: true, kept: false }).await?),
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn what_could_never_be_taken_back_is_refused_before_anything_is_called() {
    let room = Room::new(false, &[]).await;
    let shed = room.shed.clone();
    let offers = registry(&shed).activity::<Strew>(shed.clone()).activity::<Vanish>(shed.clone());
    let offers = offers.activity::<Perhaps>(shed.clone()).workflow(Stack).workflow(Trying);
    let room = room.again(offers).await;
    for (what, problem) in [
        ("strew", Some("shed.strew makes nails \"nails\" and does not say how that is taken back")),
        ("vanish", Some("shed.vanish says how it is taken back and names no resource")),
        ("vanish at the end", Some("shed.vanish says how it is taken back and names no resource")),
        ("nothing", None),
        ("kept", None),
        ("something", None),
    ] {
        let new = room.engine.new_saga::<Trying>(what, &what.to_owned()).unwrap();
        let saga = room.engine.begin(new).await.unwrap().saga().clone();
        let row = room.engine.wait(&saga, secs(60), |_| false).await.unwrap().unwrap();
        match problem {
            Some(problem) => {
                assert_eq!(row.state, SagaState::Failed, "{what}: {row:#?}");
                assert!(row.error.as_ref().is_some_and(|error| error.contains(problem)), "{row:#?}");
            }
            None => assert_eq!(row.state, SagaState::Completed, "{what}: {row:#?}"),
        }
    }
    assert!(!shed.things.lock().unwrap().contains(&"vanish".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn what_was_given_up_says_what_it_was_given_up_for() {
    let room = Room::new(false, &[("look shed", unavailable(Cause::Connect, "no road to the shed"))]).await;
    let shed = room.shed.clone();
    let room = room.again(registry(&shed).workflow(Stack).workflow(Trying)).await;
    let new = room.engine.new_saga::<Trying>("look", &"look".to_owned()).unwrap();
    let saga = room.engine.begin(new).await.unwrap().saga().clone();
    let row = room.engine.wait(&saga, secs(2 * 3600), |_| false).await.unwrap().unwrap();
    assert_eq!(row.state, SagaState::Failed, "{row:#?}");
    let error = row.error.unwrap();
    assert!(error.contains("gave_up: not within its time"), "{error}");
    assert!(error.contains("connect: no road to the shed"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_a_step_cannot_have_made_is_not_adopted() {
    let room =
        Room::new(false, &[("put lid", lost()), ("find lid", unavailable(Cause::Connect, "down"))]).await;
    room.until(|row| row.step.as_deref() == Some("lid in doubt")).await;
    let adopt = |output: serde_json::Value| Verdict::Adopt { output, external_id: None };
    let refused =
        room.engine.settle(&room.saga, "lid", adopt(42.into()), "ann", "I saw it").await.unwrap_err();
    assert!(refused.to_string().contains("shed.put does not make that"), "{refused}");
    room.engine.settle(&room.saga, "lid", adopt("lid".into()), "ann", "I saw it").await.unwrap();
    room.rests().await;
}

#[tokio::test(start_paused = true)]
async fn no_progress() {
    let room = Room::of(Changed::Foreign, false, &[]).await;
    insta::assert_snapshot!(room.told(Attention::NoProgress).await);
}

#[tokio::test(start_paused = true)]
async fn diverged() {
    let room = Room::new(false, &[]).await;
    room.rests().await;
    let other = registry(&room.shed).workflow(Changed::Other);
    let room = room.again(other).await;
    room.engine.retry(&room.saga, "ann", "to see").await.unwrap();
    insta::assert_snapshot!(room.told(Attention::Diverged).await);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_not_asked_for_any_more_is_noticed_before_anything_is_called() {
    for changed in [Changed::Less, Changed::Renamed] {
        let room = Room::new(false, &[]).await;
        room.rests().await;
        let offers = registry(&room.shed).workflow(changed);
        let room = room.again(offers).await;
        let told = room.told(Attention::Diverged).await;
        assert!(told.contains("and the function does not ask for it"), "{told}");
        assert_eq!(*room.shed.things.lock().unwrap(), ["shelf", "box", "lid"]);
        // The right function finds everything as it was.
        let offers = registry(&room.shed).workflow(Stack);
        let room = room.again(offers).await;
        room.engine.retry(&room.saga, "ann", "the right program runs again").await.unwrap();
        room.until(|row| row.attention.is_empty()).await;
        room.engine.signal(&room.saga, "1", "enough", serde_json::Value::Null).await.unwrap();
        assert_eq!(room.until(|row| row.ended_at.is_some()).await.state, SagaState::Completed);
    }
}

#[tokio::test(start_paused = true)]
async fn over_limit() {
    let room = Room::of(Changed::Endless, false, &[]).await;
    insta::assert_snapshot!(room.told(Attention::OverLimit).await);
    // Undoing does not count.
    room.cancel().await;
    room.until(|row| row.state == SagaState::Compensated).await;
}

/// Nothing happens to it when its deadline passes: time alone has to be noticed.
#[tokio::test(start_paused = true)]
async fn late() {
    let room = Room::new(true, &[]).await;
    room.rests().await;
    insta::assert_snapshot!(room.told(Attention::Late).await);
}

#[tokio::test(start_paused = true)]
async fn pause_ending() {
    let room = Room::new(false, &[]).await;
    room.rests().await;
    room.engine.pause(&room.saga, secs(2 * 3600), "ann", "the shed is being moved").await.unwrap();
    let paused = room.until(|row| row.state == SagaState::Paused).await;
    assert_eq!(paused.attention, [], "there is time yet");
    insta::assert_snapshot!(room.told(Attention::PauseEnding).await);
    assert!(room.env.now().since(paused.updated_at) >= secs(105 * 60));
    let row = room.until(|row| row.state != SagaState::Paused).await;
    assert_eq!(row.attention, [], "it went on by itself");
}

/// A saga that is parked still turns round when its deadline passes.
#[tokio::test(start_paused = true)]
async fn what_is_parked_turns_round_at_its_deadline() {
    let room = Room::new(false, &[]).await;
    room.rests().await;
    let other = registry(&room.shed).workflow(Changed::Other);
    let room = room.again(other).await;
    room.engine.retry(&room.saga, "ann", "to see").await.unwrap();
    room.told(Attention::Diverged).await;
    let row = room.until(|row| row.state.is_ended()).await;
    assert_eq!(row.state, SagaState::Compensated);
    assert!(row.error.unwrap().contains("deadline"));
}

/// Nobody's rows are taken over by a saga that ends without having done anything about them.
#[tokio::test(start_paused = true)]
async fn leak() {
    let room = Room::new(false, &[("take box", Failure::refused("locked", "the box is locked"))]).await;
    room.asks_about_the_box(Act::Skip { step: "box".into() }).await;
    room.until(|row| row.state == SagaState::Compensated).await;
    let new = room.engine.new_saga::<Heir>("b", &NOBODY.to_owned()).unwrap();
    let saga = room.engine.begin(new).await.unwrap().saga().clone();
    let room = Room { saga, ..room };
    room.rests().await;
    room.cancel().await;
    room.until(|row| row.state.is_ended()).await;
    insta::assert_snapshot!(room.told(Attention::Leak).await);
}

/// The lid goes along while the box is taken away. When the box is left there, the lid is taken by itself, and the
/// shelf after it.
#[tokio::test(start_paused = true)]
async fn what_lives_in_a_thing_that_is_left_there_is_taken_back_by_itself() {
    let locked = Failure::refused("locked", "the box is locked");
    let room = Room::new(false, &[("take box", locked.clone()), ("take lid", locked)]).await;
    room.asks_about_the_box(Act::Skip { step: "box".into() }).await;
    // It is not silent where that does not work either.
    let of_the_lid = |row: &SagaRow| row.step.as_deref().is_some_and(|step| step.starts_with("undo lid"));
    room.until(|row| of_the_lid(row) && row.attention == [Attention::NeedsDecision]).await;
    assert_eq!(*room.shed.things.lock().unwrap(), ["shelf", "box", "lid"], "the shelf waits for the lid");
    let plan = room.engine.plan(&room.saga).await.unwrap();
    let ways: Vec<_> = plan.rows.iter().map(|row| (row.step.to_string(), row.way)).collect();
    assert_eq!(ways, [("lid".to_owned(), Way::Compensate), ("shelf".to_owned(), Way::Compensate)]);
    room.shed.mended();
    room.engine.retry(&room.saga, "ann", "the lid is open").await.unwrap();
    let row = room.until(|row| row.state.is_ended()).await;
    assert_eq!((row.state, row.attention), (SagaState::Compensated, vec![]));
    assert_eq!(*room.shed.things.lock().unwrap(), ["box"]);
    assert_eq!(room.ledger().await, ["box live nobody"]);
}

/// Whether there is a lid was not known when it went along: then that is looked at first.
#[tokio::test(start_paused = true)]
async fn what_may_live_in_a_thing_that_is_left_there_is_looked_for() {
    let gone = unavailable(Cause::Connect, "connection refused");
    let broken = [
        ("put lid", lost()),
        ("find lid", gone),
        ("take box", Failure::refused("locked", "the box is locked")),
    ];
    let room = Room::new(false, &broken).await;
    room.until(|row| row.attention.contains(&Attention::InDoubt)).await;
    room.asks_about_the_box(Act::Skip { step: "box".into() }).await;
    room.until(|row| row.step.as_deref() == Some("lid in doubt")).await;
    room.shed.mended();
    let row = room.until(|row| row.state.is_ended()).await;
    assert_eq!((row.state, row.attention), (SagaState::Compensated, vec![]));
    assert_eq!(*room.shed.things.lock().unwrap(), ["box"]);
    assert_eq!(room.ledger().await, ["box live nobody"]);
}

/// Who gets the box gets what is in it.
#[tokio::test(start_paused = true)]
async fn what_lives_in_a_thing_that_is_handed_over_goes_with_it() {
    let room = Room::new(false, &[("take box", Failure::refused("locked", "the box is locked"))]).await;
    room.asks_about_the_box(Act::Release { step: "box".into(), owner: "house".into() }).await;
    let row = room.until(|row| row.state.is_ended()).await;
    assert_eq!((row.state, row.attention), (SagaState::Compensated, vec![]));
    assert_eq!(*room.shed.things.lock().unwrap(), ["box", "lid"]);
    assert_eq!(room.ledger().await, ["box live house", "lid live house"]);
}

/// On a file that is started again by a program without the workflow.
#[tokio::test]
async fn a_saga_whose_workflow_was_removed_from_the_program_is_cancelled_and_unwound_to_the_end() {
    let database = Database::new(Env::seeded(7), &[]);
    let shed = Arc::new(Shed::default());
    shed.breaks("put box", Failure::not_yet("closed", secs(1)));
    let running = database.run(registry(&shed).workflow(Stack), None).await;
    let mut sagas = Vec::new();
    for key in ["cancelled", "taken up again"] {
        let new = running.engine.new_saga::<Stack>(key, &false).unwrap();
        let saga = running.engine.begin(new).await.unwrap().saga().clone();
        let waits = |row: &SagaRow| row.step.as_deref() == Some("box waits");
        assert!(waits(&running.engine.wait(&saga, secs(120), waits).await.unwrap().unwrap()));
        sagas.push(saga);
    }
    running.die().await;
    shed.mended();

    let running = database.run(registry(&shed), None).await;
    for saga in &sagas {
        let is_parked = |row: &SagaRow| row.attention == [Attention::NoWorker];
        assert!(is_parked(&running.engine.wait(saga, secs(120), is_parked).await.unwrap().unwrap()));
    }
    assert_eq!(*shed.things.lock().unwrap(), ["shelf", "shelf"]);
    running.engine.cancel(&sagas[0], "ann", "it is not sold any more").await.unwrap();
    let row = running.engine.wait(&sagas[0], secs(120), |_| false).await.unwrap().unwrap();
    assert_eq!((row.state, row.attention), (SagaState::Compensated, vec![]));
    assert_eq!(*shed.things.lock().unwrap(), [] as [&str; 0]);
    running.die().await;

    // And with the workflow back, the other one goes on by itself.
    let running = database.run(registry(&shed).workflow(Stack), None).await;
    let rests = |row: &SagaRow| row.step.as_deref() == Some("rest waits");
    let row = running.engine.wait(&sagas[1], secs(120), rests).await.unwrap().unwrap();
    assert!(rests(&row) && row.attention.is_empty(), "{row:#?}");
    running.die().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_up_again_and_again_and_does_not_get_on_is_parked() {
    let room = Room::new(false, &[]).await;
    room.rests().await;
    // Another takes its rows before it has ended, so that nothing that it writes of them is taken.
    let new = room.engine.new_saga::<Heir>("b", &room.saga.to_string()).unwrap();
    let heir = room.engine.begin(new).await.unwrap().saga().clone();
    let rests = |row: &SagaRow| row.step.as_deref() == Some("rest waits");
    assert!(rests(&room.engine.wait(&heir, secs(60), rests).await.unwrap().unwrap()));
    room.cancel().await;
    let is_parked = |row: &SagaRow| row.attention.contains(&Attention::StoreRefused);
    let row = room.engine.wait(&room.saga, secs(600), is_parked).await.unwrap().unwrap();
    assert!(is_parked(&row), "{row:#?}");
    let why = room.engine.why(&room.saga).await.unwrap().unwrap().to_string();
    assert!(why.contains("it was taken up 20 times and did not get on"), "{why}");
}

/// On a file, one of whose lines is damaged between two starts.
#[tokio::test]
async fn unreadable() {
    let database = Database::new(Env::seeded(7), &[]);
    let shed = Arc::new(Shed::default());
    let offers = || registry(&shed).workflow(Stack);
    for call in ["put box", "put shelf"] {
        shed.breaks(call, Failure::not_yet("closed", secs(1)));
    }
    let running = database.run(offers(), None).await;
    let begin = async |key: &str| {
        let new = running.engine.new_saga::<Stack>(key, &false).unwrap();
        running.engine.begin(new).await.unwrap().saga().clone()
    };
    let (damaged, well) = (begin("damaged").await, begin("well").await);
    for saga in [&damaged, &well] {
        let waits = |row: &SagaRow| row.step.as_deref() == Some("shelf waits");
        running.engine.wait(saga, secs(120), waits).await.unwrap();
    }
    running.die().await;
    let write = async |event: &str| {
        let url = format!("sqlite://{}", database.folder.path().join("amends.db").display());
        let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
        let before: String = sqlx::query_scalar("select event from journal where saga = $1 and seq = 2")
            .bind(damaged.as_str())
            .fetch_one(&pool)
            .await
            .unwrap();
        sqlx::query("update journal set event = $2 where saga = $1 and seq = 2")
            .bind(damaged.as_str())
            .bind(event)
            .execute(&pool)
            .await
            .unwrap();
        pool.close().await;
        before
    };
    let was = write(r#"{"kind":"moon_landed","step":"shelf"}"#).await;
    shed.mended();

    let running = database.run(offers(), None).await;
    let engine = &running.engine;
    let is_unreadable = |row: &SagaRow| row.attention == [Attention::Unreadable];
    let row = engine.wait(&damaged, secs(120), is_unreadable).await.unwrap().unwrap();
    assert!(is_unreadable(&row), "{row:#?}");
    let filter = SagaFilter { attention: true, ..SagaFilter::default() };
    assert_eq!(engine.sagas(filter).await.unwrap(), [row], "lists show it");
    insta::assert_snapshot!(engine.why(&damaged).await.unwrap().unwrap());
    // No act is done to it, and a word for it is kept; nobody takes it up again and again.
    assert!(engine.cancel(&damaged, "ann", "no more").await.is_err());
    engine.signal(&damaged, "1", "enough", serde_json::Value::Null).await.unwrap();
    assert_eq!(running.store.claim(database.env.now(), 10).await.unwrap(), []);
    let preview = engine.preview(SagaFilter::default(), &Act::Retry).await.unwrap();
    assert_eq!(preview.left_out.iter().map(|(saga, _)| saga).collect::<Vec<_>>(), [&damaged]);
    // The other one went on as ever.
    engine.signal(&well, "2", "enough", serde_json::Value::Null).await.unwrap();
    let row = engine.wait(&well, secs(120), |_| false).await.unwrap().unwrap();
    assert_eq!(row.state, SagaState::Completed);
    running.die().await;

    // The line is put back: it goes on by itself, and takes the word that was kept.
    write(&was).await;
    let running = database.run(offers(), None).await;
    let row = running.engine.wait(&damaged, secs(120), |_| false).await.unwrap().unwrap();
    assert_eq!((row.state, row.attention), (SagaState::Completed, vec![]));
    running.die().await;
}

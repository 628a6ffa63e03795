//! Two things at once, each a test of its own: what simulations and reading found, in its smallest form.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends_engine::activity::Cause;
use amends_engine::env::Timestamp;
use amends_engine::journal::act::{Act, Verdict};
use amends_engine::journal::event::ChildFate;
use amends_engine::journal::state::{Attention, Phase, SagaState};
use amends_engine::journal::{Event, State};
use amends_engine::store::memory::MemoryStore;
use amends_engine::store::{Letter, Message, NewSaga, ResourceFilter, ResourceState, Started, Store};
use amends_engine::testing::shaky::{Shakes, ShakyStore};
use amends_engine::{
    Activity, Call, Effect, Engine, Env, Failure, Found, Halt, Local, Registry, Resource, ResourceId, Saga,
    SagaId, Tx, Workflow, saga, secs,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the next call of a name comes to.
enum Fate {
    /// This, and it did not happen.
    Fails(Failure),
    /// It happens, and then this.
    Happens(Failure),
    /// It takes so long.
    Takes(Duration),
}

/// Counts what arrives, by name.
#[derive(Default)]
struct Desk {
    arrived: Mutex<Vec<String>>,
    fates: Mutex<BTreeMap<String, VecDeque<Fate>>>,
}

impl Desk {
    fn next(&self, name: &str, fate: Fate) {
        self.fates.lock().unwrap().entry(name.to_owned()).or_default().push_back(fate);
    }

    fn count(&self, name: &str) -> usize {
        self.arrived.lock().unwrap().iter().filter(|other| *other == name).count()
    }

    async fn arrive(&self, name: &str) -> Result<String, Failure> {
        let fate = self.fates.lock().unwrap().get_mut(name).and_then(VecDeque::pop_front);
        match fate {
            Some(Fate::Fails(failure)) => return Err(failure),
            Some(Fate::Happens(failure)) => {
                self.arrived.lock().unwrap().push(name.to_owned());
                return Err(failure);
            }
            Some(Fate::Takes(wait)) => tokio::time::sleep(wait).await,
            None => {}
        }
        self.arrived.lock().unwrap().push(name.to_owned());
        Ok(name.to_owned())
    }
}

fn lost() -> Failure {
    Failure::NoAnswer { cause: Cause::Reset, detail: "the line broke".to_owned() }
}

fn unavailable() -> Failure {
    Failure::Unavailable { cause: Cause::ServerError, detail: "closed".to_owned(), retry_after: None }
}

macro_rules! activity {
    ($name:ident, $wire:literal, $effect:expr, makes: $makes:literal) => {
        #[derive(Debug, Clone, Serialize, Deserialize)]
        struct $name(String);

        impl Activity for $name {
            const NAME: &'static str = $wire;
            const EFFECT: Effect = $effect;
            type Client = Desk;
            type Output = String;

            fn resource(&self, _: &Call) -> Option<Resource> {
                $makes.then(|| Resource::new("desk", "thing", &self.0))
            }

            fn external_id(made: &String) -> Option<String> {
                Some(format!("id of {made}"))
            }

            async fn execute(&self, desk: &Desk, _: &Call) -> Result<String, Failure> {
                desk.arrive(&self.0).await
            }

            async fn find(&self, desk: &Desk, _: &Call) -> Result<Found<String>, Failure> {
                let there = desk.count(&self.0) > 0;
                Ok(if there { Found::Usable(self.0.clone()) } else { Found::Nothing })
            }

            async fn compensate(&self, desk: &Desk, _: &String, _: &Call) -> Result<(), Failure> {
                desk.arrive(&format!("undo {}", self.0)).await.map(drop)
            }
        }
    };
}

activity!(Put, "desk.put", Effect::Searchable { settle_after: secs(10) }, makes: true);
activity!(Announce, "desk.announce", Effect::Searchable { settle_after: secs(10) }, makes: false);
activity!(Shout, "desk.shout", Effect::Blind, makes: true);

const WINDOW: Duration = secs(24 * 3600);

/// Sent again under its key for a day; behind that there is no telling.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Order(String);

impl Activity for Order {
    const NAME: &'static str = "desk.order";
    const EFFECT: Effect = Effect::RepeatableWithin { window: WINDOW };
    const GIVE_UP_AFTER: Duration = secs(7 * 24 * 3600);
    type Client = Desk;
    type Output = String;

    fn resource(&self, _: &Call) -> Option<Resource> {
        Some(Resource::new("desk", "order", &self.0))
    }

    async fn execute(&self, desk: &Desk, _: &Call) -> Result<String, Failure> {
        desk.arrive(&self.0).await
    }

    async fn compensate(&self, desk: &Desk, _: &String, _: &Call) -> Result<(), Failure> {
        desk.arrive(&format!("undo {}", self.0)).await.map(drop)
    }
}

/// Tried twice at most, where it can be given up.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Tell(String);

impl Activity for Tell {
    const NAME: &'static str = "desk.tell";
    const EFFECT: Effect = Effect::Repeatable;
    const ATTEMPTS_MAX: Option<u32> = Some(2);
    type Client = Desk;
    type Output = String;

    async fn execute(&self, desk: &Desk, _: &Call) -> Result<String, Failure> {
        desk.arrive(&self.0).await
    }
}

/// Holds something that is kept by the house when it is undone.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Hold(String);

impl Activity for Hold {
    const NAME: &'static str = "desk.hold";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Desk;
    type Output = String;

    fn resource(&self, _: &Call) -> Option<Resource> {
        Some(Resource::new("desk", "room", &self.0).kept_by("house"))
    }

    async fn execute(&self, desk: &Desk, _: &Call) -> Result<String, Failure> {
        desk.arrive(&self.0).await
    }
}

/// Closes the rows that the house has.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Clear {
    rows: Vec<ResourceId>,
}

impl Activity for Clear {
    const NAME: &'static str = "desk.clear";
    const EFFECT: Effect = Effect::Read;
    const STRONGLY_CONSISTENT: bool = true;
    type Client = Desk;
    type Output = ();

    fn removes(&self) -> Vec<ResourceId> {
        self.rows.clone()
    }

    async fn execute(&self, _: &Desk, _: &Call) -> Result<(), Failure> {
        Ok(())
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct TakeOver;

impl Local for TakeOver {
    const NAME: &'static str = "desk.take_over";
    type Output = Vec<ResourceId>;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Vec<ResourceId>, Failure> {
        Ok(tx.take("house").await?.into_iter().map(|row| row.id).collect())
    }
}

macro_rules! workflow {
    ($name:ident, $wire:literal, |$saga:ident| $body:block) => {
        struct $name;

        impl Workflow for $name {
            const NAME: &'static str = $wire;
            const VERSION: u32 = 1;
            type Input = String;
            type Output = ();

            async fn run(&self, $saga: &Saga, _: String) -> saga::Result<()> {
                $body
            }
        }
    };
}

workflow!(Launch, "launch", |saga| {
    saga.step("ramp", Put("ramp".into())).await?;
    saga.pivot("lift-off", Announce("lift-off".into())).await?;
    Ok(())
});

workflow!(TwoWays, "two-ways", |saga| {
    let ways = [("rope", true), ("stairs", false)];
    saga.race("up", ways, async |saga: Saga, climbs: bool| {
        if climbs {
            saga.step("rope", Put("rope".into())).await.map(drop)
        } else {
            saga.sleep("rest", secs(1)).await
        }
    })
    .await?;
    saga.sleep("night", secs(7200)).await
});

workflow!(Plain, "plain", |saga| {
    saga.step("pot", Put("pot".into())).await?;
    saga.sleep("night", secs(600)).await
});

workflow!(Listening, "listening", |saga| {
    let ways = [("ear", true), ("clock", false)];
    saga.race("first", ways, async |saga: Saga, listens: bool| {
        if listens {
            // What is made here keeps the branch's scope open while it is taken back.
            saga.step("horn", Put("horn".into())).await?;
            saga.signal::<String>("word", "word", secs(7200)).await.map(drop)
        } else {
            saga.sleep("tick", secs(60)).await
        }
    })
    .await?;
    let word = saga.signal::<String>("again", "word", secs(3600)).await?;
    if word.is_some() { Ok(()) } else { Err(Halt::give_up("silence", "no word came")) }
});

workflow!(Shouting, "shouting", |saga| {
    saga.step("shout", Shout("shout".into())).await?;
    Ok(())
});

workflow!(Ordering, "ordering", |saga| {
    saga.step("order", Order("order".into())).await?;
    Ok(())
});

workflow!(Parent, "parent", |saga| {
    saga.start::<Plain>("beside", &"beside".to_owned()).await?;
    saga.sleep("night", secs(60)).await
});

workflow!(Telling, "telling", |saga| {
    saga.pivot("lift-off", Announce("lift-off".into())).await?;
    saga.step("tell", Tell("tell".into())).await?;
    Ok(())
});

workflow!(TwoPivots, "two-pivots", |saga| {
    saga.pivot("lift-off", Announce("lift-off".into())).await?;
    saga.pivot("landing", Announce("landing".into())).await?;
    Ok(())
});

workflow!(TooLate, "too-late", |saga| {
    saga.pivot("lift-off", Announce("lift-off".into())).await?;
    saga.step("ramp", Put("ramp".into())).await?;
    Ok(())
});

workflow!(Tidy, "tidy", |saga| {
    saga.defer("tidy", Announce("tidy".into())).await?;
    saga.step("pot", Put("pot".into())).await?;
    saga.sleep("night", secs(600)).await
});

workflow!(Twice, "twice", |saga| {
    let first = saga.scope("first", |saga| async move {
        saga.step("hold", Hold("room".into())).await?;
        Err::<(), _>(Halt::give_up("dirty", "it is of no use as it is"))
    });
    assert!(first.await.is_err());
    saga.sleep("meanwhile", secs(600)).await?;
    saga.step("hold", Hold("room".into())).await.map(drop)
});

workflow!(Cleaning, "cleaning", |saga| {
    let rows = saga.transact("take", TakeOver).await?.take();
    saga.step("clear", Clear { rows }).await.map(drop)
});

/// Waits for what is not the engine's.
struct Foreign;

impl Workflow for Foreign {
    const NAME: &'static str = "foreign";
    const VERSION: u32 = 1;
    type Input = String;
    type Output = ();

    async fn run(&self, saga: &Saga, _: String) -> saga::Result<()> {
        saga.step("pot", Put("pot".into())).await?;
        std::future::pending().await
    }
}

struct Room {
    env: Env,
    store: Arc<MemoryStore>,
    vault: amends_engine::secret::Vault,
    desk: Arc<Desk>,
    registry: Registry,
}

impl Room {
    async fn new() -> Self {
        let env = Env::simulated(1);
        let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
        let desk = Arc::new(Desk::default());
        let registry = Registry::default()
            .activity::<Put>(desk.clone())
            .activity::<Announce>(desk.clone())
            .activity::<Shout>(desk.clone())
            .activity::<Order>(desk.clone())
            .activity::<Tell>(desk.clone())
            .activity::<Hold>(desk.clone())
            .activity::<Clear>(desk.clone())
            .local::<TakeOver>()
            .workflow(Twice)
            .workflow(Cleaning)
            .workflow(Launch)
            .workflow(TwoWays)
            .workflow(Plain)
            .workflow(Listening)
            .workflow(Shouting)
            .workflow(Ordering)
            .workflow(Foreign)
            .workflow(Tidy)
            .workflow(TwoPivots)
            .workflow(TooLate)
            .workflow(Telling)
            .workflow(Parent);
        Self { env, store: Arc::new(store), vault, desk, registry }
    }

    fn engine_on(&self, store: Arc<dyn Store>) -> Engine {
        Engine::start(store, self.vault.clone(), self.registry.clone(), self.env.clone(), "test")
    }

    fn engine(&self) -> Engine {
        self.engine_on(Arc::new(self.store.another(&self.env)))
    }

    fn new_saga<W: Workflow<Input = String>>(&self) -> NewSaga {
        NewSaga::of::<W>(&self.env, W::NAME, &String::new()).unwrap()
    }

    async fn begin<W: Workflow<Input = String>>(&self) -> SagaId {
        let new = self.new_saga::<W>();
        let id = new.id.clone();
        self.store.start(new).await.unwrap();
        id
    }

    async fn state(&self, saga: &SagaId) -> State {
        State::fold(saga.clone(), &self.store.journal(saga).await.unwrap()).unwrap()
    }

    /// Lets time pass until it is so.
    async fn until(&self, saga: &SagaId, is_so: impl Fn(&State) -> bool) -> State {
        for _ in 0..20_000 {
            let state = self.state(saga).await;
            if is_so(&state) {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("never: {}", amends_engine::journal::story(saga, &self.store.journal(saga).await.unwrap()));
    }

    async fn ended(&self, saga: &SagaId) -> SagaState {
        self.until(saga, |state| state.ended.is_some()).await.ended.unwrap()
    }

    async fn fired(&self, saga: &SagaId, is_it: impl Fn(&Event) -> bool) -> Vec<Timestamp> {
        let entries = self.store.journal(saga).await.unwrap();
        entries.iter().filter(|entry| is_it(&entry.event)).map(|entry| entry.at).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_waits_for_a_pivot_whose_call_is_under_way() {
    let room = Room::new().await;
    room.desk.next("lift-off", Fate::Takes(secs(30)));
    let engine = room.engine();
    let saga = room.begin::<Launch>().await;
    room.until(&saga, |state| state.step(&"lift-off".into()).is_some()).await;
    engine.cancel(&saga, "ann", "too late?").await.unwrap();
    assert!(room.ended(&saga).await == SagaState::Completed, "what cannot be taken back happened");
    assert!(room.desk.count("undo ramp") == 0);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_waits_until_it_is_known_whether_the_pivot_happened() {
    let room = Room::new().await;
    room.desk.next("lift-off", Fate::Happens(lost()));
    let engine = room.engine();
    let saga = room.begin::<Launch>().await;
    let in_doubt = |state: &State| {
        state.step(&"lift-off".into()).is_some_and(|step| matches!(step.phase, Phase::InDoubt { .. }))
    };
    room.until(&saga, in_doubt).await;
    engine.cancel(&saga, "ann", "too late?").await.unwrap();
    assert!(room.ended(&saga).await == SagaState::Completed);
    assert!(room.desk.count("lift-off") == 1 && room.desk.count("undo ramp") == 0);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_behind_a_pivot_that_did_not_happen_turns_the_saga_round() {
    let room = Room::new().await;
    room.desk.next("lift-off", Fate::Fails(lost()));
    let engine = room.engine();
    let saga = room.begin::<Launch>().await;
    room.until(&saga, |state| state.step(&"lift-off".into()).is_some()).await;
    engine.cancel(&saga, "ann", "in time").await.unwrap();
    assert!(room.ended(&saga).await == SagaState::Compensated);
    assert!(room.desk.count("lift-off") == 0 && room.desk.count("undo ramp") == 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_behind_a_lost_attempt_does_not_say_that_it_never_happened() {
    let room = Room::new().await;
    room.desk.next("order", Fate::Happens(lost()));
    room.desk.next("order", Fate::Fails(Failure::refused("sold_out", "there is no more")));
    let _engine = room.engine();
    let saga = room.begin::<Ordering>().await;
    assert_eq!(room.ended(&saga).await, SagaState::Completed, "it is tried again, and known again");
    let rows = room.store.resources(ResourceFilter::default()).await.unwrap();
    assert!(rows.iter().all(|row| row.state != ResourceState::Gone), "{rows:?}");
}

#[tokio::test(start_paused = true)]
async fn a_step_behind_the_pivot_is_never_given_up() {
    let room = Room::new().await;
    for _ in 0..5 {
        room.desk.next("tell", Fate::Fails(unavailable()));
    }
    let _engine = room.engine();
    let saga = room.begin::<Telling>().await;
    assert_eq!(room.ended(&saga).await, SagaState::Completed);
    assert_eq!(room.desk.count("tell"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_may_not_stand_behind_a_pivot_is_refused_before_it_is_called() {
    for (is_second, call) in [(true, "landing"), (false, "ramp")] {
        let room = Room::new().await;
        let _engine = room.engine();
        let saga = if is_second { room.begin::<TwoPivots>().await } else { room.begin::<TooLate>().await };
        let state = room.until(&saga, |state| state.parked.is_some() || state.ended.is_some()).await;
        assert!(matches!(state.parked, Some((Attention::NeedsDecision, _))), "{call}: {:?}", state.parked);
        assert_eq!((room.desk.count("lift-off"), room.desk.count(call)), (1, 0), "{call}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_put_off_to_the_end_is_done_whichever_way_it_ends() {
    for cancels in [false, true] {
        let room = Room::new().await;
        let engine = room.engine();
        let saga = room.begin::<Tidy>().await;
        room.until(&saga, |state| state.step(&"night".into()).is_some()).await;
        assert_eq!(room.desk.count("tidy"), 0);
        if cancels {
            engine.cancel(&saga, "ann", "no more").await.unwrap();
        }
        let wanted = if cancels { SagaState::Compensated } else { SagaState::Completed };
        assert_eq!(room.ended(&saga).await, wanted);
        assert_eq!(room.desk.count("tidy"), 1, "{wanted}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_of_a_dropped_branch_is_not_tried_again_once_its_scope_is_unwound() {
    let room = Room::new().await;
    for _ in 0..3 {
        room.desk.next("rope", Fate::Fails(unavailable()));
    }
    let engine = room.engine();
    let saga = room.begin::<TwoWays>().await;
    room.until(&saga, |state| state.step(&"night".into()).is_some()).await;
    tokio::time::sleep(secs(3600)).await;
    let told = amends_engine::journal::story(&saga, &room.store.journal(&saga).await.unwrap());
    assert!(room.desk.count("rope") == 0, "nobody waits for it, and nobody will take it back:\n{told}");
    drop(engine);
}

#[tokio::test(start_paused = true)]
async fn an_act_does_not_let_a_saga_begin_before_its_time() {
    let room = Room::new().await;
    let engine = room.engine();
    let new = room.new_saga::<Plain>().delayed(&room.env, secs(600));
    let (saga, start_at) = (new.id.clone(), room.env.now().plus(secs(600)));
    room.store.start(new).await.unwrap();
    engine.pause(&saga, Duration::from_secs(5), "ann", "not yet").await.unwrap();
    let state = room.until(&saga, |state| !state.steps().is_empty()).await;
    assert!(state.steps()[0].asked_at >= start_at, "it began {} early", start_at.since(state.at).as_secs());
}

#[tokio::test(start_paused = true)]
async fn an_act_does_not_let_a_saga_begin_without_its_place() {
    let room = Room::new().await;
    let engine = room.engine();
    let first = room.new_saga::<Plain>().one_of("customer", 1);
    let mut second = room.new_saga::<Plain>().one_of("customer", 1);
    second.key = "second".to_owned();
    let (one, two) = (first.id.clone(), second.id.clone());
    room.store.start(first).await.unwrap();
    room.store.start(second).await.unwrap();
    room.until(&one, |state| !state.steps().is_empty()).await;
    engine.retry(&two, "ann", "now").await.unwrap();
    let state = room.until(&two, |state| !state.steps().is_empty()).await;
    let first_ended = room.state(&one).await;
    assert!(first_ended.ended.is_some() && first_ended.at <= state.steps()[0].asked_at, "two at once");
    assert!(room.ended(&two).await == SagaState::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_signal_to_a_saga_that_is_paused_before_it_began_does_not_keep_a_worker_busy() {
    let room = Room::new().await;
    let engine = room.engine();
    let new = room.new_saga::<Plain>().delayed(&room.env, secs(600));
    let saga = new.id.clone();
    room.store.start(new).await.unwrap();
    engine.pause(&saga, secs(300), "ann", "not yet").await.unwrap();
    room.until(&saga, |state| state.paused.is_some()).await;
    engine.signal(&saga, "word-1", "word", "early".into()).await.unwrap();
    // Where it is taken up in a circle, the time of this test stands still.
    let limit = tokio::time::Instant::now() + secs(3600);
    let writes = std::time::Instant::now();
    while tokio::time::Instant::now() < limit {
        assert!(writes.elapsed() < Duration::from_secs(120), "time stands still");
        tokio::time::sleep(secs(1)).await;
    }
    assert!(room.ended(&saga).await == SagaState::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_wait_of_a_paused_saga_is_not_given_up_before_it_goes_on() {
    let room = Room::new().await;
    let engine = room.engine();
    let saga = room.begin::<Plain>().await;
    room.until(&saga, |state| state.step(&"night".into()).is_some()).await;
    engine.pause(&saga, secs(60), "ann", "a moment").await.unwrap();
    room.until(&saga, |state| state.paused.is_some()).await;
    let act = Act::FailAttempt { step: "night".into() };
    let answer = engine.act(&saga, act, "ann", "enough").await;
    assert!(answer.is_err(), "said to be done, and not done");
    assert!(room.ended(&saga).await == SagaState::Completed);
}

#[tokio::test(start_paused = true)]
async fn what_was_done_by_hand_is_on_the_ledger_with_the_providers_id() {
    let room = Room::new().await;
    for _ in 0..20 {
        room.desk.next("pot", Fate::Fails(unavailable()));
    }
    let engine = room.engine();
    let saga = room.begin::<Plain>().await;
    let waits = |state: &State| {
        state.step(&"pot".into()).is_some_and(|step| matches!(step.phase, Phase::Deferred { .. }))
    };
    room.until(&saga, waits).await;
    let act = Act::Done { step: "pot".into(), output: Some("pot".into()) };
    engine.act(&saga, act, "ann", "made it myself").await.unwrap();
    room.until(&saga, |state| state.step(&"night".into()).is_some()).await;
    let rows = room.store.resources(ResourceFilter::default()).await.unwrap();
    assert!(rows[0].state == ResourceState::Live && rows[0].external_id.as_deref() == Some("id of pot"));
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_repeated_leaves_its_saga_to_whoever_drives_it() {
    let room = Room::new().await;
    for _ in 0..4 {
        room.desk.next("pot", Fate::Fails(unavailable()));
    }
    let engine = room.engine();
    let new = room.new_saga::<Plain>();
    let saga = new.id.clone();
    assert!(engine.begin(new.clone()).await.unwrap() == Started::New(saga.clone()));
    room.until(&saga, |state| state.step(&"pot".into()).is_some()).await;
    assert!(engine.begin(new).await.unwrap() == Started::Before(saga.clone()));
    assert!(room.ended(&saga).await == SagaState::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_saga_whose_start_was_answered_to_nobody_is_driven_when_the_start_is_repeated() {
    let room = Room::new().await;
    let handle = Arc::new(room.store.another(&room.env));
    let lossy = Arc::new(ShakyStore::new(handle, room.env.clone(), Shakes::default()));
    let engine = room.engine_on(lossy.clone());
    let new = room.new_saga::<Plain>();
    let saga = new.id.clone();
    tokio::time::sleep(secs(1)).await;
    lossy.set_shakes(Shakes { answer_lost: 1000, ..Shakes::default() });
    assert!(engine.begin(new.clone()).await.is_err());
    lossy.set_shakes(Shakes::default());
    assert!(engine.begin(new).await.unwrap() == Started::Before(saga.clone()));
    assert!(room.ended(&saga).await == SagaState::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_time_was_up_before_its_intent_was_answered_is_not_sent() {
    let room = Room::new().await;
    let frozen = Arc::new(ShakyStore::new(
        Arc::new(room.store.another(&room.env)),
        room.env.clone(),
        Shakes::default(),
    ));
    let engine = room.engine_on(frozen.clone());
    let saga = room.begin::<Plain>().await;
    // The process stands still between the commit of the intent and the call.
    frozen.freeze_behind_write(1);
    room.until(&saga, |state| state.step(&"pot".into()).is_some()).await;
    let other = room.engine();
    assert!(room.ended(&saga).await == SagaState::Completed);
    frozen.freeze(false);
    tokio::time::sleep(secs(120)).await;
    assert!(room.desk.count("pot") == 1, "two workers made the same thing");
    drop((engine, other));
}

/// What it held first was handed over, and is another's by now: a lost call to what it holds again is no word on that.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_lost_writes_nothing_on_a_row_that_was_handed_over() {
    let room = Room::new().await;
    room.desk.next("room", Fate::Takes(Duration::ZERO));
    room.desk.next("room", Fate::Happens(lost()));
    let engine = room.engine();
    let saga = room.begin::<Twice>().await;
    room.until(&saga, |state| state.step(&"meanwhile".into()).is_some()).await;
    let cleaning = room.begin::<Cleaning>().await;
    assert!(room.ended(&cleaning).await == SagaState::Completed);
    assert!(room.ended(&saga).await == SagaState::Completed);
    assert_eq!(room.desk.count("room"), 3, "held, lost, and held again");
    drop(engine);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_turns_a_parked_saga_round() {
    let room = Room::new().await;
    let engine = room.engine();
    let new = room.new_saga::<Foreign>().within(&room.env, secs(600));
    let saga = new.id.clone();
    let deadline = new.deadline_at.unwrap();
    room.store.start(new).await.unwrap();
    room.until(&saga, |state| state.parked.is_some()).await;
    assert!(room.ended(&saga).await == SagaState::Compensated);
    let turned = room.state(&saga).await.unwinding.unwrap().since;
    assert!(turned.since(deadline) < secs(5), "it turned round {:?} late", turned.since(deadline));
    drop(engine);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_turns_a_saga_round_that_sleeps_or_waits_for_a_signal() {
    // The one sleeps for ten minutes, the other listens for an hour.
    for (is_asleep, deadline) in [(true, secs(300)), (false, secs(900))] {
        let room = Room::new().await;
        let engine = room.engine();
        let new = if is_asleep { room.new_saga::<Plain>() } else { room.new_saga::<Listening>() };
        let new = new.within(&room.env, deadline);
        let (saga, deadline) = (new.id.clone(), new.deadline_at.unwrap());
        room.store.start(new).await.unwrap();
        assert!(room.ended(&saga).await == SagaState::Compensated);
        let turned = room.state(&saga).await.unwinding.unwrap().since;
        assert!(turned.since(deadline) < secs(5), "it turned round {:?} late", turned.since(deadline));
        drop(engine);
    }
}

#[tokio::test(start_paused = true)]
async fn a_signal_is_not_taken_by_a_branch_that_was_dropped() {
    let room = Room::new().await;
    for _ in 0..5 {
        room.desk.next("undo horn", Fate::Fails(unavailable()));
    }
    let engine = room.engine();
    let saga = room.begin::<Listening>().await;
    // While the loser is being taken back, and once more when it is.
    room.until(&saga, |state| state.step(&"again".into()).is_some()).await;
    engine.signal(&saga, "word-1", "word", "hello".into()).await.unwrap();
    assert!(room.ended(&saga).await == SagaState::Completed, "the branch that lost took it");
}

#[tokio::test(start_paused = true)]
async fn a_blind_effect_in_doubt_is_never_sent_again_and_waits_for_a_person() {
    let room = Room::new().await;
    room.desk.next("shout", Fate::Happens(lost()));
    let engine = room.engine();
    let saga = room.begin::<Shouting>().await;
    let undecidable = |state: &State| state.attention().contains(&Attention::NeedsDecision);
    room.until(&saga, undecidable).await;
    tokio::time::sleep(secs(48 * 3600)).await;
    engine.retry(&saga, "ann", "again").await.unwrap();
    tokio::time::sleep(secs(600)).await;
    assert!(room.desk.count("shout") == 1 && undecidable(&room.state(&saga).await));
    let verdict = Verdict::Adopt { output: "shout".into(), external_id: None };
    engine.settle(&saga, "shout", verdict, "ann", "I heard it").await.unwrap();
    assert!(room.ended(&saga).await == SagaState::Completed);
    assert!(room.desk.count("shout") == 1);
}

#[tokio::test(start_paused = true)]
async fn a_blind_effect_whose_worker_died_is_not_sent_again() {
    let room = Room::new().await;
    room.desk.next("shout", Fate::Takes(secs(3)));
    let first = room.engine();
    let saga = room.begin::<Shouting>().await;
    room.until(&saga, |state| state.step(&"shout".into()).is_some()).await;
    first.abort();
    let second = room.engine();
    let state = room.until(&saga, |state| state.attention().contains(&Attention::NeedsDecision)).await;
    assert!(room.desk.count("shout") == 0 && state.step(&"shout".into()).unwrap().attempts == 1);
    second.cancel(&saga, "ann", "never mind").await.unwrap();
    room.until(&saga, |state| state.unwinding.is_some()).await;
    second.settle(&saga, "shout", Verdict::Absent, "ann", "nobody heard it").await.unwrap();
    room.ended(&saga).await;
    assert!(room.desk.count("shout") == 0 && room.desk.count("undo shout") == 0);
}

#[tokio::test(start_paused = true)]
async fn within_its_window_a_key_is_sent_again() {
    let room = Room::new().await;
    room.desk.next("order", Fate::Happens(lost()));
    let engine = room.engine();
    let saga = room.begin::<Ordering>().await;
    assert!(room.ended(&saga).await == SagaState::Completed);
    assert!(room.desk.count("order") == 2);
    drop(engine);
}

#[tokio::test(start_paused = true)]
async fn outside_its_window_a_key_is_not_sent_again_without_a_look() {
    let room = Room::new().await;
    room.desk.next("order", Fate::Happens(lost()));
    let engine = room.engine();
    let saga = room.begin::<Ordering>().await;
    let in_doubt = |state: &State| {
        state.step(&"order".into()).is_some_and(|step| matches!(step.phase, Phase::InDoubt { .. }))
    };
    room.until(&saga, in_doubt).await;
    // A day is over before anybody gets round to it.
    engine.pause(&saga, secs(24 * 3600), "ann", "over the holiday").await.unwrap();
    let undecidable = |state: &State| state.attention().contains(&Attention::NeedsDecision);
    tokio::time::sleep(secs(24 * 3600)).await;
    room.until(&saga, undecidable).await;
    assert!(room.desk.count("order") == 1, "the provider knows the key no more, and would do it twice");
    engine.settle(&saga, "order", Verdict::Absent, "ann", "it is not there").await.unwrap();
    assert!(room.ended(&saga).await == SagaState::Completed);
    assert!(room.desk.count("order") == 2);
}

#[tokio::test(start_paused = true)]
async fn a_timer_never_fires_before_it_is_due() {
    let room = Room::new().await;
    let engine = room.engine();
    let saga = room.begin::<Plain>().await;
    room.ended(&saga).await;
    let set = room.fired(&saga, |event| matches!(event, Event::TimerSet { .. })).await[0];
    let fired = room.fired(&saga, |event| matches!(event, Event::TimerFired { .. })).await[0];
    assert!(fired >= set.plus(secs(600)));
    drop(engine);
}

#[tokio::test(start_paused = true)]
async fn a_crowded_worker_does_not_turn_in_a_circle_over_a_letter_that_is_not_read_yet() {
    let room = Room::new().await;
    let store = Arc::new(room.store.another(&room.env));
    let registry = room.registry.clone();
    let engine = Engine::start_bounded(store, room.vault.clone(), registry, room.env.clone(), "test", 1);
    let first = room.begin::<Plain>().await;
    room.until(&first, |state| state.step(&"night".into()).is_some()).await;
    // It is kept in memory for this, and another waits for its place there.
    engine.signal(&first, "word-1", "word", "early".into()).await.unwrap();
    let mut new = room.new_saga::<Plain>();
    new.key = "second".to_owned();
    let second = new.id.clone();
    room.store.start(new).await.unwrap();
    let (limit, began) = (tokio::time::Instant::now() + secs(3600), std::time::Instant::now());
    while tokio::time::Instant::now() < limit {
        assert!(began.elapsed() < Duration::from_secs(120), "time stands still");
        tokio::time::sleep(secs(1)).await;
    }
    assert!(room.ended(&first).await == SagaState::Completed);
    assert!(room.ended(&second).await == SagaState::Completed);
}

/// The append that ended it was written and its answer lost, so that it is loaded again; meanwhile its child writes.
#[tokio::test(start_paused = true)]
async fn a_saga_that_has_ended_reads_no_letters() {
    static BROKEN: AtomicBool = AtomicBool::new(false);
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        BROKEN.fetch_or(panic.to_string().contains("the saga is completed"), SeqCst);
        told(panic);
    }));
    let room = Room::new().await;
    let handle = Arc::new(room.store.another(&room.env));
    let shaky = Arc::new(ShakyStore::new(handle, room.env.clone(), Shakes::default()));
    let engine = room.engine_on(shaky.clone());
    let saga = room.begin::<Parent>().await;
    room.until(&saga, |state| state.step(&"night".into()).is_some()).await;
    shaky.set_shakes(Shakes { answer_lost: 1000, ..Shakes::default() });
    let child = room.until(&saga, |state| state.ended.is_some()).await;
    let child = child.step(&"beside".into()).and_then(|step| step.child.clone()).unwrap().0;
    let (step, fate) = ("beside".into(), ChildFate::Done);
    let message = Message::ChildEnded { step, child, fate, output: Some(Value::Null), refusal: None };
    let letter = Letter { id: "done".into(), saga: saga.clone(), message, at: room.env.now() };
    room.store.post(letter).await.unwrap();
    tokio::time::sleep(secs(60)).await;
    shaky.set_shakes(Shakes::default());
    tokio::time::sleep(secs(60)).await;
    assert!(!BROKEN.load(SeqCst), "it recorded a fact behind its end");
    drop(engine);
}

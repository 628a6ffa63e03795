//! A call whose answer was lost may take effect later: what waits for that, for how long, and what people are told.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::sync::Arc;
use std::time::Duration;

use amends_engine::env::Timestamp;
use amends_engine::journal::act::{Act, Verdict};
use amends_engine::journal::state::{Attention, Phase, SagaState};
use amends_engine::journal::{Event, State, plan, story, why};
use amends_engine::store::memory::MemoryStore;
use amends_engine::store::{ResourceFilter, ResourceState, Store};
use amends_engine::{Engine, Env, Halt, Saga, SagaId, Workflow, saga, secs};
use amends_tests::depot::{
    Archive, ClearDoor, Coin, Deed, Depot, DoorCleared, Fate, Flare, House, Hut, Knock, Lease, Loan,
    RemoveThings, SetDoor, TakeOver, lost, offers, unavailable,
};
use serde::{Deserialize, Serialize};

/// The longest that one attempt takes, where its activity does not say otherwise.
const LIMIT: Duration = secs(60);

/// What a saga does, in order.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Do {
    /// Makes a thing of this class and name.
    Make(String, String),
    Set(String, String, String),
    Clear(String, String),
    TakeOver(String),
    SeeCleared(String),
    Remove(String),
    Sleep(u64),
    /// Makes it in a scope that fails then.
    InVain(String, String),
    Knock,
    Fail,
}
use Do::{Clear, Fail, InVain, Make, SeeCleared, Set, Sleep};

fn make(class: &str, name: &str) -> Do {
    Make(class.into(), name.into())
}

fn set(key: &str, to: &str) -> Do {
    Set(key.into(), "front".into(), to.into())
}

struct Plan;

impl Workflow for Plan {
    const NAME: &'static str = "plan";
    const VERSION: u32 = 1;
    type Input = Vec<Do>;
    type Output = ();

    async fn run(&self, saga: &Saga, todo: Vec<Do>) -> saga::Result<()> {
        let mut rows = Vec::new();
        for one in todo {
            match one {
                Make(class, name) => made(saga, &class, name).await?,
                Set(key, door, to) => drop(saga.step(&key, SetDoor { door, to }).await?),
                Clear(key, door) => drop(saga.step(&key, ClearDoor { door }).await?),
                Do::TakeOver(from) => rows = saga.transact("take over", TakeOver { from }).await?.take(),
                SeeCleared(door) => {
                    let rows = rows.clone();
                    saga.poll_until("seen", DoorCleared { door, rows }, secs(5), secs(600)).await?;
                }
                Do::Remove(name) => {
                    let removal = RemoveThings { name, rows: rows.clone() };
                    drop(saga.remove("remove", removal).await?);
                }
                Sleep(seconds) => saga.sleep(&format!("sleep {seconds}"), secs(seconds)).await?,
                InVain(class, name) => {
                    let tried = saga.scope("in vain", |saga| async move {
                        made(&saga, &class, name).await?;
                        Err::<(), _>(Halt::give_up("in_vain", "it was no use"))
                    });
                    drop(tried.await);
                }
                Do::Knock => drop(saga.step("knock", Knock("door".into())).await?),
                Fail => return Err(Halt::give_up("no", "it fails here")),
            }
        }
        Ok(())
    }

    /// Who waits there hands over what it made.
    fn owner(todo: &Vec<Do>, (): &()) -> Option<String> {
        let hands_over = |one: &Do| match one {
            Set(..) => true,
            Make(_, name) => name == "handed over",
            _ => false,
        };
        todo.iter().any(hands_over).then(|| "tenant".to_owned())
    }
}

async fn made(saga: &Saga, class: &str, name: String) -> saga::Result<()> {
    match class {
        "lease" => saga.step(&name.clone(), Lease(name)).await.map(drop),
        "deed" => saga.step(&name.clone(), Deed(name)).await.map(drop),
        "loan" => saga.step(&name.clone(), Loan(name)).await.map(drop),
        "house" => saga.step(&name.clone(), House(name)).await.map(drop),
        "hut" => saga.step(&name.clone(), Hut(name)).await.map(drop),
        "coin" => saga.step(&name.clone(), Coin(name)).await.map(drop),
        "archive" => saga.step(&name.clone(), Archive(name)).await.map(drop),
        _ => saga.step(&name.clone(), Flare(name)).await.map(drop),
    }
}

struct Room {
    env: Env,
    store: Arc<MemoryStore>,
    depot: Arc<Depot>,
    engine: Engine,
    sagas: std::cell::Cell<u32>,
}

impl Room {
    async fn new() -> Self {
        let env = Env::simulated(5);
        let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
        let (store, depot) = (Arc::new(store), Arc::new(Depot::default()));
        let engine = Engine::start(store.clone(), vault, offers(&depot).workflow(Plan), env.clone(), "test");
        Self { env, store, depot, engine, sagas: 0.into() }
    }

    async fn begin(&self, todo: impl IntoIterator<Item = Do>) -> SagaId {
        self.sagas.set(self.sagas.get() + 1);
        let todo: Vec<Do> = todo.into_iter().collect();
        let new = self.engine.new_saga::<Plan>(&format!("{}", self.sagas.get()), &todo).unwrap();
        self.engine.begin(new.within(&self.env, secs(2 * 24 * 3600))).await.unwrap().saga().clone()
    }

    async fn state(&self, saga: &SagaId) -> State {
        State::fold(saga.clone(), &self.store.journal(saga).await.unwrap()).unwrap()
    }

    async fn story(&self, saga: &SagaId) -> String {
        story(saga, &self.store.journal(saga).await.unwrap())
    }

    async fn until(&self, saga: &SagaId, is_so: impl Fn(&State) -> bool) -> State {
        for _ in 0..100_000 {
            let state = self.state(saga).await;
            if is_so(&state) {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("never: {}", self.story(saga).await);
    }

    async fn ended(&self, saga: &SagaId) -> SagaState {
        self.until(saga, |state| state.ended.is_some()).await.ended.unwrap()
    }

    async fn phase(&self, saga: &SagaId, step: &str, is_it: impl Fn(&Phase) -> bool) -> State {
        self.until(saga, |state| state.step(&step.into()).is_some_and(|step| is_it(&step.phase))).await
    }

    /// When the facts of a step happened, after the beginning of its first attempt.
    async fn at(&self, saga: &SagaId, step: &str, is_it: impl Fn(&Event) -> bool) -> Vec<Duration> {
        let entries = self.store.journal(saga).await.unwrap();
        let of_it = || entries.iter().filter(|entry| entry.event.step() == Some(&step.into()));
        let began = of_it().find(|entry| matches!(entry.event, Event::AttemptStarted { .. })).unwrap().at;
        of_it().filter(|entry| is_it(&entry.event)).map(|entry| entry.at.since(began)).collect()
    }

    async fn undone_at(&self, saga: &SagaId, step: &str) -> Duration {
        self.at(saga, step, |event| matches!(event, Event::CompensationStarted { .. })).await[0]
    }

    /// Whatever lands late has landed.
    async fn later(&self) {
        tokio::time::sleep(secs(600)).await;
    }

    async fn why(&self, saga: &SagaId) -> String {
        why(&self.state(saga).await, self.env.now()).to_string()
    }
}

fn is_in_doubt(phase: &Phase) -> bool {
    matches!(phase, Phase::InDoubt { .. })
}

/// A moment before the time at which a lost call is surely over.
fn at_last(settle_after: Duration) -> Fate {
    Fate::LandsIn(LIMIT + settle_after - secs(1))
}

#[tokio::test(start_paused = true)]
async fn an_undo_waits_until_an_attempt_that_was_lost_is_surely_over_although_the_next_got_through() {
    for class in ["lease", "loan"] {
        let room = Room::new().await;
        room.depot.next("make thing", [at_last(secs(60))]);
        let saga = room.begin([make(class, "thing"), Fail]).await;
        assert_eq!(room.ended(&saga).await, SagaState::Compensated);
        room.later().await;
        assert_eq!(room.depot.names(), [""; 0], "{class}: {}", room.story(&saga).await);
        // Getting through was not delayed.
        let done = room.at(&saga, "thing", |event| matches!(event, Event::StepCompleted { .. })).await[0];
        let undone = room.undone_at(&saga, "thing").await;
        assert!(done < secs(3) && undone >= LIMIT + secs(60), "{class}: done {done:?}, undone {undone:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_latest_of_all_lost_attempts_counts() {
    let room = Room::new().await;
    room.depot.next("make thing", [at_last(secs(60)), at_last(secs(60)), at_last(secs(60))]);
    let saga = room.begin([make("lease", "thing"), Fail]).await;
    room.ended(&saga).await;
    room.later().await;
    let last = room.at(&saga, "thing", |event| matches!(event, Event::AttemptStarted { .. })).await[2];
    assert!(room.undone_at(&saga, "thing").await >= last + LIMIT + secs(60));
    assert_eq!(room.depot.names(), [""; 0], "{}", room.story(&saga).await);
}

#[tokio::test(start_paused = true)]
async fn what_was_looked_for_and_found_is_not_undone_before_the_lost_call_is_surely_over() {
    let room = Room::new().await;
    room.depot.next("make thing", [Fate::LandsIn(secs(1))]);
    let saga = room.begin([make("house", "thing"), Fail]).await;
    room.ended(&saga).await;
    let found = room.at(&saga, "thing", |event| matches!(event, Event::StepFound { .. })).await[0];
    assert!(found < secs(15), "found at {found:?}");
    assert!(room.undone_at(&saga, "thing").await >= LIMIT + secs(10));
    assert_eq!(room.depot.names(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_a_person_settled_is_not_undone_before_the_lost_call_is_surely_over() {
    let room = Room::new().await;
    room.depot.next("make thing", [Fate::LandsIn(secs(1))]);
    room.depot.next("find thing", vec![Fate::Fails(unavailable()); 3]);
    let saga = room.begin([make("house", "thing"), Fail]).await;
    room.phase(&saga, "thing", is_in_doubt).await;
    tokio::time::sleep(secs(2)).await;
    let seen = Verdict::Adopt { output: "id-1".into(), external_id: None };
    room.engine.settle(&saga, "thing", seen, "ann", "I saw it").await.unwrap();
    room.ended(&saga).await;
    assert!(room.undone_at(&saga, "thing").await >= LIMIT + secs(10), "{}", room.story(&saga).await);
}

#[tokio::test(start_paused = true)]
async fn what_is_of_no_use_is_not_cleared_away_before_the_lost_call_is_surely_over() {
    let room = Room::new().await;
    room.depot.next("make coin", [Fate::LandsIn(secs(1))]);
    let saga = room.begin([make("coin", "coin"), Sleep(600)]).await;
    assert_eq!(room.ended(&saga).await, SagaState::Completed);
    assert!(room.undone_at(&saga, "coin").await >= LIMIT + secs(10), "{}", room.story(&saga).await);
    assert_eq!(room.depot.names(), ["coin-g2"]);
}

#[tokio::test(start_paused = true)]
async fn a_scope_is_not_unwound_before_what_it_lost_is_surely_over() {
    let room = Room::new().await;
    room.depot.next("make thing", [at_last(secs(60))]);
    let saga = room.begin([InVain("lease".into(), "thing".into()), make("lease", "other")]).await;
    assert_eq!(room.ended(&saga).await, SagaState::Completed);
    room.later().await;
    assert_eq!(room.depot.names(), ["other"], "{}", room.story(&saga).await);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_whose_worker_died_counts_too() {
    let room = Room::new().await;
    room.depot.next("make thing", [Fate::Takes(secs(30))]);
    let saga = room.begin([make("lease", "thing"), Fail]).await;
    room.phase(&saga, "thing", |phase| matches!(phase, Phase::Trying { .. })).await;
    room.engine.abort();
    let (_, vault) = MemoryStore::new(&[], &room.env).await.unwrap();
    let store = Arc::new(room.store.another(&room.env));
    let registry = offers(&room.depot).workflow(Plan);
    let engine = Engine::start(store, vault, registry, room.env.clone(), "test");
    room.ended(&saga).await;
    assert!(room.undone_at(&saga, "thing").await >= LIMIT + secs(60), "{}", room.story(&saga).await);
    drop(engine);
}

#[tokio::test(start_paused = true)]
async fn a_blind_call_is_not_a_persons_to_say_before_it_is_surely_over() {
    let room = Room::new().await;
    room.depot.next("make flare", [at_last(secs(60))]);
    let saga = room.begin([make("flare", "flare"), Fail]).await;
    let began = room.env.now();
    room.until(&saga, |state| state.attention().contains(&Attention::NeedsDecision)).await;
    assert!(room.env.now().since(began) >= LIMIT + secs(60));
    assert_eq!(room.depot.names(), ["flare"], "whoever looks now can tell");
}

/// Somebody looks while the call may still land, and says that nothing is there.
#[tokio::test(start_paused = true)]
async fn an_absence_that_a_person_saw_too_early_is_looked_at_once_more() {
    for cancels in [false, true] {
        let room = Room::new().await;
        room.depot.next("make thing", [at_last(secs(10))]);
        let saga = room.begin([make("house", "thing"), Sleep(3600)]).await;
        room.phase(&saga, "thing", is_in_doubt).await;
        room.engine.settle(&saga, "thing", Verdict::Absent, "ann", "not there").await.unwrap();
        if cancels {
            room.engine.cancel(&saga, "ann", "no more").await.unwrap();
        }
        room.ended(&saga).await;
        let left = if cancels { vec![] } else { vec!["thing".to_owned()] };
        assert_eq!(room.depot.names(), left, "{}", room.story(&saga).await);
        assert_eq!(room.depot.calls("make thing"), 1);
    }
}

/// Where nobody else can look, the person's word counts then.
#[tokio::test(start_paused = true)]
async fn an_absence_that_only_a_person_can_see_counts_when_the_lost_call_is_over() {
    let room = Room::new().await;
    room.depot.next("make thing", [Fate::Fails(lost())]);
    let blind = amends_engine::Failure::refused("blind", "no list");
    room.depot.next("find thing", vec![Fate::Fails(blind); 9]);
    let saga = room.begin([make("house", "thing")]).await;
    room.phase(&saga, "thing", |phase| *phase == Phase::Undecidable).await;
    room.engine.settle(&saga, "thing", Verdict::Absent, "ann", "not there").await.unwrap();
    assert_eq!(room.ended(&saga).await, SagaState::Completed);
    let tries = room.at(&saga, "thing", |event| matches!(event, Event::AttemptStarted { .. })).await;
    assert!(tries[1] >= LIMIT + secs(10), "made again at {:?}", tries[1]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_believed_at_the_second_look() {
    let room = Room::new().await;
    room.depot.next("make thing", [at_last(secs(10))]);
    let saga = room.begin([make("house", "thing")]).await;
    assert_eq!(room.ended(&saga).await, SagaState::Completed);
    room.later().await;
    assert_eq!(room.depot.names(), ["thing"], "made twice: {}", room.story(&saga).await);

    // On the way back too: nothing is left behind a row that was closed.
    let room = Room::new().await;
    room.depot.next("make thing", [at_last(secs(10))]);
    let saga = room.begin([make("house", "thing")]).await;
    room.phase(&saga, "thing", is_in_doubt).await;
    room.engine.cancel(&saga, "ann", "no more").await.unwrap();
    room.ended(&saga).await;
    room.later().await;
    assert_eq!(room.depot.names(), [""; 0], "left: {}", room.story(&saga).await);
}

/// How long after the last look that saw nothing the one ended that was believed.
async fn apart(room: &Room, saga: &SagaId) -> Duration {
    let seen = room.at(saga, "thing", |event| matches!(event, Event::AbsenceSeen { .. })).await;
    let found = room.at(saga, "thing", |event| matches!(event, Event::StepFound { .. })).await;
    found[0].saturating_sub(*seen.last().unwrap())
}

#[tokio::test(start_paused = true)]
async fn two_looks_are_as_far_apart_as_a_call_takes_to_settle_and_one_is_enough_where_reads_are_consistent() {
    for (class, looks) in [("house", 2), ("hut", 1)] {
        // It was cut off at its limit: the first look comes when the call is surely over.
        let room = Room::new().await;
        room.depot.next("make thing", [Fate::Takes(secs(90))]);
        let saga = room.begin([make(class, "thing")]).await;
        room.ended(&saga).await;
        assert_eq!(room.depot.calls("find thing"), looks, "{class}: {}", room.story(&saga).await);
        assert!(looks == 1 || apart(&room, &saga).await >= secs(10), "{}", room.story(&saga).await);

        // Its line broke at once: the first look is early, and none counts before the call is surely over.
        let room = Room::new().await;
        room.depot.next("make thing", [Fate::Fails(lost())]);
        let saga = room.begin([make(class, "thing")]).await;
        room.ended(&saga).await;
        assert_eq!(room.depot.calls("find thing"), 1 + looks, "{class}: {}", room.story(&saga).await);
        let seen = room.at(&saga, "thing", |event| matches!(event, Event::AbsenceSeen { .. })).await;
        let found = room.at(&saga, "thing", |event| matches!(event, Event::StepFound { .. })).await;
        assert!(seen[0] < secs(12) && found[0] >= LIMIT + secs(10), "{class}: {seen:?} {found:?}");
        assert!(looks == 1 || apart(&room, &saga).await >= secs(10), "{class}: {seen:?} {found:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_knows_the_keys_of_deleted_things_is_spared_the_wait() {
    let room = Room::new().await;
    room.depot.next("make thing", [at_last(secs(60))]);
    let saga = room.begin([make("deed", "thing"), Fail]).await;
    assert_eq!(room.ended(&saga).await, SagaState::Compensated);
    assert!(room.undone_at(&saga, "thing").await < secs(5));
    room.later().await;
    assert_eq!(room.depot.names(), [""; 0]);

    // Turned round in doubt: it is made under its key, and then deleted.
    let room = Room::new().await;
    room.depot.next("make thing", [at_last(secs(60))]);
    let saga = room.begin([make("deed", "thing"), Sleep(60)]).await;
    room.phase(&saga, "thing", is_in_doubt).await;
    room.engine.cancel(&saga, "ann", "no more").await.unwrap();
    assert_eq!(room.ended(&saga).await, SagaState::Compensated);
    assert!(room.undone_at(&saga, "thing").await < secs(5));
    room.later().await;
    assert_eq!(room.depot.names(), [""; 0]);
    assert!(room.depot.calls("make thing") == 2);
}

#[tokio::test(start_paused = true)]
async fn how_long_a_call_takes_to_settle_may_come_from_the_client_and_is_recorded() {
    let room = Room::new().await;
    *room.depot.settles.lock().unwrap() = Some(secs(300));
    room.depot.next("make thing", [at_last(secs(300))]);
    let saga = room.begin([make("lease", "thing"), Sleep(5), Fail]).await;
    let state = room.until(&saga, |state| state.unwinding.is_some()).await;
    assert_eq!(state.step(&"thing".into()).unwrap().asked.as_ref().unwrap().settle_after, secs(300));
    // What it says later is for later steps.
    *room.depot.settles.lock().unwrap() = Some(secs(1));
    room.ended(&saga).await;
    room.later().await;
    assert!(room.undone_at(&saga, "thing").await >= LIMIT + secs(300));
    assert_eq!(room.depot.names(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn the_wait_is_told_in_plain_words() {
    let room = Room::new().await;
    room.depot.next("make thing", [Fate::Fails(lost())]);
    let saga = room.begin([make("lease", "thing"), Fail]).await;
    room.until(&saga, |state| state.unwinding.is_some()).await;
    tokio::time::sleep(secs(20)).await;
    let state = room.state(&saga).await;
    let rows = plan(&state).rows;
    assert!(rows[0].waits_until.is_some_and(|until| until > room.env.now()), "{rows:?}");
    assert_eq!(state.attention_at(room.env.now()), []);
    assert_eq!(room.engine.row(&saga).await.unwrap().unwrap().step.as_deref(), Some("undo thing waits"));
    insta::assert_snapshot!("undo", format!("{}\n{}", room.story(&saga).await, room.why(&saga).await));
    // Nobody's impatience shortens it, and nothing is written again and again for it.
    for _ in 0..3 {
        room.engine.retry(&saga, "ann", "now").await.unwrap();
        tokio::time::sleep(secs(2)).await;
    }
    let removed = Act::Done { step: "thing".into(), output: None };
    let refused = room.engine.act(&saga, removed, "ann", "removed it").await.unwrap_err();
    assert!(refused.to_string().contains("a lost call of it may still take effect"), "{refused}");
    room.ended(&saga).await;
    assert!(room.undone_at(&saga, "thing").await >= LIMIT + secs(60));

    let room = Room::new().await;
    room.depot.next("make thing", [Fate::Fails(lost())]);
    let saga = room.begin([make("house", "thing")]).await;
    room.until(&saga, |state| state.steps().iter().any(|step| step.absence.is_some())).await;
    insta::assert_snapshot!("second_look", room.why(&saga).await);
    room.ended(&saga).await;
    insta::assert_snapshot!("behind_the_second_look", room.story(&saga).await);
}

#[tokio::test(start_paused = true)]
async fn the_next_write_to_an_object_waits_until_a_lost_one_to_it_is_surely_over() {
    // Another step of the same saga.
    let room = Room::new().await;
    room.depot.next("set front ann", [at_last(secs(60))]);
    let saga = room.begin([set("first", "ann"), set("second", "bob")]).await;
    assert_eq!(room.ended(&saga).await, SagaState::Completed);
    room.later().await;
    assert_eq!(room.depot.door("front").as_deref(), Some("bob"), "{}", room.story(&saga).await);

    // An undo that was lost, and then the same door for somebody else, by another saga.
    let room = Room::new().await;
    room.depot.next("clear front", [at_last(secs(60))]);
    let saga = room.begin([set("first", "ann"), Fail]).await;
    assert_eq!(room.ended(&saga).await, SagaState::Compensated, "{}", room.story(&saga).await);
    let next = room.begin([set("first", "bob")]).await;
    assert_eq!(room.ended(&next).await, SagaState::Completed);
    room.later().await;
    assert_eq!(room.depot.door("front").as_deref(), Some("bob"), "{}", room.story(&next).await);

    // A door that is not that one waits for nothing.
    let room = Room::new().await;
    room.depot.next("set front ann", [at_last(secs(60))]);
    let other = Set("second".into(), "back".into(), "bob".into());
    let saga = room.begin([set("first", "ann"), other]).await;
    let began = room.env.now();
    room.ended(&saga).await;
    assert!(room.env.now().since(began) < secs(5));
}

#[tokio::test(start_paused = true)]
async fn what_was_lost_before_a_row_changed_hands_is_waited_for_by_whoever_writes_to_it_next() {
    let room = Room::new().await;
    room.depot.next("set front ann", [at_last(secs(60))]);
    let made = room.begin([set("first", "ann")]).await;
    assert_eq!(room.ended(&made).await, SagaState::Completed);
    let rows = room.store.resources(ResourceFilter::default()).await.unwrap();
    assert!(rows[0].holder == "tenant" && rows[0].unsettled_until.is_some(), "{rows:?}");
    let todo =
        [Do::TakeOver("tenant".into()), Clear("clear".into(), "front".into()), SeeCleared("front".into())];
    let gone = room.begin(todo).await;
    assert_eq!(room.ended(&gone).await, SagaState::Completed);
    room.later().await;
    assert_eq!(room.depot.door("front"), None, "{}", room.story(&gone).await);
    let rows = room.store.resources(ResourceFilter::default()).await.unwrap();
    assert!(rows.iter().all(|row| row.state == ResourceState::Gone), "{rows:?}");
}

#[tokio::test(start_paused = true)]
async fn a_removal_waits_for_what_was_lost_when_its_thing_was_made() {
    let room = Room::new().await;
    room.depot.next("make handed over", [at_last(secs(60))]);
    let made = room.begin([make("lease", "handed over")]).await;
    assert_eq!(room.ended(&made).await, SagaState::Completed);
    let gone = room.begin([Do::TakeOver("tenant".into()), Do::Remove("handed over".into())]).await;
    assert_eq!(room.ended(&gone).await, SagaState::Completed);
    room.later().await;
    assert_eq!(room.depot.names(), [""; 0], "{}", room.story(&gone).await);
}

/// A row that is closed since its thing is seen to be gone is closed at the second look.
#[tokio::test(start_paused = true)]
async fn a_read_that_closes_rows_is_believed_at_the_second_look() {
    let room = Room::new().await;
    let made = room.begin([set("first", "ann")]).await;
    room.ended(&made).await;
    let todo =
        [Do::TakeOver("tenant".into()), Clear("clear".into(), "front".into()), SeeCleared("front".into())];
    let gone = room.begin(todo).await;
    room.ended(&gone).await;
    assert_eq!(room.depot.calls("see front"), 2, "{}", room.story(&gone).await);
}

#[tokio::test(start_paused = true)]
async fn a_lost_call_that_nobody_can_ask_about_on_the_way_back_is_in_doubt_and_says_why() {
    for class in ["house", "lease"] {
        let room = Room::new().await;
        let call = if class == "house" { "find thing" } else { "make thing" };
        room.depot.next("make thing", [Fate::Fails(lost())]);
        room.depot.next(call, vec![Fate::Fails(unavailable()); 400]);
        let new = room.engine.new_saga::<Plan>("late", &vec![make(class, "thing")]).unwrap();
        let saga = room.engine.begin(new.within(&room.env, secs(1800))).await.unwrap().saga().clone();
        let state = room.until(&saga, |state| state.steps().iter().any(|step| step.looks >= 7)).await;
        assert!(state.unwinding.is_none());
        assert_eq!(state.attention(), [Attention::InDoubt], "{class}: {}", room.story(&saga).await);
        room.until(&saga, |state| state.unwinding.is_some()).await;
        tokio::time::sleep(secs(6 * 3600)).await;
        let state = room.phase(&saga, "thing", is_in_doubt).await;
        assert_eq!(state.attention_at(room.env.now()), [Attention::InDoubt], "{class}");
        let told = room.why(&saga).await;
        assert!(told.contains("deadline") && !told.contains("`cancel`"), "{told}");
        only_what_can_be_done(&state, &told, room.env.now());
        insta::assert_snapshot!(format!("in_doubt_on_the_way_back_{class}"), settled_numbers(&told));
        // And `retry` does what it is said to do.
        let before = room.depot.calls(call);
        room.engine.retry(&saga, "ann", "now").await.unwrap();
        tokio::time::sleep(secs(1)).await;
        assert_eq!(room.depot.calls(call), before + 1, "{class}");
    }
}

/// How often and how long until the next time depends on the dice.
fn settled_numbers(told: &str) -> String {
    let mut text = String::new();
    for word in told.split_inclusive(' ') {
        let is_number = word.starts_with(|first: char| first.is_ascii_digit());
        text.push_str(if is_number { "# " } else { word });
    }
    text
}

/// Every act that is named can be done to some step now.
fn only_what_can_be_done(state: &State, told: &str, now: Timestamp) {
    for act in told.split('`').skip(1).step_by(2) {
        let can = |step: amends_engine::StepKey| {
            let act = match act {
                "retry" => Act::Retry,
                "cancel" => Act::Cancel,
                "settle" => Act::Settle { step, verdict: Verdict::Absent },
                "skip" => Act::Skip { step },
                "release" => Act::Release { step, owner: "bob".into() },
                "patch" => Act::Patch { step, input: serde_json::Value::Null, references: Vec::new() },
                "policy" => Act::Policy { step, max_wait: secs(1) },
                "fail_attempt" => Act::FailAttempt { step },
                "done" => return true,
                other => panic!("no act is called {other}"),
            };
            act.problem(state, now).is_none()
        };
        assert!(state.steps().iter().any(|step| can(step.key.clone())), "`{act}` cannot be done: {told}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_is_given_up_after_as_many_tries_as_it_says_with_what_it_failed_of() {
    let room = Room::new().await;
    room.depot.next("knock door", vec![Fate::Fails(unavailable()); 9]);
    let saga = room.begin([Do::Knock]).await;
    assert_eq!(room.ended(&saga).await, SagaState::Failed);
    assert_eq!(room.depot.calls("knock door"), 3);
    let told = room.why(&saga).await;
    assert!(told.contains("gave_up: not in 3 tries; the last cause: server_error: 503, try later"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_look_that_outlasts_its_time_goes_on_where_it_was_cut_off() {
    let room = Room::new().await;
    room.depot.next("make thing", [Fate::LandsIn(secs(1))]);
    let saga = room.begin([make("archive", "thing")]).await;
    let state = room.until(&saga, |state| state.steps().iter().any(|step| step.looks > 0)).await;
    let step = state.step(&"thing".into()).unwrap();
    let detail = step.trouble.as_ref().unwrap().detail.clone();
    assert!(step.bookmark.is_some() && detail.contains("no answer within 1m"), "{detail}");
    assert_eq!(room.ended(&saga).await, SagaState::Completed, "{}", room.story(&saga).await);
    assert_eq!(room.depot.names(), ["thing"]);
    assert!(room.depot.calls("page") <= 15, "it began anew each time: {}", room.depot.calls("page"));
}

/// Prints what `docs/decisions/0010` tells, and holds that nobody waits who lost nothing.
#[tokio::test(start_paused = true)]
async fn what_lost_nothing_waits_for_nothing() {
    let ends = async |class: &str, fate: Option<Fate>, fails: bool| {
        let room = Room::new().await;
        room.depot.next("make thing", fate);
        let saga = room.begin([make(class, "thing")].into_iter().chain(fails.then_some(Fail))).await;
        let settles = async {
            loop {
                room.until(&saga, |state| state.steps().iter().any(|step| step.phase == Phase::Undecidable))
                    .await;
                let verdict = match room.depot.names().is_empty() {
                    true => Verdict::Absent,
                    false => Verdict::Adopt { output: "id-1".into(), external_id: None },
                };
                let _ = room.engine.settle(&saga, "thing", verdict, "ann", "looked").await;
            }
        };
        let end = async {
            room.ended(&saga).await;
        };
        tokio::select! { () = settles => {}, () = end => {} }
        let state = room.state(&saga).await;
        state.at.since(state.started_at).as_secs_f64()
    };
    println!(
        "| effect | | nothing lost | answer lost, it happened | lost, it never happened |\n|---|---|---|---|---|"
    );
    for class in ["lease", "deed", "loan", "house", "hut", "coin", "flare"] {
        for (what, fails) in [("done", false), ("taken back", true)] {
            let well = ends(class, None, fails).await;
            let happened = ends(class, Some(Fate::LandsIn(Duration::ZERO)), fails).await;
            let never = ends(class, Some(Fate::Fails(lost())), fails).await;
            println!("| {class} | {what} | {well:.1} s | {happened:.1} s | {never:.1} s |");
            assert!(well < 1.0, "{class} {what}: {well}");
            let settles = if matches!(class, "house" | "hut" | "coin") { 10.0 } else { 60.0 };
            let longest = LIMIT.as_secs_f64() + 2.0 * settles + 2.0;
            assert!(happened < longest && never < longest, "{class} {what}: {happened} {never}");
        }
    }
}

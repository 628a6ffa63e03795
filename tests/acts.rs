//! What a person can do to a saga, one by one and in bulk; what it shows; how it is started.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends_engine::bulk::{Bulk, BulkAct, BulkOutcome, ItemOutcome, Pace};
use amends_engine::journal::act::{Act, Verdict};
use amends_engine::journal::plan::{EdgeSource, Way};
use amends_engine::journal::state::{Attention, SagaState};
use amends_engine::journal::{self, Event};
use amends_engine::store::memory::MemoryStore;
use amends_engine::store::{NewSaga, ResourceState, SagaFilter, SagaRow, Started, Store};
use amends_engine::testing::shaky::{Shakes, ShakyStore};
use amends_engine::{
    ActError, Activity, Call, Effect, Engine, Env, Failure, Found, Made, Registry, Resource, Saga, SagaId,
    Seen, Workflow, saga, secs,
};
use serde::{Deserialize, Serialize};

/// Things by name, and what is wrong with calls: `verb name` to what they answer.
#[derive(Default)]
struct Shed {
    things: Mutex<Vec<String>>,
    wrong: Mutex<BTreeMap<String, Failure>>,
    /// How long a look takes.
    look_takes: Mutex<Duration>,
}

impl Shed {
    fn is_wrong(&self, verb: &str, name: &str) -> Result<(), Failure> {
        self.wrong
            .lock()
            .unwrap()
            .get(&format!("{verb} {name}"))
            .map_or(Ok(()), |failure| Err(failure.clone()))
    }

    fn break_down(&self, call: &str, failure: Failure) {
        self.wrong.lock().unwrap().insert(call.to_owned(), failure);
    }

    fn mend(&self, call: &str) {
        self.wrong.lock().unwrap().remove(call);
    }

    fn things(&self) -> Vec<String> {
        self.things.lock().unwrap().clone()
    }
}

fn unavailable() -> Failure {
    let detail = "closed for lunch, ticket 4711".to_owned();
    Failure::Unavailable { cause: amends_engine::activity::Cause::ServerError, detail, retry_after: None }
}

fn lost() -> Failure {
    let detail = "the line broke".to_owned();
    Failure::NoAnswer { cause: amends_engine::activity::Cause::Reset, detail }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Put {
    name: String,
    #[serde(default)]
    on: Option<Made<String>>,
    /// The name that it bears there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bears: Option<String>,
}

fn put(name: &str) -> Put {
    Put { name: name.to_owned(), on: None, bears: None }
}

impl Activity for Put {
    const NAME: &'static str = "shed.put";
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(5) };
    const GIVE_UP_AFTER: Duration = secs(7 * 24 * 3600);
    type Client = Shed;
    type Output = String;

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("shed", "thing", call.name(self.bears.as_deref().unwrap_or("thing"))))
    }

    async fn execute(&self, shed: &Shed, _: &Call) -> Result<String, Failure> {
        shed.is_wrong("put", &self.name)?;
        shed.things.lock().unwrap().push(self.name.clone());
        Ok(self.name.clone())
    }

    async fn find(&self, shed: &Shed, _: &Call) -> Result<Found<String>, Failure> {
        let takes = *shed.look_takes.lock().unwrap();
        tokio::time::sleep(takes).await;
        match shed.is_wrong("find", &self.name) {
            Err(Failure::Refused(_)) => return Ok(Found::Unknowable),
            other => other?,
        }
        let is_there = shed.things.lock().unwrap().contains(&self.name);
        Ok(if is_there { Found::Usable(self.name.clone()) } else { Found::Nothing })
    }

    async fn compensate(&self, shed: &Shed, made: &String, _: &Call) -> Result<(), Failure> {
        shed.is_wrong("take", &self.name)?;
        shed.things.lock().unwrap().retain(|thing| thing != made);
        Ok(())
    }
}

/// A shelf, a box on it, and then a long wait before the end.
struct Stack;

impl Workflow for Stack {
    const NAME: &'static str = "stack";
    const VERSION: u32 = 1;
    type Input = String;
    type Output = String;

    async fn run(&self, saga: &Saga, name: String) -> saga::Result<String> {
        saga.show("stage", "shelf");
        let shelf = saga.step("shelf", put(&format!("{name}-shelf"))).await?;
        saga.progress(1, 2);
        saga.show("stage", "box");
        let on = Some(shelf.clone());
        saga.step("box", Put { on, ..put(&format!("{name}-box")) }).await?;
        saga.progress(2, 2);
        saga.show("stage", "rest");
        saga.sleep("rest", secs(3600)).await?;
        Ok(shelf.take())
    }
}

struct Room {
    engine: Engine,
    store: Arc<MemoryStore>,
    shed: Arc<Shed>,
    env: Env,
}

impl Room {
    async fn new() -> Self {
        Self::bounded(4096).await
    }

    async fn bounded(live_max: usize) -> Self {
        let env = Env::simulated(11);
        let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
        let (store, shed) = (Arc::new(store), Arc::new(Shed::default()));
        let registry = Registry::default().activity::<Put>(shed.clone()).workflow(Stack);
        let engine = Engine::start_bounded(store.clone(), vault, registry, env.clone(), "test", live_max);
        Self { engine, store, shed, env }
    }

    fn stack(&self, name: &str) -> NewSaga {
        self.engine.new_saga::<Stack>(name, &name.to_owned()).unwrap()
    }

    async fn begin(&self, new: NewSaga) -> SagaId {
        let Started::New(saga) = self.engine.begin(new).await.unwrap() else { panic!() };
        saga
    }

    async fn until(&self, saga: &SagaId, what: impl Fn(&SagaRow) -> bool) -> SagaRow {
        let row = self.engine.wait(saga, secs(24 * 3600), &what).await.unwrap().unwrap();
        assert!(what(&row), "{row:#?}");
        row
    }

    async fn audit(&self, saga: &SagaId) -> Vec<(String, Option<String>)> {
        let rows = self.engine.audit(saga).await.unwrap();
        rows.into_iter().map(|row| (row.act.kind().to_string(), row.outcome)).collect()
    }
}

fn at(step: &'static str) -> impl Fn(&SagaRow) -> bool {
    move |row| row.step.as_deref().is_some_and(|at| at.starts_with(step))
}

#[tokio::test(start_paused = true)]
async fn a_pause_holds_everything_until_it_ends_or_is_resumed() {
    let room = Room::new().await;
    room.shed.break_down("put a-box", unavailable());
    let saga = room.begin(room.stack("a")).await;
    room.until(&saga, at("box waits")).await;
    room.engine.pause(&saga, secs(1200), "ann", "the provider is moving").await.unwrap();
    let paused = room.until(&saga, |row| row.state == SagaState::Paused).await;
    assert!(paused.due_at.is_some(), "a pause has an end");
    room.shed.mend("put a-box");
    room.env.sleep(secs(1000)).await;
    assert!(!room.shed.things().contains(&"a-box".to_owned()), "nothing is begun meanwhile");
    let row = room.until(&saga, at("rest")).await;
    assert!(
        row.updated_at.since(paused.updated_at) >= secs(1200),
        "it goes on by itself when the time is up"
    );

    room.engine.pause(&saga, secs(3600), "ann", "again").await.unwrap();
    room.until(&saga, |row| row.state == SagaState::Paused).await;
    room.engine.resume(&saga, "ben", "enough").await.unwrap();
    room.until(&saga, |row| row.state == SagaState::Waiting).await;
    // A paused saga that is cancelled goes on, backwards.
    room.engine.pause(&saga, secs(3600), "ann", "again").await.unwrap();
    room.until(&saga, |row| row.state == SagaState::Paused).await;
    room.engine.cancel(&saga, "ben", "no more").await.unwrap();
    room.until(&saga, |row| row.state == SagaState::Compensated).await;
    assert!(room.shed.things().is_empty());
    let done = |act: &str| (act.to_owned(), Some("done".to_owned()));
    assert_eq!(
        room.audit(&saga).await,
        [done("pause"), done("pause"), done("resume"), done("pause"), done("cancel")]
    );
    let too_long = room.engine.pause(&saga, secs(3600), "ann", "late").await;
    assert!(matches!(too_long, Err(ActError::TooLate { .. })));
}

#[tokio::test(start_paused = true)]
async fn of_a_database_that_was_put_back_nothing_goes_on_before_a_person_says_so() {
    let room = Room::new().await;
    room.shed.break_down("put forward-box", unavailable());
    let forward = room.begin(room.stack("forward")).await;
    room.until(&forward, at("box waits")).await;
    room.shed.break_down("take back-shelf", unavailable());
    let back = room.begin(room.stack("back")).await;
    room.until(&back, at("rest")).await;
    room.engine.cancel(&back, "ann", "no more").await.unwrap();
    room.until(&back, at("undo shelf")).await;
    let later = NewSaga { start_at: Some(room.env.now().plus(secs(2))), ..room.stack("later") };
    let later = room.begin(later).await;
    room.engine.abort();
    for call in ["put forward-box", "take back-shelf"] {
        room.shed.mend(call);
    }
    let before = room.shed.things();

    // Their inboxes cannot be read at first: what may be a pause is no reason to go on.
    let another = Arc::new(room.store.another(&room.env));
    let shaky = Arc::new(ShakyStore::new(another, room.env.clone(), Shakes::default()));
    shaky.hide_letters(true);
    let store: Arc<dyn Store> = shaky.clone();
    let (_, vault) = MemoryStore::new(&[], &room.env).await.unwrap();
    let paused = Engine::pause_all(&store, &vault, &room.env, secs(24 * 3600), "amends", "put back").await;
    assert_eq!(paused.unwrap(), 3);
    let registry = Registry::default().activity::<Put>(room.shed.clone()).workflow(Stack);
    let engine = Engine::start(store, vault, registry, room.env.clone(), "test");
    room.env.sleep(secs(90)).await;
    assert_eq!(room.shed.things(), before, "nothing is begun whose inbox is not known");
    assert!(engine.trouble().is_some_and(|said| said.contains("inbox")), "{:?}", engine.trouble());
    shaky.hide_letters(false);
    room.env.sleep(secs(20 * 3600)).await;
    assert_eq!(engine.trouble(), None);
    assert_eq!(room.shed.things(), before, "nothing is made and nothing removed");
    for (saga, end) in
        [(&forward, SagaState::Completed), (&back, SagaState::Compensated), (&later, SagaState::Completed)]
    {
        engine.resume(saga, "ann", "it is right").await.unwrap();
        let row = engine.wait(saga, secs(3 * 3600), |_| false).await.unwrap().unwrap();
        assert_eq!(row.state, end, "{row:#?}");
    }
    engine.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_act_needs_a_name_a_reason_and_a_saga_to_which_it_can_be_done() {
    let room = Room::new().await;
    let saga = room.begin(room.stack("a")).await;
    room.until(&saga, at("rest")).await;
    assert!(matches!(room.engine.retry(&saga, " ", "x").await, Err(ActError::Nameless)));
    assert!(matches!(room.engine.retry(&saga, "ann", "").await, Err(ActError::Nameless)));
    let acts = [
        Act::Resume,
        Act::Pause { until: room.env.now().plus(secs(48 * 3600)) },
        Act::Settle { step: "shelf".into(), verdict: Verdict::Absent },
        Act::Skip { step: "shelf".into() },
        Act::Done { step: "nowhere".into(), output: None },
    ];
    for act in acts {
        let refused = room.engine.act(&saga, act.clone(), "ann", "to see").await;
        assert!(matches!(refused, Err(ActError::TooLate { .. })), "{act:?}: {refused:?}");
    }
    assert!(room.audit(&saga).await.is_empty(), "what was not accepted left nothing");
}

#[tokio::test(start_paused = true)]
async fn a_lost_call_that_nobody_can_tell_about_is_settled_by_a_person() {
    for (verdict, ends_with) in [
        (Verdict::Adopt { output: "a-shelf".into(), external_id: None }, vec!["a-shelf", "a-box"]),
        (Verdict::Absent, vec!["a-shelf", "a-box"]),
        (Verdict::Useless { output: "a-shelf".into(), external_id: None }, vec!["a-shelf", "a-box"]),
    ] {
        let room = Room::new().await;
        let was_made = !matches!(verdict, Verdict::Absent);
        room.shed.break_down("put a-shelf", lost());
        room.shed.break_down("find a-shelf", Failure::refused("blind", "no list"));
        let saga = room.begin(room.stack("a")).await;
        let row = room.until(&saga, |row| row.attention.contains(&Attention::NeedsDecision)).await;
        assert_eq!(row.due_at, None, "nothing is due by itself");
        room.shed.mend("put a-shelf");
        if was_made {
            room.shed.things.lock().unwrap().push("a-shelf".to_owned());
        }
        room.engine.settle(&saga, "shelf", verdict, "ann", "looked it up").await.unwrap();
        room.until(&saga, |row| row.state == SagaState::Completed).await;
        assert_eq!(room.shed.things(), ends_with);
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_being_looked_for_is_not_settled_before_that_look_has_ended() {
    let room = Room::new().await;
    room.shed.break_down("put a-shelf", lost());
    *room.shed.look_takes.lock().unwrap() = secs(40);
    let saga = room.begin(room.stack("a")).await;
    // The first look is under way.
    room.env.sleep(secs(20)).await;
    room.shed.mend("put a-shelf");
    let verdict = Verdict::Adopt { output: "a-shelf".into(), external_id: None };
    room.engine.settle(&saga, "shelf", verdict, "ann", "looked it up").await.unwrap();
    room.env.sleep(secs(10)).await;
    let audit = room.audit(&saga).await;
    let outcome = audit[0].1.as_deref().unwrap();
    assert!(outcome.contains("a call of that step is under way"), "{audit:?}");
    room.until(&saga, |row| row.state == SagaState::Completed).await;
    assert_eq!(room.shed.things(), ["a-shelf", "a-box"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_on_the_ledger_is_not_renamed_by_a_patch() {
    let room = Room::new().await;
    room.shed.break_down("put a-shelf", unavailable());
    let saga = room.begin(room.stack("a")).await;
    room.until(&saga, |row| row.attention.contains(&Attention::Retrying)).await;
    let patch = Act::Patch {
        step: "shelf".into(),
        input: serde_json::json!({"name": "a-shelf", "bears": "another"}),
        references: vec![],
    };
    room.engine.act(&saga, patch, "ann", "a better name").await.unwrap();
    room.env.sleep(secs(10)).await;
    let audit = room.audit(&saga).await;
    let outcome = audit[0].1.as_deref().unwrap();
    assert!(outcome.contains("is on the ledger as thing, and would be renamed"), "{audit:?}");
}

#[tokio::test(start_paused = true)]
async fn a_step_can_be_hurried_changed_failed_or_done_by_hand() {
    let room = Room::new().await;
    let stuck = async |name: &str| {
        room.shed.break_down(&format!("put {name}-box"), unavailable());
        let saga = room.begin(room.stack(name)).await;
        room.until(&saga, |row| row.attention.contains(&Attention::Retrying)).await;
        saga
    };
    let act = async |saga: &SagaId, act: Act| room.engine.act(saga, act, "ann", "it is time").await.map(drop);

    let hurried = stuck("hurried").await;
    act(&hurried, Act::Policy { step: "box".into(), max_wait: secs(3) }).await.unwrap();
    let tries = async |saga: &SagaId| {
        let view = room.engine.view(saga).await.unwrap().unwrap();
        view.state.step(&"box".into()).unwrap().attempts
    };
    let before = tries(&hurried).await;
    room.env.sleep(secs(60)).await;
    assert!(tries(&hurried).await >= before + 15, "every three seconds at most");
    room.shed.mend("put hurried-box");
    room.until(&hurried, at("rest")).await;

    let patched = stuck("patched").await;
    let (wrong, right) = (serde_json::json!({"nom": 1}), serde_json::json!({"name": "another-box"}));
    act(&patched, Act::Patch { step: "box".into(), input: wrong, references: vec![] }).await.unwrap();
    act(&patched, Act::Patch { step: "box".into(), input: right, references: vec![] }).await.unwrap();
    room.until(&patched, at("rest")).await;
    assert!(room.shed.things().contains(&"another-box".to_owned()));
    let audit = room.audit(&patched).await;
    assert!(
        audit[0].1.as_ref().unwrap().starts_with("too_late: the activity does not take that"),
        "{audit:?}"
    );

    let failed = stuck("failed").await;
    act(&failed, Act::FailAttempt { step: "box".into() }).await.unwrap();
    let row = room.until(&failed, |row| row.state == SagaState::Compensated).await;
    assert!(row.error.unwrap().contains("ann: it is time"));

    let done = stuck("done").await;
    act(&done, Act::Done { step: "box".into(), output: Some("done-box".into()) }).await.unwrap();
    room.until(&done, at("rest")).await;
    // A wait is failed by ending it.
    act(&done, Act::FailAttempt { step: "rest".into() }).await.unwrap();
    room.until(&done, |row| row.state == SagaState::Completed).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_undone_is_done_by_hand_struck_or_handed_over() {
    for (act, holder, ends) in [
        (Act::Done { step: "box".into(), output: None }, None, ResourceState::Gone),
        (Act::Skip { step: "box".into() }, Some("nobody"), ResourceState::Live),
        (Act::Release { step: "box".into(), owner: "in_7".into() }, Some("in_7"), ResourceState::Live),
    ] {
        let room = Room::new().await;
        room.shed.break_down("take a-box", Failure::refused("locked", "the box is locked"));
        let saga = room.begin(room.stack("a")).await;
        room.until(&saga, at("rest")).await;
        room.engine.cancel(&saga, "ann", "no more").await.unwrap();
        let row = room.until(&saga, |row| row.attention.contains(&Attention::NeedsDecision)).await;
        assert_eq!(row.state, SagaState::Compensating);
        room.engine.act(&saga, act.clone(), "ann", "ticket 12").await.unwrap();
        room.until(&saga, |row| row.state == SagaState::Compensated).await;
        let rows = room.engine.view(&saga).await.unwrap().unwrap().resources;
        let held = rows.iter().find(|row| row.step.as_str() == "box");
        if let Some(holder) = holder {
            let all = room.engine.resources(Default::default()).await.unwrap();
            let row = all.iter().find(|row| row.step.as_str() == "box").unwrap();
            assert_eq!((row.holder.as_str(), row.state), (holder, ends), "{act:?}");
        } else {
            assert!(held.is_none_or(|row| row.state == ends));
        }
        assert!(!room.shed.things().contains(&"a-shelf".to_owned()), "the rest is taken back");
    }
}

#[tokio::test(start_paused = true)]
async fn a_plan_says_what_is_undone_in_which_order_and_why_and_a_dry_run_what_is_there() {
    let room = Room::new().await;
    let saga = room.begin(room.stack("a")).await;
    room.until(&saga, at("rest")).await;
    let plan = room.engine.plan(&saga).await.unwrap();
    let told: Vec<_> = plan.rows.iter().map(|row| (row.step.as_str(), row.way, row.round)).collect();
    assert_eq!(told, [("box", Way::Compensate, 1), ("shelf", Way::Compensate, 2)]);
    assert_eq!(plan.rows[1].behind, [("box".into(), EdgeSource::Holds)]);
    room.shed.things.lock().unwrap().retain(|thing| thing != "a-box");
    let seen: Vec<Seen> = room.engine.dry_run(&saga).await.unwrap().into_iter().map(|row| row.seen).collect();
    assert_eq!(seen, [Seen::Absent, Seen::There]);
    assert_eq!(room.shed.things(), ["a-shelf"], "nothing was done");
}

#[tokio::test(start_paused = true)]
async fn a_saga_shows_how_far_it_is_and_answers_queries_wherever_it_is() {
    let room = Room::new().await;
    room.shed.break_down("put a-box", unavailable());
    let saga = room.begin(room.stack("a")).await;
    let row = room.until(&saga, at("box waits")).await;
    assert_eq!(row.progress.map(|progress| (progress.done, progress.of)), Some((1, 2)));
    assert_eq!(room.engine.query(&saga, "stage").await.unwrap(), Some("box".into()));
    assert_eq!(room.engine.query(&saga, "colour").await.unwrap(), None);
    room.shed.mend("put a-box");
    room.until(&saga, |row| row.state == SagaState::Completed).await;
    assert_eq!(room.engine.query(&saga, "stage").await.unwrap(), Some("rest".into()));
}

#[tokio::test(start_paused = true)]
async fn sagas_start_late_by_priority_and_so_many_of_a_kind_at_a_time() {
    let room = Room::new().await;
    let late = room.begin(room.stack("late").delayed(&room.env, secs(500))).await;
    let cancelled = room.begin(room.stack("never").delayed(&room.env, secs(500))).await;
    let one_of = |name: &str| room.stack(name).one_of("customer-7", 1);
    let a = room.begin(one_of("a")).await;
    let (c, d) = (room.begin(one_of("c")).await, room.begin(one_of("d").priority(9)).await);
    room.until(&a, at("rest")).await;
    for saga in [&c, &d, &late] {
        assert_eq!(room.engine.row(saga).await.unwrap().unwrap().state, SagaState::Queued);
    }
    room.engine.cancel(&cancelled, "ann", "not needed").await.unwrap();
    let row = room.until(&cancelled, |row| row.state.is_ended()).await;
    assert_eq!((row.state, row.step), (SagaState::Failed, None), "it ended before it had any effect");
    room.until(&d, at("rest")).await;
    assert_eq!(
        room.engine.row(&c).await.unwrap().unwrap().state,
        SagaState::Queued,
        "the more urgent one went first"
    );
    let began = room.until(&late, at("rest")).await;
    assert!(began.updated_at.since(began.created_at) >= secs(500));
    room.until(&c, at("rest")).await;
}

#[tokio::test(start_paused = true)]
async fn more_sagas_than_fit_in_memory_all_end() {
    let room = Room::bounded(8).await;
    let mut sagas = Vec::new();
    for number in 0..100 {
        sagas.push(room.begin(room.stack(&format!("s{number}"))).await);
    }
    let began = room.env.now();
    for saga in &sagas {
        room.until(saga, |row| row.state == SagaState::Completed).await;
    }
    // They rest on disk side by side, rather than one behind the other.
    assert!(room.env.now().since(began) < secs(2 * 3600));
    assert_eq!(room.shed.things().len(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_nobody_waits_for_keeps_no_saga_in_memory() {
    let room = Room::bounded(1).await;
    let first = room.begin(room.stack("first")).await;
    room.until(&first, |row| row.step.as_deref() == Some("rest waits")).await;
    room.engine.signal(&first, "stray", "nobody-waits-for-this", "hello".into()).await.unwrap();
    room.env.sleep(secs(5)).await;
    // There is room for one, and the first has nothing to do for an hour.
    let began = room.env.now();
    let second = room.begin(room.stack("second")).await;
    room.until(&second, |row| row.step.as_deref() == Some("rest waits")).await;
    assert!(room.env.now().since(began) < secs(30), "{:?}", room.env.now().since(began));
}

#[tokio::test(start_paused = true)]
async fn a_bulk_act_has_a_canary_a_pace_a_brake_and_an_outcome_for_each() {
    let room = Room::new().await;
    let mut sagas = Vec::new();
    for number in 0..20 {
        let name = format!("s{number:02}");
        room.shed.break_down(&format!("put {name}-box"), unavailable());
        sagas.push(room.begin(room.stack(&name)).await);
    }
    for saga in &sagas {
        room.until(saga, |row| row.attention.contains(&Attention::Retrying)).await;
    }
    // The same trouble has the same fingerprint, whatever it is about.
    let prints: Vec<_> = room.engine.sagas(SagaFilter::default()).await.unwrap();
    let print = prints[0].fingerprint.clone().unwrap();
    let filter = SagaFilter { fingerprint: Some(print), ..SagaFilter::default() };
    let preview = room.engine.preview(filter, &Act::Retry).await.unwrap();
    assert_eq!((preview.eligible.len(), preview.left_out.len()), (20, 0));

    let bulk = async |key: &str, pace: Pace| {
        let input = BulkAct {
            act: Act::Retry,
            sagas: preview.eligible.clone(),
            actor: "ann".into(),
            reason: "the shed is open again".into(),
            pace,
        };
        let saga = room.begin(room.engine.new_saga::<Bulk>(key, &input).unwrap()).await;
        let row = room.until(&saga, |row| row.state == SagaState::Completed).await;
        let output = room.store.output(&saga).await.unwrap().unwrap();
        (row.updated_at.since(row.created_at), serde_json::from_value::<BulkOutcome>(output).unwrap())
    };
    let count = |outcome: &BulkOutcome, what: fn(&ItemOutcome) -> bool| {
        outcome.items.values().filter(|item| what(item)).count()
    };
    let pace = Pace { canary: 1, per_second: 4, stop_at: 5, patience: secs(60) };
    // It is not open: the canary says so, and nobody else is asked.
    let (_, outcome) = bulk("first", pace).await;
    assert_eq!(outcome.stopped.as_deref(), Some("the canary failed"));
    assert_eq!(count(&outcome, |item| matches!(item, ItemOutcome::Failed { .. })), 1);
    assert_eq!(count(&outcome, |item| *item == ItemOutcome::NotAsked), 19);
    // Open for half of them only: it stops itself.
    for saga in preview.eligible.iter().take(10) {
        let name = room.engine.view(saga).await.unwrap().unwrap().state.input.as_str().unwrap().to_owned();
        room.shed.mend(&format!("put {name}-box"));
    }
    let (took, outcome) = bulk("second", pace).await;
    assert!(outcome.stopped.as_ref().is_some_and(|why| why.contains("of the last 10 failed")), "{outcome:?}");
    assert_eq!(count(&outcome, |item| *item == ItemOutcome::Worked), 10, "{outcome:?}");
    assert!(count(&outcome, |item| *item == ItemOutcome::NotAsked) > 0);
    assert!(took >= secs(2), "four a second");
    room.shed.wrong.lock().unwrap().clear();
    let (_, outcome) = bulk("third", pace).await;
    assert_eq!(outcome.stopped, None);
    assert_eq!(outcome.items.len(), 20);
    assert_eq!(count(&outcome, |item| matches!(item, ItemOutcome::Failed { .. } | ItemOutcome::NotAsked)), 0);
}

/// The same name and version, with another body.
struct Changed(fn(&str) -> Put, bool);

impl Workflow for Changed {
    const NAME: &'static str = "stack";
    const VERSION: u32 = 1;
    type Input = String;
    type Output = String;

    async fn run(&self, saga: &Saga, name: String) -> saga::Result<String> {
        let shelf = saga.step("shelf", (self.0)(&name)).await?;
        let on = Some(shelf.clone());
        saga.step("box", Put { on, ..put(&format!("{name}-box")) }).await?;
        saga.sleep("rest", secs(3600)).await?;
        if self.1 {
            std::future::pending::<()>().await;
        }
        Ok(shelf.take())
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_function_or_a_foreign_wait_or_a_removed_one_is_parked_and_can_still_be_undone() {
    let right: fn(&str) -> Put = |name| put(&format!("{name}-shelf"));
    let wrong: fn(&str) -> Put = |_| put("something-else");
    for (attention, next) in [
        (Attention::Diverged, Some(Changed(wrong, false))),
        (Attention::NoProgress, Some(Changed(right, true))),
        (Attention::NoWorker, None),
    ] {
        let room = Room::new().await;
        let saga = room.begin(room.stack("a")).await;
        room.until(&saga, at("rest")).await;
        room.engine.abort();
        let store = Arc::new(room.store.another(&room.env));
        let (_, vault) = MemoryStore::new(&[], &room.env).await.unwrap();
        let registry = Registry::default().activity::<Put>(room.shed.clone());
        let registry = match next {
            Some(changed) => registry.workflow(changed),
            None => registry,
        };
        let engine = Engine::start(store, vault, registry, room.env.clone(), "test");
        let row = engine.wait(&saga, secs(7200), |row| !row.attention.is_empty()).await.unwrap().unwrap();
        assert_eq!(row.attention, [attention]);
        let view = engine.view(&saga).await.unwrap().unwrap();
        let parked = view.entries.iter().find_map(|entry| match &entry.event {
            Event::Parked { detail, .. } => Some(detail.clone()),
            _ => None,
        });
        let parked = parked.unwrap();
        if attention == Attention::Diverged {
            assert!(parked.contains("a-shelf") && parked.contains("something-else"), "both sides: {parked}");
        } else if attention == Attention::NoProgress {
            assert!(parked.contains("behind step rest"), "{parked}");
        }
        assert!(journal::why(&view.state, room.env.now()).happened.contains(&attention.to_string()));
        engine.cancel(&saga, "ann", "take it back").await.unwrap();
        let row = engine.wait(&saga, secs(600), |_| false).await.unwrap().unwrap();
        assert_eq!(row.state, SagaState::Compensated, "{row:#?}");
        assert!(room.shed.things().is_empty());
        engine.stop().await;
    }
}

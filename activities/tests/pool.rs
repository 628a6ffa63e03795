//! The pool's local activities on a real SQLite store: what each transaction promises, and what it refuses.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::sync::Arc;
use std::time::Duration;

use amends_activities::pool::{
    self, ApplySeed, ChooseNumber, Chosen, ClaimRequest, EnterQueue, Fate, FenceInstance, Fenced, Instance,
    InstanceFilter, MarkIdle, NoteConversation, PickNumber, PlanInstance, QuarantineNumber, RESERVE_GIVE_UP,
    RecheckRequest, RecordClaim, RecordGone, Refilled, Requested, ReserveInstance, Reserved, RetireNumber,
    Seed, Settled, StartClaim, StartTeardown, StockNumber, TaintIncomplete, TeardownRequest, count_missing,
    record_refill, settle_recheck,
};
use amends_activities::runtime::ContainerSeen;
use amends_engine::ids::short;
use amends_engine::journal::state::SagaState;
use amends_engine::store::sqlite::SqliteStore;
use amends_engine::store::{Error, NewSaga, SagaRow, Started};
use amends_engine::{
    Engine, Env, Failure, Halt, Local, Registry, Saga, SagaId, Timestamp, Tx, Workflow, saga,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

const SEED: &str = r#"{
  "pools": [{"id": "default", "min_idle": 2, "max_total": 3, "workspace": "ws", "image": "ghcr.io/o/i",
    "tag": "production"}],
  "templates": [{"id": "tp_demo", "name": "Demo", "pool": "default", "agent_name": "Ada",
    "instructions": "Help."}]
}"#;

/// How long anything is waited for that will happen.
const PATIENCE: Duration = Duration::from_secs(120);

/// What one of these tests' sagas does, one after the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Act {
    Plan(PlanInstance),
    Idle(MarkIdle),
    Queue(EnterQueue),
    Reserve(Reserve),
    Record(RecordClaim),
    Note(NoteConversation),
    Choose(ChooseNumber),
    Pick(PickNumber),
    /// Waits to be told to go on.
    Wait,
    /// Gives up, and is undone.
    GiveUp,
}

/// A saga that does what it is told.
struct Script;

impl Workflow for Script {
    const NAME: &'static str = "script";
    const VERSION: u32 = 1;
    type Input = Vec<Act>;
    type Output = Vec<Value>;

    async fn run(&self, saga: &Saga, acts: Vec<Act>) -> saga::Result<Vec<Value>> {
        let mut outputs = Vec::new();
        for (number, act) in acts.into_iter().enumerate() {
            let key = format!("{number}");
            outputs.push(match act {
                Act::Plan(local) => did(saga, &key, local).await?,
                Act::Idle(local) => did(saga, &key, local).await?,
                Act::Queue(local) => did(saga, &key, local).await?,
                Act::Reserve(local) => did(saga, &key, local).await?,
                Act::Record(local) => did(saga, &key, local).await?,
                Act::Note(local) => did(saga, &key, local).await?,
                Act::Choose(local) => did(saga, &key, local).await?,
                Act::Pick(local) => did(saga, &key, local).await?,
                Act::Wait => {
                    saga.signal::<Value>(&key, "go", Duration::from_secs(3600)).await?.unwrap_or_default()
                }
                Act::GiveUp => return Err(Halt::give_up("enough", "it was told to")),
            });
        }
        Ok(outputs)
    }
}

async fn did<L: Local>(saga: &Saga, key: &str, local: L) -> saga::Result<Value> {
    let output = saga.transact(key, local).await?.take();
    serde_json::to_value(output).map_err(|error| Halt::give_up("unreadable", error.to_string()))
}

/// Stands in for the product's claim: what is asked, and what is started, is all that counts here.
struct AnyClaim;

impl Workflow for AnyClaim {
    const NAME: &'static str = "any-claim";
    const VERSION: u32 = 1;
    type Input = ClaimRequest;
    type Output = ();

    async fn run(&self, _: &Saga, _: ClaimRequest) -> saga::Result<()> {
        Ok(())
    }
}

/// Stands in for the product's recheck: whether it is started, and for what, is all that counts here.
struct AnyRecheck;

impl Workflow for AnyRecheck {
    const NAME: &'static str = "any-recheck";
    const VERSION: u32 = 1;
    type Input = RecheckRequest;
    type Output = ();

    async fn run(&self, _: &Saga, _: RecheckRequest) -> saga::Result<()> {
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Reserve(ReserveInstance);

impl Local for Reserve {
    const NAME: &'static str = "pool.reserve_instance";
    const REVERTS: bool = true;
    const GIVE_UP_AFTER: Duration = RESERVE_GIVE_UP;
    type Output = Reserved;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Reserved, Failure> {
        self.0.reserve(tx).await
    }

    async fn revert(&self, made: &Reserved, tx: &mut Tx<'_>) -> Result<(), Failure> {
        ReserveInstance::release::<AnyRecheck>(made, tx).await
    }
}

/// What a recheck's end does.
#[derive(Debug, Serialize, Deserialize)]
struct Settle(String, i64, ContainerSeen);

impl Local for Settle {
    const NAME: &'static str = "test.settle";
    type Output = Settled;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Settled, Failure> {
        settle_recheck(tx, &self.0, self.1, self.2).await
    }
}

/// Stands in for the product's teardown.
struct AnyTeardown;

impl Workflow for AnyTeardown {
    const NAME: &'static str = "any-teardown";
    const VERSION: u32 = 1;
    type Input = TeardownRequest;
    type Output = ();

    async fn run(&self, _: &Saga, _: TeardownRequest) -> saga::Result<()> {
        Ok(())
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct AskClaim(String, ClaimRequest);

impl Local for AskClaim {
    const NAME: &'static str = "test.ask_claim";
    type Output = Requested;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Requested, Failure> {
        StartClaim::apply::<AnyClaim>(tx, &self.0, &self.1).await
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct AskTeardown(String);

impl Local for AskTeardown {
    const NAME: &'static str = "test.ask_teardown";
    type Output = Requested;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Requested, Failure> {
        StartTeardown::apply::<AnyTeardown>(tx, &self.0).await
    }
}

/// Fills the pool with scripts that wait, as the controller does with Replenish.
#[derive(Debug, Serialize, Deserialize)]
struct Refill;

impl Local for Refill {
    const NAME: &'static str = "test.refill";
    type Output = Refilled;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Refilled, Failure> {
        let refilled = count_missing(tx, "default").await?;
        for _ in 0..refilled.missing {
            let instance = format!("in_{}", short(tx.uuid()));
            let acts = making(&instance, vec![Act::Wait]);
            let new = NewSaga::of::<Script>(tx.env(), format!("replenish:{instance}"), &acts)?;
            let saga = tx.start::<Script>(new).await?;
            record_refill(tx, &saga, "default", &instance).await?;
        }
        Ok(refilled)
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Sql(String);

impl Local for Sql {
    const NAME: &'static str = "test.sql";
    type Output = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), Failure> {
        let sql: &'static str = Box::leak(self.0.clone().into_boxed_str());
        tx.execute(sql, Vec::new()).await?;
        Ok(())
    }
}

fn plan(instance: &str) -> Act {
    Act::Plan(PlanInstance {
        instance: instance.to_owned(),
        pool: "default".to_owned(),
        name: format!("test-{instance}"),
    })
}

fn idle(instance: &str) -> MarkIdle {
    MarkIdle {
        instance: instance.to_owned(),
        image: "ghcr.io/o/i@sha256:1".to_owned(),
        domain: format!("{instance}.example"),
        project_id: "prj".to_owned(),
        service_id: "svc".to_owned(),
    }
}

fn making(instance: &str, more: Vec<Act>) -> Vec<Act> {
    let mut acts = vec![plan(instance)];
    acts.extend(more);
    acts
}

fn queue() -> Act {
    Act::Queue(EnterQueue { template: "tp_demo".to_owned(), since: None })
}

fn reserve(conversation: Option<&str>) -> Act {
    Act::Reserve(Reserve(ReserveInstance {
        template: "tp_demo".to_owned(),
        pool: "default".to_owned(),
        owner: Some("ann".to_owned()),
        conversation_target: conversation.map(str::to_owned),
    }))
}

fn request(template: &str) -> ClaimRequest {
    ClaimRequest { template_id: template.to_owned(), name: None, owner_id: None, join_url: None }
}

/// A pool in a database of its own.
struct World {
    engine: Engine,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let env = Env::seeded(5).with_pace(60);
        let (file, key) = (folder.path().join("amends.db"), folder.path().join("key"));
        let (store, vault) = SqliteStore::open(&file, &key, "test", &[pool::MIGRATIONS], &env).await.unwrap();
        let registry = Registry::default()
            .local::<PlanInstance>()
            .local::<MarkIdle>()
            .local::<EnterQueue>()
            .local::<Reserve>()
            .local::<RecordClaim>()
            .local::<NoteConversation>()
            .local::<ChooseNumber>()
            .local::<PickNumber>()
            .workflow(Script)
            .workflow(AnyClaim)
            .workflow(AnyRecheck)
            .workflow(AnyTeardown);
        let engine = Engine::start(Arc::new(store), vault, registry, env, "test");
        let world = Self { engine, _folder: folder };
        world.transact(ApplySeed { seed: Seed::parse(SEED).unwrap() }).await.unwrap();
        world
    }

    async fn transact<L: Local>(&self, local: L) -> Result<L::Output, Error> {
        self.engine.transact(local).await
    }

    async fn sql(&self, sql: &str) {
        self.transact(Sql(sql.to_owned())).await.unwrap();
    }

    async fn begin(&self, key: &str, acts: Vec<Act>) -> SagaId {
        let new = self.engine.new_saga::<Script>(key, &acts).unwrap();
        match self.engine.begin(new).await.unwrap() {
            Started::New(id) | Started::Before(id) | Started::KeyReused(id) => id,
        }
    }

    async fn ended(&self, saga: &SagaId) -> SagaRow {
        let row = self.engine.wait(saga, PATIENCE, |_| false).await.unwrap().unwrap();
        assert!(row.state.is_ended(), "{row:#?}");
        row
    }

    async fn completes(&self, key: &str, acts: Vec<Act>) -> Vec<Value> {
        let saga = self.begin(key, acts).await;
        let row = self.ended(&saga).await;
        assert_eq!(row.state, SagaState::Completed, "{row:#?}");
        serde_json::from_value(self.engine.store().output(&saga).await.unwrap().unwrap()).unwrap()
    }

    /// An idle instance, made by a saga that has ended.
    async fn idle(&self, instance: &str) {
        self.completes(instance, making(instance, vec![Act::Idle(idle(instance))])).await;
    }

    async fn go(&self, saga: &SagaId) {
        self.engine.signal(saga, &format!("go {saga}"), "go", Value::Null).await.unwrap();
    }

    async fn instance(&self, id: &str) -> Instance {
        pool::instance(self.engine.store().as_ref(), id).await.unwrap().unwrap()
    }

    async fn state(&self, id: &str) -> String {
        self.instance(id).await.state
    }

    /// Waits until an instance is in this state.
    async fn becomes(&self, id: &str, state: &str) {
        for _ in 0..12_000 {
            let instance = pool::instance(self.engine.store().as_ref(), id).await.unwrap();
            if instance.is_some_and(|instance| instance.state == state) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{id} did not become {state}");
    }

    /// Waits until so many scripts wait to be told to go on.
    async fn waiting(&self, scripts: i64) {
        let sql = "select count(*) as n from saga where workflow = 'script' and state = 'waiting'
                   and id in (select saga from journal where kind = 'timer_set')";
        for _ in 0..12_000 {
            if self.count(sql).await == scripts {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not all of them came to wait");
    }

    /// Waits until so many claims are in the queue.
    async fn in_queue(&self, claims: i64) {
        for _ in 0..12_000 {
            if self.count("select count(*) as n from claim_queue").await == claims {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not all of them came into the queue");
    }

    async fn count(&self, sql: &'static str) -> i64 {
        self.engine.store().fetch(sql.into(), Vec::new()).await.unwrap()[0].int("n").unwrap()
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Job(Failure::Refused(refusal))) => refusal.code,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_planned_instance_whose_saga_is_undone_has_failed() {
    let world = World::new().await;
    let saga = world.begin("a", making("in_a", vec![Act::GiveUp])).await;
    assert_eq!(world.ended(&saga).await.state, SagaState::Compensated);
    assert_eq!(world.state("in_a").await, "failed");
    assert_eq!(world.count("select count(*) as n from instance_saga where ended_at is null").await, 0);
}

#[tokio::test]
async fn an_instance_that_was_fenced_meanwhile_never_becomes_idle() {
    let world = World::new().await;
    let saga = world.begin("a", making("in_a", vec![Act::Wait])).await;
    world.becomes("in_a", "provisioning").await;
    world.sql("update instance set state = 'tearing_down'").await;
    assert_eq!(code(world.transact(idle("in_a")).await), "fenced");
    assert_eq!(world.state("in_a").await, "tearing_down");
    world.go(&saga).await;
}

#[tokio::test]
async fn a_reserved_instance_is_given_back_tainted_and_a_recheck_is_started() {
    let world = World::new().await;
    world.idle("in_a").await;
    let saga = world.begin("c", vec![queue(), reserve(Some("https://talk/1")), Act::GiveUp]).await;
    assert_eq!(world.ended(&saga).await.state, SagaState::Compensated);
    let instance = world.instance("in_a").await;
    assert_eq!((instance.state.as_str(), instance.claim_epoch), ("tainted", 2));
    assert_eq!((instance.owner_id, instance.template_id), (None, None));
    assert_eq!(world.count("select count(*) as n from claim_queue").await, 0);
    assert_eq!(world.count("select count(*) as n from saga where workflow = 'any-recheck'").await, 1);
    let has_it = "select count(*) as n from instance_saga join saga on saga.id = saga
                  where workflow = 'any-recheck' and instance_saga.ended_at is null";
    assert_eq!(world.count(has_it).await, 1, "a teardown sees that somebody has it");
}

/// The only way from tainted to idle.
#[tokio::test]
async fn an_instance_is_idle_again_only_if_its_container_was_seen_clean() {
    let cases = [
        (ContainerSeen::Clean, 2, Fate::Idle, "idle"),
        (ContainerSeen::Clean, 1, Fate::Fenced, "tainted"),
        (ContainerSeen::Dirty, 2, Fate::Condemned, "tainted"),
        (ContainerSeen::Unreachable, 2, Fate::Condemned, "tainted"),
        (ContainerSeen::Foreign, 2, Fate::Kept, "tainted"),
    ];
    for (seen, epoch, fate, state) in cases {
        let world = World::new().await;
        world.idle("in_a").await;
        let saga = world.begin("c", vec![queue(), reserve(None), Act::GiveUp]).await;
        world.ended(&saga).await;
        let settled = world.transact(Settle("in_a".to_owned(), epoch, seen)).await.unwrap();
        assert_eq!((settled.fate, world.state("in_a").await.as_str()), (fate, state), "{seen} {epoch}");
    }
}

#[tokio::test]
async fn an_instance_that_is_being_torn_down_is_never_idle_again() {
    let world = World::new().await;
    world.idle("in_a").await;
    let saga = world.begin("c", vec![queue(), reserve(None), Act::GiveUp]).await;
    world.ended(&saga).await;
    world.transact(FenceInstance { instance: "in_a".to_owned() }).await.unwrap();
    let settled = world.transact(Settle("in_a".to_owned(), 2, ContainerSeen::Clean)).await.unwrap();
    assert_eq!((settled.fate, world.state("in_a").await.as_str()), (Fate::Fenced, "tearing_down"));
}

#[tokio::test]
async fn a_tainted_instance_frees_its_conversation() {
    let world = World::new().await;
    world.idle("in_a").await;
    let talk = Some("https://talk/1");
    let saga = world.begin("c", vec![queue(), reserve(talk), Act::GiveUp]).await;
    assert_eq!(world.ended(&saga).await.state, SagaState::Compensated);
    world.idle("in_b").await;
    world.completes("d", vec![queue(), reserve(talk)]).await;
    assert_eq!(
        (world.state("in_a").await.as_str(), world.state("in_b").await.as_str()),
        ("tainted", "claiming")
    );
}

#[tokio::test]
async fn two_instances_are_never_claimed_in_one_conversation() {
    let world = World::new().await;
    world.idle("in_a").await;
    world.idle("in_b").await;
    // The newest is offered first; both were invited in other words.
    let note = |instance: &str| {
        Act::Note(NoteConversation {
            instance: instance.to_owned(),
            epoch: 1,
            conversation: "convo-1".to_owned(),
        })
    };
    world.completes("1", vec![queue(), reserve(Some("https://talk/1")), note("in_b")]).await;
    let second = world.begin("2", vec![queue(), reserve(Some("https://talk/2")), note("in_a")]).await;
    let row = world.ended(&second).await;
    assert_eq!(row.state, SagaState::Compensated);
    assert!(row.error.unwrap().contains("conversation_claimed"));
}

#[tokio::test]
async fn an_instance_whose_project_is_a_ghost_is_not_idle_any_more() {
    let world = World::new().await;
    world.idle("in_a").await;
    let taint = || TaintIncomplete { instance: "in_a".to_owned() };
    assert!(world.transact(taint()).await.unwrap());
    assert_eq!(world.state("in_a").await, "tainted");
    assert!(!world.transact(taint()).await.unwrap(), "once");
}

#[tokio::test]
async fn one_invitation_in_another_spelling_is_the_same_target() {
    let world = World::new().await;
    let ask = |key: &str, url: &str| {
        AskClaim(key.to_owned(), ClaimRequest { join_url: Some(url.to_owned()), ..request("tp_demo") })
    };
    let first = world.transact(ask("k", "https://talk.example/join/AbC")).await.unwrap();
    let again = world.transact(ask("k", " HTTPS://Talk.Example.:443/join/AbC")).await.unwrap();
    assert_eq!(again, Requested { is_new: false, ..first });
    world.idle("in_a").await;
    world.completes("c", vec![queue(), reserve(Some("https://talk.example/join/AbC"))]).await;
    world.sql("update instance_saga set kind = 'claim'").await;
    let refused = world.transact(ask("k2", "https://TALK.example/join/AbC")).await;
    assert_eq!(code(refused), "conversation_claimed");
    assert_eq!(code(world.transact(ask("k3", "javascript:alert(1)")).await), "malformed");
}

#[tokio::test]
async fn a_claim_that_was_served_in_vain_keeps_its_place() {
    let world = World::new().await;
    let late = world.begin("1", vec![queue(), reserve(None)]).await;
    world.in_queue(1).await;
    let before = Some(Timestamp(1));
    let again = Act::Queue(EnterQueue { template: "tp_demo".to_owned(), since: before });
    let first = world.begin("2", vec![again, reserve(None)]).await;
    world.in_queue(2).await;
    world.idle("in_a").await;
    assert_eq!(world.ended(&first).await.state, SagaState::Completed);
    assert!(!world.engine.row(&late).await.unwrap().unwrap().state.is_ended());
}

#[tokio::test]
async fn a_claim_that_waits_is_woken_when_an_instance_becomes_idle() {
    let world = World::new().await;
    let claim = world.begin("c", vec![queue(), reserve(None)]).await;
    let waits = |row: &SagaRow| row.state == SagaState::Waiting;
    let row = world.engine.wait(&claim, PATIENCE, waits).await.unwrap().unwrap();
    assert!(waits(&row), "there is nothing to reserve: {row:#?}");
    world.idle("in_a").await;
    assert_eq!(world.ended(&claim).await.state, SagaState::Completed);
    assert_eq!(world.state("in_a").await, "claiming");
}

#[tokio::test]
async fn whoever_has_waited_longer_is_served_first() {
    let world = World::new().await;
    let first = world.begin("1", vec![queue(), reserve(None)]).await;
    world.in_queue(1).await;
    // They are told apart by when they came.
    tokio::time::sleep(Duration::from_millis(2)).await;
    let second = world.begin("2", vec![queue(), reserve(None)]).await;
    world.in_queue(2).await;
    world.idle("in_a").await;
    assert_eq!(world.ended(&first).await.state, SagaState::Completed);
    assert!(!world.engine.row(&second).await.unwrap().unwrap().state.is_ended());
    world.idle("in_b").await;
    assert_eq!(world.ended(&second).await.state, SagaState::Completed);
}

#[tokio::test]
async fn a_conversation_is_claimed_once_even_while_its_agent_sleeps() {
    let world = World::new().await;
    world.idle("in_a").await;
    world.idle("in_b").await;
    let talk = Some("https://talk/1");
    world.completes("1", vec![queue(), reserve(talk)]).await;
    for state in ["claiming", "pending_acceptance", "claimed", "sleeping", "crashed"] {
        let in_a = "update instance set state = 'STATE' where conversation_target is not null";
        world.sql(&in_a.replace("STATE", state)).await;
        let second = world.begin(&format!("2 {state}"), vec![queue(), reserve(talk)]).await;
        let row = world.ended(&second).await;
        assert_ne!(row.state, SagaState::Completed, "while {state}");
        assert!(row.error.unwrap().contains("conversation_claimed"), "while {state}");
    }
    // Who no longer has it does not keep others from it.
    world.sql("update instance set state = 'gone' where conversation_target is not null").await;
    world.completes("3", vec![queue(), reserve(talk)]).await;
}

#[tokio::test]
async fn a_claim_ends_with_the_version_it_reserved() {
    let world = World::new().await;
    world.idle("in_a").await;
    let outputs = world.completes("c", vec![queue(), reserve(None)]).await;
    let newer = SEED.replace("\"Help.\"", "\"Help more.\"");
    world.transact(ApplySeed { seed: Seed::parse(&newer).unwrap() }).await.unwrap();
    let reserved: Reserved = serde_json::from_value(outputs[1].clone()).unwrap();
    assert_eq!((reserved.template_version, reserved.definition.instructions.as_str()), (1, "Help."));
    assert_eq!(world.count("select current_version as n from template").await, 2);
    assert_eq!(world.instance("in_a").await.template_version, Some(1));
}

#[tokio::test]
async fn a_claim_that_a_teardown_overtook_is_not_recorded() {
    let world = World::new().await;
    world.idle("in_a").await;
    world.completes("c", vec![queue(), reserve(None)]).await;
    world.transact(FenceInstance { instance: "in_a".to_owned() }).await.unwrap();
    let record = RecordClaim {
        instance: "in_a".to_owned(),
        epoch: 1,
        agent_name: "Ada".to_owned(),
        conversation: None,
    };
    assert!(!world.transact(record).await.unwrap().is_claimed);
    assert_eq!(world.state("in_a").await, "tearing_down");
    world.transact(RecordGone { instance: "in_a".to_owned() }).await.unwrap();
    assert_eq!(world.state("in_a").await, "gone");
}

/// What a saga made is handed over when it ends, not when the instance became idle. A teardown in between that
/// did not wait for it would find nothing on the ledger, and leave everything outside.
#[tokio::test]
async fn a_fence_names_the_saga_that_has_not_ended_though_its_instance_is_idle() {
    let world = World::new().await;
    let saga = world.begin("a", making("in_a", vec![Act::Idle(idle("in_a")), Act::Wait])).await;
    world.becomes("in_a", "idle").await;
    let fenced: Fenced = world.transact(FenceInstance { instance: "in_a".to_owned() }).await.unwrap();
    assert_eq!(fenced.running, [saga]);
}

#[tokio::test]
async fn a_fence_waits_for_nobody_where_all_have_ended() {
    let world = World::new().await;
    world.idle("in_a").await;
    let fenced = world.transact(FenceInstance { instance: "in_a".to_owned() }).await.unwrap();
    assert_eq!(fenced.running, []);
    assert_eq!(world.instance("in_a").await.claim_epoch, 1);
    assert_eq!(code(world.transact(FenceInstance { instance: "in_x".to_owned() }).await), "no_such_instance");
}

/// The controller runs again before the sagas it started have written their first row.
#[tokio::test]
async fn a_pool_that_is_looked_at_twice_at_once_is_filled_once() {
    let world = World::new().await;
    let (first, second) = tokio::join!(world.transact(Refill), world.transact(Refill));
    assert_eq!(first.unwrap().missing + second.unwrap().missing, 2);
    assert_eq!(world.transact(Refill).await.unwrap().missing, 0);
    assert_eq!(world.count("select count(*) as n from saga").await, 2);
}

#[tokio::test]
async fn a_pool_is_filled_for_those_who_wait_and_never_above_what_may_be_spent() {
    let world = World::new().await;
    for key in ["1", "2", "3"] {
        world.begin(key, vec![queue(), reserve(None)]).await;
    }
    world.in_queue(3).await;
    let refilled = world.transact(Refill).await.unwrap();
    assert_eq!(
        (refilled.missing, refilled.is_capped),
        (3, true),
        "two idle and three waiting, but three at most"
    );
    let refilled = world.transact(Refill).await.unwrap();
    assert_eq!((refilled.missing, refilled.is_capped), (0, true));
}

/// What a provider will not let us take back must not keep the pool empty for as long.
#[tokio::test]
async fn a_boot_that_is_being_undone_is_made_up_for() {
    let world = World::new().await;
    world.transact(Refill).await.unwrap();
    world.waiting(2).await;
    world.sql("update saga set state = 'compensating' where id = (select min(id) from saga)").await;
    let refilled = world.transact(Refill).await.unwrap();
    assert_eq!(refilled.missing, 1);
    // What is left of it may still cost something, so that there is no place for a fourth.
    world.waiting(2).await;
    world.sql("update saga set state = 'compensating' where id = (select max(id) from saga)").await;
    assert_eq!(
        world.transact(Refill).await.unwrap(),
        Refilled { missing: 0, is_probing: false, probe_at: None, is_capped: true }
    );
}

#[tokio::test]
async fn three_broken_boots_cool_down_then_let_one_probe_pass_and_a_good_one_closes_the_breaker() {
    let world = World::new().await;
    world.sql("update pool set max_total = 100, min_idle = 3").await;
    assert_eq!(world.transact(Refill).await.unwrap().missing, 3);
    world.waiting(3).await;
    world.sql("update saga set state = 'failed', ended_at = 1, due_at = null").await;
    let refilled = world.transact(Refill).await.unwrap();
    assert_eq!((refilled.missing, refilled.is_probing), (0, true), "it cools down first");
    assert!(refilled.probe_at.is_some());
    world.sql("update refill set settled_at = 1 where settled_at is not null").await;
    let refilled = world.transact(Refill).await.unwrap();
    assert_eq!((refilled.missing, refilled.is_probing), (1, true));
    let refilled = world.transact(Refill).await.unwrap();
    assert_eq!((refilled.missing, refilled.is_probing), (0, true), "one probe at a time");
    let rows = world
        .engine
        .store()
        .fetch("select instance from refill where settled_at is null".into(), Vec::new())
        .await
        .unwrap();
    let probe = rows[0].text("instance").unwrap();
    world.becomes(&probe, "provisioning").await;
    world.transact(idle(&probe)).await.unwrap();
    let refilled = world.transact(Refill).await.unwrap();
    assert_eq!((refilled.missing, refilled.is_probing), (2, false));
}

#[tokio::test]
async fn the_same_request_is_one_saga_and_another_under_its_key_is_refused() {
    let world = World::new().await;
    let ask = |key: &str, template: &str| AskClaim(key.to_owned(), request(template));
    let first = world.transact(ask("k", "tp_demo")).await.unwrap();
    assert!(first.is_new);
    let again = Requested { is_new: false, ..first };
    assert_eq!(world.transact(ask("k", "tp_demo")).await.unwrap(), again);
    let mut other = request("tp_demo");
    other.name = Some("Bob".to_owned());
    assert_eq!(code(world.transact(AskClaim("k".to_owned(), other)).await), "key_reused");
    assert_eq!(code(world.transact(ask("k2", "tp_none")).await), "unknown_template");
    world.transact(ask("k2", "tp_demo")).await.expect("what was refused did not use up its key");
    world.sql("update template set archived_at = 1").await;
    assert_eq!(code(world.transact(ask("k3", "tp_demo")).await), "template_archived");
    assert_eq!(world.transact(ask("k", "tp_demo")).await.unwrap(), again, "what has begun goes on");
}

#[tokio::test]
async fn two_teardowns_of_an_instance_are_one_saga() {
    let world = World::new().await;
    world.idle("in_a").await;
    let first = world.transact(AskTeardown("in_a".to_owned())).await.unwrap();
    let again = Requested { is_new: false, ..first };
    assert_eq!(world.transact(AskTeardown("in_a".to_owned())).await.unwrap(), again);
    assert_eq!(code(world.transact(AskTeardown("in_x".to_owned())).await), "no_such_instance");
}

#[tokio::test]
async fn a_number_rests_before_the_next_one_gets_it() {
    let world = World::new().await;
    let choose = || ChooseNumber { instance: "in_a".to_owned() };
    assert_eq!(world.transact(choose()).await.unwrap(), Chosen { number: None });
    let candidates = vec!["+13125550100".to_owned()];
    let pick = PickNumber { instance: "in_a".to_owned(), candidates };
    let phone_number = world.transact(pick.clone()).await.unwrap().phone_number;
    assert_eq!(code(world.transact(pick).await), "no_number", "it is picked once");
    assert_eq!(world.transact(choose()).await.unwrap(), Chosen { number: None }, "it is not bought yet");
    let stock = StockNumber { phone_number: phone_number.clone(), telnyx_id: "1".to_owned() };
    world.transact(stock).await.unwrap();
    world.transact(QuarantineNumber { phone_number: phone_number.clone() }).await.unwrap();
    assert_eq!(world.transact(choose()).await.unwrap(), Chosen { number: None }, "it rests");
    world.sql("update number set quarantined_until = 1").await;
    let chosen = Chosen { number: Some((phone_number, "1".to_owned())) };
    assert_eq!(world.transact(choose()).await.unwrap(), chosen);
    assert_eq!(world.transact(choose()).await.unwrap(), Chosen { number: None }, "it is one's alone");
    // One that the account has no more is nobody's to be given.
    let retire = || RetireNumber { phone_number: "+13125550100".to_owned() };
    assert!(!world.transact(retire()).await.unwrap(), "whoever has it keeps it on his page");
    world.sql("update number set state = 'available', instance = null").await;
    assert!(world.transact(retire()).await.unwrap());
    assert_eq!(world.transact(choose()).await.unwrap(), Chosen { number: None });
}

#[tokio::test]
async fn a_seed_applied_twice_changes_nothing() {
    let world = World::new().await;
    world.transact(ApplySeed { seed: Seed::parse(SEED).unwrap() }).await.unwrap();
    assert_eq!(world.count("select count(*) as n from template_version").await, 1);
    assert_eq!(world.count("select count(*) as n from pool").await, 1);
}

#[tokio::test]
async fn instances_are_listed_by_state_a_page_at_a_time() {
    let world = World::new().await;
    for instance in ["in_a", "in_b", "in_c"] {
        world.idle(instance).await;
    }
    let store = world.engine.store().clone();
    let page = |before: Option<&str>, state: &str| InstanceFilter {
        states: vec![state.to_owned()],
        before: before.map(str::to_owned),
        limit: 2,
    };
    let ids = async |filter: InstanceFilter| {
        let page = pool::instances(store.as_ref(), &filter).await.unwrap();
        page.into_iter().map(|instance| instance.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(page(None, "idle")).await, ["in_c", "in_b"]);
    assert_eq!(ids(page(Some("in_b"), "idle")).await, ["in_a"]);
    assert!(ids(page(None, "claimed")).await.is_empty());
}

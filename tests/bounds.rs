//! Whatever an activity, a letter, a provider or a store does: nothing runs in a circle, nothing waits without an end,
//! nothing stands still unsaid, and one saga's trouble is not another's.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use amends_engine::activity::Cause;
use amends_engine::env::Timestamp;
use amends_engine::journal::act::Act;
use amends_engine::journal::state::{Attention, SagaState};
use amends_engine::secret::Vault;
use amends_engine::store::memory::MemoryStore;
use amends_engine::store::sqlite::SqliteStore;
use amends_engine::store::tx::{Beside, Sql};
use amends_engine::store::{
    Letter, Loose, LooseJob, Message, NewSaga, ResourceFilter, ResourceState, SagaRow, Store,
};
use amends_engine::testing::shaky::{Shakes, ShakyStore};
use amends_engine::{
    Activity, Call, Effect, Engine, Env, Failure, Gate, Local, Made, Object, Registry, Saga, SagaId,
    SecretRef, Tx, Workflow, params, saga, secs,
};
use amends_tests::postgres::Server;
use serde::{Deserialize, Serialize};
use sqlx::{Connection, Executor, PgConnection};

/// A bound that no machine misses.
const PATIENCE: Duration = secs(120);

/// Counts how often it is asked.
#[derive(Default)]
struct Counter(AtomicUsize);

/// Is ready at a time, and says not yet with such a wait until then.
#[derive(Serialize, Deserialize)]
struct Ready {
    at: Timestamp,
    wait: Duration,
}

impl Activity for Ready {
    const NAME: &'static str = "bounds.ready";
    const EFFECT: Effect = Effect::Read;
    type Client = (Counter, Env);
    type Output = ();

    async fn execute(&self, (counter, env): &(Counter, Env), _: &Call) -> Result<(), Failure> {
        counter.0.fetch_add(1, SeqCst);
        if env.now() >= self.at { Ok(()) } else { Err(Failure::not_yet("not ready", self.wait)) }
    }
}

/// The same as a poll.
#[derive(Serialize, Deserialize)]
struct Seen {
    at: Timestamp,
}

impl Activity for Seen {
    const NAME: &'static str = "bounds.seen";
    const EFFECT: Effect = Effect::Read;
    type Client = (Counter, Env);
    type Output = Option<bool>;

    async fn execute(&self, (counter, env): &(Counter, Env), _: &Call) -> Result<Option<bool>, Failure> {
        counter.0.fetch_add(1, SeqCst);
        Ok((env.now() >= self.at).then_some(true))
    }
}

/// The same in our own database.
#[derive(Serialize, Deserialize)]
struct Await {
    at: Timestamp,
}

impl Local for Await {
    const NAME: &'static str = "bounds.await";
    type Output = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), Failure> {
        if tx.now() >= self.at { Ok(()) } else { Err(Failure::not_yet("another is at it", secs(5))) }
    }
}

/// Hands what a step of another saga made to somebody.
#[derive(Serialize, Deserialize)]
struct HandOver {
    saga: SagaId,
    owner: String,
    reason: String,
}

impl Local for HandOver {
    const NAME: &'static str = "bounds.hand_over";
    type Output = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), Failure> {
        tx.release(&self.saga, &"thing".into(), &self.owner, &self.reason);
        Ok(())
    }
}

/// Asks another saga to turn round.
#[derive(Serialize, Deserialize)]
struct CallOff {
    saga: SagaId,
    reason: String,
}

impl Local for CallOff {
    const NAME: &'static str = "bounds.call_off";
    type Output = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), Failure> {
        tx.cancel(&self.saga, &self.reason);
        Ok(())
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Wait {
    /// Past the pivot, for another's end.
    Another(Timestamp),
    /// For what says how long to wait.
    Ready(Timestamp, Duration),
    /// By a poll.
    Poll(Timestamp, Duration),
    /// For a word.
    Word,
    /// For what never ends.
    Stuck,
}

struct Waits;

impl Workflow for Waits {
    const NAME: &'static str = "waits";
    const VERSION: u32 = 1;
    type Input = Wait;
    type Output = ();

    async fn run(&self, saga: &Saga, wait: Wait) -> saga::Result<()> {
        match wait {
            Wait::Another(at) => {
                saga.pivot("pivot", Ready { at: Timestamp(0), wait: secs(1) }).await?;
                saga.transact("await", Await { at }).await.map(drop)
            }
            Wait::Ready(at, wait) => saga.step("ready", Ready { at, wait }).await.map(drop),
            Wait::Poll(at, every) => {
                saga.poll_until("seen", Seen { at }, every, secs(7 * 86_400)).await.map(drop)
            }
            Wait::Stuck => saga.transact("stuck", Stuck { panics: false }).await.map(drop),
            Wait::Word => saga.signal("word", "word", secs(86_400)).await.map(|_: Option<String>| ()),
        }
    }
}

struct House {
    name: &'static str,
    engine: Engine,
    store: Arc<dyn Store>,
    env: Env,
    client: Arc<(Counter, Env)>,
    _folder: tempfile::TempDir,
    _server: Option<Arc<Server>>,
}

impl House {
    fn new(name: &'static str, store: Arc<dyn Store>, vault: Vault, env: Env) -> Self {
        let client = Arc::new((Counter::default(), env.clone()));
        let registry = Registry::default()
            .activity::<Ready>(client.clone())
            .activity::<Seen>(client.clone())
            .local::<Await>()
            .local::<Stuck>()
            .workflow(Waits);
        let engine = Engine::start(store.clone(), vault, registry, env.clone(), "test");
        let folder = tempfile::tempdir().unwrap();
        Self { name, engine, store, env, client, _folder: folder, _server: None }
    }

    /// In memory, with a clock that runs ahead.
    async fn simulated() -> Self {
        let env = Env::simulated(3);
        let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
        Self::new("memory", Arc::new(store), vault, env)
    }

    /// In memory, with the machine's clock.
    async fn paced_memory() -> Self {
        let env = Env::seeded(7).with_pace(10);
        let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
        Self::new("memory", Arc::new(store), vault, env)
    }

    async fn sqlite() -> Self {
        let (folder, env) = (tempfile::tempdir().unwrap(), Env::seeded(7).with_pace(10));
        let (file, key) = (folder.path().join("a.db"), folder.path().join("key"));
        let (store, vault) = SqliteStore::open(&file, &key, "test", &[], &env).await.unwrap();
        Self { _folder: folder, ..Self::new("SQLite", Arc::new(store), vault, env) }
    }

    async fn postgres() -> Self {
        let env = Env::seeded(7).with_pace(10);
        let server = Server::shared();
        let (store, vault) = server.database().open(&[], &env).await;
        Self { _server: Some(server), ..Self::new("Postgres", Arc::new(store), vault, env) }
    }

    async fn start(&self, key: &str, wait: Wait) -> SagaId {
        let new = self.engine.new_saga::<Waits>(key, &wait).unwrap();
        self.engine.begin(new).await.unwrap().saga().clone()
    }

    async fn until(&self, saga: &SagaId, limit: Duration, is_so: impl Fn(&SagaRow) -> bool) -> SagaRow {
        let row = self.engine.wait(saga, limit, &is_so).await.unwrap().unwrap();
        assert!(is_so(&row), "{}: {row:?}", self.name);
        row
    }

    async fn run(&self, sql: Sql, params: Vec<amends_engine::store::tx::Param>) {
        let job: LooseJob = Arc::new(move |statements| {
            let params = params.clone();
            Box::pin(async move {
                statements.execute(sql, params).await?;
                Ok(Loose { output: serde_json::Value::Null, beside: Beside::default(), letters: Vec::new() })
            })
        });
        self.store.run(job).await.unwrap();
    }

    fn asked(&self) -> usize {
        self.client.0.0.load(SeqCst)
    }
}

fn later(env: &Env, hours: u64) -> Timestamp {
    env.now().plus(secs(hours * 3600))
}

#[tokio::test(start_paused = true)]
async fn a_wait_of_days_past_the_pivot_ends_by_itself_and_costs_few_entries() {
    let house = House::simulated().await;
    let at = later(&house.env, 60);
    for (key, wait) in [("another", Wait::Another(at)), ("ready", Wait::Poll(at, secs(5)))] {
        let saga = house.start(key, wait).await;
        let row = house.until(&saga, secs(80 * 3600), |row| row.state.is_ended()).await;
        assert_eq!(row.state, SagaState::Completed, "{key}: {row:?}");
        assert!(house.env.now().since(at) <= secs(600), "{key}: {}", house.env.now());
        assert!(row.seq < 3000, "{key}: {row:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_ready_is_not_asked_for_in_a_circle_whoever_says_that_no_wait_is_needed() {
    for by_hand in [false, true] {
        for wait in
            [Wait::Ready(Timestamp::NEVER, Duration::ZERO), Wait::Poll(Timestamp::NEVER, Duration::ZERO)]
        {
            let house = House::simulated().await;
            let saga = house.start("a", wait).await;
            if by_hand {
                let act = Act::Policy {
                    step: if house.asked() == 0 { "ready" } else { "seen" }.into(),
                    max_wait: Duration::ZERO,
                };
                house.env.sleep(secs(1)).await;
                // Only one of the two is there.
                let _ = house.engine.act(&saga, act, "ann", "quickly").await;
            }
            let before = house.asked();
            house.env.sleep(secs(60)).await;
            let asked = house.asked() - before;
            assert!((60..=130).contains(&asked), "{asked} times in a minute");
            house.engine.abort();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_without_a_wait_does_not_have_an_unavailable_step_tried_in_a_circle() {
    #[derive(Serialize, Deserialize)]
    struct Down;
    impl Activity for Down {
        const NAME: &'static str = "bounds.down";
        const EFFECT: Effect = Effect::Read;
        type Client = Counter;
        type Output = ();

        async fn execute(&self, counter: &Counter, _: &Call) -> Result<(), Failure> {
            counter.0.fetch_add(1, SeqCst);
            Err(Failure::Unavailable { cause: Cause::Connect, detail: "down".into(), retry_after: None })
        }
    }
    struct Tries;
    impl Workflow for Tries {
        const NAME: &'static str = "tries";
        const VERSION: u32 = 1;
        type Input = ();
        type Output = ();

        async fn run(&self, saga: &Saga, (): ()) -> saga::Result<()> {
            saga.step("down", Down).await.map(drop)
        }
    }
    let env = Env::simulated(3);
    let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
    let counter = Arc::new(Counter::default());
    let registry = Registry::default().activity::<Down>(counter.clone()).workflow(Tries);
    let engine = Engine::start(Arc::new(store), vault, registry, env.clone(), "test");
    let saga = engine.begin(engine.new_saga::<Tries>("a", &()).unwrap()).await.unwrap().saga().clone();
    env.sleep(secs(1)).await;
    let act = Act::Policy { step: "down".into(), max_wait: Duration::ZERO };
    engine.act(&saga, act, "ann", "quickly").await.unwrap();
    engine.retry(&saga, "ann", "now").await.unwrap();
    env.sleep(secs(1)).await;
    let before = counter.0.load(SeqCst);
    env.sleep(secs(60)).await;
    let tried = counter.0.load(SeqCst) - before;
    assert!((60..=130).contains(&tried), "{tried} times in a minute");
}

#[tokio::test(start_paused = true)]
async fn what_says_not_yet_for_ever_is_due_again_and_is_given_up() {
    let house = House::simulated().await;
    let saga = house.start("a", Wait::Ready(Timestamp::NEVER, Duration::MAX)).await;
    house.env.sleep(secs(60)).await;
    let row = house.engine.row(&saga).await.unwrap().unwrap();
    assert!(row.due_at.is_some_and(|due| due <= later(&house.env, 24)), "{row:?}");
    let row = house.until(&saga, secs(25 * 3600), |row| row.state.is_ended()).await;
    assert!(row.error.as_ref().unwrap().contains("gave_up"), "{row:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_that_cannot_be_read_is_said_and_holds_up_no_other() {
    for house in [House::sqlite().await, House::postgres().await] {
        let saga = house.start("a", Wait::Word).await;
        house.until(&saga, PATIENCE, |row| row.state == SagaState::Waiting).await;
        let sql = Sql {
            sqlite: "insert into inbox (id, saga, message, posted_at) values ('odd', $1, '{\"kind\":\"of_tomorrow\"}', 0)",
            postgres: "insert into inbox (id, saga, arrived, number, kind, message, posted_at)
                values ('odd', $1, 0, 0, 'other', '{\"kind\":\"of_tomorrow\"}', 0)",
        };
        house.run(sql, params![saga.as_str()]).await;
        // Whatever comes next has the inbox read.
        let act = Act::Policy { step: "word".into(), max_wait: secs(1) };
        house.engine.act(&saga, act, "ann", "to see").await.unwrap();
        let is_said = |row: &SagaRow| row.attention.contains(&Attention::Unreadable);
        house.until(&saga, PATIENCE, is_said).await;
        let why = house.engine.why(&saga).await.unwrap().unwrap().to_string();
        assert!(why.contains("A letter in its inbox cannot be read"), "{}: {why}", house.name);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while house.engine.audit(&saga).await.unwrap()[0].outcome.is_none() {
            assert!(tokio::time::Instant::now() < deadline, "{}", house.name);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        house.engine.signal(&saga, "1", "word", "go".into()).await.unwrap();
        let row = house.until(&saga, PATIENCE, |row| row.state.is_ended()).await;
        assert_eq!(row.state, SagaState::Completed, "{}", house.name);
        assert!(row.attention.is_empty(), "{}: {row:?}", house.name);
        house.engine.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_transaction_leaves_for_another_saga_is_held_to_the_limits_of_an_act() {
    let house = House::simulated().await;
    let saga = house.start("a", Wait::Word).await;
    house.until(&saga, PATIENCE, |row| row.state == SagaState::Waiting).await;
    let hand_over = |owner: &str, reason: &str| {
        let (saga, owner, reason) = (saga.clone(), owner.to_owned(), reason.to_owned());
        house.engine.transact(HandOver { saga, owner, reason })
    };
    let long = "n".repeat(5000);
    for (owner, reason) in
        [(saga.as_str(), "so"), ("nobody", "so"), ("", "so"), (&long, "so"), ("ann", &long)]
    {
        let refused = hand_over(owner, reason).await.unwrap_err();
        assert!(refused.to_string().contains("owner") || refused.to_string().contains("reason"), "{refused}");
    }
    let call_off = CallOff { saga: saga.clone(), reason: long.clone() };
    assert!(house.engine.transact(call_off).await.unwrap_err().to_string().contains("reason"));
    hand_over("ann", "so").await.unwrap();
    house.env.sleep(secs(60)).await;
    let row = house.engine.row(&saga).await.unwrap().unwrap();
    assert!(row.attention.is_empty() && row.state == SagaState::Waiting, "{row:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_written_is_said_within_a_minute_and_no_longer_than_it_lasts() {
    let env = Env::simulated(3);
    let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
    let store = Arc::new(ShakyStore::new(Arc::new(store), env.clone(), Shakes::default()));
    let house = House::new("shaky", store.clone(), vault, env);
    let saga = house.start("a", Wait::Ready(later(&house.env, 1), secs(5))).await;
    house.env.sleep(secs(10)).await;
    assert_eq!(house.engine.trouble(), None);
    store.set_shakes(Shakes { fails: 1000, ..Shakes::default() });
    house.env.sleep(secs(60)).await;
    let said = house.engine.trouble().unwrap();
    assert!(said.contains("nothing can be written since 2026-01-01T00:00:1"), "{said}");
    house.env.sleep(secs(2 * 3600)).await;
    assert!(house.engine.trouble().is_some());
    store.set_shakes(Shakes::default());
    house.env.sleep(secs(30)).await;
    assert_eq!(house.engine.trouble(), None);
    house.until(&saga, secs(3600), |row| row.state.is_ended()).await;
}

/// What is said in the log from now on in this thread.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Until what it answers is dropped. The second subscriber hears nothing: with one alone, what a test of another
    /// thread says first is taken to be of no interest to any.
    fn begin(&self) -> (tracing::subscriber::DefaultGuard, tracing::Dispatch) {
        let log = self.clone();
        let lines = || tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::INFO);
        let silent = tracing::Dispatch::new(lines().with_writer(std::io::sink).finish());
        (tracing::subscriber::set_default(lines().with_writer(move || log.clone()).finish()), silent)
    }

    /// The lines since the last time, those that warn and the others.
    fn lines(&self) -> (Vec<String>, Vec<String>) {
        let text = String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap();
        text.lines().map(str::to_owned).partition(|line| line.contains("WARN") || line.contains("ERROR"))
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_a_line_a_minute_in_the_log_for_each_thing_that_fails_and_one_when_it_is_over() {
    let log = Log::default();
    let _guard = log.begin();
    let env = Env::simulated(3);
    let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
    let store = Arc::new(ShakyStore::new(Arc::new(store), env.clone(), Shakes::default()));
    let house = House::new("shaky", store.clone(), vault, env);
    for number in 0..30 {
        house.start(&format!("k{number}"), Wait::Poll(Timestamp::NEVER, secs(10))).await;
    }
    house.env.sleep(secs(3600)).await;
    let (warned, told) = log.lines();
    assert!(warned.is_empty() && told.is_empty(), "nothing has changed: {warned:#?} {told:#?}");
    store.set_shakes(Shakes { fails: 1000, ..Shakes::default() });
    house.env.sleep(secs(3600)).await;
    let (warned, told) = log.lines();
    assert!(!warned.is_empty(), "{told:#?} {:?}", house.engine.trouble());
    let things: std::collections::BTreeSet<&str> =
        warned.iter().filter_map(|line| line.split("what=").nth(1)?.split(" since=").next()).collect();
    assert!(things.iter().any(|thing| thing.contains("nothing can be written")), "{things:?}");
    assert!(warned.len() <= 61 * things.len(), "{} lines of {things:?}", warned.len());
    store.set_shakes(Shakes::default());
    house.env.sleep(secs(60)).await;
    let (_, told) = log.lines();
    assert!(told.iter().any(|line| line.contains("it works again")), "{told:#?}");
    house.env.sleep(secs(3600)).await;
    let (warned, told) = log.lines();
    assert!(warned.is_empty() && told.is_empty(), "{warned:#?} {told:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_closed_under_its_engine_is_said_and_loads_nothing_in_a_circle() {
    let house = House::sqlite().await;
    house.start("a", Wait::Poll(Timestamp::NEVER, secs(10))).await;
    tokio::time::sleep(secs(1)).await;
    house.store.close().await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let said = loop {
        if let Some(said) = house.engine.trouble() {
            break said;
        }
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(secs(1)).await;
    };
    assert!(said.contains("closed"), "{said}");
    house.engine.stop().await;
    assert_eq!(house.engine.trouble(), None, "it was stopped");
}

/// Never ends, or panics.
#[derive(Serialize, Deserialize)]
struct Stuck {
    panics: bool,
}

impl Local for Stuck {
    const NAME: &'static str = "bounds.stuck";
    type Output = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), Failure> {
        tx.fetch("select 1 as one", Vec::new()).await?;
        if self.panics {
            // As a panic, without its noise.
            std::panic::resume_unwind(Box::new(()));
        }
        std::future::pending().await
    }
}

/// Does nothing but begin and end.
#[derive(Serialize, Deserialize)]
struct Nothing {
    number: f64,
}

impl Local for Nothing {
    const NAME: &'static str = "bounds.nothing";
    type Output = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), Failure> {
        tx.fetch("select $1 as one", params![self.number]).await?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_activity_that_does_not_end_is_undone_and_others_write_on() {
    for house in [House::paced_memory().await, House::sqlite().await] {
        let began = tokio::time::Instant::now();
        let stuck = house.engine.transact(Stuck { panics: false }).await.unwrap_err();
        assert!(stuck.to_string().contains("was not over within"), "{}: {stuck}", house.name);
        assert!(began.elapsed() < secs(60), "{}", house.name);
        let panicked = house.engine.transact(Stuck { panics: true }).await.unwrap_err();
        assert!(panicked.to_string().contains("panicked"), "{}: {panicked}", house.name);
        // Whoever asked does not wait for it.
        let _ =
            tokio::time::timeout(Duration::from_millis(100), house.engine.transact(Stuck { panics: false }))
                .await;
        house.engine.transact(Nothing { number: 1.0 }).await.unwrap();
        let saga = house.start("a", Wait::Ready(Timestamp(0), secs(1))).await;
        house.until(&saga, PATIENCE, |row| row.state == SagaState::Completed).await;
        let saga = house.start("b", Wait::Stuck).await;
        house
            .until(&saga, PATIENCE, |row| row.error.as_ref().is_some_and(|error| error.contains("not over")))
            .await;
        house.engine.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_that_is_none_is_no_value_of_a_statement_on_any_store() {
    for house in [House::paced_memory().await, House::sqlite().await] {
        let refused = house.engine.transact(Nothing { number: f64::NAN }).await.unwrap_err();
        assert!(refused.to_string().contains("$1 is not a number"), "{}: {refused}", house.name);
        house.engine.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_whose_row_cannot_be_read_is_closed_alone_until_a_person_opens_it() {
    for house in [House::sqlite().await, House::postgres().await] {
        for gate in ["odd", "well"] {
            house.engine.close_gate(gate, "ann", "for now").await.unwrap();
        }
        house.run("update gate set state = '{\"closed\":7}' where key = 'odd'".into(), Vec::new()).await;
        let seen = |gates: Vec<amends_engine::gate::GateView>| -> Vec<(String, String)> {
            gates
                .into_iter()
                .map(|gate| (gate.key, gate.closed.map(|closed| closed.reason).unwrap_or_default()))
                .collect()
        };
        let gates = seen(house.engine.gates().await.unwrap());
        assert!(gates[0].1.contains("its row cannot be read"), "{}: {gates:?}", house.name);
        assert!(gates[1].1.contains("for now"), "{}: {gates:?}", house.name);
        house.engine.open_gate("well", "ann", "well again").await.unwrap();
        house.engine.open_gate("odd", "ann", "looked at").await.unwrap();
        let gates = seen(house.engine.gates().await.unwrap());
        assert!(gates.iter().all(|(_, reason)| reason.is_empty()), "{}: {gates:?}", house.name);
        house.engine.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_the_store_cannot_read_is_said_on_its_row_and_the_saga_goes_on_when_it_can() {
    let env = Env::simulated(3);
    let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
    let store = Arc::new(ShakyStore::new(Arc::new(store), env.clone(), Shakes::default()));
    let house = House::new("shaky", store.clone(), vault, env);
    let saga = house.start("a", Wait::Word).await;
    let other = house.start("b", Wait::Word).await;
    house.env.sleep(secs(120)).await;
    store.damage(Some(saga.clone()));
    for saga in [&saga, &other] {
        house.engine.signal(saga, "1", "word", "go".into()).await.unwrap();
    }
    house.until(&other, secs(60), |row| row.state == SagaState::Completed).await;
    let is_said = |row: &SagaRow| row.attention == [Attention::Unreadable];
    let row = house.until(&saga, secs(60), is_said).await;
    assert!(row.error.unwrap().contains("malformed"));
    assert_eq!(house.engine.trouble(), None, "the others are written");
    store.damage(None);
    let row = house.until(&saga, secs(60), |row| row.state.is_ended()).await;
    assert!(row.state == SagaState::Completed && row.attention.is_empty(), "{row:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_may_name_a_state_as_often_as_a_request_has_room_for() {
    for house in [House::paced_memory().await, House::sqlite().await, House::postgres().await] {
        let states = vec![ResourceState::Live; 2000];
        for holder in [None, Some("ann".to_owned())] {
            let filter = ResourceFilter { states: states.clone(), holder, ..ResourceFilter::default() };
            let listed = house.engine.resources(filter).await;
            assert_eq!(listed.map(|rows| rows.len()), Ok(0), "{}", house.name);
        }
        house.engine.stop().await;
    }
}

/// Hears that there are too many calls behind a write of its own.
#[derive(Serialize, Deserialize)]
struct Behind;

impl Activity for Behind {
    const NAME: &'static str = "bounds.behind";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Counter;
    type Output = ();

    fn gates(&self, _: &Counter) -> Vec<Gate> {
        vec![Gate::credential("behind")]
    }

    async fn execute(&self, counter: &Counter, _: &Call) -> Result<(), Failure> {
        match counter.0.fetch_add(1, SeqCst) {
            0 => Err(Failure::NoAnswer { cause: Cause::RateLimited, detail: "too many calls".into() }),
            _ => Ok(()),
        }
    }
}

struct Calls;

impl Workflow for Calls {
    const NAME: &'static str = "calls";
    const VERSION: u32 = 1;
    type Input = u32;
    type Output = ();

    async fn run(&self, saga: &Saga, _: u32) -> saga::Result<()> {
        saga.step("behind", Behind).await.map(drop)
    }
}

#[tokio::test(start_paused = true)]
async fn too_many_calls_heard_behind_a_lost_write_close_the_gate_for_everybody() {
    let env = Env::simulated(3);
    let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
    let counter = Arc::new(Counter::default());
    let registry = Registry::default().activity::<Behind>(counter.clone()).workflow(Calls);
    let engine = Engine::start(Arc::new(store), vault, registry, env.clone(), "test");
    let mut sagas = Vec::new();
    for number in 0..2 {
        let new = engine.new_saga::<Calls>(number.to_string(), &number).unwrap();
        sagas.push(engine.begin(new).await.unwrap().saga().clone());
        env.sleep(secs(2)).await;
    }
    let gates = engine.gates().await.unwrap();
    assert!(
        gates[0].closed.as_ref().is_some_and(|closed| closed.reason.contains("too many calls")),
        "{gates:?}"
    );
    assert_eq!(counter.0.load(SeqCst), 1, "the second waits");
    for saga in &sagas {
        let row = engine.wait(saga, secs(600), |_| false).await.unwrap().unwrap();
        assert_eq!(row.state, SagaState::Completed, "{row:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_holds_the_places_of_a_key_and_stands_still_holds_up_no_other_saga() {
    let env = Env::seeded(7).with_pace(10);
    let server = Server::shared();
    let base = server.database();
    let (store, vault) = base.open(&[], &env).await;
    let house = House::new("Postgres", Arc::new(store), vault, env);
    let ready = || Wait::Ready(Timestamp(0), secs(1));
    let keyed = |key: &str| house.engine.new_saga::<Waits>(key, &ready()).unwrap().one_of("k", 1);
    let first = house.engine.begin(keyed("first")).await.unwrap();
    house.until(first.saga(), PATIENCE, |row| row.state == SagaState::Completed).await;
    let mut other = PgConnection::connect(&base.url).await.unwrap();
    other.execute("begin; select key from concurrency where key = 'k' for update").await.unwrap();
    let held = house.engine.begin(keyed("held")).await.unwrap();
    tokio::time::sleep(secs(1)).await;
    // It has to be claimed, like all that is not driven where it was started.
    for number in 0..3 {
        let new = house.engine.new_saga::<Waits>(format!("free-{number}"), &ready()).unwrap();
        let free = house.engine.begin(new.delayed(&house.env, secs(1))).await.unwrap();
        house.until(free.saga(), secs(15), |row| row.state == SagaState::Completed).await;
    }
    assert!(!house.engine.row(held.saga()).await.unwrap().unwrap().state.is_ended());
    other.execute("rollback").await.unwrap();
    house.until(held.saga(), PATIENCE, |row| row.state == SagaState::Completed).await;
    house.engine.stop().await;
}

/// Passes a gate that lets one pass at a time, and writes to a thing that others may write to.
#[derive(Serialize, Deserialize)]
struct Narrow;

impl Activity for Narrow {
    const NAME: &'static str = "bounds.narrow";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Counter;
    type Output = ();

    fn gates(&self, _: &Counter) -> Vec<Gate> {
        vec![Gate::credential("narrow").concurrency(1)]
    }

    fn object(&self, _: &Call) -> Option<Object> {
        Some(Object::new("bounds", "thing", "one"))
    }

    async fn execute(&self, counter: &Counter, _: &Call) -> Result<(), Failure> {
        counter.0.fetch_add(1, SeqCst);
        Ok(())
    }
}

struct Writes;

impl Workflow for Writes {
    const NAME: &'static str = "writes";
    const VERSION: u32 = 1;
    type Input = u32;
    type Output = ();

    async fn run(&self, saga: &Saga, _: u32) -> saga::Result<()> {
        saga.step("narrow", Narrow).await.map(drop)
    }
}

/// Over a store that can be told to refuse.
async fn shaky() -> (Engine, Arc<ShakyStore>, Env, Arc<Counter>) {
    let env = Env::simulated(3);
    let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
    let store = Arc::new(ShakyStore::new(Arc::new(store), env.clone(), Shakes::default()));
    let counter = Arc::new(Counter(AtomicUsize::new(1)));
    let registry = Registry::default()
        .activity::<Behind>(counter.clone())
        .activity::<Narrow>(counter.clone())
        .workflow(Calls)
        .workflow(Writes);
    let engine = Engine::start(store.clone(), vault, registry, env.clone(), "test");
    (engine, store, env, counter)
}

async fn begun<W: Workflow<Input = u32>>(engine: &Engine, number: u32) -> SagaId {
    let new = engine.new_saga::<W>(format!("{} {number}", W::NAME), &number).unwrap();
    engine.begin(new).await.unwrap().saga().clone()
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_the_store_does_not_let_move_is_said_to_whoever_asks_and_holds_up_no_other() {
    let (engine, store, env, counter) = shaky().await;
    store.refuse_gate(Some("narrow"));
    let stuck = begun::<Writes>(&engine, 1).await;
    let free = begun::<Calls>(&engine, 2).await;
    env.sleep(secs(60)).await;
    assert_eq!(engine.row(&free).await.unwrap().unwrap().state, SagaState::Completed);
    let gates = engine.gates().await.unwrap();
    let gate = gates.iter().find(|gate| gate.key == "narrow").unwrap();
    let said = serde_json::to_string(gate).unwrap();
    assert!(said.contains("a rule of the table of gates"), "{said}");
    let why = engine.why(&stuck).await.unwrap().unwrap().to_string();
    assert!(why.contains("a rule of the table of gates"), "{why}");
    store.refuse_gate(None);
    let row = engine.wait(&stuck, secs(60), |_| false).await.unwrap().unwrap();
    assert_eq!(row.state, SagaState::Completed, "{row:?}");
    let said = serde_json::to_string(&engine.gates().await.unwrap()).unwrap();
    assert!(!said.contains("a rule of the table of gates"), "{said}");
    assert_eq!(counter.0.load(SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn gates_that_cannot_be_looked_at_are_said_within_a_minute() {
    let (engine, store, env, counter) = shaky().await;
    env.sleep(secs(1)).await;
    store.hide_gates(true);
    let saga = begun::<Calls>(&engine, 1).await;
    env.sleep(secs(60)).await;
    let said = engine.trouble().unwrap();
    assert!(said.contains("gates") && said.contains("the page of gates is malformed"), "{said}");
    assert_eq!(counter.0.load(SeqCst), 1, "nobody passes what is not known");
    store.hide_gates(false);
    let row = engine.wait(&saga, secs(60), |_| false).await.unwrap().unwrap();
    assert_eq!(row.state, SagaState::Completed, "{row:?}");
    assert_eq!(engine.trouble(), None);
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_cannot_be_read_is_said_within_a_minute_and_fills_no_journal() {
    let (engine, store, env, counter) = shaky().await;
    store.hide_unsettled(true);
    let saga = begun::<Writes>(&engine, 1).await;
    env.sleep(secs(60)).await;
    let said = engine.trouble().unwrap();
    assert!(said.contains("the ledger") && said.contains("the page of the ledger is malformed"), "{said}");
    env.sleep(secs(2 * 3600)).await;
    assert!(engine.trouble().is_some());
    let entries = engine.view(&saga).await.unwrap().unwrap().entries.len();
    assert!(entries < 200, "{entries} entries");
    assert_eq!(counter.0.load(SeqCst), 1, "nothing is written to it meanwhile");
    store.hide_unsettled(false);
    let row = engine.wait(&saga, secs(120), |_| false).await.unwrap().unwrap();
    assert_eq!(row.state, SagaState::Completed, "{row:?}");
    assert_eq!(engine.trouble(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saga_to_which_somebody_signals_without_end_refuses_that_by_name_and_hears_every_act() {
    const UNREAD: i64 = 10_000;
    for house in [House::paced_memory().await, House::sqlite().await, House::postgres().await] {
        let saga = house.start("a", Wait::Word).await;
        house.until(&saga, PATIENCE, |row| row.state == SagaState::Waiting).await;
        if house.name == "memory" {
            for number in 0..UNREAD {
                let id = number.to_string();
                house.engine.signal(&saga, &id, "other", "x".into()).await.unwrap();
            }
        } else {
            let message = r#"{"kind":"signal","name":"other","value":"x"}"#;
            let sql = Sql {
                sqlite: "with recursive n (i) as (select 1 union all select i + 1 from n where i < $3)
                    insert into inbox (id, saga, message, posted_at) select 'm' || i, $1, $2, 0 from n",
                postgres: "insert into inbox (id, saga, arrived, number, kind, message, posted_at)
                    select 'm' || i, $1, 0, i, 'other', $2, 0 from generate_series(1, $3::bigint) as n (i)",
            };
            house.run(sql, params![saga.as_str(), message, UNREAD]).await;
        }
        let refused = house.engine.signal(&saga, "more", "other", "x".into()).await.unwrap_err();
        assert!(refused.to_string().contains("10000"), "{}: {refused}", house.name);
        // Another saga is not concerned, and an act always passes.
        let other = house.start("b", Wait::Word).await;
        house.engine.signal(&other, "1", "word", "go".into()).await.unwrap();
        house.until(&other, PATIENCE, |row| row.state == SagaState::Completed).await;
        house.engine.cancel(&saga, "ann", "enough").await.unwrap();
        let row = house.until(&saga, PATIENCE, |row| row.state.is_ended()).await;
        assert_eq!(row.state, SagaState::Failed, "{}: {row:?}", house.name);
        house.engine.stop().await;
    }
}

/// Hears so many words, one after the other.
struct Hears;

impl Workflow for Hears {
    const NAME: &'static str = "hears";
    const VERSION: u32 = 1;
    type Input = u32;
    type Output = Vec<u32>;

    async fn run(&self, saga: &Saga, words: u32) -> saga::Result<Vec<u32>> {
        let mut heard = Vec::new();
        for number in 0..words {
            heard.extend(saga.signal::<u32>(&number.to_string(), "word", secs(86_400)).await?);
        }
        Ok(heard)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_that_fill_many_pages_are_read_in_their_order_and_none_is_lost() {
    const WORDS: u32 = 150;
    let server = Server::shared();
    let folder = tempfile::tempdir().unwrap();
    for name in ["memory", "SQLite", "Postgres"] {
        let env = Env::seeded(7).with_pace(10);
        let (store, vault): (Arc<dyn Store>, Vault) = match name {
            "memory" => {
                let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
                (Arc::new(store), vault)
            }
            "SQLite" => {
                let (file, key) = (folder.path().join("a.db"), folder.path().join("key"));
                let (store, vault) = SqliteStore::open(&file, &key, "test", &[], &env).await.unwrap();
                (Arc::new(store), vault)
            }
            _ => {
                let (store, vault) = server.database().open(&[], &env).await;
                (Arc::new(store), vault)
            }
        };
        // They are all there before anybody looks, with what nobody waits for between them.
        let new = NewSaga::of::<Hears>(&env, "hears", &WORDS).unwrap();
        let saga = store.start(new).await.unwrap().saga().clone();
        for number in 0..WORDS {
            for word in ["other", "word"] {
                let id = format!("{word} {number}");
                let message = Message::Signal { name: word.into(), value: number.into() };
                store.post(Letter { id, saga: saga.clone(), message, at: env.now() }).await.unwrap();
            }
        }
        for number in 0..1_100 {
            let (id, message) = (format!("wake {number}"), Message::Wake);
            store.post(Letter { id, saga: saga.clone(), message, at: env.now() }).await.unwrap();
        }
        let registry = Registry::default().workflow(Hears);
        let engine = Engine::start(store.clone(), vault, registry, env.clone(), "test");
        let row = engine.wait(&saga, PATIENCE, |_| false).await.unwrap().unwrap();
        assert_eq!(row.state, SagaState::Completed, "{name}: {row:?}");
        let heard = store.output(&saga).await.unwrap().unwrap();
        assert_eq!(heard, serde_json::json!((0..WORDS).collect::<Vec<_>>()), "{name}");
        let left = store.letters(&saga).await.unwrap();
        let are_others = left.iter().all(|letter| letter.id.starts_with("other"));
        assert!(left.len() == WORDS as usize && are_others, "{name}: {} are left", left.len());
        engine.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_done_beside_the_sagas_on_postgres_and_fails_is_said_within_a_minute() {
    let env = Env::seeded(7).with_pace(10);
    let server = Server::shared();
    let base = server.database();
    let (store, vault) = base.open(&[], &env).await;
    let house = House::new("Postgres", Arc::new(store), vault, env);
    let mut other = PgConnection::connect(&base.url).await.unwrap();
    other.execute("alter table feed_head rename to away").await.unwrap();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let said = loop {
        if let Some(said) = house.engine.trouble() {
            break said;
        }
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(secs(1)).await;
    };
    assert!(said.contains("the feed") && said.contains("feed_head"), "{said}");
    other.execute("alter table away rename to feed_head").await.unwrap();
    while house.engine.trouble().is_some() {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(secs(1)).await;
    }
    house.engine.stop().await;
}

/// Puts a secret of this kind away.
#[derive(Serialize, Deserialize)]
struct Hide {
    kind: String,
}

impl Activity for Hide {
    const NAME: &'static str = "bounds.hide";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Counter;
    type Output = SecretRef;

    async fn execute(&self, _: &Counter, call: &Call) -> Result<SecretRef, Failure> {
        call.seal(&self.kind, &"hush".into())
    }
}

/// The same in our own database.
#[derive(Serialize, Deserialize)]
struct HideHere {
    kind: String,
}

impl Local for HideHere {
    const NAME: &'static str = "bounds.hide_here";
    type Output = SecretRef;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<SecretRef, Failure> {
        tx.seal(&self.kind, &"hush".into())
    }
}

struct Hides;

impl Workflow for Hides {
    const NAME: &'static str = "hides";
    const VERSION: u32 = 1;
    type Input = (bool, String);
    type Output = ();

    async fn run(&self, saga: &Saga, (here, kind): (bool, String)) -> saga::Result<()> {
        let done = if here {
            saga.transact("hide", HideHere { kind }).await
        } else {
            saga.step("hide", Hide { kind }).await
        };
        done.map(drop)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kind_of_a_secret_has_the_limits_of_a_name_on_each_store() {
    let memory = async {
        let env = Env::seeded(7).with_pace(10);
        let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
        (Arc::new(store) as Arc<dyn Store>, vault, env)
    };
    let folder = tempfile::tempdir().unwrap();
    let sqlite = async {
        let env = Env::seeded(7).with_pace(10);
        let (file, key) = (folder.path().join("a.db"), folder.path().join("key"));
        let (store, vault) = SqliteStore::open(&file, &key, "test", &[], &env).await.unwrap();
        (Arc::new(store) as Arc<dyn Store>, vault, env)
    };
    let server = Server::shared();
    let postgres = async {
        let env = Env::seeded(7).with_pace(10);
        let (store, vault) = server.database().open(&[], &env).await;
        (Arc::new(store) as Arc<dyn Store>, vault, env)
    };
    let stores = [memory.await, sqlite.await, postgres.await];
    for (place, (store, vault, env)) in stores.into_iter().enumerate() {
        let registry = Registry::default()
            .activity::<Hide>(Arc::new(Counter::default()))
            .local::<HideHere>()
            .workflow(Hides);
        let engine = Engine::start(store.clone(), vault, registry, env, "test");
        let sql = Sql::from("select id from secret");
        for (number, kind) in ["a\0b".to_owned(), "k".repeat(1001), String::new()].into_iter().enumerate() {
            for here in [false, true] {
                let new =
                    engine.new_saga::<Hides>(format!("{number} {here}"), &(here, kind.clone())).unwrap();
                let saga = engine.begin(new).await.unwrap().saga().clone();
                // What an activity did before is not known here; what is done in a transaction is undone with it.
                let is_told = |row: &SagaRow| !here && row.attention.contains(&Attention::NeedsDecision);
                let row = engine.wait(&saga, PATIENCE, is_told).await.unwrap().unwrap();
                let error = row.error.clone().unwrap_or_default();
                assert!(error.contains("the kind of a secret"), "{place} {here} {number}: {row:?}");
                assert_eq!(row.state.is_ended(), here, "{row:?}");
            }
        }
        if place > 0 {
            assert_eq!(store.fetch(sql, Vec::new()).await.unwrap().len(), 0, "nothing was written");
        }
        let new = engine.new_saga::<Hides>("well", &(false, "k".repeat(1000))).unwrap();
        let saga = engine.begin(new).await.unwrap().saga().clone();
        let row = engine.wait(&saga, PATIENCE, |_| false).await.unwrap().unwrap();
        assert_eq!(row.state, SagaState::Completed, "{row:?}");
        engine.stop().await;
    }
}

/// Makes much text.
#[derive(Serialize, Deserialize)]
struct Much;

impl Activity for Much {
    const NAME: &'static str = "bounds.much";
    const EFFECT: Effect = Effect::Read;
    type Client = Counter;
    type Output = String;

    async fn execute(&self, _: &Counter, _: &Call) -> Result<String, Failure> {
        Ok("x".repeat(1024 * 1024))
    }
}

/// Takes it so often.
#[derive(Serialize, Deserialize)]
struct Take {
    all: Vec<Made<String>>,
}

impl Activity for Take {
    const NAME: &'static str = "bounds.take";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = Counter;
    type Output = ();

    async fn execute(&self, counter: &Counter, _: &Call) -> Result<(), Failure> {
        counter.0.fetch_add(1, SeqCst);
        Ok(())
    }
}

struct Takes;

impl Workflow for Takes {
    const NAME: &'static str = "takes";
    const VERSION: u32 = 1;
    type Input = u32;
    type Output = ();

    async fn run(&self, saga: &Saga, often: u32) -> saga::Result<()> {
        let much = saga.step("much", Much).await?;
        saga.step("take", Take { all: (0..often).map(|_| much.clone()).collect() }).await.map(drop)
    }
}

#[tokio::test(start_paused = true)]
async fn an_input_with_more_of_what_other_steps_made_than_may_be_is_refused_by_name_before_the_call() {
    let env = Env::simulated(3);
    let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
    let counter = Arc::new(Counter::default());
    let registry = Registry::default()
        .activity::<Much>(counter.clone())
        .activity::<Take>(counter.clone())
        .workflow(Takes);
    let engine = Engine::start(Arc::new(store), vault, registry, env.clone(), "test");
    let saga = begun::<Takes>(&engine, 15).await;
    let row = engine.wait(&saga, secs(60), |_| false).await.unwrap().unwrap();
    assert_eq!(row.state, SagaState::Completed, "{row:?}");
    assert_eq!(counter.0.load(SeqCst), 1);
    let saga = begun::<Takes>(&engine, 17).await;
    let row = engine.wait(&saga, secs(60), |_| false).await.unwrap().unwrap();
    assert!(row.state.is_ended() && row.state != SagaState::Completed, "{row:?}");
    assert!(row.error.as_ref().unwrap().contains("what other steps made"), "{row:?}");
    assert_eq!(counter.0.load(SeqCst), 1, "it was not called");
}

/// Has so many branches, none of which does anything.
struct Branches;

impl Workflow for Branches {
    const NAME: &'static str = "branches";
    const VERSION: u32 = 1;
    type Input = (bool, u64);
    type Output = ();

    async fn run(&self, saga: &Saga, (races, count): (bool, u64)) -> saga::Result<()> {
        let items = || (0..count).map(|number| (number.to_string(), number));
        if races {
            saga.race("race", items(), |_, _| async { Ok(()) }).await.map(drop)
        } else {
            saga.each("each", items(), |_, _| async { Ok(()) }).await.map(drop)
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_race_and_an_each_have_so_many_branches_and_no_more() {
    let env = Env::simulated(3);
    let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
    let registry = Registry::default().workflow(Branches);
    let engine = Engine::start(Arc::new(store), vault, registry, env.clone(), "test");
    for (races, most) in [(true, 1_000), (false, 20_000)] {
        // One that never ends is noticed too.
        for count in [most + 1, u64::MAX] {
            let new = engine.new_saga::<Branches>(format!("{races} {count}"), &(races, count)).unwrap();
            let saga = engine.begin(new).await.unwrap().saga().clone();
            let row = engine.wait(&saga, secs(60), |_| false).await.unwrap().unwrap();
            assert_eq!(row.state, SagaState::Failed, "{row:?}");
            assert!(row.error.as_ref().unwrap().contains(&format!("more than {most} branches")), "{row:?}");
        }
        let new = engine.new_saga::<Branches>(format!("{races}"), &(races, most)).unwrap();
        let saga = engine.begin(new).await.unwrap().saga().clone();
        let row = engine.wait(&saga, secs(60), |_| false).await.unwrap().unwrap();
        assert_eq!(row.state, SagaState::Completed, "{row:?}");
    }
}

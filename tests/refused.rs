//! What a database always refuses is said at once, parks the one saga that asked for it, and holds up nobody else.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends_engine::journal::act::{Act, Verdict};
use amends_engine::journal::state::SagaState;
use amends_engine::secret::Vault;
use amends_engine::store::memory::MemoryStore;
use amends_engine::store::open::Migrations;
use amends_engine::store::sqlite::SqliteStore;
use amends_engine::store::{Error, SagaRow, Store};
use amends_engine::{
    Activity, Call, Effect, Engine, Env, Failure, Found, Registry, Resource, Saga, SagaId, Workflow, saga,
    secs,
};
use amends_tests::postgres::Server;
use serde::{Deserialize, Serialize};

/// A bound that no machine misses.
const PATIENCE: Duration = secs(120);

/// A rule of the database's own: nothing that is found out, and no act, says "forbidden".
const RULE: Migrations = Migrations {
    table: "rule_migration",
    sqlite: &[(
        "rule",
        "create trigger no_such_word before insert on journal when new.event like '%forbidden%'
           and new.kind in ('step_completed', 'step_found', 'operator_intervened')
         begin select raise(abort, 'no such word in this house'); end",
    )],
    postgres: &[(
        "rule",
        "create function no_such_word() returns trigger language plpgsql as $$
         begin
           if new.event like '%forbidden%'
             and new.kind in ('step_completed', 'step_found', 'operator_intervened') then raise exception 'no such word in this house'; end if;
           return new;
         end $$;
         create trigger no_such_word before insert on journal for each row execute function no_such_word()",
    )],
};

/// What Postgres says of a statement whose values are together more than it can allocate; as if each of these words were
/// that.
const TOO_LARGE: Migrations = Migrations {
    table: "rule_migration",
    sqlite: &[],
    postgres: &[(
        "rule",
        "create function too_large() returns trigger language plpgsql as $$
         begin
           if new.event like '%forbidden%' and new.kind = 'step_completed' then
             raise exception 'invalid memory alloc request size 1073741824' using errcode = 'XX000';
           end if;
           return new;
         end $$;
         create trigger too_large before insert on journal for each row execute function too_large()",
    )],
};

const NONE: Migrations = Migrations { table: "rule_migration", sqlite: &[], postgres: &[] };

/// Names of things that are there.
#[derive(Default)]
struct Shelf(Mutex<BTreeSet<String>>);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Put {
    name: String,
    says: String,
}

impl Activity for Put {
    const NAME: &'static str = "shelf.put";
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(1) };
    type Client = Shelf;
    type Output = String;

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("shelf", "thing", call.name("thing")))
    }

    async fn execute(&self, shelf: &Shelf, _: &Call) -> Result<String, Failure> {
        shelf.0.lock().unwrap().insert(self.name.clone());
        Ok(self.says.clone())
    }

    async fn find(&self, shelf: &Shelf, _: &Call) -> Result<Found<String>, Failure> {
        let is_there = shelf.0.lock().unwrap().contains(&self.name);
        Ok(if is_there { Found::Usable(self.says.clone()) } else { Found::Nothing })
    }

    async fn compensate(&self, shelf: &Shelf, _: &String, _: &Call) -> Result<(), Failure> {
        shelf.0.lock().unwrap().remove(&self.name);
        Ok(())
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Order {
    name: String,
    says: String,
    owner: Option<String>,
}

/// Puts one thing on the shelf, and leaves it to an owner.
struct Place;

impl Workflow for Place {
    const NAME: &'static str = "place";
    const VERSION: u32 = 1;
    type Input = Order;
    type Output = ();

    fn owner(order: &Order, (): &()) -> Option<String> {
        order.owner.clone()
    }

    async fn run(&self, saga: &Saga, order: Order) -> saga::Result<()> {
        saga.step("thing", Put { name: order.name, says: order.says }).await?;
        Ok(())
    }
}

struct House {
    engine: Engine,
    shelf: Arc<Shelf>,
    _folder: tempfile::TempDir,
    _server: Option<Arc<Server>>,
    name: &'static str,
}

impl House {
    fn new(name: &'static str, store: Arc<dyn Store>, vault: Vault, env: Env) -> Self {
        let shelf = Arc::new(Shelf::default());
        let registry = Registry::default().activity::<Put>(shelf.clone()).workflow(Place);
        let engine = Engine::start(store, vault, registry, env, "test");
        Self { engine, shelf, _folder: tempfile::tempdir().unwrap(), _server: None, name }
    }

    async fn sqlite(own: &'static [Migrations]) -> Self {
        let (folder, env) = (tempfile::tempdir().unwrap(), Env::seeded(7).with_pace(10));
        let (file, key) = (folder.path().join("a.db"), folder.path().join("key"));
        let (store, vault) = SqliteStore::open(&file, &key, "test", own, &env).await.unwrap();
        Self { _folder: folder, ..Self::new("SQLite", Arc::new(store), vault, env) }
    }

    async fn postgres(own: &'static [Migrations]) -> Self {
        let env = Env::seeded(7).with_pace(10);
        let server = Server::shared();
        let (store, vault) = server.database().open(own, &env).await;
        Self { _server: Some(server), ..Self::new("Postgres", Arc::new(store), vault, env) }
    }

    async fn memory() -> Self {
        let env = Env::seeded(7).with_pace(10);
        let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
        Self::new("memory", Arc::new(store), vault, env)
    }

    async fn all() -> [Self; 3] {
        [Self::memory().await, Self::sqlite(&[NONE]).await, Self::postgres(&[NONE]).await]
    }

    async fn start(&self, name: &str, says: &str, owner: Option<String>) -> SagaId {
        let order = Order { name: name.to_owned(), says: says.to_owned(), owner };
        let new = self.engine.new_saga::<Place>(name, &order).unwrap();
        self.engine.begin(new).await.unwrap().saga().clone()
    }

    async fn until(&self, saga: &SagaId, is_so: impl Fn(&SagaRow) -> bool) -> SagaRow {
        let row = self.engine.wait(saga, PATIENCE, &is_so).await.unwrap().unwrap();
        assert!(is_so(&row), "{}: {row:?}", self.name);
        row
    }

    async fn parked(&self, saga: &SagaId) -> SagaRow {
        // And nothing is due by itself: it is not tried in a circle.
        let is_so = |row: &SagaRow| row.attention.iter().any(|one| one.to_string() == "store_refused");
        self.until(saga, |row| is_so(row) && row.due_at.is_none()).await
    }

    async fn ended(&self, saga: &SagaId, state: SagaState) {
        self.until(saga, |row| row.state == state).await;
    }

    async fn settled(&self, saga: &SagaId) -> Vec<String> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let audit = self.engine.audit(saga).await.unwrap();
            if audit.iter().all(|act| act.outcome.is_some()) {
                return audit.into_iter().filter_map(|act| act.outcome).collect();
            }
            assert!(tokio::time::Instant::now() < deadline, "{}: {audit:?}", self.name);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn journal_kinds(entries: &[amends_engine::journal::Entry], kind: &str) -> usize {
        entries.iter().filter(|entry| entry.event.name() == kind).count()
    }
}

/// Text that no compression makes short.
fn long(length: usize) -> String {
    let env = Env::seeded(11);
    let mut text = String::new();
    while text.len() < length {
        text.push_str(&env.uuid().simple().to_string());
    }
    text.truncate(length);
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_no_index_takes_parks_its_saga_and_cancel_works() {
    for house in House::all().await {
        let bad = house.start("bad", "x", Some(long(3000))).await;
        let good = house.start("good", "x", Some("anna".to_owned())).await;
        house.ended(&good, SagaState::Completed).await;
        house.parked(&bad).await;
        let why = house.engine.why(&bad).await.unwrap().unwrap().to_string();
        assert!(why.contains("3000"), "{}: {why}", house.name);
        house.engine.retry(&bad, "anna", "perhaps").await.unwrap();
        house.settled(&bad).await;
        house.parked(&bad).await;
        house.engine.cancel(&bad, "anna", "it cannot be").await.unwrap();
        house.ended(&bad, SagaState::Compensated).await;
        assert_eq!(*house.shelf.0.lock().unwrap(), BTreeSet::from(["good".to_owned()]), "{}", house.name);
        house.engine.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_rule_of_the_database_refuses_is_said_in_its_words_and_the_rest_of_the_group_is_written() {
    for house in [House::sqlite(&[RULE]).await, House::postgres(&[RULE]).await] {
        let mut others = Vec::new();
        let mut bad = None;
        for number in 0..30 {
            let saga = house
                .start(&format!("thing-{number}"), if number == 15 { "forbidden" } else { "x" }, None)
                .await;
            if number == 15 { bad = Some(saga) } else { others.push(saga) }
        }
        let bad = bad.unwrap();
        for saga in &others {
            house.ended(saga, SagaState::Completed).await;
        }
        house.parked(&bad).await;
        let why = house.engine.why(&bad).await.unwrap().unwrap().to_string();
        assert!(why.contains("no such word in this house"), "{}: {why}", house.name);
        // The way back looks for the thing, and what it finds cannot be written either.
        house.engine.cancel(&bad, "anna", "then not").await.unwrap();
        house.settled(&bad).await;
        house.until(&bad, |row| row.state == SagaState::Compensating && !row.attention.is_empty()).await;
        house.parked(&bad).await;
        house.shelf.0.lock().unwrap().remove("thing-15");
        let absent = Act::Settle { step: "thing".into(), verdict: Verdict::Absent };
        house.engine.act(&bad, absent, "anna", "taken away by hand").await.unwrap();
        house.settled(&bad).await;
        // There is nothing left to take back, so that it ends by itself.
        house.ended(&bad, SagaState::Compensated).await;
        let entries = house.engine.view(&bad).await.unwrap().unwrap().entries;
        let parked = House::journal_kinds(&entries, "parked");
        assert!(parked <= 3, "{}: parked {parked} times", house.name);
        house.engine.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_act_that_cannot_be_written_is_settled_as_refused_and_the_next_one_is_done() {
    for house in House::all().await {
        let saga = house.start("bad", "x", Some(long(3000))).await;
        house.parked(&saga).await;
        house.engine.cancel(&saga, "anna", &"why ".repeat(10)).await.unwrap();
        house.ended(&saga, SagaState::Compensated).await;
        let outcomes = house.settled(&saga).await;
        assert_eq!(outcomes, ["done"], "{}", house.name);
        house.engine.stop().await;
    }
    for house in [House::sqlite(&[RULE]).await, House::postgres(&[RULE]).await] {
        let saga = house.start("a", "x", Some("owner".to_owned())).await;
        house.ended(&saga, SagaState::Completed).await;
        let stuck = house.start("b", "forbidden", None).await;
        house.parked(&stuck).await;
        house.engine.retry(&stuck, "anna", "a forbidden reason").await.unwrap();
        let outcomes = house.settled(&stuck).await;
        assert!(outcomes[0].contains("no such word"), "{}: {outcomes:?}", house.name);
        house.shelf.0.lock().unwrap().remove("b");
        house.engine.cancel(&stuck, "anna", "then not").await.unwrap();
        house.until(&stuck, |row| row.state.is_ended()).await;
        assert_eq!(house.settled(&stuck).await[1], "done", "{}", house.name);
        house.engine.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_from_outside_and_is_too_long_is_refused_by_name_and_limit() {
    let refused = |house: &House, field: &str, error: String| {
        assert!(error.contains(field) && error.contains("too long"), "{}: {error}", house.name);
        assert!(!error.contains("unavailable"), "{}: {error}", house.name);
    };
    for house in House::all().await {
        let saga = house.start("a", "x", Some("anna".to_owned())).await;
        let order = Order { name: "b".into(), says: "x".into(), owner: None };
        let new = |key: &str| house.engine.new_saga::<Place>(key, &order).unwrap();
        let long = long(3000);
        refused(&house, "key", house.engine.begin(new(&long)).await.unwrap_err().to_string());
        let crowded = new("c").one_of(long.clone(), 3);
        refused(&house, "concurrency key", house.engine.begin(crowded).await.unwrap_err().to_string());
        let signal = house.engine.signal(&saga, &long, "word", serde_json::Value::Null).await;
        refused(&house, "id", signal.unwrap_err().to_string());
        let gate = house.engine.close_gate(&long, "anna", "no reason").await;
        refused(&house, "gate", gate.unwrap_err().to_string());
        // The rest goes on as if nothing had been asked.
        house.ended(&saga, SagaState::Completed).await;
        let again = house.engine.begin(new("c")).await.unwrap();
        house.ended(again.saga(), SagaState::Completed).await;
        assert!(
            matches!(house.engine.begin(new(&long)).await, Err(error) if !matches!(error, Error::Unavailable(_)))
        );
        house.engine.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_for_the_server_parks_its_saga_and_no_other_of_its_group() {
    let house = House::postgres(&[TOO_LARGE]).await;
    let starts = (0..60).map(|number| {
        let says = if number % 20 == 10 { "forbidden" } else { "x" };
        let (house, name) = (&house, format!("thing-{number}"));
        async move { (house.start(&name, says, None).await, says) }
    });
    for (saga, says) in futures::future::join_all(starts).await {
        if says == "x" {
            house.ended(&saga, SagaState::Completed).await
        } else {
            drop(house.parked(&saga).await)
        }
    }
    house.engine.stop().await;
}

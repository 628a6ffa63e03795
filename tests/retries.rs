//! What lost against another transaction is run again by the store, as a whole, and is written once; nothing else is
//! run again. The losses are the server's own: a row that another session moved away, and a deadlock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use amends_engine::ids::{OperationId, ResourceId, SagaId, StepKey};
use amends_engine::journal::act::Act;
use amends_engine::store::tx::Beside;
use amends_engine::store::{
    Concurrency, Error, GateMove, Job, Letter, Loose, LooseJob, Message, NewSaga, ResourceRow, ResourceState,
    ResourceWrite, Started, Store,
};
use amends_engine::testing::conformance::{NOTES, Subject};
use amends_engine::{Engine, Env, params};
use amends_tests::postgres::{Base, Server};
use amends_tests::yard::{self, Yard};
use futures::future::BoxFuture;
use sqlx::{Connection, Executor, PgConnection};

/// Every way to write, and the table in which it meets the others.
const WAYS: &[(&str, &str)] = &[
    ("a turn", "journal"),
    ("a turn with a letter", "inbox"),
    ("a turn that waits for its row", "journal"),
    ("a transact", "note"),
    ("a transact, at its commit", "note"),
    ("a transaction of no saga's", "note"),
    ("a start", "journal"),
    ("a signal", "inbox"),
    ("an act", "audit"),
    ("a claim", "saga_lease"),
    ("a claim of what needs a place", "concurrency"),
    ("a release", "saga_lease"),
    ("a clean-out", "saga_lease"),
    ("a renewal", "worker"),
    ("a gate's move", "gate"),
    ("a sign of unreadable", "saga"),
];

/// How often a gate is moved before it counts as one that does not.
const TRIES: usize = 20;

/// Row 1 counts what was written. Row 0 is where a writer can be made to wait; row 2 is what others want first.
const MEETING: &str = "
    create table meeting (id bigint, place bigint, n bigint) partition by list (place);
    create table meeting_1 partition of meeting for values in (1);
    create table meeting_2 partition of meeting for values in (2);
    insert into meeting values (0, 1, 0), (1, 1, 0), (2, 1, 0);
    create function meet() returns trigger language plpgsql as $$ begin
      update meeting set n = n + 1 where id = 1;
      update meeting set n = n + 1 where id = 0;
      update meeting set n = n + 1 where id = 2;
      return null;
    end $$;";

/// A store on a database in which writers meet.
struct Stage {
    server: Arc<Server>,
    base: Base,
    subject: Subject,
    number: AtomicU32,
}

/// Another session, which never finds a deadlock itself.
struct Session {
    connection: PgConnection,
    pid: i32,
}

impl Session {
    async fn open(base: &Base) -> Self {
        let mut connection = PgConnection::connect(&base.url).await.unwrap();
        connection.execute("set deadlock_timeout = '1h'").await.unwrap();
        let pid = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut connection).await.unwrap();
        Self { connection, pid }
    }

    async fn run(&mut self, sql: &'static str) {
        self.connection.execute(sql).await.unwrap();
    }
}

impl Stage {
    async fn new(seed: u64) -> Self {
        let server = Server::shared();
        let base = server.database();
        server.psql("postgres", &format!("alter database {} set deadlock_timeout = '50ms'", base.name));
        let env = Env::seeded(seed);
        let (store, vault) = base.open(NOTES, &env).await;
        server.psql(&base.name, MEETING);
        let subject = Subject { name: "retries", store: Arc::new(store), vault, env, another: None };
        subject.store.renew().await.unwrap();
        Self { server, base, subject, number: AtomicU32::new(0) }
    }

    fn store(&self) -> Arc<dyn Store> {
        self.subject.store.clone()
    }

    fn key(&self) -> String {
        format!("k{}", self.number.fetch_add(1, Ordering::Relaxed))
    }

    fn psql(&self, sql: &str) -> String {
        self.server.psql(&self.base.name, sql)
    }

    fn errors(&self, state: &str) -> usize {
        self.server.errors(&self.base.name, state)
    }

    /// From here on whoever writes to this table comes to the meeting.
    fn meet(&self, way: &str, table: &str) {
        let (kind, when) = if way.ends_with("at its commit") {
            ("constraint trigger", "deferrable initially deferred")
        } else {
            ("trigger", "")
        };
        self.psql(&format!(
            "create {kind} meet after insert or update on {table} {when} for each row execute function meet()"
        ));
    }

    fn part(&self, table: &str) {
        self.psql(&format!("drop trigger meet on {table}"));
    }

    fn written(&self) -> i64 {
        self.psql("select n from meeting where id = 1").parse().unwrap()
    }

    /// Waits until a session waits for this one, or this one for another.
    async fn until_waiting(&self, holder: Option<i32>, waiter: Option<i32>) {
        until_waiting(&self.base, holder, waiter).await;
    }

    /// A write this way, with all that has to be there before.
    async fn write(&self, way: &str) -> BoxFuture<'static, Result<(), Error>> {
        let (store, subject) = (self.store(), &self.subject);
        let saga = subject.started(&self.key()).await;
        let mut turn = subject.next(&saga).await;
        let row = thing(&saga, &subject.env);
        turn.resources = vec![ResourceWrite { row, stored: None }];
        let message = Message::Signal { name: "word".into(), value: "go".into() };
        let letter = Letter { id: self.key(), saga: saga.clone(), message, at: subject.env.now() };
        let text = self.key();
        match way {
            "a turn" => Box::pin(async move { store.append(turn.into()).await }),
            "a turn with a letter" => {
                turn.letters = vec![letter];
                Box::pin(async move { store.append(turn.into()).await })
            }
            "a turn that waits for its row" => {
                let mut other = Session::open(&self.base).await;
                other.run("begin").await;
                let lock = "select * from saga_lease where saga = $1 for update";
                sqlx::query(lock).bind(saga.as_str()).execute(&mut other.connection).await.unwrap();
                let base = self.base.clone();
                Box::pin(async move {
                    let writing = tokio::spawn(async move { store.append(turn.into()).await });
                    until_waiting(&base, Some(other.pid), None).await;
                    other.run("rollback").await;
                    writing.await.unwrap()
                })
            }
            "a transact" | "a transact, at its commit" => {
                let mut behind = turn.clone();
                behind.resources.clear();
                behind.row.seq += 1;
                behind.entries.iter_mut().for_each(|entry| entry.seq += 1);
                let job: Job = Arc::new(move |statements| {
                    let (behind, text) = (behind.clone(), text.clone());
                    Box::pin(async move {
                        statements
                            .execute("insert into note (text) values ($1)".into(), params![text])
                            .await?;
                        Ok(behind)
                    })
                });
                Box::pin(async move { store.transact(turn.into(), job).await.map(drop) })
            }
            "a transaction of no saga's" => {
                let (env, key) = (subject.env.clone(), self.key());
                let job: LooseJob = Arc::new(move |statements| {
                    let new = NewSaga::raw(&env, SagaId::from_uuid(env.uuid()), "w", 1, key.clone().into());
                    let beside = Beside { starts: vec![new], ..Beside::default() };
                    let text = text.clone();
                    Box::pin(async move {
                        statements
                            .execute("insert into note (text) values ($1)".into(), params![text])
                            .await?;
                        Ok(Loose { output: "done".into(), beside, letters: Vec::new() })
                    })
                });
                Box::pin(async move { store.run(job).await.map(drop) })
            }
            "a start" => {
                let id = SagaId::from_uuid(subject.env.uuid());
                let new = NewSaga::raw(&subject.env, id.clone(), "w", 1, text.into());
                Box::pin(async move {
                    store.start(new).await.map(|started| assert_eq!(started, Started::New(id)))
                })
            }
            "a signal" => Box::pin(async move { store.post(letter).await }),
            "an act" => {
                let operation = OperationId::from_uuid(subject.env.uuid());
                let (act, actor, reason) = (Act::Retry, "ann".to_owned(), "to see".to_owned());
                let message = Message::Act { operation, act, actor, reason };
                Box::pin(async move { store.post(Letter { message, ..letter }).await })
            }
            "a claim" => {
                let now = subject.env.now();
                Box::pin(async move {
                    store.claim(now, 1).await.map(|claimed| assert_eq!(claimed.len(), 1, "{claimed:?}"))
                })
            }
            "a claim of what needs a place" => {
                // With a time before which it does not begin it takes no place when it is started.
                let id = SagaId::from_uuid(subject.env.uuid());
                let new = NewSaga {
                    priority: 9,
                    start_at: Some(subject.env.now()),
                    concurrency: Some(Concurrency { key: text, limit: 1 }),
                    ..NewSaga::raw(&subject.env, id, "w", 1, self.key().into())
                };
                store.start(new).await.unwrap();
                let now = subject.env.now();
                Box::pin(async move {
                    // One whose places another gives just now is given back, and holds up no other claim.
                    match store.claim(now, 1).await?.as_slice() {
                        [] => Err(Error::Unavailable("its places are given later".to_owned())),
                        // This one, or one of an earlier try that is due again by now.
                        claimed => {
                            assert_eq!(claimed.len(), 1, "{claimed:?}");
                            Ok(())
                        }
                    }
                })
            }
            "a release" | "a clean-out" => {
                store.keep_only(&[]).await.unwrap();
                let claimed = store.claim(subject.env.now(), 1).await.unwrap();
                let cleans = way == "a clean-out";
                Box::pin(async move {
                    if cleans { store.keep_only(&[]).await } else { store.release(&claimed[0]).await }
                })
            }
            "a renewal" => Box::pin(async move { store.renew().await.map(drop) }),
            "a gate's move" => {
                let moved = GateMove {
                    key: text,
                    seen: 0,
                    state: Default::default(),
                    let_go: Vec::new(),
                    letters: Vec::new(),
                    at: subject.env.now(),
                };
                // It is said to have been moved by others, and whoever moves it looks again.
                Box::pin(async move {
                    for _ in 0..TRIES {
                        if store.move_gate(moved.clone()).await? {
                            return Ok(());
                        }
                    }
                    panic!("it never moves")
                })
            }
            "a sign of unreadable" => {
                Box::pin(async move { store.mark_unreadable(&saga, "a line is damaged").await })
            }
            other => panic!("there is no such way: {other}"),
        }
    }

    fn held(&self) -> i64 {
        self.psql("select count(*) from saga_lease where holder is not null").parse().unwrap()
    }

    /// One write more than before, and no saga is held that nobody was told of.
    fn was_written_once(&self, way: &str, (written, held): (i64, i64)) {
        assert_eq!(self.written() - written, 1, "{way}");
        assert!(self.held() - held <= 1, "{way}: more is held than was told");
    }

    /// Each journal is without a gap and as long as its fence says, and nothing was made twice.
    fn check(&self) {
        let gaps = "select count(*) from saga_lease l
            join (select saga, count(*) as lines, max(seq) as last from journal group by saga) j using (saga)
            where l.seq <> j.last or j.lines <> j.last";
        assert_eq!(self.psql(gaps), "0");
        assert_eq!(self.psql("select count(*) from saga"), self.psql("select count(*) from saga_lease"));
        let doubled =
            "select count(*) from (select saga from resource group by saga having count(*) > 1) twice";
        assert_eq!(self.psql(doubled), "0");
    }
}

async fn until_waiting(base: &Base, holder: Option<i32>, waiter: Option<i32>) {
    let mut watch = PgConnection::connect(&base.url).await.unwrap();
    let began = Instant::now();
    let waits = "select count(*) from pg_stat_activity
        where ($1 is null or $1 = any (pg_blocking_pids(pid))) and ($2 is null or pid = $2)
          and cardinality(pg_blocking_pids(pid)) > 0";
    loop {
        let query = sqlx::query_scalar::<_, i64>(waits).bind(holder).bind(waiter);
        if query.fetch_one(&mut watch).await.unwrap() > 0 {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(120), "nobody waits for {holder:?} as {waiter:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn thing(saga: &SagaId, env: &Env) -> ResourceRow {
    ResourceRow {
        id: ResourceId::from_uuid(env.uuid()),
        provider: "shed".into(),
        kind: "thing".into(),
        name: "box".into(),
        external_id: None,
        state: ResourceState::Intended,
        holder: saga.to_string(),
        keeper: None,
        saga: saga.clone(),
        step: StepKey::from("box"),
        within: None,
        rev: 1,
        intended_at: env.now(),
        changed_at: env.now(),
        unsettled_until: None,
    }
}

/// The row is moved to another partition while it is waited for: that is 40001 also at READ COMMITTED.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_to_serialize_is_written_again_by_the_store_and_once() {
    let stage = Stage::new(90).await;
    let mut other = Session::open(&stage.base).await;
    for (number, (way, table)) in WAYS.iter().enumerate() {
        let write = stage.write(way).await;
        stage.meet(way, table);
        let before = (stage.written(), stage.held());
        other.run("begin; update meeting set place = 3 - place where id = 1").await;
        let writing = tokio::spawn(write);
        stage.until_waiting(Some(other.pid), None).await;
        other.run("commit").await;
        writing.await.unwrap().unwrap_or_else(|error| panic!("{way}: {error}"));
        assert_eq!(stage.errors("40001"), number + 1, "{way}: it was to fail, once");
        stage.was_written_once(way, before);
        stage.part(table);
    }
    stage.check();
    stage.store().close().await;
}

/// Two sessions want two rows in opposite order, and the server ends the store's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_loses_in_a_deadlock_is_written_again_by_the_store_and_once() {
    let stage = Stage::new(91).await;
    let mut usher = Session::open(&stage.base).await;
    for (way, table) in WAYS {
        let mut other = Session::open(&stage.base).await;
        let write = stage.write(way).await;
        stage.meet(way, table);
        let before = (stage.written(), stage.held());
        let lost = stage.errors("40P01");
        other.run("begin; update meeting set n = n where id = 2").await;
        usher.run("begin; update meeting set n = n where id = 0").await;
        // The store has row 1 and waits at row 0; the other waits for row 1, and only then may the store go on to 2.
        let writing = tokio::spawn(write);
        stage.until_waiting(Some(usher.pid), None).await;
        let pid = other.pid;
        let wants =
            tokio::spawn(async move { other.run("update meeting set n = n where id = 1; commit").await });
        stage.until_waiting(None, Some(pid)).await;
        usher.run("rollback").await;
        wants.await.unwrap();
        writing.await.unwrap().unwrap_or_else(|error| panic!("{way}: {error}"));
        // Once as a rule: what is run again may be faster than whom it lost to, and then it loses once more.
        assert!(stage.errors("40P01") > lost, "{way}: it was to lose");
        stage.was_written_once(way, before);
        stage.part(table);
    }
    stage.check();
    stage.store().close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_otherwise_is_tried_once_and_said() {
    let stage = Stage::new(92).await;
    // A lock that was not had in time, a statement that was cancelled, a server without room, a constraint.
    for state in ["55P03", "57014", "53200", "23514"] {
        stage.psql(&format!(
            "create or replace function meet() returns trigger language plpgsql as
             $$ begin raise exception 'no' using errcode = '{state}'; end $$"
        ));
        for (number, (way, table)) in WAYS.iter().enumerate() {
            let write = stage.write(way).await;
            stage.meet(way, table);
            let outcome = write.await;
            // A constraint is not passed by another try; the others may be.
            let is_said = match &outcome {
                Err(Error::Job(_)) => true,
                Err(error) => error.is_permanent() == (state == "23514"),
                Ok(_) => false,
            };
            assert!(is_said, "{way}, {state}: {outcome:?}");
            assert_eq!(stage.errors(state), number + 1, "{way}, {state}");
            stage.part(table);
        }
    }
    stage.check();
    stage.store().close().await;
}

/// A saga whose transaction is lost at its commit, behind all it did, is read again from its journal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saga_whose_transaction_is_lost_at_its_commit_does_it_once() {
    let server = Server::shared();
    let base = server.database();
    let env = Env::seeded(93).with_pace(100);
    let (store, vault) = base.open(yard::NOTES, &env).await;
    server.psql(&base.name, MEETING);
    server.psql(
        &base.name,
        "create constraint trigger meet after insert on note deferrable initially deferred
         for each row execute function meet()",
    );
    let yard = Arc::new(Yard::default());
    let engine = Engine::start(Arc::new(store), vault, yard::registry(&yard), env.clone(), "test");
    let mut other = Session::open(&base).await;
    other.run("begin; update meeting set place = 3 - place where id = 1").await;
    let id = SagaId::from_uuid(env.uuid());
    engine.begin(NewSaga::raw(&env, id.clone(), "straight", 1, "a".into())).await.unwrap();
    until_waiting(&base, Some(other.pid), None).await;
    other.run("commit").await;
    let row = engine.wait(&id, Duration::from_secs(120), |_| false).await.unwrap().unwrap();
    assert_eq!(row.state, amends_engine::journal::state::SagaState::Completed, "{row:?}");
    assert_eq!(server.errors(&base.name, "40001"), 1, "it was to fail, once");
    // What it began with, and what it signed.
    assert_eq!(server.psql(&base.name, "select n from meeting where id = 1"), "2");
    assert_eq!(server.psql(&base.name, "select count(*) from note"), "2");
    let lines = engine.store().journal(&id).await.unwrap();
    assert!(lines.iter().zip(1..).all(|(line, seq)| line.seq == seq));
    assert!(yard.doubled().is_empty(), "{:?}", yard.doubled());
    engine.stop().await;
}

/// Two that start under one key have both looked, and found nothing: who comes second is told of the first's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_whose_key_was_taken_after_it_looked_is_that_saga() {
    let stage = Stage::new(94).await;
    let (store, env) = (stage.store(), stage.subject.env.clone());
    let (looked, has_looked) = tokio::sync::oneshot::channel();
    let (go, may_go) = tokio::sync::oneshot::channel::<()>();
    let waits = Arc::new(std::sync::Mutex::new(Some((looked, may_go))));
    let start = move |env: &Env| {
        let new = NewSaga::raw(env, SagaId::from_uuid(env.uuid()), "w", 1, 1.into());
        NewSaga { key: "k".into(), ..new }
    };
    let job: LooseJob = Arc::new({
        let env = env.clone();
        move |statements| {
            let (new, waits) = (start(&env), waits.clone());
            Box::pin(async move {
                statements.execute("insert into note (text) values ('n')".into(), params![]).await?;
                let known = statements.started_under("k").await?;
                let first = waits.lock().unwrap().take();
                if let Some((looked, may_go)) = first {
                    looked.send(()).unwrap();
                    may_go.await.unwrap();
                }
                let (id, starts) = match known {
                    Some((id, _)) => (id, Vec::new()),
                    None => (new.id.clone(), vec![new]),
                };
                let beside = Beside { starts, ..Beside::default() };
                Ok(Loose { output: id.to_string().into(), beside, letters: Vec::new() })
            })
        }
    });
    let running = tokio::spawn({
        let store = store.clone();
        async move { store.run(job).await }
    });
    has_looked.await.unwrap();
    let Started::New(first) = store.start(start(&env)).await.unwrap() else { panic!("it is new") };
    go.send(()).unwrap();
    let (output, _) = running.await.unwrap().unwrap();
    assert_eq!(output, first.as_str(), "what it answers is there");
    assert_eq!(stage.psql("select count(*) from saga"), "1");
    assert_eq!(stage.psql("select count(*) from note"), "1");
    stage.check();
    store.close().await;
}

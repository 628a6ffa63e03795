//! Lists stay quick however much there is: each is read by an index, and no more of it than is shown.
//!
//! `AMENDS_TEST_LIST_SAGAS` says how many sagas there are (six ledger rows each), 2,000 if it is not set; with 20,000 or
//! more, times are printed: `AMENDS_TEST_LIST_SAGAS=100000 cargo test -p amends-tests --test lists -- --nocapture --test-threads 1`; with
//! `AMENDS_TEST_LIST_PLANS` set, plans are.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use amends_activities::pool;
use amends_engine::activity::Effect;
use amends_engine::journal::Event;
use amends_engine::journal::event::Asked;
use amends_engine::journal::state::SagaState;
use amends_engine::secret::Vault;
use amends_engine::store::sqlite::SqliteStore;
use amends_engine::store::tx::{Beside, Sql};
use amends_engine::store::{Loose, LooseJob, ResourceFilter, ResourceState, SagaFilter, Store};
use amends_engine::{Engine, Env, Registry, SagaId, StepKey, Timestamp, params};
use amends_tests::postgres::Server as Postgres;
use amends_tests::process::{Server, free_port};
use serde_json::Value;

fn count() -> i64 {
    std::env::var("AMENDS_TEST_LIST_SAGAS").map_or(2_000, |text| text.parse().unwrap())
}

/// A saga's number as 26 characters that sort like it; of the newest it is the highest.
const ID: &str = "'sg_0' || substr('0000000000000000000000000' || i, -25)";

/// Sagas as after a busy month: most have completed, some failed, a hundred are under way, and of each hundredth
/// somebody should know. One in fifty is a child of the first, and each has six things on the ledger.
fn seed(count: i64) -> Vec<Sql> {
    let text = |sqlite: String| -> &'static str { Box::leak(sqlite.into_boxed_str()) };
    let series = "with recursive n (i) as (select 1 union all select i + 1 from n where i < $1)";
    let id_sqlite = ID.to_owned();
    let id_postgres = "'sg_0' || lpad(i::text, 25, '0')".to_owned();
    let saga = |id: &str, extra: &str, values: &str| {
        format!(
            "{series} insert into saga (id, workflow, workflow_version, state, attention, step, error, fingerprint, parent,
               labels, start_key, start_fingerprint, created_at, updated_at, ended_at, output{extra})
             select {id}, 'workflow-' || (i % 7), 1,
               case when i > $1 - 50 then 'running' when i > $1 - 100 then 'waiting' when i % 1000 = 7 then 'paused'
                 when i % 200 = 3 then 'failed' when i % 50 = 2 then 'compensated' else 'completed' end,
               case when i % 100 = 5 then '[\"leak\"]' else '[]' end, 'a step', 'an error in words', 
               case when i % 100 = 5 then 'fp-' || (i % 11) end,
               case when i % 50 = 1 and i > 1 then {first} end,
               '{{\"instance\":\"in_' || (i % 5000) || '\",\"team\":\"blue\"}}',
               'key-' || i, 'print', 1760000000000000 + i, 1760000000000000 + i,
               case when i <= $1 - 100 and i % 1000 <> 7 then 1760000000000000 + i end,
               '\"' || substr('{filler}', 1, 400) || '\"'{values}
             from n",
            first = if id.contains("lpad") { id_postgres.replace("i::text", "'1'") } else { id_sqlite.replace("|| i,", "|| 1,") },
            filler = "o".repeat(400),
        )
    };
    let resource = |id: &str, saga: &str| {
        format!(
            "{series}, k (j) as (select 0 union all select j + 1 from k where j < 5)
             insert into resource (id, provider, kind, name, external_id, state, holder, saga, step, rev, intended_at, changed_at)
             select {id}, case j when 0 then 'openrouter' when 1 then 'telnyx' else 'railway' end, 'thing', 'am-test-' || i || '-' || j,
               'ext-' || i || '-' || j,
               case when i % 500 = 9 then 'in_doubt' when i > $1 - 100 then 'intended' when i % 3 = 0 then 'live' else 'gone' end,
               case when i % 3 = 0 then 'in_' || (i % 5000) else {saga} end, {saga}, 'step-' || j, 2,
               1760000000000000 + i, 1760000000000000 + i
             from n cross join k",
        )
    };
    let journal = |saga: &str| {
        format!(
            "{series}, k (j) as (select 1 union all select j + 1 from k where j < 1)
             insert into journal (saga, seq, at, epoch, version, kind, event)
             select {saga}, j, 1760000000000000 + i, 1, 1, 'saga_started',
               '{{\"kind\":\"saga_started\",\"workflow\":\"w\",\"workflow_version\":1,\"input\":null}}'
             from n cross join k",
        )
    };
    let _ = count;
    let resource_id = |id: &str| format!("replace({id}, 'sg_0', 'rs_') || j");
    vec![
        Sql {
            sqlite: text(saga(&id_sqlite, ", epoch, seq", ", 1, 1")),
            postgres: text(saga(&id_postgres, "", "")),
        },
        Sql {
            sqlite: "delete from saga where workflow_version > $1 + 1",
            postgres: text(format!(
                "{series} insert into saga_lease (saga, epoch, seq) select {id_postgres}, 1, 1 from n"
            )),
        },
        Sql {
            sqlite: text(resource(&resource_id(&id_sqlite), &id_sqlite)),
            postgres: text(resource(&resource_id(&id_postgres), &id_postgres)),
        },
        Sql { sqlite: text(journal(&id_sqlite)), postgres: text(journal(&id_postgres)) },
    ]
}

async fn run(store: &dyn Store, sql: Sql, count: i64) {
    let job: LooseJob = Arc::new(move |statements| {
        Box::pin(async move {
            statements.execute(sql, params![count]).await?;
            Ok(Loose { output: Value::Null, beside: Beside::default(), letters: Vec::new() })
        })
    });
    store.run(job).await.unwrap();
}

/// Every list that is offered, by name.
fn sagas(count: i64) -> Vec<(&'static str, SagaFilter)> {
    let all = || SagaFilter { limit: 51, ..SagaFilter::default() };
    let id = |number: i64| SagaId::stored(format!("sg_0{number:025}"));
    let labelled = |value: &str| Some(("instance".to_owned(), value.to_owned()));
    let team = Some(("team".to_owned(), "blue".to_owned()));
    let workflow = || Some("workflow-3".to_owned());
    let failed = || vec![SagaState::Failed];
    let open = vec![SagaState::Queued, SagaState::Running];
    let ended = vec![SagaState::Completed, SagaState::Compensated, SagaState::Failed];
    vec![
        ("all", all()),
        ("all, an older page", SagaFilter { before: Some(id(count / 2)), ..all() }),
        ("state=queued,running", SagaFilter { states: open.clone(), ..all() }),
        ("state=completed,compensated,failed", SagaFilter { states: ended, ..all() }),
        ("state=paused", SagaFilter { states: vec![SagaState::Paused], ..all() }),
        ("state=compensating (none)", SagaFilter { states: vec![SagaState::Compensating], ..all() }),
        ("attention=any", SagaFilter { attention: true, ..all() }),
        ("attention=any, 200 of them", SagaFilter { attention: true, limit: 200, ..all() }),
        ("attention=any, state=failed", SagaFilter { attention: true, states: failed(), ..all() }),
        ("workflow", SagaFilter { workflow: workflow(), ..all() }),
        ("workflow that there is not", SagaFilter { workflow: Some("nothing".to_owned()), ..all() }),
        ("workflow, state=failed", SagaFilter { workflow: workflow(), states: failed(), ..all() }),
        ("workflow, attention=any", SagaFilter { workflow: workflow(), attention: true, ..all() }),
        ("label", SagaFilter { label: labelled("in_77"), ..all() }),
        ("label that there is not", SagaFilter { label: labelled("in_none"), ..all() }),
        (
            "label of all, state=paused",
            SagaFilter { label: team.clone(), states: vec![SagaState::Paused], ..all() },
        ),
        (
            "label of all, attention=any, workflow",
            SagaFilter { label: team, attention: true, workflow: workflow(), ..all() },
        ),
        (
            "label, state=completed",
            SagaFilter { label: labelled("in_77"), states: vec![SagaState::Completed], ..all() },
        ),
        ("fingerprint", SagaFilter { fingerprint: Some("fp-5".to_owned()), ..all() }),
        (
            "fingerprint, state=paused (none)",
            SagaFilter { fingerprint: Some("fp-5".to_owned()), states: vec![SagaState::Paused], ..all() },
        ),
        ("parent", SagaFilter { parent: Some(id(1)), ..all() }),
        ("parent, attention=any (none)", SagaFilter { parent: Some(id(1)), attention: true, ..all() }),
    ]
}

fn resources(count: i64) -> Vec<(&'static str, ResourceFilter)> {
    let all = || ResourceFilter { limit: 51, ..ResourceFilter::default() };
    let saga = Some(format!("sg_0{:025}", count / 2));
    let provider = || Some("telnyx".to_owned());
    vec![
        ("all", all()),
        ("held or made by a saga", ResourceFilter { holder: saga.clone(), ..all() }),
        ("held by an instance", ResourceFilter { holder: Some("in_78".to_owned()), ..all() }),
        ("held by nobody known", ResourceFilter { holder: Some("in_none".to_owned()), ..all() }),
        (
            "of a saga, state=live",
            ResourceFilter { holder: saga, states: vec![ResourceState::Live], ..all() },
        ),
        ("state=in_doubt", ResourceFilter { states: vec![ResourceState::InDoubt], ..all() }),
        ("state=removing (none)", ResourceFilter { states: vec![ResourceState::Removing], ..all() }),
        ("provider", ResourceFilter { provider: provider(), ..all() }),
        (
            "provider, state=in_doubt",
            ResourceFilter { provider: provider(), states: vec![ResourceState::InDoubt], ..all() },
        ),
        ("provider that there is not", ResourceFilter { provider: Some("nobody".to_owned()), ..all() }),
    ]
}

/// Tries something often, and prints how long it took.
async fn timed<F: Future>(database: &str, what: &str, times: usize, act: impl Fn() -> F) {
    let mut all: Vec<Duration> = Vec::with_capacity(times);
    for _ in 0..times {
        let began = Instant::now();
        act().await;
        all.push(began.elapsed());
    }
    all.sort();
    let of = |share: usize| all[(all.len() - 1) * share / 100].as_secs_f64() * 1e3;
    eprintln!("{database:10} {what:55} p50 {:9.2} ms  p99 {:9.2} ms", of(50), of(99));
}

async fn measure(
    database: &str,
    store: Arc<dyn Store>,
    vault: Vault,
    env: Env,
    count: i64,
    settle: impl AsyncFnOnce(),
) {
    let began = Instant::now();
    for sql in seed(count) {
        run(store.as_ref(), sql, count).await;
    }
    labels(store.as_ref(), count).await;
    settle().await;
    eprintln!("{database}: {count} sagas, {} ledger rows, made in {:?}", count * 6, began.elapsed());
    let times = if count >= 20_000 { 100 } else { 1 };
    for (what, filter) in sagas(count) {
        timed(database, &format!("sagas: {what}"), times, || async {
            store.sagas(filter.clone()).await.unwrap()
        })
        .await;
    }
    for (what, filter) in resources(count) {
        timed(database, &format!("resources: {what}"), times, || async {
            store.resources(filter.clone()).await.unwrap()
        })
        .await;
    }
    // The engine drives nothing here: what it looks at is asked of the store.
    let engine = Engine::start(store.clone(), vault, Registry::default(), env, "test");
    let saga = SagaId::stored(format!("sg_0{:025}", count / 2));
    timed(database, "a saga's page", times, || async { engine.view(&saga).await.unwrap().unwrap() }).await;
    engine.stop().await;
}

/// The labels once more, as a start writes them.
async fn labels(store: &dyn Store, count: i64) {
    let series = "with recursive n (i) as (select 1 union all select i + 1 from n where i < $1)";
    let insert = |id: &str, name: &str, value: &str| {
        format!("{series} insert into saga_label (saga, name, value) select {id}, '{name}', {value} from n")
    };
    let text = |sql: String| -> &'static str { Box::leak(sql.into_boxed_str()) };
    for (name, value) in [("instance", "'in_' || (i % 5000)"), ("team", "'blue'")] {
        let sql = Sql {
            sqlite: text(insert(ID, name, value)),
            postgres: text(insert("'sg_0' || lpad(i::text, 25, '0')", name, value)),
        };
        run(store, sql, count).await;
    }
}

/// A page that the index does not give in its order would have to be sorted, and a table that is scanned would be read
/// whole. Postgres may sort the few rows of a range that its statistics say is narrow.
fn is_read_by_an_index(what: &str, plan: &[String]) {
    if std::env::var_os("AMENDS_TEST_LIST_PLANS").is_some() {
        eprintln!("{what}: {plan:#?}");
    }
    let rows = |line: &str| -> u64 {
        let (_, behind) = line.split_once(" rows=").unwrap_or_default();
        behind.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(u64::MAX)
    };
    for line in plan {
        // What has no filter is read along the index of the ids.
        let is_along_ids = line.contains("USING INDEX sqlite_autoindex") || line.contains("SCAN arm");
        let scans = line.starts_with("SCAN") && !is_along_ids || line.contains("Seq Scan");
        let sorts = line.contains("TEMP B-TREE") || line.contains("->  Sort ") && rows(line) > 200;
        assert!(!scans && !sorts, "{what}: {plan:#?}");
        // The index of the ids has every list in its order, and what a filter asks for may lie at its other end.
        let is_along_all =
            line.contains("Backward using") && line.contains("_pkey") || line.starts_with("SCAN");
        assert!(!is_along_all || what.starts_with("all") || line.contains("SCAN arm"), "{what}: {plan:#?}");
    }
    let is_by_index = |line: &String| line.contains("INDEX ") || line.contains("Index ");
    assert!(plan.iter().any(is_by_index), "{what}: {plan:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_list_is_read_on_sqlite() {
    let env = Env::seeded(1);
    let folder = tempfile::tempdir().unwrap();
    let (file, key) = (folder.path().join("a.db"), folder.path().join("key"));
    let (store, vault) = SqliteStore::open(&file, &key, "test", &[], &env).await.unwrap();
    let store = Arc::new(store);
    measure("SQLite", store.clone(), vault, env.clone(), count(), async || ()).await;
    let (store, _) = {
        store.close().await;
        SqliteStore::open(&file, &key, "test", &[], &env).await.unwrap()
    };
    for (what, filter) in sagas(count()) {
        is_read_by_an_index(what, &store.explain(Some(&filter), None).await.unwrap());
    }
    for (what, filter) in resources(count()) {
        is_read_by_an_index(what, &store.explain(None, Some(&filter)).await.unwrap());
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_are_listed_by_an_index() {
    let env = Env::seeded(1);
    let folder = tempfile::tempdir().unwrap();
    let (file, key) = (folder.path().join("a.db"), folder.path().join("key"));
    let (store, _) = SqliteStore::open(&file, &key, "test", &[pool::MIGRATIONS], &env).await.unwrap();
    let number = count();
    for sql in [
        "insert into pool (id, settings, min_idle, max_total) select 'p', '{}', 0, $1",
        "with recursive n (i) as (select 1 union all select i + 1 from n where i < $1)
         insert into instance (id, pool, state, claim_epoch, name, workspace, token, created_at, changed_at)
         select 'in_' || substr('000000000000' || i, -12), 'p', case when i % 1000 = 7 then 'tainted' when i % 50 = 3 then 'idle'
           else 'gone' end, 0, 'am-' || i, 'w', 't', i, i from n",
    ] {
        run(&store, sql.into(), number).await;
    }
    let states = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    let times = if number >= 20_000 { 100 } else { 1 };
    for (what, states, found) in [
        ("all", states(&[]), 51),
        ("state=idle", states(&["idle"]), 51.min(number / 50)),
        ("state=tainted,crashed", states(&["tainted", "crashed"]), 51.min(number / 1000)),
        ("state=failed (none)", states(&["failed"]), 0),
    ] {
        let filter = pool::InstanceFilter { states, before: None, limit: 51 };
        let page = pool::instances(&store, &filter).await.unwrap();
        assert_eq!(i64::try_from(page.len()).unwrap(), found, "{what}");
        assert!(page.is_sorted_by(|one, other| one.id > other.id), "{what}");
        timed("SQLite", &format!("instances: {what}"), times, || pool::instances(&store, &filter)).await;
    }
    let plan =
        "explain query plan select * from instance where state = $1 and id < $2 order by id desc limit $3";
    let rows = store.fetch(plan.into(), params!["idle", "~", 51]).await.unwrap();
    let lines: Vec<String> = rows.iter().map(|row| row.text("detail").unwrap()).collect();
    is_read_by_an_index("instances", &lines);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_list_is_read_on_postgres() {
    let env = Env::seeded(1);
    let server = Postgres::shared();
    let base = server.database();
    let (store, vault) = base.open(&[], &env).await;
    let store = Arc::new(store);
    // As its housekeeping does within a minute of such a load.
    let analyze = async || drop(server.psql(&base.name, "vacuum analyze"));
    measure("Postgres", store.clone(), vault, env.clone(), count(), analyze).await;
    let (store, _) = base.open(&[], &env).await;
    for (what, filter) in sagas(count()) {
        is_read_by_an_index(what, &store.explain(Some(&filter), None).await.unwrap());
    }
    for (what, filter) in resources(count()) {
        is_read_by_an_index(what, &store.explain(None, Some(&filter)).await.unwrap());
    }
    store.close().await;
}

/// The pages of the program itself, over HTTP: what each filter of the front page asks for, and a saga's page.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_is_answered_over_http() {
    let env = Env::seeded(1);
    let folder = tempfile::tempdir().unwrap();
    // Where the program looks for them.
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let (file, key) = (data.join("amends.db"), data.join("key"));
    let (store, _) = SqliteStore::open(&file, &key, "sandbox", &[pool::MIGRATIONS], &env).await.unwrap();
    let number = count();
    for sql in seed(number) {
        run(&store, sql, number).await;
    }
    labels(&store, number).await;
    store.close().await;
    let sandbox = ("AMENDS_SANDBOX_LISTEN", format!("127.0.0.1:{}", free_port()));
    let mut server = Server::new(folder.path(), vec![sandbox]);
    server.start().await;
    let times = if number >= 20_000 { 100 } else { 1 };
    let saga = format!("/sagas/sg_0{:025}", number / 2);
    for path in [
        "/",
        "/?state=completed",
        "/?state=failed",
        "/?state=compensating",
        "/?attention=any",
        "/?kind=workflow-3",
        "/?kind=nothing",
        "/?instance=in_77",
        "/v1/sagas",
        "/v1/sagas?attention=any",
        "/v1/sagas?instance=in_77",
        "/v1/resources",
        "/v1/resources?provider=telnyx",
        "/v1/instances",
        &saga,
        &format!("/v1{saga}"),
    ] {
        let url = server.url(path);
        timed("HTTP", path, times, || async {
            let answer = server.client.get(&url).send().await.unwrap();
            let status = answer.status();
            assert!(status.is_success(), "{path}: {status} {}", answer.text().await.unwrap());
            answer.bytes().await.unwrap()
        })
        .await;
    }
}

/// A saga of so many steps, each done at its first attempt, but the last, which is being tried.
async fn long_saga(store: &SqliteStore, steps: i64) {
    let event = |event: Event| serde_json::to_string(&event).unwrap();
    let step = StepKey::parse("step-@@").unwrap();
    let asked = Asked {
        activity: "telnyx.order_number".into(),
        input: serde_json::json!({"name": "agent-sandbox-@@", "tags": ["a", "b"], "size": 7}),
        references: Vec::new(),
        after: Vec::new(),
        said: Vec::new(),
        local: None,
        effect: Effect::Searchable { settle_after: Duration::from_secs(30) },
        settle_after: Duration::from_secs(30),
        is_consistent: false,
        object: None,
        attempts_max: None,
        pivot: false,
        every: None,
        give_up_at: Timestamp(1_760_000_900_000_000),
        removes: Vec::new(),
        deferred: false,
        child: None,
    };
    let tried = event(Event::AttemptStarted {
        step: step.clone(),
        attempt: 1,
        generation: 1,
        not_after: Timestamp(1_760_000_030_000_000),
        asked: Some(Box::new(asked)),
        resource: None,
    });
    let output = serde_json::json!({"id": "ord_@@", "number": "+15550100"});
    let done = event(Event::StepCompleted { step, output, external_id: None, by_hand: false });
    let text = |sqlite: String| -> &'static str { Box::leak(sqlite.into_boxed_str()) };
    let all = [
        "insert into saga (id, workflow, workflow_version, state, attention, labels, start_key, start_fingerprint, created_at,
           updated_at, epoch, seq)
         values ('sg_09999999999999999999999999', 'long', 1, 'running', '[]', '{}', 'long', 'print', 1760000000000000,
           1760000000000000, 1, 2 * $1)"
            .to_owned(),
        "insert into journal (saga, seq, at, epoch, version, kind, event)
         values ('sg_09999999999999999999999999', 1, 1760000000000000 + 0 * $1, 1, 1, 'saga_started',
           '{\"kind\":\"saga_started\",\"workflow\":\"long\",\"workflow_version\":1,\"input\":null}')"
            .to_owned(),
        format!(
            "with recursive n (i) as (select 1 union all select i + 1 from n where i < $1)
             insert into journal (saga, seq, at, epoch, version, kind, event)
             select 'sg_09999999999999999999999999', 2 * i, 1760000000000000 + i, 1, 1, 'attempt_started',
               replace('{tried}', '@@', i) from n"
        ),
        format!(
            "with recursive n (i) as (select 1 union all select i + 1 from n where i < $1 - 1)
             insert into journal (saga, seq, at, epoch, version, kind, event)
             select 'sg_09999999999999999999999999', 2 * i + 1, 1760000000000000 + i, 1, 1, 'step_completed',
               replace('{done}', '@@', i) from n"
        ),
    ];
    for sqlite in all {
        run(store, Sql { sqlite: text(sqlite), postgres: "" }, steps).await;
    }
}

/// `AMENDS_TEST_LIST_STEPS` says how many steps it has, 700 if it is not set; with 5,000 or more, times are printed.
#[tokio::test]
async fn a_long_saga_is_shown_in_parts_over_http() {
    let env = Env::seeded(1);
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let (file, key) = (data.join("amends.db"), data.join("key"));
    let (store, _) = SqliteStore::open(&file, &key, "sandbox", &[pool::MIGRATIONS], &env).await.unwrap();
    let steps = std::env::var("AMENDS_TEST_LIST_STEPS").map_or(700, |text| text.parse().unwrap());
    long_saga(&store, steps).await;
    store.close().await;
    let sandbox = ("AMENDS_SANDBOX_LISTEN", format!("127.0.0.1:{}", free_port()));
    let mut server = Server::new(folder.path(), vec![sandbox]);
    server.start().await;
    const PATH: &str = "/sagas/sg_09999999999999999999999999";
    let times = if steps >= 5_000 { 20 } else { 1 };
    for path in [PATH, &format!("/v1{PATH}"), &format!("/v1{PATH}?steps_after=step-500")] {
        timed("HTTP", path, times, || async {
            let answer = server.client.get(server.url(path)).send().await.unwrap();
            let status = answer.status();
            let text = answer.text().await.unwrap();
            assert!(status.is_success(), "{path}: {status} {text}");
            assert!(text.len() < 1 << 20, "{path}: {} bytes", text.len());
        })
        .await;
    }
    let (mut keys, mut after) = (Vec::new(), String::new());
    loop {
        let saga = server.get(&format!("/v1{PATH}{after}")).await;
        let shown = saga["steps"].as_array().unwrap();
        assert!(
            shown.len() <= 200 && saga["steps_total"] == steps,
            "{}, {}",
            shown.len(),
            saga["steps_total"]
        );
        keys.extend(shown.iter().map(|step| step["key"].as_str().unwrap().to_owned()));
        let Some(next) = saga["next_steps"].as_str() else { break };
        after = format!("?steps_after={next}");
    }
    let wanted: Vec<String> = (1..=steps).map(|number| format!("step-{number}")).collect();
    assert_eq!(keys, wanted);
    let page = server.client.get(server.url(PATH)).send().await.unwrap().text().await.unwrap();
    assert!(page.contains(&format!("{PATH}?steps_after=step-200")), "a link to more");
}

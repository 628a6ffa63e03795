//! What comes from outside and has no end (a sandbox's answer, claims that wait), and what a pool says of it.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

use std::sync::Arc;
use std::time::Duration;

use amends_activities::pool::{Seed, WAITING_MAX};
use amends_api::product;
use amends_api::routes::sandbox::Control;
use amends_api::server::{App, router};
use amends_engine::store::memory::MemoryStore;
use amends_engine::store::sqlite::SqliteStore;
use amends_engine::store::tx::{Beside, Sql};
use amends_engine::store::{Loose, LooseJob};
use amends_engine::{Engine, Env, Registry, params};
use amends_sandbox::Urls;
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode, header};
use axum::routing::get;
use serde_json::{Value, json};
use tower::ServiceExt;

async fn send(app: &App, request: Request<Body>) -> (StatusCode, HeaderMap, Value) {
    let (parts, body) = router(app.clone()).oneshot(request).await.unwrap().into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap();
    (parts.status, parts.headers, serde_json::from_slice(&bytes).unwrap())
}

async fn forwarded(answer: Router, method: &str) -> (StatusCode, Value) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, answer).await });
    let env = Env::system();
    let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
    let engine = Engine::start(Arc::new(store), vault, Registry::default(), env, "test");
    let client = amends_api::program::http(Duration::from_secs(10)).unwrap();
    let control = Control::new(&format!("http://{address}"), client);
    let app = App { engine, sandbox: Some(control), environment: "test".into(), restored_at: None };
    let request = Request::builder()
        .method(method)
        .uri("/v1/sandbox/faults")
        .header(header::HOST, "localhost")
        .body(Body::empty());
    let (status, _, body) = send(&app, request.unwrap()).await;
    (status, body)
}

#[tokio::test]
async fn of_a_sandbox_s_answer_no_more_is_read_than_an_answer_has() {
    let exact = json!("x".repeat((2 << 20) - 2));
    let whole = exact.to_string();
    let (status, body) = forwarded(Router::new().route("/faults", get(|| async { whole })), "GET").await;
    assert_eq!(status, StatusCode::OK);
    assert!(body == exact, "it is passed on as it came");
    // With a length, and without one and an end.
    let large = Router::new().route("/faults", get(|| async { "x".repeat((2 << 20) + 1) }));
    let endless = Router::new().route(
        "/faults",
        get(|| async {
            let part = || Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 64 << 10]));
            Body::from_stream(futures::stream::repeat_with(part))
        }),
    );
    for answer in [large, endless] {
        let (status, problem) = forwarded(answer, "GET").await;
        assert_eq!((status, &problem["code"]), (StatusCode::BAD_GATEWAY, &json!("sandbox_unavailable")));
        assert_eq!(problem["detail"], "Its answer has more than 2 MiB.");
    }
    let wrong = get(|| async { (StatusCode::BAD_REQUEST, "no ".repeat(10_000)) });
    let (status, problem) = forwarded(Router::new().route("/faults", wrong), "GET").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(problem["detail"].as_str().unwrap().len() <= 500, "{problem}");
}

struct Pool {
    app: App,
    _folder: tempfile::TempDir,
}

impl Pool {
    /// The product on providers that nobody offers, so that every claim waits.
    async fn new() -> Self {
        let env = Env::system();
        let folder = tempfile::tempdir().unwrap();
        let (file, key) = (folder.path().join("a.db"), folder.path().join("key"));
        let (store, vault) = SqliteStore::open(&file, &key, "test", product::MIGRATIONS, &env).await.unwrap();
        let clients = product::sandbox_clients(&Urls::of("127.0.0.1:1"));
        let registry = product::registry(&clients, "test", false);
        let engine = Engine::start(Arc::new(store), vault, registry, env, "test");
        product::apply_seed(&engine, Seed::parse(product::SANDBOX_SEED).unwrap()).await.unwrap();
        Self {
            app: App { engine, sandbox: None, environment: "test".into(), restored_at: None },
            _folder: folder,
        }
    }

    async fn run(&self, sqlite: &'static str, number: i64) {
        let job: LooseJob = Arc::new(move |statements| {
            Box::pin(async move {
                statements.execute(Sql { sqlite, postgres: "" }, params![number]).await?;
                Ok(Loose { output: Value::Null, beside: Beside::default(), letters: Vec::new() })
            })
        });
        self.app.engine.store().run(job).await.unwrap();
    }

    async fn claim(&self, key: &str) -> (StatusCode, HeaderMap, Value) {
        let request = Request::post("/v1/claims")
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .header("idempotency-key", key)
            .body(Body::from(json!({"template_id": "tp_demo"}).to_string()));
        send(&self.app, request.unwrap()).await
    }
}

#[tokio::test]
async fn where_very_many_claims_wait_a_further_one_is_refused_and_none_is_lost() {
    let pool = Pool::new().await;
    let (status, _, first) = pool.claim("first").await;
    assert_eq!(status, StatusCode::ACCEPTED, "{first}");
    pool.run(
        "with recursive n (i) as (select 1 union all select i + 1 from n where i < $1)
         insert into claim_queue (saga, pool, since) select 'waits-' || i, 'default', 1 from n",
        WAITING_MAX,
    )
    .await;
    for key in ["second", "third", "second"] {
        let (status, headers, problem) = pool.claim(key).await;
        assert_eq!(
            (status, &problem["code"]),
            (StatusCode::TOO_MANY_REQUESTS, &json!("queue_full")),
            "{problem}"
        );
        assert_eq!(headers[header::RETRY_AFTER], "60");
        assert!(problem["detail"].as_str().unwrap().contains("pool default"), "{problem}");
    }
    // What was accepted is known under its key as before.
    let (status, headers, again) = pool.claim("first").await;
    assert_eq!((status, &again["id"]), (StatusCode::ACCEPTED, &first["id"]), "{again}");
    assert_eq!(headers["idempotent-replayed"], "true");
    pool.run("delete from claim_queue where saga like 'waits-%' and $1 > 0", 1).await;
    let (status, headers, second) = pool.claim("second").await;
    assert_eq!(status, StatusCode::ACCEPTED, "a refused key is not used up: {second}");
    assert!(!headers.contains_key("idempotent-replayed"));
}

#[tokio::test]
async fn what_holds_a_pool_back_is_said_with_since_when_and_when_it_is_tried_again() {
    let pool = Pool::new().await;
    let get = async |path: &str| {
        let request = Request::get(path).header(header::HOST, "localhost").body(Body::empty());
        let answer = router(pool.app.clone()).oneshot(request.unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        String::from_utf8(to_bytes(answer.into_body(), usize::MAX).await.unwrap().to_vec()).unwrap()
    };
    let listed = async || -> Value { serde_json::from_str(&get("/v1/pools").await).unwrap() };
    let wanted = json!({
        "id": "default", "min_idle": 2, "max_total": 20, "idle": 0, "under_way": 0, "total": 0, "waiting": 0,
        "held_back": null,
    });
    assert_eq!(listed().await["items"][0], wanted);
    assert_eq!(listed().await["items"].as_array().unwrap().len(), 2);
    let first: Value = serde_json::from_str(&get("/v1/pools?limit=1").await).unwrap();
    assert_eq!(first["next_cursor"], "default");
    let second: Value = serde_json::from_str(&get("/v1/pools?limit=1&cursor=default").await).unwrap();
    assert_eq!((&second["items"][0]["id"], &second["next_cursor"]), (&json!("workers"), &Value::Null));

    // Three more may be there than shall be idle: the fourth claim is not served.
    pool.run("update pool set max_total = 5 where id = 'default' and $1 > 0", 1).await;
    pool.run(
        "with recursive n (i) as (select 1 union all select i + 1 from n where i < $1)
         insert into claim_queue (saga, pool, since) select 'waits-' || i, 'default', 1767225600000000 + i * 1000000 from n",
        6,
    )
    .await;
    let held = &listed().await["items"][0];
    assert_eq!((&held["waiting"], &held["held_back"]["next_try_at"]), (&json!(6), &Value::Null), "{held}");
    assert!(held["held_back"]["why"].as_str().unwrap().contains("may have"), "{held}");
    assert!(held["held_back"]["since"].as_str().unwrap().starts_with("2026-01-01T00:00:04"), "{held}");
    let page = get("/pools").await;
    assert!(page.contains("than the pool may have") && page.contains("2026-01-01T00:00:04"), "{page}");
    assert!(get("/").await.contains("<a href=\"/pools\">Pools</a>"), "it is linked");

    // Four boots in a row broke, the third of them two minutes ago.
    pool.run("delete from claim_queue where $1 > 0", 1).await;
    let now = pool.app.now().0;
    pool.run(
        "with recursive n (i) as (select 1 union all select i + 1 from n where i < 4)
         insert into refill (saga, pool, instance, started_at, outcome, settled_at)
         select 'sg-' || i, 'default', 'in-' || i, 1, 'broken', $1 - (5 - i) * 60000000 from n",
        now,
    )
    .await;
    let held = &listed().await["items"][0]["held_back"];
    let at = |micros: i64| amends_engine::Timestamp(micros).to_string();
    assert!(held["why"].as_str().unwrap().contains("broke"), "{held}");
    assert_eq!(held["since"], at(now - 120_000_000), "{held}");
    // The first cool-down is five minutes, and twice that behind the fourth.
    assert_eq!(held["next_try_at"], at(now + 540_000_000), "{held}");
    let page = get("/pools").await;
    assert!(page.contains("Tried again at") && page.contains(&at(now + 540_000_000)), "{page}");
}

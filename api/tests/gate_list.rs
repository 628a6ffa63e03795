//! Gates over HTTP: their pages, and what can be opened and closed.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

use std::sync::Arc;

use amends_api::routes::gates::GATES_MAX;
use amends_api::server::{App, router};
use amends_engine::store::memory::MemoryStore;
use amends_engine::{Engine, Env, Registry};
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use serde_json::{Value, json};
use tower::ServiceExt;

struct Setup {
    engine: Engine,
    app: App,
}

impl Setup {
    async fn with(gates: usize) -> Self {
        let env = Env::simulated(7);
        let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
        let engine = Engine::start(Arc::new(store), vault, Registry::default(), env, "test");
        let app =
            App { engine: engine.clone(), sandbox: None, environment: "test".into(), restored_at: None };
        for number in 0..gates {
            engine.close_gate(&format!("gate-{number:04}"), "ann", "a test").await.unwrap();
        }
        Self { engine, app }
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, String) {
        let (parts, body) = router(self.app.clone()).oneshot(request).await.unwrap().into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        (parts.status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        self.send(Request::get(path).header(header::HOST, "localhost").body(Body::empty()).unwrap()).await
    }

    async fn list(&self, path: &str) -> Value {
        let (status, text) = self.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    async fn act(&self, kind: &str, gate: &str) -> (StatusCode, Value) {
        let body = json!({"gate": gate, "kind": kind, "reason": "a test"});
        let request = Request::post("/v1/gates/actions")
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()));
        let (status, text) = self.send(request.unwrap()).await;
        (status, serde_json::from_str(&text).unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn every_gate_is_on_one_page_of_the_list() {
    let setup = Setup::with(130).await;
    let (mut keys, mut path) = (Vec::new(), "/v1/gates?limit=50".to_owned());
    loop {
        let page = setup.list(&path).await;
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 50, "{}", items.len());
        keys.extend(items.iter().map(|gate| gate["key"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/gates?limit=50&cursor={cursor}");
    }
    let wanted: Vec<String> = (0..130).map(|number| format!("gate-{number:04}")).collect();
    assert_eq!(keys, wanted);
    assert_eq!(setup.list("/v1/gates").await["items"].as_array().unwrap().len(), 50, "unless it is said");
    assert_eq!(setup.get("/v1/gates?limit=201").await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let (_, first) = setup.get("/gates").await;
    assert!(first.contains("gate-0049") && !first.contains("gate-0050"));
    assert!(first.contains("href=\"/gates?cursor=gate-0049\""), "{first}");
    let (_, last) = setup.get("/gates?cursor=gate-0099").await;
    assert!(last.contains("gate-0129") && !last.contains("/gates?cursor="), "{last}");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_no_call_has_named_is_refused_where_there_are_many() {
    let setup = Setup::with(GATES_MAX).await;
    let (status, problem) = setup.act("close", "one-more").await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("state_conflict")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().starts_with("gate: one-more is not known"), "{problem}");
    assert_eq!(setup.engine.gates().await.unwrap().len(), GATES_MAX);
    for kind in ["open", "close"] {
        let (status, gate) = setup.act(kind, "gate-0500").await;
        assert_eq!(status, StatusCode::OK, "{gate}");
    }
    // What a program names is not for this bound.
    setup.engine.close_gate("a credential", "a program", "it was refused").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_gate_is_acted_on_by_its_key_and_a_new_one_needs_a_name() {
    let setup = Setup::with(0).await;
    let long = "x".repeat(900);
    for key in ["one credential of ours", long.as_str()] {
        setup.engine.close_gate(key, "ann", "a test").await.unwrap();
        let (status, gate) = setup.act("open", key).await;
        assert_eq!((status, &gate["key"]), (StatusCode::OK, &json!(key)), "{gate}");
    }
    let endless = "x".repeat(900_000);
    for name in ["", "two words", "a\u{202e}b", &"x".repeat(129), &endless] {
        for kind in ["open", "close"] {
            let (status, problem) = setup.act(kind, name).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{problem}");
            assert!(problem.to_string().len() < 400, "{problem}");
        }
    }
    let (status, problem) = setup.act("open", "never-named").await;
    assert_eq!((status, &problem["code"]), (StatusCode::NOT_FOUND, &json!("not_found")), "{problem}");
    assert_eq!(setup.engine.gates().await.unwrap().len(), 2);
}

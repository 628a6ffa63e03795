//! Acts over HTTP: each one that `why` can name is done to a saga through the API, the page's form, or both.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends_api::server::{App, router};
use amends_engine::activity::Cause;
use amends_engine::journal::act::ActKind;
use amends_engine::journal::state::Attention;
use amends_engine::store::memory::MemoryStore;
use amends_engine::store::{SagaRow, Started};
use amends_engine::testing::shaky::{Shakes, ShakyStore};
use amends_engine::{
    Activity, Call, Effect, Engine, Env, Failure, Registry, Resource, Saga, SagaId, Workflow, saga, secs,
};
use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strum::IntoEnumIterator;
use tower::ServiceExt;

/// A provider that answers `verb name` with the failure that a test set for it.
#[derive(Default)]
struct Provider {
    failures: Mutex<BTreeMap<String, Failure>>,
}

impl Provider {
    fn answer(&self, verb: &str, name: &str) -> Result<(), Failure> {
        let failures = self.failures.lock().unwrap();
        failures.get(&format!("{verb} {name}")).map_or(Ok(()), |failure| Err(failure.clone()))
    }

    fn fail(&self, call: &str, failure: Failure) {
        self.failures.lock().unwrap().insert(call.to_owned(), failure);
    }

    fn recover(&self) {
        self.failures.lock().unwrap().clear();
    }
}

fn unavailable() -> Failure {
    Failure::Unavailable { cause: Cause::ServerError, detail: "it is down".into(), retry_after: None }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Make {
    name: String,
    #[serde(default)]
    size: u32,
}

impl Activity for Make {
    const NAME: &'static str = "test.make";
    const EFFECT: Effect = Effect::Blind;
    const GIVE_UP_AFTER: Duration = secs(7 * 24 * 3600);
    type Client = Provider;
    type Output = String;

    fn resource(&self, _: &Call) -> Option<Resource> {
        Some(Resource::new("test", "thing", self.name.clone()))
    }

    async fn execute(&self, provider: &Provider, _: &Call) -> Result<String, Failure> {
        provider.answer("make", &self.name).map(|()| self.name.clone())
    }

    async fn compensate(&self, provider: &Provider, made: &String, _: &Call) -> Result<(), Failure> {
        provider.answer("remove", made)
    }
}

/// Makes two things, then waits.
struct Pair;

impl Workflow for Pair {
    const NAME: &'static str = "pair";
    const VERSION: u32 = 1;
    type Input = String;
    type Output = ();

    async fn run(&self, saga: &Saga, name: String) -> saga::Result<()> {
        saga.step("first", Make { name: format!("{name}-1"), size: 1 }).await?;
        saga.step("second", Make { name: format!("{name}-2"), size: 1 }).await?;
        saga.sleep("rest", secs(24 * 3600)).await
    }
}

struct Setup {
    engine: Engine,
    provider: Arc<Provider>,
    app: App,
}

impl Setup {
    async fn new() -> Self {
        let env = Env::simulated(7);
        let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
        let provider = Arc::new(Provider::default());
        let registry = Registry::default().activity::<Make>(provider.clone()).workflow(Pair);
        let engine = Engine::start(Arc::new(store), vault, registry, env, "test");
        let app =
            App { engine: engine.clone(), sandbox: None, environment: "test".into(), restored_at: None };
        Self { engine, provider, app }
    }

    async fn start(&self, name: &str) -> SagaId {
        let new = self.engine.new_saga::<Pair>(name, &name.to_owned()).unwrap();
        let Started::New(saga) = self.engine.begin(new).await.unwrap() else { panic!() };
        saga
    }

    async fn until(&self, saga: &SagaId, what: impl Fn(&SagaRow) -> bool) -> SagaRow {
        let row = self.engine.wait(saga, secs(24 * 3600), &what).await.unwrap().unwrap();
        assert!(what(&row), "{row:#?}");
        row
    }

    /// A saga whose second step is being tried.
    async fn at_second(&self, name: &str, failure: Failure) -> SagaId {
        self.provider.fail(&format!("make {name}-2"), failure);
        let saga = self.start(name).await;
        self.until(&saga, |row| row.step.as_deref().is_some_and(|step| step.starts_with("second"))).await;
        self.until(&saga, |row| row.error.is_some()).await;
        saga
    }

    /// A saga whose first step cannot be undone.
    async fn undo_stuck(&self, name: &str) -> SagaId {
        self.provider.fail(&format!("remove {name}-1"), unavailable());
        let saga = self.at_second(name, unavailable()).await;
        self.engine.cancel(&saga, "ann", "to undo it").await.unwrap();
        self.until(&saga, |row| row.attention.contains(&Attention::UndoStuck)).await;
        saga
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, Response<()>, String) {
        let (parts, body) = router(self.app.clone()).oneshot(request).await.unwrap().into_parts();
        let text = to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8(text.to_vec()).unwrap();
        (parts.status, Response::from_parts(parts, ()), text)
    }

    async fn get(&self, path: &str) -> String {
        let request = Request::get(path).header(header::HOST, "localhost").body(Body::empty()).unwrap();
        let (status, _, text) = self.send(request).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        text
    }

    async fn post(&self, saga: &SagaId, headers: &[(&str, &str)], body: Value) -> (StatusCode, Value) {
        let mut request = Request::post(format!("/v1/sagas/{saga}/actions"))
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (status, _, text) = self.send(request.body(Body::from(body.to_string())).unwrap()).await;
        (status, serde_json::from_str(&text).unwrap())
    }

    /// What the saga says can be done to it.
    async fn allowed(&self, saga: &SagaId) -> Vec<ActKind> {
        let detail: Value = serde_json::from_str(&self.get(&format!("/v1/sagas/{saga}")).await).unwrap();
        let all = detail["allowed_actions"].as_array().unwrap();
        all.iter().map(|one| one["kind"].as_str().unwrap().parse().unwrap()).collect()
    }

    async fn outcome(&self, saga: &SagaId) -> Option<String> {
        for _ in 0..100 {
            let audit = self.engine.audit(saga).await.unwrap();
            if let Some(outcome) = audit.last().and_then(|row| row.outcome.clone()) {
                return Some(outcome);
            }
            self.engine.env().sleep(secs(1)).await;
        }
        None
    }
}

/// A saga in a state in which this act can be done, and the body that does it.
async fn ready(setup: &Setup, kind: ActKind, name: &str) -> (SagaId, Value) {
    let lost = || Failure::NoAnswer { cause: Cause::Reset, detail: "the connection broke".into() };
    match kind {
        ActKind::Retry => (setup.at_second(name, unavailable()).await, json!({"kind": "retry"})),
        ActKind::Pause => (setup.start(name).await, json!({"kind": "pause", "wait": "30m"})),
        ActKind::Resume => {
            let saga = setup.start(name).await;
            setup.engine.pause(&saga, secs(600), "ann", "to resume it").await.unwrap();
            setup.until(&saga, |row| row.state.to_string() == "paused").await;
            (saga, json!({"kind": "resume"}))
        }
        ActKind::Cancel => (setup.at_second(name, unavailable()).await, json!({"kind": "cancel"})),
        ActKind::Policy => (
            setup.at_second(name, unavailable()).await,
            json!({"kind": "policy", "step": "second", "max_wait": "5s"}),
        ),
        ActKind::FailAttempt => {
            (setup.at_second(name, unavailable()).await, json!({"kind": "fail_attempt", "step": "second"}))
        }
        ActKind::Settle => {
            let body = json!({"kind": "settle", "step": "second", "verdict": "adopt", "output": "it-2",
                "external_id": "ext-2"});
            (setup.at_second(name, lost()).await, body)
        }
        ActKind::Done => (
            setup.at_second(name, unavailable()).await,
            json!({"kind": "done", "step": "second", "output": "by hand"}),
        ),
        ActKind::Skip => (setup.undo_stuck(name).await, json!({"kind": "skip", "step": "first"})),
        ActKind::Patch => {
            let input = json!({"name": format!("{name}-2"), "size": 2});
            let body = json!({"kind": "patch", "step": "second", "input": input});
            (setup.at_second(name, unavailable()).await, body)
        }
        ActKind::Release => (
            setup.undo_stuck(name).await,
            json!({"kind": "release", "step": "first", "owner": "in_123456789012"}),
        ),
    }
}

#[tokio::test(start_paused = true)]
async fn every_act_is_offered_where_it_can_be_done_and_done_when_it_is_asked_for() {
    let setup = Setup::new().await;
    for kind in ActKind::iter() {
        let (saga, mut body) = ready(&setup, kind, &format!("api-{kind}")).await;
        let offered = setup.allowed(&saga).await;
        assert!(offered.contains(&kind), "{kind} is not offered: {offered:?}");
        body["reason"] = json!("it is tested");
        let (status, answer) = setup.post(&saga, &[], body).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{kind}: {answer}");
        assert_eq!(setup.outcome(&saga).await.as_deref(), Some("done"), "{kind}");
        setup.provider.recover();
    }
}

#[tokio::test(start_paused = true)]
async fn every_act_can_be_done_by_the_form_on_the_saga_s_page() {
    let setup = Setup::new().await;
    for kind in ActKind::iter() {
        let (saga, body) = ready(&setup, kind, &format!("form-{kind}")).await;
        let page = setup.get(&format!("/sagas/{saga}")).await;
        assert!(page.contains(&format!("id=\"act-{kind}\"")), "{kind} has no form");
        let form = page.split(&format!("id=\"act-{kind}\"")).nth(1).unwrap().split("</form>").next().unwrap();
        let key = form.split("name=\"key\" value=\"").nth(1).unwrap().split('"').next().unwrap();
        let mut fields =
            vec![("key".to_owned(), key.to_owned()), ("reason".to_owned(), "it is tested".into())];
        for (name, value) in body.as_object().unwrap() {
            assert!(
                form.contains(&format!("name=\"{name}\"")),
                "{kind}'s form does not ask for {name}: {form}"
            );
            // A JSON field is written as JSON.
            let text = match value {
                Value::String(text) if !matches!(name.as_str(), "output" | "input") => text.clone(),
                other => other.to_string(),
            };
            fields.push((name.clone(), text));
        }
        for repeated in 0..2 {
            let request = Request::post(format!("/sagas/{saga}/actions"))
                .header(header::HOST, "localhost")
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(Body::from(encoded(&fields)))
                .unwrap();
            let (status, response, text) = setup.send(request).await;
            assert_eq!(status, StatusCode::SEE_OTHER, "{kind}, sent {repeated} times before: {text}");
            let to = response.headers()[header::LOCATION].to_str().unwrap().to_owned();
            assert_eq!(setup.outcome(&saga).await.as_deref(), Some("done"), "{kind}");
            let told = setup.get(&to).await;
            assert!(told.contains(&format!("{kind} was done.")), "{kind} is not told");
        }
        let done = setup.engine.audit(&saga).await.unwrap();
        assert_eq!(
            done.iter().filter(|row| row.act.kind() == kind && row.reason == "it is tested").count(),
            1
        );
        setup.provider.recover();
    }
}

fn encoded(fields: &[(String, String)]) -> String {
    let percent = |text: &str| -> String {
        let coded = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        };
        text.bytes().map(coded).collect()
    };
    let pairs = fields.iter().map(|(name, value)| format!("{}={}", percent(name), percent(value)));
    pairs.collect::<Vec<_>>().join("&")
}

#[tokio::test(start_paused = true)]
async fn an_act_repeated_under_its_key_is_done_once_and_another_under_it_is_refused() {
    let setup = Setup::new().await;
    let saga = setup.at_second("keyed", unavailable()).await;
    let key = [("idempotency-key", "k-1")];
    let cancel = json!({"kind": "cancel", "reason": "not needed any more"});
    let (status, first) = setup.post(&saga, &key, cancel.clone()).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{first}");
    assert_eq!(setup.outcome(&saga).await.as_deref(), Some("done"));
    setup.until(&saga, |row| row.state.is_ended()).await;
    // It has ended, where a new act would be a conflict; this one is the same.
    let (status, again) = setup.post(&saga, &key, cancel).await;
    assert_eq!((status, &again["operation"]), (StatusCode::ACCEPTED, &first["operation"]), "{again}");
    let (status, other) = setup.post(&saga, &key, json!({"kind": "retry", "reason": "no"})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(other["code"], "idempotency_key_reused", "{other}");
    assert_eq!(setup.engine.audit(&saga).await.unwrap().len(), 1);
}

/// There is no authentication: what a page of another site sends must not be taken for the operator's.
#[tokio::test(start_paused = true)]
async fn what_comes_from_another_site_or_is_meant_for_another_host_is_refused() {
    let setup = Setup::new().await;
    let saga = setup.at_second("asked", unavailable()).await;
    let form = "kind=cancel&reason=because";
    let post = |path: &str, host: &str, headers: &[(&str, &str)]| {
        let mut request = Request::post(path)
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::from(form)).unwrap()
    };
    let page = format!("/sagas/{saga}/actions");
    for host in ["ops.example", "127.0.0.1.nip.io", "10.0.0.1:7300", ""] {
        let (status, _, text) = setup.send(post(&page, host, &[])).await;
        assert!(text.contains("loopback name"), "{host}: {status} {text}");
        let read = Request::get("/v1/sagas").header(header::HOST, host).body(Body::empty()).unwrap();
        assert!(setup.send(read).await.2.contains("foreign_host"), "{host}");
    }
    let foreign = [
        [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")],
        [("sec-fetch-site", "same-site"), ("origin", "http://localhost:1")],
        [("origin", "https://evil.example"), ("accept", "*/*")],
    ];
    for headers in foreign {
        for path in [page.clone(), format!("/v1/sagas/{saga}/actions/cancel")] {
            let (status, _, text) = setup.send(post(&path, "localhost", &headers)).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{path} {headers:?}: {text}");
        }
    }
    assert!(setup.engine.audit(&saga).await.unwrap().is_empty(), "none of them was done");
}

#[tokio::test(start_paused = true)]
async fn an_act_without_a_reason_or_that_cannot_be_done_now_is_refused() {
    let setup = Setup::new().await;
    let saga = setup.at_second("asked", unavailable()).await;
    for body in [
        json!({"kind": "cancel"}),
        json!({"kind": "cancel", "reason": ""}),
        json!({"kind": "cancel", "reason": " \t"}),
        json!({"kind": "cancel", "reason": "a\u{202e}b"}),
        json!({"kind": "cancel", "reason": "x".repeat(501)}),
    ] {
        let (status, problem) = setup.post(&saga, &[], body.clone()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}: {problem}");
        assert!(problem["detail"].as_str().unwrap().starts_with("reason: "), "{problem}");
    }
    // It does not wait for a person, and it is not paused.
    for kind in ["resume", "done"] {
        let step = if kind == "done" { json!("first") } else { Value::Null };
        let mut body = json!({"kind": kind, "reason": "to see"});
        if kind == "done" {
            body["step"] = step;
        }
        let (status, problem) = setup.post(&saga, &[], body).await;
        assert_eq!(status, StatusCode::CONFLICT, "{kind}: {problem}");
    }
    assert!(
        setup.engine.audit(&saga).await.unwrap().iter().all(|row| row.outcome.as_deref() != Some("accepted"))
    );
}

#[tokio::test(start_paused = true)]
async fn an_act_meant_for_an_earlier_version_is_not_done() {
    let setup = Setup::new().await;
    let saga = setup.at_second("stale", unavailable()).await;
    let body = json!({"kind": "cancel", "reason": "not needed"});
    let (status, problem) = setup.post(&saga, &[("if-match", "\"1\"")], body.clone()).await;
    assert_eq!(
        (status, problem["code"].as_str()),
        (StatusCode::PRECONDITION_FAILED, Some("precondition_failed"))
    );
    assert!(setup.engine.audit(&saga).await.unwrap().is_empty());
    let row = setup.engine.row(&saga).await.unwrap().unwrap();
    let (status, _) = setup.post(&saga, &[("if-match", &format!("\"{}\"", row.seq))], body).await;
    assert_eq!(status, StatusCode::ACCEPTED);
}

#[tokio::test(start_paused = true)]
async fn a_gate_is_closed_listed_and_opened() {
    let setup = Setup::new().await;
    let post = |body: Value| {
        Request::post("/v1/gates/actions")
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()))
            .unwrap()
    };
    let close = json!({"gate": "railway:ws/1", "kind": "close", "reason": "the token leaked"});
    let (status, _, text) = setup.send(post(close)).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let list: Value = serde_json::from_str(&setup.get("/v1/gates").await).unwrap();
    assert_eq!(list["items"][0]["key"], "railway:ws/1");
    assert_eq!(list["items"][0]["state"], "closed");
    assert_eq!(list["items"][0]["closed_until"], Value::Null);
    let page = setup.get("/gates").await;
    assert!(page.contains("railway:ws/1") && page.contains("when a person opens it"), "{page}");
    let open = json!({"gate": "railway:ws/1", "kind": "open", "reason": "it was replaced"});
    let (status, _, text) = setup.send(post(open)).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let gate: Value = serde_json::from_str(&text).unwrap();
    assert_ne!(gate["state"], "closed");
    let nobody = json!({"gate": "no-such-gate", "kind": "open", "reason": "a typing error"});
    assert_eq!(setup.send(post(nobody)).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn what_came_of_sagas_is_counted_once_for_each_summary() {
    let setup = Setup::new().await;
    let saga = setup.undo_stuck("counted").await;
    let counts = setup.engine.take_counts();
    assert_eq!((counts.live, counts.need_attention, counts.compensated), (1, 1, 0));
    setup.provider.recover();
    setup.engine.retry(&saga, "ann", "it is mended").await.unwrap();
    setup.until(&saga, |row| row.state.is_ended()).await;
    let counts = setup.engine.take_counts();
    assert_eq!((counts.need_attention, counts.compensated, counts.completed), (0, 1, 0));
    assert_eq!(setup.engine.take_counts().compensated, 0);
}

#[tokio::test(start_paused = true)]
async fn a_probe_and_every_page_say_within_a_minute_that_nothing_is_written() {
    let env = Env::simulated(7);
    let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
    let store = Arc::new(ShakyStore::new(Arc::new(store), env.clone(), Shakes::default()));
    let provider = Arc::new(Provider::default());
    let registry = Registry::default().activity::<Make>(provider.clone()).workflow(Pair);
    let engine = Engine::start(store.clone(), vault, registry, env.clone(), "test");
    let app = App { engine: engine.clone(), sandbox: None, environment: "test".into(), restored_at: None };
    let setup = Setup { engine, provider, app };
    let get = |path: &str| Request::get(path).header(header::HOST, "localhost").body(Body::empty()).unwrap();
    setup.at_second("a", unavailable()).await;
    let (status, _, text) = setup.send(get("/healthz")).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    store.fill_up(true);
    env.sleep(secs(60)).await;
    let (status, _, text) = setup.send(get("/healthz")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{text}");
    assert!(text.contains("engine_troubled") && text.contains("no space left"), "{text}");
    for page in ["/", "/gates"] {
        let (status, _, text) = setup.send(get(page)).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        assert!(text.contains("Sagas do not get on: nothing can be written since"), "{text}");
    }
    store.fill_up(false);
    env.sleep(secs(60)).await;
    let (status, _, text) = setup.send(get("/healthz")).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let (_, _, text) = setup.send(get("/")).await;
    assert!(!text.contains("Sagas do not get on"), "{text}");
}

//! Findings and censuses over HTTP: their shape, their pages, and what is refused.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends_api::server::{App, router};
use amends_engine::activity::Cause;
use amends_engine::store::memory::MemoryStore;
use amends_engine::sweep::{Ask, Identity, Kind, ListPage, Observed, Provider, Sweep, async_trait};
use amends_engine::{Engine, Env, Failure, Gate, Registry, secs};
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use serde_json::{Value, json};
use tower::ServiceExt;

/// A cloud with so many machines that look like ours, or one that does not answer.
#[derive(Default)]
struct Cloud {
    machines: Mutex<Vec<Observed>>,
    is_down: Mutex<bool>,
}

#[async_trait]
impl Provider for Cloud {
    fn name(&self) -> &'static str {
        "cloud"
    }

    fn kinds(&self) -> Vec<Kind> {
        vec![Kind::new("machine")]
    }

    fn settle_after(&self) -> Duration {
        secs(1)
    }

    fn is_ours(&self, name: &str) -> bool {
        name.starts_with("ours-")
    }

    fn gates(&self, _: Ask<'_>) -> Vec<Gate> {
        vec![Gate::credential("cloud")]
    }

    async fn list(&self, _: Option<&str>) -> Result<ListPage, Failure> {
        if *self.is_down.lock().unwrap() {
            let detail = "it is down".to_owned();
            return Err(Failure::Unavailable { cause: Cause::ServerError, detail, retry_after: None });
        }
        Ok(ListPage { things: self.machines.lock().unwrap().clone(), next: None })
    }

    async fn read(&self, thing: &Identity) -> Result<Option<Observed>, Failure> {
        let machines = self.machines.lock().unwrap();
        Ok(machines.iter().find(|machine| machine.name == thing.name).cloned())
    }

    async fn remove(&self, _: &Identity) -> Result<(), Failure> {
        Err(Failure::refused("no", "nothing here is removed"))
    }
}

struct Setup {
    engine: Engine,
    cloud: Arc<Cloud>,
    app: App,
}

impl Setup {
    /// A cloud with so many machines of another installation, and one census of it.
    async fn with(machines: usize) -> Self {
        let env = Env::simulated(7);
        let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
        let cloud = Arc::new(Cloud::default());
        let of = |number| Observed::new("machine", format!("m-{number}"), format!("ours-{number}"));
        *cloud.machines.lock().unwrap() = (0..machines).map(of).collect();
        let registry = Registry::default().provider(cloud.clone());
        let engine = Engine::start(Arc::new(store), vault, registry, env, "test");
        let app =
            App { engine: engine.clone(), sandbox: None, environment: "test".into(), restored_at: None };
        let setup = Self { engine, cloud, app };
        setup.sweep().await;
        setup
    }

    async fn sweep(&self) {
        self.engine.sweep("cloud", &Sweep::default()).await.unwrap().unwrap();
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        let (parts, body) = router(self.app.clone()).oneshot(request).await.unwrap().into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        let value = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        if parts.status.is_client_error() || parts.status.is_server_error() {
            assert_eq!(parts.headers[header::CONTENT_TYPE], "application/problem+json");
        }
        (parts.status, value)
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send(Request::get(path).header(header::HOST, "localhost").body(Body::empty()).unwrap()).await
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let request = Request::post(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()));
        self.send(request.unwrap()).await
    }

    /// What a list shows on its only page.
    async fn items(&self, path: &str) -> Vec<Value> {
        let (status, page) = self.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {page}");
        assert_eq!(page["next_cursor"], Value::Null, "{path}");
        page["items"].as_array().unwrap().clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_finding_is_shown_with_what_was_seen_and_how_it_was_settled() {
    let setup = Setup::with(1).await;
    let all = setup.items("/v1/findings").await;
    let [finding] = all.as_slice() else { panic!("{all:#?}") };
    let id = finding["id"].as_str().unwrap().to_owned();
    let (first, last) = (finding["first_seen_at"].clone(), finding["last_seen_at"].clone());
    assert!(first.as_str().unwrap().starts_with("2026-01-01T00:"), "{first}");
    let mut wanted = json!({
        "id": id, "provider": "cloud", "class": "foreign", "kind": "machine", "external_id": "m-0",
        "name": "ours-0", "account": null, "resource": null, "holder": null, "detail": finding["detail"],
        "first_seen_at": first, "last_seen_at": last, "times_seen": 1, "removal": null, "settled": null,
        "settled_at": null, "settled_by": null, "reason": null,
    });
    assert_eq!(*finding, wanted);
    setup.engine.env().sleep(secs(60)).await;
    setup.sweep().await;
    let again = setup.items("/v1/findings").await;
    assert_eq!((&again[0]["times_seen"], &again[0]["first_seen_at"]), (&json!(2), &wanted["first_seen_at"]));

    let settle = json!({"how": "ignored", "reason": "it is a colleague's"});
    let (status, settled) = setup.post(&format!("/v1/findings/{id}/actions/settle"), settle).await;
    assert_eq!(status, StatusCode::OK, "{settled}");
    for changed in ["times_seen", "last_seen_at", "settled_at"] {
        wanted[changed] = settled[changed].clone();
    }
    wanted["settled"] = json!("ignored");
    wanted["settled_by"] = settled["settled_by"].clone();
    wanted["reason"] = json!("it is a colleague's");
    assert_eq!(settled, wanted);
    assert!(settled["settled_at"].is_string() && settled["settled_by"].is_string(), "{settled}");
    assert_eq!(
        setup.items("/v1/findings").await,
        [] as [Value; 0],
        "open ones are listed if nothing is said"
    );
    assert_eq!(setup.items("/v1/findings?state=settled").await, [wanted]);
}

#[tokio::test(start_paused = true)]
async fn findings_come_in_pages_that_show_each_of_them_once_and_in_one_order() {
    let setup = Setup::with(7).await;
    let whole = setup.items("/v1/findings?limit=7").await;
    assert_eq!(whole.len(), 7);
    let mut paged = Vec::new();
    let mut path = "/v1/findings?limit=3".to_owned();
    let mut sizes = Vec::new();
    loop {
        let (status, page) = setup.get(&path).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        let items = page["items"].as_array().unwrap();
        sizes.push(items.len());
        paged.extend(items.iter().cloned());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/findings?limit=3&cursor={cursor}");
    }
    assert_eq!(sizes, [3, 3, 1]);
    assert_eq!(paged, whole);
    let ids: BTreeSet<&str> = whole.iter().map(|finding| finding["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 7);
    // A page that is exactly full is the last one where nothing is behind it.
    let (_, rest) = setup.get(&format!("/v1/findings?cursor={}", whole[3]["id"].as_str().unwrap())).await;
    assert_eq!(rest["items"].as_array().unwrap()[..], whole[4..]);
}

#[tokio::test(start_paused = true)]
async fn findings_are_listed_by_provider_class_holder_and_state() {
    let setup = Setup::with(3).await;
    for (query, count) in [
        ("", 3),
        ("?provider=cloud", 3),
        ("?provider=telnyx", 0),
        ("?class=foreign", 3),
        ("?class=orphan", 0),
        ("?class=ghost", 0),
        ("?class=drift", 0),
        ("?holder=in_nobody", 0),
        ("?state=open", 3),
        ("?state=settled", 0),
        ("?state=any&class=&provider=&holder=&cursor=", 3),
    ] {
        assert_eq!(setup.items(&format!("/v1/findings{query}")).await.len(), count, "{query}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_question_for_findings_is_refused_by_name() {
    let setup = Setup::with(1).await;
    let id = setup.items("/v1/findings").await[0]["id"].as_str().unwrap().to_owned();
    for (query, status, code, hint) in [
        ("class=dancing", 422, "validation_failed", "class"),
        ("state=dancing", 422, "validation_failed", "state"),
        ("limit=0", 422, "validation_failed", "limit"),
        ("limit=1000000", 422, "validation_failed", "limit"),
        ("limit=many", 422, "validation_failed", "limit"),
        ("colour=red", 422, "validation_failed", "colour"),
        ("cursor=nowhere", 400, "cursor_invalid", ""),
        ("cursor=sg_00000000000000000000000000", 400, "cursor_invalid", ""),
        ("holder=two%20words", 400, "malformed_id", "holder"),
        ("holder=%00", 400, "malformed_id", "holder"),
    ] {
        let (got, problem) = setup.get(&format!("/v1/findings?{query}")).await;
        assert_eq!((got.as_u16(), problem["code"].as_str()), (status, Some(code)), "{query}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(hint), "{query}: {problem}");
    }
    let nobody = id.replace(|digit: char| digit.is_ascii_digit(), "0");
    let reason = || json!({"how": "ignored", "reason": "it is tested"});
    for (path, body, status, code) in [
        ("/v1/findings/nothing/actions/settle".to_owned(), reason(), 400, "malformed_id"),
        (format!("/v1/findings/{nobody}/actions/settle"), reason(), 404, "not_found"),
        (format!("/v1/findings/{id}/actions/settle"), json!({"how": "ignored"}), 422, "validation_failed"),
        (
            format!("/v1/findings/{id}/actions/settle"),
            json!({"how": "eaten", "reason": "x"}),
            422,
            "validation_failed",
        ),
        (
            format!("/v1/findings/{id}/actions/settle"),
            json!({"how": "ignored", "reason": " "}),
            422,
            "validation_failed",
        ),
    ] {
        let (got, problem) = setup.post(&path, body).await;
        assert_eq!((got.as_u16(), problem["code"].as_str()), (status, Some(code)), "{path}: {problem}");
    }
    assert_eq!(setup.items("/v1/findings").await.len(), 1, "nothing was settled by any of it");
}

#[tokio::test(start_paused = true)]
async fn a_census_is_shown_with_its_age_and_with_why_there_is_no_newer_one() {
    let setup = Setup::with(3).await;
    setup.engine.env().sleep(secs(90)).await;
    let all = setup.items("/v1/censuses").await;
    let [census] = all.as_slice() else { panic!("{all:#?}") };
    let wanted = json!({
        "provider": "cloud", "completed_at": census["completed_at"], "age": "1m 30s", "things": 3,
        "problem": null, "failures": 0, "next_at": census["next_at"],
    });
    assert_eq!(*census, wanted);
    assert!(census["completed_at"].is_string() && census["next_at"].is_string(), "{census}");

    *setup.cloud.is_down.lock().unwrap() = true;
    setup.sweep().await;
    let failed = &setup.items("/v1/censuses").await[0];
    assert_eq!((&failed["things"], &failed["failures"]), (&json!(3), &json!(1)), "{failed}");
    assert_eq!(failed["completed_at"], wanted["completed_at"], "the last one that is believed");
    assert!(failed["problem"].as_str().unwrap().contains("it is down"), "{failed}");
}

#[tokio::test(start_paused = true)]
async fn an_absence_is_accepted_for_a_provider_that_there_is_and_with_a_reason() {
    let setup = Setup::with(1).await;
    let accept = |provider: &str| format!("/v1/censuses/{provider}/actions/accept_absence");
    for (provider, body, status, code) in [
        ("nobody", json!({"reason": "all were removed"}), 501, "not_offered"),
        ("cloud", json!({}), 422, "validation_failed"),
        ("cloud", json!({"reason": ""}), 422, "validation_failed"),
        ("two%20words", json!({"reason": "x"}), 400, "malformed_id"),
    ] {
        let (got, problem) = setup.post(&accept(provider), body).await;
        assert_eq!((got.as_u16(), problem["code"].as_str()), (status, Some(code)), "{provider}: {problem}");
    }
    let (status, _) = setup.post(&accept("cloud"), json!({"reason": "all were removed"})).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
}

#[tokio::test(start_paused = true)]
async fn on_a_database_that_was_put_back_nothing_is_claimed_or_torn_down_before_every_provider_was_compared()
{
    let mut setup = Setup::with(0).await;
    let claim = async |setup: &Setup| setup.post("/v1/claims", json!({"template_id": "tp_demo"})).await;
    // The census before is of a time before the backup was put back.
    setup.engine.env().sleep(secs(1)).await;
    setup.app.restored_at = Some(setup.app.now());
    let (status, problem) = claim(&setup).await;
    assert_eq!((status, &problem["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("not_compared")));
    assert!(problem["detail"].as_str().unwrap().contains("cloud"), "{problem}");
    let (status, problem) =
        setup.post("/v1/instances/in_01jzzzzzzzzzzzzzzzzzzzzzzz/teardown", json!({})).await;
    assert_eq!((status, &problem["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("not_compared")));
    // A list that is not believed is no comparison.
    *setup.cloud.is_down.lock().unwrap() = true;
    setup.engine.env().sleep(secs(60)).await;
    setup.sweep().await;
    assert_eq!(claim(&setup).await.1["code"], "not_compared");
    *setup.cloud.is_down.lock().unwrap() = false;
    setup.engine.env().sleep(secs(3600)).await;
    setup.sweep().await;
    let (_, answer) = claim(&setup).await;
    assert_ne!(answer["code"], "not_compared", "{answer}");
}

impl Setup {
    async fn page(&self, path: &str) -> String {
        let request =
            Request::get(path).header(header::HOST, "localhost").header(header::ACCEPT, "text/html");
        let answer = router(self.app.clone()).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        String::from_utf8(to_bytes(answer.into_body(), usize::MAX).await.unwrap().to_vec()).unwrap()
    }

    async fn form(&self, path: &str, fields: &str) -> StatusCode {
        let request = Request::post(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(fields.to_owned()));
        router(self.app.clone()).oneshot(request.unwrap()).await.unwrap().status()
    }
}

#[tokio::test(start_paused = true)]
async fn the_page_of_findings_shows_each_with_what_can_be_done_and_does_it() {
    let setup = Setup::with(3).await;
    let all = setup.items("/v1/findings").await;
    let id = |number: usize| all[number]["id"].as_str().unwrap().to_owned();
    let page = setup.page("/findings").await;
    assert!(setup.page("/").await.contains("<a href=\"/findings\">Findings</a>"), "it is linked");
    for finding in &all {
        for shown in
            ["id", "name", "external_id", "provider", "class", "kind", "first_seen_at", "last_seen_at"]
        {
            let value = finding[shown].as_str().unwrap();
            assert!(page.contains(value), "{shown} {value}: {page}");
        }
        assert!(page.contains(&format!("action=\"/findings/{}/actions\"", finding["id"].as_str().unwrap())));
    }
    assert!(!page.contains("value=\"remove\""), "what is foreign is not removed from here");
    // Of the page's own size there is a link to the rest, which keeps what was asked for.
    let part = setup.page("/findings?class=foreign&limit=2").await;
    let link = format!("/findings?class=foreign&amp;cursor={}", id(1));
    assert!(part.contains(&link) && !part.contains(&id(2)), "{part}");
    assert!(setup.page(&link.replace("&amp;", "&")).await.contains(&id(2)));

    let path = format!("/findings/{}/actions", id(0));
    for (fields, status) in [
        ("kind=settle&how=ignored", StatusCode::UNPROCESSABLE_ENTITY),
        ("kind=settle&how=ignored&reason=+", StatusCode::UNPROCESSABLE_ENTITY),
        ("kind=settle&how=eaten&reason=x", StatusCode::UNPROCESSABLE_ENTITY),
        ("kind=dance&reason=x", StatusCode::UNPROCESSABLE_ENTITY),
        ("kind=remove&reason=x", StatusCode::CONFLICT),
        ("kind=settle&how=ignored&reason=a+colleague%27s", StatusCode::SEE_OTHER),
        // What is ignored may be settled otherwise later.
        ("kind=settle&how=removed&reason=a+colleague%27s", StatusCode::SEE_OTHER),
        ("kind=settle&how=ignored&reason=again", StatusCode::CONFLICT),
    ] {
        assert_eq!(setup.form(&path, fields).await, status, "{fields}");
    }
    let open = setup.page("/findings").await;
    assert!(!open.contains(&id(0)) && open.contains(&id(1)), "{open}");
    let settled = setup.page("/findings?state=settled").await;
    assert!(settled.contains(&id(0)) && !settled.contains(&path), "{settled}");
    assert!(
        settled.contains("removed by operator (dashboard)") && settled.contains("a colleague's"),
        "{settled}"
    );
    assert_eq!(setup.items("/v1/findings?state=settled").await[0]["settled"], "removed");
}

#[tokio::test(start_paused = true)]
async fn the_page_of_findings_says_how_old_it_is_and_offers_to_believe_an_absence() {
    let setup = Setup::with(1).await;
    assert!(!setup.page("/findings").await.contains("accept_absence"));
    *setup.cloud.is_down.lock().unwrap() = true;
    setup.engine.env().sleep(secs(90)).await;
    setup.sweep().await;
    let page = setup.page("/findings").await;
    assert!(page.contains("1m 30s ago") && page.contains("it is down"), "{page}");
    assert!(page.contains("action=\"/censuses/cloud/actions\""), "{page}");
    assert_eq!(setup.form("/censuses/cloud/actions", "reason=+").await, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(setup.form("/censuses/nobody/actions", "reason=x").await, StatusCode::NOT_IMPLEMENTED);
    assert_eq!(setup.form("/censuses/cloud/actions", "reason=all+removed").await, StatusCode::SEE_OTHER);
}

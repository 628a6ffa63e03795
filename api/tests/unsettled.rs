//! A saga that waits for a lost call says until when, in the API and on its page.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use amends_api::server::{App, router};
use amends_engine::activity::{Cause, Found};
use amends_engine::journal::state::SagaState;
use amends_engine::store::memory::MemoryStore;
use amends_engine::{
    Activity, Call, Effect, Engine, Env, Failure, Registry, Resource, Saga, SagaId, Workflow, saga, secs,
};
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tower::ServiceExt;

/// A shop that takes an order and does not say so.
#[derive(Default)]
struct Shop {
    orders: Mutex<Vec<String>>,
    /// Whether an order can be seen.
    shows: AtomicBool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Order {
    name: String,
}

impl Activity for Order {
    const NAME: &'static str = "shop.order";
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(600) };
    const TIME_LIMIT: std::time::Duration = secs(10);
    type Client = Shop;
    type Output = String;

    fn resource(&self, _: &Call) -> Option<Resource> {
        Some(Resource::new("shop", "order", self.name.clone()))
    }

    async fn execute(&self, shop: &Shop, _: &Call) -> Result<String, Failure> {
        shop.orders.lock().unwrap().push(self.name.clone());
        Err(Failure::NoAnswer { cause: Cause::Reset, detail: "the line broke after sending".into() })
    }

    async fn find(&self, shop: &Shop, _: &Call) -> Result<Found<String>, Failure> {
        let is_seen = shop.shows.load(Ordering::SeqCst) && shop.orders.lock().unwrap().contains(&self.name);
        Ok(if is_seen { Found::Usable(self.name.clone()) } else { Found::Nothing })
    }

    async fn compensate(&self, shop: &Shop, made: &String, _: &Call) -> Result<(), Failure> {
        shop.orders.lock().unwrap().retain(|order| order != made);
        Ok(())
    }
}

/// Orders one thing, then waits.
struct Purchase;

impl Workflow for Purchase {
    const NAME: &'static str = "purchase";
    const VERSION: u32 = 1;
    type Input = String;
    type Output = ();

    async fn run(&self, saga: &Saga, name: String) -> saga::Result<()> {
        saga.step("order", Order { name }).await?;
        saga.sleep("rest", secs(24 * 3600)).await
    }
}

struct Setup {
    engine: Engine,
    shop: Arc<Shop>,
    app: App,
}

impl Setup {
    async fn new() -> Self {
        let env = Env::simulated(7);
        let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
        let shop = Arc::new(Shop::default());
        let registry = Registry::default().activity::<Order>(shop.clone()).workflow(Purchase);
        let engine = Engine::start(Arc::new(store), vault, registry, env, "test");
        let app =
            App { engine: engine.clone(), sandbox: None, environment: "test".into(), restored_at: None };
        Self { engine, shop, app }
    }

    async fn start(&self) -> SagaId {
        let new = self.engine.new_saga::<Purchase>("p", &"box".to_owned()).unwrap();
        self.engine.begin(new).await.unwrap().saga().clone()
    }

    async fn text(&self, path: &str) -> String {
        let request = Request::get(path).header(header::HOST, "localhost").body(Body::empty()).unwrap();
        let (parts, body) = router(self.app.clone()).oneshot(request).await.unwrap().into_parts();
        assert_eq!(parts.status, StatusCode::OK);
        String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().to_vec()).unwrap()
    }

    /// What the API says of the saga, and of its order.
    async fn told(&self, saga: &SagaId) -> (Value, Value) {
        let detail: Value = serde_json::from_str(&self.text(&format!("/v1/sagas/{saga}")).await).unwrap();
        let order = detail["steps"].as_array().unwrap().iter().find(|step| step["key"] == "order");
        let order = order.unwrap().clone();
        (detail, order)
    }

    /// When the call that was lost is surely over: behind its time limit, and what its effect may take.
    async fn over(&self, saga: &SagaId) -> Value {
        let created = self.engine.row(saga).await.unwrap().unwrap().created_at;
        json!(created.plus(secs(610)).to_string())
    }
}

#[tokio::test(start_paused = true)]
async fn a_saga_in_doubt_says_until_when_its_lost_call_may_still_take_effect() {
    let setup = Setup::new().await;
    let saga = setup.start().await;
    setup.engine.env().sleep(secs(1)).await;
    let over = setup.over(&saga).await;
    let (detail, order) = setup.told(&saga).await;
    assert_eq!(order["phase"], "in_doubt", "{detail:#}");
    assert_eq!((&detail["unsettled_until"], &order["unsettled_until"]), (&over, &over), "{detail:#}");
    let page = setup.text(&format!("/sagas/{saga}")).await;
    let until = format!("may still take effect until <time datetime=\"{0}\">{0}<", over.as_str().unwrap());
    assert!(page.contains(&until), "{page}");

    // It is over, and seen to be there.
    setup.shop.shows.store(true, Ordering::SeqCst);
    setup.engine.env().sleep(secs(3600)).await;
    let (detail, order) = setup.told(&saga).await;
    assert_eq!(order["phase"], "completed", "{detail:#}");
    for of in [&detail, &order] {
        assert_eq!(of.get("unsettled_until"), Some(&Value::Null), "{detail:#}");
    }
    assert_eq!(order.get("held_until"), Some(&Value::Null), "{detail:#}");
    assert!(!setup.text(&format!("/sagas/{saga}")).await.contains("may still take effect"));
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_waits_for_a_lost_call_says_until_when() {
    let setup = Setup::new().await;
    setup.shop.shows.store(true, Ordering::SeqCst);
    let saga = setup.start().await;
    let rests = |row: &amends_engine::store::SagaRow| row.step.as_deref() == Some("rest waits");
    let row = setup.engine.wait(&saga, secs(3600), rests).await.unwrap().unwrap();
    assert!(rests(&row), "it was seen a little before that, and adopted: {row:#?}");
    setup.engine.cancel(&saga, "ann", "it is not wanted").await.unwrap();
    setup.engine.env().sleep(secs(2)).await;
    let over = setup.over(&saga).await;
    let (detail, order) = setup.told(&saga).await;
    assert_eq!(order["phase"], "removing", "{detail:#}");
    assert_eq!((&order["held_until"], &detail["unsettled_until"]), (&over, &over), "{detail:#}");
    let page = setup.text(&format!("/sagas/{saga}")).await;
    let until = format!("its next call waits until <time datetime=\"{0}\">{0}<", over.as_str().unwrap());
    assert!(page.contains(&until), "{page}");
    assert_eq!(setup.shop.orders.lock().unwrap().len(), 1, "nothing is taken back before");

    let row = setup.engine.wait(&saga, secs(3600), |_| false).await.unwrap().unwrap();
    assert_eq!(row.state, SagaState::Compensated);
    assert!(setup.shop.orders.lock().unwrap().is_empty());
    let (detail, order) = setup.told(&saga).await;
    assert_eq!(
        (&order["held_until"], &detail["unsettled_until"]),
        (&Value::Null, &Value::Null),
        "{detail:#}"
    );
}

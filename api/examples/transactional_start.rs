//! A transactional start in an axum app: an order's row and the saga that fulfils it are one commit, or neither is there.
//!
//! `cargo run -p amends-api --example transactional_start`

use std::error::Error;
use std::sync::Arc;

use amends_engine::journal::{story, why};
use amends_engine::store::Migrations;
use amends_engine::store::sqlite::SqliteStore;
use amends_engine::store::{self, NewSaga, SagaFilter};
use amends_engine::{
    Activity, Call, Effect, Engine, Env, Failure, Local, Registry, Saga, SagaId, Tx, Workflow, params, saga,
    secs,
};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

/// The app's own tables, in the same file as the engine's, with a migration table of their own.
const SHOP: &[Migrations] = &[Migrations {
    table: "shop_migration",
    sqlite: &[(
        "orders",
        "create table orders (id text primary key, pieces integer not null check (pieces > 0)) strict;",
    )],
    postgres: &[],
}];

#[derive(Debug, Serialize, Deserialize)]
struct Pack {
    order: String,
}

impl Activity for Pack {
    const NAME: &'static str = "shop.pack";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = ();
    type Output = String;

    async fn execute(&self, (): &(), _: &Call) -> Result<String, Failure> {
        Ok(format!("{} is packed", self.order))
    }
}

struct Fulfil;

impl Workflow for Fulfil {
    const NAME: &'static str = "fulfil";
    const VERSION: u32 = 1;
    type Input = String;
    type Output = String;

    async fn run(&self, saga: &Saga, order: String) -> saga::Result<String> {
        Ok(saga.step("pack", Pack { order }).await?.take())
    }
}

/// Writes the order and starts its saga, in one transaction.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct PlaceOrder {
    id: String,
    pieces: i64,
}

impl Local for PlaceOrder {
    const NAME: &'static str = "shop.place_order";
    type Output = SagaId;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<SagaId, Failure> {
        // The saga first: should the row be refused, there is no saga either.
        let new = NewSaga::of::<Fulfil>(tx.env(), format!("order-{}", self.id), &self.id)?;
        let saga = tx.start::<Fulfil>(new).await?;
        tx.execute("insert into orders (id, pieces) values ($1, $2)", params![&self.id, self.pieces]).await?;
        Ok(saga)
    }
}

/// `POST /orders`: 202 and the saga's id once both are durable.
async fn place(
    State(engine): State<Engine>,
    Json(order): Json<PlaceOrder>,
) -> Result<(StatusCode, String), (StatusCode, String)> {
    match engine.transact(order).await {
        Ok(saga) => Ok((StatusCode::ACCEPTED, saga.to_string())),
        Err(store::Error::Job(failure @ Failure::Refused(_))) => {
            Err((StatusCode::CONFLICT, failure.to_string()))
        }
        Err(error) => Err((StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let env = Env::system();
    let (database, key) = (folder.path().join("shop.db"), folder.path().join("key"));
    let (store, vault) = SqliteStore::open(&database, &key, "example", SHOP, &env).await?;
    let registry = Registry::default().activity::<Pack>(Arc::new(())).workflow(Fulfil);
    let engine = Engine::start(Arc::new(store), vault, registry, env, "example");

    let app = Router::new().route("/orders", post(place)).with_state(engine.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/orders", listener.local_addr()?);
    let server = tokio::spawn(async move { axum::serve(listener, app).await });

    // No pieces is against the table's check: the answer is 409, and nothing is left behind.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::new();
    for (id, pieces) in [("a1", 3), ("a2", 0)] {
        let order = PlaceOrder { id: id.to_owned(), pieces };
        let answer = client.post(&url).json(&order).send().await?;
        println!("order {id} of {pieces} pieces: {} {}", answer.status(), answer.text().await?);
    }
    let orders = engine.store().fetch("select id from orders".into(), params![]).await?;
    let sagas = engine.sagas(SagaFilter::default()).await?;
    assert_eq!((orders.len(), sagas.len()), (1, 1));

    let saga = &sagas[0].id;
    let row = engine.wait(saga, secs(60), |_| false).await?.ok_or("the saga is gone")?;
    let view = engine.view(saga).await?.ok_or("the saga is gone")?;
    print!("{}", story(saga, &view.entries));
    println!("{}", why(&view.state, engine.env().now()));
    assert_eq!(row.state.to_string(), "completed");
    server.abort();
    engine.stop().await;
    println!("Look at: two orders were sent; {} row and {} saga are there.", orders.len(), sagas.len());
    Ok(())
}

//! One of several processes that drive sagas on one Postgres, until it is killed.

#![allow(clippy::unwrap_used, reason = "a test's process fails by panicking")]

use std::path::PathBuf;
use std::sync::Arc;

use amends_engine::store::postgres::PostgresStore;
use amends_engine::{Engine, Env};
use amends_tests::market::registry;
use amends_tests::yard::NOTES;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let said = |name: &str| std::env::var(name).unwrap();
    let env = Env::system();
    let key = PathBuf::from(said("KEY"));
    let (store, vault) = PostgresStore::open(&said("DATABASE"), &key, "test", NOTES, &env).await.unwrap();
    let market = registry(said("MARKET").parse().unwrap());
    let engine = Engine::start(Arc::new(store), vault, market, env, "test");
    println!("ready");
    // Until somebody kills it, or closes its input: then it drains.
    let mut line = String::new();
    tokio::task::spawn_blocking(move || std::io::stdin().read_line(&mut line)).await.unwrap().unwrap();
    engine.stop().await;
}

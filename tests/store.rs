//! What every store promises, on each of them with the same cases; and what a database file is refused for.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::sync::Arc;

use amends_engine::Env;
use amends_engine::SagaId;
use amends_engine::store::memory::MemoryStore;
use amends_engine::store::open::{Migrations, OpenError};
use amends_engine::store::sqlite::SqliteStore;
use amends_engine::store::{NewSaga, Store};
use amends_engine::testing::conformance::{self, NOTES, Subject};
use amends_tests::postgres::{Base, Server};

#[tokio::test(start_paused = true)]
async fn the_memory_store_keeps_every_promise() {
    let cases = conformance::run(|| async {
        let env = Env::simulated(3);
        let (store, vault) = MemoryStore::new(NOTES, &env).await.unwrap();
        let another: Option<Arc<dyn Store>> = Some(Arc::new(store.another(&env)));
        Subject { name: "memory", store: Arc::new(store), vault, env, another }
    })
    .await;
    eprintln!("{cases} cases on memory");
}

#[tokio::test]
async fn the_sqlite_store_keeps_every_promise() {
    let folder = tempfile::tempdir().unwrap();
    let mut number = 0;
    let cases = conformance::run(|| {
        number += 1;
        let (file, key) =
            (folder.path().join(format!("{number}.db")), folder.path().join(format!("{number}.key")));
        async move {
            let env = Env::seeded(3);
            let (store, vault) = SqliteStore::open(&file, &key, "test", NOTES, &env).await.unwrap();
            Subject { name: "sqlite", store: Arc::new(store), vault, env, another: None }
        }
    })
    .await;
    eprintln!("{cases} cases on SQLite");
}

/// Tries every case on a database of its own, at the address that `url` makes of it.
async fn postgres(name: &'static str, url: impl Fn(&Server, &Base) -> String) -> usize {
    let server = Server::shared();
    conformance::run(|| {
        let base = server.database();
        let url = url(&server, &base);
        async move {
            let env = Env::seeded(3);
            let (store, vault) = base.try_open(&url, NOTES, &env).await.unwrap();
            let (another, _) = base.try_open(&url, NOTES, &env).await.unwrap();
            let another: Option<Arc<dyn Store>> = Some(Arc::new(another));
            Subject { name, store: Arc::new(store), vault, env, another }
        }
    })
    .await
}

#[tokio::test]
async fn the_postgres_store_keeps_every_promise() {
    let cases = postgres("postgres", |_, base| base.url.clone()).await;
    eprintln!("{cases} cases on Postgres");
}

#[tokio::test]
async fn the_postgres_store_keeps_every_promise_through_a_transaction_pooler() {
    let pooler = Server::shared().pgbouncer();
    let cases = postgres("postgres through pgbouncer", |_, base| pooler.url(base)).await;
    eprintln!("{cases} cases on Postgres through pgbouncer");
}

#[tokio::test]
async fn the_postgres_store_keeps_every_promise_where_the_default_is_serializable() {
    let cases = postgres("postgres, serializable", |server, base| {
        let sql = format!("alter database {} set default_transaction_isolation = 'serializable'", base.name);
        server.psql("postgres", &sql);
        base.url.clone()
    })
    .await;
    eprintln!("{cases} cases on Postgres with serializable as the default");
}

/// The cases let a store start without holding; these do hold.
async fn holds_what_it_starts(store: &dyn Store, env: &Env) {
    store.renew().await.unwrap();
    let new = NewSaga::raw(env, SagaId::from_uuid(env.uuid()), "w", 1, 1.into());
    assert!(store.start_held(new).await.unwrap().1);
}

#[tokio::test]
async fn a_saga_that_begins_at_once_is_held_from_its_start_in_memory_on_sqlite_and_on_postgres() {
    let env = Env::seeded(6);
    let (memory, _) = MemoryStore::new(NOTES, &env).await.unwrap();
    holds_what_it_starts(&memory, &env).await;
    let folder = tempfile::tempdir().unwrap();
    // The folder of a file is made with it.
    let (file, key) = (folder.path().join("new/deep/a.db"), folder.path().join("new/deep/key"));
    let (sqlite, _) = SqliteStore::open(&file, &key, "test", NOTES, &env).await.unwrap();
    holds_what_it_starts(&sqlite, &env).await;
    let server = Server::shared();
    let base = server.database();
    let (postgres, _) = base.open(NOTES, &env).await;
    holds_what_it_starts(&postgres, &env).await;
}

#[tokio::test]
async fn a_database_is_refused_that_is_in_use_newer_foreign_elsewhere_or_without_its_key() {
    let env = Env::seeded(5);
    let folder = tempfile::tempdir().unwrap();
    let (file, key) = (folder.path().join("a.db"), folder.path().join("key"));
    let open = async |environment: &str, own: &[Migrations]| {
        SqliteStore::open(&file, &key, environment, own, &env).await.map(|(store, _)| store)
    };
    let store = open("test", NOTES).await.unwrap();
    assert!(matches!(open("test", NOTES).await, Err(OpenError::InUse(_))));
    store.close().await;
    let older = &[Migrations { table: "note_migration", sqlite: &[], postgres: &[] }];
    assert!(matches!(open("test", older).await, Err(OpenError::Newer { version: 2, known: 0, .. })));
    assert!(matches!(open("production", NOTES).await, Err(OpenError::OtherEnvironment { .. })));

    let text = std::fs::read_to_string(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    assert!(
        matches!(open("test", NOTES).await, Err(OpenError::Key(_))),
        "a new key would orphan its secrets"
    );
    assert!(!key.exists());
    std::fs::write(&key, text.replace(|digit: char| digit.is_ascii_hexdigit(), "0")).unwrap();
    assert!(matches!(open("test", NOTES).await, Err(OpenError::Key(_))));
    std::fs::write(&key, text).unwrap();
    open("test", NOTES).await.unwrap().close().await;

    let letters = folder.path().join("letters.txt");
    std::fs::write(&letters, "Dear database, this is a letter and not one of you. ".repeat(100)).unwrap();
    let before = std::fs::read(&letters).unwrap();
    let foreign = SqliteStore::open(&letters, &key, "test", NOTES, &env).await;
    assert!(matches!(foreign, Err(OpenError::Foreign(_))), "{:?}", foreign.err());
    assert_eq!(std::fs::read(&letters).unwrap(), before);
}

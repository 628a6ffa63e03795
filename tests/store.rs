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
    // Kept: without it, and with no other test at hand, the server would be another one by the next line.
    let server = Server::shared();
    let pooler = server.pgbouncer();
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

/// How many of SQLite's own locks this process holds on a file.
fn sqlite_locks(file: &std::path::Path) -> usize {
    use std::os::unix::fs::MetadataExt;
    let (process, inode) = (std::process::id().to_string(), std::fs::metadata(file).unwrap().ino());
    let all = std::fs::read_to_string("/proc/locks").unwrap();
    let is_held = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.contains(&"POSIX")
            && words.contains(&process.as_str())
            && words.iter().any(|word| word.ends_with(&format!(":{inode}")))
    };
    all.lines().filter(is_held).count()
}

#[tokio::test]
async fn a_database_is_one_process_s_whatever_name_it_is_reached_by() {
    let env = Env::seeded(5);
    let folder = tempfile::tempdir().unwrap();
    let (file, key) = (folder.path().join("a.db"), folder.path().join("key"));
    let elsewhere = folder.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let (store, _) = SqliteStore::open(&file, &key, "test", NOTES, &env).await.unwrap();
    let started = NewSaga::raw(&env, SagaId::from_uuid(env.uuid()), "w", 1, 1.into());
    store.start(started.clone()).await.unwrap();
    let (hard, soft) = (elsewhere.join("hard.db"), elsewhere.join("soft.db"));
    std::fs::hard_link(&file, &hard).unwrap();
    std::os::unix::fs::symlink(&file, &soft).unwrap();
    std::os::unix::fs::symlink(folder.path(), elsewhere.join("folder")).unwrap();
    let held = sqlite_locks(&file);
    assert!(held > 0, "SQLite's locks are seen");
    for other in [&file, &hard, &soft, &elsewhere.join("folder/a.db"), &elsewhere.join("../a.db")] {
        let refused = SqliteStore::open(other, &key, "test", NOTES, &env).await;
        let error = refused.map(|_| ()).unwrap_err();
        assert!(matches!(error, OpenError::InUse(_)), "{}: {error}", other.display());
        // Another process is refused as well: here by the lock of the kernel alone.
        let lock = std::process::Command::new("flock").arg("-n").arg(other).arg("true").status().unwrap();
        assert!(!lock.success(), "{}", other.display());
        // The kernel gives a process's locks of SQLite's kind back when it closes any copy of the file.
        assert_eq!(sqlite_locks(&file), held, "{}", other.display());
    }
    store.close().await;
    // Put away in order it may be opened by another name.
    let (store, _) = SqliteStore::open(&hard, &key, "test", NOTES, &env).await.unwrap();
    assert!(store.saga(&started.id).await.unwrap().is_some());
    let second = NewSaga::raw(&env, SagaId::from_uuid(env.uuid()), "w", 1, 1.into());
    store.start(second.clone()).await.unwrap();
    // As a crash leaves it: what was written last is in a log that bears the name it was opened by.
    let log = elsewhere.join("hard.db-wal");
    let kept = std::fs::read(&log).unwrap();
    assert!(!kept.is_empty());
    let image = std::fs::read(&hard).unwrap();
    store.close().await;
    std::fs::write(&hard, image).unwrap();
    std::fs::write(&log, kept).unwrap();
    let refused = SqliteStore::open(&file, &key, "test", NOTES, &env).await;
    let error = refused.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("hard.db-wal"), "{error}");
    let (store, _) = SqliteStore::open(&hard, &key, "test", NOTES, &env).await.unwrap();
    assert!(store.saga(&second.id).await.unwrap().is_some(), "nothing was lost");
    store.close().await;
}

/// The files below a folder that this process has open.
fn open_below(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let folder = folder.canonicalize().unwrap();
    let links = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    links.filter_map(|link| std::fs::read_link(link).ok()).filter(|file| file.starts_with(&folder)).collect()
}

/// SQLite keeps one index of the log for all connections of a process to one file, by whatever name: one that was
/// still open would let the next open take the log of another name for empty, and lose what is in it.
#[tokio::test]
async fn a_refused_open_has_closed_the_file_before_it_answers() {
    let env = Env::seeded(5);
    let folder = tempfile::tempdir().unwrap();
    let (file, key) = (folder.path().join("a.db"), folder.path().join("key"));
    let (store, _) = SqliteStore::open(&file, &key, "test", NOTES, &env).await.unwrap();
    assert!(!open_below(folder.path()).is_empty(), "what is open is seen");
    store.start(NewSaga::raw(&env, SagaId::from_uuid(env.uuid()), "w", 1, 1.into())).await.unwrap();
    // As a crash leaves it, under another name; another process copies it, as reading it here would take SQLite's locks.
    let moved = folder.path().join("moved.db");
    assert!(std::process::Command::new("cp").arg(&file).arg(&moved).status().unwrap().success());
    store.close().await;
    assert_eq!(open_below(folder.path()), [] as [std::path::PathBuf; 0], "after a close");
    // The name that it was opened by has a log.
    std::fs::write(folder.path().join("a.db-wal"), "what was written last").unwrap();
    let foreign = folder.path().join("letters.txt");
    std::fs::write(&foreign, "Dear database, this is a letter and not one of you. ".repeat(100)).unwrap();
    let no_key = folder.path().join("no key");
    let older = &[Migrations { table: "note_migration", sqlite: &[], postgres: &[] }];
    let broken =
        &[Migrations { table: "broken_migration", sqlite: &[("broken", "create nothing")], postgres: &[] }];
    for round in 0..20 {
        let refused = SqliteStore::open(&moved, &key, "test", NOTES, &env).await.map(drop).unwrap_err();
        assert!(matches!(refused, OpenError::Unfit { .. }), "{refused}");
        assert_eq!(open_below(folder.path()), [] as [std::path::PathBuf; 0], "{round}: {refused}");
    }
    std::fs::remove_file(folder.path().join("a.db-wal")).unwrap();
    for round in 0..20 {
        for (path, key, environment, own) in [
            (&foreign, &key, "test", NOTES),
            (&file, &key, "test", older),
            (&file, &key, "test", broken),
            (&file, &key, "production", NOTES),
            (&file, &no_key, "test", NOTES),
        ] {
            let refused = SqliteStore::open(path, key, environment, own, &env).await.map(drop).unwrap_err();
            assert!(!matches!(refused, OpenError::InUse(_)), "{refused}");
            assert_eq!(open_below(folder.path()), [] as [std::path::PathBuf; 0], "{round}: {refused}");
        }
    }
}

#[tokio::test]
async fn a_database_and_its_key_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let env = Env::seeded(5);
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("new/deep");
    let (file, key) = (home.join("a.db"), home.join("key"));
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let open = async || SqliteStore::open(&file, &key, "test", NOTES, &env).await.unwrap().0;
    let store = open().await;
    holds_what_it_starts(&store, &env).await;
    let all = || {
        let files = std::fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().path());
        files
            .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), mode(&path)))
            .collect::<Vec<_>>()
    };
    assert_eq!(mode(&home), 0o700);
    assert!(all().len() >= 4, "{:?}", all());
    assert!(all().iter().all(|(_, mode)| *mode == 0o600), "{:?}", all());
    store.close().await;
    for path in [&file, &key] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    let store = open().await;
    holds_what_it_starts(&store, &env).await;
    assert!(all().iter().all(|(_, mode)| *mode == 0o600), "a looser mode is tightened: {:?}", all());
    store.close().await;
}

//! A database in a folder of its own, that an engine can be started on again and again.

use std::sync::Arc;

use amends_engine::secret::Vault;
use amends_engine::store::Store;
use amends_engine::store::open::Migrations;
use amends_engine::store::sqlite::SqliteStore;
use amends_engine::{Engine, Env, Registry};

use amends_engine::testing::crash::{Crash, CrashingStore};

/// One database file and its key.
pub struct Database {
    pub folder: tempfile::TempDir,
    pub env: Env,
    pub migrations: &'static [Migrations],
}

/// An engine with the store under it.
pub struct Running {
    pub engine: Engine,
    pub store: Arc<CrashingStore>,
}

impl Database {
    pub fn new(env: Env, migrations: &'static [Migrations]) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), env, migrations }
    }

    pub async fn open(&self) -> (SqliteStore, Vault) {
        let (file, key) = (self.folder.path().join("amends.db"), self.folder.path().join("key"));
        SqliteStore::open(&file, &key, "test", self.migrations, &self.env).await.unwrap()
    }

    /// Starts an engine that dies at `crash`, if that comes.
    pub async fn run(&self, registry: Registry, crash: Option<Crash>) -> Running {
        let (store, vault) = self.open().await;
        let store = Arc::new(CrashingStore::new(Arc::new(store), crash));
        let engine = Engine::start(store.clone(), vault, registry, self.env.clone(), "test");
        Running { engine, store }
    }
}

impl Running {
    /// Dies as a process does, and leaves the file to the next.
    pub async fn die(self) {
        self.engine.abort();
        self.store.close().await;
    }
}

//! The conformance suite on the memory store alone, for bugs that are planted there.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::sync::Arc;

use amends_engine::Env;
use amends_engine::store::Store;
use amends_engine::store::memory::MemoryStore;
use amends_engine::testing::conformance::{self, NOTES, Subject};

#[tokio::test(start_paused = true)]
async fn the_memory_store_keeps_every_promise() {
    conformance::run(|| async {
        let env = Env::simulated(3);
        let (store, vault) = MemoryStore::new(NOTES, &env).await.unwrap();
        let another: Option<Arc<dyn Store>> = Some(Arc::new(store.another(&env)));
        Subject { name: "memory", store: Arc::new(store), vault, env, another }
    })
    .await;
}

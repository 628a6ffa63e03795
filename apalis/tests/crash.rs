//! A process that dies in the middle of an apalis job, and the one that finds its saga.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

mod desk;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use amends_engine::journal::state::{Attention, SagaState};
use amends_engine::store::Store;
use amends_engine::store::sqlite::SqliteStore;
use amends_engine::{Engine, Env};
use desk::stay::{PACE, Running, begin, registry};
use desk::{Desk, Say, booking, telling};

async fn process(desk: &Arc<Desk>, folder: &Path) -> Running {
    let env = Env::seeded(7).with_pace(PACE);
    let (file, key) = (folder.join("amends.db"), folder.join("key"));
    let (store, vault) = SqliteStore::open(&file, &key, "test", &[], &env).await.unwrap();
    let registry = registry(booking(desk), telling(desk));
    begin(Engine::start(Arc::new(store), vault, registry, env, "test"), &["12"]).await
}

/// Dies once this job is under way, and is started again.
async fn dies_during(job: &'static str, desk: &Arc<Desk>, folder: &Path) -> Running {
    desk.says(job, &[Say::Slow(60_000)]);
    let running = process(desk, folder).await;
    let under_way = async {
        while desk.calls(job).is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), under_way).await.expect("the job is under way");
    let store: Arc<dyn Store> = running.engine.store().clone();
    running.engine.abort();
    store.close().await;
    process(desk, folder).await
}

#[tokio::test]
async fn a_repeatable_job_is_sent_again_by_the_next_process_under_the_same_task_id() {
    let (desk, folder) = (Arc::new(Desk::default()), tempfile::tempdir().unwrap());

    let running = dies_during("tell", &desk, folder.path()).await;

    assert_eq!(running.end().await.state, SagaState::Completed);
    let told = desk.calls("tell");
    assert_eq!(told.iter().map(|seen| seen.attempt).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(told[0].id, told[1].id);
    assert_eq!(desk.calls("book").len(), 1, "what was recorded is not done again");
    running.engine.stop().await;
}

#[tokio::test]
async fn any_other_job_is_not_sent_again_by_the_next_process() {
    let (desk, folder) = (Arc::new(Desk::default()), tempfile::tempdir().unwrap());

    let running = dies_during("book", &desk, folder.path()).await;

    let row = running.until(|row| row.attention.contains(&Attention::NeedsDecision)).await;
    assert!(!row.state.is_ended(), "{row:#?}");
    assert_eq!(desk.calls("book").len(), 1);
    running.engine.stop().await;
}

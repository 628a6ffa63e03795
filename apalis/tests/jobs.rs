//! What a saga promises of an apalis job: what it is told, when it is sent again, and how it is taken back.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

mod desk;

use std::sync::Arc;
use std::time::Duration;

use amends_engine::activity::Found;
use amends_engine::journal::event::Event;
use amends_engine::journal::state::{Attention, SagaState};
use amends_engine::store::{ResourceFilter, ResourceState};
use desk::stay::{begin, engine, stay};
use desk::{Desk, Say, booking, telling};

fn needs_decision(row: &amends_engine::store::SagaRow) -> bool {
    row.attention.contains(&Attention::NeedsDecision)
}

#[tokio::test]
async fn a_job_that_succeeds_is_a_step_that_did() {
    let desk = Arc::new(Desk::default());

    let running = stay(booking(&desk), telling(&desk), &["12"]).await;

    assert_eq!(running.end().await.state, SagaState::Completed);
    let output = running.engine.store().output(&running.saga).await.unwrap();
    assert_eq!(output, Some(serde_json::json!(["12 is yours"])));
    let (book, tell) = (&desk.calls("book")[0], &desk.calls("tell")[0]);
    assert_eq!((book.attempt, tell.attempt), (1, 1));
    assert_ne!(book.id, tell.id);
    assert!(uuid::Uuid::parse_str(&book.id).is_ok(), "the engine's key: {}", book.id);
    running.engine.stop().await;
}

#[tokio::test]
async fn an_aborted_job_turns_the_saga_round_and_the_undo_job_runs() {
    let desk = Arc::new(Desk::default());
    desk.says("tell", &[Say::Abort]);

    let running = stay(booking(&desk), telling(&desk), &["12", "14"]).await;

    let row = running.end().await;
    assert_eq!(row.state, SagaState::Compensated, "{row:#?}");
    assert!(desk.booked.lock().unwrap().is_empty());
    assert_eq!((desk.calls("tell").len(), desk.calls("free").len()), (1, 2));
    let ledger = running.engine.resources(ResourceFilter { limit: 9, ..Default::default() }).await.unwrap();
    assert_eq!(ledger.len(), 2);
    assert!(ledger.iter().all(|row| row.provider == "apalis" && row.kind == "desk.book_room"));
    assert!(ledger.iter().all(|row| row.state == ResourceState::Gone), "{ledger:#?}");
    running.engine.stop().await;
}

#[tokio::test]
async fn an_undo_job_that_fails_is_run_again_under_an_id_of_its_own() {
    let desk = Arc::new(Desk::default());
    desk.says("tell", &[Say::Abort]);
    desk.says("free", &[Say::Lost, Say::RetryAfter, Say::Panic]);

    let running = stay(booking(&desk), telling(&desk), &["12"]).await;

    assert_eq!(running.end().await.state, SagaState::Compensated);
    let undone = desk.calls("free");
    assert_eq!(undone.iter().map(|seen| seen.attempt).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(undone.iter().all(|seen| seen.id == undone[0].id), "{undone:?}");
    assert_ne!(undone[0].id, desk.calls("book")[0].id);
    running.engine.stop().await;
}

#[tokio::test]
async fn an_error_that_says_nothing_leaves_doubt_and_the_job_is_not_sent_again() {
    let desk = Arc::new(Desk::default());
    desk.says("book", &[Say::Lost]);

    let running = stay(booking(&desk), telling(&desk), &["12"]).await;

    let row = running.until(needs_decision).await;
    assert!(!row.state.is_ended(), "{row:#?}");
    // Many times the longest wait between attempts of a job that failed so often.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(desk.calls("book").len(), 1);
    assert_eq!(desk.booked.lock().unwrap().len(), 1, "it had happened");
    running.engine.stop().await;
}

#[tokio::test]
async fn doubt_is_settled_by_a_look_where_there_is_one() {
    for did_happen in [true, false] {
        let desk = Arc::new(Desk::default());
        desk.says("book", &[if did_happen { Say::Lost } else { Say::Panic }]);
        let ledger = desk.clone();
        let booking = booking(&desk).with_find(move |job, id| {
            let is_booked = ledger.booked.lock().unwrap().contains(&job.room);
            assert_eq!(id.to_string(), ledger.calls("book")[0].id, "asked by the id that was sent");
            async move { Ok(if is_booked { Found::Usable("found".to_owned()) } else { Found::Nothing }) }
        });

        let running = stay(booking, telling(&desk), &["12"]).await;

        assert_eq!(running.end().await.state, SagaState::Completed);
        assert_eq!(*desk.booked.lock().unwrap(), ["12"], "once, and not twice");
        assert_eq!(desk.calls("book").len(), if did_happen { 1 } else { 2 });
        running.engine.stop().await;
    }
}

#[tokio::test]
async fn a_repeatable_job_in_doubt_is_sent_again_under_the_same_task_id() {
    let desk = Arc::new(Desk::default());
    desk.says("tell", &[Say::Lost, Say::Panic]);

    let running = stay(booking(&desk), telling(&desk), &["12"]).await;

    assert_eq!(running.end().await.state, SagaState::Completed);
    let told = desk.calls("tell");
    assert_eq!(told.iter().map(|seen| seen.attempt).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(told.iter().all(|seen| seen.id == told[0].id), "{told:?}");
    running.engine.stop().await;
}

#[tokio::test]
async fn a_job_that_asks_to_be_run_later_did_not_happen_and_is_sent_again() {
    let desk = Arc::new(Desk::default());
    desk.says("book", &[Say::RetryAfter]);

    let running = stay(booking(&desk), telling(&desk), &["12"]).await;

    assert_eq!(running.end().await.state, SagaState::Completed);
    let (calls, events) = (desk.calls("book"), running.events().await);
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0].id, calls[1].id);
    assert!(events.iter().any(|event| matches!(event, Event::AttemptDeferred { .. })));
    assert!(!events.iter().any(|event| matches!(event, Event::AttemptLost { .. })));
    running.engine.stop().await;
}

#[tokio::test]
async fn what_the_author_says_of_an_error_goes_before_all_else() {
    let desk = Arc::new(Desk::default());
    desk.says("book", &[Say::SoldOut]);

    let running = stay(booking(&desk), telling(&desk), &["12"]).await;

    let row = running.end().await;
    assert_eq!(row.state, SagaState::Failed, "it ended before any effect");
    assert!(row.error.as_ref().unwrap().contains("sold_out"), "{row:#?}");
    running.engine.stop().await;
}

#[tokio::test]
async fn a_job_waits_at_its_gate_and_runs_once_that_is_opened() {
    let desk = Arc::new(Desk::default());
    let engine = engine(booking(&desk), telling(&desk)).await;
    engine.close_gate("desk.word", "ann", "the post is on strike").await.unwrap();

    let running = begin(engine, &["12"]).await;

    let waits = |row: &amends_engine::store::SagaRow| {
        row.step.as_deref().is_some_and(|step| step.ends_with("waits at a gate"))
    };
    let row = running.engine.wait(&running.saga, desk::stay::PATIENCE, waits).await.unwrap().unwrap();
    assert!(waits(&row), "{row:#?}");
    assert_eq!((desk.calls("book").len(), desk.calls("tell").len()), (1, 0));
    running.engine.open_gate("desk.word", "ann", "it is over").await.unwrap();
    assert_eq!(running.end().await.state, SagaState::Completed);
    assert_eq!(desk.calls("tell").len(), 1);
    running.engine.stop().await;
}

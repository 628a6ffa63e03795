//! tower layers under a saga: what limits a job, and what would have sent it again.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

mod desk;

use std::sync::Arc;
use std::time::Duration;

use amends_apalis::Handler;
use amends_engine::activity::Cause;
use amends_engine::journal::event::Event;
use amends_engine::journal::state::{Attention, SagaState};
use apalis::layers::catch_panic::CatchPanicLayer;
use apalis::layers::limit::ConcurrencyLimitLayer;
use apalis::layers::retry::{RetryLayer, RetryPolicy};
use apalis::prelude::{AbortError, Data, task_fn};
use desk::stay::{PATIENCE, stay, stay_within};
use desk::{Book, Desk, Say, book, booking, free, tell, telling};
use tower::{ServiceBuilder, service_fn};

/// The desk's booking service with a stack of layers around it.
macro_rules! layered {
    ($desk:expr, $($layer:expr),+) => {
        Handler::<Book>::with_undo(
            ServiceBuilder::new()$(.layer($layer))+.layer(Data::new($desk.clone())).service(task_fn(book)),
            ServiceBuilder::new().layer(Data::new($desk.clone())).service(task_fn(free)),
        )
    };
}

fn lost(events: &[Event]) -> Vec<Cause> {
    let lost = |event: &Event| match event {
        Event::AttemptLost { cause, .. } => Some(*cause),
        _ => None,
    };
    events.iter().filter_map(lost).collect()
}

#[tokio::test]
async fn a_time_out_of_the_service_cuts_the_call_and_leaves_doubt() {
    let desk = Arc::new(Desk::default());
    desk.says("tell", &[Say::Slow(60_000)]);
    let told = ServiceBuilder::new()
        .timeout(Duration::from_millis(300))
        .layer(Data::new(desk.clone()))
        .service(task_fn(tell));

    let running = stay(booking(&desk), Handler::new(told), &["12"]).await;

    assert_eq!(running.end().await.state, SagaState::Completed);
    assert_eq!(desk.calls("tell").len(), 2, "the second was quick");
    assert_eq!(lost(&running.events().await), [Cause::Timeout]);
    running.engine.stop().await;
}

#[tokio::test]
async fn a_concurrency_limit_counts_the_calls_of_all_steps() {
    let rooms = ["1", "2", "3", "4", "5", "6"];
    for limit in [1, 2] {
        let desk = Arc::new(Desk::default());
        desk.says("book", &[Say::Meet(limit); 6]);
        let booking = layered!(desk, ConcurrencyLimitLayer::new(limit));

        let running = stay_within(PATIENCE, booking, telling(&desk), &rooms).await;

        assert_eq!(running.end().await.state, SagaState::Completed);
        assert_eq!(desk.booked.lock().unwrap().len(), rooms.len());
        assert_eq!(desk.busy.lock().unwrap().1, limit, "the most at once");
        running.engine.stop().await;
    }
}

#[tokio::test]
async fn a_job_that_finds_no_room_in_time_was_not_sent_and_is_not_in_doubt() {
    let desk = Arc::new(Desk::default());
    desk.says("book", &[Say::Held]);
    let booking = layered!(desk, ConcurrencyLimitLayer::new(1));

    let running = stay_within(PATIENCE, booking, telling(&desk), &["1", "2"]).await;

    running.happens(|event| matches!(event, Event::AttemptDeferred { cause: Cause::NotYet, .. })).await;
    desk.go.notify_one();
    assert_eq!(running.end().await.state, SagaState::Completed);
    assert!(lost(&running.events().await).is_empty());
    assert_eq!(desk.calls("book").len(), 2);
    running.engine.stop().await;
}

#[tokio::test]
async fn apalis_retry_policy_sends_nothing_again_behind_the_journal() {
    let desk = Arc::new(Desk::default());
    desk.says("book", &[Say::Lost; 4]);
    let booking = layered!(desk, RetryLayer::new(RetryPolicy::retries(3)));

    let running = stay(booking, telling(&desk), &["12"]).await;

    running.until(|row| row.attention.contains(&Attention::NeedsDecision)).await;
    assert_eq!(desk.calls("book").len(), 1);
    running.engine.stop().await;
}

#[tokio::test]
async fn a_panic_that_apalis_caught_is_doubt_and_no_refusal() {
    let desk = Arc::new(Desk::default());
    desk.says("book", &[Say::Panic]);
    let booking = layered!(desk, CatchPanicLayer::<_, AbortError>::new());

    let running = stay(booking, telling(&desk), &["12"]).await;

    let row = running.until(|row| row.attention.contains(&Attention::NeedsDecision)).await;
    assert!(!row.state.is_ended(), "{row:#?}");
    assert_eq!(lost(&running.events().await), [Cause::Panic]);
    running.engine.stop().await;
}

#[tokio::test]
async fn data_that_no_layer_brings_means_that_the_handler_did_not_begin() {
    let desk = Arc::new(Desk::default());

    let running = stay(booking(&desk), Handler::new(task_fn(tell)), &["12"]).await;

    let row = running.until(|row| row.error.is_some()).await;
    assert!(row.error.as_ref().unwrap().contains("not called"), "{row:#?}");
    assert!(lost(&running.events().await).is_empty());
    running.engine.cancel(&running.saga, "test", "nobody mends it").await.unwrap();
    assert_eq!(running.end().await.state, SagaState::Compensated);
    running.engine.stop().await;
}

#[tokio::test]
async fn a_service_written_by_hand_is_called_as_it_is() {
    let desk = Arc::new(Desk::default());
    let seen = desk.clone();
    let by_hand = service_fn(move |task: apalis::prelude::Task<desk::Tell>| {
        let id = task.task_id().map(ToString::to_string).unwrap();
        assert_eq!(task.idempotency_key(), Some(id.as_str()));
        let call: &amends_engine::Call = task.data().get().unwrap();
        assert_eq!((call.key().to_string(), call.step().as_str()), (id, "word"));
        seen.booked.lock().unwrap().push(task.args.text);
        async { Ok::<(), std::convert::Infallible>(()) }
    });

    let running = stay(booking(&desk), Handler::new(by_hand), &[]).await;

    assert_eq!(running.end().await.state, SagaState::Completed);
    assert_eq!(*desk.booked.lock().unwrap(), ["we come"]);
    running.engine.stop().await;
}

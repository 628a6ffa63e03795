//! The product's sagas, whole: made, claimed, torn down; stuck and recovered.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::time::Duration;

use amends_engine::activity::Cause;
use amends_engine::journal::Event;
use amends_engine::journal::state::{Attention, SagaState};
use amends_sandbox::{Fault, Kind, Provider};
use amends_tests::shop::Shop;

/// How long anything is waited for that will happen.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn an_instance_is_made_claimed_and_torn_down_and_nothing_is_left() {
    let mut shop = Shop::open().await;
    let made = shop.replenish("default").await;
    let (row, _) = shop.ended(&made).await;
    assert_eq!(row.state, SagaState::Completed, "{}", shop.story(&made).await);
    shop.agree("after replenish").await;
    shop.instances_hold("after replenish").await;

    let claim = shop.claim("tp_demo", "k1").await;
    let (row, _) = shop.ended(&claim).await;
    assert_eq!(row.state, SagaState::Completed, "{}", shop.story(&claim).await);
    shop.agree("after claim").await;
    shop.instances_hold("after claim").await;
    let instances = shop.instances().await;
    assert_eq!((instances.len(), instances[0].state.as_str()), (1, "claimed"));
    assert!(instances[0].conversation.is_some());

    let teardown = shop.teardown(&instances[0].id).await;
    assert_eq!(shop.teardown(&instances[0].id).await, teardown, "two teardowns are one");
    let (row, _) = shop.ended(&teardown).await;
    assert_eq!(row.state, SagaState::Completed, "{}", shop.story(&teardown).await);
    assert_eq!(shop.instances().await[0].state, "gone");
    shop.agree("after teardown").await;
    shop.instances_hold("after teardown").await;
    let (outside, _) = shop.columns().await;
    assert_eq!(outside.len(), 2, "the number rests in our stock, with its profile: {outside:?}");
    shop.stop().await;
}

/// Of the first user nothing is left to the second, who gets an agent of his own.
#[tokio::test]
async fn a_claim_behind_one_that_was_undone_gets_an_agent_of_its_own() {
    let mut shop = Shop::open().await;
    let made = shop.replenish("default").await;
    assert_eq!(shop.ended(&made).await.0.state, SagaState::Completed, "{}", shop.story(&made).await);
    let refuse = Fault::new(Provider::Runtime, "createConversation", Kind::Refuse).times(1);
    shop.sandbox.set_fault(refuse).unwrap();
    let first = shop.claim("tp_demo", "k1").await;
    assert_eq!(shop.ended(&first).await.0.state, SagaState::Compensated, "{}", shop.story(&first).await);
    shop.quiet().await;
    shop.agree("after the undo").await;
    shop.instances_hold("after the undo").await;
    let second = shop.claim("tp_plain", "k2").await;
    assert_eq!(shop.ended(&second).await.0.state, SagaState::Completed, "{}", shop.story(&second).await);
    shop.agree("after the second claim").await;
    shop.instances_hold("after the second claim").await;
    let instance = shop.instances().await.remove(0);
    assert_eq!((instance.state.as_str(), instance.claim_epoch), ("claimed", 3));
    let teardown = shop.teardown(&instance.id).await;
    assert_eq!(shop.ended(&teardown).await.0.state, SagaState::Completed);
    shop.instances_hold("after the teardown").await;
    shop.stop().await;
}

#[tokio::test]
async fn a_claim_waits_in_the_queue_until_an_instance_is_idle() {
    let mut shop = Shop::open().await;
    let claim = shop.claim("tp_quiet", "k1").await;
    let waits = |row: &amends_engine::store::SagaRow| row.state == SagaState::Waiting;
    let row = shop.running().engine.wait(&claim, PATIENCE, waits).await.unwrap().unwrap();
    assert!(waits(&row), "{}", shop.story(&claim).await);
    shop.refill("quiet").await;
    let (row, _) = shop.ended(&claim).await;
    assert_eq!(row.state, SagaState::Completed, "{}", shop.story(&claim).await);
    assert_eq!(shop.instances().await[0].state, "claimed");
    assert_eq!(shop.claim("tp_quiet", "k1").await, claim, "the same key is the same claim");
    shop.agree("after claim").await;
    shop.stop().await;
}

#[tokio::test]
async fn a_stuck_project_delete_holds_nothing_else_up() {
    let mut shop = Shop::open().await;
    let deletes = || Fault::new(Provider::Railway, "projectDelete", Kind::ErrorBefore);

    // A replenish that failed after the deploy.
    shop.sandbox.set_fault(deletes()).unwrap();
    shop.sandbox
        .set_fault(Fault::new(Provider::Railway, "environmentPatchCommit", Kind::DeployCrashes).times(1))
        .unwrap();
    let replenish = shop.replenish("default").await;
    let stuck = |row: &amends_engine::store::SagaRow| row.attention.contains(&Attention::UndoStuck);
    let row = shop.running().engine.wait(&replenish, PATIENCE, stuck).await.unwrap().unwrap();
    assert_eq!(row.state, SagaState::Compensating, "{}", shop.story(&replenish).await);
    assert!(stuck(&row), "{row:?}");
    let holdings = shop.sandbox.holdings();
    assert!(holdings["openrouter"]["keys"].as_array().unwrap().is_empty(), "its key is gone already");
    assert_eq!(holdings["railway"]["projects"].as_array().unwrap().len(), 1);
    shop.sandbox.clear_faults();
    shop.running().engine.retry(&replenish, "ann", "the provider is well again").await.unwrap();
    assert_eq!(shop.ended(&replenish).await.0.state, SagaState::Compensated);
    shop.agree("after the stuck replenish").await;

    // And a teardown.
    shop.refill("default").await;
    let claim = shop.claim("tp_demo", "k1").await;
    assert_eq!(shop.ended(&claim).await.0.state, SagaState::Completed, "{}", shop.story(&claim).await);
    shop.sandbox.set_fault(deletes()).unwrap();
    let claimed = shop.instances().await.into_iter().find(|instance| instance.state == "claimed").unwrap();
    let teardown = shop.teardown(&claimed.id).await;
    let retrying = |row: &amends_engine::store::SagaRow| {
        row.attention.contains(&Attention::Retrying) && row.state == SagaState::Waiting
    };
    let row = shop.running().engine.wait(&teardown, PATIENCE, retrying).await.unwrap().unwrap();
    assert!(retrying(&row), "{row:?}\n{}", shop.story(&teardown).await);
    let holdings = shop.sandbox.holdings();
    assert!(holdings["openrouter"]["keys"].as_array().unwrap().is_empty());
    assert!(holdings["agentmail"]["inboxes"].as_array().unwrap().is_empty());
    assert!(holdings["telnyx"]["numbers"][0]["messaging_profile_id"].is_null());
    let numbers =
        shop.running().engine.store().fetch("select state from number".into(), vec![]).await.unwrap();
    assert_eq!(numbers[0].text("state").unwrap(), "quarantine");
    shop.sandbox.clear_faults();
    shop.running().engine.retry(&teardown, "ann", "the provider is well again").await.unwrap();
    assert_eq!(shop.ended(&teardown).await.0.state, SagaState::Completed);
    shop.agree("after the stuck teardown").await;
    shop.stop().await;
}

#[tokio::test]
async fn a_provider_that_asks_to_wait_is_not_asked_again_before_even_after_a_restart() {
    let mut shop = Shop::open().await;
    let mut limited = Fault::new(Provider::Openrouter, "createKeys", Kind::RateLimited).times(1);
    limited.retry_after = Some(2);
    shop.sandbox.set_fault(limited).unwrap();
    let is_limited =
        |event: &Event| matches!(event, Event::AttemptDeferred { cause: Cause::RateLimited, .. });
    let began = std::time::Instant::now();
    let first = shop.replenish("default").await;
    // Until the answer is in the journal: a call whose answer was lost is looked for, and made again when it may be.
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let entries = shop.running().engine.view(&first).await.unwrap().unwrap().entries;
        if entries.iter().any(|entry| is_limited(&entry.event)) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{}", shop.story(&first).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    shop.restart(None).await;
    // Another saga with the same credential waits at the same gate.
    let second = shop.replenish("default").await;
    loop {
        let calls = shop.sandbox.calls()["openrouter.createKeys"];
        // Read after the calls, so that what was made in between is not taken for too early.
        let passed = began.elapsed();
        if passed >= Duration::from_millis(1900) {
            break;
        }
        assert_eq!(calls, 1, "asked again after {passed:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for saga in [first, second] {
        assert_eq!(shop.ended(&saga).await.0.state, SagaState::Completed, "{}", shop.story(&saga).await);
    }
    shop.stop().await;
}

#[tokio::test]
async fn a_cancel_takes_back_what_was_done_and_is_refused_past_the_pivot() {
    let mut shop = Shop::open().await;
    let hangs = Fault::new(Provider::Railway, "environmentPatchCommit", Kind::DeployHangs).times(1);
    shop.sandbox.set_fault(hangs).unwrap();
    let replenish = shop.replenish("default").await;
    let boots =
        |row: &amends_engine::store::SagaRow| row.step.as_deref().is_some_and(|step| step.contains("boot"));
    shop.running().engine.wait(&replenish, PATIENCE, boots).await.unwrap();
    shop.running().engine.cancel(&replenish, "ann", "it hangs").await.unwrap();
    let (row, _) = shop.ended(&replenish).await;
    assert_eq!(row.state, SagaState::Compensated, "{}", shop.story(&replenish).await);
    let (outside, ledger) = shop.columns().await;
    assert!(outside.is_empty() && ledger.is_empty(), "{outside:?} {ledger:?}");
    assert!(shop.running().engine.cancel(&replenish, "ann", "again").await.is_err(), "it has ended");
    shop.stop().await;
}

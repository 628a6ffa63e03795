//! The pool's sagas among containers that die, stay dirty or are spoken for, and providers that do not do what they say.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::time::{Duration, Instant};

use amends_activities::pool::Instance;
use amends_engine::SagaId;
use amends_engine::journal::state::{Attention, SagaState};
use amends_engine::store::{ResourceFilter, ResourceState, SagaFilter, SagaRow};
use amends_sandbox::{CREDENTIALS, Fault, Kind, Provider};
use amends_tests::shop::Shop;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(120);

fn at(operation: &str, kind: Kind) -> Fault {
    Fault::new(Provider::Runtime, operation, kind)
}

/// A product with so many idle instances.
async fn with_idle(count: usize) -> Shop {
    let mut shop = Shop::open().await;
    for _ in 0..count {
        let made = shop.replenish("default").await;
        assert_eq!(shop.ended(&made).await.0.state, SagaState::Completed, "{}", shop.story(&made).await);
    }
    shop
}

async fn only(shop: &Shop) -> Instance {
    let instances = shop.instances().await;
    assert_eq!(instances.len(), 1, "{instances:#?}");
    instances.into_iter().next().unwrap()
}

async fn instance(shop: &Shop, id: &str) -> Instance {
    shop.instances().await.into_iter().find(|instance| instance.id == id).unwrap()
}

async fn until(shop: &Shop, saga: &SagaId, what: impl Fn(&SagaRow) -> bool) -> SagaRow {
    let row = shop.running().engine.wait(saga, LONG, &what).await.unwrap().unwrap();
    assert!(what(&row), "{row:#?}\n{}", shop.story(saga).await);
    row
}

/// The requests of one kind that a container took, by their operation ids.
fn took(shop: &Shop, of: &Instance, operation: &str) -> Vec<String> {
    let container = shop.container(of);
    let history = container["history"].as_array().cloned().unwrap_or_default();
    let calls = history.iter().filter(|call| call["operation"] == operation);
    calls.map(|call| call["id"].as_str().unwrap_or_default().to_owned()).collect()
}

/// A former user's conversation is in the container, and from then on only the edge before it answers.
#[tokio::test]
async fn an_instance_that_a_gateway_speaks_for_is_never_idle_again() {
    for status in [404, 502] {
        let mut shop = with_idle(1).await;
        let first = only(&shop).await;
        shop.sandbox.set_fault(at("join", Kind::ContainerDies).status(status).times(1)).unwrap();
        let claim = shop.claim_with("tp_plain", "k1", Some("https://talk.example/join/first")).await;
        let undone = |row: &SagaRow| row.state.is_ended();
        until(&shop, &claim, undone).await;
        shop.quiet().await;
        assert_eq!(shop.running().engine.row(&claim).await.unwrap().unwrap().state, SagaState::Compensated);
        let state = instance(&shop, &first.id).await.state;
        assert_eq!(state, "gone", "{status}: nobody saw it clean, so that it was torn down");
        shop.agree("after the teardown").await;
        shop.stop().await;
    }
}

/// The container is back before its recheck has given up: what the former user left is taken away first.
#[tokio::test]
async fn the_next_user_is_never_in_the_former_user_s_conversation() {
    let mut shop = with_idle(1).await;
    let first = only(&shop).await;
    shop.sandbox.set_fault(at("join", Kind::ContainerDies).status(404).times(1)).unwrap();
    let claim = shop.claim_with("tp_plain", "k1", Some("https://talk.example/join/first")).await;
    until(&shop, &claim, |row| row.step.as_deref().is_some_and(|step| step.contains("bound"))).await;
    let former = shop.container(&first)["conversation"].as_str().unwrap().to_owned();
    shop.running().engine.cancel(&claim, "ann", "the container does not answer").await.unwrap();
    until(&shop, &claim, |row| row.state.is_ended()).await;
    let state = instance(&shop, &first.id).await.state;
    assert_eq!(state, "tainted", "nobody gets it while nobody has seen it clean");
    shop.sandbox.clear_faults();
    let domain = first.domain.clone().unwrap();
    shop.sandbox.set_fault(at("status", Kind::ContainerRestarts).of(domain).now()).unwrap();
    shop.quiet().await;
    let back = instance(&shop, &first.id).await;
    assert_eq!(back.state, "idle");
    shop.instances_hold("after the recheck").await;

    let next = shop.claim("tp_plain", "k2").await;
    assert_eq!(shop.ended(&next).await.0.state, SagaState::Completed, "{}", shop.story(&next).await);
    let container = shop.container(&back);
    assert_ne!(container["conversation"], former.as_str());
    shop.instances_hold("after the next claim").await;
    shop.stop().await;
}

#[tokio::test]
async fn with_one_dead_container_the_other_instance_is_given() {
    for status in [404, 502] {
        let mut shop = with_idle(2).await;
        // The newest is offered first.
        let instances = shop.instances().await;
        let newest = instances.iter().max_by_key(|instance| instance.created_at).unwrap().clone();
        let dies = at("status", Kind::ContainerDies).status(status).of(newest.domain.clone().unwrap()).now();
        shop.sandbox.set_fault(dies).unwrap();
        let claim = shop.claim("tp_plain", "k1").await;
        assert_eq!(shop.ended(&claim).await.0.state, SagaState::Completed, "{}", shop.story(&claim).await);
        let given = shop.instances().await.into_iter().find(|one| one.state == "claimed").unwrap();
        assert_ne!(given.id, newest.id);
        shop.quiet().await;
        assert_eq!(instance(&shop, &newest.id).await.state, "gone");
        shop.instances_hold("at the end").await;
        shop.agree("at the end").await;
        shop.stop().await;
    }
}

/// Its gate is closed for an hour: the claim does not wait there for so long.
#[tokio::test]
async fn a_container_that_asks_to_be_left_alone_does_not_use_up_the_claim() {
    let mut shop = with_idle(2).await;
    let instances = shop.instances().await;
    let newest = instances.iter().max_by_key(|instance| instance.created_at).unwrap().clone();
    let mut busy = at("provision", Kind::RateLimited).of(newest.domain.clone().unwrap());
    busy.retry_after = Some(3600);
    shop.sandbox.set_fault(busy).unwrap();
    let claim = shop.claim("tp_plain", "k1").await;
    assert_eq!(shop.ended(&claim).await.0.state, SagaState::Completed, "{}", shop.story(&claim).await);
    let given = shop.instances().await.into_iter().find(|one| one.state == "claimed").unwrap();
    assert_ne!(given.id, newest.id);
    let gate = format!("runtime:{}", newest.domain.unwrap());
    let gates = shop.running().engine.gates().await.unwrap();
    assert!(gates.iter().any(|known| known.key == gate && known.closed.is_some()), "{gates:#?}");
    shop.stop().await;
}

#[tokio::test]
async fn a_container_that_dies_while_it_is_configured_does_not_use_up_the_claim() {
    let mut shop = with_idle(2).await;
    shop.sandbox.set_fault(at("provision", Kind::ContainerDies).status(502).times(1).before()).unwrap();
    let claim = shop.claim("tp_plain", "k1").await;
    assert_eq!(shop.ended(&claim).await.0.state, SagaState::Completed, "{}", shop.story(&claim).await);
    shop.quiet().await;
    let mut states: Vec<_> = shop.instances().await.into_iter().map(|instance| instance.state).collect();
    states.sort();
    assert_eq!(states, ["claimed", "gone"]);
    shop.agree("at the end").await;
    shop.stop().await;
}

/// An image may bring something along, and a volume may have been somebody's: that it boots is not enough.
#[tokio::test]
async fn a_new_container_that_is_not_clean_never_becomes_idle() {
    let mut shop = Shop::open().await;
    shop.sandbox.set_fault(at("health", Kind::ContainerUsed).text("a secret").times(1)).unwrap();
    let made = shop.replenish("default").await;
    assert_eq!(shop.ended(&made).await.0.state, SagaState::Compensated, "{}", shop.story(&made).await);
    shop.quiet().await;
    assert_eq!(only(&shop).await.state, "failed");
    shop.agree("at the end").await;
    shop.instances_hold("at the end").await;
    shop.stop().await;
}

#[tokio::test]
async fn a_container_that_is_dirty_while_idle_is_not_given() {
    let mut shop = with_idle(2).await;
    let instances = shop.instances().await;
    let newest = instances.iter().max_by_key(|instance| instance.created_at).unwrap().clone();
    let used = at("status", Kind::ContainerUsed).text("a secret").of(newest.domain.clone().unwrap()).now();
    shop.sandbox.set_fault(used).unwrap();
    let claim = shop.claim("tp_plain", "k1").await;
    assert_eq!(shop.ended(&claim).await.0.state, SagaState::Completed, "{}", shop.story(&claim).await);
    shop.quiet().await;
    let cleaned = instance(&shop, &newest.id).await;
    assert_eq!(cleaned.state, "idle", "it was emptied, and seen clean");
    shop.instances_hold("at the end").await;
    shop.stop().await;
}

/// The only one there is was dirty: it is emptied, and then it is as good as another.
#[tokio::test]
async fn a_claim_may_get_the_instance_again_that_was_emptied_because_of_it() {
    let mut shop = with_idle(1).await;
    let first = only(&shop).await;
    let used = at("status", Kind::ContainerUsed).text("a secret").of(first.domain.clone().unwrap()).now();
    shop.sandbox.set_fault(used).unwrap();
    let claim = shop.claim("tp_demo", "k1").await;
    assert_eq!(shop.ended(&claim).await.0.state, SagaState::Completed, "{}", shop.story(&claim).await);
    shop.quiet().await;
    let given = instance(&shop, &first.id).await;
    assert_eq!((given.state.as_str(), given.claim_epoch), ("claimed", 3));
    shop.agree("at the end").await;
    shop.instances_hold("at the end").await;
    shop.stop().await;
}

/// A reset that is answered and not done is one that a known operation id would never do again.
#[tokio::test]
async fn each_try_to_clean_a_container_is_an_operation_of_its_own() {
    let mut shop = with_idle(1).await;
    let first = only(&shop).await;
    shop.sandbox.set_fault(at("createConversation", Kind::Refuse).times(1)).unwrap();
    shop.sandbox.set_fault(at("reset", Kind::StaysDirty).times(2)).unwrap();
    let claim = shop.claim("tp_plain", "k1").await;
    assert_eq!(shop.ended(&claim).await.0.state, SagaState::Compensated, "{}", shop.story(&claim).await);
    shop.quiet().await;
    assert_eq!(only(&shop).await.state, "idle");
    let resets = took(&shop, &first, "reset");
    let ids: std::collections::BTreeSet<_> = resets.iter().collect();
    assert_eq!((resets.len(), ids.len()), (3, 3), "{resets:?}");
    shop.instances_hold("at the end").await;
    shop.stop().await;
}

#[tokio::test]
async fn a_container_that_stays_dirty_is_torn_down() {
    for keep in [None, Some(0)] {
        let mut shop = with_idle(1).await;
        shop.sandbox.set_fault(at("createConversation", Kind::Refuse).times(1)).unwrap();
        let mut stays = at("reset", Kind::StaysDirty);
        stays.keep = keep;
        shop.sandbox.set_fault(stays).unwrap();
        let claim = shop.claim("tp_plain", "k1").await;
        assert_eq!(shop.ended(&claim).await.0.state, SagaState::Compensated, "{}", shop.story(&claim).await);
        shop.quiet().await;
        assert_eq!(only(&shop).await.state, "gone", "{keep:?}");
        shop.agree("at the end").await;
        shop.stop().await;
    }
}

#[tokio::test]
async fn a_foreign_conversation_is_not_reset_and_the_other_instance_is_given() {
    let mut shop = with_idle(2).await;
    shop.sandbox.set_fault(at("provision", Kind::ContainerBound).text("convo-theirs").times(1)).unwrap();
    let claim = shop.claim("tp_plain", "k1").await;
    assert_eq!(shop.ended(&claim).await.0.state, SagaState::Completed, "{}", shop.story(&claim).await);
    shop.quiet().await;
    let tainted = shop.instances().await.into_iter().find(|one| one.state == "tainted").unwrap();
    assert_eq!(shop.container(&tainted)["conversation"], "convo-theirs");
    assert!(took(&shop, &tainted, "reset").is_empty());
    shop.instances_hold("at the end").await;
    shop.stop().await;
}

#[tokio::test]
async fn a_join_whose_answer_was_lost_is_settled_by_its_operation() {
    let mut shop = with_idle(1).await;
    shop.sandbox.set_fault(at("join", Kind::LoseAnswer).times(1)).unwrap();
    let claim = shop.claim_with("tp_plain", "k1", Some("https://talk.example/join/abc?x=1")).await;
    assert_eq!(shop.ended(&claim).await.0.state, SagaState::Completed, "{}", shop.story(&claim).await);
    let claimed = only(&shop).await;
    assert!(took(&shop, &claimed, "reset").is_empty());
    assert_eq!(shop.container(&claimed)["invitation"], "https://talk.example/join/abc?x=1");
    shop.instances_hold("at the end").await;
    shop.stop().await;
}

#[tokio::test]
async fn a_join_that_is_accepted_later_is_waited_for() {
    for lost in [false, true] {
        let mut shop = with_idle(1).await;
        shop.sandbox.set_fault(at("join", Kind::JoinPending).times(1)).unwrap();
        if lost {
            shop.sandbox.set_fault(at("join", Kind::LoseAnswer).times(1)).unwrap();
        }
        let claim = shop.claim_with("tp_plain", "k1", Some("https://talk.example/join/abc")).await;
        until(&shop, &claim, |row| row.step.as_deref().is_some_and(|step| step.contains("acceptance"))).await;
        shop.sandbox.set_fault(at("status", Kind::JoinAccepted).now()).unwrap();
        assert_eq!(shop.ended(&claim).await.0.state, SagaState::Completed, "{}", shop.story(&claim).await);
        shop.instances_hold("at the end").await;
        shop.stop().await;
    }
}

#[tokio::test]
async fn a_join_that_nobody_accepts_is_left_at_the_deadline() {
    let mut shop = with_idle(1).await;
    shop.sandbox.set_fault(at("join", Kind::JoinPending)).unwrap();
    let claim = shop.claim_with("tp_demo", "k1", Some("https://talk.example/join/abc")).await;
    let row = until(&shop, &claim, |row| row.state.is_ended()).await;
    assert_eq!(row.state, SagaState::Compensated, "{}", shop.story(&claim).await);
    shop.quiet().await;
    let left = only(&shop).await;
    assert_eq!(left.state, "idle");
    assert_eq!(took(&shop, &left, "join").len(), 1, "it was asked for once");
    shop.instances_hold("at the end").await;
    shop.agree("at the end").await;
    shop.stop().await;
}

#[tokio::test]
async fn two_spellings_of_one_invitation_are_one_conversation() {
    let mut shop = with_idle(2).await;
    let first = shop.claim_with("tp_plain", "k1", Some("https://talk.example/join/abc")).await;
    assert_eq!(shop.ended(&first).await.0.state, SagaState::Completed, "{}", shop.story(&first).await);
    // Another host that leads to the same conversation: only the runtime can tell.
    let second = shop.claim_with("tp_plain", "k2", Some("https://also.example/join/abc")).await;
    let row = shop.ended(&second).await.0;
    assert_eq!(row.state, SagaState::Compensated, "{}", shop.story(&second).await);
    assert!(row.error.unwrap().contains("conversation_claimed"));
    shop.quiet().await;
    let mut states: Vec<_> = shop.instances().await.into_iter().map(|instance| instance.state).collect();
    states.sort();
    assert_eq!(states, ["claimed", "idle"], "the second left again");
    shop.instances_hold("at the end").await;
    shop.stop().await;
}

#[tokio::test]
async fn a_delete_that_does_nothing_is_sent_again() {
    for status in [200, 404] {
        let mut shop = with_idle(1).await;
        let claim = shop.claim("tp_demo", "k1").await;
        assert_eq!(shop.ended(&claim).await.0.state, SagaState::Completed, "{}", shop.story(&claim).await);
        for (provider, operation) in [
            (Provider::Openrouter, "deleteKeys"),
            (Provider::Railway, "projectDelete"),
            (Provider::Agentmail, "deleteInbox"),
        ] {
            let ignored = Fault::new(provider, operation, Kind::DeleteIgnored).status(status).times(2);
            shop.sandbox.set_fault(ignored).unwrap();
        }
        let unassign = Fault::new(Provider::Telnyx, "updateMessagingSettings", Kind::UpdateIgnored).times(2);
        shop.sandbox.set_fault(unassign).unwrap();
        let before = shop.sandbox.calls();
        let teardown = shop.teardown(&only(&shop).await.id).await;
        until(&shop, &teardown, |row| row.state.is_ended()).await;
        let calls = shop.sandbox.calls();
        for call in [
            "openrouter.deleteKeys",
            "railway.projectDelete",
            "agentmail.deleteInbox",
            "telnyx.updateMessagingSettings",
        ] {
            let asked = calls[call] - before.get(call).copied().unwrap_or(0);
            assert_eq!(asked, 3, "{call} {status}: twice in vain\n{}", shop.story(&teardown).await);
        }
        assert_eq!(only(&shop).await.state, "gone");
        shop.agree("at the end").await;
        shop.stop().await;
    }
}

#[tokio::test]
async fn an_undo_whose_delete_does_nothing_is_sent_again() {
    let mut shop = with_idle(1).await;
    shop.sandbox.set_fault(at("createConversation", Kind::Refuse).times(1)).unwrap();
    let ignored = Fault::new(Provider::Agentmail, "deleteInbox", Kind::DeleteIgnored).times(2);
    shop.sandbox.set_fault(ignored).unwrap();
    // The first one is the assignment.
    let mut unassign = Fault::new(Provider::Telnyx, "updateMessagingSettings", Kind::UpdateIgnored).times(2);
    unassign.skip = 1;
    shop.sandbox.set_fault(unassign).unwrap();
    let claim = shop.claim("tp_demo", "k1").await;
    let row = until(&shop, &claim, |row| row.state.is_ended()).await;
    assert_eq!(row.state, SagaState::Compensated, "{}", shop.story(&claim).await);
    shop.quiet().await;
    shop.agree("at the end").await;
    shop.instances_hold("at the end").await;
    shop.stop().await;
}

/// The assignment acts later than its answer is lost, and the claim is given up meanwhile: taken off at once, the number
/// would be assigned again behind that, for ever.
#[tokio::test]
async fn a_number_whose_assignment_lands_late_is_not_assigned_behind_the_undo() {
    let mut shop = with_idle(1).await;
    let (assign, late) = ("updateMessagingSettings", 1.0);
    let fault = Fault::new(Provider::Telnyx, assign, Kind::CommitLate).times(1).seconds(late);
    shop.sandbox.set_fault(fault).unwrap();
    let claim = shop.claim("tp_demo", "k1").await;
    let began = Instant::now();
    while shop.sandbox.fired().get(&format!("telnyx.{assign}.commit_late")) != Some(&1) {
        assert!(began.elapsed() < LONG, "it is not assigned: {}", shop.story(&claim).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    shop.running().engine.cancel(&claim, "ann", "no more").await.unwrap();
    let row = until(&shop, &claim, |row| row.state.is_ended()).await;
    assert_eq!(row.state, SagaState::Compensated, "{}", shop.story(&claim).await);
    tokio::time::sleep(Duration::from_secs_f64(late)).await;
    let number = &shop.sandbox.holdings()["telnyx"]["numbers"][0];
    assert!(number["messaging_profile_id"].is_null(), "{number}\n{}", shop.story(&claim).await);
    shop.quiet().await;
    shop.agree("at the end").await;
    shop.stop().await;
}

#[tokio::test]
async fn a_teardown_cancels_the_claim_that_runs_and_ends_behind_it() {
    let mut shop = with_idle(1).await;
    shop.sandbox.set_fault(at("join", Kind::JoinPending)).unwrap();
    let claim = shop.claim_with("tp_demo", "k1", Some("https://talk.example/join/abc")).await;
    until(&shop, &claim, |row| row.step.as_deref().is_some_and(|step| step.contains("acceptance"))).await;
    // Its undo takes a while: the inbox stays the claim's until then.
    let mut slow = Fault::new(Provider::Agentmail, "deleteInbox", Kind::Latency);
    slow.ms = Some(500);
    shop.sandbox.set_fault(slow).unwrap();
    let teardown = shop.teardown(&only(&shop).await.id).await;
    until(&shop, &teardown, |row| row.state == SagaState::Completed).await;
    let row = shop.running().engine.row(&claim).await.unwrap().unwrap();
    assert_eq!(row.state, SagaState::Compensated, "{}", shop.story(&claim).await);
    assert!(row.error.unwrap_or_default().contains("torn down"), "{}", shop.story(&claim).await);
    let instance = only(&shop).await;
    assert_eq!(instance.state, "gone", "nothing of the claim changes it behind its end");
    shop.agree("at the end").await;
    shop.stop().await;
}

#[tokio::test]
async fn a_teardown_takes_over_what_a_stuck_claim_holds() {
    let mut shop = with_idle(1).await;
    let target = only(&shop).await;
    shop.sandbox.set_fault(at("createConversation", Kind::Refuse).times(1)).unwrap();
    shop.sandbox.set_fault(Fault::new(Provider::Agentmail, "deleteInbox", Kind::ErrorBefore)).unwrap();
    let claim = shop.claim("tp_demo", "k1").await;
    until(&shop, &claim, |row| row.attention.contains(&Attention::UndoStuck)).await;
    let teardown = shop.teardown(&target.id).await;
    // The claim hands its inbox over and ends; the project does not wait for the inbox.
    until(&shop, &claim, |row| row.state.is_ended()).await;
    until(&shop, &teardown, |row| row.attention.contains(&Attention::Retrying)).await;
    let holdings = shop.sandbox.holdings();
    assert!(holdings["openrouter"]["keys"].as_array().unwrap().is_empty(), "the key is gone");
    assert!(holdings["railway"]["projects"].as_array().unwrap().is_empty(), "the project is gone");
    assert_eq!(holdings["agentmail"]["inboxes"].as_array().unwrap().len(), 1);
    shop.sandbox.clear_faults();
    shop.running().engine.retry(&teardown, "ann", "AgentMail is well again").await.unwrap();
    until(&shop, &teardown, |row| row.state == SagaState::Completed).await;
    assert_eq!(instance(&shop, &target.id).await.state, "gone");
    shop.agree("at the end").await;
    shop.stop().await;
}

#[tokio::test]
async fn a_claim_orders_another_number_when_one_is_taken_or_its_order_fails() {
    let mut shop = with_idle(1).await;
    let order = |kind| Fault::new(Provider::Telnyx, "createNumberOrder", kind).times(1);
    shop.sandbox.set_fault(order(Kind::NumberTaken)).unwrap();
    shop.sandbox.set_fault(order(Kind::OrderFails)).unwrap();
    let claim = shop.claim("tp_demo", "k1").await;
    assert_eq!(shop.ended(&claim).await.0.state, SagaState::Completed, "{}", shop.story(&claim).await);
    assert_eq!(shop.sandbox.made()["numbers"], 1);
    shop.agree("what came to nothing is off the ledger").await;
    let rows = shop.running().engine.resources(ResourceFilter { limit: 100, ..ResourceFilter::default() });
    let numbers: Vec<_> = rows.await.unwrap().into_iter().filter(|row| row.kind == "number").collect();
    let alive = numbers.iter().filter(|row| row.state != ResourceState::Gone).count();
    assert_eq!((numbers.len(), alive), (3, 1), "{numbers:#?}");
    shop.stop().await;
}

#[tokio::test]
async fn a_tool_that_is_not_required_may_be_missing() {
    let mut shop = with_idle(1).await;
    let order = Fault::new(Provider::Telnyx, "createNumberOrder", Kind::OrderFails);
    shop.sandbox.set_fault(order).unwrap();
    let claim = shop.claim("tp_optional", "k1").await;
    assert_eq!(shop.ended(&claim).await.0.state, SagaState::Completed, "{}", shop.story(&claim).await);
    let tools = shop.container(&only(&shop).await)["tools"].clone();
    assert_eq!(tools.as_array().unwrap().len(), 1, "{tools}");
    shop.agree("at the end").await;
    shop.stop().await;

    let mut shop = with_idle(1).await;
    let order = Fault::new(Provider::Telnyx, "createNumberOrder", Kind::OrderFails);
    shop.sandbox.set_fault(order).unwrap();
    let claim = shop.claim("tp_demo", "k1").await;
    let row = shop.ended(&claim).await.0;
    assert_eq!(row.state, SagaState::Compensated, "{}", shop.story(&claim).await);
    shop.quiet().await;
    shop.agree("at the end").await;
    shop.stop().await;
}

#[tokio::test]
async fn an_image_that_does_not_exist_makes_a_few_sagas() {
    let mut shop = Shop::open().await;
    let absent = Fault::new(Provider::Ghcr, "headManifest", Kind::ImageAbsent);
    shop.sandbox.set_fault(absent).unwrap();
    shop.replenish("default").await;
    let began = Instant::now();
    for _ in 0..60 {
        shop.quiet().await;
        shop.refill("default").await;
    }
    shop.quiet().await;
    let sagas =
        shop.running().engine.sagas(SagaFilter { limit: 1000, ..SagaFilter::default() }).await.unwrap();
    // Three, and then a probe after each cool-down: 3 s at this pace, and twice as long each time.
    let (mut allowed, mut cool_down, mut at) = (4, 3.0, 3.0);
    while at <= began.elapsed().as_secs_f64() {
        allowed += 1;
        cool_down *= 2.0;
        at += cool_down;
    }
    assert!((3..=allowed).contains(&sagas.len()), "{} sagas, {allowed} allowed", sagas.len());
    shop.stop().await;
}

/// It was ordered and paid for: that the claim went on without it does not make it nobody's.
#[tokio::test]
async fn a_number_that_a_claim_ordered_and_did_not_keep_is_marked_and_in_the_stock() {
    for operation in ["updatePhoneNumber", "retrieveNumberOrder"] {
        let mut shop = with_idle(1).await;
        shop.sandbox.set_fault(Fault::new(Provider::Telnyx, operation, Kind::Refuse).times(1)).unwrap();
        let claim = shop.claim("tp_demo", "k").await;
        let (row, _) = shop.ended(&claim).await;
        assert!(row.state.is_ended(), "{}", shop.story(&claim).await);
        shop.quiet().await;
        let numbers = shop.sandbox.holdings()["telnyx"]["numbers"].as_array().unwrap().clone();
        let store = shop.running().engine.store().clone();
        let known = store.fetch("select * from number".into(), vec![]).await.unwrap();
        assert_eq!((numbers.len(), known.len()), (1, 1), "{operation}: {numbers:?} {known:?}");
        let name = &only(&shop).await.name;
        let reference = numbers[0]["reference"].as_str().unwrap_or_default();
        assert!(reference.starts_with(name.as_str()), "{operation}: {numbers:?}");
        let id = known[0].optional_text("telnyx_id").unwrap();
        assert_eq!(id.as_deref(), numbers[0]["id"].as_str(), "{operation}: it can be chosen");
        shop.stop().await;
    }
}

/// Both look before either makes it, and what one makes is listed a little later.
#[tokio::test]
async fn two_claims_on_a_fresh_account_make_one_messaging_profile() {
    let mut shop = with_idle(2).await;
    let create = |kind| Fault::new(Provider::Telnyx, "createMessagingProfile", kind);
    let mut slow = create(Kind::Latency);
    slow.ms = Some(300);
    shop.sandbox.set_fault(slow).unwrap();
    let mut lags = create(Kind::ListLag);
    lags.seconds = Some(0.05);
    shop.sandbox.set_fault(lags).unwrap();
    let claims = [shop.claim("tp_demo", "k1").await, shop.claim("tp_demo", "k2").await];
    for claim in &claims {
        assert_eq!(shop.ended(claim).await.0.state, SagaState::Completed, "{}", shop.story(claim).await);
    }
    let profiles = shop.sandbox.holdings()["telnyx"]["profiles"].clone();
    assert_eq!(profiles.as_array().unwrap().len(), 1, "{profiles}");
    shop.quiet().await;
    shop.agree("at the end").await;
    shop.stop().await;
}

/// Nobody knows whether it was made, and another claim comes meanwhile.
#[tokio::test]
async fn a_messaging_profile_whose_making_was_lost_is_not_made_by_the_next_claim() {
    let mut shop = with_idle(2).await;
    let mut late = Fault::new(Provider::Telnyx, "createMessagingProfile", Kind::CommitLate).times(1);
    late.seconds = Some(0.5);
    shop.sandbox.set_fault(late).unwrap();
    let first = shop.claim("tp_demo", "k1").await;
    let second = shop.claim("tp_demo", "k2").await;
    for claim in [&first, &second] {
        assert_eq!(shop.ended(claim).await.0.state, SagaState::Completed, "{}", shop.story(claim).await);
    }
    let profiles = shop.sandbox.holdings()["telnyx"]["profiles"].clone();
    assert_eq!(profiles.as_array().unwrap().len(), 1, "{profiles}");
    shop.stop().await;
}

/// Somebody gave the number to something else of theirs while an instance had it.
#[tokio::test]
async fn a_teardown_leaves_a_messaging_profile_that_is_not_ours_on_its_number() {
    let mut shop = with_idle(1).await;
    let claim = shop.claim("tp_demo", "k1").await;
    assert_eq!(shop.ended(&claim).await.0.state, SagaState::Completed, "{}", shop.story(&claim).await);
    let (theirs, number) = give_away_the_number(&shop).await;
    let teardown = shop.teardown(&only(&shop).await.id).await;
    until(&shop, &teardown, |row| row.state.is_ended()).await;
    let state = shop.running().engine.row(&teardown).await.unwrap().unwrap().state;
    assert_eq!(state, SagaState::Completed, "{}", shop.story(&teardown).await);
    assert_eq!(only(&shop).await.state, "gone");
    let numbers = shop.sandbox.holdings()["telnyx"]["numbers"].clone();
    assert_eq!(numbers[0]["messaging_profile_id"], theirs.as_str(), "{numbers}");
    let rows = shop.running().engine.resources(ResourceFilter { limit: 100, ..ResourceFilter::default() });
    let assigned: Vec<_> = rows.await.unwrap().into_iter().filter(|row| row.kind == "assignment").collect();
    assert!(assigned.iter().all(|row| row.state == ResourceState::Gone), "{number}: {assigned:#?}");
    shop.stop().await;
}

/// Makes another messaging profile and puts the only number on it; the profile and the number.
async fn give_away_the_number(shop: &Shop) -> (String, String) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (http, url) = (reqwest::Client::new(), shop.sandbox.urls().telnyx);
    let send = async |request: reqwest::RequestBuilder, body: Value| -> Value {
        let answer = request.bearer_auth(CREDENTIALS.telnyx).json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
        answer.json().await.unwrap()
    };
    let asked = json!({"name": "theirs", "whitelisted_destinations": ["US"]});
    let made = send(http.post(format!("{url}/messaging_profiles")), asked).await;
    let theirs = made["data"]["id"].as_str().unwrap().to_owned();
    let number = shop.sandbox.holdings()["telnyx"]["numbers"][0]["id"].as_str().unwrap().to_owned();
    let settings = http.patch(format!("{url}/phone_numbers/{number}/messaging"));
    send(settings, json!({"messaging_profile_id": theirs})).await;
    (theirs, number)
}

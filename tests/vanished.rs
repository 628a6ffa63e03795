//! The product's sweep, against the sandbox over real HTTP: what vanishes, changes or turns up behind our back.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::time::Duration;

use amends_engine::journal::state::SagaState;
use amends_engine::sweep::{FindingClass, Settlement, Sweep, SweepError};
use amends_engine::{Failure, Local, Tx, params};
use amends_sandbox::{CREDENTIALS, Fault, Kind, Provider};
use amends_tests::shop::{PREFIX, Shop, Swept};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

async fn with_one_idle() -> Shop {
    let mut shop = Shop::open().await;
    let made = shop.replenish("default").await;
    let (row, _) = shop.ended(&made).await;
    assert_eq!(row.state, SagaState::Completed, "{}", shop.story(&made).await);
    shop
}

fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

async fn call(request: reqwest::RequestBuilder, credential: &str) -> Value {
    let answer = request.bearer_auth(credential).send().await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
    answer.json().await.unwrap_or(Value::Null)
}

/// Somebody works in the provider's own pages.
async fn delete_key(shop: &Shop) {
    let hash = shop.sandbox.holdings()["openrouter"]["keys"][0]["hash"].as_str().unwrap().to_owned();
    call(http().delete(format!("{}/keys/{hash}", shop.sandbox.urls().openrouter)), CREDENTIALS.openrouter)
        .await;
}

async fn delete_project(shop: &Shop) {
    let id = shop.sandbox.holdings()["railway"]["projects"][0]["id"].as_str().unwrap().to_owned();
    let query = "mutation ProjectDelete($id: String!) { projectDelete(id: $id) }";
    let request =
        http().post(shop.sandbox.urls().railway).json(&json!({"query": query, "variables": {"id": id}}));
    call(request, CREDENTIALS.railway[0].1).await;
}

async fn make_key(shop: &Shop, name: &str) -> String {
    let request = http().post(format!("{}/keys", shop.sandbox.urls().openrouter));
    let made = call(request.json(&json!({"name": name, "limit": 5})), CREDENTIALS.openrouter).await;
    made["data"]["hash"].as_str().unwrap().to_owned()
}

fn key_names(shop: &Shop) -> Vec<String> {
    let holdings = shop.sandbox.holdings();
    let keys = holdings["openrouter"]["keys"].as_array().unwrap();
    let mut names: Vec<String> = keys.iter().map(|key| key["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

fn no_problem(swept: &Swept) {
    assert!(swept.unread.is_empty(), "{swept:?}");
}

#[tokio::test]
async fn an_instance_whose_key_has_vanished_is_not_idle_after_one_sweep() {
    let mut shop = with_one_idle().await;
    no_problem(&shop.sweep(false).await);
    delete_key(&shop).await;
    let swept = shop.sweep(false).await;
    no_problem(&swept);
    let ghosts = swept.of(FindingClass::Ghost);
    let instance = shop.instances().await.pop().unwrap();
    assert_eq!((ghosts.len(), ghosts[0].kind.as_str()), (1, "key"));
    assert_eq!(ghosts[0].holder.as_ref(), Some(&instance.id));
    assert_eq!(instance.state, "tainted");
    // Nobody is given it, and a teardown leaves nothing.
    let teardown = shop.teardown(&instance.id).await;
    let (row, _) = shop.ended(&teardown).await;
    assert_eq!(row.state, SagaState::Completed, "{}", shop.story(&teardown).await);
    shop.agree("after the teardown").await;
    let swept = shop.sweep(false).await;
    assert!(swept.of(FindingClass::Ghost).is_empty(), "{swept:?}");
    shop.stop().await;
}

#[tokio::test]
async fn an_instance_whose_project_has_vanished_is_not_idle_after_one_sweep() {
    let mut shop = with_one_idle().await;
    delete_project(&shop).await;
    let swept = shop.sweep(false).await;
    no_problem(&swept);
    assert_eq!(swept.of(FindingClass::Ghost)[0].kind, "project");
    assert_eq!(shop.instances().await[0].state, "tainted");
    shop.stop().await;
}

#[tokio::test]
async fn an_inbox_that_has_vanished_from_a_claimed_instance_is_found_by_one_sweep() {
    let mut shop = with_one_idle().await;
    let claim = shop.claim("tp_demo", "k").await;
    assert_eq!(shop.ended(&claim).await.0.state, SagaState::Completed, "{}", shop.story(&claim).await);
    let inbox = shop.sandbox.holdings()["agentmail"]["inboxes"][0]["address"].as_str().unwrap().to_owned();
    shop.sandbox.set_fault(Fault::new(Provider::Agentmail, "*", Kind::Vanish).of(&inbox).now()).unwrap();
    let swept = shop.sweep(false).await;
    no_problem(&swept);
    let ghosts = swept.of(FindingClass::Ghost);
    assert_eq!((ghosts.len(), ghosts[0].kind.as_str()), (1, "inbox"));
    let instance = shop.instances().await.pop().unwrap();
    assert_eq!(ghosts[0].holder.as_ref(), Some(&instance.id));
    // Somebody uses it: what becomes of it is for its owner to say.
    assert_eq!(instance.state, "claimed");
    shop.stop().await;
}

#[tokio::test]
async fn a_list_that_fails_taints_and_removes_nothing() {
    let mut shop = with_one_idle().await;
    for kind in [Kind::ErrorBefore, Kind::Unauthorized, Kind::LoseAnswer, Kind::Refuse] {
        for (provider, list) in
            [(Provider::Openrouter, "list"), (Provider::Railway, "projects"), (Provider::Agentmail, "*")]
        {
            shop.sandbox.set_fault(Fault::new(provider, list, kind)).unwrap();
        }
        let swept = shop.sweep(true).await;
        assert!(swept.findings.is_empty() && swept.removed == 0, "{kind:?}: {swept:?}");
        assert!(!swept.unread.is_empty(), "{kind:?}");
        shop.sandbox.clear_faults();
        for gate in shop.running().engine.gates().await.unwrap() {
            shop.running().engine.open_gate(&gate.key, "ann", "it was a fault").await.unwrap();
        }
    }
    assert_eq!(shop.instances().await[0].state, "idle");
    shop.agree("afterwards").await;
    shop.stop().await;
}

#[tokio::test]
async fn only_whole_names_of_planned_instances_are_removed() {
    let mut shop = with_one_idle().await;
    let own = shop.instances().await[0].name.clone();
    // A twin that landed late, under its generation's name; and what others call theirs.
    make_key(&shop, &format!("{own}-g2")).await;
    let others = [
        format!("{own}-backup"),
        format!("{own}x"),
        format!("{own}-by-alice"),
        format!("{PREFIX}-000000000000"),
        "amends-prod-0123456789ab".to_owned(),
        "dont touch".to_owned(),
    ];
    for name in &others {
        make_key(&shop, name).await;
    }
    let swept = shop.sweep(true).await;
    no_problem(&swept);
    assert_eq!(swept.removed, 0, "not on first sight");
    let orphans = swept.of(FindingClass::Orphan);
    assert_eq!((orphans.len(), &orphans[0].name), (1, &format!("{own}-g2")));
    assert_eq!(swept.of(FindingClass::Foreign).len(), 4);
    let foreign = swept.of(FindingClass::Foreign)[0].id.clone();
    let engine = shop.running().engine.clone();
    let asked = engine.remove_orphan(&foreign, "ann", "away").await;
    assert!(matches!(asked, Err(SweepError::TooLate(_))));
    assert_eq!(shop.sweep(true).await.removed, 1);
    for _ in 0..3 {
        assert_eq!(shop.sweep(true).await.removed, 0);
    }
    let mut left: Vec<String> = others.into_iter().chain([own]).collect();
    left.sort();
    assert_eq!(key_names(&shop), left);
    let row = engine.finding(&orphans[0].id).await.unwrap().unwrap();
    assert_eq!(row.settled.unwrap().how, Settlement::Removed);
    shop.stop().await;
}

async fn make_project(shop: &Shop, name: &str) {
    let query = "mutation ProjectCreate($input: ProjectCreateInput!) { projectCreate(input: $input) { id } }";
    let input = json!({"name": name, "workspaceId": CREDENTIALS.railway[0].0});
    let request = http()
        .post(shop.sandbox.urls().railway)
        .json(&json!({"query": query, "variables": {"input": input}}));
    // A workspace makes one in a while.
    tokio::time::sleep(Duration::from_millis(350)).await;
    let made = call(request, CREDENTIALS.railway[0].1).await;
    assert!(made["errors"].is_null(), "{made}");
}

async fn make_inbox(shop: &Shop, client_id: &str) {
    let request = http().post(format!("{}/inboxes", shop.sandbox.urls().agentmail));
    call(request.json(&json!({"client_id": client_id, "username": client_id})), CREDENTIALS.agentmail).await;
}

async fn order_number(shop: &Shop, reference: &str) {
    let urls = shop.sandbox.urls();
    let search = http().get(format!("{}/available_phone_numbers?filter%5Bcountry_code%5D=US", urls.telnyx));
    let found = call(search, CREDENTIALS.telnyx).await;
    let number = found["data"][0]["phone_number"].as_str().unwrap();
    let order = json!({"phone_numbers": [{"phone_number": number}], "customer_reference": reference});
    let request = http().post(format!("{}/number_orders", urls.telnyx));
    call(request.json(&order), CREDENTIALS.telnyx).await;
}

/// Another installation may have our prefix, a person may name his own after ours, and a number costs money.
#[tokio::test]
async fn what_is_not_ours_stays_at_every_provider() {
    let mut shop = with_one_idle().await;
    let own = shop.instances().await[0].name.clone();
    let strangers = format!("{PREFIX}-000000000000");
    for name in [format!("{own}-old"), strangers.clone()] {
        make_project(&shop, &name).await;
        make_inbox(&shop, &format!("{name}-1")).await;
        make_key(&shop, &name).await;
        order_number(&shop, &format!("{name}-1")).await;
    }
    make_inbox(&shop, "alice").await;
    // Ours by its name, and lost by whoever bought it: a person decides.
    order_number(&shop, &format!("{own}-1")).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = shop.sandbox.made();
    for _ in 0..3 {
        let swept = shop.sweep(true).await;
        no_problem(&swept);
        assert_eq!(swept.removed, 0, "{swept:?}");
    }
    let holdings = shop.sandbox.holdings();
    for (provider, kind) in
        [("railway", "projects"), ("openrouter", "keys"), ("agentmail", "inboxes"), ("telnyx", "numbers")]
    {
        assert_eq!(holdings[provider][kind].as_array().unwrap().len(), before[kind], "{kind}");
    }
    assert_eq!(shop.instances().await[0].state, "idle");
    shop.stop().await;
}

#[tokio::test]
async fn a_limit_that_is_not_as_it_was_declared_is_a_drift() {
    let mut shop = with_one_idle().await;
    assert!(shop.sweep(false).await.findings.is_empty());
    let hash = shop.sandbox.holdings()["openrouter"]["keys"][0]["hash"].as_str().unwrap().to_owned();
    let url = format!("{}/keys/{hash}", shop.sandbox.urls().openrouter);
    call(http().patch(url).json(&json!({"limit": 5000})), CREDENTIALS.openrouter).await;
    let swept = shop.sweep(false).await;
    let drifts = swept.of(FindingClass::Drift);
    let detail = drifts[0].detail.clone().unwrap();
    assert!(detail.starts_with("limit is 5000 and should be"), "{detail}");
    assert_eq!(
        shop.instances().await[0].state,
        "idle",
        "it is shown; what becomes of it is a person's to say"
    );
    shop.stop().await;
}

/// What a sweep says of the one thing that is not as it should be, when somebody sets a field of it to a value.
async fn drift(shop: &mut Shop, provider: Provider, field: &str, value: Value) -> String {
    assert!(shop.sweep(false).await.findings.is_empty(), "nothing was changed yet");
    shop.sandbox.set_fault(Fault::new(provider, "*", Kind::Drift).field(field, value).now()).unwrap();
    let swept = shop.sweep(false).await;
    no_problem(&swept);
    let drifts = swept.of(FindingClass::Drift);
    assert_eq!(drifts.len(), swept.findings.len(), "{swept:?}");
    drifts.first().unwrap_or_else(|| panic!("{field} of {provider} was not compared")).detail.clone().unwrap()
}

#[tokio::test]
async fn an_image_that_is_not_the_one_deployed_is_a_drift() {
    let mut shop = with_one_idle().await;
    let detail = drift(&mut shop, Provider::Railway, "image", json!("docker.io/somebody/else:1")).await;
    assert!(detail.starts_with("image is docker.io/somebody/else:1 and should be ghcr.io/"), "{detail}");
    assert_eq!(shop.instances().await[0].state, "idle");
    shop.stop().await;
}

#[tokio::test]
async fn a_number_that_delivers_to_another_profile_or_to_one_after_its_claim_is_a_drift() {
    let mut shop = with_one_idle().await;
    let claim = shop.claim("tp_demo", "k").await;
    assert_eq!(shop.ended(&claim).await.0.state, SagaState::Completed, "{}", shop.story(&claim).await);
    let detail = drift(&mut shop, Provider::Telnyx, "messaging_profile_id", json!("another")).await;
    assert!(detail.starts_with("profile is another and should be "), "{detail}");
    let bound = shop.sandbox.holdings()["telnyx"]["profiles"][0]["id"].as_str().unwrap().to_owned();
    let detail = Fault::new(Provider::Telnyx, "*", Kind::Drift).field("messaging_profile_id", json!(bound));
    shop.sandbox.set_fault(detail.now()).unwrap();
    // Given back, it delivers nowhere; and if it does, that is seen.
    let instance = shop.instances().await[0].id.clone();
    let teardown = shop.teardown(&instance).await;
    assert_eq!(shop.ended(&teardown).await.0.state, SagaState::Completed);
    let detail = drift(&mut shop, Provider::Telnyx, "messaging_profile_id", json!(bound)).await;
    assert_eq!(detail, format!("profile is {bound} and should be none"));
    shop.stop().await;
}

/// Brings a number that rests into the stock now.
#[derive(Serialize, Deserialize)]
struct Rested;

impl Local for Rested {
    const NAME: &'static str = "test.rested";
    type Output = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), Failure> {
        tx.execute("update number set quarantined_until = 1", params![]).await.map(drop)?;
        Ok(())
    }
}

/// An idle instance, and in the stock a number that is the account's no more.
async fn with_a_number_that_was_released() -> (Shop, String) {
    let mut shop = with_one_idle().await;
    let claim = shop.claim("tp_demo", "before").await;
    assert_eq!(shop.ended(&claim).await.0.state, SagaState::Completed, "{}", shop.story(&claim).await);
    let teardown = shop.teardown(&shop.instances().await[0].id).await;
    assert_eq!(shop.ended(&teardown).await.0.state, SagaState::Completed);
    let made = shop.replenish("default").await;
    assert_eq!(shop.ended(&made).await.0.state, SagaState::Completed);
    shop.running().engine.transact(Rested).await.unwrap();
    let number = shop.sandbox.holdings()["telnyx"]["numbers"][0]["phone_number"].as_str().unwrap().to_owned();
    shop.sandbox.set_fault(Fault::new(Provider::Telnyx, "*", Kind::Vanish).of(&number).now()).unwrap();
    (shop, number)
}

/// The number that a claim was given.
async fn given(shop: &mut Shop) -> String {
    let claim = shop.claim("tp_demo", "behind").await;
    assert_eq!(shop.ended(&claim).await.0.state, SagaState::Completed, "{}", shop.story(&claim).await);
    let output = shop.running().engine.store().output(&claim).await.unwrap().unwrap();
    let tools = output["tools"].as_array().unwrap();
    let telnyx = tools.iter().find(|tool| tool["tool"] == "telnyx").unwrap_or_else(|| panic!("{tools:?}"));
    telnyx["handle"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_claim_that_is_given_a_number_which_was_released_takes_another() {
    let (mut shop, released) = with_a_number_that_was_released().await;
    assert_ne!(given(&mut shop).await, released);
    shop.stop().await;
}

#[tokio::test]
async fn a_number_that_has_vanished_is_in_the_stock_no_more_after_one_sweep() {
    let (mut shop, released) = with_a_number_that_was_released().await;
    let swept = shop.sweep(false).await;
    no_problem(&swept);
    assert_eq!(swept.of(FindingClass::Ghost)[0].name, released);
    assert_ne!(given(&mut shop).await, released);
    let assigned = shop.sandbox.calls().get("telnyx.updateMessagingSettings").copied();
    let claimed_and_torn_down = 2;
    assert_eq!(assigned, Some(claimed_and_torn_down + 1), "it was not even tried");
    shop.stop().await;
}

#[tokio::test]
async fn a_sweep_that_is_asked_to_wait_closes_the_gate_for_all() {
    let mut shop = with_one_idle().await;
    let mut fault = Fault::new(Provider::Openrouter, "list", Kind::RateLimited).times(1);
    fault.retry_after = Some(3600);
    shop.sandbox.set_fault(fault).unwrap();
    let before = shop.sandbox.calls();
    let swept = shop.sweep(false).await;
    assert!(swept.unread.iter().any(|problem| problem.starts_with("openrouter")), "{swept:?}");
    let engine = shop.running().engine.clone();
    let short = Sweep { time_limit: Duration::from_secs(2), ..Sweep::default() };
    let again = engine.sweep("openrouter", &short).await.unwrap().unwrap();
    assert!(again.problem.is_some());
    let calls =
        |calls: &std::collections::BTreeMap<String, u32>| calls.get("openrouter.list").copied().unwrap_or(0);
    assert_eq!(
        calls(&shop.sandbox.calls()) - calls(&before),
        1,
        "nobody called within the time it asked for"
    );
    shop.stop().await;
}

/// Its claim was refused the order, so that its row is closed and nothing marks it.
#[tokio::test]
async fn a_number_that_a_late_order_of_ours_brings_is_an_orphan_and_another_s_is_not() {
    let mut shop = with_one_idle().await;
    let claim = shop.claim("tp_demo", "k").await;
    assert_eq!(shop.ended(&claim).await.0.state, SagaState::Completed, "{}", shop.story(&claim).await);
    let name = shop.instances().await[0].name.clone();
    let ours = format!("{name}-1-g2");
    let orders = [
        ("+13125559001", Some(ours.clone())),
        ("+13125559002", Some(format!("{PREFIX}-zzzzzzzzzzzz-1"))),
        ("+13125559003", Some(format!("order {ours}"))),
        ("+13125559004", None),
    ];
    for (number, reference) in &orders {
        let mut asked = json!({"phone_numbers": [{"phone_number": number}]});
        if let Some(reference) = reference {
            asked["customer_reference"] = reference.as_str().into();
        }
        let request = http().post(format!("{}/number_orders", shop.sandbox.urls().telnyx));
        call(request.json(&asked), CREDENTIALS.telnyx).await;
    }
    for _ in 0..2 {
        let swept = shop.sweep(true).await;
        no_problem(&swept);
        let orphans: Vec<_> = swept
            .of(FindingClass::Orphan)
            .iter()
            .map(|finding| (finding.external_id.clone(), finding.name.clone()))
            .collect();
        assert_eq!(orphans, [("+13125559001".to_owned(), ours.clone())], "{swept:#?}");
        assert_eq!(swept.removed, 0, "a number is released by a person");
    }
    let held = shop.sandbox.holdings()["telnyx"]["numbers"].as_array().unwrap().len();
    assert_eq!(held, 1 + orders.len());
    shop.stop().await;
}

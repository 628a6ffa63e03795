//! Whatever our clients send and whatever the sandbox answers is as the providers' contracts have it.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use amends_engine::journal::state::SagaState;
use amends_sandbox::{CREDENTIALS, Config, Fault, Kind, Pace, Provider, Sandbox, Urls};
use amends_tests::contract::Contracts;
use amends_tests::recorder::Recorder;
use amends_tests::shop::Shop;
use serde_json::{Value, json};

async fn sandbox() -> (Sandbox, Recorder, Urls) {
    let listen = "127.0.0.1:0".parse().unwrap();
    let sandbox = Sandbox::start(Config { listen, pace: Pace::Quick, seed: 1, file: None }).await.unwrap();
    let recorder = Recorder::start(sandbox.address()).await;
    let urls = Urls::of(&recorder.address.to_string());
    (sandbox, recorder, urls)
}

/// How often each call was seen with each status; panics at the first that no contract has so.
fn all_hold(recorder: &Recorder) -> BTreeMap<String, BTreeSet<u16>> {
    let contracts = Contracts::load();
    let mut seen: BTreeMap<String, BTreeSet<u16>> = BTreeMap::new();
    let mut wrong = BTreeSet::new();
    let exchanges = recorder.exchanges();
    for exchange in &exchanges {
        let (call, problems) = contracts.check(exchange);
        wrong.extend(problems.into_iter().map(|problem| format!("{call}: {problem}")));
        seen.entry(call).or_default().extend(exchange.answer.as_ref().map(|answer| answer.status));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    println!("{} exchanges of {} calls, 0 wrong", exchanges.len(), seen.len());
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_our_clients_send_and_get_is_as_the_contracts_have_it() {
    let (sandbox, recorder, urls) = sandbox().await;
    let mut shop = Shop::open_at(sandbox, urls, None).await;
    // Errors on the way, so that looks and undoing are seen too.
    for (provider, operation, kind) in [
        (Provider::Railway, "projectCreate", Kind::ErrorAfter),
        (Provider::Railway, "serviceCreate", Kind::LoseAnswer),
        (Provider::Railway, "volumeCreate", Kind::LoseAnswer),
        (Provider::Railway, "environmentPatchCommit", Kind::LoseAnswer),
        (Provider::Openrouter, "createKeys", Kind::LoseAnswer),
        (Provider::Agentmail, "createInbox", Kind::LoseAnswer),
        (Provider::Telnyx, "createNumberOrder", Kind::LoseAnswer),
        (Provider::Telnyx, "createNumberOrder", Kind::RateLimited),
        (Provider::Runtime, "createConversation", Kind::Refuse),
    ] {
        shop.sandbox.set_fault(Fault::new(provider, operation, kind).times(1)).unwrap();
    }
    let made = shop.replenish("default").await;
    assert_eq!(shop.ended(&made).await.0.state, SagaState::Completed, "{}", shop.story(&made).await);
    // A claim that is refused is taken back: its instance is reset.
    let refused = shop.claim("tp_demo", "k0").await;
    assert_eq!(shop.ended(&refused).await.0.state, SagaState::Compensated, "{}", shop.story(&refused).await);
    let lost = Fault::new(Provider::Runtime, "createConversation", Kind::LoseAnswer).times(1);
    shop.sandbox.set_fault(lost).unwrap();
    let claim = shop.claim("tp_demo", "k1").await;
    assert_eq!(shop.ended(&claim).await.0.state, SagaState::Completed, "{}", shop.story(&claim).await);
    let instance = shop.instances().await[0].id.clone();
    let teardown = shop.teardown(&instance).await;
    assert_eq!(shop.ended(&teardown).await.0.state, SagaState::Completed, "{}", shop.story(&teardown).await);
    // One that is taken back, and the sweep's lists.
    shop.sandbox
        .set_fault(Fault::new(Provider::Railway, "environmentPatchCommit", Kind::DeployCrashes).times(1))
        .unwrap();
    let broken = shop.replenish("quiet").await;
    assert_eq!(shop.ended(&broken).await.0.state, SagaState::Compensated, "{}", shop.story(&broken).await);
    shop.sweep(false).await;
    shop.stop().await;

    let seen = all_hold(&recorder);
    let not_sent = [
        "openrouter.updateKeys",
        "agentmail.updateInbox",
        "telnyx.retrievePhoneNumber",
        "telnyx.deletePhoneNumber",
        // Asked for whole, since an answer to this has no body to tell a gateway's by.
        "ghcr.headManifest",
        "ghcr.listTags",
        // Asked only when a token may have been refused.
        "railway.apiToken",
        "railway.deployment",
        "railway.workflowStatus",
        "runtime.join",
        "runtime.notify",
    ];
    for provider in ["railway", "openrouter", "agentmail", "telnyx", "ghcr", "runtime"] {
        for operation in Contracts::load().operations(provider) {
            let call = format!("{provider}.{operation}");
            assert!(
                seen.contains_key(&call) || not_sent.contains(&call.as_str()),
                "{call} was not sent: {seen:?}"
            );
        }
    }
}

/// Sends to the sandbox by hand.
struct Hand {
    urls: Urls,
    http: reqwest::Client,
}

impl Hand {
    async fn send(&self, method: &str, url: String, token: &str, body: Value) -> Value {
        let mut request = self.http.request(method.parse().unwrap(), url).bearer_auth(token);
        if !body.is_null() {
            request = request.json(&body);
        }
        match request.header("accept", "application/json").send().await {
            Ok(answer) => answer.json().await.unwrap_or_default(),
            Err(_) => Value::Null,
        }
    }

    async fn openrouter(&self, method: &str, path: &str, body: Value) -> Value {
        self.send(method, format!("{}{path}", self.urls.openrouter), CREDENTIALS.openrouter, body).await
    }

    async fn agentmail(&self, method: &str, path: &str, body: Value) -> Value {
        self.send(method, format!("{}{path}", self.urls.agentmail), CREDENTIALS.agentmail, body).await
    }

    async fn telnyx(&self, method: &str, path: &str, body: Value) -> Value {
        self.send(method, format!("{}{path}", self.urls.telnyx), CREDENTIALS.telnyx, body).await
    }

    async fn railway(&self, query: &str, variables: Value) -> Value {
        let body = json!({"query": query, "variables": variables});
        self.send("POST", self.urls.railway.clone(), CREDENTIALS.railway[0].1, body).await
    }
}

/// Every call of four providers once: made, looked at, changed, removed, and each again with what is not there.
async fn everything(hand: &Hand, round: &str) {
    let key =
        hand.openrouter("POST", "/keys", json!({"name": round, "limit": 1.5, "limit_reset": null})).await;
    hand.openrouter("GET", "/keys?offset=0&include_disabled=true", Value::Null).await;
    for hash in [key["data"]["hash"].as_str().unwrap_or("none"), "none"] {
        hand.openrouter("GET", &format!("/keys/{hash}"), Value::Null).await;
        hand.openrouter("PATCH", &format!("/keys/{hash}"), json!({"disabled": true, "limit": null})).await;
        hand.openrouter("DELETE", &format!("/keys/{hash}"), Value::Null).await;
    }

    let inbox = json!({"username": round, "client_id": round, "metadata": {"a": 1, "b": "c", "d": false}});
    let inbox = hand.agentmail("POST", "/inboxes", inbox).await;
    hand.agentmail("POST", "/inboxes", json!({"username": round})).await;
    hand.agentmail("GET", "/inboxes?limit=1", Value::Null).await;
    for address in [inbox["inbox_id"].as_str().unwrap_or("none"), "none"] {
        hand.agentmail("GET", &format!("/inboxes/{address}"), Value::Null).await;
        hand.agentmail("PATCH", &format!("/inboxes/{address}"), json!({"display_name": "x"})).await;
        hand.agentmail("DELETE", &format!("/inboxes/{address}"), Value::Null).await;
    }

    let found = hand
        .telnyx("GET", "/available_phone_numbers?filter[country_code]=US&filter[limit]=1", Value::Null)
        .await;
    let number = found["data"][0]["phone_number"].as_str().unwrap_or("+13125550000").to_owned();
    let order = json!({"phone_numbers": [{"phone_number": number}], "customer_reference": round});
    let placed = hand.telnyx("POST", "/number_orders", order.clone()).await;
    hand.telnyx("POST", "/number_orders", order).await;
    hand.telnyx(
        "GET",
        &format!("/number_orders?filter[customer_reference]={round}&page[size]=250"),
        Value::Null,
    )
    .await;
    for id in [placed["data"]["id"].as_str().unwrap_or("none"), "none"] {
        hand.telnyx("GET", &format!("/number_orders/{id}"), Value::Null).await;
    }
    let profile = json!({"name": round, "whitelisted_destinations": ["US"]});
    let profile = hand.telnyx("POST", "/messaging_profiles", profile).await["data"]["id"].clone();
    hand.telnyx("GET", &format!("/messaging_profiles?filter[name][eq]={round}"), Value::Null).await;
    let digits = number.trim_start_matches('+').to_owned();
    let shown = format!("/phone_numbers?filter[phone_number]={digits}&page[number]=1");
    let mut ours = Value::Null;
    // A number shows some time after its order.
    for _ in 0..if placed["data"].is_null() { 1 } else { 2000 } {
        ours = hand.telnyx("GET", &shown, Value::Null).await["data"][0]["id"].clone();
        if !ours.is_null() || placed["data"].is_null() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    }
    for id in [ours.as_str().unwrap_or("none"), "none"] {
        hand.telnyx("GET", &format!("/phone_numbers/{id}"), Value::Null).await;
        hand.telnyx(
            "PATCH",
            &format!("/phone_numbers/{id}"),
            json!({"customer_reference": "r", "tags": ["t"]}),
        )
        .await;
        hand.telnyx("GET", &format!("/phone_numbers/{id}/messaging"), Value::Null).await;
        let profile = profile.as_str().unwrap_or("none");
        for profile in [profile, ""] {
            let body = json!({"messaging_profile_id": profile});
            hand.telnyx("PATCH", &format!("/phone_numbers/{id}/messaging"), body).await;
        }
        hand.telnyx("DELETE", &format!("/phone_numbers/{id}"), Value::Null).await;
    }

    hand.railway("query { apiToken { workspaces { id name } } }", Value::Null).await;
    hand.railway("query { workflowStatus(workflowId: \"w\") { status error } }", Value::Null).await;
    hand.railway("query { deployment(id: \"none\") { id } }", Value::Null).await;
    hand.railway("query { project(id: \"none\") { id } }", Value::Null).await;
    hand.railway(
        "query { projects(workspaceId: \"ws-sandbox\", first: 1) { edges { node { id } } } }",
        Value::Null,
    )
    .await;
    hand.railway(
        "mutation($input: ProjectCreateInput!) { projectCreate(input: $input) { id } }",
        json!({"input": {"name": round, "workspaceId": "ws-sandbox"}}),
    )
    .await;
    for (call, answer) in [
        ("environment(id: \"none\")", "{ id }"),
        ("domains(projectId: \"n\", environmentId: \"n\", serviceId: \"n\")", "{ serviceDomains { id } }"),
        ("environmentPatches(environmentId: \"n\")", "{ edges { cursor } }"),
        ("deployments(input: {projectId: \"n\"})", "{ edges { cursor } }"),
    ] {
        hand.railway(&format!("query {{ {call} {answer} }}"), Value::Null).await;
    }
    for (call, answer) in [
        ("projectDelete(id: \"none\")", ""),
        ("serviceCreate(input: {projectId: \"n\", name: \"n\"})", "{ id }"),
        ("volumeCreate(input: {projectId: \"n\", mountPath: \"/n\"})", "{ id }"),
        ("serviceDomainCreate(input: {environmentId: \"n\", serviceId: \"n\"})", "{ id }"),
        ("environmentPatchCommit(environmentId: \"n\")", ""),
    ] {
        hand.railway(&format!("mutation {{ {call} {answer} }}"), Value::Null).await;
    }

    let ghcr = &hand.urls.ghcr;
    let url = format!("{ghcr}/token?service=ghcr.io&scope=repository:owner/image:pull");
    let pull = hand.send("GET", url, "any", Value::Null).await["token"].as_str().unwrap_or("none").to_owned();
    for (token, tag) in [(pull.as_str(), "production"), (pull.as_str(), "none"), ("wrong", "production")] {
        for method in ["HEAD", "GET"] {
            hand.send(method, format!("{ghcr}/v2/owner/image/manifests/{tag}"), token, Value::Null).await;
        }
        hand.send("GET", format!("{ghcr}/v2/owner/image/tags/list?n=10"), token, Value::Null).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_of_the_sandbox_is_as_the_contracts_have_it() {
    let (sandbox, recorder, urls) = sandbox().await;
    let hand = Hand { urls, http: reqwest::Client::builder().no_proxy().build().unwrap() };
    everything(&hand, "good").await;
    let providers =
        [Provider::Railway, Provider::Openrouter, Provider::Agentmail, Provider::Telnyx, Provider::Ghcr];
    for (round, kind) in [
        ("unauthorized", Kind::Unauthorized),
        ("limited", Kind::RateLimited),
        ("broken", Kind::ErrorBefore),
        ("after", Kind::ErrorAfter),
    ] {
        for provider in providers {
            let mut fault = Fault::new(provider, "*", kind);
            fault.retry_after = (kind == Kind::RateLimited).then_some(7);
            sandbox.set_fault(fault).unwrap();
        }
        everything(&hand, round).await;
        sandbox.clear_faults();
    }
    let seen = all_hold(&recorder);
    let contracts = Contracts::load();
    for provider in providers {
        for operation in contracts.operations(&provider.to_string()) {
            let statuses = &seen[&format!("{provider}.{operation}")];
            let good = statuses.iter().any(|status| (200..300).contains(status));
            assert!(
                good && statuses.contains(&401) && statuses.contains(&500),
                "{provider}.{operation}: {statuses:?}"
            );
        }
    }
}

/// The check itself goes red: an exchange with one thing wrong is found out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_that_is_not_as_its_contract_has_it_is_found() {
    let (_sandbox, recorder, urls) = sandbox().await;
    let hand = Hand { urls, http: reqwest::Client::builder().no_proxy().build().unwrap() };
    hand.openrouter("POST", "/keys", json!({"name": "a", "limit": 1})).await;
    hand.railway("query { apiToken { workspaces { id } } }", Value::Null).await;
    hand.telnyx("GET", "/phone_numbers?filter[phone_number]=1", Value::Null).await;
    let contracts = Contracts::load();
    let all = recorder.exchanges();
    assert!(all.iter().all(|exchange| contracts.check(exchange).1.is_empty()));
    let broken = |index: usize, change: &dyn Fn(&mut amends_tests::recorder::Exchange)| {
        let mut exchange = all[index].clone();
        change(&mut exchange);
        assert!(!contracts.check(&exchange).1.is_empty(), "{exchange:?}");
    };
    broken(0, &|it| it.body["limit"] = "1".into());
    broken(0, &|it| it.body["colour"] = "red".into());
    broken(0, &|it| it.body = json!({"limit": 1}));
    broken(0, &|it| it.path = "/openrouter/api/v1/key".into());
    broken(0, &|it| it.answer.as_mut().unwrap().status = 200);
    broken(0, &|it| it.answer.as_mut().unwrap().body = "{\"key\": \"k\"}".into());
    broken(0, &|it| it.answer.as_mut().unwrap().body = "<html>".into());
    broken(1, &|it| it.body["query"] = "query { apiToken { nothing } }".into());
    broken(1, &|it| it.body["variables"] = json!({"more": 1}));
    broken(1, &|it| it.answer.as_mut().unwrap().body = "{}".into());
    broken(2, &|it| it.query[0].0 = "filter[number]".into());
    broken(2, &|it| it.query.push(("page[number]".into(), "0".into())));
    broken(2, &|it| it.answer.as_mut().unwrap().body = "{\"data\": [{}], \"meta\": {}}".into());
}

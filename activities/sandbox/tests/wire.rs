//! What the fakes do on the wire, and each fault as a client meets it.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::time::Duration;

use amends_sandbox::{CREDENTIALS, Config, Fault, Kind, Pace, Provider, Sandbox};
use serde_json::{Value, json};

async fn sandbox() -> Sandbox {
    sandbox_at(Pace::Quick).await
}

async fn sandbox_at(pace: Pace) -> Sandbox {
    let listen = "127.0.0.1:0".parse().unwrap();
    Sandbox::start(Config { listen, pace, seed: 1, file: None }).await.unwrap()
}

fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

async fn railway(sandbox: &Sandbox, query: &str, variables: Value) -> Result<Value, reqwest::Error> {
    let request = client().post(sandbox.urls().railway).bearer_auth(CREDENTIALS.railway[0].1);
    request.json(&json!({"query": query, "variables": variables})).send().await?.json().await
}

async fn create_project(sandbox: &Sandbox, name: &str) -> Result<Value, reqwest::Error> {
    let input = json!({"input": {"name": name, "workspaceId": "ws-sandbox", "description": "il/test"}});
    railway(
        sandbox,
        "mutation ProjectCreate($input: ProjectCreateInput!) { projectCreate(input: $input) { id } }",
        input,
    )
    .await
}

async fn projects(sandbox: &Sandbox) -> usize {
    let query = "query P($workspaceId: String!) { projects(workspaceId: $workspaceId, first: 10) { edges { node { id } } } }";
    let listed = railway(sandbox, query, json!({"workspaceId": "ws-sandbox"})).await.unwrap();
    listed["data"]["projects"]["edges"].as_array().unwrap().len()
}

async fn create_key(sandbox: &Sandbox, name: &str) -> Result<reqwest::Response, reqwest::Error> {
    let url = format!("{}/keys", sandbox.urls().openrouter);
    client()
        .post(url)
        .bearer_auth(CREDENTIALS.openrouter)
        .json(&json!({"name": name, "limit": 5}))
        .send()
        .await
}

fn keys(sandbox: &Sandbox) -> usize {
    sandbox.holdings()["openrouter"]["keys"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_lost_answer_has_acted_and_a_lost_request_has_not() {
    let sandbox = sandbox().await;
    sandbox.set_fault(Fault::new(Provider::Openrouter, "createKeys", Kind::LoseAnswer).times(1)).unwrap();
    assert!(create_key(&sandbox, "a").await.is_err());
    assert_eq!(keys(&sandbox), 1);
    sandbox.set_fault(Fault::new(Provider::Openrouter, "createKeys", Kind::LoseRequest).times(1)).unwrap();
    assert!(create_key(&sandbox, "b").await.is_err());
    assert_eq!(keys(&sandbox), 1);
    assert_eq!(create_key(&sandbox, "b").await.unwrap().status(), 201);
    let fired = sandbox.fired();
    assert_eq!(fired["openrouter.createKeys.lose_answer"], 1);
    assert_eq!(fired["openrouter.createKeys.lose_request"], 1);
    assert_eq!(sandbox.calls()["openrouter.createKeys"], 3);
}

#[tokio::test]
async fn a_late_commit_lands_after_the_line_has_dropped() {
    let sandbox = sandbox().await;
    let late = Fault::new(Provider::Openrouter, "createKeys", Kind::CommitLate).times(1).seconds(0.2);
    sandbox.set_fault(late).unwrap();
    assert!(create_key(&sandbox, "a").await.is_err());
    assert_eq!(keys(&sandbox), 0);
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(keys(&sandbox), 1);
}

#[tokio::test]
async fn errors_and_limits_come_before_or_after_the_effect() {
    let sandbox = sandbox().await;
    for (kind, status, made) in [
        (Kind::ErrorBefore, 500, 0),
        (Kind::ErrorAfter, 500, 1),
        (Kind::Unauthorized, 401, 1),
        (Kind::Refuse, 400, 1),
    ] {
        sandbox.set_fault(Fault::new(Provider::Openrouter, "*", kind).times(1)).unwrap();
        assert_eq!(create_key(&sandbox, "a").await.unwrap().status(), status, "{kind}");
        assert_eq!(keys(&sandbox), made, "{kind}");
    }
    let mut limited = Fault::new(Provider::Openrouter, "createKeys", Kind::RateLimited).times(1);
    limited.retry_after = Some(7);
    sandbox.set_fault(limited).unwrap();
    let answer = create_key(&sandbox, "a").await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (429, "7"));
}

#[tokio::test]
async fn railway_says_no_with_200_and_two_projects_may_share_a_name() {
    let sandbox = sandbox().await;
    create_project(&sandbox, "twin").await.unwrap();
    let throttled = create_project(&sandbox, "twin").await.unwrap();
    assert!(throttled["errors"][0]["message"].as_str().unwrap().contains("too quickly"), "{throttled}");
    tokio::time::sleep(Duration::from_millis(320)).await;
    create_project(&sandbox, "twin").await.unwrap();
    assert_eq!(projects(&sandbox).await, 2);
    sandbox
        .set_fault(Fault::new(Provider::Railway, "projectCreate", Kind::ListLag).seconds(0.3).times(1))
        .unwrap();
    tokio::time::sleep(Duration::from_millis(320)).await;
    let made = create_project(&sandbox, "late").await.unwrap();
    assert_eq!(projects(&sandbox).await, 2, "not listed yet");
    let id = made["data"]["projectCreate"]["id"].clone();
    sandbox
        .set_fault(Fault::new(Provider::Railway, "projectDelete", Kind::DeleteLingers).seconds(0.3).times(1))
        .unwrap();
    let delete = "mutation D($id: String!) { projectDelete(id: $id) }";
    assert_eq!(railway(&sandbox, delete, json!({"id": id})).await.unwrap()["data"]["projectDelete"], true);
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(projects(&sandbox).await, 2);
    let again = railway(&sandbox, delete, json!({"id": id})).await.unwrap();
    assert_eq!(again["errors"][0]["message"], "Project not found");
}

#[tokio::test]
async fn an_inbox_under_a_known_client_id_is_the_first_one() {
    let sandbox = sandbox().await;
    let url = format!("{}/inboxes", sandbox.urls().agentmail);
    for _ in 0..2 {
        let asked = json!({"username": "agent-1", "client_id": "agent-1"});
        let request = client().post(&url).bearer_auth(CREDENTIALS.agentmail).json(&asked);
        let inbox: Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(inbox["inbox_id"], "agent-1@agentmail.to");
    }
    assert_eq!(sandbox.holdings()["agentmail"]["inboxes"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_number_is_sold_once_and_shows_later() {
    // At the providers' own pace six seconds lie between the order and its number in the list.
    let sandbox = sandbox_at(Pace::True).await;
    let base = sandbox.urls().telnyx;
    let order = json!({"phone_numbers": [{"phone_number": "+13125550001"}], "customer_reference": "sg_1"});
    let post =
        || client().post(format!("{base}/number_orders")).bearer_auth(CREDENTIALS.telnyx).json(&order).send();
    assert_eq!(post().await.unwrap().status(), 200);
    assert_eq!(post().await.unwrap().status(), 422);
    let list = || async {
        let url = format!("{base}/phone_numbers?filter%5Bphone_number%5D=13125550001");
        let listed: Value =
            client().get(url).bearer_auth(CREDENTIALS.telnyx).send().await.unwrap().json().await.unwrap();
        listed["data"].as_array().unwrap().len()
    };
    assert_eq!(list().await, 0);
    let shows = async {
        while list().await == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), shows).await.expect("the number shows in the list");
    assert_eq!(list().await, 1);
}

#[tokio::test]
async fn a_fault_that_is_none_is_refused_with_what_would_be_one() {
    let sandbox = sandbox().await;
    let url = format!("http://{}/v1/sandbox/faults", sandbox.address());
    for (body, hint) in [
        (json!({"provider": "agentmail", "operation": "createInbux", "fault": "refuse"}), "createInbox"),
        (json!({"provider": "postmark", "operation": "*", "fault": "refuse"}), "agentmail"),
        (json!({"provider": "agentmail", "operation": "*", "fault": "explode"}), "commit_late"),
        (json!({"provider": "agentmail", "operation": "*", "fault": "latency"}), "ms"),
        (json!({"provider": "agentmail", "operation": "*", "fault": "refuse", "tims": 1}), "times"),
    ] {
        let answer = client().post(&url).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{body}");
        let problem = answer.text().await.unwrap();
        assert!(problem.contains(hint), "{problem}");
    }
    let good = json!({"provider": "agentmail", "operation": "*", "fault": "latency", "ms": 3});
    assert_eq!(client().post(&url).json(&good).send().await.unwrap().status(), 201);
    assert_eq!(client().delete(&url).send().await.unwrap().status(), 204);
}

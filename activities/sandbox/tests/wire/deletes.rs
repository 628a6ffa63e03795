//! Deletes that do nothing, deny, or linger; things that vanish and fields that drift without anybody's asking.

use amends_sandbox::{Fault, Kind, Provider};
use reqwest::Method;
use serde_json::{Value, json};

use crate::bench::{Bench, PROJECT_DELETE};

/// One of each thing that can be deleted: at whom, by which operation, and its id.
async fn one_of_each(bench: &Bench) -> Vec<(Provider, &'static str, String)> {
    let project = bench.deploy("p").await.project;
    let made: Value = bench.create_key("k").await.unwrap().json().await.unwrap();
    let key = made["data"]["hash"].as_str().unwrap().to_owned();
    let inbox = bench.create_inbox("i").await["inbox_id"].as_str().unwrap().to_owned();
    let number = bench.number("+13125550001", "sg_1").await;
    vec![
        (Provider::Railway, "projectDelete", project),
        (Provider::Openrouter, "deleteKeys", key),
        (Provider::Agentmail, "deleteInbox", inbox),
        (Provider::Telnyx, "deletePhoneNumber", number),
    ]
}

/// Whether the provider says that it is done, or that there is nothing.
async fn delete(bench: &Bench, provider: Provider, id: &str) -> bool {
    let status = match provider {
        Provider::Railway => {
            let answer = bench.railway(PROJECT_DELETE, json!({"id": id})).await;
            if answer["data"]["projectDelete"] != true {
                assert_eq!(answer["errors"][0]["message"], "Project not found");
            }
            return answer["data"]["projectDelete"] == true;
        }
        Provider::Openrouter => {
            bench.openrouter(Method::DELETE, &format!("/keys/{id}"), Value::Null).await.unwrap().status()
        }
        Provider::Agentmail => {
            bench.agentmail(Method::DELETE, &format!("/inboxes/{id}"), Value::Null).await.status()
        }
        _ => {
            let path = format!("/phone_numbers/{id}");
            bench.telnyx(Method::DELETE, &path, Value::Null).await.unwrap().status()
        }
    };
    assert!(status.is_success() || status == 404, "{provider} {status}");
    status.is_success()
}

fn is_there(bench: &Bench, provider: Provider) -> bool {
    let kind = match provider {
        Provider::Railway => "projects",
        Provider::Openrouter => "keys",
        Provider::Agentmail => "inboxes",
        _ => "numbers",
    };
    !bench.held(&provider.to_string(), kind).is_empty()
}

#[tokio::test]
async fn a_delete_that_is_ignored_says_done_or_gone_and_leaves_the_thing() {
    let bench = Bench::new().await;
    for (provider, operation, id) in one_of_each(&bench).await {
        for (status, says_done) in [(200, true), (404, false)] {
            let ignored = Fault::new(provider, operation, Kind::DeleteIgnored).status(status).times(2);
            bench.set(ignored);
            for _ in 0..2 {
                assert_eq!(delete(&bench, provider, &id).await, says_done, "{provider} {status}");
                assert!(is_there(&bench, provider), "{provider} {status}");
            }
        }
        assert!(delete(&bench, provider, &id).await, "{provider}: the next one is true");
        assert!(!is_there(&bench, provider), "{provider}");
        assert!(!delete(&bench, provider, &id).await, "{provider}: there is nothing any more");
    }
}

#[tokio::test]
async fn a_delete_denies_its_work_or_leaves_the_thing_for_a_while() {
    let bench = Bench::new().await;
    for (provider, operation, id) in one_of_each(&bench).await {
        bench.set(Fault::new(provider, operation, Kind::DeleteLingers).seconds(60.0).times(1));
        assert!(delete(&bench, provider, &id).await, "{provider}");
        bench.pass(59.0);
        assert!(is_there(&bench, provider), "{provider}");
        bench.pass(1.0);
        assert!(!is_there(&bench, provider), "{provider}");
    }
    for (provider, operation, id) in one_of_each(&bench).await {
        bench.set(Fault::new(provider, operation, Kind::DeleteNotFound).times(1));
        assert!(!delete(&bench, provider, &id).await, "{provider}");
        assert!(!is_there(&bench, provider), "{provider}");
    }
}

#[tokio::test]
async fn a_thing_vanishes_at_once_or_at_a_call_and_by_its_name_alone() {
    let bench = Bench::new().await;
    for (provider, _, id) in one_of_each(&bench).await {
        let unknown = bench.sandbox.set_fault(Fault::new(provider, "*", Kind::Vanish).of("nothing").now());
        assert!(unknown.unwrap_err().contains("nothing"), "{provider}");
        assert!(is_there(&bench, provider));
        bench.set(Fault::new(provider, "*", Kind::Vanish).of(&id).now());
        assert!(!is_there(&bench, provider), "{provider}");
    }
    assert!(bench.held("runtime", "agents").is_empty(), "a container goes with its project");
    bench.create_inbox("a").await;
    bench.set(Fault::new(Provider::Agentmail, "listInboxes", Kind::Vanish).times(1).before());
    let listed: Value = bench.agentmail(Method::GET, "/inboxes", Value::Null).await.json().await.unwrap();
    assert_eq!(listed["count"], 0);
}

#[tokio::test]
async fn a_field_drifts() {
    let bench = Bench::new().await;
    let things = one_of_each(&bench).await;
    let drift = |provider, field: &str, value: Value| {
        let id = &things.iter().find(|(at, _, _)| *at == provider).unwrap().2;
        bench.set(Fault::new(provider, "*", Kind::Drift).of(id).field(field, value).now());
    };
    drift(Provider::Openrouter, "limit", json!(null));
    drift(Provider::Openrouter, "disabled", json!(true));
    drift(Provider::Telnyx, "customer_reference", json!("somebody"));
    drift(Provider::Agentmail, "display_name", json!("Eve"));
    drift(Provider::Railway, "image", json!("ghcr.io/amends/other@sha256:11"));
    let key = &bench.held("openrouter", "keys")[0];
    assert_eq!((&key["limit"], &key["disabled"]), (&Value::Null, &json!(true)));
    assert_eq!(bench.held("telnyx", "numbers")[0]["reference"], "somebody");
    assert_eq!(bench.held("agentmail", "inboxes")[0]["display_name"], "Eve");
    let project = &bench.held("railway", "projects")[0];
    assert_eq!(project["services"][0]["image"], "ghcr.io/amends/other@sha256:11");
}

#[tokio::test]
async fn an_unassignment_that_is_ignored_says_done_and_leaves_the_number_assigned() {
    let bench = Bench::new().await;
    let number = bench.number("+13125550001", "sg_1").await;
    let asked = json!({"name": "p", "whitelisted_destinations": ["US"]});
    let made = bench.telnyx(Method::POST, "/messaging_profiles", asked).await.unwrap();
    let profile = made.json::<Value>().await.unwrap()["data"]["id"].clone();
    let set = |profile: Value| {
        let bench = &bench;
        let path = format!("/phone_numbers/{number}/messaging");
        async move {
            let asked = json!({"messaging_profile_id": profile});
            bench.telnyx(Method::PATCH, &path, asked).await.unwrap().json::<Value>().await.unwrap()
        }
    };
    set(profile.clone()).await;
    bench.set(Fault::new(Provider::Telnyx, "updateMessagingSettings", Kind::UpdateIgnored).times(1));
    assert_eq!(set(json!("")).await["data"]["messaging_profile_id"], Value::Null);
    assert_eq!(bench.held("telnyx", "numbers")[0]["messaging_profile_id"], profile);
    set(json!("")).await;
    assert_eq!(bench.held("telnyx", "numbers")[0]["messaging_profile_id"], Value::Null);
}

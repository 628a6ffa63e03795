//! Faults of any call: lost, late, refused, limited.

use amends_sandbox::{CREDENTIALS, Fault, Kind, Preset, Provider};
use reqwest::Method;
use serde_json::{Value, json};

use crate::bench::{Bench, PROJECTS, WORKSPACE};

#[tokio::test]
async fn a_lost_answer_has_acted_and_a_lost_request_has_not() {
    let bench = Bench::new().await;
    bench.set(Fault::new(Provider::Openrouter, "createKeys", Kind::LoseAnswer).times(1));
    assert!(bench.create_key("a").await.is_err());
    assert_eq!(bench.keys(), 1);
    bench.set(Fault::new(Provider::Openrouter, "createKeys", Kind::LoseRequest).times(1));
    assert!(bench.create_key("b").await.is_err());
    assert_eq!(bench.keys(), 1);
    assert_eq!(bench.create_key("b").await.unwrap().status(), 201);
    let fired = bench.sandbox.fired();
    assert_eq!(fired["openrouter.createKeys.lose_answer"], 1);
    assert_eq!(fired["openrouter.createKeys.lose_request"], 1);
    assert_eq!(bench.sandbox.calls()["openrouter.createKeys"], 3);
}

#[tokio::test]
async fn a_late_create_lands_at_its_time_and_not_before() {
    let bench = Bench::new().await;
    let mut late = Fault::new(Provider::Openrouter, "createKeys", Kind::CommitLate).times(2).seconds(40.0);
    late.from_seconds = Some(40.0);
    bench.set(late);
    assert!(bench.create_key("a").await.is_err());
    bench.pass(39.9);
    assert_eq!(bench.keys(), 0);
    bench.pass(0.1);
    assert_eq!(bench.keys(), 1);
    // Between the least and the most that is asked for.
    assert!(bench.create_key("b").await.is_err());
    bench.pass(40.0);
    assert_eq!(bench.keys(), 2);
}

#[tokio::test]
async fn a_late_write_is_answered_by_a_gateway_and_lands_over_what_came_after_it() {
    let bench = Bench::new().await;
    let number = bench.number("+13125550001", "sg_1").await;
    let asked = json!({"name": "p", "whitelisted_destinations": ["US"]});
    let made = bench.telnyx(Method::POST, "/messaging_profiles", asked).await.unwrap();
    let profile = made.json::<Value>().await.unwrap()["data"]["id"].as_str().unwrap().to_owned();
    let mut late =
        Fault::new(Provider::Telnyx, "updateMessagingSettings", Kind::CommitLate).times(1).seconds(3.0);
    late.preset = Some(Preset::GatewayTimeout);
    bench.set(late);
    let path = format!("/phone_numbers/{number}/messaging");
    let assign = bench.telnyx(Method::PATCH, &path, json!({"messaging_profile_id": profile})).await.unwrap();
    assert_eq!(assign.status(), 504);
    let unassign = bench.telnyx(Method::PATCH, &path, json!({"messaging_profile_id": ""})).await.unwrap();
    assert_eq!(unassign.status(), 200);
    assert_eq!(bench.held("telnyx", "numbers")[0]["messaging_profile_id"], Value::Null);
    bench.pass(3.0);
    assert_eq!(bench.held("telnyx", "numbers")[0]["messaging_profile_id"], profile.as_str());
}

#[tokio::test]
async fn a_late_delete_takes_away_what_was_seen_to_be_there() {
    let bench = Bench::new().await;
    bench.create_inbox("agent-1").await;
    bench.set(Fault::new(Provider::Agentmail, "deleteInbox", Kind::CommitLate).times(1).seconds(5.0));
    let path = "/inboxes/agent-1@agentmail.to";
    let url = format!("{}{path}", bench.sandbox.urls().agentmail);
    assert!(bench.http.delete(url).bearer_auth(CREDENTIALS.agentmail).send().await.is_err());
    assert_eq!(bench.agentmail(Method::GET, path, Value::Null).await.status(), 200);
    bench.pass(5.0);
    assert_eq!(bench.agentmail(Method::GET, path, Value::Null).await.status(), 404);
}

#[tokio::test]
async fn what_is_late_lands_when_nobody_looks() {
    let bench = Bench::new().await;
    let deployed = bench.deploy("p").await;
    bench.set(Fault::new(Provider::Runtime, "provision", Kind::CommitLate).times(1).seconds(5.0));
    let told = crate::bench::tell("/pool/provision", crate::bench::provision());
    assert!(bench.tell(&deployed.domain, told).await.is_err());
    let directory = bench.sandbox.memory(&deployed.domain).unwrap();
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    bench.pass(5.0);
    let landed = async {
        while std::fs::read_dir(&directory).unwrap().count() == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), landed).await.expect("it lands by itself");
}

#[tokio::test]
async fn errors_and_limits_come_before_or_after_the_effect() {
    let bench = Bench::new().await;
    for (kind, status, made) in [
        (Kind::ErrorBefore, 500, 0),
        (Kind::ErrorAfter, 500, 1),
        (Kind::Unauthorized, 401, 1),
        (Kind::Refuse, 400, 1),
        (Kind::ThrottleText, 429, 1),
    ] {
        bench.set(Fault::new(Provider::Openrouter, "*", kind).times(1));
        assert_eq!(bench.create_key("a").await.unwrap().status(), status, "{kind}");
        assert_eq!(bench.keys(), made, "{kind}");
    }
    let mut limited = Fault::new(Provider::Openrouter, "createKeys", Kind::RateLimited).times(1);
    limited.retry_after = Some(7);
    bench.set(limited);
    let answer = bench.create_key("a").await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (429, "7"));
}

#[tokio::test]
async fn a_call_that_hangs_or_takes_long_is_not_answered() {
    let bench = Bench::new().await;
    for (fault, acts) in [
        (Fault::new(Provider::Openrouter, "createKeys", Kind::Hang).times(1).before(), 0),
        (Fault::new(Provider::Openrouter, "createKeys", Kind::Hang).times(1), 1),
    ] {
        bench.set(fault);
        let fired = bench.sandbox.fired().get("openrouter.createKeys.hang").copied().unwrap_or(0);
        let happened = async {
            while bench.sandbox.fired().get("openrouter.createKeys.hang") != Some(&(fired + 1)) {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            // Long enough for an answer that should not come; a slow machine only shows less.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        };
        tokio::select! {
            answer = bench.create_key("a") => panic!("{answer:?}"),
            () = happened => {}
        }
        assert_eq!(bench.keys(), acts);
    }
    let mut slow = Fault::new(Provider::Openrouter, "createKeys", Kind::Latency).times(1);
    slow.ms = Some(60_000);
    bench.set(slow);
    let begun = async {
        while !bench.sandbox.fired().contains_key("openrouter.createKeys.latency") {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        bench.pass(60.0);
    };
    let (answer, ()) = tokio::join!(bench.create_key("slow"), begun);
    assert_eq!(answer.unwrap().status(), 201);
}

#[tokio::test]
async fn a_fault_of_one_thing_leaves_the_others_alone() {
    let bench = Bench::new().await;
    let mut hashes = Vec::new();
    for name in ["a", "b"] {
        let made: Value = bench.create_key(name).await.unwrap().json().await.unwrap();
        hashes.push(made["data"]["hash"].as_str().unwrap().to_owned());
    }
    bench.set(Fault::new(Provider::Openrouter, "deleteKeys", Kind::ErrorBefore).of(&hashes[0]));
    for (hash, status) in [(&hashes[0], 500), (&hashes[1], 200)] {
        let answer = bench.openrouter(Method::DELETE, &format!("/keys/{hash}"), Value::Null).await.unwrap();
        assert_eq!(answer.status(), status);
    }
    // One image of several.
    bench.set(Fault::preset(Provider::Ghcr, "headManifest", Preset::RegistryDenied).of("amends/denied"));
    for (image, status) in [("amends/denied", 403), ("amends/agent", 200)] {
        assert_eq!(bench.manifest(image).await.status(), status, "{image}");
    }
}

#[tokio::test]
async fn two_tokens_of_a_workspace_have_limits_of_their_own_and_one_can_be_revoked() {
    let bench = Bench::new().await;
    let tokens: Vec<&str> = CREDENTIALS.railway.iter().map(|(_, token)| *token).collect();
    assert_eq!(CREDENTIALS.railway.iter().filter(|(workspace, _)| *workspace == WORKSPACE).count(), 2);
    let list = |token: &'static str| {
        let bench = &bench;
        async move { bench.railway_as(token, PROJECTS, json!({"workspaceId": WORKSPACE})).await.unwrap() }
    };
    let mut quota = Fault::new(Provider::Railway, "*", Kind::Quota).seconds(3600.0);
    quota.calls = Some(2);
    bench.set(quota);
    for _ in 0..2 {
        assert_eq!(list(tokens[0]).await.status(), 200);
    }
    bench.pass(600.0);
    let limited = list(tokens[0]).await;
    assert_eq!(
        (limited.status().as_u16(), limited.headers()["retry-after"].to_str().unwrap()),
        (429, "3000")
    );
    assert_eq!(limited.headers()["x-ratelimit-remaining"], "0");
    assert_eq!(list(tokens[1]).await.status(), 200, "the other has a limit of its own");
    bench.pass(3000.0);
    assert_eq!(list(tokens[0]).await.status(), 200, "the hour is over");
    bench.sandbox.clear_faults();
    bench.set(Fault::new(Provider::Railway, "*", Kind::Unauthorized).of("railway-2"));
    assert_eq!(list(tokens[0]).await.status(), 200);
    assert_eq!(list(tokens[1]).await.status(), 401);
}

#[tokio::test]
async fn an_inbox_under_a_known_client_id_is_the_first_one_even_when_it_was_deleted() {
    let bench = Bench::new().await;
    for _ in 0..2 {
        assert_eq!(bench.create_inbox("agent-1").await["inbox_id"], "agent-1@agentmail.to");
    }
    assert_eq!(bench.held("agentmail", "inboxes").len(), 1);
    let path = "/inboxes/agent-1@agentmail.to";
    assert_eq!(bench.agentmail(Method::DELETE, path, Value::Null).await.status(), 204);
    bench.create_inbox("agent-1").await;
    assert_eq!(bench.held("agentmail", "inboxes").len(), 0, "the deleted one was answered");
    bench.set(Fault::new(Provider::Agentmail, "createInbox", Kind::ClientIdForgotten).times(1));
    bench.create_inbox("agent-1").await;
    assert_eq!(bench.held("agentmail", "inboxes").len(), 1);
}

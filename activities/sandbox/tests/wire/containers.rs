//! Containers: the runtime's contract, what it remembers on disk, and what becomes of it.

use amends_sandbox::{Fault, Kind, Provider, TOKEN_VARIABLE, fingerprint};
use reqwest::Method;
use serde_json::{Value, json};

use crate::bench::{Bench, IMAGE, TOKEN, provision, tell};

const INVITATION: &str = "https://convos.example/join/abc";

fn invited() -> Value {
    json!({"inviteUrl": INVITATION})
}

async fn said(bench: &Bench, domain: &str, told: crate::bench::Told<'_>) -> (u16, Value) {
    let answer = bench.tell(domain, told).await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn a_container_boots_is_configured_joins_and_is_reset_to_an_empty_directory() {
    let bench = Bench::new().await;
    let deployed = bench.commit("p").await;
    let domain = deployed.domain.as_str();
    assert_eq!(bench.get(domain, "/pool/health").await.status(), 503);
    bench.pass(60.0);
    let health: Value = bench.get(domain, "/pool/health").await.json().await.unwrap();
    assert_eq!((&health["ready"], &health["digest"]), (&json!(true), &json!("sha256:00")));
    let clean = json!({"conversationId": null, "inboxId": null, "pending": false, "clean": true,
        "operationId": null, "epoch": 0});
    assert_eq!(bench.status(domain).await, clean);
    assert_eq!(bench.on_disk(domain), Vec::<String>::new());

    assert_eq!(said(&bench, domain, tell("/pool/provision", json!({"agentName": "Ada"}))).await.0, 400);
    let told = tell("/pool/provision", provision()).by("op-1").epoch(3);
    assert_eq!(said(&bench, domain, told).await.0, 200);
    assert_eq!(bench.on_disk(domain), ["IDENTITY.md"]);
    let status = bench.status(domain).await;
    assert_eq!(
        (&status["clean"], &status["operationId"], &status["epoch"]),
        (&json!(false), &json!("op-1"), &json!(3))
    );

    assert_eq!(said(&bench, domain, tell("/convos/join", json!({"joinUrl": INVITATION}))).await.0, 400);
    let (code, joined) = said(&bench, domain, tell("/convos/join", invited()).by("op-2").epoch(3)).await;
    assert_eq!((code, &joined["status"]), (200, &json!("joined")));
    let status = bench.status(domain).await;
    assert_eq!(status["conversationId"], joined["conversationId"]);
    assert_eq!((&status["operationId"], &status["pending"]), (&json!("op-2"), &json!(false)));
    for path in ["/convos/join", "/convos/conversation", "/pool/provision"] {
        let mut body = provision();
        body["inviteUrl"] = json!(INVITATION);
        assert_eq!(said(&bench, domain, tell(path, body).by(path).epoch(3)).await.0, 409, "{path}");
    }
    let told = tell("/convos/conversation/send", json!({"text": "a secret of the group"}));
    assert_eq!(said(&bench, domain, told).await.0, 200);
    assert_eq!(bench.on_disk(domain), ["CONVERSATION.md", "IDENTITY.md", "MEMORY.md"]);
    let memory = bench.sandbox.memory(domain).unwrap().join("MEMORY.md");
    assert_eq!(std::fs::read_to_string(memory).unwrap(), "a secret of the group\n");

    assert_eq!(said(&bench, domain, tell("/convos/reset", json!({})).by("op-3").epoch(4)).await.0, 200);
    assert_eq!(bench.on_disk(domain), Vec::<String>::new());
    let status = bench.status(domain).await;
    assert_eq!((&status["clean"], &status["epoch"]), (&json!(true), &json!(4)));
    assert_eq!(said(&bench, domain, tell("/convos/notify", json!({"text": "x"}))).await.0, 400);
}

#[tokio::test]
async fn a_repeated_operation_gets_its_stored_answer_and_an_older_epoch_412() {
    let bench = Bench::new().await;
    let domain = bench.deploy("p").await.domain;
    let create = || tell("/convos/conversation", json!({})).by("op-1").epoch(2);
    let (_, first) = said(&bench, &domain, create()).await;
    assert!(first["inviteUrl"].as_str().unwrap().ends_with(first["inviteSlug"].as_str().unwrap()));
    assert_eq!(said(&bench, &domain, create()).await, (200, first.clone()));
    assert_eq!(
        said(&bench, &domain, tell("/convos/conversation", json!({})).by("op-2").epoch(2)).await.0,
        409
    );
    let reset = || tell("/convos/reset", json!({})).by("op-3").epoch(3);
    assert_eq!(said(&bench, &domain, reset()).await.0, 200);
    assert_eq!(said(&bench, &domain, create()).await.0, 412, "it is of an older epoch");
    // A reset under an id that was used does nothing more.
    assert_eq!(
        said(&bench, &domain, tell("/convos/conversation", json!({})).by("op-4").epoch(3)).await.0,
        200
    );
    assert_eq!(said(&bench, &domain, reset()).await.0, 200);
    assert!(bench.status(&domain).await["conversationId"].is_string());
    assert_eq!(said(&bench, &domain, tell("/convos/reset", json!({})).by("op-5").epoch(3)).await.0, 200);
    assert_eq!(bench.status(&domain).await["clean"], true);
}

#[tokio::test]
async fn an_invitation_in_another_spelling_leads_to_the_same_conversation() {
    let bench = Bench::new().await;
    let mut conversations = Vec::new();
    for (at, spelling) in
        [INVITATION, " https://CONVOS.example:443/join/abc", "https://convos.example/join/abc/?x=1"]
            .iter()
            .enumerate()
    {
        let domain = bench.deploy(&format!("p{at}")).await.domain;
        let (_, joined) = said(&bench, &domain, tell("/convos/join", json!({"inviteUrl": spelling}))).await;
        conversations.push(joined["conversationId"].clone());
    }
    assert!(conversations.iter().all(|one| *one == conversations[0]), "{conversations:?}");
    assert_ne!(conversations[0], "abc", "an id is not what the invitation says");
}

#[tokio::test]
async fn a_join_waits_for_a_human_and_is_accepted_later_or_never() {
    let bench = Bench::new().await;
    let pending = || Fault::new(Provider::Runtime, "join", Kind::JoinPending).times(1);
    for accepted_in in [Some(3600.0), None] {
        let domain = bench.deploy("p").await.domain;
        bench.set(match accepted_in {
            Some(seconds) => pending().seconds(seconds),
            None => pending(),
        });
        let told = || tell("/convos/join", invited()).by("op-1").epoch(1);
        let (code, joined) = said(&bench, &domain, told()).await;
        assert_eq!((code, joined), (200, json!({"ok": true, "status": "pending_acceptance"})));
        let status = bench.status(&domain).await;
        assert_eq!((&status["pending"], &status["conversationId"]), (&json!(true), &Value::Null));
        assert_eq!((&status["operationId"], &status["clean"]), (&json!("op-1"), &json!(false)));
        assert_eq!(said(&bench, &domain, tell("/convos/join", invited()).by("op-2").epoch(1)).await.0, 409);
        bench.pass(3599.0);
        assert_eq!(bench.status(&domain).await["pending"], true);
        bench.pass(1.0);
        let status = bench.status(&domain).await;
        assert_eq!(status["pending"], accepted_in.is_none());
        assert_eq!(status["conversationId"].is_string(), accepted_in.is_some());
        if accepted_in.is_none() {
            bench.set(Fault::new(Provider::Runtime, "*", Kind::JoinAccepted).of(&domain).now());
            let status = bench.status(&domain).await;
            assert_eq!(
                (status["operationId"].as_str(), status["pending"].as_bool()),
                (Some("op-1"), Some(false))
            );
            assert_eq!(
                said(&bench, &domain, told()).await.1["status"],
                "pending_acceptance",
                "as it was stored"
            );
        }
    }
    // A reset ends the wait.
    let domain = bench.deploy("p").await.domain;
    bench.set(pending());
    said(&bench, &domain, tell("/convos/join", invited())).await;
    said(&bench, &domain, tell("/convos/reset", json!({}))).await;
    assert_eq!(bench.status(&domain).await["clean"], true);
}

#[tokio::test]
async fn a_dead_container_answers_502_or_404_on_every_path_until_it_restarts() {
    let bench = Bench::new().await;
    let (one, other) = (bench.deploy("p").await.domain, bench.deploy("q").await.domain);
    said(&bench, &one, tell("/convos/join", invited()).by("op-1").epoch(1)).await;
    for status in [502, 404] {
        bench.set(Fault::new(Provider::Runtime, "*", Kind::ContainerDies).of(&one).status(status).now());
        for path in ["/pool/health", "/convos/status"] {
            let answer = bench.get(&one, path).await;
            assert_eq!(answer.status(), status);
            let body: Value = answer.json().await.unwrap();
            let message =
                if status == 404 { "Application not found" } else { "Application failed to respond" };
            assert_eq!(body["message"], message);
        }
        assert_eq!(said(&bench, &one, tell("/convos/reset", json!({}))).await.0, status);
        assert_eq!(bench.get(&other, "/pool/health").await.status(), 200, "the other lives");
    }
    bench.set(Fault::new(Provider::Runtime, "*", Kind::ContainerRestarts).of(&one).seconds(30.0).now());
    assert_eq!(bench.get(&one, "/pool/health").await.status(), 503);
    bench.pass(30.0);
    assert_eq!(bench.get(&one, "/pool/health").await.status(), 200);
    assert_eq!(bench.status(&one).await["operationId"], "op-1", "what is on the volume is kept");
    // At a call: it has joined, and is dead from then on.
    bench.set(Fault::new(Provider::Runtime, "join", Kind::ContainerDies).status(404).times(1));
    assert_eq!(said(&bench, &other, tell("/convos/join", invited())).await.0, 200);
    assert_eq!(bench.get(&other, "/convos/status").await.status(), 404);
    assert!(bench.agent(&other)["conversation"].is_string(), "it is bound, behind its dead edge");
}

#[tokio::test]
async fn a_container_stays_dirty_or_keeps_its_memory() {
    let bench = Bench::new().await;
    let domain = bench.deploy("p").await.domain;
    said(&bench, &domain, tell("/pool/provision", provision())).await;
    said(&bench, &domain, tell("/convos/join", invited())).await;
    let dirty = Fault::new(Provider::Runtime, "reset", Kind::StaysDirty).times(1);
    bench.set(dirty.clone());
    assert_eq!(said(&bench, &domain, tell("/convos/reset", json!({}))).await.0, 200);
    let status = bench.status(&domain).await;
    assert_eq!((status["clean"].as_bool(), status["conversationId"].is_string()), (Some(false), true));
    bench.set(Fault { keep: Some(0), ..dirty });
    assert_eq!(said(&bench, &domain, tell("/convos/reset", json!({}))).await.0, 200);
    let status = bench.status(&domain).await;
    assert_eq!((status["clean"].as_bool(), status["conversationId"].is_null()), (Some(false), true));
    assert_eq!(bench.on_disk(&domain), ["CONVERSATION.md", "IDENTITY.md"], "the former group's memory");
    said(&bench, &domain, tell("/convos/reset", json!({}))).await;
    assert_eq!(bench.status(&domain).await["clean"], true);
    assert_eq!(bench.on_disk(&domain), Vec::<String>::new());
}

#[tokio::test]
async fn a_container_is_taken_or_used_behind_our_back() {
    let bench = Bench::new().await;
    let domain = bench.deploy("p").await.domain;
    bench.set(Fault::new(Provider::Runtime, "*", Kind::ContainerUsed).of(&domain).text("left over").now());
    assert_eq!(bench.status(&domain).await["clean"], false, "a memory alone is not clean");
    said(&bench, &domain, tell("/convos/reset", json!({}))).await;
    let foreign = Fault::new(Provider::Runtime, "*", Kind::ContainerBound).text("convo-foreign");
    bench.set(foreign.of(&domain).now());
    let status = bench.status(&domain).await;
    assert_eq!((&status["conversationId"], &status["operationId"]), (&json!("convo-foreign"), &Value::Null));
    assert_eq!(said(&bench, &domain, tell("/convos/join", invited())).await.0, 409);
}

#[tokio::test]
async fn a_redeploy_keeps_the_volume_and_a_deleted_project_takes_it_along() {
    let bench = Bench::new().await;
    let deployed = bench.deploy("p").await;
    said(&bench, &deployed.domain, tell("/convos/join", invited())).await;
    bench.patch(&deployed.environment, &deployed.service, "ghcr.io/amends/agent@sha256:01", json!({})).await;
    assert_eq!(bench.get(&deployed.domain, "/pool/health").await.status(), 503);
    bench.pass(60.0);
    let health: Value = bench.get(&deployed.domain, "/pool/health").await.json().await.unwrap();
    assert_eq!(health["digest"], "sha256:01");
    assert!(bench.status(&deployed.domain).await["conversationId"].is_string());
    let directory = bench.sandbox.memory(&deployed.domain).unwrap();
    assert!(directory.is_dir());
    bench.railway(crate::bench::PROJECT_DELETE, json!({"id": deployed.project})).await;
    assert!(!directory.exists());
    let answer = bench.get(&deployed.domain, "/convos/status").await;
    assert_eq!(answer.status(), 404);
    assert_eq!(answer.json::<Value>().await.unwrap()["message"], "Application not found");
}

#[tokio::test]
async fn what_a_container_was_given_can_be_compared_and_is_no_secret() {
    let bench = Bench::new().await;
    let made: Value = bench.create_key("k").await.unwrap().json().await.unwrap();
    let (hash, secret) = (made["data"]["hash"].clone(), made["key"].as_str().unwrap().to_owned());
    let deployed = bench.deploy("p").await;
    let variables = json!({"OPENROUTER_API_KEY": {"value": secret}, "PLAIN": {"value": "x"}});
    bench.patch(&deployed.environment, &deployed.service, IMAGE, variables).await;
    bench.pass(60.0);
    said(&bench, &deployed.domain, tell("/pool/provision", provision()).by("op-1").epoch(2)).await;
    said(&bench, &deployed.domain, tell("/pool/provision", provision()).by("old").epoch(1)).await;
    said(&bench, &deployed.domain, tell("/convos/join", invited()).by("op-2").epoch(2)).await;
    let agent = bench.agent(&deployed.domain);
    assert_eq!(agent["key"], hash);
    assert_eq!(agent["variables"]["PLAIN"], json!(fingerprint("x")));
    assert_eq!(agent["variables"][TOKEN_VARIABLE], json!(fingerprint(TOKEN)));
    assert_eq!((&agent["agent_name"], &agent["instructions"]), (&json!("Ada"), &json!("Help.")));
    assert_eq!(agent["tools"], json!([{"tool": "agentmail", "handle": "a@agentmail.to"}]));
    assert_eq!(
        (&agent["epoch"], &agent["provisioned_by"], &agent["bound_by"]),
        (&json!(2), &json!("op-1"), &json!("op-2"))
    );
    assert_eq!(agent["invitation"], INVITATION);
    let history = json!([{"operation": "provision", "id": "op-1", "epoch": 2, "status": 200},
        {"operation": "provision", "id": "old", "epoch": 1, "status": 412},
        {"operation": "join", "id": "op-2", "epoch": 2, "status": 200}]);
    assert_eq!(agent["history"], history);
    let all = bench.sandbox.holdings().to_string();
    assert!(!all.contains(&secret) && !all.contains(TOKEN));
    let told = bench.http.request(Method::GET, bench.control("/providers")).send().await.unwrap();
    assert_eq!(told.json::<Value>().await.unwrap(), bench.sandbox.holdings());
}

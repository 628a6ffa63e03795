//! Railway: errors in 200, throttles, patches and deployments.

use amends_sandbox::{Fault, Kind, Provider};
use serde_json::{Value, json};

use crate::bench::{Bench, PROJECT_CREATE, PROJECT_DELETE, PROJECTS, WORKSPACE, project_input};

async fn projects(bench: &Bench) -> usize {
    let listed = bench.railway(PROJECTS, json!({"workspaceId": WORKSPACE, "first": 10})).await;
    listed["data"]["projects"]["edges"].as_array().unwrap().len()
}

async fn workflow(bench: &Bench, id: &str) -> Value {
    let query = "query W($workflowId: String!) { workflowStatus(workflowId: $workflowId) { status error } }";
    bench.railway(query, json!({"workflowId": id})).await["data"]["workflowStatus"].clone()
}

async fn deployments(bench: &Bench, project: &str) -> Vec<String> {
    let query = "query D($input: DeploymentListInput!, $first: Int) { deployments(input: $input, first: $first) { edges { node { id status } } } }";
    let listed = bench.railway(query, json!({"input": {"projectId": project}, "first": 10})).await;
    let edges = listed["data"]["deployments"]["edges"].as_array().unwrap().clone();
    edges.iter().map(|edge| edge["node"]["status"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn railway_says_no_with_200_and_two_projects_may_share_a_name() {
    let bench = Bench::new().await;
    bench.create_project("twin").await;
    bench.pass(29.9);
    let throttled = bench.railway(PROJECT_CREATE, project_input("twin")).await;
    assert!(throttled["errors"][0]["message"].as_str().unwrap().contains("too quickly"), "{throttled}");
    bench.pass(0.1);
    assert!(bench.railway(PROJECT_CREATE, project_input("twin")).await["errors"].is_null());
    assert_eq!(projects(&bench).await, 2);
    bench.set(Fault::new(Provider::Railway, "projectCreate", Kind::ListLag).seconds(20.0).times(1));
    let made = bench.create_project("late").await;
    assert_eq!(projects(&bench).await, 2, "not listed yet");
    bench.pass(20.0);
    assert_eq!(projects(&bench).await, 3);
    let id = made["data"]["projectCreate"]["id"].clone();
    let deleted = bench.railway(PROJECT_DELETE, json!({"id": id})).await;
    assert_eq!(deleted["data"]["projectDelete"], true);
    assert_eq!(projects(&bench).await, 2);
    let again = bench.railway(PROJECT_DELETE, json!({"id": id})).await;
    assert_eq!(again["errors"][0]["message"], "Project not found");
}

#[tokio::test]
async fn what_was_let_through_lands_though_another_came_in_between() {
    let bench = Bench::new().await;
    bench.set(Fault::new(Provider::Railway, "projectCreate", Kind::CommitLate).seconds(40.0).times(1));
    bench.pass(31.0);
    assert!(bench.try_railway(PROJECT_CREATE, project_input("a")).await.is_err());
    bench.pass(19.0);
    assert!(bench.railway(PROJECT_CREATE, project_input("a")).await["errors"].is_null());
    bench.pass(21.0);
    assert_eq!(projects(&bench).await, 2);
}

#[tokio::test]
async fn what_is_gone_is_said_in_other_words() {
    let bench = Bench::new().await;
    let gone = Fault::new(Provider::Railway, "project", Kind::GoneText).text("Not Authorized");
    bench.set(gone);
    let query = "query P($id: String!) { project(id: $id) { id } }";
    let answer = bench.railway(query, json!({"id": "nothing"})).await;
    assert_eq!(answer["errors"][0]["message"], "Not Authorized");
    bench.sandbox.clear_faults();
    let answer = bench.railway(query, json!({"id": "nothing"})).await;
    assert_eq!(answer["errors"][0]["message"], "Project not found");
}

#[tokio::test]
async fn a_patch_fails_with_its_text_and_deploys_nothing() {
    let bench = Bench::new().await;
    let fails = Fault::new(Provider::Railway, "environmentPatchCommit", Kind::PatchFails).times(1);
    bench.set(fails.text("Invalid image reference"));
    let deployed = bench.deploy("p").await;
    assert_eq!(
        workflow(&bench, &deployed.patch).await,
        json!({"status": "Error", "error": "Invalid image reference"})
    );
    assert_eq!(deployments(&bench, &deployed.project).await, Vec::<String>::new());
    let query = "query E($environmentId: String!, $first: Int) { environmentPatches(environmentId: $environmentId, first: $first) { edges { node { message lastAppliedError } } } }";
    let listed = bench.railway(query, json!({"environmentId": deployed.environment, "first": 10})).await;
    let patch = &listed["data"]["environmentPatches"]["edges"][0]["node"];
    assert_eq!(
        (&patch["message"], &patch["lastAppliedError"]),
        (&json!("tests"), &json!("Invalid image reference"))
    );
    let good = bench.patch(&deployed.environment, &deployed.service, "ghcr.io/a/b@sha256:2", json!({})).await;
    assert_eq!(workflow(&bench, &good).await["status"], "Complete");
    assert_eq!(workflow(&bench, "unknown").await["status"], "NotFound");
}

#[tokio::test]
async fn a_deployment_takes_long_fails_crashes_or_starts_by_itself() {
    let bench = Bench::new().await;
    let commit = |kind| Fault::new(Provider::Railway, "environmentPatchCommit", kind).times(1);
    for (fault, at, status) in [
        (commit(Kind::DeployTakes).seconds(600.0), 599.0, "DEPLOYING"),
        (commit(Kind::DeployTakes).seconds(600.0), 600.0, "SUCCESS"),
        (commit(Kind::DeployHangs), 86_400.0, "DEPLOYING"),
        (commit(Kind::DeployCrashes), 60.0, "CRASHED"),
        (commit(Kind::ImageAbsent), 60.0, "FAILED"),
    ] {
        let what = fault.fault;
        bench.set(fault);
        let deployed = bench.commit("p").await;
        bench.pass(at);
        assert_eq!(deployments(&bench, &deployed.project).await, [status], "{what}");
        let is_ready = bench.get(&deployed.domain, "/pool/health").await.status() == 200;
        assert_eq!(is_ready, status == "SUCCESS", "{what}");
    }
    let deployed = bench.deploy("p").await;
    bench.set(Fault::new(Provider::Railway, "*", Kind::Redeploys).of(&deployed.project).now());
    assert_eq!(deployments(&bench, &deployed.project).await, ["SUCCESS", "SUCCESS"]);
}

#[tokio::test]
async fn an_image_that_is_not_there_has_no_manifest() {
    let bench = Bench::new().await;
    bench.set(Fault::new(Provider::Ghcr, "headManifest", Kind::ImageAbsent).of("amends/agent"));
    let answer = bench.manifest("amends/agent").await;
    assert_eq!(answer.status(), 404);
    assert_eq!(answer.json::<Value>().await.unwrap()["errors"][0]["code"], "MANIFEST_UNKNOWN");
}

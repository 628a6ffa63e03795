//! Railway's GraphQL: what is valid is answered as it was selected, and what is not is refused as Railway does.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use amends_sandbox::{CREDENTIALS, Config, Pace, Sandbox};
use serde_json::{Value, json};

async fn sandbox() -> Sandbox {
    let listen = "127.0.0.1:0".parse().unwrap();
    Sandbox::start(Config { listen, pace: Pace::Quick, seed: 1, file: None }).await.unwrap()
}

async fn post(sandbox: &Sandbox, body: Value) -> (u16, Value) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let request = reqwest::Client::new().post(sandbox.urls().railway).bearer_auth(CREDENTIALS.railway[0].1);
    let answer = request.json(&body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn ask(sandbox: &Sandbox, query: &str, variables: Value) -> Value {
    let (status, body) = post(sandbox, json!({"query": query, "variables": variables})).await;
    assert_eq!((status, body.get("errors")), (200, None), "{query}\n{body}");
    body["data"].clone()
}

/// A project with a service, a volume, a domain and a deployment; its id.
async fn project(sandbox: &Sandbox) -> String {
    let made = ask(
        sandbox,
        "mutation { projectCreate(input: {name: \"one\", workspaceId: \"ws-sandbox\"}) { id environment: primaryEnvironmentId } }",
        Value::Null,
    )
    .await;
    let (id, environment) = (&made["projectCreate"]["id"], &made["projectCreate"]["environment"]);
    let input = json!({"input": {"projectId": id, "environmentId": environment, "name": "agent"}});
    let service = ask(
        sandbox,
        "mutation S($input: ServiceCreateInput!) { serviceCreate(input: $input) { id } }",
        input,
    )
    .await["serviceCreate"]["id"]
        .clone();
    let input = json!({"input": {"projectId": id, "environmentId": environment, "serviceId": service, "mountPath": "/data"}});
    ask(sandbox, "mutation V($input: VolumeCreateInput!) { volumeCreate(input: $input) { id } }", input)
        .await;
    let input = json!({"input": {"environmentId": environment, "serviceId": service}});
    let domain =
        "mutation D($input: ServiceDomainCreateInput!) { serviceDomainCreate(input: $input) { id } }";
    ask(sandbox, domain, input).await;
    let patch = json!({"services": {service.as_str().unwrap(): {"source": {"image": "ghcr.io/a/b@sha256:1"},
        "variables": {"KEY": {"value": "secret"}}}}});
    let commit = "mutation P($id: String!, $patch: EnvironmentConfig!) { environmentPatchCommit(environmentId: $id, patch: $patch, commitMessage: \"m\") }";
    ask(sandbox, commit, json!({"id": environment, "patch": patch})).await;
    id.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_invalid_document_is_refused_with_its_code() {
    let sandbox = sandbox().await;
    let id = json!({"id": "x"});
    let whole = "query A { apiToken { __typename } } query B { apiToken { __typename } }";
    for (body, code) in [
        (json!({"query": "query { project("}), "GRAPHQL_PARSE_FAILED"),
        (json!({"query": ""}), "GRAPHQL_PARSE_FAILED"),
        (json!({"query": "query { nothing }"}), "GRAPHQL_VALIDATION_FAILED"),
        (json!({"query": "query { project(id: 1) { id } }"}), "GRAPHQL_VALIDATION_FAILED"),
        (json!({"query": "query { project(id: \"x\") }"}), "GRAPHQL_VALIDATION_FAILED"),
        (json!({"query": "query { project(id: \"x\") { id nothing } }"}), "GRAPHQL_VALIDATION_FAILED"),
        (json!({"query": "query { project { id } }"}), "GRAPHQL_VALIDATION_FAILED"),
        (json!({"query": "query($id: Int!) { project(id: $id) { id } }"}), "GRAPHQL_VALIDATION_FAILED"),
        (
            json!({"query": "query { apiToken { ...F } } fragment F on Project { id }"}),
            "GRAPHQL_VALIDATION_FAILED",
        ),
        (
            json!({"query": "query($id: String!) { project(id: $id) { id } }", "variables": {"id": 7}}),
            "BAD_USER_INPUT",
        ),
        (json!({"query": "query($id: String!) { project(id: $id) { id } }"}), "BAD_USER_INPUT"),
        (
            json!({"query": "mutation($input: ProjectCreateInput!) { projectCreate(input: $input) { id } }",
                "variables": {"input": {"name": "x", "colour": "red"}}}),
            "BAD_USER_INPUT",
        ),
        (json!({"query": whole}), "OPERATION_RESOLUTION_FAILURE"),
        (json!({"query": whole, "operationName": "C"}), "OPERATION_RESOLUTION_FAILURE"),
        (json!({"variables": id}), "BAD_REQUEST"),
        (json!({"query": "{ apiToken { __typename } }", "variables": []}), "BAD_REQUEST"),
    ] {
        let (status, answer) = post(&sandbox, body.clone()).await;
        assert_eq!(
            (status, answer["errors"][0]["extensions"]["code"].as_str()),
            (400, Some(code)),
            "{body}\n{answer}"
        );
        assert!(answer["errors"][0]["message"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
    }
    assert!(sandbox.calls().is_empty(), "none of them was a call: {:?}", sandbox.calls());
}

#[tokio::test]
async fn an_answer_holds_what_was_selected_and_nothing_else() {
    let sandbox = sandbox().await;
    let id = project(&sandbox).await;
    let query = "query Q($id: String!, $no: Boolean = false) {
        mine: project(id: $id) { __typename ...Named workspaceId @include(if: $no)
            services { edges { node { called: name project { id services { edges { cursor } } } } } } }
        apiToken { workspaces { name } } }
        fragment Named on Node { id ... on Project { name } }";
    let data = ask(&sandbox, query, json!({"id": id})).await;
    let expected = json!({
        "mine": {"__typename": "Project", "id": id, "name": "one", "services": {"edges": [{"node": {
            "called": "agent", "project": {"id": id, "services": {"edges": [{"cursor": "1"}]}}}}]}},
        "apiToken": {"workspaces": [{"name": "ws-sandbox"}]},
    });
    assert_eq!(data, expected);
    let both = "query A { apiToken { __typename } } query B { b: apiToken { __typename } }";
    let (_, answer) = post(&sandbox, json!({"query": both, "operationName": "B"})).await;
    assert_eq!(answer, json!({"data": {"b": {"__typename": "ApiTokenContext"}}}));
}

#[tokio::test]
async fn a_failed_field_says_which_and_there_is_no_data() {
    let sandbox = sandbox().await;
    let query = "query { project(id: \"x\") { id } }";
    let (status, answer) = post(&sandbox, json!({"query": query})).await;
    assert_eq!((status, &answer["data"]), (200, &Value::Null));
    let error = &answer["errors"][0];
    assert_eq!(
        (&error["message"], &error["path"]),
        (&json!("Project not found"), &json!(["project"])),
        "{answer}"
    );
    assert_eq!(error["extensions"]["code"], "INTERNAL_SERVER_ERROR");
    assert_eq!(error["locations"], json!([{"line": 1, "column": 9}]));
}

#[tokio::test]
async fn the_schema_can_be_asked_for() {
    let sandbox = sandbox().await;
    let query = "query IntrospectionQuery { __schema { queryType { name } mutationType { name } types { name kind
        fields(includeDeprecated: true) { name args { name type { name kind } } type { name kind ofType { name } } } } } }";
    let data = ask(&sandbox, query, Value::Null).await;
    assert_eq!(data["__schema"]["mutationType"]["name"], "Mutation");
    let names: Vec<&str> = data["__schema"]["types"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert!(
        ["Project", "ServiceCreateInput", "DeploymentStatus", "EnvironmentConfig"]
            .iter()
            .all(|name| names.contains(name))
    );
    let one =
        ask(&sandbox, "{ __type(name: \"PageInfo\") { fields { name } } __typename }", Value::Null).await;
    assert_eq!(one["__typename"], "Query");
    assert_eq!(one["__type"]["fields"].as_array().unwrap().len(), 4);
}

/// Selects every field of a type, three objects deep.
fn everything(types: &Value, name: &str, depth: usize) -> String {
    let of = types.as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
    let fields = of["fields"].as_array().into_iter().flatten().filter_map(|field| {
        let mut ty = &field["type"];
        while ty["ofType"].is_object() {
            ty = &ty["ofType"];
        }
        let name = field["name"].as_str().unwrap();
        match ty["kind"].as_str().unwrap() {
            "OBJECT" if depth == 0 => None,
            "OBJECT" => {
                Some(format!("{name} {}", everything(types, ty["name"].as_str().unwrap(), depth - 1)))
            }
            _ => Some(name.to_owned()),
        }
    });
    format!("{{ __typename {} }}", fields.collect::<Vec<_>>().join(" "))
}

#[tokio::test]
async fn every_field_of_every_object_has_a_value_of_its_type() {
    let sandbox = sandbox().await;
    let id = project(&sandbox).await;
    let query = "{ __schema { types { name fields(includeDeprecated: true) { name type { kind name ofType { kind name ofType { kind name ofType { kind name } } } } } } } }";
    let types = ask(&sandbox, query, Value::Null).await["__schema"]["types"].clone();
    let environment =
        ask(&sandbox, "query($id: String!) { project(id: $id) { primaryEnvironmentId } }", json!({"id": id}))
            .await["project"]["primaryEnvironmentId"]
            .clone();
    // The executor refuses a value of another type, and a null where there may be none.
    let query = format!(
        "query($id: String!, $environment: String!) {{ project(id: $id) {} environment(id: $environment) {}
            environmentPatches(environmentId: $environment) {} workflowStatus(workflowId: \"w\") {}
            deployments(input: {{projectId: $id}}) {} }}",
        everything(&types, "Project", 6),
        everything(&types, "Environment", 5),
        everything(&types, "QueryEnvironmentPatchesConnection", 4),
        everything(&types, "WorkflowResult", 1),
        everything(&types, "QueryDeploymentsConnection", 4),
    );
    let data = ask(&sandbox, &query, json!({"id": id, "environment": environment})).await;
    let text = data.to_string();
    for kind in [
        "Project",
        "Environment",
        "Service",
        "ServiceInstance",
        "ServiceDomain",
        "Volume",
        "VolumeInstance",
        "Deployment",
        "Workspace",
        "Variable",
        "PageInfo",
        "EnvironmentPatch",
        "WorkflowResult",
    ] {
        assert!(text.contains(&format!("\"__typename\":\"{kind}\"")), "no {kind} is reached");
    }
    assert!(!text.contains("secret"));
}

#[tokio::test]
async fn a_list_is_paged_from_both_ends() {
    let sandbox = sandbox().await;
    let mut made = Vec::new();
    while made.len() < 3 {
        let name = format!("p{}", made.len());
        let body = json!({"query": "mutation($n: String!) { projectCreate(input: {name: $n, workspaceId: \"ws-sandbox\"}) { name } }",
            "variables": {"n": name}});
        // Until the throttle lets it.
        if post(&sandbox, body).await.1.get("errors").is_none() {
            made.push(name);
        }
    }
    let query = "query($first: Int, $after: String, $last: Int, $before: String) {
        projects(workspaceId: \"ws-sandbox\", first: $first, after: $after, last: $last, before: $before) {
            edges { cursor node { name } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }";
    let names = |page: &Value| -> Vec<String> {
        let edges = page["projects"]["edges"].as_array().unwrap();
        edges.iter().map(|edge| edge["node"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let first = ask(&sandbox, query, json!({"first": 2})).await;
    assert_eq!(names(&first), ["p2", "p1"]);
    assert_eq!(first["projects"]["pageInfo"]["hasNextPage"], true);
    let cursor = &first["projects"]["pageInfo"]["endCursor"];
    let rest = ask(&sandbox, query, json!({"first": 2, "after": cursor})).await;
    assert_eq!(names(&rest), ["p0"]);
    let info = &rest["projects"]["pageInfo"];
    assert_eq!((&info["hasNextPage"], &info["hasPreviousPage"]), (&json!(false), &json!(true)));
    assert!(info["endCursor"].is_string(), "the last page has a cursor too");
    let last = ask(&sandbox, query, json!({"last": 2})).await;
    assert_eq!(names(&last), ["p1", "p0"]);
    let before =
        ask(&sandbox, query, json!({"last": 1, "before": rest["projects"]["edges"][0]["cursor"]})).await;
    assert_eq!(names(&before), ["p1"]);
}

//! A sandbox whose time is held, and a client of each provider.

use std::time::Duration;

use amends_sandbox::{CREDENTIALS, Config, Fault, ManualClock, Options, Pace, Sandbox, TOKEN_VARIABLE};
use reqwest::{Method, Response};
use serde_json::{Value, json};

pub const WORKSPACE: &str = "ws-sandbox";
/// The bearer token of every container here.
pub const TOKEN: &str = "instance-token-of-the-tests";
pub const IMAGE: &str = "ghcr.io/amends/agent@sha256:00";

pub struct Bench {
    pub sandbox: Sandbox,
    pub clock: ManualClock,
    pub http: reqwest::Client,
}

/// One deployed agent.
#[derive(Debug, Clone)]
pub struct Deployed {
    pub project: String,
    pub environment: String,
    pub service: String,
    pub domain: String,
    pub patch: String,
}

/// A call to a runtime.
pub struct Told<'t> {
    pub path: &'t str,
    pub body: Value,
    pub operation: Option<&'t str>,
    pub epoch: Option<i64>,
}

pub fn tell(path: &str, body: Value) -> Told<'_> {
    Told { path, body, operation: None, epoch: None }
}

impl<'t> Told<'t> {
    pub fn by(mut self, operation: &'t str) -> Self {
        self.operation = Some(operation);
        self
    }

    pub fn epoch(mut self, epoch: i64) -> Self {
        self.epoch = Some(epoch);
        self
    }
}

impl Bench {
    pub async fn new() -> Self {
        let clock = ManualClock::new();
        let listen = "127.0.0.1:0".parse().unwrap();
        let config = Config { listen, pace: Pace::True, seed: 1, file: None };
        let options = Options { clock: (&clock).into(), ..Options::default() };
        let sandbox = Sandbox::start_with(config, options).await.unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { sandbox, clock, http: reqwest::Client::new() }
    }

    pub fn pass(&self, seconds: f64) {
        self.clock.advance(Duration::from_secs_f64(seconds));
    }

    pub fn set(&self, fault: Fault) {
        self.sandbox.set_fault(fault).unwrap();
    }

    pub fn control(&self, path: &str) -> String {
        format!("http://{}/v1/sandbox{path}", self.sandbox.address())
    }

    pub async fn railway(&self, query: &str, variables: Value) -> Value {
        self.try_railway(query, variables).await.unwrap().json().await.unwrap()
    }

    pub async fn try_railway(&self, query: &str, variables: Value) -> Result<Response, reqwest::Error> {
        self.railway_as(CREDENTIALS.railway[0].1, query, variables).await
    }

    pub async fn railway_as(
        &self,
        token: &str,
        query: &str,
        variables: Value,
    ) -> Result<Response, reqwest::Error> {
        let request = self.http.post(self.sandbox.urls().railway).bearer_auth(token);
        request.json(&json!({"query": query, "variables": variables})).send().await
    }

    async fn rest(
        &self,
        base: &str,
        key: &str,
        method: Method,
        path: &str,
        body: Value,
    ) -> Result<Response, reqwest::Error> {
        let request = self.http.request(method, format!("{base}{path}")).bearer_auth(key);
        if body.is_null() { request.send().await } else { request.json(&body).send().await }
    }

    pub async fn openrouter(
        &self,
        method: Method,
        path: &str,
        body: Value,
    ) -> Result<Response, reqwest::Error> {
        self.rest(&self.sandbox.urls().openrouter, CREDENTIALS.openrouter, method, path, body).await
    }

    pub async fn agentmail(&self, method: Method, path: &str, body: Value) -> Response {
        let base = self.sandbox.urls().agentmail;
        self.rest(&base, CREDENTIALS.agentmail, method, path, body).await.unwrap()
    }

    pub async fn telnyx(&self, method: Method, path: &str, body: Value) -> Result<Response, reqwest::Error> {
        self.rest(&self.sandbox.urls().telnyx, CREDENTIALS.telnyx, method, path, body).await
    }

    pub async fn create_key(&self, name: &str) -> Result<Response, reqwest::Error> {
        self.openrouter(Method::POST, "/keys", json!({"name": name, "limit": 5})).await
    }

    pub async fn create_inbox(&self, name: &str) -> Value {
        let asked = json!({"username": name, "client_id": name});
        self.agentmail(Method::POST, "/inboxes", asked).await.json().await.unwrap()
    }

    /// Orders a number and lets it be shown; its id.
    pub async fn number(&self, phone_number: &str, reference: &str) -> String {
        let ordered = self.order(phone_number, reference).await;
        assert_eq!(ordered.status(), 200);
        self.pass(7.0);
        let numbers = self.held("telnyx", "numbers");
        let is_it = |number: &&Value| number["phone_number"] == phone_number;
        numbers.iter().find(is_it).unwrap()["id"].as_str().unwrap().to_owned()
    }

    pub async fn order(&self, phone_number: &str, reference: &str) -> Response {
        let asked =
            json!({"phone_numbers": [{"phone_number": phone_number}], "customer_reference": reference});
        self.telnyx(Method::POST, "/number_orders", asked).await.unwrap()
    }

    pub async fn create_project(&self, name: &str) -> Value {
        self.pass(31.0);
        self.railway(PROJECT_CREATE, project_input(name)).await
    }

    /// A project with a service, a volume, a domain and a container that has booted.
    pub async fn deploy(&self, name: &str) -> Deployed {
        let deployed = self.commit(name).await;
        self.pass(61.0);
        deployed
    }

    /// The same, before the container has booted.
    pub async fn commit(&self, name: &str) -> Deployed {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let made = self.create_project(name).await["data"]["projectCreate"].clone();
        let (project, environment) = (text(&made["id"]), text(&made["primaryEnvironmentId"]));
        let input = json!({"projectId": project, "environmentId": environment, "name": "agent"});
        let service = "mutation S($input: ServiceCreateInput!) { serviceCreate(input: $input) { id } }";
        let made = self.railway(service, json!({"input": input})).await;
        let service = text(&made["data"]["serviceCreate"]["id"]);
        let input = json!({"projectId": project, "environmentId": environment, "serviceId": service, "mountPath": "/data"});
        let volume = "mutation V($input: VolumeCreateInput!) { volumeCreate(input: $input) { id } }";
        self.railway(volume, json!({"input": input})).await;
        let input = json!({"environmentId": environment, "serviceId": service});
        let domain =
            "mutation D($input: ServiceDomainCreateInput!) { serviceDomainCreate(input: $input) { domain } }";
        let made = self.railway(domain, json!({"input": input})).await;
        let domain = text(&made["data"]["serviceDomainCreate"]["domain"]);
        let patch =
            self.patch(&environment, &service, IMAGE, json!({TOKEN_VARIABLE: {"value": TOKEN}})).await;
        Deployed { project, environment, service, domain, patch }
    }

    /// Commits a patch; its id.
    pub async fn patch(&self, environment: &str, service: &str, image: &str, variables: Value) -> String {
        let patch = json!({"services": {service: {"source": {"image": image}, "variables": variables}}});
        let query = "mutation P($environmentId: String!, $patch: EnvironmentConfig!, $commitMessage: String) { environmentPatchCommit(environmentId: $environmentId, patch: $patch, commitMessage: $commitMessage) }";
        let asked = json!({"environmentId": environment, "patch": patch, "commitMessage": "tests"});
        let made = self.railway(query, asked).await;
        made["data"]["environmentPatchCommit"].as_str().unwrap().to_owned()
    }

    /// What GHCR says of an image's tag `production`.
    pub async fn manifest(&self, image: &str) -> Response {
        let base = self.sandbox.urls().ghcr;
        let scope = format!("service=ghcr.io&scope=repository:{image}:pull");
        let token = self.http.get(format!("{base}/token?{scope}")).send().await.unwrap();
        let token: Value = token.json().await.unwrap();
        let request = self.http.get(format!("{base}/v2/{image}/manifests/production"));
        request.bearer_auth(token["token"].as_str().unwrap()).send().await.unwrap()
    }

    pub async fn get(&self, domain: &str, path: &str) -> Response {
        let url = format!("{}{path}", self.sandbox.urls().runtime.replace("{domain}", domain));
        self.http.get(url).bearer_auth(TOKEN).send().await.unwrap()
    }

    pub async fn status(&self, domain: &str) -> Value {
        self.get(domain, "/convos/status").await.json().await.unwrap()
    }

    pub async fn tell(&self, domain: &str, told: Told<'_>) -> Result<Response, reqwest::Error> {
        let url = format!("{}{}", self.sandbox.urls().runtime.replace("{domain}", domain), told.path);
        let mut request = self.http.post(url).bearer_auth(TOKEN).json(&told.body);
        if let Some(operation) = told.operation {
            request = request.header("x-amends-operation", operation);
        }
        if let Some(epoch) = told.epoch {
            request = request.header("x-amends-epoch", epoch);
        }
        request.send().await
    }

    /// What a provider holds of a kind.
    pub fn held(&self, provider: &str, kind: &str) -> Vec<Value> {
        self.sandbox.holdings()[provider][kind].as_array().unwrap().clone()
    }

    pub fn keys(&self) -> usize {
        self.held("openrouter", "keys").len()
    }

    pub fn agent(&self, domain: &str) -> Value {
        let agents = self.held("runtime", "agents");
        agents.into_iter().find(|agent| agent["domain"] == domain).unwrap_or_default()
    }

    /// The files in a container's memory, read from the disk.
    pub fn on_disk(&self, domain: &str) -> Vec<String> {
        let directory = self.sandbox.memory(domain).unwrap();
        let entries = std::fs::read_dir(&directory).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

pub const PROJECT_CREATE: &str = "mutation ProjectCreate($input: ProjectCreateInput!) { projectCreate(input: $input) { id primaryEnvironmentId } }";
pub const PROJECT_DELETE: &str = "mutation D($id: String!) { projectDelete(id: $id) }";
pub const PROJECTS: &str = "query P($workspaceId: String!, $first: Int, $after: String) { projects(workspaceId: $workspaceId, first: $first, after: $after) { edges { node { id name } } pageInfo { hasNextPage endCursor } } }";

pub fn project_input(name: &str) -> Value {
    json!({"input": {"name": name, "workspaceId": WORKSPACE, "description": "il/test"}})
}

pub fn provision() -> Value {
    json!({"agentName": "Ada", "instructions": "Help.",
        "metadata": {"model": "m", "tools": [{"tool": "agentmail", "handle": "a@agentmail.to"}]}})
}

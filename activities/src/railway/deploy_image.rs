//! Deploy an image: one patch with source, limits and variables, and so exactly one deployment.
//!
//! The commit message carries our mark. By it a patch whose answer was lost is found again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::client::next_page;
use crate::answer::not_yet;
use crate::http::walk::Walk;
use amends_engine::{Activity, Call, Effect, Failure, Found, Gate, Made, Resource, SecretRef, secs};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::attach_volume::Volume;
use super::create_domain::Domain;
use super::create_project::Project;
use super::create_service::Service;
use super::read_environment::Environment;
use super::{Railway, answers};
use crate::openrouter::LlmKey;

/// Commits the patch that starts the container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeployImage {
    /// The project.
    pub project: Made<Project>,
    /// The environment.
    pub environment: Made<Environment>,
    /// The service.
    pub service: Made<Service>,
    /// Attached first: a deploy without it would lose what the container writes.
    pub volume: Made<Volume>,
    /// Created first: adding it later would deploy again.
    pub domain: Made<Domain>,
    /// The key the container pays its model with, as `OPENROUTER_API_KEY`.
    pub llm_key: Made<LlmKey>,
    /// `registry/name@sha256:..`, never a tag.
    pub image: String,
    /// What to run instead of the image's own command.
    pub start_command: Option<String>,
    /// The memory limit in mebibytes.
    pub memory_mb: u32,
    /// The processor limit in thousandths of a core.
    pub cpu_millis: u32,
    /// Variables as they are.
    pub variables: BTreeMap<String, String>,
    /// Variables whose values are secrets, opened only on the way out.
    pub secret_variables: BTreeMap<String, SecretRef>,
}

/// A patch that Railway took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// The commit message: our mark.
    pub message: String,
    /// The image it carries.
    pub image: String,
    /// The workflow that applies it; none where the patch was found again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
}

const PATCH_COMMIT: &str = "mutation EnvironmentPatchCommit($environmentId: String!, $patch: EnvironmentConfig!, $commitMessage: String) { environmentPatchCommit(environmentId: $environmentId, patch: $patch, commitMessage: $commitMessage) }";
const PATCHES: &str = "query EnvironmentPatches($environmentId: String!, $first: Int!, $after: String) { environmentPatches(environmentId: $environmentId, first: $first, after: $after) { edges { node { id status message createdAt appliedAt lastAppliedError } } pageInfo { hasNextPage endCursor } } }";

impl Activity for DeployImage {
    const NAME: &'static str = "railway.deploy_image";
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(10) };
    const TIME_LIMIT: Duration = secs(90);
    type Client = Railway;
    type Output = Deployment;

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("railway", "deployment", call.tag()).within(self.project.step().clone()))
    }

    fn gates(&self, _: &Railway) -> Vec<Gate> {
        super::gates(&self.project.workspace)
    }

    async fn execute(&self, railway: &Railway, call: &Call) -> Result<Deployment, Failure> {
        let mut variables = serde_json::Map::new();
        for (name, value) in &self.variables {
            variables.insert(name.clone(), json!({"value": value}));
        }
        let key =
            self.llm_key.secret.as_ref().map(|secret| ("OPENROUTER_API_KEY".to_owned(), secret.clone()));
        for (name, secret) in self.secret_variables.clone().into_iter().chain(key) {
            variables.insert(name, json!({"value": call.open(&secret).await?.expose_secret()}));
        }
        let limits = json!({
            "cpu": f64::from(self.cpu_millis) / 1000.0, "memoryBytes": u64::from(self.memory_mb) * 1024 * 1024,
        });
        let service = json!({
            "source": {"image": self.image},
            "deploy": {
                "startCommand": self.start_command, "restartPolicyType": "ON_FAILURE",
                "limitOverride": {"containers": limits},
            },
            "variables": variables,
        });
        let patch = json!({
            "environmentId": self.environment.id, "commitMessage": call.tag(),
            "patch": {"services": {self.service.id.clone(): service}},
        });
        let committed =
            railway.call(&answers::PATCH_COMMIT, &self.project.workspace, PATCH_COMMIT, patch).await?;
        let workflow = Some(committed.done()?.needed("")?);
        Ok(Deployment { message: call.tag(), image: self.image.clone(), workflow })
    }

    async fn find(&self, railway: &Railway, call: &Call) -> Result<Found<Deployment>, Failure> {
        let (workspace, message) = (&self.project.workspace, call.tag());
        match patch_of(railway, workspace, &self.environment.id, &message).await? {
            Patches::Ours(_) => {
                Ok(Found::Usable(Deployment { message, image: self.image.clone(), workflow: None }))
            }
            Patches::None => Ok(Found::Nothing),
            // Where the whole project is gone nothing was patched in it. Otherwise it is not visible yet.
            Patches::NoEnvironment => match railway.project(workspace, &self.project.id).await? {
                None => Ok(Found::Nothing),
                Some(_) => Err(not_yet("the environment does not show yet")),
            },
        }
    }
}

/// What an environment's patches say of one.
pub(crate) enum Patches {
    /// The one that bears our message.
    Ours(Value),
    /// None of them does.
    None,
    /// There is no such environment.
    NoEnvironment,
}

/// The patch that bears our message, through all pages.
pub(crate) async fn patch_of(
    railway: &Railway,
    workspace: &str,
    environment: &str,
    message: &str,
) -> Result<Patches, Failure> {
    let (mut walk, mut after) = (Walk::new("patches"), Value::Null);
    loop {
        let variables = json!({"environmentId": environment, "first": 20, "after": after});
        let page = railway.call(&answers::PATCHES, workspace, PATCHES, variables).await?.found()?;
        let Some(mut page) = page else { return Ok(Patches::NoEnvironment) };
        let next = next_page(&page.body, "/pageInfo")?;
        let edges = page.rows("/edges");
        walk.read(edges.len())?;
        let mut nodes = edges.into_iter().map(|mut edge| edge["node"].take());
        if let Some(ours) = nodes.find(|patch| patch["message"] == message) {
            return Ok(Patches::Ours(ours));
        }
        let Some(cursor) = next else { return Ok(Patches::None) };
        walk.goes_to(&cursor)?;
        after = cursor.into();
    }
}

//! Deploy an image: one patch with source, limits and variables, and so exactly one deployment.
//!
//! The commit message carries our mark. By it a patch whose answer was lost is found again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::client::Error;
use amends_engine::{Activity, Call, Effect, Failure, Found, Gate, Made, Resource, SecretRef, secs};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Railway;
use super::attach_volume::Volume;
use super::create_domain::Domain;
use super::create_project::Project;
use super::create_service::Service;
use super::read_environment::Environment;
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
}

const PATCH_COMMIT: &str = "mutation EnvironmentPatchCommit($environmentId: String!, $patch: EnvironmentConfig!, $commitMessage: String) { environmentPatchCommit(environmentId: $environmentId, patch: $patch, commitMessage: $commitMessage) }";
const PATCHES: &str = "query EnvironmentPatches($environmentId: String!, $first: Int!) { environmentPatches(environmentId: $environmentId, first: $first) { edges { node { id status message createdAt appliedAt lastAppliedError } } } }";

impl Activity for DeployImage {
    const NAME: &'static str = "railway.deploy_image";
    const EFFECT: Effect = Effect::Searchable { quiet: secs(10) };
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
            railway.write(super::throttle(call), &self.project.workspace, PATCH_COMMIT, patch).await;
        committed.map_err(Error::young)?;
        Ok(Deployment { message: call.tag(), image: self.image.clone() })
    }

    async fn find(&self, railway: &Railway, call: &Call) -> Result<Found<Deployment>, Failure> {
        let variables = json!({"environmentId": self.environment.id, "first": 20});
        let patches = match railway.read(&self.project.workspace, PATCHES, variables).await {
            Err(Error::NotFound(_)) => return Ok(Found::Nothing),
            other => other?,
        };
        let edges = patches["edges"].as_array().cloned().unwrap_or_default();
        let is_there = edges
            .iter()
            .any(|edge| edge.pointer("/node/message").and_then(Value::as_str) == Some(&call.tag()));
        let deployment = Deployment { message: call.tag(), image: self.image.clone() };
        Ok(if is_there { Found::Usable(deployment) } else { Found::Nothing })
    }
}

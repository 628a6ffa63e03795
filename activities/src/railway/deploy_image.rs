//! Deploy an image: one patch with source, limits and variables, and so exactly one deployment.
//!
//! The commit message carries our mark. By it a patch whose answer was lost is found again.

use std::collections::BTreeMap;
use std::time::Duration;

use amends_engine::{Activity, Call, Effect, Failure, Gate, Made, Resource, SecretRef, secs};
use serde::{Deserialize, Serialize};

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
        vec![super::gate(&self.project.workspace)]
    }

    // BODY
    async fn execute(&self, _: &Railway, _: &Call) -> Result<Self::Output, Failure> {
        Err(Failure::refused("unfinished", Self::NAME))
    }
    // END
}

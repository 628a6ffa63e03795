//! Observe a deploy: whether the container that runs is the one we asked for.
//!
//! Railway may start deployments of its own (host moves), so only those that carry our image count.

use amends_engine::{Activity, Call, Effect, Failure, Gate, Made};
use serde::{Deserialize, Serialize};

use super::Railway;
use super::create_project::Project;
use super::create_service::Service;
use super::deploy_image::Deployment;
use super::read_environment::Environment;

/// Asks how far the newest deployment of our image is; none while it is still on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObserveDeploy {
    /// The project.
    pub project: Made<Project>,
    /// The environment.
    pub environment: Made<Environment>,
    /// The service.
    pub service: Made<Service>,
    /// What was deployed.
    pub deployment: Made<Deployment>,
}

/// A deployment that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deployed {
    /// Railway's id.
    pub id: String,
    /// The image it runs.
    pub image: String,
}

impl Activity for ObserveDeploy {
    const NAME: &'static str = "railway.observe_deploy";
    const EFFECT: Effect = Effect::Read;
    type Client = Railway;
    type Output = Option<Deployed>;

    fn gates(&self, _: &Railway) -> Vec<Gate> {
        vec![super::gate(&self.project.workspace)]
    }

    // BODY
    async fn execute(&self, _: &Railway, _: &Call) -> Result<Self::Output, Failure> {
        Err(Failure::refused("unfinished", Self::NAME))
    }
    // END
}

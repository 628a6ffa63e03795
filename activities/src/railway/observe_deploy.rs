//! Observe a deploy: whether the container that runs is the one we asked for.
//!
//! Railway may start deployments of its own (host moves), so only those that carry our image count.

use super::client::Error;
use amends_engine::{Activity, Call, Effect, Failure, Gate, Made};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

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

const DEPLOYMENTS: &str = "query Deployments($input: DeploymentListInput!, $first: Int!, $after: String) { deployments(input: $input, first: $first, after: $after) { edges { node { id status createdAt meta } } pageInfo { hasNextPage endCursor } } }";

impl Activity for ObserveDeploy {
    const NAME: &'static str = "railway.observe_deploy";
    const EFFECT: Effect = Effect::Read;
    type Client = Railway;
    type Output = Option<Deployed>;

    fn gates(&self, _: &Railway) -> Vec<Gate> {
        super::gates(&self.project.workspace)
    }

    async fn execute(&self, railway: &Railway, _: &Call) -> Result<Option<Deployed>, Failure> {
        let input = json!({
            "projectId": self.project.id, "environmentId": self.environment.id, "serviceId": self.service.id,
        });
        let listed =
            railway.read(&self.project.workspace, DEPLOYMENTS, json!({"input": input, "first": 5})).await;
        let listed = listed.map_err(Error::young)?;
        let edges = listed["edges"].as_array().cloned().unwrap_or_default();
        let nodes = edges.iter().filter_map(|edge| edge.get("node"));
        let mut ours = nodes.filter(|node| {
            node.pointer("/meta/image").and_then(Value::as_str) == Some(&self.deployment.image)
        });
        let Some(newest) = ours.next() else { return Ok(None) };
        match newest["status"].as_str().unwrap_or_default() {
            "SUCCESS" | "SLEEPING" => Ok(Some(Deployed {
                id: newest["id"].as_str().unwrap_or_default().to_owned(),
                image: self.deployment.image.clone(),
            })),
            status @ ("FAILED" | "CRASHED" | "SKIPPED") => {
                Err(Failure::refused("deploy_failed", format!("the deployment ended as {status}")))
            }
            _ => Ok(None),
        }
    }
}

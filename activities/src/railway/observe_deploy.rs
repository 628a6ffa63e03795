//! Observe a deploy: whether the container that runs is the one we asked for.
//!
//! Railway may start deployments of its own (host moves), so only those that carry our image count. While there is none,
//! the patch is asked about: one that could not be applied never becomes a deployment.

use crate::answer::Answered;
use crate::answer::judge::clean;
use amends_engine::{Activity, Call, Effect, Failure, Gate, Made};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::create_project::Project;
use super::create_service::Service;
use super::deploy_image::{Deployment, Patches, patch_of};
use super::read_environment::Environment;
use super::{Railway, answers};

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

const WORKFLOW: &str =
    "query WorkflowStatus($workflowId: String!) { workflowStatus(workflowId: $workflowId) { status error } }";

impl ObserveDeploy {
    /// Refused where the patch could not be applied, with what Railway says of it.
    async fn patch_fails(&self, railway: &Railway) -> Result<(), Failure> {
        let workspace = &self.project.workspace;
        let error = match &self.deployment.workflow {
            Some(workflow) => {
                let variables = json!({"workflowId": workflow});
                match railway.call(&answers::WORKFLOW, workspace, WORKFLOW, variables).await? {
                    // Of some workflows Railway tells nobody. Then the deployments alone say how it went.
                    Answered::Ambiguous => None,
                    answered => {
                        let status = answered.done()?;
                        (status.body["status"] == "Error")
                            .then(|| status.text("/error").unwrap_or_else(|| "without a reason".to_owned()))
                    }
                }
            }
            None => match patch_of(railway, workspace, &self.environment.id, &self.deployment.message).await?
            {
                Patches::Ours(patch) => {
                    patch["lastAppliedError"].as_str().filter(|error| !error.is_empty()).map(str::to_owned)
                }
                Patches::None | Patches::NoEnvironment => None,
            },
        };
        match error {
            Some(error) => {
                Err(Failure::refused("patch_failed", format!("the patch failed: {}", clean(&error))))
            }
            None => Ok(()),
        }
    }
}

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
        let variables = json!({"input": input, "first": 5});
        let mut listed = railway
            .call(&answers::DEPLOYMENTS, &self.project.workspace, DEPLOYMENTS, variables)
            .await?
            .done()?;
        let mut ours = listed.rows("/edges").into_iter().map(|mut edge| edge["node"].take()).filter(|node| {
            node.pointer("/meta/image").and_then(Value::as_str) == Some(&self.deployment.image)
        });
        let Some(newest) = ours.next() else { return self.patch_fails(railway).await.map(|()| None) };
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

//! Create a Railway service, empty: an image given here would be deployed before volume and domain exist.

use std::time::Duration;

use crate::answer::{Answered, in_doubt, not_yet};
use amends_engine::{Activity, Call, Effect, Failure, Found, Gate, Made, Resource, secs};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::create_project::Project;
use super::read_environment::Environment;
use super::{Railway, answers};

/// Asks for a service without a source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CreateService {
    /// The project it goes into.
    pub project: Made<Project>,
    /// The environment it runs in.
    pub environment: Made<Environment>,
    /// Unique in the project: Railway refuses a second one.
    pub name: String,
}

/// A Railway service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Railway's id.
    pub id: String,
}

const SERVICE_CREATE: &str = "mutation ServiceCreate($input: ServiceCreateInput!) { serviceCreate(input: $input) { id name projectId createdAt } }";

impl CreateService {
    /// The service of our name. It is in a project that bears our mark, in which a name is given once.
    async fn look(&self, railway: &Railway, call: &Call) -> Result<Option<Service>, Failure> {
        let Some(project) = railway.project(&self.project.workspace, &self.project.id).await? else {
            return Ok(None);
        };
        let name = call.name(&self.name);
        let edges = project["services"]["edges"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut ours = edges
            .iter()
            .map(|edge| &edge["node"])
            .filter(|service| service["name"] == name.as_str() && service["deletedAt"].is_null());
        let id = ours.next().and_then(|service| service["id"].as_str());
        Ok(id.map(|id| Service { id: id.to_owned() }))
    }
}

impl Activity for CreateService {
    const NAME: &'static str = "railway.create_service";
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(5) };
    const TIME_LIMIT: Duration = secs(90);
    type Client = Railway;
    type Output = Service;

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("railway", "service", call.name(&self.name)).within(self.project.step().clone()))
    }

    fn gates(&self, _: &Railway) -> Vec<Gate> {
        super::gates(&self.project.workspace)
    }

    fn external_id(made: &Service) -> Option<String> {
        Some(made.id.clone())
    }

    async fn execute(&self, railway: &Railway, call: &Call) -> Result<Service, Failure> {
        let input = json!({
            "projectId": self.project.id, "environmentId": self.environment.id, "name": call.name(&self.name),
        });
        let workspace = &self.project.workspace;
        let made = railway
            .call(&answers::SERVICE_CREATE, workspace, SERVICE_CREATE, json!({"input": input}))
            .await?;
        match made {
            // The name is unique in a project that is ours alone, so it is our own.
            Answered::Taken(_) => {
                let there = self.look(railway, call).await.map_err(in_doubt)?;
                there.ok_or_else(|| in_doubt(not_yet("the service does not show yet")))
            }
            made => Ok(Service { id: made.done()?.needed("/id")? }),
        }
    }

    async fn find(&self, railway: &Railway, call: &Call) -> Result<Found<Service>, Failure> {
        Ok(self.look(railway, call).await?.map_or(Found::Nothing, Found::Usable))
    }
}

//! Create a Railway service, empty: an image given here would be deployed before volume and domain exist.

use std::time::Duration;

use super::client::Error;
use crate::http;
use amends_engine::{Activity, Call, Effect, Failure, Found, Gate, Made, Resource, secs};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Railway;
use super::create_project::Project;
use super::read_environment::Environment;

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

fn id(service: &Value) -> Result<Service, Failure> {
    let id =
        service["id"].as_str().ok_or_else(|| http::not_yet("Railway answered a service without an id"))?;
    Ok(Service { id: id.to_owned() })
}

impl CreateService {
    async fn look(&self, railway: &Railway, call: &Call) -> Result<Option<Service>, Failure> {
        let project = match railway.project(&self.project.workspace, &self.project.id).await {
            Err(Error::NotFound(_)) => return Ok(None),
            other => other?,
        };
        let edges = project.pointer("/services/edges").and_then(Value::as_array).cloned().unwrap_or_default();
        let named = edges.iter().filter_map(|edge| edge.get("node"));
        let mut ours = named.filter(|service| service["name"] == call.name(&self.name).as_str());
        ours.next().map(id).transpose()
    }
}

impl Activity for CreateService {
    const NAME: &'static str = "railway.create_service";
    const EFFECT: Effect = Effect::Searchable { quiet: secs(5) };
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
        let made = railway
            .write(super::throttle(call), &self.project.workspace, SERVICE_CREATE, json!({"input": input}))
            .await;
        match made {
            Ok(made) => id(&made),
            // The name is unique in a project that is ours alone, so it is our own.
            Err(Error::Exists(_)) => {
                self.look(railway, call).await?.ok_or_else(|| http::not_yet("the service does not show yet"))
            }
            Err(error) => Err(error.young()),
        }
    }

    async fn find(&self, railway: &Railway, call: &Call) -> Result<Found<Service>, Failure> {
        Ok(self.look(railway, call).await?.map_or(Found::Nothing, Found::Usable))
    }
}

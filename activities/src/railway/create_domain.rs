//! Create a service's public domain: Railway assigns the host, and allows one for each service.

use std::time::Duration;

use super::client::Error;
use amends_engine::activity::Cause;
use amends_engine::{Activity, Call, Effect, Failure, Found, Gate, Made, Resource, secs};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Railway;
use super::create_project::Project;
use super::create_service::Service;
use super::read_environment::Environment;

/// Asks for the service's public domain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CreateDomain {
    /// The project.
    pub project: Made<Project>,
    /// The environment.
    pub environment: Made<Environment>,
    /// The service.
    pub service: Made<Service>,
}

/// A public domain that Railway assigned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Domain {
    /// Railway's id.
    pub id: String,
    /// The host, without a scheme.
    pub domain: String,
}

const DOMAIN_CREATE: &str = "mutation ServiceDomainCreate($input: ServiceDomainCreateInput!) { serviceDomainCreate(input: $input) { id domain targetPort syncStatus } }";
const DOMAINS: &str = "query Domains($projectId: String!, $environmentId: String!, $serviceId: String!) { domains(projectId: $projectId, environmentId: $environmentId, serviceId: $serviceId) { serviceDomains { id domain targetPort syncStatus deletedAt } } }";

fn read(domain: &Value) -> Option<Domain> {
    Some(Domain { id: domain["id"].as_str()?.to_owned(), domain: domain["domain"].as_str()?.to_owned() })
}

impl CreateDomain {
    async fn look(&self, railway: &Railway) -> Result<Option<Domain>, Failure> {
        let variables = json!({
            "projectId": self.project.id, "environmentId": self.environment.id, "serviceId": self.service.id,
        });
        let domains = match railway.read(&self.project.workspace, DOMAINS, variables).await {
            Err(Error::NotFound(_)) => return Ok(None),
            other => other?,
        };
        let all = domains["serviceDomains"].as_array().cloned().unwrap_or_default();
        Ok(all.iter().filter(|domain| domain["deletedAt"].is_null()).find_map(read))
    }
}

impl Activity for CreateDomain {
    const NAME: &'static str = "railway.create_domain";
    const EFFECT: Effect = Effect::Searchable { quiet: secs(5) };
    const TIME_LIMIT: Duration = secs(90);
    type Client = Railway;
    type Output = Domain;

    fn resource(&self, _: &Call) -> Option<Resource> {
        Some(Resource::new("railway", "domain", self.service.id.clone()).within(self.project.step().clone()))
    }

    fn gates(&self, _: &Railway) -> Vec<Gate> {
        super::gates(&self.project.workspace)
    }

    fn external_id(made: &Domain) -> Option<String> {
        Some(made.id.clone())
    }

    async fn execute(&self, railway: &Railway, call: &Call) -> Result<Domain, Failure> {
        // A service has one; the one that is there is it.
        if let Some(there) = self.look(railway).await? {
            return Ok(there);
        }
        let input = json!({"environmentId": self.environment.id, "serviceId": self.service.id});
        let made = railway
            .write(super::throttle(call), &self.project.workspace, DOMAIN_CREATE, json!({"input": input}))
            .await;
        read(&made.map_err(Error::young)?).ok_or_else(|| Failure::NoAnswer {
            cause: Cause::Unreadable,
            detail: "Railway answered a domain without a name".to_owned(),
        })
    }

    async fn find(&self, railway: &Railway, _: &Call) -> Result<Found<Domain>, Failure> {
        Ok(self.look(railway).await?.map_or(Found::Nothing, Found::Usable))
    }
}

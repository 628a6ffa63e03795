//! Create a service's public domain: Railway assigns the host, and allows one for each service.

use std::time::Duration;

use crate::answer::{in_doubt, not_yet, unreadable};
use amends_engine::{Activity, Call, Effect, Failure, Found, Gate, Made, Resource, secs};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::create_project::Project;
use super::create_service::Service;
use super::read_environment::Environment;
use super::{Railway, answers};

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
    /// The domain of our service. The service is ours and has one, so that its place is its mark.
    async fn look(&self, railway: &Railway) -> Result<Option<Domain>, Failure> {
        let variables = json!({
            "projectId": self.project.id, "environmentId": self.environment.id, "serviceId": self.service.id,
        });
        let workspace = &self.project.workspace;
        let domains = railway.call(&answers::DOMAINS, workspace, DOMAINS, variables).await?.found()?;
        let Some(mut domains) = domains else {
            // Where the whole project is gone nothing hangs in it. Otherwise it is not visible yet.
            return match railway.project(workspace, &self.project.id).await? {
                None => Ok(None),
                Some(_) => Err(not_yet("the service does not show yet")),
            };
        };
        let is_there = |domain: &&Value| {
            domain["deletedAt"].is_null()
                && domain["syncStatus"] != "DELETING"
                && domain["syncStatus"] != "DELETED"
        };
        Ok(domains.rows("/serviceDomains").iter().find(is_there).and_then(read))
    }
}

impl Activity for CreateDomain {
    const NAME: &'static str = "railway.create_domain";
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(5) };
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

    async fn execute(&self, railway: &Railway, _: &Call) -> Result<Domain, Failure> {
        // A service has one; the one that is there is it.
        if let Some(there) = self.look(railway).await? {
            return Ok(there);
        }
        let input = json!({"environmentId": self.environment.id, "serviceId": self.service.id});
        let workspace = &self.project.workspace;
        let made =
            railway.call(&answers::DOMAIN_CREATE, workspace, DOMAIN_CREATE, json!({"input": input})).await?;
        read(&made.done()?.body)
            .ok_or_else(|| in_doubt(unreadable("Railway answered a domain without a name")))
    }

    async fn find(&self, railway: &Railway, _: &Call) -> Result<Found<Domain>, Failure> {
        Ok(self.look(railway).await?.map_or(Found::Nothing, Found::Usable))
    }
}

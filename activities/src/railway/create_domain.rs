//! Create a service's public domain: Railway assigns the host, and allows one for each service.

use std::time::Duration;

use amends_engine::{Activity, Call, Effect, Failure, Gate, Made, Resource, secs};
use serde::{Deserialize, Serialize};

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
        vec![super::gate(&self.project.workspace)]
    }

    fn external_id(made: &Domain) -> Option<String> {
        Some(made.id.clone())
    }

    // BODY
    async fn execute(&self, _: &Railway, _: &Call) -> Result<Self::Output, Failure> {
        Err(Failure::refused("unfinished", Self::NAME))
    }
    // END
}

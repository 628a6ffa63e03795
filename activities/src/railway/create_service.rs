//! Create a Railway service, empty: an image given here would be deployed before volume and domain exist.

use std::time::Duration;

use amends_engine::{Activity, Call, Effect, Failure, Gate, Made, Resource, secs};
use serde::{Deserialize, Serialize};

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
        vec![super::gate(&self.project.workspace)]
    }

    fn external_id(made: &Service) -> Option<String> {
        Some(made.id.clone())
    }

    // BODY
    async fn execute(&self, _: &Railway, _: &Call) -> Result<Self::Output, Failure> {
        Err(Failure::refused("unfinished", Self::NAME))
    }
    // END
}

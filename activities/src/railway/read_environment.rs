//! Read a project's environment: Railway makes one with every project, and we use that one.

use crate::answer::not_yet;
use amends_engine::{Activity, Call, Effect, Failure, Gate, Made};
use serde::{Deserialize, Serialize};

use super::Railway;
use super::create_project::Project;

/// Asks which environment the project was born with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReadEnvironment {
    /// The project.
    pub project: Made<Project>,
}

/// An environment of a Railway project.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Railway's id.
    pub id: String,
}

impl Activity for ReadEnvironment {
    const NAME: &'static str = "railway.read_environment";
    const EFFECT: Effect = Effect::Read;
    type Client = Railway;
    type Output = Environment;

    fn gates(&self, _: &Railway) -> Vec<Gate> {
        super::gates(&self.project.workspace)
    }

    async fn execute(&self, railway: &Railway, _: &Call) -> Result<Environment, Failure> {
        let project = railway.project(&self.project.workspace, &self.project.id).await?;
        let project = project.ok_or_else(|| not_yet("the project does not show yet"))?;
        let id = project["primaryEnvironmentId"].as_str();
        Ok(Environment { id: id.ok_or_else(|| not_yet("the project has no environment yet"))?.to_owned() })
    }
}

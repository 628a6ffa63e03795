//! Read a project's environment: Railway makes one with every project, and we use that one.

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
        vec![super::gate(&self.project.workspace)]
    }

    // BODY
    async fn execute(&self, _: &Railway, _: &Call) -> Result<Self::Output, Failure> {
        Err(Failure::refused("unfinished", Self::NAME))
    }
    // END
}

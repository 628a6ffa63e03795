//! Create a Railway project: the walls around everything one instance owns.
//!
//! Railway takes no idempotency key and lets two projects share a name. So the name is ours, chosen before
//! we ask and unique to the instance, and the description says which step it was made for.

use std::time::Duration;

use amends_engine::{Activity, Call, Effect, Failure, Gate, Resource, secs};
use serde::{Deserialize, Serialize};

use super::Railway;

/// Asks Railway for a new, empty project.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CreateProject {
    /// The workspace that pays for it.
    pub workspace: String,
    /// `<prefix>-<environment>-<instance>`, at most 32 characters.
    pub name: String,
}

/// A Railway project.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Project {
    /// Railway's id.
    pub id: String,
    /// The workspace it is in.
    pub workspace: String,
}

impl Activity for CreateProject {
    const NAME: &'static str = "railway.create_project";
    const EFFECT: Effect = Effect::Searchable { quiet: secs(31) };
    const TIME_LIMIT: Duration = secs(90);
    type Client = Railway;
    type Output = Project;

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("railway", "project", call.name(&self.name)))
    }

    fn gates(&self, _: &Railway) -> Vec<Gate> {
        vec![
            super::gate(&self.workspace),
            Gate::spaced(format!("railway:{}:project_create", self.workspace), secs(31)),
        ]
    }

    fn external_id(made: &Project) -> Option<String> {
        Some(made.id.clone())
    }

    // BODY
    async fn execute(&self, _: &Railway, _: &Call) -> Result<Self::Output, Failure> {
        Err(Failure::refused("unfinished", Self::NAME))
    }
    // END
}

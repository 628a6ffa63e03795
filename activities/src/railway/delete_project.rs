//! Delete a Railway project by its id, with everything in it.

use std::time::Duration;

use amends_engine::{Activity, Call, Effect, Failure, Gate, Object, secs};
use serde::{Deserialize, Serialize};

use super::Railway;

/// Deletes a project; one that is gone already is success.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeleteProject {
    /// The workspace it is in.
    pub workspace: String,
    /// Railway's id.
    pub project_id: String,
}

impl Activity for DeleteProject {
    const NAME: &'static str = "railway.delete_project";
    const EFFECT: Effect = Effect::Repeatable;
    const TIME_LIMIT: Duration = secs(90);
    type Client = Railway;
    type Output = ();

    fn object(&self, _: &Call) -> Option<Object> {
        Some(Object::new("railway", "project", &self.project_id))
    }

    fn gates(&self, _: &Railway) -> Vec<Gate> {
        super::gates(&self.workspace)
    }

    async fn execute(&self, railway: &Railway, _: &Call) -> Result<(), Failure> {
        railway.delete(&self.workspace, &self.project_id).await
    }
}

//! Remove a Railway project, with everything in it, and see it gone.

use std::time::Duration;

use amends_engine::{Call, Failure, Gate, Object, Removal, ResourceId, secs};
use serde::{Deserialize, Serialize};

use super::Railway;

/// Takes a project away.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RemoveProject {
    /// The workspace it is in.
    pub workspace: String,
    /// Railway's id; none where it was never known, and then it is looked for by its name.
    pub project_id: Option<String>,
    /// Its name, which is ours alone.
    pub name: String,
    /// The ledger rows that its absence closes.
    pub resources: Vec<ResourceId>,
}

/// How long a project that was made, or deleted, may be shown wrongly.
pub(crate) const SETTLE_AFTER: Duration = secs(30);

impl RemoveProject {
    async fn ids(&self, railway: &Railway) -> Result<Vec<String>, Failure> {
        if let Some(id) = &self.project_id {
            return Ok(vec![id.clone()]);
        }
        let listed = railway.projects(&self.workspace).await?;
        Ok(listed.into_iter().filter(|project| project.name == self.name).map(|project| project.id).collect())
    }
}

impl Removal for RemoveProject {
    const NAME: &'static str = "railway.remove_project";
    const SETTLE_AFTER: Duration = SETTLE_AFTER;
    const TIME_LIMIT: Duration = secs(90);
    type Client = Railway;

    fn resources(&self) -> Vec<ResourceId> {
        self.resources.clone()
    }

    fn object(&self, _: &Call) -> Option<Object> {
        self.project_id.as_ref().map(|id| Object::new("railway", "project", id))
    }

    fn gates(&self, _: &Railway) -> Vec<Gate> {
        super::gates(&self.workspace)
    }

    async fn is_there(&self, railway: &Railway, _: &Call) -> Result<bool, Failure> {
        for id in self.ids(railway).await? {
            if !railway.is_gone(&self.workspace, &id).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn request(&self, railway: &Railway, _: &Call) -> Result<(), Failure> {
        for id in self.ids(railway).await? {
            railway.delete(&self.workspace, &id).await?;
        }
        Ok(())
    }
}

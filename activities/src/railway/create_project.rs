//! Create a Railway project: the walls around everything one instance owns.
//!
//! Railway takes no idempotency key and lets two projects share a name. So the name is ours, chosen before
//! we ask and unique to the instance, and the description says which step it was made for.

use std::time::Duration;

use amends_engine::{Activity, Call, Effect, Failure, Found, Gate, Resource, secs};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::remove_project::SETTLE_AFTER;
use super::{Railway, answers};
use crate::answer::still_there;

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

const PROJECT_CREATE: &str = "mutation ProjectCreate($input: ProjectCreateInput!) { projectCreate(input: $input) { id name workspaceId createdAt primaryEnvironmentId } }";

impl CreateProject {
    fn project(&self, id: String) -> Project {
        Project { id, workspace: self.workspace.clone() }
    }
}

impl Activity for CreateProject {
    const NAME: &'static str = "railway.create_project";
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(31) };
    const TIME_LIMIT: Duration = secs(90);
    type Client = Railway;
    type Output = Project;

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("railway", "project", call.name(&self.name)))
    }

    fn gates(&self, _: &Railway) -> Vec<Gate> {
        super::slow_gates(&self.workspace, "project_create")
    }

    fn external_id(made: &Project) -> Option<String> {
        Some(made.id.clone())
    }

    async fn execute(&self, railway: &Railway, call: &Call) -> Result<Project, Failure> {
        let input = json!({
            "name": call.name(&self.name), "workspaceId": self.workspace, "description": call.tag(),
            "defaultEnvironmentName": "production", "isPublic": false,
        });
        let made = railway
            .call(&answers::PROJECT_CREATE, &self.workspace, PROJECT_CREATE, json!({"input": input}))
            .await?
            .done()?;
        Ok(self.project(made.needed("/id")?))
    }

    async fn find(&self, railway: &Railway, call: &Call) -> Result<Found<Project>, Failure> {
        let (name, tag) = (call.name(&self.name), call.tag());
        let listed = railway.projects(&self.workspace).await?;
        let mut ours: Vec<_> =
            listed.into_iter().filter(|project| project.name == name && project.description == tag).collect();
        ours.sort_by(|one, other| one.created_at.cmp(&other.created_at));
        let mut ours = ours.into_iter();
        let Some(oldest) = ours.next() else { return Ok(Found::Nothing) };
        // Of two that an attempt made the later one goes, and is seen gone, before the first is taken for it.
        let mut had_twins = false;
        for twin in ours {
            railway.delete(&self.workspace, &twin.id).await?;
            had_twins = true;
        }
        if had_twins {
            return Err(still_there("Railway was asked to delete a second project of the same name"));
        }
        Ok(Found::Usable(self.project(oldest.id)))
    }

    async fn compensate(&self, railway: &Railway, made: &Project, call: &Call) -> Result<(), Failure> {
        if railway.is_gone(&made.workspace, &made.id).await? {
            return call.absent(SETTLE_AFTER);
        }
        railway.delete(&made.workspace, &made.id).await?;
        Err(still_there("Railway was asked to delete the project"))
    }
}

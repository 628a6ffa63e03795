//! What Railway holds that may be ours: projects, workspace by workspace.

use std::sync::Arc;
use std::time::Duration;

use amends_engine::sweep::{
    Ask, FindingRow, Identity, Kind, ListPage, Names, Observed, Provider, async_trait,
};
use amends_engine::{Engine, Failure, Gate, Registry, secs, store};
use serde_json::json;

use super::answers;
use super::client::{PAGE, PROJECTS, next_page};
use super::{
    AttachVolume, CreateDomain, CreateProject, CreateService, DeployImage, ObserveDeploy, Railway,
    ReadEnvironment, RemoveProject,
};
use crate::census::{is_planned, text, time, unreadable};
use crate::pool;

/// How long a workspace that made something waits before it makes the next; a lost call is over by then.
const SETTLES: Duration = secs(31);

/// Railway, with the grammar of our projects' names.
pub struct RailwayCensus {
    railway: Arc<Railway>,
    names: Names,
}

impl RailwayCensus {
    /// Of these workspaces.
    pub fn new(railway: Arc<Railway>, names: Names) -> Arc<Self> {
        Arc::new(Self { railway, names })
    }

    /// The workspaces in which a thing may be.
    fn places(&self, thing: &Identity) -> Vec<String> {
        thing.account.clone().map_or_else(|| self.railway.workspaces(), |account| vec![account])
    }
}

/// A cursor is the number of the workspace and Railway's own cursor in it.
fn place(cursor: Option<&str>) -> Option<(usize, Option<&str>)> {
    let Some(cursor) = cursor else { return Some((0, None)) };
    let (workspace, after) = cursor.split_once(' ')?;
    Some((workspace.parse().ok()?, Some(after).filter(|after| !after.is_empty())))
}

#[async_trait]
impl Provider for RailwayCensus {
    fn name(&self) -> &'static str {
        "railway"
    }

    fn kinds(&self) -> Vec<Kind> {
        vec![Kind::new("project")]
    }

    fn settle_after(&self) -> Duration {
        SETTLES
    }

    fn is_ours(&self, name: &str) -> bool {
        self.names.read(name).is_some()
    }

    fn resembles_ours(&self, name: &str) -> bool {
        self.names.begins(name)
    }

    fn register(self: Arc<Self>, registry: Registry) -> Registry {
        let railway = &self.railway;
        registry
            .activity::<CreateProject>(railway.clone())
            .activity::<ReadEnvironment>(railway.clone())
            .activity::<CreateService>(railway.clone())
            .activity::<AttachVolume>(railway.clone())
            .activity::<CreateDomain>(railway.clone())
            .activity::<DeployImage>(railway.clone())
            .activity::<ObserveDeploy>(railway.clone())
            .removal::<RemoveProject>(railway.clone())
            .local::<pool::TaintIncomplete>()
    }

    fn gates(&self, call: Ask<'_>) -> Vec<Gate> {
        let workspaces = match call {
            Ask::List(cursor) => {
                let all = self.railway.workspaces();
                place(cursor).and_then(|(number, _)| all.get(number).cloned()).into_iter().collect()
            }
            Ask::Read(thing) | Ask::Remove(thing) => self.places(thing),
        };
        workspaces.iter().flat_map(|workspace| super::gates(workspace)).collect()
    }

    async fn list(&self, cursor: Option<&str>) -> Result<ListPage, Failure> {
        let (number, after) =
            place(cursor).ok_or_else(|| unreadable("the cursor is none of ours".to_owned()))?;
        let workspaces = self.railway.workspaces();
        let Some(workspace) = workspaces.get(number) else { return Ok(ListPage::default()) };
        let variables = json!({"workspaceId": workspace, "first": PAGE, "after": after});
        let mut page = self.railway.call(&answers::PROJECTS, workspace, PROJECTS, variables).await?.done()?;
        let next = next_page(&page.body, "/pageInfo")?;
        let mut things = Vec::new();
        for mut edge in page.rows("/edges") {
            let node = edge["node"].take();
            if node["deletedAt"].is_null() {
                things.push(Observed {
                    account: Some(workspace.clone()),
                    created_at: time(node["createdAt"].as_str()),
                    ..Observed::new("project", text(&node, "id")?, text(&node, "name")?)
                });
            }
        }
        let next = match next {
            Some(after) => Some(format!("{number} {after}")),
            None => (number + 1 < workspaces.len()).then(|| format!("{} ", number + 1)),
        };
        Ok(ListPage { things, next })
    }

    async fn read(&self, thing: &Identity) -> Result<Option<Observed>, Failure> {
        let id =
            thing.external_id.as_deref().ok_or_else(|| unreadable("a project without an id".to_owned()))?;
        for workspace in self.places(thing) {
            // One that a good token may not see was ours and is gone, or is in another workspace.
            if self.railway.is_gone(&workspace, id).await? {
                continue;
            }
            if let Some(project) = self.railway.project(&workspace, id).await? {
                let seen = Observed::new("project", id, text(&project, "name")?);
                return Ok(Some(Observed { account: Some(workspace), ..seen }));
            }
        }
        Ok(None)
    }

    async fn remove(&self, thing: &Identity) -> Result<(), Failure> {
        let seen = self.read(thing).await?;
        let Some(seen) = seen else { return Ok(()) };
        if seen.name != thing.name {
            return Err(Failure::refused("renamed", "it bears another name now"));
        }
        let workspace = seen.account.unwrap_or_default();
        self.railway.delete(&workspace, &seen.external_id).await
    }

    async fn knows(&self, engine: &Engine, name: &str) -> Result<bool, Failure> {
        is_planned(engine, self.names.read(name)).await
    }

    async fn found(&self, engine: &Engine, finding: &FindingRow) -> Result<(), store::Error> {
        pool::taint(engine, finding).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_goes_through_the_workspaces_one_after_another() {
        assert_eq!(place(None), Some((0, None)));
        assert_eq!(place(Some("0 abc")), Some((0, Some("abc"))));
        assert_eq!(place(Some("1 ")), Some((1, None)));
        assert_eq!(place(Some("abc")), None);
    }
}

//! What Railway holds that may be ours: projects, workspace by workspace.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use amends_engine::journal::step::Step;
use amends_engine::store::{ResourceFilter, ResourceRow, ResourceState};
use amends_engine::sweep::{
    Ask, FindingRow, Identity, Kind, ListPage, Names, Observed, Provider, async_trait,
};
use amends_engine::{Activity, Engine, Failure, Gate, Registry, secs, store};
use serde_json::{Value, json};

use super::answers;
use super::client::{PAGE, next_page};
use super::{
    AttachVolume, CreateDomain, CreateProject, CreateService, DeployImage, ObserveDeploy, Railway,
    ReadEnvironment, RemoveProject,
};
use crate::census::{Declared, is_planned, rows, text, time, unreadable};
use crate::pool;

/// How long a workspace that made something waits before it makes the next; a lost call is over by then.
const SETTLES: Duration = secs(31);

/// A page of projects, each with the images that run in it: asking project by project would use up the rate limit.
const PROJECTS: &str = "query CensusPage($workspaceId: String!, $first: Int!, $after: String) { projects(workspaceId: $workspaceId, first: $first, after: $after, includeDeleted: false, orderBy: CREATED_AT_DESC) { edges { node { id name createdAt deletedAt environments(first: 1) { edges { node { serviceInstances(first: 5) { edges { node { source { image } } } } } } } } } pageInfo { hasNextPage endCursor } } }";

/// Railway, with the grammar of our projects' names.
pub struct RailwayCensus {
    railway: Arc<Railway>,
    names: Names,
    images: Declared,
    workspaces: Declared,
}

impl RailwayCensus {
    /// Of these workspaces.
    pub fn new(railway: Arc<Railway>, names: Names) -> Arc<Self> {
        Arc::new(Self { railway, names, images: Declared::default(), workspaces: Declared::default() })
    }

    /// The workspaces in which a thing may be.
    fn places(&self, thing: &Identity) -> Vec<String> {
        thing.account.clone().map_or_else(|| self.railway.workspaces(), |account| vec![account])
    }
}

fn shown(project: &Value, workspace: &str) -> Result<Observed, Failure> {
    let mut seen = Observed::new("project", text(project, "id")?, text(project, "name")?);
    seen.account = Some(workspace.to_owned());
    seen.created_at = time(project["createdAt"].as_str());
    let inner = |node: &Value, field: &str| {
        let edges = node[field]["edges"].as_array().cloned().unwrap_or_default();
        edges.into_iter().map(|mut edge| edge["node"].take()).collect::<Vec<_>>()
    };
    let services = inner(project, "environments").into_iter().flat_map(|one| inner(&one, "serviceInstances"));
    let images = services.filter_map(|service| service["source"]["image"].as_str().map(str::to_owned));
    let images: Vec<String> = images.collect();
    if !images.is_empty() {
        seen.attributes.insert("image".to_owned(), images.join(" and "));
    }
    Ok(seen)
}

/// The image that a container was deployed with.
fn image(step: &Step) -> Option<String> {
    let asked = step.asked.as_ref().filter(|asked| asked.activity == DeployImage::NAME)?;
    asked.input.get("image")?.as_str().map(str::to_owned)
}

/// The workspace in which a project was made.
fn workspace(step: &Step) -> Option<String> {
    let asked = step.asked.as_ref().filter(|asked| asked.activity == CreateProject::NAME)?;
    asked.input.get("workspace")?.as_str().map(str::to_owned)
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
                things.push(shown(&node, workspace)?);
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
            if let Some(project) = self.railway.visible(&workspace, id).await? {
                return shown(&project, &workspace).map(Some);
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

    async fn account(&self, engine: &Engine, row: &ResourceRow) -> Result<Option<String>, Failure> {
        self.workspaces.of(engine, row, workspace).await
    }

    async fn desired(&self, engine: &Engine, row: &ResourceRow) -> Result<BTreeMap<String, String>, Failure> {
        let of_it = ResourceFilter {
            provider: Some("railway".to_owned()),
            holder: Some(row.holder.clone()),
            states: vec![ResourceState::Live],
            ..ResourceFilter::default()
        };
        let deployments = rows(engine, "deployment", of_it).await?;
        let Some(deployment) = deployments.iter().find(|one| one.within.as_ref() == Some(&row.id)) else {
            return Ok(BTreeMap::new());
        };
        let image = self.images.of(engine, deployment, image).await?;
        Ok(image.map(|image| ("image".to_owned(), image)).into_iter().collect())
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

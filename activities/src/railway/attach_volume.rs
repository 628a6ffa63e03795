//! Attach a volume to a service: where an instance keeps what must survive a deploy.
//!
//! A volume bears no name of ours; it is known by the service it hangs on, and is listed up to 90 s late.

use std::time::Duration;

use super::client::next_page;
use crate::answer::not_yet;
use crate::http::walk::Walk;
use amends_engine::{Activity, Call, Effect, Failure, Found, Gate, Made, Resource, secs};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::create_project::Project;
use super::create_service::Service;
use super::read_environment::Environment;
use super::{Railway, answers};

/// Asks for a volume at a mount path of the service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttachVolume {
    /// The project.
    pub project: Made<Project>,
    /// The environment.
    pub environment: Made<Environment>,
    /// The service.
    pub service: Made<Service>,
    /// Where the container sees it, as `/data`.
    pub mount_path: String,
}

/// A Railway volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// Railway's id.
    pub id: String,
}

const VOLUME_CREATE: &str =
    "mutation VolumeCreate($input: VolumeCreateInput!) { volumeCreate(input: $input) { id name createdAt } }";
const VOLUMES: &str = "query Volumes($id: String!, $projectId: String!, $first: Int, $after: String) { environment(id: $id, projectId: $projectId) { id volumeInstances(first: $first, after: $after) { edges { node { id volumeId serviceId mountPath state deletedAt isPendingDeletion } } pageInfo { hasNextPage endCursor } } } }";

impl AttachVolume {
    /// The volumes that hang on our service and are not on their way out; nothing where the environment is not there.
    async fn look(&self, railway: &Railway) -> Result<Option<Vec<Value>>, Failure> {
        let (mut ours, mut walk, mut after) = (Vec::new(), Walk::new("volumes"), Value::Null);
        loop {
            let variables = json!({
                "id": self.environment.id, "projectId": self.project.id, "first": 100, "after": after,
            });
            let environment = railway
                .call(&answers::ENVIRONMENT, &self.project.workspace, VOLUMES, variables)
                .await?
                .found()?;
            let Some(mut environment) = environment else { return Ok(None) };
            let next = next_page(&environment.body, "/volumeInstances/pageInfo")?;
            let edges = environment.rows("/volumeInstances/edges");
            walk.read(edges.len())?;
            ours.extend(edges.into_iter().map(|mut edge| edge["node"].take()).filter(|volume| {
                volume["serviceId"] == self.service.id.as_str()
                    && volume["deletedAt"].is_null()
                    && volume["isPendingDeletion"] == false
                    && volume["state"] != "DELETING"
                    && volume["state"] != "DELETED"
            }));
            let Some(cursor) = next else { return Ok(Some(ours)) };
            walk.goes_to(&cursor)?;
            after = cursor.into();
        }
    }
}

impl Activity for AttachVolume {
    const NAME: &'static str = "railway.attach_volume";
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(90) };
    const TIME_LIMIT: Duration = secs(90);
    type Client = Railway;
    type Output = Volume;

    fn resource(&self, _: &Call) -> Option<Resource> {
        Some(
            Resource::new("railway", "volume", format!("{}:{}", self.service.id, self.mount_path))
                .within(self.project.step().clone()),
        )
    }

    fn gates(&self, _: &Railway) -> Vec<Gate> {
        super::slow_gates(&self.project.workspace, "volume_create")
    }

    fn external_id(made: &Volume) -> Option<String> {
        Some(made.id.clone())
    }

    async fn execute(&self, railway: &Railway, _: &Call) -> Result<Volume, Failure> {
        let input = json!({
            "projectId": self.project.id, "environmentId": self.environment.id, "serviceId": self.service.id,
            "mountPath": self.mount_path,
        });
        let workspace = &self.project.workspace;
        let made =
            railway.call(&answers::VOLUME_CREATE, workspace, VOLUME_CREATE, json!({"input": input})).await?;
        Ok(Volume { id: made.done()?.needed("/id")? })
    }

    async fn find(&self, railway: &Railway, _: &Call) -> Result<Found<Volume>, Failure> {
        let Some(ours) = self.look(railway).await? else {
            // Where the whole project is gone nothing hangs in it. Otherwise it is not visible yet.
            return match railway.project(&self.project.workspace, &self.project.id).await? {
                None => Ok(Found::Nothing),
                Some(_) => Err(not_yet("the environment does not show yet")),
            };
        };
        // A volume bears no name. One of our service, in our project, at our path can only be ours.
        Ok(match ours.as_slice() {
            [] => Found::Nothing,
            [volume] if volume["mountPath"] == self.mount_path.as_str() => {
                match volume["volumeId"].as_str() {
                    Some(id) => Found::Usable(Volume { id: id.to_owned() }),
                    None => Found::Unknowable,
                }
            }
            _ => Found::Unknowable,
        })
    }
}

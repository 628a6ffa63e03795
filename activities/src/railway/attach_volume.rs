//! Attach a volume to a service: where an instance keeps what must survive a deploy.
//!
//! A volume bears no name of ours; it is known by the service it hangs on, and is listed up to 90 s late.

use std::time::Duration;

use super::client::Error;
use amends_engine::activity::Cause;
use amends_engine::{Activity, Call, Effect, Failure, Found, Gate, Made, Resource, secs};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Railway;
use super::create_project::Project;
use super::create_service::Service;
use super::read_environment::Environment;

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
const VOLUMES: &str = "query Volumes($id: String!, $projectId: String!, $first: Int) { environment(id: $id, projectId: $projectId) { id volumeInstances(first: $first) { edges { node { id volumeId serviceId mountPath state deletedAt isPendingDeletion } } } } }";

impl Activity for AttachVolume {
    const NAME: &'static str = "railway.attach_volume";
    const EFFECT: Effect = Effect::Searchable { quiet: secs(90) };
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

    async fn execute(&self, railway: &Railway, call: &Call) -> Result<Volume, Failure> {
        let input = json!({
            "projectId": self.project.id, "environmentId": self.environment.id, "serviceId": self.service.id,
            "mountPath": self.mount_path,
        });
        let made = railway
            .write(super::throttle(call), &self.project.workspace, VOLUME_CREATE, json!({"input": input}))
            .await;
        let made = made.map_err(Error::young)?;
        let id = made["id"].as_str().ok_or_else(|| Failure::NoAnswer {
            cause: Cause::Unreadable,
            detail: "Railway answered a volume without an id".to_owned(),
        })?;
        Ok(Volume { id: id.to_owned() })
    }

    async fn find(&self, railway: &Railway, _: &Call) -> Result<Found<Volume>, Failure> {
        let variables = json!({"id": self.environment.id, "projectId": self.project.id, "first": 100});
        let environment = match railway.read(&self.project.workspace, VOLUMES, variables).await {
            Err(Error::NotFound(_)) => return Ok(Found::Nothing),
            other => other?,
        };
        let edges = environment
            .pointer("/volumeInstances/edges")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let is_ours = |instance: &&Value| {
            instance["serviceId"] == self.service.id.as_str()
                && instance["deletedAt"].is_null()
                && instance["isPendingDeletion"] != true
        };
        let ours = edges.iter().filter_map(|edge| edge.get("node")).find(is_ours);
        let id = ours.and_then(|instance| instance["volumeId"].as_str());
        Ok(id.map_or(Found::Nothing, |id| Found::Usable(Volume { id: id.to_owned() })))
    }
}

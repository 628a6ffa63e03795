//! Attach a volume to a service: where an instance keeps what must survive a deploy.
//!
//! A volume bears no name of ours; it is known by the service it hangs on, and is listed up to 90 s late.

use std::time::Duration;

use amends_engine::{Activity, Call, Effect, Failure, Gate, Made, Resource, secs};
use serde::{Deserialize, Serialize};

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
        let workspace = &self.project.workspace;
        vec![super::gate(workspace), Gate::spaced(format!("railway:{workspace}:volume_create"), secs(31))]
    }

    fn external_id(made: &Volume) -> Option<String> {
        Some(made.id.clone())
    }

    // BODY
    async fn execute(&self, _: &Railway, _: &Call) -> Result<Self::Output, Failure> {
        Err(Failure::refused("unfinished", Self::NAME))
    }
    // END
}

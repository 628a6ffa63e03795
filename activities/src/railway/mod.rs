//! Railway.

pub mod attach_volume;
mod client;
pub mod create_domain;
pub mod create_project;
pub mod create_service;
pub mod delete_project;
pub mod deploy_image;
pub mod observe_deploy;
pub mod project_gone;
pub mod read_environment;

pub use attach_volume::{AttachVolume, Volume};
pub use client::Railway;
pub use create_domain::{CreateDomain, Domain};
pub use create_project::{CreateProject, Project};
pub use create_service::{CreateService, Service};
pub use delete_project::DeleteProject;
pub use deploy_image::{DeployImage, Deployment};
pub use observe_deploy::{Deployed, ObserveDeploy};
pub use project_gone::ProjectGone;
pub use read_environment::{Environment, ReadEnvironment};

/// The gate of a workspace's tokens.
pub(crate) fn gate(workspace: &str) -> amends_engine::Gate {
    amends_engine::Gate::credential(format!("railway:{workspace}"))
}

/// How long to wait behind a create that came too soon, at the engine's pace.
pub(crate) fn throttle(call: &amends_engine::Call) -> std::time::Duration {
    call.paced(client::THROTTLE)
}

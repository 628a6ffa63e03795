//! Railway.

pub(crate) mod answers;
pub mod attach_volume;
mod census;
mod client;
pub mod create_domain;
pub mod create_project;
pub mod create_service;
pub mod deploy_image;
pub mod observe_deploy;
pub mod read_environment;
pub mod remove_project;
mod tokens;

pub use attach_volume::{AttachVolume, Volume};
pub use census::RailwayCensus;
pub use client::Railway;
pub use create_domain::{CreateDomain, Domain};
pub use create_project::{CreateProject, Project};
pub use create_service::{CreateService, Service};
pub use deploy_image::{DeployImage, Deployment};
pub use observe_deploy::{Deployed, ObserveDeploy};
pub use read_environment::{Environment, ReadEnvironment};
pub use remove_project::RemoveProject;

use amends_engine::{Gate, secs};

use crate::http::escaped;

/// The gates of a workspace's tokens: 50 calls a second and 10,000 an hour on the Pro plan, so its documentation. How
/// the hour is counted it does not say, so that a tenth of it at once is all that is asked for.
pub(crate) fn gates(workspace: &str) -> Vec<Gate> {
    let workspace = escaped(workspace);
    vec![
        Gate::credential(format!("railway:{workspace}")).rate(50, secs(1)).burst(50),
        Gate::credential(format!("railway:{workspace}:hour")).rate(10_000, secs(3600)).burst(1000),
    ]
}

/// The gates of an operation of which a workspace may make one in 30 seconds; it says so only by refusing the second.
pub(crate) fn slow_gates(workspace: &str, operation: &str) -> Vec<Gate> {
    let slot = Gate::spaced(format!("railway:{}:{operation}", escaped(workspace)), secs(31));
    gates(workspace).into_iter().chain([slot]).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_workspaces_share_a_gate() {
        let keys = |workspace: &str| slow_gates(workspace, "project_create").into_iter().map(|gate| gate.key);
        let all: Vec<String> =
            ["a", "a:hour", "a%3Ahour", "a:hour:hour"].into_iter().flat_map(keys).collect();
        let each: BTreeSet<&String> = all.iter().collect();
        assert_eq!((all.len(), each.len()), (12, 12), "{all:?}");
        assert_eq!(gates("ws-1")[0].key, "railway:ws-1");
    }
}

//! Railway's books: projects and what is in them, as they stand at a moment.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::node::Node;
use crate::clock::{Clock, Moment};
use crate::dice::hash;
use crate::faults::{DeployFate, Mischief};
use crate::holdings::{HeldProject, RailwayHoldings};
use crate::life::Life;
use crate::profile::Pacing;

/// Everything that Railway remembers.
#[derive(Debug, Default)]
pub(crate) struct Railway {
    pub(super) projects: Vec<Project>,
    pub(super) patches: Vec<Patch>,
    /// When each token last made something that may only be made now and then, by `<what> <token>`.
    pub(super) made: BTreeMap<String, Moment>,
    /// The window of calls of each token: since when, and how many.
    pub(super) windows: BTreeMap<String, (Moment, u32)>,
}

/// A project, with its one environment.
#[derive(Debug, Clone)]
pub(super) struct Project {
    pub id: String,
    pub name: String,
    pub description: Option<String>,
    pub workspace: String,
    pub environment: String,
    pub environment_name: String,
    pub life: Life,
    pub services: Vec<Service>,
    pub volumes: Vec<Volume>,
}

/// A service, which is its only instance, too.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub id: String,
    pub instance: String,
    pub name: String,
    pub life: Life,
    /// From when its instance is there.
    pub settled: Moment,
    /// As `EnvironmentConfig` has it: `source`, `deploy`, `variables`, ..
    pub config: Map<String, Value>,
    pub limits: Value,
    pub domains: Vec<Domain>,
    pub deployments: Vec<Deployment>,
}

/// A public host.
#[derive(Debug, Clone)]
pub(super) struct Domain {
    pub id: String,
    pub host: String,
    pub port: Option<u64>,
    pub life: Life,
}

/// A volume.
#[derive(Debug, Clone)]
pub(super) struct Volume {
    pub id: String,
    pub instance: String,
    pub name: String,
    pub service: Option<String>,
    pub mount_path: String,
    pub life: Life,
    pub settled: Moment,
}

/// A container that was started, or is to be.
#[derive(Debug, Clone)]
pub(super) struct Deployment {
    pub id: String,
    pub born: Moment,
    pub image: String,
    pub variables: BTreeMap<String, String>,
    pub waits_for_health: bool,
    pub fate: Option<DeployFate>,
    pub boot: Moment,
}

/// A change of an environment's configuration.
#[derive(Debug, Clone)]
pub(super) struct Patch {
    pub id: String,
    pub workflow: String,
    pub environment: String,
    pub message: Option<String>,
    pub born: Moment,
    pub applied: Moment,
}

/// How far a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing runs yet.
    Starting,
    /// It runs, and is not ready.
    Booting,
    /// It is ready.
    Ready,
    /// It ran, and fell over.
    Crashed,
}

impl Deployment {
    /// How far it is.
    pub fn stage(&self, now: Moment) -> Stage {
        let age = now.saturating_sub(self.born);
        match self.fate {
            _ if age < self.boot / 3 => Stage::Starting,
            Some(DeployFate::Hangs) => Stage::Starting,
            Some(DeployFate::Crashes) => Stage::Crashed,
            _ if age < self.boot => Stage::Booting,
            _ => Stage::Ready,
        }
    }

    fn status(&self, now: Moment, is_superseded: bool) -> &'static str {
        let age = now.saturating_sub(self.born);
        match self.stage(now) {
            _ if is_superseded => "REMOVED",
            Stage::Starting if age < self.boot / 10 => "INITIALIZING",
            Stage::Starting => "DEPLOYING",
            Stage::Booting if self.waits_for_health => "DEPLOYING",
            Stage::Booting | Stage::Ready => "SUCCESS",
            Stage::Crashed => "CRASHED",
        }
    }
}

impl Project {
    pub fn service(&self, id: &str, now: Moment) -> Option<&Service> {
        self.services.iter().find(|service| service.id == id && service.life.is_there(now))
    }

    pub fn node(&self, clock: &Clock, now: Moment, mischief: &Mischief) -> Node {
        let services = self.services.iter().filter(|service| service.life.is_listed(now, mischief));
        let volumes = self.volumes.iter().filter(|volume| volume.life.is_listed(now, mischief));
        let environment = self.environment_node(clock, now, mischief);
        Node::Thing(
            "Project",
            vec![
                ("id", Node::leaf(self.id.clone())),
                ("name", Node::leaf(self.name.clone())),
                ("description", Node::leaf(self.description.clone())),
                ("workspaceId", Node::leaf(self.workspace.clone())),
                ("isPublic", Node::leaf(false)),
                ("createdAt", Node::leaf(clock.date(self.life.born))),
                ("updatedAt", Node::leaf(clock.date(self.life.born))),
                ("deletedAt", Node::leaf(self.life.gone(now).map(|gone| clock.date(gone)))),
                ("primaryEnvironmentId", Node::leaf(self.environment.clone())),
                ("baseEnvironmentId", Node::leaf(self.environment.clone())),
                ("environments", Node::Pages("ProjectEnvironmentsConnection", vec![environment])),
                (
                    "services",
                    Node::Pages("ProjectServicesConnection", services.map(|it| it.node(self, clock, now)).collect()),
                ),
                (
                    "volumes",
                    Node::Pages("ProjectVolumesConnection", volumes.map(|it| it.node(self, clock)).collect()),
                ),
            ],
        )
    }

    pub fn environment_node(&self, clock: &Clock, now: Moment, mischief: &Mischief) -> Node {
        let is_listed = |service: &&Service| service.settled <= now && service.life.is_listed(now, mischief);
        let services = self.services.iter().filter(is_listed);
        let instances: Vec<_> = services.clone().map(|it| it.instance_node(self, clock, now)).collect();
        let deployments = services.flat_map(|it| it.deployment_nodes(self, clock, now)).collect();
        let is_listed = |volume: &&Volume| volume.settled <= now && volume.life.is_listed(now, mischief);
        let volumes = self.volumes.iter().filter(is_listed).map(|it| it.instance_node(self, clock)).collect();
        let config = self.config(now);
        Node::Thing(
            "Environment",
            vec![
                ("id", Node::leaf(self.environment.clone())),
                ("name", Node::leaf(self.environment_name.clone())),
                ("projectId", Node::leaf(self.id.clone())),
                ("isEphemeral", Node::leaf(false)),
                ("createdAt", Node::leaf(clock.date(self.life.born))),
                ("updatedAt", Node::leaf(clock.date(self.life.born))),
                ("deletedAt", Node::leaf(self.life.gone(now).map(|gone| clock.date(gone)))),
                ("unmergedChangesCount", Node::leaf(0)),
                ("configEtag", Node::leaf(format!("{:016x}", hash(&config.to_string())))),
                ("config", Node::Leaf(config)),
                ("serviceInstances", Node::Pages("EnvironmentServiceInstancesConnection", instances)),
                ("volumeInstances", Node::Pages("EnvironmentVolumeInstancesConnection", volumes)),
                ("deployments", Node::Pages("EnvironmentDeploymentsConnection", deployments)),
            ],
        )
    }

    fn config(&self, now: Moment) -> Value {
        let there = self.services.iter().filter(|service| service.life.is_there(now));
        let services: Map<_, _> = there.map(|it| (it.id.clone(), Value::Object(it.config.clone()))).collect();
        json!({ "services": services })
    }
}

impl Service {
    pub fn image(&self) -> Option<String> {
        self.config.get("source")?.get("image")?.as_str().map(str::to_string)
    }

    fn deploy(&self, key: &str) -> Node {
        Node::Leaf(self.config.get("deploy").and_then(|deploy| deploy.get(key)).cloned().unwrap_or_default())
    }

    /// The variables' values by name.
    pub fn variables(&self) -> BTreeMap<String, String> {
        let variables = self.config.get("variables").and_then(Value::as_object);
        let value = |(name, variable): (&String, &Value)| {
            Some((name.clone(), variable.get("value")?.as_str()?.to_string()))
        };
        variables.into_iter().flatten().filter_map(value).collect()
    }

    /// Starts its image. None without one.
    pub fn start(
        &mut self,
        id: String,
        now: Moment,
        pacing: &Pacing,
        mischief: &Mischief,
    ) -> Option<&Deployment> {
        let image = self.image()?;
        let boot = match mischief.deploy {
            Some(DeployFate::Takes(span)) => span,
            _ => pacing.boot,
        };
        let deploy = self.config.get("deploy");
        let waits_for_health =
            deploy.and_then(|deploy| deploy.get("healthcheckPath")).is_some_and(Value::is_string);
        let variables = self.variables();
        let fate = mischief.deploy;
        self.deployments.push(Deployment { id, born: now, image, variables, waits_for_health, fate, boot });
        self.deployments.last()
    }

    /// The deployment that serves: the newest that is ready, else the newest.
    pub fn serving(&self, now: Moment) -> Option<&Deployment> {
        let newest_ready = self.deployments.iter().rev().find(|it| it.stage(now) == Stage::Ready);
        newest_ready.or(self.deployments.last())
    }

    pub fn node(&self, project: &Project, clock: &Clock, now: Moment) -> Node {
        Node::Thing(
            "Service",
            vec![
                ("id", Node::leaf(self.id.clone())),
                ("name", Node::leaf(self.name.clone())),
                ("projectId", Node::leaf(project.id.clone())),
                ("icon", Node::leaf(Value::Null)),
                ("createdAt", Node::leaf(clock.date(self.life.born))),
                ("updatedAt", Node::leaf(clock.date(self.life.born))),
                ("deletedAt", Node::leaf(self.life.gone(now).map(|gone| clock.date(gone)))),
            ],
        )
    }

    pub fn instance_node(&self, project: &Project, clock: &Clock, now: Moment) -> Node {
        let deployments = self.deployment_nodes(project, clock, now);
        let active = self.serving(now).filter(|it| it.stage(now) == Stage::Ready);
        let active = active.map(|it| self.deployment_node(it, project, clock, now));
        let source = match self.image() {
            Some(image) => {
                Node::Thing("ServiceSource", vec![("image", Node::leaf(image)), ("repo", Node::leaf(Value::Null))])
            }
            None => Node::leaf(Value::Null),
        };
        Node::Thing(
            "ServiceInstance",
            vec![
                ("id", Node::leaf(self.instance.clone())),
                ("serviceId", Node::leaf(self.id.clone())),
                ("serviceName", Node::leaf(self.name.clone())),
                ("environmentId", Node::leaf(project.environment.clone())),
                ("source", source),
                ("startCommand", self.deploy("startCommand")),
                ("healthcheckPath", self.deploy("healthcheckPath")),
                ("healthcheckTimeout", self.deploy("healthcheckTimeout")),
                ("restartPolicyType", self.deploy("restartPolicyType")),
                ("restartPolicyMaxRetries", self.deploy("restartPolicyMaxRetries")),
                ("numReplicas", self.deploy("numReplicas")),
                ("sleepApplication", self.deploy("sleepApplication")),
                ("region", Node::leaf("us-west2")),
                ("createdAt", Node::leaf(clock.date(self.life.born))),
                ("updatedAt", Node::leaf(clock.date(self.life.born))),
                ("deletedAt", Node::leaf(self.life.gone(now).map(|gone| clock.date(gone)))),
                ("latestDeployment", deployments.first().cloned().unwrap_or(Node::Leaf(Value::Null))),
                ("activeDeployments", Node::List(active.into_iter().collect())),
                ("domains", self.domains_node(project, clock, now, &Mischief::default())),
            ],
        )
    }

    pub fn domains_node(&self, project: &Project, clock: &Clock, now: Moment, mischief: &Mischief) -> Node {
        let listed = self.domains.iter().filter(|domain| domain.life.is_listed(now, mischief));
        let domains = listed.map(|domain| domain.node(self, project, clock)).collect();
        Node::Thing(
            "AllDomains",
            vec![("serviceDomains", Node::List(domains)), ("customDomains", Node::List(Vec::new()))],
        )
    }

    /// Newest first.
    pub fn deployment_nodes(&self, project: &Project, clock: &Clock, now: Moment) -> Vec<Node> {
        self.deployments.iter().rev().map(|it| self.deployment_node(it, project, clock, now)).collect()
    }

    pub fn deployment_node(&self, it: &Deployment, project: &Project, clock: &Clock, now: Moment) -> Node {
        let newer = self.deployments.iter().rev().take_while(|newer| newer.id != it.id);
        let is_superseded = newer.into_iter().any(|newer| newer.status(now, false) == "SUCCESS");
        let status = it.status(now, is_superseded);
        let running = if status == "SUCCESS" { "RUNNING" } else { "STOPPED" };
        let host = self.domains.iter().find(|domain| domain.life.is_there(now)).map(|it| it.host.clone());
        let instance = Node::Thing(
            "DeploymentDeploymentInstance",
            vec![("id", Node::leaf(self.instance.clone())), ("status", Node::leaf(running))],
        );
        Node::Thing(
            "Deployment",
            vec![
                ("id", Node::leaf(it.id.clone())),
                ("status", Node::leaf(status)),
                ("createdAt", Node::leaf(clock.date(it.born))),
                ("updatedAt", Node::leaf(clock.date(it.born))),
                ("statusUpdatedAt", Node::leaf(clock.date(now.min(it.born + it.boot)))),
                ("deploymentStopped", Node::leaf(is_superseded)),
                ("serviceId", Node::leaf(self.id.clone())),
                ("environmentId", Node::leaf(project.environment.clone())),
                ("projectId", Node::leaf(project.id.clone())),
                ("meta", Node::leaf(json!({ "image": it.image, "reason": "deploy" }))),
                ("staticUrl", Node::leaf(host.clone())),
                ("url", Node::leaf(host)),
                ("canRedeploy", Node::leaf(true)),
                ("canRollback", Node::leaf(false)),
                ("instances", Node::List(vec![instance])),
            ],
        )
    }
}

impl Domain {
    pub fn node(&self, service: &Service, project: &Project, clock: &Clock) -> Node {
        Node::Thing(
            "ServiceDomain",
            vec![
                ("id", Node::leaf(self.id.clone())),
                ("domain", Node::leaf(self.host.clone())),
                ("targetPort", Node::leaf(self.port)),
                ("syncStatus", Node::leaf("ACTIVE")),
                ("serviceId", Node::leaf(service.id.clone())),
                ("environmentId", Node::leaf(project.environment.clone())),
                ("projectId", Node::leaf(project.id.clone())),
                ("createdAt", Node::leaf(clock.date(self.life.born))),
                ("deletedAt", Node::leaf(Value::Null)),
            ],
        )
    }
}

impl Volume {
    pub fn node(&self, project: &Project, clock: &Clock) -> Node {
        Node::Thing(
            "Volume",
            vec![
                ("id", Node::leaf(self.id.clone())),
                ("name", Node::leaf(self.name.clone())),
                ("projectId", Node::leaf(project.id.clone())),
                ("createdAt", Node::leaf(clock.date(self.life.born))),
            ],
        )
    }

    fn instance_node(&self, project: &Project, clock: &Clock) -> Node {
        Node::Thing(
            "VolumeInstance",
            vec![
                ("id", Node::leaf(self.instance.clone())),
                ("volumeId", Node::leaf(self.id.clone())),
                ("serviceId", Node::leaf(self.service.clone())),
                ("environmentId", Node::leaf(project.environment.clone())),
                ("mountPath", Node::leaf(self.mount_path.clone())),
                ("sizeMB", Node::leaf(5_000)),
                ("currentSizeMB", Node::leaf(0.0)),
                ("state", Node::leaf("READY")),
                ("isPendingDeletion", Node::leaf(false)),
                ("deletedAt", Node::leaf(Value::Null)),
                ("region", Node::leaf("us-west2")),
                ("createdAt", Node::leaf(clock.date(self.life.born))),
                ("volume", self.node(project, clock)),
            ],
        )
    }
}

/// What runs behind a host.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub service: String,
    pub image: String,
    pub variables: BTreeMap<String, String>,
    pub stage: Stage,
}

impl Railway {
    /// The container behind a host; none while nothing was deployed there.
    #[allow(dead_code, reason = "the runtime asks")]
    pub fn container(&self, host: &str, now: Moment) -> Option<Container> {
        let projects = self.projects.iter().filter(|project| project.life.is_there(now));
        let mut services = projects.flat_map(|project| &project.services);
        let service = services.find(|service| {
            let mut domains = service.domains.iter().filter(|domain| domain.life.is_there(now));
            service.life.is_there(now) && domains.any(|domain| domain.host == host)
        })?;
        let it = service.serving(now)?;
        let (image, variables) = (it.image.clone(), it.variables.clone());
        Some(Container { service: service.id.clone(), image, variables, stage: it.stage(now) })
    }

    /// What it holds.
    pub fn holdings(&self, clock: &Clock, now: Moment) -> RailwayHoldings {
        let projects = self.projects.iter().filter(|project| project.life.is_there(now));
        RailwayHoldings {
            projects: projects
                .map(|project| {
                    let services: Vec<_> =
                        project.services.iter().filter(|service| service.life.is_there(now)).collect();
                    let domains = services.iter().flat_map(|service| &service.domains);
                    let domains = domains.filter(|domain| domain.life.is_there(now));
                    HeldProject {
                        id: project.id.clone(),
                        name: project.name.clone(),
                        description: project.description.clone(),
                        workspace: project.workspace.clone(),
                        created_at: clock.date(project.life.born),
                        services: services.iter().map(|service| service.name.clone()).collect(),
                        volumes: project.volumes.iter().filter(|volume| volume.life.is_there(now)).count(),
                        domains: domains.map(|domain| domain.host.clone()).collect(),
                        deployments: services.iter().map(|service| service.deployments.len()).sum(),
                        image: services.iter().rev().find_map(|service| service.image()),
                    }
                })
                .collect(),
        }
    }
}

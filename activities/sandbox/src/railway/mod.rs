//! Railway: projects with an environment, services, volumes, domains and deployments, over GraphQL.
//!
//! Errors come as HTTP 200 with `errors`, and the message alone says which. Names of projects are not unique.

mod view;

use std::cell::RefCell;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::{Moment, after};
use crate::container::Container;
use crate::fault::{Kind, Provider};
use crate::graphql::{Asked, Nothing, TRACE, connection};
use crate::request::{Answer, Request};
use crate::world::World;

pub(crate) const OPERATIONS: &[&str] = &[
    "apiToken",
    "projects",
    "project",
    "projectCreate",
    "projectDelete",
    "environment",
    "serviceCreate",
    "volumeCreate",
    "domains",
    "serviceDomainCreate",
    "environmentPatchCommit",
    "environmentPatches",
    "workflowStatus",
    "deployments",
    "deployment",
];

/// The workspaces and their tokens.
pub const TOKENS: &[(&str, &str)] = &[
    ("ws-sandbox", "railway-sandbox-token-2f7a61c09b3d"),
    ("ws-sandbox", "railway-sandbox-token-b81e5d02c76f"),
];
/// What faults call them.
pub(crate) const TOKEN_NAMES: &[&str] = &["railway-1", "railway-2"];

const PAGE: usize = 50;
/// One project, and one volume, in so many seconds.
const THROTTLE_SECONDS: f64 = 30.0;
/// From deploy to a container that answers.
const BOOT_SECONDS: f64 = 60.0;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Project {
    pub(crate) id: String,
    pub(crate) workspace: String,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) created_at: Moment,
    pub(crate) listed_from: Moment,
    pub(crate) gone_from: Option<Moment>,
    environment: String,
    services: Vec<Service>,
    volumes: Vec<Volume>,
    domains: Vec<Domain>,
    patches: Vec<Patch>,
    deployments: Vec<Deployment>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Service {
    id: String,
    name: String,
    created_at: Moment,
    image: Option<String>,
    /// Fingerprints of their values.
    variables: Value,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Volume {
    id: String,
    service: String,
    mount_path: String,
    created_at: Moment,
    listed_from: Moment,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Domain {
    id: String,
    service: String,
    domain: String,
    target_port: Value,
    created_at: Moment,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Patch {
    id: String,
    message: String,
    created_at: Moment,
    /// Why its workflow ended in error, if it did.
    error: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Deployment {
    id: String,
    service: String,
    image: String,
    created_at: Moment,
    ready_at: Option<Moment>,
    end: End,
}

/// How a deployment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum End {
    Success,
    Crashed,
    Failed,
}

impl Project {
    pub(crate) fn is_there(&self, now: Moment) -> bool {
        self.gone_from.is_none_or(|gone| gone > now)
    }

    /// Whether it is there and is meant by this id or name; without one, whether it is there.
    pub(crate) fn is_called(&self, of: Option<&str>, now: Moment) -> bool {
        self.is_there(now) && of.is_none_or(|of| self.id == of || self.name == of)
    }

    /// Where its containers answer.
    pub(crate) fn hosts(&self) -> Vec<String> {
        self.domains.iter().map(|domain| domain.domain.clone()).collect()
    }

    /// Changes a field behind everybody's back.
    pub(crate) fn drift(&mut self, field: &str, value: &str) -> bool {
        match field {
            "name" => self.name = value.to_owned(),
            "description" => self.description = value.to_owned(),
            _ => {
                let Some(service) = self.services.iter_mut().rev().find(|service| service.image.is_some())
                else {
                    return false;
                };
                service.image = Some(value.to_owned());
            }
        }
        true
    }

    /// Deploys its newest deployment once more.
    pub(crate) fn redeploys(&mut self, now: Moment) -> bool {
        let Some(latest) = self.deployments.last().cloned() else { return false };
        let id = format!("{}-{}", latest.id, self.deployments.len());
        self.deployments.push(Deployment { id, created_at: now, ready_at: Some(now), ..latest });
        true
    }

    /// What is said of it beside what Railway says: its volumes and what was deployed.
    pub(crate) fn summary(&self, now: Moment) -> Value {
        let services: Vec<Value> = self
            .services
            .iter()
            .map(|service| json!({"id": service.id, "name": service.name, "image": service.image}))
            .collect();
        let volumes: Vec<Value> = self
            .volumes
            .iter()
            .map(
                |volume| json!({"id": volume.id, "service": volume.service, "mount_path": volume.mount_path}),
            )
            .collect();
        let patches: Vec<Value> = self
            .patches
            .iter()
            .map(|patch| json!({"id": patch.id, "message": patch.message, "error": patch.error}))
            .collect();
        let deployments: Vec<Value> = self
            .deployments
            .iter()
            .map(|deployment| {
                json!({"id": deployment.id, "image": deployment.image, "status": deployment.status(now)})
            })
            .collect();
        json!({"id": self.id, "name": self.name, "workspace": self.workspace,
            "description": self.description, "created_at": self.created_at.to_string(), "services": services,
            "volumes": volumes, "domains": self.hosts(), "patches": patches, "deployments": deployments})
    }
}

impl Deployment {
    fn status(&self, now: Moment) -> &'static str {
        match (self.ready_at.is_some_and(|at| at <= now), self.end) {
            (false, _) => "DEPLOYING",
            (true, End::Success) => "SUCCESS",
            (true, End::Crashed) => "CRASHED",
            (true, End::Failed) => "FAILED",
        }
    }
}

fn error(message: &str) -> Answer {
    let error = json!({"message": message, "locations": [{"line": 1, "column": 1}],
        "extensions": {"code": "INTERNAL_SERVER_ERROR"}, "traceId": TRACE});
    Answer::json(200, json!({"errors": [error], "data": null}))
}

/// The first field that a valid document asks for: the call.
pub(crate) fn operation(request: &Request) -> Option<&'static str> {
    let asked = Asked::read(&request.body).ok()?;
    let name = asked.first_field()?;
    OPERATIONS.iter().copied().find(|operation| *operation == name)
}

/// The answer to what is no call: a document that is not valid, or one that is about the schema alone.
pub(crate) fn unknown(request: &Request) -> Answer {
    Asked::read(&request.body).map_or_else(|refused| refused, |asked| asked.execute(&Nothing))
}

pub(crate) fn refuse(_: &str) -> Answer {
    error("Max size of 0 MB on current plan")
}

pub(crate) fn throttle(operation: &str) -> Answer {
    match operation {
        "projectCreate" => error(
            "You are creating projects too quickly. This workspace allows 1 project per 30 seconds. Try again shortly.",
        ),
        "volumeCreate" => error("Whoa there pal! You are creating volumes too quickly. Try again in a sec"),
        _ => error("Problem processing request"),
    }
}

pub(crate) fn unauthorized() -> Answer {
    Answer::json(401, json!({"errors": [{"message": "Not Authorized"}]}))
}

pub(crate) fn act(world: &mut World, request: &Request) -> Answer {
    let Some((workspace, _)) = TOKENS.iter().find(|(_, token)| request.bearer() == Some(*token)) else {
        return error("Not Authorized");
    };
    match Asked::read(&request.body) {
        Ok(asked) => asked.execute(&view::View { world: RefCell::new(world), workspace }),
        Err(refused) => refused,
    }
}

/// A call's answer: an object as far as it is not [`view::View`]'s to fill in.
fn call(world: &mut World, workspace: &str, operation: &str, variables: &Value) -> Answered {
    let now = world.now();
    match operation {
        "apiToken" => Ok(json!({"workspaces": [{"id": workspace, "name": workspace}]})),
        "projects" => projects(world, variables),
        "project" => find(world, &text(variables, "id")).map(|project| view::project(project, now)),
        "projectCreate" => project_create(world, variables, workspace),
        "projectDelete" => project_delete(world, &text(variables, "id")),
        "environment" => {
            by_environment(world, &text(variables, "id")).map(|project| view::environment(project))
        }
        "serviceCreate" => service_create(world, variables),
        "volumeCreate" => volume_create(world, variables, workspace),
        "domains" => domains(world, variables),
        "serviceDomainCreate" => domain_create(world, variables),
        "environmentPatchCommit" => patch_commit(world, variables),
        "environmentPatches" => patches(world, variables),
        "workflowStatus" => workflow(world, &text(variables, "workflowId")),
        "deployments" => deployments(world, variables),
        "deployment" => deployment(world, &text(variables, "id")),
        _ => Err("Problem processing request".to_owned()),
    }
}

type Answered = Result<Value, String>;

fn text(variables: &Value, name: &str) -> String {
    let value = variables.get(name).or_else(|| variables.get("input")?.get(name));
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn find<'w>(world: &'w mut World, id: &str) -> Result<&'w mut Project, String> {
    let now = world.now();
    world
        .projects
        .iter_mut()
        .find(|project| project.id == id && project.is_there(now))
        .ok_or("Project not found".to_owned())
}

fn by_environment<'w>(world: &'w mut World, id: &str) -> Result<&'w mut Project, String> {
    let now = world.now();
    let found = world.projects.iter_mut().find(|project| project.environment == id && project.is_there(now));
    found.ok_or("Environment not found".to_owned())
}

fn projects(world: &World, variables: &Value) -> Answered {
    let workspace = text(variables, "workspaceId");
    let with_deleted = variables["includeDeleted"] == true;
    let now = world.now();
    let mut listed: Vec<&Project> = world
        .projects
        .iter()
        .rev()
        .filter(|project| {
            project.workspace == workspace
                && (project.is_there(now) || with_deleted)
                && project.listed_from <= now
        })
        .collect();
    if variables["orderBy"] == "NAME_ASC" {
        listed.sort_by(|one, other| one.name.cmp(&other.name));
    } else {
        listed.sort_by_key(|project| std::cmp::Reverse(project.created_at));
    }
    Ok(connection(listed.into_iter().map(|project| view::project(project, now)).collect(), variables, PAGE))
}

/// A workspace makes one of these in thirty seconds.
fn throttled(last: Option<&Moment>, world: &World) -> bool {
    // What lands late was let through when it came.
    let Some(last) = last.filter(|_| !world.is_landing) else { return false };
    world.now() < after(*last, world.paced(THROTTLE_SECONDS))
}

fn project_create(world: &mut World, variables: &Value, workspace: &str) -> Answered {
    let asked = text(variables, "workspaceId");
    if asked != workspace {
        return Err("Not Authorized".to_owned());
    }
    if throttled(world.made_project.get(workspace), world) {
        return Err("You are creating projects too quickly. This workspace allows 1 project per 30 seconds. Try again shortly.".to_owned());
    }
    let name = text(variables, "name");
    if name.is_empty() || name.len() > 32 {
        return Err("Invalid project name".to_owned());
    }
    let now = world.now();
    world.made_project.insert(workspace.to_owned(), now);
    let project = Project {
        id: world.dice.uuid(),
        workspace: workspace.to_owned(),
        name,
        description: text(variables, "description"),
        created_at: now,
        listed_from: world.listed_from(Provider::Railway, "projectCreate"),
        gone_from: None,
        environment: world.dice.uuid(),
        services: Vec::new(),
        volumes: Vec::new(),
        domains: Vec::new(),
        patches: Vec::new(),
        deployments: Vec::new(),
    };
    let answer = view::project(&project, now);
    world.projects.push(project);
    Ok(answer)
}

fn project_delete(world: &mut World, id: &str) -> Answered {
    find(world, id)?;
    let deleting = world.deleting(Provider::Railway, "projectDelete");
    let project = find(world, id)?;
    deleting.apply(&mut project.gone_from);
    let domains = project.hosts();
    if !deleting.is_ignored {
        for domain in domains {
            drop_container(world, &domain);
        }
    }
    if deleting.is_denied { Err("Project not found".to_owned()) } else { Ok(json!(true)) }
}

/// Takes a container away, with its volume.
pub(crate) fn drop_container(world: &mut World, domain: &str) {
    world.containers.remove(domain);
    world.memory.remove(domain);
}

fn service_create(world: &mut World, variables: &Value) -> Answered {
    let id = world.dice.uuid();
    let now = world.now();
    let name = text(variables, "name");
    let project = find(world, &text(variables, "projectId"))?;
    if project.services.iter().any(|service| service.name == name) {
        return Err(format!("A service named \"{name}\" already exists in this project"));
    }
    let service =
        Service { id: id.clone(), name: name.clone(), created_at: now, image: None, variables: json!({}) };
    let answer = view::service(project, &service);
    project.services.push(service);
    Ok(answer)
}

fn volume_create(world: &mut World, variables: &Value, workspace: &str) -> Answered {
    if throttled(world.made_volume.get(workspace), world) {
        return Err("Whoa there pal! You are creating volumes too quickly. Try again in a sec".to_owned());
    }
    let id = world.dice.uuid();
    let now = world.now();
    let listed_from = world.listed_from(Provider::Railway, "volumeCreate");
    let project = find(world, &text(variables, "projectId"))?;
    let service = text(variables, "serviceId");
    if !project.services.iter().any(|known| known.id == service) {
        return Err("Service not found".to_owned());
    }
    let mount_path = text(variables, "mountPath");
    if !mount_path.starts_with('/') {
        return Err("Invalid mountPath".to_owned());
    }
    let volume = Volume { id, service, mount_path, created_at: now, listed_from };
    let answer = view::volume(project, &volume);
    project.volumes.push(volume);
    world.made_volume.insert(workspace.to_owned(), now);
    Ok(answer)
}

fn domains(world: &mut World, variables: &Value) -> Answered {
    let project = find(world, &text(variables, "projectId"))?;
    Ok(view::domains(project, &text(variables, "serviceId")))
}

fn domain_create(world: &mut World, variables: &Value) -> Answered {
    let now = world.now();
    let (id, label) = (world.dice.uuid(), world.dice.hex(4));
    let project = by_environment(world, &text(variables, "environmentId"))?;
    let service = text(variables, "serviceId");
    if !project.services.iter().any(|known| known.id == service) {
        return Err("Service not found".to_owned());
    }
    if project.domains.iter().any(|domain| domain.service == service) {
        return Err("Only one service domain per service is allowed".to_owned());
    }
    let domain = Domain {
        id,
        service,
        domain: format!("{}-{label}.up.sandbox", project.name),
        target_port: variables.pointer("/input/targetPort").cloned().unwrap_or_default(),
        created_at: now,
    };
    let answer = view::domain(project, &domain);
    project.domains.push(domain);
    Ok(answer)
}

fn patch_commit(world: &mut World, variables: &Value) -> Answered {
    let environment = text(variables, "environmentId");
    let message = text(variables, "commitMessage");
    let services =
        variables.pointer("/patch/services").and_then(Value::as_object).cloned().unwrap_or_default();
    let now = world.now();
    let mut take = |kind| world.faults.take(Provider::Railway, "environmentPatchCommit", kind);
    let end = match () {
        () if take(Kind::DeployCrashes).is_some() => End::Crashed,
        () if take(Kind::ImageAbsent).is_some() => End::Failed,
        () => End::Success,
    };
    let hangs = take(Kind::DeployHangs).is_some();
    let takes = take(Kind::DeployTakes).and_then(|fault| fault.seconds);
    let fails = take(Kind::PatchFails)
        .map(|fault| fault.text.unwrap_or_else(|| "Failed to apply the patch".to_owned()));
    let boot = match takes {
        Some(seconds) => Duration::try_from_secs_f64(seconds).unwrap_or_default(),
        None => world.paced(BOOT_SECONDS),
    };
    let (patch, deployment) = (world.dice.uuid(), world.dice.uuid());
    let project = by_environment(world, &environment)?;
    if let Some(unknown) =
        services.keys().find(|id| !project.services.iter().any(|service| service.id == **id))
    {
        return Err(format!("Invalid patch: unknown service {unknown}"));
    }
    let is_failed = fails.is_some();
    project.patches.push(Patch { id: patch.clone(), message, created_at: now, error: fails });
    if is_failed {
        return Ok(json!(patch));
    }
    let ready_at = (!hangs).then(|| after(now, boot));
    let mut started = Vec::new();
    for (id, change) in services {
        let Some(service) = project.services.iter_mut().find(|service| service.id == id) else { continue };
        let image = change.pointer("/source/image").and_then(Value::as_str).map(str::to_owned);
        let values: serde_json::Map<String, Value> = change
            .get("variables")
            .and_then(Value::as_object)
            .map(|given| {
                given
                    .iter()
                    .map(|(name, value)| {
                        let value = value.get("value").and_then(Value::as_str).unwrap_or_default();
                        (name.clone(), json!(crate::runtime::fingerprint(value)))
                    })
                    .collect()
            })
            .unwrap_or_default();
        let differs = image.is_some() && image != service.image
            || values.iter().any(|(name, value)| service.variables.get(name) != Some(value));
        if !differs {
            // A patch without a difference deploys nothing.
            continue;
        }
        if let Value::Object(known) = &mut service.variables {
            known.extend(values);
        }
        service.image = image.or(service.image.take());
        let image = service.image.clone().unwrap_or_default();
        let host =
            project.domains.iter().find(|domain| domain.service == id).map(|domain| domain.domain.clone());
        started.push((host, image.clone(), service.variables.clone()));
        project.deployments.push(Deployment {
            id: deployment.clone(),
            service: id,
            image,
            created_at: now,
            ready_at,
            end,
        });
    }
    for (host, image, variables) in started {
        if let Some(host) = host {
            let ready = ready_at.filter(|_| end == End::Success);
            world.memory.make(&host);
            match world.containers.get_mut(&host) {
                Some(container) => container.redeploy(&image, &variables, ready),
                None => {
                    world.containers.insert(host, Container::new(&image, &variables, now, ready));
                }
            }
        }
    }
    Ok(json!(patch))
}

fn workflow(world: &World, id: &str) -> Answered {
    let patches = world.projects.iter().flat_map(|project| &project.patches);
    Ok(match patches.into_iter().find(|patch| patch.id == id).map(|patch| &patch.error) {
        Some(Some(error)) => json!({"status": "Error", "error": error}),
        Some(None) => json!({"status": "Complete", "error": null}),
        None => json!({"status": "NotFound", "error": null}),
    })
}

fn patches(world: &mut World, variables: &Value) -> Answered {
    let project = by_environment(world, &text(variables, "environmentId"))?;
    let newest = project.patches.iter().rev().map(|patch| view::patch(project, patch));
    Ok(connection(newest.collect(), variables, PAGE))
}

fn deployments(world: &mut World, variables: &Value) -> Answered {
    let now = world.now();
    let project = find(world, &text(variables, "projectId"))?;
    let service = text(variables, "serviceId");
    let is_asked = |deployment: &&Deployment| service.is_empty() || deployment.service == service;
    let newest = project.deployments.iter().rev().filter(is_asked);
    Ok(connection(newest.map(|one| view::deployment(project, one, now)).collect(), variables, PAGE))
}

fn deployment(world: &mut World, id: &str) -> Answered {
    let now = world.now();
    let all = world.projects.iter().filter(|project| project.is_there(now));
    let mut all = all.flat_map(|project| project.deployments.iter().map(move |one| (project, one)));
    let found = all.find(|(_, deployment)| deployment.id == id);
    found.map(|(project, one)| view::deployment(project, one, now)).ok_or("Deployment not found".to_owned())
}

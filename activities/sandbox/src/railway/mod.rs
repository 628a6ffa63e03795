//! Railway: projects with an environment, services, volumes, domains and deployments, over GraphQL.
//!
//! Errors come as HTTP 200 with `errors`, and the message alone says which. Names of projects are not unique.

mod view;

use std::cell::RefCell;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::fault::{Kind, Provider};
use crate::graphql::{Asked, Nothing, TRACE, connection};
use crate::request::{Answer, Request};
use crate::runtime::Agent;
use crate::world::{Moment, World, later, now};

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
pub const TOKENS: &[(&str, &str)] = &[("ws-sandbox", "railway-sandbox-token-2f7a61c09b3d")];

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
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Deployment {
    id: String,
    service: String,
    image: String,
    created_at: Moment,
    ready_at: Option<Moment>,
    crashes: bool,
}

impl Project {
    pub(crate) fn is_there(&self) -> bool {
        self.gone_from.is_none_or(|gone| gone > now())
    }
}

impl Deployment {
    fn status(&self) -> &'static str {
        match self.ready_at {
            Some(at) if at <= now() && self.crashes => "CRASHED",
            Some(at) if at <= now() => "SUCCESS",
            _ => "DEPLOYING",
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
    error("Invalid input: the sandbox was told to refuse this")
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
    match operation {
        "apiToken" => Ok(json!({"workspaces": [{"id": workspace, "name": workspace}]})),
        "projects" => projects(world, variables),
        "project" => find(world, &text(variables, "id")).map(|project| view::project(project)),
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
        "workflowStatus" => Ok(json!({"status": "Complete", "error": null})),
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
    world
        .projects
        .iter_mut()
        .find(|project| project.id == id && project.is_there())
        .ok_or("Project not found".to_owned())
}

fn by_environment<'w>(world: &'w mut World, id: &str) -> Result<&'w mut Project, String> {
    let found = world.projects.iter_mut().find(|project| project.environment == id && project.is_there());
    found.ok_or("Environment not found".to_owned())
}

fn projects(world: &World, variables: &Value) -> Answered {
    let workspace = text(variables, "workspaceId");
    let with_deleted = variables["includeDeleted"] == true;
    let mut listed: Vec<&Project> = world
        .projects
        .iter()
        .filter(|project| {
            project.workspace == workspace
                && (project.is_there() || with_deleted)
                && project.listed_from <= now()
        })
        .collect();
    if variables["orderBy"] == "NAME_ASC" {
        listed.sort_by(|one, other| one.name.cmp(&other.name));
    } else {
        listed.sort_by_key(|project| std::cmp::Reverse(project.created_at));
    }
    Ok(connection(listed.into_iter().map(view::project).collect(), variables, PAGE))
}

/// A workspace makes one of these in thirty seconds.
fn throttled(last: Option<&Moment>, world: &World) -> bool {
    let Some(last) = last else { return false };
    let since = std::time::Duration::try_from(now().duration_since(*last)).unwrap_or_default();
    since < world.paced(THROTTLE_SECONDS)
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
    world.made_project.insert(workspace.to_owned(), now());
    let project = Project {
        id: world.dice.uuid(),
        workspace: workspace.to_owned(),
        name,
        description: text(variables, "description"),
        created_at: now(),
        listed_from: world.listed_from(Provider::Railway, "projectCreate"),
        gone_from: None,
        environment: world.dice.uuid(),
        services: Vec::new(),
        volumes: Vec::new(),
        domains: Vec::new(),
        patches: Vec::new(),
        deployments: Vec::new(),
    };
    let answer = view::project(&project);
    world.projects.push(project);
    Ok(answer)
}

fn project_delete(world: &mut World, id: &str) -> Answered {
    let gone = world.gone_from(Provider::Railway, "projectDelete");
    let denied = world.denies_delete(Provider::Railway, "projectDelete");
    let project = find(world, id)?;
    project.gone_from = Some(project.gone_from.map_or(gone, |before| before.min(gone)));
    let domains: Vec<String> = project.domains.iter().map(|domain| domain.domain.clone()).collect();
    for domain in domains {
        world.agents.remove(&domain);
    }
    if denied { Err("Project not found".to_owned()) } else { Ok(json!(true)) }
}

fn service_create(world: &mut World, variables: &Value) -> Answered {
    let id = world.dice.uuid();
    let name = text(variables, "name");
    let project = find(world, &text(variables, "projectId"))?;
    if project.services.iter().any(|service| service.name == name) {
        return Err(format!("A service named \"{name}\" already exists in this project"));
    }
    let service =
        Service { id: id.clone(), name: name.clone(), created_at: now(), image: None, variables: json!({}) };
    let answer = view::service(project, &service);
    project.services.push(service);
    Ok(answer)
}

fn volume_create(world: &mut World, variables: &Value, workspace: &str) -> Answered {
    if throttled(world.made_volume.get(workspace), world) {
        return Err("Whoa there pal! You are creating volumes too quickly. Try again in a sec".to_owned());
    }
    let id = world.dice.uuid();
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
    let volume = Volume { id, service, mount_path, created_at: now(), listed_from };
    let answer = view::volume(project, &volume);
    project.volumes.push(volume);
    world.made_volume.insert(workspace.to_owned(), now());
    Ok(answer)
}

fn domains(world: &mut World, variables: &Value) -> Answered {
    let project = find(world, &text(variables, "projectId"))?;
    Ok(view::domains(project, &text(variables, "serviceId")))
}

fn domain_create(world: &mut World, variables: &Value) -> Answered {
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
        created_at: now(),
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
    let crashes =
        world.faults.take(Provider::Railway, "environmentPatchCommit", Kind::DeployCrashes).is_some();
    let hangs = world.faults.take(Provider::Railway, "environmentPatchCommit", Kind::DeployHangs).is_some();
    let takes = world.faults.take(Provider::Railway, "environmentPatchCommit", Kind::DeployTakes);
    let boot = match takes.and_then(|fault| fault.seconds) {
        Some(seconds) => std::time::Duration::from_secs_f64(seconds),
        None => world.paced(BOOT_SECONDS),
    };
    let (patch, deployment) = (world.dice.uuid(), world.dice.uuid());
    let project = by_environment(world, &environment)?;
    if let Some(unknown) =
        services.keys().find(|id| !project.services.iter().any(|service| service.id == **id))
    {
        return Err(format!("Invalid patch: unknown service {unknown}"));
    }
    project.patches.push(Patch { id: patch.clone(), message, created_at: now() });
    let ready_at = (!hangs).then(|| later(boot));
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
            created_at: now(),
            ready_at,
            crashes,
        });
    }
    for (host, image, variables) in started {
        if let Some(host) = host {
            let ready = ready_at.filter(|_| !crashes);
            world.agents.insert(host, Agent::new(&image, &variables, ready));
        }
    }
    Ok(json!(patch))
}

fn patches(world: &mut World, variables: &Value) -> Answered {
    let project = by_environment(world, &text(variables, "environmentId"))?;
    let newest = project.patches.iter().rev().map(|patch| view::patch(project, patch));
    Ok(connection(newest.collect(), variables, PAGE))
}

fn deployments(world: &mut World, variables: &Value) -> Answered {
    let project = find(world, &text(variables, "projectId"))?;
    let service = text(variables, "serviceId");
    let is_asked = |deployment: &&Deployment| service.is_empty() || deployment.service == service;
    let newest = project.deployments.iter().rev().filter(is_asked);
    Ok(connection(newest.map(|one| view::deployment(project, one)).collect(), variables, PAGE))
}

fn deployment(world: &mut World, id: &str) -> Answered {
    let all = world.projects.iter().filter(|project| project.is_there());
    let mut all = all.flat_map(|project| project.deployments.iter().map(move |one| (project, one)));
    let found = all.find(|(_, deployment)| deployment.id == id);
    found.map(|(project, one)| view::deployment(project, one)).ok_or("Deployment not found".to_owned())
}

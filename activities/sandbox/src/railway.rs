//! Railway: projects with an environment, services, volumes, domains and deployments, over GraphQL.
//!
//! Errors come as HTTP 200 with `errors`, and the message alone says which. Names of projects are not unique.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::fault::{Kind, Provider};
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
    listed_from: Moment,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Domain {
    id: String,
    service: String,
    domain: String,
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

    fn json(&self) -> Value {
        json!({
            "id": self.id, "name": self.name, "description": self.description, "workspaceId": self.workspace,
            "createdAt": self.created_at.to_string(), "deletedAt": Value::Null,
            "primaryEnvironmentId": self.environment,
            "environments": {"edges": [{"node": {"id": self.environment, "name": "production", "deletedAt": null}}]},
            "services": {"edges": self.services.iter().map(|service| json!({"node": {
                "id": service.id, "name": service.name, "projectId": self.id, "deletedAt": null,
                "createdAt": service.created_at.to_string()}})).collect::<Vec<_>>()},
            "volumes": {"edges": self.volumes.iter().map(|volume| json!({"node": {"id": volume.id}})).collect::<Vec<_>>()},
        })
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

    fn json(&self) -> Value {
        json!({
            "id": self.id, "status": self.status(), "createdAt": self.created_at.to_string(),
            "serviceId": self.service, "meta": {"image": self.image}, "staticUrl": null,
        })
    }
}

fn error(message: &str) -> Answer {
    let mut errors = json!([{"message": message, "locations": [{"line": 1, "column": 1}],
        "extensions": {"code": "INTERNAL_SERVER_ERROR"}, "traceId": "1234567890123456789"}]);
    Answer::json(200, json!({"errors": errors.take(), "data": null}))
}

/// The first field of the document: the call.
pub(crate) fn operation(request: &Request) -> Option<&'static str> {
    let query = request.body.get("query")?.as_str()?;
    let inside = query.split_once('{')?.1.trim_start();
    // An alias, `x: projects`, is not used by our client.
    let name: String = inside.chars().take_while(|letter| letter.is_ascii_alphanumeric()).collect();
    OPERATIONS.iter().copied().find(|operation| *operation == name)
}

pub(crate) fn unknown() -> Answer {
    Answer::json(
        400,
        json!({"errors": [{"message": "Cannot query this field", "extensions": {"code": "GRAPHQL_VALIDATION_FAILED"}}]}),
    )
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

pub(crate) fn act(world: &mut World, operation: &'static str, request: &Request) -> Answer {
    let Some((workspace, _)) = TOKENS.iter().find(|(_, token)| request.bearer() == Some(*token)) else {
        return error("Not Authorized");
    };
    let variables = request.body.get("variables").cloned().unwrap_or(Value::Null);
    let answered = match operation {
        "apiToken" => Ok(json!({"workspaces": [{"id": workspace, "name": workspace}]})),
        "projects" => projects(world, &variables),
        "project" => find(world, &text(&variables, "id")).map(|project| project.json()),
        "projectCreate" => project_create(world, &variables, workspace),
        "projectDelete" => project_delete(world, &text(&variables, "id")),
        "environment" => environment(world, &variables),
        "serviceCreate" => service_create(world, &variables),
        "volumeCreate" => volume_create(world, &variables, workspace),
        "domains" => domains(world, &variables),
        "serviceDomainCreate" => domain_create(world, &variables),
        "environmentPatchCommit" => patch_commit(world, &variables),
        "environmentPatches" => patches(world, &variables),
        "workflowStatus" => Ok(json!({"status": "Complete", "error": null})),
        "deployments" => deployments(world, &variables),
        "deployment" => deployment(world, &text(&variables, "id")),
        _ => Err("Problem processing request".to_owned()),
    };
    match answered {
        Ok(data) => Answer::json(200, json!({"data": {operation: data}})),
        Err(message) => error(&message),
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
    let first = variables
        .get("first")
        .and_then(Value::as_u64)
        .map_or(PAGE, |first| usize::try_from(first).unwrap_or(PAGE));
    let after: usize = text(variables, "after").parse().unwrap_or(0);
    let mut listed: Vec<&Project> = world
        .projects
        .iter()
        .filter(|project| {
            project.workspace == workspace && project.is_there() && project.listed_from <= now()
        })
        .collect();
    listed.sort_by_key(|project| std::cmp::Reverse(project.created_at));
    let page: Vec<Value> =
        listed.iter().skip(after).take(first).map(|project| json!({"node": project.json()})).collect();
    let end = after + page.len();
    Ok(json!({"edges": page, "pageInfo": {"hasNextPage": end < listed.len(), "endCursor": end.to_string()}}))
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
    let answer = project.json();
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

fn environment(world: &mut World, variables: &Value) -> Answered {
    let project = by_environment(world, &text(variables, "id"))?;
    let instances: Vec<Value> = project
        .services
        .iter()
        .map(|service| {
            let latest = project.deployments.iter().rev().find(|deployment| deployment.service == service.id);
            json!({"node": {"id": format!("si-{}", service.id), "serviceId": service.id, "serviceName": service.name,
                "source": {"image": service.image}, "latestDeployment": latest.map(Deployment::json)}})
        })
        .collect();
    let volumes: Vec<Value> = project
        .volumes
        .iter()
        .filter(|volume| volume.listed_from <= now())
        .map(|volume| {
            json!({"node": {"id": format!("vi-{}", volume.id), "volumeId": volume.id, "serviceId": volume.service,
                "mountPath": volume.mount_path, "state": "READY", "deletedAt": null, "isPendingDeletion": false}})
        })
        .collect();
    let page = json!({"hasNextPage": false, "endCursor": null});
    Ok(json!({"id": project.environment, "name": "production", "deletedAt": null,
        "serviceInstances": {"edges": instances, "pageInfo": page}, "volumeInstances": {"edges": volumes, "pageInfo": page}}))
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
    let answer =
        json!({"id": id, "name": name, "projectId": project.id, "createdAt": service.created_at.to_string()});
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
    project.volumes.push(Volume { id: id.clone(), service, mount_path, listed_from });
    world.made_volume.insert(workspace.to_owned(), now());
    Ok(
        json!({"id": id, "name": format!("volume-{}", id.get(..4).unwrap_or("v")), "createdAt": now().to_string()}),
    )
}

fn domains(world: &mut World, variables: &Value) -> Answered {
    let project = find(world, &text(variables, "projectId"))?;
    let service = text(variables, "serviceId");
    let of_service: Vec<Value> =
        project.domains.iter().filter(|domain| domain.service == service).map(domain_json).collect();
    Ok(json!({"serviceDomains": of_service, "customDomains": []}))
}

fn domain_json(domain: &Domain) -> Value {
    json!({"id": domain.id, "domain": domain.domain, "targetPort": null, "syncStatus": "ACTIVE", "deletedAt": null})
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
    let domain = Domain { id, service, domain: format!("{}-{label}.up.sandbox", project.name) };
    let answer = domain_json(&domain);
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
    let newest: Vec<Value> = project
        .patches
        .iter()
        .rev()
        .map(|patch| {
            json!({"node": {"id": patch.id, "status": "COMMITTED", "message": patch.message,
                "createdAt": patch.created_at.to_string(), "appliedAt": patch.created_at.to_string(), "lastAppliedError": null}})
        })
        .collect();
    Ok(json!({"edges": newest}))
}

fn deployments(world: &mut World, variables: &Value) -> Answered {
    let project = find(world, &text(variables, "projectId"))?;
    let service = text(variables, "serviceId");
    let newest: Vec<Value> = project
        .deployments
        .iter()
        .rev()
        .filter(|deployment| service.is_empty() || deployment.service == service)
        .map(|deployment| json!({"node": deployment.json()}))
        .collect();
    Ok(json!({"edges": newest, "pageInfo": {"hasNextPage": false, "endCursor": null}}))
}

fn deployment(world: &mut World, id: &str) -> Answered {
    let projects = world.projects.iter().filter(|project| project.is_there());
    let found = projects.flat_map(|project| &project.deployments).find(|deployment| deployment.id == id);
    found.map(Deployment::json).ok_or("Deployment not found".to_owned())
}

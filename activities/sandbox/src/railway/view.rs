//! View: Railway's objects as its schema has them, and what each leads to.

use std::cell::RefCell;

use serde_json::{Map, Value, json};

use super::{Deployment, Domain, PAGE, Patch, Project, Service, Volume};
use crate::clock::Moment;
use crate::graphql::{Resolver, connection};
use crate::world::World;

/// The world as one request sees it.
pub(super) struct View<'w> {
    pub(super) world: RefCell<&'w mut World>,
    pub(super) workspace: &'static str,
}

pub(super) fn project(project: &Project, now: Moment) -> Value {
    let deleted_at = project.gone_from.filter(|_| !project.is_there(now)).map(|at| at.to_string());
    json!({
        "id": project.id, "name": project.name, "description": project.description,
        "workspaceId": project.workspace, "teamId": project.workspace,
        "createdAt": project.created_at.to_string(), "updatedAt": project.created_at.to_string(),
        "deletedAt": deleted_at, "expiredAt": null, "primaryEnvironmentId": project.environment,
        "baseEnvironmentId": null, "baseEnvironment": null, "botPrEnvironments": false, "featureFlags": [],
        "focusedPrEnvironments": false, "isPublic": false, "isTempProject": false, "prDeploys": false,
        "subscriptionPlanLimit": {}, "subscriptionType": "pro",
    })
}

/// The one environment that a project is born with.
pub(super) fn environment(project: &Project) -> Value {
    let config: Map<String, Value> = project
        .services
        .iter()
        .map(|service| {
            let source = service.image.as_ref().map(|image| json!({"image": image}));
            (service.id.clone(), json!({"source": source.unwrap_or_else(|| json!({}))}))
        })
        .collect();
    json!({
        "id": project.environment, "name": "production", "projectId": project.id, "canAccess": true,
        "canvasGroupRefs": {}, "config": {"services": config},
        "configEtag": format!("etag-{}", project.patches.len()), "isEphemeral": false, "meta": null,
        "sourceEnvironment": null, "unmergedChangesCount": 0, "deletedAt": null,
        "createdAt": project.created_at.to_string(), "updatedAt": project.created_at.to_string(),
    })
}

pub(super) fn service(project: &Project, service: &Service) -> Value {
    json!({
        "id": service.id, "name": service.name, "projectId": project.id, "deletedAt": null,
        "createdAt": service.created_at.to_string(), "updatedAt": service.created_at.to_string(),
        "featureFlags": [], "groupId": null, "hasHiddenRegistryCredentialsFromTemplate": false, "icon": null,
        "isRestricted": false, "templateId": null, "templateServiceId": null, "templateThreadSlug": null,
    })
}

/// A service as it runs in the environment.
fn service_instance(project: &Project, service: &Service) -> Value {
    json!({
        "id": format!("si-{}", service.id), "serviceId": service.id, "serviceName": service.name,
        "environmentId": project.environment, "source": {"image": service.image, "repo": null},
        "createdAt": service.created_at.to_string(), "updatedAt": service.created_at.to_string(),
        "deletedAt": null, "buildCommand": null, "builder": "RAILPACK", "cronSchedule": null,
        "dockerfilePath": null, "drainingSeconds": null, "healthcheckPath": null, "healthcheckTimeout": null,
        "ipv6EgressEnabled": false, "isUpdatable": true, "nextCronRunAt": null, "nixpacksPlan": null,
        "numReplicas": 1, "overlapSeconds": null, "preDeployCommand": null, "railpackInfo": null,
        "railwayConfigFile": null, "region": null, "restartPolicyMaxRetries": 10,
        "restartPolicyType": "ON_FAILURE", "rootDirectory": null, "sleepApplication": false,
        "startCommand": null, "upstreamUrl": null, "watchPatterns": [],
    })
}

pub(super) fn volume(project: &Project, volume: &Volume) -> Value {
    json!({
        "id": volume.id, "name": format!("volume-{}", volume.id.get(..4).unwrap_or("v")),
        "projectId": project.id, "createdAt": volume.created_at.to_string(),
    })
}

fn volume_instance(project: &Project, volume: &Volume) -> Value {
    json!({
        "id": format!("vi-{}", volume.id), "volumeId": volume.id, "serviceId": volume.service,
        "environmentId": project.environment, "mountPath": volume.mount_path, "state": "READY",
        "createdAt": volume.created_at.to_string(), "deletedAt": null, "isPendingDeletion": false,
        "currentSizeMB": 0.0, "sizeMB": 5000, "externalId": null, "region": null,
    })
}

pub(super) fn domain(project: &Project, domain: &Domain) -> Value {
    json!({
        "id": domain.id, "domain": domain.domain, "targetPort": domain.target_port, "syncStatus": "ACTIVE",
        "environmentId": project.environment, "projectId": project.id, "serviceId": domain.service,
        "createdAt": domain.created_at.to_string(), "updatedAt": domain.created_at.to_string(),
        "deletedAt": null, "cdnMode": null, "edgeId": null, "newDomainName": null, "newHostLabel": null,
        "suffix": null,
    })
}

pub(super) fn domains(project: &Project, service: &str) -> Value {
    let ours = project.domains.iter().filter(|domain| domain.service == service);
    let all: Vec<Value> = ours.map(|one| domain(project, one)).collect();
    json!({"serviceDomains": all, "customDomains": []})
}

pub(super) fn patch(project: &Project, patch: &Patch) -> Value {
    json!({
        "id": patch.id, "status": "COMMITTED", "message": patch.message, "environmentId": project.environment,
        "createdAt": patch.created_at.to_string(), "updatedAt": patch.created_at.to_string(),
        "appliedAt": patch.created_at.to_string(), "lastAppliedError": patch.error,
        // Its variables are secrets, and nothing here keeps those.
        "patch": {},
    })
}

pub(super) fn deployment(project: &Project, deployment: &Deployment, now: Moment) -> Value {
    let status = deployment.status(now);
    let instances = match status {
        "SUCCESS" => json!([{"id": format!("di-{}", deployment.id), "status": "RUNNING"}]),
        "CRASHED" => json!([{"id": format!("di-{}", deployment.id), "status": "CRASHED"}]),
        _ => json!([]),
    };
    let host = project.domains.iter().find(|domain| domain.service == deployment.service);
    json!({
        "id": deployment.id, "status": status, "projectId": project.id, "environmentId": project.environment,
        "serviceId": deployment.service, "meta": {"image": deployment.image}, "instances": instances,
        "createdAt": deployment.created_at.to_string(), "updatedAt": deployment.created_at.to_string(),
        "statusUpdatedAt": deployment.ready_at.filter(|at| *at <= now).map(|at| at.to_string()),
        "canRedeploy": status == "SUCCESS", "canRollback": false, "deploymentStopped": status == "CRASHED",
        "diagnosis": null, "snapshotId": null, "staticUrl": host.map(|host| host.domain.clone()),
        "suggestAddServiceDomain": host.is_none(), "url": null,
    })
}

fn variable(project: &Project, service: &Service, name: &str) -> Value {
    json!({
        "id": format!("var-{}-{name}", service.id), "name": name, "isSealed": false, "pluginId": null,
        "references": [], "environmentId": project.environment, "serviceId": service.id,
        "createdAt": service.created_at.to_string(), "updatedAt": service.created_at.to_string(),
    })
}

/// The workspace of a token, as far as anybody asks.
fn workspace(id: &str) -> Value {
    json!({
        "id": id, "name": id, "plan": "PRO", "adoptionLevel": 0.0, "allowDeprecatedRegions": null,
        "apiTokenRateLimit": null, "avatar": null, "banReason": null, "createdAt": "2026-01-01T00:00:00Z",
        "updatedAt": "2026-01-01T00:00:00Z", "discordRole": null, "has2FAEnforcement": false,
        "hasAutomaticDiagnosis": false, "hasGuardrailsAccess": false, "hasHipaaBAA": false, "hasSAML": false,
        "preferredRegion": null, "redactedDueTo2FAPending": false, "slackChannelId": null,
        "subscriptionModel": "USER", "subscriptionPlanLimit": null, "supportTierOverride": null,
        "usersWithout2FA": [],
    })
}

impl Resolver for View<'_> {
    fn root(&self, field: &str, arguments: &Value) -> Result<Value, String> {
        super::call(&mut self.world.borrow_mut(), self.workspace, field, arguments)
    }

    fn related(&self, kind: &str, object: &Value, field: &str, arguments: &Value) -> Result<Value, String> {
        let world = self.world.borrow();
        let now = world.now();
        let text = |name: &str| object.get(name).and_then(Value::as_str);
        let page = |all: Vec<Value>| Ok(connection(all, arguments, PAGE));
        if kind == "Workspace" {
            let of =
                world.projects.iter().filter(|one| one.is_there(now) && text("id") == Some(&one.workspace));
            let all: Vec<Value> = of.map(|one| project(one, now)).collect();
            return if field == "projectCount" { Ok(json!(all.len())) } else { page(all) };
        }
        // Everything else is in a project, and names it, its environment or its service.
        let is_it = |one: &&Project| match kind {
            "Project" => text("id") == Some(&one.id),
            "Environment" => text("id") == Some(&one.environment),
            _ => text("projectId") == Some(&one.id) || text("environmentId") == Some(&one.environment),
        };
        let of = world.projects.iter().find(is_it).ok_or("Project not found")?;
        let service_id = if kind == "Service" { text("id") } else { text("serviceId") };
        let in_service = |id: &str| service_id.is_none_or(|service| service == id);
        let newest = || {
            let all = of.deployments.iter().rev().filter(|one| in_service(&one.service));
            all.map(|one| deployment(of, one, now)).collect::<Vec<_>>()
        };
        let services = || of.services.iter().filter(|one| in_service(&one.id));
        let volumes = || of.volumes.iter().filter(|one| one.listed_from <= now);
        match field {
            "project" => Ok(project(of, now)),
            "environment" => Ok(environment(of)),
            "workspace" => Ok(workspace(&of.workspace)),
            "service" => services().next().map(|one| service(of, one)).ok_or("Service not found".to_owned()),
            "volume" => {
                let found = of.volumes.iter().find(|one| text("volumeId") == Some(&one.id));
                found.map(|one| volume(of, one)).ok_or("Volume not found".to_owned())
            }
            "domains" => Ok(domains(of, service_id.unwrap_or_default())),
            "latestDeployment" => Ok(newest().into_iter().next().unwrap_or_default()),
            "activeDeployments" => {
                let running = newest().into_iter().filter(|one| one["status"] == "SUCCESS").take(1);
                Ok(running.collect())
            }
            "environments" => page(vec![environment(of)]),
            "services" => page(services().map(|one| service(of, one)).collect()),
            "serviceInstances" => page(services().map(|one| service_instance(of, one)).collect()),
            "deployments" => page(newest()),
            "volumes" => page(of.volumes.iter().map(|one| volume(of, one)).collect()),
            "volumeInstances" => {
                let is_of = |one: &&Volume| kind != "Volume" || text("id") == Some(&one.id);
                page(volumes().filter(is_of).map(|one| volume_instance(of, one)).collect())
            }
            "variables" => {
                let names = |one: &Service| {
                    one.variables
                        .as_object()
                        .into_iter()
                        .flatten()
                        .map(|(name, _)| name.clone())
                        .collect::<Vec<_>>()
                };
                page(
                    of.services
                        .iter()
                        .flat_map(|one| names(one).into_iter().map(move |name| variable(of, one, &name)))
                        .collect(),
                )
            }
            _ => Err("Problem processing request".to_owned()),
        }
    }
}

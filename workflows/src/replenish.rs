//! Replenish: make one idle instance.

use std::collections::BTreeMap;

use amends_activities::ghcr::PinDigest;
use amends_activities::openrouter::MintKey;
use amends_activities::pool::{MarkIdle, PlanInstance};
use amends_activities::railway::{
    AttachVolume, CreateDomain, CreateProject, CreateService, DeployImage, ObserveDeploy, ReadEnvironment,
};
use amends_activities::runtime::{CheckHealth, VerifyClean};
use amends_engine::{Saga, Workflow, saga, secs};
use serde::{Deserialize, Serialize};

/// The saga that makes one idle instance.
pub struct Replenish;

/// What is to be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplenishRequest {
    /// For which pool.
    pub pool: String,
    /// Under which id, `in_` and 12 characters.
    pub instance: String,
    /// `<prefix>-<environment>-<12>`: its name at every provider.
    pub name: String,
}

/// The name under which the container finds its own token.
const TOKEN_VARIABLE: &str = "AMENDS_INSTANCE_TOKEN";

impl Workflow for Replenish {
    const NAME: &'static str = "replenish";
    const VERSION: u32 = 1;
    type Input = ReplenishRequest;
    /// The instance.
    type Output = String;

    fn owner(request: &ReplenishRequest, _: &String) -> Option<String> {
        Some(request.instance.clone())
    }

    async fn run(&self, saga: &Saga, request: ReplenishRequest) -> saga::Result<String> {
        let ReplenishRequest { pool, instance, name } = request;
        let plan = PlanInstance { instance: instance.clone(), pool, name: name.clone() };
        let plan = saga.transact("plan", plan).await?;
        let pool = &plan.settings;

        let image = PinDigest { image: pool.image.clone(), tag: pool.tag.clone() };
        let image = saga.step("image", image).await?;
        // Nothing waits for the key but the container, and nothing of the project is held by it.
        let llm_key = MintKey { name: name.clone(), limit_usd: pool.llm_limit_usd, expires_after_secs: None };
        let llm_key = saga.step("llm-key", llm_key).independent().after("plan").await?;

        let project = CreateProject { workspace: pool.workspace.clone(), name };
        let project = saga.step("project", project).await?;
        let environment = saga.step("environment", ReadEnvironment { project: project.clone() }).await?;
        let service = CreateService {
            project: project.clone(),
            environment: environment.clone(),
            name: "agent".to_owned(),
        };
        let service = saga.step("service", service).await?;
        let volume = AttachVolume {
            project: project.clone(),
            environment: environment.clone(),
            service: service.clone(),
            mount_path: pool.mount_path.clone(),
        };
        let volume = saga.step("volume", volume).await?;
        let domain = CreateDomain {
            project: project.clone(),
            environment: environment.clone(),
            service: service.clone(),
        };
        let domain = saga.step("domain", domain).await?;

        let deploy = DeployImage {
            project: project.clone(),
            environment: environment.clone(),
            service: service.clone(),
            volume,
            domain: domain.clone(),
            llm_key,
            image: image.reference.clone(),
            start_command: pool.start_command.clone(),
            memory_mb: pool.memory_mb,
            cpu_millis: pool.cpu_millis,
            variables: BTreeMap::new(),
            secret_variables: BTreeMap::from([(TOKEN_VARIABLE.to_owned(), plan.token.clone())]),
        };
        let deployment = saga.step("deploy", deploy).await?;
        let boot =
            ObserveDeploy { project: project.clone(), environment, service: service.clone(), deployment };
        saga.poll_until("boot", boot, secs(10), pool.boot_limit).await?;
        let health = CheckHealth { domain: domain.domain.clone(), digest: image.digest.clone() };
        saga.poll_until("health", health, secs(5), pool.boot_limit).await?;
        let clean = VerifyClean { domain: domain.domain.clone(), token: plan.token.clone() };
        saga.poll_until("clean", clean, secs(5), secs(300)).await?;

        let idle = MarkIdle {
            instance: instance.clone(),
            image: image.reference.clone(),
            domain: domain.domain.clone(),
            project_id: project.id.clone(),
            service_id: service.id.clone(),
        };
        // There is no way back from here: the next moment somebody may have claimed it.
        saga.pivot_transact("idle", idle).await?;
        Ok(instance)
    }
}

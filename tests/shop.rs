//! The product as a whole, on a real SQLite file, against the sandbox over real HTTP.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use amends_activities::agentmail::AgentMail;
use amends_activities::ghcr::Ghcr;
use amends_activities::openrouter::OpenRouter;
use amends_activities::pool::{self, ApplySeed, ClaimRequest, Instance, InstanceFilter, Seed};
use amends_activities::railway::Railway;
use amends_activities::runtime::Runtime;
use amends_activities::telnyx::Telnyx;
use amends_engine::store::open::Migrations;
use amends_engine::store::{ResourceFilter, ResourceState, SagaFilter, SagaRow};
use amends_engine::sweep::{FindingClass, FindingRow, Names, RemoveOrphan, Sweep};
use amends_engine::{Env, SagaId, Workflow};
use amends_sandbox::{CREDENTIALS, Config, Pace, Sandbox, Urls};
use amends_workflows::{Clients, RefillPool, RequestClaim, RequestTeardown, registry};
use serde_json::Value;

use crate::database::{Database, Running};
use amends_engine::testing::crash::Crash;

pub const PREFIX: &str = "amends-test";
const MIGRATIONS: &[Migrations] = &[pool::MIGRATIONS];

pub const SEED: &str = r#"{
  "pools": [
    {"id": "default", "min_idle": 0, "max_total": 20, "workspace": "ws-sandbox", "image": "ghcr.io/amends/agent",
     "tag": "production"},
    {"id": "quiet", "min_idle": 0, "max_total": 20, "workspace": "ws-sandbox", "image": "ghcr.io/amends/agent",
     "tag": "production", "conversations": false}
  ],
  "templates": [
    {"id": "tp_demo", "name": "Demo", "pool": "default", "agent_name": "Ada", "instructions": "Help.",
     "model": "sandbox/large", "tools": ["agentmail", "telnyx"]},
    {"id": "tp_plain", "name": "Plain", "pool": "default", "agent_name": "Cleo", "instructions": "Talk.", "tools": []},
    {"id": "tp_optional", "name": "Optional", "pool": "default", "agent_name": "Dan", "instructions": "Try.",
     "tools": ["agentmail", {"tool": "telnyx", "required": false}]},
    {"id": "tp_quiet", "name": "Quiet", "pool": "quiet", "agent_name": "Bob", "instructions": "Work.", "tools": []}
  ]
}"#;

/// What a sweep of all providers came to.
#[derive(Debug, Default)]
pub struct Swept {
    pub findings: Vec<FindingRow>,
    pub removed: usize,
    pub unread: Vec<String>,
}

impl Swept {
    pub fn of(&self, class: FindingClass) -> Vec<&FindingRow> {
        self.findings.iter().filter(|row| row.class == class).collect()
    }
}

/// One world: a sandbox, a database, and the product between them.
pub struct Shop {
    pub sandbox: Sandbox,
    pub database: Database,
    pub clients: Clients,
    running: Option<Running>,
}

pub fn clients(sandbox: &Sandbox) -> Clients {
    clients_at(sandbox.urls())
}

/// Clients of providers at these addresses.
pub fn clients_at(urls: Urls) -> Clients {
    let tokens = CREDENTIALS.railway.iter().map(|(workspace, token)| ((*workspace).into(), (*token).into()));
    Clients {
        railway: Arc::new(Railway::new(urls.railway, tokens.collect())),
        openrouter: Arc::new(OpenRouter::new(urls.openrouter, CREDENTIALS.openrouter.into())),
        agentmail: Arc::new(AgentMail::new(urls.agentmail, CREDENTIALS.agentmail.into())),
        telnyx: Arc::new(Telnyx::new(urls.telnyx, CREDENTIALS.telnyx.into())),
        ghcr: Arc::new(Ghcr::new(urls.ghcr, None)),
        runtime: Arc::new(Runtime::new(urls.runtime)),
    }
}

impl Shop {
    pub async fn open() -> Self {
        Self::open_with(None).await
    }

    /// A product that dies at `crash`.
    pub async fn open_with(crash: Option<Crash>) -> Self {
        let listen = "127.0.0.1:0".parse().unwrap();
        let sandbox =
            Sandbox::start(Config { listen, pace: Pace::Quick, seed: 1, file: None }).await.unwrap();
        let urls = sandbox.urls();
        Self::open_at(sandbox, urls, crash).await
    }

    /// A product whose clients find that sandbox at these addresses.
    pub async fn open_at(sandbox: Sandbox, urls: Urls, crash: Option<Crash>) -> Self {
        let env = Env::seeded(11).with_pace(Pace::Quick.factor()).with_shortest_limit(Duration::from_secs(2));
        let database = Database::new(env, MIGRATIONS);
        let clients = clients_at(urls);
        let mut shop = Self { sandbox, database, clients, running: None };
        shop.start(crash).await;
        let seed = Seed::parse(SEED).unwrap();
        shop.running().engine.transact(ApplySeed { seed }).await.unwrap();
        shop
    }

    pub async fn start(&mut self, crash: Option<Crash>) {
        self.running =
            Some(self.database.run(registry(&self.clients, &Names::of("amends", "test")), crash).await);
    }

    /// Dies as a process does, and starts again, to die once more if `crash` comes.
    pub async fn restart(&mut self, crash: Option<Crash>) {
        if let Some(running) = self.running.take() {
            running.die().await;
        }
        self.start(crash).await;
    }

    pub fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub async fn refill(&self, pool: &str) {
        let refill = RefillPool { pool: pool.into(), prefix: PREFIX.into() };
        self.running().engine.transact(refill).await.unwrap();
    }

    /// Starts one Replenish, by asking for one idle instance more.
    pub async fn replenish(&self, pool: &str) -> SagaId {
        let idle: &'static str = match pool {
            "default" => "update pool set min_idle = min_idle + 1 where id = 'default'",
            _ => "update pool set min_idle = min_idle + 1 where id = 'quiet'",
        };
        self.running().engine.transact(Sql { sql: idle.into() }).await.unwrap();
        self.refill(pool).await;
        let filter = SagaFilter { workflow: Some("replenish".into()), limit: 1, ..SagaFilter::default() };
        let sagas = self.running().engine.sagas(filter).await.unwrap();
        sagas.first().unwrap().id.clone()
    }

    pub async fn claim(&self, template: &str, key: &str) -> SagaId {
        self.claim_with(template, key, None).await
    }

    pub async fn claim_with(&self, template: &str, key: &str, join_url: Option<&str>) -> SagaId {
        let request = ClaimRequest {
            template_id: template.into(),
            name: None,
            owner_id: Some("ann".into()),
            join_url: join_url.map(str::to_owned),
        };
        self.running().engine.transact(RequestClaim { key: key.into(), request }).await.unwrap().saga
    }

    pub async fn teardown(&self, instance: &str) -> SagaId {
        let request = RequestTeardown { instance: instance.into() };
        self.running().engine.transact(request).await.unwrap().saga
    }

    /// Waits for the end of a saga, through a crash if there is one; says whether there was.
    pub async fn ended(&mut self, saga: &SagaId) -> (SagaRow, bool) {
        let wait = Duration::from_secs(60);
        let running = self.running();
        let crashed = tokio::select! {
            row = running.engine.wait(saga, wait, |_| false) => { row.unwrap(); false }
            () = running.store.crashed() => true,
        };
        if crashed {
            self.restart(None).await;
        }
        let row = self.running().engine.wait(saga, wait, |_| false).await.unwrap().unwrap();
        if !row.state.is_ended() {
            panic!("{}\n{row:#?}", self.story(saga).await);
        }
        (row, crashed)
    }

    /// Waits until no saga is left that has not ended, through a crash if there is one; says whether there was.
    pub async fn quiet(&mut self) -> bool {
        let mut has_crashed = false;
        let until = std::time::Instant::now() + Duration::from_secs(60);
        loop {
            let filter = SagaFilter { limit: 1000, ..SagaFilter::default() };
            let open = match self.running().engine.sagas(filter).await {
                Ok(sagas) => sagas.into_iter().find(|row| !row.state.is_ended()).map(|row| row.id),
                Err(_) => None,
            };
            let crashed = tokio::select! {
                biased;
                () = self.running().store.crashed() => true,
                () = tokio::time::sleep(Duration::from_millis(20)) => false,
            };
            if crashed {
                has_crashed = true;
                self.restart(None).await;
                continue;
            }
            let Some(open) = open else { return has_crashed };
            if std::time::Instant::now() > until {
                panic!("it has not ended\n{}", self.story(&open).await);
            }
        }
    }

    /// What a container was given, is bound to and remembers, by the instance that it is of.
    pub fn container(&self, instance: &Instance) -> Value {
        let holdings = self.sandbox.holdings();
        let domain = instance.domain.clone().unwrap_or_default();
        let all = holdings["runtime"]["agents"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|container| container["domain"] == domain.as_str()).unwrap_or_default()
    }

    /// The files in the memory of an instance's container.
    pub fn remembered(&self, instance: &Instance) -> Vec<String> {
        let domain = instance.domain.clone().unwrap_or_default();
        let Some(folder) = self.sandbox.memory(&domain) else { return Vec::new() };
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        files.map(|file| file.file_name().to_string_lossy().into_owned()).collect()
    }

    pub async fn story(&self, saga: &SagaId) -> String {
        let view = self.running().engine.view(saga).await.unwrap().unwrap();
        amends_engine::journal::story(saga, &view.entries)
    }

    pub async fn instances(&self) -> Vec<Instance> {
        let filter = InstanceFilter { limit: 1000, ..InstanceFilter::default() };
        pool::instances(self.running().engine.store().as_ref(), &filter).await.unwrap()
    }

    /// Sweeps every provider once, as late as a second sight may be, and waits until what it removes is gone.
    pub async fn sweep(&self, deletes: bool) -> Swept {
        let engine = &self.running().engine;
        tokio::time::sleep(engine.env().paced(Duration::from_secs(60))).await;
        let how = Sweep { removes: deletes, grace: Duration::ZERO, ..Sweep::default() };
        let mut all = Swept::default();
        for provider in ["railway", "openrouter", "agentmail", "telnyx"] {
            let mut swept = engine.sweep(provider, &how).await.unwrap().unwrap();
            // A machine that is busy is slower than a read may be.
            for _ in 0..10 {
                if !swept.problem.as_ref().is_some_and(|problem| problem.to_string().contains("(timeout)")) {
                    break;
                }
                swept = engine.sweep(provider, &how).await.unwrap().unwrap();
            }
            all.removed += swept.removals;
            all.unread.extend(swept.problem.map(|problem| format!("{provider}: {problem}")));
            all.findings.extend(swept.findings);
        }
        let filter = SagaFilter { workflow: Some(RemoveOrphan::NAME.into()), ..SagaFilter::default() };
        for removal in engine.sagas(filter).await.unwrap() {
            let row = engine.wait(&removal.id, Duration::from_secs(60), |_| false).await.unwrap().unwrap();
            assert!(row.state.is_ended(), "{row:#?}");
        }
        all
    }

    /// What the fakes hold and what the ledger says is there, by id; they agree when the two are equal.
    pub async fn columns(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let holdings = self.sandbox.holdings();
        let mut outside = BTreeSet::new();
        for (provider, kind, field) in [
            ("railway", "projects", "id"),
            ("openrouter", "keys", "hash"),
            ("agentmail", "inboxes", "address"),
            ("telnyx", "numbers", "phone_number"),
            ("telnyx", "profiles", "name"),
        ] {
            for thing in holdings[provider][kind].as_array().unwrap() {
                outside.insert(format!("{provider} {kind} {}", thing[field].as_str().unwrap()));
            }
        }
        for number in holdings["telnyx"]["numbers"].as_array().unwrap() {
            if number["messaging_profile_id"] != Value::Null {
                outside.insert(format!("telnyx assignments {}", number["phone_number"].as_str().unwrap()));
            }
        }
        let mut ledger = BTreeSet::new();
        let filter = ResourceFilter { limit: 1000, ..ResourceFilter::default() };
        for row in self.running().engine.resources(filter).await.unwrap() {
            let key = match (row.provider.as_str(), row.kind.as_str()) {
                _ if row.state == ResourceState::Gone => continue,
                ("railway", "project") => format!("railway projects {}", row.external_id.unwrap_or(row.name)),
                ("openrouter", "key") => format!("openrouter keys {}", row.external_id.unwrap_or(row.name)),
                ("agentmail", "inbox") => {
                    format!("agentmail inboxes {}", row.external_id.unwrap_or(row.name))
                }
                ("telnyx", "number") => format!("telnyx numbers {}", row.name),
                ("telnyx", "messaging_profile") => format!("telnyx profiles {}", row.name),
                ("telnyx", "assignment") => format!("telnyx assignments {}", row.name),
                // Inside a project or a container.
                _ => continue,
            };
            ledger.insert(key);
        }
        (outside, ledger)
    }

    pub async fn agree(&self, what: &str) {
        let (outside, ledger) = self.columns().await;
        assert_eq!(outside, ledger, "{what}: the sandbox (left) and the ledger (right) differ");
    }

    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.engine.stop().await;
        }
        self.sandbox.stop();
    }
}

/// A statement, for what tests set up by hand.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Sql {
    sql: String,
}

impl amends_engine::Local for Sql {
    const NAME: &'static str = "test.sql";
    type Output = ();

    async fn apply(&self, tx: &mut amends_engine::Tx<'_>) -> Result<(), amends_engine::Failure> {
        let sql: &'static str = Box::leak(self.sql.clone().into_boxed_str());
        tx.execute(sql, Vec::new()).await?;
        Ok(())
    }
}

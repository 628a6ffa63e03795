//! Product: the few things that the surface asks of the pool, as plain functions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use amends_activities::agentmail::AgentMail;
use amends_activities::ghcr::Ghcr;
use amends_activities::openrouter::OpenRouter;
use amends_activities::pool::{self, ApplySeed, Requested, Seed};
use amends_activities::railway::Railway;
use amends_activities::runtime::Runtime;
use amends_activities::telnyx::Telnyx;
use amends_engine::store::open::Migrations;
use amends_engine::store::{self, Started};
use amends_engine::sweep::{Names, Sweep};
use amends_engine::{Engine, Registry, Timestamp};
use amends_sandbox::{CREDENTIALS, Urls};
use amends_workflows::{Clients, RefillPool, RequestClaim, RequestTeardown};
use serde::{Deserialize, Serialize};

use crate::jobs::Job;
use crate::problem::Problem;
use crate::settings::Providers;
use crate::view::Page;

pub use amends_activities::pool::{ClaimRequest, InstanceState};

/// An instance as a list shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Which.
    pub id: String,
    /// Where it stands.
    pub state: String,
    /// The pool it is of.
    pub pool: String,
    /// Its name at every provider.
    pub name: String,
    /// The image it runs, by digest.
    pub image: Option<String>,
    /// Where its container answers.
    pub domain: Option<String>,
    /// Railway's id of its project, once it is idle.
    pub railway_project_id: Option<String>,
    /// Railway's id of its service, once it is idle.
    pub railway_service_id: Option<String>,
    /// What it was claimed as.
    pub template_id: Option<String>,
    /// In which version.
    pub template_version: Option<i64>,
    /// Whose it is.
    pub owner_id: Option<String>,
    /// What the agent is called.
    pub agent_name: Option<String>,
    /// The conversation it is in.
    pub conversation: Option<String>,
    /// Raised whenever it is reserved, released or fenced.
    pub claim_epoch: i64,
    /// When it was planned.
    pub created_at: String,
    /// When it last changed.
    pub changed_at: String,
}

/// Which instances a list shows.
#[derive(Debug, Clone, Default)]
pub struct InstanceFilter {
    /// In these states.
    pub states: Vec<String>,
    /// Only this one.
    pub instance: Option<String>,
    /// Older than this id.
    pub before: Option<String>,
    /// At most so many.
    pub limit: u32,
}

/// Starts a claim; repeated under the same key it is the same saga.
pub async fn claim(engine: &Engine, key: &str, request: ClaimRequest) -> Result<Started, Problem> {
    Ok(started(engine.transact(RequestClaim { key: key.to_owned(), request }).await?))
}

/// Starts, or joins, the teardown of an instance.
pub async fn teardown(engine: &Engine, instance: &str) -> Result<Started, Problem> {
    Ok(started(engine.transact(RequestTeardown { instance: instance.to_owned() }).await?))
}

fn started(requested: Requested) -> Started {
    if requested.is_new { Started::New(requested.saga) } else { Started::Before(requested.saga) }
}

/// A page of instances, the last id first.
pub async fn instances(engine: &Engine, filter: InstanceFilter) -> Result<Page<Instance>, Problem> {
    let store = engine.store().as_ref();
    let rows = match &filter.instance {
        Some(id) => pool::instance(store, id).await?.into_iter().collect(),
        None => {
            let asked = pool::InstanceFilter {
                states: filter.states,
                before: filter.before,
                limit: filter.limit.saturating_add(1),
            };
            pool::instances(store, &asked).await?
        }
    };
    Ok(crate::routes::page(rows, filter.limit, |row| row.id.clone(), show))
}

fn show(row: &pool::Instance) -> Instance {
    let row = row.clone();
    Instance {
        id: row.id,
        state: row.state,
        pool: row.pool,
        name: row.name,
        image: row.image,
        domain: row.domain,
        railway_project_id: row.railway_project_id,
        railway_service_id: row.railway_service_id,
        template_id: row.template_id,
        template_version: row.template_version,
        owner_id: row.owner_id,
        agent_name: row.agent_name,
        conversation: row.conversation,
        claim_epoch: row.claim_epoch,
        created_at: row.created_at.to_string(),
        changed_at: row.changed_at.to_string(),
    }
}

/// A pool as a list shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// Its id.
    pub id: String,
    /// How many idle instances there shall be.
    pub min_idle: u32,
    /// How many instances there may be at most.
    pub max_total: u32,
    /// How many are idle.
    pub idle: u32,
    /// How many are being made, or made idle again.
    pub under_way: u32,
    /// How many there are, those under way too.
    pub total: u32,
    /// How many claims wait for one.
    pub waiting: u32,
    /// Why fewer are made than are wanted; null where that is not so.
    pub held_back: Option<HeldBack>,
}

/// Why fewer instances are made than are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBack {
    /// In words.
    pub why: String,
    /// Since when, where something began it.
    pub since: Option<String>,
    /// When it is tried again by itself; null where that hangs on something else.
    pub next_try_at: Option<String>,
    /// On what it hangs, or what is done then, in words.
    pub until: String,
}

/// A page of pools, by id, behind this one.
pub async fn pools(engine: &Engine, after: &str, limit: u32) -> Result<Page<Pool>, Problem> {
    let most = usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1);
    let all = pool::pool_stocks(engine.store().as_ref(), engine.env(), after, most).await?;
    Ok(crate::routes::page(all, limit, |pool| pool.id.clone(), show_pool))
}

fn show_pool(pool: &pool::PoolStock) -> Pool {
    let text = |at: Option<Timestamp>| at.and_then(Timestamp::ever).map(|at| at.to_string());
    let pool::PoolStock { id, min_idle, max_total, idle, under_way, total, waiting, held_back } =
        pool.clone();
    let held_back = held_back.map(|held| HeldBack {
        why: held.why.to_owned(),
        since: text(held.since),
        next_try_at: text(held.next_try_at),
        until: held.until.to_owned(),
    });
    Pool { id, min_idle, max_total, idle, under_way, total, waiting, held_back }
}

/// The tables of the pool.
pub const MIGRATIONS: &[Migrations] = &[pool::MIGRATIONS];

/// The pools and templates of a sandbox.
pub const SANDBOX_SEED: &str = include_str!("seed.json");

/// Brings pools and templates to what a seed says.
pub async fn apply_seed(engine: &Engine, seed: Seed) -> anyhow::Result<()> {
    engine.transact(ApplySeed { seed }).await?;
    Ok(())
}

/// What the names of an environment's things begin with, at every provider.
pub fn prefix(environment: &str) -> String {
    format!("{PREFIX}-{environment}")
}

/// Clients of the user's own providers.
pub fn clients(providers: &Providers) -> Clients {
    Clients {
        railway: Arc::new(Railway::new(&providers.railway_url, providers.railway_tokens.clone())),
        openrouter: Arc::new(OpenRouter::new(&providers.openrouter_url, providers.openrouter_key.clone())),
        agentmail: Arc::new(AgentMail::new(&providers.agentmail_url, providers.agentmail_key.clone())),
        telnyx: Arc::new(Telnyx::new(&providers.telnyx_url, providers.telnyx_key.clone())),
        ghcr: Arc::new(Ghcr::new(&providers.ghcr_url, None)),
        runtime: Arc::new(Runtime::new(&providers.runtime_url)),
    }
}

/// Clients of a sandbox.
pub fn sandbox_clients(urls: &Urls) -> Clients {
    let tokens =
        CREDENTIALS.railway.iter().map(|(workspace, token)| ((*workspace).to_owned(), (*token).into()));
    Clients {
        railway: Arc::new(Railway::new(&urls.railway, tokens.collect())),
        openrouter: Arc::new(OpenRouter::new(&urls.openrouter, CREDENTIALS.openrouter.into())),
        agentmail: Arc::new(AgentMail::new(&urls.agentmail, CREDENTIALS.agentmail.into())),
        telnyx: Arc::new(Telnyx::new(&urls.telnyx, CREDENTIALS.telnyx.into())),
        ghcr: Arc::new(Ghcr::new(&urls.ghcr, None)),
        runtime: Arc::new(Runtime::new(&urls.runtime)),
    }
}

/// How the names begin that the pool gives to things at providers.
const PREFIX: &str = "am";

/// The prefix of the names in an environment.
fn names(environment: &str) -> Names {
    Names::of(PREFIX, environment)
}

/// The providers of which no census was completed that began after this time.
pub async fn not_compared(engine: &Engine, since: Timestamp) -> Result<Vec<String>, store::Error> {
    let censuses = engine.censuses().await?;
    let is_compared = |provider: &str| {
        let census = censuses.iter().find(|census| census.provider == provider);
        census.and_then(|census| census.completed_at).is_some_and(|at| at >= since)
    };
    Ok(engine.swept().into_iter().filter(|provider| !is_compared(provider)).map(str::to_owned).collect())
}

/// All that this program can do, with the sweep: it reports orphans, and removes them where that is allowed. A sandbox
/// that is quick is swept as quickly.
pub fn registry(clients: &Clients, environment: &str, sweep_deletes: bool) -> Registry {
    let sweep = Sweep { removes: sweep_deletes, ..Sweep::default() };
    amends_workflows::registry(clients, &names(environment)).sweep(sweep)
}

/// Says when a pool begins to be held back, and when that is over: claims wait in vain meanwhile.
fn tell(pool: &str, why: Option<&'static str>, told: &Mutex<BTreeMap<String, &'static str>>) {
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    let before = match why {
        Some(why) => told.insert(pool.to_owned(), why),
        None => told.remove(pool),
    };
    match (before, why) {
        (before, Some(why)) if before != Some(why) => tracing::warn!(pool, why, "the pool is held back"),
        (Some(_), None) => tracing::info!(pool, "the pool is held back no more"),
        _ => {}
    }
}

/// What happens to the pool by the clock.
pub fn jobs(environment: &str) -> Vec<Job> {
    let name = prefix(environment);
    let told = Arc::new(Mutex::new(BTreeMap::new()));
    let refill = Job::new("refill-pools", "* * * * * *", move |engine| {
        let (prefix, told) = (name.clone(), told.clone());
        async move {
            // What is wrong with one pool leaves the others as they are.
            let mut ended = Ok(());
            for pool in pool::pools(engine.store().as_ref()).await? {
                let refill = RefillPool { pool: pool.clone(), prefix: prefix.clone() };
                match engine.transact(refill).await {
                    Ok(refilled) => tell(&pool, refilled.held_back(), &told),
                    Err(error) => ended = Err(error.into()),
                }
            }
            ended
        }
    });
    vec![refill, crate::jobs::summary()]
}

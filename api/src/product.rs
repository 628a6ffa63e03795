//! Product: the few things that the surface asks of the pool, as plain functions.

use amends_engine::store::Started;
use amends_engine::store::sqlite::Migrations;
use amends_engine::{Engine, Registry};
use serde::{Deserialize, Serialize};

use crate::jobs::Job;
use crate::problem::{Code, Problem};
use crate::view::Page;

/// What a client asks for when it claims an instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimRequest {
    /// What the agent is called.
    pub agent_name: String,
    /// What it is told.
    pub instructions: String,
}

/// An instance as a list shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Which.
    pub id: String,
    /// Where it stands.
    pub state: String,
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

fn not_yet(what: &str) -> Problem {
    Problem::new(Code::NotOffered, format!("This binary cannot {what}."))
}

/// Starts a claim; repeated under the same key it is the same saga.
pub async fn claim(_engine: &Engine, _key: &str, _request: ClaimRequest) -> Result<Started, Problem> {
    Err(not_yet("claim an instance"))
}

/// Starts, or joins, the teardown of an instance.
pub async fn teardown(_engine: &Engine, _instance: &str) -> Result<Started, Problem> {
    Err(not_yet("tear an instance down"))
}

/// A page of instances, newest first.
pub async fn instances(_engine: &Engine, _filter: InstanceFilter) -> Result<Page<Instance>, Problem> {
    Err(not_yet("list instances"))
}

/// The tables of the pool.
pub const MIGRATIONS: &[Migrations] = &[];

/// What happens to the pool by the clock.
pub const JOBS: &[Job] = &[];

/// All that this binary offers.
pub fn registry() -> Registry {
    Registry::default()
}

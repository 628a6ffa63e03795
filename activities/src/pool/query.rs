//! Queries: instances as lists and pages show them.

use amends_engine::store::tx::{Error as SqlError, Row};
use amends_engine::store::{Error, Store};
use amends_engine::{Timestamp, params};
use serde::Serialize;

/// An instance as people see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Instance {
    /// `in_` and 12 characters.
    pub id: String,
    /// The pool it is of.
    pub pool: String,
    /// Where it stands.
    pub state: String,
    /// How often it was reserved, released or fenced.
    pub claim_epoch: i64,
    /// Its name at every provider.
    pub name: String,
    /// The image it runs, by digest.
    pub image: Option<String>,
    /// Where its container answers.
    pub domain: Option<String>,
    /// Railway's id of its project.
    pub railway_project_id: Option<String>,
    /// Railway's id of its service.
    pub railway_service_id: Option<String>,
    /// The template of its claim.
    pub template_id: Option<String>,
    /// And that one's version.
    pub template_version: Option<i64>,
    /// Whose it is.
    pub owner_id: Option<String>,
    /// What the agent is called.
    pub agent_name: Option<String>,
    /// The conversation it is in.
    pub conversation: Option<String>,
    /// When it was planned.
    #[serde(skip)]
    pub created_at: Timestamp,
    /// When it last changed.
    #[serde(skip)]
    pub changed_at: Timestamp,
}

/// Which instances a list shows.
#[derive(Debug, Clone, Default)]
pub struct InstanceFilter {
    /// In these states.
    pub states: Vec<String>,
    /// Older than this id.
    pub before: Option<String>,
    /// At most so many.
    pub limit: u32,
}

/// A page of instances, the last id first.
pub async fn instances(store: &dyn Store, filter: &InstanceFilter) -> Result<Vec<Instance>, Error> {
    let limit = filter.limit.clamp(1, 1000);
    // No id is above this one.
    let before = filter.before.clone().unwrap_or_else(|| "~".to_owned());
    if filter.states.is_empty() {
        let sql = "select * from instance where id < $1 order by id desc limit $2";
        return page(store, sql, params![before, limit]).await;
    }
    let states: std::collections::BTreeSet<&String> = filter.states.iter().collect();
    let mut all = Vec::new();
    for state in states {
        // Each by itself, in the order of the index, so that no more is read than is shown.
        let sql = "select * from instance where state = $1 and id < $2 order by id desc limit $3";
        all.extend(page(store, sql, params![state, before.clone(), limit]).await?);
    }
    all.sort_by(|one, other| other.id.cmp(&one.id));
    all.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(all)
}

async fn page(
    store: &dyn Store,
    sql: &'static str,
    params: Vec<amends_engine::store::tx::Param>,
) -> Result<Vec<Instance>, Error> {
    let rows = store.fetch(sql.into(), params).await?;
    rows.iter().map(|row| read(row).map_err(unreadable)).collect()
}

/// One instance.
pub async fn instance(store: &dyn Store, id: &str) -> Result<Option<Instance>, Error> {
    let rows = store.fetch("select * from instance where id = $1".into(), params![id]).await?;
    rows.first().map(|row| read(row).map_err(unreadable)).transpose()
}

fn unreadable(error: SqlError) -> Error {
    Error::Unreadable(error.to_string())
}

fn read(row: &Row) -> Result<Instance, SqlError> {
    Ok(Instance {
        id: row.text("id")?,
        pool: row.text("pool")?,
        state: row.text("state")?,
        claim_epoch: row.int("claim_epoch")?,
        name: row.text("name")?,
        image: row.optional_text("image")?,
        domain: row.optional_text("domain")?,
        railway_project_id: row.optional_text("project_id")?,
        railway_service_id: row.optional_text("service_id")?,
        template_id: row.optional_text("template")?,
        template_version: row.optional_int("template_version")?,
        owner_id: row.optional_text("owner")?,
        agent_name: row.optional_text("agent_name")?,
        conversation: row.optional_text("conversation")?,
        created_at: Timestamp(row.int("created_at")?),
        changed_at: Timestamp(row.int("changed_at")?),
    })
}

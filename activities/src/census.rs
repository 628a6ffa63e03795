//! Census: what the four providers' lists have in common, for the sweep.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use amends_engine::activity::Cause;
use amends_engine::journal::step::Step;
use amends_engine::store::{ResourceFilter, ResourceRow, ResourceState};
use amends_engine::sweep::OurName;
use amends_engine::{Engine, Failure, ResourceId, Timestamp};
use serde_json::Value;

pub(crate) use crate::answer::unreadable;
use crate::pool;

pub(crate) fn time(text: Option<&str>) -> Option<Timestamp> {
    text?.parse::<jiff::Timestamp>().ok().map(|at| Timestamp(at.as_microsecond()))
}

/// A text without which an entry of a list is none.
pub(crate) fn text<'v>(entry: &'v Value, field: &str) -> Result<&'v str, Failure> {
    entry.get(field).and_then(Value::as_str).ok_or_else(|| unreadable(format!("an entry has no {field}")))
}

/// Whether we planned the instance that a name of ours speaks of: another installation may have our prefix.
pub(crate) async fn is_planned(engine: &Engine, name: Option<OurName<'_>>) -> Result<bool, Failure> {
    let Some(name) = name else { return Ok(false) };
    let instance = pool::instance(engine.store().as_ref(), &format!("in_{}", name.unique)).await;
    Ok(instance.map_err(no_database)?.is_some())
}

fn no_database(error: impl ToString) -> Failure {
    Failure::Unavailable { cause: Cause::Database, detail: error.to_string(), retry_after: None }
}

/// The rows of one kind that are not gone, as the filter has them.
pub(crate) async fn rows(
    engine: &Engine,
    kind: &str,
    filter: ResourceFilter,
) -> Result<Vec<ResourceRow>, Failure> {
    let mut rows =
        engine.store().resources(ResourceFilter { limit: 1000, ..filter }).await.map_err(no_database)?;
    rows.retain(|row| row.kind == kind && row.state != ResourceState::Gone);
    Ok(rows)
}

/// So many rows are remembered at most.
const REMEMBERED: usize = 100_000;

/// What the steps that made rows say of them, as far as it was looked up: a journal does not change.
#[derive(Default)]
pub(crate) struct Declared(Mutex<HashMap<ResourceId, Option<String>>>);

impl Declared {
    /// What the step that made this live row says; nothing if its journal does not.
    pub(crate) async fn of(
        &self,
        engine: &Engine,
        row: &ResourceRow,
        says: impl Fn(&Step) -> Option<String> + Send,
    ) -> Result<Option<String>, Failure> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&row.id).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let view = engine.view(&row.saga).await.map_err(no_database)?;
        let step = view.as_ref().and_then(|view| view.state.step(&row.step));
        let said = step.filter(|step| step.resource.as_ref() == Some(&row.id)).and_then(says);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What has gone is forgotten with all the rest, and the rest is looked up again.
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(row.id.clone(), said.clone());
        Ok(said)
    }
}

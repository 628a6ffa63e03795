//! Census: what the four providers' lists have in common, for the sweep.

use amends_engine::activity::Cause;
use amends_engine::sweep::OurName;
use amends_engine::{Engine, Failure, Timestamp};
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
    let instance = instance.map_err(|error| Failure::Unavailable {
        cause: Cause::Database,
        detail: error.to_string(),
        retry_after: None,
    })?;
    Ok(instance.is_some())
}

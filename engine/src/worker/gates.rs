//! Gates: what this process knows of credentials that are closed until a time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::activity::Gate;
use crate::env::{Env, Timestamp};
use crate::store::GateRow;

/// Every gate that was ever closed. What is changed here is written with the entry that tells of it.
#[derive(Debug, Default)]
pub(crate) struct Gates(Mutex<HashMap<String, GateRow>>);

impl Gates {
    /// As the store remembers them.
    pub(crate) fn load(&self, rows: Vec<GateRow>) {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        gates.extend(rows.into_iter().map(|row| (row.key.clone(), row)));
    }

    /// Lets one call pass all of these, and closes the spaced ones behind it; or says until when one is closed.
    pub(crate) fn pass(&self, asked: &[Gate], env: &Env) -> Result<Vec<GateRow>, GateRow> {
        let now = env.now();
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = asked
            .iter()
            .filter_map(|gate| gates.get(&gate.key))
            .filter(|row| row.next_allowed_at > now)
            .max_by_key(|row| row.next_allowed_at);
        if let Some(row) = closed {
            return Err(row.clone());
        }
        let spaced: Vec<GateRow> = asked
            .iter()
            .filter(|gate| gate.spacing > Duration::ZERO)
            .map(|gate| GateRow {
                key: gate.key.clone(),
                next_allowed_at: now.plus(env.paced(gate.spacing)),
                reason: "one call at a time, so far apart".to_owned(),
            })
            .collect();
        gates.extend(spaced.iter().map(|row| (row.key.clone(), row.clone())));
        Ok(spaced)
    }

    /// Closes a gate until then, unless it is closed for longer already.
    pub(crate) fn close(&self, key: &str, until: Timestamp, reason: &str) -> GateRow {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let row = gates.entry(key.to_owned()).or_insert_with(|| GateRow {
            key: key.to_owned(),
            next_allowed_at: until,
            reason: reason.to_owned(),
        });
        if row.next_allowed_at < until {
            row.next_allowed_at = until;
            row.reason = reason.to_owned();
        }
        row.clone()
    }
}

//! Plan: what unwinding a saga would do from where it stands, in which order, and why in that order.

use std::collections::{BTreeMap, BTreeSet};

use super::State;
use super::event::{Asked, LocalRule, closed_set};
use super::step::{Phase, Step};
use crate::env::Timestamp;
use crate::ids::{ResourceId, StepKey};

/// What unwinding would do, first things first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// One row for each step that has something to be taken back; rows of one round go side by side.
    pub rows: Vec<PlanRow>,
}

/// What becomes of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanRow {
    /// Which step.
    pub step: StepKey,
    /// Which activity, or which workflow if it is a child.
    pub activity: String,
    /// What is done.
    pub way: Way,
    /// Whether it is not known yet that there is something: that is settled first.
    pub is_in_doubt: bool,
    /// Before this it is not taken back, since a lost call may still take effect; as it was when the last entry was
    /// written.
    pub waits_until: Option<Timestamp>,
    /// 1 for what is taken back first.
    pub round: usize,
    /// The steps that are taken back before it, each with what makes it depend on this one.
    pub behind: Vec<(StepKey, EdgeSource)>,
    /// The ledger row, if it has one.
    pub resource: Option<ResourceId>,
}

closed_set! {
    /// How a step is taken back.
    Way {
        /// By its activity's `compensate`.
        Compensate,
        /// By its `revert`, in our own database.
        Revert,
        /// The child saga is asked to turn round.
        CancelChild,
        /// With the resource that it lives in.
        GoesAlong,
        /// Not at all: it is handed to its keeper.
        HandOver,
    }
}

closed_set! {
    /// What makes a step depend on another.
    EdgeSource {
        /// It holds what the other made.
        Holds,
        /// The function said so.
        Said,
        /// It was asked for after the other.
        Order,
    }
}

/// The plan from a saga's state alone.
pub fn plan(state: &State) -> Plan {
    let left: Vec<&Step> =
        state.steps().iter().filter(|step| step.is_left() && step.is_compensable()).collect();
    let keys: BTreeSet<&StepKey> = left.iter().map(|step| &step.key).collect();
    let mut behind: BTreeMap<&StepKey, Vec<(StepKey, EdgeSource)>> = BTreeMap::new();
    for step in &left {
        if state.outer(step).is_some() {
            continue;
        }
        for (earlier, source) in reaches(state, step, &keys) {
            behind.entry(earlier).or_default().push((step.key.clone(), source));
        }
    }
    let mut rounds: BTreeMap<&StepKey, usize> = BTreeMap::new();
    // A step is asked for after those that it depends on, so that one walk from the last to the first is enough.
    for step in left.iter().rev() {
        let before = behind.get(&step.key).into_iter().flatten();
        let round = before.filter_map(|(key, _)| rounds.get(key)).max().map_or(1, |round| round + 1);
        rounds.insert(&step.key, round);
    }
    let mut rows: Vec<PlanRow> = left
        .iter()
        .rev()
        .map(|step| PlanRow {
            step: step.key.clone(),
            activity: step.asked.as_ref().map_or(String::new(), |asked| asked.activity.clone()),
            way: way(state, step),
            is_in_doubt: matches!(
                step.phase,
                Phase::Trying { .. } | Phase::InDoubt { .. } | Phase::Undecidable
            ),
            waits_until: state
                .write_from(&step.key, &state.objects_of(step), true, state.at)
                .filter(|_| way(state, step) == Way::Compensate),
            round: rounds.get(&step.key).copied().unwrap_or(1),
            behind: behind.remove(&step.key).unwrap_or_default(),
            resource: step.resource.clone(),
        })
        .collect();
    rows.sort_by_key(|row| row.round);
    Plan { rows }
}

fn way(state: &State, step: &Step) -> Way {
    let row = step.resource.as_ref().and_then(|id| state.ledger.get(id));
    if step.child.is_some() {
        Way::CancelChild
    } else if step.asked.as_ref().is_some_and(|asked| asked.local == Some(LocalRule::Reverts)) {
        Way::Revert
    } else if row.is_some_and(|row| row.keeper.is_some()) {
        Way::HandOver
    } else if state.outer(step).is_some() {
        Way::GoesAlong
    } else {
        Way::Compensate
    }
}

/// The nearest steps among `ends` that `step` depends on, through those that have nothing to take back.
fn reaches<'s>(
    state: &'s State,
    step: &'s Step,
    ends: &BTreeSet<&'s StepKey>,
) -> Vec<(&'s StepKey, EdgeSource)> {
    let mut found = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let first = step.asked.iter().flat_map(|asked| asked.after.iter().map(|key| (key, source(asked, key))));
    let mut todo: Vec<(&StepKey, EdgeSource)> = first.collect();
    while let Some((key, source)) = todo.pop() {
        if !seen.insert(key) {
            continue;
        }
        if let Some(end) = ends.get(key) {
            found.entry(*end).or_insert(source);
        } else if let Some(between) = state.step(key) {
            todo.extend(between.asked.iter().flat_map(|asked| &asked.after).map(|key| (key, source)));
        }
    }
    found.into_iter().collect()
}

fn source(asked: &Asked, key: &StepKey) -> EdgeSource {
    if asked.references.iter().any(|reference| reference.step == *key) {
        EdgeSource::Holds
    } else if asked.said.contains(key) {
        EdgeSource::Said
    } else {
        EdgeSource::Order
    }
}

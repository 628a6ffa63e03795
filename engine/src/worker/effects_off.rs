//! Effects off: what a saga shows, and what its undo plan would find, without doing any of it.

use std::sync::Arc;

use serde_json::Value;

use super::Shared;
use super::executor::resolved;
use super::function::Function;
use crate::activity::{Call, Found};
use crate::gate::Lane;
use crate::ids::SagaId;
use crate::journal::plan::{PlanRow, Way, plan};
use crate::journal::{Entry, State};
use crate::store::Error;

/// A row of an undo plan, and what there is outside to be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DryRun {
    /// The row.
    pub row: PlanRow,
    /// What was seen.
    pub seen: Seen,
}

/// What a dry run saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It is there.
    There,
    /// It is not there.
    Absent,
    /// Its activity cannot tell, or has nothing to be looked for by.
    Unknowable,
    /// Looking did not work.
    Failed(String),
}

/// What the saga shows under a name.
pub(crate) fn shown(
    shared: &Shared,
    saga: &SagaId,
    entries: &[Entry],
    name: &str,
) -> Result<Option<Value>, Error> {
    if entries.is_empty() {
        return Err(Error::NoSuchSaga(saga.clone()));
    }
    let state = State::fold(saga.clone(), entries)
        .map_err(|error| Error::Unreadable(format!("saga {saga}: {error}")))?;
    let (workflow, version) = &state.workflow;
    let found = shared.registry.find_workflow(workflow, *version).ok_or_else(|| {
        Error::Unreadable(format!("no worker here offers {workflow} version {version}, so it shows nothing"))
    })?;
    Ok(Function::replay(found, &state, entries).shown(name))
}

/// The undo plan, each row with what `find` says of it.
pub(crate) async fn dry_run(shared: &Arc<Shared>, state: &State) -> Result<Vec<DryRun>, Error> {
    let looks = plan(state).rows.into_iter().map(|row| async {
        let seen = look(shared, state, &row).await;
        DryRun { row, seen }
    });
    Ok(futures::future::join_all(looks).await)
}

async fn look(shared: &Arc<Shared>, state: &State, row: &PlanRow) -> Seen {
    let step = state.step(&row.step);
    let Some((step, asked)) = step.and_then(|step| Some((step, step.current()?))) else {
        return Seen::Unknowable;
    };
    if row.way != Way::Compensate && row.way != Way::HandOver || asked.effect.is_sent_again() {
        return Seen::Unknowable;
    }
    let Some(activity) = shared.registry.find_activity(&asked.activity) else {
        return Seen::Failed(format!("no worker here offers the activity {}", asked.activity));
    };
    let call = Call {
        installation: shared.store.installation().clone(),
        environment: shared.environment.clone(),
        saga: state.saga.clone(),
        step: row.step.clone(),
        generation: step.generation,
        attempt: step.attempts,
        outside: shared.outside.clone(),
        absent_since: None,
        sealed: Arc::default(),
        says_no_resource: Arc::default(),
        not_after: None,
        bookmark: Arc::default(),
    };
    let input = match resolved(state, &asked.request()) {
        Ok(input) => input,
        Err(failure) => return Seen::Failed(failure.to_string()),
    };
    let passage = match activity.passage(&input) {
        Ok(passage) => passage,
        Err(failure) => return Seen::Failed(failure.to_string()),
    };
    let limit = shared.env.time_limit(passage.time_limit);
    let permit = match shared.gates.admit(&passage.gates, Lane::Undo, limit).await {
        Ok(permit) => permit,
        Err(barrier) => return Seen::Failed(format!("not looked for: {}", barrier.detail)),
    };
    let what = format!("find of {}", asked.activity);
    match permit.call(limit, &what, |leave| activity.find(&input, &call, leave)).await {
        Ok(Found::Nothing) => Seen::Absent,
        Ok(Found::Usable(_) | Found::Unusable(_)) => Seen::There,
        Ok(Found::Unknowable) => Seen::Unknowable,
        Err(failure) => Seen::Failed(failure.to_string()),
    }
}

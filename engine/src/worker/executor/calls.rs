//! Calls: an activity, run under its limit beside the turn.

use std::sync::{Arc, PoisonError};

use serde_json::Value;
use tracing::Instrument;

use super::*;
use crate::activity::attempt::bounded;
use crate::activity::registry::ActivityFacts;
use crate::activity::{Call, Cause, Failure, Found};
use crate::ids::StepKey;
use crate::journal::event::Asked;
use crate::journal::state::Phase;
use crate::saga::resolve;

impl Executor {
    pub(super) fn call(&self, step: &StepKey, generation: u32, attempt: u32) -> Call {
        Call {
            installation: self.shared.store.installation().clone(),
            environment: self.shared.environment.clone(),
            saga: self.saga.clone(),
            step: step.clone(),
            generation,
            attempt,
            outside: self.shared.outside.clone(),
            sealed: Arc::default(),
        }
    }

    pub(super) fn resolved(&self, input: &Value) -> Value {
        resolve(input, &|step| self.state.step(step).and_then(|step| step.output.clone()))
    }

    pub(super) fn facts(&self, asked: &Asked, call: &Call) -> Result<ActivityFacts, String> {
        let activity = self
            .shared
            .registry
            .find_activity(&asked.activity)
            .ok_or_else(|| format!("no worker here offers the activity {}", asked.activity))?;
        activity.facts(&self.resolved(&asked.input), call).map_err(|failure| failure.to_string())
    }

    pub(super) fn launch(&mut self, launch: Launch) {
        let key = launch.step().clone();
        let mut permit = self.permits.remove(&key).unwrap_or_default();
        let Some(step) = self.state.step(&key) else { return };
        let Some(asked) = step.current() else { return };
        let attempt =
            if matches!(launch, Launch::Compensate(_)) { step.undo_attempts } else { step.attempts };
        let made = step.output.clone().unwrap_or(Value::Null);
        let call = self.call(&key, step.generation, attempt);
        let Some(activity) = self.shared.registry.find_activity(&asked.activity).cloned() else { return };
        let Ok(facts) = self.facts(&asked, &call) else { return };
        let input = self.resolved(&asked.input);
        // A process may have stood still behind its commit: what cannot end in the time that the intent names is cut
        // off there, or not sent at all, for somebody else may be looking for it by then.
        let left = match (&launch, &step.phase) {
            (Launch::Execute(_), Phase::Trying { not_after })
            | (Launch::Compensate(_), Phase::Removing { under_way: Some(not_after), .. }) => {
                not_after.since(self.shared.env.now())
            }
            _ => Duration::MAX,
        };
        let limit = self.shared.env.time_limit(facts.time_limit).min(left);
        let lane = match launch {
            Launch::Execute(_) => "execute",
            Launch::Find(_) => "find",
            _ => "compensate",
        };
        let span = tracing::info_span!(
            "attempt", saga = %self.saga, step = %key, activity = %asked.activity, lane, attempt, epoch = self.epoch
        );
        self.in_flight.insert(key.clone());
        self.calls.spawn(
            async move {
                let outcome = match launch {
                    Launch::Execute(_) if limit.is_zero() => Outcome::Executed(Err(not_sent())),
                    Launch::Compensate(_) if limit.is_zero() => Outcome::Compensated(Err(not_sent())),
                    Launch::Execute(_) => {
                        let outcome = bounded(limit, activity.execute(&input, &call)).await;
                        permit.settle(&outcome);
                        Outcome::Executed(outcome)
                    }
                    Launch::Find(_) => Outcome::Found(bounded(limit, activity.find(&input, &call)).await),
                    _ => {
                        let outcome = bounded(limit, activity.compensate(&input, &made, &call)).await;
                        permit.settle(&outcome);
                        Outcome::Compensated(outcome)
                    }
                };
                drop(permit);
                let external_id = match &outcome {
                    Outcome::Executed(Ok(made))
                    | Outcome::Found(Ok(Found::Usable(made) | Found::Unusable(made))) => {
                        activity.external_id(made)
                    }
                    _ => None,
                };
                tracing::debug!(outcome = outcome.word(), "attempt ended");
                let sealed = std::mem::take(&mut *call.sealed.lock().unwrap_or_else(PoisonError::into_inner));
                let gates = facts.gates.into_iter().map(|gate| gate.key).collect();
                Answer { step: key, outcome, external_id, sealed, gates }
            }
            .instrument(span),
        );
    }
}

fn not_sent() -> Failure {
    let detail = "not sent: its time was up before its intent was known to be written".to_owned();
    Failure::Unavailable { cause: Cause::Timeout, detail, retry_after: None }
}

impl Launch {
    /// Whether it leaves this process, rather than being a part of its next write.
    pub(super) fn is_call(&self) -> bool {
        !matches!(self, Self::Apply(_) | Self::Revert(_))
    }

    pub(super) fn step(&self) -> &StepKey {
        match self {
            Self::Execute(key)
            | Self::Find(key)
            | Self::Compensate(key)
            | Self::Apply(key)
            | Self::Revert(key) => key,
        }
    }
}

impl Outcome {
    pub(super) fn word(&self) -> &'static str {
        let failure = match self {
            Self::Executed(Err(failure)) | Self::Found(Err(failure)) | Self::Compensated(Err(failure)) => {
                failure
            }
            _ => return "ok",
        };
        match failure {
            Failure::Refused(_) => "refused",
            Failure::Unavailable { .. } => "unavailable",
            Failure::NoAnswer { .. } => "no_answer",
        }
    }
}

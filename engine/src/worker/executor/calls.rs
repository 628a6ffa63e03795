//! Calls: an activity, run under its limit beside the turn.

use std::sync::{Arc, PoisonError};

use tracing::Instrument;

use super::*;
use crate::activity::registry::{ActivityFacts, AnyActivity, Passage, Taken};
use crate::activity::{Call, Cause, Failure};
use crate::data::{Input, Resolved};
use crate::ids::StepKey;
use crate::journal::event::Asked;
use crate::journal::state::Phase;

impl Executor {
    pub(super) fn call(&self, step: &StepKey, generation: u32, attempt: u32) -> Call {
        Call {
            installation: self.shared.store.installation().clone(),
            environment: self.shared.environment.clone(),
            saga: self.saga.clone(),
            step: step.clone(),
            generation,
            attempt,
            absent_since: self.state.step(step).and_then(|step| step.absent_since),
            outside: self.shared.outside.clone(),
            sealed: Arc::default(),
            says_no_resource: Arc::default(),
            not_after: None,
            bookmark: Arc::default(),
        }
    }

    /// An input with what its references stand for.
    pub(super) fn resolved(&self, input: &Input) -> Result<Resolved, Failure> {
        resolved(&self.state, input)
    }

    /// What an activity says of a call before it is made; the failure is a panic of its own, or an input that it does
    /// not read.
    pub(super) fn facts(&self, asked: &Asked, call: &Call) -> Result<ActivityFacts, NoFacts> {
        let activity = self.activity(asked)?;
        let input = self.resolved(&asked.request());
        input.and_then(|input| activity.facts(&input, call)).map_err(NoFacts::Failed)
    }

    /// What it says of looking for what was made, or of taking it back.
    pub(super) fn passage(&self, asked: &Asked) -> Result<Passage, NoFacts> {
        let activity = self.activity(asked)?;
        let input = self.resolved(&asked.request());
        input.and_then(|input| activity.passage(&input)).map_err(NoFacts::Failed)
    }

    fn activity(&self, asked: &Asked) -> Result<&Arc<dyn AnyActivity>, NoFacts> {
        let found = self.shared.registry.find_activity(&asked.activity);
        found.ok_or_else(|| {
            NoFacts::NoWorker(format!("no worker here offers the activity {}", asked.activity))
        })
    }

    /// Makes a call whose intent is durable.
    pub(super) fn launch(&mut self, outgoing: Outgoing) {
        let Outgoing { step: key, verb, permit, limit, not_after } = outgoing;
        let Some(step) = self.state.step(&key) else { return };
        let Some(asked) = step.current() else { return };
        // What its journal does not say, it does not do.
        let is_intended = matches!(
            (verb, &step.phase),
            (Verb::Execute, Phase::Trying { .. })
                | (Verb::Compensate, Phase::Removing { under_way: Some(_), .. })
                | (Verb::Find, Phase::InDoubt { .. })
        );
        if !is_intended {
            tracing::error!(saga = %self.saga, step = %key, ?verb, phase = ?step.phase, "a call without its intent is not made");
            return;
        }
        let attempt = if verb == Verb::Compensate { step.undo_attempts } else { step.attempts };
        let made = match (&step.output, self.unkept.get(&key)) {
            (Some(made), _) => Taken::Kept(made.clone()),
            (None, Some(made)) => Taken::Unkept(made.clone()),
            (None, None) => Taken::Unknown,
        };
        let mut call = self.call(&key, step.generation, attempt);
        if verb == Verb::Find {
            *call.bookmark.lock().unwrap_or_else(PoisonError::into_inner) = step.bookmark.clone();
        }
        let Some(activity) = self.shared.registry.find_activity(&asked.activity).cloned() else { return };
        let Ok(input) = self.resolved(&asked.request()) else { return };
        // A process may have stood still behind its commit: what cannot end in the time that the intent names is cut
        // off there, or not sent at all, for somebody else may be looking for it by then.
        call.not_after = Some(not_after);
        let limit = limit.min(not_after.since(self.shared.env.now()));
        let lane = verb.function();
        let what = format!("{lane} of {}", asked.activity);
        let span = tracing::info_span!(
            "attempt", saga = %self.saga, step = %key, activity = %asked.activity, lane, attempt, epoch = self.epoch
        );
        self.in_flight.insert(key.clone());
        let began = self.shared.env.now();
        self.calls.spawn(
            async move {
                let gate = permit.credential().cloned();
                let outcome = match verb {
                    Verb::Execute if limit.is_zero() => Outcome::Executed(Err(not_sent())),
                    Verb::Find if limit.is_zero() => Outcome::Found(Err(not_sent())),
                    Verb::Compensate if limit.is_zero() => Outcome::Compensated(Err(not_sent())),
                    Verb::Execute => Outcome::Executed(
                        permit.call(limit, &what, |leave| activity.execute(&input, &call, leave)).await,
                    ),
                    Verb::Find => Outcome::Found(
                        permit.call(limit, &what, |leave| activity.find(&input, &call, leave)).await,
                    ),
                    Verb::Compensate => Outcome::Compensated(
                        permit
                            .call(limit, &what, |leave| activity.compensate(&input, &made, &call, leave))
                            .await,
                    ),
                };
                tracing::debug!(outcome = outcome.word(), "attempt ended");
                let sealed = std::mem::take(&mut *call.sealed.lock().unwrap_or_else(PoisonError::into_inner));
                let bookmark = call.bookmark.lock().unwrap_or_else(PoisonError::into_inner).take();
                Answer { step: key, outcome, sealed, gate, began, bookmark }
            }
            .instrument(span),
        );
    }
}

/// Why it is not known what an activity says of a call.
pub(super) enum NoFacts {
    /// Nobody here offers it.
    NoWorker(String),
    /// It panics where it should say, or does not read its input.
    Failed(Failure),
}

/// An input with what its references stand for in this saga.
pub(in crate::worker) fn resolved(state: &State, input: &Input) -> Result<Resolved, Failure> {
    input.resolved(|step| state.step(step).and_then(|step| step.output.clone())).map_err(|step| {
        Failure::refused("unreadable", format!("it holds what step {step} made, and that is not recorded"))
    })
}

fn not_sent() -> Failure {
    let detail = "not sent: its time was up before its intent was known to be written".to_owned();
    Failure::Unavailable { cause: Cause::Timeout, detail, retry_after: None }
}

impl Verb {
    fn function(self) -> &'static str {
        match self {
            Self::Execute => "execute",
            Self::Find => "find",
            Self::Compensate => "compensate",
        }
    }
}

impl Launch {
    pub(super) fn step(&self) -> &StepKey {
        match self {
            Self::Call(Outgoing { step, .. }) | Self::Apply(step) | Self::Revert(step) => step,
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

//! Act: what a person can do to a saga, and whether it can be done where the saga stands.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::State;
use super::state::{Phase, Step};
use crate::data::{Input, Reference, Unstorable, check, limits, present};
use crate::env::Timestamp;
use crate::ids::StepKey;

/// The longest pause that can be asked for: 24 hours.
pub const PAUSE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// One act. Whoever does it says who they are and why; both are journalled and audited with it.
///
/// It is left in the saga's inbox, and done by whoever drives the saga: see [`Engine::act`](crate::Engine::act).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, strum::EnumDiscriminants)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[strum_discriminants(
    name(ActKind),
    derive(
        Hash,
        Serialize,
        Deserialize,
        strum::EnumIter,
        strum::EnumString,
        strum::Display,
        strum::IntoStaticStr
    ),
    serde(rename_all = "snake_case"),
    strum(serialize_all = "snake_case"),
    doc = "The name of an act."
)]
pub enum Act {
    /// Try now what waits to be tried again.
    Retry,
    /// Do nothing more for a while; what is under way may end.
    Pause {
        /// Until when; at most a day ahead.
        until: Timestamp,
    },
    /// Go on.
    Resume,
    /// Turn round and undo.
    Cancel,
    /// Wait at most this long between the tries of a step.
    Policy {
        /// Which.
        step: StepKey,
        /// The longest wait.
        #[serde(with = "humantime_serde")]
        max_wait: Duration,
    },
    /// Give up what a step is waiting for: it counts as refused, a wait as over.
    FailAttempt {
        /// Which.
        step: StepKey,
    },
    /// Say what came of a lost call.
    Settle {
        /// Of which step.
        step: StepKey,
        /// What came of it.
        verdict: Verdict,
    },
    /// Say that a step, or the undo of one, was done by hand.
    Done {
        /// Which.
        step: StepKey,
        /// What the step yields; missing for an undo. Null is something.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
        output: Option<Value>,
    },
    /// Strike a step from the undo plan: its row stays on the ledger, held by nobody. What lives in it is taken back
    /// by itself.
    Skip {
        /// Which.
        step: StepKey,
    },
    /// Ask a step that has not got through for something else.
    Patch {
        /// Which.
        step: StepKey,
        /// The activity, as it shall be from the next try on.
        input: Value,
        /// The places in it that hold what other steps made; those steps are among them on which it depends.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        references: Vec<Reference>,
    },
    /// Hand what a step made to another owner instead of undoing it.
    Release {
        /// Which.
        step: StepKey,
        /// To whom.
        owner: String,
    },
}

/// What came of a lost call, as a person saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Verdict {
    /// It is there: adopt it.
    Adopt {
        /// What the step yields.
        output: Value,
        /// The provider's id of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        external_id: Option<String>,
    },
    /// It never happened: the call may be made again. Said while the lost call may still take effect, it is looked for
    /// when that is over, and is believed then where nobody but a person can look.
    Absent,
    /// It is there and of no use: take it away, then make it anew.
    Useless {
        /// What taking it away needs to know.
        output: Value,
        /// The provider's id of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        external_id: Option<String>,
    },
}

/// An act that can be done to a saga now, without what its author has yet to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PossibleAct {
    /// Which act.
    pub kind: ActKind,
    /// The step it is about; none for an act on the whole saga.
    pub step: Option<StepKey>,
    /// For `done`: whether it is the step itself that is done, so that its output has to be given; false when it is
    /// the step's undo.
    pub needs_output: bool,
}

impl ActKind {
    /// Every act of this kind that [`Act::problem`] allows in this state, steps in the order of the journal.
    ///
    /// What the act carries is checked when it is done: a pause that is too long, an output that its activity cannot
    /// read.
    pub fn possible(self, state: &State, now: Timestamp) -> Vec<PossibleAct> {
        let mut all = Vec::new();
        let mut offer = |act: Act| {
            if act.problem(state, now).is_none() {
                let needs_output = matches!(act, Act::Done { output: Some(_), .. });
                all.push(PossibleAct { kind: self, step: act.step().cloned(), needs_output });
            }
        };
        if !self.is_about_step() {
            offer(self.probe(&StepKey::root(), now, false));
            return all;
        }
        for step in state.steps() {
            let is_tried = !matches!(
                step.phase,
                Phase::Completed | Phase::Refused | Phase::Undone | Phase::Skipped(_) | Phase::Registered
            );
            // It may be given for any step, and does something only to one that is being tried.
            if self == Self::Policy && !is_tried {
                continue;
            }
            offer(self.probe(&step.key, now, false));
            if self == Self::Done {
                offer(self.probe(&step.key, now, true));
            }
        }
        all
    }

    /// Whether it is about one step rather than the whole saga.
    pub fn is_about_step(self) -> bool {
        !matches!(self, Self::Retry | Self::Pause | Self::Resume | Self::Cancel)
    }

    /// An act of this kind that differs from a real one only in what its author says.
    fn probe(self, step: &StepKey, now: Timestamp, with_output: bool) -> Act {
        let step = step.clone();
        match self {
            Self::Retry => Act::Retry,
            Self::Pause => Act::Pause { until: now.plus(Duration::from_secs(1)) },
            Self::Resume => Act::Resume,
            Self::Cancel => Act::Cancel,
            Self::Policy => Act::Policy { step, max_wait: Duration::from_secs(1) },
            Self::FailAttempt => Act::FailAttempt { step },
            Self::Settle => Act::Settle { step, verdict: Verdict::Absent },
            Self::Done => Act::Done { step, output: with_output.then_some(Value::Null) },
            Self::Skip => Act::Skip { step },
            Self::Patch => Act::Patch { step, input: Value::Null, references: Vec::new() },
            Self::Release => Act::Release { step, owner: NOBODY.to_owned() },
        }
    }
}

/// Who holds what was struck from an undo plan.
pub const NOBODY: &str = "nobody";

impl Act {
    /// The act's name.
    pub fn kind(&self) -> ActKind {
        self.into()
    }

    /// The step it is about.
    pub fn step(&self) -> Option<&StepKey> {
        match self {
            Self::Policy { step, .. }
            | Self::FailAttempt { step }
            | Self::Settle { step, .. }
            | Self::Done { step, .. }
            | Self::Skip { step }
            | Self::Patch { step, .. }
            | Self::Release { step, .. } => Some(step),
            Self::Retry | Self::Pause { .. } | Self::Resume | Self::Cancel => None,
        }
    }

    /// Refuses what exceeds a limit, before it is written anywhere.
    pub(crate) fn check(&self) -> Result<(), Unstorable> {
        match self {
            Self::Settle { verdict: Verdict::Adopt { output, external_id }, .. }
            | Self::Settle { verdict: Verdict::Useless { output, external_id }, .. } => {
                external_id.iter().try_for_each(|id| limits::name("the external id", id))?;
                check("the output", output)
            }
            Self::Done { output: Some(output), .. } => check("the output", output),
            Self::Patch { input, references, .. } => {
                limits::references(references.len())?;
                references
                    .iter()
                    .try_for_each(|reference| limits::name("a place of the input", &reference.at))?;
                check("the input", input)
            }
            Self::Release { owner, .. } => limits::owner("the owner", owner),
            _ => Ok(()),
        }
    }

    /// Why the act cannot be done to a saga that stands so; nothing if it can.
    pub fn problem(&self, state: &State, now: Timestamp) -> Option<String> {
        if let Some(ended) = state.ended {
            return Some(format!("it has ended: {ended}"));
        }
        let step = match self.step() {
            None => None,
            Some(key) => match state.step(key) {
                None => return Some(format!("it has no step {key}")),
                step => step,
            },
        };
        if !matches!(self, Self::Policy { .. }) && step.is_some_and(|step| step.is_under_way()) {
            return Some("a try of that step is under way; wait for its end".to_owned());
        }
        let phase = step.map(|step| &step.phase);
        let goes_back = self.step().is_some_and(|key| state.goes_back(key));
        let doubted = step.is_some_and(|step| step.doubted);
        let says = |ok: bool, problem: &str| (!ok).then(|| problem.to_owned());
        match self {
            Self::Retry | Self::Policy { .. } => None,
            Self::Pause { until } => {
                says(*until > now && until.since(now) <= PAUSE_MAX, "a pause ends within a day from now")
            }
            Self::Resume => says(state.paused.is_some(), "it is not paused"),
            Self::Cancel if state.pivot.is_some() => {
                Some("it is past its pivot and can only go forward".to_owned())
            }
            Self::Cancel => says(state.unwinding.is_none(), "it is being undone already"),
            Self::FailAttempt { .. } if state.pivot.is_some() => {
                Some("past its pivot there is no way back, so a step cannot fail".to_owned())
            }
            Self::FailAttempt { .. } if doubted => {
                Some("a try of it may have happened; settle that first".to_owned())
            }
            Self::FailAttempt { .. }
                if state.paused.is_some() && matches!(phase, Some(Phase::Waiting { .. })) =>
            {
                Some("it is paused; let it go on first".to_owned())
            }
            Self::FailAttempt { .. } => says(
                matches!(phase, Some(Phase::Deferred { .. } | Phase::Waiting { .. })) && !goes_back,
                "it is not waiting to be tried again",
            ),
            Self::Settle { .. } => {
                says(matches!(phase, Some(Phase::InDoubt { .. } | Phase::Undecidable)), "it is not in doubt")
            }
            Self::Done { output, .. } => match phase {
                Some(Phase::Removing { .. }) => match step.and_then(|step| state.held_until(step, now)) {
                    Some(until) => Some(format!(
                        "a lost call of it may still take effect until {until}, behind what was done by hand"
                    )),
                    None => says(output.is_none(), "an undo yields nothing"),
                },
                Some(Phase::Deferred { .. } | Phase::InDoubt { .. } | Phase::Undecidable) if !goes_back => {
                    says(output.is_some(), "say what the step yields")
                }
                _ => Some("it is neither waiting to be tried again nor to be undone".to_owned()),
            },
            Self::Skip { .. } | Self::Release { .. } => says(
                goes_back
                    && step.is_some_and(|step| step.is_compensable())
                    && matches!(
                        phase,
                        Some(
                            Phase::Completed
                                | Phase::InDoubt { .. }
                                | Phase::Undecidable
                                | Phase::Removing { .. }
                        )
                    ),
                "it is not waiting to be undone",
            ),
            Self::Patch { .. } if doubted => {
                Some("a try of it may have happened; settle that first".to_owned())
            }
            Self::Patch { input, references, .. }
                if let Some(problem) = step.and_then(|step| wrong_reference(step, input, references)) =>
            {
                Some(problem)
            }
            Self::Patch { input, references, .. } if let Some(excess) = excess(state, input, references) => {
                Some(excess)
            }
            Self::Patch { .. } => says(
                matches!(phase, Some(Phase::Deferred { .. }))
                    && step.is_some_and(|step| step.asked.is_some())
                    && !goes_back,
                "it is not waiting to be tried again",
            ),
        }
    }
}

/// What is too much of what other steps made in a patched input.
fn excess(state: &State, input: &Value, references: &[Reference]) -> Option<String> {
    if references.is_empty() {
        return None;
    }
    let patched = Input { value: input.clone(), references: references.to_vec() };
    let output_of = |key: &StepKey| state.step(key).and_then(|step| step.output.clone());
    patched.excess(output_of).map(|excess| format!("the input {excess}"))
}

/// What stands against these references in an input of this step.
fn wrong_reference(step: &Step, input: &Value, references: &[Reference]) -> Option<String> {
    let after = step.asked.as_ref().map(|asked| asked.after.as_slice()).unwrap_or_default();
    references.iter().find_map(|Reference { at, step }| {
        if input.pointer(at).is_none() {
            Some(format!("the input has no place {at}"))
        } else if !after.contains(step) {
            Some(format!("the step does not depend on {step}, so that it cannot hold what that one made"))
        } else {
            None
        }
    })
}

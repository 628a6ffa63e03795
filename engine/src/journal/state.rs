//! State: where one saga stands, and what can be asked of that.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::Value;

use super::event::{Parent, SkipReason, UnwindCause, closed_set};
use super::failure::{Cause, Refusal};
pub use super::step::{AtGate, Phase, Step, Trouble};
use super::{Entry, Ledger};
use crate::env::Timestamp;
use crate::ids::{ResourceId, SagaId, StepKey};
use crate::store::{ResourceRow, ResourceState};

closed_set! {
    /// Where a saga stands.
    SagaState {
        /// Accepted, not yet begun.
        Queued,
        /// A step is being tried.
        Running,
        /// For a time, a signal, a provider or a person.
        Waiting,
        /// Stopped for a while, by a person.
        Paused,
        /// Turned round: what it did is being taken back.
        Compensating,
        /// Done.
        Completed,
        /// Taken back; nothing of it is left outside.
        Compensated,
        /// Ended before it had any effect.
        Failed,
    }
}

impl SagaState {
    /// Whether nothing more will happen.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated | Self::Failed)
    }
}

closed_set! {
    /// What a person should know about a saga, beside its state.
    Attention {
        /// An attempt ended without a known outcome, and asking has not settled it.
        InDoubt,
        /// One step has been tried five times or for ten minutes, or its own code panicked.
        Retrying,
        /// One compensation has been tried five times or for ten minutes, or its own code panicked.
        UndoStuck,
        /// Only a person can decide how it goes on.
        NeedsDecision,
        /// The program that drives it does not offer its definition, or an activity that it needs.
        NoWorker,
        /// The saga waits for something that is not the engine's.
        NoProgress,
        /// Its deadline has passed, and it has not turned round.
        Late,
        /// Its pause ends within a quarter of an hour.
        PauseEnding,
        /// It has ended, and something that it holds is still outside.
        Leak,
        /// Its function asks for something else than its journal holds.
        Diverged,
        /// A line of its journal, or a letter in its inbox, cannot be read.
        Unreadable,
        /// Its function has asked for 20 000 steps, and it was parked for that.
        OverLimit,
        /// The database refuses what it has to write, each time: it was parked with what the database said.
        StoreRefused,
    }
}

/// How long before its end a pause is pointed out.
pub(super) const PAUSE_ENDING: Duration = Duration::from_secs(15 * 60);

/// A fact that may not follow what is there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{event} may not follow here: {reason}")]
pub struct IllegalEvent {
    /// The fact's name.
    pub event: &'static str,
    /// What stands against it.
    pub reason: String,
}

/// Why a saga turned round, and since when.
#[derive(Debug, Clone, PartialEq)]
pub struct Unwinding {
    /// Why.
    pub cause: UnwindCause,
    /// What exactly.
    pub refusal: Refusal,
    /// When.
    pub since: Timestamp,
}

/// Why a saga turned round, in words; said once where both have the same.
pub(super) fn turned(cause: UnwindCause, refusal: &Refusal) -> String {
    if refusal.code == cause.to_string() { refusal.to_string() } else { format!("{cause}: {refusal}") }
}

/// Where one saga stands.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// Which saga.
    pub saga: SagaId,
    /// Its definition's name and version.
    pub workflow: (String, u32),
    /// What it was asked for.
    pub input: Value,
    /// What it yielded.
    pub output: Option<Value>,
    /// For lists.
    pub labels: BTreeMap<String, String>,
    /// When it turns round by itself.
    pub deadline_at: Option<Timestamp>,
    /// Before this its function does not run.
    pub start_at: Option<Timestamp>,
    /// The saga that called it.
    pub parent: Option<Parent>,
    /// Whether that one has ended, so that this one may.
    pub parent_ended: bool,
    /// What it will yield, and to whom its rows will pass, once the saga that called it has ended.
    pub offered: Option<(Value, Option<String>)>,
    /// Until when it is paused, and who said so and why.
    pub paused: Option<(Timestamp, String)>,
    /// Its place in the journal: the last entry's.
    pub seq: i64,
    /// When it was asked for.
    pub started_at: Timestamp,
    /// The time of the last entry.
    pub at: Timestamp,
    /// The step after which there is only forward, once it has passed.
    pub pivot: Option<StepKey>,
    /// Set while it is taken back.
    pub unwinding: Option<Unwinding>,
    /// The scopes that are being taken back, in the order in which they turned round.
    pub turned_scopes: Vec<StepKey>,
    /// The scopes whose steps are all taken back.
    pub ended_scopes: Vec<StepKey>,
    /// The races that are decided, each with the branch that won.
    pub races: BTreeMap<StepKey, StepKey>,
    /// Who asked for it to turn round, and why.
    pub cancel: Option<(String, String)>,
    /// What the engine cannot go on with by itself.
    pub parked: Option<(Attention, String)>,
    /// How it ended.
    pub ended: Option<SagaState>,
    /// What exists outside by its doing.
    pub ledger: Ledger,
    /// Until when any lost call of it may still take effect, or one of another saga to what it took over.
    pub(super) unsettled_until: Timestamp,
    /// The same of each ledger row that it took over, as that came.
    pub(super) came_unsettled: BTreeMap<ResourceId, Timestamp>,
    pub(super) steps: Vec<Step>,
    pub(super) places: HashMap<StepKey, usize>,
    pub(super) begun: bool,
}

impl State {
    /// A saga of which nothing is known yet.
    pub fn new(saga: SagaId) -> Self {
        Self {
            saga,
            workflow: (String::new(), 0),
            input: Value::Null,
            output: None,
            labels: BTreeMap::new(),
            deadline_at: None,
            start_at: None,
            parent: None,
            parent_ended: false,
            offered: None,
            paused: None,
            seq: 0,
            started_at: Timestamp(0),
            at: Timestamp(0),
            pivot: None,
            unwinding: None,
            turned_scopes: Vec::new(),
            ended_scopes: Vec::new(),
            races: BTreeMap::new(),
            cancel: None,
            parked: None,
            ended: None,
            ledger: Ledger::default(),
            unsettled_until: Timestamp(i64::MIN),
            came_unsettled: BTreeMap::new(),
            steps: Vec::new(),
            places: HashMap::new(),
            begun: false,
        }
    }

    /// The state after all these entries.
    pub fn fold<'e>(
        saga: SagaId,
        entries: impl IntoIterator<Item = &'e Entry>,
    ) -> Result<Self, IllegalEvent> {
        let mut state = Self::new(saga);
        for entry in entries {
            state.apply(entry)?;
        }
        Ok(state)
    }

    /// The steps, in the order in which they were asked for.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// One step.
    pub fn step(&self, key: &StepKey) -> Option<&Step> {
        self.places.get(key).and_then(|place| self.steps.get(*place))
    }

    /// The step whose thing this one's lives in and goes with; nothing if a person has left that one where it is.
    pub(crate) fn outer(&self, step: &Step) -> Option<&Step> {
        let within = self.ledger.get(step.resource.as_ref()?)?.within.as_ref()?;
        let outer = self.steps.iter().find(|candidate| candidate.resource.as_ref() == Some(within))?;
        (outer.phase != Phase::Skipped(SkipReason::Struck)).then_some(outer)
    }

    /// Where the saga stands, in one word.
    pub fn state(&self) -> SagaState {
        match self.ended {
            Some(ended) => ended,
            None if self.paused.is_some() => SagaState::Paused,
            None if self.unwinding.is_some() => SagaState::Compensating,
            None if !self.begun => SagaState::Queued,
            None if self.steps.iter().any(Step::is_under_way) => SagaState::Running,
            None => SagaState::Waiting,
        }
    }

    /// What a person should know when the last entry was written, in the order of the enumeration.
    pub fn attention(&self) -> Vec<Attention> {
        self.attention_at(self.at)
    }

    /// What a person should know now, in the order of the enumeration.
    pub fn attention_at(&self, now: Timestamp) -> Vec<Attention> {
        if self.ended.is_some() {
            let leaks = self.ended != Some(SagaState::Completed) && self.held().next().is_some();
            return if leaks { vec![Attention::Leak] } else { Vec::new() };
        }
        let mut all: Vec<Attention> = self.steps.iter().flat_map(|step| step.attention(now)).collect();
        // Once it has turned round, that is what its deadline was for.
        if self.unwinding.is_none() && self.deadline_at.is_some_and(|deadline| now > deadline) {
            all.push(Attention::Late);
        }
        if self.paused.as_ref().is_some_and(|(until, _)| until.since(now) < PAUSE_ENDING) {
            all.push(Attention::PauseEnding);
        }
        if let Some((attention, _)) = &self.parked {
            all.push(*attention);
        }
        all.sort();
        all.dedup();
        all
    }

    /// What it made or took over, is outside, and is held by this saga.
    pub fn held(&self) -> impl Iterator<Item = &ResourceRow> {
        let is_held =
            |row: &&ResourceRow| row.holder == self.saga.as_str() && row.state != ResourceState::Gone;
        self.ledger.rows().filter(is_held)
    }

    /// Whether its function has run, or something was decided about it.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether its pivot may have happened, and nobody knows yet: until then it neither turns round nor is safe.
    pub fn is_at_pivot(&self) -> bool {
        let is_open = |step: &Step| {
            let may_have =
                matches!(step.phase, Phase::Trying { .. } | Phase::InDoubt { .. } | Phase::Undecidable);
            // One in our own database is there with the entry that says so, or it is not.
            may_have && !step.is_local() && step.asked.as_ref().is_some_and(|asked| asked.pivot)
        };
        self.pivot.is_none() && self.unwinding.is_none() && self.steps.iter().any(is_open)
    }

    /// Whether it can still turn round at once.
    pub fn can_turn(&self) -> bool {
        self.unwinding.is_none() && self.pivot.is_none() && !self.is_at_pivot()
    }

    /// Whether nothing more of it is begun: it waits for a person or for another program. What is taken back goes on
    /// whatever it was parked for, unless nobody offers what it takes, or the database does not take what it says.
    pub fn is_parked(&self) -> bool {
        let holds = |(attention, _): &(Attention, String)| {
            self.unwinding.is_none() || matches!(attention, Attention::NoWorker | Attention::StoreRefused)
        };
        self.parked.as_ref().is_some_and(holds)
    }

    /// Whether a scope that holds this step is being taken back.
    pub fn is_turned(&self, key: &StepKey) -> bool {
        self.turned_scopes.iter().any(|scope| key.is_inside(scope))
    }

    /// Whether this step is on the way back: the whole saga is, or a scope that it stands in, or was.
    pub fn goes_back(&self, key: &StepKey) -> bool {
        let is_deferred = || self.step(key).is_some_and(Step::is_deferred);
        let is_taken_back = || self.ended_scopes.iter().any(|scope| key.is_inside(scope));
        (self.unwinding.is_some() || self.is_turned(key) || is_taken_back()) && !is_deferred()
    }

    /// Whether a step in this scope that happened, or may have, still waits to be taken back.
    pub fn is_left_in(&self, scope: &StepKey) -> bool {
        self.steps.iter().any(|step| step.key.is_inside(scope) && step.is_left())
    }

    /// Whether no call is under way, none is in doubt, and no scope is being taken back.
    pub fn is_settled(&self) -> bool {
        let open = |step: &Step| {
            matches!(step.phase, Phase::Trying { .. } | Phase::InDoubt { .. } | Phase::Removing { .. })
        };
        self.turned_scopes.is_empty() && !self.steps.iter().any(open)
    }

    /// Whether a step that was put off until the end is still to be done.
    pub fn has_deferred(&self) -> bool {
        self.next_deferred().is_some()
    }

    /// The step put off last of those still to be done.
    pub fn next_deferred(&self) -> Option<&Step> {
        let open =
            |step: &&Step| step.is_deferred() && !matches!(step.phase, Phase::Completed | Phase::Refused);
        self.steps.iter().rfind(open)
    }

    /// The step that it is at, and what it is doing there, for lists.
    pub(crate) fn current_step(&self) -> Option<String> {
        let open = self.steps.iter().rev().find_map(|step| match &step.phase {
            _ if self.waits_at_gate(step).is_some() => Some(format!("{} waits at a gate", step.key)),
            Phase::Trying { .. } => Some(format!("{} try {}", step.key, step.attempts)),
            Phase::Deferred { .. } if !self.goes_back(&step.key) => Some(format!("{} waits", step.key)),
            Phase::Child => Some(format!("{} runs", step.key)),
            Phase::InDoubt { .. } | Phase::Undecidable => Some(format!("{} in doubt", step.key)),
            Phase::Waiting { .. } if !self.goes_back(&step.key) => Some(format!("{} waits", step.key)),
            Phase::Removing { .. } if step.waits_out.is_some() => Some(format!("undo {} waits", step.key)),
            Phase::Removing { .. } => Some(format!("undo {} try {}", step.key, step.undo_attempts)),
            _ => None,
        });
        open.or_else(|| self.steps.last().map(|step| step.key.to_string()))
    }

    /// What groups its trouble with that of other sagas.
    pub(crate) fn fingerprint(&self) -> Option<String> {
        let troubled = |step: &&Step| {
            !matches!(step.phase, Phase::Completed | Phase::Undone | Phase::Skipped(_))
                && step.trouble.is_some()
        };
        let trouble = self.steps.iter().rfind(troubled).and_then(|step| step.trouble.as_ref())?;
        Some(trouble.fingerprint.clone()).filter(|text| !text.is_empty())
    }

    /// Its last failure, in words: of a step that has not got through, or what turned it round.
    pub(crate) fn last_error(&self) -> Option<String> {
        let open = self.steps.iter().rev().find_map(|step| {
            let settled =
                matches!(step.phase, Phase::Completed | Phase::Refused | Phase::Undone | Phase::Skipped(_))
                // On the way back it is not tried again.
                || self.goes_back(&step.key) && matches!(step.phase, Phase::Deferred { .. });
            // What is not ready yet, or waits for its turn, has not failed. An undo that waits is a failure: nobody
            // expects to wait for it.
            let is_failure = |trouble: &&Trouble| {
                matches!(step.phase, Phase::Removing { .. })
                    || !matches!(trouble.cause, Some(Cause::NotYet | Cause::RateLimited))
            };
            let trouble = step.trouble.as_ref().filter(|_| !settled).filter(is_failure)?;
            Some(format!("{}: {}", step.key, trouble.detail))
        });
        let parked = || {
            self.parked
                .as_ref()
                .filter(|_| self.ended.is_none())
                .map(|(attention, detail)| format!("{attention}: {detail}"))
        };
        let turned = || self.unwinding.as_ref().map(|unwinding| unwinding.refusal.to_string());
        open.or_else(parked).or_else(turned)
    }
}

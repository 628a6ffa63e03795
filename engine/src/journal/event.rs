//! Event: the facts of a saga's life, in the past tense and in the order of that life.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::activity::{Effect, Object, Resource};
use crate::data::{Input, Reference, present};
use crate::env::Timestamp;
use crate::ids::{OperationId, ResourceId, SagaId, StepKey};
use crate::journal::act::Act;
use crate::journal::failure::{Cause, Refusal};
use crate::journal::state::Attention;
use crate::store::ResourceRow;

/// One fact. Names and shapes are fixed once released; the wire name is the snake case of the Rust name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, strum::IntoStaticStr, strum::EnumDiscriminants)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[strum_discriminants(
    name(EventKind),
    derive(Hash, strum::EnumIter, strum::Display, strum::IntoStaticStr),
    strum(serialize_all = "snake_case"),
    doc = "The name of a fact, without its data."
)]
pub enum Event {
    /// The saga was asked for.
    SagaStarted {
        /// Which definition.
        workflow: String,
        /// The version it will end on.
        workflow_version: u32,
        /// What it was asked for.
        input: Value,
        /// When it turns round by itself if it has not passed its pivot.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline_at: Option<Timestamp>,
        /// For lists.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        labels: BTreeMap<String, String>,
        /// Before this its function does not run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start_at: Option<Timestamp>,
        /// The saga that called it and has the last word on whether it stays.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<Parent>,
    },
    /// An attempt was about to leave: the intent.
    AttemptStarted {
        /// Of which step.
        step: StepKey,
        /// 1 for the first.
        attempt: u32,
        /// Of which generation.
        generation: u32,
        /// The latest time at which its call can still be under way.
        not_after: Timestamp,
        /// What the step is; with its first event only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asked: Option<Box<Asked>>,
        /// What it is about to make; with the first attempt of a generation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resource: Option<Box<Named>>,
    },
    /// An attempt did not happen, or its gate did not let it pass (then without a number), and waits.
    AttemptDeferred {
        /// Of which step.
        step: StepKey,
        /// Which attempt; none when the gate did not let it begin.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attempt: Option<u32>,
        /// Why.
        cause: Cause,
        /// In words.
        detail: String,
        /// When it is tried again; at a gate, the earliest time at which that may let it go.
        retry_at: Timestamp,
        /// The gate at which it waits until it is let go, at no time of its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gate: Option<String>,
        /// What the step is; with its first event only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asked: Option<Box<Asked>>,
        /// What groups it with the same trouble elsewhere.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        fingerprint: String,
        /// Where a look that did not come to its end goes on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bookmark: Option<Value>,
    },
    /// Nobody knows whether an attempt happened.
    AttemptLost {
        /// Of which step.
        step: StepKey,
        /// Which attempt.
        attempt: u32,
        /// How its answer was lost.
        cause: Cause,
        /// In words.
        detail: String,
        /// When it may be asked for, or sent again.
        look_at: Timestamp,
        /// What groups it with the same trouble elsewhere.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        fingerprint: String,
    },
    /// A call does not leave yet: a lost one to the same object may still take effect.
    WriteHeld {
        /// Of which step.
        step: StepKey,
        /// When the lost one is surely over.
        until: Timestamp,
        /// What the step is; with its first event only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asked: Option<Box<Asked>>,
    },
    /// It was looked for and is not there; that counts only if it is seen once more.
    AbsenceSeen {
        /// Of which step.
        step: StepKey,
        /// When it is looked for again.
        look_at: Timestamp,
        /// The lost call was surely over when this look began: it is the first of the two that count.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        counts: bool,
        /// A person has looked.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        by_hand: bool,
    },
    /// It was asked whether the lost attempt left anything.
    StepFound {
        /// Of which step.
        step: StepKey,
        /// What was seen.
        found: FoundKind,
        /// What is there, if something is; nothing of it if that cannot be kept.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
        output: Option<Value>,
        /// The provider's id of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        external_id: Option<String>,
    },
    /// The step is done.
    StepCompleted {
        /// Which.
        step: StepKey,
        /// What it yields.
        output: Value,
        /// The provider's id of what it made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        external_id: Option<String>,
        /// A person did it, or says that it is done.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        by_hand: bool,
    },
    /// The step did not happen and will not.
    StepFailed {
        /// Which.
        step: StepKey,
        /// Why.
        refusal: Refusal,
        /// What groups it with the same trouble elsewhere.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        fingerprint: String,
    },
    /// From here on, only forward.
    PivotPassed {
        /// The step that it was.
        step: StepKey,
    },
    /// The steps of a scope are all taken back, and its failure went back to the saga.
    ScopeUnwound {
        /// Which.
        scope: StepKey,
    },
    /// The saga lets time pass, or waits for a signal until then.
    TimerSet {
        /// Under which key.
        step: StepKey,
        /// Until when.
        due_at: Timestamp,
        /// For which signal, if for one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<String>,
    },
    /// The time has passed.
    TimerFired {
        /// Under which key.
        step: StepKey,
    },
    /// The signal came.
    SignalReceived {
        /// Under which key.
        step: StepKey,
        /// What it said.
        value: Value,
    },
    /// The saga asked for something that would differ next time.
    ValueDrawn {
        /// Under which key.
        step: StepKey,
        /// What it got.
        value: Value,
    },
    /// Another saga was started: as a child of this one when it says what was asked for, or by a transaction.
    ChildStarted {
        /// In which step.
        step: StepKey,
        /// Which saga.
        child: SagaId,
        /// What the step is, if it is a child.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asked: Option<Box<Asked>>,
    },
    /// A child said what came of it.
    ChildEnded {
        /// In which step.
        step: StepKey,
        /// Which saga.
        child: SagaId,
        /// What became of it.
        fate: ChildFate,
        /// What it yields, if it did what it was asked for.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
        output: Option<Value>,
        /// Why it did not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refusal: Option<Refusal>,
    },
    /// It did what it was asked for, and waits for the saga that called it: until then it can be taken back.
    ResultOffered {
        /// What it yields.
        output: Value,
        /// Who will hold what it made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<String>,
    },
    /// The saga that called this one has ended: this one may complete, and can no longer be taken back.
    ParentEnded {},
    /// One branch of a race got through; the others are taken back.
    RaceDecided {
        /// The race.
        scope: StepKey,
        /// The branch that got through.
        winner: StepKey,
        /// The branches that are taken back.
        losers: Vec<StepKey>,
    },
    /// A step was put off until the saga ends.
    DeferRegistered {
        /// Which.
        step: StepKey,
        /// What it is.
        asked: Box<Asked>,
    },
    /// A label was set.
    LabelSet {
        /// Under which key, if by the saga's function.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<StepKey>,
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// The engine cannot go on with it by itself.
    Parked {
        /// What is the matter.
        attention: Attention,
        /// What it waits for.
        detail: String,
    },
    /// A person stopped it for a while.
    Paused {
        /// Until when, unless somebody resumes it earlier.
        until: Timestamp,
        /// Who.
        actor: String,
        /// Why.
        reason: String,
    },
    /// It goes on.
    Resumed {
        /// Who said so; nobody when the time was up, or when a worker offers what it was parked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        actor: Option<String>,
    },
    /// Somebody asked the saga to turn round.
    CancelRequested {
        /// Who.
        actor: String,
        /// Why.
        reason: String,
    },
    /// The saga turned round: from here on it takes back what it did.
    UnwindingStarted {
        /// Why.
        cause: UnwindCause,
        /// What exactly.
        refusal: Refusal,
    },
    /// An attempt to take back was about to leave: its intent.
    CompensationStarted {
        /// What is taken back.
        step: StepKey,
        /// 1 for the first.
        attempt: u32,
        /// The latest time at which its call can still be under way.
        not_after: Timestamp,
    },
    /// An attempt to take back did not happen, or was refused, and is made again.
    CompensationDeferred {
        /// What is taken back.
        step: StepKey,
        /// Why it did not work; nothing when it was refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<Cause>,
        /// In words.
        detail: String,
        /// When it is tried again; at a gate, the earliest time at which that may let it go.
        retry_at: Timestamp,
        /// The gate at which it waits until it is let go, at no time of its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gate: Option<String>,
        /// What groups it with the same trouble elsewhere.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        fingerprint: String,
    },
    /// Nobody knows whether an attempt to take back happened; it is made again.
    CompensationLost {
        /// What is taken back.
        step: StepKey,
        /// How its answer was lost.
        cause: Cause,
        /// In words.
        detail: String,
        /// When it is tried again.
        retry_at: Timestamp,
        /// What groups it with the same trouble elsewhere.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        fingerprint: String,
    },
    /// The step is taken back.
    StepCompensated {
        /// Which.
        step: StepKey,
        /// A person did it, or says that it is done.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        by_hand: bool,
    },
    /// The step needs no taking back of its own.
    StepSkipped {
        /// Which.
        step: StepKey,
        /// Why.
        reason: SkipReason,
        /// Who holds its row from here on, if not its keeper.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
    },
    /// A scope turned round: its steps are taken back, the saga goes on.
    ScopeTurned {
        /// Which.
        scope: StepKey,
        /// Why.
        refusal: Refusal,
    },
    /// What this saga was asked to take away is gone.
    ResourceGone {
        /// Which.
        resource: ResourceId,
        /// The step that took it away.
        step: StepKey,
    },
    /// A ledger row came over from another holder.
    ResourceTaken {
        /// As it came.
        row: Box<ResourceRow>,
    },
    /// A person acted on the saga.
    OperatorIntervened {
        /// The act's own id.
        operation: OperationId,
        /// What.
        act: Act,
        /// Who.
        actor: String,
        /// Why.
        reason: String,
    },
    /// The saga did what it was asked for.
    SagaCompleted {
        /// What it yields.
        output: Value,
        /// Who holds what it made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<String>,
    },
    /// The saga took back all it did.
    SagaCompensated {},
    /// The saga ended before it had any effect.
    SagaFailed {
        /// Why.
        refusal: Refusal,
    },
}

impl Event {
    /// The fact's wire name.
    pub fn name(&self) -> &'static str {
        self.into()
    }

    /// The step that the fact is about.
    pub fn step(&self) -> Option<&StepKey> {
        match self {
            Self::AttemptStarted { step, .. }
            | Self::AttemptDeferred { step, .. }
            | Self::AttemptLost { step, .. }
            | Self::WriteHeld { step, .. }
            | Self::AbsenceSeen { step, .. }
            | Self::StepFound { step, .. }
            | Self::StepCompleted { step, .. }
            | Self::StepFailed { step, .. }
            | Self::PivotPassed { step }
            | Self::TimerSet { step, .. }
            | Self::TimerFired { step }
            | Self::SignalReceived { step, .. }
            | Self::ValueDrawn { step, .. }
            | Self::ChildStarted { step, .. }
            | Self::ChildEnded { step, .. }
            | Self::DeferRegistered { step, .. }
            | Self::CompensationStarted { step, .. }
            | Self::CompensationDeferred { step, .. }
            | Self::CompensationLost { step, .. }
            | Self::StepCompensated { step, .. }
            | Self::StepSkipped { step, .. }
            | Self::ResourceGone { step, .. } => Some(step),
            Self::LabelSet { step, .. } => step.as_ref(),
            Self::ScopeUnwound { scope }
            | Self::ScopeTurned { scope, .. }
            | Self::RaceDecided { scope, .. } => Some(scope),
            _ => None,
        }
    }
}

/// What a step is: recorded once, and compared when the saga's function asks for it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// The activity's name.
    pub activity: String,
    /// The activity itself; null where one of `references` stands.
    pub input: Value,
    /// The places in it that hold what other steps made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<Reference>,
    /// The steps it depends on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<StepKey>,
    /// Those of them that the function named outright, beside what it holds and what came before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub said: Vec<StepKey>,
    /// Whether it runs in our own database, and there whether it has a revert; outside otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalRule>,
    /// What sending it twice would do.
    pub effect: Effect,
    /// How long behind its time limit a lost call of it may still take effect, as this engine waits it.
    #[serde(default, skip_serializing_if = "Duration::is_zero", with = "humantime_serde")]
    pub settle_after: Duration,
    /// Whether one look is enough to know that it is not there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_consistent: bool,
    /// What it writes to, if others write to that too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<Object>,
    /// How many attempts it has before it counts as refused, before the pivot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts_max: Option<u32>,
    /// After it, only forward.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pivot: bool,
    /// Read again at this interval until it yields something.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "humantime_serde")]
    pub every: Option<Duration>,
    /// When an unavailable step counts as refused, before the pivot.
    pub give_up_at: Timestamp,
    /// The ledger rows that its success closes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removes: Vec<ResourceId>,
    /// It runs when the saga ends, whichever way.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deferred: bool,
    /// It is a saga of its own, and whether this one waits for what it yields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<ChildRule>,
}

impl Asked {
    /// What is asked of it, as its activity reads it.
    pub(crate) fn request(&self) -> Input {
        Input { value: self.input.clone(), references: self.references.clone() }
    }

    /// What needs nothing said but what it is: repeatable, without undo or limit of its own.
    pub(crate) fn bare(
        activity: &str,
        input: Input,
        after: Vec<StepKey>,
        said: Vec<StepKey>,
        give_up_at: Timestamp,
    ) -> Self {
        Self {
            activity: activity.to_owned(),
            input: input.value,
            references: input.references,
            after,
            said,
            local: None,
            effect: Effect::Repeatable,
            settle_after: Duration::ZERO,
            is_consistent: false,
            object: None,
            attempts_max: None,
            pivot: false,
            every: None,
            give_up_at,
            removes: Vec::new(),
            deferred: false,
            child: None,
        }
    }
}

/// Whether a saga waits for the child it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildRule {
    /// The step yields what the child yields.
    Called,
    /// The step yields the child's id.
    Started,
}

/// The saga that asked for a child, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Which saga.
    pub saga: SagaId,
    /// In which of its steps.
    pub step: StepKey,
}

/// How a local step is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LocalRule {
    /// By its revert.
    Reverts,
    /// It needs nothing.
    Stays,
}

/// A resource with the id that its ledger row has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Named {
    /// The row.
    pub id: ResourceId,
    /// What it is.
    #[serde(flatten)]
    pub resource: Resource,
}

macro_rules! closed_set {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
            strum::Display, strum::EnumIter, strum::EnumString, strum::IntoStaticStr, strum::VariantNames,
        )]
        #[serde(rename_all = "snake_case")]
        #[strum(serialize_all = "snake_case")]
        pub enum $name { $($(#[$variant_doc])* $variant),* }
    };
}
pub(crate) use closed_set;

closed_set! {
    /// What `find` saw, as the journal has it.
    FoundKind {
        /// Looked, and it is not there.
        Nothing,
        /// There, and as good as if the answer had come.
        Usable,
        /// There, and of no use.
        Unusable,
        /// No way to tell.
        Unknowable,
    }
}

closed_set! {
    /// Why a saga turned round.
    UnwindCause {
        /// A step was refused, or the function gave up.
        Refused,
        /// Somebody asked.
        Cancelled,
        /// Its deadline passed.
        Deadline,
    }
}

closed_set! {
    /// Why a step needs no taking back of its own.
    SkipReason {
        /// It goes with the resource it lives in.
        Within,
        /// It was handed to its keeper.
        Kept,
        /// A person struck it from the plan.
        Struck,
        /// A person handed it to another owner.
        HandedOver,
        /// It is a child that is past its own pivot.
        Irrevocable,
        /// It is a child of which nothing is left.
        Ended,
    }
}

closed_set! {
    /// What became of a child.
    ChildFate {
        /// It did what it was asked for, and can still be taken back.
        Done,
        /// It did what it was asked for, and is past its own pivot: it stays.
        Kept,
        /// It took back all it did, or never had an effect.
        Gone,
    }
}

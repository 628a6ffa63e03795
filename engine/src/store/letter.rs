//! Letters: words left in a saga's inbox by those who do not hold it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::data::present;
use crate::env::Timestamp;
use crate::ids::{OperationId, SagaId, StepKey};
use crate::journal::act::Act;
use crate::journal::event::ChildFate;
use crate::journal::failure::Refusal;

/// A word left in a saga's inbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Message {
    /// Something it may be waiting for.
    Signal {
        /// Its name.
        name: String,
        /// What it says.
        value: Value,
    },
    /// Try now what you try again later.
    Wake,
    /// The gate at which a step waits lets it go.
    LetGo {
        /// Which gate.
        gate: String,
        /// Which step.
        step: StepKey,
    },
    /// Turn round.
    Cancel {
        /// Who asks.
        actor: String,
        /// Why.
        reason: String,
    },
    /// A child says what became of it.
    ChildEnded {
        /// In which step it was asked for.
        step: StepKey,
        /// Which saga it is.
        child: SagaId,
        /// What became of it.
        fate: ChildFate,
        /// What it yields, if it did what it was asked for.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
        output: Option<Value>,
        /// Why it did not.
        refusal: Option<Refusal>,
    },
    /// The saga that called it has ended.
    ParentEnded,
    /// A person's act.
    Act {
        /// Its id.
        operation: OperationId,
        /// What.
        act: Act,
        /// Who.
        actor: String,
        /// Why.
        reason: String,
    },
    /// What stands in the inbox and this program cannot read, and why: it stays there for one that can. It is made by a
    /// store that reads it, and cannot be posted.
    #[serde(skip)]
    Unreadable {
        /// Why.
        detail: String,
    },
}

/// A message with its id, unique for ever.
#[derive(Debug, Clone, PartialEq)]
pub struct Letter {
    /// Posting it again under this id changes nothing.
    pub id: String,
    /// To whom.
    pub saga: SagaId,
    /// What.
    pub message: Message,
    /// When.
    pub at: Timestamp,
}

//! Fault: what can be made to go wrong with a call, how often, and whether it did.

mod answer;
mod catalogue;
mod check;
mod kind;
pub(crate) mod operation;
mod page;
mod preset;
mod set;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use strum::{Display, EnumIter, EnumString, IntoStaticStr, VariantNames};

pub use answer::{Spoiled, SpoiledBody};
pub use catalogue::{Applies, COMMON, Entry, Parameter, catalogue};
pub use kind::Kind;
pub use page::page;
pub use preset::Preset;
pub(crate) use set::Faults;

/// The providers that are played.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    Display,
    EnumIter,
    EnumString,
    IntoStaticStr,
    VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Provider {
    /// Projects, services, deployments.
    Railway,
    /// Model keys.
    Openrouter,
    /// Inboxes.
    Agentmail,
    /// Numbers.
    Telnyx,
    /// Images.
    Ghcr,
    /// The agent in the container.
    Runtime,
}

impl Provider {
    /// What can be asked of it, in the provider's own words; these are the operations that faults name.
    pub fn operations(self) -> &'static [&'static str] {
        match self {
            Self::Railway => crate::railway::OPERATIONS,
            Self::Openrouter => crate::openrouter::OPERATIONS,
            Self::Agentmail => crate::agentmail::OPERATIONS,
            Self::Telnyx => crate::telnyx::OPERATIONS,
            Self::Ghcr => crate::ghcr::OPERATIONS,
            Self::Runtime => crate::runtime::OPERATIONS,
        }
    }
}

/// A fault as it is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// At whom.
    pub provider: Provider,
    /// In which call; `*` is every call.
    pub operation: String,
    /// What.
    pub fault: Kind,
    /// How often; without it, until it is taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// How many calls to let pass before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skip: u32,
    /// From 0 to 1, drawn for each call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// What the drawing begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Only calls that name this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// Milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms: Option<u64>,
    /// For what takes time: at most so many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// For what comes late: at least so many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_seconds: Option<f64>,
    /// For 429: what the header says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// Whether the call has done its work before; it has if this is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acted: Option<bool>,
    /// At once, without a call.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub now: bool,
    /// An answer by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// An answer part by part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Spoiled>,
    /// A status, where a fault has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// A text, where a fault says one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// For drift: which field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// For drift: what it is from now on.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// How much is left of something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<usize>,
    /// For a quota: how many calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<u32>,
}

/// A `null` that was given is a value, not the want of one.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Fault {
    /// A fault of every call of this operation until it is taken away.
    pub fn new(provider: Provider, operation: impl Into<String>, fault: Kind) -> Self {
        let operation = operation.into();
        Self {
            provider,
            operation,
            fault,
            times: None,
            skip: 0,
            probability: None,
            seed: None,
            of: None,
            ms: None,
            seconds: None,
            from_seconds: None,
            retry_after: None,
            acted: None,
            now: false,
            preset: None,
            answer: None,
            status: None,
            text: None,
            field: None,
            value: None,
            keep: None,
            calls: None,
        }
    }

    /// Another answer in the place of the provider's own, after the call has done its work.
    pub fn preset(provider: Provider, operation: impl Into<String>, preset: Preset) -> Self {
        Self { preset: Some(preset), ..Self::new(provider, operation, Kind::Spoil) }
    }

    /// The same, part by part.
    pub fn spoil(provider: Provider, operation: impl Into<String>, answer: Spoiled) -> Self {
        Self { answer: Some(answer), ..Self::new(provider, operation, Kind::Spoil) }
    }

    /// The answer that a proxy gives, by its name or part by part.
    pub(crate) fn answered(&self) -> Spoiled {
        self.preset.map(Preset::answer).or_else(|| self.answer.clone()).unwrap_or_default()
    }

    /// Before the call has done anything.
    #[must_use]
    pub fn before(mut self) -> Self {
        self.acted = Some(false);
        self
    }

    /// Only for calls that name this.
    #[must_use]
    pub fn of(mut self, of: impl Into<String>) -> Self {
        self.of = Some(of.into());
        self
    }

    /// At once, without a call.
    #[must_use]
    pub fn now(mut self) -> Self {
        self.now = true;
        self
    }

    /// With a status.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// With a text.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// A field and what it is from now on.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>, value: Value) -> Self {
        self.field = Some(field.into());
        self.value = Some(value);
        self
    }

    /// Only so often.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// With a time.
    #[must_use]
    pub fn seconds(mut self, seconds: f64) -> Self {
        self.seconds = Some(seconds);
        self
    }
}

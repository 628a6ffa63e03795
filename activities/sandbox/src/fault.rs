//! Fault: what can be made to go wrong with a call, how often, and whether it did.

use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, EnumString, IntoStaticStr, VariantNames};

use crate::dice::Dice;

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

/// What goes wrong.
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
pub enum Kind {
    /// The call takes `ms` longer.
    Latency,
    /// The provider says no, in its own way, and does nothing.
    Refuse,
    /// It acts, and the line drops before the answer.
    LoseAnswer,
    /// The line drops before it acts.
    LoseRequest,
    /// The line drops at once, and it acts up to `seconds` later.
    CommitLate,
    /// 429, with `retry_after` seconds or without.
    RateLimited,
    /// 500 before the effect.
    ErrorBefore,
    /// 500 after the effect.
    ErrorAfter,
    /// The provider's throttle text: at Railway as HTTP 200, elsewhere as 429.
    ThrottleText,
    /// What this call makes is not listed for `seconds`.
    ListLag,
    /// A delete does its work and says that there was nothing.
    DeleteNotFound,
    /// A delete is accepted, and the thing is there for `seconds` more.
    DeleteLingers,
    /// The container crashes after the deploy.
    DeployCrashes,
    /// The deploy never ends.
    DeployHangs,
    /// The deploy takes `seconds`.
    DeployTakes,
    /// 401, as for a revoked token.
    Unauthorized,
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
    /// For latency: milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms: Option<u64>,
    /// For what takes time: at most so many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// For 429: what the header says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
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
            ms: None,
            seconds: None,
            retry_after: None,
        }
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

    /// What is wrong with it, if anything.
    pub fn problem(&self) -> Option<String> {
        let known = self.provider.operations();
        if self.operation != "*" && !known.contains(&self.operation.as_str()) {
            return Some(format!(
                "{} has no operation {:?}; it has * {}",
                self.provider,
                self.operation,
                known.join(" ")
            ));
        }
        if self.probability.is_some_and(|chance| !(0.0..=1.0).contains(&chance)) {
            return Some("probability is a number from 0 to 1".to_owned());
        }
        if self.seconds.is_some_and(|seconds| !(0.0..=86_400.0).contains(&seconds)) {
            return Some("seconds is a number from 0 to 86400".to_owned());
        }
        match self.fault {
            Kind::Latency if self.ms.is_none() => Some("latency needs ms".to_owned()),
            _ => None,
        }
    }
}

/// The faults that are set, and how often each fired.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    set: Vec<(Fault, Dice)>,
    fired: std::collections::BTreeMap<String, u32>,
}

impl Faults {
    pub(crate) fn set(&mut self, fault: Fault) {
        let dice = Dice::new(fault.seed.unwrap_or(1));
        self.set.push((fault, dice));
    }

    pub(crate) fn clear(&mut self) {
        self.set.clear();
    }

    pub(crate) fn all(&self) -> Vec<Fault> {
        self.set.iter().map(|(fault, _)| fault.clone()).collect()
    }

    pub(crate) fn fired(&self) -> std::collections::BTreeMap<String, u32> {
        self.fired.clone()
    }

    /// The fault of this kind that befalls this call, if one does.
    pub(crate) fn take(&mut self, provider: Provider, operation: &str, kind: Kind) -> Option<Fault> {
        for (fault, dice) in &mut self.set {
            let is_meant = fault.provider == provider
                && fault.fault == kind
                && (fault.operation == "*" || fault.operation == operation);
            if !is_meant || fault.times == Some(0) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            if fault.probability.is_some_and(|chance| dice.unit() >= chance) {
                continue;
            }
            fault.times = fault.times.map(|times| times - 1);
            *self.fired.entry(format!("{provider}.{operation}.{kind}")).or_default() += 1;
            return Some(fault.clone());
        }
        None
    }
}

//! Check: whether a fault that is asked for is one, and what would be right if it is not.

use strum::IntoEnumIterator;

use super::catalogue::{COMMON, Entry, Parameter};
use super::{Fault, Kind, Provider};

impl Fault {
    /// What is wrong with it, if anything, and what would be right.
    pub fn problem(&self) -> Option<String> {
        let (kind, entry) = (self.fault, self.fault.entry());
        let known = self.provider.operations();
        if self.operation != "*" && !known.contains(&self.operation.as_str()) {
            return Some(format!(
                "{} has no operation {:?}; it has * {}",
                self.provider,
                self.operation,
                known.join(" ")
            ));
        }
        let fitting = entry.applies.of(self.provider);
        if fitting.is_empty() || self.operation != "*" && !fitting.contains(&self.operation.as_str()) {
            let where_else: Vec<String> = Provider::iter()
                .filter(|provider| !entry.applies.of(*provider).is_empty())
                .map(|provider| format!("{provider}: {}", entry.applies.of(provider).join(" ")))
                .collect();
            return Some(format!(
                "{kind} cannot happen to {}.{}; it can to {}",
                self.provider,
                self.operation,
                where_else.join("; ")
            ));
        }
        self.parameters(&entry).or_else(|| self.values(&entry))
    }

    /// Whether it has what it needs, and nothing that is not its own.
    fn parameters(&self, entry: &Entry) -> Option<String> {
        let given = serde_json::to_value(self).ok()?;
        let takes = || {
            let names: Vec<&str> = entry.parameters.iter().map(|parameter| parameter.name).collect();
            if names.is_empty() { "nothing of its own".to_owned() } else { names.join(" ") }
        };
        for name in given.as_object().into_iter().flat_map(|given| given.keys()) {
            let is_known = |all: &[Parameter]| all.iter().any(|parameter| parameter.name == name);
            // `seconds` was given with faults that take no time before, and is harmless.
            if !is_known(COMMON) && !is_known(&entry.parameters) && name != "seconds" {
                return Some(format!("{} takes no {name}; it takes {}", self.fault, takes()));
            }
        }
        let missing = entry.parameters.iter().find(|parameter| {
            parameter.is_needed && given.get(parameter.name).is_none_or(serde_json::Value::is_null)
                // `null` is a value that something may drift to.
                && !(parameter.name == "value" && self.value.is_some())
        });
        missing.map(|missing| format!("{} needs {}: {}", self.fault, missing.name, missing.what))
    }

    fn values(&self, entry: &Entry) -> Option<String> {
        if self.probability.is_some_and(|chance| !(0.0..=1.0).contains(&chance)) {
            return Some("probability is a number from 0 to 1".to_owned());
        }
        for (name, seconds) in [("seconds", self.seconds), ("from_seconds", self.from_seconds)] {
            if seconds.is_some_and(|seconds| !(0.0..=86_400.0).contains(&seconds)) {
                return Some(format!("{name} is a number from 0 to 86400"));
            }
        }
        if self.ms.is_some_and(|ms| ms > 86_400_000) {
            return Some("ms is a number from 0 to 86400000".to_owned());
        }
        let is_early = self.from_seconds.is_some_and(|from| from > self.seconds.unwrap_or(1.0));
        if self.fault == Kind::CommitLate && is_early {
            return Some("from_seconds is not more than seconds".to_owned());
        }
        if self.fault == Kind::Quota && self.seconds.is_none_or(|seconds| seconds <= 0.0) {
            return Some("quota: seconds is more than 0".to_owned());
        }
        let statuses: &[u16] = match self.fault {
            Kind::DeleteIgnored => &[200, 404],
            Kind::NumberTaken => &[409, 422],
            Kind::ContainerDies => &[404, 502],
            _ => &[],
        };
        if self.status.is_some_and(|status| !statuses.contains(&status)) {
            return Some(format!("{}: status is one of {statuses:?}", self.fault));
        }
        if self.fault == Kind::StaysDirty && self.keep.is_some_and(|keep| keep != 0) {
            return Some("stays_dirty: keep is 0 or not given".to_owned());
        }
        if self.fault == Kind::Spoil && self.preset.is_some() == self.answer.is_some() {
            return Some("spoil needs one of preset and answer".to_owned());
        }
        if self.fault == Kind::Drift {
            let fields = drifting(self.provider);
            if !self.field.as_deref().is_some_and(|field| fields.contains(&field)) {
                return Some(format!("drift at {}: field is one of {}", self.provider, fields.join(" ")));
            }
        }
        if self.now && !entry.at_once {
            return Some(format!("{} needs a call to happen to: it takes no now", self.fault));
        }
        self.answer.as_ref().and_then(super::Spoiled::problem)
    }
}

/// The fields of a provider's things that may drift.
pub(crate) fn drifting(provider: Provider) -> &'static [&'static str] {
    match provider {
        Provider::Railway => &["image", "name", "description"],
        Provider::Openrouter => &["limit", "name", "disabled"],
        Provider::Agentmail => &["display_name"],
        Provider::Telnyx => &["messaging_profile_id", "customer_reference"],
        Provider::Ghcr | Provider::Runtime => &[],
    }
}

//! Made: a step's output that remembers its step, so that what holds it depends on it.

use std::ops::Deref;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::ids::StepKey;

/// A step's output. An activity that carries it depends on that step, and is unwound before it.
///
/// It serialises as a reference to the step, `{"$made":"project"}`; whoever reads an input resolves the
/// reference from the journal first (`resolve`), so an output is stored once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made<T> {
    step: StepKey,
    value: T,
}

const REFERENCE: &str = "$made";
const VALUE: &str = "value";

impl<T> Made<T> {
    pub(crate) fn new(step: StepKey, value: T) -> Self {
        Self { step, value }
    }

    /// A value that no step of this saga made, for tests of an activity by itself.
    pub fn given(value: T) -> Self {
        Self { step: StepKey::from(""), value }
    }

    /// The step it came from.
    pub fn step(&self) -> &StepKey {
        &self.step
    }

    /// The value alone; what holds it no longer depends on the step by holding it.
    pub fn take(self) -> T {
        self.value
    }
}

impl<T> Deref for Made<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Serialize> Serialize for Made<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = Map::new();
        map.insert(REFERENCE.into(), Value::String(self.step.to_string()));
        if self.step.as_str().is_empty() {
            let value = serde_json::to_value(&self.value).map_err(serde::ser::Error::custom)?;
            map.insert(VALUE.into(), value);
        }
        map.serialize(serializer)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Made<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut map = Map::deserialize(deserializer)?;
        let Some(Value::String(step)) = map.remove(REFERENCE) else {
            return Err(D::Error::custom("not a reference to a step"));
        };
        let value = map.remove(VALUE).ok_or_else(|| D::Error::custom("an unresolved reference"))?;
        Ok(Self { step: StepKey::new(step), value: T::deserialize(value).map_err(D::Error::custom)? })
    }
}

/// The steps that an input refers to.
pub(crate) fn edges_of(input: &Value, into: &mut Vec<StepKey>) {
    match input {
        Value::Object(map) => match map.get(REFERENCE) {
            Some(Value::String(step)) => {
                if !step.is_empty() {
                    into.push(StepKey::from(step.as_str()));
                }
            }
            _ => map.values().for_each(|value| edges_of(value, into)),
        },
        Value::Array(items) => items.iter().for_each(|value| edges_of(value, into)),
        _ => {}
    }
}

/// The input with each reference followed to the output of its step.
pub(crate) fn resolve(input: &Value, output_of: &dyn Fn(&StepKey) -> Option<Value>) -> Value {
    match input {
        Value::Object(map) => match map.get(REFERENCE) {
            Some(Value::String(step)) if !step.is_empty() => {
                let mut resolved = map.clone();
                if let Some(output) = output_of(&StepKey::from(step.as_str())) {
                    resolved.insert(VALUE.into(), output);
                }
                Value::Object(resolved)
            }
            _ => Value::Object(
                map.iter().map(|(key, value)| (key.clone(), resolve(value, output_of))).collect(),
            ),
        },
        Value::Array(items) => Value::Array(items.iter().map(|value| resolve(value, output_of)).collect()),
        other => other.clone(),
    }
}

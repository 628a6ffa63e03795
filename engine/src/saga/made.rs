//! Made: a step's output that remembers its step, so that what holds it depends on it.

use std::ops::Deref;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::data::Token;
use crate::ids::StepKey;

/// A step's output. An activity that carries it depends on that step, and is unwound before it.
///
/// It serialises as the output itself. In the input of a step it is a reference, which the journal keeps beside that
/// input ([`Reference`](crate::data::Reference)): an output is stored once, and nothing that an input holds is ever
/// taken for a reference. It needs a place of its own there: it can be a field, an item or the value of a map, but
/// cannot be flattened, and is no key of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made<T> {
    step: StepKey,
    value: T,
}

impl<T> Made<T> {
    pub(crate) fn new(step: StepKey, value: T) -> Self {
        Self { step, value }
    }

    /// A value that no step of this saga made, for tests of an activity by itself.
    pub fn given(value: T) -> Self {
        Self { step: StepKey::root(), value }
    }

    /// The step it came from; the root for what no step made.
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
        let listed = (!self.step.is_root()).then(|| Token::hand_over(&self.step)).flatten();
        match listed {
            Some(Token::Listed(number)) => serializer.serialize_newtype_struct(Token::NAME, &number),
            _ => self.value.serialize(serializer),
        }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Made<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let (step, value) = match value.as_str().and_then(Token::take) {
            Some(Token::Step(step, made)) => (step, made),
            _ => return T::deserialize(value).map(Self::given).map_err(D::Error::custom),
        };
        let value = Token::inside(|| T::deserialize(value)).map_err(D::Error::custom)?;
        Ok(Self { step, value })
    }
}

//! Present: an optional value of which null is one that is there.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Reads a field that is there, null too, as something. With `#[serde(default, skip_serializing_if =
/// "Option::is_none", deserialize_with = "present")]`, only a field that is missing is nothing.
pub(crate) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

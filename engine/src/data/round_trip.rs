//! Round trip: a value that is written is read back at once, as its own type, and has to be the same.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::writer::{Written, write, write_input};
use super::{Input, Unstorable};
use crate::activity::attempt::unpanicked;
use crate::ids::StepKey;

const UNREAD: &str = "does not read back as its own type";
const OTHER: &str =
    "reads back as something else than was written: in its own type, or in the order of a set";

/// An input as a journal keeps it. `output_of` is what the steps made that it holds.
pub(crate) fn input<T: Serialize + DeserializeOwned>(
    what: &str,
    value: &T,
    output_of: impl Fn(&StepKey) -> Option<Value>,
) -> Result<Input, Unstorable> {
    let written = write_input(what, value)?;
    if let Some(excess) = written.excess(&output_of) {
        return Err(Unstorable::new(what, excess));
    }
    let resolved = written.resolved(output_of).map_err(|step| {
        Unstorable::new(what, format!("holds what {step} made, and that is no step of it"))
    })?;
    // What panics there is said where it is read to be called.
    let Some(back) = unpanicked(|| resolved.read::<T>()) else { return Ok(written) };
    let back = back.map_err(|error| Unstorable::new(what, format!("{UNREAD}: {error}")))?;
    // It is compared on every replay, so it has to be the same to the letter.
    if write_input(what, &back)? != written {
        return Err(Unstorable::new(what, OTHER));
    }
    Ok(written)
}

/// An input without references: each [`Made`](crate::Made) in it is its value.
pub(crate) fn plain<T: Serialize + DeserializeOwned>(what: &str, value: &T) -> Result<Value, Unstorable> {
    let written = write(what, value)?.value;
    let Some(back) = unpanicked(|| T::deserialize(&written)) else { return Ok(written) };
    let back = back.map_err(|error| Unstorable::new(what, format!("{UNREAD}: {error}")))?;
    if write(what, &back)?.value != written {
        return Err(Unstorable::new(what, OTHER));
    }
    Ok(written)
}

/// An output: it is never compared with another run's, so that the order in its lists may be any (a set's is).
pub(crate) fn output<T: Serialize + DeserializeOwned>(what: &str, value: &T) -> Result<Written, Unstorable> {
    let written = write(what, value)?;
    let back: T = T::deserialize(&written.value)
        .map_err(|error| Unstorable::new(what, format!("{UNREAD}: {error}")))?;
    let again = write(what, &back)?.value;
    if again != written.value && in_order(&again) != in_order(&written.value) {
        return Err(Unstorable::new(what, OTHER));
    }
    Ok(written)
}

/// The value as text, each map in the order of its keys.
pub(crate) fn canonical(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(canonical).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(map) => {
            let mut items: Vec<_> = map.iter().collect();
            items.sort_by_key(|(key, _)| *key);
            let items: Vec<String> = items
                .into_iter()
                .map(|(key, item)| format!("{}:{}", Value::from(key.as_str()), canonical(item)))
                .collect();
            format!("{{{}}}", items.join(","))
        }
        other => other.to_string(),
    }
}

/// The value as text, with each list in an order of its own.
fn in_order(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let mut items: Vec<String> = items.iter().map(in_order).collect();
            items.sort();
            format!("[{}]", items.join(","))
        }
        Value::Object(map) => {
            let mut items: Vec<String> = map
                .iter()
                .map(|(key, item)| format!("{}:{}", Value::from(key.as_str()), in_order(item)))
                .collect();
            items.sort();
            format!("{{{}}}", items.join(","))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap, HashSet};

    use serde::Deserialize;
    use serde_json::json;

    use super::super::{DEPTH_MAX, VALUE_MAX};
    use super::*;
    use crate::saga::Made;

    fn written<T: Serialize + DeserializeOwned>(value: &T) -> Result<Value, String> {
        let value = output("it", value).map(|written| written.value);
        value.map_err(|error| error.to_string())
    }

    #[test]
    fn numbers_are_kept_to_the_bit_or_refused() {
        for number in [0.0, -0.0, 6.0 * 0.19, f64::MAX, f64::MIN_POSITIVE, 5e-324, 1e21, 0.1 + 0.2] {
            let text = written(&number).unwrap().to_string();
            let back: f64 = serde_json::from_str(&text).unwrap();
            assert_eq!(back.to_bits(), number.to_bits(), "{text}");
        }
        for number in [f32::MAX, 0.1, 1.1, f32::MIN_POSITIVE] {
            let text = written(&number).unwrap().to_string();
            let back: f32 = serde_json::from_str(&text).unwrap();
            assert_eq!(back.to_bits(), number.to_bits(), "{text}");
        }
        assert_eq!(written(&u64::MAX), Ok(json!(u64::MAX)));
        assert_eq!(written(&i64::MIN), Ok(json!(i64::MIN)));
        assert_eq!(written(&i128::from(i64::MIN)), Ok(json!(i64::MIN)));
        for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(written(&Some(odd)).unwrap_err().contains("not finite"));
            assert!(written(&vec![(1, odd as f32)]).is_err());
        }
        assert!(written(&u128::MAX).unwrap_err().contains("64 bits"));
        assert!(written(&i128::MIN).unwrap_err().contains("64 bits"));
    }

    #[test]
    fn what_is_too_deep_or_too_large_is_refused_at_the_limit_and_not_before() {
        let deep = |depth: usize| (0..depth).fold(Value::Null, |inner, _| json!([inner]));
        assert!(written(&deep(DEPTH_MAX)).is_ok());
        assert!(written(&deep(DEPTH_MAX + 1)).unwrap_err().contains("too deep"));
        assert!(written(&"x".repeat(VALUE_MAX - 2)).is_ok());
        assert!(written(&"x".repeat(VALUE_MAX - 1)).is_err_and(|error| error.contains("too long")));
        // A sign that JSON writes with six.
        assert!(written(&"\u{1}".repeat(VALUE_MAX / 6)).is_ok());
        let error = written(&"\u{1}".repeat(VALUE_MAX / 6 + 1)).err().unwrap_or_default();
        assert!(error.contains("too long"), "{error}");
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Flat {
        a: u32,
        #[serde(flatten)]
        rest: BTreeMap<String, u32>,
    }

    #[test]
    fn keys_are_kept_apart_or_refused() {
        assert_eq!(written(&HashMap::from([(7_u64, "a".to_owned())])), Ok(json!({"7": "a"})));
        assert_eq!(written(&BTreeMap::from([(true, 'x')])), Ok(json!({"true": "x"})));
        let twice = Flat { a: 1, rest: BTreeMap::from([("a".into(), 2)]) };
        assert!(written(&twice).unwrap_err().contains("twice"));
        assert!(written(&BTreeMap::from([((1, 2), 3)])).unwrap_err().contains("key"));
    }

    #[test]
    fn a_set_may_be_kept_as_an_output_in_any_order() {
        let set: HashSet<u32> = (0..100).collect();
        assert!(written(&set).is_ok());
    }

    #[derive(Debug, Clone, Serialize, Deserialize)]
    struct Holds {
        on: Made<String>,
        note: Value,
    }

    #[test]
    fn a_type_that_holds_no_made_any_more_gets_the_value_itself() {
        #[derive(Debug, Deserialize)]
        struct Plain {
            on: String,
            #[serde(default)]
            gone: Option<String>,
        }
        let step = StepKey::from("house");
        let made = Value::from("made 0 0");
        let output_of = |asked: &StepKey| (*asked == step).then(|| made.clone());
        let holds = Holds { on: Made::new(step.clone(), "made 0 0".to_owned()), note: json!(["made 1 0"]) };
        let input = input("it", &holds, output_of).unwrap();
        assert_eq!(input.value, json!({"on": null, "note": ["made 1 0"]}));
        assert_eq!(input.references.len(), 1);
        let resolved = input.resolved(output_of).unwrap();
        let back: Holds = resolved.read().unwrap();
        assert_eq!((back.on.step(), back.on.as_str()), (&step, "made 0 0"));
        let plain: Plain = resolved.read().unwrap();
        assert_eq!((plain.on.as_str(), plain.gone), ("made 0 0", None));
        assert_eq!(resolved.inlined(), json!({"on": "made 0 0", "note": ["made 1 0"]}));
        // Outside an input it is its value.
        assert_eq!(serde_json::to_value(&holds.on).unwrap(), made);
    }

    #[test]
    fn a_reference_that_is_written_where_nobody_can_follow_it_is_refused() {
        #[derive(Debug, Clone)]
        struct Texted(Made<String>);
        impl Serialize for Texted {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serde_json::to_string(&self.0).map_err(serde::ser::Error::custom)?.serialize(serializer)
            }
        }
        impl<'de> Deserialize<'de> for Texted {
            fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
                Err(serde::de::Error::custom("not here"))
            }
        }
        let texted = Texted(Made::new("house".into(), "x".to_owned()));
        let error = input("it", &texted, |_| Some("x".into())).unwrap_err().to_string();
        assert!(error.contains("cannot be followed"), "{error}");
    }
}

//! Reference: that a place in an input holds what another step made. References stand beside the input, never in it.
//!
//! A [`Made`](crate::Made) that is written as a part of an input hands its step to the writer through a list of this
//! thread's, and the number under which it stands there through the serializer: so the place is exact whatever a type
//! does around it. On the way back the places hold tokens, texts that stand nowhere else in that input, and a `Made`
//! that finds one takes its step and its value from a list of this thread's. Whatever else reads the place gets the
//! value itself.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::limits::{MADE_MAX, PLACES_MAX};
use crate::ids::StepKey;

/// One place in an input that holds what another step made; the input itself has null there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// The place, as a JSON pointer (RFC 6901).
    pub at: String,
    /// The step.
    pub step: StepKey,
}

/// An input as a journal keeps it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Input {
    pub(crate) value: Value,
    pub(crate) references: Vec<Reference>,
}

/// A place of an input with what stands there.
#[derive(Debug, Clone, PartialEq)]
struct Held {
    at: String,
    step: StepKey,
    made: Value,
}

/// An input with what its references stand for.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Resolved {
    value: Value,
    held: Vec<Held>,
}

impl Input {
    /// What is too much in it, if all places that hold what other steps made are more than an input may have, or what
    /// they hold is larger together.
    pub(crate) fn excess(&self, output_of: impl Fn(&StepKey) -> Option<Value>) -> Option<String> {
        if self.references.len() > PLACES_MAX {
            let problem = format!("{} places, and {PLACES_MAX} are allowed", self.references.len());
            return Some(format!("holds what other steps made in too many places: {problem}"));
        }
        let (mut lengths, mut sum) = (BTreeMap::new(), 0_usize);
        for Reference { step, .. } in &self.references {
            let length = lengths.entry(step).or_insert_with(|| output_of(step).as_ref().map_or(0, length));
            sum = sum.saturating_add(*length);
            if sum > MADE_MAX {
                return Some(format!(
                    "holds more of what other steps made than is allowed: more than {MADE_MAX} bytes as JSON"
                ));
            }
        }
        None
    }

    /// The input with each reference followed; the step of one that cannot be.
    pub(crate) fn resolved(
        &self,
        output_of: impl Fn(&StepKey) -> Option<Value>,
    ) -> Result<Resolved, StepKey> {
        let held = self.references.iter().map(|reference| -> Result<Held, StepKey> {
            let made = output_of(&reference.step).ok_or_else(|| reference.step.clone())?;
            Ok(Held { at: reference.at.clone(), step: reference.step.clone(), made })
        });
        Ok(Resolved { value: self.value.clone(), held: held.collect::<Result<_, _>>()? })
    }
}

/// How long a value is as JSON text; it is not written for that.
fn length(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.saturating_add(text.len());
            Ok(text.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // What cannot be written was not kept.
    serde_json::to_writer(&mut count, value).map_or(usize::MAX, |()| count.0)
}

impl Resolved {
    /// The input with the values themselves in their places.
    pub(crate) fn inlined(&self) -> Value {
        let mut value = self.value.clone();
        for held in &self.held {
            if let Some(place) = value.pointer_mut(&held.at) {
                place.clone_from(&held.made);
            }
        }
        value
    }

    /// Reads it as its type, each [`Made`](crate::Made) with the step that it came from.
    pub(crate) fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        if self.held.is_empty() {
            return T::deserialize(&self.value);
        }
        let mut tokens = self.tokens();
        loop {
            let mut value = self.value.clone();
            for (held, token) in self.held.iter().zip(&tokens) {
                let Some(place) = value.pointer_mut(&held.at) else { continue };
                *place = token.clone().map_or_else(|| held.made.clone(), Value::String);
            }
            let list = tokens.iter().zip(&self.held).filter_map(|(token, held)| {
                Some(Open {
                    token: token.clone()?,
                    step: held.step.clone(),
                    made: held.made.clone(),
                    is_used: false,
                })
            });
            let guard = Guard::set(List::Read(list.collect()));
            let read = T::deserialize(&value);
            let List::Read(list) = guard.end() else { return read };
            let unused: Vec<String> =
                list.into_iter().filter(|open| !open.is_used).map(|open| open.token).collect();
            if read.is_err() || unused.is_empty() {
                return read;
            }
            // No `Made` stands there, perhaps not any more: whatever does gets the value itself.
            for token in &mut tokens {
                if token.as_ref().is_some_and(|token| unused.contains(token)) {
                    *token = None;
                }
            }
        }
    }

    /// A text for each place that stands nowhere in this input.
    fn tokens(&self) -> Vec<Option<String>> {
        let is_free = |beginning: &str| {
            !any_text(&self.value, beginning) && !self.held.iter().any(|held| any_text(&held.made, beginning))
        };
        let beginning = (0_u64..).map(|number| format!("made {number} ")).find(|text| is_free(text));
        let beginning = beginning.unwrap_or_default();
        (0..self.held.len()).map(|place| Some(format!("{beginning}{place}"))).collect()
    }
}

/// Whether a text in this value begins so.
fn any_text(value: &Value, beginning: &str) -> bool {
    match value {
        Value::String(text) => text.starts_with(beginning),
        Value::Array(items) => items.iter().any(|item| any_text(item, beginning)),
        Value::Object(map) => map.values().any(|item| any_text(item, beginning)),
        _ => false,
    }
}

struct Open {
    token: String,
    step: StepKey,
    made: Value,
    is_used: bool,
}

/// What this thread is doing with an input.
enum List {
    /// Nothing: a `Made` is its value.
    Off,
    /// It writes one: the steps that were handed over.
    Write(Vec<StepKey>),
    /// It reads one: what stands for which token.
    Read(Vec<Open>),
}

thread_local! {
    static LIST: RefCell<List> = const { RefCell::new(List::Off) };
}

/// Puts back what was there before, also when a user's code panics.
struct Guard(Option<List>);

impl Guard {
    fn set(list: List) -> Self {
        Self(Some(LIST.replace(list)))
    }

    fn end(mut self) -> List {
        self.0.take().map_or(List::Off, |before| LIST.replace(before))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(before) = self.0.take() {
            LIST.set(before);
        }
    }
}

/// Runs this while each `Made` that is written hands over its step; the steps, in the order in which they were.
pub(super) fn collecting<T>(write: impl FnOnce() -> T) -> (T, Vec<StepKey>) {
    let guard = Guard::set(List::Write(Vec::new()));
    let done = write();
    match guard.end() {
        List::Write(steps) => (done, steps),
        _ => (done, Vec::new()),
    }
}

/// What a [`Made`](crate::Made) meets where it stands.
pub(crate) enum Token {
    /// Written: the number under which its step is listed.
    Listed(u64),
    /// Read: its step, and its value.
    Step(StepKey, Value),
}

impl Token {
    /// The name under which the number of a reference goes to the writer.
    pub(crate) const NAME: &'static str = "amends_engine::Made";

    /// Hands a step over, if an input is being written.
    pub(crate) fn hand_over(step: &StepKey) -> Option<Self> {
        LIST.with_borrow_mut(|list| match list {
            List::Write(steps) => {
                steps.push(step.clone());
                u64::try_from(steps.len() - 1).ok().map(Self::Listed)
            }
            _ => None,
        })
    }

    /// What stands for this, if an input is being read and it is one of its tokens.
    pub(crate) fn take(text: &str) -> Option<Self> {
        LIST.with_borrow_mut(|list| match list {
            List::Read(open) => {
                let open = open.iter_mut().find(|open| open.token == text)?;
                open.is_used = true;
                Some(Self::Step(open.step.clone(), open.made.clone()))
            }
            _ => None,
        })
    }

    /// Reads a value that another step made: in it a `Made` is its value.
    pub(crate) fn inside<T>(read: impl FnOnce() -> T) -> T {
        let _guard = Guard::set(List::Off);
        read()
    }
}

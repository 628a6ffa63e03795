//! Step: what a saga's function asked for, as it awaits it, and what the engine keeps of that.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Halt, Made, Result, Saga};
use crate::data::limits;
use crate::data::{Input, KEY_MAX, Unstorable};
use crate::env::Timestamp;
use crate::ids::StepKey;
use crate::journal::event::ChildRule;
use crate::journal::failure::Refusal;

/// How a step ended, as the saga's function sees it: with a value, which may be null, or with the time alone.
pub(crate) type Delivery = std::result::Result<Option<Value>, Refusal>;

/// What a saga's function has asked for and not been told yet, and what it has been told.
#[derive(Default)]
pub(crate) struct Core {
    told: HashMap<StepKey, Delivery>,
    asked: HashMap<StepKey, Option<Waker>>,
    fresh: Vec<Ask>,
    /// The key that was asked for last.
    last: Option<StepKey>,
    /// The keys that do not name a step.
    scopes: HashMap<StepKey, Scope>,
    /// How often each label was set, since a label has no key of its own.
    labelled: HashMap<StepKey, u32>,
    /// How far the function says that it is.
    pub(crate) progress: Option<Progress>,
    /// What the function shows to those who query it.
    pub(crate) shown: BTreeMap<String, Value>,
}

impl Core {
    /// What was asked for since the last call, in the order of asking.
    pub(crate) fn take_fresh(&mut self) -> Vec<Ask> {
        std::mem::take(&mut self.fresh)
    }

    /// Tells the function how a step ended.
    pub(crate) fn deliver(&mut self, key: &StepKey, delivery: Delivery) {
        self.told.insert(key.clone(), delivery);
        if let Some(waker) = self.asked.get_mut(key).and_then(Option::take) {
            waker.wake();
        }
    }

    /// Whether the function waits for nothing it asked of us: it awaits something that is not the engine's. What
    /// is `dropped`, it no longer waits for.
    pub(crate) fn waits_for_nothing(&self, dropped: impl Fn(&StepKey) -> bool) -> bool {
        self.asked.keys().all(|key| self.told.contains_key(key) || dropped(key))
    }

    /// The key that was asked for last.
    pub(crate) fn last(&self) -> Option<&StepKey> {
        self.last.as_ref()
    }

    /// What a step has yielded.
    pub(super) fn output_of(&self, key: &StepKey) -> Option<Value> {
        self.told.get(key)?.as_ref().ok()?.clone()
    }

    /// Takes a key for a scope, so that two scopes, or a scope and a step, never share their keys.
    pub(super) fn open(&mut self, key: &StepKey, scope: Scope) -> Result<()> {
        let problem = match self.scopes.get(key) {
            _ if self.asked.contains_key(key) => "a step of this key was asked for before",
            // Other items may come; each is a scope that is opened once.
            Some(Scope::Items) if scope == Scope::Items => return Ok(()),
            Some(_) => "a scope of this key was opened before",
            None => {
                self.scopes.insert(key.clone(), scope);
                return Ok(());
            }
        };
        Err(Halt::Misuse { step: key.clone(), problem: problem.to_owned() })
    }

    /// The key under which the next setting of this label stands.
    pub(super) fn label_key(&mut self, scope: &StepKey, name: &str) -> Result<StepKey> {
        let label = scope.beside("label").child(name);
        let count = self.labelled.entry(label.clone()).or_insert(0);
        *count += 1;
        let key = if *count == 1 { label } else { label.child(&count.to_string()) };
        let fits = limits::labels(self.labelled.len()).and_then(|()| fits(&key));
        fits.map(|()| key.clone()).map_err(|error| Halt::Misuse { step: key, problem: error.to_string() })
    }
}

/// What a key stands for that names no step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// A scope, or a branch.
    Steps,
    /// What the branches of an `each` stand in.
    Items,
    /// What those of a race stand in.
    Race,
}

/// Refuses a key that is too long.
pub(super) fn fits(key: &StepKey) -> std::result::Result<(), Unstorable> {
    let length = key.as_str().len();
    if length > KEY_MAX {
        let problem = format!("is too long: {length} bytes as it is shown, and {KEY_MAX} are allowed");
        return Err(Unstorable::new("its key", problem));
    }
    Ok(())
}

/// One thing that a saga's function asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ask {
    pub(crate) key: StepKey,
    pub(crate) after: Vec<StepKey>,
    /// Those of `after` that the function named outright.
    pub(crate) said: Vec<StepKey>,
    pub(crate) kind: AskKind,
}

/// What kind of thing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AskKind {
    /// Run an activity; as the pivot, or again and again until it yields something.
    Activity { name: &'static str, input: Input, pivot: bool, poll: Option<(Duration, Duration)> },
    /// Run a local activity in a transaction.
    Local { name: &'static str, input: Input, pivot: bool },
    /// Run an activity when the saga ends.
    Defer { name: &'static str, input: Input },
    /// Run another saga as a part of this one.
    Child { workflow: &'static str, version: u32, input: Input, rule: ChildRule },
    /// Let time pass.
    Timer { wait: Duration },
    /// Let time pass until then.
    TimerUntil { at: Timestamp },
    /// Wait for a signal, so long.
    Signal { name: String, limit: Duration },
    /// The time now.
    Now,
    /// A fresh UUID.
    Uuid,
    /// A number from 0 up to, and not including, this.
    Random { below: u64 },
    /// Set a label.
    Label { name: String, value: String },
    /// A branch got through; the others are taken back.
    Race { winner: StepKey, losers: Vec<StepKey> },
    /// Unwind the steps inside the scope that has this key, because of this.
    Unwind { refusal: Refusal },
}

/// How far a saga says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Progress {
    /// So many are done.
    pub done: u64,
    /// Of so many.
    pub of: u64,
}

/// A step that was asked for: awaited for its output, after saying what it depends on if that is not simply
/// the step before it.
#[must_use = "a step is asked for when it is awaited"]
pub struct Step<T> {
    saga: Saga,
    key: StepKey,
    kind: Option<AskKind>,
    after: Vec<StepKey>,
    independent: bool,
    /// Whether what is asked for next depends on it: time and signals have nothing to take back, so that
    /// dependencies go past them.
    links: bool,
    problem: Option<String>,
    reads: Reads<T>,
}

/// How what was told is read; nothing was told but that the time is over.
type Reads<T> = fn(Option<Value>) -> std::result::Result<T, serde_json::Error>;

fn reads<T: DeserializeOwned>(told: Option<Value>) -> std::result::Result<T, serde_json::Error> {
    serde_json::from_value(told.unwrap_or_default())
}

impl<T: DeserializeOwned> Step<Option<T>> {
    /// A step that yields nothing when its time is over before a value has come; null is a value.
    pub(super) fn received(mut self) -> Self {
        self.reads = |told| told.map(serde_json::from_value).transpose();
        self
    }
}

impl<T: DeserializeOwned> Step<T> {
    pub(super) fn new(saga: Saga, key: StepKey, kind: AskKind) -> Self {
        let problem = fits(&key).err().map(|error| error.to_string());
        let links = matches!(kind, AskKind::Activity { .. } | AskKind::Local { .. } | AskKind::Child { .. });
        Self {
            saga,
            key,
            kind: Some(kind),
            after: Vec::new(),
            independent: false,
            links,
            problem,
            reads: reads::<T>,
        }
    }

    pub(super) fn misused(saga: Saga, key: StepKey, problem: String) -> Self {
        let mut step = Self::new(saga, key, AskKind::Now);
        step.problem = Some(problem);
        step
    }
}

impl<T> Step<T> {
    /// Depends on nothing but what it holds, and nothing asked for later depends on it unless it holds it.
    pub fn independent(mut self) -> Self {
        self.independent = true;
        self.links = false;
        self
    }

    /// Depends on that step too: is undone before it. A text is the key of a step outside all scopes; a step in a scope
    /// is named by its parts, `.after(["item", name, "put"])`, or by what it made, `.after(made.step())`.
    pub fn after(mut self, step: impl Into<StepKey>) -> Self {
        self.after.push(step.into());
        self
    }

    fn register(&mut self, kind: AskKind) -> Result<()> {
        let said = self.after.clone();
        if !self.independent {
            self.after.extend(self.saga.chain().iter().cloned());
        }
        if let AskKind::Activity { input, .. }
        | AskKind::Local { input, .. }
        | AskKind::Defer { input, .. }
        | AskKind::Child { input, .. } = &kind
        {
            self.after.extend(input.references.iter().map(|reference| reference.step.clone()));
        }
        self.after.sort();
        self.after.dedup();
        let mut core = self.saga.core();
        if let Some(unknown) = said.iter().find(|key| !core.asked.contains_key(key)) {
            let problem =
                format!("it is to come after {unknown}, and no step of that key was asked for before");
            return Err(Halt::Misuse { step: self.key.clone(), problem });
        }
        // These two are about the scope that has their key.
        let is_of_scope = matches!(kind, AskKind::Race { .. } | AskKind::Unwind { .. });
        if !is_of_scope && core.scopes.contains_key(&self.key) {
            let problem = "a scope of this key was opened before".to_owned();
            return Err(Halt::Misuse { step: self.key.clone(), problem });
        }
        if core.asked.insert(self.key.clone(), None).is_some() {
            let problem = "a step of this key was asked for before".to_owned();
            return Err(Halt::Misuse { step: self.key.clone(), problem });
        }
        core.last = Some(self.key.clone());
        core.fresh.push(Ask { key: self.key.clone(), after: self.after.clone(), said, kind });
        Ok(())
    }
}

impl<T: DeserializeOwned> Future for Step<T> {
    type Output = Result<Made<T>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let step = &mut *self;
        if let Some(problem) = step.problem.take() {
            return Poll::Ready(Err(Halt::Misuse { step: step.key.clone(), problem }));
        }
        if let Some(kind) = step.kind.take() {
            step.register(kind)?;
        }
        let told = {
            let mut core = step.saga.core();
            match core.told.get(&step.key) {
                Some(told) => told.clone(),
                None => {
                    core.asked.insert(step.key.clone(), Some(cx.waker().clone()));
                    return Poll::Pending;
                }
            }
        };
        Poll::Ready(match told {
            Err(refusal) => Err(Halt::Refused { step: step.key.clone(), refusal }),
            Ok(output) => match (step.reads)(output) {
                Ok(value) => {
                    if step.links {
                        let mut chain = step.saga.chain();
                        chain.retain(|earlier| !step.after.contains(earlier));
                        chain.push(step.key.clone());
                    }
                    Ok(Made::new(step.key.clone(), value))
                }
                Err(error) => Err(Halt::Misuse {
                    step: step.key.clone(),
                    problem: format!("its recorded output does not read as the type asked for: {error}"),
                }),
            },
        })
    }
}

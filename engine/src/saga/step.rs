//! Step: what a saga's function asked for, as it awaits it, and what the engine keeps of that.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Halt, Made, Result, Saga, edges_of};
use crate::env::Timestamp;
use crate::ids::StepKey;
use crate::journal::event::ChildRule;
use crate::journal::failure::Refusal;

/// How a step ended, as the saga's function sees it.
pub(crate) type Delivery = std::result::Result<Value, Refusal>;

/// What a saga's function has asked for and not been told yet, and what it has been told.
#[derive(Default)]
pub(crate) struct Core {
    told: HashMap<StepKey, Delivery>,
    asked: HashMap<StepKey, Option<Waker>>,
    fresh: Vec<Ask>,
    /// The key that was asked for last.
    last: Option<StepKey>,
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

    /// Takes a name for a scope, like that of a step, so that two scopes never share their keys.
    pub(super) fn open(&mut self, scope: &StepKey) -> Result<()> {
        let mark = scope.child(".");
        if self.asked.insert(mark.clone(), None).is_some() {
            let problem = "a scope of this key was opened before".to_owned();
            return Err(Halt::Misuse { step: scope.clone(), problem });
        }
        self.told.insert(mark, Ok(Value::Null));
        Ok(())
    }

    /// The key under which the next setting of this label stands.
    pub(super) fn label_key(&mut self, label: &StepKey) -> StepKey {
        let count = self.labelled.entry(label.clone()).or_insert(0);
        *count += 1;
        if *count == 1 { label.clone() } else { StepKey::new(format!("{label}#{count}")) }
    }
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
    Activity { name: &'static str, input: Value, pivot: bool, poll: Option<(Duration, Duration)> },
    /// Run a local activity in a transaction.
    Local { name: &'static str, input: Value, pivot: bool },
    /// Run an activity when the saga ends.
    Defer { name: &'static str, input: Value },
    /// Run another saga as a part of this one.
    Child { workflow: &'static str, version: u32, input: Value, rule: ChildRule },
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
    yields: PhantomData<fn() -> T>,
}

impl<T> Step<T> {
    pub(super) fn new(saga: Saga, key: StepKey, kind: AskKind) -> Self {
        let links = matches!(kind, AskKind::Activity { .. } | AskKind::Local { .. } | AskKind::Child { .. });
        Self {
            saga,
            key,
            kind: Some(kind),
            after: Vec::new(),
            independent: false,
            links,
            problem: None,
            yields: PhantomData,
        }
    }

    pub(super) fn misused(saga: Saga, key: StepKey, problem: String) -> Self {
        let mut step = Self::new(saga, key, AskKind::Now);
        step.problem = Some(problem);
        step
    }

    /// Depends on nothing but what it holds, and nothing asked for later depends on it unless it holds it.
    pub fn independent(mut self) -> Self {
        self.independent = true;
        self.links = false;
        self
    }

    /// Depends on that step too: is undone before it.
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
            edges_of(input, &mut self.after);
        }
        self.after.sort();
        self.after.dedup();
        let mut core = self.saga.core();
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
            Ok(output) => match serde_json::from_value(output) {
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

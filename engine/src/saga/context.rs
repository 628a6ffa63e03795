//! The context of a saga: the verbs its function is written in, and what they ask of the engine.

use std::collections::HashMap;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Halt, Made, Result, edges_of};
use crate::activity::{Activity, Local};
use crate::ids::StepKey;
use crate::journal::failure::Refusal;

/// How a step ended, as the saga's function sees it.
pub(crate) type Delivery = std::result::Result<Value, Refusal>;

/// What a saga's function has asked for and not been told yet, and what it has been told.
#[derive(Default)]
pub(crate) struct Core {
    told: HashMap<StepKey, Delivery>,
    asked: HashMap<StepKey, Option<Waker>>,
    fresh: Vec<Ask>,
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

    /// Whether the function waits for nothing it asked of us: it awaits something that is not the engine's.
    pub(crate) fn waits_for_nothing(&self) -> bool {
        self.asked.keys().all(|key| self.told.contains_key(key))
    }
}

/// One thing that a saga's function asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ask {
    pub(crate) key: StepKey,
    pub(crate) after: Vec<StepKey>,
    pub(crate) kind: AskKind,
}

/// What kind of thing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AskKind {
    /// Run an activity; as the pivot, or again and again until it yields something.
    Activity { name: &'static str, input: Value, pivot: bool, poll: Option<(Duration, Duration)> },
    /// Run a local activity in a transaction.
    Local { name: &'static str, input: Value, pivot: bool },
    /// Let time pass.
    Timer { wait: Duration },
    /// Wait for a signal, so long.
    Signal { name: String, limit: Duration },
    /// The time now.
    Now,
    /// Unwind the steps inside the scope that has this key, because of this.
    Unwind { refusal: Refusal },
}

/// The context of one saga, or of one scope in it.
#[derive(Clone)]
pub struct Saga {
    core: Arc<Mutex<Core>>,
    scope: StepKey,
    /// The steps that the next one asked for here depends on.
    chain: Arc<Mutex<Vec<StepKey>>>,
}

impl Saga {
    pub(crate) fn new() -> Self {
        Self { core: Arc::default(), scope: StepKey::from(""), chain: Arc::default() }
    }

    pub(crate) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn chain(&self) -> MutexGuard<'_, Vec<StepKey>> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs an activity in the world outside.
    pub fn step<A: Activity>(&self, key: &str, activity: A) -> Step<A::Output> {
        self.activity(key, &activity, false, None)
    }

    /// Runs the activity after which there is no way back, only on. It makes nothing that would need undoing.
    pub fn pivot<A: Activity>(&self, key: &str, activity: A) -> Step<A::Output> {
        self.activity(key, &activity, true, None)
    }

    /// Runs a local activity in the transaction that records it.
    pub fn transact<L: Local>(&self, key: &str, local: L) -> Step<L::Output> {
        self.local(key, &local, false)
    }

    /// As `transact`, and there is no way back after it.
    pub fn pivot_transact<L: Local>(&self, key: &str, local: L) -> Step<L::Output> {
        self.local(key, &local, true)
    }

    /// Reads again every `every` until the activity yields something; refused when `limit` has passed. What it
    /// yields must not be JSON's `null`, as `()` is.
    pub fn poll_until<A, T>(&self, key: &str, activity: A, every: Duration, limit: Duration) -> Step<T>
    where
        A: Activity<Output = Option<T>>,
        T: DeserializeOwned + Send + Sync + 'static,
    {
        self.activity(key, &activity, false, Some((every, limit)))
    }

    /// Lets time pass, durably.
    pub async fn sleep(&self, key: &str, wait: Duration) -> Result<()> {
        self.ask::<Value>(key, AskKind::Timer { wait }).await.map(drop)
    }

    /// Waits for a signal of this name; nothing when it has not come within `limit`.
    pub async fn signal<T>(&self, key: &str, name: &str, limit: Duration) -> Result<Option<T>>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        let kind = AskKind::Signal { name: name.to_owned(), limit };
        self.ask::<Option<T>>(key, kind).await.map(Made::take)
    }

    /// The time when this was first asked.
    pub async fn now(&self, key: &str) -> Result<crate::env::Timestamp> {
        self.ask(key, AskKind::Now).await.map(Made::take)
    }

    /// Runs a branch for each item, side by side; each branch is a scope named by its item's key.
    ///
    /// All or unwind: waits for every branch, then yields all outputs in the order of the items, or the
    /// first refusal.
    pub async fn each<K, I, T, F, Fut>(
        &self,
        key: &str,
        items: impl IntoIterator<Item = (K, I)>,
        branch: F,
    ) -> Result<Vec<T>>
    where
        K: AsRef<str>,
        F: Fn(Saga, I) -> Fut,
        Fut: Future<Output = Result<T>> + Send,
        T: Send,
    {
        let scope = self.scope.child(key);
        let mut chains = Vec::new();
        let mut branches = Vec::new();
        for (item_key, item) in items {
            let inner = self.inside(scope.child(item_key.as_ref()))?;
            chains.push(inner.chain.clone());
            branches.push(Box::pin(branch(inner, item)));
        }
        let ended = futures::future::join_all(branches).await;
        if !chains.is_empty() {
            let mut joined: Vec<StepKey> = Vec::new();
            for chain in chains {
                for step in chain.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                    if !joined.contains(step) {
                        joined.push(step.clone());
                    }
                }
            }
            *self.chain() = joined;
        }
        ended.into_iter().collect()
    }

    /// Runs `body` as a part that can be taken back by itself: when it halts, its own steps are unwound and
    /// the failure is handed back, so that the saga can try another way.
    pub async fn scope<T, F, Fut>(&self, key: &str, body: F) -> Result<T>
    where
        F: FnOnce(Saga) -> Fut,
        Fut: Future<Output = Result<T>> + Send,
    {
        let inner = self.inside(self.scope.child(key))?;
        let chain = inner.chain.clone();
        match body(inner).await {
            Ok(value) => {
                *self.chain() = chain.lock().unwrap_or_else(PoisonError::into_inner).clone();
                Ok(value)
            }
            Err(halt @ Halt::Misuse { .. }) => Err(halt),
            Err(halt) => {
                let kind = AskKind::Unwind { refusal: halt.refusal() };
                Step::<Value>::new(self.clone(), self.scope.child(key), kind).await?;
                Err(halt)
            }
        }
    }

    fn inside(&self, scope: StepKey) -> Result<Saga> {
        // A scope's name is taken like a step's, so that two scopes never share their keys.
        if self.core().asked.insert(scope.child("."), None).is_some() {
            return Err(Halt::Misuse {
                step: scope,
                problem: "a scope of this key was opened before".into(),
            });
        }
        self.core().told.insert(scope.child("."), Ok(Value::Null));
        Ok(Saga { core: self.core.clone(), scope, chain: Arc::new(Mutex::new(self.chain().clone())) })
    }

    fn activity<A: Activity, T>(
        &self,
        key: &str,
        activity: &A,
        pivot: bool,
        poll: Option<(Duration, Duration)>,
    ) -> Step<T> {
        match serde_json::to_value(activity) {
            Ok(input) => Step::new(
                self.clone(),
                self.scope.child(key),
                AskKind::Activity { name: A::NAME, input, pivot, poll },
            ),
            Err(error) => Step::misused(self.clone(), self.scope.child(key), error.to_string()),
        }
    }

    fn local<L: Local>(&self, key: &str, local: &L, pivot: bool) -> Step<L::Output> {
        match serde_json::to_value(local) {
            Ok(input) => {
                Step::new(self.clone(), self.scope.child(key), AskKind::Local { name: L::NAME, input, pivot })
            }
            Err(error) => Step::misused(self.clone(), self.scope.child(key), error.to_string()),
        }
    }

    fn ask<T>(&self, key: &str, kind: AskKind) -> Step<T> {
        Step::new(self.clone(), self.scope.child(key), kind)
    }
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
    fn new(saga: Saga, key: StepKey, kind: AskKind) -> Self {
        let links = matches!(kind, AskKind::Activity { .. } | AskKind::Local { .. });
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

    fn misused(saga: Saga, key: StepKey, problem: String) -> Self {
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
        if !self.independent {
            self.after.extend(self.saga.chain().iter().cloned());
        }
        if let AskKind::Activity { input, .. } | AskKind::Local { input, .. } = &kind {
            edges_of(input, &mut self.after);
        }
        self.after.sort();
        self.after.dedup();
        let mut core = self.saga.core();
        if core.asked.insert(self.key.clone(), None).is_some() {
            let problem = "a step of this key was asked for before".to_owned();
            return Err(Halt::Misuse { step: self.key.clone(), problem });
        }
        core.fresh.push(Ask { key: self.key.clone(), after: self.after.clone(), kind });
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

//! The context of a saga: the verbs its function is written in.

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures::StreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::step::{AskKind, Core, Progress, Scope, Step, fits};
use super::{Halt, Made, Result, Workflow};
use crate::activity::removal::Remove;
use crate::activity::{Activity, Local, Removal, Removed};
use crate::data::{self, Input, limits};
use crate::env::Timestamp;
use crate::ids::{SagaId, StepKey};
use crate::journal::event::ChildRule;

const EMPTY: &str = "its key is empty";
const INPUT: &str = "its input";
/// So many branches of an `each` are under way at a time; the others wait their turn.
const SIDE_BY_SIDE: usize = 16;
/// So many branches has an `each`: as many as a function may ask for steps.
const EACH_MAX: usize = 20_000;
/// So many has a race, where all are under way at a time, and each that loses is an entry of the journal.
const RACE_MAX: usize = 1_000;

/// The context of one saga, or of one scope in it: the verbs that a workflow's function is written in.
///
/// | to | say |
/// |---|---|
/// | do something outside; as the last thing that can be taken back | [`step`](Self::step), [`pivot`](Self::pivot) |
/// | take away for good what another saga made | [`remove`](Self::remove) |
/// | do something in our own tables | [`transact`](Self::transact), [`pivot_transact`](Self::pivot_transact) |
/// | wait for time, for a word, for a thing to be ready | [`sleep`](Self::sleep), [`sleep_until`](Self::sleep_until), [`signal`](Self::signal), [`poll_until`](Self::poll_until) |
/// | do several things side by side | [`each`](Self::each), [`each_kept`](Self::each_kept), [`race`](Self::race) |
/// | try another way | [`scope`](Self::scope) |
/// | leave a part to another saga | [`call`](Self::call), [`start`](Self::start) |
/// | do something at the end, whichever way it goes | [`defer`](Self::defer) |
/// | ask what would differ next time | [`now`](Self::now), [`uuid`](Self::uuid), [`random`](Self::random) |
/// | be seen | [`label`](Self::label), [`progress`](Self::progress), [`show`](Self::show) |
///
/// Each takes a key, unique in its scope, under which the journal records what came of it. The function may be run
/// again from its start at any time, so what it does besides these must be the same each time: no clock, no dice, no
/// IO, and it awaits nothing else.
#[derive(Clone)]
pub struct Saga {
    core: Arc<Mutex<Core>>,
    scope: StepKey,
    /// The steps that the next one asked for here depends on.
    pub(super) chain: Arc<Mutex<Vec<StepKey>>>,
}

impl Saga {
    pub(crate) fn new() -> Self {
        Self { core: Arc::default(), scope: StepKey::root(), chain: Arc::default() }
    }

    pub(crate) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn chain(&self) -> MutexGuard<'_, Vec<StepKey>> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs an activity in the world outside.
    ///
    /// `Ok` says that it happened, not yet that this is written: its result is written as soon as the function awaits
    /// the next thing or returns, in one write with the intent of what it asks for then. No call leaves before that
    /// write, so nothing is ever built on a result that a crash could lose. A process that dies in between leaves the
    /// step in doubt, and it is settled as its [`Effect`](crate::Effect) says: sent again, looked for, or, if it is
    /// blind, asked of a person.
    pub fn step<A: Activity>(&self, key: &str, activity: A) -> Step<A::Output> {
        self.activity(key, &activity, false, None)
    }

    /// Runs the activity after which there is no way back, only on. It makes nothing that would need undoing.
    ///
    /// A pivot that is refused, or given up, did not happen: the saga turns round as with any other step. One that may
    /// have happened is settled first, and neither a cancel nor a deadline turns the saga round meanwhile. Once it has
    /// happened there is only forward: what is unavailable or refused behind it is tried until it works, and what the
    /// function gives up there is a person's to decide. A saga has one pivot.
    pub fn pivot<A: Activity>(&self, key: &str, activity: A) -> Step<A::Output> {
        self.activity(key, &activity, true, None)
    }

    /// Takes away what another saga made, and completes once it has been seen gone twice: asked for again until then.
    pub fn remove<R: Removal>(&self, key: &str, removal: R) -> Step<Removed> {
        self.activity(key, &Remove::new(removal), false, None)
    }

    /// Runs a local activity in the transaction that records it: when this is `Ok`, both are written.
    pub fn transact<L: Local>(&self, key: &str, local: L) -> Step<L::Output> {
        self.local(key, &local, false)
    }

    /// As [`transact`](Self::transact), and there is no way back after it; see [`pivot`](Self::pivot).
    pub fn pivot_transact<L: Local>(&self, key: &str, local: L) -> Step<L::Output> {
        self.local(key, &local, true)
    }

    /// Reads again every `every` until the activity yields `Some`; refused when `limit` has passed.
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

    /// Lets time pass until then, durably; not at all if that is past.
    pub async fn sleep_until(&self, key: &str, at: Timestamp) -> Result<()> {
        self.ask::<Value>(key, AskKind::TimerUntil { at }).await.map(drop)
    }

    /// Waits for a signal of this name; nothing when it has not come within `limit`. What was posted is a value, null
    /// too.
    pub async fn signal<T>(&self, key: &str, name: &str, limit: Duration) -> Result<Option<T>>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        let kind = AskKind::Signal { name: name.to_owned(), limit };
        limits::name("the name of the signal", name).map_err(|error| self.misuse(key, &error))?;
        self.ask::<Option<T>>(key, kind).received().await.map(Made::take)
    }

    /// The time when this was first asked.
    pub async fn now(&self, key: &str) -> Result<Timestamp> {
        self.ask(key, AskKind::Now).await.map(Made::take)
    }

    /// A UUID (version 7), the same in every replay.
    pub async fn uuid(&self, key: &str) -> Result<uuid::Uuid> {
        self.ask(key, AskKind::Uuid).await.map(Made::take)
    }

    /// A number from 0 up to, and not including, `below`, the same in every replay; 0 when `below` is 0.
    pub async fn random(&self, key: &str, below: u64) -> Result<u64> {
        self.ask(key, AskKind::Random { below }).await.map(Made::take)
    }

    /// Labels the saga, for lists. A label that is set again has its new value from then on.
    pub async fn label(&self, name: &str, value: impl Into<String>) -> Result<()> {
        let value = value.into();
        limits::label(name, &value).map_err(|error| self.misuse("label", &error))?;
        let key = self.core().label_key(&self.scope, name)?;
        let kind = AskKind::Label { name: name.to_owned(), value };
        Step::<Value>::new(self.clone(), key, kind).await.map(drop)
    }

    /// Says how far the saga is, for lists; written with what it does next.
    pub fn progress(&self, done: u64, of: u64) {
        self.core().progress = Some(Progress { done, of });
    }

    /// Shows a value under a name to those who [query](crate::Engine::query) the saga. Nothing is stored: the answer
    /// is had by running the function again over its journal.
    pub fn show(&self, name: &str, value: impl Serialize) {
        // What does not serialise is not shown.
        if let Ok(value) = serde_json::to_value(value) {
            self.core().shown.insert(name.to_owned(), value);
        }
    }

    /// Puts an activity off until the saga ends, whichever way: it runs once all else is done or taken back, the one
    /// put off last first, and is tried until it works. It makes nothing that would need undoing.
    pub async fn defer<A: Activity>(&self, key: &str, activity: A) -> Result<()> {
        let kind = |input| AskKind::Defer { name: A::NAME, input };
        self.encoded::<_, Value>(key, &activity, kind).await.map(drop)
    }

    /// Runs another saga as a part of this one, and yields what it yields.
    ///
    /// The child may end only after this saga has; until then it is taken back when this one is, unless it has
    /// passed a pivot of its own. A child that took back what it did is a refusal here.
    pub fn call<W: Workflow>(&self, key: &str, input: &W::Input) -> Step<W::Output> {
        self.child::<W, _>(key, input, ChildRule::Called)
    }

    /// Starts another saga as a part of this one and goes on; yields its id. It is taken back when this one is, as
    /// one that was [called](Self::call) would be.
    pub fn start<W: Workflow>(&self, key: &str, input: &W::Input) -> Step<SagaId> {
        self.child::<W, _>(key, input, ChildRule::Started)
    }

    /// Runs a branch for each item, side by side (16 at a time, at most 20,000 in all); each branch is a scope named by
    /// its item's key.
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
        self.branches(key, items, branch).await?.into_iter().collect()
    }

    /// As [`each`](Self::each), but a branch that halts is taken back by itself and its failure stands in its place.
    /// Halts only when fewer than `at_least` got through; 0 keeps whatever there is.
    pub async fn each_kept<K, I, T, F, Fut>(
        &self,
        key: &str,
        at_least: usize,
        items: impl IntoIterator<Item = (K, I)>,
        branch: F,
    ) -> Result<Vec<Result<T>>>
    where
        K: AsRef<str>,
        F: Fn(Saga, I) -> Fut,
        Fut: Future<Output = Result<T>> + Send,
        T: Send,
    {
        let guarded = |inner: Saga, item: I| inner.clone().guarded(branch(inner, item));
        let ended = self.branches(key, items, guarded).await?;
        let (through, all) = (ended.iter().filter(|branch| branch.is_ok()).count(), ended.len());
        if through < at_least {
            let message = format!("{through} of {all} got through, and {at_least} are needed");
            return Err(Halt::give_up("too_few", message));
        }
        Ok(ended)
    }

    async fn branches<K, I, T, F, Fut>(
        &self,
        key: &str,
        items: impl IntoIterator<Item = (K, I)>,
        branch: F,
    ) -> Result<Vec<Result<T>>>
    where
        K: AsRef<str>,
        F: Fn(Saga, I) -> Fut,
        Fut: Future<Output = Result<T>> + Send,
        T: Send,
    {
        let scope = self.opened(&self.scope, key, Scope::Items)?;
        let mut chains = Vec::new();
        let mut branches = Vec::new();
        for (item_key, item) in items {
            room(&scope, branches.len(), EACH_MAX)?;
            let inner = self.inside(&scope, item_key.as_ref())?;
            chains.push(inner.chain.clone());
            branches.push(branch(inner, item));
        }
        let ended: Vec<Result<T>> = futures::stream::iter(branches).buffered(SIDE_BY_SIDE).collect().await;
        if !chains.is_empty() {
            let (mut joined, mut known) = (Vec::new(), HashSet::new());
            for chain in chains {
                for step in chain.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                    if known.insert(step.clone()) {
                        joined.push(step.clone());
                    }
                }
            }
            *self.chain() = joined;
        }
        if let Some(Err(misuse)) = ended.iter().find(|end| matches!(end, Err(Halt::Misuse { .. }))) {
            return Err(misuse.clone());
        }
        Ok(ended)
    }

    /// Runs a branch for each item, side by side, until one gets through: yields its key and its output, and the
    /// other branches are taken back while the saga goes on. A branch that halts is taken back and drops out; when
    /// all have, the race halts as the last of them did. A race has at most 1,000 branches.
    pub async fn race<K, I, T, F, Fut>(
        &self,
        key: &str,
        items: impl IntoIterator<Item = (K, I)>,
        branch: F,
    ) -> Result<(K, T)>
    where
        K: AsRef<str>,
        F: Fn(Saga, I) -> Fut,
        Fut: Future<Output = Result<T>> + Send,
        T: Send,
    {
        let race = self.opened(&self.scope, key, Scope::Race)?;
        let mut open = Vec::new();
        for (item_key, item) in items {
            room(&race, open.len(), RACE_MAX)?;
            let inner = self.inside(&race, item_key.as_ref())?;
            let body = Box::pin(inner.clone().guarded(branch(inner.clone(), item)));
            open.push((item_key, inner, body));
        }
        let mut last = Halt::give_up("empty", format!("race {race} has no branch"));
        let decided = std::future::poll_fn(|cx| {
            let mut place = 0;
            while let Some((_, _, body)) = open.get_mut(place) {
                match body.as_mut().poll(cx) {
                    Poll::Pending => place += 1,
                    Poll::Ready(Ok(value)) => return Poll::Ready(Ok((place, value))),
                    Poll::Ready(Err(halt @ Halt::Misuse { .. })) => {
                        return Poll::Ready(Err(halt));
                    }
                    Poll::Ready(Err(halt)) => {
                        last = halt;
                        drop(open.remove(place));
                    }
                }
            }
            if open.is_empty() { Poll::Ready(Err(last.clone())) } else { Poll::Pending }
        });
        let (place, value) = decided.await?;
        let (winner_key, winner, _) = open.swap_remove(place);
        let losers = open.into_iter().map(|(_, inner, _)| inner.scope).collect();
        let kind = AskKind::Race { winner: winner.scope.clone(), losers };
        Step::<Value>::new(self.clone(), race, kind).await?;
        let chain = winner.chain().clone();
        *self.chain() = chain;
        Ok((winner_key, value))
    }

    /// Runs `body` as a part that can be taken back by itself: when it halts, its own steps are unwound and
    /// the failure is handed back, so that the saga can try another way.
    pub async fn scope<T, F, Fut>(&self, key: &str, body: F) -> Result<T>
    where
        F: FnOnce(Saga) -> Fut,
        Fut: Future<Output = Result<T>> + Send,
    {
        let inner = self.inside(&self.scope, key)?;
        let value = inner.clone().guarded(body(inner.clone())).await?;
        let chain = inner.chain().clone();
        *self.chain() = chain;
        Ok(value)
    }

    /// Awaits the body of this scope; when it halts, its steps are taken back first.
    async fn guarded<T>(self, body: impl Future<Output = Result<T>> + Send) -> Result<T> {
        match body.await {
            Err(halt) if !matches!(halt, Halt::Misuse { .. }) => {
                let kind = AskKind::Unwind { refusal: halt.refusal() };
                let scope = self.scope.clone();
                Step::<Value>::new(self, scope, kind).await?;
                Err(halt)
            }
            other => other,
        }
    }

    fn inside(&self, outer: &StepKey, name: &str) -> Result<Saga> {
        let scope = self.opened(outer, name, Scope::Steps)?;
        Ok(Saga { core: self.core.clone(), scope, chain: Arc::new(Mutex::new(self.chain().clone())) })
    }

    fn opened(&self, outer: &StepKey, name: &str, scope: Scope) -> Result<StepKey> {
        let key = outer.child(name);
        let misuse = |problem: String| Halt::Misuse { step: key.clone(), problem };
        if name.is_empty() {
            return Err(misuse(EMPTY.to_owned()));
        }
        fits(&key).map_err(|error| misuse(error.to_string()))?;
        self.core().open(&key, scope)?;
        Ok(key)
    }

    fn misuse(&self, key: &str, error: &data::Unstorable) -> Halt {
        Halt::Misuse { step: self.scope.child(key), problem: error.to_string() }
    }

    fn activity<A: Activity, T: DeserializeOwned>(
        &self,
        key: &str,
        activity: &A,
        pivot: bool,
        poll: Option<(Duration, Duration)>,
    ) -> Step<T> {
        self.encoded(key, activity, |input| AskKind::Activity { name: A::NAME, input, pivot, poll })
    }

    fn local<L: Local>(&self, key: &str, local: &L, pivot: bool) -> Step<L::Output> {
        self.encoded(key, local, |input| AskKind::Local { name: L::NAME, input, pivot })
    }

    fn child<W: Workflow, T: DeserializeOwned>(
        &self,
        key: &str,
        input: &W::Input,
        rule: ChildRule,
    ) -> Step<T> {
        let kind = |input| AskKind::Child { workflow: W::NAME, version: W::VERSION, input, rule };
        // To a child, whose journal is its own, an output is a value like others: it has to fit there.
        match data::plain(INPUT, input) {
            Ok(_) => self.encoded(key, input, kind),
            Err(error) => Step::misused(self.clone(), self.scope.child(key), error.to_string()),
        }
    }

    fn encoded<I: Serialize + DeserializeOwned, T: DeserializeOwned>(
        &self,
        key: &str,
        input: &I,
        kind: impl FnOnce(Input) -> AskKind,
    ) -> Step<T> {
        let written = data::input(INPUT, input, |step| self.core().output_of(step));
        match written {
            Ok(input) => self.ask(key, kind(input)),
            Err(error) => Step::misused(self.clone(), self.scope.child(key), error.to_string()),
        }
    }

    fn ask<T: DeserializeOwned>(&self, key: &str, kind: AskKind) -> Step<T> {
        let at = self.scope.child(key);
        if key.is_empty() {
            return Step::misused(self.clone(), at, EMPTY.to_owned());
        }
        Step::new(self.clone(), at, kind)
    }
}

/// Refuses one more branch where there are as many as there may be.
fn room(scope: &StepKey, branches: usize, most: usize) -> Result<()> {
    if branches < most {
        return Ok(());
    }
    Err(Halt::Misuse { step: scope.clone(), problem: format!("it has more than {most} branches") })
}

//! The registry: activities and workflows by name, so that a journal alone can call them.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::Value;

use super::attempt::{done, panicked, said, unpanicked};
use super::removal::{Removal, Remove};
use super::{
    Activity, CALL_MAX, Call, Cause, Effect, Failure, Found, Gate, Local, Object, Resource, Uncompensated,
};
use crate::data::{self, Resolved, limits};
use crate::ids::ResourceId;
use crate::journal::State;
use crate::journal::act::{Act, Verdict};
use crate::journal::event::LocalRule;
use crate::saga::{Saga, Workflow};
use crate::store::tx::Tx;
use crate::sweep::{Provider, Providers, Sweep};
use crate::worker::gates::Leave;

/// An activity as a journal knows it: by name, with its input as JSON.
#[async_trait]
pub(crate) trait AnyActivity: Send + Sync {
    fn facts(&self, input: &Resolved, call: &Call) -> Result<ActivityFacts, Failure>;
    fn passage(&self, input: &Resolved) -> Result<Passage, Failure>;
    fn external_id(&self, made: &Value) -> Result<Option<String>, Failure>;
    /// What stands against this as what it made.
    fn problem_of(&self, made: &Value) -> Option<String>;
    // Called with a permit, or not at all.
    async fn execute(&self, input: &Resolved, call: &Call, leave: Leave) -> Result<Yield, Failure>;
    async fn find(&self, input: &Resolved, call: &Call, leave: Leave) -> Result<Found<Yield>, Failure>;
    async fn compensate(
        &self,
        input: &Resolved,
        made: &Taken,
        call: &Call,
        leave: Leave,
    ) -> Result<(), Failure>;
}

/// What an activity made, or found.
#[derive(Debug, Clone)]
pub(crate) enum Yield {
    /// As a journal keeps it.
    Kept {
        value: Value,
        /// It is the `None` of an `Option`: nothing yet, to whoever polls.
        is_none: bool,
        /// The provider's id of it; or why its activity could not say.
        external_id: Result<Option<String>, Failure>,
    },
    /// It is there, and a journal cannot keep what it is.
    Unkept(Unkept),
}

/// What was made and cannot be kept: as it is while the process lives that made it, and what is wrong with it.
#[derive(Debug, Clone)]
pub(crate) struct Unkept {
    pub(crate) made: Arc<dyn std::any::Any + Send + Sync>,
    pub(crate) problem: String,
    pub(crate) external_id: Option<String>,
}

/// What a compensation is given to take back.
#[derive(Debug, Clone)]
pub(crate) enum Taken {
    /// As a journal has it.
    Kept(Value),
    /// As the activity made it in this process.
    Unkept(Unkept),
    /// It could not be kept, and the process that made it is gone: it is looked for.
    Unknown,
}

/// What an activity says of itself before it is called.
#[derive(Debug, Clone)]
pub(crate) struct ActivityFacts {
    pub(crate) effect: Effect,
    pub(crate) settle_after: Duration,
    pub(crate) is_consistent: bool,
    pub(crate) time_limit: Duration,
    pub(crate) give_up_after: Duration,
    pub(crate) attempts_max: Option<u32>,
    pub(crate) object: Option<Object>,
    pub(crate) resource: Option<Resource>,
    pub(crate) removes: Vec<ResourceId>,
    pub(crate) gates: Vec<Gate>,
    /// It has a `resource` of its own.
    pub(crate) says_resource: bool,
    /// It has a `compensate` of its own.
    pub(crate) says_undo: bool,
}

/// What an activity says of a call that makes nothing: to look for what was made, or to take it back.
#[derive(Debug, Clone)]
pub(crate) struct Passage {
    pub(crate) time_limit: Duration,
    pub(crate) gates: Vec<Gate>,
}

impl ActivityFacts {
    /// What of it could never be done: a way back that nothing leads to, or a thing without a way back.
    pub(crate) fn contradiction(&self) -> Option<String> {
        match &self.resource {
            None if self.says_undo && !self.says_resource => Some(
                "says how it is taken back and names no resource, so that it never would be: name what it makes in \
                 `resource`"
                    .to_owned(),
            ),
            // What lives in another thing goes with that, and what is kept is handed over.
            Some(Resource { kind, name, within: None, keeper: None, .. }) if !self.says_undo => Some(format!(
                "makes {kind} {name:?} and does not say how that is taken back: write `compensate`, or say who keeps it \
                 (`Resource::kept_by`)"
            )),
            _ => None,
        }
    }
}

/// A local activity as a journal knows it.
#[async_trait]
pub(crate) trait AnyLocal: Send + Sync {
    fn rule(&self) -> LocalRule;
    fn give_up_after(&self) -> Duration;
    fn attempts_max(&self) -> Option<u32>;
    async fn apply(&self, input: &Resolved, tx: &mut Tx<'_>) -> Result<Value, Failure>;
    async fn revert(&self, input: &Resolved, made: &Value, tx: &mut Tx<'_>) -> Result<(), Failure>;
}

/// A workflow as a journal knows it.
pub(crate) trait AnyWorkflow: Send + Sync {
    fn run(&self, saga: Saga, input: Value) -> BoxFuture<'static, crate::saga::Result<Value>>;
    fn owner(&self, input: &Value, output: &Value) -> Result<Option<String>, Failure>;
}

/// All that this binary offers: its activities, each with the client it calls with, and its workflows.
///
/// A saga is taken back by its activities alone, so an activity stays here for as long as a journal may name it, also
/// when no workflow asks for it any more. A name that is offered twice is the last one's; a workflow may be offered in
/// several [versions](crate::Workflow#changing-it).
///
/// A saga that needs an activity or a workflow which is not here is parked as
/// [`NoWorker`](crate::journal::state::Attention::NoWorker), on the way forward as on the way back: nothing
/// more of it is begun, it is not turned round for that, and it goes on by itself once a program that offers what it
/// waits for opens the store.
#[derive(Default, Clone)]
pub struct Registry {
    activities: HashMap<&'static str, Arc<dyn AnyActivity>>,
    locals: HashMap<&'static str, Arc<dyn AnyLocal>>,
    workflows: HashMap<(&'static str, u32), Arc<dyn AnyWorkflow>>,
    providers: Providers,
    sweep: Option<Sweep>,
}

impl Registry {
    /// Offers a provider: its activities, and what it holds to be compared with the ledger. The last one of a name
    /// counts.
    #[must_use]
    pub fn provider(self, provider: Arc<dyn Provider>) -> Self {
        let mut offered = provider.clone().register(self);
        offered.providers.0.retain(|known| known.name() != provider.name());
        offered.providers.0.push(provider);
        offered
    }

    /// Compares every [provider](Self::provider) with the ledger by the clock. Without this it is done only when it is
    /// [asked for](crate::Engine::sweep).
    #[must_use]
    pub fn sweep(mut self, sweep: Sweep) -> Self {
        self.sweep = Some(sweep);
        self
    }

    pub(crate) fn providers(&self) -> &Providers {
        &self.providers
    }

    pub(crate) fn sweeps(&self) -> Option<&Sweep> {
        self.sweep.as_ref()
    }

    /// Offers an activity, called with this client.
    #[must_use]
    pub fn activity<A: Activity>(mut self, client: Arc<A::Client>) -> Self {
        self.activities.insert(A::NAME, Arc::new(Bound::<A> { client }));
        self
    }

    /// Offers a removal, called with this client.
    #[must_use]
    pub fn removal<R: Removal>(self, client: Arc<R::Client>) -> Self {
        self.activity::<Remove<R>>(client)
    }

    /// Offers a local activity.
    #[must_use]
    pub fn local<L: Local>(mut self) -> Self {
        self.locals.insert(L::NAME, Arc::new(Here::<L>(std::marker::PhantomData)));
        self
    }

    /// Offers a workflow.
    #[must_use]
    pub fn workflow<W: Workflow>(mut self, workflow: W) -> Self {
        self.workflows.insert((W::NAME, W::VERSION), Arc::new(Defined(Arc::new(workflow))));
        self
    }

    /// The same, with something around each activity and each local activity.
    #[cfg(feature = "testing")]
    pub(crate) fn around(
        mut self,
        activity: impl Fn(Arc<dyn AnyActivity>) -> Arc<dyn AnyActivity>,
        local: impl Fn(Arc<dyn AnyLocal>) -> Arc<dyn AnyLocal>,
    ) -> Self {
        self.activities.values_mut().for_each(|inner| *inner = activity(inner.clone()));
        self.locals.values_mut().for_each(|inner| *inner = local(inner.clone()));
        self
    }

    pub(crate) fn find_activity(&self, name: &str) -> Option<&Arc<dyn AnyActivity>> {
        self.activities.get(name)
    }

    /// What stands against what an act says a step has made, as its activity reads it; nothing where nobody here
    /// offers that.
    pub(crate) fn problem_of(&self, state: &State, act: &Act) -> Option<String> {
        let (step, made) = match act {
            Act::Settle {
                step,
                verdict: Verdict::Adopt { output, .. } | Verdict::Useless { output, .. },
            }
            | Act::Done { step, output: Some(output) } => (step, output),
            _ => return None,
        };
        let asked = state.step(step)?.asked.as_ref()?;
        self.find_activity(&asked.activity)?.problem_of(made)
    }

    pub(crate) fn find_local(&self, name: &str) -> Option<&Arc<dyn AnyLocal>> {
        self.locals.get(name)
    }

    pub(crate) fn find_workflow(&self, name: &str, version: u32) -> Option<&Arc<dyn AnyWorkflow>> {
        self.workflows
            .iter()
            .find_map(|((known, at), workflow)| (*known == name && *at == version).then_some(workflow))
    }
}

fn unreadable(name: &str, error: &serde_json::Error) -> Failure {
    Failure::refused("unreadable", format!("{name}: its journalled value does not read: {error}"))
}

fn read<T: serde::de::DeserializeOwned>(name: &str, value: &Value) -> Result<T, Failure> {
    said("deserialize", name, || T::deserialize(value))?.map_err(|error| unreadable(name, &error))
}

fn read_input<T: serde::de::DeserializeOwned>(name: &str, input: &Resolved) -> Result<T, Failure> {
    said("deserialize", name, || input.read())?.map_err(|error| unreadable(name, &error))
}

/// Whether an activity has a `compensate` of its own: the one that it has otherwise answers with a type that nobody
/// else can name. Nothing is called for that.
fn says_undo<A: Activity>() -> bool {
    fn answer_of<A: Activity, F, R: 'static>(_: F) -> TypeId
    where
        F: FnOnce(&'static A, &'static A::Client, &'static A::Output, &'static Call) -> R,
    {
        TypeId::of::<R>()
    }
    let answer =
        answer_of(|activity: &'static A, client, made, call| activity.compensate(client, made, call));
    answer != TypeId::of::<Uncompensated>()
}

struct Bound<A: Activity> {
    client: Arc<A::Client>,
}

impl<A: Activity> Bound<A> {
    /// Permits and windows reckon with no call that takes longer.
    fn time_limit() -> Duration {
        A::TIME_LIMIT.min(CALL_MAX)
    }

    /// What was made, as a journal keeps it. It happened, so that what stands against that is no failure of it; a panic
    /// is as one in the call.
    fn kept(made: A::Output) -> Result<Yield, Failure> {
        let written = unpanicked(|| data::output("its output", &made)).ok_or_else(|| {
            let detail = panicked(&format!("serialize of {}", A::NAME));
            Failure::NoAnswer { cause: Cause::Panic, detail }
        })?;
        let external_id = said("external_id", A::NAME, || A::external_id(&made));
        let id = external_id.as_ref().ok().and_then(Option::as_ref);
        let fits = id.map_or(Ok(()), |id| limits::name("its external id", id));
        match written.and_then(|written| fits.clone().map(|()| written)) {
            Ok(written) => Ok(Yield::Kept { value: written.value, is_none: written.is_none, external_id }),
            Err(error) => {
                let external_id = id.filter(|_| fits.is_ok()).cloned();
                Ok(Yield::Unkept(Unkept { made: Arc::new(made), problem: error.to_string(), external_id }))
            }
        }
    }

    /// What is there of a call whose answer could not be kept.
    async fn look_again(&self, activity: &A, call: &Call) -> Result<Option<A::Output>, Failure> {
        if A::EFFECT.is_sent_again() {
            return activity.execute(&self.client, call).await.map(Some);
        }
        match activity.find(&self.client, call).await? {
            Found::Usable(made) | Found::Unusable(made) => Ok(Some(made)),
            Found::Nothing | Found::Unknowable => Ok(None),
        }
    }
}

#[async_trait]
impl<A: Activity> AnyActivity for Bound<A> {
    fn facts(&self, input: &Resolved, call: &Call) -> Result<ActivityFacts, Failure> {
        let activity: A = read_input(A::NAME, input)?;
        call.says_no_resource.store(false, Ordering::Relaxed);
        let resource = said("resource", A::NAME, || activity.resource(call))?;
        // A later generation's name is a little longer.
        if call.generation() == 1 {
            resource.iter().try_for_each(Resource::check)?;
        }
        let gates = said("gates", A::NAME, || activity.gates(&self.client))?;
        gates.iter().try_for_each(|gate| limits::name("the key of its gate", &gate.key))?;
        let removes = said("removes", A::NAME, || activity.removes())?;
        let settle_after = said("settle_after", A::NAME, || activity.settle_after(&self.client))?;
        let object = said("object", A::NAME, || activity.object(call))?;
        if let Some(Object { provider, kind, id }) = &object {
            for text in [provider, kind, id] {
                limits::name("a part of its object", text)?;
            }
        }
        // Nothing is lost of a read; but one that says what has gone may read a list that lags behind.
        let sees_gone = A::EFFECT == Effect::Read && !removes.is_empty();
        Ok(ActivityFacts {
            effect: A::EFFECT,
            settle_after: if sees_gone && settle_after.is_zero() {
                super::SETTLE_AFTER
            } else {
                settle_after
            },
            is_consistent: A::STRONGLY_CONSISTENT,
            time_limit: Self::time_limit(),
            give_up_after: A::GIVE_UP_AFTER,
            attempts_max: A::ATTEMPTS_MAX,
            object,
            resource,
            removes,
            gates,
            says_resource: !call.says_no_resource.load(Ordering::Relaxed),
            says_undo: says_undo::<A>(),
        })
    }

    fn passage(&self, input: &Resolved) -> Result<Passage, Failure> {
        let activity: A = read_input(A::NAME, input)?;
        let gates = said("gates", A::NAME, || activity.gates(&self.client))?;
        Ok(Passage { time_limit: Self::time_limit(), gates })
    }

    fn external_id(&self, made: &Value) -> Result<Option<String>, Failure> {
        match read(A::NAME, made) {
            Ok(made) => said("external_id", A::NAME, || A::external_id(&made)),
            Err(failure) if failure.is_panic() => Err(failure),
            Err(_) => Ok(None),
        }
    }

    fn problem_of(&self, made: &Value) -> Option<String> {
        match said("deserialize", A::NAME, || <A::Output as serde::Deserialize>::deserialize(made).err()) {
            Ok(Some(error)) => Some(format!("{} does not make that: {error}", A::NAME)),
            Ok(None) => match self.external_id(made) {
                Ok(id) => limits::name("the id that it has outside", &id?).err().map(|it| it.to_string()),
                // A panic is said by the step that meets it.
                Err(_) => None,
            },
            Err(failure) => Some(failure.detail()),
        }
    }

    async fn execute(&self, input: &Resolved, call: &Call, _: Leave) -> Result<Yield, Failure> {
        let activity: A = read_input(A::NAME, input)?;
        activity.execute(&self.client, call).await.and_then(Self::kept)
    }

    async fn find(&self, input: &Resolved, call: &Call, _: Leave) -> Result<Found<Yield>, Failure> {
        let activity: A = read_input(A::NAME, input)?;
        Ok(match activity.find(&self.client, call).await? {
            Found::Nothing => Found::Nothing,
            Found::Unknowable => Found::Unknowable,
            Found::Usable(made) => Found::Usable(Self::kept(made)?),
            Found::Unusable(made) => Found::Unusable(Self::kept(made)?),
        })
    }

    async fn compensate(&self, input: &Resolved, made: &Taken, call: &Call, _: Leave) -> Result<(), Failure> {
        let activity: A = read_input(A::NAME, input)?;
        if let Taken::Unkept(unkept) = made
            && let Some(made) = unkept.made.downcast_ref::<A::Output>()
        {
            return activity.compensate(&self.client, made, call).await;
        }
        let made = match made {
            Taken::Kept(made) => Some(read(A::NAME, made)?),
            Taken::Unkept(_) | Taken::Unknown => self.look_again(&activity, call).await?,
        };
        match made {
            Some(made) => activity.compensate(&self.client, &made, call).await,
            None => Err(Failure::refused(
                "unstorable",
                "what it made could not be kept, and looking for it does not show it",
            )),
        }
    }
}

struct Here<L>(std::marker::PhantomData<fn() -> L>);

#[async_trait]
impl<L: Local> AnyLocal for Here<L> {
    fn rule(&self) -> LocalRule {
        if L::REVERTS { LocalRule::Reverts } else { LocalRule::Stays }
    }

    fn give_up_after(&self) -> Duration {
        L::GIVE_UP_AFTER
    }

    fn attempts_max(&self) -> Option<u32> {
        L::ATTEMPTS_MAX
    }

    async fn apply(&self, input: &Resolved, tx: &mut Tx<'_>) -> Result<Value, Failure> {
        let local: L = read_input(L::NAME, input)?;
        let made = done("apply", L::NAME, local.apply(tx)).await?;
        // It is rolled back, so that nothing is in doubt.
        Ok(said("serialize", L::NAME, || data::output("its output", &made))??.value)
    }

    async fn revert(&self, input: &Resolved, made: &Value, tx: &mut Tx<'_>) -> Result<(), Failure> {
        let local: L = read_input(L::NAME, input)?;
        let made: L::Output = read(L::NAME, made)?;
        done("revert", L::NAME, local.revert(&made, tx)).await
    }
}

struct Defined<W>(Arc<W>);

impl<W: Workflow> AnyWorkflow for Defined<W> {
    fn run(&self, saga: Saga, input: Value) -> BoxFuture<'static, crate::saga::Result<Value>> {
        let workflow = self.0.clone();
        Box::pin(async move {
            let halt =
                |code: &str, error: String| crate::saga::Halt::give_up(code, format!("{}: {error}", W::NAME));
            let input =
                W::Input::deserialize(&input).map_err(|error| halt("unreadable", error.to_string()))?;
            let output = workflow.run(&saga, input).await?;
            let written = data::output("its output", &output);
            written.map(|written| written.value).map_err(|error| halt("unstorable", error.to_string()))
        })
    }

    fn owner(&self, input: &Value, output: &Value) -> Result<Option<String>, Failure> {
        said("owner", W::NAME, || {
            W::owner(&W::Input::deserialize(input).ok()?, &W::Output::deserialize(output).ok()?)
        })
    }
}

//! The registry: activities and workflows by name, so that a journal alone can call them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use serde_json::Value;

use super::{Activity, CALL_MAX, Call, Effect, Failure, Found, Gate, Local, Resource};
use crate::ids::ResourceId;
use crate::journal::State;
use crate::journal::act::{Act, Verdict};
use crate::journal::event::LocalRule;
use crate::saga::{Saga, Workflow};
use crate::store::tx::Tx;

/// An activity as a journal knows it: by name, with its input as JSON.
#[async_trait]
pub(crate) trait AnyActivity: Send + Sync {
    fn facts(&self, input: &Value, call: &Call) -> Result<ActivityFacts, Failure>;
    fn external_id(&self, made: &Value) -> Option<String>;
    /// What stands against this as what it made.
    fn problem_of(&self, made: &Value) -> Option<String>;
    async fn execute(&self, input: &Value, call: &Call) -> Result<Value, Failure>;
    async fn find(&self, input: &Value, call: &Call) -> Result<Found<Value>, Failure>;
    async fn compensate(&self, input: &Value, made: &Value, call: &Call) -> Result<(), Failure>;
}

/// What an activity says of itself before it is called.
#[derive(Debug, Clone)]
pub(crate) struct ActivityFacts {
    pub(crate) effect: Effect,
    pub(crate) time_limit: Duration,
    pub(crate) give_up_after: Duration,
    pub(crate) resource: Option<Resource>,
    pub(crate) removes: Vec<ResourceId>,
    pub(crate) gates: Vec<Gate>,
}

/// A local activity as a journal knows it.
#[async_trait]
pub(crate) trait AnyLocal: Send + Sync {
    fn rule(&self) -> LocalRule;
    fn give_up_after(&self) -> Duration;
    async fn apply(&self, input: &Value, tx: &mut Tx<'_>) -> Result<Value, Failure>;
    async fn revert(&self, input: &Value, made: &Value, tx: &mut Tx<'_>) -> Result<(), Failure>;
}

/// A workflow as a journal knows it.
pub(crate) trait AnyWorkflow: Send + Sync {
    fn run(&self, saga: Saga, input: Value) -> BoxFuture<'static, crate::saga::Result<Value>>;
    fn owner(&self, input: &Value, output: &Value) -> Option<String>;
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
}

impl Registry {
    /// Offers an activity, called with this client.
    #[must_use]
    pub fn activity<A: Activity>(mut self, client: Arc<A::Client>) -> Self {
        self.activities.insert(A::NAME, Arc::new(Bound::<A> { client }));
        self
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
    T::deserialize(value).map_err(|error| unreadable(name, &error))
}

fn write<T: serde::Serialize>(name: &str, value: &T) -> Result<Value, Failure> {
    serde_json::to_value(value).map_err(|error| unreadable(name, &error))
}

struct Bound<A: Activity> {
    client: Arc<A::Client>,
}

#[async_trait]
impl<A: Activity> AnyActivity for Bound<A> {
    fn facts(&self, input: &Value, call: &Call) -> Result<ActivityFacts, Failure> {
        let activity: A = read(A::NAME, input)?;
        Ok(ActivityFacts {
            effect: A::EFFECT,
            // Permits and windows reckon with no call that takes longer.
            time_limit: A::TIME_LIMIT.min(CALL_MAX),
            give_up_after: A::GIVE_UP_AFTER,
            resource: activity.resource(call),
            removes: activity.removes(),
            gates: activity.gates(&self.client),
        })
    }

    fn external_id(&self, made: &Value) -> Option<String> {
        A::external_id(&read(A::NAME, made).ok()?)
    }

    fn problem_of(&self, made: &Value) -> Option<String> {
        let read = <A::Output as serde::Deserialize>::deserialize(made);
        read.err().map(|error| format!("{} does not make that: {error}", A::NAME))
    }

    async fn execute(&self, input: &Value, call: &Call) -> Result<Value, Failure> {
        let activity: A = read(A::NAME, input)?;
        let made = activity.execute(&self.client, call).await?;
        write(A::NAME, &made)
    }

    async fn find(&self, input: &Value, call: &Call) -> Result<Found<Value>, Failure> {
        let activity: A = read(A::NAME, input)?;
        Ok(match activity.find(&self.client, call).await? {
            Found::Nothing => Found::Nothing,
            Found::Unknowable => Found::Unknowable,
            Found::Usable(made) => Found::Usable(write(A::NAME, &made)?),
            Found::Unusable(made) => Found::Unusable(write(A::NAME, &made)?),
        })
    }

    async fn compensate(&self, input: &Value, made: &Value, call: &Call) -> Result<(), Failure> {
        let activity: A = read(A::NAME, input)?;
        let made: A::Output = read(A::NAME, made)?;
        activity.compensate(&self.client, &made, call).await
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

    async fn apply(&self, input: &Value, tx: &mut Tx<'_>) -> Result<Value, Failure> {
        let local: L = read(L::NAME, input)?;
        let made = local.apply(tx).await?;
        write(L::NAME, &made)
    }

    async fn revert(&self, input: &Value, made: &Value, tx: &mut Tx<'_>) -> Result<(), Failure> {
        let local: L = read(L::NAME, input)?;
        let made: L::Output = read(L::NAME, made)?;
        local.revert(&made, tx).await
    }
}

struct Defined<W>(Arc<W>);

impl<W: Workflow> AnyWorkflow for Defined<W> {
    fn run(&self, saga: Saga, input: Value) -> BoxFuture<'static, crate::saga::Result<Value>> {
        let workflow = self.0.clone();
        Box::pin(async move {
            let misread = |error: serde_json::Error| {
                crate::saga::Halt::give_up("unreadable", format!("{}: {error}", W::NAME))
            };
            let input = serde_json::from_value(input).map_err(misread)?;
            let output = workflow.run(&saga, input).await?;
            serde_json::to_value(output).map_err(misread)
        })
    }

    fn owner(&self, input: &Value, output: &Value) -> Option<String> {
        use serde::Deserialize;
        W::owner(&W::Input::deserialize(input).ok()?, &W::Output::deserialize(output).ok()?)
    }
}

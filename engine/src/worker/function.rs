//! The function of a saga, as the turn sees it: told what was decided, polled, and compared with its journal.
//!
//! Nothing here does IO or looks at a clock: the same code runs live, in replay, and with all effects off.

use std::collections::HashSet;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::future::BoxFuture;
use serde_json::Value;

use crate::activity::attempt::panicked;
use crate::activity::registry::AnyWorkflow;
use crate::data::Reference;
use crate::ids::StepKey;
use crate::journal::event::{ChildFate, ChildRule, Event, FoundKind};
use crate::journal::{Entry, State};
use crate::saga::{Ask, AskKind, Halt, Progress, Saga};

/// A saga's function between two turns.
pub(super) struct Function {
    context: Saga,
    future: Option<BoxFuture<'static, crate::saga::Result<Value>>>,
    /// What it came to, until what is still under way is settled.
    pub(super) returned: Option<crate::saga::Result<Value>>,
    /// What it asked for and what is not in the journal yet.
    pub(super) asks: Vec<Ask>,
    /// How it differs from its journal, with both sides.
    diverged: Option<String>,
    /// In replay, what it has asked for.
    asked: Option<HashSet<StepKey>>,
}

impl Function {
    /// A saga whose function does not run: it is not offered here, or is not needed any more.
    pub(super) fn absent() -> Self {
        Self {
            context: Saga::new(),
            future: None,
            returned: None,
            asks: Vec::new(),
            diverged: None,
            asked: None,
        }
    }

    /// Runs it from its start to where its journal ends: one recorded outcome, one poll.
    pub(super) fn replay(workflow: &Arc<dyn AnyWorkflow>, state: &State, entries: &[Entry]) -> Self {
        let mut function = Self::absent();
        function.future = Some(workflow.run(function.context.clone(), state.input.clone()));
        function.asked = Some(HashSet::new());
        function.poll(state);
        for entry in entries {
            function.tell(state, &entry.event);
        }
        // What it asked for once it asks for again, in whatever order.
        let asked = function.asked.take().unwrap_or_default();
        if function.diverged.is_none()
            && let Some(left) = state.steps().iter().find(|step| !asked.contains(&step.key))
        {
            let what = left.asked.as_ref().map_or(String::new(), |asked| format!(" ({})", asked.activity));
            let detail =
                format!("the journal has step {}{what}, and the function does not ask for it", left.key);
            function.stop();
            function.returned = None;
            function.diverged = Some(detail);
        }
        function
    }

    pub(super) fn is_running(&self) -> bool {
        self.future.is_some()
    }

    /// Drops it: what it asked for is not begun any more.
    pub(super) fn stop(&mut self) {
        self.drop_future();
        self.asks.clear();
    }

    /// What it holds is the user's, and may panic as it is dropped.
    fn drop_future(&mut self) {
        let future = self.future.take();
        let _ = catch_unwind(AssertUnwindSafe(move || drop(future)));
    }

    /// Ends it as if it had returned this.
    pub(super) fn halt(&mut self, halt: Halt) {
        self.stop();
        self.returned = Some(Err(halt));
    }

    /// How it differs from its journal, once.
    pub(super) fn take_divergence(&mut self) -> Option<String> {
        self.diverged.take()
    }

    /// Whether it waits for nothing it asked for, except what stands in a branch that was dropped.
    pub(super) fn waits_for_nothing(&self, dropped: impl Fn(&StepKey) -> bool) -> bool {
        self.is_running() && self.asks.is_empty() && self.context.core().waits_for_nothing(dropped)
    }

    /// The key that it asked for last.
    pub(super) fn last_key(&self) -> Option<StepKey> {
        self.context.core().last().cloned()
    }

    pub(super) fn progress(&self) -> Option<Progress> {
        self.context.core().progress
    }

    /// What it shows under this name.
    pub(super) fn shown(&self, name: &str) -> Option<Value> {
        self.context.core().shown.get(name).cloned()
    }

    /// Tells it what an event decides for it, if anything, and lets it go on.
    pub(super) fn tell(&mut self, state: &State, event: &Event) {
        if self.future.is_none() {
            return;
        }
        let delivery = match event {
            Event::StepCompleted { step, output, .. } => Some((step, Ok(Some(output.clone())))),
            Event::StepFound { step, found: FoundKind::Usable, output: Some(output), .. } => {
                Some((step, Ok(Some(output.clone()))))
            }
            Event::SignalReceived { step, value } | Event::ValueDrawn { step, value } => {
                Some((step, Ok(Some(value.clone()))))
            }
            Event::TimerFired { step } => Some((step, Ok(None))),
            Event::StepFailed { step, refusal, .. } => Some((step, Err(refusal.clone()))),
            Event::LabelSet { step: Some(step), .. } | Event::DeferRegistered { step, .. } => {
                Some((step, Ok(None)))
            }
            Event::ChildStarted { step, child, asked: Some(asked) }
                if asked.child == Some(ChildRule::Started) =>
            {
                Some((step, Ok(Some(Value::from(child.as_str())))))
            }
            Event::ChildEnded { step, fate, output, refusal, .. } if is_called(state, step) => match fate {
                ChildFate::Done | ChildFate::Kept => Some((step, Ok(output.clone()))),
                ChildFate::Gone => refusal.clone().map(|refusal| (step, Err(refusal))),
            },
            Event::RaceDecided { scope, .. } => Some((scope, Ok(None))),
            Event::ScopeUnwound { scope } => Some((scope, Ok(None))),
            _ => None,
        };
        if let Some((key, delivery)) = delivery {
            self.context.core().deliver(key, delivery);
            self.poll(state);
        }
    }

    fn poll(&mut self, state: &State) {
        let Some(future) = self.future.as_mut() else { return };
        let polled =
            catch_unwind(AssertUnwindSafe(|| Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))));
        match polled {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(result)) => {
                self.drop_future();
                self.returned = Some(result);
            }
            Err(_) => {
                self.drop_future();
                let message = panicked(&format!("run of {}", state.workflow.0));
                self.returned = Some(Err(Halt::give_up("panic", message)));
            }
        }
        let fresh = self.context.core().take_fresh();
        for ask in fresh {
            if let Some(asked) = &mut self.asked {
                asked.insert(ask.key.clone());
            }
            match recorded(state, &ask) {
                Recorded::No => self.asks.push(ask),
                Recorded::Same => {}
                Recorded::Differs(detail) => {
                    self.drop_future();
                    self.diverged.get_or_insert(detail);
                    return;
                }
            }
        }
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        self.drop_future();
    }
}

fn is_called(state: &State, step: &StepKey) -> bool {
    let asked = state.step(step).and_then(|step| step.asked.as_ref());
    asked.is_some_and(|asked| asked.child == Some(ChildRule::Called))
}

/// Whether the journal holds this step already, and as the same.
fn recorded(state: &State, ask: &Ask) -> Recorded {
    if let AskKind::Unwind { .. } = ask.kind {
        let turned = state.turned_scopes.contains(&ask.key);
        let ended = state.ended_scopes.contains(&ask.key);
        return if turned || ended { Recorded::Same } else { Recorded::No };
    }
    if let AskKind::Race { winner, .. } = &ask.kind {
        return match state.races.get(&ask.key) {
            None => Recorded::No,
            Some(recorded) if recorded == winner => Recorded::Same,
            Some(recorded) => Recorded::Differs(format!(
                "race {}: the journal has {recorded} as its winner, the function {winner}",
                ask.key
            )),
        };
    }
    let Some(step) = state.step(&ask.key) else { return Recorded::No };
    let (name, input) = match &ask.kind {
        AskKind::Activity { name, input, .. }
        | AskKind::Local { name, input, .. }
        | AskKind::Defer { name, input } => (*name, input),
        AskKind::Child { workflow, input, .. } => (*workflow, input),
        _ if step.asked.is_none() => return Recorded::Same,
        _ => return Recorded::Differs(format!("step {} was an activity and is none now", ask.key)),
    };
    match &step.asked {
        Some(asked)
            if asked.activity == name
                && asked.input == input.value
                && asked.references == input.references =>
        {
            Recorded::Same
        }
        Some(asked) => Recorded::Differs(format!(
            "step {}: the journal has {} {}{}, the function asks for {name} {}{}",
            ask.key,
            asked.activity,
            asked.input,
            held(&asked.references),
            input.value,
            held(&input.references)
        )),
        None => Recorded::Differs(format!("step {} is an activity now and was none", ask.key)),
    }
}

/// What an input holds that other steps made, in words.
fn held(references: &[Reference]) -> String {
    references
        .iter()
        .map(|reference| format!(" ({} is what {} made)", reference.at, reference.step))
        .collect()
}

enum Recorded {
    No,
    Same,
    Differs(String),
}

//! The saga's function: told what was decided, polled, and compared with its journal.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use serde_json::Value;

use super::*;
use crate::journal::event::{Event, FoundKind};
use crate::journal::state::Attention;
use crate::saga::{Ask, AskKind};

impl Executor {
    /// Tells the function what an event decides for it, if anything, and lets it go on.
    pub(super) fn tell(&mut self, event: &Event) {
        if self.function.is_none() {
            return;
        }
        let delivery = match event {
            Event::StepCompleted { step, output, .. } => Some((step, Ok(output.clone()))),
            Event::StepFound { step, found: FoundKind::Usable, output: Some(output), .. } => {
                Some((step, Ok(output.clone())))
            }
            Event::SignalReceived { step, value } | Event::ValueDrawn { step, value } => {
                Some((step, Ok(value.clone())))
            }
            Event::TimerFired { step } => Some((step, Ok(Value::Null))),
            Event::StepFailed { step, refusal } => Some((step, Err(refusal.clone()))),
            Event::ScopeUnwound { scope } => Some((scope, Ok(Value::Null))),
            _ => None,
        };
        if let Some((key, delivery)) = delivery {
            self.context.core().deliver(key, delivery);
            self.poll();
        }
    }

    pub(super) fn poll(&mut self) {
        let Some(function) = self.function.as_mut() else { return };
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            Pin::new(function).poll(&mut Context::from_waker(Waker::noop()))
        }));
        match polled {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(result)) => {
                self.function = None;
                self.returned = Some(result);
            }
            Err(_) => {
                self.function = None;
                self.returned =
                    Some(Err(crate::saga::Halt::give_up("panic", "the saga's function panicked")));
            }
        }
        let fresh = self.context.core().take_fresh();
        for ask in fresh {
            match self.already_asked(&ask) {
                Recorded::No => self.asks.push(ask),
                Recorded::Same => {}
                Recorded::Differs(detail) => {
                    self.function = None;
                    if self.state.parked.is_none() {
                        self.record(Event::Parked { attention: Attention::Diverged, detail });
                    }
                    return;
                }
            }
        }
    }

    /// Whether the journal holds this step already, and as the same.
    fn already_asked(&self, ask: &Ask) -> Recorded {
        if let AskKind::Unwind { .. } = ask.kind {
            let turned = self.state.turned_scopes.contains(&ask.key);
            let ended = self.state.ended_scopes.contains(&ask.key);
            return if turned || ended { Recorded::Same } else { Recorded::No };
        }
        let Some(step) = self.state.step(&ask.key) else { return Recorded::No };
        let (name, input) = match &ask.kind {
            AskKind::Activity { name, input, .. } | AskKind::Local { name, input, .. } => (*name, input),
            _ if step.asked.is_none() => return Recorded::Same,
            _ => return Recorded::Differs(format!("step {} was an activity and is none now", ask.key)),
        };
        match &step.asked {
            Some(asked) if asked.activity == name && asked.input == *input => Recorded::Same,
            Some(asked) => Recorded::Differs(format!(
                "step {}: the journal has {} {}, the function asks for {name} {input}",
                ask.key, asked.activity, asked.input
            )),
            None => Recorded::Differs(format!("step {} is an activity now and was none", ask.key)),
        }
    }
}

enum Recorded {
    No,
    Same,
    Differs(String),
}

//! What the saga's function asks for, turned into intents.

use serde_json::Value;

use super::*;
use crate::activity::registry::ActivityFacts;
use crate::activity::{Cause, Effect};
use crate::ids::{ResourceId, StepKey};
use crate::journal::event::{Asked, Event, LocalRule, Named};
use crate::journal::state::Phase;
use crate::saga::{Ask, AskKind};

impl Executor {
    pub(super) fn accept_asks(&mut self) {
        for ask in std::mem::take(&mut self.asks) {
            // A function that has returned no longer waits for what it asked for last.
            if self.state.unwinding.is_some() || self.function.is_none() {
                return;
            }
            self.accept(ask);
        }
    }

    pub(super) fn accept(&mut self, ask: Ask) {
        let now = self.shared.env.now();
        let Ask { key, after, kind } = ask;
        match kind {
            AskKind::Activity { name, input, pivot, poll } => {
                let Some(activity) = self.shared.registry.find_activity(name).cloned() else {
                    return self.misuse(&key, &format!("no activity {name} is registered"));
                };
                let call = self.call(&key, 1, 1);
                let facts = match activity.facts(&self.resolved(&input), &call) {
                    Ok(facts) => facts,
                    Err(failure) => return self.misuse(&key, &failure.to_string()),
                };
                if let Some(problem) = self.forbidden(pivot, facts.resource.is_some()) {
                    return self.misuse(&key, problem);
                }
                let limit = poll.map_or(facts.give_up_after, |(_, limit)| limit);
                let asked = Asked {
                    activity: name.to_owned(),
                    input,
                    after,
                    local: None,
                    effect: facts.effect,
                    pivot,
                    every: poll.map(|(every, _)| every),
                    give_up_at: now.plus(self.shared.env.paced(limit)),
                    removes: facts.removes.clone(),
                };
                self.attempt(&key, Some(asked), facts);
            }
            AskKind::Local { name, input, pivot } => {
                let Some(local) = self.shared.registry.find_local(name) else {
                    return self.misuse(&key, &format!("no local activity {name} is registered"));
                };
                let rule = local.rule();
                if let Some(problem) = self.forbidden(pivot, rule == LocalRule::Reverts) {
                    return self.misuse(&key, problem);
                }
                let asked = Asked {
                    activity: name.to_owned(),
                    input,
                    after,
                    local: Some(rule),
                    effect: Effect::Repeatable,
                    pivot,
                    every: None,
                    give_up_at: now.plus(self.shared.env.paced(local.give_up_after())),
                    removes: Vec::new(),
                };
                self.intend_local(&key, Some(asked));
            }
            AskKind::Timer { wait } => {
                let due_at = now.plus(self.shared.env.paced(wait));
                self.record(Event::TimerSet { step: key, due_at, signal: None });
            }
            AskKind::Signal { name, limit } => {
                let due_at = now.plus(self.shared.env.paced(limit));
                self.record(Event::TimerSet { step: key, due_at, signal: Some(name) });
                // It may have come before it was asked for.
                self.reread = true;
            }
            AskKind::Now => self.record(Event::ValueDrawn { step: key, value: Value::from(now.0) }),
            AskKind::Unwind { refusal } => self.record(Event::ScopeTurned { scope: key, refusal }),
        }
    }

    /// What the journal promises must be possible: said when the step is asked for, before its intent.
    pub(super) fn forbidden(&self, pivot: bool, compensable: bool) -> Option<&'static str> {
        let pivot_before =
            self.state.steps().iter().any(|step| {
                step.asked.as_ref().is_some_and(|asked| asked.pivot) && step.phase != Phase::Refused
            });
        if pivot && pivot_before {
            Some("a saga has one pivot, and this is the second")
        } else if pivot && compensable {
            Some("a pivot cannot be taken back, and this makes something that would have to be")
        } else if compensable && self.state.pivot.is_some() {
            Some("nothing is taken back after the pivot, and this makes something that would have to be")
        } else {
            None
        }
    }

    pub(super) fn misuse(&mut self, step: &StepKey, problem: &str) {
        let halt = crate::saga::Halt::Misuse { step: step.clone(), problem: problem.to_owned() };
        self.function = None;
        self.returned = Some(Err(halt));
    }

    /// Records the intent of an attempt, or that its gate is closed.
    pub(super) fn attempt(&mut self, key: &StepKey, asked: Option<Asked>, facts: ActivityFacts) {
        let env = &self.shared.env;
        let known = self.state.step(key);
        let attempt = known.map_or(1, |step| step.attempts + 1);
        let generation = known.map_or(1, |step| step.generation);
        let has_row = known.is_some_and(|step| step.resource.is_some());
        match self.shared.gates.pass(&facts.gates, env) {
            Ok(gates) => {
                let resource = facts
                    .resource
                    .filter(|_| !has_row)
                    .map(|resource| Box::new(Named { id: ResourceId::from_uuid(env.uuid()), resource }));
                let not_after = env.now().plus(env.time_limit(facts.time_limit));
                let asked = asked.map(Box::new);
                self.turn.gates.extend(gates);
                let step = key.clone();
                self.record(Event::AttemptStarted { step, attempt, generation, not_after, asked, resource });
                self.turn.launches.push(Launch::Execute(key.clone()));
            }
            Err(gate) => self.record(Event::AttemptDeferred {
                step: key.clone(),
                attempt: None,
                cause: Cause::RateLimited,
                detail: format!("gate {} is closed: {}", gate.key, gate.reason),
                retry_at: gate.next_allowed_at,
                asked: asked.map(Box::new),
            }),
        }
    }

    pub(super) fn intend_local(&mut self, key: &StepKey, asked: Option<Asked>) {
        let attempt = self.state.step(key).map_or(1, |step| step.attempts + 1);
        let not_after = self.shared.env.now();
        let (step, asked) = (key.clone(), asked.map(Box::new));
        self.record(Event::AttemptStarted { step, attempt, generation: 1, not_after, asked, resource: None });
        self.turn.launches.push(Launch::Apply(key.clone()));
    }
}

//! What the saga's function asks for, turned into intents.

use serde_json::Value;

use super::*;
use crate::activity::registry::ActivityFacts;
use crate::activity::{Cause, Effect, Gate, Object};
use crate::data::Input;
use crate::gate::Lane;
use crate::ids::{ResourceId, SagaId, StepKey};
use crate::journal::event::{Asked, ChildRule, Event, LocalRule, Named, Parent};
use crate::journal::state::{Attention, Phase};
use crate::saga::{Ask, AskKind};
use crate::store::NewSaga;
use crate::worker::executor::calls::NoFacts;
use crate::worker::gates::Answer;

/// A saga whose function has asked for so much is parked before it asks for more. What is tried again and again for one
/// step does not count, nor does undoing.
const STEPS_MAX: usize = 20_000;

impl Executor {
    pub(super) fn accept_asks(&mut self) {
        // What it asks for while it is paused is kept until it goes on.
        if self.state.paused.is_some() {
            return;
        }
        for ask in std::mem::take(&mut self.function.asks) {
            // A function that has returned no longer waits for what it asked for last.
            if self.state.unwinding.is_some() || !self.function.is_running() {
                return;
            }
            // Nor does a branch that was dropped when its race was decided.
            if self.state.is_turned(&ask.key) {
                continue;
            }
            if self.state.steps().len() >= STEPS_MAX && self.state.parked.is_none() {
                let detail = format!(
                    "its function has asked for {} steps, and {STEPS_MAX} are allowed",
                    self.state.steps().len()
                );
                self.record(Event::Parked { attention: Attention::OverLimit, detail });
            }
            if self.state.parked.is_some() {
                self.function.asks.push(ask);
                continue;
            }
            self.accept(ask);
        }
    }

    pub(super) fn accept(&mut self, ask: Ask) {
        let now = self.shared.env.now();
        let Ask { key, after, said, kind } = ask;
        match kind {
            AskKind::Activity { name, input, pivot, poll } => {
                let asked = Asked::bare(name, input, after, said, now);
                let Some(facts) = self.first_facts(&key, &asked) else {
                    let (input, Asked { after, said, .. }) = (asked.request(), asked);
                    let kind = AskKind::Activity { name, input, pivot, poll };
                    return self.not_yet(Ask { key, after, said, kind });
                };
                if let Some(problem) = self.forbidden(pivot, facts.resource.is_some()) {
                    return self.misuse(&key, problem);
                }
                let outer = facts.resource.as_ref().and_then(|resource| resource.within.as_ref());
                if let Some(outer) = outer.filter(|outer| self.state.step(outer).is_none()) {
                    let problem =
                        format!("its resource is to live within that of {outer}, and there is no such step");
                    return self.misuse(&key, &problem);
                }
                let limit = poll.map_or(facts.give_up_after, |(_, limit)| limit);
                let asked = Asked {
                    effect: facts.effect,
                    settle_after: self.shared.env.paced(facts.settle_after),
                    is_consistent: facts.is_consistent,
                    object: facts.object.clone(),
                    attempts_max: facts.attempts_max,
                    pivot,
                    every: poll.map(|(every, _)| every),
                    give_up_at: now.plus(self.shared.env.paced(limit)),
                    removes: facts.removes.clone(),
                    ..asked
                };
                if let Some(asked) = self.attempt(&key, Some(asked), facts) {
                    let (input, Asked { after, said, .. }) = (asked.request(), asked);
                    let kind = AskKind::Activity { name, input, pivot, poll };
                    self.function.asks.push(Ask { key, after, said, kind });
                }
            }
            AskKind::Defer { name, input } => {
                let asked = Asked::bare(name, input, after, said, now);
                let Some(facts) = self.first_facts(&key, &asked) else {
                    let (input, Asked { after, said, .. }) = (asked.request(), asked);
                    return self.not_yet(Ask { key, after, said, kind: AskKind::Defer { name, input } });
                };
                if facts.resource.is_some() {
                    let problem = "what is put off to the end is not taken back, and this makes something";
                    return self.misuse(&key, problem);
                }
                let asked = Box::new(Asked {
                    effect: facts.effect,
                    settle_after: self.shared.env.paced(facts.settle_after),
                    is_consistent: facts.is_consistent,
                    object: facts.object,
                    removes: facts.removes,
                    deferred: true,
                    ..asked
                });
                self.record(Event::DeferRegistered { step: key, asked });
            }
            AskKind::Child { workflow, version, input, rule } => {
                self.start_child(key, workflow, version, input, rule, (after, said));
            }
            AskKind::Local { name, input, pivot } => {
                let Some(local) = self.shared.registry.find_local(name) else {
                    self.no_worker(format!("no worker here offers the local activity {name}"));
                    let kind = AskKind::Local { name, input, pivot };
                    return self.function.asks.push(Ask { key, after, said, kind });
                };
                let rule = local.rule();
                if let Some(problem) = self.forbidden(pivot, rule == LocalRule::Reverts) {
                    return self.misuse(&key, problem);
                }
                let asked = Asked {
                    local: Some(rule),
                    pivot,
                    give_up_at: now.plus(self.shared.env.paced(local.give_up_after())),
                    attempts_max: local.attempts_max(),
                    ..Asked::bare(name, input, after, said, now)
                };
                self.intend_local(&key, Some(asked));
            }
            AskKind::Timer { wait } => {
                let due_at = now.plus(self.shared.env.paced(wait));
                self.record(Event::TimerSet { step: key, due_at, signal: None });
            }
            AskKind::TimerUntil { at } => {
                self.record(Event::TimerSet { step: key, due_at: at, signal: None });
            }
            AskKind::Signal { name, limit } => {
                let due_at = now.plus(self.shared.env.paced(limit));
                self.record(Event::TimerSet { step: key, due_at, signal: Some(name) });
                // It may have come before it was asked for.
                self.has_mail = true;
            }
            AskKind::Now => self.record(Event::ValueDrawn { step: key, value: Value::from(now.0) }),
            AskKind::Uuid => {
                let value = Value::from(self.shared.env.uuid().to_string());
                self.record(Event::ValueDrawn { step: key, value });
            }
            AskKind::Random { below } => {
                let value = Value::from(self.shared.env.below(below));
                self.record(Event::ValueDrawn { step: key, value });
            }
            AskKind::Label { name, value } => {
                self.record(Event::LabelSet { step: Some(key), name, value });
            }
            AskKind::Race { winner, losers } => {
                self.record(Event::RaceDecided { scope: key, winner, losers });
            }
            AskKind::Unwind { refusal } => self.record(Event::ScopeTurned { scope: key, refusal }),
        }
    }

    /// Starts a saga as a part of this one, in the append that records it.
    fn start_child(
        &mut self,
        step: StepKey,
        workflow: &'static str,
        version: u32,
        input: Input,
        rule: ChildRule,
        (after, said): (Vec<StepKey>, Vec<StepKey>),
    ) {
        if self.state.pivot.is_some() && rule == ChildRule::Started {
            let problem = "nothing is taken back after the pivot: start it in a transaction instead";
            return self.misuse(&step, problem);
        }
        let given = match self.resolved(&input) {
            Ok(given) => given.inlined(),
            Err(failure) => return self.misuse(&step, &failure.to_string()),
        };
        let env = &self.shared.env;
        let child = SagaId::from_uuid(env.uuid());
        // It is started once, in the append that records it, so that its own id is its key.
        let mut new = NewSaga::raw(env, child.clone(), workflow, version, given);
        new.parent = Some(Parent { saga: self.saga.clone(), step: step.clone() });

        let asked =
            Box::new(Asked { child: Some(rule), ..Asked::bare(workflow, input, after, said, env.now()) });
        self.turn.starts.push(new);
        self.record(Event::ChildStarted { step, child, asked: Some(asked) });
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
        self.function.halt(halt);
    }

    /// What an activity says of itself when it is first asked for: before its intent, and so before any effect. Nothing
    /// if it cannot be asked for now, or never: then that is recorded.
    fn first_facts(&mut self, key: &StepKey, asked: &Asked) -> Option<ActivityFacts> {
        match self.facts(asked, &self.call(key, 1, 1)) {
            Ok(facts) => match facts.contradiction() {
                None => return Some(facts),
                Some(problem) => self.misuse(key, &format!("{} {problem}", asked.activity)),
            },
            Err(NoFacts::NoWorker(detail)) => self.no_worker(detail),
            Err(NoFacts::Failed(failure)) if failure.is_panic() => self.needs_decision(failure.detail()),
            Err(NoFacts::Failed(failure)) => self.misuse(key, &failure.to_string()),
        }
        None
    }

    /// What cannot be asked for yet is asked for again when the saga is no longer parked.
    fn not_yet(&mut self, ask: Ask) {
        if self.function.is_running() {
            self.function.asks.push(ask);
        }
    }

    /// Asks a step's gates; nothing if that has to be done by the keeper first.
    pub(super) fn knock(
        &mut self,
        key: &StepKey,
        gates: &[Gate],
        lane: Lane,
        not_after: Timestamp,
    ) -> Option<Result<Permit, Barrier>> {
        if let Some(said) = self.turn.gates_said.remove(key) {
            return Some(said);
        }
        let let_go = self.nudge.let_go.contains(key);
        match self.shared.gates.pass(Passing::new(gates, lane, let_go, not_after)) {
            Answer::Pass(permit) => Some(Ok(permit)),
            Answer::Wait(barrier) => Some(Err(barrier)),
            Answer::Ask(passing) => {
                self.turn.to_ask.insert(key.clone(), passing);
                None
            }
        }
    }

    pub(super) fn lane(&self, key: &StepKey) -> Lane {
        if self.state.goes_back(key) { Lane::Undo } else { Lane::Forward }
    }

    /// Whether the step waits at that gate already: then there is nothing new to record.
    pub(super) fn waits_at(&self, key: &StepKey, barrier: &Barrier) -> bool {
        let at_gate = self.state.step(key).and_then(|step| step.at_gate.as_ref());
        at_gate.is_some_and(|at_gate| at_gate.gate == barrier.gate)
    }

    /// Whether a step waits until then already, and has not come to that time: there is nothing new to record.
    pub(super) fn waits_already(&self, key: &StepKey, until: Timestamp) -> bool {
        let waits = self.state.step(key).and_then(|step| step.waits_out);
        waits.is_some_and(|(_, known)| known == until) && until > self.shared.env.now()
    }

    /// Until when a call that writes waits, since a lost one to the same object may still take effect; nothing at all
    /// if the ledger has to be read for that first.
    pub(super) fn waits_out(
        &mut self,
        key: &StepKey,
        effect: Effect,
        shared: Option<&Object>,
        mut objects: Vec<Object>,
        undoes: bool,
    ) -> Option<Option<Timestamp>> {
        if effect == Effect::Read {
            return Some(None);
        }
        let now = self.shared.env.now();
        objects.extend(shared.cloned());
        objects.extend(self.state.step(key).iter().flat_map(|step| self.state.objects_of(step)));
        let until = self.state.write_from(key, &objects, undoes, now);
        // What is this saga's alone is known to it alone.
        let Some(object) = shared else { return Some(until) };
        match self.turn.unsettled.get(object) {
            Some(elsewhere) => Some(until.max(elsewhere.filter(|at| *at > now))),
            None => {
                self.turn.to_read.push(object.clone());
                None
            }
        }
    }

    /// Records the intent of an attempt, or that its gate does not let it pass. What is asked for comes back if that
    /// is not known yet.
    pub(super) fn attempt(
        &mut self,
        key: &StepKey,
        asked: Option<Asked>,
        facts: ActivityFacts,
    ) -> Option<Asked> {
        let made = facts.resource.as_ref();
        let mut objects: Vec<Object> =
            made.map(|made| Object::new(&made.provider, &made.kind, &made.name)).into_iter().collect();
        objects.extend(self.state.named(&facts.removes));
        match self.waits_out(key, facts.effect, facts.object.as_ref(), objects, false) {
            None => return asked,
            Some(Some(until)) if self.waits_already(key, until) => return None,
            Some(Some(until)) => {
                let (step, asked) = (key.clone(), asked.map(Box::new));
                self.record(Event::WriteHeld { step, until, asked });
                return None;
            }
            Some(None) => {}
        }
        let limit = self.shared.env.time_limit(facts.time_limit);
        let not_after = self.shared.env.now().plus(limit);
        let Some(answer) = self.knock(key, &facts.gates, self.lane(key), not_after) else { return asked };
        let env = &self.shared.env;
        let known = self.state.step(key);
        let attempt = known.map_or(1, |step| step.attempts + 1);
        let generation = known.map_or(1, |step| step.generation);
        let has_row = known.is_some_and(|step| step.resource.is_some());
        match answer {
            Ok(permit) => {
                let resource = facts
                    .resource
                    .filter(|_| !has_row)
                    .map(|resource| Box::new(Named { id: ResourceId::from_uuid(env.uuid()), resource }));
                let asked = asked.map(Box::new);
                let (step, not_after) = (key.clone(), permit.bound(env.now().plus(limit)));
                self.record(Event::AttemptStarted { step, attempt, generation, not_after, asked, resource });
                let (step, verb) = (key.clone(), Verb::Execute);
                self.turn.launches.push(Launch::Call(Outgoing { step, verb, permit, limit, not_after }));
            }
            Err(barrier) if self.waits_at(key, &barrier) => {}
            Err(barrier) => self.record(Event::AttemptDeferred {
                step: key.clone(),
                attempt: None,
                cause: Cause::RateLimited,
                detail: barrier.detail,
                retry_at: barrier.until,
                gate: Some(barrier.gate),
                asked: asked.map(Box::new),
                fingerprint: String::new(),
                bookmark: None,
            }),
        }
        None
    }

    pub(super) fn intend_local(&mut self, key: &StepKey, asked: Option<Asked>) {
        let attempt = self.state.step(key).map_or(1, |step| step.attempts + 1);
        let not_after = self.shared.env.now();
        let (step, asked) = (key.clone(), asked.map(Box::new));
        self.record(Event::AttemptStarted { step, attempt, generation: 1, not_after, asked, resource: None });
        self.turn.launches.push(Launch::Apply(key.clone()));
    }
}

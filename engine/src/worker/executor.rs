//! The executor: one saga, one lease; replays it, drives it forward, and turns it round.
//!
//! A turn takes what has happened (answers, letters, time), gives it to the saga's function, adds what the
//! function asks for and what unwinding needs, and appends all of it at once. Only after that commit do
//! calls leave.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::Value;
use tokio::task::JoinSet;
use tracing::Instrument;

use super::Shared;
use super::decide::{Action, decide};
use crate::activity::attempt::bounded;
use crate::activity::registry::ActivityFacts;
use crate::activity::{Call, Cause, Effect, Failure, Found, Refusal, retry};
use crate::env::Timestamp;
use crate::ids::{ResourceId, SagaId, StepKey};
use crate::journal::event::{Asked, Event, FoundKind, LocalRule, Named, UnwindCause};
use crate::journal::state::{Attention, Phase};
use crate::journal::{Entry, State};
use crate::saga::{Ask, AskKind, Saga, resolve};
use crate::secret::Sealed;
use crate::store::tx::{Beside, Tx};
use crate::store::{Act, Append, Error, GateRow, Job, Letter, Message, SagaRow, SecretFate};

/// A saga whose next due time is further away than this is put down.
const IDLE: Duration = Duration::from_secs(60);
/// How long a shut-down waits for calls that are under way.
const DRAIN: Duration = Duration::from_secs(20);

/// What a call came to.
enum Outcome {
    Executed(Result<Value, Failure>),
    Found(Result<Found<Value>, Failure>),
    Compensated(Result<(), Failure>),
}

struct Answer {
    step: StepKey,
    outcome: Outcome,
    external_id: Option<String>,
    sealed: Vec<Sealed>,
    gates: Vec<String>,
}

/// A call to make once its intent is durable.
enum Launch {
    Execute(StepKey),
    Find(StepKey),
    Compensate(StepKey),
    Apply(StepKey),
    Revert(StepKey),
}

/// Why an executor stops.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The saga has ended, or has nothing to do for a while.
    Rest,
    /// Another may have written: the saga has to be loaded again.
    Reload,
}

/// What one turn will append.
#[derive(Default)]
struct Turn {
    entries: Vec<Entry>,
    sealed: Vec<Sealed>,
    consumed: Vec<String>,
    gates: Vec<GateRow>,
    launches: Vec<Launch>,
}

pub(crate) struct Executor {
    shared: Arc<Shared>,
    saga: SagaId,
    epoch: i64,
    state: State,
    context: Saga,
    function: Option<BoxFuture<'static, crate::saga::Result<Value>>>,
    /// What the function came to, until what is still under way is settled.
    returned: Option<crate::saga::Result<Value>>,
    in_flight: HashSet<StepKey>,
    calls: JoinSet<Answer>,
    /// What the function asked for and what is not in the journal yet.
    asks: Vec<Ask>,
    turn: Turn,
    nudged: bool,
    /// A letter lies in the inbox that nothing waits for yet.
    has_waiting_letters: bool,
    /// The inbox is to be looked into again at once.
    reread: bool,
    /// A person wants a parked saga tried again: it is replayed.
    reload: bool,
    /// The row says that it is due now: what follows from its last entry is not written yet.
    is_due_at_once: bool,
}

impl Executor {
    /// Loads a saga under the lease that the store has given us.
    pub(crate) async fn load(shared: Arc<Shared>, saga: SagaId) -> Result<Self, Error> {
        let loaded = shared.store.load(&saga).await?;
        let mut state = State::fold(saga.clone(), &loaded.entries)
            .map_err(|error| Error::Unreadable(error.to_string()))?;
        // What the fold made of the ledger is what is written there.
        state.ledger.take_changed();
        let mut executor = Self {
            shared,
            saga,
            epoch: loaded.epoch,
            state,
            context: Saga::new(),
            function: None,
            returned: None,
            in_flight: HashSet::new(),
            calls: JoinSet::new(),
            asks: Vec::new(),
            turn: Turn::default(),
            nudged: false,
            has_waiting_letters: false,
            reread: false,
            reload: false,
            is_due_at_once: true,
        };
        executor.replay(&loaded.entries);
        Ok(executor)
    }

    /// Brings the saga's function to where its journal ends: one recorded outcome, one poll.
    fn replay(&mut self, entries: &[Entry]) {
        if self.state.unwinding.is_some() || self.state.ended.is_some() {
            return;
        }
        let (name, version) = &self.state.workflow;
        let Some(workflow) = self.shared.registry.find_workflow(name, *version) else {
            if self.state.parked.is_none() {
                let detail = format!("no worker here offers {name} version {version}");
                self.record(Event::Parked { attention: Attention::NoWorker, detail });
            }
            return;
        };
        self.function = Some(workflow.run(self.context.clone(), self.state.input.clone()));
        self.poll();
        for entry in entries {
            self.tell(&entry.event);
        }
    }

    /// Drives the saga until it rests.
    pub(crate) async fn drive(mut self, poke: &tokio::sync::Notify) -> Stop {
        loop {
            if self.shared.is_draining() {
                return self.drain().await;
            }
            if let Err(stop) = self.turn().await {
                return stop;
            }
            if self.state.ended.is_some() {
                return Stop::Rest;
            }
            if self.reload {
                return Stop::Reload;
            }
            let now = self.shared.env.now();
            let wait = self.state.due_at().map(|due| due.since(now));
            if self.in_flight.is_empty() && !self.has_waiting_letters && wait.is_none_or(|wait| wait > IDLE) {
                return self.rest().await;
            }
            // An answer, a letter or the time: whatever comes first begins the next turn.
            let wait = if self.in_flight.is_empty() { wait.unwrap_or(IDLE) } else { self.next_wait(now) };
            tokio::select! {
                Some(answer) = self.calls.join_next(), if !self.calls.is_empty() => self.take(answer),
                () = poke.notified() => {}
                () = self.shared.env.sleep(wait.min(IDLE)) => {}
                () = self.shared.draining() => {}
            }
            while let Some(answer) = self.calls.try_join_next() {
                self.take(answer);
            }
        }
    }

    /// Hands the saga back, with the row saying when it is next due.
    async fn rest(&mut self) -> Stop {
        if self.is_due_at_once {
            let row_alone = build(&mut self.state, self.epoch, Vec::new(), Beside::default());
            if let Err(error) = self.shared.store.append(row_alone).await {
                tracing::warn!(saga = %self.saga, %error, "the saga's next time could not be written");
                return Stop::Reload;
            }
        }
        Stop::Rest
    }

    /// When something besides the calls under way is next due.
    fn next_wait(&self, now: Timestamp) -> Duration {
        let idle = self.state.steps().iter().filter(|step| !self.in_flight.contains(&step.key));
        let due = idle.filter_map(|step| match step.phase {
            Phase::Deferred { retry_at } => Some(retry_at),
            Phase::InDoubt { look_at } => Some(look_at),
            Phase::Waiting { due_at, .. } => Some(due_at),
            Phase::Removing { due_at, .. } => Some(due_at),
            _ => None,
        });
        let turns =
            self.state.deadline_at.filter(|_| self.state.pivot.is_none() && self.state.unwinding.is_none());
        due.chain(turns).min().map_or(IDLE, |due| due.since(now).max(Duration::from_millis(1)))
    }

    /// No new attempts; what is under way may end, within limits, and is recorded.
    async fn drain(mut self) -> Stop {
        let limit = self.shared.env.time_limit(DRAIN);
        let _ = tokio::time::timeout(limit, async {
            while let Some(answer) = self.calls.join_next().await {
                self.take(answer);
            }
        })
        .await;
        // What was taken is durable before the lease goes; what was not is in doubt, as after a crash.
        let _ = self.append(true).await;
        Stop::Rest
    }

    async fn turn(&mut self) -> Result<(), Stop> {
        if self.read_letters().await.is_err() {
            // The letters are still there; the next turn asks again.
            self.has_waiting_letters = true;
        }
        loop {
            let before = self.turn.entries.len();
            self.accept_asks();
            self.act();
            self.finish();
            if self.turn.entries.len() == before && self.asks.is_empty() {
                break;
            }
        }
        self.nudged = false;
        let launches = std::mem::take(&mut self.turn.launches);
        // A transaction has no intent of its own in the journal, so the row says that there is more to do.
        let transacts = launches.iter().any(|launch| matches!(launch, Launch::Apply(_) | Launch::Revert(_)));
        self.append(transacts).await?;
        let mut transacted = false;
        for launch in launches {
            match launch {
                Launch::Apply(key) => {
                    self.transact(&key, false).await?;
                    transacted = true;
                }
                Launch::Revert(key) => {
                    self.transact(&key, true).await?;
                    transacted = true;
                }
                call => self.launch(call),
            }
        }
        if transacted || std::mem::take(&mut self.reread) { Box::pin(self.turn()).await } else { Ok(()) }
    }

    // ---- what has happened -------------------------------------------------------------------------------

    async fn read_letters(&mut self) -> Result<(), Error> {
        let letters = self.shared.store.letters(&self.saga).await?;
        self.has_waiting_letters = false;
        for letter in letters {
            if self.turn.consumed.contains(&letter.id) {
                continue;
            }
            if self.open(letter.message) {
                self.turn.consumed.push(letter.id);
            } else {
                self.has_waiting_letters = true;
            }
        }
        Ok(())
    }

    /// Turns a letter into events; says whether it is used up.
    fn open(&mut self, message: Message) -> bool {
        match message {
            Message::Wake => self.nudged = true,
            Message::Signal { name, value } => {
                let waiting = self.state.steps().iter().find(|step| {
                    matches!(&step.phase, Phase::Waiting { signal: Some(awaited), .. } if *awaited == name)
                });
                let Some(step) = waiting.map(|step| step.key.clone()) else { return false };
                self.record(Event::SignalReceived { step, value });
            }
            Message::Cancel { actor, reason } => self.cancel(actor, reason),
            Message::Act { operation, act, actor, reason } => {
                let said = (actor.clone(), reason.clone());
                self.record(Event::OperatorIntervened { operation, act, actor, reason });
                if act == Act::Cancel {
                    self.cancel(said.0, said.1);
                } else {
                    self.reload |= self.function.is_none() && self.state.unwinding.is_none();
                }
            }
        }
        true
    }

    fn cancel(&mut self, actor: String, reason: String) {
        if self.state.pivot.is_none() && self.state.unwinding.is_none() && self.state.cancel.is_none() {
            self.record(Event::CancelRequested { actor, reason });
        }
    }

    fn take(&mut self, answer: Result<Answer, tokio::task::JoinError>) {
        let Ok(answer) = answer else { return };
        let Answer { step, outcome, external_id, sealed, gates } = answer;
        self.in_flight.remove(&step);
        self.turn.sealed.extend(sealed);
        match outcome {
            Outcome::Executed(Ok(output)) => self.completed(step, output, external_id),
            Outcome::Executed(Err(failure)) => self.failed(step, failure, &gates),
            Outcome::Found(Ok(found)) => {
                let (found, output) = match found {
                    Found::Nothing => (FoundKind::Nothing, None),
                    Found::Usable(made) => (FoundKind::Usable, Some(made)),
                    Found::Unusable(made) => (FoundKind::Unusable, Some(made)),
                    Found::Unknowable => (FoundKind::Unknowable, None),
                };
                self.record(Event::StepFound { step: step.clone(), found, output, external_id });
                if found == FoundKind::Usable {
                    self.close_rows(&step);
                }
            }
            Outcome::Found(Err(failure)) => {
                let looks = self.state.step(&step).map_or(1, |step| step.looks + 1);
                let (cause, detail, retry_at) = self.wait_after(failure, looks, &gates);
                self.record(Event::AttemptDeferred {
                    step,
                    attempt: None,
                    cause,
                    detail,
                    retry_at,
                    asked: None,
                });
            }
            Outcome::Compensated(Ok(())) => self.record(Event::StepCompensated { step }),
            Outcome::Compensated(Err(failure)) => self.undo_failed(step, failure, &gates),
        }
    }

    fn completed(&mut self, step: StepKey, output: Value, external_id: Option<String>) {
        let Some(asked) = self.state.step(&step).and_then(|step| step.asked.clone()) else { return };
        if let Some(every) = asked.every
            && output.is_null()
        {
            let attempt = self.state.step(&step).map(|step| step.attempts);
            let retry_at = self.shared.env.now().plus(self.shared.env.paced(every));
            let detail = "not yet".to_owned();
            let cause = Cause::NotYet;
            self.record(Event::AttemptDeferred { step, attempt, cause, detail, retry_at, asked: None });
            return;
        }
        self.record(Event::StepCompleted { step: step.clone(), output, external_id });
        self.close_rows(&step);
        if asked.pivot && self.state.unwinding.is_none() {
            self.record(Event::PivotPassed { step });
        }
    }

    /// What the step was to take away is gone.
    fn close_rows(&mut self, step: &StepKey) {
        let removed =
            self.state.step(step).and_then(|step| step.asked.as_ref()).map(|asked| asked.removes.clone());
        for resource in removed.unwrap_or_default() {
            if self.state.ledger.get(&resource).is_some() {
                self.record(Event::ResourceGone { resource, step: step.clone() });
            }
        }
    }

    fn failed(&mut self, step: StepKey, failure: Failure, gates: &[String]) {
        let Some(known) = self.state.step(&step) else { return };
        let (attempt, doubted) = (known.attempts, known.doubted);
        let quiet = known.asked.as_ref().map_or(Duration::ZERO, |asked| asked.effect.quiet());
        let sent_again = known.asked.as_ref().is_some_and(|asked| asked.effect.is_sent_again());
        let is_read = known.asked.as_ref().is_some_and(|asked| asked.effect == Effect::Read);
        match failure {
            // Past the pivot there is no way back, and a lost attempt may have happened all the same: a person
            // has to look, and until then it is tried again, slowly.
            Failure::Refused(refusal) if self.state.pivot.is_some() || doubted => {
                let retry_at = self.shared.env.now().plus(self.shared.env.paced(retry::CAP));
                let (cause, detail) = (Cause::Refused, refusal.to_string());
                let attempt = Some(attempt);
                self.record(Event::AttemptDeferred { step, attempt, cause, detail, retry_at, asked: None });
            }
            Failure::Refused(refusal) => self.record(Event::StepFailed { step, refusal }),
            Failure::NoAnswer { cause, detail } if !is_read => {
                let env = &self.shared.env;
                let wait = if sent_again { retry::delay(attempt, None, env) } else { env.paced(quiet) };
                let look_at = env.now().plus(wait);
                self.record(Event::AttemptLost { step, attempt, cause, detail, look_at });
            }
            unavailable => {
                let (cause, detail, retry_at) = self.wait_after(unavailable, attempt, gates);
                let attempt = Some(attempt);
                self.record(Event::AttemptDeferred { step, attempt, cause, detail, retry_at, asked: None });
            }
        }
    }

    fn undo_failed(&mut self, step: StepKey, failure: Failure, gates: &[String]) {
        let attempt = self.state.step(&step).map_or(1, |step| step.undo_attempts.max(1));
        match failure {
            Failure::Refused(refusal) => {
                let retry_at = self.shared.env.now().plus(self.shared.env.paced(retry::CAP));
                let detail = refusal.to_string();
                self.record(Event::CompensationDeferred { step, cause: None, detail, retry_at });
            }
            Failure::NoAnswer { cause, detail } => {
                let retry_at = self.shared.env.now().plus(retry::delay(attempt, None, &self.shared.env));
                self.record(Event::CompensationLost { step, cause, detail, retry_at });
            }
            unavailable => {
                let (cause, detail, retry_at) = self.wait_after(unavailable, attempt, gates);
                self.record(Event::CompensationDeferred { step, cause: Some(cause), detail, retry_at });
            }
        }
    }

    /// When to try again after a failure, with the gates closed until then that the failure speaks of.
    fn wait_after(&mut self, failure: Failure, attempt: u32, gates: &[String]) -> (Cause, String, Timestamp) {
        let env = &self.shared.env;
        let (cause, detail, asked) = match failure {
            Failure::Unavailable { cause, detail, retry_after } => (cause, detail, retry_after),
            Failure::NoAnswer { cause, detail } => (cause, detail, None),
            Failure::Refused(refusal) => (Cause::Refused, refusal.to_string(), Some(env.paced(retry::CAP))),
        };
        // What our own side asks to wait is paced; what a provider asks for is taken by its word.
        let asked = if cause == Cause::NotYet { asked.map(|wait| env.paced(wait)) } else { asked };
        let mut wait = retry::delay(attempt, asked, env);
        if cause == Cause::NotYet {
            wait = asked.unwrap_or(wait);
        }
        if cause == Cause::Credential {
            wait = wait.max(env.paced(Duration::from_secs(60)));
        }
        let retry_at = env.now().plus(wait);
        if matches!(cause, Cause::RateLimited | Cause::Credential)
            && let Some(gate) = gates.first()
        {
            let row = self.shared.gates.close(gate, retry_at, &detail);
            self.turn.gates.push(row);
        }
        (cause, detail, retry_at)
    }

    // ---- what is asked for -------------------------------------------------------------------------------

    fn accept_asks(&mut self) {
        for ask in std::mem::take(&mut self.asks) {
            // A function that has returned no longer waits for what it asked for last.
            if self.state.unwinding.is_some() || self.function.is_none() {
                return;
            }
            self.accept(ask);
        }
    }

    fn accept(&mut self, ask: Ask) {
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
    fn forbidden(&self, pivot: bool, compensable: bool) -> Option<&'static str> {
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

    fn misuse(&mut self, step: &StepKey, problem: &str) {
        let halt = crate::saga::Halt::Misuse { step: step.clone(), problem: problem.to_owned() };
        self.function = None;
        self.returned = Some(Err(halt));
    }

    /// Records the intent of an attempt, or that its gate is closed.
    fn attempt(&mut self, key: &StepKey, asked: Option<Asked>, facts: ActivityFacts) {
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

    fn intend_local(&mut self, key: &StepKey, asked: Option<Asked>) {
        let attempt = self.state.step(key).map_or(1, |step| step.attempts + 1);
        let not_after = self.shared.env.now();
        let (step, asked) = (key.clone(), asked.map(Box::new));
        self.record(Event::AttemptStarted { step, attempt, generation: 1, not_after, asked, resource: None });
        self.turn.launches.push(Launch::Apply(key.clone()));
    }

    // ---- what is to be done ------------------------------------------------------------------------------

    fn act(&mut self) {
        let mut busy = self.in_flight.clone();
        busy.extend(self.turn.launches.iter().map(|launch| launch.step().clone()));
        let now = self.shared.env.now();
        for action in decide(&self.state, &busy, now, self.nudged) {
            self.perform(action, now);
        }
    }

    fn perform(&mut self, action: Action, now: Timestamp) {
        match action {
            Action::Execute(key) => {
                let Some(step) = self.state.step(&key) else { return };
                let Some(asked) = step.asked.clone() else { return };
                if asked.local.is_some() {
                    return self.intend_local(&key, None);
                }
                let call = self.call(&key, step.generation, step.attempts + 1);
                match self.facts(&asked, &call) {
                    Ok(facts) => self.attempt(&key, None, facts),
                    Err(detail) => self.no_worker(detail),
                }
            }
            Action::GiveUp(step) => {
                let message = self.state.step(&step).and_then(|step| step.last_failure.clone());
                let message = message.map_or_else(|| "not within its time".to_owned(), |(_, detail)| detail);
                let refusal = Refusal { code: "gave_up".into(), message };
                self.record(Event::StepFailed { step, refusal });
            }
            Action::Find(step) => self.turn.launches.push(Launch::Find(step)),
            Action::Apply(step) => self.turn.launches.push(Launch::Apply(step)),
            Action::Revert(step) => self.turn.launches.push(Launch::Revert(step)),
            Action::Compensate(key) => {
                let Some(step) = self.state.step(&key) else { return };
                let (attempt, generation) = (step.undo_attempts + 1, step.generation);
                let Some(asked) = step.asked.clone() else { return };
                let call = self.call(&key, generation, attempt);
                match self.facts(&asked, &call) {
                    Ok(facts) => {
                        let env = &self.shared.env;
                        match self.shared.gates.pass(&credential_gates(&facts), env) {
                            Ok(_) => {
                                let not_after = env.now().plus(env.time_limit(facts.time_limit));
                                self.record(Event::CompensationStarted {
                                    step: key.clone(),
                                    attempt,
                                    not_after,
                                });
                                self.turn.launches.push(Launch::Compensate(key));
                            }
                            Err(gate) => self.record(Event::CompensationDeferred {
                                step: key,
                                cause: Some(Cause::RateLimited),
                                detail: format!("gate {} is closed: {}", gate.key, gate.reason),
                                retry_at: gate.next_allowed_at,
                            }),
                        }
                    }
                    Err(detail) => self.no_worker(detail),
                }
            }
            Action::Skip(step, reason) => self.record(Event::StepSkipped { step, reason }),
            Action::Lost(key) => self.lost(key, now),
            Action::Fire(step) => self.record(Event::TimerFired { step }),
            Action::EndScope(scope) => self.record(Event::ScopeUnwound { scope }),
            Action::Turn => {
                let (cause, refusal) = match &self.state.cancel {
                    Some((actor, reason)) => (
                        UnwindCause::Cancelled,
                        Refusal { code: "cancelled".into(), message: format!("{actor}: {reason}") },
                    ),
                    None => (
                        UnwindCause::Deadline,
                        Refusal { code: "deadline".into(), message: "its deadline passed".into() },
                    ),
                };
                self.turn_round(cause, refusal);
            }
            Action::EndUnwinding => {
                let had_effect = self.state.steps().iter().any(|step| {
                    matches!(step.phase, Phase::Undone | Phase::Skipped(_))
                        || step.resource.is_some() && step.phase != Phase::Refused
                });
                let refusal = self.state.unwinding.as_ref().map(|unwinding| unwinding.refusal.clone());
                match refusal {
                    Some(refusal) if !had_effect => self.record(Event::SagaFailed { refusal }),
                    _ => self.record(Event::SagaCompensated {}),
                }
            }
        }
    }

    /// A call of a process that died: it may still be under way until its time is up, and then needs its quiet.
    fn lost(&mut self, key: StepKey, now: Timestamp) {
        let Some(step) = self.state.step(&key) else { return };
        let detail = "the process that made the call ended before it recorded the outcome".to_owned();
        let cause = Cause::WorkerLost;
        let env = &self.shared.env;
        match (&step.phase, &step.asked) {
            (Phase::Trying { .. }, Some(asked)) if asked.local.is_some() || asked.effect == Effect::Read => {
                let attempt = Some(step.attempts);
                self.record(Event::AttemptDeferred {
                    step: key,
                    attempt,
                    cause,
                    detail,
                    retry_at: now,
                    asked: None,
                });
            }
            (Phase::Trying { not_after }, Some(asked)) => {
                let attempt = step.attempts;
                let look_at = if asked.effect.is_sent_again() {
                    now.plus(retry::delay(1, None, env))
                } else {
                    not_after.plus(env.paced(asked.effect.quiet()))
                };
                self.record(Event::AttemptLost { step: key, attempt, cause, detail, look_at });
            }
            _ => {
                let retry_at = now.plus(retry::delay(step.undo_attempts.max(1), None, env));
                self.record(Event::CompensationLost { step: key, cause, detail, retry_at });
            }
        }
    }

    fn no_worker(&mut self, detail: String) {
        if self.state.parked.is_none() {
            self.record(Event::Parked { attention: Attention::NoWorker, detail });
        }
    }

    fn turn_round(&mut self, cause: UnwindCause, refusal: Refusal) {
        // The function is never run to undo what it did.
        self.function = None;
        self.asks.clear();
        self.record(Event::UnwindingStarted { cause, refusal });
    }

    /// Ends the saga, or turns it round, once its function has returned and nothing is under way or in doubt.
    fn finish(&mut self) {
        let settled =
            self.in_flight.is_empty() && self.turn.launches.is_empty() && !self.state.is_unsettled();
        match self.returned.take() {
            None => {
                let foreign = self.function.is_some()
                    && self.asks.is_empty()
                    && self.state.parked.is_none()
                    && self.context.core().waits_for_nothing();
                if foreign {
                    let detail = "its function waits for something that is not one of its steps".to_owned();
                    self.record(Event::Parked { attention: Attention::NoProgress, detail });
                }
            }
            Some(Ok(output)) if settled => {
                let owner = self
                    .shared
                    .registry
                    .find_workflow(&self.state.workflow.0, self.state.workflow.1)
                    .and_then(|workflow| workflow.owner(&self.state.input, &output));
                self.record(Event::SagaCompleted { output, owner });
            }
            Some(Ok(output)) => self.returned = Some(Ok(output)),
            Some(Err(halt)) if self.state.unwinding.is_none() => {
                let refusal = halt.refusal();
                if self.state.pivot.is_none() {
                    self.turn_round(UnwindCause::Refused, refusal);
                } else if self.state.parked.is_none() {
                    let detail = format!("past its pivot it cannot go on: {refusal}");
                    self.record(Event::Parked { attention: Attention::NeedsDecision, detail });
                }
            }
            Some(Err(_)) => {}
        }
    }

    // ---- the function ------------------------------------------------------------------------------------

    /// Tells the function what an event decides for it, if anything, and lets it go on.
    fn tell(&mut self, event: &Event) {
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

    fn poll(&mut self) {
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

    // ---- calls -------------------------------------------------------------------------------------------

    fn call(&self, step: &StepKey, generation: u32, attempt: u32) -> Call {
        Call {
            installation: self.shared.store.installation().clone(),
            environment: self.shared.environment.clone(),
            saga: self.saga.clone(),
            step: step.clone(),
            generation,
            attempt,
            outside: self.shared.outside.clone(),
            sealed: Arc::default(),
        }
    }

    fn resolved(&self, input: &Value) -> Value {
        resolve(input, &|step| self.state.step(step).and_then(|step| step.output.clone()))
    }

    fn facts(&self, asked: &Asked, call: &Call) -> Result<ActivityFacts, String> {
        let activity = self
            .shared
            .registry
            .find_activity(&asked.activity)
            .ok_or_else(|| format!("no worker here offers the activity {}", asked.activity))?;
        activity.facts(&self.resolved(&asked.input), call).map_err(|failure| failure.to_string())
    }

    fn launch(&mut self, launch: Launch) {
        let key = launch.step().clone();
        let Some(step) = self.state.step(&key) else { return };
        let Some(asked) = step.asked.clone() else { return };
        let attempt =
            if matches!(launch, Launch::Compensate(_)) { step.undo_attempts } else { step.attempts };
        let made = step.output.clone().unwrap_or(Value::Null);
        let call = self.call(&key, step.generation, attempt);
        let Some(activity) = self.shared.registry.find_activity(&asked.activity).cloned() else { return };
        let Ok(facts) = self.facts(&asked, &call) else { return };
        let input = self.resolved(&asked.input);
        let limit = self.shared.env.time_limit(facts.time_limit);
        let lane = match launch {
            Launch::Execute(_) => "execute",
            Launch::Find(_) => "find",
            _ => "compensate",
        };
        let span = tracing::info_span!(
            "attempt", saga = %self.saga, step = %key, activity = %asked.activity, lane, attempt, epoch = self.epoch
        );
        self.in_flight.insert(key.clone());
        self.calls.spawn(
            async move {
                let outcome = match launch {
                    Launch::Execute(_) => {
                        Outcome::Executed(bounded(limit, activity.execute(&input, &call)).await)
                    }
                    Launch::Find(_) => Outcome::Found(bounded(limit, activity.find(&input, &call)).await),
                    _ => {
                        Outcome::Compensated(bounded(limit, activity.compensate(&input, &made, &call)).await)
                    }
                };
                let external_id = match &outcome {
                    Outcome::Executed(Ok(made))
                    | Outcome::Found(Ok(Found::Usable(made) | Found::Unusable(made))) => {
                        activity.external_id(made)
                    }
                    _ => None,
                };
                tracing::debug!(outcome = outcome.word(), "attempt ended");
                let sealed = std::mem::take(&mut *call.sealed.lock().unwrap_or_else(PoisonError::into_inner));
                let gates = facts.gates.into_iter().map(|gate| gate.key).collect();
                Answer { step: key, outcome, external_id, sealed, gates }
            }
            .instrument(span),
        );
    }

    // ---- writing -----------------------------------------------------------------------------------------

    /// Adds a fact to the state and to this turn, and tells the function what it decides.
    fn record(&mut self, event: Event) {
        let entry = Entry { seq: self.state.seq + 1, at: self.shared.env.now(), epoch: self.epoch, event };
        if let Err(illegal) = self.state.apply(&entry) {
            // A fault of the engine's own: it is said, and nothing is written that the journal could not bear.
            tracing::error!(saga = %self.saga, %illegal, "an illegal event was not recorded");
            debug_assert!(false, "saga {}: {illegal}", self.saga);
            return;
        }
        let event = entry.event.clone();
        self.turn.entries.push(entry);
        self.tell(&event);
    }

    async fn append(&mut self, is_due_at_once: bool) -> Result<(), Stop> {
        let turn = std::mem::take(&mut self.turn);
        if turn.entries.is_empty() && turn.consumed.is_empty() {
            return Ok(());
        }
        let mut append = build(&mut self.state, self.epoch, turn.entries, Beside::default());
        if is_due_at_once {
            append.row.due_at = Some(self.state.at);
        }
        append.sealed = turn.sealed;
        append.consumed = turn.consumed;
        append.gates = turn.gates;
        let mut attempt = 0;
        loop {
            match self.shared.store.append(append.clone()).await {
                Ok(()) => {
                    self.is_due_at_once = is_due_at_once;
                    self.shared.written(&self.saga);
                    return Ok(());
                }
                Err(Error::Unavailable(detail)) => {
                    attempt += 1;
                    tracing::warn!(saga = %self.saga, detail, "the journal could not be written, trying again");
                    self.shared.env.sleep(retry::delay(attempt.min(5), None, &self.shared.env)).await;
                }
                Err(error) => {
                    tracing::warn!(saga = %self.saga, %error, "reloading");
                    return Err(Stop::Reload);
                }
            }
            if self.shared.is_draining() && attempt > 3 {
                return Err(Stop::Reload);
            }
        }
    }

    /// Runs a local activity, or its revert, in the transaction that records it.
    async fn transact(&mut self, key: &StepKey, revert: bool) -> Result<(), Stop> {
        // What an earlier transaction of this turn came to has to be durable first.
        self.append(true).await?;
        let Some(step) = self.state.step(key) else { return Ok(()) };
        let Some(asked) = step.asked.clone() else { return Ok(()) };
        let Some(local) = self.shared.registry.find_local(&asked.activity).cloned() else {
            self.no_worker(format!("no worker here offers the local activity {}", asked.activity));
            return Ok(());
        };
        let input = self.resolved(&asked.input);
        let made = step.output.clone().unwrap_or(Value::Null);
        let shared = self.shared.clone();
        let (saga, epoch, state, key) = (self.saga.clone(), self.epoch, self.state.clone(), key.clone());
        let step = key.clone();
        let job: Job = Arc::new(move |statements| {
            let (local, input, made, shared) = (local.clone(), input.clone(), made.clone(), shared.clone());
            let (saga, step, pivot) = (saga.clone(), step.clone(), asked.pivot);
            let mut state = state.clone();
            Box::pin(async move {
                let mut tx = Tx {
                    saga: &saga,
                    step: &step,
                    env: &shared.env,
                    vault: &shared.outside.vault,
                    statements,
                    beside: Beside::default(),
                };
                let mut events = Vec::new();
                if revert {
                    local.revert(&input, &made, &mut tx).await?;
                    events.push(Event::StepCompensated { step: step.clone() });
                } else {
                    let output = local.apply(&input, &mut tx).await?;
                    events.push(Event::StepCompleted { step: step.clone(), output, external_id: None });
                    if pivot {
                        events.push(Event::PivotPassed { step: step.clone() });
                    }
                }
                let beside = tx.beside;
                for new in &beside.starts {
                    events.push(Event::ChildStarted { step: step.clone(), child: new.id.clone() });
                }
                for (name, value) in &beside.labels {
                    events.push(Event::LabelSet { name: name.clone(), value: value.clone() });
                }
                for row in &beside.taken {
                    events.push(Event::ResourceTaken { row: Box::new(row.clone()) });
                }
                let mut entries = Vec::new();
                for event in events {
                    let entry = Entry { seq: state.seq + 1, at: shared.env.now(), epoch, event };
                    state
                        .apply(&entry)
                        .map_err(|illegal| Failure::refused("illegal", illegal.to_string()))?;
                    entries.push(entry);
                }
                let mut append = build(&mut state, epoch, entries, beside);
                // What the function does next is not asked for yet: whoever loads the saga now has to go on.
                append.row.due_at = Some(state.at);
                Ok(append)
            })
        });
        match self.shared.store.transact(self.saga.clone(), job).await {
            Ok(append) => {
                for entry in append.entries {
                    let event = entry.event.clone();
                    if let Err(illegal) = self.state.apply(&entry) {
                        tracing::error!(saga = %self.saga, %illegal, "reloading");
                        return Err(Stop::Reload);
                    }
                    self.tell(&event);
                }
                // They are written: only what changes from here on is written again.
                self.state.ledger.take_changed();
                self.is_due_at_once = true;
                self.shared.written(&self.saga);
                Ok(())
            }
            Err(Error::Job(failure)) => {
                if revert {
                    self.undo_failed(key, failure, &[]);
                } else {
                    self.failed(key, failure, &[]);
                }
                Ok(())
            }
            Err(Error::Unavailable(detail)) => {
                let failure = Failure::Unavailable { cause: Cause::Database, detail, retry_after: None };
                if revert {
                    self.undo_failed(key, failure, &[]);
                } else {
                    self.failed(key, failure, &[]);
                }
                Ok(())
            }
            Err(error) => {
                tracing::warn!(saga = %self.saga, %error, "reloading");
                Err(Stop::Reload)
            }
        }
    }
}

enum Recorded {
    No,
    Same,
    Differs(String),
}

impl Launch {
    fn step(&self) -> &StepKey {
        match self {
            Self::Execute(key)
            | Self::Find(key)
            | Self::Compensate(key)
            | Self::Apply(key)
            | Self::Revert(key) => key,
        }
    }
}

impl Outcome {
    fn word(&self) -> &'static str {
        let failure = match self {
            Self::Executed(Err(failure)) | Self::Found(Err(failure)) | Self::Compensated(Err(failure)) => {
                failure
            }
            _ => return "ok",
        };
        match failure {
            Failure::Refused(_) => "refused",
            Failure::Unavailable { .. } => "unavailable",
            Failure::NoAnswer { .. } => "no_answer",
        }
    }
}

/// A compensation passes its credential's gate, but not the spacing that its making had.
fn credential_gates(facts: &ActivityFacts) -> Vec<crate::activity::Gate> {
    facts.gates.iter().filter(|gate| gate.spacing.is_zero()).cloned().collect()
}

/// The append that makes these entries durable, with the projections that go with them.
fn build(state: &mut State, epoch: i64, entries: Vec<Entry>, beside: Beside) -> Append {
    let resources = state.ledger.take_changed();
    let at = state.at;
    let mut letters = Vec::new();
    for (number, post) in beside.posts.into_iter().enumerate() {
        // Made of the entry that sends it, so that a transaction that is run again posts the same letter.
        let id = format!("{}:{}:{number}", state.saga, state.seq);
        letters.push(Letter { id, saga: post.saga, message: post.message, at });
    }
    let ended = state.ended.is_some();
    let secrets = match entries.last().map(|entry| &entry.event) {
        Some(Event::SagaCompleted { owner: Some(owner), .. }) => SecretFate::PassTo(owner.clone()),
        Some(
            Event::SagaCompleted { owner: None, .. } | Event::SagaCompensated {} | Event::SagaFailed { .. },
        ) => SecretFate::Destroyed,
        _ => SecretFate::Stay,
    };
    Append {
        row: SagaRow {
            id: state.saga.clone(),
            workflow: state.workflow.0.clone(),
            workflow_version: state.workflow.1,
            state: state.state(),
            attention: state.attention(),
            step: if ended { None } else { state.current_step() },
            error: state.last_error(),
            labels: state.labels.clone(),
            deadline_at: state.deadline_at,
            due_at: state.due_at(),
            epoch,
            seq: state.seq,
            created_at: state.started_at,
            updated_at: at,
            ended_at: ended.then_some(at),
        },
        output: state.output.clone().filter(|_| ended),
        entries,
        resources,
        sealed: beside.sealed,
        consumed: Vec::new(),
        gates: Vec::new(),
        starts: beside.starts,
        letters,
        secrets,
        destroyed: beside.destroyed,
    }
}

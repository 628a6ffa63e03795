//! What a person does to a saga, checked once more where it stands and turned into facts.

use super::*;
use crate::activity::Refusal;
use crate::ids::OperationId;
use crate::journal::act::{Act, NOBODY, Verdict};
use crate::journal::event::{Event, FoundKind, SkipReason};
use crate::journal::state::Phase;
use crate::store::Settled;
use crate::worker::executor::calls::NoFacts;

impl Executor {
    pub(super) fn intervene(&mut self, operation: OperationId, act: Act, actor: String, reason: String) {
        let problem = act.problem(&self.state, self.shared.env.now()).or_else(|| self.own_problem(&act));
        if let Some(problem) = problem {
            let outcome = format!("too_late: {problem}");
            return self.turn.settled.push(Settled { operation, outcome });
        }
        self.record(Event::OperatorIntervened {
            operation: operation.clone(),
            act: act.clone(),
            actor: actor.clone(),
            reason: reason.clone(),
        });
        match act {
            // What it was parked for is looked at anew: the function runs again from its start.
            Act::Retry => {
                self.nudge.all = true;
                self.reload |= !self.function.is_running() && self.state.unwinding.is_none();
            }
            Act::Pause { until } => self.record(Event::Paused { until, actor, reason }),
            Act::Resume => self.record(Event::Resumed { actor: Some(actor) }),
            Act::Cancel => self.cancel(actor, reason),
            Act::Policy { .. } | Act::Patch { .. } => {}
            Act::FailAttempt { step } => match self.state.step(&step).map(|step| &step.phase) {
                Some(Phase::Waiting { .. }) => self.record(Event::TimerFired { step }),
                _ => {
                    let message = format!("{actor}: {reason}");
                    self.fail(step, Refusal { code: "failed_by_hand".into(), message });
                }
            },
            Act::Settle { step, verdict } => self.settle(step, verdict),
            Act::Done { step, output: Some(output) } => {
                let external_id = self.external_id(&step, &output);
                self.record(Event::StepCompleted { step: step.clone(), output, external_id, by_hand: true });
                self.close_rows(&step);
                self.pass_pivot(step);
            }
            Act::Done { step, output: None } => self.compensated(step, true),
            Act::Skip { step } => {
                let to = Some(NOBODY.to_owned());
                self.record(Event::StepSkipped { step, reason: SkipReason::Struck, to });
            }
            Act::Release { step, owner } => {
                let reason = SkipReason::HandedOver;
                self.record(Event::StepSkipped { step, reason, to: Some(owner) });
            }
        }
        self.turn.settled.push(Settled { operation, outcome: "done".to_owned() });
    }

    fn settle(&mut self, step: StepKey, verdict: Verdict) {
        let (found, output, external_id) = match verdict {
            Verdict::Adopt { output, external_id } => (FoundKind::Usable, Some(output), external_id),
            Verdict::Absent => (FoundKind::Nothing, None, None),
            Verdict::Useless { output, external_id } => (FoundKind::Unusable, Some(output), external_id),
        };
        // What a person does not see while the lost call may still take effect is looked for when it is over.
        let over = self.state.step(&step).and_then(Step::unsettled_until);
        if found == FoundKind::Nothing
            && let Some(look_at) = over.filter(|over| *over > self.shared.env.now())
        {
            return self.record(Event::AbsenceSeen { step, look_at, counts: false, by_hand: true });
        }
        let external_id =
            external_id.or_else(|| output.as_ref().and_then(|output| self.external_id(&step, output)));
        self.record(Event::StepFound { step: step.clone(), found, output, external_id });
        if found == FoundKind::Usable {
            self.close_rows(&step);
            self.pass_pivot(step);
        }
    }

    /// The provider's id of what a person says is there, as its activity reads it: without one a sweep would take it
    /// for nobody's.
    fn external_id(&mut self, step: &StepKey, output: &Value) -> Option<String> {
        let asked = self.state.step(step)?.asked.as_ref()?;
        let read = self.shared.registry.find_activity(&asked.activity)?.external_id(output);
        self.known_id(read)
    }

    /// What only this process can see of an act: a call that is under way, an input that does not read, a name that
    /// is on the ledger already.
    fn own_problem(&self, act: &Act) -> Option<String> {
        if act.step().is_some_and(|step| self.in_flight.contains(step)) && !matches!(act, Act::Policy { .. })
        {
            return Some("a call of that step is under way; wait for its end".to_owned());
        }
        if let Some(problem) = self.shared.registry.problem_of(&self.state, act) {
            return Some(problem);
        }
        let Act::Patch { step, input, references } = act else { return None };
        let step = self.state.step(step)?;
        let asked = step.asked.as_ref()?;
        if asked.local.is_some() || asked.child.is_some() {
            return asked.child.map(|_| "a child has its input already".to_owned());
        }
        let call = self.call(&step.key, step.generation, step.attempts + 1);
        let patched = crate::journal::event::Asked {
            input: input.clone(),
            references: references.clone(),
            ..asked.clone()
        };
        match self.facts(&patched, &call) {
            Err(NoFacts::NoWorker(problem)) => Some(problem),
            Err(NoFacts::Failed(failure)) => Some(format!("the activity does not take that: {failure}")),
            Ok(facts) => {
                let row = step.resource.as_ref().and_then(|id| self.state.ledger.get(id))?;
                let renamed = facts.resource.is_none_or(|resource| resource.name != row.name);
                renamed
                    .then(|| format!("what it makes is on the ledger as {}, and would be renamed", row.name))
            }
        }
    }
}

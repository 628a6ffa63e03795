//! Legality: which fact may follow in which phase of its step. What is not in the match is illegal.

use super::State;
use super::event::{Event as E, LocalRule};
use super::state::Attention;
use super::step::Phase as P;
use crate::ids::StepKey;

impl State {
    /// What stands against this fact; nothing if it may follow.
    pub(super) fn objection(&self, event: &E) -> Option<String> {
        let step = event.step().and_then(|key| self.step(key));
        let phase = step.map(|step| &step.phase);
        let unwinding = self.unwinding.is_some();
        let goes_back = event.step().is_some_and(|key| self.goes_back(key));
        let is_deferred = step.is_some_and(super::step::Step::is_deferred);
        let is_child = step.is_some_and(|step| step.child.is_some());
        let legal = match (event, phase) {
            (
                E::AttemptStarted { .. }
                | E::CompensationStarted { .. }
                | E::TimerFired { .. }
                | E::UnwindingStarted { .. }
                | E::ResultOffered { .. }
                | E::SagaCompleted { .. }
                | E::SagaCompensated {}
                | E::SagaFailed { .. },
                _,
            ) if self.paused.is_some() => false,
            (E::AttemptStarted { asked, .. } | E::AttemptDeferred { asked, attempt: None, .. }, None) => {
                asked.is_some() && !unwinding
            }
            (E::DeferRegistered { .. }, None) => !unwinding,
            (E::AttemptStarted { asked: None, .. }, Some(P::Registered)) => true,
            (E::AttemptDeferred { asked: None, attempt: None, .. }, Some(P::Registered)) => true,
            (E::AttemptStarted { asked: None, .. }, Some(P::Deferred { .. })) => !unwinding || is_deferred,
            (E::AttemptStarted { asked: None, .. }, Some(P::InDoubt { .. })) => {
                step.and_then(|step| step.asked.as_ref()).is_some_and(|asked| asked.effect.is_sent_again())
            }
            (E::AttemptDeferred { attempt: None, .. }, Some(P::Deferred { .. } | P::InDoubt { .. })) => true,
            (E::WriteHeld { asked, .. }, None) => asked.is_some() && !unwinding,
            (
                E::WriteHeld { asked: None, .. },
                Some(P::Registered | P::InDoubt { .. } | P::Removing { under_way: None, .. }),
            ) => true,
            (E::WriteHeld { asked: None, .. }, Some(P::Deferred { .. })) => !goes_back,
            (E::WriteHeld { asked: None, .. }, Some(P::Completed)) => goes_back && !is_child,
            (E::AbsenceSeen { .. }, Some(P::InDoubt { .. } | P::Undecidable)) => true,
            (E::AbsenceSeen { .. }, Some(P::Trying { .. })) => {
                step.is_some_and(super::step::Step::is_seen_gone)
            }
            (E::AttemptDeferred { attempt: Some(_), .. } | E::AttemptLost { .. }, Some(P::Trying { .. })) => {
                true
            }
            (E::StepCompleted { .. } | E::StepFailed { .. }, Some(P::Trying { .. })) => true,
            (
                E::StepCompleted { by_hand: true, .. },
                Some(P::Deferred { .. } | P::InDoubt { .. } | P::Undecidable),
            ) => !goes_back,
            (E::StepFailed { .. }, Some(P::Deferred { .. })) => true,
            (E::StepFound { .. }, Some(P::InDoubt { .. } | P::Undecidable)) => true,
            (E::PivotPassed { .. }, Some(P::Completed)) => self.pivot.is_none() && !unwinding,
            (E::TimerSet { .. } | E::ValueDrawn { .. }, None) => !unwinding,
            (E::LabelSet { step: Some(_), .. }, None) => !unwinding,
            (E::LabelSet { step: None, .. }, _) => true,
            (E::TimerFired { .. } | E::SignalReceived { .. }, Some(P::Waiting { .. })) => true,
            (E::ChildStarted { asked: Some(_), .. }, None) => !unwinding,
            // A transaction starts sagas on the way back as well.
            (E::ChildStarted { asked: None, .. }, Some(P::Completed | P::Undone)) => true,
            (E::ChildEnded { .. }, Some(P::Child | P::Completed | P::Removing { .. })) => is_child,
            (E::ResourceGone { .. }, Some(P::Completed)) => true,
            (E::CompensationStarted { .. }, Some(P::Completed)) => goes_back,
            (E::CompensationStarted { .. }, Some(P::Child)) => goes_back,
            (E::CompensationStarted { .. }, Some(P::Removing { under_way: None, .. })) => true,
            (E::CompensationDeferred { .. }, Some(P::Completed)) => goes_back,
            (
                E::CompensationDeferred { .. } | E::CompensationLost { .. } | E::StepCompensated { .. },
                Some(P::Removing { .. }),
            ) => true,
            // A revert in our own database has no intent: it is done, or it was never begun.
            (E::StepCompensated { .. }, Some(P::Completed)) => {
                let reverts = step.and_then(|step| step.asked.as_ref()).and_then(|asked| asked.local);
                goes_back && reverts == Some(LocalRule::Reverts)
            }
            (
                E::StepSkipped { .. },
                Some(P::Completed | P::InDoubt { .. } | P::Undecidable | P::Removing { .. } | P::Child),
            ) => true,
            (E::ScopeTurned { .. } | E::RaceDecided { .. }, _) => !unwinding,
            (E::ScopeUnwound { scope }, _) => self.turned_scopes.contains(scope) && !self.is_left_in(scope),
            (E::UnwindingStarted { .. }, _) => self.can_turn(),
            (E::ResultOffered { .. }, _) => {
                let is_child = self.parent.is_some() && self.offered.is_none();
                is_child && !unwinding && self.pivot.is_none() && self.is_settled()
            }
            (E::ParentEnded {}, _) => self.parent.is_some() && !self.parent_ended,
            (E::Paused { .. }, _) => true,
            (E::Resumed { .. }, _) => {
                self.paused.is_some()
                    || self.parked.as_ref().is_some_and(|(code, _)| *code == Attention::NoWorker)
            }
            (E::SagaCompleted { .. }, _) => !unwinding && self.is_settled() && !self.has_deferred(),
            (E::SagaCompensated {} | E::SagaFailed { .. }, _) => {
                unwinding && !self.is_left_in(&StepKey::root()) && !self.has_deferred()
            }
            (
                E::SagaStarted { .. }
                | E::Parked { .. }
                | E::CancelRequested { .. }
                | E::ResourceTaken { .. }
                | E::OperatorIntervened { .. },
                _,
            ) => true,
            _ => false,
        };
        if legal {
            return None;
        }
        let about = event.step().map_or_else(|| "the saga".to_owned(), |key| format!("step {key}"));
        Some(match phase {
            Some(phase) => format!("{about} is {phase:?}{}", if unwinding { ", unwinding" } else { "" }),
            None => format!("{about} is new{}", if unwinding { ", and the saga unwinds" } else { "" }),
        })
    }
}

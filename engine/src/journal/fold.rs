//! Fold: what each fact changes about where its saga stands.

use std::time::Duration;

use serde_json::Value;

use super::Entry;
use super::act::Act;
use super::due::NEVER;
use super::event::{Asked, ChildFate, ChildRule, Event, FoundKind, SkipReason};
use super::failure::Cause;
use super::state::{IllegalEvent, SagaState, State, Unwinding};
use super::step::{Phase, Step, Trouble};
use crate::data::Input;
use crate::env::Timestamp;
use crate::ids::{ResourceId, StepKey};
use crate::store::ResourceState;

impl State {
    /// Adds one entry. What is not in this match is illegal, and leaves the state as it was.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), IllegalEvent> {
        let at = entry.at;
        let illegal = |reason: String| Err(IllegalEvent { event: entry.event.name(), reason });
        if entry.seq != self.seq + 1 {
            return illegal(format!("it is number {}, and {} is next", entry.seq, self.seq + 1));
        }
        if let Some(ended) = self.ended {
            return illegal(format!("the saga is {ended}"));
        }
        if (self.seq == 0) != matches!(entry.event, Event::SagaStarted { .. }) {
            return illegal("a journal begins with saga_started, once".into());
        }
        if let Some(objection) = self.objection(&entry.event) {
            return illegal(objection);
        }
        self.record(&entry.event, at);
        self.close_what_never_was(&entry.event, at);
        self.seq = entry.seq;
        self.at = at;
        // What a person does to a saga that has not begun does not begin it.
        self.begun |= !matches!(
            entry.event,
            Event::SagaStarted { .. }
                | Event::OperatorIntervened { .. }
                | Event::Paused { .. }
                | Event::Resumed { .. }
        );
        Ok(())
    }

    /// What did not happen, and is not tried again since the saga or its scope has turned round, is nowhere.
    fn close_what_never_was(&mut self, event: &Event, at: Timestamp) {
        let turns = matches!(
            event,
            Event::UnwindingStarted { .. } | Event::ScopeTurned { .. } | Event::RaceDecided { .. }
        );
        let settles = matches!(event, Event::AttemptDeferred { .. } | Event::StepFound { .. });
        let is_over =
            |step: &&Step| matches!(step.phase, Phase::Deferred { .. }) && self.goes_back(&step.key);
        let its_own = event.step().filter(|_| settles).and_then(|key| self.step(key));
        // Nearly all entries are neither, and a long saga has very many.
        let concerned =
            if turns { self.steps.as_slice() } else { its_own.map_or(&[][..], std::slice::from_ref) };
        let rows: Vec<_> =
            concerned.iter().filter(is_over).filter_map(|step| step.resource.clone()).collect();
        for row in rows {
            self.ledger.set(&row, ResourceState::Gone, at);
        }
    }

    /// Whatever happens to a step that waits at a gate, or for a lost call's end, ends that wait.
    fn leave_gate(&mut self, event: &Event, at: Timestamp) {
        let place = event.step().and_then(|key| self.places.get(key).copied());
        if let Some(step) = place.and_then(|place| self.steps.get_mut(place)) {
            let waited = step.at_gate.take().map(|left| left.since);
            let waited = waited.or(step.waits_out.take().map(|(since, _)| since));
            step.held = step.held.saturating_add(waited.map_or(Duration::ZERO, |since| at.since(since)));
        }
    }

    fn record(&mut self, event: &Event, at: Timestamp) {
        self.leave_gate(event, at);
        match event {
            Event::SagaStarted {
                workflow,
                workflow_version,
                input,
                deadline_at,
                labels,
                start_at,
                parent,
            } => {
                self.workflow = (workflow.clone(), *workflow_version);
                self.input = input.clone();
                self.deadline_at = *deadline_at;
                self.labels = labels.clone();
                self.start_at = *start_at;
                self.parent = parent.clone();
                self.started_at = at;
            }
            Event::AttemptStarted { step, attempt, generation, not_after, asked, resource } => {
                let within = resource.as_ref().and_then(|named| named.resource.within.as_ref());
                let outer =
                    within.and_then(|outer| self.step(outer)).and_then(|outer| outer.resource.clone());
                let place = self.place(step, asked.as_deref(), at);
                place.phase = Phase::Trying { not_after: *not_after };
                place.attempts = *attempt;
                place.generation = *generation;
                place.since = at;
                place.sent_at.get_or_insert(at);
                if let Some(named) = resource {
                    place.resource = Some(named.id.clone());
                    self.ledger.intend(&self.saga.clone(), step, named, outer, at);
                }
                self.parked = None;
            }
            Event::AttemptDeferred { step, cause, detail, gate: Some(gate), asked, fingerprint, .. } => {
                let place = self.place(step, asked.as_deref(), at);
                place.phase = match place.phase {
                    Phase::InDoubt { .. } => Phase::InDoubt { look_at: NEVER },
                    _ => Phase::Deferred { retry_at: NEVER },
                };
                place.wait_at(gate, detail, at);
                // What went wrong before is still what a person should know.
                place.trouble.get_or_insert_with(|| trouble(Some(*cause), detail, fingerprint));
            }
            Event::AttemptDeferred {
                step,
                attempt,
                cause,
                detail,
                retry_at,
                asked,
                fingerprint,
                bookmark,
                ..
            } => {
                let place = self.place(step, asked.as_deref(), at);
                place.bookmark.clone_from(bookmark);
                if *cause == Cause::NotYet {
                    // It was seen to be there still.
                    place.absence = None;
                }
                place.phase = match (&place.phase, attempt) {
                    // Asking whether it is there did not work: the doubt stays.
                    (Phase::InDoubt { .. }, None) => {
                        place.looks += 1;
                        Phase::InDoubt { look_at: *retry_at }
                    }
                    // Sent again after a lost attempt, and this one did not happen: that one still may have.
                    (_, Some(_)) if place.doubted => {
                        place.looks += 1;
                        Phase::InDoubt { look_at: *retry_at }
                    }
                    _ => {
                        place.sent_at = None;
                        Phase::Deferred { retry_at: *retry_at }
                    }
                };
                place.trouble = Some(trouble(Some(*cause), detail, fingerprint));
                place.note_absence(Some(*cause), at);
                place.note_unkept(*cause, detail);
            }
            Event::AttemptLost { step, cause, detail, look_at, fingerprint, .. } => {
                let place = self.place(step, None, at);
                let sent_until = match place.phase {
                    Phase::Trying { not_after } => not_after,
                    _ => at,
                };
                let over = sent_until.plus(place.settle_after());
                // One whose answer came and cannot be kept is over.
                let is_lost = *cause != Cause::Unstorable;
                if is_lost {
                    let latest = place.lost.entry(place.generation).or_insert(over);
                    *latest = (*latest).max(over);
                }
                if place.doubted {
                    // It was sent again to settle that.
                    place.looks += 1;
                }
                (place.absence, place.bookmark, place.look_from) = (None, None, *look_at);
                place.phase = Phase::InDoubt { look_at: *look_at };
                // What leaves nothing that would have to be taken back is not worth a doubt.
                place.doubted = place.is_compensable();
                place.note_absence(None, at);
                place.note_unkept(*cause, detail);
                place.trouble = Some(trouble(Some(*cause), detail, fingerprint));
                self.set_resource(step, ResourceState::InDoubt, at);
                if is_lost {
                    self.unsettle(step, over, at);
                }
            }
            Event::WriteHeld { step, until, asked } => {
                let place = self.place(step, asked.as_deref(), at);
                place.phase = match place.phase {
                    Phase::InDoubt { .. } => Phase::InDoubt { look_at: *until },
                    Phase::Completed => Phase::Removing { under_way: None, due_at: *until, clearing: false },
                    Phase::Removing { clearing, .. } => {
                        Phase::Removing { under_way: None, due_at: *until, clearing }
                    }
                    _ => Phase::Deferred { retry_at: *until },
                };
                place.waits_out = Some((at, *until));
            }
            Event::AbsenceSeen { step, look_at, counts, by_hand } => {
                let place = self.place(step, None, at);
                let absence = place.absence.get_or_insert_default();
                absence.by_hand |= *by_hand;
                if *counts {
                    absence.first_at.get_or_insert(at);
                }
                (place.bookmark, place.look_from) = (None, *look_at);
                place.phase = match place.phase {
                    Phase::Trying { .. } => Phase::Deferred { retry_at: *look_at },
                    _ => Phase::InDoubt { look_at: *look_at },
                };
            }
            Event::StepFound { step, found, output, external_id } => {
                let place = self.place(step, None, at);
                if let Some(output) = output {
                    place.output = Some(output.clone());
                }
                place.doubted = *found == FoundKind::Unknowable;
                (place.absence, place.bookmark) = (None, None);
                match found {
                    FoundKind::Nothing => {
                        place.sent_at = None;
                        place.phase = Phase::Deferred { retry_at: at };
                    }
                    FoundKind::Usable => {
                        place.unkept = None;
                        place.phase = Phase::Completed;
                        place.trouble = None;
                        self.made(step, external_id.as_ref(), at);
                    }
                    FoundKind::Unusable => {
                        place.phase = Phase::Removing { under_way: None, due_at: at, clearing: true };
                        place.undo_attempts = 0;
                        place.undo_at = Some(at);
                        self.made(step, external_id.as_ref(), at);
                    }
                    FoundKind::Unknowable => {
                        place.looks += 1;
                        place.phase = Phase::Undecidable;
                    }
                }
            }
            Event::StepCompleted { step, output, external_id, by_hand } => {
                let place = self.place(step, None, at);
                if place.is_known_for_ever() && !by_hand {
                    place.lost.remove(&place.generation);
                    if let Some(row) = place.resource.clone() {
                        self.ledger.settle(&row, at);
                    }
                }
                let place = self.place(step, None, at);
                place.phase = Phase::Completed;
                place.doubted = false;
                place.unkept = None;
                place.output = Some(output.clone());
                place.trouble = None;
                self.made(step, external_id.as_ref(), at);
            }
            Event::StepFailed { step, refusal, fingerprint } => {
                let place = self.place(step, None, at);
                place.phase = Phase::Refused;
                place.trouble = Some(trouble(None, &refusal.message, fingerprint));
                place.refusal = Some(refusal.clone());
                self.set_resource(step, ResourceState::Gone, at);
            }
            Event::PivotPassed { step } => self.pivot = Some(step.clone()),
            Event::TimerSet { step, due_at, signal } => {
                let place = self.place(step, None, at);
                place.phase = Phase::Waiting { due_at: *due_at, signal: signal.clone() };
            }
            Event::TimerFired { step } => {
                let place = self.place(step, None, at);
                place.phase = Phase::Completed;
            }
            Event::SignalReceived { step, value } | Event::ValueDrawn { step, value } => {
                let place = self.place(step, None, at);
                place.phase = Phase::Completed;
                place.output = Some(value.clone());
            }
            Event::ChildStarted { step, child, asked: Some(asked) } => {
                let place = self.place(step, Some(asked), at);
                place.child = Some((child.clone(), None));
                place.phase = Phase::Child;
                if asked.child == Some(ChildRule::Started) {
                    place.phase = Phase::Completed;
                    place.output = Some(Value::from(child.as_str()));
                }
            }
            Event::ChildStarted { asked: None, .. } => {}
            Event::ChildEnded { step, child, fate, output, refusal } => {
                let place = self.place(step, None, at);
                place.child = Some((child.clone(), Some(*fate)));
                place.phase = match (&place.phase, fate) {
                    (Phase::Child, ChildFate::Done | ChildFate::Kept) => {
                        place.output.clone_from(output);
                        Phase::Completed
                    }
                    (Phase::Child, ChildFate::Gone) => {
                        place.refusal.clone_from(refusal);
                        Phase::Refused
                    }
                    (Phase::Removing { .. }, ChildFate::Gone) => Phase::Undone,
                    (Phase::Removing { .. }, ChildFate::Kept) => Phase::Skipped(SkipReason::Irrevocable),
                    (phase, _) => (*phase).clone(),
                };
            }
            Event::ResultOffered { output, owner } => self.offered = Some((output.clone(), owner.clone())),
            Event::ParentEnded {} => self.parent_ended = true,
            Event::RaceDecided { scope, winner, losers } => {
                self.races.insert(scope.clone(), winner.clone());
                for loser in losers {
                    if !self.turned_scopes.contains(loser) && !self.ended_scopes.contains(loser) {
                        self.turned_scopes.push(loser.clone());
                    }
                }
            }
            Event::DeferRegistered { step, asked } => {
                self.place(step, Some(asked), at).phase = Phase::Registered;
            }
            Event::LabelSet { step, name, value } => {
                if let Some(step) = step {
                    self.place(step, None, at).phase = Phase::Completed;
                }
                self.labels.insert(name.clone(), value.clone());
            }
            Event::Paused { until, actor, reason } => {
                self.paused = Some((*until, format!("{actor}: {reason}")));
            }
            Event::Resumed { .. } => {
                if self.paused.take().is_none() {
                    self.parked = None;
                }
            }
            Event::Parked { attention, detail } => self.parked = Some((*attention, detail.clone())),
            Event::CancelRequested { actor, reason } => self.cancel = Some((actor.clone(), reason.clone())),
            Event::UnwindingStarted { cause, refusal } => {
                self.unwinding = Some(Unwinding { cause: *cause, refusal: refusal.clone(), since: at });
                self.parked = None;
            }
            Event::CompensationStarted { step, attempt, not_after } => {
                let place = self.place(step, None, at);
                let clearing = matches!(place.phase, Phase::Removing { clearing: true, .. });
                place.phase = Phase::Removing { under_way: Some(*not_after), due_at: at, clearing };
                if place.child.is_some() {
                    // It was asked to turn round, and says when it has; nothing is under way until then.
                    place.phase = Phase::Removing { under_way: None, due_at: NEVER, clearing };
                }
                place.undo_attempts = *attempt;
                place.undo_at.get_or_insert(at);
                place.since = at;
                self.set_resource(step, ResourceState::Removing, at);
            }
            Event::CompensationDeferred { step, cause, detail, gate: Some(gate), fingerprint, .. } => {
                let place = self.place(step, None, at);
                let clearing = matches!(place.phase, Phase::Removing { clearing: true, .. });
                place.phase = Phase::Removing { under_way: None, due_at: NEVER, clearing };
                place.undo_at.get_or_insert(at);
                place.wait_at(gate, detail, at);
                place.trouble.get_or_insert_with(|| trouble(*cause, detail, fingerprint));
            }
            Event::CompensationDeferred { step, cause, detail, retry_at, fingerprint, .. } => {
                self.undo_failed(step, trouble(*cause, detail, fingerprint), *retry_at, at);
            }
            Event::CompensationLost { step, cause, detail, retry_at, fingerprint } => {
                let place = self.place(step, None, at);
                let sent_until = match place.phase {
                    Phase::Removing { under_way: Some(not_after), .. } => not_after,
                    _ => at,
                };
                let over = sent_until.plus(place.settle_after());
                place.undo_lost_until = place.undo_lost_until.max(Some(over));
                self.unsettle(step, over, at);
                self.undo_failed(step, trouble(Some(*cause), detail, fingerprint), *retry_at, at);
            }
            Event::StepCompensated { step, .. } => {
                let place = self.place(step, None, at);
                place.trouble = None;
                place.unkept = None;
                if matches!(place.phase, Phase::Removing { clearing: true, .. }) {
                    place.phase = Phase::Deferred { retry_at: at };
                    place.output = None;
                    place.sent_at = None;
                    place.generation += 1;
                    self.set_resource(step, ResourceState::Gone, at);
                    self.place(step, None, at).resource = None;
                } else {
                    place.phase = Phase::Undone;
                    self.set_resource(step, ResourceState::Gone, at);
                }
            }
            Event::StepSkipped { step, reason, to } => {
                let place = self.place(step, None, at);
                let before = std::mem::replace(&mut place.phase, Phase::Skipped(*reason));
                let in_doubt = matches!(before, Phase::InDoubt { .. } | Phase::Undecidable);
                place.went_along = (*reason == SkipReason::Within).then_some(before);
                place.trouble = None;
                if let Some(id) = place.resource.clone() {
                    if *reason != SkipReason::Within {
                        self.leave_behind(&id);
                    }
                    let keeper = self.ledger.get(&id).and_then(|row| row.keeper.clone());
                    match (reason, to.clone().or(keeper)) {
                        (SkipReason::Within, _) => self.ledger.set(&id, ResourceState::Removing, at),
                        (SkipReason::Struck | SkipReason::HandedOver, Some(holder)) => {
                            // It is not being taken away any more.
                            if self.ledger.get(&id).is_some_and(|row| row.state == ResourceState::Removing) {
                                let state =
                                    if in_doubt { ResourceState::InDoubt } else { ResourceState::Live };
                                self.ledger.set(&id, state, at);
                            }
                            self.ledger.hand_over(&id, &holder, at);
                        }
                        (_, Some(holder)) => self.ledger.hand_over(&id, &holder, at),
                        (_, None) => {}
                    }
                }
            }
            Event::ScopeTurned { scope, .. } => self.turned_scopes.push(scope.clone()),
            Event::ScopeUnwound { scope } => {
                self.turned_scopes.retain(|turned| turned != scope);
                self.ended_scopes.push(scope.clone());
                // What was still waited for in it, or to be tried again, is not any more.
                for step in self.steps.iter_mut().filter(|step| step.key.is_inside(scope)) {
                    if !step.is_deferred() && step.is_open() {
                        step.phase = Phase::Refused;
                    }
                }
            }
            Event::ResourceGone { resource, .. } => self.ledger.set(resource, ResourceState::Gone, at),
            Event::ResourceTaken { row } => {
                self.ledger.take_over(row, &self.saga.clone(), at);
                if let Some(until) = row.unsettled_until {
                    self.unsettled_until = self.unsettled_until.max(until);
                    self.came_unsettled.insert(row.id.clone(), until);
                }
            }
            Event::OperatorIntervened { act, .. } => self.intervene(act, at),
            Event::SagaCompleted { output, owner } => {
                self.output = Some(output.clone());
                self.ledger.hand_all_over(&self.saga.clone(), owner.as_ref(), at);
                self.ended = Some(SagaState::Completed);
            }
            Event::SagaCompensated {} => self.ended = Some(SagaState::Compensated),
            Event::SagaFailed { .. } => self.ended = Some(SagaState::Failed),
        }
    }

    /// What an act changes by itself; what else it does is a fact of its own behind it.
    fn intervene(&mut self, act: &Act, at: Timestamp) {
        match act {
            Act::Retry => {
                self.due_now(at);
                self.parked = None;
            }
            Act::Policy { step, max_wait } => {
                let latest = at.plus(*max_wait);
                let place = self.place(step, None, at);
                place.max_wait = Some(*max_wait);
                match &mut place.phase {
                    Phase::Deferred { retry_at } if *retry_at != NEVER => {
                        *retry_at = (*retry_at).min(latest);
                    }
                    Phase::Removing { under_way: None, due_at, .. } if *due_at != NEVER => {
                        *due_at = (*due_at).min(latest);
                    }
                    _ => {}
                }
            }
            Act::Patch { step, input, references } => {
                let place = self.place(step, None, at);
                place.patched = Some(Input { value: input.clone(), references: references.clone() });
                if let Phase::Deferred { retry_at } = &mut place.phase
                    && *retry_at != NEVER
                {
                    *retry_at = (*retry_at).min(at);
                }
            }
            _ => {}
        }
    }

    /// A thing is not taken away after all: what went along with it stands where it stood before.
    fn leave_behind(&mut self, outer: &ResourceId) {
        for step in &mut self.steps {
            let row = step.resource.as_ref().and_then(|id| self.ledger.get(id));
            if row.is_some_and(|row| row.within.as_ref() == Some(outer))
                && let Some(before) = step.went_along.take()
            {
                step.phase = before;
            }
        }
    }

    fn undo_failed(&mut self, step: &StepKey, trouble: Trouble, retry_at: Timestamp, at: Timestamp) {
        let place = self.place(step, None, at);
        let clearing = matches!(place.phase, Phase::Removing { clearing: true, .. });
        // A revert in our own database has no intent of its own: its first try is counted here.
        place.undo_attempts = place.undo_attempts.max(1);
        place.undo_at.get_or_insert(at);
        place.phase = Phase::Removing { under_way: None, due_at: retry_at, clearing };
        place.note_absence(trouble.cause, at);
        place.trouble = Some(trouble);
    }

    /// Everything that waits to be tried again is due at once: a person said so, or something woke the saga.
    pub(crate) fn due_now(&mut self, at: Timestamp) {
        for step in &mut self.steps {
            match &mut step.phase {
                Phase::Deferred { retry_at } if *retry_at != NEVER => *retry_at = (*retry_at).min(at),
                Phase::Removing { under_way: None, due_at, .. } if *due_at != NEVER => {
                    *due_at = (*due_at).min(at);
                }
                Phase::InDoubt { look_at } if *look_at != NEVER => {
                    *look_at = (*look_at).min(at.max(step.look_from));
                }
                Phase::Undecidable => step.phase = Phase::InDoubt { look_at: at },
                _ => {}
            }
        }
    }

    fn made(&mut self, step: &StepKey, external_id: Option<&String>, at: Timestamp) {
        if let Some(id) = self.step(step).and_then(|step| step.resource.clone()) {
            self.ledger.made(&id, external_id, at);
        }
    }

    fn set_resource(&mut self, step: &StepKey, state: ResourceState, at: Timestamp) {
        if let Some(id) = self.step(step).and_then(|step| step.resource.clone()) {
            self.ledger.set(&id, state, at);
        }
    }

    fn place(&mut self, key: &StepKey, asked: Option<&Asked>, at: Timestamp) -> &mut Step {
        let next = self.steps.len();
        let place = *self.places.entry(key.clone()).or_insert(next);
        if place == next {
            self.steps.push(Step::new(key.clone(), asked.cloned(), at));
        }
        // `places` and `steps` are only ever extended together.
        &mut self.steps[place]
    }
}

fn trouble(cause: Option<Cause>, detail: &str, fingerprint: &str) -> Trouble {
    Trouble { cause, detail: detail.to_owned(), fingerprint: fingerprint.to_owned() }
}

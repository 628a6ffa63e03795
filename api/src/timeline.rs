//! The timeline: a journal laid out as rows of attempts, waits and marks, before anyone draws it.
//!
//! One row for each step. Its attempts forward and its attempts to take it back stand on the same row, so
//! that left of the turning point the work goes down the page and right of it back up. Pure: the same
//! entries give the same timeline; *now* comes in only where it is drawn.

use std::collections::{BTreeMap, BTreeSet};

use amends_engine::journal::event::{FoundKind, SkipReason};
use amends_engine::journal::failure::Cause;
use amends_engine::journal::state::Phase;
use amends_engine::journal::{Entry, Event, State};
use amends_engine::store::ResourceRow;
use amends_engine::{SagaId, StepKey, Timestamp};

/// A whole saga, laid out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Timeline {
    /// One for each step, in the order in which they were asked for.
    pub rows: Vec<Row>,
    /// When the saga was asked for.
    pub began_at: Timestamp,
    /// The time of the last fact.
    pub last_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Where it, or a part of it, turned round.
    pub turns: Vec<Turn>,
    /// Where it passed the point after which there is only forward.
    pub pivot_at: Option<Timestamp>,
    /// What people did to it.
    pub flags: Vec<Flag>,
    /// Where the row of each step is.
    places: BTreeMap<StepKey, usize>,
}

/// One step's row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Which step.
    pub step: StepKey,
    /// The activity's name; nothing for timers, signals and drawn values.
    pub activity: Option<String>,
    /// The steps it depends on.
    pub after: Vec<StepKey>,
    /// Attempts and waits, in the order in which they began.
    pub spans: Vec<Span>,
    /// What happened at one moment, in order.
    pub marks: Vec<Mark>,
    /// What it made or may have made outside, as its ledger rows stand; the present generation last.
    pub things: Vec<ResourceRow>,
}

/// A stretch of time on a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// From when.
    pub from: Timestamp,
    /// Until when; nothing while it lasts.
    pub to: Option<Timestamp>,
    /// What it is.
    pub what: What,
}

/// What fills a stretch of time.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// A call.
    Attempt {
        /// In which direction.
        lane: Lane,
        /// 1 for the first.
        number: u32,
        /// What came of it.
        outcome: Outcome,
        /// What stood in the way, when something did.
        cause: Option<Cause>,
        /// The failure in words.
        detail: Option<String>,
    },
    /// Nothing is sent.
    Wait {
        /// For what.
        why: Wait,
        /// When it ends by itself.
        until: Option<Timestamp>,
    },
}

/// In which direction a call works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "snake_case")]
pub enum Lane {
    /// It does the step.
    Forward,
    /// It takes the step back.
    Undo,
    /// It takes away what was found useless; the step is then done anew.
    Clearing,
}

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "snake_case")]
pub enum Outcome {
    /// It is under way.
    UnderWay,
    /// It worked.
    Ok,
    /// It did not happen and will not.
    Refused,
    /// It did not happen, and is tried again.
    Unavailable,
    /// Nobody knows.
    NoAnswer,
}

/// What a wait is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// The next attempt.
    Retry,
    /// The provider's permission to ask again.
    Gate,
    /// The time when a lost attempt can be asked for.
    Doubt,
    /// The time when it is looked for once more, since one look that does not see it does not count.
    SecondLook,
    /// The time when a lost call to the same object is surely over.
    LostCall,
    /// A person: there is no way to tell what happened.
    Person,
    /// Time itself.
    Timer,
    /// A signal of this name.
    Signal(String),
    /// A child saga.
    Child,
    /// The end of the saga.
    End,
}

/// Something at one moment of a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: MarkKind,
}

/// What can happen at one moment.
#[derive(Debug, Clone, PartialEq)]
pub enum MarkKind {
    /// Something was made outside.
    Made,
    /// Something was taken away outside.
    Removed,
    /// Nobody knows whether it happened.
    InDoubt,
    /// It was asked whether the lost attempt left anything.
    Found(FoundKind),
    /// It was given up.
    GaveUp,
    /// It is taken back in our own database.
    Undone,
    /// It needs no taking back: it goes with what it lives in, or passes to its keeper.
    Skipped(SkipReason),
    /// From here on, only forward.
    Pivot,
    /// A value was drawn, or a signal or timer came.
    Settled,
    /// It started this saga.
    Child(SagaId),
}

/// Where a saga or a part of it turned round.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// When.
    pub at: Timestamp,
    /// Which part; the whole saga if none.
    pub scope: Option<StepKey>,
    /// Why, in words.
    pub why: String,
}

/// An act of a person, or of the engine on a person's behalf.
#[derive(Debug, Clone, PartialEq)]
pub struct Flag {
    /// When.
    pub at: Timestamp,
    /// In words.
    pub text: String,
}

/// Lays a journal out. What may not follow in a journal ends the layout there; nothing here can fail.
pub fn timeline(entries: &[Entry]) -> Timeline {
    let mut state = State::new(SagaId::stored(""));
    let mut timeline = Timeline::default();
    for entry in entries {
        if state.apply(entry).is_err() {
            break;
        }
        timeline.add(entry, &state);
    }
    for thing in state.ledger.rows() {
        if let Some(place) = timeline.places.get(&thing.step) {
            timeline.rows[*place].things.push(thing.clone());
        }
    }
    timeline
}

impl Timeline {
    /// Adds one fact; `state` is where the saga stands after it.
    fn add(&mut self, entry: &Entry, state: &State) {
        let at = entry.at;
        if entry.seq == 1 {
            self.began_at = at;
        }
        self.last_at = at;
        match &entry.event {
            Event::AttemptStarted { step, attempt, .. } => {
                let row = self.row(step, state);
                row.end_wait(at);
                row.begin_attempt(Lane::Forward, *attempt, at);
            }
            Event::AttemptDeferred { step, gate: Some(_), .. }
            | Event::CompensationDeferred { step, gate: Some(_), .. } => {
                let row = self.row(step, state);
                row.end_wait(at);
                row.begin_wait(Wait::Gate, None, at);
            }
            Event::AttemptDeferred { step, attempt, cause, detail, retry_at, .. } => {
                let doubted = phase(state, step).is_some_and(|phase| matches!(phase, Phase::InDoubt { .. }));
                let row = self.row(step, state);
                row.end_wait(at);
                if attempt.is_some() {
                    row.end_attempt(Lane::Forward, Outcome::Unavailable, Some(*cause), Some(detail), at);
                }
                let why = match attempt {
                    _ if doubted => Wait::Doubt,
                    Some(_) => Wait::Retry,
                    None => Wait::Gate,
                };
                row.begin_wait(why, Some(*retry_at), at);
            }
            Event::AttemptLost { step, cause, detail, look_at, .. } => {
                let row = self.row(step, state);
                row.end_attempt(Lane::Forward, Outcome::NoAnswer, Some(*cause), Some(detail), at);
                row.mark(MarkKind::InDoubt, at);
                row.begin_wait(Wait::Doubt, Some(*look_at), at);
            }
            Event::WriteHeld { step, until, .. } => {
                let row = self.row(step, state);
                row.end_wait(at);
                row.begin_wait(Wait::LostCall, Some(*until), at);
            }
            Event::AbsenceSeen { step, look_at, .. } => {
                let row = self.row(step, state);
                row.end_wait(at);
                row.end_attempt(Lane::Forward, Outcome::Ok, None, None, at);
                row.begin_wait(Wait::SecondLook, Some(*look_at), at);
            }
            Event::StepFound { step, found, .. } => {
                let makes = makes(state, step);
                let row = self.row(step, state);
                row.end_wait(at);
                row.mark(MarkKind::Found(*found), at);
                match found {
                    FoundKind::Usable if makes => row.mark(MarkKind::Made, at),
                    FoundKind::Unknowable => row.begin_wait(Wait::Person, None, at),
                    _ => {}
                }
            }
            Event::StepCompleted { step, .. } => {
                let makes = makes(state, step);
                let row = self.row(step, state);
                row.end_attempt(Lane::Forward, Outcome::Ok, None, None, at);
                if makes {
                    row.mark(MarkKind::Made, at);
                }
            }
            Event::StepFailed { step, refusal, .. } => {
                let row = self.row(step, state);
                let detail = refusal.to_string();
                if row.is_trying() {
                    row.end_attempt(Lane::Forward, Outcome::Refused, None, Some(&detail), at);
                } else {
                    row.end_wait(at);
                    row.mark(MarkKind::GaveUp, at);
                }
            }
            Event::PivotPassed { step } => {
                self.pivot_at = Some(at);
                self.row(step, state).mark(MarkKind::Pivot, at);
            }
            Event::TimerSet { step, due_at, signal } => {
                let why = signal.clone().map_or(Wait::Timer, Wait::Signal);
                self.row(step, state).begin_wait(why, due_at.ever(), at);
            }
            Event::TimerFired { step }
            | Event::SignalReceived { step, .. }
            | Event::ValueDrawn { step, .. } => {
                let row = self.row(step, state);
                row.end_wait(at);
                row.mark(MarkKind::Settled, at);
            }
            Event::ChildStarted { step, child, .. } => {
                self.row(step, state).mark(MarkKind::Child(child.clone()), at);
                if state.step(step).is_some_and(|step| step.phase == Phase::Child) {
                    self.row(step, state).begin_wait(Wait::Child, None, at);
                }
            }
            Event::ChildEnded { step, .. } => {
                let row = self.row(step, state);
                row.end_wait(at);
                row.mark(MarkKind::Settled, at);
            }
            Event::DeferRegistered { step, .. } => self.row(step, state).begin_wait(Wait::End, None, at),
            Event::CompensationStarted { step, attempt, .. } => {
                let lane = lane(state, step);
                let row = self.row(step, state);
                row.end_wait(at);
                row.begin_attempt(lane, *attempt, at);
            }
            Event::CompensationDeferred { step, cause, detail, retry_at, .. } => {
                let outcome = if cause.is_some() { Outcome::Unavailable } else { Outcome::Refused };
                self.undo_failed(step, outcome, *cause, detail, *retry_at, at, state);
            }
            Event::CompensationLost { step, cause, detail, retry_at, .. } => {
                self.undo_failed(step, Outcome::NoAnswer, Some(*cause), detail, *retry_at, at, state);
            }
            Event::StepCompensated { step, .. } => {
                let makes = state.ledger.rows().any(|thing| thing.step == *step);
                let row = self.row(step, state);
                row.end_wait(at);
                row.end_attempt(Lane::Undo, Outcome::Ok, None, None, at);
                row.mark(if makes { MarkKind::Removed } else { MarkKind::Undone }, at);
            }
            Event::StepSkipped { step, reason, .. } => {
                let row = self.row(step, state);
                row.end_wait(at);
                row.mark(MarkKind::Skipped(*reason), at);
            }
            Event::ResourceGone { step, .. } => self.row(step, state).mark(MarkKind::Removed, at),
            Event::ScopeTurned { scope, refusal } => {
                let why = refusal.to_string();
                self.rows.iter_mut().filter(|row| row.step.is_inside(scope)).for_each(|row| row.turn(at));
                self.turns.push(Turn { at, scope: Some(scope.clone()), why });
            }
            Event::UnwindingStarted { refusal, .. } => {
                self.rows.iter_mut().for_each(|row| row.turn(at));
                self.turns.push(Turn { at, scope: None, why: refusal.to_string() });
            }
            Event::CancelRequested { actor, reason } => {
                self.flags.push(Flag { at, text: format!("{actor} asked to cancel: {reason}") });
            }
            Event::OperatorIntervened { act, actor, reason, .. } => {
                self.flags.push(Flag { at, text: format!("{actor} asked to {}: {reason}", act.kind()) });
            }
            Event::Paused { until, actor, reason } => {
                self.flags.push(Flag { at, text: format!("{actor} paused it until {until}: {reason}") });
            }
            Event::Resumed { actor } => {
                let who = actor.as_deref().unwrap_or("the end of its pause");
                self.flags.push(Flag { at, text: format!("{who} lets it go on") });
            }
            Event::RaceDecided { winner, losers, .. } => {
                for loser in losers {
                    self.rows.iter_mut().filter(|row| row.step.is_inside(loser)).for_each(|row| row.turn(at));
                    let why = format!("{winner} got through first");
                    self.turns.push(Turn { at, scope: Some(loser.clone()), why });
                }
            }
            Event::ResultOffered { .. } => {
                self.flags.push(Flag { at, text: "waits for the saga that called it".to_owned() });
            }
            Event::Parked { attention, detail } => {
                self.flags.push(Flag { at, text: format!("{attention}: {detail}") });
            }
            Event::SagaCompleted { .. } | Event::SagaCompensated {} | Event::SagaFailed { .. } => {
                self.ended_at = Some(at);
                self.rows.iter_mut().for_each(|row| row.end(at));
            }
            Event::SagaStarted { .. }
            | Event::LabelSet { .. }
            | Event::ParentEnded {}
            | Event::ResourceTaken { .. }
            | Event::ScopeUnwound { .. } => {}
        }
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "the fields of one fact, and where the saga stands after it"
    )]
    fn undo_failed(
        &mut self,
        step: &StepKey,
        outcome: Outcome,
        cause: Option<Cause>,
        detail: &str,
        retry_at: Timestamp,
        at: Timestamp,
        state: &State,
    ) {
        let lane = lane(state, step);
        let row = self.row(step, state);
        row.end_wait(at);
        row.end_attempt(lane, outcome, cause, Some(detail), at);
        row.begin_wait(Wait::Retry, Some(retry_at), at);
    }

    fn row(&mut self, step: &StepKey, state: &State) -> &mut Row {
        let place = self.places.get(step).copied().unwrap_or_else(|| {
            let asked = state.step(step).and_then(|step| step.asked.as_ref());
            self.rows.push(Row {
                step: step.clone(),
                activity: asked.map(|asked| asked.activity.clone()),
                after: asked.map(|asked| asked.after.clone()).unwrap_or_default(),
                spans: Vec::new(),
                marks: Vec::new(),
                things: Vec::new(),
            });
            self.places.insert(step.clone(), self.rows.len() - 1);
            self.rows.len() - 1
        });
        &mut self.rows[place]
    }

    /// The row of a step.
    pub fn row_of(&self, step: &StepKey) -> Option<&Row> {
        self.places.get(step).and_then(|place| self.rows.get(*place))
    }

    /// The same with these steps alone, and of each no more than so many of its last spans, marks and things.
    pub fn only(mut self, steps: &BTreeSet<StepKey>, most: usize) -> Self {
        fn last<T>(all: &mut Vec<T>, most: usize) {
            all.drain(..all.len().saturating_sub(most));
        }
        self.rows.retain(|row| steps.contains(&row.step));
        for row in &mut self.rows {
            last(&mut row.spans, most);
            last(&mut row.marks, most);
            last(&mut row.things, most);
        }
        self.places = self.rows.iter().map(|row| row.step.clone()).zip(0..).collect();
        last(&mut self.turns, most);
        last(&mut self.flags, most);
        self
    }

    /// Where the paper has to end: at the end of the saga, or at the next thing that is planned.
    pub fn ends_at(&self, now: Timestamp) -> Timestamp {
        let planned = self.rows.iter().flat_map(|row| &row.spans).filter_map(|span| match &span.what {
            What::Wait { until, .. } if span.to.is_none() => *until,
            _ => None,
        });
        match self.ended_at {
            Some(ended_at) => ended_at,
            None => planned.max().unwrap_or(now).max(now),
        }
    }
}

impl Row {
    /// The attempts alone, oldest first.
    pub fn attempts(&self) -> impl Iterator<Item = (&Span, &What)> {
        self.spans
            .iter()
            .filter(|span| matches!(span.what, What::Attempt { .. }))
            .map(|span| (span, &span.what))
    }

    fn is_trying(&self) -> bool {
        self.spans.last().is_some_and(|span| span.to.is_none() && matches!(span.what, What::Attempt { .. }))
    }

    fn begin_attempt(&mut self, lane: Lane, number: u32, at: Timestamp) {
        let what = What::Attempt { lane, number, outcome: Outcome::UnderWay, cause: None, detail: None };
        self.spans.push(Span { from: at, to: None, what });
    }

    /// Ends the attempt that is under way. One in our own database has no intent of its own and is all at once.
    fn end_attempt(
        &mut self,
        lane: Lane,
        came: Outcome,
        why: Option<Cause>,
        words: Option<&str>,
        at: Timestamp,
    ) {
        if !self.is_trying() {
            let before = self
                .attempts()
                .filter(|(_, what)| matches!(what, What::Attempt { lane: of, .. } if *of == lane))
                .count();
            self.begin_attempt(lane, u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1), at);
        }
        if let Some(Span { to, what: What::Attempt { outcome, cause, detail, .. }, .. }) =
            self.spans.last_mut()
        {
            *to = Some(at);
            *outcome = came;
            *cause = why;
            *detail = words.map(ToOwned::to_owned);
        }
    }

    fn begin_wait(&mut self, why: Wait, until: Option<Timestamp>, at: Timestamp) {
        self.spans.push(Span { from: at, to: None, what: What::Wait { why, until } });
    }

    fn end_wait(&mut self, at: Timestamp) {
        if let Some(Span { to: to @ None, what: What::Wait { .. }, .. }) = self.spans.last_mut() {
            *to = Some(at);
        }
    }

    /// What waits to go forward waits no longer; doubt stays, since it is settled on the way back too.
    fn turn(&mut self, at: Timestamp) {
        let last = self.spans.last().map(|span| &span.what);
        let is_doubt = matches!(last, Some(What::Wait { why: Wait::Doubt | Wait::Person, .. }));
        if !is_doubt {
            self.end_wait(at);
        }
    }

    fn end(&mut self, at: Timestamp) {
        if let Some(span) = self.spans.last_mut() {
            span.to.get_or_insert(at);
        }
    }

    fn mark(&mut self, what: MarkKind, at: Timestamp) {
        self.marks.push(Mark { at, what });
    }
}

fn phase<'s>(state: &'s State, step: &StepKey) -> Option<&'s Phase> {
    state.step(step).map(|step| &step.phase)
}

fn makes(state: &State, step: &StepKey) -> bool {
    state.step(step).is_some_and(|step| step.resource.is_some())
}

fn lane(state: &State, step: &StepKey) -> Lane {
    match phase(state, step) {
        Some(Phase::Removing { clearing: true, .. }) => Lane::Clearing,
        _ => Lane::Undo,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    /// One line for each span and mark, as a person would tell the row.
    fn told(row: &Row) -> String {
        let time = |at: Timestamp| format!("{:.1}", at.since(samples::at(0)).as_secs_f64());
        let mut lines = vec![format!("{}:", row.step)];
        for span in &row.spans {
            let to = span.to.map_or("…".to_owned(), time);
            let what = match &span.what {
                What::Attempt { lane, number, outcome, .. } => format!("{lane} {number} {outcome}"),
                What::Wait { why, .. } => format!("wait {why:?}"),
            };
            lines.push(format!("  {}–{to} {what}", time(span.from)));
        }
        lines.extend(row.marks.iter().map(|mark| format!("  {} {:?}", time(mark.at), mark.what)));
        lines.extend(row.things.iter().map(|thing| format!("  {} is {}", thing.kind, thing.state)));
        lines.join("\n")
    }

    #[test]
    fn attempts_waits_doubt_and_undo_stand_on_the_row_of_their_step() {
        let timeline = timeline(&samples::stuck().entries());
        let rows: Vec<String> = timeline.rows.iter().map(told).collect();
        insta::assert_snapshot!(rows.join("\n"));
        assert_eq!(timeline.turns.len(), 1);
        assert_eq!(timeline.flags[0].text, "anna asked to retry: Telnyx says it is back");
    }

    #[test]
    fn a_journal_that_breaks_off_wrongly_is_laid_out_as_far_as_it_goes() {
        let journal = samples::Journal::of("claim").tries(5, "join", "runtime.join", None);
        let journal = journal.undone(10, "join").completes(20, "join", None);
        let timeline = timeline(&journal.entries());
        assert_eq!(timeline.rows.len(), 1);
        assert_eq!(timeline.last_at, samples::at(5));
        assert_eq!(super::timeline(&[]), Timeline::default());
    }

    #[test]
    fn what_lasts_has_no_end_until_the_saga_has_one() {
        let waiting = timeline(&samples::in_doubt().entries());
        assert!(waiting.rows[0].spans.last().unwrap().to.is_none());
        let ended = timeline(&samples::completed().entries());
        assert!(ended.rows.iter().flat_map(|row| &row.spans).all(|span| span.to.is_some()));
        assert_eq!(ended.ends_at(samples::at(99_000_000)), ended.ended_at.unwrap());
    }
}

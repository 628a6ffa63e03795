//! Step: one step of a saga, and the phases it goes through.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::event::{Asked, ChildFate, FoundKind, LocalRule, SkipReason};
use super::failure::{Cause, Refusal};
use super::state::Attention;
use crate::activity::Effect;
use crate::data::Input;
use crate::env::Timestamp;
use crate::ids::{ResourceId, SagaId, StepKey};

/// A step that has failed, and was tried so often, is shown as [`Attention::Retrying`]; one whose undo was tried so
/// often, as [`Attention::UndoStuck`].
pub const STUCK_ATTEMPTS: u32 = 5;
/// So is one that has been tried, or taken back, for so long, however few the tries: 10 minutes. Time at a gate does
/// not count.
pub const STUCK_AFTER: Duration = Duration::from_secs(600);

/// Where a step stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// An attempt is under way, at the latest until then.
    Trying {
        /// When its call is certainly over.
        not_after: Timestamp,
    },
    /// It did not happen; it is tried again.
    Deferred {
        /// When.
        retry_at: Timestamp,
    },
    /// It may have happened; it is settled.
    InDoubt {
        /// Not before this.
        look_at: Timestamp,
    },
    /// It may have happened, and there is no way to tell.
    Undecidable,
    /// A timer, or a signal with a time limit.
    Waiting {
        /// When it ends by itself.
        due_at: Timestamp,
        /// The signal that ends it earlier.
        signal: Option<String>,
    },
    /// Put off until the saga ends.
    Registered,
    /// A child saga is at it.
    Child,
    /// It happened.
    Completed,
    /// It did not happen and will not.
    Refused,
    /// It is being taken back: to be tried anew when `clearing`, for good otherwise.
    Removing {
        /// A call is under way, at the latest until then.
        under_way: Option<Timestamp>,
        /// When the next attempt is due, if none is under way.
        due_at: Timestamp,
        /// Only what was found useless is taken away; the step itself goes on in its next generation.
        clearing: bool,
    },
    /// It is taken back.
    Undone,
    /// It needs no taking back of its own.
    Skipped(SkipReason),
}

/// One step of a saga.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Its name.
    pub key: StepKey,
    /// What it is; nothing for timers, signals and drawn values.
    pub asked: Option<Asked>,
    /// Where it stands.
    pub phase: Phase,
    /// Where it stood when it went along with what it lives in: it stands there again if that one stays.
    pub(super) went_along: Option<Phase>,
    /// How often it was tried.
    pub attempts: u32,
    /// How often asking about a lost attempt failed, or told nothing; or sending it again did, where that is how it is
    /// asked about.
    pub looks: u32,
    /// Which generation it is in.
    pub generation: u32,
    /// When it was first asked for.
    pub asked_at: Timestamp,
    /// What it yielded, or what was found.
    pub output: Option<Value>,
    /// Why it was refused.
    pub refusal: Option<Refusal>,
    /// The ledger row of its generation.
    pub resource: Option<ResourceId>,
    /// Where its last attempt, or its last compensation, failed.
    pub trouble: Option<Trouble>,
    /// Since when what is to be gone has been seen to be absent, without having been seen in between.
    pub absent_since: Option<Timestamp>,
    /// How often it was tried to take it back.
    pub undo_attempts: u32,
    /// When taking it back began.
    pub undo_at: Option<Timestamp>,
    /// When its present attempt began.
    pub since: Timestamp,
    /// When the first attempt of this generation left that may have happened.
    pub sent_at: Option<Timestamp>,
    /// Whether an attempt of this generation was lost and nothing has settled since whether it happened.
    pub doubted: bool,
    /// Why what it did cannot be kept, until that is settled or taken back.
    pub unkept: Option<String>,
    /// Until when a lost attempt of it may still take effect, by generation: the latest of each.
    pub lost: BTreeMap<u32, Timestamp>,
    /// Until when a lost call of its undo may.
    pub undo_lost_until: Option<Timestamp>,
    /// Since when its call waits for nothing but the end of a lost one, and until when.
    pub waits_out: Option<(Timestamp, Timestamp)>,
    /// That it was looked for and not seen, since its last attempt.
    pub absence: Option<Absence>,
    /// Its doubt is not settled before this, whoever asks for that.
    pub look_from: Timestamp,
    /// Where a look that was cut off goes on.
    pub bookmark: Option<Value>,
    /// What it is asked for instead of what the function asked, since a person said so.
    pub(crate) patched: Option<Input>,
    /// The longest wait between its tries, since a person said so.
    pub max_wait: Option<Duration>,
    /// The saga that is at it, and what became of that one.
    pub child: Option<(SagaId, Option<ChildFate>)>,
    /// The gate at which it waits.
    pub at_gate: Option<AtGate>,
    /// How long it has waited at gates, or for a lost call to be over: that does not count against its time.
    pub held: Duration,
}

/// What was looked for and not seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Absence {
    /// When the first look ended of those that count; nothing while the lost call may still take effect.
    pub first_at: Option<Timestamp>,
    /// Whether a person has looked.
    pub by_hand: bool,
}

/// A gate at which a step waits until it is let go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtGate {
    /// Which.
    pub gate: String,
    /// Since when.
    pub since: Timestamp,
    /// Why, as it was then.
    pub detail: String,
}

/// Where an attempt, or a compensation, failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// How; nothing when an undo was refused.
    pub cause: Option<Cause>,
    /// In words.
    pub detail: String,
    /// What groups it with the same trouble elsewhere.
    pub fingerprint: String,
}

impl Step {
    /// A step that has just been asked for.
    pub(super) fn new(key: StepKey, asked: Option<Asked>, at: Timestamp) -> Self {
        Self {
            key,
            asked,
            phase: Phase::Deferred { retry_at: at },
            went_along: None,
            attempts: 0,
            looks: 0,
            generation: 1,
            asked_at: at,
            output: None,
            refusal: None,
            resource: None,
            trouble: None,
            absent_since: None,
            undo_attempts: 0,
            undo_at: None,
            since: at,
            sent_at: None,
            doubted: false,
            unkept: None,
            lost: BTreeMap::new(),
            undo_lost_until: None,
            waits_out: None,
            absence: None,
            look_from: at,
            bookmark: None,
            patched: None,
            max_wait: None,
            child: None,
            at_gate: None,
            held: Duration::ZERO,
        }
    }

    /// Whether it runs in our own database.
    pub fn is_local(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.local.is_some())
    }

    /// Whether its doubt may be settled by sending it again at that time: the other side knows it again.
    pub(crate) fn is_known_again(&self, at: Timestamp) -> bool {
        let Some(asked) = &self.asked else { return false };
        asked.effect.is_sent_again() && asked.effect.is_in_window(self.sent_at.unwrap_or(at), at)
    }

    /// When its doubt is settled, if it would be sent again at `at`: what cannot be sent again any more is looked for,
    /// and not before the call that was lost last is surely over, at `over`.
    pub(crate) fn settled_at(&self, at: Timestamp, over: Timestamp) -> Timestamp {
        if self.is_known_again(at) { at } else { at.max(over) }
    }

    /// How long behind its time limit a lost call of it may still take effect.
    pub(crate) fn settle_after(&self) -> Duration {
        self.asked.as_ref().map_or(Duration::ZERO, |asked| asked.settle_after)
    }

    /// Until when a lost attempt of it, in any generation, may still take effect.
    pub fn unsettled_until(&self) -> Option<Timestamp> {
        self.lost.values().max().copied()
    }

    /// Whether a look that began then can tell that nothing is there: the lost call was surely over.
    pub(crate) fn look_counts(&self, began: Timestamp) -> bool {
        self.unsettled_until().is_none_or(|over| over <= began)
    }

    /// When a step that a look which began at `began` did not find is to be looked for again, before that is
    /// believed; nothing if it is. `now` is when the look ended.
    pub(crate) fn look_again_at(&self, began: Timestamp, now: Timestamp) -> Option<Timestamp> {
        if !self.look_counts(began) {
            return self.unsettled_until().max(Some(now));
        }
        let is_enough = self.asked.as_ref().is_some_and(|asked| asked.is_consistent);
        let second = self
            .absence
            .as_ref()
            .and_then(|absence| absence.first_at)
            .unwrap_or(now)
            .plus(self.settle_after());
        let has_first = self.absence.as_ref().is_some_and(|absence| absence.first_at.is_some());
        if is_enough || has_first && second <= began { None } else { Some(second.max(now)) }
    }

    /// Whether a call that succeeds says that every lost one of the same key is without effect.
    pub(super) fn is_known_for_ever(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.effect == Effect::RepeatableForever)
    }

    /// What a look that tells nothing comes to: where a person has looked and seen nothing, that counts.
    pub(crate) fn unless_seen_by_a_person(&self, found: FoundKind) -> FoundKind {
        match found {
            FoundKind::Unknowable if self.absence.as_ref().is_some_and(|absence| absence.by_hand) => {
                FoundKind::Nothing
            }
            found => found,
        }
    }

    /// Whether it is a read whose success closes ledger rows.
    pub(crate) fn is_seen_gone(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.effect == Effect::Read && !asked.removes.is_empty())
    }

    /// Whether its calls leave this process and write something there.
    pub(crate) fn is_outside(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| {
            asked.local.is_none() && asked.child.is_none() && asked.effect != Effect::Read
        })
    }

    /// Whether it was put off until the saga ends.
    pub fn is_deferred(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.deferred)
    }

    /// Whether something is to be taken back for this step once it is known to have happened.
    pub fn is_compensable(&self) -> bool {
        self.resource.is_some()
            || self.asked.as_ref().is_some_and(|asked| asked.local == Some(LocalRule::Reverts))
            || self.child.as_ref().is_some_and(|(_, fate)| *fate != Some(ChildFate::Kept))
    }

    /// Whether it happened, or may have, and still waits to be taken back.
    pub fn is_left(&self) -> bool {
        match self.phase {
            Phase::Trying { .. } | Phase::Removing { .. } => true,
            Phase::InDoubt { .. } | Phase::Undecidable | Phase::Completed | Phase::Child => {
                self.is_compensable()
            }
            _ => false,
        }
    }

    /// Whether it waits, for a time, to be tried again, or for its doubt to be settled.
    pub(super) fn is_open(&self) -> bool {
        matches!(
            self.phase,
            Phase::Deferred { .. } | Phase::Waiting { .. } | Phase::InDoubt { .. } | Phase::Undecidable
        )
    }

    /// What is asked of it now: as the function asked, or as a person changed it.
    pub fn current(&self) -> Option<Asked> {
        let mut asked = self.asked.clone()?;
        if let Some(patched) = &self.patched {
            asked.input.clone_from(&patched.value);
            asked.references.clone_from(&patched.references);
        }
        Some(asked)
    }

    /// Whether the user's own code panicked where it was tried last: that is no matter of time.
    fn has_panicked(&self) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| trouble.cause == Some(Cause::Panic))
    }

    /// Whether it has failed so often, or for so long, that a person should know. Waiting for what is not ready
    /// yet is no failure.
    fn is_tried_in_vain(&self, for_long: bool) -> bool {
        if self.has_panicked() {
            return true;
        }
        let is_polled = self.asked.as_ref().is_none_or(|asked| asked.every.is_some());
        let is_wait = |cause| matches!(cause, Some(Cause::NotYet | Cause::AbsentOnce));
        let has_failed = self.trouble.as_ref().is_some_and(|trouble| !is_wait(trouble.cause));
        !is_polled && has_failed && (self.attempts >= STUCK_ATTEMPTS || for_long)
    }

    /// An attempt failed so: an absence lasts as long as each attempt sees it.
    pub(super) fn note_absence(&mut self, cause: Option<Cause>, at: Timestamp) {
        let is_absent = cause == Some(Cause::AbsentOnce);
        self.absent_since = is_absent.then(|| self.absent_since.unwrap_or(at));
    }

    /// Keeps in mind why what it did cannot be kept, whatever else goes wrong with it until that is settled.
    pub(super) fn note_unkept(&mut self, cause: Cause, detail: &str) {
        if cause == Cause::Unstorable {
            self.unkept = Some(detail.to_owned());
        }
    }

    /// How long it has waited at gates, and for lost calls to be over, by now.
    pub(crate) fn held_by(&self, now: Timestamp) -> Duration {
        let waits = self.at_gate.as_ref().map(|gate| gate.since).or(self.waits_out.map(|(since, _)| since));
        self.held.saturating_add(waits.map_or(Duration::ZERO, |since| now.since(since)))
    }

    pub(super) fn wait_at(&mut self, gate: &str, detail: &str, since: Timestamp) {
        let (gate, detail) = (gate.to_owned(), detail.to_owned());
        self.at_gate = Some(AtGate { gate, since, detail });
    }

    /// What a person should know of it now.
    pub fn attention(&self, now: Timestamp) -> Vec<Attention> {
        let mut all = Vec::new();
        // Time at a gate is no time of trying.
        let for_long = |since: Timestamp| {
            self.at_gate.is_none() && now.since(since).saturating_sub(self.held_by(now)) >= STUCK_AFTER
        };
        match &self.phase {
            Phase::Undecidable => all.push(Attention::NeedsDecision),
            Phase::InDoubt { .. } if self.looks > 0 => all.push(Attention::InDoubt),
            Phase::Trying { .. } if self.looks > 0 && self.doubted => all.push(Attention::InDoubt),
            Phase::Removing { .. }
                if self.has_panicked()
                    || self.undo_attempts >= STUCK_ATTEMPTS
                    || self.undo_at.is_some_and(for_long) =>
            {
                all.push(Attention::UndoStuck);
            }
            Phase::Deferred { .. } | Phase::Trying { .. } | Phase::InDoubt { .. }
                if self.is_tried_in_vain(for_long(self.asked_at)) =>
            {
                all.push(Attention::Retrying);
            }
            _ => {}
        }
        let unsettled =
            !matches!(self.phase, Phase::Completed | Phase::Refused | Phase::Undone | Phase::Skipped(_));
        if unsettled && self.unkept.is_some() {
            all.push(Attention::NeedsDecision);
        }
        if unsettled && let Some(Trouble { cause, .. }) = &self.trouble {
            let refused_undo = cause.is_none() && matches!(self.phase, Phase::Removing { .. });
            if refused_undo || matches!(cause, Some(Cause::Credential | Cause::Refused)) {
                all.push(Attention::NeedsDecision);
            }
        }
        all
    }

    /// Whether a call of it may be under way.
    pub fn is_under_way(&self) -> bool {
        matches!(self.phase, Phase::Trying { .. } | Phase::Removing { under_way: Some(_), .. })
    }
}

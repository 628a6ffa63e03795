//! What the database keeps of a gate, and every decision that is made of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Lane, Queue, Rule, Times, Tokens, split};
use crate::env::Timestamp;
use crate::journal::event::closed_set;

/// The largest wave.
const WAVE_MAX: u32 = 1024;
/// How many are let go at a time at most.
const RELEASE_MAX: u32 = 256;
/// How many acts of people a gate remembers.
const ACTS_MAX: usize = 100;

/// A gate as it is shared and kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GateState {
    /// What holds there, as it was last declared.
    pub rule: Rule,
    /// Nobody passes.
    pub closed: Option<Closed>,
    /// It was closed, and is tried with a few.
    pub probe: Option<Probe>,
    /// How many calls failed in a row.
    pub failures: u32,
    /// How often in a row it tripped.
    pub trips: u32,
    /// What is left of its rate.
    pub tokens: Option<Tokens>,
    /// The permits that workers have in hand.
    pub shares: BTreeMap<String, Share>,
    /// The lane that is next when only one may pass.
    pub favoured: Lane,
    /// What people did to it, oldest first; the last hundred.
    pub acts: Vec<GateAct>,
}

/// Why nobody passes, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// Who closed it.
    pub by: Why,
    /// In words.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when; nothing if a person has to open it.
    pub until: Option<Timestamp>,
}

closed_set! {
    /// Who closed a gate.
    Why {
        /// Too many calls failed in a row; compensations are tried all the same.
        Breaker,
        /// The provider said so: too many calls, or a credential that it does not take.
        Provider,
        /// A person said so.
        Person,
    }
}

/// A gate that was closed, and is tried with a few.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Since when this wave.
    pub since: Timestamp,
    /// How many are in it.
    pub wave: u32,
    /// How many of them were let go.
    pub given: u32,
    /// How many of them got through.
    pub through: u32,
    /// It was a breaker that closed it, so that compensations are none of its business.
    pub tripped: bool,
}

/// Permits that one worker has in hand, for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// How many.
    pub permits: u32,
    /// Until when: a worker that is gone has no call under way after this.
    pub until: Timestamp,
}

/// What a worker got for its calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Permits, on top of those it has.
    pub permits: u32,
    /// Tokens.
    pub tokens: u32,
    /// Places in the wave with which the gate is tried.
    pub places: u32,
}

/// What a person did to a gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateAct {
    /// It was opened, or closed.
    pub opened: bool,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

impl GateState {
    /// What is made of a row that cannot be read: nobody passes until a person opens the gate, which writes it anew.
    pub(crate) fn unreadable(error: &serde_json::Error) -> Self {
        let reason = format!("its row cannot be read ({error})");
        let closed = Closed { by: Why::Person, reason, since: Timestamp(0), until: None };
        Self { closed: Some(closed), ..Self::default() }
    }

    /// Brings it up to `now`: shares of workers that are gone end, the bucket fills, a closing whose time is up
    /// becomes a wave of one, and a wave that got through becomes the next, or leaves the gate open.
    pub fn tick(&mut self, queue: &Queue, now: Timestamp, times: &Times) {
        self.shares.retain(|_, share| share.until > now && share.permits > 0);
        match &self.rule.bucket {
            Some(bucket) => self.tokens.get_or_insert(Tokens::full(bucket, now)).refill(bucket, now),
            None => self.tokens = None,
        }
        if let Some(closed) = self.closed.take_if(|closed| closed.until.is_some_and(|until| until <= now)) {
            self.probe(closed.by == Why::Breaker, now);
        }
        let Some(probe) = &mut self.probe else { return };
        if probe.through >= probe.wave {
            if queue.is_empty() {
                self.probe = None;
                (self.failures, self.trips) = (0, 0);
            } else {
                let wave = probe.wave.saturating_mul(2).min(WAVE_MAX);
                *probe = Probe { since: now, wave, given: 0, through: 0, tripped: probe.tripped };
            }
        } else if now.since(probe.since) >= times.wave || now < probe.since {
            // Somebody who was let go never came: what is missing is given to others.
            probe.given = probe.through;
            probe.since = now;
        }
    }

    fn probe(&mut self, tripped: bool, now: Timestamp) {
        self.probe = Some(Probe { since: now, wave: 1, given: 0, through: 0, tripped });
    }

    /// Whether nobody passes in this lane.
    pub fn is_closed_to(&self, lane: Lane) -> bool {
        self.closed.as_ref().is_some_and(|closed| closed.by != Why::Breaker || lane == Lane::Forward)
    }

    /// Whether calls in this lane are counted in waves.
    pub fn is_probed_by(&self, lane: Lane) -> bool {
        self.probe.is_some_and(|probe| !probe.tripped || lane == Lane::Forward)
    }

    /// Closes it: for longer if it is closed, and never more weakly than a person did.
    pub fn close(&mut self, by: Why, until: Option<Timestamp>, reason: &str, now: Timestamp) {
        self.probe = None;
        let later = |known: &Closed| {
            by > known.by || by == known.by && known.until.is_some_and(|at| until.is_none_or(|new| new > at))
        };
        let (since, stays) = match &self.closed {
            Some(known) => (known.since, !later(known)),
            None => (now, false),
        };
        if !stays {
            // What a stronger hand closes stays closed at least as long as before.
            let before = self.closed.as_ref().and_then(|known| known.until);
            let until = until.map(|until| before.map_or(until, |before| before.max(until)));
            self.closed = Some(Closed { by, reason: reason.to_owned(), since, until });
        }
    }

    /// A person's word: opened, it is tried with one first; closed, it stays so until it is opened.
    pub fn act(&mut self, act: GateAct) {
        let now = act.at;
        if act.opened {
            if self.closed.take().is_some() {
                self.probe(false, now);
            }
            (self.failures, self.trips) = (0, 0);
        } else {
            self.close(Why::Person, None, &format!("{}: {}", act.actor, act.reason), now);
        }
        self.acts.push(act);
        let old = self.acts.len().saturating_sub(ACTS_MAX);
        self.acts.drain(..old);
    }

    /// How many permits nobody has in hand.
    fn free_permits(&self) -> u32 {
        let held = self.shares.values().fold(0_u32, |sum, share| sum.saturating_add(share.permits));
        self.rule.concurrency.map_or(u32::MAX, |limit| limit.saturating_sub(held))
    }

    /// How many tokens nobody has taken.
    fn free_tokens(&self) -> u32 {
        self.tokens.as_ref().map_or(u32::MAX, Tokens::whole)
    }

    /// Lets go those that are next: how many forward steps, and how many compensations.
    pub fn release(&mut self, queue: &Queue) -> (u32, u32) {
        let free = self.free_permits().min(self.free_tokens()).saturating_sub(queue.granted).min(RELEASE_MAX);
        let place = |probe: Probe| probe.wave.saturating_sub(probe.given);
        let (wave, tripped) = self.probe.map_or((u32::MAX, false), |probe| (place(probe), probe.tripped));
        let forward = if self.is_closed_to(Lane::Forward) { 0 } else { queue.forward.min(wave) };
        let undo = if self.is_closed_to(Lane::Undo) { 0 } else { queue.undo };
        let free = if tripped { free } else { free.min(wave) };
        let (forward, undo) = split(free, forward, undo, self.rule.undo_share, self.favoured);
        match (forward, undo) {
            (0, 0) => {}
            (0, _) => self.favoured = Lane::Forward,
            (_, 0) => self.favoured = Lane::Undo,
            _ => {}
        }
        if let Some(probe) = &mut self.probe {
            let counted = if tripped { forward } else { forward.saturating_add(undo) };
            probe.given = probe.given.saturating_add(counted);
        }
        (forward, undo)
    }

    /// Takes for a worker what `want` calls of a lane need, until then. Those that were let go (`granted`) take what
    /// was kept for them; others only what nobody waits for, and then some more, so that the worker need not ask for
    /// each call.
    pub fn take(
        &mut self,
        worker: &str,
        lane: Lane,
        want: u32,
        granted: bool,
        queue: &Queue,
        until: Timestamp,
    ) -> Taken {
        let mut taken = Taken::default();
        if want == 0 || self.is_closed_to(lane) || !granted && !queue.is_empty() {
            return taken;
        }
        let mut want = want;
        let in_waves = self.is_probed_by(lane);
        if in_waves
            && !granted
            && let Some(probe) = &mut self.probe
        {
            want = want.min(probe.wave.saturating_sub(probe.given));
            probe.given = probe.given.saturating_add(want);
            taken.places = want;
        }
        let is_alone = !granted && !in_waves;
        if self.rule.concurrency.is_some() {
            let free = self.free_permits();
            let block = if is_alone { want.max(free / 2) } else { want };
            taken.permits = block.min(free);
        }
        if let (Some(tokens), Some(bucket)) = (&mut self.tokens, &self.rule.bucket) {
            let spare = if is_alone && !super::hold(bucket).is_zero() { tokens.whole() / 4 } else { 0 };
            taken.tokens = tokens.take(want.max(spare));
        }
        if taken.permits > 0 {
            let share = self.shares.entry(worker.to_owned()).or_insert(Share { permits: 0, until });
            share.permits = share.permits.saturating_add(taken.permits);
            share.until = share.until.max(until);
        }
        taken
    }

    /// A worker says how many permits it still has in hand, and until when it has them.
    pub fn keep(&mut self, worker: &str, permits: u32, until: Timestamp) {
        if permits == 0 {
            self.shares.remove(worker);
        } else if let Some(share) = self.shares.get_mut(worker) {
            // It can give back, not help itself.
            share.permits = share.permits.min(permits);
            share.until = share.until.max(until);
        }
    }

    /// Counts what calls came to, in the lane whose outcomes count. It trips when too many failed in a row, and when
    /// a canary did.
    pub fn report(&mut self, through: u32, failed: u32, now: Timestamp, times: &Times) {
        if through > 0 {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(failed);
        let Some(breaker) = self.rule.breaker else {
            if let Some(probe) = &mut self.probe {
                probe.through = probe.through.saturating_add(through).saturating_add(failed);
            }
            return;
        };
        let canary_failed = self.probe.is_some() && failed > 0;
        if let Some(probe) = &mut self.probe {
            probe.through = probe.through.saturating_add(through);
        }
        let is_open = self.closed.is_none();
        if is_open && (canary_failed || failed > 0 && self.failures >= breaker.after) {
            let doubled = breaker.cool_down.saturating_mul(1 << self.trips.min(16));
            let cool_down = doubled.min(times.cool_down_max.max(breaker.cool_down));
            self.trips = self.trips.saturating_add(1);
            let reason = format!("{} calls in a row failed", self.failures);
            self.close(Why::Breaker, Some(now.plus(cool_down)), &reason, now);
            self.failures = 0;
        }
    }

    /// When something changes by itself that those who wait should know of; nothing if nobody waits.
    pub fn next_look(&self, queue: &Queue, times: &Times) -> Option<Timestamp> {
        if queue.waiting() == 0 {
            return None;
        }
        let closed = self.closed.as_ref().and_then(|closed| closed.until);
        let token = match (&self.rule.bucket, &self.tokens) {
            (Some(bucket), Some(tokens)) => Some(tokens.due(bucket, queue.granted.saturating_add(1))),
            _ => None,
        };
        let share = self.shares.values().map(|share| share.until).min();
        let wave = self.probe.map(|probe| probe.since.plus(times.wave));
        match closed {
            Some(until) => Some(until),
            None => [token, share, wave].into_iter().flatten().min(),
        }
    }
}

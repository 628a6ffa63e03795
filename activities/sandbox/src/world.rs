//! World: everything the fakes remember, behind one lock.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::agentmail::Inbox;
use crate::clock::{Clock, Moment, after};
use crate::container::Container;
use crate::deed::Deed;
use crate::dice::Dice;
use crate::fault::{Faults, Kind, Provider};
use crate::memory::Memory;
use crate::openrouter::Key;
use crate::railway::Project;
use crate::request::Request;
use crate::telnyx::{Number, NumberOrder, Profile};

/// How quick the fakes are.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    strum::Display,
    strum::EnumString,
    strum::EnumIter,
    strum::IntoStaticStr,
    strum::VariantNames,
)]
#[strum(serialize_all = "snake_case")]
pub enum Pace {
    /// The limits and times that the providers state.
    True,
    /// The same, so much quicker that a saga takes seconds.
    #[default]
    Quick,
}

impl Pace {
    /// By how much times are divided, the fakes' and those of a product that talks to them.
    pub fn factor(self) -> u32 {
        match self {
            Self::True => 1,
            Self::Quick => 100,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct World {
    pub(crate) pace: u32,
    #[serde(skip)]
    pub(crate) clock: Clock,
    #[serde(skip)]
    pub(crate) dice: Dice,
    #[serde(skip)]
    pub(crate) faults: Faults,
    #[serde(skip)]
    pub(crate) memory: Memory,
    #[serde(skip)]
    pub(crate) calls: BTreeMap<String, u32>,
    #[serde(skip)]
    pub(crate) deeds: VecDeque<Deed>,
    pub(crate) projects: Vec<Project>,
    /// When each workspace last made a project, and a volume.
    pub(crate) made_project: BTreeMap<String, Moment>,
    pub(crate) made_volume: BTreeMap<String, Moment>,
    pub(crate) keys: Vec<Key>,
    pub(crate) inboxes: Vec<Inbox>,
    pub(crate) numbers: Vec<Number>,
    pub(crate) orders: Vec<NumberOrder>,
    pub(crate) profiles: Vec<Profile>,
    /// Numbers that somebody else owns.
    pub(crate) foreign_numbers: Vec<String>,
    /// By domain.
    pub(crate) containers: BTreeMap<String, Container>,
    /// Calls that do their work later; never kept, since their requests carry credentials.
    #[serde(skip)]
    pub(crate) late: Vec<LateCall>,
    /// Whether the call that is carried out was accepted before: a throttle does not meet it again.
    #[serde(skip)]
    pub(crate) is_landing: bool,
    /// Of each quota and credential: since when, and how many calls.
    #[serde(skip)]
    pub(crate) quotas: BTreeMap<(usize, String), (Moment, u32)>,
    /// The secrets that were handed out, the last ones; never kept.
    #[serde(skip)]
    pub(crate) secrets: VecDeque<String>,
    /// How many projects, keys, inboxes and numbers were made and are not remembered any more.
    #[serde(default)]
    pub(crate) forgotten: [usize; 4],
}

/// So many of a kind that are gone are remembered, those that went last. All of the world is written at each change.
const GONE_MAX: usize = 1_000;
/// So many calls wait to do their work; of more the next one does it at once.
pub(crate) const LATE_MAX: usize = 1_000;
/// So many secrets are remembered.
const SECRETS_MAX: usize = 100_000;
/// So many orders, profiles, and numbers of others are remembered.
const OTHERS_MAX: usize = 10_000;

/// Forgets what went first, where more is gone than is remembered; how many those are.
fn forget<T>(all: &mut Vec<T>, now: Moment, gone_from: impl Fn(&T) -> Option<Moment>) -> usize {
    let is_gone = |one: &T| gone_from(one).filter(|at| *at <= now);
    let mut gone: Vec<Moment> = all.iter().filter_map(is_gone).collect();
    let Some(many) = gone.len().checked_sub(GONE_MAX).filter(|many| *many > 0) else { return 0 };
    gone.sort();
    let last = gone[many - 1];
    // Of those that went at the same moment the ones that were made first.
    let mut left = many;
    all.retain(|one| {
        let is_forgotten = left > 0 && is_gone(one).is_some_and(|at| at <= last);
        left -= usize::from(is_forgotten);
        !is_forgotten
    });
    many
}

fn keep_last<T>(all: &mut Vec<T>, most: usize) {
    all.drain(..all.len().saturating_sub(most));
}

/// A call that was answered, or whose line dropped, before it did its work.
#[derive(Debug)]
pub(crate) struct LateCall {
    pub(crate) at: Moment,
    pub(crate) provider: Provider,
    pub(crate) operation: &'static str,
    pub(crate) request: Request,
}

/// What becomes of a delete.
pub(crate) struct Deleting {
    /// Until when the thing is still there.
    pub(crate) gone_from: Moment,
    /// It does nothing.
    pub(crate) is_ignored: bool,
    /// It is answered as if there had been nothing.
    pub(crate) is_denied: bool,
}

impl World {
    pub(crate) fn new(pace: u32, seed: u64, clock: Clock, memory: Memory) -> Self {
        Self {
            pace: pace.max(1),
            clock,
            dice: Dice::new(seed),
            faults: Faults::default(),
            memory,
            calls: BTreeMap::new(),
            deeds: VecDeque::new(),
            projects: Vec::new(),
            made_project: BTreeMap::new(),
            made_volume: BTreeMap::new(),
            keys: Vec::new(),
            inboxes: Vec::new(),
            numbers: Vec::new(),
            orders: Vec::new(),
            profiles: Vec::new(),
            foreign_numbers: Vec::new(),
            containers: BTreeMap::new(),
            late: Vec::new(),
            is_landing: false,
            quotas: BTreeMap::new(),
            secrets: VecDeque::new(),
            forgotten: [0; 4],
        }
    }

    pub(crate) fn now(&self) -> Moment {
        self.clock.now()
    }

    pub(crate) fn later(&self, wait: Duration) -> Moment {
        after(self.now(), wait)
    }

    /// A provider's time at this sandbox's pace.
    pub(crate) fn paced(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds.max(0.0)) / self.pace
    }

    /// A time that a fault gives, which no pace divides.
    pub(crate) fn in_seconds(&self, seconds: f64) -> Moment {
        self.later(Duration::try_from_secs_f64(seconds).unwrap_or_default())
    }

    /// Forgets what is beyond the bounds: things that are gone, never one that is there.
    pub(crate) fn forget(&mut self) {
        let now = self.now();
        let forgotten = [
            forget(&mut self.projects, now, |project| project.gone_from),
            forget(&mut self.keys, now, |key| key.gone_from),
            forget(&mut self.inboxes, now, |inbox| inbox.gone_from),
            forget(&mut self.numbers, now, |number| number.gone_from),
        ];
        for (all, more) in self.forgotten.iter_mut().zip(forgotten) {
            *all += more;
        }
        keep_last(&mut self.orders, OTHERS_MAX);
        keep_last(&mut self.profiles, OTHERS_MAX);
        keep_last(&mut self.foreign_numbers, OTHERS_MAX);
        let many = self.secrets.len().saturating_sub(SECRETS_MAX);
        self.secrets.drain(..many);
    }

    /// Brings everything to the present: late calls that are due do their work, joins that are due are accepted.
    /// Answers whether anything changed.
    pub(crate) fn settle(&mut self) -> bool {
        let mut has_changed = false;
        loop {
            let now = self.now();
            let too_many = self.late.len() > LATE_MAX;
            let due = self.late.iter().enumerate().filter(|(_, late)| too_many || late.at <= now);
            let Some(index) = due.min_by_key(|(_, late)| late.at).map(|(index, _)| index) else { break };
            let late = self.late.remove(index);
            self.is_landing = true;
            crate::server::act(self, late.provider, late.operation, &late.request);
            self.is_landing = false;
            has_changed = true;
        }
        let now = self.now();
        for (domain, container) in &mut self.containers {
            has_changed |= container.accept_due(domain, now, &self.memory);
        }
        has_changed
    }

    /// From when on what this call makes is listed.
    pub(crate) fn listed_from(&mut self, provider: Provider, operation: &str) -> Moment {
        match self.faults.take(provider, operation, Kind::ListLag) {
            Some(fault) => self.in_seconds(fault.seconds.unwrap_or(5.0)),
            None => self.now(),
        }
    }

    /// What becomes of this delete of something that is there.
    pub(crate) fn deleting(&mut self, provider: Provider, operation: &str) -> Deleting {
        if let Some(ignored) = self.faults.take(provider, operation, Kind::DeleteIgnored) {
            let is_denied = ignored.status == Some(404);
            return Deleting { gone_from: Moment::MAX, is_ignored: true, is_denied };
        }
        let gone_from = match self.faults.take(provider, operation, Kind::DeleteLingers) {
            Some(fault) => self.in_seconds(fault.seconds.unwrap_or(5.0)),
            None => self.now(),
        };
        let is_denied = self.faults.take(provider, operation, Kind::DeleteNotFound).is_some();
        Deleting { gone_from, is_ignored: false, is_denied }
    }
}

impl Deleting {
    /// When the thing is gone, if it was to be gone at that time already.
    pub(crate) fn apply(&self, gone_from: &mut Option<Moment>) {
        if !self.is_ignored {
            *gone_from = Some(gone_from.map_or(self.gone_from, |before| before.min(self.gone_from)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn world(clock: &ManualClock) -> World {
        World::new(1, 7, clock.into(), Memory::default())
    }

    fn request(method: &str, path: &[&str], body: serde_json::Value) -> Request {
        Request {
            method: method.into(),
            path: path.iter().map(|part| (*part).to_owned()).collect(),
            query: BTreeMap::new(),
            headers: BTreeMap::from([(
                "authorization".to_owned(),
                format!("Bearer {}", crate::CREDENTIALS.openrouter),
            )]),
            body,
        }
    }

    #[test]
    fn what_is_gone_is_forgotten_in_its_order_and_what_is_there_never_is() {
        let clock = ManualClock::new();
        let mut world = world(&clock);
        for number in 0..GONE_MAX + 30 {
            let body = serde_json::json!({"name": format!("key-{number}")});
            let make = request("POST", &["keys"], body);
            crate::server::act(&mut world, Provider::Openrouter, "createKeys", &make);
            let hash = world.keys.last().unwrap().hash.clone();
            // The first ten stay.
            if number >= 10 {
                clock.advance(Duration::from_secs(1));
                let delete = request("DELETE", &["keys", &hash], serde_json::Value::Null);
                crate::server::act(&mut world, Provider::Openrouter, "deleteKeys", &delete);
            }
            assert!(world.keys.len() <= GONE_MAX + 11, "{}", world.keys.len());
        }
        let names: Vec<&str> = world.keys.iter().map(|key| key.name.as_str()).collect();
        assert_eq!((names.len(), names[9], names[10]), (GONE_MAX + 10, "key-9", "key-30"));
        assert_eq!(names.last(), Some(&&*format!("key-{}", GONE_MAX + 29)));
        assert_eq!((world.forgotten, world.secrets.len()), ([0, 20, 0, 0], GONE_MAX + 30));
        // What lingers is not gone yet.
        let mut lingers = vec![(1, None), (2, Some(Moment::MAX))];
        assert_eq!(forget(&mut lingers, world.now(), |one: &(i32, Option<Moment>)| one.1), 0);
    }

    #[test]
    fn of_very_many_late_calls_the_next_one_does_its_work_at_once() {
        let clock = ManualClock::new();
        let mut world = world(&clock);
        for number in 0..LATE_MAX + 5 {
            let body = serde_json::json!({"name": format!("key-{number}")});
            let at = world.in_seconds(3_600.0 + number as f64);
            let request = request("POST", &["keys"], body);
            let (provider, operation) = (Provider::Openrouter, "createKeys");
            world.late.push(LateCall { at, provider, operation, request });
        }
        world.settle();
        let names: Vec<&str> = world.keys.iter().map(|key| key.name.as_str()).collect();
        assert_eq!(names, ["key-0", "key-1", "key-2", "key-3", "key-4"]);
        assert_eq!(world.late.len(), LATE_MAX);
    }
}

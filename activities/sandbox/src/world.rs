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
    /// Every secret that was handed out; never kept.
    #[serde(skip)]
    pub(crate) secrets: Vec<String>,
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
            secrets: Vec::new(),
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

    /// Brings everything to the present: late calls that are due do their work, joins that are due are accepted.
    /// Answers whether anything changed.
    pub(crate) fn settle(&mut self) -> bool {
        let mut has_changed = false;
        loop {
            let now = self.now();
            let due = self.late.iter().enumerate().filter(|(_, late)| late.at <= now);
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

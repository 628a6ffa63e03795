//! World: everything the fakes remember, behind one lock.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::agentmail::Inbox;
use crate::dice::Dice;
use crate::fault::{Faults, Kind, Provider};
use crate::openrouter::Key;
use crate::railway::Project;
use crate::runtime::Agent;
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
    pub(crate) dice: Dice,
    #[serde(skip)]
    pub(crate) faults: Faults,
    #[serde(skip)]
    pub(crate) calls: BTreeMap<String, u32>,
    pub(crate) projects: Vec<Project>,
    /// When each workspace last made a project, and a volume.
    pub(crate) made_project: BTreeMap<String, Moment>,
    pub(crate) made_volume: BTreeMap<String, Moment>,
    pub(crate) keys: Vec<Key>,
    pub(crate) inboxes: Vec<Inbox>,
    pub(crate) numbers: Vec<Number>,
    pub(crate) orders: Vec<NumberOrder>,
    pub(crate) profiles: Vec<Profile>,
    /// By domain.
    pub(crate) agents: BTreeMap<String, Agent>,
    /// Every secret that was handed out; never kept.
    #[serde(skip)]
    pub(crate) secrets: Vec<String>,
}

/// A point on the sandbox's clock.
pub(crate) type Moment = jiff::Timestamp;

#[allow(clippy::disallowed_methods, reason = "the sandbox's own clock: its door")]
pub(crate) fn now() -> Moment {
    jiff::Timestamp::now()
}

#[allow(clippy::disallowed_methods, reason = "the sandbox's own clock: its door")]
pub(crate) async fn sleep(wait: Duration) {
    tokio::time::sleep(wait).await;
}

pub(crate) fn later(wait: Duration) -> Moment {
    jiff::SignedDuration::try_from(wait)
        .ok()
        .and_then(|wait| now().checked_add(wait).ok())
        .unwrap_or(Moment::MAX)
}

impl World {
    pub(crate) fn new(pace: u32, seed: u64) -> Self {
        Self {
            pace: pace.max(1),
            dice: Dice::new(seed),
            faults: Faults::default(),
            calls: BTreeMap::new(),
            projects: Vec::new(),
            made_project: BTreeMap::new(),
            made_volume: BTreeMap::new(),
            keys: Vec::new(),
            inboxes: Vec::new(),
            numbers: Vec::new(),
            orders: Vec::new(),
            profiles: Vec::new(),
            agents: BTreeMap::new(),
            secrets: Vec::new(),
        }
    }

    /// A provider's time at this sandbox's pace.
    pub(crate) fn paced(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds.max(0.0)) / self.pace
    }

    /// From when on what this call makes is listed.
    pub(crate) fn listed_from(&mut self, provider: Provider, operation: &str) -> Moment {
        match self.faults.take(provider, operation, Kind::ListLag) {
            Some(fault) => later(Duration::from_secs_f64(fault.seconds.unwrap_or(5.0))),
            None => now(),
        }
    }

    /// Until when what this call deletes is still there.
    pub(crate) fn gone_from(&mut self, provider: Provider, operation: &str) -> Moment {
        match self.faults.take(provider, operation, Kind::DeleteLingers) {
            Some(fault) => later(Duration::from_secs_f64(fault.seconds.unwrap_or(5.0))),
            None => now(),
        }
    }

    /// Whether this delete does its work and denies it.
    pub(crate) fn denies_delete(&mut self, provider: Provider, operation: &str) -> bool {
        self.faults.take(provider, operation, Kind::DeleteNotFound).is_some()
    }
}

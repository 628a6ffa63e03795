//! A saga to be started, and what its start comes to.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::data::{self, Unstorable, limits};
use crate::env::{Env, Timestamp};
use crate::ids::SagaId;
use crate::journal::event::Parent;
use crate::journal::state::SagaState;
use crate::journal::{Entry, Event};
use crate::saga::Workflow;
use crate::secret::Sealed;
use crate::store::SagaRow;

/// A saga to be started.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSaga {
    /// Its id.
    pub id: SagaId,
    /// Its definition.
    pub workflow: String,
    /// And that one's version.
    pub workflow_version: u32,
    /// What it is asked for.
    pub input: Value,
    /// A start repeated under the same key is the same saga.
    pub key: String,
    /// When it turns round by itself if it has not passed its pivot.
    pub deadline_at: Option<Timestamp>,
    /// For lists.
    pub labels: BTreeMap<String, String>,
    /// Higher ones are begun first; 0 if not set.
    pub priority: i32,
    /// Before this it does not begin.
    pub start_at: Option<Timestamp>,
    /// Under which key only so many run at a time.
    pub concurrency: Option<Concurrency>,
    /// The saga that called it.
    pub parent: Option<Parent>,
    /// When it was asked for.
    pub at: Timestamp,
    /// Secrets that came with it.
    pub sealed: Vec<Sealed>,
}

/// A bound on how many sagas run at a time: those above it wait in the queue, by priority and age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concurrency {
    /// What they have in common, as `customer-7`.
    pub key: String,
    /// How many of them may run.
    pub limit: u32,
}

impl NewSaga {
    /// A saga of this workflow; a start repeated under the same `key` is the same saga.
    ///
    /// # Errors
    /// The input does not read back as it is, or exceeds a limit.
    pub fn of<W: Workflow>(env: &Env, key: impl Into<String>, input: &W::Input) -> Result<Self, Unstorable> {
        let id = SagaId::from_uuid(env.uuid());
        let input = data::plain("the input", input)?;
        Ok(Self { key: key.into(), ..Self::raw(env, id, W::NAME, W::VERSION, input) })
    }

    /// Refuses what exceeds a limit ([`data`]): before it is written, and by name.
    pub(crate) fn check(&self) -> Result<(), Unstorable> {
        limits::start_key(&self.key)?;
        limits::labels(self.labels.len())?;
        self.labels.iter().try_for_each(|(name, value)| limits::label(name, value))?;
        let concurrency = self.concurrency.iter();
        concurrency.map(|bound| &bound.key).try_for_each(|key| limits::name("the concurrency key", key))?;
        data::check("the input", &self.input)
    }

    /// A saga of a workflow that is known by name alone, under its own id as its key.
    pub fn raw(env: &Env, id: SagaId, workflow: &str, workflow_version: u32, input: Value) -> Self {
        Self {
            key: id.to_string(),
            id,
            workflow: workflow.to_owned(),
            workflow_version,
            input,
            deadline_at: None,
            labels: BTreeMap::new(),
            priority: 0,
            start_at: None,
            concurrency: None,
            parent: None,
            at: env.now(),
            sealed: Vec::new(),
        }
    }

    /// The first entry of its journal.
    pub fn started(&self) -> Event {
        Event::SagaStarted {
            workflow: self.workflow.clone(),
            workflow_version: self.workflow_version,
            input: self.input.clone(),
            deadline_at: self.deadline_at,
            labels: self.labels.clone(),
            start_at: self.start_at,
            parent: self.parent.clone(),
        }
    }

    /// Its journal when it has just been started.
    pub fn first_entry(&self) -> Entry {
        Entry { seq: 1, at: self.at, epoch: 1, event: self.started() }
    }

    /// Its row when it has just been started.
    pub fn first_row(&self) -> SagaRow {
        SagaRow {
            id: self.id.clone(),
            workflow: self.workflow.clone(),
            workflow_version: self.workflow_version,
            state: SagaState::Queued,
            attention: Vec::new(),
            step: None,
            error: None,
            fingerprint: None,
            progress: None,
            parent: self.parent.as_ref().map(|parent| parent.saga.clone()),
            labels: self.labels.clone(),
            deadline_at: self.deadline_at,
            due_at: Some(self.start_at.unwrap_or(self.at)),
            epoch: 1,
            seq: 1,
            created_at: self.at,
            updated_at: self.at,
            ended_at: None,
        }
    }

    /// Whether it may begin as soon as it is started, whoever else runs.
    pub fn begins_at_once(&self) -> bool {
        self.start_at.is_none() && self.concurrency.is_none()
    }

    /// Higher priorities are begun first; 0 if not set.
    #[must_use]
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// Begins this long after it was asked for, as this engine's pace has it.
    #[must_use]
    pub fn delayed(mut self, env: &Env, wait: Duration) -> Self {
        self.start_at = Some(self.at.plus(env.paced(wait)));
        self
    }

    /// Of those started with this key, `limit` run at a time; the others wait in the queue.
    #[must_use]
    pub fn one_of(mut self, key: impl Into<String>, limit: u32) -> Self {
        self.concurrency = Some(Concurrency { key: key.into(), limit: limit.max(1) });
        self
    }

    /// Turns round by itself this long after its start, as this engine's pace has it.
    #[must_use]
    pub fn within(mut self, env: &Env, limit: Duration) -> Self {
        self.deadline_at = Some(self.at.plus(env.paced(limit)));
        self
    }

    /// With a label, for lists.
    #[must_use]
    pub fn labelled(mut self, name: &str, value: impl Into<String>) -> Self {
        self.labels.insert(name.to_owned(), value.into());
        self
    }

    /// What a repeated start must have in common with the first.
    pub fn fingerprint(&self) -> String {
        // In the order of its keys, whatever the order in which a map was filled.
        let input = data::canonical(&self.input);
        blake3::hash(format!("{}\n{input}", self.workflow).as_bytes()).to_hex().to_string()
    }
}

/// What a start came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Started {
    /// A new saga.
    New(SagaId),
    /// The same was started before.
    Before(SagaId),
    /// The key was used for something else.
    KeyReused(SagaId),
}

impl Started {
    /// The saga that bears the key, whether it was started now, before, or for something else.
    pub fn saga(&self) -> &SagaId {
        match self {
            Self::New(saga) | Self::Before(saga) | Self::KeyReused(saga) => saga,
        }
    }
}

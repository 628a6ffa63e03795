//! Rows: what the engine wrote, as plain values that are ready to be written again.

use std::collections::HashSet;

use amends_engine::SagaId;
use amends_engine::journal::event::Event;
use amends_engine::journal::state::SagaState;
use amends_engine::journal::{Entry, SCHEMA_VERSION};
use amends_engine::store::{Append, NewSaga};

use super::record::Written;

/// What a start, a turn or a release writes.
#[derive(Debug, Clone)]
pub struct Write {
    /// The saga's row.
    pub saga: SagaWrite,
    /// Its journal.
    pub journal: Vec<JournalRow>,
    /// Its ledger.
    pub resources: Vec<LedgerRow>,
    /// What its local steps wrote.
    pub notes: Vec<i64>,
    /// What the saga writes in the same transaction after this.
    pub then: Option<Box<Write>>,
    /// Whether it belongs to what is measured, and is not only what that stands on.
    pub is_measured: bool,
}

/// What is done to a row of `saga`.
#[derive(Debug, Clone)]
pub enum Change {
    /// It is new.
    New(NewRow),
    /// A turn changes it.
    Turn,
    /// It is given back: only the time from which it may be claimed changes.
    Release,
}

/// A row of `saga` as it is written.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the columns of the table")]
pub struct SagaWrite {
    pub id: String,
    pub change: Change,
    pub state: String,
    pub attention: String,
    pub step: Option<String>,
    pub error: Option<String>,
    pub fingerprint: Option<String>,
    pub progress: Option<String>,
    pub labels: String,
    pub output: Option<String>,
    pub deadline_at: Option<i64>,
    pub due_at: Option<i64>,
    pub epoch: i64,
    pub seq_before: i64,
    pub seq: i64,
    pub updated_at: i64,
    pub ended_at: Option<i64>,
}

/// What only a start says.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the columns of the table")]
pub struct NewRow {
    pub workflow: String,
    pub workflow_version: i64,
    pub start_key: String,
    pub start_fingerprint: String,
}

/// A row of `journal`.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the columns of the table")]
pub struct JournalRow {
    pub seq: i64,
    pub at: i64,
    pub epoch: i64,
    pub version: i64,
    pub kind: String,
    pub event: String,
}

/// A row of `resource`.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the columns of the table")]
pub struct LedgerRow {
    pub id: String,
    pub provider: String,
    pub kind: String,
    pub name: String,
    pub external_id: Option<String>,
    pub state: String,
    pub holder: String,
    pub keeper: Option<String>,
    pub saga: String,
    pub step: String,
    pub within: Option<String>,
    pub rev: i64,
    pub intended_at: i64,
    pub changed_at: i64,
    pub unsettled_until: Option<i64>,
}

/// What part of what was written is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    All,
    /// What a saga writes from its turning on.
    Unwinding,
    /// What a saga writes from its waking on.
    Waking,
}

impl Write {
    /// The rows of all that was written, in its order.
    pub fn all(written: &[Written], part: Part) -> anyhow::Result<Vec<Self>> {
        let mut ended = HashSet::new();
        let mut all = Vec::with_capacity(written.len());
        for written in written {
            all.push(match written {
                Written::Start(new) => Self::start(new, part)?,
                Written::Turn(append) => Self::turn(append, part)?,
                Written::Transacted(turn, done) => {
                    let then = Some(Box::new(Self::turn(done, part)?));
                    Self { then, ..Self::turn(turn, part)? }
                }
                // Nothing is written of one that has ended.
                Written::Release(saga) if ended.contains(saga.as_str()) => continue,
                Written::Release(saga) => Self::release(saga, part),
            });
            if let Some(write) = all.last()
                && write.saga.ended_at.is_some()
            {
                ended.insert(write.saga.id.clone());
            }
        }
        Ok(all)
    }

    /// This, and what is written with it.
    pub fn each(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |write| write.then.as_deref())
    }

    fn release(saga: &SagaId, part: Part) -> Self {
        let saga = SagaWrite {
            id: saga.to_string(),
            change: Change::Release,
            state: String::new(),
            attention: String::new(),
            step: None,
            error: None,
            fingerprint: None,
            progress: None,
            labels: String::new(),
            output: None,
            deadline_at: None,
            due_at: None,
            epoch: 0,
            seq_before: 0,
            seq: 0,
            updated_at: 0,
            ended_at: None,
        };
        let is_measured = part == Part::All;
        Self { saga, journal: Vec::new(), resources: Vec::new(), notes: Vec::new(), then: None, is_measured }
    }

    fn start(new: &NewSaga, part: Part) -> anyhow::Result<Self> {
        let entry = Entry { seq: 1, at: new.at, epoch: 1, event: new.started() };
        let saga = SagaWrite {
            id: new.id.to_string(),
            change: Change::New(NewRow {
                workflow: new.workflow.clone(),
                workflow_version: i64::from(new.workflow_version),
                start_key: new.key.clone(),
                start_fingerprint: new.fingerprint(),
            }),
            state: SagaState::Queued.to_string(),
            attention: "[]".to_owned(),
            step: None,
            error: None,
            fingerprint: None,
            progress: None,
            labels: serde_json::to_string(&new.labels)?,
            output: None,
            deadline_at: None,
            due_at: Some(new.at.0),
            epoch: 1,
            seq_before: 0,
            seq: 1,
            updated_at: new.at.0,
            ended_at: None,
        };
        let journal = vec![JournalRow::of(&entry)?];
        let is_measured = part == Part::All;
        Ok(Self { saga, journal, resources: Vec::new(), notes: Vec::new(), then: None, is_measured })
    }

    fn turn(append: &Append, part: Part) -> anyhow::Result<Self> {
        let row = &append.row;
        let saga = SagaWrite {
            id: row.id.to_string(),
            change: Change::Turn,
            state: row.state.to_string(),
            attention: serde_json::to_string(&row.attention)?,
            step: row.step.clone(),
            error: row.error.clone(),
            fingerprint: row.fingerprint.clone(),
            progress: row.progress.as_ref().map(serde_json::to_string).transpose()?,
            labels: serde_json::to_string(&row.labels)?,
            output: append.output.as_ref().map(ToString::to_string),
            deadline_at: row.deadline_at.map(|at| at.0),
            due_at: row.due_at.map(|at| at.0),
            epoch: row.epoch,
            seq_before: row.seq - i64::try_from(append.entries.len())?,
            seq: row.seq,
            updated_at: row.updated_at.0,
            ended_at: row.ended_at.map(|at| at.0),
        };
        let journal: Vec<JournalRow> = append.entries.iter().map(JournalRow::of).collect::<Result<_, _>>()?;
        let resources = append.resources.iter().map(|write| &write.row).map(|row| LedgerRow {
            id: row.id.to_string(),
            provider: row.provider.clone(),
            kind: row.kind.clone(),
            name: row.name.clone(),
            external_id: row.external_id.clone(),
            state: row.state.to_string(),
            holder: row.holder.clone(),
            keeper: row.keeper.clone(),
            saga: row.saga.to_string(),
            step: row.step.to_string(),
            within: row.within.as_ref().map(ToString::to_string),
            rev: row.rev,
            intended_at: row.intended_at.0,
            changed_at: row.changed_at.0,
            unsettled_until: row.unsettled_until.map(|until| until.0),
        });
        let is_unwinding = matches!(row.state, SagaState::Compensating | SagaState::Compensated);
        let wakes = append.entries.iter().any(|entry| matches!(entry.event, Event::TimerFired { .. }));
        Ok(Self {
            saga,
            resources: resources.collect(),
            notes: append.entries.iter().filter_map(note).collect(),
            then: None,
            journal,
            is_measured: match part {
                Part::All => true,
                Part::Unwinding => is_unwinding,
                Part::Waking => wakes,
            },
        })
    }
}

impl JournalRow {
    fn of(entry: &Entry) -> anyhow::Result<Self> {
        let kind: &'static str = (&entry.event).into();
        Ok(Self {
            seq: entry.seq,
            at: entry.at.0,
            epoch: entry.epoch,
            version: SCHEMA_VERSION,
            kind: kind.to_owned(),
            event: serde_json::to_string(&entry.event)?,
        })
    }
}

/// The number of the note that a local step wrote.
fn note(entry: &Entry) -> Option<i64> {
    match &entry.event {
        Event::StepCompleted { step, .. } => step.as_str().strip_prefix("note-")?.parse().ok(),
        _ => None,
    }
}

//! Bulk: one act on many sagas, paced and stopped by itself; a saga of its own, so that it survives what they do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::activity::{Activity, Call, Cause, Effect, Failure, secs};
use crate::ids::{OperationId, SagaId};
use crate::journal::act::Act;
use crate::journal::event::{Event, FoundKind};
use crate::saga::{Result, Saga, Workflow};
use crate::store::{Letter, Message, Store};

/// The most sagas that one bulk act takes.
pub const BULK_MAX: usize = 5_000;

/// So many characters are kept of what an item came to.
const DETAIL_MAX: usize = 80;

/// The workflow of bulk acts; its input freezes whom it acts on.
pub struct Bulk;

/// One act on many sagas.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BulkAct {
    /// What.
    pub act: Act,
    /// Whom it acts on, in this order.
    pub sagas: Vec<SagaId>,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// How fast.
    pub pace: Pace,
}

/// How fast a bulk act goes, and when it stops by itself. If not said: one goes first, then two a second; it stops when
/// five of the last ten have failed, and waits five minutes to see what came of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// So many go first, one by one; if one of them fails, nobody else is acted on.
    pub canary: usize,
    /// So many a second after that.
    pub per_second: usize,
    /// It stops when so many of the last ten have failed.
    pub stop_at: usize,
    /// How long it waits to see what came of each.
    #[serde(with = "humantime_serde")]
    pub patience: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { canary: 1, per_second: 2, stop_at: 5, patience: secs(300) }
    }
}

/// What came of one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ItemOutcome {
    /// The step got through, or the act did what it is for.
    Worked,
    /// The step failed again.
    Failed {
        /// How.
        detail: String,
    },
    /// The act could not be done.
    Skipped {
        /// Why.
        detail: String,
    },
    /// It is not known yet.
    Waiting,
    /// It was not acted on, since the whole had stopped.
    NotAsked,
}

/// What came of the whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkOutcome {
    /// Each saga with what came of it.
    pub items: BTreeMap<String, ItemOutcome>,
    /// Why it stopped before its end, if it did.
    pub stopped: Option<String>,
}

impl Workflow for Bulk {
    const NAME: &'static str = "amends.bulk";
    const VERSION: u32 = 1;
    type Input = BulkAct;
    type Output = BulkOutcome;

    async fn run(&self, saga: &Saga, bulk: BulkAct) -> Result<BulkOutcome> {
        let mut outcome = BulkOutcome {
            items: bulk.sagas.iter().map(|id| (id.to_string(), ItemOutcome::NotAsked)).collect(),
            stopped: None,
        };
        let of = u64::try_from(bulk.sagas.len()).unwrap_or(u64::MAX);
        let mut recent: Vec<bool> = Vec::new();
        let (canaries, rest) = bulk.sagas.split_at(bulk.pace.canary.min(bulk.sagas.len()));
        let alone = canaries.iter().map(std::slice::from_ref);
        let batches = alone.chain(rest.chunks(bulk.pace.per_second.max(1)));
        for (number, batch) in batches.enumerate() {
            if number >= canaries.len() && number > 0 {
                saga.sleep(&format!("pace-{number}"), secs(1)).await?;
            }
            let items = batch.iter().map(|id| (id.to_string(), id.clone()));
            let ended = saga.each(&format!("batch-{number}"), items, |saga, id| one(saga, &bulk, id)).await?;
            for (id, item) in batch.iter().zip(ended) {
                recent.push(matches!(item, ItemOutcome::Failed { .. }));
                outcome.items.insert(id.to_string(), item);
            }
            let done = outcome.items.values().filter(|item| **item != ItemOutcome::NotAsked).count();
            saga.progress(u64::try_from(done).unwrap_or(u64::MAX), of);
            saga.show("items", &outcome.items);
            let failed = recent.iter().rev().take(10).filter(|failed| **failed).count();
            if number < canaries.len() && failed > 0 {
                outcome.stopped = Some("the canary failed".to_owned());
            } else if failed >= bulk.pace.stop_at.max(1) {
                outcome.stopped = Some(format!("{failed} of the last {} failed", recent.len().min(10)));
            }
            if outcome.stopped.is_some() {
                break;
            }
        }
        Ok(outcome)
    }
}

async fn one(saga: Saga, bulk: &BulkAct, id: SagaId) -> Result<ItemOutcome> {
    let on = id.clone();
    let ask =
        ActOn { saga: on, act: bulk.act.clone(), actor: bulk.actor.clone(), reason: bulk.reason.clone() };
    let operation = match saga.step("act", ask).await {
        Ok(operation) => operation,
        Err(halt) => return Ok(ItemOutcome::Skipped { detail: shortened(&halt.refusal().message) }),
    };
    let look = LookAt { saga: id, operation: operation.take() };
    match saga.poll_until::<LookAt, ItemOutcome>("outcome", look, secs(1), bulk.pace.patience).await {
        Ok(outcome) => Ok(outcome.take()),
        Err(_) => Ok(ItemOutcome::Waiting),
    }
}

/// Leaves the act in a saga's inbox.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ActOn {
    saga: SagaId,
    act: Act,
    actor: String,
    reason: String,
}

impl Activity for ActOn {
    const NAME: &'static str = "amends.act_on";
    const EFFECT: Effect = Effect::Repeatable;
    type Client = dyn Store;
    type Output = OperationId;

    async fn execute(&self, store: &dyn Store, call: &Call) -> std::result::Result<OperationId, Failure> {
        self.act.check()?;
        // The same letter however often this is sent.
        let operation = OperationId::from_uuid(call.key());
        let message = Message::Act {
            operation: operation.clone(),
            act: self.act.clone(),
            actor: self.actor.clone(),
            reason: self.reason.clone(),
        };
        let letter = Letter { id: operation.to_string(), saga: self.saga.clone(), message, at: call.now() };
        match store.post(letter).await {
            Ok(()) => Ok(operation),
            Err(crate::store::Error::NoSuchSaga(id)) => {
                Err(Failure::refused("no_such_saga", format!("there is no saga {id}")))
            }
            Err(error) => Err(database(&error)),
        }
    }
}

/// Looks what came of the act.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LookAt {
    saga: SagaId,
    operation: OperationId,
}

impl Activity for LookAt {
    const NAME: &'static str = "amends.look_at";
    const EFFECT: Effect = Effect::Read;
    type Client = dyn Store;
    type Output = Option<ItemOutcome>;

    async fn execute(
        &self,
        store: &dyn Store,
        _: &Call,
    ) -> std::result::Result<Option<ItemOutcome>, Failure> {
        let audit = store.audit(&self.saga).await.map_err(|error| database(&error))?;
        let row = audit.into_iter().find(|row| row.operation == self.operation);
        let Some((act, outcome)) = row.and_then(|row| Some((row.act, row.outcome?))) else { return Ok(None) };
        if outcome != "done" {
            return Ok(Some(ItemOutcome::Skipped { detail: shortened(&outcome) }));
        }
        if !matches!(act, Act::Retry) {
            return Ok(Some(ItemOutcome::Worked));
        }
        let entries = store.journal(&self.saga).await.map_err(|error| database(&error))?;
        let is_ours = |event: &Event| matches!(event, Event::OperatorIntervened { operation, .. } if *operation == self.operation);
        let later = entries.iter().map(|entry| &entry.event).skip_while(|event| !is_ours(event));
        let verdict = later.skip(1).find_map(verdict);
        // What got through by itself just before has nothing left to be retried.
        let row = store.saga(&self.saga).await.map_err(|error| database(&error))?;
        let is_well = row.is_some_and(|row| row.fingerprint.is_none());
        Ok(verdict.or(is_well.then_some(ItemOutcome::Worked)))
    }
}

/// So much of a detail that those of all items together are within the limit of an output.
fn shortened(detail: &str) -> String {
    detail.chars().take(DETAIL_MAX).collect()
}

/// What an entry behind a retry says of it.
fn verdict(event: &Event) -> Option<ItemOutcome> {
    match event {
        Event::AttemptDeferred { attempt: Some(_), cause: Cause::NotYet, .. } => None,
        Event::AttemptDeferred { attempt: Some(_), detail, .. }
        | Event::AttemptLost { detail, .. }
        | Event::CompensationDeferred { detail, .. }
        | Event::CompensationLost { detail, .. } => Some(ItemOutcome::Failed { detail: shortened(detail) }),
        Event::StepFailed { refusal, .. } => {
            Some(ItemOutcome::Failed { detail: shortened(&refusal.to_string()) })
        }
        Event::StepCompleted { .. }
        | Event::StepCompensated { .. }
        | Event::StepFound { found: FoundKind::Usable, .. }
        | Event::SagaCompleted { .. }
        | Event::SagaCompensated {}
        | Event::SagaFailed { .. } => Some(ItemOutcome::Worked),
        _ => None,
    }
}

fn database(error: &crate::store::Error) -> Failure {
    Failure::Unavailable { cause: Cause::Database, detail: error.to_string(), retry_after: None }
}

impl crate::activity::Registry {
    /// Offers bulk acts, which every engine does.
    pub(crate) fn with_bulk(self, store: &Arc<dyn Store>) -> Self {
        self.workflow(Bulk).activity::<ActOn>(store.clone()).activity::<LookAt>(store.clone())
    }
}

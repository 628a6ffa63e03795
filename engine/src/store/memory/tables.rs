//! The tables of the memory store: what a start, an append and a letter change in them, checked before anything is.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::env::Timestamp;
use crate::ids::{ResourceId, SagaId, SecretRef};
use crate::journal::Entry;
use crate::journal::state::SagaState;
use crate::secret::Sealed;
use crate::store::{
    Append, AuditRow, Concurrency, Error, Fed, GateRow, Letter, Message, NewSaga, ResourceRow, SagaRow,
    SecretFate, Started,
};

/// One saga, with what its row does not show.
pub(super) struct Known {
    pub(super) row: SagaRow,
    pub(super) priority: i32,
    pub(super) concurrency: Option<Concurrency>,
    pub(super) has_place: bool,
    pub(super) output: Option<Value>,
    pub(super) journal: Vec<Entry>,
    /// The worker that has it.
    pub(super) holder: Option<u64>,
    /// In the order of arrival; the flag says whether it is consumed.
    pub(super) inbox: Vec<(Letter, bool)>,
}

impl Known {
    pub(super) fn has_mail(&self) -> bool {
        let is_read = |message: &Message| {
            self.row.state != SagaState::Queued
                || matches!(message, Message::Act { .. } | Message::Cancel { .. })
        };
        self.inbox.iter().any(|(letter, consumed)| !consumed && is_read(&letter.message))
    }

    pub(super) fn may_begin(&self) -> bool {
        self.concurrency.is_none() || self.has_place
    }
}

#[derive(Default)]
pub(super) struct Tables {
    pub(super) sagas: BTreeMap<SagaId, Known>,
    pub(super) keys: HashMap<String, (SagaId, String)>,
    pub(super) resources: BTreeMap<ResourceId, ResourceRow>,
    /// With the owner of each.
    pub(super) secrets: HashMap<SecretRef, (String, Sealed)>,
    pub(super) gates: HashMap<String, GateRow>,
    pub(super) audit: Vec<(SagaId, AuditRow)>,
    /// The appends in their order; the number of one is its place, from 1.
    pub(super) feed: Vec<Fed>,
    /// Until when each worker's leases hold.
    pub(super) workers: BTreeMap<u64, Timestamp>,
}

impl Tables {
    pub(super) fn start(&mut self, new: NewSaga) -> Started {
        let fingerprint = new.fingerprint();
        if let Some((id, known)) = self.keys.get(&new.key) {
            let same = *known == fingerprint;
            return if same { Started::Before(id.clone()) } else { Started::KeyReused(id.clone()) };
        }
        self.keys.insert(new.key.clone(), (new.id.clone(), fingerprint));
        for sealed in &new.sealed {
            self.secrets.insert(sealed.id.clone(), (new.id.to_string(), sealed.clone()));
        }
        let journal = vec![Entry { seq: 1, at: new.at, epoch: 1, event: new.started() }];
        let row = SagaRow {
            id: new.id.clone(),
            workflow: new.workflow,
            workflow_version: new.workflow_version,
            state: SagaState::Queued,
            attention: Vec::new(),
            step: None,
            error: None,
            fingerprint: None,
            progress: None,
            parent: new.parent.map(|parent| parent.saga),
            labels: new.labels,
            deadline_at: new.deadline_at,
            due_at: Some(new.start_at.unwrap_or(new.at)),
            epoch: 1,
            seq: 1,
            created_at: new.at,
            updated_at: new.at,
            ended_at: None,
        };
        let id = new.id.clone();
        let known = Known {
            row,
            priority: new.priority,
            concurrency: new.concurrency,
            has_place: false,
            output: None,
            journal,
            holder: None,
            inbox: Vec::new(),
        };
        self.sagas.insert(id.clone(), known);
        self.feed(&id, 1, 1);
        if new.start_at.is_none() {
            self.take_place(&id);
        }
        Started::New(id)
    }

    fn feed(&mut self, saga: &SagaId, first_seq: i64, last_seq: i64) {
        let number = i64::try_from(self.feed.len()).unwrap_or(i64::MAX).saturating_add(1);
        self.feed.push(Fed { number, saga: saga.clone(), first_seq, last_seq });
    }

    /// Gives a saga that runs under a concurrency key its place, or lets it wait, due at no time.
    pub(super) fn take_place(&mut self, id: &SagaId) -> bool {
        let Some(Concurrency { key, limit }) = self.sagas.get(id).and_then(|known| known.concurrency.clone())
        else {
            return true;
        };
        let taken = |known: &&Known| {
            known.has_place
                && !known.row.state.is_ended()
                && known.concurrency.as_ref().is_some_and(|c| c.key == key)
        };
        let taken = self.sagas.values().filter(taken).count();
        let Some(known) = self.sagas.get_mut(id) else { return false };
        if !known.has_place {
            known.has_place = u32::try_from(taken).unwrap_or(u32::MAX) < limit;
            if !known.has_place {
                known.row.due_at = None;
            }
        }
        known.has_place
    }

    fn pass_place(&mut self, ended: &SagaId, at: Timestamp) {
        let Some(known) = self.sagas.get(ended).filter(|known| known.has_place) else { return };
        let Some(key) = known.concurrency.as_ref().map(|bound| bound.key.clone()) else { return };
        let waits = |known: &&mut Known| {
            let row = &known.row;
            !known.has_place
                && row.due_at.is_none()
                && !row.state.is_ended()
                && known.concurrency.as_ref().is_some_and(|bound| bound.key == key)
        };
        let waiting = self.sagas.values_mut().filter(waits);
        if let Some(next) = waiting.min_by_key(|known| (-i64::from(known.priority), known.row.id.clone())) {
            next.has_place = true;
            next.row.due_at = Some(at);
        }
    }

    /// Why this append writes nothing; nothing if it may be written.
    fn objection(&self, append: &Append) -> Option<Error> {
        let id = &append.row.id;
        let Some(known) = self.sagas.get(id) else { return Some(Error::NoSuchSaga(id.clone())) };
        let length = i64::try_from(append.entries.len()).unwrap_or(i64::MAX);
        if known.row.epoch != append.row.epoch || known.row.seq != append.row.seq - length {
            return Some(Error::Fenced(id.clone()));
        }
        for write in &append.resources {
            let stored = self.resources.get(&write.row.id).map(|row| (row.holder.clone(), row.rev));
            if stored != write.stored {
                return Some(Error::LedgerMoved(id.clone()));
            }
        }
        let taken = append.starts.iter().find_map(|new| self.keys.get(&new.key));
        taken.map(|(other, _)| Error::Unavailable(format!("the key of a start was taken by saga {other}")))
    }

    pub(super) fn append(&mut self, append: Append) -> Result<(), Error> {
        if let Some(objection) = self.objection(&append) {
            return Err(objection);
        }
        let id = append.row.id.clone();
        let (state, ended) = (append.row.state, append.row.ended_at.is_some());
        let at = append.row.updated_at;
        let last = append.row.seq;
        let length = i64::try_from(append.entries.len()).unwrap_or(i64::MAX);
        if length > 0 {
            self.feed(&id, last - length + 1, last);
        }
        if let Some(known) = self.sagas.get_mut(&id) {
            let progress = append.row.progress.or(known.row.progress);
            known.row = SagaRow { created_at: known.row.created_at, progress, ..append.row };
            known.output = append.output.or(known.output.take());
            known.journal.extend(append.entries);
            for (letter, consumed) in &mut known.inbox {
                *consumed |= append.consumed.contains(&letter.id);
            }
        }
        for write in append.resources {
            self.resources.insert(write.row.id.clone(), write.row);
        }
        for sealed in append.sealed {
            self.secrets.insert(sealed.id.clone(), (id.to_string(), sealed));
        }
        for gate in append.gates {
            let known = self.gates.entry(gate.key.clone()).or_insert_with(|| gate.clone());
            if known.next_allowed_at < gate.next_allowed_at {
                *known = gate;
            }
        }
        for new in append.starts {
            self.start(new);
        }
        for letter in append.letters {
            self.post(letter);
        }
        for (saga, act) in &mut self.audit {
            let outcome = append.settled.iter().find(|settled| settled.operation == act.operation);
            if let Some(settled) = outcome {
                act.outcome = Some(settled.outcome.clone());
                act.state_after = Some(state);
            } else if ended && *saga == id && act.outcome.is_none() {
                act.outcome = Some("too_late: it had ended".to_owned());
                act.state_after = Some(state);
            }
        }
        if ended {
            self.pass_place(&id, at);
        }
        match append.secrets {
            SecretFate::Stay => {}
            SecretFate::PassTo(owner) => self.pass_secrets(id.as_str(), Some(&owner)),
            SecretFate::Destroyed => self.pass_secrets(id.as_str(), None),
        }
        for owner in append.destroyed {
            self.pass_secrets(&owner, None);
        }
        Ok(())
    }

    pub(super) fn pass_secrets(&mut self, from: &str, to: Option<&str>) {
        match to {
            Some(to) => {
                let owned = self.secrets.values_mut().filter(|(owner, _)| owner == from);
                owned.for_each(|(owner, _)| to.clone_into(owner));
            }
            None => self.secrets.retain(|_, (owner, _)| owner != from),
        }
    }

    /// Leaves a letter; says whether the saga exists.
    pub(super) fn post(&mut self, letter: Letter) -> bool {
        let Some(known) = self.sagas.get_mut(&letter.saga) else { return false };
        if known.inbox.iter().any(|(other, _)| other.id == letter.id) {
            return true;
        }
        if let Message::Act { operation, act, actor, reason } = &letter.message {
            let state = known.row.state;
            let ended = state.is_ended();
            let row = AuditRow {
                operation: operation.clone(),
                act: act.clone(),
                actor: actor.clone(),
                reason: reason.clone(),
                at: letter.at,
                state_before: state,
                state_after: ended.then_some(state),
                outcome: ended.then(|| "too_late: it had ended".to_owned()),
            };
            self.audit.push((letter.saga.clone(), row));
        }
        known.inbox.push((letter, false));
        true
    }
}

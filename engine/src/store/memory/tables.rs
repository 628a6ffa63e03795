//! The tables of the memory store: what a start, an append and a letter change in them, checked before anything is.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use crate::env::Timestamp;
use crate::gate::{GateWait, Lane, Queue};
use crate::ids::{ResourceId, SagaId, SecretRef, StepKey};
use crate::journal::Entry;
use crate::journal::state::SagaState;
use crate::secret::Sealed;
use crate::store::{
    Append, AuditRow, Closing, Concurrency, Error, Fed, GateMove, GateRow, Letter, Message, NewSaga,
    ResourceRow, SagaRow, SecretFate, Started,
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
    /// Of these, those that it has read and does not wait for.
    pub(super) passed_over: HashSet<String>,
}

impl Known {
    pub(super) fn has_mail(&self) -> bool {
        let is_read = |message: &Message| {
            self.row.state != SagaState::Queued
                || matches!(message, Message::Act { .. } | Message::Cancel { .. })
        };
        let is_new = |letter: &Letter| !self.passed_over.contains(&letter.id);
        self.inbox.iter().any(|(letter, consumed)| !consumed && is_new(letter) && is_read(&letter.message))
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
    pub(super) gates: BTreeMap<String, GateRow>,
    /// Who waits at gates, and when they were let go.
    pub(super) waits: BTreeMap<(SagaId, StepKey), (GateWait, Option<Timestamp>)>,
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
        let journal = vec![new.first_entry()];
        let row = new.first_row();
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
            passed_over: HashSet::new(),
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
        taken.map(|(other, _)| Error::KeyTaken(other.clone()))
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
            known.passed_over.extend(append.passed_over);
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
        for Closing { key, until, reason } in append.closings {
            let gate = self.gates.entry(key.clone()).or_insert_with(|| GateRow { key, ..GateRow::default() });
            gate.rev += 1;
            if gate.closing.as_ref().is_none_or(|(known, _)| *known < until) {
                gate.closing = Some((until, reason));
            }
        }
        if let Some(waits) = append.waits {
            self.wait(&id, waits);
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

    /// Makes the rows of a saga's steps that wait at gates the same as these.
    fn wait(&mut self, saga: &SagaId, waits: Vec<GateWait>) {
        let is_same =
            |known: &GateWait, wait: &GateWait| known.gate == wait.gate && known.since == wait.since;
        let mut rows = Vec::new();
        for wait in waits {
            let place = (saga.clone(), wait.step.clone());
            let known = self.waits.get(&place).filter(|(known, _)| is_same(known, &wait));
            let let_go = known.and_then(|(_, let_go)| *let_go);
            rows.push((place, (wait, let_go)));
        }
        self.waits.retain(|(holder, _), _| holder != saga);
        self.waits.extend(rows);
    }

    /// Every gate, with those who stand before it counted.
    pub(super) fn all_gates(&self, granted_since: Timestamp) -> Vec<GateRow> {
        let mut rows = self.gates.clone();
        for (wait, let_go) in self.waits.values() {
            let row = rows
                .entry(wait.gate.clone())
                .or_insert_with(|| GateRow { key: wait.gate.clone(), ..GateRow::default() });
            let is_granted = let_go.is_some_and(|at| at > granted_since);
            match wait.lane {
                _ if is_granted => row.queue.granted += 1,
                Lane::Forward => row.queue.forward += 1,
                Lane::Undo => row.queue.undo += 1,
            }
        }
        rows.into_values().collect()
    }

    pub(super) fn gate_queue(&self, key: &str, lane: Lane, granted_since: Timestamp) -> Vec<GateWait> {
        let waits = |(wait, let_go): &&(GateWait, Option<Timestamp>)| {
            wait.gate == key && wait.lane == lane && let_go.is_none_or(|at| at <= granted_since)
        };
        let mut queue: Vec<GateWait> =
            self.waits.values().filter(waits).map(|(wait, _)| wait.clone()).collect();
        queue.sort_by_key(|wait| (wait.since, wait.saga.clone(), wait.step.clone()));
        queue
    }

    pub(super) fn move_gate(&mut self, moved: GateMove) -> bool {
        let GateMove { key, seen, state, let_go, letters, at } = moved;
        if self.gates.get(&key).map_or(0, |row| row.rev) != seen {
            return false;
        }
        let row = GateRow { key: key.clone(), rev: seen + 1, closing: None, state, queue: Queue::default() };
        self.gates.insert(key.clone(), row);
        for wait in let_go {
            if let Some((known, let_go)) = self.waits.get_mut(&(wait.saga, wait.step))
                && known.gate == key
            {
                *let_go = Some(at);
            }
        }
        for letter in letters {
            self.post(letter);
        }
        true
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

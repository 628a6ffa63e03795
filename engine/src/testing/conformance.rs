//! What every store promises, as cases that any store can be tried against.
//!
//! [`run`] takes a way to make a fresh store and runs each case on one of its own; a case that does not hold panics
//! with what it saw. The store needs tables of the program's own, [`NOTES`].

#![allow(clippy::unwrap_used, clippy::cloned_ref_to_slice_refs, reason = "a case fails by panicking")]

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::activity::{Object, secs};
use crate::env::{Env, Timestamp};
use crate::gate::{GateState, GateWait, Lane, Queue};
use crate::ids::{OperationId, ResourceId, SagaId, StepKey};
use crate::journal::act::Act;
use crate::journal::failure::Failure;
use crate::journal::state::{Attention, SagaState};
use crate::journal::{Entry, Event};
use crate::secret::Vault;
use crate::store::open::Migrations;
use crate::store::{
    Append, Closing, Error, GateMove, Job, Letter, Message, NewSaga, ResourceFilter, ResourceRow,
    ResourceState, ResourceWrite, SagaFilter, SecretFate, Settled, Started, Store,
};

/// The table that the cases write user SQL to.
pub const NOTES: &[Migrations] = &[Migrations {
    table: "note_migration",
    sqlite: &[("note", NOTE), ("thing", THING)],
    postgres: &[("note", NOTE), ("thing", THING_POSTGRES)],
}];

const THING: &str =
    "create table thing (id text primary key, small integer, big integer, part real, bytes blob);";
const THING_POSTGRES: &str =
    "create table thing (id text primary key, small int, big bigint, part double precision, bytes bytea);";
const NOTE: &str = "create table note (text text primary key);";

/// A fresh store to be tried.
pub struct Subject {
    /// What it is called when a case does not hold.
    pub name: &'static str,
    /// The store.
    pub store: Arc<dyn Store>,
    /// What seals for it.
    pub vault: Vault,
    /// Its clock and dice.
    pub env: Env,
    /// Another worker's handle on the same store, if several may share it.
    pub another: Option<Arc<dyn Store>>,
}

/// One promise, and the code that tries it.
pub type Case = (&'static str, for<'s> fn(&'s Subject) -> BoxFuture<'s, ()>);

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// Every case, by the promise it is about.
        pub const CASES: &[Case] = &[$((stringify!($name), |subject| Box::pin($name(subject)))),*];
    };
}

cases! {
    a_start_under_a_known_key_is_the_same_saga_or_none,
    a_saga_that_is_held_from_its_start_is_claimed_by_nobody_and_is_as_its_start_says,
    an_append_under_another_epoch_or_behind_another_entry_writes_nothing,
    a_ledger_row_is_written_only_by_who_knows_it_as_it_is,
    a_member_that_cannot_be_written_does_not_hold_up_its_group,
    a_saga_is_claimed_when_it_is_due_or_has_a_letter_and_by_one_only,
    a_letter_that_was_passed_over_stays_and_makes_its_saga_due_no_more,
    of_two_closings_of_a_gate_the_later_time_stands,
    a_gate_is_moved_by_one_who_has_seen_it_as_it_is,
    who_waits_at_a_gate_is_let_go_once_or_waits_again,
    a_sagas_secrets_pass_to_its_owner_or_are_destroyed,
    user_sql_is_written_with_its_append_or_not_at_all,
    user_sql_numbers_its_values,
    a_saga_whose_worker_is_gone_is_taken_over_and_the_old_one_writes_nothing,
    of_those_with_one_concurrency_key_so_many_run_and_the_next_is_the_most_urgent,
    a_saga_with_a_delay_is_not_due_before_it,
    an_act_is_audited_with_what_came_of_it,
    the_most_urgent_are_claimed_first_and_no_more_than_asked_for,
    two_workers_never_hold_one_saga,
    letters_are_read_in_the_order_of_their_arrival,
    every_entry_is_in_the_feed_once_and_no_number_appears_below_one_that_was_read,
    text_with_a_nul_and_numbers_beyond_a_double_fail_no_write,
    whatever_json_is_written_is_read_back_to_the_bit,
    null_is_read_back_as_something_and_nothing_as_nothing,
    a_statement_that_is_refused_is_undone_alone,
    nothing_fits_every_column_and_what_was_bound_is_read_back,
    a_list_has_pages_newest_first,
    an_unreadable_saga_is_shown_by_lists_and_is_due_as_it_was,
}

/// Runs every case on a store of its own; how many there were.
pub async fn run<F: Future<Output = Subject>>(mut make: impl FnMut() -> F) -> usize {
    let all = CASES.iter().chain(super::conformance_findings::CASES);
    for (name, case) in all.clone() {
        let subject = make().await;
        tracing::info!(store = subject.name, case = name, "trying");
        case(&subject).await;
        subject.store.close().await;
    }
    all.count()
}

impl Subject {
    fn new_saga(&self, key: &str) -> NewSaga {
        let id = SagaId::from_uuid(self.env.uuid());
        let new = NewSaga::raw(&self.env, id, "w", 1, serde_json::json!({"n": 1}));
        NewSaga { key: key.into(), ..new }.labelled("colour", "red")
    }

    /// A saga that was started under this key.
    pub async fn started(&self, key: &str) -> SagaId {
        let new = self.new_saga(key);
        let id = new.id.clone();
        assert_eq!(self.store.start(new).await.unwrap(), Started::New(id.clone()), "{}", self.name);
        id
    }

    /// An append of one harmless entry behind what is stored.
    pub async fn next(&self, saga: &SagaId) -> Append {
        let mut row = self.store.saga(saga).await.unwrap().unwrap();
        row.seq += 1;
        row.state = SagaState::Running;
        row.due_at = Some(Timestamp(i64::MAX));
        let event = Event::LabelSet { step: None, name: "colour".into(), value: "blue".into() };
        Append {
            entries: vec![Entry { seq: row.seq, at: self.env.now(), epoch: row.epoch, event }],
            row,
            output: None,
            resources: Vec::new(),
            sealed: Vec::new(),
            consumed: Vec::new(),
            passed_over: Vec::new(),
            closings: Vec::new(),
            waits: None,
            starts: Vec::new(),
            letters: Vec::new(),
            settled: Vec::new(),
            secrets: SecretFate::Stay,
            destroyed: Vec::new(),
        }
    }

    fn resource(&self, saga: &SagaId) -> ResourceRow {
        ResourceRow {
            id: ResourceId::from_uuid(self.env.uuid()),
            provider: "railway".into(),
            kind: "project".into(),
            name: "amends-test-1".into(),
            external_id: None,
            state: ResourceState::Intended,
            holder: saga.to_string(),
            keeper: None,
            saga: saga.clone(),
            step: StepKey::from("project"),
            within: None,
            rev: 1,
            intended_at: self.env.now(),
            changed_at: self.env.now(),
            unsettled_until: None,
        }
    }
}

async fn a_start_under_a_known_key_is_the_same_saga_or_none(subject: &Subject) {
    let first = subject.started("k").await;
    let again = subject.new_saga("k");
    assert_eq!(subject.store.start(again).await.unwrap(), Started::Before(first.clone()), "{}", subject.name);
    let other = NewSaga { input: serde_json::json!({"n": 2}), ..subject.new_saga("k") };
    assert_eq!(
        subject.store.start(other).await.unwrap(),
        Started::KeyReused(first.clone()),
        "{}",
        subject.name
    );
    let journal = subject.store.journal(&first).await.unwrap();
    assert_eq!(journal.len(), 1);
    assert_eq!(subject.store.sagas(SagaFilter::default()).await.unwrap().len(), 1);
    let red = SagaFilter { label: Some(("colour".into(), "red".into())), ..SagaFilter::default() };
    assert_eq!(subject.store.sagas(red).await.unwrap().len(), 1);
    let blue = SagaFilter { label: Some(("colour".into(), "blue".into())), ..SagaFilter::default() };
    assert!(subject.store.sagas(blue).await.unwrap().is_empty(), "{}", subject.name);
}

async fn a_saga_that_is_held_from_its_start_is_claimed_by_nobody_and_is_as_its_start_says(subject: &Subject) {
    let (store, now) = (&subject.store, || subject.env.now());
    store.renew().await.unwrap();
    let new = subject.new_saga("k");
    let saga = new.id.clone();
    let (started, is_held) = store.start_held(new.clone()).await.unwrap();
    assert_eq!(started, Started::New(saga.clone()), "{}", subject.name);
    assert_eq!(store.saga(&saga).await.unwrap(), Some(new.first_row()), "{}", subject.name);
    assert_eq!(store.journal(&saga).await.unwrap(), [new.first_entry()], "{}", subject.name);
    let again = NewSaga { id: SagaId::from_uuid(subject.env.uuid()), ..new.clone() };
    assert_eq!(store.start_held(again).await.unwrap(), (Started::Before(saga.clone()), false));
    assert_eq!(store.start_held(new.clone()).await.unwrap(), (Started::Before(saga.clone()), false));
    let claimed = store.claim(now(), 10).await.unwrap();
    assert_eq!(claimed.is_empty(), is_held, "{}", subject.name);
    if let Some(another) = &subject.another {
        assert!(another.claim(now(), 10).await.unwrap().is_empty(), "{}", subject.name);
    }
    let loaded = store.load(&saga).await.unwrap();
    assert_eq!((loaded.epoch, loaded.may_begin, loaded.has_mail), (1, true, false), "{}", subject.name);
    assert_eq!(loaded.entries, [new.first_entry()], "{}", subject.name);
    store.append(subject.next(&saga).await.into()).await.unwrap();
    // What has to wait for its time or its place waits like any other.
    let delayed = subject.new_saga("later").delayed(&subject.env, std::time::Duration::from_secs(60));
    assert!(!store.start_held(delayed).await.unwrap().1, "{}", subject.name);
    let (placed, is_held) = store.start_held(subject.new_saga("place").one_of("one", 1)).await.unwrap();
    assert!(!is_held, "{}", subject.name);
    assert_eq!(store.claim(now(), 10).await.unwrap(), [placed.saga().clone()], "{}", subject.name);
}

async fn an_append_under_another_epoch_or_behind_another_entry_writes_nothing(subject: &Subject) {
    let saga = subject.started("k").await;
    let good = subject.next(&saga).await;
    let mut old = good.clone();
    old.row.epoch -= 1;
    let mut skips = good.clone();
    skips.row.seq += 1;
    for wrong in [old, skips] {
        assert_eq!(
            subject.store.append(wrong.into()).await,
            Err(Error::Fenced(saga.clone())),
            "{}",
            subject.name
        );
    }
    assert_eq!(subject.store.journal(&saga).await.unwrap().len(), 1);
    subject.store.append(good.clone().into()).await.unwrap();
    assert_eq!(
        subject.store.append(good.into()).await,
        Err(Error::Fenced(saga.clone())),
        "twice, {}",
        subject.name
    );
    let journal = subject.store.journal(&saga).await.unwrap();
    assert_eq!(journal.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(subject.store.saga(&saga).await.unwrap().unwrap().state, SagaState::Running);
}

async fn a_ledger_row_is_written_only_by_who_knows_it_as_it_is(subject: &Subject) {
    let saga = subject.started("k").await;
    let row = subject.resource(&saga);
    let mut append = subject.next(&saga).await;
    append.resources = vec![ResourceWrite { row: row.clone(), stored: None }];
    subject.store.append(append.into()).await.unwrap();

    let mut later = row.clone();
    later.rev = 2;
    later.state = ResourceState::Live;
    later.external_id = Some("prj_1".into());
    later.unsettled_until = Some(later.changed_at.plus(secs(90)));
    let mut moved = subject.next(&saga).await;
    moved.resources = vec![ResourceWrite { row: later.clone(), stored: Some(("another".into(), 1)) }];
    assert_eq!(
        subject.store.append(moved.into()).await,
        Err(Error::LedgerMoved(saga.clone())),
        "{}",
        subject.name
    );
    assert_eq!(subject.store.journal(&saga).await.unwrap().len(), 2, "all or nothing, {}", subject.name);

    let mut good = subject.next(&saga).await;
    good.resources = vec![ResourceWrite { row: later.clone(), stored: Some((saga.to_string(), 1)) }];
    subject.store.append(good.into()).await.unwrap();
    let stored = subject.store.resources(ResourceFilter::default()).await.unwrap();
    assert_eq!(stored, [later.clone()], "{}", subject.name);
    // To whom it belongs by now is nothing to those who write to what it is.
    for (id, wait, is_found) in [
        (&row.name, 89, true),
        (&"prj_1".to_owned(), 89, true),
        (&row.name, 90, false),
        (&"another".to_owned(), 0, false),
    ] {
        let of = (Object::new(&row.provider, &row.kind, id), row.changed_at.plus(secs(wait)));
        let filter = ResourceFilter { unsettled: Some(of), ..ResourceFilter::default() };
        let found = subject.store.resources(filter).await.unwrap();
        assert_eq!(found.len(), usize::from(is_found), "{id} {wait} {}", subject.name);
    }
}

async fn a_member_that_cannot_be_written_does_not_hold_up_its_group(subject: &Subject) {
    let (good, bad) = (subject.started("good").await, subject.started("bad").await);
    let mut moved = subject.next(&bad).await;
    moved.resources = vec![ResourceWrite { row: subject.resource(&bad), stored: Some((bad.to_string(), 7)) }];
    let fine = subject.next(&good).await;
    let (moved, fine) = tokio::join!(subject.store.append(moved.into()), subject.store.append(fine.into()));
    assert_eq!(moved, Err(Error::LedgerMoved(bad.clone())), "{}", subject.name);
    fine.unwrap();
    assert_eq!(subject.store.journal(&bad).await.unwrap().len(), 1);
}

async fn a_letter_that_was_passed_over_stays_and_makes_its_saga_due_no_more(subject: &Subject) {
    let saga = subject.started("k").await;
    let now = subject.env.now();
    let message = |name: &str| Message::Signal { name: name.into(), value: serde_json::Value::Null };
    let post = async |id: &str| {
        let letter = Letter { id: id.into(), saga: saga.clone(), message: message(id), at: now };
        subject.store.post(letter).await.unwrap();
    };
    assert_eq!(subject.store.claim(now, 10).await.unwrap(), [saga.clone()], "{}", subject.name);
    post("stray").await;
    let mut rests = subject.next(&saga).await;
    rests.passed_over = vec!["stray".into()];
    subject.store.append(rests.into()).await.unwrap();
    subject.store.release(&saga).await.unwrap();
    assert!(subject.store.claim(now, 10).await.unwrap().is_empty(), "{}", subject.name);
    assert_eq!(subject.store.letters(&saga).await.unwrap().len(), 1, "it stays, {}", subject.name);
    // Another one is heard, and whoever looks then finds both.
    post("another").await;
    assert_eq!(subject.store.claim(now, 10).await.unwrap(), [saga.clone()], "{}", subject.name);
    assert!(subject.store.load(&saga).await.unwrap().has_mail, "{}", subject.name);
    assert_eq!(subject.store.letters(&saga).await.unwrap().len(), 2, "{}", subject.name);
}

async fn a_saga_is_claimed_when_it_is_due_or_has_a_letter_and_by_one_only(subject: &Subject) {
    let saga = subject.started("k").await;
    let now = subject.env.now();
    assert_eq!(subject.store.claim(now, 10).await.unwrap(), [saga.clone()], "{}", subject.name);
    assert!(subject.store.claim(now, 10).await.unwrap().is_empty(), "it is held");
    subject.store.append(subject.next(&saga).await.into()).await.unwrap();
    subject.store.release(&saga).await.unwrap();
    assert!(subject.store.claim(now, 10).await.unwrap().is_empty(), "it is not due");

    let letter = Letter { id: "l1".into(), saga: saga.clone(), message: Message::Wake, at: now };
    subject.store.post(letter.clone()).await.unwrap();
    subject.store.post(letter.clone()).await.unwrap();
    assert_eq!(subject.store.letters(&saga).await.unwrap(), [letter.clone()], "once, {}", subject.name);
    assert_eq!(subject.store.claim(now, 10).await.unwrap(), [saga.clone()]);
    let mut reads = subject.next(&saga).await;
    reads.consumed = vec!["l1".into()];
    subject.store.append(reads.into()).await.unwrap();
    assert!(subject.store.letters(&saga).await.unwrap().is_empty());
    subject.store.post(letter.clone()).await.unwrap();
    assert!(subject.store.letters(&saga).await.unwrap().is_empty(), "a known id changes nothing");
    let nobody = SagaId::from_uuid(subject.env.uuid());
    let lost = Letter { id: "l2".into(), saga: nobody.clone(), ..letter };
    assert_eq!(subject.store.post(lost).await, Err(Error::NoSuchSaga(nobody)), "{}", subject.name);
}

async fn of_two_closings_of_a_gate_the_later_time_stands(subject: &Subject) {
    let saga = subject.started("k").await;
    for (at, rev) in [(500, 1), (300, 2)] {
        let mut append = subject.next(&saga).await;
        append.closings = vec![Closing { key: "g".into(), until: Timestamp(at), reason: at.to_string() }];
        subject.store.append(append.into()).await.unwrap();
        let gates = subject.store.gates(Timestamp(0)).await.unwrap();
        assert_eq!(gates.len(), 1, "{}", subject.name);
        assert_eq!(gates[0].closing, Some((Timestamp(500), "500".into())), "{}", subject.name);
        assert_eq!(gates[0].rev, rev, "no move writes over it unseen, {}", subject.name);
    }
}

async fn a_gate_is_moved_by_one_who_has_seen_it_as_it_is(subject: &Subject) {
    let store = &subject.store;
    let state = GateState { failures: 3, ..GateState::default() };
    let moved = |seen, failures| GateMove {
        key: "g".into(),
        seen,
        state: GateState { failures, ..state.clone() },
        let_go: Vec::new(),
        letters: Vec::new(),
        at: subject.env.now(),
    };
    assert!(!store.move_gate(moved(1, 1)).await.unwrap(), "there is no row, {}", subject.name);
    assert!(store.move_gate(moved(0, 1)).await.unwrap(), "{}", subject.name);
    assert!(!store.move_gate(moved(0, 9)).await.unwrap(), "there is a row, {}", subject.name);
    let (first, second) = tokio::join!(store.move_gate(moved(1, 2)), store.move_gate(moved(1, 2)));
    assert_eq!(u8::from(first.unwrap()) + u8::from(second.unwrap()), 1, "one of two, {}", subject.name);
    // What a provider says meanwhile is not written over.
    let saga = subject.started("k").await;
    let mut append = subject.next(&saga).await;
    append.closings = vec![Closing { key: "g".into(), until: Timestamp(9), reason: "r".into() }];
    store.append(append.into()).await.unwrap();
    assert!(!store.move_gate(moved(2, 9)).await.unwrap(), "{}", subject.name);
    let row = store.gates(Timestamp(0)).await.unwrap().remove(0);
    assert_eq!((row.rev, row.state.failures), (3, 2), "{}", subject.name);
    assert_eq!(row.closing, Some((Timestamp(9), "r".into())), "{}", subject.name);
    assert!(store.move_gate(moved(3, 4)).await.unwrap());
    let row = store.gates(Timestamp(0)).await.unwrap().remove(0);
    assert_eq!((row.rev, row.state.failures, row.closing), (4, 4, None), "it is taken in, {}", subject.name);
}

async fn who_waits_at_a_gate_is_let_go_once_or_waits_again(subject: &Subject) {
    let store = &subject.store;
    let (first, second) = (subject.started("first").await, subject.started("second").await);
    let wait = |saga: &SagaId, step: &str, lane, since| GateWait {
        gate: "g".into(),
        saga: saga.clone(),
        step: StepKey::from(step),
        lane,
        since: Timestamp(since),
    };
    let begin = async |saga: &SagaId, waits: Vec<GateWait>| {
        let mut append = subject.next(saga).await;
        append.waits = Some(waits);
        store.append(append.into()).await.unwrap();
    };
    let (a, b, c) = (
        wait(&first, "a", Lane::Forward, 20),
        wait(&second, "b", Lane::Forward, 10),
        wait(&first, "c", Lane::Undo, 5),
    );
    begin(&first, vec![a.clone(), c.clone()]).await;
    begin(&second, vec![b.clone()]).await;
    let queue = async |since| store.gates(Timestamp(since)).await.unwrap().remove(0).queue;
    assert_eq!(queue(0).await, Queue { forward: 2, undo: 1, granted: 0 }, "{}", subject.name);
    let next = async |lane, since, limit| store.gate_queue("g", lane, Timestamp(since), limit).await.unwrap();
    assert_eq!(next(Lane::Forward, 0, 9).await, [b.clone(), a.clone()], "oldest first, {}", subject.name);
    assert_eq!(next(Lane::Forward, 0, 1).await, [b.clone()], "{}", subject.name);
    assert_eq!(next(Lane::Undo, 0, 9).await, [c.clone()], "{}", subject.name);

    let message = Message::LetGo { gate: "g".into(), step: StepKey::from("b") };
    let letter = Letter { id: "gate:g:0".into(), saga: second.clone(), message, at: Timestamp(100) };
    let moved = GateMove {
        key: "g".into(),
        seen: 0,
        state: GateState::default(),
        let_go: vec![b.clone()],
        letters: vec![letter.clone()],
        at: Timestamp(100),
    };
    let stale = GateMove { seen: 7, ..moved.clone() };
    assert!(!store.move_gate(stale).await.unwrap());
    assert!(store.letters(&second).await.unwrap().is_empty(), "all or nothing, {}", subject.name);
    assert!(store.move_gate(moved).await.unwrap());
    assert_eq!(store.letters(&second).await.unwrap(), [letter], "{}", subject.name);
    assert_eq!(queue(99).await, Queue { forward: 1, undo: 1, granted: 1 }, "{}", subject.name);
    assert_eq!(next(Lane::Forward, 99, 9).await, [a.clone()], "{}", subject.name);
    // It never came.
    assert_eq!(queue(100).await, Queue { forward: 2, undo: 1, granted: 0 }, "{}", subject.name);

    // What still waits there keeps its mark; what passes is gone; an append that says nothing changes nothing.
    begin(&second, vec![b.clone(), wait(&second, "d", Lane::Forward, 30)]).await;
    store.append(subject.next(&second).await.into()).await.unwrap();
    assert_eq!(queue(99).await, Queue { forward: 2, undo: 1, granted: 1 }, "{}", subject.name);
    begin(&second, vec![GateWait { since: Timestamp(40), ..b.clone() }]).await;
    assert_eq!(queue(99).await, Queue { forward: 2, undo: 1, granted: 0 }, "anew, {}", subject.name);
    begin(&second, Vec::new()).await;
    begin(&first, vec![c]).await;
    assert_eq!(queue(0).await, Queue { forward: 0, undo: 1, granted: 0 }, "{}", subject.name);
}

async fn a_sagas_secrets_pass_to_its_owner_or_are_destroyed(subject: &Subject) {
    let (kept, lost) = (subject.started("kept").await, subject.started("lost").await);
    let seal = || subject.vault.seal("test", &"hush".into(), &subject.env).unwrap();
    let (first, second) = (seal(), seal());
    for (saga, sealed, fate) in
        [(&kept, &first, SecretFate::PassTo("owner".into())), (&lost, &second, SecretFate::Destroyed)]
    {
        let mut append = subject.next(saga).await;
        append.sealed = vec![sealed.clone()];
        subject.store.append(append.into()).await.unwrap();
        assert_eq!(
            subject.store.secret(&sealed.id).await.unwrap().as_ref(),
            Some(sealed),
            "{}",
            subject.name
        );
        let mut ends = subject.next(saga).await;
        ends.secrets = fate;
        subject.store.append(ends.into()).await.unwrap();
    }
    assert_eq!(subject.store.secret(&first.id).await.unwrap(), Some(first.clone()), "{}", subject.name);
    assert_eq!(subject.store.secret(&second.id).await.unwrap(), None, "{}", subject.name);
    let mut destroys = subject.next(&kept).await;
    destroys.destroyed = vec!["owner".into()];
    subject.store.append(destroys.into()).await.unwrap();
    assert_eq!(subject.store.secret(&first.id).await.unwrap(), None, "{}", subject.name);
}

async fn user_sql_is_written_with_its_append_or_not_at_all(subject: &Subject) {
    let saga = subject.started("k").await;
    let notes = || async { subject.store.fetch("select text from note".into(), vec![]).await.unwrap().len() };
    let seq = || async { subject.store.saga(&saga).await.unwrap().unwrap().seq };
    let job = |append: Append, fails: bool| {
        let job: Job = Arc::new(move |statements| {
            let append = append.clone();
            Box::pin(async move {
                statements.execute("insert into note (text) values ($1)".into(), crate::params!["x"]).await?;
                if fails { Err(Failure::refused("no", "said the user")) } else { Ok(append) }
            })
        });
        job
    };
    let behind = |turn: &Append| {
        let mut append = turn.clone();
        append.row.seq += 1;
        append.entries.iter_mut().for_each(|entry| entry.seq += 1);
        append
    };
    // What the activity refuses is not written, the turn that asked for it is.
    let turn = subject.next(&saga).await;
    let refused = subject.store.transact(turn.clone().into(), job(behind(&turn), true)).await;
    assert_eq!(refused.unwrap_err(), Error::Job(Failure::refused("no", "said the user")), "{}", subject.name);
    assert_eq!((notes().await, seq().await), (0, 2), "{}", subject.name);

    let mut stale = subject.next(&saga).await;
    stale.row.epoch += 9;
    let fenced = subject.store.transact(stale.clone().into(), job(behind(&stale), false)).await;
    assert_eq!(fenced.unwrap_err(), Error::Fenced(saga.clone()), "{}", subject.name);
    assert_eq!((notes().await, seq().await), (0, 2), "{}", subject.name);

    let turn = subject.next(&saga).await;
    let written = subject.store.transact(turn.clone().into(), job(behind(&turn), false)).await.unwrap();
    assert_eq!((written.row.seq, notes().await, seq().await), (4, 1, 4), "{}", subject.name);
    // A turn without entries holds the fence and no more.
    let mut empty = subject.next(&saga).await;
    empty.row.seq -= 1;
    empty.entries.clear();
    let twice = subject.store.transact(empty.clone().into(), job(subject.next(&saga).await, false)).await;
    assert!(
        matches!(&twice, Err(Error::Job(Failure::Refused(refusal))) if refusal.code == "conflict"),
        "{}: {twice:?}",
        subject.name
    );
    assert_eq!(subject.store.journal(&saga).await.unwrap().len(), 4);
}

async fn user_sql_numbers_its_values(subject: &Subject) {
    let sql = "select $2 as second, $1 as first, $2 as again";
    let rows = subject.store.fetch(sql.into(), crate::params!["a", "b"]).await.unwrap();
    let told = |row: &crate::store::tx::Row| ["first", "second", "again"].map(|name| row.text(name).unwrap());
    assert_eq!(told(&rows[0]), ["a", "b", "b"], "{}", subject.name);
}

async fn a_saga_whose_worker_is_gone_is_taken_over_and_the_old_one_writes_nothing(subject: &Subject) {
    let Some(another) = &subject.another else { return };
    let saga = subject.started("k").await;
    let now = subject.env.now();
    let lease = subject.store.renew().await.unwrap().unwrap();
    assert_eq!(subject.store.claim(now, 10).await.unwrap(), [saga.clone()], "{}", subject.name);
    another.renew().await.unwrap();
    assert!(another.claim(now, 10).await.unwrap().is_empty(), "it is held, {}", subject.name);
    let stale = subject.next(&saga).await;
    // The first one says nothing more; its lease runs out by the store's clock.
    let step = lease / 4;
    for _ in 0..6 {
        subject.env.sleep(step).await;
        another.renew().await.unwrap();
    }
    assert_eq!(another.claim(subject.env.now(), 10).await.unwrap(), [saga.clone()], "{}", subject.name);
    let taken = another.load(&saga).await.unwrap();
    assert_eq!(taken.epoch, stale.row.epoch + 1, "{}", subject.name);
    assert_eq!(
        subject.store.append(stale.into()).await,
        Err(Error::Fenced(saga.clone())),
        "{}",
        subject.name
    );
    another.append(subject.next(&saga).await.into()).await.unwrap();
    // Given back and taken again, its number stays.
    another.release(&saga).await.unwrap();
    subject.store.renew().await.unwrap();
    let letter = Letter { id: "wake".into(), saga: saga.clone(), message: Message::Wake, at: now };
    another.post(letter).await.unwrap();
    assert_eq!(subject.store.claim(subject.env.now(), 10).await.unwrap(), [saga.clone()], "{}", subject.name);
    assert_eq!(subject.store.load(&saga).await.unwrap().epoch, taken.epoch, "{}", subject.name);
    // What is held and driven by nobody is given back.
    subject.store.keep_only(&[saga.clone()]).await.unwrap();
    assert!(another.claim(subject.env.now(), 10).await.unwrap().is_empty(), "{}", subject.name);
    // What another process leaves for a saga that is held here is seen.
    assert_eq!(subject.store.mail().await.unwrap(), [saga.clone()], "{}", subject.name);
    subject.store.keep_only(&[]).await.unwrap();
    assert_eq!(another.claim(subject.env.now(), 10).await.unwrap(), [saga], "{}", subject.name);
}

async fn of_those_with_one_concurrency_key_so_many_run_and_the_next_is_the_most_urgent(subject: &Subject) {
    let mut ids = Vec::new();
    for (key, priority) in [("a", 0), ("b", 0), ("c", 5)] {
        let new = subject.new_saga(key).priority(priority).one_of("customer-7", 1);
        ids.push(new.id.clone());
        subject.store.start(new).await.unwrap();
    }
    let free = subject.started("free").await;
    let now = subject.env.now();
    let mut claimed = subject.store.claim(now, 10).await.unwrap();
    claimed.sort();
    let mut expected = [ids[0].clone(), free];
    expected.sort();
    assert_eq!(claimed, expected, "{}", subject.name);
    // One that waits for a place is claimed for what may end it, and does not begin.
    let act = Message::Cancel { actor: "ann".into(), reason: "no more".into() };
    let letter = Letter { id: "l".into(), saga: ids[1].clone(), message: act, at: now };
    subject.store.post(letter).await.unwrap();
    assert_eq!(subject.store.claim(now, 10).await.unwrap(), [ids[1].clone()], "{}", subject.name);
    assert!(!subject.store.load(&ids[1]).await.unwrap().may_begin, "{}", subject.name);
    subject.store.release(&ids[1]).await.unwrap();
    for (ends, next) in [(&ids[0], &ids[2]), (&ids[2], &ids[1])] {
        let mut append = subject.next(ends).await;
        append.row.state = SagaState::Completed;
        append.row.due_at = None;
        append.row.ended_at = Some(append.row.updated_at);
        subject.store.append(append.into()).await.unwrap();
        subject.store.release(ends).await.unwrap();
        let claimed = subject.store.claim(subject.env.now(), 10).await.unwrap();
        assert!(claimed.contains(next), "{}: {claimed:?} instead of {next}", subject.name);
        assert!(subject.store.load(next).await.unwrap().may_begin, "{}", subject.name);
        // Its letter still lies there, so that it is claimed each time.
        subject.store.release(&ids[1]).await.unwrap();
    }
}

async fn a_saga_with_a_delay_is_not_due_before_it(subject: &Subject) {
    let new = subject.new_saga("late").delayed(&subject.env, std::time::Duration::from_secs(60));
    let (id, due) = (new.id.clone(), new.start_at.unwrap());
    subject.store.start(new).await.unwrap();
    assert!(subject.store.claim(Timestamp(due.0 - 1), 10).await.unwrap().is_empty(), "{}", subject.name);
    assert_eq!(subject.store.claim(due, 10).await.unwrap(), [id], "{}", subject.name);
}

async fn an_act_is_audited_with_what_came_of_it(subject: &Subject) {
    let saga = subject.started("k").await;
    let post = async |number: u128| {
        let operation = OperationId::from_uuid(uuid::Uuid::from_u128(number));
        let message = Message::Act {
            operation: operation.clone(),
            act: Act::Retry,
            actor: "ann".into(),
            reason: "it is well again".into(),
        };
        let at = Timestamp(i64::try_from(number).unwrap());
        let letter = Letter { id: operation.to_string(), saga: saga.clone(), message, at };
        subject.store.post(letter).await.unwrap();
        operation
    };
    let done = post(1).await;
    post(2).await;
    let mut append = subject.next(&saga).await;
    append.consumed = vec![done.to_string()];
    append.settled = vec![Settled { operation: done.clone(), outcome: "done".into() }];
    subject.store.append(append.into()).await.unwrap();
    let mut ends = subject.next(&saga).await;
    ends.row.state = SagaState::Failed;
    ends.row.ended_at = Some(ends.row.updated_at);
    subject.store.append(ends.into()).await.unwrap();
    post(3).await;
    let audit = subject.store.audit(&saga).await.unwrap();
    let told: Vec<_> =
        audit.iter().map(|row| (row.state_before, row.state_after, row.outcome.clone())).collect();
    let late = Some("too_late: it had ended".to_owned());
    let expected = [
        (SagaState::Queued, Some(SagaState::Running), Some("done".to_owned())),
        (SagaState::Queued, Some(SagaState::Failed), late.clone()),
        (SagaState::Failed, Some(SagaState::Failed), late),
    ];
    assert_eq!(told, expected, "{}", subject.name);
    assert_eq!((audit[0].actor.as_str(), audit[0].reason.as_str()), ("ann", "it is well again"));
    assert_eq!(audit[0].act, Act::Retry);
}

async fn the_most_urgent_are_claimed_first_and_no_more_than_asked_for(subject: &Subject) {
    let mut ids = Vec::new();
    for (key, priority) in [("a", 0), ("b", 7), ("c", 0), ("d", 7)] {
        let new = subject.new_saga(key).priority(priority);
        ids.push(new.id.clone());
        subject.store.start(new).await.unwrap();
        subject.env.sleep(std::time::Duration::from_millis(2)).await;
    }
    let now = subject.env.now();
    let mut claimed = Vec::new();
    for _ in 0..2 {
        claimed.extend(subject.store.claim(now, 2).await.unwrap());
        assert!(claimed.len() <= ids.len());
    }
    let expected = [&ids[1], &ids[3], &ids[0], &ids[2]].map(Clone::clone);
    assert_eq!(claimed, expected, "{}", subject.name);
}

async fn two_workers_never_hold_one_saga(subject: &Subject) {
    let Some(another) = &subject.another else { return };
    let mut started = std::collections::BTreeSet::new();
    for number in 0..40 {
        started.insert(subject.started(&format!("k{number}")).await);
    }
    let now = subject.env.now();
    let take = async |store: &Arc<dyn Store>| {
        let mut taken = Vec::new();
        loop {
            let claimed = store.claim(now, 3).await.unwrap();
            if claimed.is_empty() {
                return taken;
            }
            taken.extend(claimed);
        }
    };
    let (mut mine, theirs) = tokio::join!(take(&subject.store), take(another));
    mine.extend(theirs);
    assert_eq!(mine.len(), started.len(), "{}", subject.name);
    assert_eq!(mine.into_iter().collect::<std::collections::BTreeSet<_>>(), started, "{}", subject.name);
}

async fn letters_are_read_in_the_order_of_their_arrival(subject: &Subject) {
    let saga = subject.started("k").await;
    let mut expected = Vec::new();
    // Later ones with smaller ids, and clocks of their senders that go backwards.
    for number in (1..=12).rev() {
        let message = Message::Signal { name: "s".into(), value: number.into() };
        let letter = Letter { id: format!("l{number}"), saga: saga.clone(), message, at: Timestamp(number) };
        subject.store.post(letter.clone()).await.unwrap();
        expected.push(letter);
    }
    let mut known = expected[3].clone();
    known.at = Timestamp(99);
    subject.store.post(known).await.unwrap();
    assert_eq!(subject.store.letters(&saga).await.unwrap(), expected, "{}", subject.name);
    let page = async |after: Option<&Letter>, limit| {
        let after = after.map(|letter| letter.id.as_str());
        subject.store.letters_page(&saga, after, limit).await.unwrap()
    };
    assert_eq!(page(None, 5).await, expected[..5], "{}", subject.name);
    assert_eq!(page(Some(&expected[4]), 5).await, expected[5..10], "{}", subject.name);
    assert_eq!(page(Some(&expected[9]), 5).await, expected[10..], "{}", subject.name);
    assert_eq!(page(Some(&expected[11]), 5).await, [], "{}", subject.name);
    assert_eq!(subject.store.unread(&saga, 100).await, Ok(12), "{}", subject.name);
    assert_eq!(subject.store.unread(&saga, 7).await, Ok(7), "{}", subject.name);
    let mut reads = subject.next(&saga).await;
    reads.consumed = expected.iter().take(5).map(|letter| letter.id.clone()).collect();
    subject.store.append(reads.into()).await.unwrap();
    assert_eq!(subject.store.letters(&saga).await.unwrap(), expected[5..], "{}", subject.name);
    assert_eq!(page(Some(&expected[4]), 3).await, expected[5..8], "{}", subject.name);
    assert_eq!(page(None, 3).await, expected[5..8], "{}", subject.name);
    assert_eq!(subject.store.unread(&saga, 100).await, Ok(7), "{}", subject.name);
}

async fn every_entry_is_in_the_feed_once_and_no_number_appears_below_one_that_was_read(subject: &Subject) {
    const APPENDS: i64 = 12;
    let mut sagas = Vec::new();
    for number in 0..6 {
        sagas.push(subject.started(&format!("k{number}")).await);
    }
    let write = async |number: usize, saga: &SagaId| {
        // Half of them by another worker, where there may be one.
        let store = subject.another.as_ref().filter(|_| number % 2 == 1).unwrap_or(&subject.store);
        for _ in 0..APPENDS {
            store.append(subject.next(saga).await.into()).await.unwrap();
        }
    };
    let writing = futures::future::join_all(sagas.iter().enumerate().map(|(n, saga)| write(n, saga)));
    let reading = async {
        let (mut last, mut seen) = (0, std::collections::BTreeMap::<SagaId, i64>::new());
        let wanted = i64::try_from(sagas.len()).unwrap() * (APPENDS + 1);
        let mut entries = 0;
        for _ in 0..24_000 {
            // What appears below `last` from now on is missing at the end.
            for fed in subject.store.feed(last, 7).await.unwrap() {
                assert!(fed.number > last, "{}: {fed:?} behind {last}", subject.name);
                let before = seen.entry(fed.saga.clone()).or_default();
                assert_eq!(fed.first_seq, *before + 1, "{}: {fed:?}", subject.name);
                *before = fed.last_seq;
                entries += fed.last_seq - fed.first_seq + 1;
                last = fed.number;
            }
            if entries == wanted {
                return last;
            }
            subject.env.sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("{}: {entries} entries of {wanted} are in the feed", subject.name);
    };
    let (_, last) = tokio::join!(writing, reading);
    assert!(subject.store.feed(last, 7).await.unwrap().is_empty(), "{}", subject.name);
}

async fn text_with_a_nul_and_numbers_beyond_a_double_fail_no_write(subject: &Subject) {
    const BIG: i64 = (1 << 53) + 1;
    let told = "before\0behind";
    let new = NewSaga { input: serde_json::json!({"told": told, "big": BIG}), ..subject.new_saga("k") };
    let id = new.id.clone();
    let new = new.labelled("shape", "ro\0und");
    subject.store.start(new.clone()).await.unwrap();
    let mut append = subject.next(&id).await;
    append.row.error = Some(told.to_owned());
    append.row.step = Some(told.to_owned());
    append.row.updated_at = Timestamp(BIG);
    append.output = Some(serde_json::json!({"told": told, "big": BIG}));
    append.row.labels = new.labels.clone();
    append.entries[0].event = Event::LabelSet { step: None, name: "said".into(), value: told.into() };
    append.closings = vec![Closing { key: "g".into(), until: Timestamp(BIG), reason: told.to_owned() }];
    let event = append.entries[0].event.clone();
    subject.store.append(append.into()).await.unwrap();
    // What is JSON is kept to the letter; plain text may show a NUL by another sign.
    let journal = subject.store.journal(&id).await.unwrap();
    assert_eq!(journal[0].event, new.started(), "{}", subject.name);
    assert_eq!(journal[1].event, event, "{}", subject.name);
    let output = subject.store.output(&id).await.unwrap();
    assert_eq!(output, Some(serde_json::json!({"told": told, "big": BIG})), "{}", subject.name);
    let row = subject.store.saga(&id).await.unwrap().unwrap();
    let error = row.error.unwrap();
    assert!(error.starts_with("before") && error.ends_with("behind"), "{}: {error:?}", subject.name);
    assert_eq!(row.updated_at, Timestamp(BIG), "{}", subject.name);
    let filter = SagaFilter { label: new.labels.clone().into_iter().nth(1), ..SagaFilter::default() };
    assert_eq!(subject.store.sagas(filter).await.unwrap().len(), 1, "{}", subject.name);
    let message = Message::Signal { name: told.into(), value: told.into() };
    let letter = Letter { id: "l".into(), saga: id.clone(), message, at: Timestamp(BIG) };
    subject.store.post(letter.clone()).await.unwrap();
    assert_eq!(subject.store.letters(&id).await.unwrap(), [letter], "{}", subject.name);
}

/// Any JSON that may be kept: every kind, every float that is one, every sign, keys of any text.
fn any_json(env: &Env, depth: usize) -> serde_json::Value {
    use serde_json::{Map, Value};
    let below = |below: usize| usize::try_from(env.below(below as u64)).unwrap();
    let text = || -> String {
        let sign = |_| match env.below(8) {
            0 => char::from_u32(u32::try_from(env.below(0x20)).unwrap()),
            1 => char::from_u32(u32::try_from(env.below(0x11_0000)).unwrap()),
            2 => Some(['"', '\\', '/', '\u{7f}', '\u{2028}', '\u{feff}', '\u{fffd}', '\0'][below(8)]),
            _ => char::from_u32(0x20 + u32::try_from(env.below(0x5f)).unwrap()),
        };
        (0..below(12)).filter_map(sign).collect()
    };
    let wide = || env.below(u64::MAX).rotate_left(u32::try_from(env.below(64)).unwrap());
    match env.below(if depth == 0 { 7 } else { 9 }) {
        0 => Value::Null,
        1 => Value::Bool(env.below(2) == 0),
        2 => Value::from([0, 1, u64::MAX, i64::MAX.unsigned_abs(), (1 << 53) + 1, wide()][below(6)]),
        3 => Value::from([-1, i64::MIN, -(1 << 53) - 1, i64::MIN + 1][below(4)]),
        4 => Value::from(
            [-0.0, 0.0, 1.0, f64::MAX, f64::MIN, 5e-324, f64::EPSILON, 6.0 * 0.19, 1e21][below(9)],
        ),
        // Each pattern of bits that is a number.
        5 => Value::from(Some(f64::from_bits(wide())).filter(|float| float.is_finite()).unwrap_or(0.1)),
        6 => Value::String(text()),
        7 => (0..below(5)).map(|_| any_json(env, depth - 1)).collect(),
        _ => Value::Object((0..below(5)).map(|_| (text(), any_json(env, depth - 1))).collect::<Map<_, _>>()),
    }
}

/// A value as text from which its floats are known to the bit.
fn to_the_bit(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Number(number) if number.is_f64() => format!("f{:x}", number.as_f64().unwrap().to_bits()),
        Value::Array(items) => format!("[{}]", items.iter().map(to_the_bit).collect::<Vec<_>>().join(",")),
        Value::Object(map) => {
            let mut items: Vec<_> =
                map.iter().map(|(key, item)| format!("{key:?}:{}", to_the_bit(item))).collect();
            items.sort();
            format!("{{{}}}", items.join(","))
        }
        other => other.to_string(),
    }
}

async fn whatever_json_is_written_is_read_back_to_the_bit(subject: &Subject) {
    let name = subject.name;
    let deepest =
        (0..crate::data::DEPTH_MAX).fold(serde_json::Value::Null, |inner, _| serde_json::json!([inner]));
    let values: Vec<_> = (0..400).map(|_| any_json(&subject.env, 4)).chain([deepest]).collect();
    for (number, some) in values.chunks(25).enumerate() {
        let all = serde_json::Value::Array(some.to_vec());
        // What is deepest alone is within the limit, and not in a list of others.
        let all = if some.len() == 1 { some[0].clone() } else { all };
        let new = NewSaga { input: all.clone(), ..subject.new_saga(&format!("k{number}")) };
        let (id, fingerprint) = (new.id.clone(), new.fingerprint());
        subject.store.start(new).await.unwrap();
        let mut append = subject.next(&id).await;
        append.row.state = SagaState::Completed;
        append.row.ended_at = Some(subject.env.now());
        append.output = Some(all.clone());
        let step = StepKey::from(["a/b", "ö"]);
        append.entries[0].event =
            Event::StepCompleted { step, output: all.clone(), external_id: None, by_hand: false };
        let message = Message::Act {
            operation: OperationId::from_uuid(subject.env.uuid()),
            act: Act::Settle {
                step: "s".into(),
                verdict: crate::journal::act::Verdict::Adopt { output: all.clone(), external_id: None },
            },
            actor: "ann".into(),
            reason: "why not".into(),
        };
        let letter = Letter { id: format!("l{number}"), saga: id.clone(), message, at: subject.env.now() };
        subject.store.post(letter.clone()).await.unwrap();
        let event = append.entries[0].event.clone();
        let letters = subject.store.letters(&id).await.unwrap();
        assert_eq!(letters, [letter], "{name}");
        subject.store.append(append.into()).await.unwrap();
        let journal = subject.store.journal(&id).await.unwrap();
        let Event::SagaStarted { input, .. } = &journal[0].event else { panic!("{name}: {journal:?}") };
        let Event::StepCompleted { output, .. } = &journal[1].event else { panic!("{name}: {journal:?}") };
        let yielded = subject.store.output(&id).await.unwrap().unwrap();
        let audit = subject.store.audit(&id).await.unwrap();
        let Act::Settle { verdict: crate::journal::act::Verdict::Adopt { output: settled, .. }, .. } =
            &audit[0].act
        else {
            panic!("{name}: {audit:?}")
        };
        for back in [input, output, &yielded, settled] {
            assert_eq!(to_the_bit(back), to_the_bit(&all), "{name}");
        }
        assert_eq!(journal[1].event, event, "{name}");
        let again = NewSaga { input: input.clone(), ..subject.new_saga("again") };
        assert_eq!(again.fingerprint(), fingerprint, "{name}");
    }
}

async fn null_is_read_back_as_something_and_nothing_as_nothing(subject: &Subject) {
    use crate::journal::event::{ChildFate, FoundKind};
    let name = subject.name;
    for output in [None, Some(serde_json::Value::Null)] {
        let saga = subject.started(&format!("k{}", output.is_some())).await;
        let mut append = subject.next(&saga).await;
        let (step, child) = (StepKey::from("s"), SagaId::from_uuid(subject.env.uuid()));
        let events = [
            Event::StepFound {
                step: step.clone(),
                found: FoundKind::Usable,
                output: output.clone(),
                external_id: None,
            },
            Event::ChildEnded {
                step: step.clone(),
                child: child.clone(),
                fate: ChildFate::Done,
                output: output.clone(),
                refusal: None,
            },
        ];
        let first = append.row.seq;
        let entry = |(seq, event): (i64, &Event)| Entry {
            seq,
            at: subject.env.now(),
            epoch: append.row.epoch,
            event: event.clone(),
        };
        append.entries = (first..).zip(&events).map(entry).collect();
        append.row.seq = first + 1;
        append.output = output.clone();
        subject.store.append(append.into()).await.unwrap();
        let journal = subject.store.journal(&saga).await.unwrap();
        assert_eq!([&journal[1].event, &journal[2].event], [&events[0], &events[1]], "{name}");
        assert_eq!(subject.store.output(&saga).await.unwrap(), output, "{name}");
        let operation = OperationId::from_uuid(subject.env.uuid());
        let act = Act::Done { step: step.clone(), output: output.clone() };
        let messages = [
            Message::ChildEnded { step, child, fate: ChildFate::Done, output: output.clone(), refusal: None },
            Message::Act { operation, act: act.clone(), actor: "ann".into(), reason: "why not".into() },
        ];
        let mut letters = Vec::new();
        for (number, message) in messages.into_iter().enumerate() {
            let id = format!("{saga} {number}");
            letters.push(Letter { id, saga: saga.clone(), message, at: subject.env.now() });
            subject.store.post(letters[number].clone()).await.unwrap();
        }
        assert_eq!(subject.store.letters(&saga).await.unwrap(), letters, "{name}");
        assert_eq!(subject.store.audit(&saga).await.unwrap()[0].act, act, "{name}");
    }
}

async fn a_statement_that_is_refused_is_undone_alone(subject: &Subject) {
    let saga = subject.started("k").await;
    let turn = subject.next(&saga).await;
    let mut behind = turn.clone();
    behind.row.seq += 1;
    behind.entries.iter_mut().for_each(|entry| entry.seq += 1);
    let job: Job = Arc::new(move |statements| {
        let behind = behind.clone();
        Box::pin(async move {
            let note = "insert into note (text) values ($1)";
            statements.execute(note.into(), crate::params!["first"]).await?;
            let twice = statements.execute(note.into(), crate::params!["first"]).await;
            assert!(matches!(twice, Err(crate::store::tx::Error::Constraint(_))), "{twice:?}");
            let wrong = statements.fetch("select nothing from nowhere".into(), vec![]).await;
            assert!(matches!(wrong, Err(crate::store::tx::Error::Malformed(_))), "{wrong:?}");
            statements.execute(note.into(), crate::params!["second"]).await?;
            Ok(behind)
        })
    });
    subject.store.transact(turn.into(), job).await.unwrap();
    let sql = "select text from note order by text";
    let rows = subject.store.fetch(sql.into(), vec![]).await.unwrap();
    let notes: Vec<String> = rows.iter().map(|row| row.text("text").unwrap()).collect();
    assert_eq!(notes, ["first", "second"], "{}", subject.name);
}

async fn nothing_fits_every_column_and_what_was_bound_is_read_back(subject: &Subject) {
    let saga = subject.started("k").await;
    let turn = subject.next(&saga).await;
    let mut behind = turn.clone();
    behind.row.seq += 1;
    behind.entries.iter_mut().for_each(|entry| entry.seq += 1);
    let job: Job = Arc::new(move |statements| {
        let behind = behind.clone();
        Box::pin(async move {
            let insert = "insert into thing (id, small, big, part, bytes) values ($1, $2, $3, $4, $5)";
            let null = crate::store::tx::Param::Null;
            let full = crate::params!["full", 7, i64::MAX, 0.5, vec![0_u8, 255]];
            // The same statement with other types, before and after.
            let none = vec!["none".into(), null.clone(), null.clone(), null.clone(), null];
            statements.execute(insert.into(), none.clone()).await?;
            statements.execute(insert.into(), full).await?;
            let mut more = none;
            more[0] = "more".into();
            statements.execute(insert.into(), more).await?;
            Ok(behind)
        })
    });
    subject.store.transact(turn.into(), job).await.unwrap();
    let sql = "select small, big, part, bytes from thing where id = $1";
    let rows = subject.store.fetch(sql.into(), crate::params!["full"]).await.unwrap();
    let values: Vec<_> = rows[0].0.iter().map(|(_, value)| value.clone()).collect();
    assert_eq!(values, crate::params![7, i64::MAX, 0.5, vec![0_u8, 255]], "{}", subject.name);
    let rows = subject.store.fetch(sql.into(), crate::params!["none"]).await.unwrap();
    assert!(rows[0].0.iter().all(|(_, value)| *value == crate::store::tx::Param::Null), "{}", subject.name);
}

async fn a_list_has_pages_newest_first(subject: &Subject) {
    let mut ids = Vec::new();
    for number in 0..7 {
        ids.push(subject.started(&format!("k{number}")).await);
    }
    ids.sort();
    ids.reverse();
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let filter = SagaFilter { before: before.clone(), limit: 3, ..SagaFilter::default() };
        let page = subject.store.sagas(filter).await.unwrap();
        assert!(page.len() <= 3, "{}", subject.name);
        let Some(last) = page.last() else { break };
        before = Some(last.id.clone());
        seen.extend(page.into_iter().map(|row| row.id));
    }
    assert_eq!(seen, ids, "{}", subject.name);
}

async fn an_unreadable_saga_is_shown_by_lists_and_is_due_as_it_was(subject: &Subject) {
    let (store, saga) = (&subject.store, subject.started("a").await);
    let before = store.saga(&saga).await.unwrap().unwrap();
    store.mark_unreadable(&saga, "line 2 is damaged").await.unwrap();
    let row = store.saga(&saga).await.unwrap().unwrap();
    assert_eq!(
        (row.attention.as_slice(), row.error.as_deref()),
        ([Attention::Unreadable].as_slice(), Some("line 2 is damaged"))
    );
    assert_eq!((row.due_at, row.seq, row.epoch), (before.due_at, before.seq, before.epoch));
    let listed = store.sagas(SagaFilter { attention: true, ..SagaFilter::default() }).await.unwrap();
    assert_eq!(listed, [row]);
    // Once it can be read again, its next turn says what its journal says.
    let mut next = subject.next(&saga).await;
    (next.row.attention, next.row.error) = (Vec::new(), None);
    store.append(next.into()).await.unwrap();
    assert_eq!(store.saga(&saga).await.unwrap().unwrap().attention, []);
}

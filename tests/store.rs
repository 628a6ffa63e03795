//! What every store promises, checked on each of them with the same cases.

#![allow(
    clippy::unwrap_used,
    clippy::cloned_ref_to_slice_refs,
    missing_docs,
    clippy::disallowed_methods,
    reason = "tests fail by panicking"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use amends_engine::env::Timestamp;
use amends_engine::journal::state::SagaState;
use amends_engine::journal::{Entry, Event};
use amends_engine::secret::Vault;
use amends_engine::store::memory::MemoryStore;
use amends_engine::store::sqlite::{Migrations, OpenError, SqliteStore};
use amends_engine::store::{
    Append, Error, GateRow, Letter, Message, NewSaga, ResourceFilter, ResourceRow, ResourceState,
    ResourceWrite, SagaFilter, SecretFate, Started, Store,
};
use amends_engine::{Env, Failure, ResourceId, SagaId, StepKey, params};

const NOTES: &[Migrations] = &[Migrations {
    table: "note_migration",
    scripts: &[("note", "create table note (text text primary key) strict;")],
}];

struct Subject {
    name: &'static str,
    store: Arc<dyn Store>,
    vault: Vault,
    env: Env,
    _folder: Option<tempfile::TempDir>,
}

async fn subjects() -> Vec<Subject> {
    let env = Env::seeded(3);
    let (memory, memory_vault) = MemoryStore::new(NOTES, &env).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (file, key) = (folder.path().join("a.db"), folder.path().join("key"));
    let (sqlite, sqlite_vault) = SqliteStore::open(&file, &key, "test", NOTES, &env).await.unwrap();
    vec![
        Subject {
            name: "memory",
            store: Arc::new(memory),
            vault: memory_vault,
            env: env.clone(),
            _folder: None,
        },
        Subject { name: "sqlite", store: Arc::new(sqlite), vault: sqlite_vault, env, _folder: Some(folder) },
    ]
}

impl Subject {
    fn new_saga(&self, key: &str) -> NewSaga {
        NewSaga {
            id: SagaId::from_uuid(self.env.uuid()),
            workflow: "w".into(),
            workflow_version: 1,
            input: serde_json::json!({"n": 1}),
            key: key.into(),
            deadline_at: None,
            labels: BTreeMap::from([("colour".into(), "red".into())]),
            at: self.env.now(),
            sealed: Vec::new(),
        }
    }

    async fn started(&self, key: &str) -> SagaId {
        let new = self.new_saga(key);
        let id = new.id.clone();
        assert_eq!(self.store.start(new).await.unwrap(), Started::New(id.clone()), "{}", self.name);
        id
    }

    /// An append of one harmless entry behind what is stored.
    async fn next(&self, saga: &SagaId) -> Append {
        let mut row = self.store.saga(saga).await.unwrap().unwrap();
        row.seq += 1;
        row.state = SagaState::Running;
        row.due_at = Some(Timestamp(i64::MAX));
        let event = Event::LabelSet { name: "colour".into(), value: "blue".into() };
        Append {
            entries: vec![Entry { seq: row.seq, at: self.env.now(), epoch: row.epoch, event }],
            row,
            output: None,
            resources: Vec::new(),
            sealed: Vec::new(),
            consumed: Vec::new(),
            gates: Vec::new(),
            starts: Vec::new(),
            letters: Vec::new(),
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
        }
    }
}

#[tokio::test]
async fn a_start_under_a_known_key_is_the_same_saga_or_none() {
    for subject in subjects().await {
        let first = subject.started("k").await;
        let again = subject.new_saga("k");
        assert_eq!(
            subject.store.start(again).await.unwrap(),
            Started::Before(first.clone()),
            "{}",
            subject.name
        );
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
}

#[tokio::test]
async fn an_append_under_another_epoch_or_behind_another_entry_writes_nothing() {
    for subject in subjects().await {
        let saga = subject.started("k").await;
        let good = subject.next(&saga).await;
        let mut old = good.clone();
        old.row.epoch -= 1;
        let mut skips = good.clone();
        skips.row.seq += 1;
        for wrong in [old, skips] {
            assert_eq!(
                subject.store.append(wrong).await,
                Err(Error::Fenced(saga.clone())),
                "{}",
                subject.name
            );
        }
        assert_eq!(subject.store.journal(&saga).await.unwrap().len(), 1);
        subject.store.append(good.clone()).await.unwrap();
        assert_eq!(
            subject.store.append(good).await,
            Err(Error::Fenced(saga.clone())),
            "twice, {}",
            subject.name
        );
        let journal = subject.store.journal(&saga).await.unwrap();
        assert_eq!(journal.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(subject.store.saga(&saga).await.unwrap().unwrap().state, SagaState::Running);
    }
}

#[tokio::test]
async fn a_ledger_row_is_written_only_by_who_knows_it_as_it_is() {
    for subject in subjects().await {
        let saga = subject.started("k").await;
        let row = subject.resource(&saga);
        let mut append = subject.next(&saga).await;
        append.resources = vec![ResourceWrite { row: row.clone(), stored: None }];
        subject.store.append(append).await.unwrap();

        let mut later = row.clone();
        later.rev = 2;
        later.state = ResourceState::Live;
        let mut moved = subject.next(&saga).await;
        moved.resources = vec![ResourceWrite { row: later.clone(), stored: Some(("another".into(), 1)) }];
        assert_eq!(
            subject.store.append(moved).await,
            Err(Error::LedgerMoved(saga.clone())),
            "{}",
            subject.name
        );
        assert_eq!(subject.store.journal(&saga).await.unwrap().len(), 2, "all or nothing, {}", subject.name);

        let mut good = subject.next(&saga).await;
        good.resources = vec![ResourceWrite { row: later.clone(), stored: Some((saga.to_string(), 1)) }];
        subject.store.append(good).await.unwrap();
        let stored = subject.store.resources(ResourceFilter::default()).await.unwrap();
        assert_eq!(stored, [later], "{}", subject.name);
    }
}

#[tokio::test]
async fn a_member_that_cannot_be_written_does_not_hold_up_its_group() {
    for subject in subjects().await {
        let (good, bad) = (subject.started("good").await, subject.started("bad").await);
        let mut moved = subject.next(&bad).await;
        moved.resources =
            vec![ResourceWrite { row: subject.resource(&bad), stored: Some((bad.to_string(), 7)) }];
        let fine = subject.next(&good).await;
        let (moved, fine) = tokio::join!(subject.store.append(moved), subject.store.append(fine));
        assert_eq!(moved, Err(Error::LedgerMoved(bad.clone())), "{}", subject.name);
        fine.unwrap();
        assert_eq!(subject.store.journal(&bad).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_saga_is_claimed_when_it_is_due_or_has_a_letter_and_by_one_only() {
    for subject in subjects().await {
        let saga = subject.started("k").await;
        let now = subject.env.now();
        assert_eq!(subject.store.claim(now, 10).await.unwrap(), [saga.clone()], "{}", subject.name);
        assert!(subject.store.claim(now, 10).await.unwrap().is_empty(), "it is held");
        subject.store.append(subject.next(&saga).await).await.unwrap();
        subject.store.release(&saga).await;
        assert!(subject.store.claim(now, 10).await.unwrap().is_empty(), "it is not due");

        let letter = Letter { id: "l1".into(), saga: saga.clone(), message: Message::Wake, at: now };
        subject.store.post(letter.clone()).await.unwrap();
        subject.store.post(letter.clone()).await.unwrap();
        assert_eq!(subject.store.letters(&saga).await.unwrap(), [letter.clone()], "once, {}", subject.name);
        assert_eq!(subject.store.claim(now, 10).await.unwrap(), [saga.clone()]);
        let mut reads = subject.next(&saga).await;
        reads.consumed = vec!["l1".into()];
        subject.store.append(reads).await.unwrap();
        assert!(subject.store.letters(&saga).await.unwrap().is_empty());
        subject.store.post(letter.clone()).await.unwrap();
        assert!(subject.store.letters(&saga).await.unwrap().is_empty(), "a known id changes nothing");
        let nobody = SagaId::from_uuid(subject.env.uuid());
        let lost = Letter { id: "l2".into(), saga: nobody.clone(), ..letter };
        assert_eq!(subject.store.post(lost).await, Err(Error::NoSuchSaga(nobody)), "{}", subject.name);
    }
}

#[tokio::test]
async fn a_gate_is_only_ever_moved_later() {
    for subject in subjects().await {
        let saga = subject.started("k").await;
        for at in [500, 300] {
            let mut append = subject.next(&saga).await;
            let gate = GateRow { key: "g".into(), next_allowed_at: Timestamp(at), reason: at.to_string() };
            append.gates = vec![gate];
            subject.store.append(append).await.unwrap();
        }
        let gates = subject.store.gates(Timestamp(0)).await.unwrap();
        assert_eq!(gates.len(), 1);
        assert_eq!(
            (gates[0].next_allowed_at, gates[0].reason.as_str()),
            (Timestamp(500), "500"),
            "{}",
            subject.name
        );
        assert!(subject.store.gates(Timestamp(500)).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_sagas_secrets_pass_to_its_owner_or_are_destroyed() {
    for subject in subjects().await {
        let (kept, lost) = (subject.started("kept").await, subject.started("lost").await);
        let seal = || subject.vault.seal("test", &"hush".into(), &subject.env).unwrap();
        let (first, second) = (seal(), seal());
        for (saga, sealed, fate) in
            [(&kept, &first, SecretFate::PassTo("owner".into())), (&lost, &second, SecretFate::Destroyed)]
        {
            let mut append = subject.next(saga).await;
            append.sealed = vec![sealed.clone()];
            subject.store.append(append).await.unwrap();
            assert_eq!(
                subject.store.secret(&sealed.id).await.unwrap().as_ref(),
                Some(sealed),
                "{}",
                subject.name
            );
            let mut ends = subject.next(saga).await;
            ends.secrets = fate;
            subject.store.append(ends).await.unwrap();
        }
        assert_eq!(subject.store.secret(&first.id).await.unwrap(), Some(first.clone()), "{}", subject.name);
        assert_eq!(subject.store.secret(&second.id).await.unwrap(), None, "{}", subject.name);
        let mut destroys = subject.next(&kept).await;
        destroys.destroyed = vec!["owner".into()];
        subject.store.append(destroys).await.unwrap();
        assert_eq!(subject.store.secret(&first.id).await.unwrap(), None, "{}", subject.name);
    }
}

#[tokio::test]
async fn user_sql_is_written_with_its_append_or_not_at_all() {
    for subject in subjects().await {
        let saga = subject.started("k").await;
        let append = subject.next(&saga).await;
        let fenced = Append {
            row: {
                let mut row = append.row.clone();
                row.epoch += 9;
                row
            },
            ..append.clone()
        };
        let notes = || async { subject.store.fetch("select text from note", vec![]).await.unwrap().len() };
        let job = |append: Append, fails: bool| {
            let job: amends_engine::store::Job = Arc::new(move |statements| {
                let append = append.clone();
                Box::pin(async move {
                    statements.execute("insert into note (text) values ($1)", params!["x"]).await?;
                    if fails { Err(Failure::refused("no", "said the user")) } else { Ok(append) }
                })
            });
            job
        };
        let refused = subject.store.transact(saga.clone(), job(append.clone(), true)).await;
        assert_eq!(
            refused.unwrap_err(),
            Error::Job(Failure::refused("no", "said the user")),
            "{}",
            subject.name
        );
        let stale = subject.store.transact(saga.clone(), job(fenced, false)).await;
        assert_eq!(stale.unwrap_err(), Error::Fenced(saga.clone()), "{}", subject.name);
        assert_eq!(notes().await, 0, "{}", subject.name);
        subject.store.transact(saga.clone(), job(append.clone(), false)).await.unwrap();
        assert_eq!(notes().await, 1);
        let twice = subject.store.transact(saga.clone(), job(subject.next(&saga).await, false)).await;
        assert!(
            matches!(&twice, Err(Error::Job(Failure::Refused(refusal))) if refusal.code == "conflict"),
            "{}: {twice:?}",
            subject.name
        );
        assert_eq!(subject.store.journal(&saga).await.unwrap().len(), 2);
    }
}

#[tokio::test]
async fn a_database_is_refused_that_is_in_use_newer_foreign_elsewhere_or_without_its_key() {
    let env = Env::seeded(5);
    let folder = tempfile::tempdir().unwrap();
    let (file, key) = (folder.path().join("a.db"), folder.path().join("key"));
    let open = async |environment: &str, own: &[Migrations]| {
        SqliteStore::open(&file, &key, environment, own, &env).await.map(|(store, _)| store)
    };
    let store = open("test", NOTES).await.unwrap();
    assert!(matches!(open("test", NOTES).await, Err(OpenError::InUse(_))));
    store.close().await;
    let older = &[Migrations { table: "note_migration", scripts: &[] }];
    assert!(matches!(open("test", older).await, Err(OpenError::Newer { version: 1, known: 0, .. })));
    assert!(matches!(open("production", NOTES).await, Err(OpenError::OtherEnvironment { .. })));

    let text = std::fs::read_to_string(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    assert!(
        matches!(open("test", NOTES).await, Err(OpenError::Key(_))),
        "a new key would orphan its secrets"
    );
    assert!(!key.exists());
    std::fs::write(&key, text.replace(|digit: char| digit.is_ascii_hexdigit(), "0")).unwrap();
    assert!(matches!(open("test", NOTES).await, Err(OpenError::Key(_))));
    std::fs::write(&key, text).unwrap();
    open("test", NOTES).await.unwrap().close().await;

    let letters = folder.path().join("letters.txt");
    std::fs::write(&letters, "Dear database, this is a letter and not one of you. ".repeat(100)).unwrap();
    let before = std::fs::read(&letters).unwrap();
    let foreign = SqliteStore::open(&letters, &key, "test", NOTES, &env).await;
    assert!(matches!(foreign, Err(OpenError::Foreign(_))), "{:?}", foreign.err());
    assert_eq!(std::fs::read(&letters).unwrap(), before);
}

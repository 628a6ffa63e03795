//! The engine: build it, start sagas, look at them, act on them, stop it.

use std::sync::Arc;

use strum::IntoEnumIterator;

use crate::activity::{Local, Registry};
use crate::bulk::BULK_MAX;
use crate::data::{self, Unstorable, limits};
use crate::env::Env;
use crate::gate::{GateAct, GateView, GateWait, Lane, Times};
use crate::ids::{OperationId, SagaId, StepKey};
use crate::journal::act::{Act, Verdict};
use crate::journal::state::{Attention, SagaState};
use crate::journal::why::{tell_gate, tell_unread_letter, why_unreadable};
use crate::journal::{Entry, Plan, State, Why, plan, why};
use crate::saga::Workflow;
use crate::secret::Vault;
use crate::store::tx::{Beside, Tx};
use crate::store::{
    AuditRow, Error, GateRow, Letter, Loose, LooseJob, Message, NewSaga, ResourceFilter, ResourceRow,
    SagaFilter, SagaRow, Started, Store, UNREAD_MAX,
};
use crate::sweep::{FindingClass, FindingFilter, FindingRow};
use crate::worker::{self, Counts, DryRun, Shared};

/// A running engine: sagas are started with it, looked at, acted on and waited for. Clones share it.
///
/// Its worker takes up whatever is due in the store, also what an earlier process left there. What a completed saga
/// yielded is read with [`Store::output`], by way of [`store`](Self::store).
///
/// There is no engine that only looks: each has a worker, so each offers all activities and workflows that sagas in its
/// store may need ([`Registry`]). There is no service to ask either: what a person does goes through an engine, and
/// since a SQLite file has one process at a time, that is the engine of the program that has the file. Give it a door
/// there: a route, a socket, a line on the console.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    worker: Arc<std::sync::Mutex<Option<tokio::task::JoinHandle<()>>>>,
}

/// All that is known of one saga.
#[derive(Debug, Clone)]
pub struct SagaView {
    /// Its row.
    pub row: SagaRow,
    /// Its journal, folded.
    pub state: State,
    /// Its journal.
    pub entries: Vec<Entry>,
    /// The ledger rows it made or holds, as they are now, whoever holds them.
    pub resources: Vec<ResourceRow>,
    /// The gate at which it waits, as that is now.
    pub gate: Option<GateView>,
}

/// Refuses an act of which nobody says who does it and why, or more than is kept of that.
fn named(actor: &str, reason: &str) -> Result<(), ActError> {
    if actor.trim().is_empty() || reason.trim().is_empty() {
        return Err(ActError::Nameless);
    }
    limits::name("the actor", actor)?;
    Ok(limits::reason(reason)?)
}

/// Whom a bulk act would act on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preview {
    /// These.
    pub eligible: Vec<SagaId>,
    /// Not these, each with why.
    pub left_out: Vec<(SagaId, String)>,
}

impl Preview {
    /// How many the filter matched.
    pub fn matched(&self) -> usize {
        self.eligible.len() + self.left_out.len()
    }
}

/// Why an act on a saga was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// There is no such saga.
    #[error("there is no saga {0}")]
    NoSuchSaga(SagaId),
    /// It has ended, or is past the point where the act could do anything.
    #[error("saga {saga} is {state}: {problem}")]
    TooLate {
        /// Which.
        saga: SagaId,
        /// Where it stands.
        state: SagaState,
        /// Why the act cannot be done.
        problem: String,
    },
    /// The operation's id was used for another act.
    #[error("operation {0} is another act")]
    OperationReused(OperationId),
    /// Whoever acts says who they are and why.
    #[error("an act needs an actor and a reason")]
    Nameless,
    /// What it says exceeds a limit, or cannot be kept.
    #[error(transparent)]
    Unstorable(#[from] Unstorable),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] Error),
}

impl Engine {
    /// An engine over this store, and its worker. Must be called inside a tokio runtime. `environment` is part of the
    /// mark that calls bear, as `production`.
    pub fn start(
        store: Arc<dyn Store>,
        vault: Vault,
        registry: Registry,
        env: Env,
        environment: &str,
    ) -> Self {
        Self::start_bounded(store, vault, registry, env, environment, worker::LIVE_MAX)
    }

    /// As [`start`](Self::start), with at most `live_max` sagas in memory at a time (4096 if not said); the others
    /// wait on disk.
    pub fn start_bounded(
        store: Arc<dyn Store>,
        vault: Vault,
        registry: Registry,
        env: Env,
        environment: &str,
        live_max: usize,
    ) -> Self {
        let registry = registry.with_bulk(&store).with_removals(&store);
        let environment = environment.to_owned();
        let shared = Arc::new(Shared::new(store, registry, env, environment, vault, live_max.max(1)));
        let worker = tokio::spawn(worker::run(shared.clone()));
        Self { shared, worker: Arc::new(std::sync::Mutex::new(Some(worker))) }
    }

    /// Pauses every saga of this store that has not ended, for that long, and answers how many. It is for a database
    /// that was put back from a backup, whose sagas would go on with what has been done, or undone, since.
    ///
    /// Called before [`start`](Self::start), it comes first: a saga reads what was left for it before it makes a call,
    /// though no more than about a thousand letters at once.
    /// Each goes on when it is resumed, or when its pause ends, which is after a day at most.
    ///
    /// # Errors
    /// As [`act`](Self::act).
    pub async fn pause_all(
        store: &Arc<dyn Store>,
        vault: &Vault,
        env: &Env,
        wait: std::time::Duration,
        actor: &str,
        reason: &str,
    ) -> Result<usize, ActError> {
        let nothing = Registry::default();
        let shared = Shared::new(store.clone(), nothing, env.clone(), String::new(), vault.clone(), 1);
        let engine = Self::within(&Arc::new(shared));
        let states = SagaState::iter().filter(|state| !state.is_ended()).collect();
        let mut filter = SagaFilter { states, limit: 1000, ..SagaFilter::default() };
        let act = Act::Pause { until: env.now().plus(wait) };
        named(actor, reason)?;
        act.check()?;
        let mut paused = 0;
        loop {
            let page = store.sagas(filter.clone()).await?;
            let Some(last) = page.last() else { return Ok(paused) };
            filter.before = Some(last.id.clone());
            for row in page {
                // Whether it can be done is looked at when it is read; a journal that does not read just now may later.
                let operation = OperationId::from_uuid(env.uuid());
                let (actor, reason) = (actor.to_owned(), reason.to_owned());
                let message = Message::Act { operation: operation.clone(), act: act.clone(), actor, reason };
                engine.post(operation.to_string(), &row.id, message).await?;
                paused += 1;
            }
        }
    }

    /// The same engine for what runs inside it; it has no worker to stop.
    pub(crate) fn within(shared: &Arc<Shared>) -> Self {
        Self { shared: shared.clone(), worker: Arc::default() }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The clock and the dice.
    pub fn env(&self) -> &Env {
        &self.shared.env
    }

    /// The store, for reads of one's own tables.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }

    /// A saga of this workflow, to be started; repeated under the same key it is the same saga.
    ///
    /// # Errors
    /// The input does not read back as it is, or exceeds a limit ([`data`](crate::data)).
    pub fn new_saga<W: Workflow>(
        &self,
        key: impl Into<String>,
        input: &W::Input,
    ) -> Result<NewSaga, Unstorable> {
        NewSaga::of::<W>(&self.shared.env, key, input)
    }

    /// Starts a saga. It is durable when this answers.
    ///
    /// # Errors
    /// Its key, its input or what else it has exceeds a limit ([`Error::Unstorable`]), or the store cannot.
    pub async fn begin(&self, new: NewSaga) -> Result<Started, Error> {
        crate::store::limits::start(&new)?;
        new.check()?;
        worker::start(&self.shared, new).await
    }

    /// Runs a local activity by itself, in a transaction that belongs to no saga: sagas it starts are started
    /// with what it writes, or not at all.
    pub async fn transact<L: Local>(&self, local: L) -> Result<L::Output, Error> {
        let shared = self.shared.clone();
        let local = Arc::new(local);
        let job: LooseJob = Arc::new(move |statements| {
            let (shared, local) = (shared.clone(), local.clone());
            Box::pin(async move {
                let saga = SagaId::from_uuid(shared.env.uuid());
                let step = StepKey::from(L::NAME);
                let mut tx = Tx {
                    saga: &saga,
                    step: &step,
                    env: &shared.env,
                    vault: &shared.outside.vault,
                    statements,
                    beside: Beside::default(),
                };
                let output = local.apply(&mut tx).await?;
                let mut beside = tx.beside;
                beside.check()?;
                let output = data::output("its output", &output)?.value;
                let at = shared.env.now();
                let letters = std::mem::take(&mut beside.posts)
                    .into_iter()
                    .enumerate()
                    .map(|(number, post)| Letter {
                        id: format!("{saga}:{number}"),
                        saga: post.saga,
                        message: post.message,
                        at,
                    })
                    .collect();
                Ok(Loose { output, beside, letters })
            })
        });
        let (output, posted) = self.shared.noted(self.shared.store.run(job).await)?;
        for saga in posted {
            self.shared.poke(&saga);
        }
        serde_json::from_value(output).map_err(|error| Error::Unreadable(error.to_string()))
    }

    /// A saga's row.
    pub async fn row(&self, saga: &SagaId) -> Result<Option<SagaRow>, Error> {
        self.shared.store.saga(saga).await
    }

    /// All that is known of one saga.
    pub async fn view(&self, saga: &SagaId) -> Result<Option<SagaView>, Error> {
        let Some(row) = self.shared.store.saga(saga).await? else { return Ok(None) };
        let entries = self.shared.store.journal(saga).await?;
        let state = State::fold(saga.clone(), &entries)
            .map_err(|error| Error::Unreadable(format!("saga {saga}: {error}")))?;
        let filter =
            ResourceFilter { holder: Some(saga.to_string()), limit: 1000, ..ResourceFilter::default() };
        let resources = self.shared.store.resources(filter).await?;
        let gate = self.gate_of(&state).await?;
        Ok(Some(SagaView { row, state, entries, resources, gate }))
    }

    /// A saga's situation in three sentences, also when its journal cannot be read; nothing if there is no such saga.
    pub async fn why(&self, saga: &SagaId) -> Result<Option<Why>, Error> {
        let Some(row) = self.shared.store.saga(saga).await? else { return Ok(None) };
        match self.folded(saga).await {
            Ok(state) => {
                let mut why = why(&state, self.shared.env.now());
                self.tell_ghosts(saga, &mut why).await?;
                if let Some(gate) = self.gate_of(&state).await? {
                    tell_gate(&mut why, &gate);
                }
                if row.attention.contains(&Attention::Unreadable) {
                    tell_unread_letter(&mut why);
                }
                Ok(Some(why))
            }
            Err(Error::Unreadable(detail)) => Ok(Some(why_unreadable(&row.workflow, &detail))),
            Err(error) => Err(error),
        }
    }

    /// What came of the sagas that this process drives since it was last asked: for a summary in a log.
    pub fn take_counts(&self) -> Counts {
        self.shared.take_counts()
    }

    /// What keeps this engine from working, in words, for a probe and for pages: that for half a minute nothing has been
    /// written though something was to be, that something else it needs has failed for so long (the ledger cannot be
    /// read, the [store's own work](Store::trouble)), or that nothing is driven any more. Nothing while it is well, and
    /// when it was [stopped](Self::stop).
    pub fn trouble(&self) -> Option<String> {
        if self.shared.is_draining() {
            return None;
        }
        let worker = self.worker.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if worker.as_ref().is_some_and(tokio::task::JoinHandle::is_finished) {
            return Some("the worker has ended, and no saga is driven: start the program again".to_owned());
        }
        drop(worker);
        self.shared.trouble.said(&self.shared.env).or_else(|| self.shared.store.trouble())
    }

    /// Adds what of the things that a saga holds was found to have vanished.
    async fn tell_ghosts(&self, saga: &SagaId, why: &mut Why) -> Result<(), Error> {
        let filter = FindingFilter {
            class: Some(FindingClass::Ghost),
            holder: Some(saga.to_string()),
            open: Some(true),
            ..FindingFilter::default()
        };
        let ghosts = self.findings(filter).await?;
        let Some(ghost) = ghosts.first() else { return Ok(()) };
        let more = match ghosts.len() {
            1 => String::new(),
            all => format!(" and {} more", all - 1),
        };
        let FindingRow { provider, kind, name, first_seen_at, .. } = ghost;
        why.now.push_str(&format!(
            " What it holds has vanished: the {provider} {kind} {name}{more}, seen at {first_seen_at}."
        ));
        why.you.push_str(&format!(" Look at the provider, and settle the finding {}.", ghost.id));
        Ok(())
    }

    /// A page of sagas, newest first.
    pub async fn sagas(&self, filter: SagaFilter) -> Result<Vec<SagaRow>, Error> {
        self.shared.store.sagas(filter).await
    }

    /// A page of the ledger, newest first.
    pub async fn resources(&self, filter: ResourceFilter) -> Result<Vec<ResourceRow>, Error> {
        self.shared.store.resources(filter).await
    }

    /// Tries now what the saga would try again later.
    pub async fn retry(&self, saga: &SagaId, actor: &str, reason: &str) -> Result<OperationId, ActError> {
        self.act(saga, Act::Retry, actor, reason).await
    }

    /// Turns the saga round: what it did is undone. Refused past its pivot.
    pub async fn cancel(&self, saga: &SagaId, actor: &str, reason: &str) -> Result<OperationId, ActError> {
        self.act(saga, Act::Cancel, actor, reason).await
    }

    /// Stops the saga for that long, at most a day; it goes on by itself then. What is under way may end.
    pub async fn pause(
        &self,
        saga: &SagaId,
        wait: std::time::Duration,
        actor: &str,
        reason: &str,
    ) -> Result<OperationId, ActError> {
        let until = self.shared.env.now().plus(wait);
        self.act(saga, Act::Pause { until }, actor, reason).await
    }

    /// Lets a paused saga go on.
    pub async fn resume(&self, saga: &SagaId, actor: &str, reason: &str) -> Result<OperationId, ActError> {
        self.act(saga, Act::Resume, actor, reason).await
    }

    /// Says what came of a lost call.
    pub async fn settle(
        &self,
        saga: &SagaId,
        step: impl Into<StepKey>,
        verdict: Verdict,
        actor: &str,
        reason: &str,
    ) -> Result<OperationId, ActError> {
        self.act(saga, Act::Settle { step: step.into(), verdict }, actor, reason).await
    }

    /// Does an act: leaves it in the saga's inbox together with its audit, and answers when both are durable. Whoever
    /// drives the saga then checks it once more, does it, and writes what came of it: [`audit`](Self::audit) has its
    /// outcome from then on. A program that stops at once leaves it in the inbox, where the next start finds it.
    ///
    /// [`retry`](Self::retry), [`cancel`](Self::cancel), [`pause`](Self::pause), [`resume`](Self::resume) and
    /// [`settle`](Self::settle) are this for one kind of act each.
    ///
    /// # Errors
    /// There is no such saga, the act cannot be done where it stands, or it says that a step made what its activity
    /// does not read as its output; nothing was written then.
    pub async fn act(
        &self,
        saga: &SagaId,
        act: Act,
        actor: &str,
        reason: &str,
    ) -> Result<OperationId, ActError> {
        let operation = OperationId::from_uuid(self.shared.env.uuid());
        self.act_as(operation, saga, act, actor, reason).await
    }

    /// As [`act`](Self::act), under an id that the caller chose: repeated with the same id it is done once, and
    /// answers as it did the first time whatever has become of the saga since.
    ///
    /// # Errors
    /// As [`act`](Self::act); and the id was used for something else.
    pub async fn act_as(
        &self,
        operation: OperationId,
        saga: &SagaId,
        act: Act,
        actor: &str,
        reason: &str,
    ) -> Result<OperationId, ActError> {
        named(actor, reason)?;
        act.check()?;
        let row = self.shared.store.saga(saga).await?.ok_or_else(|| ActError::NoSuchSaga(saga.clone()))?;
        let audit = self.shared.store.audit(saga).await?;
        if let Some(known) = audit.into_iter().find(|known| known.operation == operation) {
            // A pause is asked for as a duration, so that its end differs each time.
            let is_same = match (&known.act, &act) {
                (Act::Pause { .. }, Act::Pause { .. }) => true,
                (known, act) => known == act,
            };
            return if is_same && known.actor == actor && known.reason == reason {
                Ok(operation)
            } else {
                Err(ActError::OperationReused(operation))
            };
        }
        let state = self.folded(saga).await?;
        let problem = act.problem(&state, self.shared.env.now());
        if let Some(problem) = problem.or_else(|| self.shared.registry.problem_of(&state, &act)) {
            return Err(ActError::TooLate { saga: saga.clone(), state: row.state, problem });
        }
        let (actor, reason) = (actor.to_owned(), reason.to_owned());
        let message = Message::Act { operation: operation.clone(), act, actor, reason };
        self.post(operation.to_string(), saga, message).await?;
        Ok(operation)
    }

    /// The acts on a saga, oldest first, with what came of each; nothing yet of one that is not settled.
    pub async fn audit(&self, saga: &SagaId) -> Result<Vec<AuditRow>, Error> {
        self.shared.store.audit(saga).await
    }

    /// Every gate that was ever closed, is limited, or holds somebody up, by key.
    pub async fn gates(&self) -> Result<Vec<GateView>, Error> {
        let rows = self.shared.store.gates(self.shared.granted_since()).await?;
        let (now, times) = (self.shared.env.now(), Times::of(&self.shared.env));
        let view = |row: &GateRow| GateView::of(row, self.shared.gates.refused(&row.key), now, &times);
        Ok(rows.iter().map(view).collect())
    }

    /// Which steps wait at a gate, forward steps first, those that came first before others; at most so many of each.
    pub async fn waiting_at(&self, key: &str, limit: u32) -> Result<Vec<GateWait>, Error> {
        let mut all = Vec::new();
        for lane in [Lane::Forward, Lane::Undo] {
            all.extend(self.shared.store.gate_queue(key, lane, self.shared.granted_since(), limit).await?);
        }
        Ok(all)
    }

    /// The gate at which a saga waits; nothing if it waits at none.
    async fn gate_of(&self, state: &State) -> Result<Option<GateView>, Error> {
        let waits = state.gate_waits();
        let Some(wait) = waits.last() else { return Ok(None) };
        Ok(self.gates().await?.into_iter().find(|gate| gate.key == wait.gate))
    }

    /// Closes a gate to everybody, compensations too, until a person opens it. What waits there uses no attempts.
    ///
    /// # Errors
    /// Nobody says who they are and why, or the store cannot.
    pub async fn close_gate(&self, key: &str, actor: &str, reason: &str) -> Result<(), ActError> {
        self.act_on_gate(key, false, actor, reason).await
    }

    /// Opens a gate, whoever closed it: those who wait go on in growing waves, one first.
    ///
    /// # Errors
    /// Nobody says who they are and why, or the store cannot.
    pub async fn open_gate(&self, key: &str, actor: &str, reason: &str) -> Result<(), ActError> {
        self.act_on_gate(key, true, actor, reason).await
    }

    async fn act_on_gate(&self, key: &str, opened: bool, actor: &str, reason: &str) -> Result<(), ActError> {
        named(actor, reason)?;
        limits::name("the key of the gate", key)?;
        let at = self.shared.env.now();
        let act = GateAct { opened, actor: actor.to_owned(), reason: reason.to_owned(), at };
        Ok(worker::gates::act(&self.shared, key, act).await?)
    }

    /// What unwinding the saga would do from where it stands; nothing is done.
    pub async fn plan(&self, saga: &SagaId) -> Result<Plan, Error> {
        Ok(plan(&self.folded(saga).await?))
    }

    /// The plan, with what `find` says of each thing in it that can be looked for; nothing else is called.
    pub async fn dry_run(&self, saga: &SagaId) -> Result<Vec<DryRun>, Error> {
        worker::dry_run(&self.shared, &self.folded(saga).await?).await
    }

    /// What the saga shows under a name: its function is run over its journal with all effects off.
    ///
    /// # Errors
    /// There is no such saga, or this program does not offer its definition.
    pub async fn query(&self, saga: &SagaId, name: &str) -> Result<Option<serde_json::Value>, Error> {
        let entries = self.shared.store.journal(saga).await?;
        worker::shown(&self.shared, saga, &entries, name)
    }

    /// Whom a bulk act would act on, newest first, and who is left out and why. At most [`BULK_MAX`] are looked at.
    pub async fn preview(&self, mut filter: SagaFilter, act: &Act) -> Result<Preview, Error> {
        let mut preview = Preview::default();
        filter.limit = 1000;
        loop {
            let page = self.shared.store.sagas(filter.clone()).await?;
            let Some(last) = page.last() else { return Ok(preview) };
            filter.before = Some(last.id.clone());
            for row in page {
                if preview.matched() == BULK_MAX {
                    return Ok(preview);
                }
                let problem = match self.folded(&row.id).await {
                    Ok(state) => act.problem(&state, self.shared.env.now()),
                    Err(Error::Unreadable(detail)) => Some(detail),
                    Err(error) => return Err(error),
                };
                match problem {
                    None => preview.eligible.push(row.id),
                    Some(problem) => preview.left_out.push((row.id, problem)),
                }
            }
        }
    }

    async fn folded(&self, saga: &SagaId) -> Result<State, Error> {
        let entries = self.shared.store.journal(saga).await?;
        if entries.is_empty() {
            return Err(Error::NoSuchSaga(saga.clone()));
        }
        State::fold(saga.clone(), &entries)
            .map_err(|error| Error::Unreadable(format!("saga {saga}: {error}")))
    }

    /// Leaves a signal for a saga; the same id for the same saga again changes nothing. Null is a value like others.
    ///
    /// # Errors
    /// There is no such saga, the id, the name or the value exceeds a limit ([`Error::Unstorable`]), 10,000 letters wait
    /// for the saga already ([`Error::InboxFull`]; what a person does to it passes all the same), or the store cannot.
    pub async fn signal(
        &self,
        saga: &SagaId,
        id: &str,
        name: &str,
        value: serde_json::Value,
    ) -> Result<(), Error> {
        limits::signal_id(id)?;
        limits::name("the name of the signal", name)?;
        data::check("the signal", &value)?;
        // Its own: no word of the engine's, and none for another saga, has such an id.
        let id = format!("{saga}:signal:{id}");
        // What is left for a saga that does not read it stays, and is looked through each time.
        if self.shared.store.unread(saga, UNREAD_MAX).await? >= UNREAD_MAX {
            return Err(Error::InboxFull { saga: saga.clone(), most: UNREAD_MAX });
        }
        self.post(id, saga, Message::Signal { name: name.to_owned(), value }).await
    }

    async fn post(&self, id: String, saga: &SagaId, message: Message) -> Result<(), Error> {
        let letter = Letter { id, saga: saga.clone(), message, at: self.shared.env.now() };
        self.shared.noted(self.shared.store.post(letter).await)?;
        self.shared.poke(saga);
        Ok(())
    }

    /// Waits until the saga's row is as `until` asks, or the saga has ended, or the time is up; the row as it is then.
    ///
    /// However many wait in one process, what another process writes is read for all of them at a time, every quarter
    /// of a second; what this one writes is told without a read.
    pub async fn wait(
        &self,
        saga: &SagaId,
        limit: std::time::Duration,
        until: impl Fn(&SagaRow) -> bool,
    ) -> Result<Option<SagaRow>, Error> {
        let deadline = self.shared.env.now().plus(limit);
        // Before the row is read, so that no write falls between.
        let mut watch = self.shared.watch(saga);
        let is_over = |row: &SagaRow| row.state.is_ended() || until(row);
        let mut known = self.shared.row(saga);
        loop {
            let row = match known.take() {
                Some(row) => Some(row),
                None => self.shared.look(saga).await?,
            };
            let now = self.shared.env.now();
            if row.as_deref().is_none_or(is_over) || now >= deadline {
                return Ok(row.map(Arc::unwrap_or_clone));
            }
            // What this process writes is seen at once; what another does is looked for, for all who wait.
            known = tokio::select! {
                biased;
                row = watch.until(is_over) => row,
                () = self.shared.env.sleep(deadline.since(now)) => None,
            };
        }
    }

    /// Stops taking new attempts, lets calls under way end (20 s at most), records them, hands the leases back, and
    /// closes the store.
    pub async fn stop(&self) {
        self.shared.drain();
        let worker = self.worker.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(worker) = worker {
            let _ = worker.await;
        }
        self.shared.store.close().await;
    }

    /// Stops at once, as a crash would: nothing more is recorded.
    pub fn abort(&self) {
        let worker = self.worker.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(worker) = worker {
            worker.abort();
        }
    }
}

//! The worker: finds due sagas, takes their lease, drives them, hands them back, drains.

mod decide;
mod effects_off;
mod executor;
mod function;
pub(crate) mod gates;
mod notices;
mod start;
mod waiting;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{Notify, RwLock, mpsc, watch};
use tokio::task::JoinSet;

use crate::activity::Registry;
use crate::activity::call::Outside;
use crate::env::Env;
use crate::ids::SagaId;
use crate::store::lease::RENEW;
use crate::store::{Append, Error, Loaded, NewSaga, SagaRow, Store};
use crate::trouble::Trouble;
pub use effects_off::{DryRun, Seen};
pub(crate) use effects_off::{dry_run, shown};
use executor::{Executor, Refused, Stop};
use gates::Gates;
pub use notices::Counts;
use notices::Notices;
use start::Handed;
pub(crate) use start::start;
use waiting::{Look, Seen as Looked};

/// How many sagas one claim takes.
const CLAIM: usize = 64;
/// How many sagas are driven at a time.
pub(crate) const LIVE_MAX: usize = 4096;
/// What is said when no write gets through.
const UNWRITTEN: &str = "nothing can be written";
/// And when it is not known for whom other processes left something.
const NO_MAIL: &str = "letters of other processes cannot be looked for";
/// How long a saga rests before it is loaded again because another had written.
const RELOAD: Duration = Duration::from_millis(100);

/// A saga that is driven here.
struct Live {
    poke: Arc<Notify>,
    /// Its row, if it has been driven here from its start on.
    row: Option<Arc<SagaRow>>,
}

/// What every executor of one engine shares.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) registry: Registry,
    pub(crate) env: Env,
    pub(crate) environment: String,
    pub(crate) outside: Arc<Outside>,
    pub(crate) gates: Arc<Gates>,
    live_max: usize,
    /// The store may hold sagas for this worker that it does not know of.
    unsure: AtomicBool,
    notices: Notices,
    /// Shared by starts that will be held; had alone by whoever gives back what is not live.
    starting: RwLock<()>,
    live: Mutex<HashMap<SagaId, Live>>,
    handed: mpsc::UnboundedSender<Handed>,
    handed_here: Mutex<Option<mpsc::UnboundedReceiver<Handed>>>,
    watched: Mutex<HashMap<SagaId, watch::Sender<Option<Looked>>>>,
    /// Told when somebody waits and nobody did before.
    somebody_waits: Notify,
    looks: mpsc::UnboundedSender<Look>,
    looks_here: Mutex<Option<mpsc::UnboundedReceiver<Look>>>,
    draining: watch::Sender<bool>,
    crowded: watch::Sender<bool>,
    pub(crate) trouble: Trouble,
}

impl Shared {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        registry: Registry,
        env: Env,
        environment: String,
        vault: crate::secret::Vault,
        live_max: usize,
    ) -> Self {
        let outside = Arc::new(Outside { env: env.clone(), vault, store: store.clone() });
        let gates = Arc::new(Gates::new(&env));
        let (handed, handed_here) = mpsc::unbounded_channel();
        let (looks, looks_here) = mpsc::unbounded_channel();
        Self {
            store,
            registry,
            env,
            environment,
            outside,
            gates,
            live_max,
            unsure: AtomicBool::new(false),
            notices: Notices::default(),
            starting: RwLock::default(),
            live: Mutex::default(),
            handed,
            handed_here: Mutex::new(Some(handed_here)),
            watched: Mutex::default(),
            somebody_waits: Notify::new(),
            looks,
            looks_here: Mutex::new(Some(looks_here)),
            draining: watch::Sender::new(false),
            crowded: watch::Sender::new(false),
            trouble: Trouble::default(),
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    pub(crate) async fn draining(&self) {
        // The sender lives as long as this, so waiting cannot fail.
        let _ = self.draining.subscribe().wait_for(|draining| *draining).await;
    }

    /// Whether more sagas are due than can be driven at a time.
    pub(crate) fn is_crowded(&self) -> bool {
        *self.crowded.borrow()
    }

    pub(crate) async fn crowded(&self) {
        let _ = self.crowded.subscribe().wait_for(|crowded| *crowded).await;
    }

    pub(crate) fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Takes note of what a write came to: that the store cannot, or that it can.
    pub(crate) fn noted<T>(&self, written: Result<T, Error>) -> Result<T, Error> {
        match &written {
            Err(error @ (Error::Unavailable(_) | Error::Closed)) => {
                self.trouble.failed(UNWRITTEN, error.to_string(), &self.env);
            }
            // It is about this write alone, and the store looked at it.
            Ok(_) | Err(_) => self.trouble.went_well(UNWRITTEN),
        }
        written
    }

    /// Tells the executor of a live saga that it has a letter.
    pub(crate) fn poke(&self, saga: &SagaId) {
        if let Some(live) = self.live.lock().unwrap_or_else(PoisonError::into_inner).get(saga) {
            live.poke.notify_one();
        }
    }

    /// Tells those who watch the saga what was written. One that has ended is not live any more.
    pub(crate) fn written(&self, append: &Arc<Append>) {
        let saga = &append.row.id;
        self.notices.written(&append.row);
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let row = live.get_mut(saga).and_then(|live| live.row.as_mut()).map(|known| {
            // A turn that says nothing of progress leaves it as it was.
            let progress = append.row.progress.or(known.progress);
            *known = Arc::new(SagaRow { progress, ..append.row.clone() });
            known.clone()
        });
        if append.row.ended_at.is_some() {
            live.remove(saga);
        }
        drop(live);
        self.tell_written(append, row);
    }

    /// The row of a saga that has been driven here from its start on, and has not ended.
    pub(crate) fn row(&self, saga: &SagaId) -> Option<Arc<SagaRow>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).get(saga)?.row.clone()
    }

    /// What came of the sagas driven here since this was last asked.
    pub(crate) fn take_counts(&self) -> Counts {
        self.notices.take(self.live.lock().unwrap_or_else(PoisonError::into_inner).len())
    }

    fn live(&self) -> Vec<SagaId> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    fn enter(&self, saga: &SagaId) -> Arc<Notify> {
        let poke = Arc::new(Notify::new());
        let entered = Live { poke: poke.clone(), row: None };
        self.live.lock().unwrap_or_else(PoisonError::into_inner).insert(saga.clone(), entered);
        poke
    }

    /// Enters a saga that is about to be started, unless so many are live, or it is: a start may be repeated.
    fn enter_new(&self, new: &NewSaga, most: usize) -> Option<Arc<Notify>> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if live.len() >= most.min(self.live_max) || live.contains_key(&new.id) {
            return None;
        }
        let poke = Arc::new(Notify::new());
        let entered = Live { poke: poke.clone(), row: Some(Arc::new(new.first_row())) };
        live.insert(new.id.clone(), entered);
        Some(poke)
    }

    /// Whether whoever listens to this is the one that drives it here.
    fn is_driven_by(&self, saga: &SagaId, poke: &Arc<Notify>) -> bool {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.get(saga).is_some_and(|known| Arc::ptr_eq(&known.poke, poke))
    }

    /// No longer drives it; unless it was claimed again meanwhile, and another does.
    fn leave(&self, saga: &SagaId, poke: &Arc<Notify>) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if live.get(saga).is_some_and(|known| Arc::ptr_eq(&known.poke, poke)) {
            live.remove(saga);
        }
    }
}

/// Runs sagas until the engine drains.
pub(crate) async fn run(shared: Arc<Shared>) {
    // In a set, so that they end with this.
    let mut keepers = JoinSet::new();
    keepers.spawn(kept(shared.clone(), "the lease", |shared| keep_lease(shared).boxed()));
    let looks = shared.looks_here.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(looks) = looks {
        let looks = Arc::new(tokio::sync::Mutex::new(looks));
        keepers.spawn(kept(shared.clone(), "the reader for those who wait", move |shared| {
            let looks = looks.clone();
            async move { waiting::keep(shared, &mut *looks.lock().await).await }.boxed()
        }));
    }
    if let Err(error) = gates::look(&shared).await {
        tracing::warn!(%error, "closed gates could not be read");
    }
    keepers.spawn(kept(shared.clone(), "the keeper of gates", |shared| gates::keep(shared).boxed()));
    if let Some(sweep) = shared.registry.sweeps() {
        for provider in shared.registry.providers().iter() {
            let (provider, sweep) = (provider.clone(), sweep.clone());
            keepers.spawn(kept(shared.clone(), "a sweep", move |shared| {
                crate::sweep::keep(shared, provider.clone(), sweep.clone()).boxed()
            }));
        }
    }
    let handed = shared.handed_here.lock().unwrap_or_else(PoisonError::into_inner).take();
    // There is one worker in each engine.
    let Some(mut handed) = handed else { return };
    let mut driven = JoinSet::new();
    while !shared.is_draining() {
        let room = shared.live_max.saturating_sub(driven.len()).min(CLAIM);
        let claimed = match shared.noted(shared.store.claim(shared.env.now(), room).await) {
            Ok(claimed) => claimed,
            Err(error) => {
                tracing::debug!(%error, "due sagas could not be claimed");
                shared.unsure.store(true, Ordering::Relaxed);
                // A store that cannot just now is not asked in a circle.
                shared.env.sleep(RELOAD).await;
                Vec::new()
            }
        };
        shared.crowded.send_if_modified(|crowded| std::mem::replace(crowded, room == 0) != (room == 0));
        let took_all = claimed.len() < room || room == 0;
        // Known as live before they are read, so that a letter that comes meanwhile is looked for.
        let pokes: Vec<Arc<Notify>> = claimed.iter().map(|saga| shared.enter(saga)).collect();
        let loaded = if claimed.is_empty() { Vec::new() } else { shared.store.load_all(&claimed).await };
        for ((saga, poke), loaded) in claimed.into_iter().zip(pokes).zip(loaded) {
            driven.spawn(drive(shared.clone(), saga, poke, loaded));
        }
        // What is held and not driven, since the answer of a claim or a release was lost, is given back.
        if shared.unsure.swap(false, Ordering::Relaxed) {
            let _alone = shared.starting.write().await;
            if shared.store.keep_only(&shared.live()).await.is_err() {
                shared.unsure.store(true, Ordering::Relaxed);
            }
        }
        // What another process left for the sagas that are held here.
        match shared.store.mail().await {
            Ok(sagas) => {
                shared.trouble.went_well(NO_MAIL);
                sagas.iter().for_each(|saga| shared.poke(saga));
            }
            Err(error) => shared.trouble.failed(NO_MAIL, error.to_string(), &shared.env),
        }
        let mut changed = if took_all { shared.store.changed() } else { Box::pin(std::future::ready(())) };
        loop {
            while driven.try_join_next().is_some() {}
            tokio::select! {
                biased;
                () = shared.draining() => break,
                Some(Handed { saga, poke, loaded }) = handed.recv() => {
                    driven.spawn(drive(shared.clone(), saga, poke, Ok(loaded)));
                }
                () = &mut changed => break,
            }
        }
    }
    handed.close();
    while let Some(Handed { saga, poke, loaded }) = handed.recv().await {
        driven.spawn(drive(shared.clone(), saga, poke, Ok(loaded)));
    }
    while driven.join_next().await.is_some() {}
    keepers.shutdown().await;
    gates::give_back_all(&shared).await;
}

/// How long behind its panic a keeper begins again.
const BEGIN_AGAIN: Duration = Duration::from_secs(1);

/// Runs a part of the worker that ends with it, and begins it again should it panic: without it nothing would be
/// driven, let go or looked for, and nobody would know.
async fn kept(
    shared: Arc<Shared>,
    what: &'static str,
    keep: impl Fn(Arc<Shared>) -> BoxFuture<'static, ()> + Send,
) {
    while std::panic::AssertUnwindSafe(keep(shared.clone())).catch_unwind().await.is_err() {
        tracing::error!(what, "a part of the worker panicked and begins again");
        shared.env.sleep(BEGIN_AGAIN).await;
    }
}

/// Renews the right to write to what this process holds. When that cannot be done in time, whatever it still writes
/// is refused, and what it holds is taken up again like any other saga.
async fn keep_lease(shared: Arc<Shared>) {
    loop {
        match shared.noted(shared.store.renew().await) {
            Ok(None) => return,
            Ok(Some(_)) => {}
            Err(error) => tracing::debug!(%error, "the lease could not be renewed"),
        }
        shared.env.sleep(RENEW).await;
    }
}

/// Lists have to show it: its row is written until that has got through.
async fn say_unreadable(shared: &Shared, saga: &SagaId, detail: &str) {
    while let Err(error) = shared.store.mark_unreadable(saga, detail).await {
        tracing::warn!(%saga, %error, "that its journal is unreadable could not be written");
        if shared.is_draining() || !matches!(error, Error::Unavailable(_)) {
            return;
        }
        shared.env.sleep(Duration::from_secs(1)).await;
    }
}

/// How often a saga is loaded again without getting on before it is parked.
const FAILURES_MAX: u32 = 20;

/// How soon a journal that could not be read is read again; and after how many times its row says so, and it is read
/// that much less often.
const UNREAD: Duration = Duration::from_secs(1);
const UNREAD_MAX: u32 = 30;

/// How often in a row a saga failed where its journal ends.
#[derive(Default)]
struct Failures {
    seq: usize,
    count: u32,
}

impl Failures {
    /// Counts one more; with the last one, what the saga is parked for.
    fn again(&mut self, seq: usize, detail: String) -> Option<Refused> {
        if self.seq != seq {
            *self = Self { seq, count: 0 };
        }
        self.count += 1;
        if self.count < FAILURES_MAX {
            return None;
        }
        self.count = 0;
        let detail = format!("it was taken up {FAILURES_MAX} times and did not get on: {detail}");
        Some(Refused { detail, acts: Vec::new(), letters: Vec::new() })
    }
}

async fn drive(shared: Arc<Shared>, saga: SagaId, poke: Arc<Notify>, loaded: Result<Loaded, Error>) {
    let mut loaded = Some(loaded);
    let mut withheld = HashSet::new();
    let mut failures = Failures::default();
    let mut unread = 0;
    loop {
        // Its lease ran out and this process took it up again: that one has it now, and gives it back.
        if !shared.is_driven_by(&saga, &poke) {
            return;
        }
        let loaded = match loaded.take() {
            Some(loaded) => loaded,
            None => shared.store.load(&saga).await,
        };
        let seq = loaded.as_ref().map_or(0, |loaded| loaded.entries.len());
        match loaded.and_then(|loaded| Executor::new(shared.clone(), saga.clone(), loaded, withheld.clone()))
        {
            Ok(executor) => {
                unread = 0;
                let driven = std::panic::AssertUnwindSafe(executor.drive(&poke)).catch_unwind().await;
                let stop = driven.unwrap_or_else(|_| {
                    // A fault of the engine's own: the saga is taken up again from its journal.
                    tracing::error!(%saga, "the saga's executor panicked, reloading");
                    Stop::Failed("its executor panicked".to_owned())
                });
                let refused = match stop {
                    Stop::Rest => break,
                    Stop::Reload => None,
                    Stop::Failed(detail) => failures.again(seq, detail),
                    Stop::Refused(refused) => Some(refused),
                };
                if let Some(refused) = refused {
                    withheld.extend(refused.letters.iter().cloned());
                    match executor::park(&shared, &saga, &refused).await {
                        Ok(()) => continue,
                        Err(error) if error.is_permanent() => {
                            tracing::error!(%saga, %error, "the saga cannot be parked and is left alone");
                            say_unreadable(&shared, &saga, &error.to_string()).await;
                            shared.leave(&saga, &poke);
                            return;
                        }
                        Err(error) => {
                            tracing::warn!(%saga, %error, "the saga could not be parked, reloading")
                        }
                    }
                }
                if shared.is_draining() {
                    break;
                }
                // Whatever made it necessary to load again is given time to pass.
                shared.env.sleep(RELOAD).await;
            }
            Err(Error::Unavailable(detail)) => {
                if unread == 0 {
                    tracing::warn!(%saga, detail, "the journal could not be read, trying again");
                }
                if shared.is_draining() {
                    break;
                }
                unread += 1;
                // A store that is away for so long cannot take this either, and says so by itself.
                if unread >= UNREAD_MAX
                    && let Err(error) = shared.store.mark_unreadable(&saga, &detail).await
                {
                    tracing::debug!(%saga, %error, "that its journal is unreadable could not be written");
                }
                let wait = if unread < UNREAD_MAX { UNREAD } else { UNREAD * UNREAD_MAX };
                tokio::select! {
                    () = shared.draining() => {}
                    () = shared.env.sleep(wait) => {}
                }
            }
            // Another has it now.
            Err(Error::Fenced(_)) => break,
            Err(error) => {
                tracing::error!(%saga, %error, "the saga cannot be loaded");
                if matches!(error, Error::Unreadable(_)) {
                    say_unreadable(&shared, &saga, &error.to_string()).await;
                }
                // It stays held, so that it is not tried in a circle; a restart tries it again.
                shared.leave(&saga, &poke);
                return;
            }
        }
    }
    if !shared.is_driven_by(&saga, &poke) {
        return;
    }
    let released = shared.store.release(&saga).await;
    shared.leave(&saga, &poke);
    if let Err(error) = released {
        tracing::warn!(%saga, %error, "a saga could not be given back, and is so later");
        shared.unsure.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::store::memory::MemoryStore;

    #[tokio::test(start_paused = true)]
    async fn a_part_of_the_worker_that_panics_begins_again() {
        let env = Env::simulated(1);
        let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
        let (registry, environment) = (Registry::default(), "test".to_owned());
        let shared = Arc::new(Shared::new(Arc::new(store), registry, env.clone(), environment, vault, 1));
        let (begun, began) = (Arc::new(AtomicU32::new(0)), env.now());
        let counted = begun.clone();
        kept(shared, "a test", move |_| {
            let begun = counted.clone();
            async move {
                if begun.fetch_add(1, Ordering::Relaxed) < 2 {
                    // As a panic, without its noise.
                    std::panic::resume_unwind(Box::new(()));
                }
            }
            .boxed()
        })
        .await;
        assert_eq!(begun.load(Ordering::Relaxed), 3);
        assert_eq!(env.now().since(began), BEGIN_AGAIN * 2);
    }
}

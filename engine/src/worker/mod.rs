//! The worker: finds due sagas, takes their lease, drives them, hands them back, drains.

mod decide;
mod executor;
mod gates;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::activity::Registry;
use crate::activity::call::Outside;
use crate::env::Env;
use crate::ids::SagaId;
use crate::store::{Error, Store};
use executor::{Executor, Stop};
use gates::Gates;

/// How many sagas one claim takes.
const CLAIM: usize = 64;
/// How many sagas are driven at a time.
const LIVE_MAX: usize = 4096;

/// What every executor of one engine shares.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) registry: Registry,
    pub(crate) env: Env,
    pub(crate) environment: String,
    pub(crate) outside: Arc<Outside>,
    pub(crate) gates: Gates,
    live: Mutex<HashMap<SagaId, Arc<Notify>>>,
    watched: Mutex<HashMap<SagaId, Arc<Notify>>>,
    draining: watch::Sender<bool>,
}

impl Shared {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        registry: Registry,
        env: Env,
        environment: String,
        vault: crate::secret::Vault,
    ) -> Self {
        let outside = Arc::new(Outside { env: env.clone(), vault, store: store.clone() });
        Self {
            store,
            registry,
            env,
            environment,
            outside,
            gates: Gates::default(),
            live: Mutex::default(),
            watched: Mutex::default(),
            draining: watch::Sender::new(false),
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    pub(crate) async fn draining(&self) {
        // The sender lives as long as this, so waiting cannot fail.
        let _ = self.draining.subscribe().wait_for(|draining| *draining).await;
    }

    pub(crate) fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Tells the executor of a live saga that it has a letter.
    pub(crate) fn poke(&self, saga: &SagaId) {
        if let Some(poke) = self.live.lock().unwrap_or_else(PoisonError::into_inner).get(saga) {
            poke.notify_one();
        }
    }

    /// Something that is told when the saga's row is written again, by this process.
    pub(crate) fn watch(&self, saga: &SagaId) -> Arc<Notify> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        // Those nobody waits on any more are swept when a new one comes.
        watched.retain(|_, watch| Arc::strong_count(watch) > 1);
        watched.entry(saga.clone()).or_default().clone()
    }

    /// Tells those who watch the saga that its row was written.
    pub(crate) fn written(&self, saga: &SagaId) {
        if let Some(watch) = self.watched.lock().unwrap_or_else(PoisonError::into_inner).get(saga) {
            watch.notify_waiters();
        }
    }

    fn enter(&self, saga: &SagaId) -> Arc<Notify> {
        let poke = Arc::new(Notify::new());
        self.live.lock().unwrap_or_else(PoisonError::into_inner).insert(saga.clone(), poke.clone());
        poke
    }

    fn leave(&self, saga: &SagaId) {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).remove(saga);
    }
}

/// Runs sagas until the engine drains.
pub(crate) async fn run(shared: Arc<Shared>) {
    match shared.store.gates(shared.env.now()).await {
        Ok(rows) => shared.gates.load(rows),
        Err(error) => tracing::warn!(%error, "closed gates could not be read"),
    }
    let mut driven = JoinSet::new();
    while !shared.is_draining() {
        let room = LIVE_MAX.saturating_sub(driven.len()).min(CLAIM);
        let claimed = match shared.store.claim(shared.env.now(), room).await {
            Ok(claimed) => claimed,
            Err(error) => {
                tracing::warn!(%error, "due sagas could not be claimed");
                Vec::new()
            }
        };
        let took_all = claimed.len() < room;
        for saga in claimed {
            let shared = shared.clone();
            driven.spawn(async move { drive(shared, saga).await });
        }
        while driven.try_join_next().is_some() {}
        if took_all {
            tokio::select! {
                () = shared.store.changed() => {}
                () = shared.draining() => {}
            }
        }
    }
    while driven.join_next().await.is_some() {}
}

async fn drive(shared: Arc<Shared>, saga: SagaId) {
    let poke = shared.enter(&saga);
    loop {
        match Executor::load(shared.clone(), saga.clone()).await {
            Ok(executor) => {
                if executor.drive(&poke).await == Stop::Rest || shared.is_draining() {
                    break;
                }
            }
            Err(Error::Unavailable(detail)) => {
                tracing::warn!(%saga, detail, "the journal could not be read, trying again");
                if shared.is_draining() {
                    break;
                }
                shared.env.sleep(Duration::from_secs(1)).await;
            }
            Err(error) => {
                tracing::error!(%saga, %error, "the saga cannot be loaded");
                // It stays held, so that it is not tried in a circle; a restart tries it again.
                shared.leave(&saga);
                return;
            }
        }
    }
    shared.leave(&saga);
    shared.store.release(&saga).await;
}

//! Starting: a new saga that may begin at once is driven where it was started, without being claimed and read first.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::Notify;

use super::Shared;
use crate::ids::SagaId;
use crate::store::{Error, Loaded, NewSaga, Started};

/// With fewer sagas in memory than this, a new one stays here; with more, whichever process has room takes it.
const HERE_MAX: usize = 512;

/// A saga that was started here and is held.
pub(super) struct Handed {
    pub(super) saga: SagaId,
    pub(super) poke: Arc<Notify>,
    pub(super) loaded: Loaded,
}

/// Starts a saga, and hands it to this process's worker if that has room.
pub(crate) async fn start(shared: &Arc<Shared>, new: NewSaga) -> Result<Started, Error> {
    if !new.begins_at_once() || shared.is_draining() {
        return shared.noted(shared.store.start(new).await);
    }
    // In a task of its own, so that it goes on when whoever asked does not: what is held here has to be driven.
    tokio::spawn(start_here(shared.clone(), new)).await.unwrap_or(Err(Error::Closed))
}

async fn start_here(shared: Arc<Shared>, new: NewSaga) -> Result<Started, Error> {
    // Nothing is given back as left behind until it is known whether this one is held and driven.
    let _starting = shared.starting.read().await;
    let Some(poke) = shared.enter_new(&new, HERE_MAX) else {
        return shared.noted(shared.store.start(new).await);
    };
    let saga = new.id.clone();
    let loaded = Loaded { epoch: 1, entries: vec![new.first_entry()], may_begin: true, has_mail: false };
    match shared.noted(shared.store.start_held(new).await) {
        Ok((started, true)) => {
            // If the worker has gone meanwhile, whoever takes over what it held takes over this one too.
            let _ = shared.handed.send(Handed { saga, poke, loaded });
            Ok(started)
        }
        other => {
            shared.leave(&saga, &poke);
            if matches!(other, Err(Error::Unavailable(_))) {
                // It may be held all the same.
                shared.unsure.store(true, Ordering::Relaxed);
            }
            other.map(|(started, _)| started)
        }
    }
}

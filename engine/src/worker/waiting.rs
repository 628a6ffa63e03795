//! Waiting: those in this process who wait for sagas share one task that reads for them.
//!
//! What is written here is told at once, without a read. What is driven elsewhere is looked for every so often, many rows
//! at a time; whoever comes, or whose time is up, is read for with all who came while the read before was under way.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::Shared;
use crate::env::Timestamp;
use crate::ids::SagaId;
use crate::store::{Append, Error, SagaRow};

/// How late somebody who waits may learn of what another process wrote.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Each so many looks those are looked for too that are driven here: this process may have lost them unawares.
const ALL_EVERY: u32 = 20;
/// How many rows are read at a time.
const BATCH: usize = 500;

/// What there is to be known of a saga that somebody waits for.
#[derive(Clone)]
pub(super) enum Seen {
    /// This process wrote it; with the whole of its row if that is known here.
    Written(Arc<Append>, Option<Arc<SagaRow>>),
    /// It was read; nothing if there is no such saga.
    Read(Option<Arc<SagaRow>>),
}

/// Somebody who needs a row now.
pub(super) struct Look {
    saga: SagaId,
    reply: oneshot::Sender<Result<Option<Arc<SagaRow>>, Error>>,
}

/// Somebody who waits for what is written of a saga.
pub(crate) struct Watch {
    shared: Arc<Shared>,
    saga: SagaId,
    seen: watch::Receiver<Option<Seen>>,
}

impl Watch {
    /// Returns when there is a row that is as it is waited for; the whole of it, if that is known here.
    pub(crate) async fn until(&mut self, is_over: impl Fn(&SagaRow) -> bool) -> Option<Arc<SagaRow>> {
        while self.seen.changed().await.is_ok() {
            match &*self.seen.borrow_and_update() {
                Some(Seen::Written(append, row)) if is_over(&append.row) => return row.clone(),
                Some(Seen::Read(Some(row))) if is_over(row) => return Some(row.clone()),
                Some(Seen::Read(None)) => return None,
                _ => {}
            }
        }
        None
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = self.shared.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.get(&self.saga).is_some_and(|watch| watch.receiver_count() <= 1) {
            watched.remove(&self.saga);
        }
    }
}

impl Shared {
    /// What becomes known of a saga from now on.
    pub(crate) fn watch(self: &Arc<Self>, saga: &SagaId) -> Watch {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.is_empty() {
            self.somebody_waits.notify_one();
        }
        let seen = watched.entry(saga.clone()).or_default().subscribe();
        Watch { shared: self.clone(), saga: saga.clone(), seen }
    }

    /// A saga's row as it is now, read together with what others ask for.
    pub(crate) async fn look(&self, saga: &SagaId) -> Result<Option<Arc<SagaRow>>, Error> {
        let (reply, answer) = oneshot::channel();
        if self.looks.send(Look { saga: saga.clone(), reply }).is_ok()
            && let Ok(row) = answer.await
        {
            return row;
        }
        // The worker has ended, and reads for nobody any more.
        Ok(self.store.saga(saga).await?.map(Arc::new))
    }

    /// Tells those who wait for a saga what was written of it here.
    pub(super) fn tell_written(&self, append: &Arc<Append>, row: Option<Arc<SagaRow>>) {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watch) = watched.get(&append.row.id) {
            watch.send_replace(Some(Seen::Written(append.clone(), row)));
        }
    }

    /// Tells them what was read, unless they know.
    fn tell_read(&self, saga: &SagaId, row: Option<SagaRow>) {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(watch) = watched.get(saga) else { return };
        watch.send_if_modified(|seen| {
            let is_known = match seen {
                Some(Seen::Read(known)) => known.as_deref() == row.as_ref(),
                Some(Seen::Written(append, _)) => row.as_ref().is_some_and(|row| row.seq <= append.row.seq),
                None => false,
            };
            if !is_known {
                *seen = Some(Seen::Read(row.map(Arc::new)));
            }
            !is_known
        });
    }

    /// The sagas that somebody waits for: those that are driven elsewhere, or all.
    fn waited_for(&self, all: bool) -> Vec<SagaId> {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let sagas: Vec<SagaId> = watched.keys().cloned().collect();
        drop(watched);
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        sagas.into_iter().filter(|saga| all || !live.contains_key(saga)).collect()
    }

    fn is_anybody_waiting(&self) -> bool {
        !self.watched.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

/// Reads for those who wait, for as long as the worker is there.
pub(super) async fn keep(shared: Arc<Shared>, looks: &mut mpsc::UnboundedReceiver<Look>) {
    let mut next = shared.env.now();
    let mut round = 0_u32;
    let mut asked = Vec::new();
    loop {
        let wait = next.since(shared.env.now());
        let is_anybody_waiting = shared.is_anybody_waiting();
        tokio::select! {
            biased;
            count = looks.recv_many(&mut asked, BATCH) => if count == 0 { return },
            // While nobody waits there is nothing to wake up for. Who begins to wait need not have asked for a row: what
            // is driven here is known, until another process takes it over.
            () = shared.somebody_waits.notified(), if !is_anybody_waiting => {}
            () = shared.env.sleep(wait), if is_anybody_waiting => {}
        }
        if !asked.is_empty() {
            answer(&shared, std::mem::take(&mut asked)).await;
        }
        let now: Timestamp = shared.env.now();
        if next <= now {
            round = round.wrapping_add(1);
            look_again(&shared, round.is_multiple_of(ALL_EVERY)).await;
            next = shared.env.now().plus(LOOK_AGAIN);
        }
    }
}

async fn answer(shared: &Shared, asked: Vec<Look>) {
    let sagas: HashSet<SagaId> = asked.iter().map(|look| look.saga.clone()).collect();
    let sagas: Vec<SagaId> = sagas.into_iter().collect();
    match shared.store.rows(&sagas).await {
        Ok(rows) => {
            let rows: std::collections::HashMap<SagaId, Option<Arc<SagaRow>>> =
                sagas.into_iter().zip(rows.into_iter().map(|row| row.map(Arc::new))).collect();
            for Look { saga, reply } in asked {
                let _ = reply.send(Ok(rows.get(&saga).cloned().flatten()));
            }
        }
        Err(error) => asked.into_iter().for_each(|look| drop(look.reply.send(Err(error.clone())))),
    }
}

async fn look_again(shared: &Shared, all: bool) {
    for sagas in shared.waited_for(all).chunks(BATCH) {
        match shared.store.rows(sagas).await {
            Ok(rows) => sagas.iter().zip(rows).for_each(|(saga, row)| shared.tell_read(saga, row)),
            // They wait on; at the end of their time they are told.
            Err(error) => return tracing::debug!(%error, "those who wait are looked for again later"),
        }
    }
}

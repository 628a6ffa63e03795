//! The writer: one thread that writes for everyone, in groups.
//!
//! It takes whatever waits, writes it in one transaction, and only then lets those who wait go on. There is no
//! timer: a single turn is written at once, and the more wait, the larger the group. If a group fails, each
//! member is written by itself, so that one that cannot be written does not hold up the others.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::Woken;
use super::error::write_error;
use super::gates;
use super::lock::Lock;
use super::statements::SqliteStatements;
use super::write::{self, Bound};
use crate::ids::SagaId;
use crate::journal::failure::{Cause, Failure};
use crate::store::tx::overdue;
use crate::store::{Append, Error, GateMove, Job, Letter, Loose, LooseJob, NewSaga, Started, limits};

/// The largest group.
const GROUP: usize = 512;

/// What is to be written.
pub(super) enum Ask {
    Start(Box<NewSaga>),
    /// Nobody has to be told of it: whoever asks drives it.
    StartHeld(Box<NewSaga>),
    Append(Bound),
    Post(Box<Letter>),
    MoveGate(Box<GateMove>),
    TakePlace(SagaId),
    Release(Vec<SagaId>),
    Transact(Bound, Job),
    Run(LooseJob),
}

/// What it came to, told once it is durable.
pub(super) enum Answer {
    Started(Started),
    Written,
    Placed(bool),
    Moved(bool),
    Appended(Box<Append>),
    Ran(Value, Vec<SagaId>),
}

/// Something to write, and who waits for it.
pub(super) struct Write {
    pub(super) ask: Ask,
    pub(super) reply: oneshot::Sender<Result<Answer, Error>>,
}

/// Writes for as long as anybody can ask. The lock is held until the last write is on disk.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) lock: Arc<Lock>,
    pub(super) woken: Arc<Woken>,
    /// What a local activity's future finds around it.
    pub(super) runtime: Handle,
    /// How long a local activity may take, since everybody waits for it.
    pub(super) limit: Duration,
}

impl Writer {
    pub(super) fn run(mut self, mut waiting: mpsc::Receiver<Write>) {
        let mut group = Vec::with_capacity(GROUP);
        while waiting.blocking_recv_many(&mut group, GROUP) > 0 {
            let (asks, replies): (Vec<Ask>, Vec<_>) =
                group.drain(..).map(|write| (write.ask, write.reply)).unzip();
            let (answers, wakes) = self.write_group(&asks);
            for (reply, answer) in replies.into_iter().zip(answers) {
                // Whoever has stopped waiting finds it in the database.
                let _ = reply.send(answer);
            }
            if wakes {
                self.woken.tell(&asks);
            }
        }
        // From here on it may be opened by another of its names.
        if let Err(error) = self.connection.execute("update installation set opened_as = null", []) {
            tracing::debug!(%error, "the database is found as after a crash");
        }
        if let Err((_, error)) = self.connection.close() {
            tracing::warn!(%error, "the database was not closed in order; its log will be replayed");
        }
        drop(self.lock);
    }

    fn write_group(&mut self, group: &[Ask]) -> (Vec<Result<Answer, Error>>, bool) {
        match self.write_together(group) {
            Ok(written) => written,
            Err(error) if group.len() <= 1 => (vec![Err(error)], false),
            Err(error) => {
                tracing::debug!(%error, members = group.len(), "a group failed and is written one by one");
                let mut wakes = false;
                let alone = |ask| match self.write_together(std::slice::from_ref(ask)) {
                    Ok((mut answers, woke)) => {
                        wakes |= woke;
                        answers.pop().unwrap_or(Err(Error::Closed))
                    }
                    Err(error) => Err(error),
                };
                (group.iter().map(alone).collect(), wakes)
            }
        }
    }

    /// One transaction; the error is that of the whole group, of which nothing stays.
    fn write_together(&mut self, group: &[Ask]) -> Result<(Vec<Result<Answer, Error>>, bool), Error> {
        self.execute("begin immediate")?;
        let mut wakes = false;
        let answers: Result<Vec<_>, Error> =
            group.iter().map(|ask| self.write_member(ask, &mut wakes)).collect();
        let written = answers.and_then(|answers| self.execute("commit").map(|()| (answers, wakes)));
        if written.is_err() {
            // SQLite has ended some failed transactions by itself, and says so here.
            if let Err(error) = self.execute("rollback") {
                tracing::debug!(%error, "nothing to roll back");
            }
        }
        written
    }

    /// The outer error is one of the whole group.
    fn write_member(&mut self, ask: &Ask, wakes: &mut bool) -> Result<Result<Answer, Error>, Error> {
        Ok(match ask {
            Ask::Start(new) => {
                *wakes = true;
                Ok(Answer::Started(write::start(&self.connection, new)?))
            }
            Ask::StartHeld(new) => Ok(Answer::Started(write::start(&self.connection, new)?)),
            Ask::Append(bound) => self.append(bound, wakes)?.map(|()| Answer::Written),
            Ask::Post(letter) => {
                *wakes = true;
                match write::post(&self.connection, letter)? {
                    true => Ok(Answer::Written),
                    false => Err(Error::NoSuchSaga(letter.saga.clone())),
                }
            }
            Ask::MoveGate(moved) => {
                let is_moved = gates::move_gate(&self.connection, moved)?;
                *wakes |= is_moved && !moved.letters.is_empty();
                Ok(Answer::Moved(is_moved))
            }
            Ask::TakePlace(saga) => Ok(Answer::Placed(write::take_place(&self.connection, saga)?)),
            Ask::Release(sagas) => {
                *wakes = true;
                sagas.iter().try_for_each(|saga| write::release(&self.connection, saga))?;
                Ok(Answer::Written)
            }
            Ask::Transact(turn, job) => match self.append(turn, wakes)? {
                Ok(()) => self.guarded(wakes, |writer, wakes| writer.transact(job, wakes))?,
                Err(objection) => Err(objection),
            },
            Ask::Run(job) => self.guarded(wakes, |writer, wakes| writer.run_loose(job, wakes))?,
        })
    }

    fn append(&self, bound: &Bound, wakes: &mut bool) -> Result<Result<(), Error>, Error> {
        Ok(write::append(&self.connection, bound)?.map(|woke| *wakes |= woke))
    }

    /// Runs a member's own SQL so that its failure undoes that SQL alone.
    fn guarded(
        &mut self,
        wakes: &mut bool,
        member: impl FnOnce(&mut Self, &mut bool) -> Result<Answer, Error>,
    ) -> Result<Result<Answer, Error>, Error> {
        self.execute("savepoint member")?;
        let outcome = catch_unwind(AssertUnwindSafe(|| member(self, wakes))).unwrap_or_else(|_| {
            let detail = "the local activity panicked".to_owned();
            Err(Failure::Unavailable { cause: Cause::Panic, detail, retry_after: None }.into())
        });
        if outcome.is_err() {
            self.execute("rollback to member")?;
        }
        self.execute("release member")?;
        Ok(outcome)
    }

    fn transact(&mut self, job: &Job, wakes: &mut bool) -> Result<Answer, Error> {
        let statements = &mut SqliteStatements(&mut self.connection);
        let append = Arc::new(in_time(&self.runtime, self.limit, job(statements))?);
        limits::append(&append)?;
        let bound = Bound::new(append)?;
        self.append(&bound, wakes)??;
        Ok(Answer::Appended(Box::new(Arc::unwrap_or_clone(bound.append))))
    }

    fn run_loose(&mut self, job: &LooseJob, wakes: &mut bool) -> Result<Answer, Error> {
        let loose = in_time(&self.runtime, self.limit, job(&mut SqliteStatements(&mut self.connection)))?;
        limits::loose(&loose)?;
        let Loose { output, beside, letters } = loose;
        *wakes |= !beside.starts.is_empty() || !letters.is_empty();
        let connection = &self.connection;
        for new in &beside.starts {
            write::start(connection, new)?;
        }
        // What came with a request belongs to the saga that the request started.
        let owner = beside.starts.first().map_or(String::new(), |saga| saga.id.to_string());
        beside.sealed.iter().try_for_each(|sealed| write::keep_secret(connection, &owner, sealed))?;
        beside.destroyed.iter().try_for_each(|owner| write::destroy_secrets(connection, owner))?;
        for letter in &letters {
            write::post(connection, letter)?;
        }
        Ok(Answer::Ran(output, letters.into_iter().map(|letter| letter.saga).collect()))
    }

    fn execute(&self, sql: &str) -> Result<(), Error> {
        let mut statement = self.connection.prepare_cached(sql).map_err(write_error)?;
        statement.execute([]).map(drop).map_err(write_error)
    }
}

/// Wakes the thread that waits for a future.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a local activity on this thread, and no longer than that, whatever it waits for: a timer of the runtime
/// would be no help, as it may be one that a test has paused. What it waits for is the runtime's.
#[allow(clippy::disallowed_methods, reason = "it bounds how long this thread stands still")]
fn in_time<T>(
    runtime: &Handle,
    limit: Duration,
    job: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let _inside = runtime.enter();
    let (mut job, began) = (pin!(job), Instant::now());
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        if let Poll::Ready(done) = job.as_mut().poll(&mut Context::from_waker(&waker)) {
            return done;
        }
        let left = limit.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Err(overdue(limit));
        }
        thread::park_timeout(left);
    }
}

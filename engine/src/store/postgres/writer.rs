//! The writer: a task that takes what waits, and writes it in one transaction on a connection of its own.
//!
//! There are two: one for turns, one for starts and letters, so that those who ask for something new do not wait behind
//! those who go on. There is no timer: what waits while a group is written is the next group.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{Executor, PgConnection};
use tokio::sync::{mpsc, oneshot};
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::again::{self, once_more};
use super::connection::Connection;
use super::error::{Remedy, is_moved_ledger, remedy, write_error};
use super::reach::{BEGIN, Reach};
use super::write::{self, Wrote};
use super::{Signals, beside, place, start};
use crate::env::Env;
use crate::store::{Append, Error, Letter, NewSaga, Started};

/// The largest group.
const GROUP: usize = 256;
/// After this a server that does not answer counts as gone; whether the group was written is not known then.
const PATIENCE: Duration = Duration::from_secs(30);

/// A turn to be written, and who waits for it.
pub(super) struct Turn {
    pub(super) append: Arc<Append>,
    pub(super) reply: oneshot::Sender<Result<(), Error>>,
}

/// Something from outside, and who waits for it.
pub(super) enum Outside {
    /// A saga to start, the worker that is to hold it, and who waits for whether it does.
    Start(Box<NewSaga>, Option<String>, oneshot::Sender<Result<(Started, bool), Error>>),
    Post(Box<Letter>, oneshot::Sender<Result<(), Error>>),
}

/// The connection of one writer.
struct Line {
    reach: Reach,
    env: Env,
    connection: Connection,
}

impl Line {
    fn new(reach: Reach, env: Env) -> Self {
        Self { connection: Connection::new(&reach), reach, env }
    }

    /// What one try came to; nothing if it lost against another transaction and is to be made again.
    async fn verdict<T>(
        &self,
        tried: Result<Result<T, sqlx::Error>, Elapsed>,
        times: &mut u32,
    ) -> Option<Result<T, sqlx::Error>> {
        let tried = tried.unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())));
        let Err(error) = tried else { return Some(tried) };
        let is_lost = remedy(&error) == Remedy::Again;
        if is_lost && once_more(&self.env, times, &error.to_string()).await { None } else { Some(Err(error)) }
    }
}

/// Writes turns until nobody can ask any more.
pub(super) async fn turns(reach: Reach, env: Env, mut waiting: mpsc::Receiver<Turn>, signals: Signals) {
    let mut line = Line::new(reach, env);
    let mut group = Vec::with_capacity(GROUP);
    let mut later = Vec::new();
    loop {
        group.append(&mut later);
        if group.is_empty() && waiting.recv_many(&mut group, GROUP).await == 0 {
            break;
        }
        // A saga's turns follow each other: only the first of two that are here is of this group.
        let mut sagas = HashSet::new();
        let (now, rest): (Vec<Turn>, Vec<Turn>) =
            group.drain(..).partition(|turn| sagas.insert(turn.append.row.id.clone()));
        later = rest;
        write_turns(&mut line, now, &signals).await;
    }
    line.connection.close().await;
}

async fn write_turns(line: &mut Line, group: Vec<Turn>, signals: &Signals) {
    let appends: Vec<Arc<Append>> = group.iter().map(|turn| turn.append.clone()).collect();
    let mut times = 0;
    let done = loop {
        let reach = line.reach.clone();
        let tried =
            timeout(PATIENCE, line.connection.run(async |it| write_group(&reach, it, &appends).await)).await;
        if let Some(done) = line.verdict(tried, &mut times).await {
            break done;
        }
    };
    match done {
        Ok(wrote) => {
            for (turn, wrote) in group.into_iter().zip(wrote) {
                let saga = turn.append.row.id.clone();
                match wrote {
                    Wrote::Done(None) => {
                        signals.written(&turn.append);
                        let _ = turn.reply.send(Ok(()));
                    }
                    Wrote::Fenced => drop(turn.reply.send(Err(Error::Fenced(saga)))),
                    // Whoever waits for a row, or for a key's places, does so by itself.
                    Wrote::Done(Some(key)) => {
                        spawn_fill(line, turn, key, signals.clone());
                    }
                    Wrote::Locked => spawn_alone(line, turn, signals.clone()),
                }
            }
        }
        Err(error) if is_moved_ledger(&error) && group.len() == 1 => {
            for turn in group {
                let _ = turn.reply.send(Err(Error::LedgerMoved(turn.append.row.id.clone())));
            }
        }
        // Something about one of them: each by itself, so that it does not hold up the others.
        Err(error) if group.len() > 1 && remedy(&error) == Remedy::Never => {
            tracing::debug!(%error, members = group.len(), "a group failed and is written one by one");
            for turn in group {
                Box::pin(write_turns(line, vec![turn], signals)).await;
            }
        }
        Err(error) => {
            let error = write_error(error);
            group.into_iter().for_each(|turn| drop(turn.reply.send(Err(error.clone()))));
        }
    }
}

async fn write_group(
    reach: &Reach,
    connection: &mut PgConnection,
    appends: &[Arc<Append>],
) -> Result<Vec<Wrote>, sqlx::Error> {
    let appends: Vec<&Append> = appends.iter().map(AsRef::as_ref).collect();
    let has_more = appends.iter().any(|append| write::has_more(append));
    // One statement is a transaction by itself, in one exchange with the server.
    if !has_more && !reach.is_pooled {
        return write::turns(reach, connection, &appends, false).await;
    }
    connection.execute(BEGIN).await?;
    let wrote = write::turns(reach, connection, &appends, false).await?;
    if has_more {
        let written = appends.iter().zip(&wrote).filter(|(_, wrote)| matches!(wrote, Wrote::Done(_)));
        let written: Vec<&Append> = written.map(|(append, _)| *append).collect();
        // A key that was taken meanwhile: whoever it was writes alone, and hears of it there.
        if beside::write(reach, connection, &written).await?.is_err() {
            connection.execute("rollback").await?;
            return Ok(vec![Wrote::Locked; appends.len()]);
        }
    }
    connection.execute("commit").await?;
    Ok(wrote)
}

/// Writes one turn on another connection, waiting for whoever has its row.
fn spawn_alone(line: &Line, turn: Turn, signals: Signals) {
    let (reach, env) = (line.reach.clone(), line.env.clone());
    tokio::spawn(async move {
        let written = super::transaction::alone(&reach, &env, &turn.append).await;
        if let Ok(place) = &written {
            signals.written(&turn.append);
            fill(&reach, &env, place.as_deref(), &signals).await;
        }
        let _ = turn.reply.send(written.map(drop));
    });
}

fn spawn_fill(line: &Line, turn: Turn, key: String, signals: Signals) {
    let (reach, env) = (line.reach.clone(), line.env.clone());
    tokio::spawn(async move {
        signals.written(&turn.append);
        fill(&reach, &env, Some(&key), &signals).await;
        let _ = turn.reply.send(Ok(()));
    });
}

/// Passes on a place that an end has freed. Should this not happen, the housekeeping does it.
pub(super) async fn fill(reach: &Reach, env: &Env, key: Option<&str>, signals: &Signals) {
    let Some(key) = key else { return };
    match again::write(env, || place::fill(reach, key, env.now().0)).await {
        Ok(0) => {}
        Ok(_) => signals.something_is_due(),
        Err(error) => tracing::debug!(%error, key, "a free place is passed on later"),
    }
}

/// Writes starts and letters until nobody can ask any more.
pub(super) async fn outside(reach: Reach, env: Env, mut waiting: mpsc::Receiver<Outside>, signals: Signals) {
    let mut line = Line::new(reach, env);
    let mut group = Vec::with_capacity(GROUP);
    while waiting.recv_many(&mut group, GROUP).await > 0 {
        write_outside(&mut line, std::mem::take(&mut group), &signals).await;
    }
    line.connection.close().await;
}

async fn write_outside(line: &mut Line, group: Vec<Outside>, signals: &Signals) {
    let (mut starts, mut letters) = (Vec::new(), Vec::new());
    for asked in &group {
        match asked {
            Outside::Start(new, holder, _) => starts.push((&**new, holder.as_deref())),
            Outside::Post(letter, _) => letters.push(&**letter),
        }
    }
    let mut times = 0;
    let done = loop {
        let reach = line.reach.clone();
        let write = async |connection: &mut PgConnection| {
            // One statement is a transaction by itself, in one exchange with the server.
            if letters.is_empty() && !reach.is_pooled && !starts.iter().any(|(new, _)| start::has_more(new)) {
                return Ok((start::start(&reach, connection, &starts).await?, HashSet::new()));
            }
            connection.execute(BEGIN).await?;
            let started = start::start(&reach, connection, &starts).await?;
            let known = beside::post(&reach, connection, &letters).await?;
            connection.execute("commit").await?;
            Ok((started, known))
        };
        let tried = timeout(PATIENCE, line.connection.run(write)).await;
        if let Some(done) = line.verdict(tried, &mut times).await {
            break done;
        }
    };
    match done {
        Ok((started, known)) => {
            // What is held at once nobody has to be told of.
            let is_due = !letters.is_empty() || started.iter().any(|(_, is_held)| !is_held);
            if is_due {
                signals.something_is_due()
            } else {
                signals.unnumbered.notify_one()
            }
            let mut started = started.into_iter();
            for asked in group {
                match asked {
                    Outside::Start(_, _, reply) => {
                        let _ = reply.send(started.next().ok_or(Error::Closed));
                    }
                    Outside::Post(letter, reply) => {
                        let is_known = known.contains(letter.saga.as_str());
                        let _ =
                            reply.send(if is_known { Ok(()) } else { Err(Error::NoSuchSaga(letter.saga)) });
                    }
                }
            }
        }
        Err(error) if group.len() > 1 && remedy(&error) == Remedy::Never => {
            for asked in group {
                Box::pin(write_outside(line, vec![asked], signals)).await;
            }
        }
        Err(error) => {
            let error = write_error(error);
            for asked in group {
                match asked {
                    Outside::Start(_, _, reply) => drop(reply.send(Err(error.clone()))),
                    Outside::Post(_, reply) => drop(reply.send(Err(error.clone()))),
                }
            }
        }
    }
}

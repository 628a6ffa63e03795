//! The writer: one task that writes for everyone, in groups.
//!
//! It takes whatever waits, writes it in one transaction, and only then lets those who wait go on. There is no
//! timer: a single turn is written at once, and the more wait, the larger the group. If a group fails, each
//! member is written by itself, so that one that cannot be written does not hold up the others.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use serde_json::Value;
use sqlx::{Executor, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::statements::SqliteStatements;
use super::write;
use crate::ids::SagaId;
use crate::journal::failure::{Cause, Failure};
use crate::store::{Append, Error, Job, Letter, Loose, LooseJob, NewSaga, Started};

/// The largest group.
const GROUP: usize = 512;

/// What is to be written.
pub(super) enum Ask {
    Start(Box<NewSaga>),
    Append(Box<Append>),
    Post(Box<Letter>),
    TakePlace(SagaId),
    Transact(Job),
    Run(LooseJob),
}

/// What it came to, told once it is durable.
pub(super) enum Answer {
    Started(Started),
    Written,
    Placed(bool),
    Appended(Box<Append>),
    Ran(Value, Vec<SagaId>),
}

/// Something to write, and who waits for it.
pub(super) struct Write {
    pub(super) ask: Ask,
    pub(super) reply: oneshot::Sender<Result<Answer, Error>>,
}

/// Writes until nobody can ask any more.
pub(super) async fn run(
    mut connection: SqliteConnection,
    mut waiting: mpsc::Receiver<Write>,
    changed: impl Fn(),
) -> SqliteConnection {
    let mut group = Vec::with_capacity(GROUP);
    while waiting.recv_many(&mut group, GROUP).await > 0 {
        let (asks, replies): (Vec<Ask>, Vec<_>) =
            group.drain(..).map(|write| (write.ask, write.reply)).unzip();
        let answers = write_group(&mut connection, &asks).await;
        for (reply, answer) in replies.into_iter().zip(answers) {
            // Whoever has stopped waiting finds it in the database.
            let _ = reply.send(answer);
        }
        changed();
    }
    connection
}

async fn write_group(connection: &mut SqliteConnection, group: &[Ask]) -> Vec<Result<Answer, Error>> {
    match write_together(connection, group).await {
        Ok(answers) => answers,
        Err(error) if group.len() <= 1 => vec![Err(error)],
        Err(error) => {
            tracing::debug!(%error, members = group.len(), "a group failed and is written one by one");
            let mut answers = Vec::with_capacity(group.len());
            for ask in group {
                let alone = write_together(connection, std::slice::from_ref(ask)).await;
                answers
                    .push(alone.and_then(|answers| answers.into_iter().next().unwrap_or(Err(Error::Closed))));
            }
            answers
        }
    }
}

/// One transaction; the error is that of the whole group, of which nothing stays.
async fn write_together(
    connection: &mut SqliteConnection,
    group: &[Ask],
) -> Result<Vec<Result<Answer, Error>>, Error> {
    connection.execute("begin immediate").await.map_err(write::unavailable)?;
    let written = match write_members(connection, group).await {
        Ok(answers) => connection.execute("commit").await.map(|_| answers).map_err(write::unavailable),
        Err(error) => Err(error),
    };
    if written.is_err() {
        // SQLite has ended some failed transactions by itself, and says so here.
        if let Err(error) = connection.execute("rollback").await {
            tracing::debug!(%error, "nothing to roll back");
        }
    }
    written
}

async fn write_members(
    connection: &mut SqliteConnection,
    group: &[Ask],
) -> Result<Vec<Result<Answer, Error>>, Error> {
    let (mut starts, mut appends, mut letters) = (Vec::new(), Vec::new(), Vec::new());
    for ask in group {
        match ask {
            Ask::Start(new) => starts.push(&**new),
            Ask::Append(append) => appends.push(&**append),
            Ask::Post(letter) => letters.push(&**letter),
            Ask::TakePlace(_) | Ask::Transact(_) | Ask::Run(_) => {}
        }
    }
    let mut started = write::start(connection, &starts).await?.into_iter();
    let fenced = write::append(connection, &appends).await?;
    let known = write::post(connection, &letters).await?;
    let mut answers = Vec::with_capacity(group.len());
    for ask in group {
        answers.push(match ask {
            Ask::Start(_) => started.next().map(Answer::Started).ok_or(Error::Closed),
            Ask::Append(append) if fenced.contains(&append.row.id) => {
                Err(Error::Fenced(append.row.id.clone()))
            }
            Ask::Post(letter) if !known.contains(letter.saga.as_str()) => {
                Err(Error::NoSuchSaga(letter.saga.clone()))
            }
            Ask::Append(_) | Ask::Post(_) => Ok(Answer::Written),
            Ask::TakePlace(saga) => Ok(Answer::Placed(write::take_place(connection, saga).await?)),
            Ask::Transact(_) | Ask::Run(_) => guarded(connection, ask).await?,
        });
    }
    Ok(answers)
}

/// Runs a member's own SQL so that its failure undoes that member alone.
async fn guarded(connection: &mut SqliteConnection, ask: &Ask) -> Result<Result<Answer, Error>, Error> {
    connection.execute("savepoint member").await.map_err(write::unavailable)?;
    let member = async {
        match ask {
            Ask::Transact(job) => transact(connection, job).await,
            Ask::Run(job) => run_loose(connection, job).await,
            _ => Err(Error::Closed),
        }
    };
    let outcome = AssertUnwindSafe(member).catch_unwind().await.unwrap_or_else(|_| {
        let detail = "the local activity panicked".to_owned();
        Err(Failure::Unavailable { cause: Cause::Panic, detail, retry_after: None }.into())
    });
    if outcome.is_err() {
        connection.execute("rollback to member").await.map_err(write::unavailable)?;
    }
    connection.execute("release member").await.map_err(write::unavailable)?;
    Ok(outcome)
}

async fn transact(connection: &mut SqliteConnection, job: &Job) -> Result<Answer, Error> {
    let append = job(&mut SqliteStatements(connection)).await?;
    if !write::append(connection, &[&append]).await?.is_empty() {
        return Err(Error::Fenced(append.row.id));
    }
    Ok(Answer::Appended(Box::new(append)))
}

async fn run_loose(connection: &mut SqliteConnection, job: &LooseJob) -> Result<Answer, Error> {
    let Loose { output, beside, letters } = job(&mut SqliteStatements(connection)).await?;
    write::start(connection, &beside.starts.iter().collect::<Vec<_>>()).await?;
    // What came with a request belongs to the saga that the request started.
    let owner = beside.starts.first().map_or(String::new(), |saga| saga.id.to_string());
    write::keep_secrets(connection, &owner, &beside.sealed).await?;
    write::destroy_secrets(connection, &beside.destroyed).await?;
    write::post(connection, &letters.iter().collect::<Vec<_>>()).await?;
    Ok(Answer::Ran(output, letters.into_iter().map(|letter| letter.saga).collect()))
}

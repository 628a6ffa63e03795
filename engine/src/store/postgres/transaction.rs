//! Transactions of a program's own: user SQL with the turn before it and the append behind it, or for itself.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use serde_json::Value;
use sqlx::Executor;

use super::again::{Ended, insist};
use super::reach::Reach;
use super::statements::PgStatements;
use super::{beside, start, write};
use crate::env::Env;
use crate::ids::SagaId;
use crate::journal::failure::{Cause, Failure};
use crate::store::{Append, Error, Job, Letter, Loose, LooseJob, NewSaga, Started, limits};

macro_rules! or_end {
    ($done:expr) => {
        match $done {
            Ok(done) => done,
            Err(error) => return Ended::by(error),
        }
    };
}

/// Writes a turn, runs the job behind it, and writes what that came to. A job that fails is undone alone: the turn
/// stays. Also answers the concurrency keys under which an end has freed a place.
pub(super) async fn transact(
    reach: &Reach,
    env: &Env,
    turn: &Append,
    job: &Job,
) -> Result<(Append, Vec<String>), Error> {
    // The failure is a result of the transaction here, which commits.
    let done = insist(env, || async move {
        let mut transaction = or_end!(reach.begin_foreign().await);
        if let Err(error) = or_end!(write::whole_turn(reach, &mut transaction, turn).await) {
            return Ended::Refused(error);
        }
        or_end!(transaction.execute("savepoint job").await);
        let mut statements = PgStatements::new(reach, &mut transaction);
        let outcome = unpanicked(job(&mut statements)).await;
        if statements.lost {
            return Ended::Lost("user SQL lost against another transaction".to_owned());
        }
        if let Ok(append) = &outcome
            && let Err(error) = limits::append(append)
        {
            return Ended::Refused(error);
        }
        let done = match outcome {
            Ok(append) => match or_end!(write::whole_turn(reach, &mut transaction, &append).await) {
                Ok(place) => Ok((append, place.into_iter().collect())),
                Err(error) => return Ended::Refused(error),
            },
            Err(failure) => {
                or_end!(transaction.execute("rollback to savepoint job").await);
                Err(failure)
            }
        };
        or_end!(transaction.commit().await);
        Ended::Done(done)
    })
    .await?;
    done.map_err(Error::Job)
}

/// Runs user SQL that belongs to no saga, with the starts and letters it asks for.
pub(super) async fn run(reach: &Reach, env: &Env, job: &LooseJob) -> Result<(Value, Vec<SagaId>), Error> {
    insist(env, || async move {
        let mut transaction = or_end!(reach.begin_foreign().await);
        let mut statements = PgStatements::new(reach, &mut transaction);
        let outcome = unpanicked(job(&mut statements)).await;
        if statements.lost {
            return Ended::Lost("user SQL lost against another transaction".to_owned());
        }
        let loose = match outcome {
            Ok(loose) => loose,
            Err(failure) => return Ended::Refused(Error::Job(failure)),
        };
        if let Err(error) = limits::loose(&loose) {
            return Ended::Refused(error);
        }
        let Loose { output, beside, letters } = loose;
        let starts: Vec<(&NewSaga, Option<&str>)> = beside.starts.iter().map(|saga| (saga, None)).collect();
        let started = or_end!(start::start(reach, &mut transaction, &starts).await);
        // It looked whether the key was free, and what it answers says so: it has to look again.
        if started.iter().any(|(started, _)| !matches!(started, Started::New(_))) {
            return Ended::Lost("the key of a start was taken meanwhile".to_owned());
        }
        // What came with a request belongs to the saga that the request started.
        let owner = beside.starts.first().map_or(String::new(), |saga| saga.id.to_string());
        or_end!(beside::keep_secrets(reach, &mut transaction, &owner, &beside.sealed).await);
        or_end!(beside::destroy_secrets(reach, &mut transaction, beside.destroyed).await);
        let sent: Vec<&Letter> = letters.iter().collect();
        or_end!(beside::post(reach, &mut transaction, &sent).await);
        or_end!(transaction.commit().await);
        Ended::Done((output, letters.into_iter().map(|letter| letter.saga).collect()))
    })
    .await
}

async fn unpanicked<T>(job: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    AssertUnwindSafe(job).catch_unwind().await.unwrap_or_else(|_| {
        let detail = "the local activity panicked".to_owned();
        Err(Failure::Unavailable { cause: Cause::Panic, detail, retry_after: None })
    })
}

/// Writes one turn, waiting for whoever has its row; the concurrency key under which its end has freed a place.
pub(super) async fn alone(reach: &Reach, env: &Env, turn: &Append) -> Result<Option<String>, Error> {
    insist(env, || async move {
        let mut transaction = or_end!(reach.begin().await);
        match or_end!(write::whole_turn(reach, &mut transaction, turn).await) {
            Ok(place) => {
                or_end!(transaction.commit().await);
                Ended::Done(place)
            }
            Err(error) => Ended::Refused(error),
        }
    })
    .await
}

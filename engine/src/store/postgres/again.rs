//! Again: what lost against another transaction is run again, from its start and as a whole.
//!
//! Nothing of a transaction that lost stays, so this never does a thing twice. What failed otherwise is not run again
//! here: it may not be known whether it took place, and whoever asked looks first.

use std::time::Duration;

use super::error::{Remedy, remedy, write_error};
use super::reach::PATIENCE;
use crate::env::Env;
use crate::store::Error;

/// How often that is done before it counts as unavailable.
const AGAIN: u32 = 8;

/// How one run of a transaction ended.
pub(super) enum Ended<T> {
    Done(T),
    Refused(Error),
    /// It lost against another: once more, from the start.
    Lost(String),
}

impl<T> Ended<T> {
    /// A statement's error, as the end of its transaction.
    pub(super) fn by(error: sqlx::Error) -> Self {
        match remedy(&error) {
            Remedy::Again => Self::Lost(error.to_string()),
            Remedy::Later | Remedy::Never => Self::Refused(write_error(error)),
        }
    }
}

/// Whether what has lost so many times is to be run once more; if so, after a while of random length.
pub(super) async fn once_more(env: &Env, times: &mut u32, detail: &str) -> bool {
    if *times >= AGAIN {
        return false;
    }
    *times += 1;
    tracing::debug!(detail, times, "a transaction lost against another and is run again");
    env.sleep(Duration::from_millis(1 + env.below(1 << (*times).min(7)))).await;
    true
}

/// Runs a transaction, and again while it loses against others. Each run has the time that a server has to answer: what
/// is not over then is undone, and whether it took place is not known.
pub(super) async fn insist<T, F: Future<Output = Ended<T>>>(
    env: &Env,
    run: impl Fn() -> F,
) -> Result<T, Error> {
    let mut times = 0;
    loop {
        let ended = tokio::time::timeout(PATIENCE, run()).await;
        match ended.unwrap_or_else(|_| Ended::by(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))) {
            Ended::Done(done) => return Ok(done),
            Ended::Refused(error) => return Err(error),
            Ended::Lost(detail) => {
                if !once_more(env, &mut times, &detail).await {
                    return Err(Error::Unavailable(detail));
                }
            }
        }
    }
}

/// The same for what fails by a statement alone.
pub(super) async fn write<T, F>(env: &Env, run: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, sqlx::Error>>,
{
    insist(env, || async { run().await.map_or_else(Ended::by, Ended::Done) }).await
}

//! Connection: one that is kept for its user alone, made when it is needed and again after it broke.
//!
//! A server, a pooler or a firewall may end a connection that is idle (`idle_session_timeout`, a time-out of their
//! own). Whoever uses it next would learn of that by an error, and could not always tell whether what it sent took
//! place. So a connection that was idle for a while is asked first whether it is still there.

use std::time::Duration;

use sqlx::PgConnection;
use tokio::time::{Instant, timeout};

use super::reach::Reach;

/// For so long a connection counts as there without being asked. Servers that end what is idle for less are not known.
const FRESH: Duration = Duration::from_millis(100);
/// How long a connection may take to say that it is there.
const ANSWER: Duration = Duration::from_secs(5);

pub(super) struct Connection {
    reach: Reach,
    open: Option<(PgConnection, Instant)>,
}

impl Connection {
    pub(super) fn new(reach: &Reach) -> Self {
        Self { reach: reach.clone(), open: None }
    }

    /// Does something on it. A connection on which anything failed is given up: it may be in the middle of a
    /// transaction. So is one on which something was begun and not waited for.
    pub(super) async fn run<T>(
        &mut self,
        act: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let mut connection = self.take().await?;
        let done = act(&mut connection).await?;
        self.open = Some((connection, Instant::now()));
        Ok(done)
    }

    async fn take(&mut self) -> Result<PgConnection, sqlx::Error> {
        if let Some((mut connection, used)) = self.open.take() {
            if used.elapsed() < FRESH {
                return Ok(connection);
            }
            match timeout(ANSWER, sqlx::Connection::ping(&mut connection)).await {
                Ok(Ok(())) => return Ok(connection),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a connection was ended while it was idle; another is made")
                }
                Err(_) => tracing::debug!("a connection that was idle does not answer; another is made"),
            }
        }
        self.reach.connect().await
    }

    /// Ends it in order.
    pub(super) async fn close(&mut self) {
        if let Some((connection, _)) = self.open.take() {
            // The server notices anyway.
            let _ = timeout(ANSWER, sqlx::Connection::close(connection)).await;
        }
    }
}

//! What a store does beside what it is asked for: it tells the others, listens, numbers the feed, and mends.
//!
//! A notification is a hint and is sent after the commit, never in a transaction that others wait for; whoever misses
//! it finds the same by looking.

use std::time::Duration;

use sqlx::postgres::PgListener;
use tokio::task::JoinSet;

use super::reach::{Reach, in_time};
use super::{Signals, feed, lease, place};
use crate::env::Env;

const CHANNEL: &str = "amends";
/// Many hints within this are one.
const TELL: Duration = Duration::from_millis(10);
/// How often the outbox is looked into without a hint: another process may have died before it numbered its own.
const NUMBER: Duration = Duration::from_millis(500);
/// Many appends within this are numbered together.
const TOGETHER: Duration = Duration::from_millis(20);
/// How soon a listener that lost its connection asks for another.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);
/// How often what a process left undone is looked for.
const MEND: Duration = Duration::from_secs(5);

/// The tasks; they end when the set is dropped.
pub(super) fn spawn(reach: &Reach, env: &Env, signals: &Signals) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    if !reach.is_pooled {
        tasks.spawn(tell(reach.clone(), env.clone(), signals.clone()));
        tasks.spawn(listen(reach.clone(), env.clone(), signals.clone()));
    }
    tasks.spawn(number(reach.clone(), env.clone(), signals.clone()));
    tasks.spawn(mend(reach.clone(), env.clone(), signals.clone()));
    tasks
}

async fn tell(reach: Reach, env: Env, signals: Signals) {
    loop {
        signals.to_tell.notified().await;
        if let Err(error) = reach.execute(reach.query("select pg_notify($1, '')").bind(CHANNEL)).await {
            tracing::debug!(%error, "other processes find it by looking");
        }
        env.sleep(TELL).await;
    }
}

async fn listen(reach: Reach, env: Env, signals: Signals) {
    loop {
        let mut has_listened = false;
        let heard = async {
            let mut listener = PgListener::connect_with(&reach.pool).await?;
            stay(&mut listener).await?;
            listener.listen(CHANNEL).await?;
            has_listened = true;
            loop {
                // Something may have been missed before this connection listened.
                signals.changed.notify_one();
                // Nothing stands for a connection that was lost.
                if listener.try_recv().await?.is_none() {
                    return Ok(());
                }
            }
        };
        let lost: Result<(), sqlx::Error> = heard.await;
        tracing::debug!(?lost, "nothing is heard for a moment; what is due is found by looking");
        // One that was there for a while is made again sooner than one that cannot be made.
        env.sleep(if has_listened { LISTEN_AGAIN / 10 } else { LISTEN_AGAIN }).await;
    }
}

/// It is idle all the time, and not to be ended for that. Servers before 14 know of no such time-out.
async fn stay(listener: &mut PgListener) -> Result<(), sqlx::Error> {
    let sql = "select set_config(name, '0', false) from pg_settings where name = 'idle_session_timeout'";
    sqlx::query(sql).persistent(false).fetch_all(listener).await.map(drop)
}

async fn number(reach: Reach, env: Env, signals: Signals) {
    loop {
        tokio::select! {
            () = signals.unnumbered.notified() => {}
            () = env.sleep(NUMBER) => {}
        }
        if let Err(error) = in_time(feed::number(&reach)).await {
            tracing::debug!(%error, "the feed is numbered later");
        }
        env.sleep(TOGETHER).await;
    }
}

async fn mend(reach: Reach, env: Env, signals: Signals) {
    loop {
        let mended = async {
            let filled = place::fill_all(&reach, env.now().0).await?;
            // A letter that was left while its saga ended, by a process that did not see the end.
            let late = reach.query(
                "update audit a set outcome = 'too_late: it had ended', state_after = s.state from saga s
                 where a.outcome is null and s.id = a.saga and s.ended_at is not null",
            );
            reach.execute(late).await?;
            lease::forget(&reach).await?;
            Ok::<_, sqlx::Error>(filled)
        };
        match mended.await {
            Ok(0) => {}
            Ok(_) => signals.something_is_due(),
            Err(error) => tracing::debug!(%error, "what was left undone is looked for later"),
        }
        env.sleep(MEND).await;
    }
}

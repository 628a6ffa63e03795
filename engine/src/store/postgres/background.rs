//! What a store does beside what it is asked for: it tells the others, listens, numbers the feed, and mends.
//!
//! A notification is a hint and is sent after the commit, never in a transaction that others wait for; whoever misses
//! it finds the same by looking, so that one that fails costs half a second. What is numbered and mended nobody else
//! would do: that it fails for half a minute is trouble of the store. Each task that panics begins again.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::postgres::PgListener;
use tokio::task::JoinSet;

use super::reach::{Reach, in_time};
use super::{Signals, feed, lease, place};
use crate::env::Env;
use crate::trouble::Trouble;

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

/// How soon a task that panicked begins again.
const BEGIN_AGAIN: Duration = Duration::from_secs(1);

/// What it means that these fail.
const UNTOLD: &str = "other processes are not told, and find what is due half a second later";
const UNHEARD: &str = "what other processes tell is not heard, and is found half a second later";
const UNNUMBERED: &str = "the feed stands still";
const UNMENDED: &str = "what processes that died left undone is not looked for";

/// What a task has to know.
#[derive(Clone)]
struct Task {
    reach: Reach,
    env: Env,
    signals: Signals,
    trouble: Arc<Trouble>,
}

impl Task {
    /// Takes note of what one round came to. What others would find by looking is no trouble, and is said in the log.
    fn noted(&self, what: &str, done: Result<(), sqlx::Error>) {
        match done {
            Ok(()) => self.trouble.went_well(what),
            Err(error) => self.failed(what, error.to_string()),
        }
    }

    fn failed(&self, what: &str, detail: String) {
        if what == UNNUMBERED || what == UNMENDED {
            self.trouble.failed(what, detail, &self.env);
        } else {
            self.trouble.retried(what, detail, &self.env);
        }
    }
}

/// Runs a task, and again should it panic: nobody else would do what it does.
async fn kept(task: Task, what: &'static str, run: impl Fn(Task) -> BoxFuture<'static, ()> + Send) {
    while std::panic::AssertUnwindSafe(run(task.clone())).catch_unwind().await.is_err() {
        tracing::error!(what, "a task of the store panicked and begins again");
        task.failed(what, "its task panicked".to_owned());
        task.env.sleep(BEGIN_AGAIN).await;
    }
}

/// The tasks; they end when the set is dropped.
pub(super) fn spawn(reach: &Reach, env: &Env, signals: &Signals, trouble: &Arc<Trouble>) -> JoinSet<()> {
    let task =
        Task { reach: reach.clone(), env: env.clone(), signals: signals.clone(), trouble: trouble.clone() };
    let mut tasks = JoinSet::new();
    if !reach.is_pooled {
        tasks.spawn(kept(task.clone(), UNTOLD, |task| tell(task).boxed()));
        tasks.spawn(kept(task.clone(), UNHEARD, |task| listen(task).boxed()));
    }
    tasks.spawn(kept(task.clone(), UNNUMBERED, |task| number(task).boxed()));
    tasks.spawn(kept(task, UNMENDED, |task| mend(task).boxed()));
    tasks
}

async fn tell(task: Task) {
    let Task { reach, env, signals, .. } = &task;
    loop {
        signals.to_tell.notified().await;
        let told = reach.execute(reach.query("select pg_notify($1, '')").bind(CHANNEL)).await;
        task.noted(UNTOLD, told.map(drop));
        env.sleep(TELL).await;
    }
}

async fn listen(task: Task) {
    let Task { reach, env, signals, .. } = &task;
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
        task.noted(UNHEARD, lost);
        // One that was there for a while is made again sooner than one that cannot be made.
        env.sleep(if has_listened { LISTEN_AGAIN / 10 } else { LISTEN_AGAIN }).await;
    }
}

/// It is idle all the time, and not to be ended for that. Servers before 14 know of no such time-out.
async fn stay(listener: &mut PgListener) -> Result<(), sqlx::Error> {
    let sql = "select set_config(name, '0', false) from pg_settings where name = 'idle_session_timeout'";
    sqlx::query(sql).persistent(false).fetch_all(listener).await.map(drop)
}

async fn number(task: Task) {
    let Task { reach, env, signals, .. } = &task;
    loop {
        tokio::select! {
            () = signals.unnumbered.notified() => {}
            () = env.sleep(NUMBER) => {}
        }
        task.noted(UNNUMBERED, in_time(feed::number(reach)).await.map(drop));
        env.sleep(TOGETHER).await;
    }
}

async fn mend(task: Task) {
    let Task { reach, env, signals, .. } = &task;
    loop {
        let mended = async {
            let filled = place::fill_all(reach, env.now().0).await?;
            // A letter that was left while its saga ended, by a process that did not see the end.
            let late = reach.query(
                "update audit a set outcome = 'too_late: it had ended', state_after = s.state from saga s
                 where a.outcome is null and s.id = a.saga and s.ended_at is not null",
            );
            reach.execute(late).await?;
            lease::forget(reach).await?;
            Ok::<_, sqlx::Error>(filled)
        };
        let mended = mended.await;
        if matches!(mended, Ok(1..)) {
            signals.something_is_due();
        }
        task.noted(UNMENDED, mended.map(drop));
        env.sleep(MEND).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_begins_again_and_is_trouble_while_it_does_so_each_time() {
        let env = Env::simulated(1);
        let Ok(reach) = Reach::new("postgres://nowhere/d") else { panic!() };
        let (signals, trouble) = (Signals::default(), Arc::new(Trouble::default()));
        let task = Task { reach, env: env.clone(), signals, trouble: trouble.clone() };
        let begun = Arc::new(AtomicU32::new(0));
        let counted = begun.clone();
        let run = tokio::spawn(kept(task, UNNUMBERED, move |task| {
            let begun = counted.clone();
            async move {
                if begun.fetch_add(1, Ordering::Relaxed) < 60 {
                    // As a panic, without its noise.
                    std::panic::resume_unwind(Box::new(()));
                }
                task.noted(UNNUMBERED, Ok(()));
            }
            .boxed()
        }));
        env.sleep(Duration::from_millis(45_500)).await;
        let said = trouble.said(&env).unwrap_or_default();
        assert!(said.contains("the feed stands still") && said.contains("panicked"), "{said}");
        run.await.unwrap();
        assert_eq!((begun.load(Ordering::Relaxed), trouble.said(&env)), (61, None));
    }
}

//! Jobs: what happens by the clock rather than in a saga; apalis runs it, and each run is soon over.
//!
//! A job decides and starts sagas; it never does the work itself. A tick that is missed, or comes twice,
//! changes nothing: what a job looks at is the database, and sagas are started under keys.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use amends_engine::{Counts, Engine};
use apalis::layers::WorkerBuilderExt;
use apalis::prelude::{BoxDynError, Data, Monitor, WorkerBuilder};
use apalis_cron::{CronScheduler, Tick};
use cron::Schedule;
use std::future::Future;
use std::pin::Pin;

/// How long one run may take before it is given up; the next tick begins anew.
const RUN_MAX: Duration = Duration::from_secs(60);
/// How long a run may still take when the program stops.
const STOP_MAX: Duration = Duration::from_secs(5);

/// What one run of a job is.
pub type Run = Pin<Box<dyn Future<Output = Result<(), BoxDynError>> + Send>>;

/// One thing that happens by the clock.
#[derive(Clone)]
pub struct Job {
    /// Its name, for logs.
    pub name: &'static str,
    /// When: second, minute, hour, day, month, weekday.
    pub schedule: &'static str,
    /// What.
    run: Arc<dyn Fn(Engine) -> Run + Send + Sync>,
    /// Whether its last run failed.
    has_failed: Arc<AtomicBool>,
}

impl Job {
    /// A job of this name, at these times.
    pub fn new<F>(
        name: &'static str,
        schedule: &'static str,
        run: impl Fn(Engine) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), BoxDynError>> + Send + 'static,
    {
        let run = Arc::new(move |engine| -> Run { Box::pin(run(engine)) });
        Self { name, schedule, run, has_failed: Arc::default() }
    }
}

/// Why the jobs do not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A schedule that is none.
    #[error("job {name}: {schedule} is not a schedule: {source}")]
    Schedule {
        /// Of which job.
        name: &'static str,
        /// What it says.
        schedule: &'static str,
        /// What is wrong with it.
        source: cron::error::Error,
    },
    /// The monitor gave up.
    #[error("the jobs stopped: {0}")]
    Monitor(String),
}

/// Runs these jobs until `stop` comes.
pub async fn run(
    engine: Engine,
    jobs: &[Job],
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let mut monitor = Monitor::new().shutdown_timeout(STOP_MAX).should_restart(|worker, error| {
        tracing::warn!(worker = worker.name(), ?error, "a job's worker failed and is started again");
        true
    });
    for job in jobs.iter().cloned() {
        let schedule = Schedule::from_str(job.schedule).map_err(|source| Error::Schedule {
            name: job.name,
            schedule: job.schedule,
            source,
        })?;
        let engine = engine.clone();
        monitor = monitor.register(move |restarts| {
            WorkerBuilder::new(format!("{}-{restarts}", job.name))
                .backend(CronScheduler::new(schedule.clone()))
                .data(job.clone())
                .data(engine.clone())
                .catch_panic()
                .timeout(RUN_MAX)
                .build(tick)
        });
    }
    let signal = async move {
        stop.await;
        Ok(())
    };
    monitor.run_with_signal(signal).await.map_err(|error| Error::Monitor(error.to_string()))
}

async fn tick(_: Tick, job: Data<Job>, engine: Data<Engine>) -> Result<(), BoxDynError> {
    let outcome = (job.run)((*engine).clone()).await;
    // A line when it changes, not one a tick for as long as an outage lasts.
    match (&outcome, job.has_failed.swap(outcome.is_err(), Ordering::Relaxed)) {
        (Err(error), false) => {
            tracing::warn!(job = job.name, %error, "a job failed; it is run again at its next time")
        }
        (Err(error), true) => tracing::debug!(job = job.name, %error, "a job failed again"),
        (Ok(()), true) => tracing::info!(job = job.name, "a job works again"),
        (Ok(()), false) => {}
    }
    outcome
}

/// A line a minute on what came of the sagas; none when nothing did.
pub fn summary() -> Job {
    Job::new("summary", "0 * * * * *", |engine| async move {
        let counts = engine.take_counts();
        if counts
            != (Counts { live: counts.live, need_attention: counts.need_attention, ..Counts::default() })
        {
            let Counts { completed, compensated, failed, live, need_attention } = counts;
            tracing::info!(completed, compensated, failed, live, need_attention, "sagas in the last minute");
        }
        Ok(())
    })
}

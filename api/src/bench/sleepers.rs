//! Sleepers: sagas that sleep until one moment, and what it takes to wake them.

use std::sync::Arc;
use std::time::Duration;

use amends_engine::{Env, Timestamp, params};
use anyhow::bail;
use tokio::time::Instant;

use super::desk::{Desk, LIMIT, begin, side_by_side};
use super::figures::{OTHERS, Sample, quantile_ms};
use super::meter::{Meter, resident_mb};
use super::sagas::{Plan, Sleeper};

/// How often it is looked whether all are asleep, or done; when that was is read from their rows.
const LOOK: Duration = Duration::from_millis(100);
/// How many start sleepers side by side.
const CALLERS: usize = 256;

/// Puts so many to sleep, says so, and waits until they have woken if it `stays`.
pub async fn sleep(
    desk: &Desk,
    sleepers: usize,
    until: Timestamp,
    stays: bool,
    say: impl Fn(&Sample),
) -> anyhow::Result<Sample> {
    let engine = desk.engine(0, &Arc::default());
    let env = Env::system();
    let idle = resident_mb();
    let bytes = desk.place.bytes().await?;
    let began = Instant::now();
    let starting = engine.clone();
    side_by_side(sleepers, CALLERS, move || {
        let engine = starting.clone();
        async move { begin::<Sleeper>(&engine, &Plan { steps: 0, until: Some(until) }).await }
    })
    .await?;
    while desk.in_state("waiting").await? < sleepers {
        if env.now() >= until {
            bail!("not all were asleep by the time they were to wake");
        }
        env.sleep(LOOK).await;
    }
    let grown = desk.place.bytes().await?.saturating_sub(bytes);
    let asleep = Sample::default()
        .with("sleepers", sleepers as f64)
        .with("asleep_after_s", began.elapsed().as_secs_f64())
        .with("kept_bytes_per_sleeper", grown as f64 / sleepers as f64)
        .with_some("idle_memory_mb", idle)
        .with_some("asleep_memory_mb", resident_mb());
    say(&asleep);
    if !stays {
        engine.stop().await;
        return Ok(asleep);
    }
    let meter = Meter::start(desk.place.beside());
    all_woken(desk, sleepers).await?;
    let metered = meter.stop();
    let fired =
        desk.store.fetch("select at from journal where kind = 'timer_fired'".into(), params![]).await?;
    engine.stop().await;
    let mut late = Vec::with_capacity(fired.len());
    for row in &fired {
        late.push(Timestamp(row.int("at")?).since(until));
    }
    if late.len() != sleepers {
        bail!("{} timers fired, and there were {sleepers}", late.len());
    }
    Ok(Sample::default()
        .with("woken", sleepers as f64)
        .with("late_p50_ms", quantile_ms(&mut late, 0.5))
        .with("late_p99_ms", quantile_ms(&mut late, 0.99))
        .with("late_max_ms", quantile_ms(&mut late, 1.0))
        .with_some(OTHERS, metered.others))
}

async fn all_woken(desk: &Desk, sleepers: usize) -> anyhow::Result<()> {
    let began = Instant::now();
    while desk.in_state("completed").await? < sleepers {
        if began.elapsed() > LIMIT {
            bail!("not all sleepers were done within {}", humantime::format_duration(LIMIT));
        }
        Env::system().sleep(LOOK).await;
    }
    Ok(())
}

/// Opens a database whose sleepers are due, and waits until all are done.
pub async fn wake(desk: &Desk, sleepers: usize, asked_at: Timestamp) -> anyhow::Result<Sample> {
    let env = Env::system();
    if desk.in_state("completed").await? > 0 {
        bail!("some had woken before they were due");
    }
    let commits = desk.place.commits().await?;
    let meter = Meter::start(desk.place.beside());
    let engine = desk.engine(0, &Arc::default());
    let ready = env.now().since(asked_at);
    all_woken(desk, sleepers).await?;
    let metered = meter.stop();
    let commits = desk.place.commits().await? - commits;
    let ends = "select min(ended_at) as first, max(ended_at) as last from saga";
    let rows = desk.store.fetch(ends.into(), params![]).await?;
    engine.stop().await;
    let Some(row) = rows.first() else { bail!("no saga has ended") };
    let first = Timestamp(row.int("first")?).since(asked_at);
    let done = Timestamp(row.int("last")?).since(asked_at);
    Ok(Sample::default()
        .with("woken", sleepers as f64)
        .with("ready_s", ready.as_secs_f64())
        .with("first_s", first.as_secs_f64())
        .with("all_done_s", done.as_secs_f64())
        .with("woken_per_second", sleepers as f64 / done.saturating_sub(ready).as_secs_f64())
        .with("commits", commits as f64)
        .with_some("peak_memory_mb", metered.peak_mb)
        .with_some(OTHERS, metered.others))
}

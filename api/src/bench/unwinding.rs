//! Unwinding: sagas that all turn round at once, wave after wave.

use std::sync::{Arc, OnceLock};

use anyhow::bail;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::desk::{Desk, LIMIT, begin, ended};
use super::figures::{OTHERS, Sample, quantile_ms};
use super::meter::Meter;
use super::sagas::{Latch, Plan, Undone};

/// Lets so many sagas stand at their last step, and then turn round together.
pub async fn unwind(desk: &Desk, waves: usize, in_flight: usize, steps: u32) -> anyhow::Result<Sample> {
    let latch = Arc::new(Latch::default());
    let engine = desk.engine(0, &latch);
    let plan = Plan { steps, until: None };
    let (mut spans, mut took, mut commits) = (Vec::new(), Vec::new(), 0);
    for _ in 0..waves {
        let mut running = JoinSet::new();
        let opened = Arc::new(OnceLock::new());
        for _ in 0..in_flight {
            let (engine, plan, opened) = (engine.clone(), plan.clone(), opened.clone());
            running.spawn(async move {
                let saga = begin::<Undone>(&engine, &plan).await?;
                ended(&engine, &saga).await?;
                let opened: &Instant = opened.get_or_init(Instant::now);
                anyhow::Ok(opened.elapsed())
            });
        }
        tokio::time::timeout(LIMIT, latch.gathered(in_flight)).await?;
        let before = desk.place.commits().await?;
        let meter = Meter::start(desk.place.beside());
        opened.get_or_init(Instant::now);
        latch.open();
        while let Some(done) = running.join_next().await {
            took.push(done??);
        }
        spans.push(meter.stop());
        commits += desk.place.commits().await? - before;
        latch.close();
    }
    let undone = waves * in_flight * steps as usize;
    let (compensated, recorded) =
        (desk.in_state("compensated").await?, desk.entries("step_compensated").await?);
    engine.stop().await;
    if (compensated, recorded) != (waves * in_flight, undone) {
        bail!(
            "{compensated} sagas with {recorded} steps are undone, and there were {} with {undone}",
            waves * in_flight
        );
    }
    let wall: f64 = spans.iter().map(|span| span.wall.as_secs_f64()).sum();
    let cpu: Option<f64> = spans.iter().map(|span| span.cpu).sum();
    let others: Option<f64> =
        spans.iter().map(|span| span.others.map(|share| share * span.wall.as_secs_f64() / wall)).sum();
    let undone = undone as f64;
    Ok(Sample::default()
        .with("sagas_compensated", compensated as f64)
        .with("compensations_recorded", recorded as f64)
        .with("compensations_per_second", undone / wall)
        .with("turning_to_compensated_p50_ms", quantile_ms(&mut took, 0.5))
        .with("turning_to_compensated_p99_ms", quantile_ms(&mut took, 0.99))
        .with("commits", commits as f64)
        .with_some("cpu_s_per_1000_compensations", cpu.map(|cpu| cpu * 1000.0 / undone))
        .with_some(OTHERS, others))
}

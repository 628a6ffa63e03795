//! Starts: sagas that are durable, and that nothing takes up.

use amends_engine::Env;
use amends_engine::store::NewSaga;
use anyhow::bail;
use tokio::time::Instant;

use super::desk::{Desk, side_by_side};
use super::figures::{OTHERS, Sample, quantile_ms};
use super::meter::Meter;
use super::sagas::{Plan, Steps};

/// Starts so many, `callers` at a time.
pub async fn start(desk: &Desk, starts: usize, callers: usize, steps: u32) -> anyhow::Result<Sample> {
    let plan = Plan { steps, until: None };
    let commits = desk.place.commits().await?;
    let meter = Meter::start(desk.place.beside());
    let store = desk.store.clone();
    let env = Env::system();
    let mut took = side_by_side(starts, callers, move || {
        let (store, plan, env) = (store.clone(), plan.clone(), env.clone());
        async move {
            let began = Instant::now();
            let key = format!("bench-{}", env.uuid());
            store.start(NewSaga::of::<Steps>(&env, key, &plan)?).await?;
            Ok(began.elapsed())
        }
    })
    .await?;
    let metered = meter.stop();
    let commits = desk.place.commits().await? - commits;
    let queued = desk.in_state("queued").await?;
    if queued != starts {
        bail!("{queued} sagas are recorded, and {starts} were started");
    }
    let starts = starts as f64;
    Ok(Sample::default()
        .with("sagas_started", starts)
        .with("starts_per_second", starts / metered.wall.as_secs_f64())
        .with("start_p50_ms", quantile_ms(&mut took, 0.5))
        .with("start_p99_ms", quantile_ms(&mut took, 0.99))
        .with("commits", commits as f64)
        .with("starts_per_commit", starts / commits as f64)
        .with_some("cpu_s_per_1000_starts", metered.cpu.map(|cpu| cpu * 1000.0 / starts))
        .with_some(OTHERS, metered.others))
}

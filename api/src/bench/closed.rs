//! Closed: sagas from start to end, so many at a time; the next one starts when one ends.

use std::sync::Arc;
use std::time::Duration;

use amends_engine::{Engine, Workflow};
use anyhow::bail;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::desk::{Desk, begin, ended, side_by_side};
use super::figures::{Sample, quantile_ms};
use super::meter::{Meter, resident_mb};
use super::over_http::Door;
use super::sagas::{Notes, Plan, Resources, Steps};

/// Sagas from start to end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Closed {
    /// Of which kind.
    pub flow: Flow,
    /// How many.
    pub sagas: usize,
    /// How many steps each has.
    pub steps: u32,
    /// How many at a time.
    pub in_flight: usize,
    /// How many bytes a step yields.
    pub payload: usize,
    /// Whether they are asked for by HTTP requests.
    pub over_http: bool,
}

/// What the steps of a saga do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flow {
    /// Nothing.
    Steps,
    /// Open a resource.
    Resources,
    /// Write a row of their own.
    Notes,
}

impl Closed {
    /// Runs them.
    pub async fn perform(&self, desk: &Desk) -> anyhow::Result<Sample> {
        let engine = desk.engine(self.payload, &Arc::default());
        let resident = resident_mb();
        // One saga alone, so that the first statement and the first page are not measured.
        self.drive(&engine, 1).await?;
        let before = recorded(desk).await?;
        let (commits, log) = (desk.place.commits().await?, desk.place.log_bytes().await?);
        let meter = Meter::start(desk.place.beside());
        let mut took = self.drive(&engine, self.sagas).await?;
        let metered = meter.stop();
        let log = desk.place.log_bytes().await?.zip(log).map(|(after, before)| after - before);
        // Each local step is a transaction of its own on a server, and has one more inside it that would count.
        let is_alone = self.flow == Flow::Notes && log.is_some();
        let commits = (desk.place.commits().await? - commits) as f64;
        let commits = (!is_alone).then_some(commits);
        let after = recorded(desk).await?;
        engine.stop().await;
        let steps = self.sagas * self.steps as usize;
        let (completed, recorded) = (after.0 - before.0, after.1 - before.1);
        if (completed, recorded) != (self.sagas, steps) {
            bail!(
                "{completed} sagas with {recorded} steps are recorded, and there were {} with {steps}",
                self.sagas
            );
        }
        let wall = metered.wall.as_secs_f64();
        let steps = steps as f64;
        Ok(Sample::default()
            .with("sagas_completed", completed as f64)
            .with("steps_recorded", recorded as f64)
            .with("sagas_per_second", self.sagas as f64 / wall)
            .with("steps_per_second", steps / wall)
            .with("saga_p50_ms", quantile_ms(&mut took, 0.5))
            .with("saga_p99_ms", quantile_ms(&mut took, 0.99))
            .with_some("steps_per_commit", commits.map(|commits| steps / commits))
            .with_some("commits", commits)
            .with_some("log_bytes_per_step", log.map(|bytes| bytes as f64 / steps))
            .with_metered(&metered, steps)
            .with("open_ms", desk.opened.as_secs_f64() * 1000.0)
            .with_some("resident_mb", resident))
    }

    async fn drive(&self, engine: &Engine, sagas: usize) -> anyhow::Result<Vec<Duration>> {
        let plan = Plan { steps: self.steps, until: None };
        match self.flow {
            Flow::Steps => self.drive_all::<Steps>(engine, sagas, plan).await,
            Flow::Resources => self.drive_all::<Resources>(engine, sagas, plan).await,
            Flow::Notes => self.drive_all::<Notes>(engine, sagas, plan).await,
        }
    }

    /// Runs sagas from start to end; how long each took.
    async fn drive_all<W: Workflow<Input = Plan>>(
        &self,
        engine: &Engine,
        sagas: usize,
        plan: Plan,
    ) -> anyhow::Result<Vec<Duration>> {
        let door = if self.over_http { Some(Arc::new(Door::open::<W>(engine).await?)) } else { None };
        let engine = engine.clone();
        side_by_side(sagas, self.in_flight, move || {
            let (engine, plan, door) = (engine.clone(), plan.clone(), door.clone());
            async move {
                let began = Instant::now();
                match door {
                    Some(door) => door.run(&plan).await?,
                    None => ended(&engine, &begin::<W>(&engine, &plan).await?).await?,
                }
                Ok(began.elapsed())
            }
        })
        .await
    }
}

/// How many sagas are completed, and how many of their steps.
async fn recorded(desk: &Desk) -> anyhow::Result<(usize, usize)> {
    Ok((desk.in_state("completed").await?, desk.entries("step_completed").await?))
}

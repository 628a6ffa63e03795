//! Processes: W10, one, two and four of them on one Postgres.
//!
//! The sagas are started while nothing takes them up. Then the processes are told to go, and the time runs from the
//! first step that one of them begins to the end of the last saga, by the rows.

use std::time::Duration;

use amends_engine::{Env, params};
use anyhow::bail;
use tokio::time::Instant;

use super::child::{Child, Errand};
use super::desk::{Desk, LIMIT};
use super::figures::{OTHERS, Sample};
use super::meter::Meter;
use super::options::Workload;
use super::report::{Measured, Turns};
use super::work::Work;
use super::workloads::{Bench, progress};

/// How many processes, and the name of what they are.
const COUNTS: [(usize, &str); 3] = [(1, "one process"), (2, "two processes"), (4, "four processes")];
/// How often it is looked whether all are done.
const LOOK: Duration = Duration::from_millis(100);

impl Bench<'_> {
    /// W10.
    pub async fn processes(&self) -> anyhow::Result<Vec<Measured>> {
        let mut turns: Vec<Turns> = COUNTS.iter().map(|_| Turns::default()).collect();
        for run in 1..=self.options.runs {
            progress(&format!("W10: run {run} of {}", self.options.runs));
            let mut one: Option<Sample> = None;
            for ((count, _), turns) in COUNTS.iter().zip(&mut turns) {
                let sample = self.drained_by(*count).await?;
                if let Some(one) = &one {
                    turns.push_beside("one process", "steps_per_second", one.clone());
                }
                one.get_or_insert_with(|| sample.clone());
                turns.ours.push(sample);
            }
        }
        let settings = |count: usize| {
            [
                ("processes", count as u64),
                ("sagas", self.options.sagas as u64),
                ("steps", self.options.steps.into()),
                ("in_flight_each", self.options.in_flight as u64),
            ]
        };
        let all = COUNTS.iter().zip(&turns);
        Ok(all
            .map(|((count, name), turns)| Measured::of(Workload::W10, *name, settings(*count), turns))
            .collect())
    }

    async fn drained_by(&self, processes: usize) -> anyhow::Result<Sample> {
        let place = self.ground.place().await?;
        let (sagas, steps) = (self.options.sagas, self.options.steps);
        let work = Work::Starts { starts: sagas, callers: 256, steps };
        Child::start(&Errand { place: place.clone(), work })?.done().await?;
        let payload = self.options.payloads.first().copied().unwrap_or_default();
        let work = Work::Serve { in_flight: self.options.in_flight, payload };
        let mut children = Vec::new();
        for _ in 0..processes {
            children.push(Child::start(&Errand { place: place.clone(), work: work.clone() })?);
        }
        for child in &mut children {
            child.ready().await?;
        }
        let desk = Desk::open(&place).await?;
        let meter = Meter::start(place.beside());
        for child in &mut children {
            child.go().await?;
        }
        let began = Instant::now();
        while desk.in_state("completed").await? < sagas {
            if began.elapsed() > LIMIT {
                bail!("not all sagas were done within {}", humantime::format_duration(LIMIT));
            }
            Env::system().sleep(LOOK).await;
        }
        for child in children {
            child.kill().await?;
        }
        // The children are waited for, so that their time is ours by now.
        let metered = meter.stop();
        let recorded = desk.entries("step_completed").await?;
        let span = "select min(at) as first, (select max(ended_at) from saga) as last from journal
             where kind = 'attempt_started'";
        let rows = desk.store.fetch(span.into(), params![]).await?;
        desk.store.close().await;
        self.ground.remove(place).await?;
        let Some(row) = rows.first() else { bail!("nothing was done") };
        let seconds = (row.int("last")? - row.int("first")?) as f64 / 1_000_000.0;
        let expected = sagas * steps as usize;
        if recorded != expected {
            bail!("{recorded} steps are recorded, and there were {expected}");
        }
        let expected = expected as f64;
        Ok(Sample::default()
            .with("sagas_completed", sagas as f64)
            .with("steps_recorded", recorded as f64)
            .with("steps_per_second", expected / seconds)
            .with_some("cpu_s_per_1000_steps", metered.cpu.map(|cpu| cpu * 1000.0 / expected))
            .with_some("database_cpu_s_per_1000_steps", metered.cpu_beside.map(|cpu| cpu * 1000.0 / expected))
            .with_some(OTHERS, metered.others))
    }
}

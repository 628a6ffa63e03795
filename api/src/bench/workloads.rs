//! Workloads: each one's runs, in turns with what it is compared with.

use std::sync::Arc;

use super::bare;
use super::child::{Child, Errand};
use super::closed::{Closed, Flow};
use super::desk::Desk;
use super::figures::Sample;
use super::options::{Options, Workload};
use super::place::Ground;
use super::record::Recorder;
use super::report::{Measured, Turns};
use super::rows::{Part, Write};
use super::work::Work;

/// The loop in commits as large as the engine's.
pub const BARE: &str = "bare loop, same commits";
/// The loop in commits as large as they could be.
const FULL: &str = "bare loop, full commits";
/// How many bytes of payload a recording may hold.
const RECORDED_MAX: usize = 200 << 20;
/// How many start sagas at a time in W3.
const CALLERS: usize = 64;

/// One workload that is compared with its bare loop.
struct Compared {
    workload: Workload,
    name: String,
    settings: Vec<(&'static str, u64)>,
    work: Work,
    part: Part,
    /// Which journal entries are counted, and the engine's figure that says how many there were.
    counted: (&'static str, &'static str),
    /// The figure that says how many of them came a second.
    rate: &'static str,
    ratio_of: &'static str,
    /// How many writes the fullest commit could carry: one of each saga that is under way.
    full: usize,
}

/// Measures these, in order.
pub async fn all(
    options: &Options,
    ground: &Ground,
    workloads: &[Workload],
) -> anyhow::Result<Vec<Measured>> {
    let bench = Bench { options, ground };
    let mut results = Vec::new();
    for workload in workloads {
        match workload {
            Workload::W1 => {
                for payload in &options.payloads {
                    results.push(bench.closed(*workload, Flow::Steps, *payload).await?);
                }
            }
            Workload::W2 => results.push(bench.latency().await?),
            Workload::W3 => {
                results.push(bench.starts(options.sagas, CALLERS).await?);
                results.push(bench.starts(options.sagas.div_ceil(5), 1).await?);
            }
            Workload::W4 => results.extend(bench.sleepers().await?),
            Workload::W5 => results.extend(bench.backlog().await?),
            Workload::W6 => results.push(bench.closed(*workload, Flow::Resources, 0).await?),
            Workload::W7 => results.push(bench.unwinding().await?),
            Workload::W8 => results.push(bench.closed(*workload, Flow::Notes, 0).await?),
            Workload::W10 => results.extend(bench.processes().await?),
        }
    }
    Ok(results)
}

/// A bench that runs.
pub struct Bench<'b> {
    /// What is asked for.
    pub options: &'b Options,
    /// Where.
    pub ground: &'b Ground,
}

impl Bench<'_> {
    /// Sagas from start to end, with as many steps as asked for.
    pub fn of_closed(&self, flow: Flow, payload: usize, sagas: usize, in_flight: usize) -> Closed {
        let over_http = self.options.over_http;
        Closed { flow, sagas, steps: self.options.steps, in_flight, payload, over_http }
    }

    async fn closed(&self, workload: Workload, flow: Flow, payload: usize) -> anyhow::Result<Measured> {
        let fits = RECORDED_MAX / (payload.max(1) * self.options.steps as usize);
        let (sagas, in_flight) = (self.options.sagas.min(fits), self.options.in_flight);
        let sagas = sagas.max(in_flight);
        let name = match flow {
            Flow::Steps => format!("steps that make nothing, {payload} bytes each"),
            Flow::Resources => "steps that open a resource".to_owned(),
            Flow::Notes => "steps in our own database".to_owned(),
        };
        self.compare(Compared {
            workload,
            name,
            settings: vec![
                ("sagas", sagas as u64),
                ("steps", self.options.steps.into()),
                ("in_flight", in_flight as u64),
                ("payload", payload as u64),
                ("over_http", self.options.over_http.into()),
            ],
            work: Work::Closed(self.of_closed(flow, payload, sagas, in_flight)),
            part: Part::All,
            counted: ("step_completed", "steps_recorded"),
            rate: "steps_per_second",
            ratio_of: "steps_per_second",
            full: if flow == Flow::Notes && self.options.database_url.is_some() { 1 } else { in_flight },
        })
        .await
    }

    async fn latency(&self) -> anyhow::Result<Measured> {
        let sagas = self.options.sagas.div_ceil(10);
        let payload = self.options.payloads.first().copied().unwrap_or_default();
        self.compare(Compared {
            workload: Workload::W2,
            name: "the same, one saga at a time".to_owned(),
            settings: vec![
                ("sagas", sagas as u64),
                ("steps", self.options.steps.into()),
                ("in_flight", 1),
                ("payload", payload as u64),
                ("over_http", self.options.over_http.into()),
            ],
            work: Work::Closed(self.of_closed(Flow::Steps, payload, sagas, 1)),
            part: Part::All,
            counted: ("step_completed", "steps_recorded"),
            rate: "steps_per_second",
            ratio_of: "saga_p50_ms",
            full: 1,
        })
        .await
    }

    async fn starts(&self, starts: usize, callers: usize) -> anyhow::Result<Measured> {
        self.compare(Compared {
            workload: Workload::W3,
            name: format!("durable starts, {callers} at a time"),
            settings: vec![("starts", starts as u64), ("callers", callers as u64)],
            work: Work::Starts { starts, callers, steps: self.options.steps },
            part: Part::All,
            counted: ("saga_started", "sagas_started"),
            rate: "starts_per_second",
            ratio_of: "starts_per_second",
            full: callers,
        })
        .await
    }

    async fn unwinding(&self) -> anyhow::Result<Measured> {
        let (in_flight, steps) = (self.options.in_flight, self.options.steps);
        let waves = self.options.sagas.div_ceil(5 * in_flight);
        self.compare(Compared {
            workload: Workload::W7,
            name: "resources taken back".to_owned(),
            settings: vec![
                ("sagas", (waves * in_flight) as u64),
                ("steps", steps.into()),
                ("in_flight", in_flight as u64),
            ],
            work: Work::Unwind { waves, in_flight, steps },
            part: Part::Unwinding,
            counted: ("step_compensated", "compensations_recorded"),
            rate: "compensations_per_second",
            ratio_of: "compensations_per_second",
            full: in_flight,
        })
        .await
    }

    /// Records the work once, and then lets the engine and the bare loop take turns.
    async fn compare(&self, compared: Compared) -> anyhow::Result<Measured> {
        let Compared { workload, name, settings, work, part, counted, rate, ratio_of, full } = compared;
        progress(&format!("{workload} {name}: recording"));
        let (writes, _) = self.record(&work, part).await?;
        let mut turns = Turns::default();
        for run in 1..=self.options.runs {
            progress(&format!("{workload} {name}: run {run} of {}", self.options.runs));
            let place = self.ground.place().await?;
            let empty = place.bytes().await?;
            let ours = Child::start(&Errand { place: place.clone(), work: work.clone() })?.done().await?;
            // Both are closed by now: what their write-ahead log held is in the file.
            let kept = place.bytes().await?.saturating_sub(empty) as f64;
            self.ground.remove(place).await?;
            let size = size_of_commits(&writes, &ours, counted);
            turns.push_beside(BARE, ratio_of, self.bare(&writes, size, counted.0, rate).await?);
            if full > 1 {
                let sample = self.bare(&writes, full as f64, counted.0, rate).await?;
                turns.push_beside(FULL, ratio_of, sample);
            }
            let count = ours.get(counted.1);
            turns.ours.push(ours.with_some("kept_bytes_each", count.map(|count| kept / count)));
        }
        Ok(Measured::of(workload, name, settings, &turns))
    }

    /// Does the work in this process, and keeps what the engine wrote.
    pub async fn record(&self, work: &Work, part: Part) -> anyhow::Result<(Vec<Write>, Sample)> {
        let place = self.ground.place().await?;
        let mut desk = Desk::open(&place).await?;
        let recorder = Arc::new(Recorder::new(desk.store));
        desk.store = recorder.clone();
        let asleep = std::sync::Mutex::new(Sample::default());
        let done =
            work.perform(&desk, |sample| asleep.lock().map_or((), |mut asleep| *asleep = sample.clone()));
        done.await?;
        desk.store.close().await;
        let writes = Write::all(&recorder.take(), part)?;
        self.ground.remove(place).await?;
        Ok((writes, asleep.into_inner().unwrap_or_default()))
    }

    /// Writes what was recorded, in commits of this many writes.
    pub async fn bare(
        &self,
        writes: &[Write],
        size: f64,
        counted: &str,
        rate: &str,
    ) -> anyhow::Result<Sample> {
        let (measured, count) = counts(writes, counted);
        let place = self.ground.place().await?;
        let (empty, log) = (place.bytes().await?, place.log_bytes().await?);
        let mut played = bare::play(&place, writes.to_vec(), size).await?;
        let kept = place.bytes().await?.saturating_sub(empty) as f64;
        // Where only a part is measured, the log holds what that stands on too.
        let is_all = writes.iter().all(|write| write.is_measured);
        let log = place.log_bytes().await?.zip(log).filter(|_| is_all).map(|(after, before)| after - before);
        self.ground.remove(place).await?;
        let mut sagas = played.sagas;
        // What lies in memory to be written is not to be compared.
        played.metered.peak_mb = None;
        Ok(Sample::default()
            .with(rate, count / played.metered.wall.as_secs_f64())
            .with("saga_p50_ms", super::figures::quantile_ms(&mut sagas, 0.5))
            .with("saga_p99_ms", super::figures::quantile_ms(&mut sagas, 0.99))
            .with("writes_per_commit", measured / played.commits as f64)
            .with("kept_bytes_each", kept / count)
            .with_some("log_bytes_per_step", log.map(|bytes| bytes as f64 / count))
            .with_metered(&played.metered, count))
    }
}

/// How many writes are measured, and how many of the journal's entries in them are of this kind.
fn counts(writes: &[Write], kind: &str) -> (f64, f64) {
    let measured = || writes.iter().filter(|write| write.is_measured);
    let entries = measured().flat_map(Write::each).flat_map(|write| &write.journal);
    (measured().count() as f64, entries.filter(|row| row.kind == kind).count() as f64)
}

/// How many writes the engine's commits carried on average in this run. It may have had more or fewer sagas than the
/// recorded one.
pub fn size_of_commits(writes: &[Write], ours: &Sample, (kind, counted): (&str, &str)) -> f64 {
    let (measured, count) = counts(writes, kind);
    let ours_count = ours.get(counted).unwrap_or(count);
    ours.get("commits").map_or(1.0, |commits| measured * ours_count / count / commits)
}

/// Tells whoever waits what is going on.
pub fn progress(text: &str) {
    eprintln!("{text}");
}

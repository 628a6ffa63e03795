//! Asleep: the workloads of sleepers, W4 and W5.

use std::time::Duration;

use amends_engine::store::lease::LEASE;
use amends_engine::{Env, Timestamp};

use super::child::{Child, Errand};
use super::closed::Flow;
use super::options::Workload;
use super::report::{Measured, Turns};
use super::rows::Part;
use super::work::Work;
use super::workloads::{BARE, Bench, progress, size_of_commits};

const DAY: Duration = Duration::from_secs(86_400);

impl Bench<'_> {
    /// W4.
    pub async fn sleepers(&self) -> anyhow::Result<Vec<Measured>> {
        let sleepers = self.options.sleepers;
        let few = sleepers.div_ceil(10);
        progress("W4 sleepers: recording");
        let work = Work::Sleep { sleepers: few, until: soon(few, 1.0 / 1000.0), stays: true };
        let (writes, asleep) = self.record(&work, Part::Waking).await?;
        let each = asleep.get("asleep_after_s").unwrap_or(1.0) / few as f64;
        let (mut killed, mut alive) = (Turns::default(), Turns::default());
        for run in 1..=self.options.runs {
            progress(&format!("W4 sleepers: run {run} of {}", self.options.runs));
            let place = self.ground.place().await?;
            let until = soon(sleepers, each);
            let work = Work::Sleep { sleepers, until, stays: true };
            let mut child = Child::start(&Errand { place: place.clone(), work })?;
            let asleep = child.ready().await?;
            child.kill().await?;
            let env = Env::system();
            let due = until.since(env.now()) + Duration::from_millis(100);
            env.sleep(due.max(self.lease())).await;
            let work = Work::Wake { sleepers, asked_at: env.now() };
            let woken = Child::start(&Errand { place: place.clone(), work })?.done().await?;
            self.ground.remove(place).await?;
            let size = size_of_commits(&writes, &woken, ("timer_fired", "woken"));
            let bare = self.bare(&writes, size, "timer_fired", "woken_per_second").await?;
            killed.push_beside(BARE, "woken_per_second", bare);
            let of_asleep = |name| asleep.get(name);
            killed.ours.push(
                woken
                    .with_some("kept_bytes_per_sleeper", of_asleep("kept_bytes_per_sleeper"))
                    .with_some("idle_memory_mb", of_asleep("idle_memory_mb"))
                    .with_some("asleep_memory_mb", of_asleep("asleep_memory_mb")),
            );
            let place = self.ground.place().await?;
            let work = Work::Sleep { sleepers, until: soon(sleepers, each), stays: true };
            alive.ours.push(Child::start(&Errand { place: place.clone(), work })?.done().await?);
            self.ground.remove(place).await?;
        }
        let settings = [("sleepers", sleepers as u64)];
        let killed_name = "killed with sleepers, started again when they were due";
        Ok(vec![
            Measured::of(Workload::W4, killed_name, settings, &killed),
            Measured::of(Workload::W4, "all due at once in a live process", settings, &alive),
        ])
    }

    /// W5.
    pub async fn backlog(&self) -> anyhow::Result<Vec<Measured>> {
        let sleepers = self.options.sleepers * 10;
        let payload = self.options.payloads.first().copied().unwrap_or_default();
        progress(&format!("W5: putting {sleepers} to sleep"));
        let full = self.ground.place().await?;
        let work = Work::Sleep { sleepers, until: Env::system().now().plus(DAY), stays: false };
        let asleep = Child::start(&Errand { place: full.clone(), work })?.done().await?;
        let (sagas, in_flight) = (self.options.sagas, self.options.in_flight);
        let work = Work::Closed(self.of_closed(Flow::Steps, payload, sagas, in_flight));
        let mut turns = Turns::default();
        for run in 1..=self.options.runs {
            progress(&format!("W5: run {run} of {}", self.options.runs));
            let ours = Child::start(&Errand { place: full.clone(), work: work.clone() })?.done().await?;
            let empty = self.ground.place().await?;
            let theirs = Child::start(&Errand { place: empty.clone(), work: work.clone() })?.done().await?;
            self.ground.remove(empty).await?;
            turns.ours.push(ours);
            turns.push_beside("without sleepers", "steps_per_second", theirs);
        }
        self.ground.remove(full).await?;
        let settings = [
            ("sleepers", sleepers as u64),
            ("sagas", sagas as u64),
            ("steps", self.options.steps.into()),
            ("in_flight", in_flight as u64),
        ];
        let set_up = Turns { ours: vec![asleep], beside: Vec::new() };
        Ok(vec![
            Measured::of(Workload::W5, "put to sleep", [("sleepers", sleepers as u64)], &set_up),
            Measured::of(Workload::W5, "W1 beside sleepers", settings, &turns),
        ])
    }

    /// How long what a killed process held is nobody else's.
    fn lease(&self) -> Duration {
        if self.options.database_url.is_some() { LEASE + Duration::from_secs(1) } else { Duration::ZERO }
    }
}

/// When sleepers shall wake: once all of them can be asleep, at twice this many seconds for each.
fn soon(sleepers: usize, each: f64) -> Timestamp {
    let wait = Duration::from_secs_f64(2.0 + 2.0 * each * sleepers as f64);
    Env::system().now().plus(wait)
}

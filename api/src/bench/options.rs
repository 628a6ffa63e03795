//! Options: what is to be measured, of which size, and where.

use std::path::PathBuf;

use anyhow::bail;
use serde::{Deserialize, Serialize};
use strum::IntoEnumIterator;

/// One kind of work; the numbers are those of the list in `docs/benchmarks.md`.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    clap::ValueEnum,
    strum::Display,
    strum::EnumIter,
)]
pub enum Workload {
    /// Throughput: steps that make nothing, many sagas at a time
    #[value(name = "W1")]
    W1,
    /// Latency: the same, one saga at a time
    #[value(name = "W2")]
    W2,
    /// Durable starts, while nothing takes them up
    #[value(name = "W3")]
    W3,
    /// A process with sleepers killed, and started again after they were due; and all due at once in a live one
    #[value(name = "W4")]
    W4,
    /// W1 beside ten times as many sleepers
    #[value(name = "W5")]
    W5,
    /// Steps that open a resource on the ledger
    #[value(name = "W6")]
    W6,
    /// Unwinding: those resources taken back
    #[value(name = "W7")]
    W7,
    /// Steps in our own database: `transact`
    #[value(name = "W8")]
    W8,
    /// One, two and four processes on one Postgres
    #[value(name = "W10")]
    W10,
}

impl Workload {
    /// Whether its sagas can be asked for by HTTP requests.
    fn goes_over_http(self) -> bool {
        matches!(self, Self::W1 | Self::W2 | Self::W5 | Self::W6 | Self::W8)
    }
}

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which work; none stands for all that the store can do.
    pub workloads: Vec<Workload>,
    /// How many sagas a run of W1 has; the others have a fitting part of it.
    pub sagas: usize,
    /// How many steps each has.
    pub steps: u32,
    /// How many are under way at a time.
    pub in_flight: usize,
    /// How many pairs of ours and the bare loop.
    pub runs: usize,
    /// How many bytes a step of W1 yields; W1 is measured for each.
    pub payloads: Vec<usize>,
    /// Whether the sagas of W1, W2, W5, W6 and W8 are asked for by HTTP requests.
    pub over_http: bool,
    /// How many sleep in W4; ten times as many in W5.
    pub sleepers: usize,
    /// Where the databases are made, and removed afterwards.
    pub folder: PathBuf,
    /// A Postgres in which a database for each run is made, and removed afterwards; SQLite if there is none.
    pub database_url: Option<String>,
}

impl Options {
    /// What will be measured, in order.
    ///
    /// # Errors
    /// A number is zero or larger than makes sense, or the store cannot do what was asked for.
    pub fn checked(&self) -> anyhow::Result<Vec<Workload>> {
        if let Some(url) = &self.database_url
            && !url.starts_with("postgres://")
            && !url.starts_with("postgresql://")
        {
            bail!("--database-url is not a postgres:// URL");
        }
        let counts = [
            ("--sagas", self.sagas, 10_000_000),
            ("--steps", usize::try_from(self.steps)?, 1000),
            ("--in-flight", self.in_flight, 4096),
            ("--runs", self.runs, 100),
            ("--sleepers", self.sleepers, 1_000_000),
        ];
        for (name, value, most) in counts {
            if value == 0 || value > most {
                bail!("{name} is {value}, and may be 1 to {most}");
            }
        }
        if let Some(payload) = self.payloads.iter().find(|payload| **payload > 1 << 20) {
            bail!("--payload is {payload}, and may be at most {} bytes", 1 << 20);
        }
        if self.sagas < self.in_flight {
            bail!("--sagas is {}: fewer than are to be under way at a time ({})", self.sagas, self.in_flight);
        }
        let mut workloads = self.workloads.clone();
        if workloads.is_empty() {
            let asked =
                |workload: &Workload| self.can(*workload) && (!self.over_http || workload.goes_over_http());
            workloads = Workload::iter().filter(asked).collect();
        }
        if let Some(other) =
            self.workloads.iter().find(|workload| self.over_http && !workload.goes_over_http())
        {
            bail!("--over-http is for W1, W2, W5, W6 and W8: {other} asks for no sagas one by one");
        }
        workloads.sort_unstable();
        workloads.dedup();
        if let Some(other) = workloads.iter().find(|workload| !self.can(**workload)) {
            bail!("{other} needs several processes on one database: give --database-url postgres://…");
        }
        Ok(workloads)
    }

    fn can(&self, workload: Workload) -> bool {
        workload != Workload::W10 || self.database_url.is_some()
    }
}

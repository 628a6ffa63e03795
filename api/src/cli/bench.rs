//! Bench: what is measured, from the command line.

use std::path::PathBuf;

use super::{Exit, say, table};
use crate::bench::{self, Options, Workload};

const HOW: &str = "\
A figure is the median of all runs. The engine, in a process of its own, and the bare loop take turns, each on a
fresh database. Where others took more than a tenth of the machine, the figure is marked with ~ and says little.
docs/benchmarks.md says what each figure is.";

/// Measure the engine on this machine's disk, beside a bare loop that writes the same rows
#[derive(Debug, clap::Args)]
#[command(after_help = HOW)]
pub struct Bench {
    /// Which workloads; all that the store can do if none is named
    #[arg(value_enum, ignore_case = true, value_name = "WORKLOAD")]
    workloads: Vec<Workload>,
    /// How many sagas W1 runs; the others take a fitting part of it
    #[arg(long, default_value_t = 5000)]
    sagas: usize,
    /// How many steps each saga has
    #[arg(long, default_value_t = 10)]
    steps: u32,
    /// How many sagas are under way at a time
    #[arg(long, default_value_t = 100)]
    in_flight: usize,
    /// How many pairs of the engine and the bare loop are run
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// How many bytes a step yields; W1 is measured for each of them
    #[arg(long, value_delimiter = ',', default_value = "60", value_name = "BYTES")]
    payload: Vec<usize>,
    /// Ask for the sagas of W1, W2, W5, W6 and W8 by HTTP requests, as from another service
    #[arg(long)]
    over_http: bool,
    /// How many sleep in W4; ten times as many in W5
    #[arg(long, default_value_t = 10_000)]
    sleepers: usize,
    /// Where the databases are made, and removed afterwards: it is this folder's disk that is measured
    #[arg(long, default_value = ".")]
    folder: PathBuf,
    /// Measure on this Postgres instead of SQLite; each run has a database of its own there, removed afterwards
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `bench` runs in processes of their own
#[derive(Debug, clap::Args)]
pub struct Errand {
    errand: String,
}

impl Bench {
    /// Measures, and prints what came of it.
    pub async fn run(self) -> anyhow::Result<Exit> {
        let report = bench::run(&Options {
            workloads: self.workloads,
            sagas: self.sagas,
            steps: self.steps,
            in_flight: self.in_flight,
            runs: self.runs,
            payloads: self.payload,
            over_http: self.over_http,
            sleepers: self.sleepers,
            folder: self.folder,
            database_url: self.database_url,
        })
        .await?;
        if self.json {
            say(&format!("{}\n", serde_json::to_string_pretty(&report)?))?;
        } else {
            say(&table::bench(&report))?;
        }
        Ok(Exit::Done)
    }
}

impl Errand {
    /// Runs it.
    pub async fn run(self) -> anyhow::Result<Exit> {
        bench::child::run(&self.errand).await?;
        Ok(Exit::Done)
    }
}

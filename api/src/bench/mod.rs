//! Bench: what the engine does on this machine's disk, each beside a bare loop that writes the same rows.
//!
//! A workload is run once with a recorder around the store, untimed; then the engine, in a
//! process of its own, and the bare loop take turns, each on a fresh database. The bare loop writes
//! what was recorded, in commits as large as the engine's were in the run before it.

mod asleep;
mod bare;
pub mod child;
mod closed;
mod desk;
pub mod figures;
mod groups;
mod meter;
mod options;
mod over_http;
mod place;
mod processes;
mod record;
pub mod report;
mod rows;
mod sagas;
mod sleepers;
mod starts;
mod unwinding;
mod work;
mod workloads;

pub use options::{Options, Workload};
pub use report::{Measured, Report};

use place::Ground;

/// Measures what the options ask for, and removes every database that it made, whatever comes.
pub async fn run(options: &Options) -> anyhow::Result<Report> {
    let workloads = options.checked()?;
    let ground = Ground::new(&options.folder, options.database_url.as_deref())?;
    let measured = tokio::select! {
        measured = workloads::all(options, &ground, &workloads) => measured,
        stopped = tokio::signal::ctrl_c() => {
            stopped?;
            Err(anyhow::anyhow!("stopped; what it had made is removed"))
        }
    };
    let cleared = ground.clear().await;
    let results = measured?;
    cleared?;
    Ok(Report {
        store: if options.database_url.is_some() { "postgres" } else { "sqlite" },
        version: env!("CARGO_PKG_VERSION"),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        runs: options.runs,
        results,
    })
}

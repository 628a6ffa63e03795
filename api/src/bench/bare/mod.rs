//! The bare loop: writes the rows that the engine wrote, in commits as large as the engine's, without an engine.
//!
//! The rows lie ready in memory. They go through the driver that the engine's writer uses, at the same durability,
//! into the same tables with the same indexes. So what lies between its rate and the engine's is the engine.

mod postgres;
mod sqlite;

use std::collections::HashMap;
use std::time::Duration;

use super::meter::Metered;
use super::place::Place;
use super::rows::Write;

/// What the bare loop came to.
pub struct Played {
    /// What it took.
    pub metered: Metered,
    /// How many commits it made.
    pub commits: usize,
    /// How long the commits of each saga took together; one saga's, if each has commits of its own.
    pub sagas: Vec<Duration>,
}

/// Writes all of it, of which only what is measured counts, in commits of this many writes.
pub async fn play(place: &Place, writes: Vec<Write>, size: f64) -> anyhow::Result<Played> {
    let (measured, before): (Vec<Write>, Vec<Write>) =
        writes.into_iter().partition(|write| write.is_measured);
    match place {
        Place::Sqlite { .. } => {
            let file = place.file();
            tokio::task::spawn_blocking(move || sqlite::play(&file, before, measured, size)).await?
        }
        Place::Postgres { url, .. } => postgres::play(place, url, before, measured, size).await,
    }
}

/// How long the commits of each saga took together.
fn by_saga<'w>(commits: impl Iterator<Item = (&'w [Write], Duration)>) -> Vec<Duration> {
    let mut sagas: HashMap<&str, Duration> = HashMap::new();
    for (group, took) in commits {
        for write in group {
            *sagas.entry(&write.saga.id).or_default() += took;
        }
    }
    sagas.into_values().collect()
}

/// How many journal rows these write.
fn journal_rows<'w>(writes: impl Iterator<Item = &'w Write>) -> usize {
    writes.flat_map(Write::each).map(|write| write.journal.len()).sum()
}

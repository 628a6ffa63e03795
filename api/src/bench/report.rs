//! Report: what was measured, beside what it is to be compared with.

use std::collections::BTreeMap;

use serde::Serialize;

use super::figures::{Figure, Figures, NOISY, OTHERS, Sample};
use super::options::Workload;

/// All that a bench measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// `sqlite` or `postgres`.
    pub store: &'static str,
    /// The program's version.
    pub version: &'static str,
    /// How many processors the machine has.
    pub cores: usize,
    /// How many pairs of runs.
    pub runs: usize,
    /// Workload by workload.
    pub results: Vec<Measured>,
}

/// What one workload came to.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// Which.
    pub workload: Workload,
    /// In words.
    pub name: String,
    /// How large it was.
    pub settings: BTreeMap<&'static str, u64>,
    /// The engine's figures.
    pub ours: Figures,
    /// What they are compared with.
    pub beside: Vec<Beside>,
    /// The part of the machine that others took, 0 to 1: the median of all runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_load_share: Option<f64>,
    /// Others took so much that the figures say little.
    pub is_noisy: bool,
}

/// What the engine's figures are compared with, from runs that took turns with its own.
#[derive(Debug, Serialize)]
pub struct Beside {
    /// What it is.
    pub what: &'static str,
    /// Its figures.
    pub figures: Figures,
    /// Which figure is compared.
    pub ratio_of: &'static str,
    /// Ours over its, pair by pair.
    pub ratio: Option<Figure>,
}

/// Runs that took turns.
#[derive(Debug, Default)]
pub struct Turns {
    /// The engine's.
    pub ours: Vec<Sample>,
    /// Those of what it is compared with, and which figure is compared.
    pub beside: Vec<(&'static str, &'static str, Vec<Sample>)>,
}

impl Turns {
    /// With a run of something that the engine's last run is compared with, in this figure.
    pub fn push_beside(&mut self, what: &'static str, ratio_of: &'static str, sample: Sample) {
        match self.beside.iter_mut().find(|(known, _, _)| *known == what) {
            Some((_, _, samples)) => samples.push(sample),
            None => self.beside.push((what, ratio_of, vec![sample])),
        }
    }
}

impl Measured {
    /// Of these runs.
    pub fn of(
        workload: Workload,
        name: impl Into<String>,
        settings: impl IntoIterator<Item = (&'static str, u64)>,
        turns: &Turns,
    ) -> Self {
        let all = turns.ours.iter().chain(turns.beside.iter().flat_map(|(_, _, samples)| samples));
        let shares = all.filter_map(|sample| sample.get(OTHERS));
        let other_load_share = Figure::of(shares).map(|share| share.median);
        let beside = turns.beside.iter().map(|(what, ratio_of, theirs)| {
            let both = turns.ours.iter().zip(theirs);
            let ratios = both.filter_map(|(ours, theirs)| Some(ours.get(ratio_of)? / theirs.get(ratio_of)?));
            Beside { what, figures: Figures::of(theirs), ratio_of, ratio: Figure::of(ratios) }
        });
        Self {
            workload,
            name: name.into(),
            settings: settings.into_iter().collect(),
            ours: Figures::of(&turns.ours),
            beside: beside.collect(),
            other_load_share,
            is_noisy: other_load_share.is_some_and(|share| share > NOISY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_taken_pair_by_pair_and_a_loud_machine_is_said() {
        let sample = |rate, others| Sample::default().with("rate", rate).with(OTHERS, others);
        let mut turns = Turns::default();
        for (ours, theirs) in [(10.0, 20.0), (30.0, 40.0), (20.0, 10.0)] {
            turns.ours.push(sample(ours, 0.4));
            turns.push_beside("bare loop", "rate", sample(theirs, 0.2));
        }
        let measured = Measured::of(Workload::W1, "x", [("sagas", 3)], &turns);
        assert_eq!(measured.beside[0].ratio, Some(Figure { median: 0.75, min: 0.5, max: 2.0 }));
        assert!(measured.is_noisy);
        let quiet = Turns { ours: vec![sample(1.0, 0.05)], beside: Vec::new() };
        assert!(!Measured::of(Workload::W1, "x", [], &quiet).is_noisy);
    }
}

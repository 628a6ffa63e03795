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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beside: Option<Beside>,
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
pub struct Pairs {
    /// The engine's.
    pub ours: Vec<Sample>,
    /// Those of what it is compared with; as many, or none.
    pub theirs: Vec<Sample>,
}

impl Measured {
    /// Of these runs.
    pub fn of(
        workload: Workload,
        name: impl Into<String>,
        settings: impl IntoIterator<Item = (&'static str, u64)>,
        pairs: &Pairs,
        compared: Option<(&'static str, &'static str)>,
    ) -> Self {
        let shares = pairs.ours.iter().chain(&pairs.theirs).filter_map(|sample| sample.get(OTHERS));
        let other_load_share = Figure::of(shares).map(|share| share.median);
        let beside = compared.map(|(what, ratio_of)| {
            let both = pairs.ours.iter().zip(&pairs.theirs);
            let ratios = both.filter_map(|(ours, theirs)| Some(ours.get(ratio_of)? / theirs.get(ratio_of)?));
            Beside { what, figures: Figures::of(&pairs.theirs), ratio_of, ratio: Figure::of(ratios) }
        });
        Self {
            workload,
            name: name.into(),
            settings: settings.into_iter().collect(),
            ours: Figures::of(&pairs.ours),
            beside,
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
        let pairs = Pairs {
            ours: vec![sample(10.0, 0.0), sample(30.0, 0.4), sample(20.0, 0.4)],
            theirs: vec![sample(20.0, 0.0), sample(40.0, 0.3), sample(10.0, 0.2)],
        };
        let measured = Measured::of(Workload::W1, "x", [("sagas", 3)], &pairs, Some(("bare loop", "rate")));
        assert_eq!(measured.beside.unwrap().ratio, Some(Figure { median: 0.75, min: 0.5, max: 2.0 }));
        assert!(measured.is_noisy);
        let quiet = Pairs { ours: vec![sample(1.0, 0.05)], theirs: Vec::new() };
        assert!(!Measured::of(Workload::W1, "x", [], &quiet, None).is_noisy);
    }
}

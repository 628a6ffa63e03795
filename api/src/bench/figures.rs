//! Figures: what was measured, by name; of several runs the median with its bounds.

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::meter::Metered;

/// The figures of one run, by name; a name ends with its unit.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Sample(Vec<(String, f64)>);

impl Sample {
    /// With one more.
    #[must_use]
    pub fn with(mut self, name: &str, value: f64) -> Self {
        self.0.push((name.to_owned(), value));
        self
    }

    /// With one more, if it could be had.
    #[must_use]
    pub fn with_some(self, name: &str, value: Option<f64>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// With what a meter says of so many steps.
    #[must_use]
    pub fn with_metered(self, metered: &Metered, steps: f64) -> Self {
        self.with_some("cpu_s_per_1000_steps", metered.cpu.map(|cpu| cpu * 1000.0 / steps))
            .with_some("database_cpu_s_per_1000_steps", metered.cpu_beside.map(|cpu| cpu * 1000.0 / steps))
            .with_some("peak_memory_mb", metered.peak_mb)
            // With a server it is the server that writes.
            .with_some(
                "written_bytes_per_step",
                metered.written.filter(|bytes| *bytes > 0.0).map(|bytes| bytes / steps),
            )
            .with_some(OTHERS, metered.others)
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find_map(|(known, value)| (known == name).then_some(*value))
    }
}

/// The name of the share of the machine that others took.
pub const OTHERS: &str = "other_load_share";
/// Above this share of others a figure says little.
pub const NOISY: f64 = 0.1;

/// A figure of several runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figure {
    /// Half of the runs had at most this.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Figure {
    /// Of these; nothing if there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let upper = *values.get(values.len() / 2)?;
        let lower = *values.get((values.len() - 1) / 2)?;
        Some(Self { median: f64::midpoint(lower, upper), min, max })
    }
}

/// Figures by name, in the order in which they were measured.
#[derive(Debug, Clone, Default)]
pub struct Figures(pub Vec<(String, Figure)>);

impl Figures {
    /// Of these runs.
    pub fn of(samples: &[Sample]) -> Self {
        let names = samples.first().map(|sample| sample.0.as_slice()).unwrap_or_default();
        let figure = |name: &str| Figure::of(samples.iter().filter_map(|sample| sample.get(name)));
        Self(names.iter().filter_map(|(name, _)| Some((name.clone(), figure(name)?))).collect())
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Option<Figure> {
        self.0.iter().find_map(|(known, figure)| (known == name).then_some(*figure))
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, figure) in &self.0 {
            map.serialize_entry(name, figure)?;
        }
        map.end()
    }
}

/// The value below which this part of them lies, in milliseconds.
pub fn quantile_ms(times: &mut [std::time::Duration], part: f64) -> f64 {
    times.sort_unstable();
    let place = (times.len() as f64 * part) as usize;
    let time = times.get(place.min(times.len().saturating_sub(1)));
    time.map_or(0.0, |time| time.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_median_lies_between_the_two_in_the_middle() {
        assert_eq!(Figure::of([]), None);
        assert_eq!(Figure::of([3.0, 1.0, 2.0]), Some(Figure { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Figure::of([4.0, 1.0]), Some(Figure { median: 2.5, min: 1.0, max: 4.0 }));
    }

    #[test]
    fn the_99th_of_a_hundred_is_the_largest_but_one_or_the_largest() {
        let mut times: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert!((quantile_ms(&mut times, 0.5) - 51.0).abs() < 1e-9);
        assert!((quantile_ms(&mut times, 0.99) - 100.0).abs() < 1e-9);
        assert!(quantile_ms(&mut [], 0.5).abs() < 1e-9);
    }
}

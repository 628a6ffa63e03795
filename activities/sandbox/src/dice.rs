//! Dice: the sandbox's randomness, the same for the same seed.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

#[derive(Debug)]
pub(crate) struct Dice(StdRng);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// From 0 up to, and not including, 1.
    pub(crate) fn unit(&mut self) -> f64 {
        self.0.random()
    }

    /// So many hexadecimal digits.
    pub(crate) fn hex(&mut self, digits: usize) -> String {
        (0..digits).map(|_| char::from_digit(self.0.random_range(0..16), 16).unwrap_or('0')).collect()
    }

    pub(crate) fn below(&mut self, below: u64) -> u64 {
        self.0.random_range(0..below.max(1))
    }

    /// In the shape of a UUID.
    pub(crate) fn uuid(&mut self) -> String {
        let part = |dice: &mut Self, digits| dice.hex(digits);
        format!(
            "{}-{}-4{}-8{}-{}",
            part(self, 8),
            part(self, 4),
            part(self, 3),
            part(self, 3),
            part(self, 12)
        )
    }
}

impl Default for Dice {
    fn default() -> Self {
        Self::new(1)
    }
}

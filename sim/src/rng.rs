//! All the randomness of a simulation, from one number.

use flotilla_runtime::SplitMix64;

/// Forked for every part of the world, so that a draw more in one place doesn't reshuffle the others.
#[derive(Clone, Debug)]
pub struct Rng(SplitMix64);

impl Rng {
    /// Deterministic from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    /// A stream of its own.
    pub fn fork(&mut self, label: u64) -> Self {
        Self::new(self.next_u64() ^ label.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next()
    }

    /// Uniform from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.0.below(high - low + 1)
    }

    /// True so many times in a million.
    pub fn per_million(&mut self, chance: u64) -> bool {
        self.0.below(1_000_000) < chance
    }

    /// Exponential around `mean`, at most 20 times that.
    pub fn around(&mut self, mean: u64) -> u64 {
        // The logarithm of a uniform number, in 64ths, without floating point: the same on every machine.
        let bits = self.next_u64() | 1;
        let whole = u64::from(bits.leading_zeros());
        let rest = (bits << whole >> 58) & 31;
        let halvings = whole * 32 + (31 - rest);
        (mean * halvings / 46).min(mean * 20)
    }
}

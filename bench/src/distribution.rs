//! Which key next: uniform, Zipfian, a bell, or mostly the newest.
//!
//! One seed gives one sequence, so that every target of a run gets the very same operations.

use std::str::FromStr;

use flotilla_runtime::SplitMix64;
use flotilla_runtime::random::mix;

/// In [0, 1).
fn unit(random: &mut SplitMix64) -> f64 {
    (random.next() >> 11) as f64 / (1u64 << 53) as f64
}

/// How often each key is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Distribution {
    /// Each as often as any other.
    Uniform,
    /// The k-th most popular key is asked for in proportion to 1 / k^theta.
    Zipfian {
        /// The skew, above 0 and below 1; YCSB's is 0.99.
        theta: f64,
    },
    /// A bell over the key space: the middle keys most often, its standard deviation a sixth of the space, as memtier has it.
    Gaussian,
    /// Zipfian over age: the newest key most often, as in YCSB's workload D.
    Latest,
}

impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, theta) = text.split_once(':').map_or((text, None), |(name, theta)| (name, Some(theta)));
        match (name, theta) {
            ("uniform", None) => Ok(Self::Uniform),
            ("gaussian", None) => Ok(Self::Gaussian),
            ("latest", None) => Ok(Self::Latest),
            ("zipfian", None) => Ok(Self::Zipfian { theta: 0.99 }),
            ("zipfian", Some(theta)) => match theta.parse::<f64>() {
                Ok(theta) if theta > 0.0 && theta < 1.0 => Ok(Self::Zipfian { theta }),
                _ => Err("theta is a number above 0 and below 1, as in zipfian:0.99".to_owned()),
            },
            _ => Err("one of uniform, zipfian, zipfian:THETA, gaussian, latest".to_owned()),
        }
    }
}

impl std::fmt::Display for Distribution {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uniform => out.write_str("uniform"),
            Self::Zipfian { theta } => write!(out, "zipfian:{theta}"),
            Self::Gaussian => out.write_str("gaussian"),
            Self::Latest => out.write_str("latest"),
        }
    }
}

/// The newest so many keys may still be on their way: they aren't asked for.
const ON_THEIR_WAY: u64 = 1024;

/// Draws keys.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    distribution: Distribution,
    keys: u64,
    zipfian: Option<Zipfian>,
}

impl Keys {
    /// Out of `keys`.
    pub(crate) fn new(distribution: Distribution, keys: u64) -> Self {
        let zipfian = match distribution {
            Distribution::Zipfian { theta } => Some(Zipfian::new(keys, theta)),
            Distribution::Latest => Some(Zipfian::new(keys, 0.99)),
            Distribution::Uniform | Distribution::Gaussian => None,
        };
        Self { distribution, keys, zipfian }
    }

    /// The next key, when `inserted` more have been written than there were.
    pub(crate) fn next(&self, random: &mut SplitMix64, inserted: u64) -> u64 {
        match (self.distribution, &self.zipfian) {
            (Distribution::Latest, Some(zipfian)) => {
                let newest = (self.keys + inserted).saturating_sub(ON_THEIR_WAY).max(self.keys) - 1;
                newest - zipfian.rank(random).min(newest)
            }
            (_, Some(zipfian)) => zipfian.key(zipfian.rank(random)),
            (Distribution::Gaussian, None) => {
                // Twelve draws add up to a bell of deviation one, cut off at six: enough, and without a logarithm.
                let bell = (0..12).map(|_| unit(random)).sum::<f64>() - 6.0;
                let key = self.keys as f64 * (0.5 + bell / 6.0);
                (key.max(0.0) as u64).min(self.keys - 1)
            }
            (_, None) => random.below(self.keys),
        }
    }
}

/// Zipfian ranks in constant time: Gray et al., "Quickly generating billion-record synthetic databases", the
/// method of YCSB.
#[derive(Clone, Debug)]
pub(crate) struct Zipfian {
    keys: u64,
    theta: f64,
    zeta: f64,
    eta: f64,
    alpha: f64,
}

impl Zipfian {
    /// Prepares for `keys` ranks: one pass over them.
    pub(crate) fn new(keys: u64, theta: f64) -> Self {
        let zeta = |count: u64| (1..=count).map(|rank| (rank as f64).powf(-theta)).sum::<f64>();
        let total = zeta(keys);
        let eta = (1.0 - (2.0 / keys as f64).powf(1.0 - theta)) / (1.0 - zeta(2) / total);
        Self { keys, theta, zeta: total, eta, alpha: 1.0 / (1.0 - theta) }
    }

    /// A rank: 0 is the most popular.
    pub(crate) fn rank(&self, random: &mut SplitMix64) -> u64 {
        let unit = unit(random);
        let scaled = unit * self.zeta;
        if scaled < 1.0 || self.keys == 1 {
            return 0;
        }
        if scaled < 1.0 + 0.5f64.powf(self.theta) {
            return 1;
        }
        let rank = self.keys as f64 * (self.eta * unit - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.keys - 1)
    }

    /// The key of a rank. Popular keys are scattered over the key space, and so over the slots, as in YCSB; two
    /// ranks may meet in one key.
    pub(crate) fn key(&self, rank: u64) -> u64 {
        mix(rank.wrapping_add(1)) % self.keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipfian_frequencies_follow_the_power_law() {
        let (keys, theta, draws) = (1000, 0.99, 400_000);
        let zipfian = Zipfian::new(keys, theta);
        let mut random = SplitMix64::new(1);
        let mut counts = vec![0u32; keys as usize];
        for _ in 0..draws {
            counts[zipfian.rank(&mut random) as usize] += 1;
        }
        let total: f64 = (1..=keys).map(|rank| (rank as f64).powf(-theta)).sum();
        let share = |ranks: std::ops::Range<usize>| -> f64 {
            counts[ranks].iter().map(|&count| f64::from(count)).sum::<f64>() / f64::from(draws)
        };
        let ideal = |ranks: std::ops::Range<usize>| -> f64 {
            ranks.map(|rank| ((rank + 1) as f64).powf(-theta)).sum::<f64>() / total
        };
        for ranks in [0..1, 1..2, 2..10, 10..100, 100..500, 500..1000] {
            let (seen, wanted) = (share(ranks.clone()), ideal(ranks.clone()));
            assert!((seen / wanted - 1.0).abs() < 0.1, "{ranks:?}: {seen} instead of {wanted}");
        }
    }

    #[test]
    fn zipfian_stays_in_range_even_for_few_keys() {
        for keys in 1..5 {
            let zipfian = Zipfian::new(keys, 0.5);
            let mut random = SplitMix64::new(keys);
            assert!((0..10_000).all(|_| zipfian.rank(&mut random) < keys));
            assert!((0..keys).all(|rank| zipfian.key(rank) < keys));
        }
    }

    #[test]
    fn a_bell_is_in_the_middle_and_the_newest_come_first() {
        let mut random = SplitMix64::new(1);
        let bell = Keys::new(Distribution::Gaussian, 6000);
        let inside = (0..10_000).filter(|_| (2000..4000).contains(&bell.next(&mut random, 0))).count();
        assert!((6_600..7_060).contains(&inside), "68 % within one deviation: {inside}");
        let latest = Keys::new(Distribution::Latest, 6000);
        let newest = 6000 + 5000 - ON_THEIR_WAY - 1;
        let drawn: Vec<u64> = (0..10_000).map(|_| latest.next(&mut random, 5000)).collect();
        assert!(drawn.iter().all(|key| *key <= newest));
        let first = drawn.iter().filter(|key| **key == newest).count();
        assert!(first > 800, "the newest of all is asked for most: {first}");
    }

    #[test]
    fn distributions_are_parsed_and_printed() {
        for text in ["uniform", "zipfian:0.5", "gaussian", "latest"] {
            assert_eq!(text.parse::<Distribution>().unwrap().to_string(), text);
        }
        assert_eq!("zipfian".parse(), Ok(Distribution::Zipfian { theta: 0.99 }));
        for bad in ["zipf", "zipfian:1", "zipfian:x", "uniform:1"] {
            assert!(bad.parse::<Distribution>().is_err(), "{bad}");
        }
    }
}

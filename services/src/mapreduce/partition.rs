//! Which reducer gets a key.

use serde::{Deserialize, Serialize};

/// How keys are spread over the partitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Partitioner {
    /// By a hash of the key.
    Hash,
    /// By where the key lies between these bounds, which are sorted: partition 0 is below the first. The output
    /// files, one after the other, are sorted.
    Range(Vec<Vec<u8>>),
}

impl Partitioner {
    /// Bounds that cut a sample of keys into `partitions` parts of equal size.
    pub fn from_sample(mut sample: Vec<Vec<u8>>, partitions: u32) -> Self {
        sample.sort_unstable();
        let parts = partitions as usize;
        let mut bounds: Vec<Vec<u8>> =
            (1..parts).filter_map(|part| sample.get(part * sample.len() / parts)).cloned().collect();
        bounds.dedup();
        Self::Range(bounds)
    }

    /// The partition of a key.
    pub fn of(&self, key: &[u8], partitions: u32) -> u32 {
        match self {
            _ if partitions <= 1 => 0,
            Self::Hash => ((u64::from(partitions) * (hash(key) >> 32)) >> 32) as u32,
            Self::Range(bounds) => {
                let place = bounds.partition_point(|bound| bound.as_slice() <= key);
                u32::try_from(place).expect("bounds are fewer than partitions").min(partitions - 1)
            }
        }
    }

    /// Whether the order of the partitions is that of their keys.
    pub fn is_range(&self) -> bool {
        matches!(self, Self::Range(_))
    }
}

/// Every worker must hash alike, so this may never change within a job: a multiply and rotate over words of eight bytes.
pub fn hash(key: &[u8]) -> u64 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = key.len() as u64 ^ K;
    let mut mix = |word: u64| hash = (hash.rotate_left(23) ^ word).wrapping_mul(K);
    let mut words = key.chunks_exact(8);
    for word in &mut words {
        mix(u64::from_le_bytes(word.try_into().expect("eight bytes")));
    }
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    mix(u64::from_le_bytes(last));
    hash ^= hash >> 32;
    hash.wrapping_mul(K)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_in_order_and_even() {
        let keys: Vec<Vec<u8>> = (0..1000_u32).map(|n| n.to_be_bytes().to_vec()).collect();
        let ranges = Partitioner::from_sample(keys.clone(), 4);
        let parts: Vec<u32> = keys.iter().map(|key| ranges.of(key, 4)).collect();
        assert!(parts.is_sorted());
        for part in 0..4 {
            assert_eq!(parts.iter().filter(|of| **of == part).count(), 250);
        }
        assert_eq!(Partitioner::from_sample(vec![], 4).of(b"x", 4), 0);
        assert_eq!(Partitioner::from_sample(vec![b"a".to_vec(); 9], 4).of(b"b", 4), 1);
    }

    #[test]
    fn hashes_spread() {
        let mut counts = [0_u32; 16];
        for n in 0..16_000 {
            counts[Partitioner::Hash.of(format!("key{n}").as_bytes(), 16) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }
}

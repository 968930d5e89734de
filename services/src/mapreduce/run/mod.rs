//! Run files: what a map attempt leaves for the reducers. The format is drawn in `docs/mapreduce.md`.
//!
//! A run file is a sequence of *segments*, each the sorted pairs of one partition, in blocks that are compressed and
//! checksummed by themselves. A task that was short of memory wrote several segments for a partition; the reducer
//! merges them like those of different tasks.

mod merge;
mod reader;
mod writer;

pub use merge::Merge;
pub use reader::{ReadAt, SegmentReader};
pub use writer::RunWriter;

use serde::{Deserialize, Serialize};

/// The bytes that a run file begins with.
pub const MAGIC: [u8; 8] = *b"FLOTRUN1";
/// Bytes of a block's header: raw length, stored length with [`COMPRESSED`], CRC of what is stored.
pub const BLOCK_HEADER_BYTES: usize = 12;
/// No block is longer before compression, but for a single pair that is longer by itself.
pub const BLOCK_BYTES: usize = 64 << 10;
/// A bit in the stored length.
pub const COMPRESSED: u32 = 1 << 31;
/// No key or value may be longer.
pub const PAIR_BYTES_MAX: usize = 256 << 20;

/// Sorted pairs of one partition within a run file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Whose they are.
    pub partition: u32,
    /// The first byte in the file.
    pub offset: u64,
    /// Bytes as stored.
    pub bytes: u64,
    /// Pairs.
    pub records: u64,
}

/// The first eight bytes of a key as a number that compares as they do.
#[inline]
pub fn prefix(key: &[u8]) -> u64 {
    match key.first_chunk::<8>() {
        Some(first) => u64::from_be_bytes(*first),
        None => {
            let mut padded = [0; 8];
            padded[..key.len()].copy_from_slice(key);
            u64::from_be_bytes(padded)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(pairs: &[(&[u8], &[u8])]) -> (Vec<u8>, Segment) {
        let mut writer = RunWriter::new(Vec::new()).unwrap();
        writer.begin(3);
        for (key, value) in pairs {
            writer.push(key, value).unwrap();
        }
        let (file, segments) = writer.finish().unwrap();
        (file, segments[0])
    }

    type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

    fn pairs_of(file: &[u8], segment: Segment) -> Result<Pairs, crate::mapreduce::MrError> {
        let mut reader = SegmentReader::new(file, "test", segment)?;
        let mut pairs = Vec::new();
        while reader.advance()? {
            pairs.push((reader.key().to_vec(), reader.value().to_vec()));
        }
        Ok(pairs)
    }

    #[test]
    fn pairs_come_back_whatever_their_size() {
        let long = vec![b'x'; 200_000];
        let mut noise = vec![0_u8; 100_000];
        let mut state = 1_u64;
        for byte in &mut noise {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (state >> 56) as u8;
        }
        let pairs: Vec<(&[u8], &[u8])> =
            vec![(b"", b""), (b"a", b"1"), (b"a", &noise), (b"ab", b""), (b"abc", &long), (&long, b"z")];
        let (file, segment) = written(&pairs);
        assert_eq!((segment.partition, segment.records), (3, 6));
        let back = pairs_of(&file, segment).unwrap();
        let expected: Pairs = pairs.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        assert!(back == expected);
        let (alike, _) = written(&[(b"a", &long), (b"b", &long)]);
        assert!(alike.len() < 4000, "what can be compressed is: {}", alike.len());
    }

    #[test]
    fn every_flipped_bit_of_a_segment_is_seen() {
        let pairs: Pairs = (0..300).map(|n| (format!("key{n:05}").into_bytes(), vec![n as u8; 3])).collect();
        let borrowed: Vec<(&[u8], &[u8])> = pairs.iter().map(|(k, v)| (&k[..], &v[..])).collect();
        let (file, segment) = written(&borrowed);
        let (from, to) = (segment.offset as usize, (segment.offset + segment.bytes) as usize);
        for at in from..to {
            let mut bad = file.clone();
            bad[at] ^= 1 << (at % 8);
            assert!(pairs_of(&bad, segment).is_err(), "byte {at}");
        }
        assert!(pairs_of(&file[..to - 1], segment).is_err(), "cut off");
        assert_eq!(pairs_of(&file, segment).unwrap(), pairs);
        let fewer = Segment { records: segment.records - 1, ..segment };
        assert!(pairs_of(&file, fewer).is_err(), "the number of pairs is checked too");
    }
}

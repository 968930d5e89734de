//! A snapshot file: the parts of one group's state, each with the index it is good for.
//!
//! ```text
//! part   0 "SNP1" │ 4 version u16 │ 6 kind u16 │ 8 group u64 │ 16 unit u32 │ 20 units u32 │ 24 index u64 │ 32 term u64
//!        40 clock u64 │ 48 payload bytes u64 │ 56 crc32 of the payload │ 60 crc32 of these 60 bytes │ payload │ zeros
//! ```
//!
//! A part starts at a multiple of 4 KiB. Part `n` of `units` holds the n-th shard as it was at `index`; the last part is
//! an end mark without payload. The parts may be taken at different indices, so that taking a snapshot never stops the
//! group: the snapshot as a whole is good for the *first* part's index, and whoever restores it applies an entry to a
//! shard only if it is newer than that shard's part.

use crate::error::StorageError;
use flotilla_runtime::{BlockPool, FileId, Slice};

/// Bytes of a part's header.
pub const PART_HEADER_BYTES: usize = 64;
const MAGIC: [u8; 4] = *b"SNP1";
const VERSION: u16 = 1;
const KIND_DATA: u16 = 1;
const KIND_END: u16 = 2;

/// What a part says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartHeader {
    /// The Raft group.
    pub group: u64,
    /// Which part; as many as there are: the end mark.
    pub unit: u32,
    /// How many parts there are, besides the end mark.
    pub units: u32,
    /// The part holds what was true after this entry.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The owner's clock then.
    pub clock: u64,
}

/// The bytes of a part, ready to be written.
pub fn encode(pool: &BlockPool, header: &PartHeader, payload: &[u8]) -> Slice {
    let mut block = pool.allocate(PART_HEADER_BYTES + payload.len(), 0);
    let kind = if header.unit == header.units { KIND_END } else { KIND_DATA };
    let mut bytes = [0; PART_HEADER_BYTES];
    bytes[0..4].copy_from_slice(&MAGIC);
    bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
    bytes[6..8].copy_from_slice(&kind.to_le_bytes());
    bytes[8..16].copy_from_slice(&header.group.to_le_bytes());
    bytes[16..20].copy_from_slice(&header.unit.to_le_bytes());
    bytes[20..24].copy_from_slice(&header.units.to_le_bytes());
    bytes[24..32].copy_from_slice(&header.index.to_le_bytes());
    bytes[32..40].copy_from_slice(&header.term.to_le_bytes());
    bytes[40..48].copy_from_slice(&header.clock.to_le_bytes());
    bytes[48..56].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes[56..60].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
    let crc = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    block.append(&bytes);
    block.append(payload);
    block.finish(|_, _| {})
}

/// Reads a whole file: its parts in order, the end mark left out.
///
/// # Errors
/// [`StorageError::Snapshot`] if anything isn't as it was written.
pub fn parse(file: FileId, image: &Slice) -> Result<Vec<(PartHeader, Slice)>, StorageError> {
    let bad =
        |at: usize, what: &str| StorageError::Snapshot { file, offset: at as u64, what: what.to_owned() };
    let mut parts = Vec::new();
    let mut at = 0;
    loop {
        let (header, bytes, crc) =
            parse_header(&image[at..]).ok_or_else(|| bad(at, "no good part header"))?;
        let start = at + PART_HEADER_BYTES;
        let end = usize::try_from(bytes).ok().and_then(|bytes| start.checked_add(bytes));
        let end = end.filter(|end| *end <= image.len()).ok_or_else(|| bad(at, "a part is cut off"))?;
        let payload = image.subslice(start, end);
        if crc32fast::hash(&payload) != crc {
            return Err(bad(at, "a part's checksum is wrong"));
        }
        if header.unit as usize != parts.len() {
            return Err(bad(at, "a part is missing"));
        }
        if header.unit == header.units {
            return Ok(parts);
        }
        parts.push((header, payload));
        at = flotilla_runtime::block::round_up(end);
        if at >= image.len() {
            return Err(bad(at, "the end mark is missing"));
        }
    }
}

fn parse_header(bytes: &[u8]) -> Option<(PartHeader, u64, u32)> {
    let bytes = bytes.get(..PART_HEADER_BYTES)?;
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes of 64"));
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes of 64"));
    let version = u16::from_le_bytes([bytes[4], bytes[5]]);
    if bytes[0..4] != MAGIC || version != VERSION || crc32fast::hash(&bytes[..60]) != word(60) {
        return None;
    }
    let header = PartHeader {
        group: long(8),
        unit: word(16),
        units: word(20),
        index: long(24),
        term: long(32),
        clock: long(40),
    };
    Some((header, long(48), word(56)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_runtime::FileKind;

    const FILE: FileId = FileId { kind: FileKind::Snapshot, number: 1 };

    fn image(mutate: impl FnOnce(&mut Vec<u8>)) -> Slice {
        let pool = BlockPool::heap();
        let mut bytes = Vec::new();
        for unit in 0..3 {
            let header =
                PartHeader { group: 7, unit, units: 2, index: 10 + u64::from(unit), term: 3, clock: 99 };
            bytes.extend_from_slice(&encode(&pool, &header, &vec![5; 5000 * (2 - unit as usize)]));
        }
        mutate(&mut bytes);
        pool.copy_of(&bytes)
    }

    #[test]
    fn a_snapshot_survives_its_file() {
        let parts = parse(FILE, &image(|_| {})).unwrap();
        let shape: Vec<_> = parts.iter().map(|(header, payload)| (header.index, payload.len())).collect();
        assert_eq!(shape, [(10, 10_000), (11, 5000)]);
    }

    #[test]
    fn damage_is_seen() {
        assert!(parse(FILE, &image(|bytes| bytes[30] ^= 1)).is_err(), "a header");
        assert!(parse(FILE, &image(|bytes| bytes[9000] ^= 1)).is_err(), "a payload");
        assert!(parse(FILE, &image(|bytes| bytes.truncate(12_288))).is_err(), "the rest is missing");
        assert!(
            parse(FILE, &image(|bytes| bytes.drain(0..12_288).for_each(drop))).is_err(),
            "the start is missing"
        );
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = parse(FILE, &BlockPool::heap().copy_of(&bytes));
        }
    }
}

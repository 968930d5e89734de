//! A snapshot file: the state of one group in parts, each with the index that it is good for.
//!
//! ```text
//! part   0 "SNP2" │ 4 version u16 │ 6 kind u16 │ 8 group u64 │ 16 shard u32 │ 20 shards u32 │ 24 index u64 │ 32 term u64
//!        40 clock u64 │ 48 payload bytes u32 │ 52 piece u32 │ 56 crc32 of the payload │ 60 crc32 of these 60 bytes
//!        64 payload │ zeros
//! ```
//!
//! A part starts at a multiple of 4 KiB and holds a piece of a shard. All pieces of a shard show it as it was at `index`;
//! the shards may be taken at different indices, so that taking a snapshot never stops the group: the snapshot as a whole
//! is good for the *first* shard's index, and whoever restores it applies an entry to a shard only if it is newer than
//! that shard's. The last part is an end mark, whose payload is the owner's. The bytes of the file are also what is sent to a follower.

use crate::error::StorageError;
use flotilla_runtime::block::round_up;
use flotilla_runtime::{BlockPool, FileId, Slice};

/// Bytes of a part's header.
pub const PART_HEADER_BYTES: usize = 64;
const MAGIC: [u8; 4] = *b"SNP2";
const VERSION: u16 = 2;

/// What a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartKind {
    /// A piece of a shard; more of it follows.
    Piece,
    /// The last piece of a shard.
    LastPiece,
    /// The end of the snapshot.
    End,
}

/// What a part says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartHeader {
    /// What it is.
    pub kind: PartKind,
    /// The Raft group.
    pub group: u64,
    /// Which shard of the group; as many as there are: the end mark.
    pub shard: u32,
    /// How many shards there are.
    pub shards: u32,
    /// Which piece of the shard, from 0.
    pub piece: u32,
    /// The shard as it was after this entry.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The owner's clock then.
    pub clock: u64,
}

/// The bytes of a part, ready to be written: whole blocks.
///
/// # Panics
/// If the payload is 4 GiB or more.
pub fn encode(pool: &BlockPool, header: &PartHeader, payload: &[u8]) -> Slice {
    let mut block = pool.allocate(PART_HEADER_BYTES + payload.len(), 0);
    let kind: u16 = match header.kind {
        PartKind::Piece => 1,
        PartKind::LastPiece => 2,
        PartKind::End => 3,
    };
    let length = u32::try_from(payload.len()).expect("pieces are small");
    let mut bytes = [0; PART_HEADER_BYTES];
    bytes[0..4].copy_from_slice(&MAGIC);
    bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
    bytes[6..8].copy_from_slice(&kind.to_le_bytes());
    bytes[8..16].copy_from_slice(&header.group.to_le_bytes());
    bytes[16..20].copy_from_slice(&header.shard.to_le_bytes());
    bytes[20..24].copy_from_slice(&header.shards.to_le_bytes());
    bytes[24..32].copy_from_slice(&header.index.to_le_bytes());
    bytes[32..40].copy_from_slice(&header.term.to_le_bytes());
    bytes[40..48].copy_from_slice(&header.clock.to_le_bytes());
    bytes[48..52].copy_from_slice(&length.to_le_bytes());
    bytes[52..56].copy_from_slice(&header.piece.to_le_bytes());
    bytes[56..60].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
    let crc = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    block.append(&bytes);
    block.append(payload);
    block.finish(|_, _| {})
}

/// Reads a snapshot part by part, from bytes that come piece by piece.
#[derive(Debug)]
pub struct SnapshotReader {
    file: FileId,
    /// Bytes of whole parts that were read.
    offset: u64,
    pending: Vec<u8>,
    /// The part before.
    last: Option<PartHeader>,
}

impl SnapshotReader {
    /// Expects the file's first byte. `file` is named in errors.
    pub fn new(file: FileId) -> Self {
        Self { file, offset: 0, pending: Vec::new(), last: None }
    }

    /// Takes the next bytes of the file and shows every part that they complete.
    ///
    /// # Errors
    /// [`StorageError::Snapshot`] if anything isn't as it was written, or in the words of `each`.
    pub fn read(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(&PartHeader, &[u8]) -> Result<(), String>,
    ) -> Result<(), StorageError> {
        // Usually the bytes are whole parts, and needn't be copied.
        let pending = std::mem::take(&mut self.pending);
        let joined = if pending.is_empty() { None } else { Some([&pending[..], bytes].concat()) };
        let bytes = joined.as_deref().unwrap_or(bytes);
        let mut at = 0;
        while let Some((header, payload)) = self.part(&bytes[at..])? {
            each(&header, payload).map_err(|what| self.bad(&what))?;
            let length = round_up(PART_HEADER_BYTES + payload.len());
            at += length;
            self.offset += length as u64;
            self.last = Some(header);
        }
        self.pending = bytes[at..].to_vec();
        Ok(())
    }

    /// Whether the end mark was read, and nothing behind it.
    pub fn is_whole(&self) -> bool {
        self.last.is_some_and(|last| last.kind == PartKind::End) && self.pending.is_empty()
    }

    fn bad(&self, what: &str) -> StorageError {
        StorageError::Snapshot { file: self.file, offset: self.offset, what: what.to_owned() }
    }

    /// The part at the front, if it is here whole.
    fn part<'b>(&self, bytes: &'b [u8]) -> Result<Option<(PartHeader, &'b [u8])>, StorageError> {
        if bytes.len() < PART_HEADER_BYTES {
            return Ok(None);
        }
        let (header, length, crc) = parse_header(bytes).ok_or_else(|| self.bad("no good part header"))?;
        if !self.follows(&header) {
            return Err(self.bad("a part is missing"));
        }
        if bytes.len() < round_up(PART_HEADER_BYTES + length) {
            return Ok(None);
        }
        let payload = &bytes[PART_HEADER_BYTES..PART_HEADER_BYTES + length];
        if crc32fast::hash(payload) != crc {
            return Err(self.bad("a part's checksum is wrong"));
        }
        Ok(Some((header, payload)))
    }

    fn follows(&self, header: &PartHeader) -> bool {
        let expected = match &self.last {
            None => (0, 0),
            Some(last) => match last.kind {
                PartKind::Piece => (last.shard, last.piece + 1),
                PartKind::LastPiece => (last.shard + 1, 0),
                PartKind::End => return false,
            },
        };
        let same = self.last.is_none_or(|last| (last.group, last.shards) == (header.group, header.shards));
        let is_end = header.kind == PartKind::End;
        same && (header.shard, header.piece) == expected && is_end == (header.shard == header.shards)
    }
}

/// Reads a whole file: the parts in order, the end mark left out.
///
/// # Errors
/// [`StorageError::Snapshot`] if anything isn't as it was written.
pub fn parse(
    file: FileId,
    image: &[u8],
    mut each: impl FnMut(&PartHeader, &[u8]) -> Result<(), String>,
) -> Result<(), StorageError> {
    let mut reader = SnapshotReader::new(file);
    reader.read(image, |header, payload| match header.kind {
        PartKind::End => Ok(()),
        _ => each(header, payload),
    })?;
    if reader.is_whole() { Ok(()) } else { Err(reader.bad("the end mark is missing")) }
}

fn parse_header(bytes: &[u8]) -> Option<(PartHeader, usize, u32)> {
    let bytes = bytes.get(..PART_HEADER_BYTES)?;
    let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes of 64"));
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes of 64"));
    if bytes[0..4] != MAGIC || half(4) != VERSION || crc32fast::hash(&bytes[..60]) != word(60) {
        return None;
    }
    let kind = match half(6) {
        1 => PartKind::Piece,
        2 => PartKind::LastPiece,
        3 => PartKind::End,
        _ => return None,
    };
    let header = PartHeader {
        kind,
        group: long(8),
        shard: word(16),
        shards: word(20),
        index: long(24),
        term: long(32),
        clock: long(40),
        piece: word(52),
    };
    Some((header, word(48) as usize, word(56)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_runtime::FileKind;

    const FILE: FileId = FileId { kind: FileKind::Snapshot, number: 1 };

    /// Two shards, the first in two pieces.
    fn image() -> Vec<u8> {
        let pool = BlockPool::new();
        let part = |kind, shard, piece, bytes| {
            let index = 10 + u64::from(shard);
            let header = PartHeader { kind, group: 7, shard, shards: 2, piece, index, term: 3, clock: 99 };
            encode(&pool, &header, &vec![5; bytes]).to_vec()
        };
        [
            part(PartKind::Piece, 0, 0, 10_000),
            part(PartKind::LastPiece, 0, 1, 100),
            part(PartKind::LastPiece, 1, 0, 5000),
            part(PartKind::End, 2, 0, 0),
        ]
        .concat()
    }

    fn shape(image: &[u8]) -> Result<Vec<(u64, usize)>, StorageError> {
        let mut parts = Vec::new();
        parse(FILE, image, |header, payload| {
            parts.push((header.index, payload.len()));
            Ok(())
        })?;
        Ok(parts)
    }

    #[test]
    fn a_snapshot_survives_its_file() {
        assert_eq!(shape(&image()).unwrap(), [(10, 10_000), (10, 100), (11, 5000)]);
    }

    #[test]
    fn bytes_may_come_in_any_pieces() {
        for piece in [1000, 4096, 5000, 8192, 100_000] {
            let mut reader = SnapshotReader::new(FILE);
            let mut bytes = 0;
            for part in image().chunks(piece) {
                assert!(!reader.is_whole());
                let read = reader.read(part, |_, payload| {
                    bytes += payload.len();
                    Ok(())
                });
                read.unwrap();
            }
            assert!(reader.is_whole() && bytes == 15_100, "{piece}");
        }
    }

    #[test]
    fn damage_is_seen() {
        let changed = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = image();
            change(&mut bytes);
            shape(&bytes)
        };
        assert!(changed(&|bytes| bytes[30] ^= 1).is_err(), "a header");
        assert!(changed(&|bytes| bytes[9000] ^= 1).is_err(), "a payload");
        assert!(changed(&|bytes| bytes.truncate(12_288)).is_err(), "the rest is missing");
        assert!(changed(&|bytes| drop(bytes.drain(0..12_288))).is_err(), "the start is missing");
        assert!(changed(&|bytes| drop(bytes.drain(12_288..16_384))).is_err(), "a piece is missing");
        assert!(changed(&|bytes| bytes.extend_from_slice(&[1; 100])).is_err(), "something is behind it");
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = shape(&bytes);
        }
    }
}

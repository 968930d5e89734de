//! The unit of space: a file written with zeros ahead of use, and taken into use again and again.
//!
//! Its first 4 KiB say what it is; frames follow. Every time it is taken into use it gets a new *epoch*, which its
//! frames carry, so what is left of its former life can't be taken for new.

use crate::{Lsn, NUMBER_MAX};
use flotilla_runtime::block::BLOCK_BYTES;

/// The first bytes of a segment in use.
pub const SEGMENT_MAGIC: [u8; 4] = *b"SEG1";
/// Bytes before the first frame.
pub const SEGMENT_HEADER_BYTES: u64 = BLOCK_BYTES as u64;
/// Bytes of the header that mean something, the checksum last.
const USED_BYTES: usize = 72;

/// Whose log it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: u64,
    /// The node.
    pub node: u32,
    /// The core.
    pub core: u16,
}

/// A segment's first block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whose log it is.
    pub identity: Identity,
    /// The number in the file's name.
    pub file: u64,
    /// This activation.
    pub epoch: u64,
    /// The segment before; 0 for the first.
    pub previous_epoch: u64,
    /// The last frame of the segment before: what lies behind it there was cut off.
    pub previous: Lsn,
    /// That frame's header checksum.
    pub previous_crc: u32,
    /// Segments of earlier epochs were not needed any more.
    pub oldest_live: u64,
}

/// What a segment's first block turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstBlock {
    /// A header.
    Header(SegmentHeader),
    /// A header of a version that this code doesn't know.
    OtherVersion(u16),
    /// Zeros, or a header that was torn while it was written: the file is a spare.
    None,
}

impl SegmentHeader {
    /// Whether the segment begins right behind this frame.
    pub fn follows(&self, last: Lsn, header_crc: u32) -> bool {
        self.previous == last && self.previous_crc == header_crc
    }

    /// The bytes of the first block that mean something; zeros follow.
    pub fn encode(&self) -> [u8; USED_BYTES] {
        let mut bytes = [0; USED_BYTES];
        bytes[0..4].copy_from_slice(&SEGMENT_MAGIC);
        bytes[4..6].copy_from_slice(&crate::frame::FORMAT_VERSION.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.identity.core.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.identity.cluster.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.identity.node.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.previous_crc.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.file.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.previous.0.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.oldest_live.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.previous_epoch.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..USED_BYTES - 4]);
        bytes[USED_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a segment's first block.
    pub fn parse(bytes: &[u8]) -> FirstBlock {
        let Some(bytes) = bytes.get(..USED_BYTES) else { return FirstBlock::None };
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes of 72"));
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes of 72"));
        if bytes[0..4] != SEGMENT_MAGIC || crc32fast::hash(&bytes[..USED_BYTES - 4]) != word(USED_BYTES - 4) {
            return FirstBlock::None;
        }
        let version = u16::from_le_bytes([bytes[4], bytes[5]]);
        if version != crate::frame::FORMAT_VERSION {
            return FirstBlock::OtherVersion(version);
        }
        if [32, 40].into_iter().any(|at| long(at) > NUMBER_MAX) {
            return FirstBlock::None;
        }
        let core = u16::from_le_bytes([bytes[6], bytes[7]]);
        FirstBlock::Header(Self {
            identity: Identity { cluster: long(8), node: word(16), core },
            previous_crc: word(20),
            file: long(24),
            epoch: long(32),
            previous: Lsn(long(40)),
            oldest_live: long(48),
            previous_epoch: long(56),
        })
    }
}

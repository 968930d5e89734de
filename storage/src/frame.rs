//! The unit of writing: one group commit's records.
//!
//! ```text
//! 0        4        6          8      16    24       32           36       40        44          48            56
//! ┌────────┬────────┬──────────┬──────┬─────┬────────┬────────────┬────────┬─────────┬───────────┬─────────────┐
//! │ "FRM1" │ version│header len│epoch │ LSN │durable │payload len │records │prev crc │header crc │oldest live  │
//! ├────────┴────────┴──────────┴──────┼─────┴────────┴────────────┴────────┴─────────┴───────────┴─────────────┘
//! │ touched │ touched by the one before│ crc32 …
//! └─────────┴──────────────────────────┴────────
//! 56        72                         88
//! ```
//!
//! then the records, then zeros up to a multiple of 4 KiB. There is a crc32 for every 4 KiB of payload. A frame
//! starts at a multiple of 4 KiB and shares no block with another: what is durable is never written again.
//!
//! Each header also says which groups have records in its frame and in the frame before. If a frame is damaged, its own
//! header or the next one's tells whom that concerns: all others lose nothing.

use crate::record::RecordKind;
use crate::{Lsn, NUMBER_MAX};
use flotilla_runtime::block::{BLOCK_BYTES, round_up};

/// The first bytes of every frame.
pub const FRAME_MAGIC: [u8; 4] = *b"FRM1";
/// The format this code writes.
pub const FORMAT_VERSION: u16 = 2;
/// Bytes of a frame's header before its checksums.
const FIXED_BYTES: usize = 88;

/// Bytes to hold back for the header of a frame whose whole block has `capacity` bytes.
pub fn header_bytes(capacity: usize) -> usize {
    (FIXED_BYTES + 4 * capacity.div_ceil(BLOCK_BYTES)).next_multiple_of(16)
}

/// The least capacity, a multiple of 4 KiB, of a frame that holds `payload` bytes.
pub fn capacity_for(payload: usize) -> usize {
    let mut capacity = round_up(payload + header_bytes(payload));
    while header_bytes(capacity) + payload > capacity {
        capacity += BLOCK_BYTES;
    }
    capacity
}

/// Which groups have records in a frame: a bit for each group's number modulo 64, so a core with up to 64 groups tells
/// them apart exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// By any record.
    pub groups: u64,
    /// By a hard state: a term or a vote.
    pub votes: u64,
}

impl Touched {
    /// All groups, in every way: what has to be assumed when nothing is known.
    pub const ALL: Self = Self { groups: u64::MAX, votes: u64::MAX };

    fn bit(group: u64) -> u64 {
        1 << (group % 64)
    }

    /// A record of `group` is in the frame.
    pub fn note(&mut self, group: u64, kind: RecordKind) {
        self.groups |= Self::bit(group);
        if kind == RecordKind::HardState {
            self.votes |= Self::bit(group);
        }
    }

    /// What one of both touches.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self { groups: self.groups | other.groups, votes: self.votes | other.votes }
    }

    /// Whether it may hold records of `group`.
    pub fn has(self, group: u64) -> bool {
        self.groups & Self::bit(group) != 0
    }

    /// Whether it may hold a hard state of `group`.
    pub fn has_vote(self, group: u64) -> bool {
        self.votes & Self::bit(group) != 0
    }

    fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.groups.to_le_bytes());
        bytes[8..].copy_from_slice(&self.votes.to_le_bytes());
        bytes
    }
}

/// What a frame says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The activation of the segment that it was written into.
    pub epoch: u64,
    /// Its number.
    pub lsn: Lsn,
    /// Every frame up to this one was durable when it was built.
    pub durable: Lsn,
    /// Bytes before the payload.
    pub header_len: u16,
    /// Bytes of records, with their padding.
    pub payload_len: u32,
    /// How many records.
    pub records: u32,
    /// The header checksum of the frame before.
    pub prev_crc: u32,
    /// The checksum of this header.
    pub header_crc: u32,
    /// Segments of earlier epochs are not needed any more.
    pub oldest_live: u64,
    /// Whose records it holds.
    pub touched: Touched,
    /// Whose records the frame before holds.
    pub touched_before: Touched,
}

/// Why bytes are no frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadFrame {
    /// They don't even begin like one.
    NoMagic,
    /// The header's checksum is wrong, or it contradicts itself.
    Header,
    /// The payload's checksum is wrong in the 4 KiB starting at this byte of it.
    Payload(usize),
}

impl FrameHeader {
    /// Bytes that the frame takes in its file.
    pub fn frame_bytes(&self) -> usize {
        round_up(usize::from(self.header_len) + self.payload_len as usize)
    }

    /// Writes the header of a finished frame into `head`, given its records and padding. Returns the checksum
    /// that the next frame will name.
    pub fn write(&self, head: &mut [u8], rest: &[u8]) -> u32 {
        let payload = &rest[..self.payload_len as usize];
        head[0..4].copy_from_slice(&FRAME_MAGIC);
        head[4..6].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        head[6..8].copy_from_slice(&self.header_len.to_le_bytes());
        head[8..16].copy_from_slice(&self.epoch.to_le_bytes());
        head[16..24].copy_from_slice(&self.lsn.0.to_le_bytes());
        head[24..32].copy_from_slice(&self.durable.0.to_le_bytes());
        head[32..36].copy_from_slice(&self.payload_len.to_le_bytes());
        head[36..40].copy_from_slice(&self.records.to_le_bytes());
        head[40..44].copy_from_slice(&self.prev_crc.to_le_bytes());
        head[44..48].fill(0);
        head[48..56].copy_from_slice(&self.oldest_live.to_le_bytes());
        head[56..72].copy_from_slice(&self.touched.encode());
        head[72..88].copy_from_slice(&self.touched_before.encode());
        for (place, block) in payload.chunks(BLOCK_BYTES).enumerate() {
            let at = FIXED_BYTES + 4 * place;
            head[at..at + 4].copy_from_slice(&crc32fast::hash(block).to_le_bytes());
        }
        let crc = crc32fast::hash(head);
        head[44..48].copy_from_slice(&crc.to_le_bytes());
        crc
    }

    /// Reads a header, verifying its own checksum only.
    ///
    /// # Errors
    /// [`BadFrame`].
    pub fn parse(bytes: &[u8]) -> Result<Self, BadFrame> {
        let Some(fixed) = bytes.get(..FIXED_BYTES) else { return Err(BadFrame::NoMagic) };
        if fixed[0..4] != FRAME_MAGIC {
            return Err(BadFrame::NoMagic);
        }
        let half = |at: usize| u16::from_le_bytes([fixed[at], fixed[at + 1]]);
        let word = |at: usize| {
            u32::from_le_bytes(fixed[at..at + 4].try_into().expect("four bytes of the fixed header"))
        };
        let long = |at: usize| {
            u64::from_le_bytes(fixed[at..at + 8].try_into().expect("eight bytes of the fixed header"))
        };
        let header = Self {
            epoch: long(8),
            lsn: Lsn(long(16)),
            durable: Lsn(long(24)),
            header_len: half(6),
            payload_len: word(32),
            records: word(36),
            prev_crc: word(40),
            header_crc: word(44),
            oldest_live: long(48),
            touched: Touched { groups: long(56), votes: long(64) },
            touched_before: Touched { groups: long(72), votes: long(80) },
        };
        let checksums = (header.payload_len as usize).div_ceil(BLOCK_BYTES);
        let head = bytes.get(..usize::from(header.header_len)).ok_or(BadFrame::Header)?;
        if half(4) != FORMAT_VERSION
            || !(1..=NUMBER_MAX).contains(&header.lsn.0)
            || header.epoch > NUMBER_MAX
            || head.len() < FIXED_BYTES + 4 * checksums
            || bytes.len() < header.frame_bytes()
        {
            return Err(BadFrame::Header);
        }
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&head[..44]);
        hasher.update(&[0; 4]);
        hasher.update(&head[48..]);
        if hasher.finalize() != header.header_crc {
            return Err(BadFrame::Header);
        }
        Ok(header)
    }

    /// The payload of the frame whose header this is, verified.
    ///
    /// # Errors
    /// [`BadFrame::Payload`].
    pub fn payload<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], BadFrame> {
        let start = usize::from(self.header_len);
        let payload = &bytes[start..start + self.payload_len as usize];
        for (place, block) in payload.chunks(BLOCK_BYTES).enumerate() {
            let at = FIXED_BYTES + 4 * place;
            let expected =
                u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes of the header"));
            if crc32fast::hash(block) != expected {
                return Err(BadFrame::Payload(place * BLOCK_BYTES));
            }
        }
        Ok(payload)
    }
}

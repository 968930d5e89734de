//! Writes a run file.

use super::{BLOCK_BYTES, BLOCK_HEADER_BYTES, COMPRESSED, MAGIC, Segment};
use crate::mapreduce::varint;
use std::io::{self, Write};

/// After a block that didn't shrink, so many are stored as they are before another try.
const TRY_AGAIN_AFTER: u32 = 15;

/// Writes sorted pairs, segment after segment.
#[derive(Debug)]
pub struct RunWriter<W> {
    out: W,
    offset: u64,
    segments: Vec<Segment>,
    block: Vec<u8>,
    packed: Vec<u8>,
    last_key: Vec<u8>,
    store_only: u32,
}

impl<W: Write> RunWriter<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// As the writer.
    pub fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&MAGIC)?;
        Ok(Self {
            out,
            offset: MAGIC.len() as u64,
            segments: Vec::new(),
            block: Vec::with_capacity(BLOCK_BYTES + 4096),
            packed: Vec::new(),
            last_key: Vec::new(),
            store_only: 0,
        })
    }

    /// Begins a segment; the one before must have been ended by [`Self::end`].
    pub fn begin(&mut self, partition: u32) {
        assert!(self.block.is_empty(), "the segment before has ended");
        self.segments.push(Segment { partition, offset: self.offset, bytes: 0, records: 0 });
        self.last_key.clear();
    }

    /// Appends a pair to the segment. Keys come in order.
    ///
    /// # Errors
    /// As the writer.
    #[inline]
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if self.block.len() + key.len() + value.len() + 30 > BLOCK_BYTES && !self.block.is_empty() {
            self.cut()?;
        }
        let shared = shared(&self.last_key, key);
        varint::put(&mut self.block, shared as u64);
        varint::put(&mut self.block, (key.len() - shared) as u64);
        varint::put(&mut self.block, value.len() as u64);
        self.block.extend_from_slice(&key[shared..]);
        self.block.extend_from_slice(value);
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(&key[shared..]);
        let segment = self.segments.last_mut().expect("begun");
        segment.records += 1;
        Ok(())
    }

    /// Ends the segment.
    ///
    /// # Errors
    /// As the writer.
    pub fn end(&mut self) -> io::Result<()> {
        self.cut()?;
        if self.segments.last().is_some_and(|segment| segment.records == 0) {
            self.segments.pop();
        }
        Ok(())
    }

    fn cut(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let mut packed_bytes = 0;
        if self.store_only > 0 {
            self.store_only -= 1;
        } else {
            self.packed.resize(lz4_flex::block::get_maximum_output_size(self.block.len()), 0);
            packed_bytes = lz4_flex::block::compress_into(&self.block, &mut self.packed)
                .expect("the room for the worst case was made");
            if packed_bytes * 8 > self.block.len() * 7 {
                (packed_bytes, self.store_only) = (0, TRY_AGAIN_AFTER);
            }
        }
        let stored = if packed_bytes > 0 { &self.packed[..packed_bytes] } else { &self.block[..] };
        let flag = if packed_bytes > 0 { COMPRESSED } else { 0 };
        let length = u32::try_from(stored.len()).expect("pairs are bounded");
        let raw = u32::try_from(self.block.len()).expect("pairs are bounded");
        let mut header = [0; BLOCK_HEADER_BYTES];
        header[..4].copy_from_slice(&raw.to_le_bytes());
        header[4..8].copy_from_slice(&(length | flag).to_le_bytes());
        let crc = checksum(&header[..8], stored);
        header[8..].copy_from_slice(&crc.to_le_bytes());
        self.out.write_all(&header)?;
        self.out.write_all(stored)?;
        let bytes = (BLOCK_HEADER_BYTES + stored.len()) as u64;
        self.offset += bytes;
        self.segments.last_mut().expect("begun").bytes += bytes;
        self.block.clear();
        // Blocks are read alone: the first key of each is whole.
        self.last_key.clear();
        Ok(())
    }

    /// Ends the file: the index of its segments, for tools; reducers have it in the manifest.
    ///
    /// # Errors
    /// As the writer.
    pub fn finish(mut self) -> io::Result<(W, Vec<Segment>)> {
        if !self.segments.is_empty() {
            self.end()?;
        }
        let mut index = Vec::with_capacity(self.segments.len() * 28);
        for segment in &self.segments {
            index.extend_from_slice(&segment.partition.to_le_bytes());
            index.extend_from_slice(&segment.offset.to_le_bytes());
            index.extend_from_slice(&segment.bytes.to_le_bytes());
            index.extend_from_slice(&segment.records.to_le_bytes());
        }
        let count = u32::try_from(self.segments.len()).expect("partitions times spills");
        let crc = crc32fast::hash(&index);
        index.extend_from_slice(&count.to_le_bytes());
        index.extend_from_slice(&crc.to_le_bytes());
        index.extend_from_slice(&MAGIC);
        self.out.write_all(&index)?;
        self.offset += index.len() as u64;
        self.out.flush()?;
        Ok((self.out, self.segments))
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.offset
    }
}

/// Of a block: its lengths are under the checksum as well.
pub(super) fn checksum(lengths: &[u8], stored: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(lengths);
    hasher.update(stored);
    hasher.finalize()
}

/// How many bytes two keys have in common at the front.
#[inline]
fn shared(a: &[u8], b: &[u8]) -> usize {
    let mut at = 0;
    while let (Some(left), Some(right)) = (a[at..].first_chunk::<8>(), b[at..].first_chunk::<8>()) {
        let differ = u64::from_le_bytes(*left) ^ u64::from_le_bytes(*right);
        if differ != 0 {
            return at + (differ.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    at + a[at..].iter().zip(&b[at..]).take_while(|(left, right)| left == right).count()
}

//! Reads one segment of a run file, block after block.

use super::writer::checksum;
use super::{BLOCK_HEADER_BYTES, COMPRESSED, PAIR_BYTES_MAX, Segment, prefix};
use crate::mapreduce::{MrError, varint};
use std::io;

/// Bytes that can be read at any place: a file, or memory.
pub trait ReadAt {
    /// Fills `into` with the bytes from `offset`.
    ///
    /// # Errors
    /// As the file; [`io::ErrorKind::UnexpectedEof`] if there are fewer.
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for [u8] {
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let found = from.checked_add(into.len()).and_then(|to| self.get(from..to));
        into.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl<R: ReadAt + ?Sized> ReadAt for &R {
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_exact_at(into, offset)
    }
}

impl<R: ReadAt + ?Sized> ReadAt for std::sync::Arc<R> {
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_exact_at(into, offset)
    }
}

/// A cursor over the pairs of a segment.
#[derive(Debug)]
pub struct SegmentReader<R> {
    file: R,
    path: String,
    segment: Segment,
    /// Bytes of the segment that were read.
    read: u64,
    records: u64,
    stored: Vec<u8>,
    block: Vec<u8>,
    at: usize,
    key: Vec<u8>,
    prefix: u64,
    value: (usize, usize),
}

impl<R: ReadAt> SegmentReader<R> {
    /// A cursor before the first pair.
    ///
    /// # Errors
    /// None yet.
    pub fn new(file: R, path: &str, segment: Segment) -> Result<Self, MrError> {
        Ok(Self {
            file,
            path: path.to_owned(),
            segment,
            read: 0,
            records: 0,
            stored: Vec::new(),
            block: Vec::new(),
            at: 0,
            key: Vec::new(),
            prefix: 0,
            value: (0, 0),
        })
    }

    /// The key of the pair that the cursor is at.
    #[inline]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Its first eight bytes, see [`prefix`].
    #[inline]
    pub fn prefix(&self) -> u64 {
        self.prefix
    }

    /// The value of the pair that the cursor is at.
    #[inline]
    pub fn value(&self) -> &[u8] {
        &self.block[self.value.0..self.value.1]
    }

    /// Goes to the next pair; `false` after the last.
    ///
    /// # Errors
    /// [`MrError::Damaged`], [`MrError::Io`].
    #[inline]
    pub fn advance(&mut self) -> Result<bool, MrError> {
        if self.at == self.block.len() && !self.next_block()? {
            return Ok(false);
        }
        match self.pair() {
            Some(()) => Ok(true),
            None => Err(self.damaged("a pair that isn't one")),
        }
    }

    #[inline]
    fn pair(&mut self) -> Option<()> {
        let rest = &self.block[self.at..];
        let (shared, a) = varint::get(rest)?;
        let (unshared, b) = varint::get(&rest[a..])?;
        let (value, c) = varint::get(&rest[a + b..])?;
        let (shared, unshared, value) =
            (usize::try_from(shared).ok()?, usize::try_from(unshared).ok()?, usize::try_from(value).ok()?);
        let head = a + b + c;
        let key_end = head.checked_add(unshared)?;
        let end = key_end.checked_add(value)?;
        if shared > self.key.len() || end > rest.len() {
            return None;
        }
        self.key.truncate(shared);
        self.key.extend_from_slice(&rest[head..key_end]);
        if shared < 8 {
            self.prefix = prefix(&self.key);
        } else if self.key.len() < 8 {
            return None;
        }
        self.value = (self.at + key_end, self.at + end);
        self.at += end;
        self.records += 1;
        Some(())
    }

    fn next_block(&mut self) -> Result<bool, MrError> {
        if self.read == self.segment.bytes {
            if self.records != self.segment.records {
                let found = format!("{} pairs where {} were written", self.records, self.segment.records);
                return Err(self.damaged(&found));
            }
            return Ok(false);
        }
        let mut header = [0; BLOCK_HEADER_BYTES];
        self.fill(|reader| reader.file.read_exact_at(&mut header, reader.segment.offset + reader.read))?;
        let [raw, stored, crc] =
            [0, 4, 8].map(|at| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes")));
        let length = (stored & !COMPRESSED) as usize;
        let end = self.read + (BLOCK_HEADER_BYTES + length) as u64;
        if end > self.segment.bytes || raw as usize > 2 * PAIR_BYTES_MAX + 64 {
            return Err(self.damaged("a block longer than its segment"));
        }
        let from = self.segment.offset + self.read + BLOCK_HEADER_BYTES as u64;
        let is_packed = stored & COMPRESSED != 0;
        let mut into = std::mem::take(if is_packed { &mut self.stored } else { &mut self.block });
        into.resize(length, 0);
        let read = self.fill(|reader| reader.file.read_exact_at(&mut into, from));
        let is_whole = checksum(&header[..8], &into) == crc;
        if is_packed {
            self.block.resize(raw as usize, 0);
            let unpacked = is_whole.then(|| lz4_flex::block::decompress_into(&into, &mut self.block));
            self.stored = into;
            read?;
            if !matches!(unpacked, Some(Ok(bytes)) if bytes == raw as usize) {
                return Err(self.damaged("a block whose checksum is wrong"));
            }
        } else {
            self.block = into;
            read?;
            if !is_whole || length != raw as usize {
                return Err(self.damaged("a block whose checksum is wrong"));
            }
        }
        self.read = end;
        self.at = 0;
        self.key.clear();
        if self.block.is_empty() {
            return Err(self.damaged("an empty block"));
        }
        Ok(true)
    }

    fn fill(&self, read: impl FnOnce(&Self) -> io::Result<()>) -> Result<(), MrError> {
        read(self).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("the file ends within a segment"),
            _ => MrError::io("reading the run file", &self.path)(error),
        })
    }

    fn damaged(&self, what: &str) -> MrError {
        let offset = self.segment.offset + self.read;
        MrError::Damaged { path: self.path.clone(), offset, what: what.to_owned() }
    }
}

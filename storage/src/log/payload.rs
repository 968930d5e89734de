//! Where a payload is serialized: the frame itself.

use flotilla_runtime::BlockWriter;
use rkyv::rancor::Source;
use rkyv::ser::{Positional, Writer};

/// Writes one payload into the open frame. Positions count from the payload's start, which is 16-aligned, so an
/// rkyv archive written through this is readable in place.
#[derive(Debug)]
pub struct PayloadWriter<'a> {
    block: &'a mut BlockWriter,
    start: usize,
    bytes_max: usize,
}

/// The payload would be longer than was announced.
#[derive(Debug, thiserror::Error)]
#[error("a payload overruns the {0} bytes that were announced for it")]
pub(super) struct Overrun(usize);

impl<'a> PayloadWriter<'a> {
    pub(super) fn new(block: &'a mut BlockWriter, bytes_max: usize) -> Self {
        let start = block.filled();
        Self { block, start, bytes_max }
    }

    /// Bytes written so far.
    pub fn written(&self) -> usize {
        self.block.filled() - self.start
    }

    /// Appends plain bytes.
    ///
    /// # Panics
    /// If that overruns what was announced.
    pub fn put(&mut self, bytes: &[u8]) {
        assert!(self.written() + bytes.len() <= self.bytes_max, "{}", Overrun(self.bytes_max));
        self.block.append(bytes);
    }
}

impl Positional for PayloadWriter<'_> {
    fn pos(&self) -> usize {
        self.written()
    }
}

impl<E: Source> Writer<E> for PayloadWriter<'_>
where
    Self: Sized,
{
    fn write(&mut self, bytes: &[u8]) -> Result<(), E> {
        if self.written() + bytes.len() > self.bytes_max {
            return Err(E::new(Overrun(self.bytes_max)));
        }
        self.block.append(bytes);
        Ok(())
    }
}

//! Aligned, append-only buffers that go to disk and to peers without a copy.
//!
//! A [`BlockWriter`] owns 4 KiB-aligned memory and fills it from the front. What has been appended never
//! changes again, so a [`Slice`] of it (a reference-counted range) may be read, sent and kept while the
//! writer goes on behind it. Only the first bytes, which [`BlockPool::allocate`] was told to hold back for a
//! header, are written late, by [`BlockWriter::finish`]; no `Slice` ever shows them before that.
//!
//! In the driver the memory is glommio's (registered with io_uring where it can be); everywhere else it is
//! the heap's. It belongs to one core: nothing here is `Send`.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;

/// The unit of alignment, of padding and of tearing: what a disk writes whole is at best this much.
pub const BLOCK_BYTES: usize = 4096;

/// Rounds up to a multiple of [`BLOCK_BYTES`].
pub fn round_up(bytes: usize) -> usize {
    bytes.next_multiple_of(BLOCK_BYTES)
}

/// Where blocks come from.
#[derive(Clone)]
pub struct BlockPool {
    source: Source,
}

#[derive(Clone, Copy)]
enum Source {
    Heap,
    Dma,
}

impl fmt::Debug for BlockPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.source {
            Source::Heap => "BlockPool(heap)",
            Source::Dma => "BlockPool(dma)",
        })
    }
}

impl BlockPool {
    /// Blocks on the heap: for the simulator, tests and tools.
    pub fn heap() -> Self {
        Self { source: Source::Heap }
    }

    /// Blocks that glommio can write as they are. To be used inside an executor only.
    pub(crate) fn dma() -> Self {
        Self { source: Source::Dma }
    }

    /// An empty block of at least `bytes` bytes (rounded up to 4 KiB), whose first `held_back` bytes are
    /// skipped until [`BlockWriter::finish`].
    ///
    /// # Panics
    /// If `held_back` exceeds `bytes`.
    pub fn allocate(&self, bytes: usize, held_back: usize) -> BlockWriter {
        assert!(held_back <= bytes, "a header of {held_back} bytes doesn't fit a block of {bytes}");
        let capacity = round_up(bytes.max(1));
        let memory = match &self.source {
            Source::Heap => Memory::heap(capacity),
            Source::Dma => Memory::dma(glommio::allocate_dma_buffer(capacity)),
        };
        BlockWriter { memory: Rc::new(memory), filled: held_back, held_back, shown: Cell::new(held_back) }
    }

    /// A finished block holding a copy of `bytes`, zero-padded to 4 KiB; the slice shows the padding too.
    pub fn copy_of(&self, bytes: &[u8]) -> Slice {
        let mut writer = self.allocate(bytes.len(), 0);
        writer.append(bytes);
        writer.finish(|_, _| {})
    }
}

enum Owner {
    Heap(Layout),
    /// In a cell so that `finish` can trim it; nobody else touches it before the write.
    Dma(RefCell<Rc<glommio::io::DmaBuffer>>),
}

struct Memory {
    start: NonNull<u8>,
    capacity: usize,
    owner: Owner,
}

impl Memory {
    fn heap(capacity: usize) -> Self {
        let layout =
            Layout::from_size_align(capacity, BLOCK_BYTES).expect("capacity is a small multiple of 4 KiB");
        // SAFETY: the layout's size is not zero: `allocate` rounds up to at least 4 KiB.
        // Covered by `tests::a_slice_outlives_its_writer`.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start, capacity, owner: Owner::Heap(layout) }
    }

    fn dma(mut buffer: glommio::io::DmaBuffer) -> Self {
        let capacity = buffer.len();
        let start = NonNull::new(buffer.as_mut_ptr()).expect("glommio hands out real memory");
        Self { start, capacity, owner: Owner::Dma(RefCell::new(Rc::new(buffer))) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Owner::Heap(layout) = self.owner {
            // SAFETY: allocated in `Memory::heap` with this layout, freed once, here.
            // Covered by `tests::a_slice_outlives_its_writer`.
            unsafe { dealloc(self.start.as_ptr(), layout) }
        }
    }
}

/// The one writer of a block. Appends; never changes what it appended.
pub struct BlockWriter {
    memory: Rc<Memory>,
    filled: usize,
    held_back: usize,
    /// The end of the furthest slice handed out: nothing before it may change any more.
    shown: Cell<usize>,
}

impl fmt::Debug for BlockWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockWriter({} of {} bytes)", self.filled, self.memory.capacity)
    }
}

impl BlockWriter {
    /// Bytes in the block, header included.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Bytes that still fit.
    pub fn room(&self) -> usize {
        self.memory.capacity - self.filled
    }

    /// Bytes the block can hold in all.
    pub fn capacity(&self) -> usize {
        self.memory.capacity
    }

    /// Appends a copy of `bytes`.
    ///
    /// # Panics
    /// If they don't fit: ask [`Self::room`] first.
    pub fn append(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "{} bytes don't fit in {}", bytes.len(), self.room());
        // SAFETY: the range is inside the allocation (asserted above); no `Slice` covers bytes at or past
        // `filled`, and this is the only writer, so nobody reads them. `bytes` can't overlap them for the
        // same reason. Covered by `tests::earlier_slices_stay_as_the_writer_goes_on`.
        unsafe {
            let end = self.memory.start.as_ptr().add(self.filled);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), end, bytes.len());
        }
        self.filled += bytes.len();
    }

    /// Appends `bytes` bytes that `fill` writes. What they are before is anybody's guess.
    ///
    /// # Errors
    /// What `fill` returns; then nothing was appended.
    ///
    /// # Panics
    /// If they don't fit.
    pub fn append_with<E>(
        &mut self,
        bytes: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        assert!(bytes <= self.room(), "{bytes} bytes don't fit in {}", self.room());
        // SAFETY: the range is inside the allocation (asserted above) and initialised: blocks of the heap begin as zeros,
        // and glommio's as whatever their memory held. No `Slice` covers bytes at or past `filled`, and this is the only
        // writer, so nobody else sees them. Covered by `tests::what_is_filled_in_place_is_read_back`.
        let room =
            unsafe { std::slice::from_raw_parts_mut(self.memory.start.as_ptr().add(self.filled), bytes) };
        fill(room)?;
        self.filled += bytes;
        Ok(())
    }

    /// Appends zeros up to the next multiple of `alignment` (a power of two), counted from the block's start.
    pub fn align(&mut self, alignment: usize) {
        let padding = self.filled.next_multiple_of(alignment) - self.filled;
        assert!(padding <= self.room(), "{padding} zeros don't fit in {}", self.room());
        // SAFETY: as in `append`. Covered by `tests::the_header_is_written_last`.
        unsafe { std::ptr::write_bytes(self.memory.start.as_ptr().add(self.filled), 0, padding) };
        self.filled += padding;
    }

    /// Writes again what was appended at `start` (a length that wasn't known before).
    ///
    /// # Panics
    /// If it wasn't appended, or a [`Slice`] may show it.
    pub fn patch(&mut self, start: usize, bytes: &[u8]) {
        assert!(start >= self.shown.get() && start + bytes.len() <= self.filled, "patch of what may be read");
        // SAFETY: the range is inside the allocation and initialised (below `filled`), and behind every slice
        // handed out (both asserted), so nobody reads it. Covered by `tests::only_what_nobody_sees_is_patched`.
        unsafe {
            let at = self.memory.start.as_ptr().add(start);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len());
        }
    }

    /// What has been appended between `start` and `end`.
    ///
    /// # Panics
    /// If the range reaches into the held-back header or past what was appended.
    pub fn slice(&self, start: usize, end: usize) -> Slice {
        assert!(start >= self.held_back && start <= end && end <= self.filled, "slice of what isn't written");
        self.shown.set(self.shown.get().max(end));
        Slice { memory: Rc::clone(&self.memory), start, end }
    }

    /// Pads with zeros to a multiple of 4 KiB and lets `header` write the held-back bytes, given the rest of the
    /// block. The result is the whole block, ready for [`crate::Effect::Write`].
    pub fn finish(mut self, header: impl FnOnce(&mut [u8], &[u8])) -> Slice {
        self.align(BLOCK_BYTES);
        // SAFETY: both ranges are inside the allocation and disjoint; no `Slice` covers the held-back bytes
        // (`slice` asserts it), so the mutable one is unique. They are initialised: the
        // held-back bytes just here, the rest when it was appended. Covered by `tests::the_header_is_written_last`.
        let (head, rest) = unsafe {
            let start = self.memory.start.as_ptr();
            std::ptr::write_bytes(start, 0, self.held_back);
            (
                std::slice::from_raw_parts_mut(start, self.held_back),
                std::slice::from_raw_parts(start.add(self.held_back), self.filled - self.held_back),
            )
        };
        header(head, rest);
        if let Owner::Dma(buffer) = &self.memory.owner {
            let mut buffer = buffer.borrow_mut();
            let buffer = Rc::get_mut(&mut buffer).expect("not handed to glommio before it is finished");
            buffer.trim_to_size(self.filled);
        }
        Slice { memory: Rc::clone(&self.memory), start: 0, end: self.filled }
    }
}

/// A range of a block, kept alive by a reference count. Cheap to clone, reads as `[u8]`.
#[derive(Clone)]
pub struct Slice {
    memory: Rc<Memory>,
    start: usize,
    end: usize,
}

impl Slice {
    /// A range of this slice.
    ///
    /// # Panics
    /// If it reaches past the end.
    pub fn subslice(&self, start: usize, end: usize) -> Self {
        assert!(start <= end && end <= self.len(), "{start}..{end} of a slice of {}", self.len());
        Self { memory: Rc::clone(&self.memory), start: self.start + start, end: self.start + end }
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start..end` was inside `filled` when the slice was made, and bytes below `filled` are
        // initialised and never written again (the held-back header only before a slice can show it).
        // The memory lives as long as the reference count. Covered by `tests::a_slice_outlives_its_writer`.
        unsafe {
            std::slice::from_raw_parts(self.memory.start.as_ptr().add(self.start), self.end - self.start)
        }
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_in_place_is_read_back() {
        let mut writer = BlockPool::heap().allocate(8192, 0);
        let filled = writer.append_with(5000, |room| {
            assert!(room.iter().all(|byte| *byte == 0));
            room.fill(7);
            Ok::<_, ()>(())
        });
        assert!(filled.is_ok() && writer.append_with(10, |_| Err("no")).is_err());
        writer.append(b"x");
        assert_eq!(
            (&writer.slice(4990, 5001)[..], writer.filled()),
            (&b"\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07x"[..], 5001)
        );
    }

    #[test]
    fn earlier_slices_stay_as_the_writer_goes_on() {
        let mut writer = BlockPool::heap().allocate(100, 16);
        writer.append(b"first");
        let first = writer.slice(16, 21);
        writer.align(16);
        let start = writer.filled();
        writer.append(b"second");
        assert_eq!((&*first, &*writer.slice(start, start + 6)), (&b"first"[..], &b"second"[..]));
    }

    #[test]
    fn a_slice_outlives_its_writer() {
        let slice = {
            let mut writer = BlockPool::heap().allocate(BLOCK_BYTES * 2, 0);
            writer.append(&[7; 5000]);
            writer.slice(4000, 5000)
        };
        assert_eq!(&*slice.subslice(10, 12), &[7, 7]);
        assert_eq!(slice.as_ptr() as usize % 16, 0);
    }

    #[test]
    fn the_header_is_written_last() {
        let mut writer = BlockPool::heap().allocate(1, 1);
        assert_eq!((writer.capacity(), writer.room()), (BLOCK_BYTES, BLOCK_BYTES - 1));
        writer.append(b"payload");
        let early = writer.slice(1, 8);
        let block = writer.finish(|head, rest| head[0] = rest[0]);
        assert_eq!((block.len(), &block[..8], &*early), (BLOCK_BYTES, &b"ppayload"[..], &b"payload"[..]));
        assert!(block[8..].iter().all(|byte| *byte == 0), "padding is zero");
    }

    #[test]
    fn only_what_nobody_sees_is_patched() {
        let mut writer = BlockPool::heap().allocate(64, 0);
        writer.append(b"shown?????tail");
        assert_eq!(&*writer.slice(0, 5), b"shown");
        writer.patch(5, b"later");
        assert_eq!(&*writer.slice(0, 14), b"shownlatertail");
    }

    #[test]
    #[should_panic(expected = "patch of what may be read")]
    fn what_somebody_sees_never_changes() {
        let mut writer = BlockPool::heap().allocate(64, 0);
        writer.append(b"0123456789");
        let _seen = writer.slice(0, 6);
        writer.patch(5, b"x");
    }

    #[test]
    #[should_panic(expected = "slice of what isn't written")]
    fn nobody_sees_the_header_early() {
        drop(BlockPool::heap().allocate(64, 16).slice(8, 16));
    }
}

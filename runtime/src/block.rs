//! Aligned, append-only buffers that go to disk and to peers without a copy.
//!
//! A [`BlockWriter`] owns 4 KiB-aligned memory and fills it from the front. What has been appended never
//! changes again, so a [`Slice`] of it (a reference-counted range) may be read, sent and kept while the
//! writer goes on behind it. Only the first bytes, which [`BlockPool::allocate`] was told to hold back for a
//! header, are written late, by [`BlockWriter::finish`]; no `Slice` ever shows them before that.
//!
//! A pool keeps blocks that nobody needs any more, up to a bound, and hands them out again: memory that is in the processor's
//! caches, and whose end is known to be zeros, so that a frame's padding needn't be written. It belongs to one core: nothing
//! here is `Send`.

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
#[derive(Clone, Default)]
pub struct BlockPool {
    shelf: Rc<Shelf>,
}

impl fmt::Debug for BlockPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockPool({} bytes on the shelf)", self.shelf.bytes.get())
    }
}

impl BlockPool {
    /// An empty pool.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty block of at least `bytes` bytes (rounded up to 4 KiB), whose first `held_back` bytes are
    /// skipped until [`BlockWriter::finish`].
    ///
    /// # Panics
    /// If `held_back` exceeds `bytes`.
    pub fn allocate(&self, bytes: usize, held_back: usize) -> BlockWriter {
        assert!(held_back <= bytes, "a header of {held_back} bytes doesn't fit a block of {bytes}");
        let capacity = round_up(bytes.max(1));
        let space = self.shelf.take(capacity).unwrap_or_else(|| Space::new(capacity));
        let memory = Rc::new(Memory::new(space, &self.shelf));
        BlockWriter { memory, filled: held_back, held_back, shown: Cell::new(held_back) }
    }

    /// A finished block holding a copy of `bytes`, zero-padded to 4 KiB; the slice shows the padding too.
    pub fn copy_of(&self, bytes: &[u8]) -> Slice {
        let mut writer = self.allocate(bytes.len(), 0);
        writer.append(bytes);
        writer.finish(|_, _| {})
    }
}

/// Blocks of these sizes are kept: 4 KiB, and each twice the one before.
const SIZES: usize = 7;
/// Bytes of all that a pool keeps.
const SHELF_BYTES_MAX: usize = 4 << 20;

/// What nobody needs any more.
#[derive(Default)]
struct Shelf {
    spaces: RefCell<[Vec<Space>; SIZES]>,
    bytes: Cell<usize>,
}

impl Shelf {
    fn size_of(capacity: usize) -> Option<usize> {
        let blocks = capacity / BLOCK_BYTES;
        let size = blocks.trailing_zeros() as usize;
        (blocks.is_power_of_two() && size < SIZES).then_some(size)
    }

    fn take(&self, capacity: usize) -> Option<Space> {
        let space = self.spaces.borrow_mut()[Self::size_of(capacity)?].pop()?;
        self.bytes.set(self.bytes.get() - capacity);
        Some(space)
    }

    fn put(&self, space: Space) {
        let bytes = self.bytes.get() + space.capacity();
        if let Some(size) = Self::size_of(space.capacity()).filter(|_| bytes <= SHELF_BYTES_MAX) {
            self.bytes.set(bytes);
            self.spaces.borrow_mut()[size].push(space);
        }
    }
}

/// Aligned memory of the heap, initialised all over.
struct Space {
    start: NonNull<u8>,
    layout: Layout,
    /// Zeros from here on.
    dirty: usize,
}

impl Space {
    fn new(capacity: usize) -> Self {
        let layout =
            Layout::from_size_align(capacity, BLOCK_BYTES).expect("capacity is a small multiple of 4 KiB");
        // SAFETY: the layout's size is not zero: `allocate` rounds up to at least 4 KiB.
        // Covered by `tests::a_slice_outlives_its_writer`.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start, layout, dirty: 0 }
    }

    fn capacity(&self) -> usize {
        self.layout.size()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // SAFETY: allocated in `Space::new` with this layout, freed once, here.
        // Covered by `tests::a_slice_outlives_its_writer`.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// A block's memory while somebody needs it.
struct Memory {
    start: NonNull<u8>,
    capacity: usize,
    /// Zeros from here on.
    dirty: Cell<usize>,
    /// There until it goes back.
    space: Option<Space>,
    shelf: Rc<Shelf>,
}

impl Memory {
    fn new(space: Space, shelf: &Rc<Shelf>) -> Self {
        Self {
            start: space.start,
            capacity: space.capacity(),
            dirty: Cell::new(space.dirty),
            space: Some(space),
            shelf: Rc::clone(shelf),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(mut space) = self.space.take() {
            space.dirty = self.dirty.get();
            self.shelf.put(space);
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
        self.soil(self.filled);
    }

    /// What is before `end` isn't known to be zeros.
    fn soil(&self, end: usize) {
        self.memory.dirty.set(self.memory.dirty.get().max(end));
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
        self.soil(self.filled + bytes);
        // SAFETY: the range is inside the allocation (asserted above) and initialised: it began as zeros. No `Slice` covers
        // bytes at or past `filled`, and this is the only writer, so nobody else sees them.
        // Covered by `tests::what_is_filled_in_place_is_read_back`.
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
        let (end, dirty) = (self.filled + padding, self.memory.dirty.get());
        if dirty > self.filled {
            let soiled = dirty.min(end) - self.filled;
            // SAFETY: as in `append`. Covered by `tests::what_was_used_before_is_padded_with_zeros`.
            unsafe { std::ptr::write_bytes(self.memory.start.as_ptr().add(self.filled), 0, soiled) };
            if dirty <= end {
                self.memory.dirty.set(self.filled);
            }
        }
        self.filled = end;
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
        self.soil(self.held_back);
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
        let mut writer = BlockPool::new().allocate(8192, 0);
        let filled = writer.append_with(5000, |room| {
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
        let mut writer = BlockPool::new().allocate(100, 16);
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
            let mut writer = BlockPool::new().allocate(BLOCK_BYTES * 2, 0);
            writer.append(&[7; 5000]);
            writer.slice(4000, 5000)
        };
        assert_eq!(&*slice.subslice(10, 12), &[7, 7]);
        assert_eq!(slice.as_ptr() as usize % 16, 0);
    }

    #[test]
    fn the_header_is_written_last() {
        let mut writer = BlockPool::new().allocate(1, 1);
        assert_eq!((writer.capacity(), writer.room()), (BLOCK_BYTES, BLOCK_BYTES - 1));
        writer.append(b"payload");
        let early = writer.slice(1, 8);
        let block = writer.finish(|head, rest| head[0] = rest[0]);
        assert_eq!((block.len(), &block[..8], &*early), (BLOCK_BYTES, &b"ppayload"[..], &b"payload"[..]));
        assert!(block[8..].iter().all(|byte| *byte == 0), "padding is zero");
    }

    #[test]
    fn what_was_used_before_is_padded_with_zeros() {
        let pool = BlockPool::new();
        let address = {
            let mut writer = pool.allocate(9, 8);
            writer.append(&[7; 3000]);
            let refused = writer.append_with(500, |room| {
                room.fill(8);
                Err("no")
            });
            assert_eq!(refused, Err("no"), "soiled, and not appended");
            writer.finish(|head, _| head.fill(9)).as_ptr()
        };
        for (length, align) in [(100, 16), (3, 16), (4000, 64), (1, 4096)] {
            let mut writer = pool.allocate(9, 8);
            writer.append(&[1; 5]);
            writer.align(align);
            let end = writer.filled();
            assert!(writer.slice(13, end).iter().all(|byte| *byte == 0), "aligned to {align}");
            writer.append(&vec![2; length.min(writer.room())]);
            let filled = writer.filled();
            let block = writer.finish(|_, _| {});
            assert_eq!(block.as_ptr(), address, "the same memory");
            assert!(block[end..filled].iter().all(|byte| *byte == 2));
            assert!(block[filled..].iter().chain(&block[..8]).all(|byte| *byte == 0), "{length} bytes");
        }
    }

    #[test]
    fn a_pool_keeps_so_much_and_only_what_nobody_needs() {
        let pool = BlockPool::new();
        let needed = pool.copy_of(b"needed");
        let many: Vec<Slice> = (0..SHELF_BYTES_MAX / BLOCK_BYTES + 5).map(|_| pool.copy_of(b"x")).collect();
        assert_eq!(pool.shelf.bytes.get(), 0);
        drop(many);
        assert_eq!(pool.shelf.bytes.get(), SHELF_BYTES_MAX);
        drop(pool.allocate(3 * BLOCK_BYTES, 0));
        drop(pool.allocate(BLOCK_BYTES << SIZES, 0));
        assert_eq!(pool.shelf.bytes.get(), SHELF_BYTES_MAX, "other sizes go back to the heap");
        let again: Vec<BlockWriter> = (0..10).map(|_| pool.allocate(1, 0)).collect();
        assert_eq!(pool.shelf.bytes.get(), SHELF_BYTES_MAX - 10 * BLOCK_BYTES);
        assert_eq!((&needed[..6], again.len()), (&b"needed"[..], 10));
    }

    #[test]
    fn only_what_nobody_sees_is_patched() {
        let mut writer = BlockPool::new().allocate(64, 0);
        writer.append(b"shown?????tail");
        assert_eq!(&*writer.slice(0, 5), b"shown");
        writer.patch(5, b"later");
        assert_eq!(&*writer.slice(0, 14), b"shownlatertail");
    }

    #[test]
    #[should_panic(expected = "patch of what may be read")]
    fn what_somebody_sees_never_changes() {
        let mut writer = BlockPool::new().allocate(64, 0);
        writer.append(b"0123456789");
        let _seen = writer.slice(0, 6);
        writer.patch(5, b"x");
    }

    #[test]
    #[should_panic(expected = "slice of what isn't written")]
    fn nobody_sees_the_header_early() {
        drop(BlockPool::new().allocate(64, 16).slice(8, 16));
    }
}

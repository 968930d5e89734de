//! A bounded ring between one producer and one consumer.
//!
//! ```text
//!                 head (consumer's)          tail (producer's)     producer's own tail
//!                  │                          │                     │
//!   ─── free ──────┼──── published items ─────┼── pushed, unseen ───┼──── free ───
//! ```
//!
//! Both indices count up for ever (they wrap around `usize`) and are masked on access, so a full ring and an
//! empty one differ and no slot is wasted. Each end keeps its own index locally, and a stale copy of the
//! other's: it looks at shared memory only when the copy says "full" or "empty". What is pushed becomes visible
//! by [`Producer::publish`], what is consumed becomes free once per [`Consumer::drain`]: one shared store a batch.
//!
//! Why our own: the batched publish, a close that comes exactly once after the last item, and every ordering
//! explored by loom (`loom_models` below).
//!
//! It must never block, wake anyone (that is the `doorbell`'s work), clone an item, or drop
//! one twice. It is the only lock-free code of Flotilla with `unsafe`.

use crate::sync::{Arc, AtomicBool, AtomicUsize, Ordering, UnsafeCell};
use std::fmt;
use std::mem::MaybeUninit;

/// Why a message was not taken. It is given back either way.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError<T> {
    /// No room: make the receiver consume, then try again.
    #[error("the ring is full")]
    Full(T),
    /// One of the two ends has been closed: this message will never get there.
    #[error("the ring is closed")]
    Closed(T),
}

impl<T> SendError<T> {
    /// The message that was not sent.
    pub fn into_message(self) -> T {
        match self {
            Self::Full(message) | Self::Closed(message) => message,
        }
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::Closed(_) => "Closed(..)",
        })
    }
}

/// A ring with room for `capacity` items.
///
/// # Panics
/// If `capacity` is not a power of two.
pub(crate) fn ring<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    ring_from(capacity, 0)
}

/// A ring whose indices start at `start`, so that tests can reach the place where they wrap.
fn ring_from<T>(capacity: usize, start: usize) -> (Producer<T>, Consumer<T>) {
    assert!(capacity.is_power_of_two(), "a ring's capacity is a power of two, not {capacity}");
    let shared = Arc::new(Shared {
        head: Padded(AtomicUsize::new(start)),
        tail: Padded(AtomicUsize::new(start)),
        producer_gone: AtomicBool::new(false),
        consumer_gone: AtomicBool::new(false),
        slots: (0..capacity).map(|_| Slot(UnsafeCell::new(MaybeUninit::uninit()))).collect(),
    });
    (
        Producer {
            shared: Arc::clone(&shared),
            tail: start,
            published: start,
            seen_head: start,
            closed: false,
        },
        Consumer { shared, head: start, released: start, seen_tail: start, closed: false, told: false },
    )
}

/// Keeps what different cores write on different cache lines (two lines: x86 fetches them in pairs).
#[repr(align(128))]
struct Padded<T>(T);

/// Begins a cache line: of one that it shared with its neighbour, the two ends would take turns while both are busy, and the producer
/// would wait for it twice a message. (An array from the heap begins anywhere.)
#[repr(align(64))]
struct Slot<T>(UnsafeCell<MaybeUninit<T>>);

struct Shared<T> {
    /// The first item not consumed; written by the consumer.
    head: Padded<AtomicUsize>,
    /// One past the last item published; written by the producer.
    tail: Padded<AtomicUsize>,
    // From here on read-mostly: written once at most, so these lines stay in both cores' caches.
    producer_gone: AtomicBool,
    consumer_gone: AtomicBool,
    slots: Box<[Slot<T>]>,
}

// SAFETY: a slot is reached by one end at a time: the producer writes only those outside `head..tail`, the
// consumer reads only those inside, and each hands over with a release store that the other acquires.
// Covered by `loom_models::loom_ring_batches_wrap_full_and_empty`.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    #[inline]
    fn slot(&self, index: usize) -> &UnsafeCell<MaybeUninit<T>> {
        &self.slots[index & (self.slots.len() - 1)].0
    }

    /// Moves the item at `index` out.
    ///
    /// # Safety
    /// `index` must be in `head..tail` as published, acquired by the caller, and be taken only once.
    #[inline]
    unsafe fn take(&self, index: usize) -> T {
        // SAFETY: the caller's promise: the slot was written, nobody else reaches it until `head` passes it,
        // and it isn't read again. Covered by `loom_models::loom_ring_batches_wrap_full_and_empty`.
        self.slot(index).with_mut(|slot| unsafe { slot.read().assume_init() })
    }
}

impl<T> Drop for Shared<T> {
    /// Both ends are gone; what was published after the consumer left is still inside.
    fn drop(&mut self) {
        let mut head = self.head.0.load(Ordering::Relaxed);
        let tail = self.tail.0.load(Ordering::Relaxed);
        while head != tail {
            // SAFETY: `head..tail` holds published items that the consumer didn't take, and both ends are gone.
            // Covered by `loom_models::loom_both_ends_drop_at_once`.
            drop(unsafe { self.take(head) });
            head = head.wrapping_add(1);
        }
    }
}

/// The end that pushes.
pub(crate) struct Producer<T> {
    shared: Arc<Shared<T>>,
    /// One past the last item pushed.
    tail: usize,
    /// What the consumer can see of it.
    published: usize,
    /// The consumer's index as last looked up; the real one can only be further.
    seen_head: usize,
    closed: bool,
}

impl<T> Producer<T> {
    /// Puts an item in, invisible until [`Self::publish`].
    #[inline]
    pub(crate) fn push(&mut self, item: T) -> Result<(), SendError<T>> {
        if self.is_closed() {
            return Err(SendError::Closed(item));
        }
        if !self.has_room() {
            return Err(SendError::Full(item));
        }
        self.shared.slot(self.tail).with_mut(|slot| {
            // SAFETY: `has_room` acquired a `head` that has passed this slot, and the consumer doesn't reach it
            // again before `tail` is published past it. Covered by
            // `loom_models::loom_ring_batches_wrap_full_and_empty`.
            unsafe { slot.write(MaybeUninit::new(item)) }
        });
        self.tail = self.tail.wrapping_add(1);
        Ok(())
    }

    /// Shows the consumer everything pushed so far.
    #[inline]
    pub(crate) fn publish(&mut self) {
        if self.tail != self.published {
            self.published = self.tail;
            self.shared.tail.0.store(self.tail, Ordering::Release);
        }
    }

    /// Whether a push would find a free slot.
    #[inline]
    pub(crate) fn has_room(&mut self) -> bool {
        let capacity = self.shared.slots.len();
        if self.tail.wrapping_sub(self.seen_head) == capacity {
            self.seen_head = self.shared.head.0.load(Ordering::Acquire);
        }
        self.tail.wrapping_sub(self.seen_head) < capacity
    }

    /// Whether nothing can be sent any more, because either end was closed.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed || self.shared.consumer_gone.load(Ordering::Relaxed)
    }

    /// Publishes what was pushed and says that nothing follows. Dropping the producer does the same.
    pub(crate) fn close(&mut self) {
        if !self.closed {
            self.closed = true;
            self.publish();
            // Release: who sees this sees the last `tail` too.
            self.shared.producer_gone.store(true, Ordering::Release);
        }
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        self.close();
    }
}

/// The end that consumes.
pub(crate) struct Consumer<T> {
    shared: Arc<Shared<T>>,
    /// The next item to take.
    head: usize,
    /// What the producer can see of it.
    released: usize,
    /// The producer's index as last looked up; the real one can only be further.
    seen_tail: usize,
    closed: bool,
    /// Whether the producer's close has been told.
    told: bool,
}

impl<T> Consumer<T> {
    /// Moves out at most `max` items, in order, then frees their slots all at once. Returns how many.
    ///
    /// If `f` panics its item is gone, the others stay, and the slots are freed by the next call.
    #[inline]
    pub(crate) fn drain(&mut self, max: usize, mut f: impl FnMut(T)) -> usize {
        if self.seen_tail.wrapping_sub(self.head) < max {
            self.look();
        }
        let count = self.seen_tail.wrapping_sub(self.head).min(max);
        for _ in 0..count {
            f(self.take());
        }
        self.release();
        count
    }

    /// Whether an item can be taken.
    #[inline]
    pub(crate) fn has_items(&mut self) -> bool {
        if self.seen_tail == self.head {
            self.look();
        }
        self.seen_tail != self.head
    }

    /// Whether the producer is gone and everything it published has been taken.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        // In this order: after the close has been seen, `tail` is final.
        self.closed
            || (self.shared.producer_gone.load(Ordering::Acquire)
                && self.shared.tail.0.load(Ordering::Acquire) == self.head)
    }

    /// True exactly once: when the producer is gone and everything it published has been taken.
    #[inline]
    pub(crate) fn take_close(&mut self) -> bool {
        let first = !self.told && self.is_closed();
        self.told |= first;
        first
    }

    /// Drops what is inside and says that nothing more will be taken. Dropping the consumer does the same.
    pub(crate) fn close(&mut self) {
        if self.closed {
            return;
        }
        self.shared.consumer_gone.store(true, Ordering::Relaxed);
        while self.has_items() {
            let item = self.take();
            // Before the item's drop: should that panic, nobody drops it a second time.
            self.release();
            drop(item);
        }
        self.closed = true;
    }

    fn look(&mut self) {
        self.seen_tail = self.shared.tail.0.load(Ordering::Acquire);
    }

    /// Takes the item at `head`, which must be below `seen_tail`.
    #[inline]
    fn take(&mut self) -> T {
        assert!(self.head != self.seen_tail, "took from an empty ring");
        let index = self.head;
        self.head = index.wrapping_add(1);
        // SAFETY: `index` is in `head..seen_tail`, which `look` acquired, and `head` has just passed it.
        // Covered by `loom_models::loom_ring_batches_wrap_full_and_empty`.
        unsafe { self.shared.take(index) }
    }

    fn release(&mut self) {
        if self.head != self.released {
            self.released = self.head;
            self.shared.head.0.store(self.head, Ordering::Release);
        }
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(all(test, loom))]
mod loom_models;
#[cfg(all(test, not(loom)))]
mod tests;

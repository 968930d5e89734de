//! Writes and syncs of a core's files, through an io_uring of its own.
//!
//! What a log does all day long: everything of a turn is submitted with one system call, and the ring is one more
//! descriptor in the core's epoll set, so a finished write wakes the core as a socket does. (Through glommio a write and
//! its sync take a task, two wake-ups and two passes of its own polling.)
//!
//! A durable write to a segment is one operation (`RWF_DSYNC`); to any other file it is a write and, linked to it, an
//! fdatasync. An operation keeps its file open and its bytes where they are until the kernel is done with them.

#![allow(unsafe_code)]

use crate::block::Slice;
use crate::machine::OpId;
use io_uring::squeue::Flags;
use io_uring::{IoUring, opcode, types};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Entries of the ring. More operations than that take more than one system call a turn.
const ENTRIES: u32 = 256;
/// `RWF_DSYNC` of Linux.
const RWF_DSYNC: i32 = 2;

/// What makes a write durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durable {
    /// Nothing, or the way the file was opened.
    No,
    /// These bytes alone.
    Alone,
    /// A sync behind the write: these bytes and whatever was written before.
    WithAllBefore,
}

/// What was asked for.
#[derive(Debug)]
enum Asked {
    Write { number: u64, bytes: usize, durable: Durable, result: Option<io::Result<()>> },
    Sync,
}

/// An operation that the kernel has.
#[derive(Debug)]
struct Operation<F> {
    op: OpId,
    began: Instant,
    offset: u64,
    asked: Asked,
    /// Completions to come.
    left: u8,
    file: Rc<F>,
    /// The kernel reads from here.
    _block: Option<Slice>,
}

/// An operation that is over: `write` or `sync` says which half of it failed.
#[derive(Debug)]
pub(super) struct Finished<F> {
    pub(super) op: OpId,
    pub(super) offset: u64,
    pub(super) file: Rc<F>,
    pub(super) result: Result<(), (&'static str, io::Error)>,
    /// The number of the write, if it was one.
    pub(super) write: Option<u64>,
    /// It made something durable.
    pub(super) is_sync: bool,
    pub(super) took: Duration,
}

/// The ring. `F` is an open file.
pub(super) struct WriteRing<F> {
    ring: RefCell<IoUring>,
    operations: RefCell<BTreeMap<u64, Operation<F>>>,
    last: Cell<u64>,
    /// Entries that wait to be submitted.
    queued: Cell<bool>,
}

impl<F> AsFd for WriteRing<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring's descriptor is open as long as the ring, which outlives the borrow. Covered by the tests of
        // `tests/driver.rs`.
        unsafe { BorrowedFd::borrow_raw(self.ring.borrow().as_raw_fd()) }
    }
}

impl<F> Drop for WriteRing<F> {
    fn drop(&mut self) {
        let operations = std::mem::take(&mut *self.operations.borrow_mut());
        // What the kernel still reads must stay where it is. Only a core that dies comes here with something under way.
        if !operations.is_empty() {
            std::mem::forget(operations);
        }
    }
}

impl<F: AsRawFd> WriteRing<F> {
    /// A ring.
    ///
    /// # Errors
    /// What the system says; too little memory may be locked.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            ring: RefCell::new(IoUring::new(ENTRIES)?),
            operations: RefCell::default(),
            last: Cell::new(0),
            queued: Cell::new(false),
        })
    }

    /// Operations that aren't over.
    pub(super) fn under_way(&self) -> usize {
        self.operations.borrow().len()
    }

    /// Begins to write `block` at `offset`, with the next [`Self::submit`]. `number` comes back with [`Finished`].
    pub(super) fn write(
        &self,
        op: OpId,
        file: Rc<F>,
        number: u64,
        offset: u64,
        block: Slice,
        durable: Durable,
    ) {
        let (fd, bytes) = (types::Fd(file.as_raw_fd()), block.len());
        let length = u32::try_from(bytes).expect("blocks are smaller than 4 GiB");
        let write = opcode::Write::new(fd, block.as_ptr(), length).offset(offset);
        let write = if durable == Durable::Alone { write.rw_flags(RWF_DSYNC) } else { write };
        let linked = durable == Durable::WithAllBefore;
        let asked = Asked::Write { number, bytes, durable, result: None };
        let left = if linked { 2 } else { 1 };
        let began = Instant::now();
        let token = self.remember(Operation { op, began, offset, asked, left, file, _block: Some(block) });
        let write = write.build().user_data(token << 1);
        if linked {
            self.queue(&[write.flags(Flags::IO_LINK), sync_entry(fd.0, token)]);
        } else {
            self.queue(&[write]);
        }
    }

    /// Begins an fdatasync, with the next [`Self::submit`]. It covers what was written before.
    pub(super) fn sync(&self, op: OpId, file: Rc<F>) {
        let fd = file.as_raw_fd();
        let token = self.remember_sync(op, file);
        self.queue(&[sync_entry(fd, token)]);
    }

    /// Does nothing, and says so.
    pub(super) fn nothing(&self, op: OpId, file: Rc<F>) {
        let token = self.remember_sync(op, file);
        self.queue(&[opcode::Nop::new().build().user_data(token << 1 | 1)]);
    }

    fn remember_sync(&self, op: OpId, file: Rc<F>) -> u64 {
        let (began, asked) = (Instant::now(), Asked::Sync);
        self.remember(Operation { op, began, offset: 0, asked, left: 1, file, _block: None })
    }

    fn remember(&self, operation: Operation<F>) -> u64 {
        let token = self.last.get() + 1;
        self.last.set(token);
        self.operations.borrow_mut().insert(token, operation);
        token
    }

    fn queue(&self, entries: &[io_uring::squeue::Entry]) {
        self.queued.set(true);
        let mut ring = self.ring.borrow_mut();
        loop {
            // SAFETY: what an entry points to, its file and its block, is in `operations` until the kernel has completed
            // it, and forgotten rather than freed if that never happens. Covered by the tests of `tests/driver.rs`.
            if unsafe { ring.submission().push_multiple(entries) }.is_ok() {
                return;
            }
            submit(&ring);
        }
    }

    /// Tells the kernel of all that was begun.
    pub(super) fn submit(&self) {
        if self.queued.replace(false) {
            submit(&self.ring.borrow());
        }
    }

    /// Waits until something is over. For the end of a core, when nothing else is to be done.
    pub(super) fn wait(&self) {
        // Whatever it says: the caller looks again.
        let _ = self.ring.borrow().submit_and_wait(1);
    }

    /// Hands over what is over by now.
    pub(super) fn reap(&self, mut f: impl FnMut(Finished<F>)) {
        loop {
            let next = self.ring.borrow_mut().completion().next();
            let Some(completion) = next else { return };
            if let Some(finished) = self.completed(completion.user_data(), completion.result()) {
                f(finished);
            }
        }
    }

    fn completed(&self, user_data: u64, result: i32) -> Option<Finished<F>> {
        let (token, is_sync) = (user_data >> 1, user_data & 1 == 1);
        let mut operations = self.operations.borrow_mut();
        let operation = operations.get_mut(&token).expect("it stays until all of it is completed");
        operation.left -= 1;
        if let (Asked::Write { bytes, result: written, .. }, false) = (&mut operation.asked, is_sync) {
            *written = Some(outcome(result, *bytes));
        }
        if operation.left > 0 {
            return None;
        }
        let Operation { op, began, offset, asked, file, .. } =
            operations.remove(&token).expect("seen just above");
        let synced = || if is_sync { outcome(result, 0).map_err(|error| ("sync", error)) } else { Ok(()) };
        let (write, result, is_sync) = match asked {
            // After a failed write its sync is cancelled: the write's error is the one that matters.
            Asked::Write { number, durable, result, .. } => {
                let written = result.expect("a write is completed before the sync that is linked to it");
                let result = written.map_err(|error| ("write", error)).and_then(|()| synced());
                (Some(number), result, durable != Durable::No)
            }
            Asked::Sync => (None, synced(), true),
        };
        Some(Finished { op, offset, file, write, result, is_sync, took: began.elapsed() })
    }
}

fn sync_entry(fd: RawFd, token: u64) -> io_uring::squeue::Entry {
    let sync = opcode::Fsync::new(types::Fd(fd)).flags(types::FsyncFlags::DATASYNC);
    sync.build().user_data(token << 1 | 1)
}

fn submit(ring: &IoUring) {
    // A kernel that is short of memory for the moment, or whose completions must be reaped first, is asked again.
    while let Err(error) = ring.submit() {
        let again = matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
            || error.kind() == io::ErrorKind::ResourceBusy;
        assert!(again, "a ring that is open takes entries: {error}");
    }
}

fn outcome(result: i32, bytes: usize) -> io::Result<()> {
    match usize::try_from(result) {
        Err(_) => Err(io::Error::from_raw_os_error(-result)),
        Ok(done) if done == bytes => Ok(()),
        Ok(done) => Err(super::disk::short("written", done, bytes)),
    }
}

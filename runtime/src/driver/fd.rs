//! The few conversions of descriptors that the standard library calls unsafe, because a number could be stolen.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// How [`write_now`] makes bytes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durably {
    /// The file does it by itself: it was opened so.
    AsOpened,
    /// Together with the write (`RWF_DSYNC`): these bytes, and nothing that was written before.
    Alone,
    /// By a sync behind the write: these bytes and whatever was written before.
    WithAllBefore,
}

/// Overwrites durably with plain system calls, on this thread, now. Returns the bytes written.
pub(super) fn write_now(file: &impl AsRawFd, bytes: &[u8], offset: u64, how: Durably) -> io::Result<usize> {
    // SAFETY: the borrow ends before `file` can be closed. Covered by the disk tests of `tests/driver.rs`.
    let borrowed = unsafe { BorrowedFd::borrow_raw(file.as_raw_fd()) };
    if how == Durably::Alone {
        let flags = rustix::io::ReadWriteFlags::DSYNC;
        return Ok(rustix::io::pwritev2(borrowed, &[io::IoSlice::new(bytes)], offset, flags)?);
    }
    let written = rustix::io::pwrite(borrowed, bytes, offset)?;
    if how == Durably::WithAllBefore && written == bytes.len() {
        rustix::fs::fdatasync(borrowed)?;
    }
    Ok(written)
}

/// Another descriptor for the same file, for another thread.
pub(super) fn duplicate_file(file: &impl AsRawFd) -> io::Result<OwnedFd> {
    // SAFETY: the borrow ends before `file` can be closed. Covered by the disk tests of `tests/driver.rs`.
    let borrowed = unsafe { BorrowedFd::borrow_raw(file.as_raw_fd()) };
    borrowed.try_clone_to_owned()
}

/// Lets the device write `bytes` zeros from the file's start on, and makes it that long.
pub(super) fn write_zeroes(file: &OwnedFd, bytes: u64) -> io::Result<()> {
    // `FALLOC_FL_WRITE_ZEROES`, newer than the names that rustix has.
    let write_zeroes = rustix::fs::FallocateFlags::from_bits_retain(0x80);
    Ok(rustix::fs::fallocate(file, write_zeroes, 0, bytes)?)
}

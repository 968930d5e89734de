//! The few conversions of descriptors that the standard library calls unsafe, because a number could be stolen; and a system call
//! that only the C library knows.

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

/// From now on this thread's reads go behind those and the writes of everybody else who has no such wish: the class "idle" of
/// `ioprio_set(2)`. Heeded by the kernel's schedulers of disks but `none` and `kyber`.
pub(super) fn read_behind_others() -> io::Result<()> {
    const WHO_IS_A_THREAD: libc::c_long = 1;
    const CLASS_IDLE: libc::c_long = 3 << 13;
    let this_thread: libc::c_long = 0;
    // SAFETY: three numbers, and nothing of ours is read or written. Covered by
    // `tests::who_reads_behind_others_is_in_the_class_for_it`.
    let done = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_IS_A_THREAD, this_thread, CLASS_IDLE) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn who_reads_behind_others_is_in_the_class_for_it() {
        let class = || {
            // SAFETY: as above.
            unsafe { libc::syscall(libc::SYS_ioprio_get, 1_i64, 0_i64) >> 13 }
        };
        let of_a_reader = std::thread::spawn(move || {
            super::read_behind_others().unwrap();
            class()
        });
        assert_eq!(of_a_reader.join().unwrap(), 3);
        assert_ne!(class(), 3, "nobody else is");
    }
}

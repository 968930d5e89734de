//! What the disk can do by itself: the floor under every durable write, measured in the same run.

use crate::block::{BLOCK_BYTES, BlockPool};
use crate::machine::Nanos;
use rustix::fs::{Mode, OFlags, fdatasync, open};
use std::io;
use std::path::Path;
use std::time::Instant;

/// Blocks of the scratch file, overwritten in turn: 4 MiB, beyond any one block of a device.
const BLOCKS: u64 = 1024;

/// Overwrites 4 KiB of an already written file by direct I/O and syncs it, with plain system calls, for as long as
/// `go_on` says so (it is given the number of samples so far): the time of each, in order. The scratch file is removed.
///
/// # Errors
/// What the system says: `EINVAL` if the file system knows no direct I/O, `WriteZero` for a short write.
pub fn measure_sync(folder: &Path, go_on: impl FnMut(usize) -> bool) -> io::Result<Vec<Nanos>> {
    let path = folder.join("sync-probe");
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
    let file = open(&path, flags, Mode::RUSR | Mode::WUSR)?;
    let measured = overwrite(&file, go_on);
    std::fs::remove_file(&path)?;
    measured
}

fn overwrite(file: &impl std::os::fd::AsFd, mut go_on: impl FnMut(usize) -> bool) -> io::Result<Vec<Nanos>> {
    let block = BlockPool::heap().copy_of(&[0x5a; BLOCK_BYTES]);
    let write = |place: u64| match rustix::io::pwrite(file, &block, place * BLOCK_BYTES as u64)? {
        BLOCK_BYTES => Ok(()),
        _ => Err(io::Error::from(io::ErrorKind::WriteZero)),
    };
    for place in 0..BLOCKS {
        write(place)?;
    }
    fdatasync(file)?;
    let mut times = Vec::new();
    for place in (0..BLOCKS).cycle() {
        if !go_on(times.len()) {
            break;
        }
        let start = Instant::now();
        write(place)?;
        fdatasync(file)?;
        times.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    Ok(times)
}

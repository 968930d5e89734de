//! What the disk can do by itself: the floor under every durable write, measured in the same run.

use crate::block::{BLOCK_BYTES, BlockPool};
use crate::machine::Nanos;
use rustix::fs::{Mode, OFlags, fdatasync, open};
use std::io;
use std::path::Path;
use std::time::Instant;

/// Blocks of the scratch file.
const BLOCKS: u64 = 64;

/// Overwrites 4 KiB of an already written file by direct I/O and syncs it, `samples` times, with plain system calls:
/// the time of each, in order.
///
/// # Errors
/// What the system says, for instance if the file system knows no direct I/O.
pub fn measure_sync(folder: &Path, samples: usize) -> io::Result<Vec<Nanos>> {
    let path = folder.join("sync-probe");
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
    let file = open(&path, flags, Mode::RUSR | Mode::WUSR)?;
    let block = BlockPool::heap().copy_of(&[0x5a; BLOCK_BYTES]);
    let write = |place: u64| rustix::io::pwrite(&file, &block, place * BLOCK_BYTES as u64).map(|_| ());
    let mut times = Vec::with_capacity(samples);
    let mut measure = || -> io::Result<()> {
        for place in 0..BLOCKS {
            write(place)?;
        }
        fdatasync(&file)?;
        for sample in 0..samples as u64 {
            let start = Instant::now();
            write(sample % BLOCKS)?;
            fdatasync(&file)?;
            times.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        Ok(())
    };
    let measured = measure();
    std::fs::remove_file(&path)?;
    measured.map(|()| times)
}

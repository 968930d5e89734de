//! Everything that a machine is built from: the files of its folder, read as fast as the disk gives them.
//!
//! Nothing else runs on the core yet, so this is done with plain threads that read straight to where the bytes stay. Others may share
//! the disk: the kernel lets reads that wait overtake writes, so some that always wait would keep another node's syncs for
//! 30 to 130 ms, were it not told that these come last.

use super::disk::PIECE_BYTES;
use super::fd::read_behind_others;
use crate::block::{BlockPool, Slice, round_up};
use crate::sync::Mutex;
use rustix::fs::{Mode, OFlags, open};
use std::io;
use std::path::Path;
use std::sync::PoisonError;

/// Reads of a file at once: enough for a disk to be busy, and no more, since what others ask for waits behind those that the disk has.
const READERS: usize = 2;

/// The whole content of a file, by direct I/O, padded with zeros to whole blocks.
///
/// # Errors
/// What the system says, or `UnexpectedEof` if the file is shorter than it was.
pub(super) fn read_whole(path: &Path) -> io::Result<Slice> {
    let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    let file = open(path, flags, Mode::empty())?;
    let length = usize::try_from(rustix::fs::fstat(&file)?.st_size).map_err(io::Error::other)?;
    let total = round_up(length);
    let mut block = BlockPool::new().allocate(total.max(1), 0);
    block.append_with(total, |room| {
        let pieces = Mutex::new(room.chunks_mut(PIECE_BYTES).enumerate());
        let read = || -> io::Result<()> {
            loop {
                let next = pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((place, piece)) = next else { return Ok(()) };
                let at = place * PIECE_BYTES;
                let there = piece.len().min(length - at);
                if rustix::io::pread(&file, piece, at as u64)? < there {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
                }
            }
        };
        if total <= PIECE_BYTES {
            return read();
        }
        std::thread::scope(|scope| {
            let behind_others = || {
                // A system that doesn't let us reads as it always has.
                let _ = read_behind_others();
                read()
            };
            let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(behind_others)).collect();
            readers.into_iter().try_for_each(|reader| match reader.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
    })?;
    Ok(block.slice(0, total))
}

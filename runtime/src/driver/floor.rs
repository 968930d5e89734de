//! What the disk can do by itself: the floor under every durable write, measured in the same run.

use super::disk::{PIECE_BYTES, fill};
use super::stalls::Stalls;
use super::tasks::Tasks;
use crate::block::{BLOCK_BYTES, BlockPool};
use crate::machine::Nanos;
use crate::vitals::Vitals;
use glommio::io::{DmaFile, OpenOptions};
use glommio::{LocalExecutorBuilder, Placement};
use rustix::fs::{Mode, OFlags, fdatasync, open};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Blocks of the scratch file, overwritten in turn: 4 MiB, beyond any one block of a device.
const BLOCKS: u64 = 1024;

/// Overwrites 4 KiB of an already written file by direct I/O and syncs it, with plain system calls, for as long as
/// `go_on` says so (it is given the number of samples so far): the time of each, in order. The scratch file is removed.
///
/// # Errors
/// What the system says: `EINVAL` if the file system knows no direct I/O, `WriteZero` for a short write.
pub fn measure_sync(folder: &Path, go_on: impl FnMut(usize) -> bool) -> io::Result<Vec<Nanos>> {
    on_probe(folder, OFlags::empty(), |file| overwrite(file, true, go_on))
}

/// As [`measure_sync`], with a file whose writes are durable by themselves (`O_DSYNC`).
///
/// # Errors
/// As there.
pub fn measure_dsync(folder: &Path, go_on: impl FnMut(usize) -> bool) -> io::Result<Vec<Nanos>> {
    on_probe(folder, OFlags::DSYNC, |file| overwrite(file, false, go_on))
}

/// Whether the kernel gives this process an io_uring.
///
/// # Errors
/// What the system says: `EPERM` where it is forbidden, `ENOSYS` where there is none, `ENOMEM` if too little memory may be locked.
pub fn try_ring() -> io::Result<()> {
    io_uring::IoUring::new(256).map(drop)
}

/// Spawns so many local tasks and awaits each, as a core does with its own: what they took together.
///
/// # Errors
/// What the system says of an executor.
pub fn measure_spawn(count: u32) -> io::Result<Nanos> {
    let executor = LocalExecutorBuilder::new(Placement::Unbound).spawn(async move || {
        let bulk = glommio::TaskQueueHandle::default();
        let tasks = Tasks::new(bulk, Stalls::new(0, Vitals::new()));
        let begun = Instant::now();
        for _ in 0..count {
            tasks.spawn("nothing", async {}).await;
        }
        u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    });
    executor.map_err(io::Error::from)?.join().map_err(io::Error::from)
}

fn on_probe<T>(
    folder: &Path,
    more: OFlags,
    work: impl FnOnce(&rustix::fd::OwnedFd) -> io::Result<T>,
) -> io::Result<T> {
    let path = folder.join("sync-probe");
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC | more;
    let file = open(&path, flags, Mode::RUSR | Mode::WUSR)?;
    let measured = work(&file);
    std::fs::remove_file(&path)?;
    measured
}

fn overwrite(
    file: &impl std::os::fd::AsFd,
    is_synced: bool,
    mut go_on: impl FnMut(usize) -> bool,
) -> io::Result<Vec<Nanos>> {
    let block = BlockPool::new().copy_of(&[0x5a; BLOCK_BYTES]);
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
        if is_synced {
            fdatasync(file)?;
        }
        times.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    Ok(times)
}

/// Overwrites `bytes` (whole blocks) of an already written file and syncs it, through io_uring as a core does, for
/// `lasting`: the time of each. The raw recipe of a durable append.
///
/// # Errors
/// What the system says.
pub fn measure_ring_sync(folder: &Path, bytes: usize, lasting: Duration) -> io::Result<Vec<Nanos>> {
    on_scratch(folder, 4 << 20, async move |file: Rc<DmaFile>| {
        let mut times = Vec::new();
        let places = (4 << 20) / bytes as u64;
        let begun = Instant::now();
        for place in (0..places).cycle() {
            if begun.elapsed() >= lasting {
                break;
            }
            let mut buffer = file.alloc_dma_buffer(bytes);
            buffer.as_bytes_mut().fill(0x5a);
            let start = Instant::now();
            let written = file.write_at(buffer, place * bytes as u64).await?;
            file.fdatasync().await?;
            times.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
            if written != bytes {
                return Err(io::Error::from(io::ErrorKind::WriteZero));
            }
        }
        Ok(times)
    })
}

/// Bytes a second that the disk takes (pieces of 1 MiB, `depth` of them at a time, overwriting, synced at the end of every
/// pass), and that it gives back, in a file of `bytes`: passes until each has lasted `lasting`, one at least.
///
/// # Errors
/// What the system says.
pub fn measure_bandwidth(
    folder: &Path,
    bytes: u64,
    depth: usize,
    lasting: Duration,
) -> io::Result<(f64, f64)> {
    on_scratch(folder, bytes, async move |file: Rc<DmaFile>| {
        let written = passes(bytes, lasting, async || {
            in_pieces(bytes, depth, |at| {
                let file = Rc::clone(&file);
                async move {
                    let mut buffer = file.alloc_dma_buffer(PIECE_BYTES);
                    buffer.as_bytes_mut().fill(0x5a);
                    Ok(file.write_at(buffer, at).await.map(|_| ())?)
                }
            })
            .await?;
            Ok(file.fdatasync().await?)
        })
        .await?;
        let read = passes(bytes, lasting, async || {
            in_pieces(bytes, depth, |at| {
                let file = Rc::clone(&file);
                async move { Ok(file.read_at_aligned(at, PIECE_BYTES).await.map(|_| ())?) }
            })
            .await
        })
        .await?;
        Ok((written, read))
    })
}

/// Bytes a second over as many passes as fit `lasting`.
async fn passes(bytes: u64, lasting: Duration, pass: impl AsyncFn() -> io::Result<()>) -> io::Result<f64> {
    let begun = Instant::now();
    let mut done = 0;
    while done == 0 || begun.elapsed() < lasting {
        pass().await?;
        done += bytes;
    }
    Ok(done as f64 / begun.elapsed().as_secs_f64())
}

async fn in_pieces<F>(bytes: u64, depth: usize, each: impl Fn(u64) -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + 'static,
{
    let mut under_way = VecDeque::new();
    for at in (0..bytes).step_by(PIECE_BYTES) {
        if under_way.len() == depth
            && let Some(oldest) = under_way.pop_front()
        {
            let oldest: glommio::Task<io::Result<()>> = oldest;
            oldest.await?;
        }
        under_way.push_back(glommio::spawn_local(each(at)));
    }
    for left in under_way {
        left.await?;
    }
    Ok(())
}

/// Runs `work` on a file of `bytes` that was written with zeros, in an executor of its own; removes the file.
fn on_scratch<T: Send + 'static>(
    folder: &Path,
    bytes: u64,
    work: impl AsyncFnOnce(Rc<DmaFile>) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let path: PathBuf = folder.join("floor-probe");
    // glommio learns from a device's first file whether it can be polled: from an empty one it learns nonsense.
    std::fs::write(&path, [0; BLOCK_BYTES])?;
    let of_the_executor = path.clone();
    let executor = LocalExecutorBuilder::new(Placement::Unbound).spawn(async move || {
        let path = of_the_executor;
        let file = OpenOptions::new().read(true).write(true).dma_open(&path).await?;
        fill(&file, bytes).await.map_err(|(_, error)| error)?;
        let file = Rc::new(file);
        let result = work(Rc::clone(&file)).await;
        if let Ok(file) = Rc::try_unwrap(file) {
            file.close().await?;
        }
        result
    });
    let joined = executor.map_err(io::Error::from)?.join();
    std::fs::remove_file(&path)?;
    joined.map_err(io::Error::from)?
}

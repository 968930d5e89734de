//! What the log is compared with: raft-engine, and a sync for every append.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use flotilla_runtime::BlockPool;
use flotilla_runtime::block::BLOCK_BYTES;
use rustix::fs::{Mode, OFlags, fdatasync, open};

use crate::error::{BenchError, Result};
use crate::recorder::{Latencies, latencies};
use crate::target::built::{built, printed};
use crate::target::process::dying_with_us;
use crate::turn::{Load, Printed, Seen};

/// One thread writes batches to raft-engine for so many appenders: of one, two and four it was fastest with one for 64 appenders, and
/// with two for 1024.
const APPENDERS_OF_A_WRITER: usize = 512;
/// Threads of [`sync_each`] at most: more don't make a disk faster.
const THREADS_MAX: usize = 64;

/// The program of `bench/peers/raft-engine`, built by its script.
pub(super) struct RaftEngine {
    program: PathBuf,
}

impl RaftEngine {
    pub(super) fn find() -> Result<Self> {
        Ok(Self { program: built("wal-raft-engine", "raft-engine.sh")? })
    }

    /// The same load: so many appenders, each of which appends an entry to a group of its own and waits until it is durable; as
    /// threads, or those of two threads in batches.
    pub(super) fn run(&self, folder: &Path, load: &Load, is_batched: bool) -> Result<Seen> {
        let log = tempfile::tempdir_in(folder).map_err(BenchError::io("making a folder for raft-engine"))?;
        let mut command = dying_with_us(self.program.as_os_str());
        command.arg(log.path());
        command.args([
            load.clients.to_string(),
            load.bytes.to_string(),
            load.seconds.as_secs_f64().to_string(),
            if is_batched { load.clients.div_ceil(APPENDERS_OF_A_WRITER) } else { load.clients }.to_string(),
        ]);
        Ok(printed::<Printed>(command, &load.name, "raft-engine")?.seen(Some(load.bytes)))
    }
}

/// Every append overwrites a block of its own and syncs it, from many threads: one after the other, as the entries of a log
/// are acknowledged, or all at once, which no log could do.
pub(super) fn sync_each(folder: &Path, appenders: usize, in_order: bool, time: Duration) -> Result<Seen> {
    let turn = Mutex::new(());
    let path = folder.join("sync-each");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::DIRECT | OFlags::CLOEXEC;
    let failed = || BenchError::io(format!("writing {}", path.display()));
    let file = open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(|error| failed()(error.into()))?;
    let threads = appenders.min(THREADS_MAX);
    let write = |place: usize| {
        let block = BlockPool::new().copy_of(&[0x5a; BLOCK_BYTES]);
        rustix::io::pwrite(&file, &block, (place * BLOCK_BYTES) as u64).map(|_| ())
    };
    (0..threads)
        .try_for_each(write)
        .and_then(|()| fdatasync(&file))
        .map_err(|error| failed()(error.into()))?;
    let begun = Instant::now();
    let append = |place: usize| -> rustix::io::Result<Latencies> {
        let block = BlockPool::new().copy_of(&[0x5a; BLOCK_BYTES]);
        let mut seen = latencies();
        while begun.elapsed() < time {
            let start = Instant::now();
            let _turn = in_order.then(|| turn.lock().unwrap_or_else(PoisonError::into_inner));
            rustix::io::pwrite(&file, &block, (place * BLOCK_BYTES) as u64)?;
            fdatasync(&file)?;
            seen.saturating_record(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        Ok(seen)
    };
    let append = &append;
    let mut all = latencies();
    std::thread::scope(|scope| -> Result<()> {
        let running: Vec<_> = (0..threads).map(|place| scope.spawn(move || append(place))).collect();
        for thread in running {
            match thread.join() {
                Ok(seen) => all += &seen.map_err(|error| failed()(error.into()))?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(())
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    std::fs::remove_file(&path).map_err(failed())?;
    Ok(Seen { latencies: Some(all.clone()), ..Seen::timed(all.len() as f64, seconds) })
}

//! What the machine itself can do, measured in the same run: nothing durable is faster than the disk's sync, nothing
//! remote faster than the loopback.

mod replicated;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use flotilla_runtime::driver::floor::measure_sync;
use rustix::fs::statfs;
use serde::{Deserialize, Serialize};

use crate::error::{BenchError, Result};
use crate::interrupt::Interrupt;
use crate::recorder::{latencies, median};

/// The magic numbers of tmpfs and ramfs. Newer kernels take O_DIRECT even there.
const MEMORY: [u32; 2] = [0x0102_1994, 0x8584_58f6];

/// Two percentiles, in microseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Floor {
    /// Half were faster.
    pub(crate) p50_us: f64,
    /// One in a hundred was slower.
    pub(crate) p99_us: f64,
}

/// What nothing can beat here.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Floors {
    /// A 4 KiB overwrite (O_DIRECT, of blocks already written) and its fdatasync.
    pub(crate) sync_4k_overwrite: Floor,
    /// 64 bytes there and back over loopback TCP, between two blocking threads.
    pub(crate) tcp_round_trip_64b: Floor,
    /// A bare replicated write: see [`replicated`].
    pub(crate) bare_replicated_write: Floor,
}

/// What was measured in one round.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct RoundFloors {
    pub(crate) sync: Floor,
    pub(crate) round_trip: Floor,
    pub(crate) replicated: Floor,
}

/// Measures them all, each for so long.
pub(crate) fn measure(folder: &Path, each: Duration, interrupt: &Interrupt) -> Result<RoundFloors> {
    Ok(RoundFloors {
        sync: sync(folder, each, interrupt)?,
        round_trip: round_trip(each, interrupt)?,
        replicated: replicated::write(folder, each, interrupt)?,
    })
}

/// The medians over the rounds.
pub(crate) fn summary(rounds: &[RoundFloors]) -> Floors {
    let of = |which: fn(&RoundFloors) -> Floor| Floor {
        p50_us: median(rounds.iter().map(|round| which(round).p50_us)),
        p99_us: median(rounds.iter().map(|round| which(round).p99_us)),
    };
    Floors {
        sync_4k_overwrite: of(|round| round.sync),
        tcp_round_trip_64b: of(|round| round.round_trip),
        bare_replicated_write: of(|round| round.replicated),
    }
}

/// The sync latency of the disk under `folder`.
pub(crate) fn sync(folder: &Path, lasting: Duration, interrupt: &Interrupt) -> Result<Floor> {
    let disk = |reason: &str| BenchError::Disk { path: folder.to_owned(), reason: reason.to_owned() };
    if statfs(folder).is_ok_and(|it| MEMORY.contains(&(it.f_type as u32))) {
        return Err(disk("this file system is in memory"));
    }
    let mut end = None;
    let times = measure_sync(folder, |_| {
        // Asked first when the file has been prepared.
        let end = *end.get_or_insert_with(|| Instant::now() + lasting);
        Instant::now() < end && !interrupt.is_set()
    });
    let times = times.map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidInput => disk("this file system has no O_DIRECT"),
        std::io::ErrorKind::WriteZero => disk("a short write; is it full?"),
        _ => disk(&error.to_string()),
    })?;
    interrupt.check()?;
    let mut seen = latencies();
    times.into_iter().for_each(|time| seen.saturating_record(time));
    Ok(percentiles(&seen))
}

/// A round trip over loopback TCP.
pub(crate) fn round_trip(lasting: Duration, interrupt: &Interrupt) -> Result<Floor> {
    let doing = || BenchError::io("measuring the loopback");
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(doing())?;
    let mut socket = TcpStream::connect(listener.local_addr().map_err(doing())?).map_err(doing())?;
    let (mut other, _) = listener.accept().map_err(doing())?;
    for each in [&socket, &other] {
        each.set_nodelay(true).map_err(doing())?;
    }
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut message = [0; 64];
            while other.read_exact(&mut message).is_ok() && other.write_all(&message).is_ok() {}
        });
        let mut seen = latencies();
        let mut message = [1; 64];
        let end = Instant::now() + lasting;
        let outcome = loop {
            let from = Instant::now();
            if from >= end || interrupt.is_set() {
                break Ok(());
            }
            if let Err(error) = socket.write_all(&message).and_then(|()| socket.read_exact(&mut message)) {
                break Err(doing()(error));
            }
            seen.saturating_record(from.elapsed().as_nanos() as u64);
        };
        // The echo ends when its socket does, and the scope waits for it.
        drop(socket);
        outcome?;
        interrupt.check()?;
        Ok(percentiles(&seen))
    })
}

/// The percentiles of what was seen.
pub(crate) fn percentiles(seen: &crate::recorder::Latencies) -> Floor {
    Floor {
        p50_us: seen.value_at_quantile(0.5) as f64 / 1e3,
        p99_us: seen.value_at_quantile(0.99) as f64 / 1e3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_are_positive_and_leave_nothing_behind() {
        // Not in /tmp, which may be memory.
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let each = Duration::from_millis(30);
        let RoundFloors { sync, round_trip, replicated } =
            measure(folder.path(), each, &Interrupt::default()).unwrap();
        for floor in [sync, round_trip, replicated] {
            assert!(floor.p50_us > 1.0 && floor.p99_us >= floor.p50_us);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn memory_is_no_disk() {
        let folder = Path::new("/dev/shm");
        if folder.is_dir() {
            let error = sync(folder, Duration::ZERO, &Interrupt::default()).unwrap_err();
            assert!(error.to_string().contains("in memory; give --dir"), "{error}");
        }
        let error = sync(Path::new("/proc"), Duration::ZERO, &Interrupt::default()).unwrap_err();
        assert!(error.to_string().contains("--dir"), "{error}");
    }
}

//! The appender on the real driver.

use std::net::TcpListener;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use flotilla_runtime::NodeId;
use flotilla_runtime::driver::{self, CoreOptions, NodeHandle, NodeOptions};

use super::LoadResult;
use super::appender::{Appender, Measured, Plan, Shared, shared};
use crate::error::{BenchError, Result};
use crate::floor::percentiles;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// So many appenders of so many bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) name: &'static str,
    pub(super) appenders: usize,
    pub(super) bytes: usize,
    pub(super) groups: u64,
    pub(super) commits: usize,
    pub(super) time: Duration,
}

/// A log that was opened.
pub(super) struct Opened {
    pub(super) seconds: f64,
    /// Of all its files.
    pub(super) file_bytes: u64,
}

/// Runs a load on a new log.
pub(super) fn run(folder: &Path, load: &Load) -> Result<LoadResult> {
    let Load { name, appenders, bytes, groups, commits, time } = *load;
    let plan = Plan { appenders, bytes, groups, commits, warmup: time / 3, time, keep: None };
    let core = tempfile::tempdir_in(folder).map_err(BenchError::io("making a folder for a log"))?;
    let measured = drive(core.path(), plan, name)?;
    let seconds = measured.nanos as f64 / 1e9;
    let per_second = measured.appends as f64 / seconds;
    let latency = percentiles(&measured.latencies);
    Ok(LoadResult {
        load: name,
        target: "flotilla",
        appends_per_second: per_second,
        bytes_per_second: per_second * bytes as f64,
        p50_us: latency.p50_us,
        p99_us: latency.p99_us,
    })
}

/// Writes a log of so many bytes of entries, all of them needed, and opens it.
pub(super) fn recovery(folder: &Path, groups: u64, bytes: u64) -> Result<Opened> {
    let core = tempfile::tempdir_in(folder).map_err(BenchError::io("making a folder for a log"))?;
    let plan = Plan {
        appenders: 1024,
        bytes: 1000,
        groups,
        commits: 2,
        warmup: Duration::ZERO,
        time: Duration::ZERO,
        keep: Some(bytes),
    };
    drive(core.path(), plan, "writing a log")?;
    let mut file_bytes = 0;
    let reading = || BenchError::io(format!("reading {}", core.path().display()));
    for entry in std::fs::read_dir(core.path()).map_err(reading())? {
        file_bytes += entry.and_then(|entry| entry.metadata()).map_err(reading())?.len();
    }
    let nothing = Plan { appenders: 0, keep: None, ..plan };
    let begun = Instant::now();
    let mut opened = None;
    node(core.path(), nothing, shared(), "recovery", |_| {
        opened = Some(begun.elapsed());
        Ok(())
    })?;
    let seconds = opened.map_or(f64::NAN, |time| time.as_secs_f64());
    Ok(Opened { seconds, file_bytes })
}

/// Runs a plan to its end.
fn drive(core: &Path, plan: Plan, name: &'static str) -> Result<Measured> {
    let results = shared();
    let watched = results.clone();
    node(core, plan, results.clone(), name, move |running| {
        let begun = Instant::now();
        while !watched.lock().unwrap_or_else(PoisonError::into_inner).is_over {
            if running.recv_timeout(Duration::from_millis(5)) != Err(mpsc::RecvTimeoutError::Timeout)
                || begun.elapsed() > PATIENCE
            {
                return Err("it never came to its end".to_owned());
            }
        }
        Ok(())
    })?;
    Ok(results.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// Starts the node, calls `meanwhile` once it serves, and stops it. The receiver tells when it has ended by itself.
fn node(
    core: &Path,
    plan: Plan,
    results: Shared,
    name: &'static str,
    meanwhile: impl FnOnce(&mpsc::Receiver<()>) -> std::result::Result<(), String>,
) -> Result<()> {
    let failed = |reason: String| BenchError::Failed {
        scenario: name.to_owned(),
        target: "flotilla".to_owned(),
        reason,
    };
    let port = || TcpListener::bind("127.0.0.1:0").map_err(BenchError::io("binding a port"));
    let mut options = NodeOptions::new(NodeId(1), 1, 1);
    options.cores.push(CoreOptions { clients: port()?, peers: port()?, folder: core.to_owned() });
    let stop = NodeHandle::new();
    let handle = stop.clone();
    let (serving, serves) = mpsc::channel();
    let (alive, running) = mpsc::channel::<()>();
    let node = std::thread::spawn(move || {
        let _alive = alive;
        let build = move |boot| Appender::new(plan, boot, results.clone());
        driver::run(options, build, handle, move || {
            // Nobody waits any more, if that took too long.
            let _ = serving.send(());
        })
    });
    let met = match serves.recv_timeout(PATIENCE) {
        Ok(()) => meanwhile(&running),
        Err(error) => Err(format!("it doesn't start: {error}")),
    };
    stop.stop();
    match node.join() {
        Ok(ended) => ended.map_err(|error| failed(error.to_string()))?,
        Err(panic) => std::panic::resume_unwind(panic),
    }
    met.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_runs_and_a_log_is_opened() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let time = Duration::from_millis(50);
        let load = Load { name: "test", appenders: 8, bytes: 256, groups: 3, commits: 2, time };
        let result = run(folder.path(), &load).unwrap();
        assert!(result.appends_per_second > 100.0 && result.p99_us >= result.p50_us, "{result:?}");
        let opened = recovery(folder.path(), 10, 4 << 20).unwrap();
        assert!(opened.file_bytes > 4 << 20 && opened.seconds > 0.0);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
    }
}

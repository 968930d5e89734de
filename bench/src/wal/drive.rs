//! The appender on the real driver.

use std::net::TcpListener;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use flotilla_runtime::NodeId;
use flotilla_runtime::driver::{self, CoreOptions, NodeHandle, NodeOptions};
use serde::{Deserialize, Serialize};

use super::appender::{Appender, Measured, Plan, Shared, shared};
use crate::cpu::{CpuReading, CpuUsed};
use crate::error::{BenchError, Result};
use crate::turn::Printed;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked at.
const GRAIN: Duration = Duration::from_millis(5);

/// So many appenders of so many bytes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Load {
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

/// Runs a load on a new log in `core`, an empty folder.
pub(crate) fn run(core: &Path, load: &Load) -> Result<Printed> {
    let Load { appenders, bytes, groups, commits, time } = *load;
    let plan = Plan { appenders, bytes, groups, commits, warmup: time / 3, time, keep: None };
    let (measured, used) = drive(core, plan, "appends")?;
    let (seconds, pids) = (measured.nanos as f64 / 1e9, [std::process::id()]);
    Ok(Printed::new(measured.appends, seconds, Some(&measured.latencies), used, &pids))
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

/// Runs a plan to its end; what was measured, and what this process used meanwhile.
fn drive(core: &Path, plan: Plan, name: &'static str) -> Result<(Measured, CpuUsed)> {
    let results = shared();
    let (watched, own, mut used) = (results.clone(), [std::process::id()], CpuUsed::NONE);
    node(core, plan, results.clone(), name, |running| {
        let begun = Instant::now();
        let until = |is_so: fn(&Measured) -> bool| {
            while !is_so(&watched.lock().unwrap_or_else(PoisonError::into_inner)) {
                if running.recv_timeout(GRAIN) != Err(mpsc::RecvTimeoutError::Timeout)
                    || begun.elapsed() > PATIENCE
                {
                    return Err("it never came to its end".to_owned());
                }
            }
            Ok(())
        };
        until(|measured| measured.has_begun)?;
        let before = CpuReading::take(&own);
        until(|measured| measured.is_over)?;
        used = CpuReading::take(&own).since(&before);
        Ok(())
    })?;
    let measured = results.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok((measured, used))
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
        let load = Load { appenders: 8, bytes: 256, groups: 3, commits: 2, time };
        let core = tempfile::tempdir_in(folder.path()).unwrap();
        let seen = run(core.path(), &load).unwrap().seen(Some(256));
        drop(core);
        assert!(seen.operations / seen.seconds > 100.0, "{seen:?}");
        assert_eq!(seen.latencies.as_ref().map(|all| all.len() as f64), Some(seen.operations), "{seen:?}");
        assert!(seen.cpu_seconds.is_some() && seen.memory_bytes > Some(1 << 20), "{seen:?}");
        let opened = recovery(folder.path(), 10, 4 << 20).unwrap();
        assert!(opened.file_bytes > 4 << 20 && opened.seconds > 0.0);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
    }
}

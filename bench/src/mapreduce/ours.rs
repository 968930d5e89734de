//! `flotilla mr run`, undisturbed and not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::error::{BenchError, Result};

/// How a run went.
pub(super) struct Ran {
    pub(super) seconds: f64,
    /// Anonymous memory of all processes, at its highest.
    pub(super) peak_mib: f64,
    /// Attempts that failed.
    pub(super) failures: usize,
}

#[derive(Deserialize)]
struct Printed {
    state: String,
    failures: Vec<serde_json::Value>,
}

/// The program beside this one, or the one that was named.
pub(super) fn program(given: Option<&Path>) -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(BenchError::io("finding this program's own path"))?;
    let program = given.map_or_else(|| own.with_file_name("flotilla"), Path::to_path_buf);
    if program.is_file() {
        return Ok(program);
    }
    let hint = "; build it with `cargo build --release`, or name it with --flotilla".to_owned();
    Err(BenchError::Missing { program: program.display().to_string(), hint })
}

/// Runs a job; `disturb` gets the process's number on a thread of its own.
pub(super) fn run(
    program: &Path,
    folder: &Path,
    input: &Path,
    arguments: &[&str],
    disturb: impl FnOnce(u32) + Send,
) -> Result<Ran> {
    let output = folder.join("output");
    clear(&output)?;
    let from = Instant::now();
    let mut command = Command::new(program);
    command.args(["mr", "run", "--json", "--input"]).arg(input).arg("--output").arg(&output).args(arguments);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.map_err(BenchError::io("starting flotilla"))?;
    let pid = child.id();
    let (ended, peak) = std::thread::scope(|scope| {
        let watching = scope.spawn(move || watch(pid));
        scope.spawn(move || disturb(pid));
        let ended = child.wait_with_output();
        (ended.map(|ended| (ended, from.elapsed().as_secs_f64())), watching.join().unwrap_or(0))
    });
    let (ended, seconds) = ended.map_err(BenchError::io("waiting for flotilla"))?;
    let failed = |reason: String| BenchError::Failed {
        scenario: arguments.join(" "),
        target: "flotilla".to_owned(),
        reason,
    };
    if !ended.status.success() {
        return Err(failed(String::from_utf8_lossy(&ended.stderr).trim().to_owned()));
    }
    let printed: Printed =
        serde_json::from_slice(&ended.stdout).map_err(|error| failed(error.to_string()))?;
    if printed.state != "committed" {
        return Err(failed(format!("it is {}", printed.state)));
    }
    clear(&output)?;
    let peak_mib = peak as f64 / 1024.0;
    Ok(Ran { seconds, peak_mib, failures: printed.failures.len() })
}

/// Removes an output, so that the next one doesn't overwrite blocks that are there.
pub(super) fn clear(output: &Path) -> Result<()> {
    match fs::remove_dir_all(output) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(BenchError::io(format!("removing {}", output.display()))(error))
        }
        _ => Ok(()),
    }
}

fn children(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// The highest sum of anonymous memory, in KiB, until the process has ended.
fn watch(pid: u32) -> u64 {
    let anonymous = |pid: u32| -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    };
    let mut peak = 0;
    // A process that has ended has no memory, even while nobody has noticed its end.
    while let Some(own) = anonymous(pid) {
        peak = peak.max(own + children(pid).into_iter().filter_map(anonymous).sum::<u64>());
        std::thread::sleep(Duration::from_millis(10));
    }
    peak
}

fn send(pid: u32, signal: Signal) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
}

/// Kills one worker after a while.
pub(super) fn kill_one(pid: u32, after: Duration) {
    std::thread::sleep(after);
    if let Some(worker) = children(pid).first() {
        send(*worker, Signal::KILL);
    }
}

/// Lets one worker run for a tenth of the time, until it has ended.
pub(super) fn slow_one(pid: u32) {
    let from = Instant::now();
    let worker = loop {
        match children(pid).first() {
            Some(worker) => break *worker,
            None if from.elapsed() > Duration::from_secs(5) => return,
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    while send(worker, Signal::STOP) {
        std::thread::sleep(Duration::from_millis(45));
        send(worker, Signal::CONT);
        std::thread::sleep(Duration::from_millis(5));
        if !Path::new(&format!("/proc/{pid}")).exists() || !children(pid).contains(&worker) {
            return;
        }
    }
}

//! `flotilla mr run`, undisturbed and not.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use super::ended::{Ended, to_its_end};
use crate::cpu::children;
use crate::error::{BenchError, Result};
use crate::target::process::dying_with_us;

/// How a run went.
pub(super) struct Ran {
    pub(super) job: Ended,
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
    let mut command = dying_with_us(program.as_os_str());
    command.args(["mr", "run", "--json", "--input"]).arg(input).arg("--output").arg(&output).args(arguments);
    let (ended, job) = to_its_end(command, "flotilla", disturb)?;
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
    Ok(Ran { job, failures: printed.failures.len() })
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

pub(super) fn send(pid: u32, signal: Signal) -> bool {
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

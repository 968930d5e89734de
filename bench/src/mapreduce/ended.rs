//! A job that ran as processes: how long it took, and what it used.

use std::process::{Command, Output, Stdio};
use std::time::Instant;

use crate::cpu::{Family, watch_peak};
use crate::error::{BenchError, Result};
use crate::turn::Seen;

/// A job that has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) seconds: f64,
    /// Of all its processes.
    pub(super) used: Family,
    /// Anonymous memory of all processes, at its highest.
    pub(super) peak_bytes: u64,
}

impl Ended {
    /// Megabytes of input that it read, and what it used for them.
    pub(super) fn seen(self, input_bytes: u64) -> Seen {
        Seen {
            cpu_seconds: Some(self.used.seconds),
            written_bytes: Some(self.used.written),
            memory_bytes: Some(self.peak_bytes),
            stored_bytes: Some(input_bytes as f64),
            ..timed(self.seconds, input_bytes)
        }
    }
}

/// So many bytes in so long a time.
pub(super) fn timed(seconds: f64, input_bytes: u64) -> Seen {
    Seen::timed(input_bytes as f64 / 1e6, seconds)
}

/// Runs `command` from its start to its end; `disturb` gets the process's number on a thread of its own.
pub(super) fn to_its_end(
    mut command: Command,
    target: &str,
    disturb: impl FnOnce(u32) + Send,
) -> Result<(Output, Ended)> {
    let (from, before) = (Instant::now(), Family::take());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(BenchError::io(format!("starting {target}")))?;
    let pid = child.id();
    let (ended, seconds, peak_bytes) = std::thread::scope(|scope| {
        let watching = scope.spawn(move || watch_peak(pid, || false));
        scope.spawn(move || disturb(pid));
        let ended = child.wait_with_output();
        (ended, from.elapsed().as_secs_f64(), watching.join().unwrap_or(0))
    });
    let ended = ended.map_err(BenchError::io(format!("waiting for {target}")))?;
    Ok((ended, Ended { seconds, used: Family::take().since(&before), peak_bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pipeline_of_processes_uses_is_the_jobs() {
        let mut command = Command::new("sh");
        command.args(["-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done | cat; echo done"]);
        let (output, ended) = to_its_end(command, "sh", |_| {}).unwrap();
        assert_eq!(output.stdout, b"done\n");
        assert!(ended.used.seconds > 0.0 && ended.seconds > 0.0 && ended.peak_bytes > 0, "{ended:?}");
        let seen = ended.seen(2_000_000);
        assert_eq!((seen.operations, seen.stored_bytes), (2.0, Some(2e6)), "of megabytes read");
        assert!(to_its_end(Command::new("/no/such/program"), "it", |_| {}).is_err());
    }
}

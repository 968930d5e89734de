//! Instructions that processes execute, counted by the processor, through `perf stat`. Many virtual machines have no counter of
//! them, and then nothing can stand in for it: CPU time depends on the clock, the caches and the neighbours.

use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// In user mode alone: the kernel's depend on its own work as well.
const EVENT: &str = "instructions:u";

/// Why instructions can't be counted here; nothing if they can.
pub(super) fn missing() -> Option<String> {
    let mut command = Command::new("perf");
    command.args(["stat", "-x,", "-e", EVENT, "true"]);
    // The numbers are on standard error.
    match command.output() {
        Ok(output) => match counted(&String::from_utf8_lossy(&output.stderr)) {
            Some(_) => None,
            None => {
                Some("this machine lets nobody count instructions (perf stat -e instructions:u)".to_owned())
            }
        },
        Err(_) => Some("no perf found in PATH; install it with `apt-get install linux-perf`".to_owned()),
    }
}

/// What was counted, of all events of one run.
fn counted(said: &str) -> Option<u64> {
    let of_event = said.lines().find(|line| line.contains(EVENT))?;
    of_event.split(',').next()?.trim().parse().ok()
}

/// A count that is under way. Dropped, it is given up.
pub(super) struct Count(Option<Child>);

impl Count {
    /// Counts from now on what these processes execute, in all their threads.
    pub(super) fn start(pids: &[u32]) -> std::io::Result<Self> {
        let pids = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let mut command = Command::new("perf");
        command.args(["stat", "-x,", "-e", EVENT, "-p", &pids]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        Ok(Self(Some(child)))
    }

    /// What they have executed since; none if it couldn't be counted.
    pub(super) fn end(mut self) -> std::io::Result<Option<u64>> {
        let Some(child) = self.0.take() else { return Ok(None) };
        // It tells what it has counted when it is interrupted.
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::INT)?;
        }
        let output = child.wait_with_output()?;
        Ok(counted(&String::from_utf8_lossy(&output.stderr)))
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // Both fail only if it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_perf_says_is_a_count_or_nothing() {
        assert_eq!(counted("1234567,,instructions:u,98765,100.00,,\n"), Some(1_234_567));
        assert_eq!(counted("<not supported>,,instructions:u,0,100.00,,\n"), None);
        assert_eq!(counted("Error: no permission\n"), None);
    }
}

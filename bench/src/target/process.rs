//! Servers that the benchmark starts itself, and that don't outlive it.
//!
//! Three nets: dropping a [`Process`] kills it; Ctrl-C ends the benchmark in an orderly way, and so drops it; and if the
//! benchmark itself is killed, the kernel kills the server (`setpriv --pdeathsig KILL`, or the server's own
//! `--die-with-parent`).

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::error::{BenchError, Result};
use crate::interrupt::Interrupt;

/// A running server.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    lines: Receiver<String>,
}

impl Process {
    /// Starts `command`, its errors going to `log`.
    ///
    /// The parent-death signal is tied to the thread that starts the process, so this is called on the main thread.
    pub(crate) fn start(name: &str, mut command: Command, log: PathBuf) -> Result<Self> {
        let errors = File::create(&log).map_err(BenchError::io(format!("creating {}", log.display())))?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            // Ctrl-C is for the benchmark, which then ends the servers.
            .process_group(0)
            .spawn()
            .map_err(|error| BenchError::NotStarted {
                server: name.to_owned(),
                reason: format!("{}: {error}", command.get_program().to_string_lossy()),
            })?;
        let lines = child.stdout.take().map_or_else(|| channel().1, read_lines);
        Ok(Self { name: name.to_owned(), child, log, lines })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error if it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.not_started(&format!("it ended ({status})"))),
            Err(error) => Err(BenchError::io(format!("looking after {}", self.name))(error)),
        }
    }

    /// Waits for a line on its standard output that starts with `word`, and returns it.
    pub(crate) fn await_line(&mut self, word: &str, until: Instant, interrupt: &Interrupt) -> Result<String> {
        loop {
            interrupt.check()?;
            match self.lines.recv_timeout(Duration::from_millis(20)) {
                Ok(line) if line.starts_with(word) => return Ok(line),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => self.check()?,
                Err(RecvTimeoutError::Disconnected) => {
                    self.check()?;
                    interrupt.sleep_until(Instant::now() + Duration::from_millis(20))?;
                }
            }
            if Instant::now() >= until {
                return Err(self.not_started(&format!("it never said \"{word}\"")));
            }
        }
    }

    /// The error of a server that didn't come up, with its last words.
    pub(crate) fn not_started(&self, reason: &str) -> BenchError {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let last = log.lines().rev().find(|line| !line.trim().is_empty());
        let reason =
            last.map_or_else(|| reason.to_owned(), |last| format!("{reason}; its last words: {last}"));
        BenchError::NotStarted { server: self.name.clone(), reason }
    }
}

impl Process {
    /// Ends it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        // Failing means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads a server's output for as long as it lives, so that it never blocks on a full pipe.
fn read_lines(output: ChildStdout) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        let mut sender = Some(sender);
        for line in BufReader::new(output).lines().map_while(std::io::Result::ok) {
            // Only the beginning is of interest: once nobody listens, lines are read and dropped.
            if sender.as_ref().is_some_and(|sender| sender.send(line).is_err()) {
                sender = None;
            }
        }
    });
    lines
}

/// A command that dies with us, through util-linux' setpriv where it is installed.
pub(crate) fn dying_with_us(program: &OsStr) -> Command {
    match find(Path::new("setpriv")) {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// Where a program is: a path as it stands, a bare name by PATH.
pub(crate) fn find(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.is_file().then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Hands out free ports. The nodes' admin ports, 20000 above them, are still below those that the kernel gives to outgoing
/// connections.
#[derive(Debug)]
pub(crate) struct Ports {
    next: u16,
}

const PORTS: std::ops::Range<u16> = 8_000..12_000;

impl Ports {
    /// Two benchmarks at once start looking in different places.
    pub(crate) fn new() -> Self {
        let span = u32::from(PORTS.end - PORTS.start);
        Self { next: PORTS.start + (std::process::id().wrapping_mul(97) % span) as u16 }
    }

    /// The first of `count` free ports in a row.
    pub(crate) fn take(&mut self, count: u16) -> Result<u16> {
        for _ in 0..PORTS.end - PORTS.start {
            if self.next + count >= PORTS.end {
                self.next = PORTS.start;
            }
            let first = self.next;
            self.next += 1;
            if (first..first + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
                self.next = first + count;
                return Ok(first);
            }
        }
        Err(BenchError::NotStarted {
            server: "a server".to_owned(),
            reason: format!("no {count} free ports in a row between {} and {}", PORTS.start, PORTS.end),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = dying_with_us(OsStr::new("sh"));
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_server_is_killed_when_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let mut server =
            Process::start("it", shell("echo ready 1; exec sleep 100"), folder.path().join("log")).unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        assert_eq!(server.await_line("ready", until, &Interrupt::default()).unwrap(), "ready 1");
        let stat = format!("/proc/{}/stat", server.pid());
        while !std::fs::read_to_string(&stat).unwrap().contains("(sleep)") {
            assert!(Instant::now() < until, "the id is the server's own");
        }
        drop(server);
        assert!(!Path::new(&stat).exists());
    }

    #[test]
    fn a_server_that_ends_tells_why() {
        let folder = tempfile::tempdir().unwrap();
        let mut server =
            Process::start("node 1", shell("echo no such disk >&2; exit 3"), folder.path().join("log"))
                .unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        let error = server.await_line("ready", until, &Interrupt::default()).unwrap_err().to_string();
        assert!(error.contains("node 1") && error.contains("no such disk") && error.contains('3'), "{error}");
    }

    #[test]
    fn ports_are_distinct_and_in_a_row() {
        let mut ports = Ports::new();
        let (first, second) = (ports.take(3).unwrap(), ports.take(2).unwrap());
        assert!(second >= first + 3 || second + 2 <= first);
    }

    #[test]
    fn programs_are_found_by_name_and_by_path() {
        assert!(find(Path::new("sh")).is_some());
        assert!(find(Path::new("/bin/sh")).is_some());
        assert!(find(Path::new("no-such-program")).is_none());
        assert!(find(Path::new("./no-such-program")).is_none());
    }
}

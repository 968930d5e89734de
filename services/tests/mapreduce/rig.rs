//! Runs `flotilla mr run` and looks at what comes of it.

use flotilla_services::hands::{Stopwatch, pause};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// The longest that anything may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The labs' books, or nothing to test with.
pub(crate) fn books() -> Option<PathBuf> {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|it| it.join("shared/data/books"));
    let found = found.into_iter().find(|books| books.is_dir());
    if found.is_none() {
        eprintln!("skipped: the labs' books aren't there (../shared/data/books)");
    }
    found
}

/// A folder with inputs and outputs.
pub(crate) struct Rig {
    pub(crate) folder: tempfile::TempDir,
    /// Where workers of a cluster keep what is between map and reduce.
    pub(crate) runs: Option<PathBuf>,
}

/// A job under way.
pub(crate) struct Running {
    child: Child,
    pub(crate) pid: u32,
}

/// What came of a job.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), runs: None }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn output(&self) -> PathBuf {
        self.path("out")
    }

    /// Writes an input file.
    pub(crate) fn input(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path("in").join(name);
        fs::create_dir_all(self.path("in")).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Many words in many files, from a seed.
    pub(crate) fn words(&self, files: usize, bytes_each: usize) -> Vec<u8> {
        let (mut all, mut state) = (Vec::new(), 7_u64);
        for file in 0..files {
            let mut text = Vec::new();
            while text.len() < bytes_each {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let word = (state >> 33) % 5000;
                text.extend_from_slice(
                    format!("w{}", word * word % 4999).replace(char::is_numeric, "x").as_bytes(),
                );
                text.extend_from_slice(LETTERS[(word % 26) as usize].as_bytes());
                text.push(if state >> 60 == 0 { b'\n' } else { b' ' });
            }
            text.push(b'\n');
            self.input(&format!("words-{file:03}.txt"), &text);
            all.extend_from_slice(&text);
        }
        all
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flotilla"));
        command.args(["mr", "run", "--json", "--output"]).arg(self.output());
        if !arguments.contains(&"--input") {
            command.arg("--input").arg(self.path("in"));
        }
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let pid = child.id();
        Running { child, pid }
    }

    /// Runs a job to its end, which must be a good one.
    pub(crate) fn run(&self, arguments: &[&str]) -> serde_json::Value {
        let ended = self.start(arguments).end();
        assert!(ended.status.success(), "{arguments:?}: {ended:?}");
        assert!(!self.has_leftovers(), "a private folder was left");
        serde_json::from_str(&ended.stdout).unwrap()
    }

    /// The output files, one behind the other.
    pub(crate) fn text(&self) -> Vec<u8> {
        let mut names: Vec<PathBuf> =
            fs::read_dir(self.output()).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("part-"));
        names.sort();
        names.into_iter().flat_map(|path| fs::read(path).unwrap()).collect()
    }

    /// The lines of the output, sorted, as the labs compare them.
    pub(crate) fn sorted(&self) -> Vec<String> {
        let mut lines: Vec<String> =
            String::from_utf8(self.text()).unwrap().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    pub(crate) fn is_committed(&self) -> bool {
        self.output().join("_SUCCESS").exists()
    }

    pub(crate) fn has_leftovers(&self) -> bool {
        self.work().is_some()
    }

    /// The job's private folder.
    pub(crate) fn work(&self) -> Option<PathBuf> {
        let entries = fs::read_dir(self.output()).ok()?;
        let mut paths = entries.filter_map(Result::ok).map(|entry| entry.path());
        paths.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("_work-"))
    }

    /// Waits until a file of that prefix is in the private folder.
    pub(crate) fn wait_for_work(&self, prefix: &str) {
        wait_until(&format!("a file {prefix}* of the job"), || {
            let runs = self.runs.iter().filter_map(|runs| fs::read_dir(runs).ok()).flatten();
            let folders = runs.filter_map(Result::ok).map(|it| it.path()).chain(self.work());
            let names = folders.filter_map(|work| fs::read_dir(work).ok()).flatten();
            names.filter_map(Result::ok).any(|it| it.file_name().to_str().unwrap().starts_with(prefix))
        });
    }
}

const LETTERS: [&str; 26] = [
    "a", "bb", "c", "dd", "e", "ff", "g", "hh", "i", "jj", "k", "ll", "m", "nn", "o", "pp", "q", "rr", "s",
    "tt", "u", "vv", "w", "xx", "y", "zz",
];

/// The processes that a process has started, from any of its threads.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().filter_map(Result::ok);
    let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    let pids = lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    pids.map(|pid| pid.parse().unwrap()).collect()
}

/// The kernel's scheduling classes of a process's threads: 0 is the usual one, 5 what gets the CPU time that nobody else wants.
pub(crate) fn classes(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().filter_map(Result::ok);
    let stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    let policy = |stat: String| stat.rsplit(") ").next()?.split_whitespace().nth(38)?.parse().ok();
    stats.filter_map(policy).collect()
}

impl Running {
    pub(crate) fn workers(&self) -> Vec<u32> {
        children(self.pid)
    }

    /// Waits until so many workers are there.
    pub(crate) fn wait_for_workers(&self, count: usize) -> Vec<u32> {
        wait_until("the workers", || self.workers().len() >= count);
        self.workers()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub(crate) fn end(mut self) -> Ended {
        let clock = Stopwatch::start();
        // The pipes are small enough for what is said, and read when it has ended.
        while self.child.try_wait().unwrap().is_none() {
            assert!(clock.elapsed() < PATIENCE, "the job hangs");
            pause(Duration::from_millis(2));
        }
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        Ended { status: self.child.wait().unwrap(), stdout, stderr }
    }
}

pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let clock = Stopwatch::start();
    while !is_so() {
        assert!(clock.elapsed() < PATIENCE, "waited in vain for {what}");
        pause(Duration::from_millis(2));
    }
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// Whether a process runs; one that has ended and whose parent hasn't noticed doesn't.
pub(crate) fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !matches!(stat.rsplit(") ").next().and_then(|it| it.chars().next()), Some('Z' | 'X'))
    })
}

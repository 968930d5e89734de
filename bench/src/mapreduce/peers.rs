//! What people use for the same: GNU tools as they are installed, ripgrep, DuckDB and PySpark from
//! `bench/peers/mapreduce.sh`.
//!
//! A pipeline of programs is timed from its start to its end, as ours is. DuckDB and PySpark are libraries that take long to
//! start: their scripts start, say so, and wait for a word, so that only the job is timed (`bench/peers/mapreduce/job.py`).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustix::process::Signal;

use super::Input;
use super::ended::{Ended, to_its_end};
use super::ours::{clear, send};
use crate::cpu::{Family, watch_peak};
use crate::error::{BenchError, Result};
use crate::interrupt::Interrupt;
use crate::target::built::beside;
use crate::target::process::{dying_with_us, find};
use crate::turn::Seen;

/// A program that does some of our jobs.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) version: String,
    how: How,
}

#[derive(Clone, Debug)]
enum How {
    /// Pipelines of GNU tools.
    Gnu,
    Ripgrep(PathBuf),
    /// A Python with the engine, and a script of `bench/peers/mapreduce`.
    Python(PathBuf, PathBuf),
}

/// A job for a peer.
pub(super) struct Task<'a> {
    pub(super) job: &'static str,
    pub(super) input: Input<'a>,
    /// What grep looks for.
    pub(super) pattern: &'a str,
    pub(super) folder: &'a Path,
    pub(super) interrupt: &'a Interrupt,
    /// GNU's word count gets less: its rate doesn't depend on it, and nobody wants to wait.
    pub(super) quick: bool,
}

/// Those that are installed, and why others aren't there.
pub(super) fn installed(quick: bool) -> (Vec<Peer>, Vec<String>) {
    let (mut peers, mut missing) = (Vec::new(), Vec::new());
    match find(Path::new("sort")) {
        Some(sort) => peers.push(Peer {
            name: "gnu",
            version: version(Command::new(sort).arg("--version")),
            how: How::Gnu,
        }),
        None => missing.push("gnu: no sort in PATH; the distribution's package has it".to_owned()),
    }
    match beside("peers/mapreduce/bin/rg").or_else(|| find(Path::new("rg"))) {
        Some(program) => {
            let version = version(Command::new(&program).arg("--version"));
            peers.push(Peer { name: "ripgrep", version, how: How::Ripgrep(program) });
        }
        None => missing.push("ripgrep: no rg; bench/peers/mapreduce.sh builds it".to_owned()),
    }
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/mapreduce");
    for (name, module, script) in
        [("duckdb", "duckdb", "duckdb_job.py"), ("pyspark", "pyspark", "spark_job.py")]
    {
        if quick && name == "pyspark" {
            continue;
        }
        let python = beside("peers/mapreduce/bin/python3").filter(|_| scripts.join(script).is_file());
        let has = |python: &PathBuf| {
            let text = format!("import {module}; print({module}.__version__)");
            Command::new(python)
                .args(["-c", &text])
                .stderr(Stdio::null())
                .output()
                .ok()
                .filter(|it| it.status.success())
        };
        match python.as_ref().and_then(|python| Some((python, has(python)?))) {
            Some((python, output)) => {
                let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
                peers.push(Peer { name, version, how: How::Python(python.clone(), scripts.join(script)) });
            }
            None => missing.push(format!("{name}: bench/peers/mapreduce.sh installs it")),
        }
    }
    (peers, missing)
}

/// The last word of the first line that a program says of itself.
fn version(command: &mut Command) -> String {
    let output = command.stderr(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let mut words = text.lines().next().unwrap_or_default().split_whitespace();
    words.rfind(|word| word.starts_with(|it: char| it.is_ascii_digit())).unwrap_or_default().to_owned()
}

impl Peer {
    /// Whether it knows the job.
    pub(super) fn can(&self, job: &str) -> bool {
        match self.how {
            How::Ripgrep(_) => job.starts_with("grep"),
            _ => matches!(job, "wc" | "books" | "sort"),
        }
    }

    /// Runs the job once.
    pub(super) fn run(&self, task: &Task<'_>) -> Result<Seen> {
        let output = task.folder.join("peer-output");
        remove(&output)?;
        let (mut input, mut bytes) = (task.input.path.to_owned(), task.input.bytes);
        let ended = match &self.how {
            How::Gnu => {
                let most = if task.quick { 32 << 20 } else { 128 << 20 };
                if task.job == "wc" && bytes > most {
                    input = task.folder.join("part");
                    bytes = cut(task.input.path, &input, most)?;
                }
                let mut command = dying_with_us(OsStr::new("sh"));
                command.args(["-c", pipeline(task.job), "sh"]).arg(&input).arg(&output);
                self.program(command, task)?
            }
            How::Ripgrep(program) => {
                let mut command = dying_with_us(OsStr::new("sh"));
                // Its own word for "nothing found" is 1.
                command.args(["-c", "\"$0\" -j2 -N -I \"$1\" \"$2\" > \"$3\" || [ $? -eq 1 ]"]);
                command.arg(program).arg(task.pattern).arg(&input).arg(&output);
                self.program(command, task)?
            }
            How::Python(python, script) => {
                let mut command = dying_with_us(python.as_os_str());
                let job = if task.job == "books" { "wc" } else { task.job };
                command.arg(script).arg(job).arg(&input).arg(&output);
                command.env("TMPDIR", task.folder).env("PYTHONDONTWRITEBYTECODE", "1");
                self.started(command, task)?
            }
        };
        if !output.exists() {
            return Err(self.failed(task, "it left no output"));
        }
        remove(&output)?;
        Ok(ended.seen(bytes))
    }

    fn failed(&self, task: &Task<'_>, words: &str) -> BenchError {
        let tail: Vec<&str> = words.trim().lines().rev().take(3).collect();
        BenchError::Failed {
            scenario: task.job.to_owned(),
            target: self.name.to_owned(),
            reason: tail.into_iter().rev().collect::<Vec<_>>().join("; "),
        }
    }

    /// From its start to its end.
    fn program(&self, mut command: Command, task: &Task<'_>) -> Result<Ended> {
        command.env("TMPDIR", task.folder);
        let (output, ended) = to_its_end(command, self.name, |_| {})?;
        match output.status.success() {
            true => Ok(ended),
            false => Err(self.failed(task, &String::from_utf8_lossy(&output.stderr))),
        }
    }

    /// From the word that it gets once it has started, to the word that it gives.
    fn started(&self, mut command: Command, task: &Task<'_>) -> Result<Ended> {
        let log = task.folder.join("peer-log");
        let doing = || BenchError::io(format!("running {}", self.name));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&log).map_err(doing())?);
        let mut child = Waited(command.spawn().map_err(doing())?);
        let silent = || self.failed(task, &fs::read_to_string(&log).unwrap_or_default());
        let (Some(mut input), Some(output)) = (child.0.stdin.take(), child.0.stdout.take()) else {
            return Err(silent());
        };
        let (pid, is_over, mut lines) =
            (child.0.id(), AtomicBool::new(false), BufReader::new(output).lines());
        let mut says = |word: &str| {
            let mut rest = lines.by_ref().map_while(std::io::Result::ok);
            rest.any(|line| line.starts_with(word)).then_some(()).ok_or_else(silent)
        };
        std::thread::scope(|scope| {
            let watching = scope.spawn(|| {
                watch_peak(pid, || {
                    // Python hears of Ctrl-C when its engine has done the job.
                    if task.interrupt.is_set() {
                        send(pid, Signal::KILL);
                    }
                    is_over.load(Ordering::Relaxed)
                })
            });
            let mut work = || {
                says("ready")?;
                let (from, before) = (Instant::now(), Family::take());
                writeln!(input).map_err(doing())?;
                says("done")?;
                Ok((from.elapsed().as_secs_f64(), Family::take().since(&before)))
            };
            let worked = work();
            is_over.store(true, Ordering::Relaxed);
            let peak_bytes = watching.join().unwrap_or(0);
            // Its input ends, and so does it.
            drop(input);
            let (seconds, used) = worked?;
            Ok(Ended { seconds, used, peak_bytes })
        })
    }
}

/// A child that is waited for; it has ended by itself, or does so soon, since its input is closed.
struct Waited(Child);

impl Drop for Waited {
    fn drop(&mut self) {
        let _ = self.0.wait();
    }
}

/// `$1` is the input, `$2` the output.
fn pipeline(job: &str) -> &'static str {
    match job {
        "sort" => "LC_ALL=C sort -S 256M --parallel=2 \"$1\"/* -o \"$2\"",
        _ => "cat \"$1\"/* | tr -cs A-Za-z '\\n' | LC_ALL=C sort -S 512M --parallel=2 | uniq -c > \"$2\"",
    }
}

/// Removes an output, be it a file or a folder.
fn remove(output: &Path) -> Result<()> {
    if output.is_file() {
        return fs::remove_file(output).map_err(BenchError::io("removing an output"));
    }
    clear(output)
}

/// Files with the first bytes of an input.
fn cut(input: &Path, part: &Path, bytes: u64) -> Result<u64> {
    let doing = || BenchError::io(format!("making {}", part.display()));
    clear(part)?;
    fs::create_dir(part).map_err(doing())?;
    let mut left = bytes;
    let mut file = File::create(part.join("part.txt")).map_err(doing())?;
    for entry in fs::read_dir(input).map_err(doing())? {
        let mut text = Vec::new();
        let from = File::open(entry.map_err(doing())?.path()).map_err(doing())?;
        from.take(left).read_to_end(&mut text).map_err(doing())?;
        file.write_all(&text).map_err(doing())?;
        left -= text.len() as u64;
    }
    Ok(bytes - left)
}

//! What people use for the same: GNU tools and ripgrep as they are installed, DuckDB and PySpark from
//! `bench/peers/mapreduce.sh`.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::ours::clear;
use crate::error::{BenchError, Result};
use crate::target::built::beside;

/// A program that does one of our jobs.
pub(super) struct Peer {
    pub(super) name: &'static str,
    how: How,
    /// It gets no more than this: its rate doesn't depend on it, and nobody wants to wait.
    bytes_max: u64,
}

enum How {
    /// `$1` is the input, `$2` the output.
    Shell(&'static str),
    /// A script of `bench/peers/mapreduce`, with job, input and output.
    Python(&'static str),
}

/// Those that know a job.
pub(super) fn of(job: &str, quick: bool) -> Vec<Peer> {
    let count = "cat \"$1\"/* | tr -cs A-Za-z '\\n' | LC_ALL=C sort -S 512M --parallel=2 | uniq -c > \"$2\"";
    let sort = "LC_ALL=C sort -S 256M --parallel=2 \"$1\"/* -o \"$2\"";
    let shell = |script, bytes_max| Peer { name: "gnu", how: How::Shell(script), bytes_max };
    let mut peers = match job {
        "wc" => vec![shell(count, if quick { 32 << 20 } else { 128 << 20 })],
        "books" => vec![shell(count, u64::MAX)],
        _ => vec![shell(sort, u64::MAX)],
    };
    peers.push(Peer { name: "duckdb", how: How::Python("duckdb_job.py"), bytes_max: u64::MAX });
    if !quick && job != "books" {
        peers.push(Peer { name: "pyspark", how: How::Python("spark_job.py"), bytes_max: u64::MAX });
    }
    peers
}

/// Where the script has put a Python with the peers, and the scripts.
fn python() -> Option<(PathBuf, PathBuf)> {
    let python = beside("peers/mapreduce/bin/python3")?;
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/mapreduce");
    scripts.is_dir().then_some((python, scripts))
}

/// Runs a job on a peer: seconds, and the bytes that it read. `None` if it isn't installed.
pub(super) fn run(
    peer: &Peer,
    job: &str,
    input: &Path,
    folder: &Path,
    bytes: u64,
) -> Result<Option<(f64, u64)>> {
    let (input, bytes) = if bytes > peer.bytes_max {
        let part = folder.join("part");
        (part.clone(), cut(input, &part, peer.bytes_max)?)
    } else {
        (input.to_path_buf(), bytes)
    };
    let output = folder.join("peer-output");
    let _ = fs::remove_file(&output);
    clear(&output).or_else(|_| fs::remove_file(&output).map_err(BenchError::io("removing an output")))?;
    let mut command = match peer.how {
        How::Shell(script) => {
            let mut command = Command::new("sh");
            command.args(["-c", script, "sh"]).env("TMPDIR", folder);
            command
        }
        How::Python(script) => {
            let Some((python, scripts)) = python() else { return Ok(None) };
            let mut command = Command::new(python);
            command
                .arg(scripts.join(script))
                .arg(if job == "books" { "wc" } else { job })
                .env("TMPDIR", folder);
            command
        }
    };
    let from = Instant::now();
    let ended = command.arg(&input).arg(&output).stdin(Stdio::null()).output();
    let ended = ended.map_err(BenchError::io(format!("starting {}", peer.name)))?;
    let seconds = from.elapsed().as_secs_f64();
    if !ended.status.success() || !output.exists() {
        let words = String::from_utf8_lossy(&ended.stderr);
        let tail: Vec<&str> = words.trim().lines().rev().take(3).collect();
        return Err(BenchError::Failed {
            scenario: job.to_owned(),
            target: peer.name.to_owned(),
            reason: tail.into_iter().rev().collect::<Vec<_>>().join("; "),
        });
    }
    if output.is_dir() {
        clear(&output)?;
    } else {
        fs::remove_file(&output).map_err(BenchError::io("removing an output"))?;
    }
    Ok(Some((seconds, bytes)))
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

/// ripgrep over the same files, its lines into a file. Seconds; `None` if it isn't installed.
pub(super) fn ripgrep(input: &Path, pattern: &str, folder: &Path) -> Result<Option<f64>> {
    let output = folder.join("ripgrep.txt");
    let doing = || BenchError::io("running ripgrep");
    let file = File::create(&output).map_err(doing())?;
    let from = Instant::now();
    let ended = Command::new("rg")
        .args(["-j2", "-N", "-I", pattern])
        .arg(input)
        .stdin(Stdio::null())
        .stdout(file)
        .status();
    let seconds = from.elapsed().as_secs_f64();
    fs::remove_file(&output).map_err(doing())?;
    match ended {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(doing()(error)),
        Ok(_) => Ok(Some(seconds)),
    }
}

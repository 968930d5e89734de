//! `flotilla wal`: a look into a log, read-only.

use super::Failure;
use clap::{Args, Subcommand};
use flotilla_runtime::{BlockPool, FileId, FileKind};
use flotilla_storage::inspect::{SegmentReport, inspect};
use flotilla_storage::segment::FirstBlock;
use std::path::{Path, PathBuf};

/// Subcommands of `flotilla wal`.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show what every segment of a log holds.
    Inspect(Options),
}

/// Options of `flotilla wal inspect`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// A core's folder (`…/core-0`), or a node's data folder.
    dir: PathBuf,
    /// Show every frame.
    #[arg(long)]
    frames: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &Command) -> Result<(), Failure> {
    let Command::Inspect(options) = command;
    let mut folders = vec![options.dir.clone()];
    let mut segments = segments_in(&options.dir)?;
    if segments.is_empty() {
        folders = cores_in(&options.dir)?;
        segments = Vec::new();
        for folder in &folders {
            segments.extend(segments_in(folder)?);
        }
    }
    if segments.is_empty() {
        let dir = options.dir.display();
        return Err(Failure::Failed(format!(
            "no log segments in {dir}: name a core's folder (…/core-0) or a node's data folder"
        )));
    }
    let mut reports = Vec::new();
    for (path, _) in &segments {
        let bytes =
            std::fs::read(path).map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
        // A copy that is aligned as the node's own buffers are.
        reports.push((path, inspect(&BlockPool::heap().copy_of(&bytes))));
    }
    if options.json {
        let list: Vec<_> = reports.iter().map(|(path, report)| json(path, report)).collect();
        println!("{}", serde_json::json!({ "schema": "flotilla-wal-1", "segments": list }));
    } else {
        reports.iter().for_each(|(path, report)| print(path, report, options.frames));
    }
    let bad = reports.iter().flat_map(|(_, report)| &report.frames).filter(|frame| !frame.good).count();
    if bad > 0 {
        return Err(Failure::Failed(format!("{bad} frames are damaged")));
    }
    Ok(())
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let at =
        |error: std::io::Error| Failure::Failed(format!("can't read the folder {}: {error}", dir.display()));
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(at)? {
        paths.push(entry.map_err(at)?.path());
    }
    paths.sort();
    Ok(paths)
}

fn segments_in(dir: &Path) -> Result<Vec<(PathBuf, FileId)>, Failure> {
    let named = |path: PathBuf| {
        let file: FileId = path.file_name()?.to_str()?.parse().ok()?;
        (file.kind == FileKind::Segment).then_some((path, file))
    };
    Ok(list(dir)?.into_iter().filter_map(named).collect())
}

fn cores_in(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let is_core = |path: &PathBuf| {
        path.is_dir() && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("core-"))
    };
    Ok(list(dir)?.into_iter().filter(is_core).collect())
}

fn print(path: &Path, report: &SegmentReport, frames: bool) {
    let name = path.display();
    match report.header {
        FirstBlock::None => return println!("{name}: a spare"),
        FirstBlock::OtherVersion(version) => {
            return println!("{name}: format version {version}, unknown to this program");
        }
        FirstBlock::Header(header) => println!(
            "{name}: epoch {}, after frame {}, node {} core {}, cluster id {:016x}",
            header.epoch,
            header.previous.0,
            header.identity.node,
            header.identity.core,
            header.identity.cluster
        ),
    }
    let records: usize = report.frames.iter().map(|frame| frame.records.len()).sum();
    let (end, why) = &report.end;
    println!("  {} frames, {records} records, {end} bytes; then {why}", report.frames.len());
    for frame in report.frames.iter().filter(|frame| !frame.good) {
        println!("  DAMAGED: frame {} at offset {}", frame.lsn.0, frame.offset);
    }
    for (group, (count, low, high)) in report.groups() {
        println!("  group {group}: {count} records, indices {low} to {high}");
    }
    if frames {
        println!(
            "  {:>10} {:>10} {:>8} {:>8} {:>10}  state",
            "offset", "frame", "bytes", "records", "durable"
        );
        for frame in &report.frames {
            let state = if frame.good { "good" } else { "DAMAGED" };
            let records = frame.records.len();
            println!(
                "  {:>10} {:>10} {:>8} {records:>8} {:>10}  {state}",
                frame.offset, frame.lsn.0, frame.bytes, frame.durable.0
            );
        }
    }
}

fn json(path: &Path, report: &SegmentReport) -> serde_json::Value {
    let epoch = match report.header {
        FirstBlock::Header(header) => Some(header.epoch),
        _ => None,
    };
    let frames = report.frames.iter().map(|frame| {
        serde_json::json!({
            "offset": frame.offset, "lsn": frame.lsn.0, "bytes": frame.bytes, "durable": frame.durable.0,
            "good": frame.good, "records": frame.records.len(),
        })
    });
    serde_json::json!({
        "file": path.display().to_string(), "epoch": epoch, "frames": frames.collect::<Vec<_>>(),
        "end": report.end.0, "why": report.end.1,
    })
}

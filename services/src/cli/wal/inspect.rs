//! `flotilla wal inspect`: what every segment holds.

use super::{Failure, folder, say};
use clap::Args;
use flotilla_runtime::FileKind;
use flotilla_storage::inspect::{SegmentReport, inspect};
use flotilla_storage::segment::FirstBlock;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Options of `flotilla wal inspect`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Options {
    /// A core's folder (`…/core-0`), or a node's data folder.
    dir: PathBuf,
    /// Show every frame.
    #[arg(long)]
    frames: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let mut reports = Vec::new();
    for core in folder::cores(&options.dir)? {
        for file in core.files.iter().filter(|file| file.kind == FileKind::Segment) {
            reports.push((core.path.join(file.to_string()), inspect(&core.read(*file)?)));
        }
    }
    if options.json {
        let list: Vec<_> = reports.iter().map(|(path, report)| json(path, report)).collect();
        say(&format!("{}\n", serde_json::json!({ "schema": "flotilla-wal-1", "segments": list })));
    } else {
        reports.iter().for_each(|(path, report)| say(&text(path, report, options.frames)));
    }
    let bad = reports.iter().flat_map(|(_, report)| &report.frames).filter(|frame| !frame.good).count();
    if bad > 0 {
        return Err(Failure::Failed(format!(
            "{bad} frames are damaged; `flotilla wal verify` says what that means"
        )));
    }
    Ok(())
}

fn text(path: &Path, report: &SegmentReport, frames: bool) -> String {
    let name = path.display();
    let mut out = String::new();
    let header = match report.header {
        FirstBlock::None => return format!("{name}: a spare\n"),
        FirstBlock::OtherVersion(version) => {
            return format!("{name}: format version {version}, unknown to this program\n");
        }
        FirstBlock::Header(header) => header,
    };
    let (epoch, previous, identity) = (header.epoch, header.previous.0, header.identity);
    let records: usize = report.frames.iter().map(|frame| frame.records.len()).sum();
    let (end, why) = &report.end;
    let count = report.frames.len();
    let _ = writeln!(
        out,
        "{name}: epoch {epoch}, after frame {previous}, node {} core {}, cluster id {:016x}\n  \
         {count} frames, {records} records, {end} bytes; then {why}",
        identity.node, identity.core, identity.cluster,
    );
    for frame in report.frames.iter().filter(|frame| !frame.good) {
        let _ = writeln!(out, "  DAMAGED: frame {} at offset {}", frame.lsn.0, frame.offset);
    }
    for (group, (count, low, high)) in report.groups() {
        let _ = writeln!(out, "  group {group}: {count} records, indices {low} to {high}");
    }
    if frames {
        out.push_str("      offset      frame    bytes  records    durable  state\n");
        for frame in &report.frames {
            let state = if frame.good { "good" } else { "DAMAGED" };
            let records = frame.records.len();
            let _ = writeln!(
                out,
                "  {:>10} {:>10} {:>8} {records:>8} {:>10}  {state}",
                frame.offset, frame.lsn.0, frame.bytes, frame.durable.0
            );
        }
    }
    out
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

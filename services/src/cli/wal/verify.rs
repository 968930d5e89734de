//! `flotilla wal verify`: what a start would make of a log.
//!
//! It does what a start does: recovery, then the snapshots that the log rests on. Beyond that it reads every entry's payload.

use super::folder::{CoreFolder, cores};
use super::{Failure, say};
use crate::command::by_code;
use crate::entry::{self, CODE_ADVANCE_TIME, SCHEMA_COMMAND_V1, SCHEMA_EMPTY};
use crate::kv::ShardReader;
use clap::Args;
use flotilla_runtime::{FileId, FileKind, Slice};
use flotilla_storage::repair::recover;
use flotilla_storage::snapshot::{PartKind, parse};
use flotilla_storage::{Identity, RecordHeader, Recovered, RecoveredGroup, StorageError};
use std::fmt::Write;
use std::path::PathBuf;

/// Options of `flotilla wal verify`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Options {
    /// A core's folder (`…/core-0`), or a node's data folder.
    dir: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What was found in a core's folder.
struct Report {
    identity: Identity,
    /// `None`: a start is refused before it reads that far.
    recovered: Option<Recovered>,
    /// What is wrong, a line each.
    damage: Vec<String>,
    /// What was lost before and given up by an operator, likewise.
    given_up: Vec<String>,
    verdict: &'static str,
    start: String,
    in_use: bool,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let mut reports = Vec::new();
    for core in cores(&options.dir)? {
        let report = verify(&core)?;
        reports.push((core, report));
    }
    if options.json {
        let list: Vec<_> = reports.iter().map(|(core, report)| json(core, report)).collect();
        say(&format!("{}\n", serde_json::json!({ "schema": "flotilla-wal-verify-1", "cores": list })));
    } else {
        reports.iter().for_each(|(core, report)| say(&text(core, report)));
    }
    let mut damaged = reports.iter().filter(|(_, report)| !report.damage.is_empty());
    let Some((core, first)) = damaged.next() else { return Ok(()) };
    let also = match damaged.count() {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    Err(Failure::Failed(format!("{}{also}: {}", core.path.display(), first.damage[0])))
}

fn verify(core: &CoreFolder) -> Result<Report, Failure> {
    let in_use = core.is_in_use();
    let images = core.images()?;
    let identity = core.identity(&images);
    let recovered = match recover(identity, &images) {
        Ok(recovered) => recovered,
        Err(error) => {
            let start = match &error {
                StorageError::Corrupt { lsn, .. } => format!(
                    "is refused; if nobody else has what is in it, `flotilla wal repair --truncate-at {}` writes a copy \
                     that ends before it",
                    lsn.0
                ),
                _ => "is refused".to_owned(),
            };
            let damage = vec![error.to_string()];
            let (recovered, given_up, verdict) = (None, Vec::new(), "refused");
            return Ok(Report { identity, recovered, damage, given_up, verdict, start, in_use });
        }
    };
    let groups = recovered.groups.values().filter_map(|group| group.damage);
    let is_given_up = recovered.holes.is_empty() && groups.clone().all(|damage| damage.given_up);
    let given_up = if is_given_up { recovered.damage() } else { Vec::new() };
    let mut damage = if is_given_up { Vec::new() } else { recovered.damage() };
    for (number, group) in &recovered.groups {
        damage.extend(snapshot_damage(core, *number, group)?);
    }
    let unreadable = recovered.groups.iter().filter_map(|(number, group)| unreadable_entries(*number, group));
    let unreadable: Vec<String> = unreadable.collect();
    let last = recovered.tail.last.0;
    let (verdict, start) = match (&recovered.cut, recovered.holes.first()) {
        (_, Some(hole)) => (
            "damaged",
            damaged_start(&format!("see `flotilla wal repair --truncate-at {}`", hole.frames.0.0)),
        ),
        (Some(cut), None) if damage.is_empty() => {
            let (lsn, file, offset) = (cut.lsn.0, cut.file, cut.offset);
            let torn = format!(
                "cuts off frame {lsn} at offset {offset} of {file}: it was being written when the node died, and never \
                 acknowledged; the log goes on behind frame {last}"
            );
            ("torn", torn)
        }
        _ if !damage.is_empty() => ("damaged", damaged_start("restore the folder from a copy")),
        _ if !unreadable.is_empty() => ("damaged", UNREADABLE_START.to_owned()),
        _ if !given_up.is_empty() => ("repaired", REPAIRED_START.to_owned()),
        _ => ("whole", format!("goes on behind frame {last}")),
    };
    damage.extend(unreadable);
    Ok(Report { identity, recovered: Some(recovered), damage, given_up, verdict, start, in_use })
}

const UNREADABLE_START: &str =
    "goes on, and makes nothing of those entries: was it a newer program that wrote them? Use that";

const REPAIRED_START: &str = "goes on with what is left where no other node has a replica; where others have, those groups \
                              don't vote until they have given back what is lost";

fn damaged_start(alone: &str) -> String {
    format!(
        "opens those groups as replicas that don't vote until the other nodes have given back what is lost; where no \
         other node has a replica, it is refused: {alone}"
    )
}

/// What is wrong with the snapshot that a group's log rests on.
fn snapshot_damage(core: &CoreFolder, group: u64, found: &RecoveredGroup) -> Result<Option<String>, Failure> {
    let Some((mark, payload)) = &found.snapshot else { return Ok(None) };
    let Ok(number) = (**payload).try_into().map(u64::from_le_bytes) else {
        return Ok(Some(format!("group {group}: the mark of its snapshot names no file")));
    };
    let file = FileId { kind: FileKind::Snapshot, number };
    if !core.files.contains(&file) {
        return Ok(Some(format!("group {group}: its snapshot {file} is missing")));
    }
    let image = core.read(file)?;
    let first = read_snapshot(file, &image, group).map_err(|error| error.to_string());
    Ok(match first {
        Err(what) => Some(format!("group {group}: its snapshot {what}")),
        Ok(index) if index != mark.index => Some(format!(
            "group {group}: its snapshot {file} is good for entry {index}, and the log says {}",
            mark.index
        )),
        Ok(_) => None,
    })
}

/// Reads a snapshot to its end; returns what it is good for.
fn read_snapshot(file: FileId, image: &Slice, group: u64) -> Result<u64, StorageError> {
    let mut shard = ShardReader::default();
    let mut index = None;
    parse(file, image, |header, payload| {
        if header.group != group {
            return Err(format!("it is of group {}", header.group));
        }
        index.get_or_insert(header.index);
        shard.read(payload).map_err(|error| error.to_string())?;
        if header.kind == PartKind::LastPiece {
            std::mem::take(&mut shard).finish().map_err(|error| error.to_string())?;
        }
        Ok(())
    })?;
    Ok(index.unwrap_or(0))
}

/// The first entry of a group that this program can't read, and how many there are.
fn unreadable_entries(group: u64, found: &RecoveredGroup) -> Option<String> {
    let mut bad = found.entries.iter().filter_map(|record| {
        let (header, payload) = RecordHeader::decode(record).ok()?;
        Some((header.index, unreadable(&header, payload)?))
    });
    let (index, what) = bad.next()?;
    Some(format!("group {group}: entry {index} {what}; {} more are unreadable", bad.count()))
}

fn unreadable(header: &RecordHeader, payload: &[u8]) -> Option<String> {
    match header.schema {
        SCHEMA_EMPTY => None,
        SCHEMA_COMMAND_V1 => match entry::read(payload) {
            Err(error) => Some(format!("is no command: {}", error.to_string().replace('\n', " "))),
            Ok(command) => {
                let code = command.code.to_native();
                let known = code == CODE_ADVANCE_TIME || by_code(code).is_some();
                (!known).then(|| format!("is a command of code {code}, unknown to this program"))
            }
        },
        schema => Some(format!("has schema {schema}, unknown to this program")),
    }
}

/// The first and the last entry that a group's log holds.
fn entries_of(found: &RecoveredGroup) -> Option<(u64, u64)> {
    let index = |record: &Slice| RecordHeader::decode(record).ok().map(|(header, _)| header.index);
    Some((index(found.entries.front()?)?, index(found.entries.back()?)?))
}

fn text(core: &CoreFolder, report: &Report) -> String {
    let Identity { cluster, node, core: number } = report.identity;
    let mut out = format!("{}: node {node} core {number}, cluster id {cluster:016x}\n", core.path.display());
    if report.in_use {
        out.push_str("  a node is running on it: what it writes meanwhile may look torn or missing\n");
    }
    for segment in report.recovered.iter().flat_map(|recovered| &recovered.tail.live) {
        let _ = writeln!(out, "  {}: epoch {}, from frame {}", segment.file, segment.epoch, segment.first.0);
    }
    for (number, group) in report.recovered.iter().flat_map(|recovered| &recovered.groups) {
        let _ = write!(out, "  group {number}:");
        if let Some((mark, _)) = &group.snapshot {
            let _ = write!(out, " snapshot up to {},", mark.index);
        }
        let _ = match entries_of(group) {
            Some((first, last)) => write!(out, " entries {first} to {last}"),
            None => write!(out, " no entries"),
        };
        let state = group.hard_state.unwrap_or_default();
        let vote = state.vote.map_or_else(|| "nobody".to_owned(), |node| node.0.to_string());
        let _ = writeln!(out, ", term {}, voted for {vote}", state.term);
    }
    for line in &report.damage {
        let _ = writeln!(out, "  DAMAGED: {line}");
    }
    for line in &report.given_up {
        let _ = writeln!(out, "  given up: {line}");
    }
    let _ = writeln!(out, "  {}: a start {}", report.verdict, report.start);
    out
}

fn json(core: &CoreFolder, report: &Report) -> serde_json::Value {
    let recovered = report.recovered.iter();
    let segments = recovered.clone().flat_map(|it| &it.tail.live).map(|segment| {
        let (file, first) = (segment.file.to_string(), segment.first.0);
        serde_json::json!({ "file": file, "epoch": segment.epoch, "first_frame": first })
    });
    let holes = recovered.clone().flat_map(|it| &it.holes).map(|hole| {
        let (file, frames) = (hole.file.to_string(), [hole.frames.0.0, hole.frames.1.0]);
        serde_json::json!({ "file": file, "offset": hole.offset, "frames": frames, "what": hole.what })
    });
    let groups = recovered.clone().flat_map(|it| &it.groups).map(|(number, group)| {
        let damage = group.damage.map(|damage| {
            serde_json::json!({
                "from": damage.from, "seen": damage.seen, "vote_lost": damage.vote_lost,
                "given_up": damage.given_up,
            })
        });
        let state = group.hard_state.unwrap_or_default();
        serde_json::json!({
            "group": number, "snapshot": group.snapshot.as_ref().map(|(mark, _)| mark.index),
            "entries": entries_of(group).map(|(first, last)| [first, last]),
            "term": state.term, "vote": state.vote.map(|node| node.0), "damage": damage,
        })
    });
    let cut = report.recovered.as_ref().and_then(|it| it.cut).map(
        |cut| serde_json::json!({ "file": cut.file.to_string(), "offset": cut.offset, "frame": cut.lsn.0 }),
    );
    let Identity { cluster, node, core: number } = report.identity;
    serde_json::json!({
        "folder": core.path.display().to_string(), "in_use": report.in_use,
        "node": node, "core": number, "cluster_id": format!("{cluster:016x}"),
        "verdict": report.verdict, "last_frame": report.recovered.as_ref().map(|it| it.tail.last.0),
        "segments": segments.collect::<Vec<_>>(), "lost_frames": holes.collect::<Vec<_>>(), "torn_tail": cut,
        "groups": groups.collect::<Vec<_>>(), "damage": report.damage,
        "given_up": report.given_up, "start": report.start,
    })
}

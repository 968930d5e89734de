//! `flotilla wal dump`: the entries of a group, as recovery gives them back.

use super::folder::cores;
use super::{Failure, say};
use crate::command::by_code;
use crate::entry::{self, CODE_ADVANCE_TIME, SCHEMA_COMMAND_V1, SCHEMA_EMPTY};
use clap::Args;
use flotilla_storage::repair::recover;
use flotilla_storage::{RecordHeader, RecoveredGroup};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Bytes of an argument that are shown.
const SHOWN_BYTES: usize = 64;

/// Options of `flotilla wal dump`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Options {
    /// A core's folder (`…/core-0`), or a node's data folder.
    dir: PathBuf,
    /// The group, as the log and `flotilla wal verify` number it.
    #[arg(long, short)]
    group: u64,
    /// The first entry.
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    from: u64,
    /// The last entry.
    #[arg(long, value_name = "INDEX", default_value_t = u64::MAX, hide_default_value = true)]
    to: u64,
    /// Print one JSON object, with arguments in full.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let mut seen = BTreeSet::new();
    for core in cores(&options.dir)? {
        let images = core.images()?;
        let mut recovered = recover(core.identity(&images), &images).map_err(Failure::failed)?;
        seen.extend(recovered.groups.keys().copied());
        if let Some(group) = recovered.groups.remove(&options.group) {
            print(options, &group);
            return match group.damage.filter(|damage| !damage.given_up) {
                None => Ok(()),
                Some(damage) => Err(Failure::Failed(format!(
                    "group {} is damaged: entries from {} on may be lost",
                    options.group, damage.from
                ))),
            };
        }
    }
    let seen: Vec<String> = seen.iter().map(u64::to_string).collect();
    let there = if seen.is_empty() { "none".to_owned() } else { seen.join(", ") };
    Err(Failure::Usage(format!(
        "group {} has no record in {}; the groups there: {there}",
        options.group,
        options.dir.display()
    )))
}

fn print(options: &Options, group: &RecoveredGroup) {
    let entries = group.entries.iter().filter_map(|record| RecordHeader::decode(record).ok());
    let entries = entries.filter(|(header, _)| (options.from..=options.to).contains(&header.index));
    let snapshot = group.snapshot.as_ref().map(|(mark, _)| (mark.index, mark.term));
    if options.json {
        let entries: Vec<_> = entries.map(|(header, payload)| json(&header, payload)).collect();
        let snapshot = snapshot.map(|(index, term)| serde_json::json!({ "index": index, "term": term }));
        let all = serde_json::json!({
            "schema": "flotilla-wal-dump-1", "group": options.group, "snapshot": snapshot, "entries": entries,
        });
        return say(&format!("{all}\n"));
    }
    if let Some((index, term)) = snapshot {
        say(&format!("a snapshot covers the entries up to {index} (term {term})\n"));
    }
    say("     index     term  schema    bytes  command\n");
    for (header, payload) in entries {
        let RecordHeader { index, term, schema, length, .. } = header;
        let what = match command(&header, payload) {
            Command::Empty => "(a leader's term begins)".to_owned(),
            Command::Unreadable(why) => format!("({why})"),
            Command::Read { name, unix_ms, args } => {
                let shown = args.iter().skip(1).map(|arg| shown(arg));
                [name, format!("@{unix_ms}")].into_iter().chain(shown).collect::<Vec<_>>().join(" ")
            }
        };
        say(&format!("{index:>10} {term:>8} {schema:>7} {length:>8}  {what}\n"));
    }
}

/// What an entry says.
enum Command {
    Empty,
    Unreadable(String),
    Read { name: String, unix_ms: u64, args: Vec<Vec<u8>> },
}

fn command(header: &RecordHeader, payload: &[u8]) -> Command {
    match header.schema {
        SCHEMA_EMPTY => Command::Empty,
        SCHEMA_COMMAND_V1 => match entry::read(payload) {
            Err(_) => Command::Unreadable("no archive of a command".to_owned()),
            Ok(command) => {
                let code = command.code.to_native();
                let name = match by_code(code) {
                    Some(spec) => spec.name.to_owned(),
                    None if code == CODE_ADVANCE_TIME => "(the time)".to_owned(),
                    None => format!("(code {code})"),
                };
                let args = command.args.iter().map(|arg| arg.0.to_vec()).collect();
                Command::Read { name, unix_ms: command.unix_ms.to_native(), args }
            }
        },
        schema => Command::Unreadable(format!("schema {schema} is unknown")),
    }
}

fn shown(arg: &[u8]) -> String {
    let more = arg.len().saturating_sub(SHOWN_BYTES);
    let text = arg[..arg.len() - more].escape_ascii();
    if more > 0 { format!("\"{text}…\"+{more}") } else { format!("\"{text}\"") }
}

fn json(header: &RecordHeader, payload: &[u8]) -> serde_json::Value {
    let mut entry = serde_json::json!({
        "index": header.index, "term": header.term, "schema": header.schema, "bytes": header.length,
    });
    match command(header, payload) {
        Command::Empty => {}
        Command::Unreadable(why) => entry["unreadable"] = why.into(),
        Command::Read { name, unix_ms, args } => {
            entry["command"] = name.into();
            entry["unix_ms"] = unix_ms.into();
            let args: Vec<String> = args.iter().map(|arg| arg.escape_ascii().to_string()).collect();
            entry["args"] = args.into();
        }
    }
    entry
}

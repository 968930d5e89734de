//! Logs that another program wrote, from `docs/format.md` alone (`corpus/write.py`), read back with the verdict that it
//! expects.

#![allow(clippy::unwrap_used, reason = "a test fails as it does")]

use flotilla_runtime::{BlockPool, FileId};
use flotilla_storage::{Identity, RecordHeader, Recovered, RecoveredGroup, Recovery, StorageError};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs the script; `None` (said aloud) where there is no Python and nobody insists.
fn corpus() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("corpus");
    let _ = std::fs::remove_dir_all(&folder);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/write.py");
    match Command::new("python3").arg(script).arg(&folder).output() {
        Ok(done) => {
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            Some(folder)
        }
        Err(error) => {
            assert!(std::env::var_os("FLOTILLA_REQUIRE_PYTHON").is_none(), "python3 is required: {error}");
            eprintln!("skipped: the log corpus needs python3 ({error})");
            None
        }
    }
}

fn recover(folder: &Path, expected: &Value) -> Result<Recovered, StorageError> {
    let number = |key: &str| expected[key].as_u64().unwrap();
    let identity = Identity {
        cluster: number("cluster"),
        node: u32::try_from(number("node")).unwrap(),
        core: u16::try_from(number("core")).unwrap(),
    };
    let mut recovery = Recovery::new(identity);
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let Ok(file) = path.file_name().unwrap().to_str().unwrap().parse::<FileId>() else { continue };
        recovery.segment(file, BlockPool::new().copy_of(&std::fs::read(path).unwrap()))?;
    }
    recovery.finish()
}

/// What was found, in the script's words; of the terms of entries only where it asks.
fn verdict(found: Result<Recovered, StorageError>, expected: &Value) -> Value {
    let mut verdict = expected.clone();
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            verdict["error"] = match error {
                StorageError::MissingSegment { .. } => "missing".into(),
                StorageError::Foreign { .. } => "foreign".into(),
                StorageError::Version { .. } => "version".into(),
                StorageError::Corrupt { .. } => "corrupt".into(),
                other => other.to_string().into(),
            };
            return verdict;
        }
    };
    verdict["error"] = Value::Null;
    verdict["last"] = found.tail.last.0.into();
    verdict["cut"] = found.cut.map_or(Value::Null, |cut| json!([cut.file.number, cut.offset, cut.lsn.0]));
    let holes = found.holes.iter();
    let holes = holes.map(|hole| json!([hole.file.number, hole.offset, hole.frames.0.0, hole.frames.1.0]));
    verdict["holes"] = holes.collect();
    let groups = found.groups.iter().map(|(number, group)| {
        let asks_terms = expected["groups"][number.to_string()]["terms"].is_array();
        (number.to_string(), group_verdict(group, asks_terms))
    });
    verdict["groups"] = Value::Object(groups.collect());
    verdict
}

fn group_verdict(group: &RecoveredGroup, asks_terms: bool) -> Value {
    let headers: Vec<RecordHeader> =
        group.entries.iter().map(|record| RecordHeader::decode(record).unwrap().0).collect();
    let indices = headers.iter().map(|header| header.index);
    assert!(indices.clone().zip(indices.skip(1)).all(|(one, next)| next == one + 1), "contiguous");
    let ends = headers.first().zip(headers.last()).map(|(first, last)| [first.index, last.index]);
    let state = group.hard_state;
    let terms = asks_terms.then(|| headers.iter().map(|header| header.term).collect::<Vec<_>>());
    json!({
        "entries": ends,
        "snapshot": group.snapshot.as_ref().map(|(mark, _)| mark.index),
        "term": state.map(|state| state.term),
        "vote": state.and_then(|state| state.vote).map_or(0, |node| node.0),
        "commit": state.map_or(0, |state| state.commit),
        "damage": group.damage.map(|damage| json!([damage.from, damage.seen, damage.vote_lost])),
        "terms": terms,
    })
}

#[test]
fn logs_that_another_program_wrote_are_read_as_it_expects() {
    let Some(corpus) = corpus() else { return };
    let (mut cases, mut wrong) = (0, Vec::new());
    for entry in std::fs::read_dir(corpus).unwrap() {
        let folder = entry.unwrap().path();
        let expected = std::fs::read_to_string(folder.join("expected.json")).unwrap();
        let expected: Value = serde_json::from_str(&expected).unwrap();
        let found = verdict(recover(&folder, &expected), &expected);
        if found != expected {
            wrong.push(format!("found    {found}\nexpected {expected}"));
        }
        cases += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(cases >= 70, "{cases} cases");
}

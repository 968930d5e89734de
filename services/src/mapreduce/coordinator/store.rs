//! How the facts of a cluster's jobs are written into the store: keys of one slot, each place written once.
//! `hands/cluster/log.rs` writes and reads them; whoever has a replica of the slot can see how the jobs are going.

use super::{Fact, Ledger};
use crate::mapreduce::spec::JobId;
use serde::{Deserialize, Serialize};

/// All keys begin so, and are in one slot, so in one Raft group.
pub const PREFIX: &str = "{flotilla.mr}";
/// In a place that a snapshot covers: it stays taken, so that a coordinator which slept can't write there.
pub const COVERED: &[u8] = b"-";

/// One place of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Nobody else writes the same, so a write whose answer was lost can be told from another's.
    pub by: String,
    /// The coordinator's.
    pub term: u64,
    /// None: a coordinator begins its term.
    pub fact: Option<Fact>,
}

/// All facts before a place.
#[derive(Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// That place.
    pub next: u64,
    /// The newest term before it.
    pub term: u64,
    /// What the facts say.
    pub ledger: Ledger,
}

/// A key by its name.
pub fn key(what: &str) -> Vec<u8> {
    format!("{PREFIX}:{what}").into_bytes()
}

/// The key of a place.
pub fn place_key(place: u64) -> Vec<u8> {
    key(&format!("log:{place:020}"))
}

/// The key of the snapshot.
pub fn snapshot_key() -> Vec<u8> {
    key("snapshot")
}

/// The place behind a snapshot, from the first of its bytes.
pub fn place_behind(snapshot: &[u8]) -> Option<u64> {
    let rest = snapshot.strip_prefix(b"{\"next\":")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
}

/// How a job is going, in a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobLine {
    /// Its number.
    pub job: JobId,
    /// What people call it.
    pub name: String,
    /// `running`, `committed`, `failed` or `cancelled`.
    pub state: String,
    /// Map tasks that are done, and all.
    pub maps: (u64, u64),
    /// Reduce tasks that are done, and all.
    pub reduces: (u64, u64),
}

/// The jobs that these entries of the store tell of, the newest first: a snapshot and the places behind it, in any order. What isn't
/// understood is left out.
pub fn jobs_of<'a>(entries: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<JobLine> {
    let (snapshot_key, place_prefix) = (snapshot_key(), key("log:"));
    let (mut ledger, mut next, mut facts) = (Ledger::default(), 0, Vec::new());
    for (key, value) in entries {
        if key == snapshot_key {
            if let Ok(snapshot) = serde_json::from_slice::<Snapshot>(value) {
                (ledger, next) = (snapshot.ledger, snapshot.next);
            }
        } else if let Some(place) = key.strip_prefix(&place_prefix[..])
            && let Some(number) = std::str::from_utf8(place).ok().and_then(|place| place.parse::<u64>().ok())
            && let Ok(place) = serde_json::from_slice::<Place>(value)
        {
            facts.push((number, place.fact));
        }
    }
    facts.sort_by_key(|(number, _)| *number);
    for fact in facts.iter().filter(|(number, _)| *number >= next).filter_map(|(_, fact)| fact.as_ref()) {
        ledger.apply(fact);
    }
    let done = |all: &[Option<_>]| (all.iter().flatten().count() as u64, all.len() as u64);
    let line = |(job, record): (JobId, &super::JobRecord)| JobLine {
        job,
        name: record.spec.name.clone(),
        state: record.state.name().to_owned(),
        maps: done(&record.maps),
        reduces: done(&record.reduces),
    };
    let mut lines: Vec<JobLine> = ledger.jobs().map(line).collect();
    lines.reverse();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_behind_a_snapshot_is_at_its_front() {
        let snapshot = Snapshot { next: 417, term: 3, ledger: Ledger::default() };
        assert_eq!(place_behind(&serde_json::to_vec(&snapshot).unwrap()), Some(417));
        for bad in [&b""[..], b"{\"next\":", b"{\"next\":x", b"[]", b"{\"next\":99999999999999999999999"] {
            assert_eq!(place_behind(bad), None);
        }
    }

    #[test]
    fn what_is_no_log_tells_of_no_jobs() {
        let (snapshot, place) = (snapshot_key(), place_key(3));
        let entries: [(&[u8], &[u8]); 3] = [(&snapshot, b"nonsense"), (&place, COVERED), (b"other", b"{}")];
        assert_eq!(jobs_of(entries.into_iter()), []);
    }
}

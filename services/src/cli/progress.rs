//! How far a cluster's shards are on their way: the newest configuration from the controller, and what each group's leader says of
//! its own shards, asked core by core.

use crate::client::{ClientError, Connection, Reply, Security};
use crate::hands::{Stopwatch, pause};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// How long one core may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longer than an election takes.
const ELECTION: Duration = Duration::from_secs(10);
/// When whoever may lead soon is asked again.
const AGAIN: Duration = Duration::from_millis(50);

/// What a group's leader says.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct GroupProgress {
    pub(super) group: u32,
    pub(super) serving: Vec<u16>,
    pub(super) leaving: Vec<u16>,
    pub(super) arriving: Vec<u16>,
    pub(super) keys: u64,
    pub(super) bytes: u64,
    pub(super) moved_bytes: u64,
}

/// The whole picture.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(super) struct Progress {
    pub(super) configuration: u64,
    /// Shards that aren't served by the group that is to serve them.
    pub(super) to_move: usize,
    pub(super) shards: usize,
    pub(super) groups: Vec<GroupProgress>,
}

impl fmt::Display for GroupProgress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, serving, leaving, arriving, keys, bytes, .. } = self;
        write!(out, "group {group}: {} shards, {keys} keys, {bytes} bytes", serving.len())?;
        for (what, shards) in [("leaving", leaving), ("arriving", arriving)] {
            if !shards.is_empty() {
                write!(out, ", {what} {shards:?}")?;
            }
        }
        Ok(())
    }
}

impl Progress {
    pub(super) fn is_complete(&self) -> bool {
        self.to_move == 0
            && self.shards > 0
            && self.groups.iter().all(|it| it.leaving.is_empty() && it.arriving.is_empty())
    }

    pub(super) fn moved_bytes(&self) -> u64 {
        self.groups.iter().map(|group| group.moved_bytes).sum()
    }

    pub(super) fn summary(&self) -> String {
        match self.to_move {
            0 => format!("all {} shards are where it says", self.shards),
            left => format!("{left} of {} shards are on their way", self.shards),
        }
    }

    /// What has happened since `first`, and how long the rest may take.
    pub(super) fn line(&self, first: &Self, elapsed: Duration) -> String {
        let moved = first.to_move.saturating_sub(self.to_move);
        let bytes = self.moved_bytes().saturating_sub(first.moved_bytes());
        let left = match moved {
            0 => "?".to_owned(),
            _ => format!("{:.1} s", elapsed.as_secs_f64() * self.to_move as f64 / moved as f64),
        };
        let mib = bytes as f64 / f64::from(1 << 20);
        format!("{moved} of {} shards moved, {mib:.1} MiB, about {left} left", first.to_move)
    }
}

/// The lines of an array.
pub(super) fn lines(reply: &Reply) -> Vec<String> {
    let Reply::Array(items) = reply else { return Vec::new() };
    let line = |item: &Reply| match item {
        Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => other.to_string(),
    };
    items.iter().map(line).collect()
}

/// `0-5,7` again.
pub(super) fn numbers(text: &str) -> Vec<u16> {
    let ranges = text.split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?)
    });
    ranges.flatten().collect()
}

/// Asks one core. While the controller has no leader that is known, nothing is done, and it is asked again.
///
/// # Errors
/// It doesn't answer, or refuses.
pub(super) fn execute(address: &str, security: &Security, command: &[&[u8]]) -> Result<Reply, ClientError> {
    let clock = Stopwatch::start();
    loop {
        match Connection::open_secured(address, PATIENCE, security)?.execute(command)? {
            Reply::Error(error) => {
                let may_lead_soon = error.starts_with("TRYAGAIN ") || error.starts_with("CLUSTERDOWN ");
                if !may_lead_soon || clock.elapsed() > ELECTION {
                    return Err(ClientError::Refused(format!("{address}: {error}")));
                }
            }
            reply => return Ok(reply),
        }
        pause(AGAIN);
    }
}

/// The addresses of all cores, as one of them says.
pub(super) fn cores(address: &str, security: &Security) -> Result<Vec<String>, ClientError> {
    let nodes = execute(address, security, &[b"CLUSTER", b"NODES"])?;
    let Reply::Bulk(text) = nodes else { return Ok(Vec::new()) };
    let text = String::from_utf8_lossy(&text).into_owned();
    let address = |line: &str| Some(line.split(' ').nth(1)?.split('@').next()?.to_owned());
    Ok(text.lines().filter_map(address).collect())
}

fn group_of(line: &str) -> Option<GroupProgress> {
    let words: Vec<&str> = line.split(' ').collect();
    let fields: BTreeMap<&str, &str> = words.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    let number = |name: &str| fields.get(name)?.parse::<u64>().ok();
    let journeys = |name: &str| {
        let shards = fields.get(name).copied().unwrap_or_default().split(',');
        shards.filter_map(|it| it.split(['<', '>']).next()?.parse().ok()).collect()
    };
    Some(GroupProgress {
        group: u32::try_from(number("group")?).ok()?,
        serving: numbers(fields.get("serving")?),
        leaving: journeys("leaving"),
        arriving: journeys("arriving"),
        keys: number("keys")?,
        bytes: number("bytes")?,
        moved_bytes: number("moved_bytes")?,
    })
}

/// Asks everybody. A core that doesn't answer leads nothing.
///
/// # Errors
/// The first core, or the controller, doesn't answer.
pub(super) fn look(address: &str, security: &Security) -> Result<Progress, ClientError> {
    let newest = lines(&execute(address, security, &[b"FLOTILLA.CLUSTER", b"QUERY"])?);
    let mut seen = Progress::default();
    let mut owners: BTreeMap<u16, u32> = BTreeMap::new();
    for line in &newest {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["configuration", number] => seen.configuration = number.parse().unwrap_or(0),
            ["group", group, .., "shards", shards] => {
                let group = group.parse().unwrap_or(u32::MAX);
                owners.extend(numbers(shards).into_iter().map(|shard| (shard, group)));
            }
            _ => {}
        }
    }
    for core in cores(address, security)? {
        let Ok(reply) = execute(&core, security, &[b"FLOTILLA.CLUSTER", b"STATUS"]) else { continue };
        seen.groups.extend(lines(&reply).iter().filter_map(|line| group_of(line)));
    }
    seen.groups.sort_by_key(|it| it.group);
    let served = |(shard, owner): (&u16, &u32)| {
        seen.groups.iter().any(|it| it.group == *owner && it.serving.contains(shard))
    };
    seen.to_move = owners.iter().filter(|it| !served(*it)).count();
    seen.shards = owners.len();
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_leader_are_understood() {
        let line = "group 3 serving 0-2,7 leaving 8>1,9>1 arriving  keys 5 bytes 70 moved_in 1 moved_bytes 9";
        let found = group_of(line).unwrap();
        assert_eq!((found.serving, found.leaving, found.arriving.len()), (vec![0, 1, 2, 7], vec![8, 9], 0));
        assert_eq!((found.group, found.keys, found.bytes, found.moved_bytes), (3, 5, 70, 9));
        assert!(group_of("configuration 7").is_none());
    }
}

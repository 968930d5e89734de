//! What the cores of a node tell of themselves when an operator asks: plain numbers, which go over the mesh.

use crate::controller::Configuration;
use flotilla_runtime::Histogram;
use flotilla_runtime::vitals::ProcessFigures;
use flotilla_storage::log::LogCounters;
use std::collections::BTreeMap;

/// The steps of a write whose time is taken, in their order: see `docs/metrics.md`.
pub const STAGES: [&str; 8] = ["queue", "build", "write", "sync", "disk", "network", "quorum", "apply"];

/// Nanoseconds as operators are told of them.
#[allow(clippy::cast_precision_loss, reason = "exact up to a hundred days, and near enough beyond")]
pub(super) fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// All histograms in one.
pub(super) fn summed<'a>(histograms: impl Iterator<Item = &'a Histogram>) -> Histogram {
    let mut sum = Histogram::default();
    histograms.for_each(|it| sum.add(it));
    sum
}

/// A shard in a group's hands.
#[derive(Clone, Copy, Debug)]
pub struct ShardReport {
    /// Which.
    pub number: u16,
    /// How it stands.
    pub standing: Standing,
    /// Its keys.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

/// How a shard stands in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Reads and writes are executed.
    Serving,
    /// The same, while a copy is made for that group.
    Copying(u32),
    /// Frozen: on its way to that group.
    Leaving(u32),
    /// Some of it has come from that group.
    Arriving(u32),
}

/// Another member of a group, as its leader sees it.
#[derive(Clone, Copy, Debug)]
pub struct FollowerReport {
    /// Its node.
    pub node: u32,
    /// It has a vote.
    pub votes: bool,
    /// Its log is known to agree up to here. Of a group that is led elsewhere, nothing is known.
    pub matched: Option<u64>,
}

/// One replica.
#[derive(Clone, Debug)]
pub struct GroupReport {
    /// The group's number.
    pub number: u32,
    /// `leader`, `follower`, `candidate`, `repairing` or `outside`.
    pub role: &'static str,
    /// The current term.
    pub term: u64,
    /// Who leads.
    pub leader: Option<u32>,
    /// The last entry.
    pub last: u64,
    /// Durable up to here.
    pub durable: u64,
    /// Committed up to here.
    pub commit: u64,
    /// Applied up to here.
    pub applied: u64,
    /// Bytes of its entries in memory.
    pub log_bytes: u64,
    /// How often it has asked for votes.
    pub elections: u64,
    /// The other members.
    pub others: Vec<FollowerReport>,
    /// Its shards.
    pub shards: Vec<ShardReport>,
    /// Shards that have come from other groups.
    pub moved_in: u64,
    /// Bytes of those.
    pub moved_bytes: u64,
    /// Clients that wait for it.
    pub waiting: u64,
}

/// Links to another node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// That stand.
    pub up: u64,
    /// That should.
    pub all: u64,
    /// The lowest version of the nodes' protocol that is spoken over those that stand.
    pub version: Option<u16>,
}

/// Snapshots that a core has taken of its groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotReport {
    /// So far.
    pub taken: u64,
    /// Begun and given up, since the disk had an error or no room.
    pub given_up: u64,
    /// Bytes of those that were taken.
    pub bytes: u64,
    /// Of the last one.
    pub last_bytes: u64,
    /// From its begin until it had its name.
    pub last_nanos: u64,
}

/// One core.
#[derive(Clone, Debug, Default)]
pub struct CoreReport {
    /// Which.
    pub core: u16,
    /// How long it has been up.
    pub uptime_nanos: u64,
    /// How far the node's clock is behind the time in the log.
    pub clock_behind_ms: u64,
    /// It finishes what was begun, and takes nothing new.
    pub is_draining: bool,
    /// Clients.
    pub connections: u64,
    /// Clients so far.
    pub connections_opened: u64,
    /// Clients turned away.
    pub connections_refused: u64,
    /// Clients cut off.
    pub connections_cut_off: u64,
    /// TLS that failed.
    pub tls_failures: u64,
    /// Bytes from clients.
    pub client_bytes_in: u64,
    /// Bytes to clients.
    pub client_bytes_out: u64,
    /// Commands of clients so far, by their place in the table.
    pub commands: Vec<u64>,
    /// Errors that clients were told, by their first word.
    pub errors: BTreeMap<String, u64>,
    /// Commands whose answers are due.
    pub waiting: u64,
    /// From a command to its answer: reads, writes.
    pub command_times: [Histogram; 2],
    /// Writes refused, since they would have waited for too long.
    pub writes_refused: u64,
    /// By [`STAGES`].
    pub stages: [Histogram; STAGES.len()],
    /// Turns.
    pub turns: Histogram,
    /// Tasks that held the core for more than 5 ms.
    pub stalls: u64,
    /// The log.
    pub log: LogCounters,
    /// Group commits.
    pub commit_times: Histogram,
    /// Segments of the log whose content is needed.
    pub segments: u64,
    /// Bytes that wait for the disk.
    pub log_waiting_bytes: u64,
    /// The log can't grow.
    pub is_out_of_room: bool,
    /// Entries that this core has proposed for clients.
    pub proposals: u64,
    /// Entries applied.
    pub applied: u64,
    /// Leaderships that began and ended here.
    pub leader_changes: u64,
    /// Snapshots.
    pub snapshots: SnapshotReport,
    /// Its replicas, the controller's last.
    pub groups: Vec<GroupReport>,
    /// Links to every other node.
    pub links: BTreeMap<u32, Links>,
    /// Frames to peers, their bytes, and frames that weren't sent.
    pub peer_out: [u64; 3],
    /// Frames from peers, and their bytes.
    pub peer_in: [u64; 2],
    /// Messages to other cores, from them, those that found a full ring, and cores that were woken.
    pub mesh: [u64; 4],
    /// What it has of the log of the MapReduce jobs: keys and values.
    pub jobs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Another node of the cluster, as this one's file has it.
#[derive(Clone, Debug)]
pub struct NodeLine {
    /// Its number.
    pub id: u32,
    /// Where it is.
    pub host: String,
    /// Its first core's port for clients.
    pub port: u16,
    /// Its cores.
    pub cores: u16,
}

/// The whole node.
#[derive(Clone, Debug)]
pub struct NodeReport {
    /// Its number.
    pub node: u32,
    /// Its cluster.
    pub cluster: String,
    /// Shards of the cluster.
    pub shards: u16,
    /// Everybody.
    pub nodes: Vec<NodeLine>,
    /// What its cores say, ascending.
    pub cores: Vec<CoreReport>,
    /// Cores that didn't answer in time.
    pub silent: Vec<u16>,
    /// The newest configuration that is known here.
    pub configuration: Configuration,
    /// Which group serves each shard.
    pub routes: Vec<u32>,
    /// Who leads each group, the controller included, where that is known.
    pub leaders: BTreeMap<u32, u32>,
    /// What the kernel says.
    pub process: ProcessFigures,
}

impl NodeReport {
    /// All replicas.
    pub fn groups(&self) -> impl Iterator<Item = (u16, &GroupReport)> {
        self.cores.iter().flat_map(|core| core.groups.iter().map(move |group| (core.core, group)))
    }

    /// Whether it is being stopped.
    pub fn is_draining(&self) -> bool {
        self.cores.iter().any(|core| core.is_draining)
    }

    /// Since when it runs: its oldest core.
    pub fn uptime_nanos(&self) -> u64 {
        self.cores.iter().map(|core| core.uptime_nanos).max().unwrap_or(0)
    }

    /// Why it doesn't turn as a whole; empty if it does.
    pub fn why_not_alive(&self) -> Vec<String> {
        self.silent.iter().map(|core| format!("core {core} didn't answer in time")).collect()
    }

    /// Why it doesn't serve; empty if it does.
    pub fn why_not_ready(&self) -> Vec<String> {
        let mut reasons = self.why_not_alive();
        if self.is_draining() {
            reasons.push("the node is being stopped".to_owned());
        }
        let full = self.cores.iter().filter(|core| core.is_out_of_room);
        reasons.extend(full.map(|core| format!("core {} has no room for its log", core.core)));
        for (_, group) in self.groups().filter(|(_, group)| group.role == "repairing") {
            let group = crate::group_name::in_words(group.number);
            reasons.push(format!("the replica of {group} isn't whole yet: it has no vote"));
        }
        for (_, group) in self.groups().filter(|(_, group)| group.leader.is_none() && group.role != "outside")
        {
            reasons.push(format!(
                "{} has no leader that is known here",
                crate::group_name::in_words(group.number)
            ));
        }
        reasons
    }

    /// Shards that aren't where the newest configuration says.
    pub fn misplaced(&self) -> impl Iterator<Item = (u16, u32, u32)> {
        let pairs = (0..).zip(self.routes.iter().zip(&self.configuration.shards));
        pairs.filter_map(|(shard, (is, wanted))| {
            wanted.filter(|wanted| wanted != is).map(|to| (shard, *is, to))
        })
    }
}

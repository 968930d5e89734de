//! A look inside a core: for the simulator's checkers, and for `INFO`.

use super::Core;
use super::shards::Status;
use crate::command::NodeView;
use crate::controller::Configuration;
use crate::slot::Slot;
use crate::topology::Topology;
use flotilla_consensus::Role;
use flotilla_runtime::machine::SECOND;
use flotilla_runtime::{FileId, NodeId, Now};

/// Everything the checkers want to know of a core.
#[derive(Debug)]
pub struct Inspection<'a> {
    /// Its groups.
    pub groups: Vec<GroupInspection<'a>>,
    /// The last frame of its log that is durable.
    pub durable_frame: u64,
    /// Segments of its log whose content is needed.
    pub live_segments: usize,
}

/// One group's replica.
#[derive(Debug)]
pub struct GroupInspection<'a> {
    raft: &'a flotilla_consensus::Raft,
    /// Its number from 0.
    pub group: u32,
    /// The current term.
    pub term: u64,
    /// Whom it voted for.
    pub vote: Option<NodeId>,
    /// What it is.
    pub role: Role,
    /// Whom it follows.
    pub leader: Option<NodeId>,
    /// It lost part of its log, and isn't a voter.
    pub repairing: bool,
    /// The first entry in memory.
    pub first_index: u64,
    /// The last entry.
    pub last_index: u64,
    /// Committed up to here.
    pub commit: u64,
    /// Applied up to here.
    pub applied: u64,
    /// The log can't give back its oldest segment because of this group.
    pub is_pinning: bool,
    state: &'a super::group::Group,
}

/// How a shard stands in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardStanding {
    /// Reads and writes are executed.
    Serving,
    /// Frozen: on its way to that group.
    Leaving(u32),
    /// Some of it has come from that group.
    Arriving(u32),
}

impl GroupInspection<'_> {
    /// Equal on replicas with equal data.
    pub fn state_hash(&self) -> u64 {
        self.state.shards.state_hash(self.state.clock_ms)
    }

    /// The shards in its hands, each with the configuration that brought it to how it stands, and how that is.
    pub fn shards(&self) -> impl Iterator<Item = (u16, u64, ShardStanding)> + '_ {
        self.state.shards.iter().map(|shard| {
            let standing = match shard.status {
                Status::Serving => ShardStanding::Serving,
                Status::Leaving { to } => ShardStanding::Leaving(to),
                Status::Arriving { from } => ShardStanding::Arriving(from),
            };
            (shard.number, shard.config, standing)
        })
    }

    /// Bytes of keys and values in its hands.
    pub fn data_bytes(&self) -> u64 {
        self.state.shards.iter().map(|shard| shard.keys.bytes()).sum()
    }

    /// The newest configuration, if this is the controller's group.
    pub fn configuration(&self) -> Option<&Configuration> {
        self.state.controller.as_ref().map(|controller| controller.newest())
    }

    /// Bytes of the entries in memory.
    pub fn log_bytes(&self) -> usize {
        self.raft.log().bytes()
    }

    /// Whether every shard is at `applied`: right after a snapshot was restored some are ahead.
    pub fn is_plain(&self) -> bool {
        self.state.shards.is_plain(self.applied)
    }

    /// Our own log is durable up to here.
    pub fn durable(&self) -> u64 {
        self.raft.durable()
    }

    /// A leader's: how far another's log is known to agree, and whether that counts.
    pub fn matched(&self, node: NodeId) -> Option<(u64, bool)> {
        self.raft.matched(node)
    }

    /// The configuration in effect, and the entry that brought it.
    pub fn membership(&self) -> (u64, &flotilla_consensus::Membership) {
        self.raft.membership()
    }

    /// Entries that hold configurations not in effect yet.
    pub fn changes(&self) -> &[u64] {
        self.raft.pending_changes()
    }

    /// The term and the whole record of an entry in memory.
    pub fn entry(&self, index: u64) -> Option<(u64, &[u8])> {
        self.raft.log().entry(index).map(|entry| (entry.term, &*entry.record))
    }
}

impl Core {
    /// Looks inside.
    pub fn inspect(&self) -> Inspection<'_> {
        let groups = self.groups.iter().enumerate().map(|(place, group)| {
            let raft = self.multi.raft(place);
            GroupInspection {
                raft,
                group: group.number,
                term: raft.term(),
                vote: raft.vote(),
                role: raft.role(),
                leader: raft.leader(),
                repairing: raft.is_repairing(),
                first_index: raft.log().first_index(),
                last_index: raft.log().last_index(),
                commit: raft.commit(),
                applied: group.applied,
                is_pinning: self.multi.is_pinning(place),
                state: group,
            }
        });
        let wal = self.multi.wal();
        let (durable_frame, live_segments) = (wal.durable().0, wal.live_segments());
        Inspection { groups: groups.collect(), durable_frame, live_segments }
    }

    /// Promised replies, and commands that wait for a group or are elsewhere.
    pub fn waiting(&self) -> usize {
        let in_groups: usize = self.groups.iter().map(super::group::Group::waiting).sum();
        in_groups + self.connections.waiting() + self.remote.waiting()
    }

    /// Whether a file of its folder is in use, or yet to be removed. Any other is lost space.
    pub fn has_file(&self, file: FileId) -> bool {
        self.multi.wal().has_file(file) || self.snapshots.has_file(file)
    }

    /// `CONFIG RESETSTAT`: what `INFO stats` counts begins anew on this core.
    pub(super) fn reset_counters(&mut self) {
        (self.connections.opened_total, self.connections.commands_total) = (0, 0);
        self.groups.iter_mut().for_each(|group| group.admission.refused_total = 0);
    }

    pub(super) fn node_view(&self, now: Now) -> View<'_> {
        View { core: self, now }
    }
}

/// What commands that touch no key may know.
pub(super) struct View<'a> {
    core: &'a Core,
    now: Now,
}

fn is_member(raft: &flotilla_consensus::Raft, node: u32) -> bool {
    raft.membership().1.peers.contains_key(&u64::from(node))
}

/// What a replica on this node is, in a word.
pub(super) fn role_of(raft: &flotilla_consensus::Raft, node: u32) -> &'static str {
    match raft.role() {
        Role::Leader => "leader",
        // It has no part in the group.
        Role::Follower if !is_member(raft, node) => "outside",
        // It lost part of its log, and doesn't vote until the others have given it back.
        Role::Follower if raft.is_repairing() => "repairing",
        Role::Follower => "follower",
        Role::PreCandidate | Role::Candidate => "candidate",
    }
}

fn line(key: &str, value: impl ToString) -> (String, String) {
    (key.to_owned(), value.to_string())
}

impl View<'_> {
    fn replication(&self) -> Vec<(String, String)> {
        let is_member = |raft: &flotilla_consensus::Raft| is_member(raft, self.core.config.node);
        let rafts = (0..self.core.groups.len()).map(|place| self.core.multi.raft(place));
        let repairing = rafts.filter(|raft| raft.is_repairing() && is_member(raft)).count();
        let mut lines = vec![line("groups", self.core.groups.len()), line("groups_repairing", repairing)];
        // The controller last.
        let mut groups: Vec<_> = self.core.groups.iter().enumerate().collect();
        groups.sort_by_key(|(_, group)| group.number);
        for (place, group) in groups {
            let raft = self.core.multi.raft(place);
            let role = role_of(raft, self.core.config.node);
            let leader = raft.leader().map_or_else(|| "none".to_owned(), |node| node.0.to_string());
            let text = format!(
                "role={role},term={},leader={leader},last={},durable={},commit={},applied={},keys={}",
                raft.term(),
                raft.log().last_index(),
                raft.durable(),
                raft.commit(),
                group.applied,
                group.keys(),
            );
            lines.push((crate::group_name::name_of(group.number).replace(' ', ""), text));
        }
        lines
    }
}

impl NodeView for View<'_> {
    fn topology(&self) -> Topology {
        self.core.topology()
    }

    fn info(&self) -> Vec<(&'static str, Vec<(String, String)>)> {
        let core = self.core;
        let bytes: u64 =
            core.groups.iter().flat_map(|group| group.shards.iter()).map(|shard| shard.keys.bytes()).sum();
        let keys: u64 = core.groups.iter().map(super::group::Group::keys).sum();
        let refused: u64 = core.groups.iter().map(|group| group.admission.refused_total).sum();
        let uptime = self.now.monotonic.saturating_sub(core.started) / SECOND;
        vec![
            (
                "Server",
                vec![
                    line("redis_version", "7.2.0"),
                    line("flotilla_version", env!("CARGO_PKG_VERSION")),
                    line("redis_mode", "cluster"),
                    line("arch_bits", usize::BITS),
                    line("node", core.config.node),
                    line("core", core.id.0),
                    line("cluster", &core.config.cluster),
                    line("tcp_port", core.config.me().port + core.id.0),
                    line("uptime_in_seconds", uptime),
                ],
            ),
            ("Clients", vec![line("connected_clients", core.connections.len())]),
            ("Memory", vec![line("used_memory_dataset", bytes)]),
            (
                "Persistence",
                vec![
                    line("loading", 0),
                    line("log_durable_frame", core.multi.wal().durable().0),
                    line("log_recovered", &core.recovered),
                ],
            ),
            (
                "Stats",
                vec![
                    line("total_connections_received", core.connections.opened_total),
                    line("total_commands_processed", core.connections.commands_total),
                    line("total_writes_refused", refused),
                ],
            ),
            ("Replication", {
                let mut lines = vec![line("role", "master")];
                lines.extend(self.replication());
                lines
            }),
            ("Cluster", vec![line("cluster_enabled", 1)]),
            ("Keyspace", vec![line("db0", format!("keys={keys},expires=0,avg_ttl=0"))]),
        ]
    }

    fn connections(&self) -> Vec<(u64, String)> {
        self.core.connections.describe()
    }

    fn users(&self) -> &crate::acl::Acl {
        &self.core.acl
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let config = &self.core.config;
        let mut settings = vec![
            ("acllog-max-len", crate::acl::ENTRIES_MAX.to_string()),
            ("appendfsync", "always".to_owned()),
            ("appendonly", "yes".to_owned()),
            ("cluster-enabled", "yes".to_owned()),
            ("databases", "1".to_owned()),
            ("flotilla-shards", config.shards.to_string()),
            ("maxclients", config.limits.connections_max.to_string()),
            ("maxmemory", "0".to_owned()),
            ("maxmemory-policy", "noeviction".to_owned()),
            ("port", (config.me().port + self.core.id.0).to_string()),
            ("proto-max-bulk-len", config.limits.value_bytes_max.to_string()),
            ("protected-mode", if config.protected_mode { "yes" } else { "no" }.to_owned()),
            ("save", String::new()),
            ("timeout", "0".to_owned()),
        ];
        settings.extend(self.core.slowlog.settings());
        settings.sort_unstable();
        settings
    }

    fn slowlog(&self) -> &crate::command::slowlog::Slowlog {
        &self.core.slowlog
    }

    fn unix_ms(&self) -> u64 {
        self.now.unix_ms
    }

    fn keys_in_slot(&self, slot: u16, most: usize) -> Vec<Vec<u8>> {
        let core = self.core;
        let shard = Slot(slot).shard(core.config.shards);
        let number = core.routes.of(shard);
        let Some(group) = core.groups.iter().find(|group| group.number == number && group.is_leading())
        else {
            return Vec::new();
        };
        let Some(shard) = group.serving(Slot(slot)) else { return Vec::new() };
        let keys = shard.keys.keys_after(group.clock_ms, None);
        keys.filter(|key| Slot::of_key(key).0 == slot).take(most).map(<[u8]>::to_vec).collect()
    }
}

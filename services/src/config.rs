//! A node's configuration: one TOML file.

mod admin;
mod check;
mod file;
mod keys;
mod mapreduce;
mod overrides;
pub mod reload;
mod security;

pub use admin::AdminSettings;
pub use file::ConfigError;
pub use keys::table as table_of_keys;
pub use mapreduce::MapReduceSettings;
pub use overrides::{Overrides, variables};
pub use security::{Demand, Rules, TlsSettings, UserEntry};

use crate::acl::PasswordHash;
use flotilla_runtime::NodeId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What a node does with a command whose keys another node leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Redirect {
    /// Answers `-MOVED`, as a Redis Cluster node does. For clients that know clusters.
    #[default]
    Moved,
    /// Hands it on and passes the answer back. For clients that know no cluster; costs a hop.
    Forward,
}

/// How the log is made durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// One fdatasync per group commit. Right everywhere.
    #[default]
    Fdatasync,
    /// O_DSYNC writes: faster on some devices, a disaster on others. Measure first.
    Dsync,
}

/// One node of the cluster, as every node's file lists it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NodeEntry {
    /// The node's number, from 1.
    pub id: u32,
    /// Name or address, for clients, for peers, and to listen on.
    pub host: String,
    /// Client port of core 0; core c listens on `port + c`.
    pub port: u16,
    /// Peer port of core 0; core c listens on `peer_port + c`.
    pub peer_port: u16,
    /// Cores of that node, 1 to 256.
    #[serde(default = "one")]
    pub cores: u16,
    /// 0 to 255: the nodes of the highest priority lead, as long as they are well; the same in every node's file.
    #[serde(default = "usual_priority")]
    pub priority: u8,
    /// It isn't among the nodes that the cluster is founded with: its replicas are empty until it is taken in
    /// ([operations.md](operations.md)).
    #[serde(default)]
    pub joins: bool,
}

/// The priority of a node that has no other.
pub fn usual_priority() -> u8 {
    100
}

/// Where a group is founded, if not on all nodes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GroupPlacement {
    /// A group, counted from 0, that isn't founded on all nodes.
    pub group: u32,
    /// The nodes, ascending, that it is founded on.
    pub nodes: Vec<u32>,
}

/// Limits that bound a node's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Client connections per core.
    pub connections_max: usize,
    /// The largest key or value that a client may send, 1024 to 536870912 (512 MiB).
    pub value_bytes_max: usize,
    /// Replies that a client hasn't read, those that gather for one write included; beyond, it is cut off; a single reply may
    /// be of any size.
    pub client_output_bytes_max: usize,
    /// A write that would wait for longer for disk and quorum is refused at once (`BUSY`): [overload](redis.md#overload); 0:
    /// none is.
    pub write_wait_ms_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            value_bytes_max: 16 << 20,
            client_output_bytes_max: 64 << 20,
            write_wait_ms_max: 1000,
        }
    }
}

/// The log's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// Bytes of a segment file: a multiple of 4096, at least 1 MiB and twice `limits.value_bytes_max`.
    pub segment_bytes: u64,
    /// Group commits on their way to disk at once, 1 to 16.
    pub commits_in_flight: usize,
    /// How a commit becomes durable: `"fdatasync"` once for each, right everywhere; `"dsync"` opens the files with O_DSYNC:
    /// faster on some devices, a disaster on others; measure first.
    pub sync: Sync,
    /// Log that a group keeps in memory and on disk before it takes a snapshot; a quarter of its data, if that is more. At
    /// least 4096.
    pub snapshot_after_bytes: usize,
    /// Bytes a second that a core writes into snapshots and sends of them, at most; 0: as many as it can.
    pub snapshot_bytes_per_second: u64,
    /// Bytes of moving shards that a core sends a second, at most; 0: as many as it can.
    pub migration_bytes_per_second: u64,
    /// The same while that core, or the one that they go to, is sent more than 1000 commands a second; 0: no less than
    /// otherwise.
    pub migration_bytes_per_second_under_load: u64,
    /// Bytes of a moving shard that are sent, and logged, at once: 64 to 16777216 (16 MiB), and at most a quarter of
    /// `log.segment_bytes`. A shard that is smaller than half of it isn't copied first.
    pub migration_piece_bytes: usize,
    /// Bytes of a snapshot that a turn takes, sends or receives: a multiple of 4096, at most 16 MiB.
    pub snapshot_piece_bytes: usize,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            commits_in_flight: 1,
            sync: Sync::default(),
            snapshot_after_bytes: 64 << 20,
            snapshot_bytes_per_second: 256 << 20,
            migration_bytes_per_second: 256 << 20,
            migration_bytes_per_second_under_load: 16 << 20,
            migration_piece_bytes: 256 << 10,
            snapshot_piece_bytes: 256 << 10,
        }
    }
}

impl LogSettings {
    /// Bytes a second of shards that a core sends to other groups, at most: alone, and while clients are served. 0: no limit.
    pub(crate) fn migration_rates(&self) -> [u64; 2] {
        let (most, under_load) =
            (self.migration_bytes_per_second, self.migration_bytes_per_second_under_load);
        let lower = if most == 0 || (1..most).contains(&under_load) { under_load } else { most };
        [most, lower]
    }
}

/// Raft's timeouts, in milliseconds, and bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RaftSettings {
    /// A leader speaks at least this often.
    pub heartbeat_ms: u64,
    /// Silence after which a follower campaigns (up to one and a half times this, whoever should lead first); for so long after hearing a
    /// leader, or starting, nobody votes for another; at least four heartbeats.
    pub election_timeout_ms: u64,
    /// A leader that a majority has answered lately serves reads without asking again: faster, and linearizable only as long as
    /// the clocks keep to the next bound ([reads](raft.md#reads)).
    pub lease_reads: bool,
    /// While one node's monotonic clock advances by a second, another's advances by at most so many microseconds more; what
    /// time daemons do at worst is within the default; at most 1000000.
    pub clock_drift_max_ppm: u32,
    /// Bytes of entries in one message to a follower; one entry goes whatever its size; 4096 to 4194304.
    pub append_bytes_max: usize,
    /// For how many microseconds, at most, a follower may let entries wait for a sync that the majority doesn't need
    /// ([spared syncs](raft.md#spared-syncs)); at most 100000; 0: every follower syncs at once.
    pub spare_sync_wait_us: u64,
}

impl Default for RaftSettings {
    fn default() -> Self {
        // What time daemons do to a clock at worst: chrony slews by up to a twelfth, on two nodes in opposite directions.
        Self {
            heartbeat_ms: 50,
            election_timeout_ms: 400,
            lease_reads: false,
            clock_drift_max_ppm: 200_000,
            append_bytes_max: 256 << 10,
            spare_sync_wait_us: 4000,
        }
    }
}

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of 1 to 64 characters; nodes and data folders of another one are refused.
    pub cluster: String,
    /// The id of this node among `nodes`.
    pub node: u32,
    /// The node's folder, on ext4 or XFS (direct I/O); created if missing, locked while the node runs.
    pub data: PathBuf,
    /// Raft groups that serve the shards, 1 to 1024; fixed when the cluster is created. Group g lives on core g mod `cores` of
    /// every node.
    #[serde(default = "one_group")]
    pub groups: u32,
    /// Further groups, numbered behind those, that have no shard until they join; at most 1024; may grow.
    #[serde(default)]
    pub spare_groups: u32,
    /// Groups join and leave, and shards move between them ([shards.md](shards.md)); without, every shard stays where it was
    /// founded. The same in every node's file.
    #[serde(default = "security::yes")]
    pub controller: bool,
    /// Shards in the cluster, 1 to 16384, at least one a group; fixed when the cluster is created.
    #[serde(default = "default_shards")]
    pub shards: u16,
    /// What happens to a command that another node leads: `"moved"` answers `-MOVED`, as a Redis Cluster node does; `"forward"`
    /// hands it on, for clients that know no cluster, at the cost of a hop.
    #[serde(default)]
    pub redirect: Redirect,
    /// The CPU of each core, each its own; empty: wherever the kernel puts them ([runtime.md](runtime.md#where-cores-run)).
    #[serde(default)]
    pub cpus: Vec<usize>,
    /// For how many microseconds a busy core looks for what comes next before it sleeps, giving its CPU to others between two
    /// looks; at most 10 000; 0: it sleeps at once ([runtime.md](runtime.md)).
    #[serde(default = "default_busy_poll_us")]
    pub busy_poll_us: u64,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
    /// The log.
    #[serde(default)]
    pub log: LogSettings,
    /// Timeouts.
    #[serde(default)]
    pub raft: RaftSettings,
    /// What is logged: `error`, `warn`, `info` (if nothing is said), `debug`, `trace`, also by module
    /// (`warn,flotilla_runtime=debug`); `FLOTILLA_LOG` in the environment goes before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
    /// Where operators ask.
    #[serde(default, skip_serializing_if = "AdminSettings::is_default")]
    pub admin: AdminSettings,
    /// Workers of MapReduce jobs.
    #[serde(default, skip_serializing_if = "MapReduceSettings::is_default")]
    pub mapreduce: MapReduceSettings,
    /// As long as the default user has no password, clients are accepted over the loopback interface only
    /// ([security.md](security.md)).
    #[serde(default = "security::yes")]
    pub protected_mode: bool,
    /// The SHA-256, in lowercase hexadecimal, of the default user's password, who may do everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub requirepass_sha256: Option<PasswordHash>,
    /// Certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSettings>,
    /// Users that are there from the start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<UserEntry>,
    /// The groups that aren't founded on all nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub placement: Vec<GroupPlacement>,
    /// All nodes of the cluster, this one included.
    pub nodes: Vec<NodeEntry>,
}

fn one() -> u16 {
    1
}

fn one_group() -> u32 {
    1
}

fn default_shards() -> u16 {
    64
}

/// What may wait until a peer reads it, however short segments are.
const LINK_BYTES_LEAST: usize = 128 << 20;

/// Longer than it takes to be woken.
pub(crate) fn default_busy_poll_us() -> u64 {
    100
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`], naming file, key and remedy.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::load(path, &Overrides::default())
    }

    /// Reads a file, puts in what is said elsewhere, and checks the whole.
    ///
    /// # Errors
    /// [`ConfigError`], naming file, variable or flag, key and remedy.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(path, &text, overrides)
    }

    /// This node's own entry.
    pub fn me(&self) -> &NodeEntry {
        self.nodes.iter().find(|node| node.id == self.node).expect("checked: node is among nodes")
    }

    /// Bytes that may wait until a peer reads them; no longer frame goes over a link. Whatever fits into a segment fits, with
    /// something before it.
    pub fn link_bytes_max(&self) -> usize {
        let two_segments = self.log.segment_bytes.saturating_mul(2);
        usize::try_from(two_segments).unwrap_or(usize::MAX).max(LINK_BYTES_LEAST)
    }

    /// All groups, the spare ones included.
    pub fn groups_total(&self) -> u32 {
        self.groups + self.spare_groups
    }

    /// Whether a node is among those that a group (counted from 0) is founded with.
    pub fn founds(&self, node: &NodeEntry, group: u32) -> bool {
        let placed = self.placement.iter().find(|it| it.group == group);
        !node.joins && placed.is_none_or(|it| it.nodes.contains(&node.id))
    }

    /// A number made from the cluster's name, for handshakes and headers.
    pub fn cluster_id(&self) -> u64 {
        cluster_id(&self.cluster)
    }

    /// This node's number.
    pub fn node_id(&self) -> NodeId {
        NodeId(self.node)
    }
}

/// A number made from a cluster's name: FNV-1a.
pub(crate) fn cluster_id(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const GOOD: &str = "cluster = \"c\"\nnode = 1\ndata = \"/tmp/x\"\n[[nodes]]\nid = 1\nhost = \"h\"\nport = 7000\npeer_port = 17000\n";

    pub(super) fn error(text: &str) -> String {
        let path = Path::new("node.toml");
        match Config::parse(path, text, &Overrides::default()) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_minimal_file_is_enough() {
        assert_eq!(error(GOOD), "accepted");
    }

    #[test]
    fn mistakes_are_named_with_file_line_and_key() {
        let unknown = error(&GOOD.replace("node = 1", "nodee = 1"));
        assert!(
            unknown.starts_with("node.toml, line 2: there is no key `nodee`: did you mean `node`?"),
            "{unknown}"
        );
        assert!(error(&GOOD.replace("node = 1", "node = 4")).contains("node = 4: isn't the id of any"));
        let beyond = error(&GOOD.replace("7000", "70000"));
        assert!(beyond.starts_with("node.toml, line 8:"), "{beyond}");
        assert!(error(&GOOD.replace("port = 7000", "port = 0")).contains("nodes.port = 0"));
        let twice = format!("{GOOD}[[nodes]]\nid = 1\nhost = \"h\"\nport = 7001\npeer_port = 17001\n");
        assert!(error(&twice).contains("ids are unique"));
    }

    #[test]
    fn what_moving_shards_may_be_set_to() {
        // Its tables come last.
        let with = |settings: &str| error(&format!("{GOOD}[log]\n{settings}\n"));
        assert_eq!(with("migration_piece_bytes = 64"), "accepted");
        assert!(with("migration_piece_bytes = 63").contains("log.migration_piece_bytes = 63"));
        let large = with("segment_bytes = 67108864\nmigration_piece_bytes = 16777217");
        assert!(large.contains("64 to 16777216"), "{large}");
        let larger = with("segment_bytes = 33554432\nmigration_piece_bytes = 8388609");
        assert!(larger.contains("a quarter of log.segment_bytes"), "{larger}");
        let rates = |most, under_load| {
            let log = LogSettings {
                migration_bytes_per_second: most,
                migration_bytes_per_second_under_load: under_load,
                ..LogSettings::default()
            };
            log.migration_rates()
        };
        assert_eq!([rates(9, 3), rates(9, 0), rates(3, 9)], [[9, 3], [9, 9], [3, 3]]);
        assert_eq!([rates(0, 3), rates(0, 0)], [[0, 3], [0, 0]], "0 is no limit");
    }
}

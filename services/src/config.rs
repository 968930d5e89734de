//! A node's configuration: one TOML file.

mod admin;
pub mod reload;
mod security;

pub use admin::AdminSettings;
pub use security::{Demand, Rules, TlsSettings, UserEntry};

use crate::acl::PasswordHash;
use flotilla_runtime::NodeId;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What a node does with a command whose keys another node leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Redirect {
    /// Answers `-MOVED`, as a Redis Cluster node does. For clients that know clusters.
    #[default]
    Moved,
    /// Hands it on and passes the answer back. For clients that know no cluster; costs a hop.
    Forward,
}

/// How the log is made durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// One fdatasync per group commit. Right everywhere.
    #[default]
    Fdatasync,
    /// O_DSYNC writes: faster on some devices, a disaster on others. Measure first.
    Dsync,
}

/// No core may hold a CPU for longer than that for nothing.
const BUSY_POLL_US_MAX: u64 = 10_000;

/// One node of the cluster, as every node's file lists it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NodeEntry {
    /// Its number, from 1.
    pub id: u32,
    /// The name or address that clients and peers reach it by.
    pub host: String,
    /// The client port of core 0; core `c` listens on `port + c`.
    pub port: u16,
    /// The peer port of core 0; core `c` listens on `peer_port + c`.
    pub peer_port: u16,
    /// How many cores it runs.
    #[serde(default = "one")]
    pub cores: u16,
    /// The nodes of the highest priority lead, as long as they are well.
    #[serde(default = "usual_priority")]
    pub priority: u8,
    /// It isn't among the nodes that the cluster is founded with: its replicas are empty until they are taken in.
    #[serde(default)]
    pub joins: bool,
}

/// The priority of a node that has no other.
pub fn usual_priority() -> u8 {
    100
}

/// Where a group is founded, if not on all nodes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GroupPlacement {
    /// The group, counted from 0.
    pub group: u32,
    /// The nodes that are its members when it is founded.
    pub nodes: Vec<u32>,
}

/// Limits that bound a node's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Client connections per core.
    pub connections_max: usize,
    /// The largest key or value, in bytes.
    pub value_bytes_max: usize,
    /// Replies that a client hasn't read, in bytes; beyond, it is cut off.
    pub client_output_bytes_max: usize,
    /// A write that would wait for longer than this, in milliseconds, is refused at once; 0: none is.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// Bytes of one segment file; at least twice the largest value.
    pub segment_bytes: u64,
    /// Group commits in flight.
    pub commits_in_flight: usize,
    /// How a commit becomes durable.
    pub sync: Sync,
    /// A group whose log in memory is larger takes a snapshot and forgets it.
    pub snapshot_after_bytes: usize,
    /// Bytes a second that a core writes into snapshots and sends of them, at most; 0 for as many as it can.
    pub snapshot_bytes_per_second: u64,
    /// Bytes a second of shards that a core sends to other groups, at most; 0 for as many as it can.
    pub migration_bytes_per_second: u64,
    /// The same while it serves clients, or the core that they go to does; 0 for no less than otherwise.
    pub migration_bytes_per_second_under_load: u64,
    /// Bytes of a moving shard that are sent, and logged, at once.
    pub migration_piece_bytes: usize,
    /// Bytes of a snapshot that a turn takes, sends or receives: whole blocks of 4096.
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
            migration_bytes_per_second_under_load: 32 << 20,
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

/// What an append may be set to: less destroys batching, more holds up what follows it.
const APPEND_BYTES: std::ops::RangeInclusive<usize> = 4096..=4 << 20;

/// Raft's timeouts, in milliseconds, and bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RaftSettings {
    /// A leader speaks at least this often.
    pub heartbeat_ms: u64,
    /// Without a word of the leader for this to twice this long, a follower campaigns.
    pub election_timeout_ms: u64,
    /// A leader that a majority has answered lately serves reads without asking again. Rests on the clocks, see
    /// [`Self::clock_drift_max_ppm`].
    pub lease_reads: bool,
    /// While one node's monotonic clock advances by a second, another's advances by at most so many millionths more.
    pub clock_drift_max_ppm: u32,
    /// Bytes of entries in one message to a follower; one entry goes whatever its size.
    pub append_bytes_max: usize,
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
        }
    }
}

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The cluster's name: nodes and data folders of another one are refused.
    pub cluster: String,
    /// This node's number.
    pub node: u32,
    /// Its data folder.
    pub data: PathBuf,
    /// Groups that serve the shards when the cluster is created. Fixed then.
    #[serde(default = "one_group")]
    pub groups: u32,
    /// Further groups, numbered behind those: they have no shard until they join. May grow.
    #[serde(default)]
    pub spare_groups: u32,
    /// Whether the cluster has a controller, and so groups that join and leave: see `docs/shards.md`. Without, every shard stays
    /// where it was founded. The same in every node's file.
    #[serde(default = "security::yes")]
    pub controller: bool,
    /// Shards in the cluster. Fixed when the cluster is created.
    #[serde(default = "default_shards")]
    pub shards: u16,
    /// What happens to commands that another node leads.
    #[serde(default)]
    pub redirect: Redirect,
    /// The CPU of each core; empty: wherever the system puts them.
    #[serde(default)]
    pub cpus: Vec<usize>,
    /// For how many microseconds a busy core looks for what comes next before it sleeps; 0: it sleeps at once.
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
    /// What is logged, as `info` or `warn,flotilla_runtime=debug`; `FLOTILLA_LOG` in the environment goes before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
    /// Where operators ask.
    #[serde(default, skip_serializing_if = "AdminSettings::is_default")]
    pub admin: AdminSettings,
    /// Without a password for the default user, clients are accepted from this machine only.
    #[serde(default = "security::yes")]
    pub protected_mode: bool,
    /// The hash of the default user's password, who may do everything with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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

/// Longer than it takes to be woken.
pub(crate) fn default_busy_poll_us() -> u64 {
    100
}

/// A configuration that can't be used: one line that says what, where and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read the configuration {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It isn't TOML, or has a key that doesn't exist or has the wrong type.
    #[error("{path}, line {line}: {what}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and which keys there are.
        what: String,
    },
    /// A value that can't change while the node runs.
    #[error("{path}: {key} changes only with a restart of the node")]
    NeedsRestart {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// A value that makes no sense.
    #[error("{path}: {key} = {value}: {what}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// Why it can't be, and what can.
        what: String,
    },
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`], naming file, key and remedy.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let config = Self::parse(path, &text)?;
        config.check(path)?;
        Ok(config)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let line = text[..at.min(text.len())].matches('\n').count() + 1;
            let what = error.message().replace('\n', " ");
            ConfigError::Malformed { path: path.to_owned(), line, what }
        })
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let invalid = |key: &str, value: String, what: &str| ConfigError::Invalid {
            path: path.to_owned(),
            key: key.to_owned(),
            value,
            what: what.to_owned(),
        };
        if self.cluster.is_empty() || self.cluster.len() > 64 {
            return Err(invalid("cluster", format!("{:?}", self.cluster), "a name of 1 to 64 characters"));
        }
        if !self.nodes.iter().any(|node| node.id == self.node) {
            return Err(invalid("node", self.node.to_string(), "isn't the id of any of the [[nodes]]"));
        }
        if self.nodes.iter().all(|node| node.joins) {
            return Err(invalid("nodes.joins", "true".to_owned(), "somebody has to found the cluster"));
        }
        if self.nodes.len() > 16 {
            return Err(invalid("nodes", self.nodes.len().to_string(), "at most 16 nodes"));
        }
        for node in &self.nodes {
            self.check_node(node, &invalid)?;
        }
        if self.groups == 0 || self.groups > 1024 {
            return Err(invalid("groups", self.groups.to_string(), "1 to 1024"));
        }
        if self.spare_groups > 1024 {
            return Err(invalid("spare_groups", self.spare_groups.to_string(), "at most 1024"));
        }
        for it in &self.placement {
            self.check_placement(it, &invalid)?;
        }
        if self.shards == 0 || self.shards > 16384 || u32::from(self.shards) < self.groups {
            return Err(invalid("shards", self.shards.to_string(), "1 to 16384, and at least one a group"));
        }
        let largest = self.limits.value_bytes_max;
        if !(1024..=crate::command::STRING_BYTES_MAX).contains(&largest) {
            return Err(invalid(
                "limits.value_bytes_max",
                largest.to_string(),
                "1024 to 536870912 (512 MiB)",
            ));
        }
        let least = (self.limits.value_bytes_max as u64).saturating_mul(2).max(1 << 20);
        if self.log.segment_bytes < least || !self.log.segment_bytes.is_multiple_of(4096) {
            let what = "a multiple of 4096, at least 1 MiB and twice limits.value_bytes_max";
            return Err(invalid("log.segment_bytes", self.log.segment_bytes.to_string(), what));
        }
        if self.log.snapshot_after_bytes < 4096 {
            return Err(invalid(
                "log.snapshot_after_bytes",
                self.log.snapshot_after_bytes.to_string(),
                "at least 4096",
            ));
        }
        let piece = self.log.migration_piece_bytes;
        if !(64..=16 << 20).contains(&piece) {
            return Err(invalid("log.migration_piece_bytes", piece.to_string(), "64 to 16777216"));
        }
        if piece as u64 > self.log.segment_bytes / 4 {
            let what = "at most a quarter of log.segment_bytes: a piece is an entry of the log";
            return Err(invalid("log.migration_piece_bytes", piece.to_string(), what));
        }
        let piece = self.log.snapshot_piece_bytes;
        if !(4096..=16 << 20).contains(&piece) || !piece.is_multiple_of(4096) {
            let what = "a multiple of 4096, at most 16 MiB";
            return Err(invalid("log.snapshot_piece_bytes", piece.to_string(), what));
        }
        if !(1..=16).contains(&self.log.commits_in_flight) {
            return Err(invalid("log.commits_in_flight", self.log.commits_in_flight.to_string(), "1 to 16"));
        }
        if self.raft.heartbeat_ms == 0 || self.raft.election_timeout_ms < 4 * self.raft.heartbeat_ms {
            let what = "must be at least four times raft.heartbeat_ms, which must be at least 1";
            return Err(invalid("raft.election_timeout_ms", self.raft.election_timeout_ms.to_string(), what));
        }
        if self.raft.clock_drift_max_ppm > 1_000_000 {
            let what = "at most 1000000: one clock at twice the speed of another";
            return Err(invalid("raft.clock_drift_max_ppm", self.raft.clock_drift_max_ppm.to_string(), what));
        }
        if !APPEND_BYTES.contains(&self.raft.append_bytes_max) {
            let what = "4096 to 4194304";
            return Err(invalid("raft.append_bytes_max", self.raft.append_bytes_max.to_string(), what));
        }
        self.check_security(&invalid)?;
        self.check_admin(&invalid)?;
        if let Some(level) = &self.log_level
            && tracing_subscriber::EnvFilter::try_new(level).is_err()
        {
            let what = "error, warn, info, debug or trace, also by module";
            return Err(invalid("log_level", format!("{level:?}"), what));
        }
        if self.busy_poll_us > BUSY_POLL_US_MAX {
            return Err(invalid("busy_poll_us", self.busy_poll_us.to_string(), "at most 10000 µs"));
        }
        if !self.cpus.is_empty() && self.cpus.len() != usize::from(self.me().cores) {
            return Err(invalid(
                "cpus",
                format!("{:?}", self.cpus),
                "one CPU for each core of this node, or none",
            ));
        }
        Ok(())
    }

    fn check_placement(
        &self,
        it: &GroupPlacement,
        invalid: &dyn Fn(&str, String, &str) -> ConfigError,
    ) -> Result<(), ConfigError> {
        let is_twice = self.placement.iter().filter(|other| other.group == it.group).count() > 1;
        if it.group >= self.groups_total() || is_twice {
            let what = "a group of `groups` and `spare_groups`, counted from 0, and each at most once";
            return Err(invalid("placement.group", it.group.to_string(), what));
        }
        let founds = |id: &u32| self.nodes.iter().any(|node| node.id == *id && !node.joins);
        if it.nodes.is_empty() || !it.nodes.iter().all(founds) || !it.nodes.is_sorted_by(|a, b| a < b) {
            let what = "ids of [[nodes]] that don't join, ascending";
            return Err(invalid("placement.nodes", format!("{:?}", it.nodes), what));
        }
        Ok(())
    }

    fn check_node(
        &self,
        node: &NodeEntry,
        invalid: &dyn Fn(&str, String, &str) -> ConfigError,
    ) -> Result<(), ConfigError> {
        if node.id == 0 || self.nodes.iter().filter(|other| other.id == node.id).count() > 1 {
            return Err(invalid("nodes.id", node.id.to_string(), "ids are unique and start at 1"));
        }
        if node.cores == 0 || node.cores > 256 {
            return Err(invalid("nodes.cores", node.cores.to_string(), "1 to 256"));
        }
        for (key, port) in [("nodes.port", node.port), ("nodes.peer_port", node.peer_port)] {
            if port == 0 || port.checked_add(node.cores - 1).is_none() {
                return Err(invalid(
                    key,
                    port.to_string(),
                    "1 to 65535, with a port more for each further core",
                ));
            }
        }
        if node.host.is_empty() || node.host.contains(char::is_whitespace) {
            return Err(invalid("nodes.host", format!("{:?}", node.host), "a host name or an IP address"));
        }
        Ok(())
    }

    /// This node's own entry.
    pub fn me(&self) -> &NodeEntry {
        self.nodes.iter().find(|node| node.id == self.node).expect("checked: node is among nodes")
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
        match Config::parse(path, text).and_then(|config| config.check(path)) {
            Ok(()) => "accepted".to_owned(),
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
        assert!(unknown.starts_with("node.toml, line 2: unknown field `nodee`"), "{unknown}");
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

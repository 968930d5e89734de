//! Whether a configuration makes sense.

use super::{Config, ConfigError, GroupPlacement, NodeEntry};
use std::path::Path;

/// No core may hold a CPU for longer than that for nothing.
const BUSY_POLL_US_MAX: u64 = 10_000;
const SPARE_SYNC_WAIT_US_MAX: u64 = 100_000;
/// What an append may be set to: less destroys batching, more holds up what follows it.
const APPEND_BYTES: std::ops::RangeInclusive<usize> = 4096..=4 << 20;

impl Config {
    pub(super) fn check(&self, path: &Path) -> Result<(), ConfigError> {
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
        if self.raft.spare_sync_wait_us > SPARE_SYNC_WAIT_US_MAX {
            let what = "at most 100000 µs";
            return Err(invalid("raft.spare_sync_wait_us", self.raft.spare_sync_wait_us.to_string(), what));
        }
        self.check_security(&invalid)?;
        self.check_admin(&invalid)?;
        self.check_mapreduce(&invalid)?;
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
}

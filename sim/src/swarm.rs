//! What goes wrong in a seed, and how much of it: drawn anew for every seed, since mild uniform faults miss bugs
//! that a few strong ones find at once (Groce et al., "Swarm Testing", 2012).

use crate::rng::Rng;

const MS: u64 = 1_000_000;
const US: u64 = 1_000;

/// The configuration of one simulation. Times in nanoseconds, chances per million.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// Nodes, and how many of them the groups are founded with.
    pub nodes: u32,
    /// See [`Self::nodes`].
    pub founders: u32,
    /// Raft groups.
    pub groups: u32,
    /// Clients.
    pub clients: usize,
    /// Keys that they share.
    pub keys: u64,
    /// Length of the phase in which everything goes wrong.
    pub safety: u64,
    /// Mean network delay.
    pub delay: u64,
    /// Chance that a frame is lost, delivered twice, delivered out of order.
    pub loss: u64,
    /// See [`Self::loss`].
    pub duplication: u64,
    /// See [`Self::loss`].
    pub reordering: u64,
    /// Mean time between connection resets, 0 for none.
    pub resets: u64,
    /// Mean time between partitions, 0 for none.
    pub partitions: u64,
    /// Mean time of a disk operation.
    pub disk: u64,
    /// Chance that a disk operation takes a hundred times as long.
    pub stalls: u64,
    /// Chance that a durable write fails.
    pub disk_errors: u64,
    /// Mean time between crashes of one node, 0 for none.
    pub crashes: u64,
    /// Mean time between crashes of all nodes at once, 0 for none.
    pub blackouts: u64,
    /// Chance that something on the disk of a node that crashes can't be read any more.
    pub rot: u64,
    /// Mean time between pauses of a node, 0 for none.
    pub pauses: u64,
    /// The most that a turn gathers before it is flushed.
    pub batch: u64,
    /// Milliseconds by which the nodes' calendars differ at most.
    pub skew_ms: u64,
    /// Group commits in flight.
    pub commits_in_flight: usize,
    /// Heartbeat, in milliseconds.
    pub heartbeat_ms: u64,
    /// Election timeout, in milliseconds.
    pub election_ms: u64,
    /// Bytes of log after which a snapshot is taken.
    pub snapshot_bytes: usize,
    /// Bytes of a piece of a snapshot.
    pub snapshot_piece: usize,
    /// Mean time between changes of which disks are full, 0 for none.
    pub full_disks: u64,
    /// Leaders serve reads under leases.
    pub leases: bool,
    /// By how many millionths the nodes are told that their clocks may drift apart...
    pub drift_ppm: u32,
    /// ...and by how many they do.
    pub real_drift_ppm: u32,
    /// Nodes hand commands on, and followers serve reads.
    pub forward: bool,
    /// Mean time between transfers of a leadership, 0 for none.
    pub transfers: u64,
    /// Mean time between changes of the groups' members, 0 for none.
    pub changes: u64,
    /// Chance that a node that crashes comes back with an empty disk.
    pub wipes: u64,
}

impl Swarm {
    /// Draws a configuration.
    pub fn draw(rng: &mut Rng) -> Self {
        let mut maybe = |chance_percent: u64, low: u64, high: u64| {
            let on = rng.between(0, 99) < chance_percent;
            let value = rng.between(low, high);
            if on { value } else { 0 }
        };
        let nodes = [3, 3, 3, 3, 3, 3, 5, 5, 1, 3][usize::try_from(maybe(100, 0, 9)).expect("a digit")];
        let heartbeat_ms = maybe(100, 10, 60);
        let drift_ppm = u32::try_from(maybe(70, 0, 500_000)).expect("less than a million");
        let mut swarm = Self {
            nodes,
            founders: nodes,
            // Many, at times: most of them idle, and resting.
            groups: u32::try_from(maybe(100, 1, 3) + maybe(20, 3, 13)).expect("few"),
            clients: usize::try_from(maybe(100, 2, 8)).expect("few"),
            keys: maybe(100, 1, 6),
            safety: maybe(100, 1500, 4000) * MS,
            delay: maybe(100, 20, 400) * US * if maybe(20, 1, 1) == 1 { 40 } else { 1 },
            loss: maybe(30, 1_000, 150_000),
            duplication: maybe(25, 1_000, 100_000),
            reordering: maybe(25, 1_000, 150_000),
            resets: maybe(40, 50, 1500) * MS,
            partitions: maybe(50, 100, 1500) * MS,
            disk: maybe(100, 20, 300) * US * if maybe(25, 1, 1) == 1 { 50 } else { 1 },
            stalls: maybe(30, 1_000, 30_000),
            disk_errors: maybe(15, 50, 3_000),
            crashes: maybe(60, 100, 1500) * MS,
            blackouts: maybe(30, 300, 2000) * MS,
            rot: maybe(30, 50_000, 1_000_000),
            pauses: maybe(30, 100, 1500) * MS,
            batch: maybe(100, 1, 200) * US,
            skew_ms: maybe(50, 1, 5_000),
            commits_in_flight: usize::try_from(maybe(100, 1, 3)).expect("few"),
            heartbeat_ms,
            election_ms: heartbeat_ms * maybe(100, 4, 10),
            snapshot_piece: 4096 * usize::try_from(maybe(100, 1, 8)).expect("few"),
            snapshot_bytes: usize::try_from(maybe(50, 4_096, 60_000)).expect("small").max(4096)
                + if maybe(40, 1, 1) == 1 { 64 << 20 } else { 0 },
            full_disks: maybe(30, 100, 1500) * MS,
            leases: maybe(40, 1, 1) == 1,
            drift_ppm,
            real_drift_ppm: drift_ppm,
            forward: maybe(30, 1, 1) == 1,
            transfers: maybe(40, 50, 1500) * MS,
            changes: maybe(40, 50, 800) * MS,
            wipes: maybe(25, 50_000, 1_000_000),
        };
        if swarm.changes > 0 {
            swarm.nodes += u32::try_from(maybe(100, 1, 2)).expect("few");
        }
        swarm
    }

    /// The same without faults: what the liveness phase runs with.
    pub fn heal(&mut self) {
        *self = Self {
            loss: 0,
            duplication: 0,
            reordering: 0,
            resets: 0,
            partitions: 0,
            stalls: 0,
            disk_errors: 0,
            crashes: 0,
            blackouts: 0,
            rot: 0,
            pauses: 0,
            full_disks: 0,
            transfers: 0,
            changes: 0,
            wipes: 0,
            delay: self.delay.min(500 * US),
            disk: self.disk.min(500 * US),
            ..self.clone()
        };
    }
}

//! What goes wrong in a seed, and how much of it: drawn anew for every seed, since mild uniform faults miss bugs
//! that a few strong ones find at once (Groce et al., "Swarm Testing", 2012).

use crate::rng::Rng;

const MS: u64 = 1_000_000;
const US: u64 = 1_000;

/// What a crash may do to writes that weren't synced. Each write is dealt with by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loses {
    /// It may take them.
    pub any: bool,
    /// Earlier ones and not later ones; else only the last ones.
    pub earlier: bool,
    /// It may leave some of the 512-byte sectors of a write.
    pub sectors: bool,
    /// It may leave some of the 4096-byte blocks of a write.
    pub blocks: bool,
}

/// What may become of durable data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rots {
    /// A bit flips.
    pub bit_flip: bool,
    /// A block is zeros.
    pub lost_block: bool,
    /// A few blocks are something else.
    pub garbage: bool,
    /// A block is in another's place.
    pub misdirected: bool,
}

impl Rots {
    /// Whether nothing may.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// The smallest has room for little more than one frame.
const SEGMENT_BYTES: [u64; 4] = [320 << 10, 320 << 10, 512 << 10, 1 << 20];

/// The configuration of one simulation. Times in nanoseconds, chances per million.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swarm {
    /// Nodes, and how many of them the groups are founded with.
    pub nodes: usize,
    /// See [`Self::nodes`].
    pub founders: usize,
    /// Cores of each node.
    pub cores: usize,
    /// Raft groups.
    pub groups: u32,
    /// Clients.
    pub clients: usize,
    /// Keys that they share.
    pub keys: u64,
    /// The most commands that follow a client's first one at once.
    pub pipeline: u64,
    /// Of a hundred commands, so many are about a key that nobody else uses. Every third of those is large.
    pub own: u64,
    /// Nodes send a client's command on to the leader, and followers serve reads.
    pub forwards: bool,
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
    /// Some partitions let one direction through.
    pub one_way: bool,
    /// Mean time between links that clog, 0 for none.
    pub clogs: u64,
    /// Mean time of a disk operation.
    pub disk: u64,
    /// One node's disk takes twenty times as long.
    pub slow_disk: bool,
    /// Chance that a disk operation takes a hundred times as long.
    pub stalls: u64,
    /// Chance that a durable write fails.
    pub sync_errors: u64,
    /// Chance that making, renaming or removing a file fails.
    pub io_errors: u64,
    /// Chance that a read fails.
    pub read_errors: u64,
    /// What crashes do to writes.
    pub loses: Loses,
    /// Mean time between crashes of one node, 0 for none.
    pub crashes: u64,
    /// Mean time between crashes of all nodes at once, 0 for none.
    pub blackouts: u64,
    /// Chance for each flush, and for each end of a disk operation, that the node dies in the middle of it.
    pub mid_batch: u64,
    /// Chance that something on the disk of a node that crashes can't be read any more.
    pub rot: u64,
    /// And what.
    pub rots: Rots,
    /// Mean time between pauses of a node, 0 for none.
    pub pauses: u64,
    /// The most that a turn gathers before it is flushed.
    pub batch: u64,
    /// Milliseconds by which the nodes' calendars differ at most.
    pub skew_ms: u64,
    /// How much faster or slower a node's clock runs at most, per million.
    pub drift_ppm: u64,
    /// Group commits in flight.
    pub commits_in_flight: usize,
    /// Heartbeat, in milliseconds.
    pub heartbeat_ms: u64,
    /// Election timeout, in milliseconds.
    pub election_ms: u64,
    /// Bytes of a segment of the log: small ones are given back and used again all the time.
    pub segment_bytes: u64,
    /// Bytes of entries in one message to a follower.
    pub append_bytes: usize,
    /// Bytes of log after which a snapshot is taken.
    pub snapshot_bytes: usize,
    /// Bytes of a piece of a snapshot.
    pub snapshot_piece: usize,
    /// Mean time between changes of which disks are full, 0 for none.
    pub full_disks: u64,
    /// Leaders serve reads under leases.
    pub leases: bool,
    /// Mean time between transfers of a leadership, 0 for none.
    pub transfers: u64,
    /// Mean time between changes of the groups' members, 0 for none.
    pub changes: u64,
    /// They are changed by a plan, as an operator's command does it, from one set of nodes to another.
    pub plans: bool,
    /// Chance that a node that crashes comes back with an empty disk.
    pub wipes: u64,
    /// Mean time between changes of who serves what, 0 for none.
    pub reshards: u64,
    /// Bytes of a piece of a moving shard.
    pub migration_piece: usize,
    /// Mean time between steps of somebody who backs up, 0 for nobody.
    pub backups: u64,
    /// For how long a sync may wait that the majority doesn't need, in nanoseconds.
    pub spare_sync_wait: u64,
    /// Entries that a turn applies at most, 0 for as many as usual.
    pub applies: usize,
    /// Groups that have no shard at first; without any there is no controller.
    pub spare_groups: u32,
}

impl Swarm {
    /// By how many millionths a clock may gain on another at most.
    pub fn drift_between_ppm(&self) -> u32 {
        let ppm = 2_000_000 * self.drift_ppm / (1_000_000 - self.drift_ppm) + 1;
        u32::try_from(ppm).expect("clocks run at nearly the same rate")
    }

    /// Draws a configuration.
    pub fn draw(rng: &mut Rng) -> Self {
        let mut maybe = |chance_percent: u64, low: u64, high: u64| {
            let on = rng.between(0, 99) < chance_percent;
            let value = rng.between(low, high);
            if on { value } else { 0 }
        };
        let few = |value: u64| usize::try_from(value).expect("few");
        let nodes = [3, 3, 3, 3, 3, 3, 5, 5, 1, 3][few(maybe(100, 0, 9))];
        let heartbeat_ms = maybe(100, 10, 60);
        let mut swarm = Self {
            nodes,
            founders: nodes,
            cores: if maybe(25, 1, 1) == 1 { 2 } else { 1 },
            // Many, at times: most of them idle.
            groups: u32::try_from(maybe(100, 1, 3) + maybe(20, 3, 13)).expect("few"),
            clients: few(maybe(100, 2, 8)),
            keys: maybe(100, 1, 6),
            pipeline: maybe(80, 1, 12),
            own: 6 + maybe(30, 10, 40),
            forwards: maybe(25, 1, 1) == 1,
            safety: maybe(100, 1500, 4000) * MS,
            delay: maybe(100, 20, 400) * US * if maybe(20, 1, 1) == 1 { 40 } else { 1 },
            loss: maybe(30, 1_000, 150_000),
            duplication: maybe(25, 1_000, 100_000),
            reordering: maybe(25, 1_000, 150_000),
            resets: maybe(40, 50, 1500) * MS,
            partitions: maybe(50, 100, 1500) * MS,
            one_way: maybe(60, 1, 1) == 1,
            clogs: maybe(25, 100, 1500) * MS,
            disk: maybe(100, 20, 300) * US * if maybe(25, 1, 1) == 1 { 50 } else { 1 },
            slow_disk: maybe(20, 1, 1) == 1,
            stalls: maybe(30, 1_000, 30_000),
            sync_errors: maybe(15, 50, 3_000),
            io_errors: maybe(15, 10_000, 200_000),
            read_errors: maybe(30, 50_000, 500_000),
            loses: Loses {
                any: maybe(85, 1, 1) == 1,
                earlier: maybe(70, 1, 1) == 1,
                sectors: maybe(60, 1, 1) == 1,
                blocks: maybe(60, 1, 1) == 1,
            },
            crashes: maybe(60, 100, 1500) * MS,
            blackouts: maybe(30, 300, 2000) * MS,
            mid_batch: maybe(30, 20, 1_000),
            rot: maybe(30, 50_000, 1_000_000),
            rots: Rots {
                bit_flip: maybe(60, 1, 1) == 1,
                lost_block: maybe(60, 1, 1) == 1,
                garbage: maybe(60, 1, 1) == 1,
                misdirected: maybe(60, 1, 1) == 1,
            },
            pauses: maybe(30, 100, 1500) * MS,
            batch: maybe(100, 1, 200) * US,
            skew_ms: maybe(50, 1, 5_000),
            drift_ppm: maybe(40, 100, 200_000),
            commits_in_flight: few(maybe(100, 1, 3)),
            heartbeat_ms,
            election_ms: heartbeat_ms * maybe(100, 4, 10),
            segment_bytes: SEGMENT_BYTES[few(maybe(100, 0, 3))],
            // Small, at times: what a follower lacks comes in many pieces.
            append_bytes: if maybe(50, 1, 1) == 1 { few(maybe(100, 1, 2_000)) } else { 256 << 10 },
            snapshot_piece: 4096 * few(maybe(100, 1, 8)),
            snapshot_bytes: few(maybe(50, 4_096, 60_000)).max(4096)
                + if maybe(40, 1, 1) == 1 { 64 << 20 } else { 0 },
            full_disks: maybe(30, 100, 1500) * MS,
            leases: maybe(40, 1, 1) == 1,
            transfers: maybe(40, 50, 1500) * MS,
            changes: maybe(40, 50, 800) * MS,
            plans: false,
            wipes: maybe(25, 50_000, 1_000_000),
            reshards: 0,
            migration_piece: 256 << 10,
            backups: 0,
            spare_sync_wait: 0,
            applies: 0,
            spare_groups: 0,
        };
        if swarm.changes > 0 {
            swarm.nodes += few(maybe(100, 1, 2));
        }
        swarm.reshards = maybe(40, 50, 1200) * MS;
        if swarm.reshards > 0 {
            swarm.spare_groups = u32::try_from(maybe(100, 1, 3)).expect("few");
            // Small, mostly: few shards are so large here that they would be copied first.
            swarm.migration_piece = if maybe(75, 1, 1) == 1 { few(maybe(100, 64, 1_500)) } else { 256 << 10 };
        }
        swarm.applies = few(maybe(40, 1, 8));
        swarm.spare_sync_wait = maybe(60, 100, 20_000) * 1_000;
        swarm
    }

    /// The same without faults: what the liveness phase runs with. Clocks stay as they are.
    pub fn heal(&mut self) {
        *self = Self {
            loss: 0,
            duplication: 0,
            reordering: 0,
            resets: 0,
            partitions: 0,
            clogs: 0,
            slow_disk: false,
            stalls: 0,
            sync_errors: 0,
            io_errors: 0,
            read_errors: 0,
            crashes: 0,
            blackouts: 0,
            mid_batch: 0,
            rot: 0,
            pauses: 0,
            full_disks: 0,
            transfers: 0,
            changes: 0,
            wipes: 0,
            reshards: 0,
            delay: self.delay.min(500 * US),
            disk: self.disk.min(500 * US),
            ..self.clone()
        };
    }
}

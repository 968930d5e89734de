//! One core and what surrounds it: its disk, its connections, its clock.

use super::{MS, SECOND};
use crate::check::Seat;
use crate::disk::{Action, Disk};
use crate::rng::Rng;
use crate::swarm::Swarm;
use flotilla_runtime::{CoreId, Effects, NodeId, Now, PeerId};
use flotilla_services::config::{
    AdminSettings, Config, Limits, LogSettings, MapReduceSettings, NodeEntry, RaftSettings, Redirect,
    usual_priority,
};
use flotilla_services::core::{Core, Message};
use std::collections::BTreeMap;
use std::fmt;

/// The first port; the nodes' are so many apart.
const PORT: u16 = 7000;
const PORTS_OF_A_NODE: u16 = 16;

/// A client's connection, as its node sees it.
pub(super) struct Conn {
    pub(super) client: usize,
    pub(super) attempt: u64,
    pub(super) input: Vec<u8>,
    pub(super) paused: bool,
    pub(super) last: u64,
}

/// A core, alive or not.
pub(super) struct SimCore {
    pub(super) seat: Seat,
    pub(super) config: Config,
    pub(super) core: Option<Core>,
    pub(super) effects: Effects<Message>,
    pub(super) disk: Disk,
    pub(super) life: u64,
    pub(super) flush_due: bool,
    /// For clients, peers, timers, disk and mesh.
    pub(super) paused_until: [u64; 5],
    pub(super) skew_ms: u64,
    pub(super) drift_ppm: i64,
    pub(super) unfinished: BTreeMap<u64, Action>,
    pub(super) conns: BTreeMap<u64, Conn>,
    pub(super) last_conn: u64,
    /// When the last message over the mesh to each core of the node arrives.
    pub(super) mesh_last: Vec<u64>,
    /// It was told to stop, and has finished.
    pub(super) is_drained: bool,
    pub(super) rng: Rng,
}

impl SimCore {
    pub(super) fn new(
        swarm: &Swarm,
        (place, node, core): (usize, usize, usize),
        skew_ms: u64,
        drift_ppm: i64,
        rng: Rng,
    ) -> Self {
        let node = u32::try_from(node).expect("few nodes") + 1;
        Self {
            seat: Seat { place, node, core: u16::try_from(core).expect("few cores") },
            config: config(swarm, node),
            core: None,
            effects: Effects::default(),
            disk: Disk::default(),
            life: 0,
            flush_due: false,
            paused_until: [0; 5],
            skew_ms,
            drift_ppm,
            unfinished: BTreeMap::new(),
            conns: BTreeMap::new(),
            last_conn: 0,
            mesh_last: vec![0; swarm.cores],
            is_drained: false,
            rng,
        }
    }

    /// As other nodes see it.
    pub(super) fn peer(&self) -> PeerId {
        PeerId { node: NodeId(self.seat.node), core: CoreId(self.seat.core) }
    }

    /// Its clocks, when it is so late in the world.
    pub(super) fn clock(&self, now: u64) -> Now {
        let drifted = i64::try_from(now / 1_000_000).expect("a short time") * self.drift_ppm;
        Now {
            monotonic: (now + SECOND).saturating_add_signed(drifted),
            unix_ms: 1_700_000_000_000 + now / MS + self.skew_ms,
        }
    }
}

impl fmt::Display for SimCore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.config.me().cores {
            1 => write!(out, "node {}", self.seat.node),
            _ => write!(out, "node {} core {}", self.seat.node, self.seat.core),
        }
    }
}

/// The core that listens on a port, all nodes' cores numbered through.
pub(crate) fn core_of_port(port: usize, cores: usize) -> Option<usize> {
    let (base, apart) = (usize::from(PORT), usize::from(PORTS_OF_A_NODE));
    let place = port.checked_sub(base + apart)?;
    Some(place / apart * cores + place % apart)
}

fn config(swarm: &Swarm, node: u32) -> Config {
    let cores = u16::try_from(swarm.cores).expect("few cores");
    let founders = u32::try_from(swarm.founders).expect("few nodes");
    let entry = |id: u32| {
        let port = PORT + PORTS_OF_A_NODE * u16::try_from(id).expect("few nodes");
        let (host, joins, priority) = ("sim".to_owned(), id > founders, usual_priority());
        NodeEntry { id, host, port, peer_port: port + 10_000, cores, priority, joins }
    };
    Config {
        cluster: "sim".to_owned(),
        node,
        data: "/simulated".into(),
        groups: swarm.groups,
        spare_groups: swarm.spare_groups,
        log_level: None,
        admin: AdminSettings::off(),
        mapreduce: MapReduceSettings::default(),
        protected_mode: true,
        requirepass_sha256: None,
        tls: None,
        users: Vec::new(),
        controller: swarm.spare_groups > 0,
        placement: Vec::new(),
        shards: 16,
        redirect: if swarm.forwards { Redirect::Forward } else { Redirect::Moved },
        cpus: Vec::new(),
        busy_poll_us: 0,
        limits: Limits { value_bytes_max: 100_000, ..Limits::default() },
        log: LogSettings {
            segment_bytes: swarm.segment_bytes,
            commits_in_flight: swarm.commits_in_flight,
            snapshot_after_bytes: swarm.snapshot_bytes,
            snapshot_piece_bytes: swarm.snapshot_piece,
            migration_piece_bytes: swarm.migration_piece,
            ..LogSettings::default()
        },
        raft: RaftSettings {
            heartbeat_ms: swarm.heartbeat_ms,
            election_timeout_ms: swarm.election_ms,
            lease_reads: swarm.leases,
            clock_drift_max_ppm: swarm.drift_between_ppm(),
            append_bytes_max: swarm.append_bytes,
            spare_sync_wait_us: swarm.spare_sync_wait / 1_000,
        },
        nodes: (1..=u32::try_from(swarm.nodes).expect("few nodes")).map(entry).collect(),
    }
}

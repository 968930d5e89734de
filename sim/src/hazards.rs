//! Circumstances that a kind of mistake needs, and that a seed seldom draws together.
//!
//! A plan may be run in one: the hazard makes what belongs to it frequent, and leaves all else as the seed drew it.

use crate::swarm::{Loses, Rots, Swarm};
use std::fmt;

const MS: u64 = 1_000_000;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hazard {
    /// Leaders come and go, and what they said arrives late and piece by piece.
    Unrest,
    /// Leaders are paused, or cut off from the others and not from their clients.
    CutOff,
    /// Leaders read under leases and are cut off, paused and succeeded; clocks run as far apart as was stated.
    Leases,
    /// What was durable can't be read after a crash, again and again.
    BadDisks,
    /// Nodes die while large frames are on their way to small segments.
    TornWrites,
    /// There is no room for another segment when the last one is full.
    FullDisks,
    /// Shards move between groups all the time, under long pipelines, and are read for a backup.
    Moves,
    /// Nodes come and go: every group's replicas, the controller's too, are on their way to other nodes all the time, and shards
    /// between the groups.
    Grows,
}

impl Hazard {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Unrest,
        Self::CutOff,
        Self::Leases,
        Self::BadDisks,
        Self::TornWrites,
        Self::FullDisks,
        Self::Moves,
        Self::Grows,
    ];

    /// As the command line names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unrest => "unrest",
            Self::CutOff => "cut-off",
            Self::Leases => "leases",
            Self::BadDisks => "bad-disks",
            Self::TornWrites => "torn-writes",
            Self::FullDisks => "full-disks",
            Self::Moves => "moves",
            Self::Grows => "grows",
        }
    }

    /// Makes its things frequent.
    pub fn change(self, swarm: &mut Swarm) {
        match self {
            Self::Unrest => {
                (swarm.nodes, swarm.founders) = (swarm.nodes.max(3), swarm.founders.max(3));
                (swarm.heartbeat_ms, swarm.election_ms) = (10, 40);
                (swarm.partitions, swarm.one_way, swarm.resets) = (100 * MS, true, 50 * MS);
                (swarm.transfers, swarm.reordering, swarm.append_bytes) = (100 * MS, 150_000, 1);
                (swarm.clients, swarm.keys) = (swarm.clients.max(6), swarm.keys.max(2));
            }
            Self::CutOff => {
                (swarm.nodes, swarm.founders, swarm.changes) = (3, 3, 0);
                (swarm.clients, swarm.keys, swarm.pipeline) = (12, 1, 0);
                (swarm.partitions, swarm.one_way) = (300 * MS, true);
                (swarm.crashes, swarm.blackouts, swarm.groups, swarm.cores) = (0, 0, 1, 1);
                (swarm.pauses, swarm.heartbeat_ms, swarm.election_ms) = (150 * MS, 30, 120);
                (swarm.slow_disk, swarm.stalls, swarm.safety) = (false, 0, 4_000 * MS);
                (swarm.disk, swarm.delay) = (swarm.disk.min(MS), swarm.delay.min(MS));
            }
            Self::Leases => {
                Self::CutOff.change(swarm);
                (swarm.leases, swarm.drift_ppm) = (true, 200_000);
            }
            Self::BadDisks => {
                (swarm.nodes, swarm.founders, swarm.changes, swarm.wipes) = (3, 3, 0, 0);
                (swarm.crashes, swarm.rot) = (400 * MS, 1_000_000);
                swarm.rots = Rots { bit_flip: true, lost_block: true, garbage: true, misdirected: true };
                swarm.safety = swarm.safety.max(4_000 * MS);
                swarm.loses = Loses { any: true, earlier: true, sectors: true, blocks: true };
            }
            Self::TornWrites => {
                (swarm.own, swarm.segment_bytes) = (50, 320 << 10);
                (swarm.crashes, swarm.blackouts) = (100 * MS, 300 * MS);
                swarm.loses = Loses { any: true, earlier: true, sectors: true, blocks: true };
            }
            Self::FullDisks => {
                (swarm.own, swarm.segment_bytes, swarm.snapshot_bytes) = (50, 320 << 10, 4096);
                swarm.full_disks = 200 * MS;
            }
            Self::Moves => {
                (swarm.reshards, swarm.spare_groups) = (40 * MS, swarm.spare_groups.max(1));
                (swarm.groups, swarm.keys, swarm.own) = (swarm.groups.min(3), 2, 50);
                (swarm.clients, swarm.pipeline) = (swarm.clients.max(6), 12);
                swarm.backups = crate::world::backups::STEP;
                swarm.forwards |= swarm.batch.is_multiple_of(2);
                if swarm.migration_piece > 2_000 && swarm.batch.is_multiple_of(3) {
                    swarm.migration_piece = 100;
                }
            }
            Self::Grows => {
                (swarm.nodes, swarm.founders) = (6, 3);
                (swarm.changes, swarm.plans) = (20 * MS, true);
                (swarm.groups, swarm.spare_groups) = (swarm.groups.min(3), swarm.spare_groups.max(1));
                (swarm.reshards, swarm.safety) = (150 * MS, swarm.safety.max(4_000 * MS));
            }
        }
    }
}

impl fmt::Display for Hazard {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl std::str::FromStr for Hazard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().copied().find(|hazard| hazard.name() == text);
        found.ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|hazard| hazard.name()).collect();
            format!("there is no hazard {text}; there are {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn each_has_a_name_and_changes_something() {
        for hazard in Hazard::ALL {
            let drawn = Swarm::draw(&mut Rng::new(7));
            let mut changed = drawn.clone();
            hazard.change(&mut changed);
            assert_ne!(changed, drawn, "{hazard}");
            assert_eq!(hazard.name().parse(), Ok(*hazard));
        }
    }
}

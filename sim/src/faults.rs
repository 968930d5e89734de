//! Everything that can go wrong, each with a name, a count and a switch.
//!
//! A fault that never happens is a bug of the tester, so each is counted where it happens; `flotilla-sim run` prints how
//! often. Each can be switched off by itself, so that a failing seed can be made as small as it gets.

use crate::swarm::Swarm;
use std::fmt;

macro_rules! faults {
    ($($name:ident $text:literal $what:literal,)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $(#[doc = $what] $name,)*
        }

        impl Fault {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As the command line names it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

faults! {
    Loss "loss" "A frame between nodes is lost.",
    Duplication "duplication" "A frame arrives twice.",
    Reordering "reordering" "A frame is overtaken by later ones.",
    Reset "reset" "A link breaks and comes back; what was on its way is lost.",
    Partition "partition" "Two sides don't hear each other.",
    OneWay "one-way" "One side hears the other, which hears nothing.",
    Clog "clog" "Nothing goes over a link for a while; then all of it does.",
    Crash "crash" "A node dies and starts again.",
    Blackout "blackout" "All nodes die at once.",
    MidBatch "mid-batch" "A node dies between two effects of a batch, or between a disk's work and its report.",
    Pause "pause" "A node does nothing for a while and then hears everything in any order.",
    Skew "skew" "A node's calendar is ahead.",
    Drift "drift" "A node's clock runs fast or slow.",
    SlowDisk "slow-disk" "An operation on a disk that is twenty times as slow as the others.",
    Stall "stall" "A disk operation takes a hundred times as long.",
    SyncError "sync-error" "A sync fails: what it should have made durable is lost.",
    IoError "io-error" "Making, renaming or removing a file fails.",
    ReadError "read-error" "A read fails.",
    LostWrite "lost-write" "A crash takes a write that wasn't synced.",
    LostEarlier "lost-earlier" "A crash takes a write that wasn't synced and leaves a later one.",
    TornSector "torn-512" "A crash leaves some 512-byte sectors of a write.",
    TornBlock "torn-4096" "A crash leaves some 4096-byte blocks of a write.",
    BitFlip "bit-flip" "A bit of durable data flips.",
    LostBlock "lost-block" "A durable block reads as zeros.",
    Garbage "garbage" "Durable blocks read as something else.",
    Misdirected "misdirected" "A durable block is found in another's place, and not in its own.",
    FullDisk "full-disk" "A disk is full.",
    Wipe "wipe" "A node that died comes back with empty disks.",
    Change "change" "A group's members change.",
    Reshard "reshard" "Groups join and leave, shards are moved.",
    Transfer "transfer" "A leadership is handed over, or a node is stopped the gentle way.",
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl std::str::FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().copied().find(|fault| fault.name() == text);
        found.ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|fault| fault.name()).collect();
            format!("there is no fault {text}; there are {}", names.join(", "))
        })
    }
}

impl Fault {
    /// Whether it can happen under this configuration.
    pub fn is_on(self, swarm: &Swarm) -> bool {
        let mut without = swarm.clone();
        self.switch_off(&mut without);
        without != *swarm
    }

    /// It can't happen any more.
    pub fn switch_off(self, swarm: &mut Swarm) {
        match self {
            Self::Loss => swarm.loss = 0,
            Self::Duplication => swarm.duplication = 0,
            Self::Reordering => swarm.reordering = 0,
            Self::Reset => swarm.resets = 0,
            Self::Partition => swarm.partitions = 0,
            Self::OneWay => swarm.one_way = false,
            Self::Clog => swarm.clogs = 0,
            Self::Crash => swarm.crashes = 0,
            Self::Blackout => swarm.blackouts = 0,
            Self::MidBatch => swarm.mid_batch = 0,
            Self::Pause => swarm.pauses = 0,
            Self::Skew => swarm.skew_ms = 0,
            Self::Drift => swarm.drift_ppm = 0,
            Self::SlowDisk => swarm.slow_disk = false,
            Self::Stall => swarm.stalls = 0,
            Self::SyncError => swarm.sync_errors = 0,
            Self::IoError => swarm.io_errors = 0,
            Self::ReadError => swarm.read_errors = 0,
            Self::LostWrite => swarm.loses.any = false,
            Self::LostEarlier => swarm.loses.earlier = false,
            Self::TornSector => swarm.loses.sectors = false,
            Self::TornBlock => swarm.loses.blocks = false,
            Self::BitFlip => swarm.rots.bit_flip = false,
            Self::LostBlock => swarm.rots.lost_block = false,
            Self::Garbage => swarm.rots.garbage = false,
            Self::Misdirected => swarm.rots.misdirected = false,
            Self::FullDisk => swarm.full_disks = 0,
            Self::Wipe => swarm.wipes = 0,
            Self::Change => swarm.changes = 0,
            Self::Reshard => swarm.reshards = 0,
            Self::Transfer => swarm.transfers = 0,
        }
    }
}

/// How often each fault happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally([u64; Fault::ALL.len()]);

impl Tally {
    /// It happened.
    pub fn note(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    /// How often it did.
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    /// What happened elsewhere, too.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(count, more)| *count += more);
    }

    /// The faults that never happened, of those that are drawn.
    pub fn never(&self) -> Vec<Fault> {
        Fault::ALL.iter().copied().filter(|fault| self.of(*fault) == 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn every_fault_is_drawn_and_can_be_switched_off() {
        let drawn: Vec<Swarm> = (0..200).map(|seed| Swarm::draw(&mut Rng::new(seed))).collect();
        for fault in Fault::ALL {
            let count = drawn.iter().filter(|swarm| fault.is_on(swarm)).count();
            assert!(count > 5, "{fault} is on in {count} of 200");
            assert_eq!(fault.name().parse(), Ok(*fault));
        }
        let mut calm = drawn[0].clone();
        Fault::ALL.iter().for_each(|fault| fault.switch_off(&mut calm));
        assert!(Fault::ALL.iter().all(|fault| !fault.is_on(&calm)));
    }
}

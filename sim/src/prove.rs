//! Tests the tester: each bug that can be planted must be found within so many seeds, and the seed that finds it must hold
//! without it.
//!
//! Only a build with debug assertions, as the profile `sim` has them, can plant them ([`flotilla_runtime::planted`]).
//!
//! Most bugs are looked for in the plans that `run` has for the same seeds. Some need several things to go wrong at once that
//! such plans seldom have together: their seeds are run in the [`Hazard`] that the bug is about. One needs a script, since its steps have an
//! order ([`crate::scenes`]). The table says which.

use crate::hazards::Hazard;
use flotilla_runtime::planted::Bug;

/// Seeds within which every bug must be found.
pub const SEEDS_MAX: u64 = 300;

/// Seeds that have found the bugs that are hard to find. They are tried before the others, which takes most of the time away; a change
/// of what a core sends changes what a seed means, and then the others are tried as well.
#[cfg(debug_assertions)]
const FOUND_BY: &[(Bug, u64)] = &[
    (Bug::AckBeyondAgreed, 17),
    (Bug::CommitBeyondAgreed, 6),
    (Bug::CommitsOutOfOrder, 2),
    (Bug::ConflictOffByOne, 4),
    (Bug::CopyMissesChanges, 4),
    (Bug::EpochIgnored, 252),
    (Bug::HardStateNotMoved, 7),
    (Bug::LiveEntriesDropped, 2),
    (Bug::MarkNotAwaited, 66),
    (Bug::NoPrevTermCheck, 6),
    (Bug::NoReadRound, 14),
    (Bug::NoUpToDateCheck, 30),
    (Bug::OldTermByCounting, 2),
    (Bug::OlderSnapshotInstalled, 16),
    (Bug::OwnVoteEarly, 8),
    (Bug::PartsAppliedTwice, 7),
    (Bug::PersistedAfterTruncation, 4),
    (Bug::ReadBeforeOwnTerm, 57),
    (Bug::ReadingNotAwaited, 3),
    (Bug::ReadsAsLeader, 353),
    (Bug::RepeatedWriteDone, 2),
    (Bug::SegmentReusedEarly, 104),
    (Bug::SessionsNotInSnapshots, 7),
    (Bug::SnapshotLabelledOld, 0),
    (Bug::SyncErrorIgnored, 81),
    (Bug::TermNotLogged, 6),
    (Bug::TornAccepted, 29),
    (Bug::TornTakenForCorrupt, 14),
    (Bug::TruncatesAgreed, 0),
    (Bug::VotesTwice, 1),
    (Bug::WaiterByIndexOnly, 19),
];

/// Bugs that nothing here finds yet, or too seldom: `prove` looks for them only when it is asked for them by name. Reads
/// that are stale for a moment need a leader that doesn't know that it was replaced, somebody who writes to its successor and
/// somebody who reads from it afterwards, within what is left of an election timeout; `consensus/tests/raft/reads.rs` has those
/// steps one by one. A command overtakes another at a fork only if a former leader leads again while the first is on its
/// way to it. Of a frame that rots in the newest segment most plans lose nothing that anybody acknowledged.
pub const NOT_YET: &[Bug] = &[
    Bug::ReadRoundInTheAir,
    Bug::LeaseTooLong,
    Bug::LeaseDriftIgnored,
    Bug::LeaderForgotten,
    Bug::CorruptTakenForTorn,
    Bug::ForksNotSeen,
];

/// How a bug was found, or wasn't.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The bug.
    pub bug: Bug,
    /// How many seeds were tried.
    pub tried: u64,
    /// The last of them, and what it found; `None`: none of them found anything.
    pub found: Option<(u64, String)>,
    /// What that seed comes to without the bug, if it doesn't hold: then it proves nothing.
    pub control: Option<String>,
}

impl Proof {
    /// Whether the bug was found, and by what it does.
    pub fn holds(&self) -> bool {
        self.found.is_some() && self.control.is_none()
    }

    /// The rule that the bug broke.
    pub fn rule(&self) -> &str {
        match &self.found {
            _ if self.control.is_some() => "control fails",
            Some((_, what)) => what.split(':').next().unwrap_or(what),
            None => "not found",
        }
    }

    /// A row of the table.
    pub fn row(&self) -> String {
        let (bug, hazard) = (format!("{:?}", self.bug), circumstances(self.bug));
        let seed = self.found.as_ref().map_or_else(|| "none".to_owned(), |(seed, _)| seed.to_string());
        format!(
            "{bug:<25} {seed:>5}  {:>5}  {hazard:<13} {:<22} {}",
            self.tried,
            self.rule(),
            self.bug.what()
        )
    }
}

/// The head of the table.
pub const HEAD: &str =
    "bug                        seed  tried  hazard        found by               what goes wrong";

/// The hazard in which a bug is looked for, if seeds as they are drawn meet it too rarely.
pub fn hazard(bug: Bug) -> Option<Hazard> {
    match bug {
        Bug::NoPrevTermCheck | Bug::CommitBeyondAgreed | Bug::AckBeyondAgreed => Some(Hazard::Unrest),
        Bug::NoReadRound | Bug::ReadRoundInTheAir => Some(Hazard::CutOff),
        Bug::LeaseTooLong | Bug::LeaseDriftIgnored | Bug::LeaderForgotten => Some(Hazard::Leases),
        Bug::RepairingVotes | Bug::RepairingCounts | Bug::CorruptTakenForTorn | Bug::TornTakenForCorrupt => {
            Some(Hazard::BadDisks)
        }
        Bug::TornAccepted | Bug::EpochIgnored => Some(Hazard::TornWrites),
        Bug::SegmentReusedEarly => Some(Hazard::FullDisks),
        Bug::ForksNotSeen | Bug::ReadsAsLeader | Bug::CopyMissesChanges | Bug::ReadingNotAwaited => {
            Some(Hazard::Moves)
        }
        _ => None,
    }
}

/// In what a bug is looked for, for the table.
pub fn circumstances(bug: Bug) -> &'static str {
    if scene(bug).is_some() { "script" } else { hazard(bug).map_or("", Hazard::name) }
}

/// A scene for a bug that no dice find: it is played with each seed in turn.
pub type Scene = fn(u64) -> Result<(), String>;

/// The scene of a bug, if it has one.
pub fn scene(bug: Bug) -> Option<Scene> {
    match bug {
        Bug::StaleReplyCounts => Some(crate::scenes::late_answer),
        _ => None,
    }
}

/// Plants the bugs one after the other, in `jobs` threads, and looks for each of them. `done` is told of each at once.
#[cfg(debug_assertions)]
pub fn prove(bugs: &[Bug], jobs: usize, done: impl Fn(&Proof) + Sync) -> Vec<Proof> {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    let next = AtomicUsize::new(0);
    let proofs = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let proof = look_for(*bug);
                    done(&proof);
                    proofs.lock().expect("nothing panics with it").push(proof);
                }
            });
        }
    });
    let mut proofs = proofs.into_inner().expect("nothing panics with it");
    proofs.sort_by_key(|proof: &Proof| proof.bug);
    proofs
}

#[cfg(debug_assertions)]
fn look_for(bug: Bug) -> Proof {
    use flotilla_runtime::planted::plant;

    let likely = FOUND_BY.iter().find(|(of, _)| *of == bug).map(|(_, seed)| *seed);
    let others = (0..SEEDS_MAX).filter(|seed| Some(*seed) != likely);
    let mut tried = 0;
    plant(Some(bug));
    let found = likely.into_iter().chain(others).find_map(|seed| {
        tried += 1;
        Some((seed, simulate_in(bug, seed)?))
    });
    plant(None);
    let control = found.as_ref().and_then(|(seed, _)| simulate_in(bug, *seed));
    Proof { bug, tried, found, control }
}

/// What a seed comes to in the bug's hazard, if it doesn't hold. Whether the bug is there is decided elsewhere.
#[cfg(debug_assertions)]
fn simulate_in(bug: Bug, seed: u64) -> Option<String> {
    if let Some(scene) = scene(bug) {
        return scene(seed).err();
    }
    let plan = crate::world::Plan { hazard: hazard(bug), ..crate::world::Plan::new(seed) };
    crate::world::simulate(&plan, crate::trace::Detail::Faults).failure
}

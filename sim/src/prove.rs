//! Tests the tester: each bug that can be planted must be found within so many seeds, which hold with nothing planted.
//!
//! Only a build with the feature `planted` can plant them ([`flotilla_runtime::planted`]).

use flotilla_runtime::planted::Bug;

/// Seeds within which every bug must be found.
pub const SEEDS_MAX: u64 = 400;

/// How a bug was found, or wasn't.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The bug.
    pub bug: Bug,
    /// Seeds that were needed, and what the last of them found; `None`: none of them found anything.
    pub found: Option<(u64, String)>,
}

impl Proof {
    /// The rule that the bug broke.
    pub fn rule(&self) -> &str {
        self.found.as_ref().map_or("not found", |(_, what)| what.split(':').next().unwrap_or(what))
    }

    /// A row of the table.
    pub fn row(&self) -> String {
        let (seeds, seed) = match &self.found {
            Some((seeds, _)) => (seeds.to_string(), (seeds - 1).to_string()),
            None => (format!("> {SEEDS_MAX}"), String::new()),
        };
        let bug = format!("{:?}", self.bug);
        format!("{bug:<26} {seeds:>6} {seed:>6}  {:<22} {}", self.rule(), self.bug.what())
    }
}

/// The control: without a bug, the seeds that found the bugs must hold, or they say nothing about them. Returns how
/// many they are.
///
/// # Errors
/// The lowest seed that fails.
#[cfg(feature = "planted")]
pub fn control(proofs: &[Proof], jobs: usize) -> Result<u64, crate::run::Failed> {
    flotilla_runtime::planted::plant(None);
    let seeds = proofs.iter().filter_map(|proof| proof.found.as_ref()).map(|(seeds, _)| *seeds).max();
    let seeds = seeds.unwrap_or(0);
    crate::run::run(0, seeds, jobs).map(|_| seeds)
}

/// The head of the table.
pub const HEAD: &str = "bug                         seeds   seed  found by               what goes wrong";

/// Plants the bugs one after the other, in `jobs` threads, and looks for each of them. `done` is told of each at once.
#[cfg(feature = "planted")]
pub fn prove(bugs: &[Bug], jobs: usize, done: impl Fn(&Proof) + Sync) -> Vec<Proof> {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    let next = AtomicUsize::new(0);
    let proofs = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let proof = Proof { bug: *bug, found: look_for(*bug) };
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

#[cfg(feature = "planted")]
fn look_for(bug: Bug) -> Option<(u64, String)> {
    use crate::trace::Detail;
    use crate::world::{Plan, simulate};
    use flotilla_runtime::planted::plant;

    plant(Some(bug));
    let found = (0..SEEDS_MAX).find_map(|seed| {
        let outcome = simulate(&Plan::new(seed), Detail::Faults);
        outcome.failure.map(|what| (seed + 1, what))
    });
    plant(None);
    found
}

//! Many seeds on all cores, added up.

use crate::faults::Tally;
use crate::hazards::Hazard;
use crate::trace::Detail;
use crate::world::{Outcome, Plan, simulate};
use rustix::time::{ClockId, clock_gettime};
use std::cell::RefCell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The first so many seeds run twice: a seed must determine everything.
const RUN_TWICE: u64 = 10;

/// What many seeds came to.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Seeds that held.
    pub seeds: u64,
    /// Simulations; some seeds run twice.
    pub simulations: u64,
    /// Commands answered, in all simulations.
    pub answered: u64,
    /// Entries committed.
    pub committed: u64,
    /// Terms with a leader.
    pub elections: u64,
    /// Histories that couldn't be decided.
    pub undecided: u64,
    /// How often what went wrong.
    pub tally: Tally,
    /// Seconds that passed.
    pub seconds: f64,
    /// Seconds of processor time.
    pub cpu_seconds: f64,
}

/// A plan that doesn't hold.
#[derive(Clone, Debug)]
pub struct Failed {
    /// The plan.
    pub plan: Plan,
    /// The rule that is broken, and how.
    pub what: String,
}

impl Totals {
    fn add(&mut self, outcome: &Outcome) {
        self.simulations += 1;
        self.answered += outcome.answered;
        self.committed += outcome.committed;
        self.elections += outcome.elections;
        self.undecided += outcome.undecided;
        self.tally.add(&outcome.tally);
    }

    /// Commands answered for each second of processor time.
    pub fn commands_per_cpu_second(&self) -> f64 {
        self.answered as f64 / self.cpu_seconds
    }

    /// For people.
    pub fn summary(&self) -> String {
        format!(
            "{} seeds hold: {} commands answered, {} entries committed, {} elections, {} histories undecided\n{:.1} s, \
             {:.0} seeds a minute, {:.0} commands for each second of processor time",
            self.seeds,
            self.answered,
            self.committed,
            self.elections,
            self.undecided,
            self.seconds,
            self.seeds as f64 * 60.0 / self.seconds,
            self.commands_per_cpu_second(),
        )
    }
}

/// Processors that this process may use.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs the seeds from `start` on, in a hazard or as they are drawn, in `jobs` threads.
///
/// # Errors
/// The lowest seed found that fails; the others were given up then.
pub fn run(start: u64, seeds: u64, hazard: Option<Hazard>, jobs: usize) -> Result<Totals, Failed> {
    let (began, cpu_before) = (Instant::now(), cpu_seconds());
    let next = AtomicU64::new(start);
    let end = start + seeds;
    let totals = Mutex::new(Totals { seeds, ..Totals::default() });
    let failed: Mutex<Option<Failed>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    if let Err(found) =
                        one(Plan { hazard, ..Plan::new(seed) }, seed < start + RUN_TWICE, &totals)
                    {
                        next.store(end, Ordering::Relaxed);
                        let mut failed = failed.lock().expect("nothing panics with it");
                        if failed.as_ref().is_none_or(|other| other.plan.seed > seed) {
                            *failed = Some(found);
                        }
                    }
                }
            });
        }
    });
    if let Some(failed) = failed.into_inner().expect("nothing panics with it") {
        return Err(failed);
    }
    let mut totals = totals.into_inner().expect("nothing panics with it");
    totals.seconds = began.elapsed().as_secs_f64();
    totals.cpu_seconds = cpu_seconds() - cpu_before;
    Ok(totals)
}

fn one(plan: Plan, twice: bool, totals: &Mutex<Totals>) -> Result<(), Failed> {
    let outcome = simulate(&plan, Detail::Faults);
    if let Some(what) = outcome.failure {
        return Err(Failed { plan, what });
    }
    totals.lock().expect("nothing panics with it").add(&outcome);
    if twice {
        let again = simulate(&plan, Detail::Faults);
        if again.trace_hash != outcome.trace_hash {
            let (one, other) = (outcome.trace_hash, again.trace_hash);
            let what = format!("determinism: the trace is {one:016x}, and then {other:016x}");
            return Err(Failed { plan, what });
        }
        totals.lock().expect("nothing panics with it").add(&again);
    }
    Ok(())
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on a panic prints nothing, and `last_panic` says where it was: in a simulation it is a finding like others.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|panic| {
        LAST_PANIC.with(|last| *last.borrow_mut() = Some(panic.to_string().replace('\n', " ")));
    }));
}

/// What the last panic of this thread said, and where.
pub(crate) fn last_panic() -> Option<String> {
    LAST_PANIC.with(|last| last.borrow_mut().take())
}

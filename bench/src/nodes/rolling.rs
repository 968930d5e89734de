//! Three nodes are restarted one after the other, while clients write and read: how many of their requests fail, and how long they
//! wait.
//!
//! ```text
//! warm │ peak │ steady │ restarts of nodes 1, 2, 3 │ return of the leaders │ rest │ steady │ restarts …
//! ```
//!
//! The clients are native ones, whose writes take effect once, and which try again by themselves. They ask on a fixed schedule, at a
//! quarter of what they could do, and a request's time counts from when it was due: who stands still isn't asked less. A node is
//! stopped by SIGTERM, which drains it, and the next one only when this one is whole again. The restarts last from the first
//! SIGTERM until the third node is whole; what is told over all of it goes on until the leaders are where they were.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flotilla_services::client::{Client, ClientError, ClientOptions};

use super::cluster::{Even, Nodes};
use super::{Bench, PATIENCE, failed};
use crate::error::Result;
use crate::recorder::{Latencies, latencies};
use crate::report::{Goal, note};

const PART: &str = "rolling";
const NODES: u32 = 3;
/// Calls that run at a time.
const CALLS: u32 = 16;
const KEYS: u64 = 10_000;
const VALUE: [u8; 64] = [b'v'; 64];
/// Of the peak.
const SHARE: f64 = 0.25;
/// A request that is due belongs to the time in which it is; one may be late.
const REST: Duration = Duration::from_secs(1);

pub(super) fn measure(bench: &mut Bench<'_>) -> Result<()> {
    let mut nodes = Nodes::start(bench, PART, |options| (options.nodes, options.groups) = (NODES, NODES))?;
    let even = Even { nodes: NODES, cores: 1, groups: NODES };
    nodes.wait_for_even_leaders(even, bench.interrupt)?;
    let clients = Clients::start(&nodes)?;
    let wait = |time: Duration| bench.interrupt.sleep_until(Instant::now() + time);
    wait(bench.seconds(3.0))?;
    let (done, clock) = (clients.done(), Instant::now());
    wait(bench.seconds(3.0))?;
    let peak = (clients.done() - done) as f64 / clock.elapsed().as_secs_f64();
    let rate = (SHARE * peak).max(f64::from(CALLS));
    note(&format!("the peak is {peak:.0} requests/s, asked is for {rate:.0}"));
    clients.pace(rate);
    for round in 0..bench.rounds() {
        nodes.undisturbed(even, bench.interrupt, || {
            wait(REST)?;
            clients.forget(Phase::Steady(round));
            clients.enter(Phase::Steady(round));
            wait(bench.seconds(15.0))
        })?;
        clients.enter(Phase::Restarts(round));
        for node in 1..=NODES {
            bench.interrupt.check()?;
            let clock = Instant::now();
            if !nodes.cluster.stop(node, PATIENCE) {
                return Err(failed(PART, format!("node {node} didn't end well after SIGTERM")));
            }
            let stopped = clock.elapsed();
            nodes.cluster.restart(node).map_err(|error| failed(PART, error))?;
            nodes.cluster.wait_until_founded(PATIENCE).map_err(|error| failed(PART, error))?;
            let whole = clock.elapsed();
            note(&format!("node {node} ended after {stopped:.2?}, and was whole again after {whole:.2?}"));
        }
        clients.enter(Phase::Return(round));
        nodes.wait_for_even_leaders(even, bench.interrupt)?;
        clients.enter(Phase::Rest);
    }
    wait(REST)?;
    let tallies = clients.end()?;
    let mut failures = 0;
    for round in 0..bench.rounds() {
        let of = |phase| tallies.get(&phase).filter(|tally| !tally.seen.is_empty());
        let (Some(steady), Some(restarts)) = (of(Phase::Steady(round)), of(Phase::Restarts(round))) else {
            return Err(failed(PART, "no request was due while it was measured"));
        };
        let (mut whole, mut failed_meanwhile) = (restarts.seen.clone(), restarts.failed);
        if let Some(back) = of(Phase::Return(round)) {
            whole.add(&back.seen).map_err(|error| failed(PART, error))?;
            failed_meanwhile += back.failed;
        }
        let [p99, least, whole_p99] = [&restarts.seen, &steady.seen, &whole].map(|seen| ms(seen, 0.99));
        bench.figures.ratio("rolling_restart_failed_requests", failed_meanwhile as f64, Goal::AtMost(0.0));
        bench.figures.ratio("rolling_restart_p99_vs_steady", p99 / least, Goal::AtMost(5.0));
        bench.figures.observe("rolling_restart_requests", restarts.seen.len() as f64);
        bench.figures.observe("rolling_restart_p99_ms", p99);
        bench.figures.observe("rolling_restart_longest_ms", ms(&restarts.seen, 1.0));
        bench.figures.observe("steady_p99_ms", least);
        bench.figures.observe("p99_vs_steady_until_leaders_are_back", whole_p99 / least);
        failures += steady.failed + failed_meanwhile;
    }
    let words = tallies.values().find_map(|tally| tally.words.as_deref());
    if let Some(words) = words.filter(|_| failures > 0) {
        note(&format!("{failures} requests failed; the first: {words}"));
    }
    Ok(())
}

/// What was going on when a request was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Nothing that is measured.
    Rest,
    /// Of each round.
    Steady(u16),
    Restarts(u16),
    Return(u16),
}

/// What became of the requests of a phase.
struct Tally {
    seen: Latencies,
    failed: u64,
    /// Of the first that failed.
    words: Option<String>,
}

fn ms(seen: &Latencies, quantile: f64) -> f64 {
    seen.value_at_quantile(quantile) as f64 / 1e6
}

/// What the clients and the measurement share.
struct Shared {
    over: AtomicBool,
    done: AtomicU64,
    /// From one request of a client to its next; 0: as soon as it has its reply.
    interval_ns: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When each phase began.
    phases: Vec<(Instant, Phase)>,
    tallies: BTreeMap<Phase, Tally>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, due: Instant, outcome: std::result::Result<(), ClientError>) {
        let took = due.elapsed();
        let mut state = self.state();
        let phase = phase_at(&state.phases, due);
        let tally =
            state.tallies.entry(phase).or_insert_with(|| Tally { seen: latencies(), failed: 0, words: None });
        tally.seen.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        if let Err(error) = outcome {
            tally.failed += 1;
            tally.words.get_or_insert_with(|| error.to_string());
        }
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// The last that had begun by then.
fn phase_at(phases: &[(Instant, Phase)], due: Instant) -> Phase {
    let begun = phases.iter().rev().find(|(from, _)| *from <= due);
    begun.map_or(Phase::Rest, |(_, phase)| *phase)
}

/// One native client, and threads that call it side by side.
struct Clients {
    shared: Arc<Shared>,
    callers: Vec<JoinHandle<()>>,
}

impl Clients {
    fn start(nodes: &Nodes) -> Result<Self> {
        let addresses = nodes.cluster.addresses();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let client = async_io::block_on(Client::connect(&addresses, ClientOptions::default()));
        let client = Arc::new(client.map_err(|error| failed(PART, error))?);
        let shared = Arc::new(Shared {
            over: AtomicBool::new(false),
            done: AtomicU64::new(0),
            interval_ns: AtomicU64::new(0),
            state: Mutex::default(),
        });
        let caller = |number| {
            let (client, shared) = (Arc::clone(&client), Arc::clone(&shared));
            std::thread::spawn(move || call(&client, number, &shared))
        };
        let callers = (0..CALLS).map(caller).collect();
        Ok(Self { shared, callers })
    }

    fn done(&self) -> u64 {
        self.shared.done.load(Ordering::Relaxed)
    }

    /// From now on so many requests are due in a second.
    fn pace(&self, per_second: f64) {
        let interval_ns = 1e9 * f64::from(CALLS) / per_second;
        self.shared.interval_ns.store(interval_ns as u64, Ordering::Relaxed);
    }

    fn enter(&self, phase: Phase) {
        self.shared.state().phases.push((Instant::now(), phase));
    }

    /// What was measured in this phase wasn't it.
    fn forget(&self, phase: Phase) {
        let mut state = self.shared.state();
        state.phases.iter_mut().filter(|(_, it)| *it == phase).for_each(|(_, it)| *it = Phase::Rest);
        state.tallies.remove(&phase);
    }

    fn end(mut self) -> Result<BTreeMap<Phase, Tally>> {
        self.shared.over.store(true, Ordering::Relaxed);
        for caller in self.callers.drain(..) {
            caller.join().map_err(|_| failed(PART, "a client panicked"))?;
        }
        Ok(std::mem::take(&mut self.shared.state().tallies))
    }
}

impl Drop for Clients {
    /// Where something else has failed nobody waits for them: their calls may have nobody to answer them any more.
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
    }
}

/// Writes and reads in turn.
fn call(client: &Client, number: u32, shared: &Shared) {
    let mut random = flotilla_runtime::SplitMix64::new(u64::from(number));
    let (mut due, mut paced_ns) = (Instant::now(), 0);
    for turn in 0_u64.. {
        if shared.over.load(Ordering::Relaxed) {
            return;
        }
        let interval_ns = shared.interval_ns.load(Ordering::Relaxed);
        if paced_ns != interval_ns {
            // The clients' schedules are evenly apart.
            due = Instant::now() + Duration::from_nanos(interval_ns / u64::from(CALLS) * u64::from(number));
            paced_ns = interval_ns;
        }
        match interval_ns {
            0 => due = Instant::now(),
            interval_ns => {
                due += Duration::from_nanos(interval_ns);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        }
        let key = format!("key:{}", random.below(KEYS));
        let outcome = async_io::block_on(async {
            match turn % 2 {
                0 => client.set(key.as_bytes(), &VALUE).await,
                _ => client.get(key.as_bytes()).await.map(drop),
            }
        });
        shared.record(due, outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_belongs_to_the_time_in_which_it_was_due() {
        let from = Instant::now();
        let after = |ms| from + Duration::from_millis(ms);
        let phases =
            [(after(10), Phase::Steady(0)), (after(20), Phase::Restarts(0)), (after(30), Phase::Rest)];
        let told = [0, 10, 19, 20, 31].map(|ms| phase_at(&phases, after(ms)));
        let wanted = [Phase::Rest, Phase::Steady(0), Phase::Steady(0), Phase::Restarts(0), Phase::Rest];
        assert_eq!(told, wanted);
    }
}

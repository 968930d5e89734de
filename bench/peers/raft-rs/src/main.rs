//! Three raft-rs replicas that commit entries of so many bytes, so many of them in flight. `core` and `core-bytes`: in
//! one thread and in memory. `durable`: a thread each, over channels, with a raft-engine log each that has a thread of its own;
//! `durable-in-turn`: without. Prints one JSON object.

mod core;
mod durable;
#[path = "../../printed.rs"]
mod printed;
mod replica;

use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What to commit.
#[derive(Clone, Copy)]
pub struct Plan {
    pub in_flight: usize,
    pub bytes: usize,
    pub warmup: Duration,
    pub time: Duration,
}

/// What the leader saw.
pub struct Measured {
    begun: Instant,
    plan: Plan,
    /// When the warm-up was over, and what had been used until then.
    from: Option<(Instant, printed::Usage)>,
    pub commits: u64,
    latencies: Histogram<u64>,
}

impl Measured {
    pub fn begin(plan: Plan) -> Self {
        let latencies = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("sound bounds");
        Self { begun: Instant::now(), plan, from: None, commits: 0, latencies }
    }

    /// So many commits are known at `now`. Returns whether it is over.
    pub fn committed(&mut self, now: Instant, commits: u64) -> bool {
        if now < self.begun + self.plan.warmup {
            return false;
        }
        if self.from.is_none() {
            self.from = Some((now, printed::Usage::now()));
            return false;
        }
        self.commits += commits;
        now >= self.begun + self.plan.warmup + self.plan.time
    }

    pub fn latency(&mut self, time: Duration) {
        if self.from.is_some() {
            self.latencies.saturating_record(time.as_nanos() as u64);
        }
    }

    pub fn print(&self) {
        let (from, usage) = self.from.as_ref().expect("it was measured");
        let latencies = self.latencies.iter_recorded().map(|it| (it.value_iterated_to(), it.count_at_value()));
        printed::print(self.commits, from.elapsed().as_secs_f64(), usage, latencies);
    }
}

fn main() {
    let usage = "usage: raft-raft-rs core|core-bytes|durable|durable-in-turn IN_FLIGHT BYTES SECONDS [FOLDER]";
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [mode, in_flight, bytes, seconds, folder @ ..] = &args[..] else { panic!("{usage}") };
    let time = Duration::from_secs_f64(seconds.parse().expect(usage));
    let plan = Plan {
        in_flight: in_flight.parse().expect(usage),
        bytes: bytes.parse().expect(usage),
        warmup: time / 3,
        time,
    };
    match (&mode[..], folder) {
        ("core", []) => core::run(plan, false),
        ("core-bytes", []) => core::run(plan, true),
        ("durable", [folder]) => durable::run(plan, folder, false),
        ("durable-in-turn", [folder]) => durable::run(plan, folder, true),
        _ => panic!("{usage}"),
    }
}

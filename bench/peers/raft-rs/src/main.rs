//! Three raft-rs replicas that commit entries of so many bytes, so many of them in flight. `core` and `core-bytes`: in
//! one thread and in memory. `durable`: a thread each, over channels, with a raft-engine log each. Prints one JSON object.

mod core;
mod durable;
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
    cpu: f64,
    from: Option<Instant>,
    pub commits: u64,
    latencies: Histogram<u64>,
}

impl Measured {
    pub fn begin(plan: Plan) -> Self {
        let latencies = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("sound bounds");
        Self { begun: Instant::now(), plan, cpu: 0.0, from: None, commits: 0, latencies }
    }

    /// So many commits are known at `now`. Returns whether it is over.
    pub fn committed(&mut self, now: Instant, commits: u64) -> bool {
        if now < self.begun + self.plan.warmup {
            return false;
        }
        if self.from.is_none() {
            self.from = Some(now);
            self.cpu = cpu_seconds();
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
        let seconds = self.from.map_or(f64::NAN, |from| from.elapsed().as_secs_f64());
        let micros = |quantile| self.latencies.value_at_quantile(quantile) as f64 / 1e3;
        println!(
            "{{\"commits_per_second\": {}, \"p50_us\": {}, \"p99_us\": {}, \"cpu_us_per_commit\": {}}}",
            self.commits as f64 / seconds,
            micros(0.5),
            micros(0.99),
            (cpu_seconds() - self.cpu) * 1e6 / self.commits as f64,
        );
    }
}

/// User and system time of this process, in steps of a clock tick of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("this is Linux");
    let fields: Vec<&str> = stat[stat.rfind(')').expect("a name") + 2..].split(' ').collect();
    let ticks = |place: usize| fields[place].parse::<f64>().expect("a number of ticks");
    (ticks(11) + ticks(12)) / 100.0
}

fn main() {
    let usage = "usage: raft-raft-rs core|core-bytes|durable IN_FLIGHT BYTES SECONDS [FOLDER]";
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
        ("durable", [folder]) => durable::run(plan, folder),
        _ => panic!("{usage}"),
    }
}

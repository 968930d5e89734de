//! `flotilla-bench soak`: a long mixed load while nodes are killed and stopped, and no acknowledged write may be missing.
//!
//! Every client writes to keys that are its own, a number that only grows, and so knows at any time what may be read:
//! see [`ledger`]. Nodes die by SIGKILL and are started again; others hang by SIGSTOP and go on; one at a time, so that a
//! majority is always there. In the end all are up, and every key is read once more.
//!
//! | module | what |
//! |---|---|
//! | [`ledger`] | what may be read of a key |
//! | [`client`] | one client: writes, reads, checks |

mod client;
mod ledger;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, value_parser};
use flotilla_runtime::SplitMix64;
use rustix::process::Signal;
use serde::Serialize;

use crate::error::{BenchError, Result};
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::recorder::Percentiles;
use crate::report::{self, note, rate, time};
use crate::target::flotilla::{self, Shape, Starting};
use crate::target::process::Ports;
use client::{Client, Tally};

/// A day in a cluster's life: writes and reads for minutes or hours while nodes are killed and stopped
///
/// Fails as soon as an acknowledged write is missing or an older value comes back.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  flotilla-bench soak --minutes 1
  flotilla-bench soak --minutes 1440 --clients 64 --json")]
pub(crate) struct SoakArgs {
    /// How long
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Clients, each with keys of its own
    #[arg(long, default_value_t = 16, value_parser = value_parser!(u16).range(1..=1024))]
    clients: u16,
    /// Keys of each client
    #[arg(long, default_value_t = 64, value_parser = value_parser!(u32).range(1..=1_000_000))]
    keys: u32,
    /// Bytes of a value, at least; large enough for its number
    #[arg(long, default_value_t = 64, value_parser = value_parser!(u32).range(..=1 << 20))]
    value_bytes: u32,
    /// Raft groups
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u16).range(1..))]
    groups: u16,
    /// Leave the nodes alone
    #[arg(long)]
    no_faults: bool,
    /// Of which fault comes when
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The flotilla program [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    flotilla: Option<PathBuf>,
    /// A folder on a real disk, in which a temporary one is made [default: here]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const NODES: u16 = 3;
/// From one fault's end to the next one's beginning.
const PAUSE_MS: std::ops::Range<u64> = 1_000..5_000;
/// How long a killed node stays dead, and a stopped one hangs: from within an election timeout to several of them.
const FAULT_MS: std::ops::Range<u64> = 100..3_000;
/// From one line of progress to the next.
const PROGRESS: Duration = Duration::from_secs(30);

/// What was done to a node.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Fault {
    Killed,
    Stopped,
}

/// One fault.
#[derive(Clone, Debug, Serialize)]
struct Event {
    /// Since the start.
    at_seconds: f64,
    node: usize,
    fault: Fault,
    lasting_seconds: f64,
}

/// The JSON object.
#[derive(Debug, Serialize)]
struct Soaked {
    schema: &'static str,
    command: String,
    machine: Machine,
    minutes: f64,
    acknowledged_writes: u64,
    checked_reads: u64,
    /// Writes whose outcome couldn't be known: their connection broke, or no reply came in time.
    unknown_writes: u64,
    /// Requests that were refused or couldn't be sent, and reads that weren't answered: none is sent again.
    refused: u64,
    operations_per_second: f64,
    latency_us: Percentiles,
    keys_checked_in_the_end: u64,
    faults: Vec<Event>,
}

/// Runs the command.
pub(crate) fn run(args: &SoakArgs) -> Result<()> {
    if !(args.minutes > 0.0 && args.minutes <= 1e6) {
        return Err(BenchError::Usage("--minutes is a number above 0".to_owned()));
    }
    let interrupt = Interrupt::install()?;
    let folder = crate::kv::folder(args.dir.as_deref())?;
    let machine = Machine::of(folder.path());
    let mut cluster = start(args, folder.path(), &interrupt)?;
    let nodes = cluster.addresses()?;
    let (from, stop) = (Instant::now(), AtomicBool::new(false));
    let (tally, faults) = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..args.clients)
            .map(|number| {
                let (nodes, stop) = (&nodes, &stop);
                scope.spawn(move || one_client(args, number, nodes, stop))
            })
            .collect();
        // On this thread: the nodes die with the thread that has started them.
        let faults = disturb(args, &mut cluster, from, &stop, &interrupt);
        stop.store(true, Ordering::Relaxed);
        let mut all = Tally::new();
        for client in clients {
            match client.join() {
                Ok(tally) => all.add(tally?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        faults.map(|faults| (all, faults))
    })?;
    let seconds = from.elapsed().as_secs_f64();
    let soaked = Soaked {
        schema: "flotilla-bench/soak/1",
        command: report::command_line(),
        machine,
        minutes: seconds / 60.0,
        acknowledged_writes: tally.acknowledged,
        checked_reads: tally.reads,
        unknown_writes: tally.unknown,
        refused: tally.refused,
        operations_per_second: (tally.acknowledged + tally.reads) as f64 / seconds,
        latency_us: Percentiles::of(&tally.latencies),
        keys_checked_in_the_end: tally.keys,
        faults,
    };
    if args.json {
        return report::print_json(&soaked);
    }
    report::print(&text(&soaked))
}

fn start(args: &SoakArgs, folder: &Path, interrupt: &Interrupt) -> Result<Starting> {
    let shape =
        Shape { program: args.flotilla.clone(), nodes: NODES, cores: 1, groups: args.groups, workers: 0 };
    let mut cluster = flotilla::start(&shape, folder, &mut Ports::new())?;
    cluster.serving(interrupt)?;
    Ok(cluster)
}

/// Works until it is told to stop, then reads all its keys.
fn one_client(args: &SoakArgs, number: u16, nodes: &[SocketAddr], stop: &AtomicBool) -> Result<Tally> {
    let mut client = Client::new(number, nodes, args.keys, args.value_bytes as usize);
    let outcome = (|| {
        while !stop.load(Ordering::Relaxed) {
            client.work()?;
        }
        client.check_all()
    })();
    // What one client found ends the run for all.
    stop.store(true, Ordering::Relaxed);
    outcome.map(|()| client.tally())
}

/// Kills and stops nodes until the time is over, and leaves all of them up.
fn disturb(
    args: &SoakArgs,
    cluster: &mut Starting,
    from: Instant,
    stop: &AtomicBool,
    interrupt: &Interrupt,
) -> Result<Vec<Event>> {
    let end = from + Duration::from_secs_f64(60.0 * args.minutes);
    let mut random = SplitMix64::new(args.seed);
    let mut between = |range: std::ops::Range<u64>| range.start + random.below(range.end - range.start);
    let mut faults = Vec::new();
    let mut told = from;
    let wait = |until: Instant| -> Result<bool> {
        while Instant::now() < until && !stop.load(Ordering::Relaxed) {
            interrupt.sleep_until(until.min(Instant::now() + Duration::from_millis(50)))?;
        }
        Ok(Instant::now() < end && !stop.load(Ordering::Relaxed))
    };
    loop {
        let pause = Duration::from_millis(between(PAUSE_MS));
        if !wait(end.min(Instant::now() + pause))? {
            return Ok(faults);
        }
        if told.elapsed() > PROGRESS {
            told = Instant::now();
            note(&format!("{:.1} minutes, {} faults", from.elapsed().as_secs_f64() / 60.0, faults.len()));
        }
        if args.no_faults {
            continue;
        }
        let (node, lasting) =
            (between(0..u64::from(NODES)) as usize, Duration::from_millis(between(FAULT_MS)));
        let fault = if between(0..2) == 0 { Fault::Killed } else { Fault::Stopped };
        let at_seconds = from.elapsed().as_secs_f64();
        match fault {
            Fault::Killed => cluster.kill(node),
            Fault::Stopped => cluster.signal(node, Signal::STOP)?,
        }
        // Whatever ends the wait, the node is up again afterwards.
        let waited = wait(Instant::now() + lasting);
        match fault {
            Fault::Killed => cluster.restart(node, interrupt)?,
            Fault::Stopped => cluster.signal(node, Signal::CONT)?,
        }
        waited?;
        faults.push(Event { at_seconds, node: node + 1, fault, lasting_seconds: lasting.as_secs_f64() });
    }
}

fn text(soaked: &Soaked) -> String {
    let killed = soaked.faults.iter().filter(|event| matches!(event.fault, Fault::Killed)).count();
    let latency = &soaked.latency_us;
    format!(
        "{:.1} minutes, {killed} nodes killed, {} stopped\n\
         {} writes acknowledged, {} reads checked, {}/s; p50 {}, p99 {}, the longest {}\n\
         {} writes of unknown outcome, {} requests refused or reads unanswered\n\
         {} keys read in the end: every acknowledged write is there\n",
        soaked.minutes,
        soaked.faults.len() - killed,
        soaked.acknowledged_writes,
        soaked.checked_reads,
        rate(soaked.operations_per_second),
        time(latency.p50),
        time(latency.p99),
        time(latency.max),
        soaked.unknown_writes,
        soaked.refused,
        soaked.keys_checked_in_the_end,
    )
}

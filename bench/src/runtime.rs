//! `flotilla-bench runtime`: a core of ours as an echo server, beside tokio and monoio; what a task, a timer and doing nothing cost.

mod echo;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use tempfile::TempDir;

use flotilla_runtime::driver::floor::measure_spawn;
use flotilla_runtime::wheel::Wheel;

use crate::cpu::CpuReading;
use crate::error::{BenchError, Result};
use crate::figures::{Figures, Found, number};
use crate::floor::percentiles;
use crate::interrupt::Interrupt;
use crate::kv::args::seconds;
use crate::machine::Machine;
use crate::recorder::{Latencies, latencies};
use crate::report::{self, Goal, note};
use crate::target::built::built;
use crate::target::process::{Process, dying_with_us};

pub(crate) use echo::{EchoArgs, serve};

/// Of a message.
const BYTES: usize = 64;
/// Messages under way when it is about throughput.
const DEPTH: usize = 64;
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// Tasks, and timers, of one measurement.
const COUNT: u32 = 1_000_000;

/// A core's runtime, side by side with tokio and monoio
///
/// A server in another process sends 64 bytes back: one message after the other, and 64 at a time; with its CPU time. Then
/// a local task spawned and awaited, a timer armed and cancelled, and the CPU time of a server with two cores and nothing
/// to do.
#[derive(Clone, Debug, Args)]
pub(crate) struct RuntimeArgs {
    /// Rounds, each with everything in it; ratios are medians of them
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Seconds of each load
    #[arg(long, default_value = "2", value_parser = seconds)]
    seconds: Duration,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// One server under both loads.
#[derive(Clone, Debug, Serialize)]
struct EchoResult {
    target: &'static str,
    p50_us: f64,
    per_second: f64,
    cpu_us_per_message: f64,
    cpu_us_per_pipelined_message: f64,
}

/// Runs the command.
pub(crate) fn run(args: &RuntimeArgs) -> Result<()> {
    let from = Instant::now();
    let interrupt = Interrupt::install()?;
    let folder = crate::kv::folder(None)?;
    let machine = Machine::of(folder.path());
    let peers = built("echo-peers", "echo.sh");
    if let Err(missing) = &peers {
        note(&format!("without tokio and monoio: {missing}"));
    }
    let own = std::env::current_exe().map_err(BenchError::io("finding this program"))?;
    let starter = Starter { own, folder: folder.path(), time: args.seconds, interrupt: &interrupt };
    let (mut figures, mut results) = (Figures::default(), Vec::new());
    for round in 1..=args.rounds {
        note(&format!("round {round}"));
        let ours = starter.echo_of("flotilla", &starter.own, "echo-server")?;
        let mut theirs = Vec::new();
        for target in ["tokio-multi", "tokio-current", "monoio"] {
            if let Ok(peers) = &peers {
                theirs.push(starter.echo_of(target, peers, target)?);
            }
        }
        compare(&ours, &theirs, &mut figures);
        results.push(ours);
        results.extend(theirs);
        figures.ratio("spawn_and_await_ns", spawn_ns()?, Goal::AtMost(150.0));
        figures.ratio("timer_arm_and_cancel_ns", timer_ns(), Goal::AtMost(60.0));
        figures.ratio("idle_cpu_percent", starter.idle_percent()?, Goal::AtMost(0.5));
    }
    Found { machine, floors: (), figures, results, from }.print(args.json, |(), results| shown(results))
}

fn compare(ours: &EchoResult, theirs: &[EchoResult], figures: &mut Figures) {
    let best = |of: fn(&EchoResult) -> f64, better: fn(f64, f64) -> f64| theirs.iter().map(of).reduce(better);
    if let Some(p50) = best(|it| it.p50_us, f64::min) {
        figures.ratio("echo_p50_vs_best", ours.p50_us / p50, Goal::AtMost(1.2));
    }
    if let Some(rate) = best(|it| it.per_second, f64::max) {
        figures.ratio("echo_pipelined_vs_best", ours.per_second / rate, Goal::AtLeast(1.0));
    }
    if let Some(cpu) = best(|it| it.cpu_us_per_message, f64::min) {
        figures.ratio("echo_cpu_vs_best", ours.cpu_us_per_message / cpu, Goal::AtMost(1.0));
    }
    if let Some(cpu) = best(|it| it.cpu_us_per_pipelined_message, f64::min) {
        let ratio = ours.cpu_us_per_pipelined_message / cpu;
        figures.ratio("echo_pipelined_cpu_vs_best", ratio, Goal::AtMost(1.0));
    }
}

/// A server's process, until it is dropped; and then its folder, in which it works.
struct Server {
    process: Process,
    address: SocketAddr,
    #[expect(dead_code, reason = "held for its Drop, after the process")]
    folder: TempDir,
}

/// What starts servers.
struct Starter<'a> {
    /// This program.
    own: PathBuf,
    folder: &'a Path,
    time: Duration,
    interrupt: &'a Interrupt,
}

impl Starter<'_> {
    /// The server of `program` that is called `word`: the first that it says is its address.
    fn start(&self, target: &str, program: &Path, word: &str) -> Result<Server> {
        let folder = tempfile::tempdir_in(self.folder).map_err(BenchError::io("making a folder"))?;
        let mut command = dying_with_us(program.as_os_str());
        command.arg(word).current_dir(folder.path());
        let mut process = Process::start(target, command, folder.path().join("log"))?;
        let line = process.await_line("127.0.0.1:", Instant::now() + PATIENCE, self.interrupt)?;
        let address = line.trim().parse();
        let address = address.map_err(|_| process.not_started(&format!("{line:?} is no address")))?;
        Ok(Server { process, address, folder })
    }

    fn echo_of(&self, target: &'static str, program: &Path, word: &str) -> Result<EchoResult> {
        let server = self.start(target, program, word)?;
        let (trips, _, cpu_us_per_message) = load(&server, 1, self.time, self.interrupt)?;
        let (_, per_second, cpu_us_per_pipelined_message) = load(&server, DEPTH, self.time, self.interrupt)?;
        let p50_us = percentiles(&trips).p50_us;
        Ok(EchoResult { target, p50_us, per_second, cpu_us_per_message, cpu_us_per_pipelined_message })
    }

    /// A server that nobody talks to: its CPU time in percent of one CPU.
    fn idle_percent(&self) -> Result<f64> {
        let server = self.start("flotilla", &self.own, "echo-server")?;
        // A clock tick is 10 ms: it takes a while to see so little.
        let time = (self.time * 4).max(Duration::from_secs(5));
        let (before, begun) = (server.used(), Instant::now());
        self.interrupt.sleep_until(begun + time)?;
        let used = server.used().since(&before);
        Ok(used.servers.unwrap_or(f64::NAN) * 100.0 / begun.elapsed().as_secs_f64())
    }
}

impl Server {
    /// Its CPU time so far.
    fn used(&self) -> CpuReading {
        CpuReading::take(&[self.process.pid()])
    }
}

/// `depth` messages at a time over one connection: the round trips, messages a second, and the server's CPU time for each in
/// microseconds.
fn load(
    server: &Server,
    depth: usize,
    time: Duration,
    interrupt: &Interrupt,
) -> Result<(Latencies, f64, f64)> {
    let io = || BenchError::io(format!("talking to {}", server.address));
    let mut stream = TcpStream::connect(server.address).map_err(io())?;
    stream.set_nodelay(true).map_err(io())?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(io())?;
    let (out, mut back) = (vec![7; BYTES * depth], vec![0; BYTES * depth]);
    let mut trip = || -> std::io::Result<Duration> {
        let start = Instant::now();
        stream.write_all(&out)?;
        stream.read_exact(&mut back)?;
        Ok(start.elapsed())
    };
    for _ in 0..1000 {
        trip().map_err(io())?;
    }
    let (before, begun, mut trips) = (server.used(), Instant::now(), latencies());
    // However short the time, there is a trip.
    while trips.is_empty() || begun.elapsed() < time {
        interrupt.check()?;
        trips.saturating_record(trip().map_err(io())?.as_nanos() as u64);
    }
    let messages = (trips.len() * depth as u64) as f64;
    let used = server.used().since(&before);
    let cpu = used.servers.unwrap_or(f64::NAN) * 1e6 / messages;
    Ok((trips, messages / begun.elapsed().as_secs_f64(), cpu))
}

fn spawn_ns() -> Result<f64> {
    let took = measure_spawn(COUNT).map_err(BenchError::io("starting an executor"))?;
    Ok(took as f64 / f64::from(COUNT))
}

/// Armed and cancelled among a thousand others, at many distances.
fn timer_ns() -> f64 {
    let mut wheel = Wheel::new(0);
    for other in 0..1000_u64 {
        wheel.arm(other * 10_000_000, other);
    }
    let begun = Instant::now();
    for number in 0..u64::from(COUNT) {
        let key = wheel.arm(number % 4096 * 1_000_000, number);
        std::hint::black_box(wheel.cancel(key));
    }
    begun.elapsed().as_nanos() as f64 / f64::from(COUNT)
}

fn shown(results: &[EchoResult]) -> String {
    let rows: Vec<Vec<String>> = results
        .iter()
        .map(|it| {
            let numbers = [it.p50_us, it.per_second, it.cpu_us_per_message, it.cpu_us_per_pipelined_message]
                .map(number);
            std::iter::once(it.target.to_owned()).chain(numbers).collect()
        })
        .collect();
    report::table(&["echo of 64 bytes", "p50 us", "x64 a second", "CPU us each", "x64 CPU us each"], &rows)
}

//! `flotilla-bench runtime`: a core of ours as an echo server, beside tokio and monoio; what a task, a timer and doing nothing cost.

mod echo;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use flotilla_runtime::driver::floor::measure_spawn;
use flotilla_runtime::wheel::Wheel;

use crate::cpu::CpuReading;
use crate::error::{BenchError, Result};
use crate::figures::{Figures, Found, number};
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::report::{self, Goal, note};

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
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
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
    let here = std::env::current_dir().map_err(BenchError::io("finding this folder"))?;
    let machine = Machine::of(&here);
    let peers = crate::mesh::peer("echo-peers", ": bench/peers/echo.sh builds it");
    if let Err(missing) = &peers {
        note(&format!("without tokio and monoio: {missing}"));
    }
    let own = std::env::current_exe().map_err(BenchError::io("finding this program"))?;
    let time = Duration::from_secs_f64(args.seconds);
    let (mut figures, mut results) = (Figures::default(), Vec::new());
    for round in 1..=args.rounds {
        note(&format!("round {round}"));
        let ours = echo_of("flotilla", &own, "echo-server", time, &interrupt)?;
        let mut theirs = Vec::new();
        for target in ["tokio-multi", "tokio-current", "monoio"] {
            if let Ok(peers) = &peers {
                theirs.push(echo_of(target, peers, target, time, &interrupt)?);
            }
        }
        compare(&ours, &theirs, &mut figures);
        results.push(ours);
        results.extend(theirs);
        figures.ratio("spawn_and_await_ns", spawn_ns()?, Goal::AtMost(150.0));
        figures.ratio("timer_arm_and_cancel_ns", timer_ns(), Goal::AtMost(60.0));
        figures.ratio("idle_cpu_percent", idle_percent(&own, time, &interrupt)?, Goal::AtMost(0.5));
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

/// A server's process, until it is dropped.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(target: &str, program: &Path, word: &str) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg(word).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(BenchError::io(format!("starting {target}")))?;
        let mut line = String::new();
        let read = child.stdout.take().map(|stdout| BufReader::new(stdout).read_line(&mut line));
        match (read, line.trim().parse()) {
            (Some(Ok(_)), Ok(address)) => Ok(Self { child, address }),
            _ => {
                // It is of no use.
                let _ = child.kill();
                let _ = child.wait();
                Err(BenchError::NotStarted {
                    server: target.to_owned(),
                    reason: "it told no address".to_owned(),
                })
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn echo_of(
    target: &'static str,
    program: &Path,
    word: &str,
    time: Duration,
    interrupt: &Interrupt,
) -> Result<EchoResult> {
    let server = Server::start(target, program, word)?;
    let (mut trips, _, cpu_us_per_message) = load(&server, 1, time, interrupt)?;
    let (_, per_second, cpu_us_per_pipelined_message) = load(&server, DEPTH, time, interrupt)?;
    trips.sort_unstable();
    let p50_us = trips.get(trips.len() / 2).map_or(f64::NAN, |trip| trip.as_secs_f64() * 1e6);
    Ok(EchoResult { target, p50_us, per_second, cpu_us_per_message, cpu_us_per_pipelined_message })
}

/// `depth` messages at a time over one connection: the round trips, messages a second, and the server's CPU time for each in
/// microseconds.
fn load(
    server: &Server,
    depth: usize,
    time: Duration,
    interrupt: &Interrupt,
) -> Result<(Vec<Duration>, f64, f64)> {
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
    let (before, begun, mut trips) = (CpuReading::take(&[server.child.id()]), Instant::now(), Vec::new());
    while begun.elapsed() < time {
        interrupt.check()?;
        trips.push(trip().map_err(io())?);
    }
    let messages = (trips.len() * depth) as f64;
    let used = CpuReading::take(&[server.child.id()]).since(&before);
    let cpu = used.servers.unwrap_or(f64::NAN) * 1e6 / messages;
    Ok((trips, messages / begun.elapsed().as_secs_f64(), cpu))
}

/// A server that nobody talks to: its CPU time in percent of one CPU.
fn idle_percent(own: &Path, time: Duration, interrupt: &Interrupt) -> Result<f64> {
    let server = Server::start("flotilla", own, "echo-server")?;
    // A clock tick is 10 ms: it takes a while to see so little.
    let time = (time * 4).max(Duration::from_secs(5));
    let (before, begun) = (CpuReading::take(&[server.child.id()]), Instant::now());
    interrupt.sleep_until(begun + time)?;
    let used = CpuReading::take(&[server.child.id()]).since(&before);
    Ok(used.servers.unwrap_or(f64::NAN) * 100.0 / begun.elapsed().as_secs_f64())
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

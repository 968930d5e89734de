//! `flotilla-bench runtime`: a core of ours as an echo server, beside tokio and monoio; what a task, a timer and doing nothing cost.

mod echo;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use tempfile::TempDir;

use flotilla_runtime::driver::floor::measure_spawn;
use flotilla_runtime::wheel::Wheel;

use crate::compare::result::{TargetInfo, Unit};
use crate::cpu::{CpuReading, peak_bytes};
use crate::error::{BenchError, Result};
use crate::figures::{Figures, Measured, targets};
use crate::interrupt::Interrupt;
use crate::kv::args::seconds;
use crate::kv::outcome::Round;
use crate::machine::Machine;
use crate::recorder::latencies;
use crate::report::{Goal, note};
use crate::target::built::{built, locked};
use crate::target::process::{Process, dying_with_us};
use crate::turn::{Load, SUBJECT, Seen, Turns, Way};

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
    /// Under a minute in all
    #[arg(long)]
    pub(crate) quick: bool,
    /// Rounds, each with everything in it; ratios are medians of them [default: 3; 2 with --quick]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) rounds: Option<u16>,
    /// Seconds of each load [default: 2; 0.5 with --quick]
    #[arg(long, value_parser = seconds)]
    pub(crate) seconds: Option<Duration>,
    /// Where servers have their folders: one in which a temporary one is made [default: here]
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Ours, a core of which sleeps as soon as there is nothing to do, as the others do.
const SLEEPS: &str = "flotilla, no busy poll";
/// The servers beside ours, as their program calls them.
const PEERS: [&str; 3] = ["tokio-multi", "tokio-current", "monoio"];

/// Runs the command.
pub(crate) fn run(args: &RuntimeArgs) -> Result<()> {
    measure(args, &Interrupt::install()?)?.print(args.json)
}

/// All rounds.
pub(crate) fn measure(args: &RuntimeArgs, interrupt: &Interrupt) -> Result<Measured> {
    let from = Instant::now();
    let folder = crate::kv::folder(args.dir.as_deref())?;
    let machine = Machine::of(folder.path());
    let peers = built("echo-peers", "echo.sh");
    if let Err(missing) = &peers {
        note(&format!("without tokio and monoio: {missing}"));
    }
    let own = std::env::current_exe().map_err(BenchError::io("finding this program"))?;
    let time = args.seconds.unwrap_or_else(|| Duration::from_millis(if args.quick { 500 } else { 2000 }));
    let starter = Starter { own, peers: peers.ok(), folder: folder.path(), time, interrupt };
    let (mut figures, mut turns) = (Figures::default(), Turns::new(interrupt));
    let rounds = args.rounds.unwrap_or(if args.quick { 2 } else { 3 });
    for round in 0..usize::from(rounds) {
        note(&format!("round {}/{rounds}", round + 1));
        turns.begin(round);
        let one = turns.each(&echoes("echo_1", 1, time), starter.ways(1))?;
        let many = turns.each(&echoes("echo_64", DEPTH, time), starter.ways(DEPTH))?;
        compare(&one, &many, &mut figures);
        figures.ratio("spawn_and_await_ns", spawn_ns()?, Goal::AtMost(150.0));
        figures.ratio("timer_arm_and_cancel_ns", timer_ns(), Goal::AtMost(60.0));
        figures.ratio("idle_cpu_percent", starter.idle_percent()?, Goal::AtMost(0.5));
    }
    let cells = turns.cells();
    Ok(Measured { machine, targets: targets(&cells, about), floors: Vec::new(), figures, cells, from })
}

/// So many messages under way at once, over one connection.
fn echoes(name: &str, depth: usize, seconds: Duration) -> Load {
    let (warmup, unit) = (Duration::ZERO, Unit::Message);
    Load { set: "echo", name: name.to_owned(), unit, clients: depth, bytes: BYTES, warmup, seconds }
}

/// What a target is.
fn about(target: &str) -> TargetInfo {
    let lock = |package: &str| locked(include_str!("../peers/echo/Cargo.lock"), package);
    let (version, what) = match target {
        SUBJECT => (
            env!("CARGO_PKG_VERSION").to_owned(),
            "two cores, each a thread with a ring, which looks for more for 100 us before it sleeps, as a node's does",
        ),
        SLEEPS => (env!("CARGO_PKG_VERSION").to_owned(), "the same, but sleeping at once, as the others do"),
        "monoio" => (lock("monoio"), "one thread with a ring"),
        "tokio-multi" => (lock("tokio"), "its multi-threaded runtime"),
        _ => (lock("tokio"), "its runtime of one thread"),
    };
    TargetInfo { name: target.to_owned(), version, durability: what.to_owned(), processes: 1 }
}

/// One message after the other, and many at once: ours beside the best of the others.
fn compare(one: &BTreeMap<&'static str, Round>, many: &BTreeMap<&'static str, Round>, figures: &mut Figures) {
    type Rounds = BTreeMap<&'static str, Round>;
    let cpu = |round: &Round| round.server_cpu_s_per_100k.unwrap_or(f64::NAN);
    for (ours, how) in [(SUBJECT, ""), (SLEEPS, "_without_busy_poll")] {
        let over = |rounds: &Rounds, of: fn(&Round) -> f64, better: fn(f64, f64) -> f64| {
            let best = PEERS.iter().filter_map(|peer| rounds.get(peer)).map(of).reduce(better)?;
            Some(of(&rounds[ours]) / best)
        };
        for (name, ratio, goal) in [
            ("echo_p50_vs_best", over(one, |it| it.latency(|it| it.p50), f64::min), Goal::AtMost(1.2)),
            (
                "echo_pipelined_vs_best",
                over(many, |it| it.operations_per_second, f64::max),
                Goal::AtLeast(1.0),
            ),
            ("echo_cpu_vs_best", over(one, cpu, f64::min), Goal::AtMost(1.0)),
            ("echo_pipelined_cpu_vs_best", over(many, cpu, f64::min), Goal::AtMost(1.0)),
        ] {
            if let Some(ratio) = ratio {
                figures.ratio(&format!("{name}{how}"), ratio, goal);
            }
        }
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
    /// The other servers' program, if it was built.
    peers: Option<PathBuf>,
    folder: &'a Path,
    time: Duration,
    interrupt: &'a Interrupt,
}

impl Starter<'_> {
    /// The server of `program` that is called for by `words`: the first that it says is its address.
    fn start(&self, target: &str, program: &Path, words: &[&str]) -> Result<Server> {
        let folder = tempfile::tempdir_in(self.folder).map_err(BenchError::io("making a folder"))?;
        let mut command = dying_with_us(program.as_os_str());
        command.args(words).current_dir(folder.path());
        let mut process = Process::start(target, command, folder.path().join("log"))?;
        let line = process.await_line("127.0.0.1:", Instant::now() + PATIENCE, self.interrupt)?;
        let address = line.trim().parse();
        let address = address.map_err(|_| process.not_started(&format!("{line:?} is no address")))?;
        Ok(Server { process, address, folder })
    }

    /// Ours and the others, each started for its turn.
    fn ways(&self, depth: usize) -> Vec<Way<'_>> {
        let own = |target, words: &'static [&'static str]| {
            Way::new(target, move || self.echo_of(target, &self.own, words, depth))
        };
        let mut ways =
            vec![own(SUBJECT, &["echo-server"]), own(SLEEPS, &["echo-server", "--busy-poll-us", "0"])];
        for peer in self.peers.iter().flat_map(|program| PEERS.map(|target| (target, program))) {
            let (target, program) = peer;
            ways.push(Way::new(target, move || self.echo_of(target, program, &[target], depth)));
        }
        ways
    }

    fn echo_of(&self, target: &str, program: &Path, words: &[&str], depth: usize) -> Result<Seen> {
        load(&self.start(target, program, words)?, depth, self.time, self.interrupt)
    }

    /// A server that nobody talks to: its CPU time in percent of one CPU.
    fn idle_percent(&self) -> Result<f64> {
        let server = self.start("flotilla", &self.own, &["echo-server"])?;
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

/// `depth` messages at a time over one connection.
fn load(server: &Server, depth: usize, time: Duration, interrupt: &Interrupt) -> Result<Seen> {
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
    let (messages, seconds) = ((trips.len() * depth as u64) as f64, begun.elapsed().as_secs_f64());
    Ok(Seen {
        cpu_seconds: server.used().since(&before).servers,
        memory_bytes: peak_bytes(server.process.pid()),
        latencies: Some(trips),
        ..Seen::timed(messages, seconds)
    })
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

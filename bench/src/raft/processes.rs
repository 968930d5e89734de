//! Three nodes, each a process with a core of its own; they speak over TCP.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use flotilla_runtime::driver::{self, CoreOptions, NodeHandle, NodeOptions, PeerAddress};
use flotilla_runtime::{CoreBoot, Effect, Effects, Event, Machine, Nanos, Now};
use serde::{Deserialize, Serialize};

use super::PATIENCE;
use super::node::{Measured, NODES, Node, Plan, peer, shared};
use crate::cpu::{CpuReading, CpuUsed};
use crate::error::{BenchError, Result};
use crate::report;
use crate::target::process::Ports;
use crate::turn::Printed;

/// How often a process looks at what it has measured.
const GRAIN: Duration = Duration::from_millis(20);

/// One node of `flotilla-bench raft`: started by it, and not to be run by hand
#[derive(Clone, Debug, Args)]
pub(crate) struct NodeArgs {
    /// Its place, from 0
    #[arg(long)]
    place: usize,
    /// Where each node listens, in order
    #[arg(long, value_delimiter = ',')]
    ports: Vec<u16>,
    /// Its log
    #[arg(long)]
    folder: PathBuf,
    #[arg(long)]
    groups: u64,
    #[arg(long)]
    in_flight: usize,
    #[arg(long)]
    bytes: usize,
    #[arg(long)]
    milliseconds: u64,
}

/// A line of a node's.
#[derive(Debug, Serialize, Deserialize)]
enum Line {
    /// Every group has a leader, as far as this node knows.
    Led,
    /// The warm-up is over.
    Begun,
    /// The load is.
    Over(Printed),
}

/// One node on a core.
struct Lone(Node, bool);

impl Machine for Lone {
    type Message = ();

    fn step(&mut self, now: Now, event: Event<'_, ()>, out: &mut Effects<()>) {
        let (now, node) = (now.monotonic, &mut self.0);
        match event {
            Event::Tick => node.multi.tick(now, out),
            Event::Disk { op, result } => node.disk(now, op, &result, out),
            Event::PeerUp { peer } => node.multi.link_changed(now, peer, true),
            Event::PeerDown { peer } => node.multi.link_changed(now, peer, false),
            Event::Peer { from, frame } => {
                if let Err(reason) = node.receive(now, from.node, frame) {
                    out.push(Effect::Halt { reason });
                }
            }
            Event::Shutdown => self.1 = true,
            _ => {}
        }
    }

    fn flush(&mut self, now: Now, out: &mut Effects<()>) {
        self.0.flush(now.monotonic, out);
        if self.1 {
            out.push(Effect::Drained);
        }
    }

    fn deadline(&self) -> Option<Nanos> {
        self.0.multi.deadline()
    }
}

/// Runs one node until its parent ends it.
pub(crate) fn node(args: &NodeArgs) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|error| BenchError::io("tying this process to its parent")(error.into()))?;
    let time = Duration::from_millis(args.milliseconds);
    let plan =
        Plan { groups: args.groups, in_flight: args.in_flight, bytes: args.bytes, warmup: time / 3, time };
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let port = |port| TcpListener::bind(address(port)).map_err(BenchError::io("binding a port"));
    let mut options = NodeOptions::new(peer(args.place).node, 1, args.place as u64 + 1);
    options.seed = u64::from(std::process::id()) << 16;
    let peers = port(args.ports[args.place])?;
    options.cores.push(CoreOptions { clients: port(0)?, peers, folder: args.folder.clone() });
    let others = (0..NODES).filter(|place| *place != args.place);
    options.peers =
        others.map(|at| PeerAddress { peer: peer(at), address: address(args.ports[at]) }).collect();
    let (place, results) = (args.place, shared(true));
    let seen = results.clone();
    std::thread::spawn(move || tell(&seen, plan));
    let build = move |boot: CoreBoot| {
        let now = boot.now.monotonic;
        let node = Node::new(place, plan, boot.pool, boot.files, boot.seed, now, results.clone());
        node.map(|node| Lone(node, false))
    };
    driver::run(options, build, NodeHandle::new(), || {}).map_err(|error| BenchError::Failed {
        scenario: "raft".to_owned(),
        target: format!("node {place}"),
        reason: error.to_string(),
    })
}

/// Tells the parent what happens, on standard output.
fn tell(seen: &Mutex<Measured>, plan: Plan) {
    let say = |line: &Line| {
        // A parent that has gone takes this process with it.
        let _ = report::print(&(serde_json::to_string(line).unwrap_or_default() + "\n"));
    };
    let (mut led, mut begun) = (false, false);
    loop {
        std::thread::sleep(GRAIN);
        let measured = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !led && measured.led == plan.groups {
            led = true;
            say(&Line::Led);
        }
        if !begun && measured.has_begun {
            begun = true;
            say(&Line::Begun);
        }
        if measured.is_over {
            let (seconds, all) = (measured.nanos as f64 / 1e9, measured.latencies.as_ref());
            let printed = Printed::new(measured.commits, seconds, all, CpuUsed::NONE, &[]);
            return say(&Line::Over(printed));
        }
    }
}

/// The processes, and what they say. Dropped, they are killed.
struct Running {
    children: Vec<Child>,
    lines: Receiver<Line>,
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Failing means that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Running {
    fn start(folder: &Path, plan: Plan) -> Result<Self> {
        let own = std::env::current_exe().map_err(BenchError::io("finding this program"))?;
        let mut ports = Ports::new();
        let ports = (0..NODES).map(|_| ports.take(1)).collect::<Result<Vec<u16>>>()?;
        let (sender, lines) = channel();
        let mut running = Self { children: Vec::new(), lines };
        for place in 0..NODES {
            let log = folder.join(format!("node-{place}"));
            std::fs::create_dir_all(&log).map_err(BenchError::io("making a folder for a log"))?;
            let all: Vec<String> = ports.iter().map(u16::to_string).collect();
            let mut command = Command::new(&own);
            command.args(["raft-node", "--place", &place.to_string(), "--ports", &all.join(",")]);
            command.arg("--folder").arg(log).args(["--groups", &plan.groups.to_string()]);
            command.args(["--in-flight", &plan.in_flight.to_string(), "--bytes", &plan.bytes.to_string()]);
            command.args(["--milliseconds", &plan.time.as_millis().to_string()]);
            command.stdin(Stdio::null()).stdout(Stdio::piped());
            let mut child = command.spawn().map_err(BenchError::io("starting a node"))?;
            if let Some(output) = child.stdout.take() {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    for line in BufReader::new(output).lines().map_while(std::io::Result::ok) {
                        // Nobody listens any more: the load is over.
                        let _ = serde_json::from_str(&line).map(|line| sender.send(line));
                    }
                });
            }
            running.children.push(child);
        }
        Ok(running)
    }

    fn pids(&self) -> Vec<u32> {
        self.children.iter().map(Child::id).collect()
    }

    /// The next line.
    fn next(&self, name: &str) -> Result<Line> {
        self.lines.recv_timeout(PATIENCE).map_err(|_| BenchError::Failed {
            scenario: name.to_owned(),
            target: "three processes".to_owned(),
            reason: "they fell silent".to_owned(),
        })
    }
}

/// Runs a plan whose groups have one leader.
pub(super) fn run(folder: &Path, name: &str, plan: Plan) -> Result<Printed> {
    let logs = tempfile::tempdir_in(folder).map_err(BenchError::io("making a folder for logs"))?;
    let running = Running::start(logs.path(), plan)?;
    let mut before = CpuReading::take(&running.pids());
    loop {
        match running.next(name)? {
            Line::Led => {}
            Line::Begun => before = CpuReading::take(&running.pids()),
            Line::Over(printed) => {
                let used = CpuReading::take(&running.pids()).since(&before);
                return Ok(printed.with_usage(used, &running.pids()));
            }
        }
    }
}

/// The share of a core that the busiest of three nodes uses while so many groups have nothing to do.
pub(super) fn idle_share(folder: &Path, groups: u64, settle: Duration, time: Duration) -> Result<f64> {
    let name = "idle groups";
    let logs = tempfile::tempdir_in(folder).map_err(BenchError::io("making a folder for logs"))?;
    let plan = Plan { groups, in_flight: 0, bytes: 0, warmup: time, time };
    let running = Running::start(logs.path(), plan)?;
    for _ in 0..NODES {
        while !matches!(running.next(name)?, Line::Led) {}
    }
    std::thread::sleep(settle);
    let each: Vec<_> = running.pids().into_iter().map(|pid| (pid, CpuReading::take(&[pid]))).collect();
    let from = Instant::now();
    std::thread::sleep(time);
    let seconds = from.elapsed().as_secs_f64();
    let shares = each.iter().map(|(pid, before)| {
        let used = CpuReading::take(&[*pid]).since(before).servers;
        used.unwrap_or(f64::NAN) / seconds
    });
    Ok(shares.fold(0.0, f64::max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_survives_its_bytes() {
        let line = Line::Over(Printed::new(2, 1.0, None, CpuUsed::NONE, &[]));
        let text = serde_json::to_string(&line).unwrap();
        assert!(matches!(serde_json::from_str(&text).unwrap(), Line::Over(Printed { operations: 2, .. })));
    }
}

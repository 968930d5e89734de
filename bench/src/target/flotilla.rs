//! A local Flotilla cluster: every node a process, every core a port.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use super::process::{Ports, Process, find};
use super::{Driver, Target};
use crate::engine::slots::{SlotMap, resolve};
use crate::error::{BenchError, Result};
use crate::interrupt::Interrupt;

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// The `flotilla` program, or none for the one beside this program.
    pub(crate) program: Option<PathBuf>,
    /// Nodes, each a process.
    pub(crate) nodes: u16,
    /// Cores of each node.
    pub(crate) cores: u16,
    /// Raft groups.
    pub(crate) groups: u16,
    /// MapReduce workers that each node keeps.
    pub(crate) workers: u32,
}

/// How long a cluster may take from start to serving.
const START_MAX: Duration = Duration::from_secs(30);

/// `flotilla.toml`
#[derive(Serialize)]
struct Config<'a> {
    cluster: &'a str,
    node: u16,
    data: PathBuf,
    groups: u16,
    mapreduce: Workers,
    nodes: &'a [Node],
}

#[derive(Serialize)]
struct Workers {
    workers: u32,
}

#[derive(Clone, Serialize)]
struct Node {
    id: u16,
    host: &'static str,
    port: u16,
    peer_port: u16,
    cores: u16,
}

/// Started, perhaps not serving yet.
pub(crate) struct Starting {
    processes: Vec<Process>,
    addresses: Vec<String>,
    version: String,
    shape: Shape,
    program: PathBuf,
    folder: PathBuf,
}

/// Starts the nodes in `folder`.
pub(crate) fn start(shape: &Shape, folder: &Path, ports: &mut Ports) -> Result<Starting> {
    let program = program(shape.program.as_deref())?;
    let nodes = (1..=shape.nodes)
        .map(|id| {
            let port = ports.take(shape.cores)?;
            let peer_port = ports.take(shape.cores)?;
            Ok(Node { id, host: "127.0.0.1", port, peer_port, cores: shape.cores })
        })
        .collect::<Result<Vec<_>>>()?;
    let mut processes = Vec::new();
    for node in &nodes {
        let data = folder.join(format!("node-{}", node.id));
        std::fs::create_dir_all(&data).map_err(BenchError::io(format!("creating {}", data.display())))?;
        let config = Config {
            cluster: "bench",
            node: node.id,
            data,
            groups: shape.groups,
            mapreduce: Workers { workers: shape.workers },
            nodes: &nodes,
        };
        let file = folder.join(format!("node-{}.toml", node.id));
        let text = toml::to_string(&config).map_err(|error| {
            BenchError::Usage(format!("the data folder's path can't be written as TOML: {error}"))
        })?;
        std::fs::write(&file, text).map_err(BenchError::io(format!("writing {}", file.display())))?;
        processes.push(serve(&program, folder, node.id)?);
    }
    let addresses = nodes.iter().map(|node| format!("{}:{}", node.host, node.port)).collect();
    let (version, shape, folder) = (version(&program), shape.clone(), folder.to_owned());
    Ok(Starting { processes, addresses, version, shape, program, folder })
}

/// Starts the node whose configuration lies in `folder`.
fn serve(program: &Path, folder: &Path, id: u16) -> Result<Process> {
    let mut command = Command::new(program);
    command.arg("serve").arg("--config").arg(folder.join(format!("node-{id}.toml"))).arg("--die-with-parent");
    let log = folder.join(format!("node-{id}.log"));
    Process::start(&format!("flotilla node {id}"), command, log)
}

impl Starting {
    /// Where clients reach each node.
    pub(crate) fn addresses(&self) -> Result<Vec<SocketAddr>> {
        self.addresses.iter().map(|address| resolve(address)).collect()
    }

    /// Ends the node at `place` with SIGKILL.
    pub(crate) fn kill(&mut self, place: usize) {
        self.processes[place].kill();
    }

    /// Sends a signal to the node at `place`.
    pub(crate) fn signal(&self, place: usize, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.processes[place].pid()).ok().and_then(Pid::from_raw);
        let sent = pid.map_or(Err(rustix::io::Errno::SRCH), |pid| kill_process(pid, signal));
        sent.map_err(|error| BenchError::io("signalling a node")(error.into()))
    }

    /// Starts it again, and waits until it serves.
    pub(crate) fn restart(&mut self, place: usize, interrupt: &Interrupt) -> Result<()> {
        let id = u16::try_from(place + 1).expect("few nodes");
        self.processes[place] = serve(&self.program, &self.folder, id)?;
        self.processes[place].await_line("ready", Instant::now() + START_MAX, interrupt).map(drop)
    }

    /// Waits until every node serves.
    pub(crate) fn serving(&mut self, interrupt: &Interrupt) -> Result<()> {
        let until = Instant::now() + START_MAX;
        let mut processes = self.processes.iter_mut();
        processes.try_for_each(|process| process.await_line("ready", until, interrupt).map(drop))
    }

    /// Waits until every slot has a leader and a write succeeds.
    pub(crate) fn ready(mut self, interrupt: &Interrupt) -> Result<Target> {
        self.serving(interrupt)?;
        let until = Instant::now() + START_MAX;
        let map = loop {
            interrupt.check()?;
            for process in &mut self.processes {
                process.check()?;
            }
            let missing = match SlotMap::discover(&self.addresses, false) {
                Ok(map) if map.plain => "it doesn't know CLUSTER SLOTS".to_owned(),
                Ok(map) if !map.is_complete() => "CLUSTER SLOTS still has slots without a leader".to_owned(),
                Ok(map) => match map.probe() {
                    Ok(()) => break map,
                    Err(reason) => reason,
                },
                Err(error) => error.to_string(),
            };
            if Instant::now() >= until {
                let reason = format!("after {} s {missing}", START_MAX.as_secs());
                return Err(self.processes.first().map_or_else(
                    || BenchError::NotStarted { server: "flotilla".to_owned(), reason: reason.clone() },
                    |process| process.not_started(&reason),
                ));
            }
            interrupt.sleep_until(Instant::now() + Duration::from_millis(20))?;
        };
        let nodes = self.shape.nodes;
        Ok(Target {
            name: "flotilla".to_owned(),
            is_subject: true,
            version: self.version,
            durability: format!("replicated to a majority of {nodes} nodes, synced before the reply"),
            pids: self.processes.iter().map(Process::pid).collect(),
            driver: Driver::Resp(map),
            processes: self.processes,
        })
    }
}

/// The `flotilla` program: the one that was given, or the one beside this.
///
/// # Errors
/// [`BenchError::Missing`].
pub(crate) fn program(given: Option<&Path>) -> Result<PathBuf> {
    let missing = |program: String, hint: &str| BenchError::Missing { program, hint: hint.to_owned() };
    if let Some(path) = given {
        return find(path).ok_or_else(|| missing(path.display().to_string(), " (from --flotilla)"));
    }
    let own = std::env::current_exe().map_err(BenchError::io("finding this program's own path"))?;
    let beside = own.with_file_name("flotilla");
    if beside.is_file() {
        return Ok(beside);
    }
    let hint =
        "; build it with `cargo build --release`, name it with --flotilla, or leave it out with --spawn 0";
    Err(missing(beside.display().to_string(), hint))
}

fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output();
    output
        .ok()
        .and_then(|output| {
            String::from_utf8_lossy(&output.stdout).split_whitespace().last().map(str::to_owned)
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_toml() {
        let nodes = [Node { id: 1, host: "127.0.0.1", port: 7101, peer_port: 17101, cores: 1 }];
        let config = Config {
            cluster: "bench",
            node: 1,
            data: "/a \"b\"/node-1".into(),
            groups: 1,
            mapreduce: Workers { workers: 2 },
            nodes: &nodes,
        };
        let text = toml::to_string(&config).unwrap();
        let value: toml::Table = text.parse().unwrap();
        assert_eq!(value["data"].as_str(), Some("/a \"b\"/node-1"));
        assert_eq!(value["nodes"][0]["peer_port"].as_integer(), Some(17101));
        assert!(text.contains("[[nodes]]"));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = program(Some(Path::new("/no/flotilla"))).unwrap_err();
        assert_eq!(error.to_string(), "no /no/flotilla found (from --flotilla)");
    }
}

//! The systems people use today, started with the flags of `bench/peers/*.sh`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use super::built::built;
use super::process::{Ports, Process, dying_with_us, find};
use super::{Driver, Target};
use crate::engine::slots::{SlotMap, ask};
use crate::error::{BenchError, Result};
use crate::etcd;
use crate::interrupt::Interrupt;
use crate::report::note;
use crate::resp::Reply;
use crate::zookeeper;

const ETCD: &str = include_str!("../../peers/etcd.sh");
const REDIS: &str = include_str!("../../peers/redis.sh");
const ZOOKEEPER: &str = include_str!("../../peers/zookeeper.sh");
/// What the script starts, and Debian's package brings.
const ZOOKEEPER_JAR: &str = "/usr/share/java/zookeeper.jar";
const NAIVE_NODES: u16 = 3;
const ETCD_MEMBERS: u16 = 3;
const ZOOKEEPER_MEMBERS: u16 = 3;
/// Of Redis, where it has any.
const REPLICAS: u16 = 2;
/// Replicas that make a majority with the primary.
const AWAITED: usize = 1;
/// How long a peer may take from start to serving. etcd's first election can take two election timeouts; ZooKeeper's
/// members are Java, three at once.
const START_MAX: Duration = Duration::from_secs(60);

/// A system to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// Three members, fsync on
    Etcd,
    /// Three members, fsync on; reads may be stale
    #[value(name = "zookeeper")]
    ZooKeeper,
    /// One server, append-only file with fsync always
    Redis,
    /// One server without persistence
    RedisNone,
    /// One server, append-only file with a sync every second
    RedisEverysec,
    /// A server and two replicas, each with fsync always; a write is done when `WAIT 1` is answered
    RedisWait,
    /// Three nodes of the labs' design as their handout suggests it (bench/naive). Slow: give few --keys
    Naive,
}

impl Peer {
    /// Its name in results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ZooKeeper => "zookeeper",
            Self::Redis => "redis",
            Self::RedisNone => "redis-none",
            Self::RedisEverysec => "redis-everysec",
            Self::RedisWait => "redis-wait",
            Self::Naive => "naive",
        }
    }

    /// The script that installs it, as a file name and as text; none for what is built.
    pub(crate) fn script(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Etcd => Some(("etcd.sh", ETCD)),
            Self::ZooKeeper => Some(("zookeeper.sh", ZOOKEEPER)),
            Self::Redis | Self::RedisNone | Self::RedisEverysec | Self::RedisWait => {
                Some(("redis.sh", REDIS))
            }
            Self::Naive => None,
        }
    }

    /// What a reply to a write promises.
    pub(crate) fn durability(self) -> &'static str {
        match self {
            Self::Etcd => "replicated to a majority of 3 members, fsync before the reply",
            Self::ZooKeeper => {
                "replicated to a majority of 3 members, fsync before the reply; a read is answered by the member that the \
                 client talks to, and may be stale"
            }
            Self::Naive => {
                "replicated to a majority of 3 nodes, whose whole state is written and synced before the reply"
            }
            Self::Redis => "one server, not replicated, fsync before the reply",
            Self::RedisNone => "none",
            Self::RedisEverysec => {
                "one server, not replicated, fsync once a second: a crash loses up to about a second"
            }
            Self::RedisWait => {
                "fsync on the primary before the reply, and on one of 2 replicas before WAIT is answered, as Redis 7.0 works \
                 but doesn't promise; a failover can lose it"
            }
        }
    }

    /// Servers of it.
    pub(crate) fn nodes(self) -> u16 {
        match self {
            Self::Etcd => ETCD_MEMBERS,
            Self::ZooKeeper => ZOOKEEPER_MEMBERS,
            Self::RedisWait => 1 + REPLICAS,
            Self::Naive => NAIVE_NODES,
            _ => 1,
        }
    }

    /// The largest value it takes, in bytes, where that is less than the load generator makes.
    pub(crate) fn value_bytes_max(self) -> usize {
        match self {
            Self::ZooKeeper => zookeeper::VALUE_BYTES_MAX,
            _ => usize::MAX,
        }
    }

    /// An error that says how to install it, if it isn't.
    pub(crate) fn installed(self) -> Result<()> {
        let (programs, script): (&[&str], _) = match self {
            Self::Naive => return naive_program().map(drop),
            Self::Etcd => (&["etcd"], "bench/peers/etcd.sh"),
            Self::ZooKeeper => (&["java", ZOOKEEPER_JAR], "bench/peers/zookeeper.sh"),
            _ => (&["redis-server"], "bench/peers/redis.sh"),
        };
        let Some(missing) = programs.iter().find(|program| find(Path::new(program)).is_none()) else {
            return Ok(());
        };
        let place = if missing.contains('/') { "" } else { " in PATH" };
        Err(BenchError::Missing {
            program: (*missing).to_owned(),
            hint: format!("{place}; install it with `{script} install`"),
        })
    }
}

/// Started, perhaps not serving yet.
pub(crate) struct Starting {
    peer: Peer,
    processes: Vec<Process>,
    addresses: Vec<String>,
    connections_max: usize,
}

/// Starts those of `peers` that are installed; who isn't is told, and left out.
pub(crate) fn start_installed(
    peers: Vec<Peer>,
    folder: &Path,
    ports: &mut Ports,
    connections_max: usize,
) -> Result<Vec<Starting>> {
    let mut starting = Vec::new();
    for peer in peers {
        match peer.installed() {
            Ok(()) => starting.push(start(peer, folder, ports, connections_max)?),
            Err(missing) => note(&format!("without {}: {missing}", peer.name())),
        }
    }
    Ok(starting)
}

/// Starts `peer` in `folder`. `connections_max` is how many connections a load on etcd opens.
fn start(peer: Peer, folder: &Path, ports: &mut Ports, connections_max: usize) -> Result<Starting> {
    let folder = folder.join(peer.name());
    std::fs::create_dir_all(&folder).map_err(BenchError::io(format!("creating {}", folder.display())))?;
    let (mut processes, mut addresses) = (Vec::new(), Vec::new());
    match peer {
        Peer::Etcd => {
            let members: Vec<(String, u16, u16)> = (1..=ETCD_MEMBERS)
                .map(|id| Ok((format!("etcd-{id}"), ports.take(1)?, ports.take(1)?)))
                .collect::<Result<_>>()?;
            let urls = members.iter().map(|(name, _, port)| format!("{name}=http://127.0.0.1:{port}"));
            let cluster = urls.collect::<Vec<_>>().join(",");
            for (name, client_port, peer_port) in &members {
                let (client_port, peer_port) = (client_port.to_string(), peer_port.to_string());
                let data = folder.join(name);
                let arguments: [&OsStr; 5] = [
                    name.as_ref(),
                    data.as_ref(),
                    client_port.as_ref(),
                    peer_port.as_ref(),
                    cluster.as_ref(),
                ];
                let command = script("etcd.sh", ETCD, &arguments);
                processes.push(Process::start(name, command, folder.join(format!("{name}.log")))?);
                addresses.push(format!("127.0.0.1:{client_port}"));
            }
        }
        Peer::ZooKeeper => {
            let ports: Vec<u16> = (0..ZOOKEEPER_MEMBERS).map(|_| ports.take(3)).collect::<Result<_>>()?;
            let servers = ports.iter().map(|port| format!("127.0.0.1:{}:{}", port + 1, port + 2));
            let servers = servers.collect::<Vec<_>>().join(",");
            for (id, port) in (1..).zip(&ports) {
                let (name, number, port) = (format!("zookeeper-{id}"), id.to_string(), port.to_string());
                let data = folder.join(&name);
                let arguments: [&OsStr; 4] =
                    [number.as_ref(), data.as_ref(), port.as_ref(), servers.as_ref()];
                let command = script("zookeeper.sh", ZOOKEEPER, &arguments);
                processes.push(Process::start(&name, command, folder.join(format!("{name}.log")))?);
                addresses.push(format!("127.0.0.1:{port}"));
            }
        }
        Peer::Naive => {
            let program = naive_program()?;
            let ports: Vec<(u16, u16)> =
                (0..NAIVE_NODES).map(|_| Ok((ports.take(1)?, ports.take(1)?))).collect::<Result<_>>()?;
            let peer_ports = ports.iter().map(|(_, port)| port.to_string()).collect::<Vec<_>>().join(",");
            for (id, (client_port, _)) in ports.iter().enumerate() {
                let name = format!("naive-{id}");
                let mut command = dying_with_us(program.as_os_str());
                command.arg(id.to_string()).arg(folder.join(&name));
                command.args([&client_port.to_string(), &peer_ports]);
                processes.push(Process::start(&name, command, folder.join(format!("{name}.log")))?);
                addresses.push(format!("127.0.0.1:{client_port}"));
            }
        }
        Peer::Redis | Peer::RedisNone | Peer::RedisEverysec | Peer::RedisWait => {
            let durability = match peer {
                Peer::RedisNone => "none",
                Peer::RedisEverysec => "everysec",
                _ => "always",
            };
            let mut primary = None;
            for number in 0..peer.nodes() {
                let port = ports.take(1)?.to_string();
                let data = folder.join(number.to_string());
                std::fs::create_dir_all(&data)
                    .map_err(BenchError::io(format!("creating {}", data.display())))?;
                let mut arguments: Vec<&OsStr> = vec![data.as_ref(), port.as_ref(), durability.as_ref()];
                arguments.extend(primary.as_deref().map(OsStr::new));
                let log: PathBuf = folder.join(format!("redis-{number}.log"));
                let name = format!("{} {number}", peer.name());
                processes.push(Process::start(&name, script("redis.sh", REDIS, &arguments), log)?);
                // Clients talk to the primary alone.
                if primary.is_none() {
                    addresses.push(format!("127.0.0.1:{port}"));
                    primary = Some(port);
                }
            }
        }
    }
    Ok(Starting { peer, processes, addresses, connections_max })
}

fn naive_program() -> Result<PathBuf> {
    built("naive-kv", "naive.sh")
}

/// `sh -c SCRIPT NAME start ARGUMENTS…`: the script ends in `exec`, so the process is the server itself.
fn script(name: &str, text: &str, arguments: &[&OsStr]) -> Command {
    let mut command = dying_with_us(OsStr::new("sh"));
    command.args(["-c", text, name, "start"]).args(arguments);
    command
}

impl Starting {
    /// Waits until it serves.
    pub(crate) fn ready(mut self, interrupt: &Interrupt) -> Result<Target> {
        let until = Instant::now() + START_MAX;
        let (driver, version) = loop {
            interrupt.check()?;
            for process in &mut self.processes {
                process.check()?;
            }
            if let Some(driver) = self.probe()? {
                break driver;
            }
            if Instant::now() >= until {
                return Err(self.processes[0]
                    .not_started(&format!("it doesn't serve after {} s", START_MAX.as_secs())));
            }
            interrupt.sleep_until(Instant::now() + Duration::from_millis(20))?;
        };
        Ok(Target {
            name: self.peer.name().to_owned(),
            is_subject: false,
            version,
            durability: self.peer.durability().to_owned(),
            pids: self.processes.iter().map(Process::pid).collect(),
            driver,
            processes: self.processes,
        })
    }

    fn probe(&self) -> Result<Option<(Driver, String)>> {
        if self.peer == Peer::Etcd {
            let cluster = etcd::find_leader(&self.addresses, self.connections_max)?;
            return Ok(cluster.map(|cluster| {
                let version = cluster.version.clone();
                (Driver::Etcd(cluster), version)
            }));
        }
        if self.peer == Peer::ZooKeeper {
            let ensemble = zookeeper::find(&self.addresses)?;
            return Ok(ensemble.map(|ensemble| {
                let version = ensemble.version.clone();
                (Driver::ZooKeeper(ensemble), version)
            }));
        }
        let found = match self.peer {
            // Only the one that leads takes a write.
            Peer::Naive => {
                let each = self.addresses.iter().map(std::slice::from_ref);
                each.filter_map(|address| SlotMap::discover(address, true).ok())
                    .find(|map| map.probe().is_ok())
            }
            _ => SlotMap::discover(&self.addresses, true).ok(),
        };
        let Some(mut map) = found else { return Ok(None) };
        if self.peer == Peer::RedisWait {
            map.wait = AWAITED;
            // Both are to be there.
            let wait: [&[u8]; 3] = [b"WAIT", b"2", b"100"];
            let synced = |reply: &Reply<'_>| *reply == Reply::Integer(i64::from(REPLICAS));
            if !matches!(ask(map.route().nodes[0], &wait, synced), Ok(true)) {
                return Ok(None);
            }
        }
        let version = ask(map.route().nodes[0], &[b"INFO", b"server"], |reply| match reply {
            Reply::Bulk(Some(text)) => String::from_utf8_lossy(text)
                .lines()
                .find_map(|line| line.strip_prefix("redis_version:"))
                .map(str::to_owned),
            _ => None,
        });
        Ok(Some((Driver::Resp(map), version.ok().flatten().unwrap_or_default())))
    }
}

//! The systems people use today, started with the flags of `bench/peers/*.sh`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use super::process::{Ports, Process, dying_with_us, find};
use super::{Driver, Target};
use crate::engine::slots::{SlotMap, ask};
use crate::error::{BenchError, Result};
use crate::etcd;
use crate::interrupt::Interrupt;
use crate::resp::Reply;

const ETCD: &str = include_str!("../../peers/etcd.sh");
const REDIS: &str = include_str!("../../peers/redis.sh");
const ETCD_MEMBERS: u16 = 3;
/// How long a peer may take from start to serving. etcd's first election can take two election timeouts.
const START_MAX: Duration = Duration::from_secs(30);

/// A system to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// Three members, fsync on
    Etcd,
    /// One server, append-only file with fsync always
    Redis,
    /// One server without persistence
    RedisNone,
}

impl Peer {
    /// Its name in results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Redis => "redis",
            Self::RedisNone => "redis-none",
        }
    }

    /// An error that says how to install it, if it isn't.
    pub(crate) fn installed(self) -> Result<()> {
        let (program, script) = match self {
            Self::Etcd => ("etcd", "bench/peers/etcd.sh"),
            Self::Redis | Self::RedisNone => ("redis-server", "bench/peers/redis.sh"),
        };
        match find(Path::new(program)) {
            Some(_) => Ok(()),
            None => Err(BenchError::Missing {
                program: program.to_owned(),
                hint: format!(" in PATH; install it with `{script} install`"),
            }),
        }
    }
}

/// Started, perhaps not serving yet.
pub(crate) struct Starting {
    peer: Peer,
    processes: Vec<Process>,
    addresses: Vec<String>,
    connections_max: usize,
}

/// Starts `peer` in `folder`. `connections_max` is how many connections a load on etcd opens.
pub(crate) fn start(
    peer: Peer,
    folder: &Path,
    ports: &mut Ports,
    connections_max: usize,
) -> Result<Starting> {
    peer.installed()?;
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
        Peer::Redis | Peer::RedisNone => {
            let port = ports.take(1)?.to_string();
            let durability = if peer == Peer::Redis { "always" } else { "none" };
            let arguments: [&OsStr; 3] = [folder.as_ref(), port.as_ref(), durability.as_ref()];
            let log: PathBuf = folder.join("redis.log");
            processes.push(Process::start(peer.name(), script("redis.sh", REDIS, &arguments), log)?);
            addresses.push(format!("127.0.0.1:{port}"));
        }
    }
    Ok(Starting { peer, processes, addresses, connections_max })
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
                return Err(self.processes[0].not_started("it doesn't serve after 30 s"));
            }
            interrupt.sleep_until(Instant::now() + Duration::from_millis(20))?;
        };
        let durability = match self.peer {
            Peer::Etcd => "replicated to a majority of 3 members, fsync before the reply",
            Peer::Redis => "one server, not replicated, fsync before the reply",
            Peer::RedisNone => "none",
        };
        Ok(Target {
            name: self.peer.name().to_owned(),
            is_subject: false,
            version,
            durability: durability.to_owned(),
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
        let Ok(map) = SlotMap::discover(&self.addresses, true) else { return Ok(None) };
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

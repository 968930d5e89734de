//! Which node leads which slot, as the cluster itself says, and what a `MOVED` changes in it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use flotilla_services::slot::{self, Slot};

use crate::error::{BenchError, Result};
use crate::login;
use crate::resp::{self, Reply};

/// Slots of a Redis cluster.
pub(crate) const SLOTS: usize = slot::SLOTS as usize;
/// No node is known for this slot: ask the first.
const UNKNOWN: u16 = u16::MAX;
/// Connecting, and each read of a question's answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// A copy of the map that a thread routes by.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// Nodes by their index. Indices never change meaning.
    pub(crate) nodes: Vec<SocketAddr>,
    slots: Vec<u16>,
    /// All slots are with this node: no need to hash.
    only: Option<usize>,
    version: u64,
}

impl Route {
    /// The index of the node that leads `key`.
    pub(crate) fn node_of(&self, key: &[u8]) -> usize {
        match self.only {
            Some(node) => node,
            None => match self.slots[usize::from(Slot::of_key(key).0)] {
                UNKNOWN => 0,
                node => usize::from(node),
            },
        }
    }

    fn settle(&mut self) {
        let first = self.slots[0];
        self.only =
            (first != UNKNOWN && self.slots.iter().all(|&node| node == first)).then_some(first.into());
        self.version += 1;
    }

    fn index(&mut self, address: SocketAddr) -> u16 {
        let index = self.nodes.iter().position(|&node| node == address).unwrap_or_else(|| {
            self.nodes.push(address);
            self.nodes.len() - 1
        });
        index as u16
    }
}

/// The map all threads share; they look at its version, which costs nothing, and copy it when it changed.
#[derive(Debug)]
pub(crate) struct SlotMap {
    route: Mutex<Route>,
    version: AtomicU64,
    /// A single server that knows no cluster.
    pub(crate) plain: bool,
    /// Replicas that every write waits for, with `WAIT`; 0 doesn't ask.
    pub(crate) wait: usize,
}

impl SlotMap {
    /// Asks the first address that answers; `plain` doesn't ask for a cluster.
    pub(crate) fn discover(addresses: &[String], plain: bool) -> Result<Self> {
        let mut failure = BenchError::Usage("no address".to_owned());
        for address in addresses {
            match Self::learn(address, plain) {
                Ok(map) => return Ok(map),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn learn(address: &str, plain: bool) -> Result<Self> {
        let socket = resolve(address)?;
        let mut route = Route { nodes: vec![socket], slots: vec![0; SLOTS], only: Some(0), version: 0 };
        let unreachable = |reason: String| BenchError::Unreachable { address: address.to_owned(), reason };
        if plain {
            return match ask(socket, &[b"PING"], |_| ()) {
                Ok(()) => Ok(Self::new(route, true)),
                Err(reason) => Err(unreachable(reason)),
            };
        }
        match ask(socket, &[b"CLUSTER", b"SLOTS"], |reply| ranges(reply, socket)).map_err(unreachable)? {
            Ranges::NoCluster => Ok(Self::new(route, true)),
            Ranges::Of(ranges) => {
                fill(&mut route, &ranges);
                Ok(Self::new(route, false))
            }
            Ranges::Refused(reason) => Err(unreachable(reason)),
        }
    }

    fn new(route: Route, plain: bool) -> Self {
        Self { version: AtomicU64::new(route.version), route: Mutex::new(route), plain, wait: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, Route> {
        // Every change leaves the map whole, so a panic elsewhere doesn't matter here.
        self.route.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy, with all that is known now.
    pub(crate) fn route(&self) -> Route {
        self.lock().clone()
    }

    /// Whether a copy is out of date.
    pub(crate) fn is_newer_than(&self, route: &Route) -> bool {
        self.version.load(Ordering::Acquire) != route.version
    }

    /// Whether every slot has a leader.
    pub(crate) fn is_complete(&self) -> bool {
        self.lock().slots.iter().all(|&node| node != UNKNOWN)
    }

    /// A node said where a slot is.
    pub(crate) fn moved(&self, slot: usize, address: SocketAddr) {
        let mut route = self.lock();
        let node = route.index(address);
        if slot < SLOTS && route.slots[slot] != node {
            route.slots[slot] = node;
            route.settle();
            self.version.store(route.version, Ordering::Release);
        }
    }

    /// Tries whether a write succeeds, or says why it doesn't.
    pub(crate) fn probe(&self) -> Result<(), String> {
        let (route, key) = (self.route(), b"flotilla-bench:probe");
        ask(route.nodes[route.node_of(key)], &[b"SET", key, b"1"], |reply| match reply {
            Reply::Simple(b"OK") => Ok(()),
            Reply::Error(text) => Err(format!("SET fails: {}", String::from_utf8_lossy(text))),
            other => Err(format!("SET answers {other:?}")),
        })?
    }

    /// Asks the cluster again: the first node that answers wins; if none does, nothing changes.
    pub(crate) fn refresh(&self) {
        for node in self.route().nodes {
            if let Ok(Ranges::Of(ranges)) = ask(node, &[b"CLUSTER", b"SLOTS"], |reply| ranges(reply, node)) {
                let mut route = self.lock();
                fill(&mut route, &ranges);
                self.version.store(route.version, Ordering::Release);
                return;
            }
        }
    }
}

struct Range {
    first: usize,
    last: usize,
    leader: SocketAddr,
}

enum Ranges {
    Of(Vec<Range>),
    NoCluster,
    Refused(String),
}

fn fill(route: &mut Route, ranges: &[Range]) {
    route.slots.fill(UNKNOWN);
    for range in ranges {
        let node = route.index(range.leader);
        route.slots[range.first..=range.last].fill(node);
    }
    route.settle();
}

/// Reads the reply to `CLUSTER SLOTS`: [first, last, [host, port, …] leader, replicas…] for each range.
fn ranges(reply: &Reply<'_>, asked: SocketAddr) -> Ranges {
    match reply {
        Reply::Array(Some(items)) => match items.iter().map(|item| range(item, asked)).collect() {
            Some(ranges) => Ranges::Of(ranges),
            None => Ranges::Refused("an unintelligible answer to CLUSTER SLOTS".to_owned()),
        },
        Reply::Error(text) => {
            let text = String::from_utf8_lossy(text);
            if text.contains("cluster support disabled") || text.starts_with("ERR unknown command") {
                Ranges::NoCluster
            } else {
                Ranges::Refused(text.into_owned())
            }
        }
        _ => Ranges::Refused("an unintelligible answer to CLUSTER SLOTS".to_owned()),
    }
}

fn range(item: &Reply<'_>, asked: SocketAddr) -> Option<Range> {
    let Reply::Array(Some(parts)) = item else { return None };
    let [Reply::Integer(first), Reply::Integer(last), Reply::Array(Some(leader)), ..] = parts.as_slice()
    else {
        return None;
    };
    let [host, Reply::Integer(port), ..] = leader.as_slice() else { return None };
    let host = match host {
        Reply::Bulk(Some(host)) => std::str::from_utf8(host).ok()?,
        // Redis 7: the host that was asked.
        Reply::Bulk(None) => "",
        _ => return None,
    };
    let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
    if first > last || last >= SLOTS {
        return None;
    }
    Some(Range { first, last, leader: at(host, u16::try_from(*port).ok()?, asked)? })
}

/// Reads `MOVED slot host:port`.
pub(crate) fn parse_moved(text: &[u8], asked: SocketAddr) -> Option<(usize, SocketAddr)> {
    let mut words = std::str::from_utf8(text).ok()?.split(' ');
    let (Some("MOVED"), Some(slot), Some(address)) = (words.next(), words.next(), words.next()) else {
        return None;
    };
    let (host, port) = address.rsplit_once(':')?;
    Some((slot.parse().ok()?, at(host, port.parse().ok()?, asked)?))
}

/// An empty host means the one that was asked.
fn at(host: &str, port: u16, asked: SocketAddr) -> Option<SocketAddr> {
    if host.is_empty() {
        return Some(SocketAddr::new(asked.ip(), port));
    }
    (host, port).to_socket_addrs().ok()?.next()
}

/// An address as a user writes it.
pub(crate) fn resolve(address: &str) -> Result<SocketAddr> {
    let found = address.to_socket_addrs().map_err(|error| BenchError::Unreachable {
        address: address.to_owned(),
        reason: format!("{error} (an address is HOST:PORT)"),
    })?;
    found.into_iter().next().ok_or_else(|| BenchError::Unreachable {
        address: address.to_owned(),
        reason: "the name has no address".to_owned(),
    })
}

/// One question to one server, on a connection of its own.
pub(crate) fn ask<T>(
    address: SocketAddr,
    words: &[&[u8]],
    read: impl FnOnce(&Reply<'_>) -> T,
) -> Result<T, String> {
    let mut request = login::greeting().to_vec();
    let mut greets = !request.is_empty();
    resp::encode(&mut request, words);
    let mut receive = || -> std::io::Result<Result<Vec<u8>, String>> {
        let mut socket = TcpStream::connect_timeout(&address, ANSWER_MAX)?;
        socket.set_read_timeout(Some(ANSWER_MAX))?;
        socket.write_all(&request)?;
        let (mut bytes, mut chunk) = (Vec::new(), [0; 16 * 1024]);
        loop {
            match socket.read(&mut chunk)? {
                0 => return Ok(Err("the connection was closed".to_owned())),
                count => bytes.extend_from_slice(&chunk[..count]),
            }
            loop {
                let used = match resp::parse(&bytes) {
                    Ok(None) => break,
                    Ok(Some((Reply::Error(error), _))) if greets => {
                        return Ok(Err(String::from_utf8_lossy(error).into_owned()));
                    }
                    Ok(Some((_, used))) if greets => used,
                    Ok(Some(_)) => return Ok(Ok(bytes)),
                    Err(error) => return Ok(Err(error.to_string())),
                };
                greets = false;
                bytes.drain(..used);
            }
        }
    };
    let bytes = receive().map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => "no answer in 2 s".to_owned(),
        _ => error.to_string(),
    })??;
    match resp::parse(&bytes) {
        Ok(Some((reply, _))) => Ok(read(&reply)),
        _ => Err("no whole reply".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_slots_and_moved_make_the_route() {
        let asked: SocketAddr = "127.0.0.1:7000".parse().unwrap();
        let wire = b"*2\r\n*3\r\n:0\r\n:8191\r\n*2\r\n$9\r\n127.0.0.1\r\n:7000\r\n\
            *4\r\n:8192\r\n:16383\r\n*2\r\n$0\r\n\r\n:7001\r\n*2\r\n$9\r\n127.0.0.1\r\n:7002\r\n";
        let (reply, _) = resp::parse(wire).unwrap().unwrap();
        let Ranges::Of(ranges) = ranges(&reply, asked) else { panic!("ranges") };
        let mut route = Route { nodes: vec![asked], slots: vec![0; SLOTS], only: Some(0), version: 0 };
        fill(&mut route, &ranges);
        let map = SlotMap::new(route, false);
        assert!(map.is_complete());
        let before = map.route();
        assert_eq!(before.nodes[before.node_of(b"foo")].port(), 7001);
        let (slot, to) = parse_moved(b"MOVED 12182 :7005", asked).unwrap();
        map.moved(slot, to);
        assert!(map.is_newer_than(&before));
        let after = map.route();
        assert_eq!(after.nodes[after.node_of(b"foo")].port(), 7005);
        assert_eq!(parse_moved(b"ASK 1 127.0.0.1:1", asked), None);
    }
}

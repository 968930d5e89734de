//! One client of a soak: it writes and reads keys of its own, follows redirections, and outlives whatever happens to nodes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use flotilla_runtime::SplitMix64;

use super::ledger::Ledger;
use crate::engine::slots::parse_moved;
use crate::error::{BenchError, Result};
use crate::recorder::{Latencies, latencies};
use crate::resp::{self, Reply};

/// Longer than an election; a stopped node's clients go elsewhere after it.
const REPLY_MAX: Duration = Duration::from_secs(2);
const CONNECT_MAX: Duration = Duration::from_millis(500);
/// After a request that wasn't answered as hoped.
const REST: Duration = Duration::from_millis(10);
/// Reading all keys in the end must work, however long nodes take to find each other again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Before a request counts as refused.
const REDIRECTS_MAX: usize = 8;
/// Nothing was done, by what the protocol promises.
const REFUSALS: [&[u8]; 6] = [b"CLUSTERDOWN", b"TRYAGAIN", b"BUSY", b"MISCONF", b"LOADING", b"MOVED"];

/// What a client, or all of them, saw.
pub(super) struct Tally {
    pub(super) acknowledged: u64,
    pub(super) reads: u64,
    pub(super) unknown: u64,
    /// Refused, not sent, or reads without an answer.
    pub(super) refused: u64,
    /// Of what was answered.
    pub(super) latencies: Latencies,
    /// Read in the end.
    pub(super) keys: u64,
}

impl Tally {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self { acknowledged: 0, reads: 0, unknown: 0, refused: 0, latencies: latencies(), keys: 0 }
    }

    /// Takes in another's.
    pub(super) fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.reads += other.reads;
        self.unknown += other.unknown;
        self.refused += other.refused;
        self.latencies += other.latencies;
        self.keys += other.keys;
    }
}

/// See the module.
pub(super) struct Client<'a> {
    number: u16,
    keys: Vec<Ledger>,
    padding: Vec<u8>,
    random: SplitMix64,
    wire: Wire<'a>,
    tally: Tally,
}

/// What became of a request.
enum Outcome {
    /// `+OK`
    Done,
    /// The number at the front of the value, 0 without one.
    Value(u64),
    /// Surely nothing.
    Refused,
    /// It may have happened.
    Unknown,
}

impl<'a> Client<'a> {
    /// Number `number`, with so many keys of its own.
    pub(super) fn new(number: u16, nodes: &'a [SocketAddr], keys: u32, value_bytes: usize) -> Self {
        Self {
            number,
            keys: vec![Ledger::default(); keys as usize],
            padding: crate::workload::value(value_bytes),
            random: SplitMix64::new(u64::from(number) + 1),
            wire: Wire { nodes, at: usize::from(number) % nodes.len(), socket: None, received: Vec::new() },
            tally: Tally::new(),
        }
    }

    /// One write or read.
    ///
    /// # Errors
    /// What was read can't be.
    pub(super) fn work(&mut self) -> Result<()> {
        let key = self.random.below(self.keys.len() as u64) as usize;
        match self.random.below(2) {
            0 => self.write(key),
            _ => self.read(key).map(|_| ()),
        }
        .map_err(|reason| self.failed(key, reason))
    }

    /// Reads every key, again and again until each has been answered.
    ///
    /// # Errors
    /// What was read can't be, or nothing could be read.
    pub(super) fn check_all(&mut self) -> Result<()> {
        for key in 0..self.keys.len() {
            let until = Instant::now() + PATIENCE;
            while !self.read(key).map_err(|reason| self.failed(key, reason))? {
                if Instant::now() > until {
                    let reason = format!("it can't be read for {} s", PATIENCE.as_secs());
                    return Err(self.failed(key, reason));
                }
            }
            self.tally.keys += 1;
        }
        Ok(())
    }

    /// What it saw.
    pub(super) fn tally(self) -> Tally {
        self.tally
    }

    fn write(&mut self, key: usize) -> Result<(), String> {
        let number = self.keys[key].next();
        let mut value = format!("{number}:").into_bytes();
        let padding = self.padding.len().saturating_sub(value.len());
        value.extend_from_slice(&self.padding[..padding]);
        let name = self.name(key);
        let from = Instant::now();
        match self.wire.ask(&[b"SET", name.as_bytes(), &value]) {
            Outcome::Done => {
                self.keys[key].acknowledge(number);
                self.tally.acknowledged += 1;
                self.answered(from);
            }
            Outcome::Refused => self.rest(),
            Outcome::Value(_) => return Err("a SET was answered with a value".to_owned()),
            Outcome::Unknown => {
                self.keys[key].lose_sight(number);
                self.tally.unknown += 1;
                std::thread::sleep(REST);
            }
        }
        Ok(())
    }

    /// Whether it was answered.
    fn read(&mut self, key: usize) -> Result<bool, String> {
        let name = self.name(key);
        let from = Instant::now();
        match self.wire.ask(&[b"GET", name.as_bytes()]) {
            Outcome::Value(number) => {
                self.keys[key].read(number)?;
                self.tally.reads += 1;
                self.answered(from);
                Ok(true)
            }
            Outcome::Done => Err("a GET was answered with OK".to_owned()),
            Outcome::Refused | Outcome::Unknown => {
                self.rest();
                Ok(false)
            }
        }
    }

    fn rest(&mut self) {
        self.tally.refused += 1;
        std::thread::sleep(REST);
    }

    fn answered(&mut self, from: Instant) {
        let ns = u64::try_from(from.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.tally.latencies.saturating_record(ns);
    }

    fn name(&self, key: usize) -> String {
        format!("soak:{}:{key}", self.number)
    }

    fn failed(&self, key: usize, reason: String) -> BenchError {
        let target = format!("flotilla, key {}", self.name(key));
        BenchError::Failed { scenario: "soak".to_owned(), target, reason }
    }
}

/// A connection to one of the nodes.
struct Wire<'a> {
    nodes: &'a [SocketAddr],
    at: usize,
    socket: Option<TcpStream>,
    received: Vec<u8>,
}

impl Wire<'_> {
    /// Asks the node that it was sent to last, and follows redirections.
    fn ask(&mut self, words: &[&[u8]]) -> Outcome {
        let mut request = Vec::new();
        resp::encode(&mut request, words);
        for _ in 0..REDIRECTS_MAX {
            if self.connect().is_err() {
                self.leave();
                return Outcome::Refused;
            }
            let Some(led) = self.exchange(&request) else {
                // Sent, at least in part, and no whole reply.
                self.leave();
                return Outcome::Unknown;
            };
            match led {
                Heard::Outcome(outcome) => return outcome,
                Heard::Moved(node) => {
                    self.socket = None;
                    self.at = node;
                }
            }
        }
        Outcome::Refused
    }

    fn connect(&mut self) -> std::io::Result<()> {
        if self.socket.is_none() {
            let socket = TcpStream::connect_timeout(&self.nodes[self.at], CONNECT_MAX)?;
            socket.set_nodelay(true)?;
            socket.set_read_timeout(Some(REPLY_MAX))?;
            socket.set_write_timeout(Some(REPLY_MAX))?;
            self.received.clear();
            self.socket = Some(socket);
        }
        Ok(())
    }

    /// On to another node.
    fn leave(&mut self) {
        self.socket = None;
        self.at = (self.at + 1) % self.nodes.len();
    }

    /// None if no whole reply came.
    fn exchange(&mut self, request: &[u8]) -> Option<Heard> {
        let asked = self.nodes[self.at];
        let socket = self.socket.as_mut()?;
        socket.write_all(request).ok()?;
        let mut chunk = [0; 4096];
        loop {
            if let Some((reply, length)) = resp::parse(&self.received).ok()? {
                let heard = heard(&reply, asked, self.nodes);
                self.received.drain(..length);
                return heard;
            }
            match socket.read(&mut chunk).ok()? {
                0 => return None,
                count => self.received.extend_from_slice(&chunk[..count]),
            }
        }
    }
}

enum Heard {
    Outcome(Outcome),
    Moved(usize),
}

/// None for what no node should say.
fn heard(reply: &Reply<'_>, asked: SocketAddr, nodes: &[SocketAddr]) -> Option<Heard> {
    match reply {
        Reply::Simple(b"OK") => Some(Heard::Outcome(Outcome::Done)),
        Reply::Bulk(None) => Some(Heard::Outcome(Outcome::Value(0))),
        Reply::Bulk(Some(value)) => {
            let digits = value.split(|byte| *byte == b':').next()?;
            let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
            Some(Heard::Outcome(Outcome::Value(number)))
        }
        Reply::Error(text) => {
            let moved = parse_moved(text, asked).map(|(_, address)| address);
            let place = moved.and_then(|address| nodes.iter().position(|node| *node == address));
            match place {
                Some(place) => Some(Heard::Moved(place)),
                None if REFUSALS.iter().any(|refusal| text.starts_with(refusal)) => {
                    Some(Heard::Outcome(Outcome::Refused))
                }
                None => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// A server of one key that forgets its `lost`-th write, which it acknowledges.
    fn forgetful(lost: u64) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut kept, writes) = (Vec::new(), AtomicU64::new(0));
            for mut socket in listener.incoming().flatten() {
                let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
                while let Ok(count @ 1..) = socket.read(&mut chunk) {
                    bytes.extend_from_slice(&chunk[..count]);
                    while let Some((Reply::Array(Some(words)), length)) = resp::parse(&bytes).unwrap() {
                        let mut answer = Vec::new();
                        match &words[..] {
                            [_, _, Reply::Bulk(Some(value))] => {
                                if writes.fetch_add(1, Ordering::Relaxed) + 1 != lost {
                                    kept = value.to_vec();
                                }
                                answer.extend_from_slice(b"+OK\r\n");
                            }
                            _ if kept.is_empty() => answer.extend_from_slice(b"$-1\r\n"),
                            _ => {
                                write!(answer, "${}\r\n", kept.len()).unwrap();
                                answer.extend_from_slice(&kept);
                                answer.extend_from_slice(b"\r\n");
                            }
                        }
                        socket.write_all(&answer).unwrap();
                        bytes.drain(..length);
                    }
                }
            }
        });
        address
    }

    #[test]
    fn a_server_that_forgets_is_caught_and_an_honest_one_is_not() {
        let run = |lost| {
            let nodes = [forgetful(lost)];
            let mut client = Client::new(0, &nodes, 1, 64);
            for _ in 0..200 {
                client.work()?;
            }
            client.check_all().map(|()| client.tally())
        };
        let tally = run(u64::MAX).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((tally.acknowledged + tally.reads, tally.keys, tally.unknown), (201, 1, 0));
        let error = run(20).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("write 19 was read, but 20 had taken effect"), "{error}");
    }
}

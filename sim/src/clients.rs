//! Simulated users: they speak RESP to the nodes, follow redirections, lose connections, and remember.

use crate::linear::{Did, Operation, Verdict, check};
use crate::rng::Rng;
use flotilla_services::client::{Reply, parse_reply};
use std::collections::{BTreeMap, BTreeSet};

/// What a command was for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Writes a shared register.
    Write(u64, Option<u64>),
    /// Reads a shared register.
    Read(u64),
    /// Increments a shared counter.
    Count,
    /// Sets a key that nobody else uses, in a pipeline.
    Own,
    /// Reads it: this must be seen.
    OwnRead(u64),
    /// The last look at a register.
    FinalRead(u64),
    /// The last look at the counter.
    FinalCount,
}

/// A command that waits for its reply.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What it was for.
    pub purpose: Purpose,
    /// When it left.
    pub called: u64,
}

/// One user.
#[derive(Debug)]
pub struct Client {
    /// Its connection: the node, the node's life, the number there.
    pub connection: Option<(usize, u64, u64)>,
    /// Where it goes next.
    pub target: usize,
    /// What it waits for, in order.
    pub asked: Vec<Asked>,
    /// Grows with everything that makes earlier timers void.
    pub attempt: u64,
    /// Commands answered well since the world was healed.
    pub served: u64,
    input: Vec<u8>,
}

/// All users, and what they remember together.
#[derive(Debug)]
pub struct Clients {
    /// The users.
    pub list: Vec<Client>,
    rng: Rng,
    keys: u64,
    last_value: u64,
    registers: BTreeMap<u64, Vec<Operation>>,
    counted: Vec<i64>,
    uncertain_counts: u64,
    looked_at: BTreeSet<u64>,
    final_count: Option<i64>,
    /// Commands answered.
    pub answered: u64,
    /// Histories that couldn't be decided.
    pub undecided: u64,
}

/// What a reply meant for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Go on.
    Fine,
    /// Nothing was done; go to this node (or anywhere).
    Elsewhere(Option<usize>),
}

impl Clients {
    /// So many users, sharing so many registers.
    pub fn new(count: usize, keys: u64, nodes: usize, mut rng: Rng) -> Self {
        let list = (0..count).map(|_| Client {
            connection: None,
            target: usize::try_from(rng.between(0, nodes as u64 - 1)).expect("few nodes"),
            asked: Vec::new(),
            attempt: 0,
            served: 0,
            input: Vec::new(),
        });
        Self {
            list: list.collect(),
            rng,
            keys,
            last_value: 0,
            registers: BTreeMap::new(),
            counted: Vec::new(),
            uncertain_counts: 0,
            looked_at: BTreeSet::new(),
            final_count: None,
            answered: 0,
            undecided: 0,
        }
    }

    /// The next command of a user, or a pipeline of them: bytes, and what they are for.
    pub fn next_commands(&mut self, client: usize, now: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let register = self.rng.between(0, self.keys - 1);
        let key = format!("register:{register}");
        self.last_value += 1;
        let value = self.last_value;
        let text = format!("v{value}");
        let mut ask = |args: &[&str], purpose: Purpose| {
            bytes.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
            for arg in args {
                bytes.extend_from_slice(format!("${}\r\n{arg}\r\n", arg.len()).as_bytes());
            }
            self.list[client].asked.push(Asked { purpose, called: now });
        };
        match self.rng.between(0, 99) {
            0..45 => ask(&["SET", &key, &text], Purpose::Write(register, Some(value))),
            45..80 => ask(&["GET", &key], Purpose::Read(register)),
            80..85 => ask(&["DEL", &key], Purpose::Write(register, None)),
            85..94 => ask(&["INCR", "counter"], Purpose::Count),
            _ => {
                let own = format!("own:{client}:{value}");
                self.last_value += 1;
                let other = self.last_value;
                ask(&["SET", &own, &text], Purpose::Own);
                ask(&["GET", &own], Purpose::OwnRead(value));
                ask(&["SET", &own, &format!("v{other}")], Purpose::Own);
                ask(&["GET", &own], Purpose::OwnRead(other));
            }
        }
        bytes
    }

    /// The next of the last commands: a look at everything, one thing at a time.
    pub fn final_commands(&mut self, client: usize, now: u64) -> Vec<u8> {
        let register = self.registers.keys().copied().find(|register| !self.looked_at.contains(register));
        let (key, purpose) = match register {
            Some(register) => (format!("register:{register}"), Purpose::FinalRead(register)),
            None => ("counter".to_owned(), Purpose::FinalCount),
        };
        self.list[client].asked.push(Asked { purpose, called: now });
        format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len()).into_bytes()
    }

    /// Whether the last look at everything was answered.
    pub fn is_final(&self) -> bool {
        self.final_count.is_some()
    }

    /// Bytes came back.
    ///
    /// # Errors
    /// A reply that must not be.
    pub fn received(&mut self, client: usize, bytes: &[u8], now: u64) -> Result<Meaning, String> {
        self.list[client].input.extend_from_slice(bytes);
        loop {
            let user = &mut self.list[client];
            let Some((reply, length)) = parse_reply(&user.input)? else { return Ok(Meaning::Fine) };
            user.input.drain(..length);
            if user.asked.is_empty() {
                return Err(format!("client {client} got a reply that it didn't ask for: {reply}"));
            }
            let asked = user.asked.remove(0);
            if let Reply::Error(error) = &reply {
                return elsewhere(error);
            }
            user.served += 1;
            self.answered += 1;
            self.note(&asked, &reply, now)?;
        }
    }

    fn note(&mut self, asked: &Asked, reply: &Reply, now: u64) -> Result<(), String> {
        let mut remember = |register: u64, did: Did| {
            let operation = Operation { called: asked.called, returned: Some(now), did };
            self.registers.entry(register).or_default().push(operation);
        };
        match (&asked.purpose, reply) {
            (Purpose::Write(register, Some(value)), Reply::Status(_)) => {
                remember(*register, Did::Write(Some(*value)))
            }
            (Purpose::Write(register, None), Reply::Integer(_)) => remember(*register, Did::Write(None)),
            (Purpose::Read(register), reply) => remember(*register, Did::Read(value_of(reply)?)),
            (Purpose::FinalRead(register), reply) => {
                remember(*register, Did::Read(value_of(reply)?));
                self.looked_at.insert(*register);
            }
            (Purpose::Count, Reply::Integer(count)) => self.counted.push(*count),
            (Purpose::Own, Reply::Status(_)) => {}
            (Purpose::OwnRead(expected), reply) => {
                let found = value_of(reply)?;
                if found != Some(*expected) {
                    return Err(format!(
                        "pipelining: a client set v{expected} and read {found:?} right behind it"
                    ));
                }
            }
            (Purpose::FinalCount, Reply::Bulk(bytes)) => {
                self.final_count = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
            }
            (Purpose::FinalCount, Reply::Null) => self.final_count = Some(0),
            (purpose, reply) => return Err(format!("{purpose:?} was answered with {reply}")),
        }
        Ok(())
    }

    /// The connection is gone, or the client's patience: what it asked may have happened.
    pub fn gave_up(&mut self, client: usize) {
        let user = &mut self.list[client];
        user.input.clear();
        user.connection = None;
        user.attempt += 1;
        for asked in std::mem::take(&mut user.asked) {
            match asked.purpose {
                Purpose::Write(register, value) => {
                    let operation =
                        Operation { called: asked.called, returned: None, did: Did::Write(value) };
                    self.registers.entry(register).or_default().push(operation);
                }
                Purpose::Count => self.uncertain_counts += 1,
                _ => {}
            }
        }
    }

    /// Judges everything remembered.
    ///
    /// # Errors
    /// What the users saw and must not have seen.
    pub fn judge(&mut self) -> Result<(), String> {
        for (register, history) in &self.registers {
            match check(history) {
                Verdict::Linearizable => {}
                Verdict::Undecided => self.undecided += 1,
                Verdict::Broken { at } => {
                    return Err(format!("linearizability: register {register}: {}", shown(history, at)));
                }
            }
        }
        let count = self.final_count.ok_or("the counter was never read at the end")?;
        let acknowledged = self.counted.len() as u64;
        let mut distinct = self.counted.clone();
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.len() as u64 != acknowledged || distinct.last().is_some_and(|last| *last > count) {
            return Err(format!("exactly once: counts {:?} of {count}", self.counted));
        }
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        if count < acknowledged || count > acknowledged + self.uncertain_counts {
            let uncertain = self.uncertain_counts;
            return Err(format!(
                "the counter is {count} after {acknowledged} acknowledged and {uncertain} uncertain increments"
            ));
        }
        Ok(())
    }
}

fn value_of(reply: &Reply) -> Result<Option<u64>, String> {
    match reply {
        Reply::Null => Ok(None),
        Reply::Bulk(bytes) if bytes.first() == Some(&b'v') => {
            let text = String::from_utf8_lossy(&bytes[1..]).into_owned();
            text.parse().map(Some).map_err(|_| format!("a value that nobody wrote: v{text}"))
        }
        other => Err(format!("a read was answered with {other}")),
    }
}

fn elsewhere(error: &str) -> Result<Meaning, String> {
    let mut words = error.split(' ');
    match words.next() {
        Some("MOVED") => {
            let port = words
                .nth(1)
                .and_then(|address| address.rsplit(':').next())
                .and_then(|port| port.parse().ok());
            let node = port.and_then(|port: usize| port.checked_sub(7001));
            Ok(Meaning::Elsewhere(node))
        }
        Some("CLUSTERDOWN" | "TRYAGAIN" | "BUSY" | "MISCONF") => Ok(Meaning::Elsewhere(None)),
        _ => Err(format!("an error that nothing explains: {error}")),
    }
}

/// The operations around an instant.
fn shown(history: &[Operation], at: u64) -> String {
    let mut sorted = history.to_vec();
    sorted.sort_by_key(|op| op.called);
    let place = sorted.partition_point(|op| op.called < at);
    let around = &sorted[place.saturating_sub(20)..(place + 10).min(sorted.len())];
    let lines = around.iter().map(|op| {
        let end = op.returned.map_or_else(|| "?".to_owned(), |at| format!("{:.3}", at as f64 / 1e6));
        format!("\n  {:>10.3} – {end:>10} ms  {:?}", op.called as f64 / 1e6, op.did)
    });
    lines.collect()
}

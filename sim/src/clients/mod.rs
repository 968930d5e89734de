//! Simulated users: they speak RESP to the nodes, follow redirections, lose connections, and remember.

mod atomics;
mod memory;
mod sessions;

use crate::rng::Rng;
use crate::swarm::Swarm;
use crate::world::backups::ShardData;
use atomics::both;
use flotilla_services::client::{Reply, parse_reply};
use flotilla_services::slot::Slot;
use memory::Memory;
use sessions::Sessions;
use std::collections::{BTreeSet, VecDeque};

/// A key that is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Set, removed and read by everybody.
    Register(u64),
    /// Set once, with an end; read by everybody.
    Lease(u64),
    /// Grows by tokens of eight bytes.
    List(u64),
    /// Counts up.
    Counter(u64),
    /// Two counters that go up together.
    Pair(u64),
    /// Is written only by those who know its version.
    Version(u64),
    /// Counts up by writes that are sent again until they are answered.
    Once(u64),
}

/// What a command was for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Writes a register or a lease.
    Write(Key, Option<u64>),
    /// Reads whatever it is.
    Read(Key),
    /// Increments a counter.
    Count(u64),
    /// Appends a token to a list.
    Append(u64, u64),
    /// Part of a transaction: this must be said.
    Said(&'static str),
    /// Increments both halves of a pair.
    Pair {
        /// Which.
        tag: u64,
        /// Only if neither has changed meanwhile.
        watches: bool,
    },
    /// Opens a session for that counter.
    Open(u64),
    /// Increments it.
    Once {
        /// Which.
        tag: u64,
        /// The number of this increment in its session.
        write: u64,
    },
    /// Writes a key that has a version.
    Cas {
        /// Which.
        tag: u64,
        /// That version.
        given: u64,
        /// What is written.
        value: u64,
    },
    /// Sets a key that nobody else uses, in a pipeline.
    Own,
    /// Reads it: this must be seen.
    OwnRead(u64),
    /// The last look.
    Final(Key),
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
    /// Its connection: the core, the core's life, the number there.
    pub connection: Option<(usize, u64, u64)>,
    /// Where it goes next.
    pub target: usize,
    /// What it waits for, in order.
    pub asked: VecDeque<Asked>,
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
    pipeline: u64,
    /// So many of a hundred commands are about a key of one's own, which are large at times.
    own: u64,
    last_value: u64,
    memory: Memory,
    sessions: Sessions,
    /// Commands being put together.
    bytes: Vec<u8>,
    looked_at: BTreeSet<Key>,
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
    /// Nothing was done; go to whoever listens on this port (or anywhere).
    Elsewhere(Option<usize>),
}

impl Clients {
    /// The users of a swarm with so many cores in all.
    pub fn new(swarm: &Swarm, cores: usize, mut rng: Rng) -> Self {
        let Swarm { clients: count, keys, pipeline, own, .. } = *swarm;
        let list = (0..count).map(|_| Client {
            connection: None,
            target: usize::try_from(rng.between(0, cores as u64 - 1)).expect("few cores"),
            asked: VecDeque::new(),
            attempt: 0,
            served: 0,
            input: Vec::new(),
        });
        Self {
            list: list.collect(),
            rng,
            keys,
            pipeline,
            own,
            bytes: Vec::new(),
            last_value: 0,
            memory: Memory::default(),
            sessions: Sessions::default(),
            looked_at: BTreeSet::new(),
            answered: 0,
            undecided: 0,
        }
    }

    /// The next command of a user, or a pipeline of them: bytes, and what they are for.
    pub fn next_commands(&mut self, client: usize, now: u64) -> Vec<u8> {
        let tag = self.rng.between(0, self.keys - 1);
        let register = Key::Register(tag);
        self.last_value += 1;
        let value = self.last_value;
        let text = format!("v{value}");
        let what = match self.rng.between(0, 99) {
            dice if dice < self.own => 99,
            _ => self.rng.between(0, 93),
        };
        match what {
            0..45 => self.ask(
                client,
                now,
                &["SET", &register.name(), &text],
                Purpose::Write(register, Some(value)),
            ),
            45..80 => self.ask(client, now, &["GET", &register.name()], Purpose::Read(register)),
            80..84 => self.ask(client, now, &["DEL", &register.name()], Purpose::Write(register, None)),
            84..88 => {
                let lease = Key::Lease(value);
                let lasts = self.rng.between(20, 300).to_string();
                let purpose = Purpose::Write(lease, Some(value));
                self.ask(client, now, &["SET", &lease.name(), &text, "PX", &lasts], purpose);
            }
            88..94 => {
                let lease = Key::Lease(self.memory.some_lease(&mut self.rng).unwrap_or(1));
                self.ask(client, now, &["GET", &lease.name()], Purpose::Read(lease));
            }
            _ => self.ask_own(client, now, value),
        }
        // More of the same slot in one go, of what tells its own place in the order.
        for _ in 0..self.rng.between(0, self.pipeline) {
            let list = Key::List(tag);
            self.last_value += 1;
            let value = self.last_value;
            match self.rng.between(0, 99) {
                0..15 => self.ask_once(client, now, tag),
                15..35 => self.ask(client, now, &["INCR", &Key::Counter(tag).name()], Purpose::Count(tag)),
                35..45 => self.ask_pair(client, now, tag),
                45..55 => self.ask_cas(client, now, tag, value),
                55..75 => {
                    let purpose = Purpose::Append(tag, value);
                    self.ask(client, now, &["APPEND", &list.name(), &token(value)], purpose);
                }
                75..80 => self.ask(client, now, &["GET", &list.name()], Purpose::Read(list)),
                80..85 => self.ask_look(client, now, Key::Pair(tag), Purpose::Read(Key::Pair(tag))),
                85..90 => self.ask_look(client, now, Key::Version(tag), Purpose::Read(Key::Version(tag))),
                _ => {
                    let counter = Key::Counter(tag);
                    self.ask(client, now, &["GET", &counter.name()], Purpose::Read(counter));
                }
            }
        }
        std::mem::take(&mut self.bytes)
    }

    fn ask(&mut self, client: usize, now: u64, args: &[&str], purpose: Purpose) {
        put_command(&mut self.bytes, args);
        self.list[client].asked.push_back(Asked { purpose, called: now });
    }

    /// Writes a key that nobody else uses, and reads it at once.
    fn ask_own(&mut self, client: usize, now: u64, value: u64) {
        let own = format!("own:{client}:{value}");
        self.last_value += 1;
        let other = self.last_value;
        // Now and then a frame of the log is of several blocks.
        let large = self.rng.between(0, 2) == 0;
        let filling =
            if large { usize::try_from(self.rng.between(1_000, 20_000)).expect("small") } else { 0 };
        let first = format!("v{value}{}", ".".repeat(filling));
        self.ask(client, now, &["SET", &own, &first], Purpose::Own);
        self.ask(client, now, &["GET", &own], Purpose::OwnRead(value));
        self.ask(client, now, &["SET", &own, &format!("v{other}")], Purpose::Own);
        self.ask(client, now, &["GET", &own], Purpose::OwnRead(other));
    }

    /// The next of the last commands: a look at everything, one thing at a time.
    pub fn final_commands(&mut self, client: usize, now: u64) -> Vec<u8> {
        let key = self.left_to_see().next();
        if let Some(key) = key {
            self.ask_look(client, now, key, Purpose::Final(key));
        }
        std::mem::take(&mut self.bytes)
    }

    fn left_to_see(&self) -> impl Iterator<Item = Key> + '_ {
        let registers = (0..self.keys).map(Key::Register);
        let others = [Key::List, Key::Counter, Key::Pair, Key::Version, Key::Once];
        let all = registers.chain(others.into_iter().flat_map(|kind| (0..self.keys).map(kind)));
        all.filter(|key| !self.looked_at.contains(key))
    }

    /// Whether the last look at everything was answered.
    pub fn is_final(&self) -> bool {
        self.left_to_see().next().is_none()
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
            let Some(asked) = user.asked.pop_front() else {
                return Err(format!("reply: client {client} didn't ask for {reply}"));
            };
            if let Reply::Error(error) = &reply {
                let Purpose::Cas { tag, given, .. } = asked.purpose else { return elsewhere(error) };
                if !(error.starts_with("VERSION ") || error.starts_with("NOKEY ")) {
                    return elsewhere(error);
                }
                self.memory.version(tag).refused(given, error, (asked.called, Some(now)))?;
                user.served += 1;
                self.answered += 1;
                continue;
            }
            user.served += 1;
            self.answered += 1;
            self.note(client, &asked, &reply, now)?;
        }
    }

    fn note(&mut self, client: usize, asked: &Asked, reply: &Reply, now: u64) -> Result<(), String> {
        let (memory, when) = (&mut self.memory, (asked.called, Some(now)));
        match (&asked.purpose, reply) {
            (Purpose::Write(key, Some(value)), Reply::Status(_)) => memory.wrote(*key, Some(*value), when),
            (Purpose::Write(key, None), Reply::Integer(_)) => memory.wrote(*key, None, when),
            (Purpose::Read(key), reply) => memory.read(*key, reply, when)?,
            (Purpose::Final(key), reply) => {
                memory.read(*key, reply, when)?;
                self.looked_at.insert(*key);
            }
            (Purpose::Count(tag), Reply::Integer(count)) => memory.counted(*tag, Some(*count), when),
            (Purpose::Append(list, value), Reply::Integer(length)) => {
                memory.appended(*list, *value, Some(*length), when);
            }
            (Purpose::Said(words), Reply::Status(said)) if words == said => {}
            // Somebody else was quicker.
            (Purpose::Pair { watches: true, .. }, Reply::Null) => {}
            (Purpose::Pair { tag, .. }, reply) => memory.paired(*tag, Some(both(reply)?), when),
            (Purpose::Cas { tag, given, value }, reply) => {
                memory.version(*tag).wrote(*given, *value, reply, when)?;
            }
            (Purpose::Open(tag), Reply::Integer(number)) => self.sessions.opened(client, *tag, *number),
            (Purpose::Once { tag, write }, Reply::Integer(count)) => {
                self.once(client, (*tag, *write), *count, when)?;
            }
            (Purpose::Own, Reply::Status(_)) => {}
            (Purpose::OwnRead(expected), reply) => {
                let found = value_of(reply)?;
                if found != Some(*expected) {
                    return Err(format!(
                        "pipelining: a client set v{expected} and read {found:?} right behind it"
                    ));
                }
            }
            (purpose, reply) => return Err(format!("reply: {purpose:?} was answered with {reply}")),
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
            let when = (asked.called, None);
            match asked.purpose {
                Purpose::Write(key, value) => self.memory.wrote(key, value, when),
                Purpose::Count(tag) => self.memory.counted(tag, None, when),
                Purpose::Append(list, value) => self.memory.appended(list, value, None, when),
                Purpose::Pair { tag, .. } => self.memory.paired(tag, None, when),
                _ => {}
            }
        }
    }

    /// The shards of all shared keys.
    pub fn shards(&self, shards: u16) -> Vec<u16> {
        (0..self.keys).map(|tag| Slot::of_key(Key::Counter(tag).name().as_bytes()).shard(shards)).collect()
    }

    /// A shard was read as a whole: as if every key that belongs there had been read at that time.
    ///
    /// # Errors
    /// What must not be in it.
    pub fn backed_up(
        &mut self,
        data: &ShardData,
        (shard, shards): (u16, u16),
        when: (u64, Option<u64>),
    ) -> Result<(), String> {
        let value = |name: &str| data.get(name).map_or(Reply::Null, |(value, _)| Reply::Bulk(value.clone()));
        let all = self.shards(shards);
        for tag in (0..self.keys).zip(all).filter(|(_, of)| *of == shard).map(|(tag, _)| tag) {
            for key in [Key::Register(tag), Key::List(tag), Key::Counter(tag), Key::Once(tag)] {
                self.memory.read(key, &value(&key.name()), when)?;
            }
            let (one, other) = atomics::halves(tag);
            self.memory.read(Key::Pair(tag), &Reply::Array(vec![value(&one), value(&other)]), when)?;
            let name = Key::Version(tag).name();
            let versioned = data.get(&name).map_or(Reply::Null, |(value, version)| {
                let version = i64::try_from(*version).unwrap_or(i64::MAX);
                Reply::Array(vec![Reply::Integer(version), Reply::Bulk(value.clone())])
            });
            self.memory.read(Key::Version(tag), &versioned, when)?;
        }
        Ok(())
    }

    /// Judges everything remembered.
    ///
    /// # Errors
    /// What the users saw and must not have seen.
    pub fn judge(&mut self) -> Result<(), String> {
        let sessions = &self.sessions;
        self.undecided = self.memory.judge(|tag| sessions.uncertain(tag))?;
        Ok(())
    }
}

impl Key {
    fn name(self) -> String {
        match self {
            Self::Register(tag) => format!("register:{{{tag}}}"),
            Self::Lease(number) => format!("lease:{number}"),
            Self::List(tag) => format!("list:{{{tag}}}"),
            Self::Counter(tag) => format!("counter:{{{tag}}}"),
            Self::Pair(tag) => format!("one:{{{tag}}}"),
            Self::Version(tag) => format!("version:{{{tag}}}"),
            Self::Once(tag) => format!("once:{{{tag}}}"),
        }
    }
}

/// What a list is made of.
fn token(value: u64) -> String {
    format!("{value:08}")
}

fn put_command(bytes: &mut Vec<u8>, args: &[&str]) {
    bytes.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        bytes.extend_from_slice(format!("${}\r\n{arg}\r\n", arg.len()).as_bytes());
    }
}

fn value_of(reply: &Reply) -> Result<Option<u64>, String> {
    match reply {
        Reply::Null => Ok(None),
        Reply::Bulk(bytes) if bytes.first() == Some(&b'v') => {
            let text = String::from_utf8_lossy(&bytes[1..]).into_owned();
            text.trim_end_matches('.')
                .parse()
                .map(Some)
                .map_err(|_| format!("reply: a value that nobody wrote: v{text}"))
        }
        other => Err(format!("reply: a read was answered with {other}")),
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
            Ok(Meaning::Elsewhere(port))
        }
        Some("CLUSTERDOWN" | "TRYAGAIN" | "BUSY" | "MISCONF") => Ok(Meaning::Elsewhere(None)),
        _ => Err(format!("reply: an error that nothing explains: {error}")),
    }
}

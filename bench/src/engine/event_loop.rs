//! One thread of the load generator: sockets, requests and replies on one epoll.
//!
//! ```text
//!  closed loop                                     open loop
//!  a client with nothing in flight                 arrival n is due at start + n / rate
//!    └─ sends `pipeline` requests, then waits        └─ the next client with room sends it; if none has room it
//!       for all their replies                           waits, and its latency still starts when it was due
//! ```
//!
//! A turn: wait; for each ready socket read, answer every reply with the next request, write. It never blocks, and
//! nothing here may allocate per operation: the servers need the CPU.

mod pacing;
mod parting;

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::connection::{Awaited, Connection, Pending};
use super::protocol::{Protocol, Verdict};
use super::request::{Ask, key_bytes};
use crate::error::{BenchError, Result};
use crate::interrupt::Interrupt;
use crate::recorder::Recorder;
use crate::timer::Timer;
use crate::workload::{Load, Phases, Schedule, Source};
use pacing::{Arrivals, Client};

const TIMER: Token = Token(usize::MAX);
/// How long a client rests after an error, so that a server in trouble isn't hammered.
const REST_NS: u64 = 10_000_000;
/// A request that was moved this often has no home.
const REDIRECTS_MAX: u8 = 16;

/// What all threads of a load share.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a> {
    pub(crate) load: &'a Load,
    pub(crate) phases: Phases,
    pub(crate) interrupt: &'a Interrupt,
}

/// See the module.
pub(crate) struct EventLoop<'a, P> {
    shared: Shared<'a>,
    poll: Poll,
    protocol: P,
    source: Source,
    clients: Vec<Client>,
    connections: Vec<Connection>,
    dirty: Vec<usize>,
    resting: VecDeque<(u64, usize)>,
    arrivals: Option<Arrivals>,
    in_flight: usize,
    next_ping_ns: u64,
    recorder: Recorder,
}

impl<'a, P: Protocol> EventLoop<'a, P> {
    /// Thread number `thread`, with its share of the clients.
    pub(crate) fn new(shared: Shared<'a>, protocol: P, thread: usize) -> Result<Self> {
        let load = shared.load;
        let poll = Poll::new().map_err(BenchError::io("creating an epoll"))?;
        let count = load.clients * (thread + 1) / load.threads - load.clients * thread / load.threads;
        let arrivals = match load.rate {
            None => None,
            Some(rate) => {
                let timer = Timer::new()?;
                poll.registry()
                    .register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)
                    .map_err(BenchError::io("watching a timer"))?;
                let schedule = Schedule::new(rate, thread, load.threads).in_bursts(load.bursts);
                Some(Arrivals { schedule, next: 0, ready: VecDeque::new(), timer })
            }
        };
        Ok(Self {
            poll,
            source: Source::new(&load.operations, thread, load.threads),
            clients: (0..count).map(|_| Client::default()).collect(),
            connections: Vec::new(),
            dirty: Vec::new(),
            resting: VecDeque::new(),
            arrivals,
            in_flight: 0,
            next_ping_ns: protocol.ping_ns().unwrap_or(u64::MAX),
            recorder: Recorder::new(),
            protocol,
            shared,
        })
    }

    /// Runs all phases; what happened.
    pub(crate) fn run(mut self) -> Result<Recorder> {
        let mut events = Events::with_capacity(1024);
        let mut now_ns = self.shared.phases.now_ns();
        if self.protocol.connects_first() {
            self.connect();
        }
        for client in 0..self.clients.len() {
            self.go_on(client, now_ns);
        }
        loop {
            self.shared.interrupt.check()?;
            self.turn(now_ns);
            if self.is_over(now_ns) {
                break;
            }
            let wait = self.wait(now_ns)?;
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(BenchError::io("waiting for sockets")(error));
                }
                _ => {}
            }
            for event in &events {
                let Token(index) = event.token();
                if event.token() == TIMER {
                    continue;
                }
                let mut outcome = Ok(());
                if event.is_writable() {
                    outcome = self.connections[index].on_writable();
                }
                let ended = event.is_read_closed() || event.is_error();
                if outcome.is_ok() && (event.is_readable() || ended) {
                    outcome = self.on_readable(index, ended);
                }
                if let Err(error) = outcome {
                    self.lose(index, &error);
                }
                self.flush();
            }
            now_ns = self.shared.phases.now_ns();
        }
        self.give_up(now_ns);
        self.part(&mut events)?;
        Ok(self.recorder)
    }

    /// Opens every client's first connection.
    fn connect(&mut self) {
        for client in 0..self.clients.len() {
            let node = self.protocol.node_of(client, &key_bytes(0));
            let index = self.connection(client, node);
            self.touch(index);
        }
        self.flush();
    }

    /// What is due besides sockets: a newer map, clients that have rested, arrivals, signs of life.
    fn turn(&mut self, now_ns: u64) {
        self.protocol.turn();
        while let Some(&(until_ns, client)) = self.resting.front()
            && until_ns <= now_ns
        {
            self.resting.pop_front();
            self.go_on(client, now_ns);
        }
        self.start_arrivals(now_ns);
        if now_ns >= self.next_ping_ns {
            self.next_ping_ns = self.protocol.ping_ns().map_or(u64::MAX, |every_ns| now_ns + every_ns);
            self.ping();
        }
        self.flush();
    }

    fn ping(&mut self) {
        for index in 0..self.connections.len() {
            if self.connections[index].is_open() {
                self.protocol.append_ping(&mut self.connections[index].out);
                self.touch(index);
            }
        }
    }

    /// A connection is to be opened, or has something to write.
    fn touch(&mut self, index: usize) {
        if !self.connections[index].dirty {
            self.connections[index].dirty = true;
            self.dirty.push(index);
        }
    }

    /// Queues a request that counts as in flight from now on.
    fn start(&mut self, client: usize, pending: Pending) {
        self.clients[client].in_flight += 1;
        self.in_flight += 1;
        self.enqueue(client, pending, None);
    }

    /// Queues a request for `node`, or for the one that leads its key.
    fn enqueue(&mut self, client: usize, pending: Pending, node: Option<usize>) {
        let key = key_bytes(pending.operation.key);
        let node = node.unwrap_or_else(|| self.protocol.node_of(client, &key));
        let index = self.connection(client, node);
        let connection = &mut self.connections[index];
        let ask = Ask::of(pending.operation, self.shared.load.operations.flavour, pending.fetched);
        connection.pending.push_back(Awaited::Operation(pending));
        self.protocol.append(index, &mut connection.out, ask, &pending, &key);
        connection.owes_wait |= ask == Ask::Set && self.protocol.waits();
        self.touch(index);
    }

    fn connection(&mut self, client: usize, node: usize) -> usize {
        let of_client = &mut self.clients[client].connections;
        if of_client.len() <= node {
            of_client.resize(node + 1, None);
        }
        *of_client[node].get_or_insert_with(|| {
            self.connections.push(Connection::new(client, self.protocol.address(node)));
            self.connections.len() - 1
        })
    }

    fn flush(&mut self) {
        // Losing a connection may make others dirty, hence the queue.
        while let Some(index) = self.dirty.pop() {
            let connection = &mut self.connections[index];
            connection.dirty = false;
            if std::mem::take(&mut connection.owes_wait) {
                // One for all writes that go out together: a pipeline pays for a single one.
                connection.pending.push_back(Awaited::Replicas);
                self.protocol.append_wait(&mut connection.out);
            }
            let opened = connection.open(self.poll.registry(), Token(index), self.protocol.greeting());
            let outcome = opened.and_then(|()| connection.flush());
            if let Err(error) = outcome {
                self.lose(index, &error);
            }
        }
    }

    /// Takes what has come. `ended`: and no more will.
    fn on_readable(&mut self, index: usize, ended: bool) -> io::Result<()> {
        loop {
            let more = self.connections[index].receive()?;
            let now_ns = self.shared.phases.now_ns();
            let (received, filled) = self.connections[index].take_received();
            let mut used = 0;
            let outcome = loop {
                match self.take(index, &received[used..filled], now_ns) {
                    Ok(Some(length)) => used += length,
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            let connection = &mut self.connections[index];
            connection.give_received(received, used);
            let client = connection.client;
            outcome?;
            // What comes together with the end is one event, and a short read doesn't show the end. Nothing more is asked there.
            if !more && ended && self.connections[index].is_open() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.go_on(client, now_ns);
            if !more {
                return Ok(());
            }
        }
    }

    /// Takes one reply off the front of `bytes`; its length, or none while it isn't whole.
    fn take(&mut self, index: usize, bytes: &[u8], now_ns: u64) -> io::Result<Option<usize>> {
        if self.connections[index].greets {
            let greeted = self.protocol.greeted(bytes)?;
            self.connections[index].greets = greeted.is_none();
            return Ok(greeted);
        }
        let Some((reply, length)) = self.protocol.parse(bytes)? else { return Ok(None) };
        if !self.protocol.is_aside(&reply) {
            self.on_reply(index, &reply, now_ns)?;
        }
        Ok(Some(length))
    }

    fn on_reply(&mut self, index: usize, reply: &P::Reply<'_>, now_ns: u64) -> io::Result<()> {
        let connection = &mut self.connections[index];
        let (client, asked) = (connection.client, connection.address);
        let mut pending = match connection.pending.pop_front() {
            None => return Err(io::Error::new(io::ErrorKind::InvalidData, "a reply to no request")),
            Some(Awaited::Replicas) => {
                self.on_wait(index, reply, now_ns);
                return Ok(());
            }
            Some(Awaited::Operation(pending)) => pending,
        };
        let ask = Ask::of(pending.operation, self.shared.load.operations.flavour, pending.fetched);
        let may_follow = pending.redirects < REDIRECTS_MAX;
        let judged = self.protocol.judge(index, reply, ask, &pending, asked, may_follow);
        match judged
            .inspect_err(|_| self.connections[index].pending.push_front(Awaited::Operation(pending)))?
        {
            Verdict::Answered { missed } => self.on_success(index, pending, ask, missed, now_ns),
            Verdict::Elsewhere(node) => {
                self.recorder.redirects += 1;
                pending.redirects += 1;
                self.enqueue(client, pending, node);
            }
            Verdict::Otherwise => {
                pending.redirects += 1;
                pending.otherwise = !pending.otherwise;
                self.enqueue(client, pending, None);
            }
            Verdict::Failed(code) => self.fail(client, pending, &code, now_ns),
        }
        Ok(())
    }

    fn on_success(&mut self, index: usize, mut pending: Pending, ask: Ask, missed: bool, now_ns: u64) {
        self.recorder.misses += u64::from(missed);
        if ask == Ask::Get && !pending.operation.read {
            pending.fetched = true;
            return self.enqueue(self.connections[index].client, pending, None);
        }
        if ask == Ask::Set && self.protocol.waits() {
            return self.connections[index].unconfirmed.push(pending);
        }
        self.done(self.connections[index].client, pending, now_ns);
    }

    /// The replicas have the writes before the `WAIT`, or too few have.
    fn on_wait(&mut self, index: usize, reply: &P::Reply<'_>, now_ns: u64) {
        let client = self.connections[index].client;
        let enough = self.protocol.is_replicated(reply);
        for pending in std::mem::take(&mut self.connections[index].unconfirmed) {
            match enough {
                true => self.done(client, pending, now_ns),
                false => self.fail(client, pending, "too few replicas", now_ns),
            }
        }
    }

    fn done(&mut self, client: usize, pending: Pending, now_ns: u64) {
        self.end(client);
        let (open, read) = (self.arrivals.is_some(), pending.operation.read);
        self.recorder.done(&self.shared.phases, open, read, pending.intended_ns, now_ns);
    }

    fn end(&mut self, client: usize) {
        self.clients[client].in_flight -= 1;
        self.in_flight -= 1;
    }

    fn fail(&mut self, client: usize, pending: Pending, code: &str, now_ns: u64) {
        self.end(client);
        self.clients[client].rest_until_ns = now_ns + REST_NS;
        self.source.give_back(pending.operation);
        let counted_ns = if self.arrivals.is_some() { pending.intended_ns } else { now_ns };
        if self.counts(counted_ns) {
            self.recorder.failed(code);
        }
    }

    /// Whether what happens then is told: what is written before anything is measured always is.
    fn counts(&self, at_ns: u64) -> bool {
        self.shared.phases.counts(at_ns) || self.shared.load.operations.fill
    }

    /// A connection broke: its requests failed, the client rests, and its next request connects again.
    fn lose(&mut self, index: usize, error: &io::Error) {
        let now_ns = self.shared.phases.now_ns();
        let client = self.connections[index].client;
        // As its requests are: one that breaks when all is over is no part of the load.
        if self.counts(now_ns) {
            self.recorder.disconnects += 1;
        }
        let code = format!("connection: {}", error.kind());
        for pending in self.connections[index].close() {
            self.fail(client, pending, &code, now_ns);
        }
        self.protocol.lost(index);
        self.go_on(client, now_ns);
    }

    /// Too late: what wasn't answered is an error, and in an open loop its latency so far counts too.
    fn give_up(&mut self, now_ns: u64) {
        let phases = self.shared.phases;
        let mut late: Vec<Pending> = self.connections.iter_mut().flat_map(Connection::forget).collect();
        if let Some(arrivals) = &mut self.arrivals {
            loop {
                let intended_ns = arrivals.schedule.arrival_ns(arrivals.next);
                let Some(operation) = (intended_ns < phases.end_ns).then(|| self.source.next()).flatten()
                else {
                    break;
                };
                arrivals.next += 1;
                late.push(Pending::new(intended_ns, operation));
            }
        }
        for pending in late {
            if phases.counts(pending.intended_ns) || self.arrivals.is_none() {
                self.recorder.gave_up(pending.operation.read, now_ns.saturating_sub(pending.intended_ns));
            }
        }
    }
}

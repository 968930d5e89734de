//! One client's connection to one node: bytes out, bytes in, and which request each reply answers.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::workload::Operation;

/// A request that waits for its reply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    /// When it was meant to start, on the run's clock.
    pub(crate) intended_ns: u64,
    /// To send it again elsewhere.
    pub(crate) operation: Operation,
    /// How many `MOVED` it has followed.
    pub(crate) redirects: u8,
    /// It reads before it writes, and has read.
    pub(crate) fetched: bool,
    /// Its key was there, or wasn't, against what was assumed: a write that makes keys must change them, or the other way round.
    pub(crate) otherwise: bool,
}

impl Pending {
    /// Not sent yet.
    pub(crate) fn new(intended_ns: u64, operation: Operation) -> Self {
        Self { intended_ns, operation, redirects: 0, fetched: false, otherwise: false }
    }
}

/// What the next reply of a connection answers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Awaited {
    /// A request.
    Operation(Pending),
    /// `WAIT`: the writes before it are done once it is answered.
    Replicas,
}

/// Receive space a connection starts with: more than a pipeline of small replies.
const RECEIVE_BYTES: usize = 16 * 1024;

/// A non-blocking connection that reopens itself when it is next used.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Whose it is.
    pub(crate) client: usize,
    /// Where it goes.
    pub(crate) address: SocketAddr,
    /// Requests without their reply, in order.
    pub(crate) pending: VecDeque<Awaited>,
    /// Writes that the server has, and perhaps not yet its replicas.
    pub(crate) unconfirmed: Vec<Pending>,
    /// Writes were sent since the last `WAIT`.
    pub(crate) owes_wait: bool,
    /// Requests not yet written.
    pub(crate) out: Vec<u8>,
    /// In the list of connections with something to write.
    pub(crate) dirty: bool,
    /// The reply to its greeting is due.
    pub(crate) greets: bool,
    socket: Option<TcpStream>,
    writable: bool,
    written: usize,
    received: Vec<u8>,
    filled: usize,
}

impl Connection {
    /// Closed until it is used.
    pub(crate) fn new(client: usize, address: SocketAddr) -> Self {
        Self {
            client,
            address,
            pending: VecDeque::new(),
            unconfirmed: Vec::new(),
            owes_wait: false,
            out: Vec::new(),
            dirty: false,
            socket: None,
            greets: false,
            writable: false,
            written: 0,
            received: Vec::new(),
            filled: 0,
        }
    }

    /// Whether there is a socket, connected or about to be.
    pub(crate) fn is_open(&self) -> bool {
        self.socket.is_some()
    }

    /// Starts connecting if there is no socket. `greeting` goes out before all else and has a reply of its own, unless it is empty.
    pub(crate) fn open(&mut self, registry: &Registry, token: Token, greeting: &[u8]) -> io::Result<()> {
        if self.socket.is_some() {
            return Ok(());
        }
        let mut socket = TcpStream::connect(self.address)?;
        // Edge-triggered: registered once for both, no further call when a write would block.
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        self.received.resize(RECEIVE_BYTES, 0);
        self.socket = Some(socket);
        self.greets = !greeting.is_empty();
        self.out.splice(0..0, greeting.iter().copied());
        Ok(())
    }

    /// Forgets the socket and everything on its way; the requests without reply are handed back.
    pub(crate) fn close(&mut self) -> Vec<Pending> {
        self.socket = None;
        self.writable = false;
        self.out.clear();
        self.written = 0;
        self.filled = 0;
        self.forget()
    }

    /// Expects no more replies; the requests without one are handed back.
    pub(crate) fn forget(&mut self) -> Vec<Pending> {
        self.owes_wait = false;
        let mut lost = std::mem::take(&mut self.unconfirmed);
        lost.extend(self.pending.drain(..).filter_map(|awaited| match awaited {
            Awaited::Operation(pending) => Some(pending),
            Awaited::Replicas => None,
        }));
        lost
    }

    /// The system says it can be written to: connected, or room again.
    pub(crate) fn on_writable(&mut self) -> io::Result<()> {
        let Some(socket) = &self.socket else { return Ok(()) };
        if !self.writable {
            if let Some(error) = socket.take_error()? {
                return Err(error);
            }
            if socket.peer_addr().is_err() {
                return Ok(());
            }
            socket.set_nodelay(true)?;
            self.writable = true;
        }
        self.flush()
    }

    /// Writes what there is, as far as the socket takes it.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let Some(socket) = &mut self.socket else { return Ok(()) };
        while self.writable && self.written < self.out.len() {
            match socket.write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                // The next writable event finds the rest.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
        Ok(())
    }

    /// Reads once. True when there may be more.
    pub(crate) fn receive(&mut self) -> io::Result<bool> {
        let Some(socket) = &mut self.socket else { return Ok(false) };
        if self.filled == self.received.len() {
            let larger = (2 * self.received.len()).max(RECEIVE_BYTES);
            self.received.resize(larger, 0);
        }
        let room = &mut self.received[self.filled..];
        match socket.read(room) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                // A short read has emptied the socket; whatever comes later is a new edge.
                let more = count == room.len();
                self.filled += count;
                Ok(more)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Lends the received bytes out, so that replies can be looked at while requests are queued.
    pub(crate) fn take_received(&mut self) -> (Vec<u8>, usize) {
        (std::mem::take(&mut self.received), self.filled)
    }

    /// Takes them back, without the `used` bytes at the front.
    pub(crate) fn give_received(&mut self, mut received: Vec<u8>, used: usize) {
        if used < self.filled {
            received.copy_within(used..self.filled, 0);
        }
        self.filled -= used;
        self.received = received;
    }
}

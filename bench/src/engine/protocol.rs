//! What the event loop must know of a protocol, and of where things are. Everything else is the same for all.

use std::io;
use std::net::SocketAddr;

use super::connection::Pending;
use super::request::Ask;
use crate::workload::KEY_BYTES;

/// What a reply makes of its request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is answered.
    Answered {
        /// There was nothing to read.
        missed: bool,
    },
    /// It is to be sent to this node, or to the one that now leads its key.
    Elsewhere(Option<usize>),
    /// It is to be sent again with [`Pending::otherwise`] turned round.
    Otherwise,
    /// It failed; the error's code.
    Failed(String),
}

/// A protocol as one thread of a load speaks it. Connections and nodes are numbered by the event loop.
///
/// Replies to requests come in the order of the requests, on each connection.
pub(crate) trait Protocol {
    /// A whole reply, borrowed from the receive buffer.
    type Reply<'a>;

    /// The node to ask about `key`, by the thread's client number `client`.
    fn node_of(&self, client: usize, key: &[u8; KEY_BYTES]) -> usize;

    /// Where a node is.
    fn address(&self, node: usize) -> SocketAddr;

    /// What is sent first on a new connection and has a reply of its own; perhaps nothing.
    fn greeting(&self) -> &[u8];

    /// The length of the reply to the greeting, none while it isn't whole.
    ///
    /// # Errors
    /// The server refuses, or speaks another language: the connection is of no use.
    fn greeted(&self, bytes: &[u8]) -> io::Result<Option<usize>>;

    /// Appends the request for `pending`, or for the part of it that `ask` says.
    fn append(
        &mut self,
        connection: usize,
        out: &mut Vec<u8>,
        ask: Ask,
        pending: &Pending,
        key: &[u8; KEY_BYTES],
    );

    /// The reply at the front of `bytes` and its length, none while it isn't whole.
    ///
    /// # Errors
    /// These bytes are no reply, nor will be: the connection is of no use.
    fn parse<'a>(&self, bytes: &'a [u8]) -> io::Result<Option<(Self::Reply<'a>, usize)>>;

    /// What `reply` makes of its request, which went to `asked`. Without `may_follow` it is not sent again.
    ///
    /// # Errors
    /// It isn't the reply to this request: the connection is of no use.
    fn judge(
        &mut self,
        connection: usize,
        reply: &Self::Reply<'_>,
        ask: Ask,
        pending: &Pending,
        asked: SocketAddr,
        may_follow: bool,
    ) -> io::Result<Verdict>;

    /// A connection broke, or couldn't be made.
    fn lost(&mut self, connection: usize);

    /// Once a turn of the event loop.
    fn turn(&mut self) {}

    /// Whether all clients connect before the first request, since connecting costs more than a packet or two.
    fn connects_first(&self) -> bool {
        false
    }

    /// Whether a reply answers no request, but a sign of life.
    fn is_aside(&self, _reply: &Self::Reply<'_>) -> bool {
        false
    }

    /// How often each connection gives a sign of life, in nanoseconds; none if it needn't.
    fn ping_ns(&self) -> Option<u64> {
        None
    }

    /// Appends a sign of life.
    fn append_ping(&self, _out: &mut Vec<u8>) {}

    /// Appends the last request of a connection, after which the server hangs up; false if there is no such thing.
    fn append_farewell(&mut self, _connection: usize, _out: &mut Vec<u8>) -> bool {
        false
    }

    /// Whether writes are followed by a question whether replicas have them.
    fn waits(&self) -> bool {
        false
    }

    /// Appends that question.
    fn append_wait(&self, _out: &mut Vec<u8>) {}

    /// Whether its reply says that they have.
    fn is_replicated(&self, _reply: &Self::Reply<'_>) -> bool {
        true
    }
}

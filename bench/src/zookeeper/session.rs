//! ZooKeeper as the event loop speaks it.

use std::io;
use std::net::SocketAddr;

use super::Ensemble;
use super::wire::{self, ErrorCode, PING_XID, Question, Reply, Requests, WireError};
use crate::engine::connection::Pending;
use crate::engine::protocol::{Protocol, Verdict};
use crate::engine::request::Ask;
use crate::workload::{Flavour, KEY_BYTES, Load};

/// How long a session lives without a sign of life: within the two to twenty ticks that servers grant.
const TIMEOUT_MS: i32 = 30_000;
/// A third of it, as ZooKeeper's own clients do.
const PING_NS: u64 = TIMEOUT_MS as u64 * 1_000_000 / 3;

/// The sessions of one thread, one for each of its connections.
pub(super) struct Sessions {
    members: Vec<SocketAddr>,
    /// This thread's number, and how many there are.
    thread: (usize, usize),
    requests: Requests,
    /// Keys are thought new: a write makes them, and changes them only if they are there.
    creates_first: bool,
    xids: Vec<Xids>,
}

/// Numbers of a connection's requests. Pings have none.
#[derive(Clone, Copy, Debug, Default)]
struct Xids {
    /// Of the last that was sent.
    sent: i32,
    /// Of the last that was answered.
    answered: i32,
}

impl Sessions {
    /// Those of thread `thread` of `load`.
    pub(super) fn new(load: &Load, ensemble: &Ensemble, thread: usize) -> Self {
        let operations = &load.operations;
        Self {
            members: ensemble.members.clone(),
            thread: (thread, load.threads),
            requests: Requests::new(operations.value_bytes, TIMEOUT_MS),
            creates_first: operations.fill || operations.flavour == Flavour::Insert,
            xids: Vec::new(),
        }
    }

    fn xids(&mut self, connection: usize) -> &mut Xids {
        if self.xids.len() <= connection {
            self.xids.resize(connection + 1, Xids::default());
        }
        &mut self.xids[connection]
    }

    /// What is asked for `pending`.
    fn question(&self, ask: Ask, pending: &Pending) -> Question {
        match ask {
            Ask::Get => Question::GetData,
            Ask::Set if self.creates_first != pending.otherwise => Question::Create,
            Ask::Set => Question::SetData,
            Ask::Scan => unreachable!("ZooKeeper has no scans: see `compare::loads::cannot`"),
        }
    }
}

/// The next number: they wrap round to 0, since those below it mean something else.
fn following(xid: i32) -> i32 {
    xid.checked_add(1).unwrap_or(0)
}

fn invalid(error: WireError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl Protocol for Sessions {
    type Reply<'a> = Reply<'a>;

    /// Clients are dealt out over the members, those of all threads together.
    fn node_of(&self, client: usize, _key: &[u8; KEY_BYTES]) -> usize {
        let (thread, threads) = self.thread;
        (client * threads + thread) % self.members.len()
    }

    fn address(&self, node: usize) -> SocketAddr {
        self.members[node]
    }

    fn greeting(&self) -> &[u8] {
        self.requests.connect()
    }

    fn greeted(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        wire::parse_connected(bytes).map_err(invalid)
    }

    fn append(
        &mut self,
        connection: usize,
        out: &mut Vec<u8>,
        ask: Ask,
        pending: &Pending,
        key: &[u8; KEY_BYTES],
    ) {
        let question = self.question(ask, pending);
        let xids = self.xids(connection);
        xids.sent = following(xids.sent);
        let xid = xids.sent;
        self.requests.append(out, question, xid, key);
    }

    fn parse<'a>(&self, bytes: &'a [u8]) -> io::Result<Option<(Reply<'a>, usize)>> {
        wire::parse(bytes).map_err(invalid)
    }

    fn judge(
        &mut self,
        connection: usize,
        reply: &Reply<'_>,
        ask: Ask,
        pending: &Pending,
        _asked: SocketAddr,
        may_follow: bool,
    ) -> io::Result<Verdict> {
        let xids = self.xids(connection);
        let expected = following(xids.answered);
        if reply.xid != expected {
            return Err(invalid(WireError::Order { expected, found: reply.xid }));
        }
        xids.answered = expected;
        let question = self.question(ask, pending);
        let checked = match (question, reply.fields) {
            (Question::GetData, Ok(fields)) => wire::check_data(fields),
            (Question::SetData, Ok(fields)) => wire::check_stat(fields),
            (Question::Create, Ok(fields)) => wire::check_path(fields),
            (Question::GetData, Err(ErrorCode::NO_NODE)) => return Ok(Verdict::Answered { missed: true }),
            (Question::SetData, Err(ErrorCode::NO_NODE))
            | (Question::Create, Err(ErrorCode::NODE_EXISTS))
                if may_follow =>
            {
                return Ok(Verdict::Otherwise);
            }
            (_, Err(code)) => return Ok(Verdict::Failed(code.name())),
        };
        checked.map(|()| Verdict::Answered { missed: false }).map_err(invalid)
    }

    fn lost(&mut self, connection: usize) {
        // The next one is a session of its own, and counts anew.
        *self.xids(connection) = Xids::default();
    }

    fn connects_first(&self) -> bool {
        // A session is agreed on and synced like a write.
        true
    }

    fn is_aside(&self, reply: &Reply<'_>) -> bool {
        reply.xid == PING_XID
    }

    fn ping_ns(&self) -> Option<u64> {
        Some(PING_NS)
    }

    fn append_ping(&self, out: &mut Vec<u8>) {
        wire::append_ping(out);
    }

    fn append_farewell(&mut self, connection: usize, out: &mut Vec<u8>) -> bool {
        let xid = following(self.xids(connection).sent);
        wire::append_close(out, xid);
        true
    }
}

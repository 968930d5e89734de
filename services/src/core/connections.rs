//! The connections of a core: what each has asked, and the replies that go out in the order of the commands.

use super::access::Access;
use super::gather::Gathering;
use super::remote::Message;
use super::transaction::{Queue, Watching};
use crate::command::{ConnectionState, Quiet, Spec, code};
use crate::config::Config;
use crate::resp::{Limits, Protocol, ReplyWriter};
use flotilla_runtime::planted::{Bug, planted};
use flotilla_runtime::{ConnId, Effect, Effects, Histogram, Nanos, Now, SplitMix64};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a command whose reply is due does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Does {
    /// Reads, or something else that changes nothing.
    Read,
    /// Reads what this follower has, once its leader says how much that must be.
    ReadHere,
    /// Writes.
    Write,
    /// Reads versions, which the connection remembers.
    Watch,
}

impl Does {
    pub(super) fn of(spec: &Spec) -> Self {
        match spec.code {
            code::WATCH => Self::Watch,
            _ if spec.is_write() => Self::Write,
            _ => Self::Read,
        }
    }
}

/// The reply to one command of a pipeline.
#[derive(Debug)]
enum Reply {
    /// Still due; if muted, the client doesn't want to have it.
    Waiting { does: Does, is_muted: bool, since: Nanos },
    /// Still due, in parts.
    Gathering { gathering: Box<Gathering>, does: Does, is_muted: bool, since: Nanos },
    /// Here, but an earlier one isn't.
    Ready(Vec<u8>),
}

/// One client's connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) state: ConnectionState,
    /// What it may do.
    pub(super) access: Access,
    output: Vec<u8>,
    /// Replies that can't be written yet; the first is for command number `first`.
    replies: VecDeque<Reply>,
    first: u64,
    /// Bytes of those that are ready and wait for an earlier one.
    held: usize,
    /// Writes among them that are still on their way.
    writes: u32,
    /// Reads among them that a follower serves.
    reads_here: usize,
    /// Bytes of its commands that another core or node is to execute.
    sent_on: usize,
    /// Between `MULTI` and `EXEC`: the commands.
    pub(super) queue: Option<Box<Queue>>,
    /// Since `WATCH`: the keys.
    pub(super) watching: Option<Box<Watching>>,
    /// Nothing more is taken until fewer than so many replies are due.
    paused: Option<usize>,
    /// [`Core::ways_changed`](super::Core::ways_changed) when the commands that wait were sent on their ways.
    ways: u64,
    /// A command that was given back, undone, and when it was for the first time.
    tried: Option<(u64, Nanos)>,
    pub(super) closing: bool,
    cut_off: bool,
    /// The command at the front isn't whole with fewer bytes.
    pub(super) bytes_min: usize,
}

impl Connection {
    /// The number of the next command.
    pub(super) fn due(&self) -> u64 {
        self.first + self.replies.len() as u64
    }

    /// Whether the reply to the command of that number is still due.
    pub(super) fn is_waiting(&self, sequence: u64) -> bool {
        let place = sequence.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        let reply = place.and_then(|place| self.replies.get(place));
        reply.is_some_and(|reply| !matches!(reply, Reply::Ready(_)))
    }

    /// How many replies are due.
    pub(super) fn replies_due(&self) -> usize {
        self.replies.len()
    }

    /// Bytes of its commands that are on their way to other cores or nodes, and not answered.
    pub(super) fn sent_on_bytes(&self) -> usize {
        self.sent_on
    }

    /// Whether no further command is taken at all.
    pub(super) fn is_over(&self) -> bool {
        self.closing || self.cut_off
    }

    /// Takes no command until fewer than so many replies are due.
    pub(super) fn pause(&mut self, below: usize) {
        self.paused = Some(below);
    }

    /// Whether writes are on their way.
    pub(super) fn writes(&self) -> bool {
        self.writes > 0
    }

    /// A command begins: is there something to it that the one before left behind?
    pub(super) fn begin_command(&mut self) {
        self.state.quiet = match self.state.quiet {
            Quiet::Next => Quiet::Now,
            Quiet::Now => Quiet::No,
            as_it_is => as_it_is,
        };
    }

    fn is_muted(&self) -> bool {
        matches!(self.state.quiet, Quiet::Now | Quiet::Always)
    }

    /// Moves the replies that no earlier one keeps back to the output; the bytes of the longest.
    fn release(&mut self) -> usize {
        let mut longest = 0;
        while let Some(Reply::Ready(_)) = self.replies.front() {
            let Some(Reply::Ready(bytes)) = self.replies.pop_front() else { unreachable!("just seen") };
            self.held -= bytes.len();
            self.output.extend_from_slice(&bytes);
            self.first += 1;
            longest = longest.max(bytes.len());
        }
        longest
    }

    /// Whether what waits for its answer decides if the next command may be taken.
    pub(super) fn is_particular(&self) -> bool {
        self.reads_here > 0 || self.watching.is_some()
    }

    /// Whether that command is the only one that waits; since when it has been tried, if it wasn't done before.
    pub(super) fn is_alone(&mut self, sequence: u64, now: Nanos) -> Option<Nanos> {
        let is_it = self.replies.len() == 1 && self.is_waiting(sequence) && !self.cut_off;
        is_it.then(|| {
            let (of, since) = self.tried.filter(|(of, _)| *of == sequence).unwrap_or((sequence, now));
            self.tried = Some((of, since));
            since
        })
    }

    /// Whether a command that couldn't be executed waits until somebody is known who can: what comes behind it must not overtake it.
    pub(super) fn waits_for_a_way(&self) -> bool {
        self.tried.is_some_and(|(of, _)| self.is_waiting(of))
    }

    /// Whether the next command would go another way than those that still wait, and might overtake them: the ways have changed.
    pub(super) fn is_at_a_fork(&mut self, ways_changed: u64) -> bool {
        if self.replies.is_empty() {
            self.ways = ways_changed;
        }
        self.ways != ways_changed && !planted(Bug::ForksNotSeen)
    }

    /// A client that asks for more in one go than it may leave unread is cut off, as one that never reads.
    /// A single reply may be of any size.
    fn bound(&mut self, bytes_max: usize, newest: usize) {
        if (self.output.len() + self.held).saturating_sub(newest) > bytes_max {
            self.output = Vec::new();
            self.cut_off = true;
        }
    }
}

/// What operators are told of commands.
#[derive(Debug)]
pub(super) struct Counts {
    /// How often each was sent, by its place in the table.
    pub(super) commands: Vec<u64>,
    /// Errors, by their first word.
    pub(super) errors: BTreeMap<String, u64>,
    /// From a command to its reply: reads, writes.
    pub(super) times: [Histogram; 2],
}

/// First words of errors that are told apart.
const ERRORS_MAX: usize = 64;

impl Default for Counts {
    fn default() -> Self {
        let commands = vec![0; crate::command::all().len()];
        Self { commands, errors: BTreeMap::new(), times: Default::default() }
    }
}

impl Counts {
    #[inline]
    fn replied(&mut self, reply: &[u8]) {
        if reply.first() == Some(&b'-') {
            self.failed(&reply[1..]);
        }
    }

    #[cold]
    fn failed(&mut self, words: &[u8]) {
        let end = words.iter().position(|byte| !byte.is_ascii_uppercase()).unwrap_or(words.len());
        let word = std::str::from_utf8(&words[..end]).unwrap_or_default();
        let word = if word.is_empty() || word.len() > 20 { "ERR" } else { word };
        if let Some(count) = self.errors.get_mut(word) {
            *count += 1;
        } else if self.errors.len() < ERRORS_MAX {
            self.errors.insert(word.to_owned(), 1);
        }
    }

    #[inline]
    fn took(&mut self, does: Does, nanos: Nanos) {
        self.times[usize::from(does == Does::Write)].record(nanos);
    }
}

/// The clients of one core.
pub(crate) struct Connections {
    pub(super) limits: Limits,
    output_bytes_max: usize,
    pub(super) map: BTreeMap<ConnId, Connection>,
    /// Those with something to write, or to close.
    dirty: BTreeSet<ConnId>,
    pub(super) opened_total: u64,
    pub(super) commands_total: u64,
    /// The instant of the event that is handled, or of the end of the turn.
    now: Nanos,
    pub(super) unix_ms: u64,
    /// How long the client had to wait for the reply that was written last.
    took: Option<Nanos>,
    counts: Counts,
    rng: SplitMix64,
}

impl Connections {
    pub(super) fn new(config: &Config, seed: u64) -> Self {
        let limits = Limits { bulk_bytes_max: config.limits.value_bytes_max, ..Limits::default() };
        Self {
            limits,
            output_bytes_max: config.limits.client_output_bytes_max,
            map: BTreeMap::new(),
            dirty: BTreeSet::new(),
            opened_total: 0,
            commands_total: 0,
            now: 0,
            unix_ms: 0,
            took: None,
            counts: Counts::default(),
            rng: SplitMix64::new(seed),
        }
    }

    /// The bounds are those of the configuration from here on.
    pub(super) fn bound_by(&mut self, config: &Config) {
        self.limits.bulk_bytes_max = config.limits.value_bytes_max;
        self.output_bytes_max = config.limits.client_output_bytes_max;
    }

    /// An event is handled, or a turn ends, at this instant.
    pub(super) fn time_is(&mut self, now: Now) {
        (self.now, self.unix_ms) = (now.monotonic, now.unix_ms);
    }

    /// How long a client had to wait for its reply, if one was written since the last call.
    #[inline]
    pub(super) fn take_took(&mut self) -> Option<Nanos> {
        self.took.take()
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// A client has sent this command.
    #[inline]
    pub(super) fn count(&mut self, spec: &Spec) {
        self.counts.commands[spec.place()] += 1;
    }

    pub(super) fn open(&mut self, conn: ConnId) {
        self.opened_total += 1;
        let connection = Connection {
            state: ConnectionState::new(conn.0),
            access: Access::Locked,
            output: Vec::new(),
            replies: VecDeque::new(),
            first: 0,
            held: 0,
            writes: 0,
            reads_here: 0,
            sent_on: 0,
            queue: None,
            watching: None,
            paused: None,
            ways: 0,
            tried: None,
            closing: false,
            cut_off: false,
            bytes_min: 0,
        };
        self.map.insert(conn, connection);
    }

    pub(super) fn close(&mut self, conn: ConnId) {
        self.map.remove(&conn);
        self.dirty.remove(&conn);
    }

    /// Those that aren't about to be closed.
    pub(super) fn len(&self) -> usize {
        self.map.values().filter(|connection| !connection.is_over()).count()
    }

    /// Whether this follower serves reads that the client waits for, and whether it waits for nothing else.
    pub(super) fn reads_here(&self, conn: ConnId) -> (bool, bool) {
        let connection = self.map.get(&conn);
        connection.map_or((false, false), |it| (it.reads_here > 0, it.reads_here == it.replies.len()))
    }

    /// The RESP version that the client speaks.
    pub(super) fn protocol(&self, conn: ConnId) -> Protocol {
        self.map.get(&conn).map_or(Protocol::Resp2, |connection| connection.state.protocol)
    }

    /// Replies that clients wait for.
    pub(super) fn waiting(&self) -> usize {
        self.map.values().map(|connection| connection.replies.len()).sum()
    }

    /// The command gets its reply now.
    pub(super) fn reply(&mut self, conn: ConnId, write: impl FnOnce(&mut ReplyWriter<'_>)) {
        let Some(connection) = self.map.get_mut(&conn) else { return };
        if connection.cut_off || connection.is_muted() {
            return;
        }
        let protocol = connection.state.protocol;
        let newest = if connection.replies.is_empty() {
            connection.first += 1;
            self.dirty.insert(conn);
            let before = connection.output.len();
            write(&mut ReplyWriter::new(&mut connection.output, protocol));
            self.counts.replied(&connection.output[before..]);
            connection.output.len() - before
        } else {
            let mut bytes = Vec::new();
            write(&mut ReplyWriter::new(&mut bytes, protocol));
            self.counts.replied(&bytes);
            let length = bytes.len();
            connection.held += length;
            connection.replies.push_back(Reply::Ready(bytes));
            length
        };
        connection.bound(self.output_bytes_max, newest);
    }

    /// The command's reply will come later; returns its number.
    pub(super) fn promise(&mut self, conn: ConnId, does: Does) -> u64 {
        let is_muted = self.map.get(&conn).is_some_and(Connection::is_muted);
        self.promise_as(conn, Reply::Waiting { does, is_muted, since: self.now }, does)
    }

    /// The command's reply will come later, in parts.
    pub(super) fn promise_parts(&mut self, conn: ConnId, gathering: Gathering, does: Does) -> u64 {
        let is_muted = self.map.get(&conn).is_some_and(Connection::is_muted);
        self.promise_as(
            conn,
            Reply::Gathering { gathering: Box::new(gathering), does, is_muted, since: self.now },
            does,
        )
    }

    fn promise_as(&mut self, conn: ConnId, reply: Reply, does: Does) -> u64 {
        let Some(connection) = self.map.get_mut(&conn) else { return 0 };
        let sequence = connection.due();
        connection.replies.push_back(reply);
        connection.writes += u32::from(does == Does::Write);
        connection.reads_here += usize::from(does == Does::ReadHere);
        sequence
    }

    /// A promised reply is here, or a part of it.
    pub(super) fn fill(&mut self, conn: ConnId, sequence: u64, write: impl FnOnce(&mut ReplyWriter<'_>)) {
        let Some(connection) = self.map.get_mut(&conn) else {
            // Gone; but what the reply does besides writing (applying a command) must still happen.
            self.took = None;
            return write(&mut ReplyWriter::discard());
        };
        let place = usize::try_from(sequence - connection.first).expect("a pipeline is short");
        let reply = connection.replies.get_mut(place).expect("promised, and not filled before");
        let protocol = connection.state.protocol;
        let (does, is_muted, since) = match reply {
            Reply::Waiting { does: Does::Watch, is_muted, since } => {
                let (is_muted, since) = (*is_muted, *since);
                let mut bytes = Vec::new();
                write(&mut ReplyWriter::new(&mut bytes, protocol));
                *reply = Reply::Waiting { does: Does::Read, is_muted, since };
                let bytes = Watching::learn(&mut connection.watching, sequence, bytes);
                return self.fill_raw(conn, sequence, &bytes);
            }
            Reply::Waiting { does, is_muted, since } => (*does, *is_muted, *since),
            Reply::Gathering { gathering, does, is_muted, since } => {
                let (mut bytes, does, is_muted, since) = (Vec::new(), *does, *is_muted, *since);
                write(&mut ReplyWriter::new(&mut bytes, protocol));
                if !gathering.add(bytes) {
                    return;
                }
                let whole = gathering.whole(protocol, &mut self.rng);
                *reply = Reply::Waiting { does, is_muted, since };
                return self.fill_raw(conn, sequence, &whole);
            }
            Reply::Ready(_) => unreachable!("a reply is filled once"),
        };
        let took = self.now.saturating_sub(since);
        self.counts.took(does, took);
        self.took = Some(took);
        connection.writes -= u32::from(does == Does::Write);
        connection.reads_here -= usize::from(does == Does::ReadHere);
        self.dirty.insert(conn);
        if connection.cut_off || is_muted {
            *reply = Reply::Ready(Vec::new());
            write(&mut ReplyWriter::discard());
            // Of a client that is cut off nothing more is answered: what is behind this would be taken for its reply.
            if !connection.cut_off {
                connection.release();
            }
            return;
        }
        if place > 0 {
            let mut bytes = Vec::new();
            write(&mut ReplyWriter::new(&mut bytes, protocol));
            self.counts.replied(&bytes);
            let length = bytes.len();
            connection.held += length;
            *reply = Reply::Ready(bytes);
            return connection.bound(self.output_bytes_max, length);
        }
        connection.replies.pop_front();
        connection.first += 1;
        let before = connection.output.len();
        write(&mut ReplyWriter::new(&mut connection.output, protocol));
        self.counts.replied(&connection.output[before..]);
        let newest = connection.output.len() - before;
        let newest = newest.max(connection.release());
        connection.bound(self.output_bytes_max, newest);
    }

    /// A promised reply is here, as bytes from elsewhere.
    pub(super) fn fill_raw(&mut self, conn: ConnId, sequence: u64, bytes: &[u8]) {
        self.fill(conn, sequence, |reply| reply.raw(bytes));
    }

    /// One of its commands, of so many bytes, is sent to another core or node.
    pub(super) fn sent_on(&mut self, conn: ConnId, bytes: usize) {
        if let Some(connection) = self.map.get_mut(&conn) {
            connection.sent_on += bytes;
        }
    }

    /// It isn't there any more.
    pub(super) fn is_back(&mut self, conn: ConnId, bytes: usize) {
        if let Some(connection) = self.map.get_mut(&conn) {
            connection.sent_on -= bytes;
        }
    }

    /// Closes a connection whose command has an unknown outcome: as if the reply had been lost on the way.
    pub(super) fn cut_off(&mut self, conn: ConnId) {
        if let Some(connection) = self.map.get_mut(&conn) {
            connection.cut_off = true;
            self.dirty.insert(conn);
        }
    }

    /// A line for each connection, as `CLIENT LIST` shows it.
    pub(super) fn describe(&self) -> Vec<(u64, String)> {
        let line = |connection: &Connection| {
            let queued = connection.queue.as_ref().map_or(-1, |queue| queue.describe());
            let watched = connection.watching.as_ref().map_or(0, |watching| watching.describe());
            format!(
                "{} multi={queued} watch={watched} omem={}",
                connection.state.describe(),
                connection.output.len()
            )
        };
        // Who is being closed is gone already.
        let open = self.map.iter().filter(|(_, connection)| !connection.is_over());
        open.map(|(conn, connection)| (conn.0, line(connection))).collect()
    }

    /// Ends a connection behind the replies that are due to it: nothing more is taken.
    pub(super) fn end(&mut self, conn: ConnId) {
        if let Some(connection) = self.map.get_mut(&conn) {
            connection.closing = true;
            self.dirty.insert(conn);
        }
    }

    /// Closes a connection because somebody asked for it; returns whether it was there.
    pub(super) fn kill(&mut self, conn: ConnId, by: ConnId) -> bool {
        let Some(connection) = self.map.get_mut(&conn).filter(|connection| !connection.is_over()) else {
            return false;
        };
        // Whoever asks for its own end gets the answer first.
        connection.closing = true;
        connection.cut_off |= conn != by;
        self.dirty.insert(conn);
        true
    }

    /// Hands the turn's replies to the driver.
    pub(super) fn flush(&mut self, out: &mut Effects<Message>) {
        for conn in std::mem::take(&mut self.dirty) {
            let Some(connection) = self.map.get_mut(&conn) else { continue };
            if !connection.output.is_empty() {
                out.push(Effect::Reply { conn, bytes: std::mem::take(&mut connection.output) });
            }
            if connection.cut_off || (connection.closing && connection.replies.is_empty()) {
                connection.closing = true;
                out.push(Effect::Close { conn });
            } else if connection.paused.take_if(|below| connection.replies.len() < *below).is_some() {
                out.push(Effect::Resume { conn });
            }
        }
    }
}

//! A core's clients: bytes in, commands out, replies in the order of the commands.

use super::Core;
use super::group::Call;
use super::remote::{Message, Origin, Outgoing};
use crate::command::{ConnectionState, Kind, Spec, check, lookup, run_plain, unknown_command};
use crate::config::{Config, Redirect};
use crate::entry::Args;
use crate::resp::{self, Limits, Parsed, Protocol, ReplyWriter};
use crate::slot::{Slot, slot_of_command};
use flotilla_consensus::{GroupId, Refused};
use flotilla_runtime::{ConnId, Effect, Effects, NodeId, Now, Taken};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Commands of one connection that may wait for their replies; beyond, the driver stops reading from it.
const PIPELINE_MAX: usize = 4096;

/// A command's arguments as one piece: a 32-bit length before each.
#[derive(Clone, Debug)]
pub struct PackedArgs(Vec<u8>);

impl PackedArgs {
    pub(super) fn pack(args: &[&[u8]]) -> Self {
        let mut bytes = Vec::with_capacity(args.iter().map(|arg| arg.len() + 4).sum());
        for arg in args {
            let length = u32::try_from(arg.len()).expect("an argument is bounded far below 4 GiB");
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(arg);
        }
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The arguments again, unless the bytes are no packed arguments.
    pub(super) fn unpack(mut bytes: &[u8]) -> Option<Args<'_>> {
        let mut args = Args::new();
        while !bytes.is_empty() {
            let (length, rest) = bytes.split_at_checked(4)?;
            let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
            let (arg, rest) = rest.split_at_checked(length)?;
            args.push(arg);
            bytes = rest;
        }
        Some(args)
    }
}

/// What a command whose reply is due does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Does {
    /// Reads, or something else that changes nothing.
    Read,
    /// Reads what this follower has, once its leader says how much that must be.
    ReadHere,
    /// Writes.
    Write,
}

/// The reply to one command of a pipeline.
#[derive(Debug)]
enum Reply {
    /// Still due, from so many groups.
    Waiting { left: u32, does: Does },
    /// Here, but an earlier one isn't.
    Ready(Vec<u8>),
}

#[derive(Debug)]
struct Connection {
    state: ConnectionState,
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
    /// Nothing more is taken until fewer than so many replies are due.
    paused: Option<usize>,
    closing: bool,
    cut_off: bool,
}

impl Connection {
    fn due(&self) -> u64 {
        self.first + self.replies.len() as u64
    }

    /// A client that asks for more in one go than it may leave unread is cut off, as one that never reads.
    fn bound(&mut self, bytes_max: usize) {
        if self.output.len() + self.held > bytes_max {
            self.output = Vec::new();
            self.cut_off = true;
        }
    }
}

/// The clients of one core.
pub(crate) struct Connections {
    limits: Limits,
    output_bytes_max: usize,
    map: BTreeMap<ConnId, Connection>,
    /// Those with something to write, or to close.
    dirty: BTreeSet<ConnId>,
    pub(super) opened_total: u64,
    pub(super) commands_total: u64,
}

impl Connections {
    pub(super) fn new(config: &Config) -> Self {
        let limits = Limits { bulk_bytes_max: config.limits.value_bytes_max, ..Limits::default() };
        Self {
            limits,
            output_bytes_max: config.limits.client_output_bytes_max,
            map: BTreeMap::new(),
            dirty: BTreeSet::new(),
            opened_total: 0,
            commands_total: 0,
        }
    }

    pub(super) fn open(&mut self, conn: ConnId) {
        self.opened_total += 1;
        let connection = Connection {
            state: ConnectionState::new(conn.0),
            output: Vec::new(),
            replies: VecDeque::new(),
            first: 0,
            held: 0,
            writes: 0,
            reads_here: 0,
            paused: None,
            closing: false,
            cut_off: false,
        };
        self.map.insert(conn, connection);
    }

    pub(super) fn close(&mut self, conn: ConnId) {
        self.map.remove(&conn);
        self.dirty.remove(&conn);
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
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
    fn reply(&mut self, conn: ConnId, write: impl FnOnce(&mut ReplyWriter<'_>)) {
        let Some(connection) = self.map.get_mut(&conn) else { return };
        if connection.cut_off {
            return;
        }
        let protocol = connection.state.protocol;
        if connection.replies.is_empty() {
            connection.first += 1;
            self.dirty.insert(conn);
            let mut reply = ReplyWriter::new(&mut connection.output, protocol);
            write(&mut reply);
        } else {
            let mut bytes = Vec::new();
            write(&mut ReplyWriter::new(&mut bytes, protocol));
            connection.held += bytes.len();
            connection.replies.push_back(Reply::Ready(bytes));
        }
        connection.bound(self.output_bytes_max);
    }

    /// The command's reply will come later, from `left` groups; returns its number.
    pub(super) fn promise(&mut self, conn: ConnId, left: u32, writes: bool) -> u64 {
        self.promise_what(conn, left, if writes { Does::Write } else { Does::Read })
    }

    pub(super) fn promise_what(&mut self, conn: ConnId, left: u32, does: Does) -> u64 {
        let Some(connection) = self.map.get_mut(&conn) else { return 0 };
        let sequence = connection.due();
        connection.replies.push_back(Reply::Waiting { left, does });
        connection.writes += u32::from(does == Does::Write);
        connection.reads_here += usize::from(does == Does::ReadHere);
        sequence
    }

    /// A promised reply is here.
    pub(super) fn fill(&mut self, conn: ConnId, sequence: u64, write: impl FnOnce(&mut ReplyWriter<'_>)) {
        let Some(connection) = self.map.get_mut(&conn) else {
            // Gone; but what the reply does besides writing (applying a command) must still happen.
            return write(&mut ReplyWriter::discard());
        };
        let place = usize::try_from(sequence - connection.first).expect("a pipeline is short");
        let reply = connection.replies.get_mut(place).expect("promised, and not filled before");
        let Reply::Waiting { left, does } = reply else { unreachable!("a reply is filled once") };
        *left -= 1;
        if *left > 0 {
            return write(&mut ReplyWriter::discard());
        }
        connection.writes -= u32::from(*does == Does::Write);
        connection.reads_here -= usize::from(*does == Does::ReadHere);
        let protocol = connection.state.protocol;
        if connection.cut_off {
            *reply = Reply::Ready(Vec::new());
            self.dirty.insert(conn);
            return write(&mut ReplyWriter::discard());
        }
        if place > 0 {
            let mut bytes = Vec::new();
            write(&mut ReplyWriter::new(&mut bytes, protocol));
            connection.held += bytes.len();
            *reply = Reply::Ready(bytes);
            self.dirty.insert(conn);
            return connection.bound(self.output_bytes_max);
        }
        connection.replies.pop_front();
        connection.first += 1;
        write(&mut ReplyWriter::new(&mut connection.output, protocol));
        while let Some(Reply::Ready(_)) = connection.replies.front() {
            let Some(Reply::Ready(bytes)) = connection.replies.pop_front() else { unreachable!("just seen") };
            connection.held -= bytes.len();
            connection.output.extend_from_slice(&bytes);
            connection.first += 1;
        }
        connection.bound(self.output_bytes_max);
        self.dirty.insert(conn);
    }

    /// A promised reply is here, as bytes from elsewhere.
    pub(super) fn fill_raw(&mut self, conn: ConnId, sequence: u64, bytes: &[u8]) {
        self.fill(conn, sequence, |reply| reply.raw(bytes));
    }

    /// Closes a connection whose command has an unknown outcome: as if the reply had been lost on the way.
    pub(super) fn cut_off(&mut self, conn: ConnId) {
        if let Some(connection) = self.map.get_mut(&conn) {
            connection.cut_off = true;
            self.dirty.insert(conn);
        }
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

impl Core {
    /// Takes every whole command from a client's bytes.
    pub(super) fn client_bytes(
        &mut self,
        now: Now,
        conn: ConnId,
        bytes: &[u8],
        taken: &mut Taken,
        out: &mut Effects<Message>,
    ) {
        let limits = self.connections.limits;
        let mut args = Args::new();
        while taken.bytes < bytes.len() {
            let Some(connection) = self.connections.map.get_mut(&conn) else { return };
            if connection.closing || connection.cut_off {
                taken.bytes = bytes.len();
                return;
            }
            if connection.replies.len() >= PIPELINE_MAX {
                connection.paused = Some(PIPELINE_MAX / 2);
                taken.pause = true;
                return;
            }
            match resp::parse(&bytes[taken.bytes..], &limits, &mut args) {
                Ok(Parsed::Command { .. }) if self.must_wait_for_reads(now, conn, &args) => {
                    if let Some(connection) = self.connections.map.get_mut(&conn) {
                        connection.paused = Some(1);
                    }
                    taken.pause = true;
                    return;
                }
                Ok(Parsed::Command { consumed }) => {
                    taken.bytes += consumed;
                    if !args.is_empty() {
                        self.connections.commands_total += 1;
                        self.command(now, conn, &args, out);
                    }
                }
                Ok(Parsed::Incomplete) => return,
                Err(error) => {
                    taken.bytes = bytes.len();
                    self.connections.reply(conn, |reply| reply.error(&format!("ERR {error}")));
                    if let Some(connection) = self.connections.map.get_mut(&conn) {
                        connection.closing = true;
                    }
                    return;
                }
            }
        }
    }

    fn command(&mut self, now: Now, conn: ConnId, args: &[&[u8]], out: &mut Effects<Message>) {
        let Some(spec) = lookup(args[0]) else {
            return self.connections.reply(conn, |reply| reply.error(&unknown_command(args)));
        };
        if let Err(rejected) = check(spec, args) {
            return self.connections.reply(conn, |reply| reply.error(&rejected.to_string()));
        }
        match spec.kind {
            _ if spec.name == "flotilla.member" => {
                let Some(connection) = self.connections.map.get(&conn) else { return };
                let (protocol, mut bytes) = (connection.state.protocol, Vec::new());
                self.member_command(now, args, &mut ReplyWriter::new(&mut bytes, protocol));
                self.connections.reply(conn, |reply| reply.raw(&bytes));
            }
            Kind::Read | Kind::Write => self.data_command(now, conn, spec, args, out),
            Kind::Server if spec.name == "flotilla.transfer" => {
                self.transfer_command(now, conn, spec, args, out);
            }
            Kind::Connection | Kind::Server | Kind::Cluster => self.plain_command(now, conn, spec, args),
        }
    }

    /// A command that touches no key: answered on the spot.
    fn plain_command(&mut self, now: Now, conn: ConnId, spec: &'static Spec, args: &[&[u8]]) {
        let Some(mut state) = self.connections.map.get(&conn).map(|connection| connection.state.clone())
        else {
            return;
        };
        let mut bytes = Vec::new();
        let mut reply = ReplyWriter::new(&mut bytes, state.protocol);
        let close = run_plain(spec, args, &mut state, &self.node_view(now), &mut reply);
        self.connections.reply(conn, |reply| reply.raw(&bytes));
        if let Some(connection) = self.connections.map.get_mut(&conn) {
            connection.state = state;
            connection.closing |= close;
        }
    }

    fn data_command(
        &mut self,
        now: Now,
        conn: ConnId,
        spec: &'static Spec,
        args: &[&[u8]],
        out: &mut Effects<Message>,
    ) {
        let slot = match slot_of_command(spec, args) {
            Ok(slot) => slot,
            Err(cross_slot) => {
                return self.connections.reply(conn, |reply| reply.error(&cross_slot.to_string()));
            }
        };
        let Some(slot) = slot else { return self.keyless_command(now, conn, spec, args, out) };
        let number = super::topology::group_of(&self.config, slot.shard(self.config.shards));
        let core = super::topology::core_of(self.config.me().cores, number);
        let leader = self.leaders.of(number);
        let Some(connection) = self.connections.map.get(&conn) else { return };
        let (in_order, protocol) = (connection.writes > 0, connection.state.protocol);
        let led_here = leader == Some(self.config.node_id());
        if core == self.id && led_here {
            let sequence = self.connections.promise(conn, 1, spec.is_write());
            self.execute(now, Origin::Local { conn, sequence }, spec, args, in_order, out);
        } else if led_here {
            let sequence = self.connections.promise(conn, 1, spec.is_write());
            self.send_to_core(now, core, &Outgoing { conn, sequence, protocol, spec, args }, out);
        } else if let Some(place) = self.may_read_here(now, conn, slot, spec, args) {
            let sequence = self.connections.promise_what(conn, 1, Does::ReadHere);
            let origin = Origin::Local { conn, sequence };
            self.begin_follower_read(
                now,
                place,
                &Call { origin, spec, slot: Some(slot), args, in_order },
                out,
            );
        } else if let (Some(leader), Redirect::Forward) = (leader, self.config.redirect) {
            let sequence = self.connections.promise(conn, 1, spec.is_write());
            let peer = self.peer_of(leader, number);
            self.send_to_peer(now, peer, &Outgoing { conn, sequence, protocol, spec, args });
        } else {
            let error = self.moved(Some(slot));
            self.connections.reply(conn, |reply| reply.error(&error));
        }
    }

    pub(super) fn peer_of(&self, node: NodeId, number: u32) -> flotilla_runtime::PeerId {
        let entry = self.config.nodes.iter().find(|entry| entry.id == node.0).expect("leaders are members");
        flotilla_runtime::PeerId { node, core: super::topology::core_of(entry.cores, number) }
    }

    /// Executes a data command with a key in a group of this core, or tells its origin where to go.
    pub(super) fn execute(
        &mut self,
        now: Now,
        origin: Origin,
        spec: &'static Spec,
        args: &[&[u8]],
        in_order: bool,
        out: &mut Effects<Message>,
    ) {
        let slot: Option<Slot> = slot_of_command(spec, args).ok().flatten();
        let place = slot.and_then(|slot| {
            let number = super::topology::group_of(&self.config, slot.shard(self.config.shards));
            self.multi.place_of(GroupId(u64::from(number) + 1))
        });
        let Some(place) = place else { return self.redirect(origin, slot, out) };
        self.execute_at(now, place, &Call { origin, spec, slot, args, in_order }, out);
    }

    pub(super) fn execute_at(&mut self, now: Now, place: usize, call: &Call<'_>, out: &mut Effects<Message>) {
        if self.must_hold(now, place) {
            return self.hold(place, call, out);
        }
        let begun = if call.spec.is_write() {
            self.propose(now, place, call)
        } else {
            self.begin_read(now, place, call)
        };
        match begun {
            Ok(()) => {}
            Err(Refused::Busy) => {
                let error = "BUSY too many writes are waiting for disk or quorum, try again later";
                self.answer(call.origin, out, |_, reply| reply.error(error));
            }
            Err(Refused::TooLarge) => {
                let error = "ERR the command is too large for the log: see log.segment_bytes";
                self.answer(call.origin, out, |_, reply| reply.error(error));
            }
            Err(Refused::NoRoom) => {
                let error = format!(
                    "MISCONF Errors writing to the log: {}; reads are still served, free some space on this node's disk",
                    self.multi.wal().shortage().unwrap_or("no room"),
                );
                self.answer(call.origin, out, |_, reply| reply.error(&error));
            }
            Err(_) => self.redirect(call.origin, call.slot, out),
        }
    }

    /// A data command without a key (`DBSIZE`, `FLUSHALL`...): concerns every group that this core leads.
    fn keyless_command(
        &mut self,
        now: Now,
        conn: ConnId,
        spec: &'static Spec,
        args: &[&[u8]],
        out: &mut Effects<Message>,
    ) {
        let mut led: Vec<usize> =
            (0..self.groups.len()).filter(|place| self.groups[*place].is_leading()).collect();
        if led.is_empty() {
            return self.connections.reply(conn, |reply| super::keyless::nothing_led(spec, args, reply));
        }
        if !spec.is_write() {
            led.truncate(1);
        }
        let left = u32::try_from(led.len()).expect("groups are few");
        let sequence = self.connections.promise(conn, left, spec.is_write());
        for place in led {
            let origin = Origin::Local { conn, sequence };
            self.execute_at(now, place, &Call { origin, spec, slot: None, args, in_order: true }, out);
        }
    }

    /// Whether nothing is under way any more.
    pub(super) fn is_drained(&self, now: Now) -> bool {
        self.groups.iter().all(|group| group.waiting() == 0)
            && (0..self.groups.len()).all(|place| !self.is_handing_over(now, place))
            && self.connections.waiting() == 0
            && self.remote.is_idle()
    }
}

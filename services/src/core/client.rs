//! What a core's clients say: bytes in, commands out.

use super::Core;
use super::access::{Access, UNKNOWN_CLIENT_LIMITS};
use super::connections::Does;
use super::group::Call;
use super::remote::{Message, Origin, Outgoing};
use super::topology::Way;
use super::transaction::ends_queueing;
use crate::command::{
    Kind, Quiet, Spec, canonical, changed_settings, check, code, lookup, run_plain, unknown_command,
};
use crate::config::Redirect;
use crate::entry::Args;
use crate::resp::{self, Parsed, ReplyWriter};
use crate::slot::{Slot, slot_of_command};
use flotilla_consensus::Refused;
use flotilla_runtime::{ConnId, Effects, Now, Taken};
use std::fmt;

/// Commands of one connection that may wait for their replies; beyond, the driver stops reading from it.
const PIPELINE_MAX: usize = 4096;
/// The same for their bytes, where another core or node executes them: one command more than this may be on its way, of any size.
const SENT_ON_BYTES_MAX: usize = 32 << 20;
/// A command that isn't whole and is as long as this is looked at again only when it can be; of a shorter one mistakes are told at once.
const LONG_COMMAND_BYTES: usize = 64 << 10;

/// A command's arguments as one piece: a 32-bit length before each.
#[derive(Clone)]
pub struct PackedArgs(Vec<u8>);

impl fmt::Debug for PackedArgs {
    /// Not the arguments: there may be a password among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackedArgs({} bytes)", self.0.len())
    }
}

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
        let ways_changed = self.ways_changed();
        while taken.bytes < bytes.len() {
            let Some(connection) = self.connections.map.get_mut(&conn) else { return };
            if connection.is_over() {
                taken.bytes = bytes.len();
                return;
            }
            if connection.replies_due() >= PIPELINE_MAX {
                connection.pause(PIPELINE_MAX / 2);
                taken.pause = true;
                return;
            }
            if connection.sent_on_bytes() >= SENT_ON_BYTES_MAX {
                // Half of them may be longer than the other half: then it is looked at again.
                connection.pause((connection.replies_due() / 2).max(1));
                taken.pause = true;
                return;
            }
            if connection.is_at_a_fork(ways_changed) || connection.waits_for_a_way() {
                connection.pause(1);
                taken.pause = true;
                return;
            }
            // Of a long command that comes in small pieces not every piece is worth a look at all that is there.
            if bytes.len() - taken.bytes < connection.bytes_min {
                return;
            }
            connection.bytes_min = 0;
            let (is_particular, queues) = (connection.is_particular(), connection.queue.is_some());
            let (is_quiet, access) = (connection.state.quiet != Quiet::No, connection.access);
            let limits = if access == Access::Locked { &UNKNOWN_CLIENT_LIMITS } else { &limits };
            match resp::parse(&bytes[taken.bytes..], limits, &mut args) {
                Ok(Parsed::Command { .. }) if is_particular && self.must_wait(now, conn, &args) => {
                    if let Some(connection) = self.connections.map.get_mut(&conn) {
                        connection.pause(1);
                    }
                    taken.pause = true;
                    return;
                }
                Ok(Parsed::Command { consumed }) => {
                    taken.bytes += consumed;
                    if !args.is_empty() {
                        if is_quiet && let Some(connection) = self.connections.map.get_mut(&conn) {
                            connection.begin_command();
                        }
                        self.connections.commands_total += 1;
                        self.command(now, conn, &args, (queues, access), out);
                    }
                }
                Ok(Parsed::Incomplete { bytes_min }) => {
                    let there = bytes.len() - taken.bytes;
                    if there >= LONG_COMMAND_BYTES
                        && let Some(connection) = self.connections.map.get_mut(&conn)
                    {
                        connection.bytes_min = bytes_min;
                    }
                    return;
                }
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

    /// Whether a command must stay unread until those before it are answered.
    fn must_wait(&self, now: Now, conn: ConnId, args: &[&[u8]]) -> bool {
        self.must_wait_for_versions(conn, args) || self.must_wait_for_reads(now, conn, args)
    }

    /// `queues`: the connection is between `MULTI` and `EXEC`. `access`: what it may do.
    fn command(
        &mut self,
        now: Now,
        conn: ConnId,
        args: &[&[u8]],
        (queues, access): (bool, Access),
        out: &mut Effects<Message>,
    ) {
        let Some(spec) = lookup(args[0]) else {
            self.connections.break_queue(conn);
            return self.connections.reply(conn, |reply| reply.error(&unknown_command(args)));
        };
        self.connections.count(spec);
        if access != Access::Free && self.is_refused(now, conn, spec, args) {
            return;
        }
        let otherwise = canonical(spec, args);
        let args = otherwise.as_deref().unwrap_or(args);
        if queues && !ends_queueing(spec) {
            return self.queue_command(conn, spec, args);
        }
        if let Err(rejected) = check(spec, args) {
            return self.connections.reply(conn, |reply| reply.error(&rejected.to_string()));
        }
        match (spec.code, spec.kind) {
            (code::MULTI | code::EXEC | code::DISCARD | code::UNWATCH | code::WATCH, _) => {
                self.transaction_command(now, conn, spec, args, out);
            }
            // A subcommand without a key: HELP.
            (code::OBJECT, _) if args.len() < 3 => self.plain_command(now, conn, spec, args),
            (_, Kind::Read | Kind::Write) => self.data_command(now, conn, spec, args, out),
            (code::FLOTILLA_MEMBER, _) => {
                let Some(connection) = self.connections.map.get(&conn) else { return };
                let (protocol, mut bytes) = (connection.state.protocol, Vec::new());
                self.member_command(now, args, &mut ReplyWriter::new(&mut bytes, protocol));
                self.connections.reply(conn, |reply| reply.raw(&bytes));
            }
            (code::ACL, _) => self.acl_command(now, conn, spec, args, out),
            (code::FLOTILLA_BACKUP, _) => self.backup_command(now, conn, spec, args, out),
            (code::FLOTILLA_CLUSTER, _) => self.cluster_command(now, conn, spec, args, out),
            (code::FLOTILLA_TRANSFER, _) => self.transfer_command(now, conn, spec, args, out),
            _ => self.plain_command(now, conn, spec, args),
        }
    }

    /// A command that touches no key: answered on the spot.
    fn plain_command(&mut self, now: Now, conn: ConnId, spec: &'static Spec, args: &[&[u8]]) {
        if let Some(bytes) = self.plain_reply(now, conn, spec, args) {
            self.connections.reply(conn, |reply| reply.raw(&bytes));
            self.note_if_all(conn, spec, args);
        }
    }

    /// Executes a command that touches no key; its reply, if the connection is still there.
    pub(super) fn plain_reply(
        &mut self,
        now: Now,
        conn: ConnId,
        spec: &'static Spec,
        args: &[&[u8]],
    ) -> Option<Vec<u8>> {
        let mut state = self.connections.map.get(&conn)?.state.clone();
        let mut bytes = Vec::new();
        let mut reply = ReplyWriter::new(&mut bytes, state.protocol);
        let close = run_plain(spec, args, &mut state, &self.node_view(now), &mut reply);
        if spec.code == code::CONFIG
            && args.get(1).is_some_and(|sub| sub.eq_ignore_ascii_case(b"SET"))
            && bytes.first() == Some(&b'+')
        {
            self.set(&changed_settings(args));
        }
        if Self::resets_slowlog(spec, args) {
            self.slowlog.reset();
        }
        if spec.code == code::CONFIG && args.get(1).is_some_and(|sub| sub.eq_ignore_ascii_case(b"RESETSTAT"))
        {
            self.reset_counters();
        }
        let connection = self.connections.map.get_mut(&conn)?;
        connection.state = state;
        connection.closing |= close;
        if spec.code == code::RESET {
            (connection.queue, connection.watching) = (None, None);
        }
        if crate::acl::is_for_everybody(spec) {
            self.learn_access(now, conn);
        }
        let connection = self.connections.map.get_mut(&conn)?;
        if let Some(kill) = connection.state.kill.take() {
            let all = self.connections.map.iter().map(|(id, connection)| (id.0, connection.state.user()));
            let chosen: Vec<u64> =
                all.filter(|(id, user)| kill.concerns(*id, user, conn.0)).map(|(id, _)| id).collect();
            let killed = chosen.into_iter().filter(|id| self.connections.kill(ConnId(*id), conn)).count();
            ReplyWriter::new(&mut bytes, resp::Protocol::Resp2).length_of(killed);
        }
        Some(bytes)
    }

    pub(super) fn data_command(
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
        let number = self.routes.of(slot.shard(self.config.shards));
        let way = self.way_to(number);
        let Some(connection) = self.connections.map.get(&conn) else { return };
        let (in_order, protocol) = (connection.writes(), connection.state.protocol);
        let is_alone = connection.replies_due() == 0;
        match way {
            Some(Way::Here) => {
                let sequence = self.connections.promise(conn, Does::of(spec));
                return self.execute(now, Origin::Local { conn, sequence }, spec, args, in_order, out);
            }
            Some(Way::Core(core)) => {
                let sequence = self.connections.promise(conn, Does::of(spec));
                return self.send_to_core(now, core, &Outgoing { conn, sequence, protocol, spec, args }, out);
            }
            Some(Way::Peer(_)) | None => {}
        }
        if let Some(place) = self.may_read_here(now, conn, slot, spec, args) {
            let sequence = self.connections.promise(conn, Does::ReadHere);
            let origin = Origin::Local { conn, sequence };
            let call = Call { origin, spec, slot: Some(slot), args, in_order };
            return self.begin_follower_read(now, place, &call, out);
        }
        match (way, self.config.redirect) {
            (Some(Way::Peer(peer)), Redirect::Forward) => {
                let sequence = self.connections.promise(conn, Does::of(spec));
                self.send_to_peer(now, peer, &Outgoing { conn, sequence, protocol, spec, args }, out);
            }
            // Nothing of the client is under way that this could overtake: it waits for a leader.
            (None, Redirect::Forward) if is_alone => {
                let sequence = self.connections.promise(conn, Does::of(spec));
                self.take_back(now, (conn, sequence), None, Some(PackedArgs::pack(args)), out);
            }
            _ => {
                let error = self.moved(Some(slot));
                self.connections.reply(conn, |reply| reply.error(&error));
            }
        }
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
        if super::keyless::is_keyless(spec) {
            return self.execute_keyless_for(now, origin, spec, args, out);
        }
        let slot: Option<Slot> = slot_of_command(spec, args).ok().flatten();
        let place = slot.and_then(|slot| {
            let number = self.routes.of(slot.shard(self.config.shards));
            self.multi.place_of(super::topology::id_of(number))
        });
        let call = Call { origin, spec, slot, args, in_order };
        match place {
            Some(place) => self.execute_at(now, place, &call, out),
            None => self.give_back(now, &call, out),
        }
    }

    pub(super) fn execute_at(&mut self, now: Now, place: usize, call: &Call<'_>, out: &mut Effects<Message>) {
        if self.must_hold(now, place) {
            return self.hold(place, call, out);
        }
        if self.is_elsewhere(now, place, call, out) {
            return;
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
                let error = match self.multi.wal().shortage() {
                    Some(reason) => format!(
                        "MISCONF Errors writing to the log: {reason}; reads are still served, free some space on this node's disk"
                    ),
                    None => "MISCONF Errors writing to the log: the disks of other nodes are full, and no majority is left; reads \
                             are still served, free some space on their disks"
                        .to_owned(),
                };
                self.answer(call.origin, out, |_, reply| reply.error(&error));
            }
            Err(_) => self.give_back(now, call, out),
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

#[cfg(test)]
mod tests {
    use super::super::remote::Outcome;
    use super::super::testing::{Lone, core_with, request};
    use super::*;
    use crate::slot::{SLOTS, key_in};
    use flotilla_runtime::{CoreId, Effect, Event, Machine, NodeId};

    const CLIENT: ConnId = ConnId(1);

    /// The client's bytes; what was taken of them, and the numbers under which commands were sent to the other core.
    fn offer(core: &mut Core, now: Now, bytes: &[u8]) -> (Taken, Vec<u64>) {
        let (mut taken, mut out) = (Taken::default(), Effects::default());
        core.step(now, Event::Client { conn: CLIENT, bytes, taken: &mut taken }, &mut out);
        let tokens = out.drain().filter_map(|effect| match effect {
            Effect::Mesh { to: CoreId(1), message: Message::Request { token, .. } } => Some(token),
            _ => None,
        });
        (taken, tokens.collect())
    }

    #[test]
    fn what_is_sent_on_for_one_client_is_bounded_in_bytes_and_the_rest_stays_unread() {
        let nodes = "nodes = [{ id = 1, host = \"here\", port = 7001, peer_port = 17001, cores = 2 }]";
        let ((mut core, now), mut out) = (core_with(&format!("groups = 2\n{nodes}")), Effects::default());
        let leader = Message::Leader { group: 1, term: 1, leader: Some(NodeId(1)) };
        core.step(now, Event::Mesh { from: CoreId(1), message: leader }, &mut out);
        core.step(now, Event::Opened { conn: CLIENT, is_local: true }, &mut out);
        let set = request(&[b"SET", &key_in(SLOTS - 1), &vec![b'x'; SENT_ON_BYTES_MAX / 4]]);
        let six = set.repeat(6);
        let (taken, tokens) = offer(&mut core, now, &six);
        assert_eq!((taken.bytes, taken.pause, tokens.len()), (4 * set.len(), true, 4));
        let mut answer = |core: &mut Core, token| {
            let message = Message::Response { token, outcome: Outcome::Reply(b"+OK\r\n".to_vec()) };
            core.step(now, Event::Mesh { from: CoreId(1), message }, &mut out);
            core.flush(now, &mut out);
            out.drain().any(|effect| matches!(effect, Effect::Resume { conn: CLIENT }))
        };
        let resumed: Vec<bool> = tokens[..3].iter().map(|token| answer(&mut core, *token)).collect();
        assert_eq!(resumed, [false, false, true], "once less than half of them are due");
        let (rest, further) = offer(&mut core, now, &six[taken.bytes..]);
        assert_eq!((rest.bytes, rest.pause, further.len()), (2 * set.len(), false, 2));
        for token in tokens[3..].iter().chain(&further) {
            answer(&mut core, *token);
        }
        assert_eq!(core.connections.map[&CLIENT].sent_on_bytes(), 0);
    }

    #[test]
    fn what_redis_takes_and_replicas_don_t_is_said_otherwise_wherever_it_is_said() {
        let mut lone = Lone::leading();
        let session = lone.say(&["FLOTILLA.SESSION k"]);
        let once = format!("FLOTILLA.ONCE {} 1 0 SET k w PX 1 PX 30000", &session[1..]);
        let told = lone.say(&[
            "SET k v EX 10 EX 20",
            "TTL k",
            "GETEX k PERSIST PERSIST",
            "TTL k",
            "MULTI",
            "GETEX k EX 1 EX 50",
            "SETRANGE k 536870913 \"\"",
            "EXEC",
            "TTL k",
            &once,
            "TTL k",
            "SETRANGE none 9223372036854775807 \"\"",
            "EXISTS none",
        ]);
        let words = "+OK :20 $1 v :-1 +OK +QUEUED +QUEUED *2 $1 v :1 :50 +OK :30 :0 :0";
        assert_eq!(told, words);
    }
}

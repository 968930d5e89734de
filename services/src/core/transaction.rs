//! Transactions as a connection sees them: what is queued between `MULTI` and `EXEC`, and which keys are watched.
//!
//! Nothing leaves the connection before `EXEC`. Then the whole is one command of one slot ([`crate::kv`]'s `transaction.rs`
//! has its form), which is routed, forwarded, logged and answered as any other write is. `WATCH` reads the versions of its
//! keys, linearizably, and remembers them here; that they are still the same is checked where the transaction is applied.

use super::Core;
use super::access::Access;
use super::client::PackedArgs;
use super::connections::Connections;
use super::remote::Message;
use crate::command::{Kind, Spec, check, check_arity, code, lookup};
use crate::config::Redirect;
use crate::kv::TransactionBuilder;
use crate::resp::ReplyWriter;
use crate::slot::{Slot, slot_of_command};
use flotilla_runtime::{ConnId, Effects, Now};
use std::collections::VecDeque;

/// Keys that a connection may watch.
const WATCHED_MAX: usize = 1024;

/// The commands since `MULTI`.
#[derive(Debug, Default)]
pub(super) struct Queue {
    commands: Vec<PackedArgs>,
    bytes: usize,
    /// The slot of all keys so far.
    slot: Option<Slot>,
    /// One of them was refused: `EXEC` will be, too.
    is_broken: bool,
}

impl Queue {
    /// How many commands are in it.
    pub(super) fn describe(&self) -> i64 {
        i64::try_from(self.commands.len()).unwrap_or(i64::MAX)
    }
}

/// The keys that are watched.
#[derive(Debug, Default)]
pub(super) struct Watching {
    /// With their versions.
    keys: Vec<(Vec<u8>, u64)>,
    /// Those whose versions aren't here yet, by the number of their command.
    asked: VecDeque<(u64, Vec<Vec<u8>>)>,
}

impl Watching {
    /// How many keys are watched.
    pub(super) fn describe(&self) -> usize {
        self.keys.len()
    }

    /// The versions that a `WATCH` asked for are here; returns its reply. Whoever closed the watch meanwhile gets it as well.
    pub(super) fn learn(watching: &mut Option<Box<Self>>, sequence: u64, reply: Vec<u8>) -> Vec<u8> {
        let Some(watching) = watching else { return b"+OK\r\n".to_vec() };
        let Some(place) = watching.asked.iter().position(|(number, _)| *number == sequence) else {
            return b"+OK\r\n".to_vec();
        };
        let keys = watching.asked.remove(place).map(|(_, keys)| keys).unwrap_or_default();
        let text = String::from_utf8_lossy(&reply);
        let mut versions = text.split("\r\n").skip(1).filter_map(|line| line.strip_prefix(':')?.parse().ok());
        let found: Vec<u64> = versions.by_ref().take(keys.len()).collect();
        if found.len() < keys.len() {
            // An error: nothing is watched.
            return reply;
        }
        for (key, version) in keys.into_iter().zip(found) {
            // The first look counts.
            if !watching.keys.iter().any(|(known, _)| *known == key) {
                watching.keys.push((key, version));
            }
        }
        b"+OK\r\n".to_vec()
    }
}

/// Whether a command is executed at once between `MULTI` and `EXEC`.
pub(super) fn ends_queueing(spec: &Spec) -> bool {
    matches!(spec.code, code::MULTI | code::EXEC | code::DISCARD | code::WATCH | code::QUIT | code::RESET)
}

impl Connections {
    /// A command between `MULTI` and `EXEC` was refused.
    pub(super) fn break_queue(&mut self, conn: ConnId) {
        let queue = self.map.get_mut(&conn).and_then(|connection| connection.queue.as_mut());
        if let Some(queue) = queue {
            queue.is_broken = true;
        }
    }
}

impl Core {
    /// Whether a command needs to know what an earlier `WATCH` found.
    pub(super) fn must_wait_for_versions(&self, conn: ConnId, args: &[&[u8]]) -> bool {
        let watching = self.connections.map.get(&conn).and_then(|connection| connection.watching.as_ref());
        watching.is_some_and(|watching| !watching.asked.is_empty())
            && args.first().and_then(|name| lookup(name)).is_some_and(|spec| {
                matches!(spec.code, code::EXEC | code::DISCARD | code::UNWATCH | code::RESET)
            })
    }

    /// Puts a command into the queue, or refuses it and with it the transaction.
    pub(super) fn queue_command(&mut self, conn: ConnId, spec: &'static Spec, args: &[&[u8]]) {
        let refusal = self.refuse_in_queue(conn, spec, args);
        let bytes_max = usize::try_from(self.config.log.segment_bytes / 2).unwrap_or(usize::MAX);
        let queue = self.connections.map.get_mut(&conn).and_then(|connection| connection.queue.as_mut());
        let Some(queue) = queue else { return };
        let packed = PackedArgs::pack(args);
        let refusal = refusal.or_else(|| {
            (queue.bytes + packed.bytes().len() > bytes_max)
                .then(|| "ERR the transaction is too large for the log: see log.segment_bytes".to_owned())
        });
        if let Some(refusal) = refusal {
            queue.is_broken = true;
            return self.connections.reply(conn, |reply| reply.error(&refusal));
        }
        queue.bytes += packed.bytes().len();
        queue.slot = queue.slot.or_else(|| slot_of_command(spec, args).ok().flatten());
        queue.commands.push(packed);
        self.connections.reply(conn, |reply| reply.simple("QUEUED"));
    }

    fn refuse_in_queue(&self, conn: ConnId, spec: &Spec, args: &[&[u8]]) -> Option<String> {
        if let Err(rejected) = check_arity(spec, args) {
            return Some(rejected.to_string());
        }
        let is_of_operators =
            matches!(spec.code, code::FLOTILLA_BACKUP | code::FLOTILLA_MEMBER | code::FLOTILLA_TRANSFER);
        if matches!(
            spec.code,
            code::ACL | code::FLOTILLA_ONCE | code::FLOTILLA_SESSION | code::FLOTILLA_PUBLISH
        ) {
            let name = spec.name.to_uppercase();
            return Some(format!("ERR Command not allowed inside a transaction: {name}"));
        }
        if super::keyless::is_keyless(spec) || is_of_operators || spec.code == code::FLOTILLA_WALK {
            let name = spec.name.to_uppercase();
            return Some(format!("ERR Command not allowed inside a transaction: {name} isn't of one slot"));
        }
        let slot = match slot_of_command(spec, args) {
            Ok(slot) => slot?,
            Err(cross_slot) => return Some(cross_slot.to_string()),
        };
        let queue = self.connections.map.get(&conn)?.queue.as_ref()?;
        if queue.slot.is_some_and(|of_others| of_others != slot) {
            return Some(crate::slot::CrossSlot.to_string());
        }
        let number = self.routes.of(slot.shard(self.config.shards));
        let is_elsewhere = self.leaders.of(number) != Some(self.config.node_id());
        (is_elsewhere && self.config.redirect == Redirect::Moved).then(|| self.moved(Some(slot)))
    }

    pub(super) fn transaction_command(
        &mut self,
        now: Now,
        conn: ConnId,
        spec: &'static Spec,
        args: &[&[u8]],
        out: &mut Effects<Message>,
    ) {
        let Some(connection) = self.connections.map.get_mut(&conn) else { return };
        let queues = connection.queue.is_some();
        let error = match spec.code {
            code::MULTI if queues => "ERR MULTI calls can not be nested",
            code::DISCARD if !queues => "ERR DISCARD without MULTI",
            code::EXEC if !queues => "ERR EXEC without MULTI",
            code::WATCH if queues => "ERR WATCH inside MULTI is not allowed",
            code::WATCH => return self.watch(now, conn, spec, args, out),
            code::EXEC => return self.execute_queue(now, conn, spec, out),
            code::MULTI => {
                connection.queue = Some(Box::default());
                return self.connections.reply(conn, |reply| reply.simple("OK"));
            }
            _ => {
                (connection.queue, connection.watching) = (None, None);
                return self.connections.reply(conn, |reply| reply.simple("OK"));
            }
        };
        self.connections.reply(conn, |reply| reply.error(error));
    }

    fn watch(
        &mut self,
        now: Now,
        conn: ConnId,
        spec: &'static Spec,
        args: &[&[u8]],
        out: &mut Effects<Message>,
    ) {
        let Some(connection) = self.connections.map.get_mut(&conn) else { return };
        let keys: Vec<Vec<u8>> = args[1..].iter().map(|key| key.to_vec()).collect();
        // If it is refused on the spot, no reply with this number ever asks for the keys.
        let sequence = connection.due();
        let watching = connection.watching.get_or_insert_default();
        let asked: usize = watching.asked.iter().map(|(_, keys)| keys.len()).sum();
        if watching.keys.len() + asked + keys.len() > WATCHED_MAX {
            let error = format!("ERR a connection can't watch more than {WATCHED_MAX} keys");
            return self.connections.reply(conn, |reply| reply.error(&error));
        }
        watching.asked.push_back((sequence, keys));
        self.data_command(now, conn, spec, args, out);
        let Some(connection) = self.connections.map.get_mut(&conn) else { return };
        let is_promised = connection.is_waiting(sequence);
        if let Some(watching) = connection.watching.as_mut().filter(|_| !is_promised) {
            watching.asked.retain(|(number, _)| *number != sequence);
        }
    }

    /// `EXEC`.
    fn execute_queue(&mut self, now: Now, conn: ConnId, spec: &'static Spec, out: &mut Effects<Message>) {
        let Some(connection) = self.connections.map.get_mut(&conn) else { return };
        let access = connection.access;
        let (queue, watching) = (connection.queue.take(), connection.watching.take());
        let (queue, watched) = (queue.unwrap_or_default(), watching.map(|it| it.keys).unwrap_or_default());
        if queue.is_broken {
            let error = "EXECABORT Transaction discarded because of previous errors.";
            return self.connections.reply(conn, |reply| reply.error(error));
        }
        let mut builder = TransactionBuilder::new(&watched);
        let mut replies: Vec<u8> = Vec::new();
        for packed in &queue.commands {
            let Some(args) = PackedArgs::unpack(packed.bytes()) else { continue };
            let Some(spec) = lookup(args[0]) else { continue };
            if access != Access::Free
                && let Some(refusal) = self.refuse_in_transaction(now, conn, spec, &args)
            {
                let bytes = error_bytes(&refusal);
                replies.extend_from_slice(&bytes);
                builder.reply(bytes);
                continue;
            }
            let known = match check(spec, &args) {
                Err(rejected) => Some(error_bytes(&rejected.to_string())),
                Ok(()) if spec.code == code::UNWATCH => Some(b"+OK\r\n".to_vec()),
                Ok(()) => {
                    let has_key = spec.keys(&args).next().is_some();
                    let is_data = matches!(spec.kind, Kind::Read | Kind::Write) && has_key;
                    if is_data { None } else { self.plain_reply(now, conn, spec, &args) }
                }
            };
            match known {
                Some(bytes) => {
                    replies.extend_from_slice(&bytes);
                    builder.reply(bytes);
                }
                None => builder.command(spec.code, &args),
            }
        }
        if !builder.has_commands() && watched.is_empty() {
            // Nothing but replies that are known.
            return self.connections.reply(conn, |reply| {
                reply.array(queue.commands.len());
                reply.raw(&replies);
            });
        }
        self.data_command(now, conn, spec, &builder.args(), out);
    }
}

fn error_bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    ReplyWriter::new(&mut bytes, crate::resp::Protocol::Resp2).error(text);
    bytes
}

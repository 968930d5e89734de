//! Commands that were handed on to another node and came back, undone: its leadership had gone, or the shard had.
//!
//! A client that is served by any node (`redirect = "forward"`) should see nothing of that, so its command is sent to whoever
//! leads by now, or as soon as somebody is known to. Only if nothing else of the client is under way: what it sent behind the
//! command may have been done by then, and must not have overtaken it.

use super::Core;
use super::client::PackedArgs;
use super::group::Call;
use super::remote::{Message, Origin};
use super::topology::Way;
use crate::command::lookup;
use crate::slot::slot_of_command;
use flotilla_runtime::machine::{MILLISECOND, SECOND};
use flotilla_runtime::{ConnId, Effects, Nanos, Now, PeerId};

/// How long it is tried.
const PATIENCE: Nanos = 2 * SECOND;
/// Whoever gave it back may still be the only one that is known.
const INTERVAL: Nanos = 5 * MILLISECOND;

pub(super) const TRY_AGAIN: &str = "TRYAGAIN the leader of the key's group has changed";

/// Those that wait until somebody else is known to lead.
#[derive(Debug, Default)]
pub(super) struct Returned {
    commands: Vec<(ConnId, u64, PackedArgs)>,
    again_at: Option<Nanos>,
}

impl Returned {
    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    pub(super) fn deadline(&self) -> Option<Nanos> {
        self.again_at
    }
}

impl Core {
    /// A command of a client of this core has come back from another node.
    pub(super) fn take_back(
        &mut self,
        now: Now,
        (conn, sequence): (ConnId, u64),
        from: Option<PeerId>,
        command: Option<PackedArgs>,
        out: &mut Effects<Message>,
    ) {
        let connection = self.connections.map.get_mut(&conn);
        let since = connection.and_then(|connection| connection.is_alone(sequence, now.monotonic));
        match (since, command) {
            (Some(since), Some(command)) if now.monotonic < since + PATIENCE => {
                self.send_again(now, (conn, sequence), from, command, out);
            }
            _ => self.connections.fill(conn, sequence, |reply| reply.error(TRY_AGAIN)),
        }
    }

    /// Sends it to whoever leads its group, unless that is nobody, or who gave it back.
    fn send_again(
        &mut self,
        now: Now,
        (conn, sequence): (ConnId, u64),
        not_to: Option<PeerId>,
        command: PackedArgs,
        out: &mut Effects<Message>,
    ) {
        let found = PackedArgs::unpack(command.bytes()).and_then(|args| {
            let spec = lookup(args.first()?)?;
            Some((spec, slot_of_command(spec, &args).ok().flatten()?))
        });
        let Some((spec, slot)) = found else {
            return self.connections.fill(conn, sequence, |reply| reply.error(TRY_AGAIN));
        };
        let number = self.routes.of(slot.shard(self.config.shards));
        if self.way_to(number).is_none_or(|way| Some(way) == not_to.map(Way::Peer)) {
            let returned = &mut self.remote.returned;
            returned.commands.push((conn, sequence, command));
            returned.again_at.get_or_insert(now.monotonic + INTERVAL);
            return;
        }
        let args = PackedArgs::unpack(command.bytes()).expect("just done");
        let origin = Origin::Local { conn, sequence };
        self.reroute(now, &Call { origin, spec, slot: Some(slot), args: &args, in_order: true }, out);
    }

    /// Those that wait are tried again.
    pub(super) fn tick_returned(&mut self, now: Now, out: &mut Effects<Message>) {
        if self.remote.returned.again_at.is_none_or(|at| at > now.monotonic) {
            return;
        }
        self.remote.returned.again_at = None;
        for (conn, sequence, command) in std::mem::take(&mut self.remote.returned.commands) {
            if self.connections.map.contains_key(&conn) {
                self.take_back(now, (conn, sequence), None, Some(command), out);
            }
        }
    }
}

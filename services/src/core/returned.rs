//! Commands that nobody can execute at the moment: their group has no leader that is known, or no link leads to it, or they were
//! handed on and came back, undone, because the leadership had gone or the shard had.
//!
//! A client that is served by any node (`redirect = "forward"`) should see nothing of that, so its command waits and is sent to
//! whoever leads as soon as somebody is known to. Only if nothing else of the client is under way: what it sent behind the
//! command may have been done by then, and must not have overtaken it. While it waits, nothing more of the client is taken.

use super::Core;
use super::client::PackedArgs;
use super::group::Call;
use super::remote::{Message, Origin, Outcome};
use super::topology::Way;
use crate::command::{Spec, lookup};
use crate::config::Redirect;
use crate::entry::Args;
use crate::slot::{Slot, slot_of_command};
use flotilla_runtime::machine::{MILLISECOND, SECOND};
use flotilla_runtime::{ConnId, Effect, Effects, Nanos, Now};

/// How long it is tried. An election takes a second or two if the first votes are split.
const PATIENCE: Nanos = 5 * SECOND;
/// How often it is asked whether anything has changed.
const INTERVAL: Nanos = 5 * MILLISECOND;
/// How often it is tried though nothing has: whoever gave it back may lead again.
const AGAIN: Nanos = 40 * MILLISECOND;
/// What those that wait may take together.
const BYTES_MAX: usize = 64 << 20;

pub(super) const TRY_AGAIN: &str = "TRYAGAIN the leader of the key's group has changed, or can't be reached";

/// A client's connection, and the number of its command.
pub(super) type Asked = (ConnId, u64);

/// Those that wait until somebody else is known to lead.
#[derive(Debug, Default)]
pub(super) struct Returned {
    commands: Vec<(Asked, PackedArgs)>,
    bytes: usize,
    /// When it is looked whether anything has changed.
    look_at: Option<Nanos>,
    /// When they are tried in any case.
    again_at: Nanos,
    /// What it was when they were tried: [`Core::ways_changed`], and links that came up.
    seen: (u64, u64),
    links: u64,
}

impl Returned {
    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    pub(super) fn deadline(&self) -> Option<Nanos> {
        self.look_at
    }

    /// There is a link to one more peer.
    pub(super) fn link_is_up(&mut self) {
        self.links += 1;
    }

    fn put(&mut self, now: Now, asked: Asked, command: PackedArgs) {
        self.bytes += command.bytes().len();
        self.commands.push((asked, command));
        if self.look_at.is_none() {
            self.look_at = Some(now.monotonic + INTERVAL);
            // Whoever gave it back so quickly may be about to lead.
            self.again_at = now.monotonic + INTERVAL;
        }
    }
}

impl Core {
    /// The call can't be executed here and certainly wasn't: it waits until somebody can, or its origin is told where to go.
    pub(super) fn give_back(&mut self, now: Now, call: &Call<'_>, out: &mut Effects<Message>) {
        match (self.config.redirect, call.origin) {
            (Redirect::Forward, Origin::Local { conn, sequence }) => {
                self.take_back(
                    now,
                    (conn, sequence),
                    Some(Way::Here),
                    Some(PackedArgs::pack(call.args)),
                    out,
                );
            }
            (Redirect::Forward, Origin::Core { core, token, .. }) => {
                let outcome = Outcome::NotHere(Some(PackedArgs::pack(call.args)));
                let message = Message::Response { token, outcome };
                out.push(Effect::Mesh { to: core, message });
            }
            _ => self.redirect(call.origin, call.slot, out),
        }
    }

    /// A command of a client of this core couldn't be executed: `from` has said so, or it is that way that can't be taken.
    pub(super) fn take_back(
        &mut self,
        now: Now,
        asked: Asked,
        from: Option<Way>,
        command: Option<PackedArgs>,
        out: &mut Effects<Message>,
    ) {
        let connection = self.connections.map.get_mut(&asked.0);
        let since = connection.and_then(|connection| connection.is_alone(asked.1, now.monotonic));
        match (since, command) {
            (Some(since), Some(command)) if now.monotonic < since + PATIENCE => {
                self.send_again(now, asked, from, command, out);
            }
            (_, command) => self.give_it_up(asked, command.as_ref()),
        }
    }

    /// Sends it to whoever leads its group, unless that is nobody, or who gave it back.
    fn send_again(
        &mut self,
        now: Now,
        asked: Asked,
        not_to: Option<Way>,
        command: PackedArgs,
        out: &mut Effects<Message>,
    ) {
        let Some((spec, slot, args)) = read(&command) else { return self.give_it_up(asked, None) };
        let number = self.routes.of(slot.shard(self.config.shards));
        let way = self.way_to(number);
        let is_shut = matches!(way, Some(Way::Peer(peer)) if !self.remote.is_up(peer));
        if way.is_none() || way == not_to || is_shut {
            drop(args);
            let returned = &mut self.remote.returned;
            if returned.bytes + command.bytes().len() > BYTES_MAX {
                return self.give_it_up(asked, Some(&command));
            }
            return returned.put(now, asked, command);
        }
        let origin = Origin::Local { conn: asked.0, sequence: asked.1 };
        self.reroute(now, &Call { origin, spec, slot: Some(slot), args: &args, in_order: true }, out);
    }

    /// The client may try it itself.
    pub(super) fn give_it_up(&mut self, (conn, sequence): Asked, command: Option<&PackedArgs>) {
        let slot = command.and_then(read).map(|(_, slot, _)| slot);
        let is_led =
            slot.is_none_or(|slot| self.way_to(self.routes.of(slot.shard(self.config.shards))).is_some());
        let error = if is_led { TRY_AGAIN.to_owned() } else { self.moved(slot) };
        self.connections.fill(conn, sequence, |reply| reply.error(&error));
    }

    /// Those that wait are tried again, if anything is different or they have waited for long enough.
    pub(super) fn tick_returned(&mut self, now: Now, out: &mut Effects<Message>) {
        if self.remote.returned.look_at.is_none_or(|at| at > now.monotonic) {
            return;
        }
        let ways = self.ways_changed();
        let returned = &mut self.remote.returned;
        let seen = (ways, returned.links);
        if returned.seen == seen && now.monotonic < returned.again_at {
            returned.look_at = Some(now.monotonic + INTERVAL);
            return;
        }
        returned.seen = seen;
        returned.bytes = 0;
        let commands = std::mem::take(&mut returned.commands);
        // Those that are put back find it set.
        returned.look_at = Some(now.monotonic + INTERVAL);
        returned.again_at = now.monotonic + AGAIN;
        for (asked, command) in commands {
            if self.connections.map.contains_key(&asked.0) {
                self.take_back(now, asked, None, Some(command), out);
            }
        }
        if self.remote.returned.is_empty() {
            self.remote.returned.look_at = None;
        }
    }
}

/// A command with a key: what it is, where its key is, its arguments.
fn read(command: &PackedArgs) -> Option<(&'static Spec, Slot, Args<'_>)> {
    let args = PackedArgs::unpack(command.bytes())?;
    let spec = lookup(args.first()?)?;
    Some((spec, slot_of_command(spec, &args).ok().flatten()?, args))
}

//! Commands that came for a shard before the shard did, or while it was about to go.

use super::Core;
use crate::config::Redirect;
use crate::core::group::Call;
use crate::core::held::Held;
use crate::core::remote::{Message, Origin, Outgoing};
use crate::core::shards::Shard;
use crate::core::topology::{Way, id_of};
use flotilla_consensus::Role;
use flotilla_runtime::machine::SECOND;
use flotilla_runtime::{Effects, Nanos, Now};
use std::collections::{BTreeMap, VecDeque};

/// Bytes of commands that wait for shards of a group; more are refused.
const AWAITED_BYTES_MAX: usize = 4 << 20;
/// Nobody waits for longer.
const PATIENCE: Nanos = 2 * SECOND;

const TRY_AGAIN: &str = "TRYAGAIN the key's shard is on its way to this group";

/// Commands that wait for shards.
#[derive(Debug, Default)]
pub(in crate::core) struct Awaited {
    shards: BTreeMap<u16, VecDeque<(Held, Nanos)>>,
    bytes: usize,
}

impl Awaited {
    /// Clients that wait.
    pub(in crate::core) fn len(&self) -> usize {
        self.shards.values().map(VecDeque::len).sum()
    }

    pub(in crate::core) fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// Those that wait for a shard don't any more.
    fn take(&mut self, shard: u16) -> VecDeque<(Held, Nanos)> {
        let taken = self.shards.remove(&shard).unwrap_or_default();
        self.bytes -= taken.iter().map(|(held, _)| held.bytes()).sum::<usize>();
        taken
    }
}

impl Core {
    /// Whether a command of a group that this replica leads must wait, or go elsewhere, for its shard isn't served here, is
    /// about to go, or others wait for it already; then it does.
    pub(in crate::core) fn is_elsewhere(
        &mut self,
        now: Now,
        place: usize,
        call: &Call<'_>,
        out: &mut Effects<Message>,
    ) -> bool {
        let Some(slot) = call.slot else { return false };
        if self.multi.raft(place).role() != Role::Leader {
            return false;
        }
        let shard = slot.shard(self.config.shards);
        let is_departing = self.is_departing(place, shard);
        let group = &self.groups[place];
        let is_served = group.serving(slot).is_some();
        let waits = is_departing || group.early.shards.contains_key(&shard);
        if is_served && !waits {
            return false;
        }
        if !waits && self.routes.of(shard) != group.number {
            self.reroute(now, call, out);
            return true;
        }
        let early = &mut self.groups[place].early;
        let held = Held::new(call);
        if early.bytes + held.bytes() > AWAITED_BYTES_MAX {
            self.answer(call.origin, out, |_, reply| reply.error(TRY_AGAIN));
            return true;
        }
        early.bytes += held.bytes();
        early.shards.entry(shard).or_default().push_back((held, now.monotonic));
        self.groups[place].is_in_motion = true;
        self.migration.again(now.monotonic + PATIENCE);
        true
    }

    /// The command didn't happen in the group that it was for: it goes to the one that has the shard now, if this core leads
    /// that, or if the client is one of this core and can't be expected to go there itself. Else the client is told where to go.
    /// Whatever the same client sends later waits or takes the same way behind it.
    pub(in crate::core) fn reroute(&mut self, now: Now, call: &Call<'_>, out: &mut Effects<Message>) {
        let Some(slot) = call.slot else { return self.redirect(call.origin, call.slot, out) };
        let number = self.routes.of(slot.shard(self.config.shards));
        let way = self.way_to(number);
        if way == Some(Way::Here)
            && let Some(place) = self.multi.place_of(id_of(number))
        {
            return self.execute_at(now, place, call, out);
        }
        let Origin::Local { conn, sequence } = call.origin else {
            return self.give_back(now, call, out);
        };
        let protocol = self.connections.protocol(conn);
        let command = Outgoing { conn, sequence, protocol, spec: call.spec, args: call.args };
        match (way, self.config.redirect) {
            (Some(Way::Core(core)), _) => self.send_to_core(now, core, &command, out),
            (Some(Way::Peer(peer)), Redirect::Forward) => self.send_to_peer(now, peer, &command, out),
            _ => self.give_back(now, call, out),
        }
    }

    /// It was heard that shards are elsewhere: who waited for one of them here goes there before anybody who comes later.
    pub(in crate::core) fn release_rerouted(&mut self, now: Now, out: &mut Effects<Message>) {
        for place in 0..self.groups.len() {
            if self.groups[place].is_leading() {
                self.release_arrived(now, place, out);
            }
        }
    }

    /// Leader: those whose shard is here are executed; those who have waited for too long may try again.
    pub(super) fn release_arrived(&mut self, now: Now, place: usize, out: &mut Effects<Message>) {
        if self.groups[place].early.is_empty() {
            return;
        }
        let waiting: Vec<u16> = self.groups[place].early.shards.keys().copied().collect();
        for shard in waiting {
            let is_departing = self.is_departing(place, shard);
            let group = &mut self.groups[place];
            let is_here = group.shards.get(shard).is_some_and(Shard::is_serving);
            if !is_departing && (is_here || self.routes.of(shard) != group.number) {
                for (held, _) in group.early.take(shard) {
                    held.call(|call| self.execute_at(now, place, call, out));
                }
                continue;
            }
            let queue = group.early.shards.get(&shard);
            let is_late =
                queue.and_then(VecDeque::front).is_some_and(|(_, at)| now.monotonic >= at + PATIENCE);
            if is_late {
                // All of them: who is behind in a pipeline must not be executed before who is ahead.
                for (held, _) in group.early.take(shard) {
                    self.answer(held.origin, out, |_, reply| reply.error(TRY_AGAIN));
                }
            }
        }
    }

    /// Leader no more: whoever waits goes where the leader is.
    pub(super) fn release_all(&mut self, now: Now, place: usize, out: &mut Effects<Message>) {
        let waiting: Vec<u16> = self.groups[place].early.shards.keys().copied().collect();
        for shard in waiting {
            for (held, _) in self.groups[place].early.take(shard) {
                held.call(|call| self.give_back(now, call, out));
            }
        }
    }
}

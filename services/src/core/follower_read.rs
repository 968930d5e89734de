//! Reads that a follower serves itself, where it would otherwise hand the command on (`redirect = "forward"`).
//!
//! It asks the leader for no more than the index that it must have applied: one message a turn for all of them, and the
//! leader neither parses, executes nor answers any. That costs the same round trip as handing the command on, and the load
//! of reads is spread.
//!
//! **A pipeline behaves as if sent one by one**, though only the leader knows an order of reads and writes. So a read is
//! served here only if nothing but such reads is under way on its connection, and whatever else comes behind them waits,
//! unread, until they are answered.

use super::Core;
use super::group::{Call, Reader};
use super::held::Held;
use super::remote::Message;
use crate::command::{Kind, Spec, code, lookup};
use crate::config::Redirect;
use crate::slot::{Slot, slot_of_command};
use flotilla_consensus::{ReadState, Role};
use flotilla_runtime::{ConnId, Effects, Now};

impl Core {
    /// Whether a client's read can be served here though another node leads its group: where.
    pub(super) fn may_read_here(
        &self,
        now: Now,
        conn: ConnId,
        slot: Slot,
        spec: &Spec,
        args: &[&[u8]],
    ) -> Option<usize> {
        let (_, waits_for_nothing_else) = self.connections.reads_here(conn);
        if self.config.redirect != Redirect::Forward
            || spec.is_write()
            || spec.code == code::WATCH
            || !waits_for_nothing_else
        {
            return None;
        }
        let number = self.routes.of(slot.shard(self.config.shards));
        let place = self.multi.place_of(super::topology::id_of(number))?;
        let raft = self.multi.raft(place);
        let follows = raft.role() == Role::Follower && raft.leader().is_some() && !raft.is_repairing();
        let follows = follows && self.groups[place].serving(slot).is_some();
        // Only the leader decides that a key has expired.
        (follows && !self.groups[place].read_decides_expiry(now, slot, spec, args)).then_some(place)
    }

    /// Whether a command must stay unread until the reads before it are answered.
    pub(super) fn must_wait_for_reads(&self, now: Now, conn: ConnId, args: &[&[u8]]) -> bool {
        if !self.connections.reads_here(conn).0 {
            return false;
        }
        let Some(spec) = args.first().and_then(|name| lookup(name)) else { return false };
        if !matches!(spec.kind, Kind::Read | Kind::Write) {
            return false;
        }
        let slot = slot_of_command(spec, args).ok().flatten();
        slot.and_then(|slot| self.may_read_here(now, conn, slot, spec, args)).is_none()
    }

    /// Begins a read of a group that another node leads.
    pub(super) fn begin_follower_read(
        &mut self,
        now: Now,
        place: usize,
        call: &Call<'_>,
        out: &mut Effects<Message>,
    ) {
        match self.multi.read_at_follower(now.monotonic, place) {
            Ok(ticket) => {
                let reader = Reader { ticket, after: 0, command: Held::new(call) };
                self.groups[place].follower_readers.push_back(reader);
            }
            Err(_) => self.give_back(now, call, out),
        }
    }

    /// Serves the readers that the leader has answered and whose index is applied, in their order.
    pub(super) fn serve_follower_readers(&mut self, now: Now, place: usize, out: &mut Effects<Message>) {
        while let Some(reader) = self.groups[place].follower_readers.front() {
            let is_void = match self.multi.raft(place).read_state(&reader.ticket) {
                ReadState::Void => true,
                ReadState::ServeAt(index) if index <= self.groups[place].applied => false,
                _ => return,
            };
            let Some(reader) = self.groups[place].follower_readers.pop_front() else { return };
            if is_void {
                reader.command.call(|call| self.give_back(now, call, out));
            } else {
                self.serve(now, place, &reader, out);
            }
        }
    }
}

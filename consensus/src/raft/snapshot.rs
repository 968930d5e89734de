//! Forgetting entries that a snapshot covers, and catching up from somebody else's (§7).
//!
//! The parts of a snapshot are the owner's: it makes, sends and collects them. Here is only what they mean for the log.

use super::{Context, Raft, Role};
use crate::message::{Header, Kind};
use crate::progress::Mode;
use flotilla_runtime::planted::{Bug, planted};
use flotilla_runtime::{Nanos, NodeId, Slice};
use flotilla_storage::{Log, Lsn};

impl Raft {
    /// The state machine has a durable snapshot up to `index`: forget the entries that it covers.
    ///
    /// # Panics
    /// If `index` isn't committed.
    pub fn compact(&mut self, index: u64) {
        assert!(index <= self.commit, "a snapshot holds only committed entries");
        self.log.compact(index);
        self.forget_members(index);
    }

    /// Appends all entries to the write-ahead log once more. What was durable stays so: the old copies go only when the new
    /// ones are.
    pub(crate) fn move_entries(&mut self, wal: &mut Log) {
        let entries: Vec<Slice> = self.log.records().cloned().collect();
        let again = wal.rewrite(self.group.0, &entries);
        self.log.replace_records(again);
    }

    /// Leader: the followers that need entries which are gone.
    pub fn wanting_snapshot(&self) -> impl Iterator<Item = NodeId> {
        let tracked = self.group_of.others.iter().filter(|place| *place < self.progress.len());
        let wanting = tracked.filter(|place| self.progress[*place].mode == Mode::Snapshot);
        wanting.map(|place| self.members[place].peer.node)
    }

    /// Leader: how far the slowest follower has come that was heard of since `since`; for not forgetting what it is
    /// about to need. Anybody else: everything.
    pub fn slowest_since(&self, since: Nanos) -> u64 {
        let others = self.group_of.others.iter().filter_map(|place| self.progress.get(place));
        let alive =
            others.filter(|progress| progress.last_heard() >= since && progress.mode != Mode::Snapshot);
        alive.map(|progress| progress.matched).min().unwrap_or(u64::MAX)
    }

    /// Leader: sends a part to a follower. `header` fields beyond group, kind and term are the caller's.
    pub fn send_snapshot_part(&self, cx: &mut Context<'_>, to: NodeId, header: &Header, body: &[u8]) {
        let Some(member) = self.members.iter().find(|member| member.peer.node == to) else { return };
        let header = Header { group: self.group, term: self.term, kind: Kind::Snapshot, ..*header };
        cx.outbox.send_body(member.peer, &header, body);
    }

    /// Follower: a part was taken (or isn't needed).
    pub fn answer_snapshot_part(&self, cx: &mut Context<'_>, to: NodeId, index: u64, offset: u64) {
        let Some(member) = self.members.iter().find(|member| member.peer.node == to) else { return };
        let header = Header { index, aux: offset, ..self.header(Kind::SnapshotReply) };
        cx.outbox.send(member.peer, &header);
    }

    /// Follower: everything up to `index` is committed here, so it agrees with the leader's: tell it.
    pub fn needs_no_snapshot(&mut self) {
        self.matched = self.matched.max(self.commit);
        self.ack_due = true;
    }

    /// Follower: a snapshot up to (`index`, `term`) is durable, and the record that says so is in the frame `lsn`. The
    /// log goes on behind it.
    pub fn install(&mut self, index: u64, term: u64, lsn: Lsn) {
        let is_ahead = index > self.commit || planted(Bug::OlderSnapshotInstalled);
        assert!(is_ahead, "only a snapshot that is ahead is installed");
        if self.log.term(index) == Some(term) {
            self.log.compact(index);
        } else {
            self.log.reset(index, term);
            self.note_cut(0);
            self.durable = 0;
            self.pending.clear();
        }
        self.pending.push_back((lsn, self.log.last_index()));
        self.commit = index;
        self.forget_members(index);
        self.matched = self.matched.max(index);
        self.ack_due = true;
    }

    pub(super) fn on_snapshot_reply(&mut self, cx: &Context<'_>, from: usize) {
        if self.role == Role::Leader {
            self.progress[from].heard = cx.now;
        }
    }
}

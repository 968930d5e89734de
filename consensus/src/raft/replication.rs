//! How entries get from the leader's log into the followers', and when they are committed (§5.3, §5.4.2).

use super::{Context, Raft, Role};
use crate::membership::{Membership, SCHEMA_MEMBERSHIP};
use crate::message::{Header, Kind, Message, WireError};
use crate::progress::{Mode, Progress};
use flotilla_runtime::Nanos;
use flotilla_runtime::planted::{Bug, planted};
use flotilla_storage::{RECORD_HEADER_BYTES, RecordHeader, RecordKind};

impl Raft {
    /// Leader: sends every follower what its window allows.
    pub(super) fn send_appends(&mut self, cx: &mut Context<'_>) {
        let mut is_chosen = false;
        for place in self.receivers() {
            // A probe goes even when there is nothing to send: a follower that came back learns only from an append
            // how far its log agrees, and with that what is committed.
            while (self.progress[place].next <= self.log.last_index()
                || self.progress[place].mode == Mode::Probe)
                && self.progress[place].has_room(self.config.window())
            {
                if !std::mem::replace(&mut is_chosen, true) {
                    self.choose_quick(cx.now);
                }
                if !self.send_append(cx, place) {
                    break;
                }
            }
        }
    }

    fn send_append(&mut self, cx: &mut Context<'_>, place: usize) -> bool {
        let next = self.progress[place].next;
        let Some(log_term) = self.log.term(next - 1) else {
            self.progress[place].mode = Mode::Snapshot;
            return false;
        };
        let mut bytes = 0;
        let mut last = next - 1;
        while let Some(entry) = self.log.entry(last + 1) {
            let padded = entry.record.len().next_multiple_of(16);
            if last >= next && bytes + padded > self.config.append_bytes_max {
                break;
            }
            bytes += padded;
            last += 1;
        }
        let aux = self.patience_with(place);
        let header =
            Header { index: next - 1, log_term, commit: self.commit, aux, ..self.header(Kind::Append) };
        let log = &self.log;
        let records = (next..=last).map(|index| &*log.entry(index).expect("counted above").record);
        cx.outbox.send_records(self.members[place].peer, &header, bytes, records);
        self.progress[place].sent(last, bytes, cx.now, aux > 0);
        true
    }

    /// Follower: takes over what the leader sent, if it attaches to what we have.
    pub(super) fn on_append(
        &mut self,
        cx: &mut Context<'_>,
        from: usize,
        message: &Message<'_>,
    ) -> Result<(), WireError> {
        let header = &message.header;
        let (snapshot_index, _) = self.log.snapshot();
        // What a snapshot covers is committed, so it agrees; only the part behind it needs a check.
        let is_let_in = planted(Bug::NoPrevTermCheck) && header.index <= self.log.last_index();
        if header.index >= snapshot_index
            && self.log.term(header.index) != Some(header.log_term)
            && !is_let_in
        {
            let (first, term) = self.log.conflict(header.index);
            let reply = Header {
                flag: true,
                index: header.index,
                commit: first,
                log_term: term,
                ..self.header(Kind::AppendReply)
            };
            self.send(cx, from, &reply);
            return Ok(());
        }
        let mut index = header.index;
        let mut body = message.body;
        let patience = header.aux.min(self.config.spare_sync_wait);
        if patience == 0 {
            cx.wal.hurry();
        }
        while !body.is_empty() {
            let (parsed, record, rest) = self.next_record(header, index + 1, body)?;
            if index + 1 > snapshot_index && !self.take_over(cx, header, &parsed, record, patience)? {
                break;
            }
            index += 1;
            body = rest;
        }
        self.matched = self.matched.max(index);
        let compared = if planted(Bug::CommitBeyondAgreed) { self.log.last_index() } else { self.matched };
        self.commit = self.commit.max(header.commit.min(compared));
        // What there is no room for is passed over in silence: the leader tries again with every heartbeat, not at once.
        self.ack_due |= body.is_empty() || index > self.acknowledged;
        Ok(())
    }

    fn next_record<'b>(
        &self,
        header: &Header,
        index: u64,
        body: &'b [u8],
    ) -> Result<(RecordHeader, &'b [u8], &'b [u8]), WireError> {
        let bad = |what: String| WireError::BadEntry { group: self.group.0, after: header.index, what };
        let (record, payload) = RecordHeader::decode(body).map_err(|error| bad(error.to_string()))?;
        if record.kind != RecordKind::Entry
            || record.group != self.group.0
            || record.index != index
            || record.term > header.term
        {
            return Err(bad(format!("{record:?} where entry {index} was expected")));
        }
        let bytes = RECORD_HEADER_BYTES + payload.len();
        let padded = bytes.next_multiple_of(16);
        let rest = body.get(padded..).ok_or_else(|| bad("the last record isn't padded".to_owned()))?;
        Ok((record, &body[..bytes], rest))
    }

    /// Returns whether the entry is in our log now: it isn't if the disk has no room. Those without a payload, which
    /// begin a leader's term, always have.
    fn take_over(
        &mut self,
        cx: &mut Context<'_>,
        header: &Header,
        parsed: &RecordHeader,
        record: &[u8],
        patience: Nanos,
    ) -> Result<bool, WireError> {
        let (group, after, index) = (self.group.0, header.index, parsed.index);
        let bad = |what: String| WireError::BadEntry { group, after, what };
        let ours = self.log.term(index);
        if ours == Some(parsed.term) {
            if planted(Bug::TruncatesAgreed) && index < self.log.last_index() {
                self.cut_off(index + 1);
            }
            return Ok(true);
        }
        if parsed.length as usize > self.config.entry_bytes_max {
            let (bytes, most) = (parsed.length, self.config.entry_bytes_max);
            return Err(bad(format!(
                "{bytes} bytes, and this node's segments take {most}: is its log.segment_bytes smaller?"
            )));
        }
        let brings_members = parsed.schema == SCHEMA_MEMBERSHIP && parsed.kind == RecordKind::Entry;
        if brings_members && Membership::decode(&record[RECORD_HEADER_BYTES..]).is_none() {
            return Err(bad("members that this version can't read".to_owned()));
        }
        if parsed.length > 0 && !cx.wal.has_room_to_follow(record.len()) {
            return Ok(false);
        }
        if ours.is_some() {
            self.cut_off(index);
        }
        if parsed.term < self.log.last_term() {
            return Err(bad(format!("term {} after term {}", parsed.term, self.log.last_term())));
        }
        let slice =
            cx.wal.append_record_by(cx.now + patience, record).map_err(|error| bad(error.to_string()))?;
        self.log.push(parsed.term, slice);
        self.note_entry(index, parsed.schema);
        self.appended(cx.wal.open_lsn(), index);
        Ok(true)
    }

    /// Follower: the leader has something else at `index`. The record that will say so on disk is the one that
    /// replaces it; what was pending from here on must not be reported durable any more.
    fn cut_off(&mut self, index: u64) {
        assert!(index > self.commit, "a committed entry is never replaced (group {}, {index})", self.group.0);
        self.log.truncate(index);
        self.note_cut(index);
        if planted(Bug::PersistedAfterTruncation) {
            return;
        }
        self.durable = self.durable.min(index - 1);
        for (_, end) in &mut self.pending {
            *end = (*end).min(index - 1);
        }
    }

    /// Follower: answers with the newest index that is both durable here and the leader's. Many appends, one
    /// sync, one answer. Never before the term is on our disk: who comes back in an older one may take that one's entries in place of
    /// those that it has acknowledged, and the leader wouldn't look for it so far behind.
    pub(super) fn acknowledge(&mut self, cx: &mut Context<'_>) {
        let Some(leader) = self.leader.filter(|_| self.recorded_term == self.term) else { return };
        let mut index = self.durable.min(self.matched);
        if planted(Bug::AckBeforeSync) {
            index = self.matched;
        } else if planted(Bug::AckBeyondAgreed) {
            index = self.durable;
        }
        if index > self.acknowledged || (self.ack_due && index == self.matched) {
            self.acknowledged = index;
            self.ack_due = index < self.matched;
            let is_whole = !self.is_repairing() || planted(Bug::RepairingCounts);
            let kind = if is_whole { Kind::AppendReply } else { Kind::RepairAck };
            let (aux, log_term) = (is_full(cx), u64::from(self.declines()));
            let reply = Header { index, log_term, aux, ..self.header(kind) };
            self.send(cx, leader, &reply);
        }
    }

    pub(super) fn on_append_reply(&mut self, cx: &mut Context<'_>, from: usize, header: &Header) {
        if self.role != Role::Leader {
            return;
        }
        self.progress[from].heard = cx.now;
        if header.flag {
            self.back_up(from, header);
        } else {
            self.note_declines(cx.now, from, header.log_term != 0);
            self.note_room(from, header.aux);
            self.progress[from].counts = true;
            self.on_acknowledged(cx.now, from, header.index);
        }
    }

    /// The follower refused: skip back by whole terms (§5.3).
    fn back_up(&mut self, from: usize, header: &Header) {
        let progress = &self.progress[from];
        let stale = match progress.mode {
            Mode::Probe => header.index + 1 != progress.next,
            _ => header.index < progress.matched,
        };
        if stale || header.index == 0 {
            return;
        }
        let (refused, first, term) = (header.index, header.commit, header.log_term);
        let agree = self.log.last_index_of_term_at_most(refused - 1, term);
        let next =
            if term != 0 && self.log.term(agree) == Some(term) { agree + 1 } else { first.min(agree + 1) };
        let next = if term == 0 { first.min(refused) } else { next };
        self.progress[from].probe_from(next.max(1) + u64::from(planted(Bug::ConflictOffByOne)));
    }

    fn on_acknowledged(&mut self, now: Nanos, from: usize, index: u64) {
        let index = index.min(self.log.last_index());
        if self.progress[from].acknowledged(index, now) {
            self.advance_commit();
        }
    }

    /// An index that a majority has on disk is committed, if its entry is of our term (§5.4.2).
    pub(super) fn advance_commit(&mut self) {
        self.progress[self.me].matched =
            if planted(Bug::SelfAckEarly) { self.log.last_index() } else { self.durable };
        let counted = |progress: &Progress| if progress.counts { progress.matched } else { 0 };
        let index = self.reached(|place| counted(&self.progress[place]));
        let is_ours = self.log.term(index) == Some(self.term) || planted(Bug::OldTermByCounting);
        if index > self.commit && is_ours {
            self.uncommitted_bytes -= self.bytes_of(self.commit, index);
            self.commit = index;
        }
    }

    /// Bytes of the records after `after`, up to `last`.
    pub(super) fn bytes_of(&self, after: u64, last: u64) -> usize {
        let records = (after + 1..=last).filter_map(|index| self.log.entry(index));
        records.map(|entry| entry.record.len()).sum()
    }

    /// Leader: a follower says whether its disk has room.
    fn note_room(&mut self, from: usize, is_full: u64) {
        let is_full = is_full != 0;
        if self.progress[from].is_full != is_full {
            self.progress[from].is_full = is_full;
            self.look_for_room();
        }
    }

    /// Leader, also once a heartbeat, since members come and go: would an entry be taken by a majority?
    pub(super) fn look_for_room(&mut self) {
        self.is_hemmed_in = !self.is_quorum(|place| place == self.me || !self.progress[place].is_full);
    }

    pub(super) fn send_heartbeat(&mut self, cx: &mut Context<'_>, place: usize) {
        let commit = self.commit.min(self.progress[place].matched);
        let header = Header { commit, aux: self.round_sent, ..self.header(Kind::Heartbeat) };
        self.send(cx, place, &header);
    }

    pub(super) fn on_heartbeat(&mut self, cx: &mut Context<'_>, from: usize, header: &Header) {
        self.commit = self.commit.max(header.commit.min(self.matched));
        let reply = self.heartbeat_reply(cx, header.aux);
        self.send(cx, from, &reply);
        self.ask_again(cx, from);
    }

    /// An answer that confirms the read round `aux`.
    pub(super) fn heartbeat_reply(&self, cx: &Context<'_>, aux: u64) -> Header {
        // A replica that lost part of its log may have promised to follow somebody else: it confirms nothing.
        let (index, aux) = match (self.is_repairing(), self.recorded_term == self.term) {
            (true, _) => (0, 0),
            (false, false) => (0, aux),
            (false, true) => (self.durable.min(self.matched), aux),
        };
        let (flag, commit) = (self.declines(), is_full(cx));
        Header { flag, index, aux, commit, ..self.header(Kind::HeartbeatReply) }
    }

    pub(super) fn on_heartbeat_reply(&mut self, cx: &mut Context<'_>, from: usize, header: &Header) {
        if self.role != Role::Leader {
            return;
        }
        self.note_declines(cx.now, from, header.flag);
        self.note_room(from, header.commit);
        let progress = &mut self.progress[from];
        progress.heard = cx.now;
        progress.read_round = progress.read_round.max(header.aux.min(self.round_sent));
        if progress.mode == Mode::Probe {
            progress.repeat_probe();
        } else if progress.mode != Mode::Snapshot
            && header.index < progress.matched
            && progress.in_flight.is_empty()
        {
            // It acknowledged more once: it restarted, and doesn't know any more how far it agrees with us.
            progress.probe_from(progress.matched + 1);
        } else {
            self.on_acknowledged(cx.now, from, header.index);
        }
        self.confirm_reads();
    }
}

/// Whether this node's log takes no more from clients, as replies say it.
fn is_full(cx: &Context<'_>) -> u64 {
    u64::from(cx.wal.no_room_for(0).is_some())
}

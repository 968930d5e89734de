//! Snapshots of a group: taking one while the group goes on, sending one to a follower, installing one.
//!
//! A snapshot is taken shard by shard, each as it is when its turn comes, so nothing ever stops for it: one shard is
//! encoded, written, and only then the next. The whole is good for the index of its first part; who restores it applies
//! an entry to a shard only if it is newer than that shard's part (see [`flotilla_storage::snapshot`]).
//!
//! ```text
//!            log too long                parts ▼ written            renamed        mark durable
//!   (none) ─────────────▶ Unfinished file ───────────▶ end + sync ─────────▶ mark ─────────────▶ log forgotten
//!            all parts came from the leader ▲                                  └▶ state replaced, log goes on behind
//! ```

use super::Core;
use super::group::Group;
use super::remote::Message;
use crate::kv::Keyspace;
use flotilla_consensus::{Header, Kind, Role, SnapshotMail};
use flotilla_runtime::machine::SECOND;
use flotilla_runtime::{
    DiskError, DiskReply, Effect, Effects, FileId, FileKind, Nanos, NodeId, Now, OpId, PeerId, Slice,
};
use flotilla_storage::snapshot::{PartHeader, encode, parse};
use flotilla_storage::{Lsn, StorageError};
use std::collections::BTreeMap;

/// The top byte of the operation numbers of snapshots.
const OP_TAG: u64 = 0x02 << 56;
/// A part that isn't answered for so long is sent again.
const PATIENCE: Nanos = 5 * SECOND;
/// After a snapshot that was given up, the next one isn't begun for so long.
const RETRY_AFTER: Nanos = SECOND;
/// A follower that was heard of within this time isn't made to need a snapshot by forgetting the log.
const ALIVE_WITHIN: Nanos = 10 * SECOND;

/// One shard as it was at an index.
struct Part {
    header: PartHeader,
    data: Keyspace,
}

/// What is being written: our own state, or what the leader sent.
enum Source {
    Live,
    Received { from: NodeId, parts: Vec<Part> },
}

/// A snapshot file being written.
struct Taking {
    number: u64,
    source: Source,
    /// Of the first part: what the whole is good for.
    index: u64,
    term: u64,
    next_unit: u32,
    offset: u64,
}

/// A snapshot on its way to a follower.
struct Sending {
    index: u64,
    term: u64,
    next_unit: u32,
    sent_at: Option<Nanos>,
}

/// A snapshot on its way from the leader.
struct Receiving {
    from: NodeId,
    leader_term: u64,
    index: u64,
    parts: Vec<Part>,
}

/// A mark that isn't durable yet, and what follows when it is.
struct Marked {
    lsn: Lsn,
    index: u64,
    number: u64,
}

/// The snapshots of one group.
#[derive(Default)]
pub(super) struct GroupSnapshots {
    taking: Option<Taking>,
    /// The last one was given up.
    not_before: Nanos,
    sending: BTreeMap<NodeId, Sending>,
    receiving: Option<Receiving>,
    marked: Option<Marked>,
    /// The newest durable snapshot: up to where the log may be forgotten, and its file.
    newest: Option<(u64, u64)>,
}

/// What an operation is for.
struct Making {
    place: usize,
    /// The file's number: the group may have given it up by the time the operation ends.
    number: u64,
    /// The file's name once the operation succeeds.
    becomes: FileKind,
}

/// The snapshots of a core.
#[derive(Default)]
pub(super) struct Snapshots {
    groups: Vec<GroupSnapshots>,
    /// Operations under way, each with the file that is being made; a removal has none, and its end changes nothing.
    ops: BTreeMap<u64, Option<Making>>,
    last_op: u64,
    last_number: u64,
    /// Files of no use, other than snapshots too: to be removed.
    leftover: Vec<FileId>,
}

impl Snapshots {
    fn op(&mut self, making: Option<Making>) -> OpId {
        self.last_op += 1;
        let op = OP_TAG | self.last_op;
        self.ops.insert(op, making);
        OpId(op)
    }

    fn op_of(&mut self, place: usize, number: u64, becomes: FileKind) -> OpId {
        self.op(Some(Making { place, number, becomes }))
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

/// What a snapshot file brings back.
pub(super) struct Restored {
    shards: Vec<(Keyspace, u64)>,
    clock_ms: u64,
}

/// Reads the snapshot files that the marks name; the others are of no use, as is what is `unfit`.
pub(super) fn open(
    files: &[(FileId, Slice)],
    marks: &[Option<u64>],
    unfit: Vec<FileId>,
) -> Result<(Snapshots, Vec<Option<Restored>>), StorageError> {
    let mut snapshots = Snapshots::default();
    let images: BTreeMap<u64, &(FileId, Slice)> = files
        .iter()
        .filter(|(file, _)| file.kind == FileKind::Snapshot)
        .map(|file| (file.0.number, file))
        .collect();
    snapshots.last_number = images.keys().next_back().copied().unwrap_or(0);
    let mut restored = Vec::new();
    for mark in marks {
        let mut group = GroupSnapshots::default();
        restored.push(match mark {
            None => None,
            Some(number) => {
                let file = FileId { kind: FileKind::Snapshot, number: *number };
                let missing =
                    || StorageError::Snapshot { file, offset: 0, what: "the file is missing".to_owned() };
                let (file, image) = images.get(number).ok_or_else(missing)?;
                let found = restore(*file, image)?;
                group.newest = Some((found.0, *number));
                Some(found.1)
            }
        });
        snapshots.groups.push(group);
    }
    let named: Vec<u64> = marks.iter().flatten().copied().collect();
    let leftover = images.values().map(|(file, _)| *file).filter(|file| !named.contains(&file.number));
    snapshots.leftover = leftover.chain(unfit).collect();
    Ok((snapshots, restored))
}

fn restore(file: FileId, image: &Slice) -> Result<(u64, Restored), StorageError> {
    let parts = parse(file, image)?;
    let bad = |what: &str| StorageError::Snapshot { file, offset: 0, what: what.to_owned() };
    let (first, _) = parts.first().ok_or_else(|| bad("it has no parts"))?;
    let (index, clock_ms) = (first.index, first.clock);
    let mut shards = Vec::new();
    for (header, payload) in &parts {
        let mut data = Keyspace::default();
        data.decode_into(payload).map_err(|error| bad(&error.to_string()))?;
        shards.push((data, header.index));
    }
    Ok((index, Restored { shards, clock_ms }))
}

impl Group {
    /// Takes over what a snapshot holds.
    pub(super) fn restore(&mut self, restored: Restored, index: u64) {
        assert_eq!(restored.shards.len(), self.shards.len(), "a group's shards are fixed");
        (self.shards, self.restored) = restored.shards.into_iter().unzip();
        self.clock_ms = restored.clock_ms;
        self.applied = index;
    }

    /// The newest entry whose effect a shard holds. Right after a snapshot was restored that may be ahead of what the
    /// group as a whole has applied.
    fn shard_index(&self, shard: usize) -> u64 {
        self.applied.max(self.restored[shard])
    }
}

impl Core {
    /// Looks after a group's snapshots: called whenever something happened to it.
    pub(super) fn settle_snapshots(&mut self, now: Now, place: usize, out: &mut Effects<Message>) {
        for file in std::mem::take(&mut self.snapshots.leftover) {
            let op = self.snapshots.op(None);
            out.push(Effect::RemoveFile { op, file });
        }
        self.finish_mark(place, out);
        self.forget_log(now, place);
        self.take_if_due(now, place, out);
        self.serve_followers(now, place);
    }

    /// A mark has become durable: the file before it isn't needed any more.
    fn finish_mark(&mut self, place: usize, out: &mut Effects<Message>) {
        let durable = self.multi.wal().durable();
        let group = &mut self.snapshots.groups[place];
        let Some(marked) = group.marked.take_if(|marked| marked.lsn <= durable) else { return };
        if let Some((_, old)) = group.newest.replace((marked.index, marked.number)) {
            let op = self.snapshots.op(None);
            out.push(Effect::RemoveFile { op, file: FileId { kind: FileKind::Snapshot, number: old } });
        }
    }

    /// Forgets the entries that the newest snapshot covers, but not what a follower is about to need, unless it is
    /// far behind.
    fn forget_log(&mut self, now: Now, place: usize) {
        let group = &self.snapshots.groups[place];
        let raft = self.multi.raft(place);
        let Some((covered, _)) = group.newest else { return };
        let mut upto =
            group.sending.values().map(|sending| sending.index).min().unwrap_or(u64::MAX).min(covered);
        if raft.log().bytes() < 4 * self.config.log.snapshot_after_bytes {
            upto = upto.min(raft.slowest_since(now.monotonic.saturating_sub(ALIVE_WITHIN)));
        }
        if upto > raft.log().snapshot().0 {
            self.multi.compact(place, upto);
        }
    }

    fn take_if_due(&mut self, now: Now, place: usize, out: &mut Effects<Message>) {
        let group = &self.snapshots.groups[place];
        let raft = self.multi.raft(place);
        let applied = self.groups[place].applied;
        // Bytes since the newest snapshot, roughly: what it covers may still be here for a follower.
        let covered = group.newest.map_or(0, |(index, _)| index);
        let entries = raft.log().last_index() - raft.log().snapshot().0;
        let fresh = raft.log().last_index() - covered.max(raft.log().snapshot().0);
        let bytes = raft.log().bytes() as u64 * fresh / entries.max(1);
        let busy = group.taking.is_some() || group.marked.is_some() || now.monotonic < group.not_before;
        if busy || bytes < self.config.log.snapshot_after_bytes as u64 || applied <= covered {
            return;
        }
        let term = raft.log().term(applied).expect("what is applied and not covered is in the log");
        self.begin_taking(place, Source::Live, applied, term, out);
    }

    fn begin_taking(
        &mut self,
        place: usize,
        source: Source,
        index: u64,
        term: u64,
        out: &mut Effects<Message>,
    ) {
        let number = self.snapshots.number();
        // One that is being made is given up; its operation under way removes the file when it ends.
        let taking = Taking { number, source, index, term, next_unit: 0, offset: 0 };
        self.snapshots.groups[place].taking = Some(taking);
        let op = self.snapshots.op_of(place, number, FileKind::Unfinished);
        out.push(Effect::CreateFile { op, file: FileId { kind: FileKind::Unfinished, number }, bytes: 0 });
    }

    /// An operation for a snapshot is done: the next one.
    pub(super) fn snapshot_disk(
        &mut self,
        now: Now,
        op: OpId,
        result: &Result<DiskReply, DiskError>,
        out: &mut Effects<Message>,
    ) {
        let making =
            self.snapshots.ops.remove(&op.0).expect("every disk operation is the log's or a snapshot's");
        let Some(Making { place, number, becomes }) = making else { return };
        let group = &mut self.snapshots.groups[place];
        let is_current = group.taking.as_ref().is_some_and(|taking| taking.number == number);
        if let Err(error) = result
            && is_current
        {
            // Without a snapshot nothing is lost; the log stays, and another try follows.
            tracing::warn!(%error, "a snapshot was given up");
            group.taking = None;
            group.not_before = now.monotonic + RETRY_AFTER;
        }
        if !is_current || result.is_err() {
            // Under which name a rename that failed has left it, nobody knows.
            let before = if result.is_ok() { becomes } else { FileKind::Unfinished };
            for kind in if before == becomes { vec![becomes] } else { vec![before, becomes] } {
                let op = self.snapshots.op(None);
                out.push(Effect::RemoveFile { op, file: FileId { kind, number } });
            }
            return;
        }
        let Some(taking) = &self.snapshots.groups[place].taking else { return };
        let units = u32::try_from(self.groups[place].shards.len()).expect("shards are few");
        match taking.next_unit {
            unit if unit <= units => self.write_part(place, unit, units, out),
            unit if unit == units + 1 => {
                let number = taking.number;
                self.advance(place, 0);
                let (from, to) = (FileKind::Unfinished, FileKind::Snapshot);
                let op = self.snapshots.op_of(place, number, FileKind::Snapshot);
                let (from, to) = (FileId { kind: from, number }, FileId { kind: to, number });
                out.push(Effect::RenameFile { op, from, to });
            }
            _ => self.finish_taking(now, place, out),
        }
    }

    fn advance(&mut self, place: usize, bytes: usize) {
        let taking = self.snapshots.groups[place].taking.as_mut().expect("seen by the caller");
        taking.next_unit += 1;
        taking.offset += bytes as u64;
    }

    /// Writes one part, or the end mark; the end mark's write makes all of them durable.
    fn write_part(&mut self, place: usize, unit: u32, units: u32, out: &mut Effects<Message>) {
        let taking = self.snapshots.groups[place].taking.as_ref().expect("seen by the caller");
        let group = &self.groups[place];
        let id = self.multi.raft(place).group().0;
        let mut payload = Vec::new();
        let shard = unit as usize;
        let mut header =
            PartHeader { group: id, unit, units, index: taking.index, term: taking.term, clock: 0 };
        match &taking.source {
            _ if unit == units => {}
            Source::Live => {
                // The first part decides what the whole is good for: it must be what was promised.
                header.index = if unit == 0 { taking.index } else { group.shard_index(shard) };
                header.clock = group.clock_ms;
                group.shards[shard].encode_from(None, usize::MAX, &mut payload);
            }
            Source::Received { parts, .. } => {
                header = PartHeader { unit, units, ..parts[shard].header };
                parts[shard].data.encode_from(None, usize::MAX, &mut payload);
            }
        }
        if unit == 0 && matches!(taking.source, Source::Live) && group.applied != taking.index {
            // The group went on while the file was made: what the first part holds is what counts.
            let (index, raft) = (group.applied, self.multi.raft(place));
            header.index = index;
            header.term = raft.log().term(index).expect("the newest applied entry is in the log");
            let taking = self.snapshots.groups[place].taking.as_mut().expect("seen above");
            (taking.index, taking.term) = (index, header.term);
        }
        let taking = self.snapshots.groups[place].taking.as_ref().expect("seen above");
        let (number, offset) = (taking.number, taking.offset);
        let block = encode(&self.pool, &header, &payload);
        let file = FileId { kind: FileKind::Unfinished, number };
        let bytes = block.len();
        let op = self.snapshots.op_of(place, number, FileKind::Unfinished);
        out.push(Effect::Write { op, file, offset, block, sync: unit == units });
        self.advance(place, bytes);
    }

    /// The file has its name: mark it in the log, and install it if it came from the leader.
    fn finish_taking(&mut self, now: Now, place: usize, out: &mut Effects<Message>) {
        let taking = self.snapshots.groups[place].taking.take().expect("seen by the caller");
        let Taking { number, source, index, term, .. } = taking;
        let overtaken = index <= self.multi.raft(place).commit();
        if let Source::Received { from, parts } = source {
            if overtaken {
                // The log caught up by itself meanwhile.
                let op = self.snapshots.op(None);
                out.push(Effect::RemoveFile { op, file: FileId { kind: FileKind::Snapshot, number } });
                self.multi.needs_no_snapshot(now.monotonic, place);
                return;
            }
            let lsn = self.multi.mark_snapshot(place, index, term, &number.to_le_bytes());
            self.multi.install_snapshot(now.monotonic, place, index, term, lsn);
            let clock_ms = parts.first().map_or(0, |part| part.header.clock);
            let shards = parts.into_iter().map(|part| (part.data, part.header.index)).collect();
            self.groups[place].restore(Restored { shards, clock_ms }, index);
            for origin in self.groups[place].undecided_upto(index) {
                self.abandon(origin, out);
            }
            self.snapshots.groups[place].marked = Some(Marked { lsn, index, number });
            tracing::info!(
                group = self.groups[place].number,
                index,
                from = from.0,
                "a snapshot was installed"
            );
        } else {
            let lsn = self.multi.mark_snapshot(place, index, term, &number.to_le_bytes());
            self.snapshots.groups[place].marked = Some(Marked { lsn, index, number });
        }
    }

    /// Leader: sends parts to the followers that need a snapshot.
    fn serve_followers(&mut self, now: Now, place: usize) {
        let raft = self.multi.raft(place);
        if raft.role() != Role::Leader {
            self.snapshots.groups[place].sending.clear();
            return;
        }
        let wanting: Vec<NodeId> = raft.wanting_snapshot().collect();
        let applied = self.groups[place].applied;
        let Some(term) = raft.log().term(applied) else { return };
        let group = &mut self.snapshots.groups[place];
        group.sending.retain(|node, _| wanting.contains(node));
        for node in wanting {
            let begin = Sending { index: applied, term, next_unit: 0, sent_at: None };
            let sending = self.snapshots.groups[place].sending.entry(node).or_insert(begin);
            if sending.sent_at.is_none_or(|at| now.monotonic >= at + PATIENCE) {
                self.send_part(now, place, node);
            }
        }
    }

    fn send_part(&mut self, now: Now, place: usize, to: NodeId) {
        let group = &self.groups[place];
        let Some(sending) = self.snapshots.groups[place].sending.get_mut(&to) else { return };
        let units = group.shards.len() as u64;
        if u64::from(sending.next_unit) >= units {
            let just_now = sending.sent_at.is_some_and(|at| now.monotonic < at + PATIENCE);
            if just_now {
                return;
            }
            // It has had them all for long, and nothing came of it: its disk had no room, perhaps.
            sending.next_unit = 0;
        }
        sending.sent_at = Some(now.monotonic);
        let unit = u64::from(sending.next_unit);
        if unit == 0 {
            let raft = self.multi.raft(place);
            sending.index = group.applied;
            sending.term = raft.log().term(group.applied).unwrap_or(sending.term);
        }
        let mut body = group.clock_ms.to_le_bytes().to_vec();
        group.shards[sending.next_unit as usize].encode_from(None, usize::MAX, &mut body);
        let id = self.multi.raft(place).group();
        let header = Header {
            index: sending.index,
            log_term: sending.term,
            commit: group.shard_index(sending.next_unit as usize),
            aux: unit | units << 32,
            ..Header::new(Kind::Snapshot, id, 0)
        };
        self.multi.send_snapshot_part(now.monotonic, place, to, &header, &body);
    }

    /// Parts from a leader, and a follower's answers to ours.
    pub(super) fn snapshot_mail(&mut self, now: Now, out: &mut Effects<Message>) {
        for mail in self.multi.take_snapshot_mail() {
            match mail.header.kind {
                Kind::Snapshot => self.part_came(now, mail, out),
                _ => {
                    let sending = self.snapshots.groups[mail.place].sending.get_mut(&mail.from);
                    let expected = sending.filter(|sending| {
                        sending.index == mail.header.index && u64::from(sending.next_unit) == mail.header.aux
                    });
                    if let Some(sending) = expected {
                        sending.next_unit += 1;
                        self.send_part(now, mail.place, mail.from);
                    }
                }
            }
        }
    }

    fn part_came(&mut self, now: Now, mail: SnapshotMail, out: &mut Effects<Message>) {
        let SnapshotMail { place, from, header, body } = mail;
        if header.index <= self.multi.raft(place).commit() {
            self.multi.needs_no_snapshot(now.monotonic, place);
            return;
        }
        let (unit, units) = (header.aux & u64::from(u32::MAX), header.aux >> 32);
        let expected_units = self.groups[place].shards.len() as u64;
        let Some((clock, data)) = body.split_first_chunk::<8>() else { return };
        let mut keys = Keyspace::default();
        if units != expected_units || keys.decode_into(data).is_err() {
            tracing::warn!(from = from.0, "a part of a snapshot makes no sense and was dropped");
            return;
        }
        let group = &mut self.snapshots.groups[place];
        let writing =
            group.taking.as_ref().is_some_and(|taking| matches!(taking.source, Source::Received { .. }));
        if unit == 0 && !writing {
            group.receiving =
                Some(Receiving { from, leader_term: header.term, index: header.index, parts: Vec::new() });
        }
        let same = |receiving: &&mut Receiving| {
            receiving.from == from && receiving.leader_term == header.term && receiving.index == header.index
        };
        let Some(receiving) = group.receiving.as_mut().filter(same) else { return };
        if unit == receiving.parts.len() as u64 {
            let part = PartHeader {
                group: header.group.0,
                unit: 0,
                units: 0,
                index: header.commit,
                term: header.log_term,
                clock: u64::from_le_bytes(*clock),
            };
            receiving.parts.push(Part { header: part, data: keys });
        }
        let whole = receiving.parts.len() as u64 == units;
        self.multi.answer_snapshot_part(now.monotonic, place, from, header.index, unit);
        if whole && let Some(received) = self.snapshots.groups[place].receiving.take() {
            let source = Source::Received { from, parts: received.parts };
            self.begin_taking(place, source, header.index, header.log_term, out);
        }
    }

    /// The link to a peer broke: what it was being sent begins anew.
    pub(super) fn snapshot_link_lost(&mut self, peer: PeerId) {
        for group in &mut self.snapshots.groups {
            group.sending.remove(&peer.node);
        }
    }
}

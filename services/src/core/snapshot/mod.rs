//! Snapshots of a group: taking one while the group goes on, sending one to a follower, installing one.
//!
//! ```text
//!           log too long              pieces ▼ written          renamed        mark durable
//!   (none) ─────────────▶ Unfinished file ────────────▶ end mark ───────▶ mark ─────────────▶ log forgotten
//!        pieces came from the leader's file ▲                              └▶ state replaced, log goes on behind
//! ```
//!
//! A snapshot is taken shard by shard, and of a shard piece by piece: each shard shows its state at the moment when its
//! turn began ([`crate::kv::Keyspace::freeze`]), so nothing ever stops for it. The whole is good for the index of its first
//! shard; who restores it applies an entry to a shard only if it is newer than that shard's part
//! ([`flotilla_storage::snapshot`]). A follower is sent the bytes of the newest file, and its log goes on behind that.
//!
//! | file | what |
//! |---|---|
//! | `end_mark.rs` | what stands behind a snapshot's shards |
//! | `taking.rs` | our own state becomes a file |
//! | `sending.rs` | a file goes to a follower |
//! | `receiving.rs` | the leader's file becomes ours, and its state ours |

mod end_mark;
mod receiving;
mod sending;
mod taking;
#[cfg(test)]
mod tests;

use super::Core;
use super::group::Group;
use super::remote::Message;
use super::shards::{Part, Shards, Status};
use crate::controller::Controller;
use crate::kv::{Keyspace, ShardReader};
use crate::migration::MetaV2;
use end_mark::EndMark;
use flotilla_consensus::{Kind, Membership};
use flotilla_runtime::machine::SECOND;
use flotilla_runtime::planted::{Bug, planted};
use flotilla_runtime::{
    DiskError, DiskReply, Effect, Effects, FileId, FileKind, Nanos, NodeId, Now, OpId, Slice,
};
use flotilla_storage::snapshot::{PartHeader, PartKind, SnapshotReader};
use flotilla_storage::{Lsn, StorageError};
use receiving::Receiving;
use sending::Sending;
use std::collections::BTreeMap;
use std::ops::Range;
use taking::Taking;

/// After a snapshot that was given up, the next one isn't begun for so long; and a file that couldn't be removed stays so long.
const RETRY_AFTER: Nanos = SECOND;
/// The top byte of the operation numbers of snapshots.
const OP_TAG: u64 = 0x02 << 56;
/// A follower that was heard of within this time isn't made to need a snapshot by forgetting the log.
const ALIVE_WITHIN: Nanos = 10 * SECOND;
/// For such followers so many times the bytes are kept after which a snapshot is due.
const KEPT_FOR_FOLLOWERS: u64 = 4;
/// And so many for one who is on its way to the snapshot before them.
const KEPT_FOR_A_SNAPSHOT: u64 = 6;
/// Entries that are forgotten in a turn: half a million, as one snapshot covers, would take some ten milliseconds.
const FORGOTTEN_IN_A_TURN: u64 = 4096;

/// A mark that isn't durable yet, and what follows when it is.
struct Marked {
    lsn: Lsn,
    file: SnapshotFile,
    /// Files whose marks it follows before they were durable.
    superseded: Vec<u64>,
}

/// A snapshot that has its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SnapshotFile {
    number: u64,
    /// What the whole is good for.
    index: u64,
    term: u64,
    bytes: u64,
}

/// The snapshots of one group.
#[derive(Default)]
pub(super) struct GroupSnapshots {
    taking: Option<Taking>,
    /// The last one was given up: no other is begun before this instant.
    not_before: Nanos,
    sending: BTreeMap<NodeId, Sending>,
    receiving: Option<Receiving>,
    marked: Option<Marked>,
    /// The newest durable one: up to where the log may be forgotten.
    newest: Option<SnapshotFile>,
    /// Older ones that a follower is still being sent.
    old: Vec<u64>,
}

impl GroupSnapshots {
    /// Whether the number is that of a file in use, or in the making.
    fn has(&self, number: u64) -> bool {
        let is_in_the_making = self.taking.as_ref().is_some_and(|taking| taking.number == number)
            || self.receiving.as_ref().is_some_and(|receiving| receiving.number == number);
        let is_marked = |marked: &Marked| marked.file.number == number || marked.superseded.contains(&number);
        is_in_the_making
            || self.marked.as_ref().is_some_and(is_marked)
            || self.newest.is_some_and(|newest| newest.number == number)
            || self.old.contains(&number)
    }
}

/// What an operation of a group's is for.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Creating or writing an unfinished file, our own or the leader's.
    Make,
    /// Giving it its name.
    Rename,
    /// Reading the next bytes for a follower.
    Read(NodeId),
}

/// An operation under way.
#[derive(Clone, Copy, Debug)]
struct Operation {
    place: usize,
    /// The file's number: the group may have given it up by the time the operation ends.
    number: u64,
    step: Step,
}

/// What a disk operation is.
#[derive(Clone, Copy, Debug)]
enum Task {
    /// Part of a snapshot's life.
    Step(Operation),
    /// The end of a file of no use, whatever it was.
    Removal(FileId),
}

/// The snapshots of a core.
#[derive(Default)]
pub(super) struct Snapshots {
    groups: Vec<GroupSnapshots>,
    /// Operations under way.
    ops: BTreeMap<u64, Task>,
    last_op: u64,
    last_number: u64,
    /// Files of no use, other than snapshots too: to be removed.
    leftover: Vec<FileId>,
    /// The same, after a removal that failed; all of them are tried again at that instant.
    unremoved: Vec<FileId>,
    remove_again_at: Nanos,
    /// Reading and writing go on at this instant, for the rate limit's sake.
    next_at: Nanos,
    /// Somebody waits for that.
    is_held_up: bool,
    /// A group has more entries to forget than a turn takes.
    is_forgetting: bool,
}

impl Snapshots {
    fn op(&mut self, task: Task) -> OpId {
        self.last_op += 1;
        let op = OP_TAG | self.last_op;
        self.ops.insert(op, task);
        OpId(op)
    }

    fn op_of(&mut self, place: usize, number: u64, step: Step) -> OpId {
        self.op(Task::Step(Operation { place, number, step }))
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn remove(&mut self, kind: FileKind, number: u64, out: &mut Effects<Message>) {
        let file = FileId { kind, number };
        let op = self.op(Task::Removal(file));
        out.push(Effect::RemoveFile { op, file });
    }

    /// Tries once more what couldn't be removed.
    fn remove_again(&mut self, now: Nanos, out: &mut Effects<Message>) {
        if self.remove_again_at <= now {
            for file in std::mem::take(&mut self.unremoved) {
                self.remove(file.kind, file.number, out);
            }
        }
    }

    /// Whether somebody knows the file: it is used, being made, or to be removed. Any other would stay until a restart.
    pub(super) fn has_file(&self, file: FileId) -> bool {
        let is_under_way = |task: &Task| match task {
            Task::Step(operation) => file.kind != FileKind::Segment && operation.number == file.number,
            Task::Removal(of) => *of == file,
        };
        let is_of = |group: &GroupSnapshots| file.kind != FileKind::Segment && group.has(file.number);
        self.leftover.contains(&file)
            || self.unremoved.contains(&file)
            || self.ops.values().any(is_under_way)
            || self.groups.iter().any(is_of)
    }

    /// Whether something is to be done about the group's snapshots, whose log begins behind the entry `forgotten`.
    pub(super) fn is_busy(&self, place: usize, forgotten: u64) -> bool {
        let group = &self.groups[place];
        group.taking.is_some()
            || group.receiving.is_some()
            || group.marked.is_some()
            || !group.sending.is_empty()
            || !group.old.is_empty()
            || group.newest.is_some_and(|newest| newest.index > forgotten)
    }

    /// Has more files removed than snapshots that no mark names.
    pub(super) fn remove_at_start(&mut self, files: Vec<FileId>) {
        self.leftover.extend(files);
    }

    /// Whether `bytes` may be read or written now; if not, [`Self::deadline`] says when.
    fn may_move(&mut self, now: Nanos, bytes: usize, per_second: u64) -> bool {
        if now < self.next_at {
            self.is_held_up = true;
            return false;
        }
        // No limit, no time.
        let takes = (bytes as u64 * SECOND).checked_div(per_second).unwrap_or(0);
        self.next_at = now + takes;
        true
    }

    /// When whoever was held up goes on, or a removal is tried again.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        let removal = (!self.unremoved.is_empty()).then_some(self.remove_again_at);
        let forgetting = self.is_forgetting.then_some(0);
        self.goes_on_at().into_iter().chain(removal).chain(forgetting).min()
    }

    fn goes_on_at(&self) -> Option<Nanos> {
        self.is_held_up.then_some(self.next_at)
    }
}

/// What a snapshot file brings back.
pub(super) struct Restored {
    shards: Shards,
    controller: Option<Box<Controller>>,
    clock_ms: u64,
}

/// Puts a group's state together from the parts of a snapshot.
#[derive(Default)]
struct Restoring {
    parts: Vec<Part>,
    /// The shards that the group was founded with: what files hold that don't say what they hold.
    founded: Range<u16>,
    at_once: bool,
    restored: Option<(Shards, Option<Box<Controller>>)>,
    shard: ShardReader,
    /// Of the first part: what the whole is good for.
    index: u64,
    term: u64,
    clock_ms: u64,
    /// Who is in the group, and the entry that brought that: what the end mark holds.
    membership: Option<(u64, Membership)>,
}

impl Restoring {
    /// `at_once`: nobody waits meanwhile.
    fn new(founded: Range<u16>, at_once: bool) -> Self {
        Self { founded, at_once, shard: Self::reader(at_once), ..Self::default() }
    }

    fn reader(at_once: bool) -> ShardReader {
        if at_once { ShardReader::at_once() } else { ShardReader::default() }
    }

    fn part(&mut self, header: &PartHeader, payload: &[u8]) -> Result<(), String> {
        if (header.shard, header.piece) == (0, 0) {
            (self.index, self.term, self.clock_ms) = (header.index, header.term, header.clock);
        }
        if header.kind == PartKind::End {
            return self.end(payload);
        }
        self.shard.read(payload).map_err(|error| error.to_string())?;
        if header.kind == PartKind::LastPiece {
            let read = std::mem::replace(&mut self.shard, Self::reader(self.at_once));
            let (keys, pending) = read.into_parts();
            self.parts.push(Part { keys, pending, index: header.index });
        }
        Ok(())
    }

    /// The end mark: of older files without a payload, of less old ones with the members only.
    fn end(&mut self, payload: &[u8]) -> Result<(), String> {
        let mark = EndMark::decode(payload).ok_or("its end mark makes no sense")?;
        self.membership = mark.membership;
        let meta = mark.meta.unwrap_or_else(|| MetaV2::founded(self.founded.clone()));
        let shards = Shards::restore(&meta, std::mem::take(&mut self.parts));
        let shards = shards.ok_or("its shards aren't those that its end mark names")?;
        if shards.iter().any(|it| !it.pending.is_empty() && !matches!(it.status, Status::Arriving { .. })) {
            return Err("a shard is cut off".to_owned());
        }
        let controller = match mark.controller {
            Some(bytes) => Some(Controller::decode(&bytes).ok_or("its configurations make no sense")?),
            None => None,
        };
        self.restored = Some((shards, controller.map(Box::new)));
        Ok(())
    }

    /// The data that has come.
    fn into_keys(self) -> impl Iterator<Item = Keyspace> {
        let parts = self.parts.into_iter().map(|part| part.keys);
        parts.chain(self.restored.into_iter().flat_map(|(shards, _)| shards.into_keys()))
    }

    /// The state, if the end mark has come.
    fn finish(self) -> Option<Restored> {
        let (shards, controller) = self.restored?;
        Some(Restored { shards, controller, clock_ms: self.clock_ms })
    }
}

/// Reads the snapshot files that the marks name, each for itself; everything else among `files` is left over.
pub(super) fn open(
    files: &[(FileId, Slice)],
    marks: &[Option<u64>],
    founded: &[Range<u16>],
) -> (Snapshots, Vec<Result<Option<Restored>, StorageError>>) {
    let mut snapshots = Snapshots::default();
    let images: BTreeMap<u64, &Slice> = files
        .iter()
        .filter(|(file, _)| file.kind == FileKind::Snapshot)
        .map(|(file, image)| (file.number, image))
        .collect();
    snapshots.last_number = images.keys().next_back().copied().unwrap_or(0);
    let mut restored = Vec::new();
    let mut in_use = Vec::new();
    for (mark, founded) in marks.iter().zip(founded) {
        let mut group = GroupSnapshots::default();
        let found = mark.map(|number| {
            let file = FileId { kind: FileKind::Snapshot, number };
            let missing =
                || StorageError::Snapshot { file, offset: 0, what: "the file is missing".to_owned() };
            let image = images.get(&number).ok_or_else(missing)?;
            let mut restoring = Restoring::new(founded.clone(), true);
            let mut reader = SnapshotReader::new(file);
            reader.read(image, |header, payload| restoring.part(header, payload))?;
            let (index, term, bytes) = (restoring.index, restoring.term, image.len() as u64);
            let cut_off = || StorageError::Snapshot {
                file,
                offset: bytes,
                what: "the end mark is missing, or something is behind it".to_owned(),
            };
            let restored = restoring.finish().filter(|_| reader.is_whole()).ok_or_else(cut_off)?;
            group.newest = Some(SnapshotFile { number, index, term, bytes });
            in_use.push(number);
            Ok(restored)
        });
        restored.push(found.transpose());
        snapshots.groups.push(group);
    }
    let leftover = images.keys().filter(|number| !in_use.contains(number));
    let leftover = leftover.map(|number| FileId { kind: FileKind::Snapshot, number: *number });
    snapshots.leftover = leftover.collect();
    (snapshots, restored)
}

impl Group {
    /// Takes over what a snapshot holds; returns what it replaces.
    pub(super) fn restore(
        &mut self,
        restored: Restored,
        index: u64,
    ) -> impl Iterator<Item = Keyspace> + use<> {
        self.clock_ms = restored.clock_ms;
        self.applied = index;
        if restored.controller.is_some() {
            self.controller = restored.controller;
        }
        std::mem::replace(&mut self.shards, restored.shards).into_keys()
    }
}

impl Core {
    /// Looks after a group's snapshots: called whenever something happened to it.
    pub(super) fn settle_snapshots(&mut self, now: Now, place: usize, out: &mut Effects<Message>) {
        for file in std::mem::take(&mut self.snapshots.leftover) {
            self.snapshots.remove(file.kind, file.number, out);
        }
        self.finish_mark(place, out);
        self.remove_old(place, out);
        self.forget_log(now, place);
        self.give_up_what_comes_no_more(place, out);
        self.take_if_due(now, place, out);
        self.continue_taking(now, place, out);
        self.serve_followers(now, place, out);
    }

    /// Time has passed: whoever was held up by the rate limit goes on.
    pub(super) fn tick_snapshots(&mut self, now: Now, out: &mut Effects<Message>) {
        self.snapshots.remove_again(now.monotonic, out);
        if std::mem::take(&mut self.snapshots.is_forgetting) {
            (0..self.groups.len()).for_each(|place| self.forget_log(now, place));
        }
        if self.snapshots.goes_on_at().is_some_and(|at| at <= now.monotonic) {
            self.snapshots.is_held_up = false;
            for place in 0..self.groups.len() {
                self.continue_taking(now, place, out);
                self.serve_followers(now, place, out);
            }
        }
    }

    /// A mark has become durable: the file before it isn't needed any more.
    fn finish_mark(&mut self, place: usize, out: &mut Effects<Message>) {
        let durable = self.multi.wal().durable();
        let group = &mut self.snapshots.groups[place];
        let is_due = |marked: &mut Marked| marked.lsn <= durable || planted(Bug::MarkNotAwaited);
        let Some(marked) = group.marked.take_if(is_due) else { return };
        group.old.extend(marked.superseded);
        group.old.extend(group.newest.replace(marked.file).map(|old| old.number));
        self.remove_old(place, out);
    }

    fn remove_old(&mut self, place: usize, out: &mut Effects<Message>) {
        let group = &mut self.snapshots.groups[place];
        let sending = &group.sending;
        let unused = |number: &mut u64| !sending.values().any(|sending| sending.file.number == *number);
        let unused: Vec<u64> = group.old.extract_if(.., unused).collect();
        for number in unused {
            self.snapshots.remove(FileKind::Snapshot, number, out);
        }
    }

    /// Forgets the entries that the newest snapshot covers, but not what a follower is about to need, unless it is
    /// far behind: it will need another snapshot then.
    fn forget_log(&mut self, now: Now, place: usize) {
        let group = &self.snapshots.groups[place];
        let raft = self.multi.raft(place);
        let Some(newest) = group.newest else { return };
        let (mut upto, bytes) = (newest.index, raft.log().bytes() as u64);
        // A large snapshot takes longer, and the next one has the same way before it.
        if let Some(sending) = group.sending.values().map(|sending| sending.file.index).min()
            && bytes < KEPT_FOR_A_SNAPSHOT * self.enough_for_a_snapshot(place)
        {
            upto = upto.min(sending);
        }
        if bytes < KEPT_FOR_FOLLOWERS * self.config.log.snapshot_after_bytes as u64 {
            upto = upto.min(raft.slowest_since(now.monotonic.saturating_sub(ALIVE_WITHIN)));
        }
        let forgotten = raft.log().snapshot().0;
        if upto > forgotten {
            self.snapshots.is_forgetting |= upto > forgotten + FORGOTTEN_IN_A_TURN;
            self.multi.compact(place, upto.min(forgotten + FORGOTTEN_IN_A_TURN));
        }
    }

    /// A disk operation of a snapshot's ended.
    pub(super) fn snapshot_disk(
        &mut self,
        now: Now,
        op: OpId,
        result: Result<DiskReply, DiskError>,
        out: &mut Effects<Message>,
    ) {
        let task =
            self.snapshots.ops.remove(&op.0).expect("every disk operation is the log's or a snapshot's");
        let Operation { place, number, step } = match task {
            Task::Step(operation) => operation,
            Task::Removal(file) => {
                if result.is_err() {
                    self.snapshots.unremoved.push(file);
                    self.snapshots.remove_again_at = now.monotonic + RETRY_AFTER;
                }
                return;
            }
        };
        let group = &self.snapshots.groups[place];
        if let Step::Read(to) = step {
            self.bytes_read(now, place, to, number, result, out);
        } else if group.taking.as_ref().is_some_and(|taking| taking.number == number) {
            self.taking_went_on(now, place, step, result, out);
        } else if group.receiving.as_ref().is_some_and(|receiving| receiving.number == number) {
            self.receiving_went_on(now, place, step, result, out);
        } else {
            // It was given up meanwhile.
            self.discard(number, step, out);
        }
    }

    /// An operation on a snapshot that isn't wanted any more has ended: away with the file. Under which name a rename has
    /// left it, if that failed, nobody knows.
    fn discard(&mut self, number: u64, step: Step, out: &mut Effects<Message>) {
        self.snapshots.remove(FileKind::Unfinished, number, out);
        if let Step::Rename = step {
            self.snapshots.remove(FileKind::Snapshot, number, out);
        }
    }

    fn rename(&mut self, place: usize, number: u64, out: &mut Effects<Message>) {
        let op = self.snapshots.op_of(place, number, Step::Rename);
        let (from, to) = (FileKind::Unfinished, FileKind::Snapshot);
        out.push(Effect::RenameFile {
            op,
            from: FileId { kind: from, number },
            to: FileId { kind: to, number },
        });
    }

    /// The file has its name: the log says so, and forgets what it covers once that is durable.
    fn mark(&mut self, place: usize, file: SnapshotFile) -> Lsn {
        let SnapshotFile { number, index, term, .. } = file;
        let lsn = self.multi.mark_snapshot(place, index, term, &number.to_le_bytes());
        let group = &mut self.snapshots.groups[place];
        let mut superseded = Vec::new();
        if let Some(before) = group.marked.take() {
            superseded = before.superseded;
            superseded.push(before.file.number);
        }
        group.marked = Some(Marked { lsn, file, superseded });
        lsn
    }

    /// Bytes of a snapshot from a leader, and a follower's answers to ours.
    pub(super) fn snapshot_mail(&mut self, now: Now, out: &mut Effects<Message>) {
        for mail in self.multi.take_snapshot_mail() {
            match mail.header.kind {
                Kind::Snapshot => self.bytes_came(now, mail, out),
                _ => self.bytes_were_taken(now, mail.place, mail.from, &mail.header, out),
            }
        }
    }
}

//! Which segment is written, which are needed, which are spare.

use super::{Log, Op, frame_bytes};
use crate::Lsn;
use crate::record::{RECORD_HEADER_BYTES, RecordHeader, RecordKind};
use crate::recover::{LiveSegment, LogTail};
use crate::segment::{Identity, SEGMENT_HEADER_BYTES, SegmentHeader};
use flotilla_runtime::block::BLOCK_BYTES;
use flotilla_runtime::machine::SECOND;
use flotilla_runtime::planted::{Bug, planted};
use flotilla_runtime::{Effect, Effects, FileId, Nanos};
use std::collections::{BTreeMap, VecDeque};

/// How long after a preparation or a removal that failed the next one follows.
const RETRY_AFTER: Nanos = SECOND;
/// Between two removals of segments that are spare.
const SHED_EVERY: Nanos = SECOND / 2;
/// What is left of a segment when clients' records are refused: a part of it...
const RESERVED_PART: u64 = 8;
/// ...but not more than this.
const RESERVE_BYTES_MAX: u64 = 4 << 20;

/// Why there is no further segment.
#[derive(Debug)]
struct Shortage {
    /// In the system's words.
    reason: String,
    /// When to try again; set by the flush after the failure, which knows the time.
    retry_at: Option<Nanos>,
}

/// The log's files.
#[derive(Debug)]
pub(super) struct Space {
    /// The segments that are needed, oldest first; the last one is being written.
    live: VecDeque<LiveSegment>,
    /// Where the next frame goes in the last one; `None`: take a new one first.
    offset: Option<u64>,
    epoch: u64,
    /// Segments of earlier epochs aren't needed: every frame finished so far knows it.
    oldest_live: u64,
    /// What `oldest_live` becomes with the frame that holds the last of what had to be written again.
    becoming: VecDeque<(Lsn, u64)>,
    spares: VecDeque<FileId>,
    preparing: usize,
    /// The last preparation failed.
    shortage: Option<Shortage>,
    next_file: u64,
    /// Released, but not to be touched before the frame that says so is durable: (that frame, file).
    retired: VecDeque<(Lsn, FileId)>,
    /// Their removal failed, and when they are tried again; set as in [`Shortage`].
    unremoved: Vec<FileId>,
    remove_again_at: Option<Nanos>,
    /// There are more spares than are kept: when one of them goes.
    shed_at: Option<Nanos>,
    /// Entries that aren't needed any more, by group.
    released: BTreeMap<u64, u64>,
    /// The newest hard state and mark of every group, and the frame that it is in.
    latest: BTreeMap<(u64, RecordKind), (Lsn, Vec<u8>)>,
    /// The highest entry index by group, for records whose frame isn't placed yet.
    unplaced: VecDeque<(Lsn, u64, u64)>,
}

impl LogTail {
    /// Takes out the files that aren't `segment_bytes` long, because they were being made when the node died, or were
    /// made under another configuration: what is written behind the end of a file needs room, and the log counts on
    /// never needing any. Returns those that are of no use any more.
    pub fn fit(&mut self, segment_bytes: u64, length_of: impl Fn(FileId) -> u64) -> Vec<FileId> {
        if self.live.last().is_some_and(|segment| length_of(segment.file) < segment_bytes) {
            self.offset = None;
        }
        self.spares.extract_if(.., |file| length_of(*file) != segment_bytes).collect()
    }
}

impl Space {
    pub(super) fn new(tail: LogTail) -> Self {
        Self {
            offset: tail.offset,
            epoch: tail.epoch,
            oldest_live: tail.live.first().map_or(tail.epoch + 1, |segment| segment.epoch),
            becoming: VecDeque::new(),
            live: tail.live.into(),
            spares: tail.spares.into(),
            preparing: 0,
            shortage: None,
            next_file: tail.next_file,
            retired: VecDeque::new(),
            unremoved: Vec::new(),
            remove_again_at: None,
            shed_at: None,
            released: BTreeMap::new(),
            latest: tail.latest,
            unplaced: VecDeque::new(),
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What the frame `lsn` says about the segments before: a frame that was cut earlier must not promise what a later
    /// one makes true.
    pub(super) fn oldest_live(&mut self, lsn: Lsn) -> u64 {
        while let Some((_, epoch)) = self.becoming.pop_front_if(|(at, _)| *at <= lsn) {
            self.oldest_live = epoch;
        }
        self.oldest_live
    }

    #[cfg(test)]
    pub(super) fn offset(&self) -> Option<u64> {
        self.offset
    }

    #[cfg(test)]
    pub(super) fn leave_segment(&mut self) {
        self.offset = None;
    }

    pub(super) fn active_file(&self) -> FileId {
        self.live.back().expect("a commit has a segment").file
    }

    /// A record was appended to the frame `lsn`.
    pub(super) fn note(&mut self, lsn: Lsn, header: &RecordHeader, record: &[u8]) {
        if header.kind == RecordKind::Entry {
            self.unplaced.push_back((lsn, header.group, header.index));
        } else {
            self.latest.insert((header.group, header.kind), (lsn, record.to_vec()));
        }
    }

    pub(super) fn has_room(&self, bytes: u64, segment_bytes: u64) -> bool {
        self.offset.is_some_and(|offset| offset + bytes <= segment_bytes)
    }

    /// Takes a spare into use; `None` if none is ready.
    pub(super) fn activate(
        &mut self,
        identity: Identity,
        previous: Lsn,
        previous_crc: u32,
    ) -> Option<SegmentHeader> {
        let file = self.spares.pop_front()?;
        let previous_epoch = self.live.back().map_or(0, |segment| segment.epoch);
        self.epoch += 1;
        self.live.push_back(LiveSegment {
            file,
            epoch: self.epoch,
            first: Lsn(previous.0 + 1),
            entries: BTreeMap::new(),
        });
        self.offset = Some(SEGMENT_HEADER_BYTES);
        let oldest_live = self.oldest_live;
        Some(SegmentHeader {
            identity,
            file: file.number,
            epoch: self.epoch,
            previous_epoch,
            previous,
            previous_crc,
            oldest_live,
        })
    }

    /// Gives the frame `lsn` its place; returns its offset.
    pub(super) fn place(&mut self, bytes: u64, lsn: Lsn) -> u64 {
        let offset = self.offset.expect("room was found before");
        self.offset = Some(offset + bytes);
        let active = self.live.back_mut().expect("a commit has a segment");
        while let Some((_, group, index)) = self.unplaced.pop_front_if(|(at, ..)| *at <= lsn) {
            let highest = active.entries.entry(group).or_insert(index);
            *highest = (*highest).max(index);
        }
        offset
    }

    pub(super) fn is_pinned_by(&self, group: u64) -> bool {
        let released = self.released.get(&group).copied().unwrap_or(0);
        self.live
            .front()
            .is_some_and(|oldest| oldest.entries.get(&group).is_some_and(|index| *index > released))
    }

    /// The group's entries are about to be appended again: none of the places that they have is needed.
    pub(super) fn forget_places(&mut self, group: u64) {
        for segment in &mut self.live {
            segment.entries.remove(&group);
        }
        self.unplaced.retain(|(_, of, _)| *of != group);
    }

    pub(super) fn release(&mut self, group: u64, index: u64) {
        let released = self.released.entry(group).or_insert(0);
        *released = (*released).max(index);
    }

    pub(super) fn prepared(&mut self, file: FileId) {
        self.preparing -= 1;
        self.add_spare(file);
    }

    fn add_spare(&mut self, file: FileId) {
        self.spares.push_back(file);
        self.shortage = None;
    }

    pub(super) fn not_prepared(&mut self, reason: &str) {
        self.preparing -= 1;
        let retry_at = self.shortage.take().and_then(|shortage| shortage.retry_at);
        self.shortage = Some(Shortage { reason: reason.to_owned(), retry_at });
    }

    /// Whether a preparation may begin now: after one that failed, one at a time and not at once.
    fn may_prepare(&mut self, now: Nanos) -> bool {
        let Some(shortage) = &mut self.shortage else { return true };
        let is_due = shortage.retry_at.is_some_and(|at| at <= now);
        if is_due || shortage.retry_at.is_none() {
            shortage.retry_at = Some(now + RETRY_AFTER);
        }
        is_due
    }

    /// Segments that are spare or will be. Those that a frame on its way gives back count too: else each came back to a
    /// pool that a new one has filled meanwhile, and every segment of the log was written twice. The last one doesn't wait
    /// for them: that frame may need it.
    fn spares_in_sight(&self) -> usize {
        match self.spares.len() + self.preparing {
            0 => 0,
            sure => sure + self.retired.len(),
        }
    }

    /// A file of no use is still there, as far as is known.
    pub(super) fn not_removed(&mut self, file: FileId) {
        self.unremoved.push(file);
    }

    /// When files whose removal failed are tried again.
    pub(super) fn remove_again_at(&self) -> Option<Nanos> {
        self.remove_again_at
    }

    /// The files whose removal failed, once it is time to try again.
    fn take_unremoved(&mut self, now: Nanos) -> Vec<FileId> {
        if self.unremoved.is_empty() {
            return Vec::new();
        }
        if now < *self.remove_again_at.get_or_insert(now + RETRY_AFTER) {
            return Vec::new();
        }
        self.remove_again_at = None;
        std::mem::take(&mut self.unremoved)
    }

    /// When the next surplus spare goes.
    pub(super) fn shed_at(&self) -> Option<Nanos> {
        self.shed_at
    }

    /// A spare beyond those that are kept, once it is time: one after the other. Where the file system tells the device at once what
    /// is free (`discard`), each holds up everybody's syncs for some 20 to 50 ms; and a log that has just grown may want them again.
    fn take_surplus(&mut self, kept: usize, now: Nanos) -> Option<FileId> {
        if self.spares.len() + self.preparing <= kept {
            self.shed_at = None;
            return None;
        }
        if now < *self.shed_at.get_or_insert(now + SHED_EVERY) {
            return None;
        }
        self.shed_at = None;
        self.spares.pop_back()
    }

    /// Whether the file is in use, kept for use, or has yet to be removed.
    fn has(&self, file: FileId) -> bool {
        self.live.iter().any(|segment| segment.file == file)
            || self.spares.contains(&file)
            || self.retired.iter().any(|(_, retired)| *retired == file)
            || self.unremoved.contains(&file)
    }

    /// When the next preparation is due, if one failed.
    pub(super) fn retry_at(&self) -> Option<Nanos> {
        self.shortage.as_ref().filter(|_| self.preparing == 0)?.retry_at
    }

    /// Why no segment follows the one being written, if none does.
    pub(super) fn shortage(&self) -> Option<&str> {
        self.shortage.as_ref().filter(|_| self.spares.is_empty()).map(|shortage| &*shortage.reason)
    }

    /// Bytes that still fit the segment being written.
    pub(super) fn room(&self, segment_bytes: u64) -> u64 {
        self.offset.map_or(0, |offset| segment_bytes.saturating_sub(offset))
    }

    /// Whether nobody needs the entries of the oldest segment, and it isn't the one being written.
    fn oldest_is_released(&self) -> bool {
        let Some(oldest) = self.live.front() else { return false };
        let is_released = |group, index| self.released.get(group).is_some_and(|upto| upto >= index);
        self.live.len() > 1
            && (planted(Bug::LiveEntriesDropped)
                || oldest.entries.iter().all(|(group, index)| is_released(group, index)))
    }
}

/// A mark that says that all of a group's records before it are of no use.
fn gives_up(record: &[u8]) -> bool {
    RecordHeader::decode(record)
        .is_ok_and(|(header, _)| header.kind == RecordKind::SnapshotMark && header.index == 0)
}

impl Log {
    /// Gives back the segments that nobody needs: writes what must survive them again, then retires them.
    pub(super) fn reclaim<M>(&mut self, now: Nanos, out: &mut Effects<M>) {
        while self.space.oldest_is_released() {
            let next_first = self.space.live[1].first;
            let stale = self.space.latest.values().filter(|(lsn, _)| *lsn < next_first);
            // What a group gave up lies before it: written again, the record would take what came since.
            let stale = stale.filter(|(_, record)| !gives_up(record));
            let stale: Vec<Vec<u8>> = stale.map(|(_, record)| record.clone()).collect();
            for record in stale.into_iter().filter(|_| !planted(Bug::HardStateNotMoved)) {
                self.append_record_by(0, &record).expect("it was a record when it was written first");
            }
            let retired = self.space.live.pop_front().expect("there are at least two");
            let oldest_live = self.space.live.front().expect("there was another").epoch;
            // The frame that is open (or the next one) carries both the records and the new oldest epoch.
            if self.open.is_none() {
                let frame = self.new_frame(BLOCK_BYTES);
                self.open = Some(frame);
            }
            let lsn = self.open_lsn();
            self.space.becoming.push_back((lsn, oldest_live));
            self.space.retired.push_back((lsn, retired.file));
        }
        let durable = self.durable;
        let is_settled = |lsn: Lsn| lsn <= durable || planted(Bug::SegmentReusedEarly);
        while let Some((_, file)) = self.space.retired.pop_front_if(|(lsn, _)| is_settled(*lsn)) {
            self.space.add_spare(file);
        }
        if let Some(file) = self.space.take_surplus(self.config.spare_segments, now) {
            self.remove(file, out);
        }
        for file in self.space.take_unremoved(now) {
            self.remove(file, out);
        }
    }

    fn remove<M>(&mut self, file: FileId, out: &mut Effects<M>) {
        let op = self.next_op(Op::Remove(file));
        out.push(Effect::RemoveFile { op, file });
    }

    /// Whether the log knows this segment's file: it is in use, kept for use, being made, or being removed. Any other is lost.
    pub fn has_file(&self, file: FileId) -> bool {
        let is_under_way = |op: &Op| matches!(op, Op::Prepare(of) | Op::Remove(of) if *of == file);
        self.space.has(file) || self.ops.iter().any(|(_, op)| is_under_way(op))
    }

    /// Segments whose content is needed, the one being written among them.
    pub fn live_segments(&self) -> usize {
        self.space.live.len()
    }

    /// Keeps spare segments ready, so that the hot path never waits for one.
    pub(super) fn prepare_spares<M>(&mut self, now: Nanos, out: &mut Effects<M>) {
        // One is enough while released segments come back; the pool's other places are theirs.
        let wanted = self.config.spare_segments.min(1 + usize::from(self.space.live.len() <= 1));
        if self.space.spares.len() >= wanted {
            self.space.shortage = None;
        }
        while self.space.spares_in_sight() < wanted && self.space.may_prepare(now) {
            let file = FileId::segment(self.space.next_file);
            self.space.next_file += 1;
            self.space.preparing += 1;
            let op = self.next_op(Op::Prepare(file));
            out.push(Effect::CreateFile { op, file, bytes: self.config.segment_bytes });
        }
    }

    /// Whether `bytes` more would leave less than `reserve` in the segment being written, with no other in sight.
    fn is_short_by(&self, bytes: usize, reserve: u64) -> bool {
        if self.space.shortage().is_none() {
            return false;
        }
        let waiting = self.closed.iter().chain(&self.open).map(|frame| frame_bytes(frame) as u64);
        // At worst it gets a frame of its own.
        let more = (bytes + RECORD_HEADER_BYTES).next_multiple_of(BLOCK_BYTES) + BLOCK_BYTES;
        let wanted = waiting.sum::<u64>() + more as u64 + reserve;
        self.space.room(self.config.segment_bytes) < wanted
    }

    fn reserve(&self) -> u64 {
        (self.config.segment_bytes / RESERVED_PART).min(RESERVE_BYTES_MAX)
    }

    /// Why there is no segment behind the one being written, if the last try to make one failed: the system's words.
    pub fn shortage(&self) -> Option<&str> {
        self.space.shortage()
    }

    /// [`Self::shortage`], if a record of `bytes` bytes is to be
    /// refused for that: what is left of the segment being written is for Raft's own records, so that votes and terms
    /// go on being logged. It ends by itself when there is room again.
    pub fn no_room_for(&self, bytes: usize) -> Option<&str> {
        self.space.shortage().filter(|_| self.is_short_by(bytes, self.reserve()))
    }

    /// Whether a record of `bytes` bytes that a leader sent may be taken. A follower goes on into half of the reserve:
    /// if all disks are full, it still takes what its leader took before it noticed.
    pub fn has_room_to_follow(&self, bytes: usize) -> bool {
        !self.is_short_by(bytes, self.reserve() / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::testing::{Rig, TestDisk};

    /// The entries of many segments, released at once.
    fn many_released() -> Rig {
        let (mut rig, _) = Rig::new(TestDisk::default(), 1);
        for index in 1..=100 {
            rig.entry(1, index, 1, &[3; 3000]);
            rig.settle();
        }
        rig.mark(1, 100, 1);
        rig.log.release(1, 100);
        rig.settle();
        rig
    }

    #[test]
    fn surplus_segments_go_one_after_the_other_and_serve_until_then() {
        let mut rig = many_released();
        let files = rig.disk.files.len();
        assert!(files > 6, "none is removed at once");
        for gone in 1..=3 {
            assert!(rig.log.deadline().unwrap() <= rig.now + SHED_EVERY, "somebody must wake it");
            rig.pass(SHED_EVERY);
            assert_eq!(rig.disk.files.len(), files - gone);
        }
        let made = rig.tries;
        for index in 101..=120 {
            rig.entry(1, index, 1, &[3; 3000]);
            rig.settle();
        }
        assert_eq!(rig.tries, made, "what is there is used before another is made");
        rig.mark(1, 120, 1);
        rig.log.release(1, 120);
        (0..20).for_each(|_| rig.pass(SHED_EVERY));
        assert_eq!(rig.disk.files.len(), rig.log.live_segments() + 2);
        assert!(rig.log.deadline().is_none_or(|at| at > rig.now + SECOND), "nothing is left to do");
    }

    /// Else it stayed until the next start.
    #[test]
    fn a_segment_that_can_t_be_removed_is_tried_again_a_second_later() {
        let mut rig = many_released();
        rig.now += SHED_EVERY;
        rig.flush();
        assert!(matches!(rig.waiting[..], [Effect::RemoveFile { .. }]), "{:?}", rig.waiting);
        rig.fail(0, 5);
        assert!(rig.halted.is_none());
        rig.flush();
        let files = rig.disk.files.len();
        assert!(rig.disk.files.keys().all(|file| rig.log.has_file(*file)), "none is lost");
        rig.pass(RETRY_AFTER / 4);
        assert_eq!(rig.disk.files.len(), files, "not at once");
        (0..20).for_each(|_| rig.pass(SHED_EVERY));
        assert_eq!(rig.disk.files.len(), rig.log.live_segments() + 2);
        assert!(rig.log.deadline().is_none_or(|at| at > rig.now), "nothing is left to try");
    }
}

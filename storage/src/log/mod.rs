//! The writer: gathers records, cuts frames, says what is durable, gives space back.
//!
//! ```text
//!  append ──▶ open frame ──▶ closed frames ──flush──▶ commit in flight ──disk──▶ durable
//!              (grows)        (it was full)            (writes + one sync)
//! ```
//!
//! * **Natural batching.** While no commit slot is free, everything gathers; the moment one is, all of it leaves as
//!   one commit with one sync. Idle, a lone record leaves at once, unless nobody waits for it
//!   ([`Log::append_record_by`]).
//! * **Memory follows the load.** A frame's block starts at the size of the last commit (at least 4 KiB) and the
//!   next one of the same commit is twice as large, so a lone record pins 4 KiB and a burst needs few frames.
//! * **Poison.** After any failed write or sync nothing is acknowledged any more, whatever completes later: the
//!   machine halts with the reason (Rebello et al., "Can Applications Recover from fsync Failures?", 2020).
//! * **No room.** If no further segment can be made, clients' records are refused while the one being written still
//!   has a reserve for Raft's own; a try a second goes on until there is room.
//! * **Space.** A segment is free when every entry in it was released and the newest hard states and marks in it
//!   have been written again. It may be taken into use again once a durable frame says that nobody needs it.
//!
//! It never looks into a payload, reads no clock and touches no file.

mod payload;
mod space;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use payload::PayloadWriter;

use crate::Lsn;
use crate::frame::{FrameHeader, Touched, capacity_for, header_bytes};
use crate::record::{RECORD_ALIGNMENT, RECORD_HEADER_BYTES, RecordError, RecordHeader, RecordKind};
use crate::recover::LogTail;
use crate::segment::{Identity, SEGMENT_HEADER_BYTES, SegmentHeader};
use flotilla_runtime::block::BLOCK_BYTES;
use flotilla_runtime::machine::MILLISECOND;
use flotilla_runtime::planted::{Bug, planted};
use flotilla_runtime::{
    BlockPool, BlockWriter, DiskError, DiskReply, Effect, Effects, FileId, Nanos, OpId, Slice,
};
use space::Space;
use std::collections::VecDeque;

/// The top byte of the log's operation numbers.
pub const OP_TAG: u64 = 0x01 << 56;

/// More than this part of what may wait for the disk doesn't wait for others: its write would hold up what comes then.
const PATIENT_PART_MAX: usize = 32;

/// How a log behaves.
#[derive(Clone, Copy, Debug)]
pub struct LogConfig {
    /// Whose log it is.
    pub identity: Identity,
    /// Bytes of a segment file.
    pub segment_bytes: u64,
    /// A frame is cut when it has grown to this; a larger record gets a frame of its own. Frames of 1 MiB take
    /// fewer operations, and halve the bandwidth of 1024 appenders of 4 KiB: several that are written at once are faster.
    pub frame_bytes_max: usize,
    /// More segments in use than this: groups that pin the oldest are to be moved on.
    pub live_segments_max: usize,
    /// Segments kept ready.
    pub spare_segments: usize,
    /// Group commits that may be on their way to disk at once.
    pub commits_in_flight: usize,
    /// Records that wait for a commit slot, in bytes; beyond, [`Log::is_full`].
    pub backlog_bytes_max: usize,
    /// After so long without a record, one frame says that the last one was acknowledged.
    pub idle_watermark_after: Nanos,
}

impl LogConfig {
    /// The defaults.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            segment_bytes: 64 << 20,
            frame_bytes_max: 256 << 10,
            live_segments_max: 8,
            spare_segments: 2,
            commits_in_flight: 1,
            backlog_bytes_max: 32 << 20,
            idle_watermark_after: 100 * MILLISECOND,
        }
    }
}

/// What a finished disk operation meant for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Every frame up to this one is durable.
    Advanced(Lsn),
    /// Nothing that the owner must know.
    Nothing,
    /// The log is poisoned; [`Effect::Halt`] was given.
    Fatal(String),
}

/// What a log has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogCounters {
    /// Group commits given to the disk, each with one sync.
    pub commits: u64,
    /// Frames in them.
    pub frames: u64,
    /// Records in those.
    pub records: u64,
    /// Bytes written, the padding to whole blocks included.
    pub bytes: u64,
}

/// A frame being filled.
#[derive(Debug)]
struct OpenFrame {
    writer: BlockWriter,
    header_len: usize,
    records: u32,
    lsn: Lsn,
    touched: Touched,
}

impl OpenFrame {
    fn payload_len(&self) -> usize {
        self.writer.filled() - self.header_len
    }
}

/// A group commit on its way to disk.
#[derive(Debug)]
struct Commit {
    last: Lsn,
    /// Its operations that aren't done.
    left: usize,
}

/// What an operation of ours was for.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// A write or the sync of the commit ending in this frame.
    Commit(Lsn),
    /// The preparation of a spare segment.
    Prepare(FileId),
    /// The removal of a segment that isn't needed.
    Remove(FileId),
}

/// The write-ahead log of one core.
#[derive(Debug)]
pub struct Log {
    config: LogConfig,
    pool: BlockPool,
    space: Space,

    open: Option<OpenFrame>,
    closed: VecDeque<OpenFrame>,
    backlog: usize,
    next_lsn: Lsn,
    /// Bytes of the last commit: the size of the next frame.
    expected: usize,
    prev_crc: u32,
    touched_before: Touched,

    /// When what was appended is to leave at the latest; never, if nothing was.
    due: Nanos,
    in_flight: VecDeque<Commit>,
    /// By number, ascending: they are few, and mostly the oldest ends first.
    ops: VecDeque<(u64, Op)>,
    last_op: u64,
    durable: Lsn,

    /// When the watermark is due, if the last frame isn't one.
    watermark_at: Option<Nanos>,
    poisoned: Option<String>,
    counters: LogCounters,
}

impl Log {
    /// The log as recovery left it.
    pub fn open(config: LogConfig, pool: BlockPool, tail: LogTail) -> Self {
        assert!(config.segment_bytes.is_multiple_of(BLOCK_BYTES as u64), "segments are whole blocks");
        assert!(
            config.frame_bytes_max.is_multiple_of(BLOCK_BYTES) && config.commits_in_flight > 0,
            "sane limits"
        );
        let durable = tail.last;
        Self {
            pool,
            next_lsn: Lsn(durable.0 + 1),
            prev_crc: tail.prev_crc,
            touched_before: tail.touched,
            space: Space::new(tail),
            open: None,
            closed: VecDeque::new(),
            backlog: 0,
            expected: BLOCK_BYTES,
            due: Nanos::MAX,
            in_flight: VecDeque::new(),
            ops: VecDeque::new(),
            last_op: 0,
            durable,
            watermark_at: None,
            poisoned: None,
            counters: LogCounters::default(),
            config,
        }
    }

    /// Appends a record; the slice shows it whole, header first.
    ///
    /// # Panics
    /// If `header.length` isn't the payload's, or the record is larger than a segment.
    pub fn append(&mut self, header: &RecordHeader, payload: &[u8]) -> Slice {
        assert_eq!(header.length as usize, payload.len(), "the header tells the payload's length");
        self.append_with(*header, payload.len(), |writer| writer.put(payload))
    }

    /// Appends a record as it came from a peer, copied once. It may wait for others until `at`.
    ///
    /// # Errors
    /// [`RecordError`] if it is none.
    pub fn append_record_by(&mut self, at: Nanos, record: &[u8]) -> Result<Slice, RecordError> {
        let (header, payload) = RecordHeader::decode(record)?;
        let before = self.due;
        let slice = self.append(&header, payload);
        let is_much = self.backlog > self.config.backlog_bytes_max / PATIENT_PART_MAX;
        self.due = if is_much { 0 } else { before.min(at) };
        Ok(slice)
    }

    /// Nothing that was appended may wait any more.
    pub fn hurry(&mut self) {
        self.due = 0;
    }

    /// Appends a record whose payload `write` serializes straight into the frame: at most `bytes_max` bytes. The
    /// log fills in `header.length`.
    ///
    /// # Panics
    /// If `write` overruns `bytes_max`, or the record is larger than a segment.
    pub fn append_with(
        &mut self,
        mut header: RecordHeader,
        bytes_max: usize,
        write: impl FnOnce(&mut PayloadWriter<'_>),
    ) -> Slice {
        let room = (RECORD_HEADER_BYTES + bytes_max).next_multiple_of(RECORD_ALIGNMENT);
        let frame = self.frame_with_room(room);
        let start = frame.writer.filled();
        frame.writer.append(&[0; RECORD_HEADER_BYTES]);
        let mut writer = PayloadWriter::new(&mut frame.writer, bytes_max);
        write(&mut writer);
        header.length = u32::try_from(writer.written()).expect("records are smaller than segments");
        frame.writer.patch(start, &header.encode());
        let end = frame.writer.filled();
        frame.writer.align(RECORD_ALIGNMENT);
        frame.records += 1;
        frame.touched.note(header.group, header.kind);
        let record = frame.writer.slice(start, end);
        let lsn = frame.lsn;
        self.due = 0;
        self.backlog += record.len();
        self.space.note(lsn, &header, &record);
        record
    }

    /// The open frame, if the record fits, else a new one behind it.
    fn frame_with_room(&mut self, room: usize) -> &mut OpenFrame {
        let fits = self.open.as_ref().is_some_and(|frame| frame.writer.room() >= room);
        if !fits {
            let capacity = match self.open.take() {
                Some(full) => {
                    let doubled = full.writer.capacity() * 2;
                    self.closed.push_back(full);
                    doubled
                }
                None => self.expected,
            };
            let capacity = capacity.min(self.config.frame_bytes_max).max(capacity_for(room));
            let largest = self.config.segment_bytes - SEGMENT_HEADER_BYTES;
            assert!(capacity as u64 <= largest, "a record of {room} bytes doesn't fit a segment");
            self.open = Some(self.new_frame(capacity));
        }
        self.open.as_mut().expect("opened just above")
    }

    fn new_frame(&mut self, capacity: usize) -> OpenFrame {
        let header_len = header_bytes(capacity);
        let lsn = self.next_lsn;
        self.next_lsn = Lsn(lsn.0 + 1);
        let writer = self.pool.allocate(capacity, header_len);
        OpenFrame { writer, header_len, records: 0, lsn, touched: Touched::default() }
    }

    /// The frame that the last record appended is in: it is durable once [`Self::durable`] has come that far.
    pub fn open_lsn(&self) -> Lsn {
        Lsn(self.next_lsn.0 - 1)
    }

    /// Every frame up to this one is durable.
    pub fn durable(&self) -> Lsn {
        self.durable
    }

    /// Every frame up to this one was given to the disk.
    pub fn given(&self) -> Lsn {
        self.in_flight.back().map_or(self.durable, |commit| commit.last)
    }

    /// What it has done so far.
    pub fn counters(&self) -> LogCounters {
        self.counters
    }

    /// Bytes of records that wait for the disk.
    pub fn backlog_bytes(&self) -> usize {
        self.backlog
    }

    /// Too much waits for the disk: the caller must refuse new work.
    pub fn is_full(&self) -> bool {
        self.backlog > self.config.backlog_bytes_max
    }

    /// Entries of `group` up to `index` are not needed any more: the mark that says so was appended before.
    pub fn release(&mut self, group: u64, index: u64) {
        self.space.release(group, index);
    }

    /// No entry of `group` so far is needed any more: the mark that gives them up was appended before.
    pub fn forget(&mut self, group: u64) {
        self.space.forget_places(group);
    }

    /// Whether more segments are in use than there should be.
    pub fn is_over_full(&self) -> bool {
        self.live_segments() > self.config.live_segments_max
    }

    /// Whether more segments are in use than there should be, and it is this group's entries that keep the oldest.
    pub fn pinned_by(&self, group: u64) -> bool {
        self.is_over_full() && self.space.is_pinned_by(group)
    }

    /// Appends all of a group's entries again, so that no old segment is needed for them. They go into one frame: a part of
    /// them would cut off the rest. Returns the new copies.
    ///
    /// # Panics
    /// If they are larger than a segment, or no entries of the group.
    pub fn rewrite(&mut self, group: u64, entries: &[Slice]) -> Vec<Slice> {
        let room = entries.iter().map(|entry| entry.len().next_multiple_of(RECORD_ALIGNMENT)).sum();
        self.frame_with_room(room);
        self.space.forget_places(group);
        let again = entries.iter().map(|entry| {
            let (header, payload) =
                RecordHeader::decode(entry).expect("it was a record when it was written first");
            assert_eq!((header.group, header.kind), (group, RecordKind::Entry), "only entries are moved");
            self.append(&header, payload)
        });
        again.collect()
    }

    /// Sends what has gathered on its way to disk, if a commit slot is free.
    pub fn flush<M>(&mut self, now: Nanos, out: &mut Effects<M>) {
        if self.poisoned.is_some() {
            return;
        }
        self.reclaim(now, out);
        if self.due <= now {
            while self.in_flight.len() < self.config.commits_in_flight && self.begin_commit(out) {
                self.watermark_at = Some(now + self.config.idle_watermark_after);
            }
            let is_empty = self.open.is_none() && self.closed.is_empty();
            self.due = if is_empty { Nanos::MAX } else { 0 };
        }
        self.prepare_spares(now, out);
    }

    /// Cuts one commit: as many frames as fit the segment. Returns whether there was one.
    fn begin_commit<M>(&mut self, out: &mut Effects<M>) -> bool {
        if let Some(frame) = self.open.take() {
            self.closed.push_back(frame);
        }
        let Some(first) = self.closed.front() else { return false };
        let first_bytes = frame_bytes(first) as u64;
        let mut writes: Vec<(u64, Slice)> = Vec::new();
        if !self.space.has_room(first_bytes, self.config.segment_bytes) {
            // The old segment must be durable to its end before the new one says so.
            if !self.in_flight.is_empty() {
                return false;
            }
            let Some(header) = self.space.activate(self.config.identity, self.durable, self.prev_crc) else {
                return false;
            };
            writes.push((0, self.header_block(&header)));
        }
        let (mut last, mut bytes) = (self.durable, 0);
        while let Some(frame) = self.closed.front() {
            let size = frame_bytes(frame) as u64;
            if !self.space.has_room(size, self.config.segment_bytes) {
                break;
            }
            let frame = self.closed.pop_front().expect("seen just above");
            last = frame.lsn;
            self.backlog = self.backlog.saturating_sub(frame.payload_len());
            let offset = self.space.place(size, frame.lsn);
            self.counters.frames += 1;
            self.counters.records += u64::from(frame.records);
            self.counters.bytes += size;
            writes.push((offset, self.finish(frame)));
            bytes += usize::try_from(size).expect("frames are small");
        }
        self.expected = bytes.next_power_of_two().clamp(BLOCK_BYTES, self.config.frame_bytes_max);
        self.issue(writes, last, out);
        true
    }

    fn header_block(&self, header: &SegmentHeader) -> Slice {
        self.pool.copy_of(&header.encode())
    }

    fn finish(&mut self, frame: OpenFrame) -> Slice {
        let header = FrameHeader {
            epoch: self.space.epoch(),
            lsn: frame.lsn,
            durable: self.durable,
            header_len: u16::try_from(frame.header_len).expect("a frame's header is small"),
            payload_len: u32::try_from(frame.payload_len()).expect("a frame is smaller than 4 GiB"),
            records: frame.records,
            prev_crc: self.prev_crc,
            header_crc: 0,
            oldest_live: self.space.oldest_live(frame.lsn),
            touched: frame.touched,
            touched_before: self.touched_before,
        };
        self.touched_before = frame.touched;
        let mut crc = 0;
        let block = frame.writer.finish(|head, rest| crc = header.write(head, rest));
        self.prev_crc = crc;
        block
    }

    fn issue<M>(&mut self, writes: Vec<(u64, Slice)>, last: Lsn, out: &mut Effects<M>) {
        self.counters.commits += 1;
        let file = self.space.active_file();
        let lone = writes.len() == 1;
        let sync = lone && !planted(Bug::SyncSkipped);
        let mut left = 0;
        for (offset, block) in writes {
            let op = self.next_op(Op::Commit(last));
            out.push(Effect::Write { op, file, offset, block, sync });
            left += 1;
        }
        if !lone {
            let op = self.next_op(Op::Commit(last));
            out.push(Effect::Sync { op, file });
            left += 1;
        }
        self.in_flight.push_back(Commit { last, left });
    }

    fn next_op(&mut self, op: Op) -> OpId {
        self.last_op += 1;
        let id = OP_TAG | self.last_op;
        self.ops.push_back((id, op));
        OpId(id)
    }

    /// A disk operation ended. `None` if it wasn't the log's.
    pub fn disk<M>(
        &mut self,
        op: OpId,
        result: &Result<DiskReply, DiskError>,
        out: &mut Effects<M>,
    ) -> Option<Progress> {
        let place = self.ops.iter().position(|(id, _)| *id == op.0)?;
        let (_, done) = self.ops.remove(place)?;
        if let Some(reason) = &self.poisoned {
            return Some(Progress::Fatal(reason.clone()));
        }
        let is_ignored = planted(Bug::SyncErrorIgnored) && matches!(done, Op::Commit(_));
        if let Err(error) = result
            && !is_ignored
        {
            return Some(self.fail(done, error, out));
        }
        match done {
            Op::Prepare(file) => self.space.prepared(file),
            Op::Remove(_) => {}
            Op::Commit(last) => return Some(self.committed(last)),
        }
        Some(Progress::Nothing)
    }

    fn committed(&mut self, last: Lsn) -> Progress {
        let commit = self.in_flight.iter_mut().find(|commit| commit.last == last);
        commit.expect("a commit stays until all of it is done").left -= 1;
        let before = self.durable;
        if planted(Bug::CommitsOutOfOrder) {
            let done = self.in_flight.iter().filter(|commit| commit.left == 0).map(|commit| commit.last);
            self.durable = done.fold(self.durable, Lsn::max);
            self.in_flight.retain(|commit| commit.left > 0);
        }
        while let Some(commit) = self.in_flight.pop_front_if(|commit| commit.left == 0) {
            self.durable = commit.last;
        }
        if self.durable == before { Progress::Nothing } else { Progress::Advanced(self.durable) }
    }

    fn fail<M>(&mut self, op: Op, error: &DiskError, out: &mut Effects<M>) -> Progress {
        if let Op::Prepare(_) = op {
            // No room for another segment yet: what is open goes on, up to its reserve.
            self.space.not_prepared(&error.reason);
            return Progress::Nothing;
        }
        if let Op::Remove(file) = op {
            self.space.not_removed(file);
            return Progress::Nothing;
        }
        let reason =
            format!("the write-ahead log can't be trusted any more: {error}. Nothing was acknowledged since");
        out.push(Effect::Halt { reason: reason.clone() });
        self.poisoned = Some(reason.clone());
        Progress::Fatal(reason)
    }

    /// Time has passed: an idle log says that its last frame was acknowledged.
    pub fn tick<M>(&mut self, now: Nanos, out: &mut Effects<M>) {
        let idle = self.open.is_none() && self.closed.is_empty() && self.in_flight.is_empty();
        if self.watermark_at.is_some_and(|at| at <= now) {
            self.watermark_at = None;
            if idle && self.poisoned.is_none() {
                let frame = self.new_frame(BLOCK_BYTES);
                self.open = Some(frame);
                self.begin_commit(out);
            }
        }
    }

    /// The next instant at which [`Self::tick`] or [`Self::flush`] has something to do.
    pub fn deadline(&self) -> Option<Nanos> {
        let retries = [self.space.retry_at(), self.space.remove_again_at(), self.space.shed_at()];
        // Who can't begin a commit now can when the one under way has ended, or there is room.
        let has_slot = self.in_flight.len() < self.config.commits_in_flight && self.poisoned.is_none();
        let due = (has_slot && (1..Nanos::MAX).contains(&self.due)).then_some(self.due);
        self.watermark_at.into_iter().chain(due).chain(retries.into_iter().flatten()).min()
    }
}

fn frame_bytes(frame: &OpenFrame) -> usize {
    frame.writer.filled().next_multiple_of(BLOCK_BYTES)
}

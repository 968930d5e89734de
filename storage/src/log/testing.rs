//! A disk in memory that loses, tears and reorders what wasn't synced, and a log on it.

use super::{Log, LogConfig, Progress};
use crate::record::{RecordHeader, RecordKind};
use crate::recover::{Recovered, Recovery};
use crate::segment::Identity;
use crate::{Lsn, StorageError};
use flotilla_runtime::{
    BlockPool, DiskError, DiskReply, Effect, Effects, FileId, Nanos, OpId, Slice, SplitMix64,
};
use std::collections::BTreeMap;

pub(crate) const IDENTITY: Identity = Identity { cluster: 0xc1, node: 2, core: 0 };
pub(crate) const SEGMENT_BYTES: u64 = 64 * 1024;

/// What is on the platter, and what only the drive's cache has.
#[derive(Clone, Default)]
pub(crate) struct TestDisk {
    pub(crate) files: BTreeMap<FileId, Vec<u8>>,
    unsynced: Vec<(OpId, FileId, u64, Vec<u8>)>,
}

impl TestDisk {
    /// A crash: every sector of what wasn't synced is there or isn't, as `random` has it.
    pub(crate) fn crash(&mut self, random: &mut SplitMix64, tear_bytes: usize) {
        for (_, file, offset, bytes) in std::mem::take(&mut self.unsynced) {
            let whole = random.below(4);
            for (place, sector) in bytes.chunks(tear_bytes).enumerate() {
                let survives = match whole {
                    0 => true,
                    1 => false,
                    _ => random.below(2) == 0,
                };
                if survives {
                    self.put(file, offset + (place * tear_bytes) as u64, sector);
                }
            }
        }
    }

    fn put(&mut self, file: FileId, offset: u64, bytes: &[u8]) {
        let content = self.files.get_mut(&file).expect("the log writes to files that it made");
        let offset = usize::try_from(offset).unwrap();
        assert!(offset + bytes.len() <= content.len(), "a segment never grows");
        content[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn recover(&self) -> Result<Recovered, StorageError> {
        let pool = BlockPool::new();
        let mut recovery = Recovery::new(IDENTITY);
        for (file, content) in &self.files {
            recovery.segment(*file, pool.copy_of(content))?;
        }
        recovery.finish()
    }
}

impl Log {
    /// Where the next frame goes.
    pub(crate) fn position(&self) -> (FileId, u64) {
        (self.space.active_file(), self.space.offset().expect("a segment is in use"))
    }

    /// Leaves the segment that is in use, as after a cut.
    pub(crate) fn begin_new_segment(&mut self) {
        self.space.leave_segment();
    }
}

/// A log, its disk, and what it was told.
pub(crate) struct Rig {
    pub(crate) log: Log,
    pub(crate) disk: TestDisk,
    pub(crate) out: Effects<()>,
    /// Operations given and not yet answered, oldest first.
    pub(crate) waiting: Vec<Effect<()>>,
    pub(crate) halted: Option<String>,
    /// No file can be made.
    pub(crate) is_disk_full: bool,
    pub(crate) now: Nanos,
    /// Files that were asked for.
    pub(crate) tries: u64,
}

pub(crate) fn config(commits_in_flight: usize) -> LogConfig {
    LogConfig {
        segment_bytes: SEGMENT_BYTES,
        frame_bytes_max: 16 * 1024,
        commits_in_flight,
        backlog_bytes_max: 64 * 1024,
        ..LogConfig::new(IDENTITY)
    }
}

impl Rig {
    pub(crate) fn new(disk: TestDisk, commits_in_flight: usize) -> (Self, Recovered) {
        let recovered = disk.recover().expect("this disk holds a good log");
        let log = Log::open(config(commits_in_flight), BlockPool::new(), recovered.tail.clone());
        let out = Effects::default();
        let mut rig =
            Self { log, disk, out, waiting: Vec::new(), halted: None, is_disk_full: false, now: 0, tries: 0 };
        rig.flush();
        (rig, recovered)
    }

    pub(crate) fn entry(&mut self, group: u64, index: u64, term: u64, payload: &[u8]) -> (Lsn, Slice) {
        let length = u32::try_from(payload.len()).unwrap();
        let header = RecordHeader { group, kind: RecordKind::Entry, schema: 7, index, term, length };
        let record = self.log.append(&header, payload);
        (self.log.open_lsn(), record)
    }

    pub(crate) fn mark(&mut self, group: u64, index: u64, term: u64) -> Lsn {
        let header =
            RecordHeader { group, kind: RecordKind::SnapshotMark, schema: 0, index, term, length: 8 };
        self.log.append(&header, &index.to_le_bytes());
        self.log.open_lsn()
    }

    pub(crate) fn flush(&mut self) {
        self.now += 1;
        self.log.flush(self.now, &mut self.out);
        self.collect();
    }

    fn collect(&mut self) {
        for effect in self.out.drain() {
            match effect {
                Effect::Write { op, file, offset, ref block, .. } => {
                    self.disk.unsynced.push((op, file, offset, block.to_vec()));
                    self.waiting.push(effect);
                }
                Effect::Halt { reason } => self.halted = Some(reason),
                other => self.waiting.push(other),
            }
        }
    }

    /// Carries out the operation at a place in the queue. A sync covers what was written to its file before it.
    pub(crate) fn finish(&mut self, place: usize) -> Progress {
        let effect = self.waiting.remove(place);
        let mut result = Ok(DiskReply::Done);
        let op = match effect {
            Effect::Write { op, file, sync, .. } => {
                if sync {
                    self.harden(|at, of| of == file && at == op);
                }
                op
            }
            Effect::Sync { op, file } => {
                let still: Vec<OpId> = self.waiting[..place].iter().filter_map(write_op).collect();
                assert!(still.is_empty() || place == 0, "the rig finishes a sync after its writes");
                self.harden(|at, of| of == file && at < op);
                op
            }
            Effect::CreateFile { op, file, bytes } => {
                self.tries += 1;
                if self.is_disk_full {
                    result = Err(failure("create", 28));
                } else {
                    let former = self.disk.files.insert(file, vec![0; usize::try_from(bytes).unwrap()]);
                    assert!(former.is_none(), "{file} is made once");
                }
                op
            }
            Effect::RemoveFile { op, file } => {
                self.disk.files.remove(&file);
                op
            }
            other => unreachable!("a log has no {other:?}"),
        };
        self.answer(op, &result)
    }

    /// Lets the operation at a place in the queue fail.
    pub(crate) fn fail(&mut self, place: usize, errno: i32) -> Progress {
        let effect = self.waiting.remove(place);
        match effect {
            Effect::Write { op, .. } => self.answer(op, &Err(failure("write", errno))),
            Effect::Sync { op, .. } => self.answer(op, &Err(failure("sync", errno))),
            Effect::RemoveFile { op, .. } => self.answer(op, &Err(failure("remove", errno))),
            other => unreachable!("{other:?} isn't failed by this"),
        }
    }

    fn answer(&mut self, op: OpId, result: &Result<DiskReply, DiskError>) -> Progress {
        let progress = self.log.disk(op, result, &mut self.out).expect("the log knows its operations");
        self.collect();
        progress
    }

    fn harden(&mut self, covered: impl Fn(OpId, FileId) -> bool) {
        for (op, file, offset, bytes) in std::mem::take(&mut self.disk.unsynced) {
            if covered(op, file) {
                self.disk.put(file, offset, &bytes);
            } else {
                self.disk.unsynced.push((op, file, offset, bytes));
            }
        }
    }

    /// Flushes and finishes until nothing is left to do.
    pub(crate) fn settle(&mut self) {
        loop {
            self.flush();
            if self.waiting.is_empty() {
                return;
            }
            while !self.waiting.is_empty() {
                self.finish(0);
            }
        }
    }

    /// Lets it be idle long enough for the watermark.
    pub(crate) fn rest(&mut self) {
        self.settle();
        self.pass(config(1).idle_watermark_after);
    }

    /// Lets time pass, and finishes what it brings.
    pub(crate) fn pass(&mut self, time: Nanos) {
        self.now += time;
        self.log.tick(self.now, &mut self.out);
        self.collect();
        self.settle();
    }

    /// Fills the log with small entries of group 1, behind the `index`th, until it refuses them; returns the last.
    pub(crate) fn fill(&mut self, mut index: u64) -> u64 {
        while self.log.no_room_for(100).is_none() {
            index += 1;
            self.entry(1, index, 1, &[1; 100]);
            self.settle();
            assert!(index < 200, "it must fill up");
        }
        index
    }
}

fn write_op(effect: &Effect<()>) -> Option<OpId> {
    match effect {
        Effect::Write { op, sync: false, .. } => Some(*op),
        _ => None,
    }
}

fn failure(operation: &'static str, errno: i32) -> DiskError {
    DiskError { operation, file: "segment".into(), offset: 4096, errno, reason: "injected".into() }
}

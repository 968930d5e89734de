//! The last resort: a log without what is behind a place. Files in, files out; nothing else is changed.
//!
//! A node never does this by itself. It is for an operator whose log can't be opened, when nobody else has what is lost:
//! everything from one frame on is given up, and the log ends before it. What that costs is said in the log: every
//! group that loses something is marked as damaged, so if other nodes have replicas of it after all, this one neither
//! votes nor counts until they have given it back; if none has, what is left is taken for all there is
//! ([`crate::Recovered::accept_what_is_left`]). Cutting without that mark would let a replica forget what it has
//! acknowledged and vote twice in one term.

use crate::error::StorageError;
use crate::frame::{FrameHeader, Touched};
use crate::record::{Damage, RecordHeader, RecordKind};
use crate::recover::{LogTail, Recovered, RecoveredGroup, Recovery, frames_behind};
use crate::segment::{FirstBlock, Identity, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::{Log, LogConfig, Lsn};
use flotilla_runtime::block::BLOCK_BYTES;
use flotilla_runtime::{BlockPool, DiskReply, Effect, Effects, FileId, Slice};
use std::collections::{BTreeMap, BTreeSet};

/// The segment files of a log, by their names.
pub type Images = BTreeMap<FileId, Slice>;

/// Why a log isn't cut there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// There is nothing from that frame on.
    #[error("the log has no frame {} or later: nothing would be given up", at.0)]
    NothingThere {
        /// The frame that was named.
        at: Lsn,
    },
    /// What would be left can't be opened either.
    #[error("cut before frame {}, the log still can't be opened: {source}", at.0)]
    StillRefused {
        /// The frame that was named.
        at: Lsn,
        /// What is wrong with the rest.
        source: StorageError,
    },
}

/// What one group loses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// The lowest and the highest entry in the frames that go; `None`: none that can be read.
    pub entries: Option<(u64, u64)>,
    /// A term or a vote is in them.
    pub vote: bool,
}

/// A log that was cut.
#[derive(Debug)]
pub struct Truncated {
    /// Its files.
    pub files: Images,
    /// Frames that went, as far as they could be told.
    pub frames: u64,
    /// The groups that lose something.
    pub lost: BTreeMap<u64, Lost>,
    /// The log as it is now.
    pub recovered: Recovered,
}

/// Reads a log.
///
/// # Errors
/// As [`Recovery`].
pub fn recover(identity: Identity, files: &Images) -> Result<Recovered, StorageError> {
    let mut recovery = Recovery::new(identity);
    for (file, image) in files {
        recovery.segment(*file, image.clone())?;
    }
    recovery.finish()
}

/// Cuts a log before the frame `at`. `groups` are those that may have a replica on this core: if a frame that goes can't
/// be read, each of them may lose something.
///
/// # Errors
/// [`RepairError`].
pub fn truncate(
    identity: Identity,
    files: &Images,
    at: Lsn,
    groups: &[u64],
) -> Result<Truncated, RepairError> {
    let mut gone = Gone::default();
    let cut: Images = files.iter().map(|(file, image)| (*file, cut_image(image, at, &mut gone))).collect();
    if gone.frames.is_empty() {
        return Err(RepairError::NothingThere { at });
    }
    let still_refused = |source| RepairError::StillRefused { at, source };
    let left = recover(identity, &cut).map_err(still_refused)?;
    let unknown = gone.unknown(at);
    let known = left.groups.keys().chain(groups).copied().collect::<BTreeSet<u64>>();
    for group in known.into_iter().filter(|group| unknown.has(*group)) {
        gone.groups.entry(group).or_default().vote |= unknown.has_vote(group);
    }
    let Gone { frames, groups: lost, .. } = gone;
    let files = mark(identity, cut, left, &lost);
    let recovered = recover(identity, &files).map_err(still_refused)?;
    Ok(Truncated { files, frames: frames.len() as u64, lost, recovered })
}

/// What is in the frames that go.
#[derive(Debug, Default)]
struct Gone {
    frames: BTreeSet<Lsn>,
    groups: BTreeMap<u64, Lost>,
    /// Whom the frames concern whose payload can't be read.
    unread: Touched,
}

impl Gone {
    fn frame(&mut self, frame: &FrameHeader, bytes: &[u8]) {
        self.frames.insert(frame.lsn);
        let Ok(mut rest) = frame.payload(bytes) else {
            self.unread = self.unread.union(frame.touched);
            return;
        };
        for _ in 0..frame.records {
            let Ok((header, _)) = RecordHeader::decode(rest) else {
                self.unread = Touched::ALL;
                return;
            };
            self.record(&header);
            rest = rest.get(header.padded_len()..).unwrap_or_default();
        }
    }

    fn record(&mut self, header: &RecordHeader) {
        let lost = self.groups.entry(header.group).or_default();
        match header.kind {
            RecordKind::Entry => {
                let (low, high) = lost.entries.unwrap_or((header.index, header.index));
                lost.entries = Some((low.min(header.index), high.max(header.index)));
            }
            RecordKind::HardState => lost.vote = true,
            // What they said is lost; what that means for the entries, the rest of the log tells.
            RecordKind::SnapshotMark | RecordKind::Repair | RecordKind::Membership => {}
        }
    }

    /// Whom the frames from `at` on may concern that can't be read.
    fn unknown(&self, at: Lsn) -> Touched {
        let last = self.frames.last().map_or(0, |last| last.0);
        let is_complete = last - at.0 + 1 == self.frames.len() as u64;
        if is_complete { self.unread } else { Touched::ALL }
    }
}

/// A segment without its frames from `at` on: zeros, so that nothing of them can come to life again.
fn cut_image(image: &Slice, at: Lsn, gone: &mut Gone) -> Slice {
    let (epoch, mut keep) = match SegmentHeader::parse(image) {
        FirstBlock::Header(header) if header.previous.0 + 1 < at.0 => (header.epoch, SEGMENT_HEADER_BYTES),
        FirstBlock::Header(header) => (header.epoch, 0),
        FirstBlock::OtherVersion(_) => return image.clone(),
        FirstBlock::None => {
            let newest = frames_behind(image, SEGMENT_HEADER_BYTES).map(|(_, frame)| frame.epoch).max();
            (newest.unwrap_or(0), 0)
        }
    };
    let mut is_cut = false;
    for (offset, frame) in frames_behind(image, SEGMENT_HEADER_BYTES) {
        if frame.epoch == epoch && frame.lsn >= at {
            is_cut = true;
            gone.frame(&frame, &image[usize::try_from(offset).expect("inside the image")..]);
        } else if frame.epoch == epoch {
            keep = keep.max(offset + frame.frame_bytes() as u64);
        }
    }
    if !is_cut && keep > 0 {
        return image.clone();
    }
    let keep = usize::try_from(keep).expect("inside the image");
    let mut block = BlockPool::new().allocate(image.len().max(1), 0);
    block.append(&image[..keep]);
    let zeroed = block.append_with(image.len() - keep, |rest| {
        rest.fill(0);
        Ok::<(), ()>(())
    });
    zeroed.expect("nothing can go wrong");
    block.slice(0, image.len())
}

/// Says in the log what its groups have lost.
fn mark(identity: Identity, mut files: Images, left: Recovered, lost: &BTreeMap<u64, Lost>) -> Images {
    let Recovered { groups, mut tail, .. } = left;
    let segment_bytes = files.values().map(|image| image.len() as u64).max().unwrap_or(0);
    make_room(&mut files, &mut tail, segment_bytes);
    let frame_bytes_max = 2 * BLOCK_BYTES;
    let config = LogConfig { segment_bytes, spare_segments: 0, frame_bytes_max, ..LogConfig::new(identity) };
    let mut log = Log::open(config, BlockPool::new(), tail);
    for (group, lost) in lost {
        let found = groups.get(group).cloned().unwrap_or_default();
        let (header, payload) = Damage::record(Some(&damage_of(&found, *lost)), *group, &[]);
        log.append(&header, &payload);
    }
    let mut out = Effects::<()>::default();
    loop {
        log.flush(0, &mut out);
        let effects: Vec<Effect<()>> = out.drain().collect();
        if effects.is_empty() {
            return files;
        }
        for effect in effects {
            if let Effect::Write { op, file, offset, block, .. } = effect {
                let image = files.get_mut(&file).expect("the log writes to files that it was given");
                *image = patched(image, offset, &block);
                log.disk(op, &Ok(DiskReply::Done), &mut out);
            } else if let Effect::Sync { op, .. } = effect {
                log.disk(op, &Ok(DiskReply::Done), &mut out);
            }
        }
    }
}

/// The log must have a segment to go on in.
fn make_room(files: &mut Images, tail: &mut LogTail, segment_bytes: u64) {
    tail.fit(segment_bytes, |file| files[&file].len() as u64);
    if tail.spares.is_empty() {
        let file = FileId::segment(tail.next_file);
        tail.next_file += 1;
        tail.spares.push(file);
        let bytes = usize::try_from(segment_bytes).expect("segments fit in memory");
        files.insert(file, BlockPool::new().copy_of(&vec![0; bytes]));
    }
}

/// What is to be said of a group: it goes on from its state of an earlier moment.
fn damage_of(found: &RecoveredGroup, lost: Lost) -> Damage {
    let from = found.last() + 1;
    let from = found.damage.map_or(from, |before| before.from.min(from));
    let vote_lost = lost.vote || found.damage.is_some_and(|before| before.vote_lost);
    Damage { from, seen: None, vote_lost, given_up: true }
}

fn patched(image: &Slice, offset: u64, bytes: &[u8]) -> Slice {
    let offset = usize::try_from(offset).expect("segments fit in memory");
    let mut block = BlockPool::new().allocate(image.len(), 0);
    block.append(&image[..offset]);
    block.append(bytes);
    block.append(&image[offset + bytes.len()..]);
    block.slice(0, image.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::testing::{IDENTITY, Rig, TestDisk};
    use flotilla_runtime::NodeId;

    /// Two groups, a frame for every entry; group 2 ends early.
    fn images() -> Images {
        let (mut rig, _) = Rig::new(TestDisk::default(), 1);
        rig.settle();
        for index in 1..=40_u64 {
            if index <= 3 {
                rig.entry(2, index, 1, b"early");
            }
            rig.entry(1, index, 1, &[7; 3000]);
            rig.settle();
        }
        rig.rest();
        let pool = BlockPool::new();
        rig.disk.files.iter().map(|(file, bytes)| (*file, pool.copy_of(bytes))).collect()
    }

    fn disk_of(files: &Images) -> TestDisk {
        let mut disk = TestDisk::default();
        disk.files = files.iter().map(|(file, image)| (*file, image.to_vec())).collect();
        disk
    }

    #[test]
    fn a_log_ends_before_the_frame_and_says_what_is_lost() {
        let files = images();
        let whole = recover(IDENTITY, &files).unwrap();
        assert!(whole.tail.live.len() > 1, "several segments");
        for at in 1..=whole.tail.last.0 {
            let cut = truncate(IDENTITY, &files, Lsn(at), &[]).unwrap();
            let found = &cut.recovered;
            assert_eq!(found.tail.last, Lsn(at.min(40)), "one frame says what is lost, if anything is");
            assert!(found.holes.is_empty() && found.cut.is_none());
            // Frame n holds entry n of group 1; the last frame is the watermark.
            let entries = found.groups.get(&1).map_or(0, |group| group.entries.len() as u64);
            assert_eq!(entries, (at - 1).min(40), "{at}");
            let damage = found.groups.get(&1).and_then(|group| group.damage);
            let expected = Damage { from: at, seen: None, vote_lost: false, given_up: true };
            assert_eq!(damage, (at <= 40).then_some(expected), "{at}");
            assert_eq!(
                cut.lost.contains_key(&2),
                at <= 3,
                "group 2 loses nothing that it doesn't have there"
            );
            assert_eq!(cut.frames, whole.tail.last.0 + 1 - at);
            // A life on it goes on, and what it writes is read back.
            let (mut rig, _) = Rig::new(disk_of(&cut.files), 1);
            rig.entry(1, entries + 1, 9, b"on");
            rig.settle();
            let on = rig.disk.recover().unwrap();
            assert_eq!(on.groups[&1].entries.len() as u64, entries + 1, "{at}");
        }
        let beyond = truncate(IDENTITY, &files, Lsn(whole.tail.last.0 + 1), &[]);
        assert!(matches!(beyond, Err(RepairError::NothingThere { .. })));
    }

    #[test]
    fn damage_that_can_t_be_read_concerns_every_group_that_may_be_here() {
        let mut disk = disk_of(&images());
        // The header of the fifth frame.
        let first = *disk.files.keys().next().unwrap();
        disk.files.get_mut(&first).unwrap()[4096 + 4 * 4096 + 20] ^= 1;
        let pool = BlockPool::new();
        let files: Images = disk.files.iter().map(|(file, bytes)| (*file, pool.copy_of(bytes))).collect();
        assert!(recover(IDENTITY, &files).unwrap().damage_of(1).is_some());
        let mut cut = truncate(IDENTITY, &files, Lsn(5), &[1, 2, 3]).unwrap();
        for group in 1..=3 {
            let damage = cut.recovered.groups[&group].damage.unwrap();
            assert!(damage.given_up && damage.vote_lost, "{group}: {damage:?}");
            assert!(cut.recovered.accept_what_is_left(group));
            assert!(cut.recovered.damage_of(group).is_none());
        }
        // Behind the damage: it stays.
        let mut cut = truncate(IDENTITY, &files, Lsn(7), &[]).unwrap();
        assert!(cut.recovered.damage_of(1).is_some() && !cut.recovered.accept_what_is_left(1));
    }

    #[test]
    fn a_loss_after_one_that_was_given_up_isn_t_given_up() {
        let cut = truncate(IDENTITY, &images(), Lsn(10), &[]).unwrap();
        let (mut rig, _) = Rig::new(disk_of(&cut.files), 1);
        let (header, payload) = crate::HardState { term: 3, vote: Some(NodeId(1)), commit: 9 }.record(1);
        rig.log.append(&header, &payload);
        for index in 10..=12 {
            rig.entry(1, index, 3, b"after");
            rig.settle();
        }
        rig.rest();
        let mut disk = rig.disk;
        let mut found = disk.recover().unwrap();
        assert!(found.accept_what_is_left(1));
        let live = found.tail.live.last().unwrap().file;
        let image = disk.files.get_mut(&live).unwrap();
        let at = (4096..image.len()).step_by(4096).rfind(|at| image[*at..*at + 4] == *b"FRM1").unwrap();
        image[at - 4096 + 120] ^= 1;
        let mut found = disk.recover().unwrap();
        let damage = found.damage_of(1).unwrap();
        assert_eq!((damage.from, damage.given_up), (12, false));
        assert!(!found.accept_what_is_left(1));
    }
}

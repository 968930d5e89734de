//! The reader: tells a torn tail from damage, and gives back what was written.
//!
//! Segments are read in the order of their epochs. In each, frames follow one another, chained by their header
//! checksums, until the first one that isn't good; what that means is decided so:
//!
//! | the first bad frame is | and | verdict |
//! |---|---|---|
//! | in a segment with a successor | the successor begins with exactly this frame's number | leftovers of an earlier cut: ignored |
//! | in a segment with a successor | the successor begins later | **damaged** |
//! | in the last segment | a later frame of this epoch says that it was durable | **damaged** |
//! | in the last segment | no later frame does | torn tail: cut off |
//!
//! **Why a cut is safe.** A frame is acknowledged only when it and all before it are durable, and every later
//! frame says how far that was. Frames behind the tail that claim nothing about it were never acknowledged. If
//! any of them is still readable (it overtook the torn one), the next life doesn't write into that segment again:
//! it takes a new one, whose header says with which frame the old one ends. If none is, the next life goes on
//! where the tail was cut: whatever it writes there, nothing behind it parses as a frame of this epoch.
//!
//! **What damage costs.** Reading goes on behind the damaged frames. The groups that they may have touched (their own
//! headers, or the next frame's, tell) are given back as they were before, with a [`Damage`]: what was behind it can't be
//! attached any more. All others are whole. Nothing is changed on disk.

mod groups;
mod reading;
#[cfg(test)]
mod tests;

pub use groups::RecoveredGroup;
pub(crate) use reading::frames_behind;

use crate::Lsn;
use crate::error::StorageError;
use crate::frame::{FORMAT_VERSION, Touched};
use crate::record::{Damage, LostFrames, RecordKind};
use crate::segment::{FirstBlock, Identity, SEGMENT_HEADER_BYTES, SegmentHeader};
use flotilla_runtime::{FileId, Slice};
use reading::{Reading, Segment};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

/// A segment whose content is needed.
#[derive(Clone, Debug)]
pub struct LiveSegment {
    /// Its file.
    pub file: FileId,
    /// Its activation.
    pub epoch: u64,
    /// Its first frame.
    pub first: Lsn,
    /// The highest entry index in it, by group.
    pub entries: BTreeMap<u64, u64>,
}

impl LiveSegment {
    fn new(file: FileId, epoch: u64, first: Lsn) -> Self {
        Self { file, epoch, first, entries: BTreeMap::new() }
    }
}

/// Where a log goes on.
#[derive(Clone, Debug, Default)]
pub struct LogTail {
    /// The last frame.
    pub last: Lsn,
    /// Its header checksum.
    pub prev_crc: u32,
    /// Whose records it holds.
    pub touched: Touched,
    /// The newest epoch.
    pub epoch: u64,
    /// Where the next frame goes in the newest segment; `None`: into a new one.
    pub offset: Option<u64>,
    /// The segments that are needed, oldest first.
    pub live: Vec<LiveSegment>,
    /// Segment files to take into use.
    pub spares: Vec<FileId>,
    /// The number of the next file to be made.
    pub next_file: u64,
    /// The newest hard state, mark and repair of every group, and the frame that it is in.
    pub latest: BTreeMap<(u64, RecordKind), (Lsn, Vec<u8>)>,
}

/// A tail that was cut off: written when the node died, never acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub file: FileId,
    /// Where the log ends now.
    pub offset: u64,
    /// The first frame that is gone.
    pub lsn: Lsn,
}

/// Frames that were acknowledged and can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The segment.
    pub file: FileId,
    /// Where in it.
    pub offset: u64,
    /// The first and the last frame that are lost.
    pub frames: LostFrames,
    /// What was found instead.
    pub what: String,
    /// Whose records were in them.
    pub touched: Touched,
}

impl fmt::Display for Hole {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, frames: (first, last), what, touched } = self;
        write!(out, "{file} is damaged at offset {offset}: {what}; ")?;
        match (first.0.cmp(&last.0), touched.groups.count_ones()) {
            (Ordering::Greater, 0) => return out.write_str("nothing is lost"),
            (Ordering::Greater, _) => out.write_str("what is lost is unknown")?,
            (Ordering::Equal, _) => write!(out, "frame {} is lost", first.0)?,
            (Ordering::Less, _) => write!(out, "frames {} to {} are lost", first.0, last.0)?,
        }
        match touched.groups.count_ones() {
            64 => out.write_str(", and every group may be concerned"),
            1 => out.write_str(", and one group at most is concerned"),
            count => write!(out, ", and {count} groups at most are concerned"),
        }
    }
}

/// What recovery found.
#[derive(Debug)]
pub struct Recovered {
    /// The groups with anything in the log.
    pub groups: BTreeMap<u64, RecoveredGroup>,
    /// Where the log goes on.
    pub tail: LogTail,
    /// What was cut off, if anything was.
    pub cut: Option<TornTail>,
    /// What was acknowledged and is lost.
    pub holes: Vec<Hole>,
    /// Frames read.
    pub frames: u64,
    /// Bytes of frames read.
    pub bytes: u64,
    /// Snapshots that can't be read.
    snapshots: Vec<String>,
    /// Groups that have no replica here any more, and whether something of it was still there.
    left: BTreeMap<u64, bool>,
}

impl Recovered {
    /// What a group has lost.
    pub fn damage_of(&self, group: u64) -> Option<Damage> {
        self.groups
            .get(&group)
            .map_or_else(|| groups::unseen(group, &self.lost()).damage, |found| found.damage)
    }

    /// The snapshot that a group's log rests on can't be read: nothing of it can be used.
    pub fn lose_snapshot(&mut self, group: u64, why: &StorageError) {
        self.groups.entry(group).or_default().lose_all();
        self.snapshots.push(why.to_string());
    }

    /// This node has no part in a group: what is here of it isn't needed. It begins like one that lost everything.
    pub fn forget(&mut self, group: u64) {
        let found = self.groups.entry(group).or_default();
        let has_any = found.snapshot.is_some() || !found.entries.is_empty();
        if has_any {
            found.lose_all();
        }
        self.left.insert(group, has_any);
    }

    /// No other node has a replica of the group: what is left is taken for all there is, if the operator gave up the rest.
    /// Returns whether that is so.
    pub fn accept_what_is_left(&mut self, group: u64) -> bool {
        let Some(found) = self.groups.get_mut(&group) else { return false };
        found.damage.take_if(|damage| damage.given_up).is_some()
    }

    /// Takes a group out; one without records is empty, and damaged if the lost frames may have held some.
    pub fn take_group(&mut self, group: u64) -> RecoveredGroup {
        self.groups.remove(&group).unwrap_or_else(|| groups::unseen(group, &self.lost()))
    }

    fn lost(&self) -> Vec<(LostFrames, Touched)> {
        self.holes.iter().map(|hole| (hole.frames, hole.touched)).collect()
    }

    /// One line for the node's log.
    pub fn summary(&self) -> String {
        let entries: usize = self.groups.values().map(|group| group.entries.len()).sum();
        let cut = match self.cut {
            Some(cut) => format!(
                "; a torn tail was cut off {} at offset {} (frame {})",
                cut.file, cut.offset, cut.lsn.0
            ),
            None => String::new(),
        };
        let dropped = match self.left.values().filter(|has_any| **has_any).count() {
            0 => String::new(),
            count => format!("; {count} replicas of groups that this node has left are dropped"),
        };
        format!(
            "{} frames, {} bytes, {} groups, {entries} entries, last frame {}{cut}{dropped}",
            self.frames,
            self.bytes,
            self.groups.len(),
            self.tail.last.0
        )
    }

    /// What is damaged and whom it concerns, a line each. Empty if nothing is.
    pub fn damage(&self) -> Vec<String> {
        let holes = self.holes.iter().map(Hole::to_string);
        let missed = self.groups.iter().filter(|(group, _)| !self.left.contains_key(group));
        let groups = missed.filter_map(|(group, found)| {
            let damage = found.damage?;
            let upto = match damage.seen {
                Some(seen) if seen > damage.from => format!("to {} are lost", seen - 1),
                _ => "on may be lost".to_owned(),
            };
            let vote = if damage.vote_lost { ", and what it voted" } else { "" };
            Some(format!("group {group}: entries from {} {upto}{vote}", damage.from))
        });
        holes.chain(self.snapshots.iter().cloned()).chain(groups).collect()
    }
}

/// Reads a log back from the images of its files.
#[derive(Debug)]
pub struct Recovery {
    identity: Identity,
    segments: BTreeMap<u64, Segment>,
    /// Files without a usable header.
    headless: Vec<(FileId, Slice)>,
    next_file: u64,
}

impl Recovery {
    /// Expects the log of this core.
    pub fn new(identity: Identity) -> Self {
        Self { identity, segments: BTreeMap::new(), headless: Vec::new(), next_file: 1 }
    }

    /// Adds a segment file with its whole content; in any order.
    ///
    /// # Errors
    /// [`StorageError::Foreign`], [`StorageError::Version`].
    pub fn segment(&mut self, file: FileId, image: Slice) -> Result<(), StorageError> {
        self.next_file = self.next_file.max(file.number.saturating_add(1));
        match SegmentHeader::parse(&image) {
            FirstBlock::OtherVersion(found) => {
                Err(StorageError::Version { file, found, known: FORMAT_VERSION })
            }
            FirstBlock::Header(header) if header.identity != self.identity => {
                Err(StorageError::Foreign { file, found: header.identity, expected: self.identity })
            }
            FirstBlock::Header(header) => {
                self.segments.insert(header.epoch, Segment { file, header, image });
                Ok(())
            }
            FirstBlock::None => {
                self.headless.push((file, image));
                Ok(())
            }
        }
    }

    /// Reads everything.
    ///
    /// # Errors
    /// [`StorageError`] if a segment is missing, or what is in the log makes no sense.
    pub fn finish(mut self) -> Result<Recovered, StorageError> {
        let adopted = self.adopt_headless();
        let newest = self.segments.keys().next_back().copied().unwrap_or(0);
        let oldest = self.oldest_live()?;
        let needed: Vec<&Segment> = self.segments.range(oldest..).map(|(_, segment)| segment).collect();
        for segment in &needed {
            let epoch = segment.header.previous_epoch;
            if epoch >= oldest.max(1) && !self.segments.contains_key(&epoch) {
                return Err(StorageError::MissingSegment { epoch, oldest, newest });
            }
        }
        let mut reading = Reading::before(needed.first().map(|segment| &segment.header));
        for (place, segment) in needed.iter().enumerate() {
            reading.read(segment, needed.get(place + 1).copied())?;
        }
        // Frames that never counted may lie about in files that weren't taken into use: their epoch isn't used again.
        let seen = self.headless.iter().flat_map(|(_, image)| frames_behind(image, SEGMENT_HEADER_BYTES));
        let epoch = seen.map(|(_, frame)| frame.epoch).max().unwrap_or(0).max(newest);
        let spares = self.segments.range(..oldest).map(|(_, segment)| segment.file);
        let mut spares: Vec<FileId> = spares.chain(self.headless.iter().map(|(file, _)| *file)).collect();
        spares.sort_unstable();
        let Reading { groups, live, last, prev_crc, touched, frames, bytes, offset, cut, .. } = reading;
        let (groups, latest) = groups.finish();
        let adopted = adopted.into_iter().filter(|(epoch, _)| *epoch >= oldest).map(|(_, hole)| hole);
        let holes = adopted.chain(reading.holes).collect();
        let offset = offset.filter(|_| epoch == newest);
        let tail = LogTail {
            last,
            prev_crc,
            touched,
            epoch,
            offset,
            live,
            spares,
            next_file: self.next_file,
            latest,
        };
        Ok(Recovered {
            groups,
            tail,
            cut,
            holes,
            frames,
            bytes,
            snapshots: Vec::new(),
            left: BTreeMap::new(),
        })
    }

    /// An epoch such that all before it aren't needed: the newest segment knew it when it was taken into use, its frames may know
    /// better.
    fn oldest_live(&self) -> Result<u64, StorageError> {
        let Some(newest) = self.segments.values().next_back() else { return Ok(1) };
        let mut reading = Reading::before(Some(&newest.header));
        reading.read(newest, None)?;
        Ok(reading.oldest_live)
    }

    /// A file whose header is unreadable is a spare, unless frames in it were acknowledged: then the header is made up
    /// from them.
    fn adopt_headless(&mut self) -> Vec<(u64, Hole)> {
        let mut holes = Vec::new();
        let mut spares = Vec::new();
        for (file, image) in std::mem::take(&mut self.headless) {
            match self.header_from_frames(file, &image) {
                Some(header) => {
                    let hole = Hole {
                        file,
                        offset: 0,
                        frames: (Lsn(header.previous.0 + 1), header.previous),
                        what: "the segment's header is unreadable; its frames tell what was there".to_owned(),
                        touched: Touched::default(),
                    };
                    holes.push((header.epoch, hole));
                    self.segments.insert(header.epoch, Segment { file, header, image });
                }
                None => spares.push((file, image)),
            }
        }
        self.headless = spares;
        holes
    }

    fn header_from_frames(&self, file: FileId, image: &Slice) -> Option<SegmentHeader> {
        let (_, first) = frames_behind(image, SEGMENT_HEADER_BYTES).max_by_key(|(_, frame)| frame.epoch)?;
        let epoch = first.epoch;
        let mut frames = frames_behind(image, SEGMENT_HEADER_BYTES).filter(|(_, frame)| frame.epoch == epoch);
        let (at, first) = frames.next()?;
        // Frames that were written together with the header and never acknowledged say nothing about each other.
        let acknowledged = frames.any(|(_, frame)| frame.durable >= first.lsn);
        let needed = (first.oldest_live..).contains(&epoch) && !self.segments.contains_key(&epoch);
        let is_followed = self.segments.values().any(|segment| segment.header.previous_epoch == epoch);
        if !needed || !(acknowledged || is_followed) {
            return None;
        }
        let previous = Lsn(first.lsn.0 - 1);
        // A first frame further back than it should be hides others: no chain leads to it.
        let previous_crc = if at == SEGMENT_HEADER_BYTES { first.prev_crc } else { !first.prev_crc };
        Some(SegmentHeader {
            identity: self.identity,
            file: file.number,
            epoch,
            previous_epoch: self.segments.range(..epoch).next_back().map_or(0, |(before, _)| *before),
            previous,
            previous_crc,
            oldest_live: first.oldest_live,
        })
    }
}

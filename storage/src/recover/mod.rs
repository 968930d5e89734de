//! The reader: tells a torn tail from damage, and gives back what was written.
//!
//! Segments are read in the order of their epochs. In each, frames follow one another, chained by their header
//! checksums, until the first one that isn't good; what that means is decided so:
//!
//! | the first bad frame is | and | verdict |
//! |---|---|---|
//! | in a segment with a successor | the successor begins with exactly this frame's number | leftovers of an earlier cut: ignored |
//! | in a segment with a successor | the successor begins later | **corrupt** |
//! | in the last segment | a later frame of this epoch says that it was durable | **corrupt** |
//! | in the last segment | no later frame does | torn tail: cut off |
//!
//! **Why a cut is safe.** A frame is acknowledged only when it and all before it are durable, and every later
//! frame says how far that was. Frames behind the tail that claim nothing about it were never acknowledged. If
//! any of them is still readable (it overtook the torn one), the next life doesn't write into that segment again:
//! it takes a new one, whose header says with which frame the old one ends. If none is, the next life goes on
//! where the tail was cut: whatever it writes there, nothing behind it parses as a frame of this epoch.

mod groups;

pub use groups::RecoveredGroup;

use crate::Lsn;
use crate::error::StorageError;
use crate::frame::{FORMAT_VERSION, FrameHeader};
use crate::record::RecordKind;
use crate::segment::{FirstBlock, Identity, SEGMENT_HEADER_BYTES, SegmentHeader};
use flotilla_runtime::block::BLOCK_BYTES;
use flotilla_runtime::{FileId, Slice};
use groups::Groups;
use std::collections::BTreeMap;

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

/// Where a log goes on.
#[derive(Clone, Debug, Default)]
pub struct LogTail {
    /// The last frame.
    pub last: Lsn,
    /// Its header checksum.
    pub prev_crc: u32,
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
    /// The newest hard state and mark of every group, and the frame that it is in.
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

/// What recovery found.
#[derive(Debug)]
pub struct Recovered {
    /// The groups with anything in the log.
    pub groups: BTreeMap<u64, RecoveredGroup>,
    /// Where the log goes on.
    pub tail: LogTail,
    /// What was cut off, if anything was.
    pub cut: Option<TornTail>,
    /// Frames read.
    pub frames: u64,
    /// Bytes of frames read.
    pub bytes: u64,
}

impl Recovered {
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
        format!(
            "{} frames, {} bytes, {} groups, {entries} entries, last frame {}{cut}",
            self.frames,
            self.bytes,
            self.groups.len(),
            self.tail.last.0
        )
    }
}

/// Reads a log back from the images of its files.
#[derive(Debug)]
pub struct Recovery {
    identity: Identity,
    segments: BTreeMap<u64, (FileId, SegmentHeader, Slice)>,
    /// Files without a usable header.
    headless: Vec<(FileId, Slice)>,
    next_file: u64,
}

/// What reading one segment left behind.
#[derive(Debug)]
struct Reading {
    groups: Groups,
    live: Vec<LiveSegment>,
    last: Lsn,
    prev_crc: u32,
    oldest_live: u64,
    frames: u64,
    bytes: u64,
    offset: Option<u64>,
    cut: Option<TornTail>,
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
        self.next_file = self.next_file.max(file.number + 1);
        match SegmentHeader::parse(&image) {
            FirstBlock::OtherVersion(found) => {
                Err(StorageError::Version { file, found, known: FORMAT_VERSION })
            }
            FirstBlock::Header(header) if header.identity != self.identity => {
                Err(StorageError::Foreign { file, found: header.identity, expected: self.identity })
            }
            FirstBlock::Header(header) => {
                self.segments.insert(header.epoch, (file, header, image));
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
    /// [`StorageError`] if acknowledged data is damaged or missing.
    pub fn finish(self) -> Result<Recovered, StorageError> {
        let newest = self.segments.keys().next_back().copied().unwrap_or(0);
        let oldest = self.oldest_live();
        if let Some(epoch) = (oldest..=newest).find(|epoch| newest > 0 && !self.segments.contains_key(epoch))
        {
            return Err(StorageError::MissingSegment { epoch, oldest, newest });
        }
        let mut reading = Reading::new(&self.segments, oldest);
        let needed: Vec<_> = self.segments.range(oldest..).map(|(_, segment)| segment).collect();
        for (place, (file, header, image)) in needed.iter().enumerate() {
            let successor = needed.get(place + 1).map(|(_, header, _)| header);
            reading.read(*file, header, image, successor)?;
        }
        self.check_headless(newest, &reading)?;
        let spares = self.segments.range(..oldest).map(|(_, (file, ..))| *file);
        let mut spares: Vec<FileId> = spares.chain(self.headless.iter().map(|(file, _)| *file)).collect();
        spares.sort_unstable();
        let (groups, latest) = reading.groups.finish()?;
        let tail = LogTail {
            last: reading.last,
            prev_crc: reading.prev_crc,
            epoch: newest,
            offset: reading.offset,
            live: reading.live,
            spares,
            next_file: self.next_file,
            latest,
        };
        let Reading { cut, frames, bytes, .. } = reading;
        Ok(Recovered { groups, tail, cut, frames, bytes })
    }

    /// The oldest epoch that is still needed: the newest segment knew it when it was taken into use, its frames
    /// may know better.
    fn oldest_live(&self) -> u64 {
        let Some((epoch, (_, header, image))) = self.segments.iter().next_back() else { return 1 };
        let frames = Frames::new(image, *epoch);
        frames.map(|(_, frame)| frame.oldest_live).max().unwrap_or(0).max(header.oldest_live)
    }

    /// A file whose header is unreadable is a spare, unless its frames say that it was the newest segment.
    fn check_headless(&self, newest: u64, reading: &Reading) -> Result<(), StorageError> {
        for (file, image) in &self.headless {
            let durable = later_frames(image, SEGMENT_HEADER_BYTES)
                .filter(|frame| frame.epoch > newest)
                .map(|frame| frame.durable)
                .max();
            if durable.is_some_and(|durable| durable > reading.last) {
                return Err(StorageError::Corrupt {
                    file: *file,
                    offset: 0,
                    lsn: Lsn(reading.last.0 + 1),
                    what:
                        "the segment's header is unreadable, but frames behind it are newer than all others"
                            .into(),
                    damage: "The whole segment is concerned.".into(),
                });
            }
        }
        Ok(())
    }
}

impl Reading {
    fn new(segments: &BTreeMap<u64, (FileId, SegmentHeader, Slice)>, oldest: u64) -> Self {
        let first = segments.get(&oldest).map(|(_, header, _)| header);
        Self {
            groups: Groups::default(),
            live: Vec::new(),
            last: first.map_or(Lsn(0), |header| header.previous),
            prev_crc: first.map_or(0, |header| header.previous_crc),
            oldest_live: oldest,
            frames: 0,
            bytes: 0,
            offset: None,
            cut: None,
        }
    }

    fn read(
        &mut self,
        file: FileId,
        header: &SegmentHeader,
        image: &Slice,
        successor: Option<&SegmentHeader>,
    ) -> Result<(), StorageError> {
        let mut segment =
            LiveSegment { file, epoch: header.epoch, first: Lsn(self.last.0 + 1), entries: BTreeMap::new() };
        let mut offset = SEGMENT_HEADER_BYTES;
        let what = loop {
            if successor.is_some_and(|next| next.previous == self.last && next.previous_crc == self.prev_crc)
            {
                self.live.push(segment);
                return Ok(());
            }
            let at = usize::try_from(offset).expect("segments fit in memory");
            match self.next_frame(header.epoch, image, at) {
                Ok(frame) => {
                    self.take(&frame, image, at, &mut segment)
                        .map_err(|what| self.corrupt(file, offset, what, image))?;
                    offset += frame.frame_bytes() as u64;
                }
                Err(what) => break what,
            }
        };
        self.live.push(segment);
        if let Some(next) = successor {
            let what = format!("{what}, but the next segment begins after frame {}", next.previous.0);
            return Err(self.corrupt(file, offset, what, image));
        }
        self.end(file, header.epoch, offset, &what, image)
    }

    /// The frame at `at`, if it is the good successor of the last one.
    fn next_frame(&self, epoch: u64, image: &Slice, at: usize) -> Result<FrameHeader, String> {
        let bytes = image.get(at..).unwrap_or_default();
        let frame = FrameHeader::parse(bytes).map_err(|bad| format!("no good frame ({bad:?})"))?;
        if frame.epoch != epoch || frame.lsn.0 != self.last.0 + 1 {
            let found = frame.lsn.0;
            return Err(format!("frame {found} of epoch {} in the place of the next one", frame.epoch));
        }
        if frame.prev_crc != self.prev_crc {
            return Err("a frame that doesn't follow the one before it".to_owned());
        }
        frame.payload(bytes).map_err(|bad| format!("a damaged frame ({bad:?})"))?;
        Ok(frame)
    }

    fn take(
        &mut self,
        frame: &FrameHeader,
        image: &Slice,
        at: usize,
        segment: &mut LiveSegment,
    ) -> Result<(), String> {
        let start = at + usize::from(frame.header_len);
        let payload = image.subslice(start, start + frame.payload_len as usize);
        self.groups.take(frame, &payload, segment)?;
        self.last = frame.lsn;
        self.prev_crc = frame.header_crc;
        self.oldest_live = self.oldest_live.max(frame.oldest_live);
        self.frames += 1;
        self.bytes += frame.frame_bytes() as u64;
        Ok(())
    }

    /// The last segment's first bad frame: torn or corrupt?
    fn end(
        &mut self,
        file: FileId,
        epoch: u64,
        offset: u64,
        what: &str,
        image: &Slice,
    ) -> Result<(), StorageError> {
        let expected = Lsn(self.last.0 + 1);
        let mut leftovers = false;
        for frame in later_frames(image, offset).filter(|frame| frame.epoch == epoch && frame.lsn >= expected)
        {
            if frame.durable >= expected {
                let what = format!("{what}, but frame {} says that it was durable", frame.lsn.0);
                return Err(self.corrupt(file, offset, what, image));
            }
            leftovers = true;
        }
        let dirty = image.get(usize::try_from(offset).expect("segments fit in memory")..).unwrap_or_default();
        let torn = leftovers || FrameHeader::parse(dirty).is_ok_and(|frame| frame.epoch == epoch);
        self.cut = torn.then_some(TornTail { file, offset, lsn: expected });
        self.offset = (!leftovers).then_some(offset);
        Ok(())
    }

    /// Names what is lost: the groups and indices that later, still readable frames don't have either.
    fn corrupt(&self, file: FileId, offset: u64, what: String, image: &Slice) -> StorageError {
        let damage = self.groups.damage(image, offset, self.last);
        StorageError::Corrupt { file, offset, lsn: Lsn(self.last.0 + 1), what, damage }
    }
}

/// The frames of one epoch from a segment's start, by their headers alone.
struct Frames<'a> {
    image: &'a Slice,
    epoch: u64,
    at: usize,
}

impl<'a> Frames<'a> {
    fn new(image: &'a Slice, epoch: u64) -> Self {
        Self { image, epoch, at: BLOCK_BYTES }
    }
}

impl Iterator for Frames<'_> {
    type Item = (usize, FrameHeader);

    fn next(&mut self) -> Option<(usize, FrameHeader)> {
        let frame = FrameHeader::parse(self.image.get(self.at..)?).ok()?;
        if frame.epoch != self.epoch {
            return None;
        }
        let at = self.at;
        self.at += frame.frame_bytes();
        Some((at, frame))
    }
}

/// Every block from `offset` on that reads as a frame header, whatever lies between.
fn later_frames(image: &Slice, offset: u64) -> impl Iterator<Item = FrameHeader> + '_ {
    let first = usize::try_from(offset).expect("segments fit in memory");
    (first..image.len()).step_by(BLOCK_BYTES).filter_map(|at| FrameHeader::parse(&image[at..]).ok())
}

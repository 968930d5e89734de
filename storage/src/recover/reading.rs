//! The walk along the segments, frame by frame.

use super::groups::Groups;
use super::{Hole, LiveSegment, TornTail};
use crate::Lsn;
use crate::error::StorageError;
use crate::frame::{FrameHeader, Touched};
use crate::segment::{SEGMENT_HEADER_BYTES, SegmentHeader};
use flotilla_runtime::block::BLOCK_BYTES;
use flotilla_runtime::planted::{Bug, planted};
use flotilla_runtime::{FileId, Slice};

/// A segment to be read.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) file: FileId,
    pub(super) header: SegmentHeader,
    pub(super) image: Slice,
}

/// What reading has brought so far.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) groups: Groups,
    pub(super) live: Vec<LiveSegment>,
    /// The last frame accounted for, read or lost.
    pub(super) last: Lsn,
    pub(super) prev_crc: u32,
    /// What that frame touched.
    pub(super) touched: Touched,
    pub(super) oldest_live: u64,
    pub(super) frames: u64,
    pub(super) bytes: u64,
    pub(super) offset: Option<u64>,
    pub(super) cut: Option<TornTail>,
    pub(super) holes: Vec<Hole>,
}

/// What stands at an offset instead of the next frame.
enum Bad {
    /// The next frame, its header good and its payload not.
    Payload(FrameHeader, String),
    /// Anything else.
    Other(String),
}

impl Reading {
    /// Before the first frame of the segment.
    pub(super) fn before(first: Option<&SegmentHeader>) -> Self {
        Self {
            last: first.map_or(Lsn(0), |header| header.previous),
            prev_crc: first.map_or(0, |header| header.previous_crc),
            oldest_live: first.map_or(0, |header| header.oldest_live),
            ..Self::default()
        }
    }

    /// Reads one segment to its end.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] if records make no sense though every checksum is right.
    pub(super) fn read(
        &mut self,
        segment: &Segment,
        successor: Option<&Segment>,
    ) -> Result<(), StorageError> {
        let Segment { file, header, image } = segment;
        self.live.push(LiveSegment::new(*file, header.epoch, Lsn(self.last.0 + 1)));
        let mut offset = SEGMENT_HEADER_BYTES;
        while !successor.is_some_and(|next| next.header.follows(self.last, self.prev_crc)) {
            let at = usize::try_from(offset).expect("segments fit in memory");
            match self.next_frame(header.epoch, image, at) {
                Ok(frame) => {
                    self.take(&frame, image, at).map_err(|what| StorageError::Corrupt {
                        file: *file,
                        offset,
                        lsn: frame.lsn,
                        what,
                    })?;
                    offset += frame.frame_bytes() as u64;
                }
                Err(bad) => match self.skip(segment, successor, offset, bad) {
                    Some(next) => offset = next,
                    None => break,
                },
            }
        }
        self.groups.end_segment(self.live.last_mut().expect("the segment being read"));
        Ok(())
    }

    /// The frame at `at`, if it is the good successor of the last one.
    fn next_frame(&self, epoch: u64, image: &Slice, at: usize) -> Result<FrameHeader, Bad> {
        let bytes = image.get(at..).unwrap_or_default();
        let other = |what: String| Err(Bad::Other(what));
        let frame = match FrameHeader::parse(bytes) {
            Ok(frame) => frame,
            Err(bad) => return other(format!("no good frame ({bad:?})")),
        };
        if planted(Bug::EpochIgnored) && frame.payload(bytes).is_ok() {
            return Ok(frame);
        }
        if frame.epoch != epoch || frame.lsn.0 != self.last.0 + 1 {
            let found = frame.lsn.0;
            return other(format!("frame {found} of epoch {} in the place of the next one", frame.epoch));
        }
        if frame.prev_crc != self.prev_crc {
            return other("a frame that doesn't follow the one before it".to_owned());
        }
        match frame.payload(bytes) {
            Ok(_) => Ok(frame),
            Err(_) if planted(Bug::TornAccepted) => Ok(frame),
            Err(bad) => Err(Bad::Payload(frame, format!("a damaged frame ({bad:?})"))),
        }
    }

    fn take(&mut self, frame: &FrameHeader, image: &Slice, at: usize) -> Result<(), String> {
        let start = at + usize::from(frame.header_len);
        let payload = image.subslice(start, start + frame.payload_len as usize);
        self.groups.take(frame, &payload)?;
        self.account(frame);
        self.frames += 1;
        self.bytes += frame.frame_bytes() as u64;
        Ok(())
    }

    fn account(&mut self, frame: &FrameHeader) {
        self.last = frame.lsn;
        self.prev_crc = frame.header_crc;
        self.touched = frame.touched;
        self.oldest_live = self.oldest_live.max(frame.oldest_live);
    }

    /// The frame at `offset` isn't good: where to go on reading in this segment, if anywhere.
    fn skip(&mut self, segment: &Segment, successor: Option<&Segment>, offset: u64, bad: Bad) -> Option<u64> {
        let expected = Lsn(self.last.0 + 1);
        let upto = successor.map_or(Lsn(u64::MAX), |next| next.header.previous);
        let found = frames_behind(&segment.image, offset).filter(|(_, frame)| {
            frame.epoch == segment.header.epoch && (expected..=upto).contains(&frame.lsn)
        });
        let is_believed = planted(Bug::CorruptTakenForTorn);
        let vouched = |frame: &FrameHeader| !is_believed && frame.durable >= expected;
        let is_damage = found.clone().any(|(_, frame)| vouched(&frame) || planted(Bug::TornTakenForCorrupt));
        if successor.is_none() && !is_damage {
            self.end(segment, offset, found.count() > 0);
            return None;
        }
        let hole = |what: String, frames: (Lsn, Lsn), touched: Touched| Hole {
            file: segment.file,
            offset,
            frames,
            what,
            touched,
        };
        match (bad, found.clone().next(), successor) {
            (Bad::Payload(frame, what), ..) => {
                // Its header is good, so the chain goes on behind it.
                self.lose(hole(what, (expected, expected), frame.touched));
                self.account(&frame);
                Some(offset + frame.frame_bytes() as u64)
            }
            (Bad::Other(what), Some((at, frame)), _) => {
                self.gap(hole(what, (expected, Lsn(frame.lsn.0 - 1)), Touched::ALL), Some(&frame));
                (self.last, self.prev_crc) = (Lsn(frame.lsn.0 - 1), frame.prev_crc);
                Some(at)
            }
            (Bad::Other(what), None, Some(next)) => {
                let first = FrameHeader::parse(next.image.get(BLOCK_BYTES..).unwrap_or_default());
                let first = first.ok().filter(|frame| {
                    frame.epoch == next.header.epoch && frame.lsn.0 == next.header.previous.0 + 1
                });
                self.gap(hole(what, (expected, next.header.previous), Touched::ALL), first.as_ref());
                (self.last, self.prev_crc) = (next.header.previous, next.header.previous_crc);
                None
            }
            (Bad::Other(_), None, None) => unreachable!("a frame was found that vouches for this one"),
        }
    }

    /// Frames are lost, headers and all; `next` is the first one behind them, and knows what the last of them touched.
    fn gap(&mut self, hole: Hole, next: Option<&FrameHeader>) {
        let only_one = hole.frames.0 == hole.frames.1;
        let touched = next.filter(|_| only_one).map_or(Touched::ALL, |next| next.touched_before);
        self.touched = next.map_or(Touched::ALL, |next| next.touched_before);
        self.lose(Hole { touched, ..hole });
    }

    fn lose(&mut self, hole: Hole) {
        self.groups.lose(hole.frames, hole.touched);
        self.holes.push(hole);
    }

    /// The last segment's first bad frame, and nothing says that it was durable: the log ends here.
    fn end(&mut self, segment: &Segment, offset: u64, leftovers: bool) {
        let at = usize::try_from(offset).expect("segments fit in memory");
        let dirty = segment.image.get(at..).unwrap_or_default();
        let torn = leftovers || FrameHeader::parse(dirty).is_ok_and(|it| it.epoch == segment.header.epoch);
        let lsn = Lsn(self.last.0 + 1);
        self.cut = torn.then_some(TornTail { file: segment.file, offset, lsn });
        self.offset = (!leftovers).then_some(offset);
    }
}

/// Every block from `offset` on that reads as a frame header, whatever lies between.
pub(crate) fn frames_behind(
    image: &Slice,
    offset: u64,
) -> impl Iterator<Item = (u64, FrameHeader)> + Clone + '_ {
    let first = usize::try_from(offset).expect("segments fit in memory");
    let blocks = (first..image.len()).step_by(BLOCK_BYTES);
    blocks.filter_map(|at| FrameHeader::parse(&image[at..]).ok().map(|frame| (at as u64, frame)))
}

//! A look at a segment for people: `flotilla wal inspect`.

use crate::Lsn;
use crate::frame::FrameHeader;
use crate::record::RecordHeader;
use crate::segment::{FirstBlock, SEGMENT_HEADER_BYTES, SegmentHeader};
use std::collections::BTreeMap;

/// What a segment's bytes are.
#[derive(Clone, Debug)]
pub struct SegmentReport {
    /// Its first block.
    pub header: FirstBlock,
    /// The frames from its start, up to the first that isn't one of its epoch.
    pub frames: Vec<FrameReport>,
    /// Where reading stopped, and why.
    pub end: (u64, String),
}

/// One frame.
#[derive(Clone, Debug)]
pub struct FrameReport {
    /// Where it starts.
    pub offset: u64,
    /// Its number.
    pub lsn: Lsn,
    /// Bytes that it takes.
    pub bytes: u64,
    /// How far the log was durable when it was built.
    pub durable: Lsn,
    /// Whether its payload is intact.
    pub good: bool,
    /// Its records.
    pub records: Vec<RecordHeader>,
}

impl SegmentReport {
    /// Records by group: how many, and the lowest and highest index.
    pub fn groups(&self) -> BTreeMap<u64, (u64, u64, u64)> {
        let mut groups = BTreeMap::new();
        for record in self.frames.iter().flat_map(|frame| &frame.records) {
            let (count, low, high) = groups.entry(record.group).or_insert((0, record.index, record.index));
            *count += 1;
            *low = record.index.min(*low);
            *high = record.index.max(*high);
        }
        groups
    }
}

/// Looks at a segment's whole content. Never panics, whatever the bytes are.
pub fn inspect(image: &[u8]) -> SegmentReport {
    let header = SegmentHeader::parse(image);
    let mut frames = Vec::new();
    let mut offset = SEGMENT_HEADER_BYTES;
    let why = loop {
        let bytes = usize::try_from(offset).ok().and_then(|at| image.get(at..)).unwrap_or_default();
        if bytes.is_empty() {
            break "the end of the file".to_owned();
        }
        let frame = match FrameHeader::parse(bytes) {
            Ok(frame) => frame,
            Err(bad) => break format!("no frame here ({bad:?})"),
        };
        if let FirstBlock::Header(header) = header
            && header.epoch != frame.epoch
        {
            break format!("a frame of epoch {}: left from an earlier use", frame.epoch);
        }
        let payload = frame.payload(bytes);
        frames.push(FrameReport {
            offset,
            lsn: frame.lsn,
            bytes: frame.frame_bytes() as u64,
            durable: frame.durable,
            good: payload.is_ok(),
            records: payload.map(|payload| records(payload, frame.records)).unwrap_or_default(),
        });
        offset += frame.frame_bytes() as u64;
    };
    SegmentReport { header, frames, end: (offset, why) }
}

fn records(mut payload: &[u8], count: u32) -> Vec<RecordHeader> {
    let mut records = Vec::new();
    for _ in 0..count {
        let Ok((header, _)) = RecordHeader::decode(payload) else { break };
        records.push(header);
        payload = payload.get(header.padded_len()..).unwrap_or_default();
    }
    records
}

//! What the records say, group by group.

use super::{LiveSegment, later_frames};
use crate::Lsn;
use crate::error::StorageError;
use crate::frame::FrameHeader;
use crate::record::{HardState, RECORD_HEADER_BYTES, RecordHeader, RecordKind};
use flotilla_runtime::Slice;
use std::collections::{BTreeMap, VecDeque};

/// One group as its records left it.
#[derive(Clone, Debug, Default)]
pub struct RecoveredGroup {
    /// Term, vote, commit; `None` if it never had any.
    pub hard_state: Option<HardState>,
    /// The mark of its newest snapshot, with its payload.
    pub snapshot: Option<(RecordHeader, Slice)>,
    /// The entries behind the snapshot: whole records, their indices contiguous.
    pub entries: VecDeque<Slice>,
    first: u64,
}

/// The newest record of a kind for every group, with its frame.
type Latest = BTreeMap<(u64, RecordKind), (Lsn, Vec<u8>)>;

#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: BTreeMap<u64, RecoveredGroup>,
    latest: Latest,
}

impl RecoveredGroup {
    fn last(&self) -> u64 {
        self.first + self.entries.len() as u64 - 1
    }

    fn entry(&mut self, header: &RecordHeader, record: Slice) -> Result<(), String> {
        if self.entries.is_empty() || header.index <= self.first {
            self.entries.clear();
            self.first = header.index;
        } else if header.index > self.last() + 1 {
            return Err(format!(
                "entry {} of group {} follows entry {}",
                header.index,
                header.group,
                self.last()
            ));
        }
        self.entries.truncate(usize::try_from(header.index - self.first).expect("entries fit in memory"));
        self.entries.push_back(record);
        Ok(())
    }

    fn mark(&mut self, header: RecordHeader, payload: Slice) {
        while !self.entries.is_empty() && self.first <= header.index {
            self.entries.pop_front();
            self.first += 1;
        }
        self.snapshot = Some((header, payload));
    }
}

impl Groups {
    /// Takes the records of a good frame.
    pub(super) fn take(
        &mut self,
        frame: &FrameHeader,
        payload: &Slice,
        segment: &mut LiveSegment,
    ) -> Result<(), String> {
        let mut at = 0;
        for _ in 0..frame.records {
            let (header, body) = RecordHeader::decode(&payload[at..]).map_err(|error| error.to_string())?;
            let end = at + RECORD_HEADER_BYTES + body.len();
            let record = payload.subslice(at, end);
            let group = self.groups.entry(header.group).or_default();
            match header.kind {
                RecordKind::Entry => {
                    group.entry(&header, record.clone())?;
                    let highest = segment.entries.entry(header.group).or_insert(header.index);
                    *highest = (*highest).max(header.index);
                }
                RecordKind::HardState => group.hard_state = Some(HardState::from_record(&header, body)),
                RecordKind::SnapshotMark => {
                    group.mark(header, record.subslice(RECORD_HEADER_BYTES, record.len()))
                }
            }
            if header.kind != RecordKind::Entry {
                self.latest.insert((header.group, header.kind), (frame.lsn, record.to_vec()));
            }
            at += header.padded_len();
            if at > payload.len() {
                return Err("a frame holds fewer records than it says".to_owned());
            }
        }
        Ok(())
    }

    /// Everything is read: is every group whole?
    pub(super) fn finish(mut self) -> Result<(BTreeMap<u64, RecoveredGroup>, Latest), StorageError> {
        for group in self.groups.values_mut() {
            // A mark that was written again lies behind entries that it doesn't cover; they were kept.
            if let Some((mark, payload)) = group.snapshot.take() {
                group.mark(mark, payload);
            }
        }
        Ok((self.groups, self.latest))
    }

    /// In words: what the damage costs.
    pub(super) fn damage(&self, image: &Slice, offset: u64, last: Lsn) -> String {
        let lost = later_frames(image, offset).map(|frame| frame.lsn.0).max().unwrap_or(last.0 + 1);
        let groups: Vec<String> = self
            .groups
            .iter()
            .take(8)
            .map(|(group, found)| {
                format!("group {group} from index {}", found.first + found.entries.len() as u64)
            })
            .collect();
        let more = if self.groups.len() > 8 { ", and more" } else { "" };
        format!("At risk: frames {} to {lost}, {}{more}.", last.0 + 1, groups.join(", "))
    }
}

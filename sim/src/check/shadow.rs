//! What one core's disk holds for certain, read from the bytes that became durable, frame by frame.
//!
//! This is the witness against which claims are checked: a vote, an acknowledgement, a commit are true only if the disks
//! say so. It knows the log's format and nothing of what the core believes.

use flotilla_consensus::Membership;
use flotilla_consensus::membership::SCHEMA_MEMBERSHIP;
use flotilla_services::core::{GroupInspection, Inspection};
use flotilla_storage::frame::FrameHeader;
use flotilla_storage::segment::{FirstBlock, SEGMENT_HEADER_BYTES, SegmentHeader};
use flotilla_storage::{HardState, RECORD_HEADER_BYTES, RecordHeader, RecordKind};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// An entry: its term, and the checksum of its record.
pub(crate) type Print = (u64, u32);

/// What the disk holds of one group.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    pub(super) term: u64,
    pub(super) vote: Option<u32>,
    /// Entries up to here are in a snapshot.
    snapshot: u64,
    first: u64,
    entries: VecDeque<Print>,
    /// It holds what was lost, too: after the repair the core knows better.
    is_doubtful: bool,
    /// The members as of an entry, by the newest record that says so.
    recorded: Option<(u64, Vec<u32>)>,
    /// The members that entries of the log bring.
    brought: BTreeMap<u64, Vec<u32>>,
    /// A core has started with it and known it to be whole. A log that was created anew isn't, until its replica is mended.
    is_whole: bool,
}

/// A record of a frame, as far as it matters here.
#[derive(Clone, Debug)]
pub(super) enum Said {
    Entry {
        group: u32,
        index: u64,
        print: Print,
    },
    State {
        group: u32,
        term: u64,
        vote: Option<u32>,
    },
    Snapshot {
        group: u32,
        index: u64,
        term: u64,
    },
    /// Who is in the group as of an entry: in a record of its own, or in that entry.
    Members {
        group: u32,
        index: u64,
        nodes: Vec<u32>,
        is_recorded: bool,
    },
    /// The frame is in a segment of this epoch, and needs none before the other.
    Space {
        epoch: u64,
        oldest_live: u64,
    },
}

/// The number of a group, from what Raft calls it: that of the controller is 0, and the others follow.
pub(super) fn group_number(id: u64) -> u32 {
    id.checked_sub(1).and_then(|number| u32::try_from(number).ok()).unwrap_or(u32::MAX)
}

/// One core's disk.
#[derive(Debug, Default)]
pub(super) struct Shadow {
    /// Every frame up to here is durable.
    upto: u64,
    /// Durable frames behind a gap.
    waiting: BTreeMap<u64, Vec<Said>>,
    groups: BTreeMap<u32, Kept>,
    /// Epochs of segments with frames, and the oldest that the newest frame needs.
    epochs: BTreeSet<u64>,
    oldest_live: u64,
    /// What the disks before this one held: an acknowledgement that left them still counts, and whoever gave it doesn't vote
    /// until it has the entry again.
    lost: Vec<BTreeMap<u32, Kept>>,
    /// Something that was durable has gone bad once: what is missing may be missing.
    pub(super) is_rotten: bool,
}

impl Kept {
    pub(super) fn last(&self) -> u64 {
        self.snapshot.max((self.first + self.entries.len() as u64).saturating_sub(1))
    }

    pub(super) fn entry(&self, index: u64) -> Option<Print> {
        let place = index.checked_sub(self.first)?;
        self.entries.get(usize::try_from(place).ok()?).copied()
    }

    /// Whether the entry is durable here, by itself or in a snapshot.
    pub(super) fn holds(&self, index: u64, print: Print) -> bool {
        match self.entry(index) {
            Some(found) => found == print,
            None => index <= self.snapshot,
        }
    }

    /// Whether a node isn't in the group any more, nor about to be again. A record that wasn't durable may have been found
    /// none the less: `known` is an entry that is known to have brought members without it.
    fn has_left(&self, node: u32, known: Option<u64>) -> bool {
        let recorded = self.recorded.as_ref().filter(|(_, nodes)| !nodes.contains(&node)).map(|(at, _)| *at);
        let Some(at) = recorded.max(known) else { return false };
        let came_later =
            self.recorded.as_ref().is_some_and(|(later, nodes)| *later > at && nodes.contains(&node));
        let comes_back = self.brought.range(at + 1..).any(|(_, nodes)| nodes.contains(&node));
        !came_later && !comes_back
    }

    fn push(&mut self, index: u64, print: Print) {
        drop(self.brought.split_off(&index));
        let next = self.first + self.entries.len() as u64;
        if self.entries.is_empty() || index < self.first || index > next {
            self.entries.clear();
            self.first = index;
        }
        self.entries.truncate(usize::try_from(index - self.first).expect("logs are short"));
        self.entries.push_back(print);
    }

    fn cover(&mut self, index: u64, term: u64) {
        self.snapshot = self.snapshot.max(index);
        // Another log's: what it had up to there isn't what the snapshot covers.
        if self.entry(index).is_some_and(|(of, _)| of != term) {
            let covered = usize::try_from(index + 1 - self.first).expect("logs are short");
            self.entries.drain(..covered.min(self.entries.len()));
            self.first = index + 1;
        }
        // What was behind the snapshot and of an older term was in conflict with what it holds.
        if self.entry(index + 1).is_some_and(|(of, _)| of < term) {
            self.entries.truncate(usize::try_from(index + 1 - self.first).expect("logs are short"));
        }
    }
}

impl Shadow {
    pub(super) fn group(&self, group: u32) -> Option<&Kept> {
        self.groups.get(&group)
    }

    /// Whether the entry is durable here, or was on a disk that was replaced.
    pub(super) fn held(&self, group: u32, index: u64, print: Print) -> bool {
        let disks = std::iter::once(&self.groups).chain(&self.lost);
        disks.filter_map(|disk| disk.get(&group)).any(|kept| kept.holds(index, print))
    }

    /// Another disk takes this one's place, an empty one.
    pub(super) fn replace(&mut self) {
        let mut lost = std::mem::take(&mut self.lost);
        lost.push(std::mem::take(&mut self.groups));
        *self = Self { lost, ..Self::default() };
    }

    /// A write to a segment has become durable. Returns the entries that are durable now, each with the one before it.
    pub(super) fn hardened(&mut self, offset: usize, bytes: &[u8]) -> Vec<(u32, u64, Print, Option<Print>)> {
        if offset < usize::try_from(SEGMENT_HEADER_BYTES).expect("a block") {
            return Vec::new();
        }
        let Ok(frame) = FrameHeader::parse(bytes) else { return Vec::new() };
        self.waiting.insert(frame.lsn.0, said(&frame, bytes));
        let mut entries = Vec::new();
        while let Some(frame) = self.waiting.remove(&(self.upto + 1)) {
            self.upto += 1;
            for said in frame {
                entries.extend(self.take(said));
            }
        }
        entries
    }

    fn take(&mut self, said: Said) -> Option<(u32, u64, Print, Option<Print>)> {
        match said {
            Said::Entry { group, index, print } => {
                let kept = self.groups.entry(group).or_default();
                kept.push(index, print);
                return Some((group, index, print, kept.entry(index - 1)));
            }
            Said::State { group, term, vote } => {
                let kept = self.groups.entry(group).or_default();
                (kept.term, kept.vote) = (term, vote);
            }
            Said::Space { epoch, oldest_live } => {
                self.epochs.insert(epoch);
                self.oldest_live = self.oldest_live.max(oldest_live);
            }
            Said::Members { group, index, nodes, is_recorded } => {
                let kept = self.groups.entry(group).or_default();
                match is_recorded {
                    true => kept.recorded = Some((index, nodes)),
                    false => drop(kept.brought.insert(index, nodes)),
                }
            }
            Said::Snapshot { group, index, term } => self.groups.entry(group).or_default().cover(index, term),
        }
        None
    }

    /// Whether a segment that begins like this may be written to again.
    ///
    /// # Errors
    /// What is needed of it.
    pub(super) fn gives(&self, first: &[u8]) -> Result<(), String> {
        let FirstBlock::Header(header) = SegmentHeader::parse(first) else { return Ok(()) };
        let is_needed = header.epoch >= self.oldest_live && self.epochs.contains(&header.epoch);
        if is_needed && !self.is_rotten {
            return Err(format!(
                "uses the segment of epoch {} again, and what is durable needs those from {} on",
                header.epoch, self.oldest_live
            ));
        }
        Ok(())
    }

    /// The core has started again: it must know everything that was durable, unless it says that it is damaged, and it
    /// may say so only if it is, or if it has left the group (by an entry that `without` names).
    ///
    /// # Errors
    /// What it has forgotten.
    pub(super) fn started(
        &mut self,
        (name, node): (&str, u32),
        inspection: &Inspection<'_>,
        without: impl Fn(&GroupInspection<'_>) -> Option<u64>,
    ) -> Result<(), String> {
        for group in &inspection.groups {
            let kept = self.groups.entry(group.group).or_default();
            let is_empty = group.repairing && group.last_index == 0;
            if is_empty && kept.has_left(node, without(group)) {
                // It is forgotten, but for its promises. What it acknowledged still counts.
                let left = Kept {
                    term: kept.term,
                    vote: kept.vote,
                    recorded: kept.recorded.clone(),
                    ..Kept::default()
                };
                let forgotten = std::mem::replace(kept, left);
                self.lost.push(BTreeMap::from([(group.group, forgotten)]));
            }
            let kept = self.groups.entry(group.group).or_default();
            if group.repairing {
                if !self.is_rotten && kept.is_whole {
                    return Err(format!(
                        "recovery: {name} takes the log of group {} for damaged, and it isn't",
                        group.group
                    ));
                }
                // What it acknowledged once, and has lost, others may still count on.
                kept.is_doubtful |= self.is_rotten;
            }
            if self.is_rotten && group.repairing {
                kept.learn_more(group);
                continue;
            }
            if !kept.is_doubtful {
                kept.is_known_to(name, group)?;
            }
            kept.learn(group);
        }
        self.upto = inspection.durable_frame;
        self.waiting.clear();
        Ok(())
    }
}

impl Kept {
    /// A damaged log: behind what was known to be durable, the crash has left what wasn't synced.
    fn learn_more(&mut self, group: &GroupInspection<'_>) {
        for index in self.last() + 1..=group.last_index {
            let Some((term, record)) = group.entry(index) else { break };
            self.push(index, (term, crc32fast::hash(record)));
        }
    }

    fn is_known_to(&self, name: &str, group: &GroupInspection<'_>) -> Result<(), String> {
        let number = group.group;
        let vote = group.vote.map(|node| node.0);
        let is_vote_kept = self.vote.is_none() || self.vote == vote;
        if group.term < self.term || (group.term == self.term && !is_vote_kept) {
            return Err(format!(
                "recovery: {name} had term {} and vote {:?} of group {number} on its disk, and starts with {} and {vote:?}",
                self.term, self.vote, group.term
            ));
        }
        if group.first_index <= self.snapshot {
            return Err(format!(
                "recovery: {name} had a snapshot of group {number} up to {}, and starts with entry {}",
                self.snapshot, group.first_index
            ));
        }
        for index in group.first_index..=self.last() {
            let found = group.entry(index).map(|(term, record)| (term, crc32fast::hash(record)));
            let known = self.entry(index);
            if found.zip(known).is_some_and(|((found, _), (known, _))| found > known) {
                // A crash may leave what wasn't synced: here what a newer leader had in its place, and behind it.
                break;
            }
            if known.is_some_and(|print| found != Some(print)) {
                return Err(format!(
                    "recovery: {name} had entry {index} of group {number} on its disk, and starts with {found:?} in its place"
                ));
            }
        }
        Ok(())
    }

    /// What recovery brought is durable, since it was read from the disk.
    fn learn(&mut self, group: &GroupInspection<'_>) {
        self.is_doubtful = false;
        self.is_whole |= !group.repairing;
        self.term = group.term;
        self.vote = group.vote.map(|node| node.0);
        self.snapshot = group.first_index - 1;
        self.first = group.first_index;
        self.brought.retain(|index, _| *index <= group.last_index);
        let indices = group.first_index..=group.last_index;
        let entries = indices.map_while(|index| group.entry(index));
        self.entries = entries.map(|(term, record)| (term, crc32fast::hash(record))).collect();
    }
}

fn members(group: u32, index: u64, payload: &[u8], is_recorded: bool) -> Option<Said> {
    let members = Membership::decode(payload)?.peers;
    let nodes = members.into_values().map(|peer| peer.node.0).collect();
    Some(Said::Members { group, index, nodes, is_recorded })
}

/// The records of a frame.
fn said(frame: &FrameHeader, bytes: &[u8]) -> Vec<Said> {
    let mut said = vec![Said::Space { epoch: frame.epoch, oldest_live: frame.oldest_live }];
    let mut at = usize::from(frame.header_len);
    for _ in 0..frame.records {
        let Ok((header, payload)) = RecordHeader::decode(bytes.get(at..).unwrap_or_default()) else { break };
        let group = group_number(header.group);
        match header.kind {
            RecordKind::Entry => {
                let record = &bytes[at..at + RECORD_HEADER_BYTES + payload.len()];
                let print = (header.term, crc32fast::hash(record));
                said.push(Said::Entry { group, index: header.index, print });
                if header.schema == SCHEMA_MEMBERSHIP {
                    said.extend(members(group, header.index, payload, false));
                }
            }
            RecordKind::HardState => {
                let state = HardState::from_record(&header, payload);
                said.push(Said::State { group, term: state.term, vote: state.vote.map(|node| node.0) });
            }
            RecordKind::SnapshotMark => {
                said.push(Said::Snapshot { group, index: header.index, term: header.term });
            }
            RecordKind::Membership => {
                let payload = payload.get(8..).unwrap_or_default();
                said.extend(members(group, header.index, payload, true));
            }
            RecordKind::Repair => {}
        }
        at += header.padded_len();
    }
    said
}

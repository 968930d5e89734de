//! What the records say, group by group.

use super::LiveSegment;
use crate::frame::{FrameHeader, Touched};
use crate::record::{Damage, HardState, LostFrames, RECORD_HEADER_BYTES, RecordHeader, RecordKind};
use crate::{Lsn, NUMBER_MAX};
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
    /// What it lost and hasn't got back.
    pub damage: Option<Damage>,
    /// Who is in it: the newest record, with its payload.
    pub membership: Option<(RecordHeader, Slice)>,
    first: u64,
    /// Frames that touched it are lost here: what the entries were is known up to the first of them only. Entries behind
    /// it can't be attached (a lost one may have taken the place of others) until a life of the owner that knew of all of
    /// them has said that it goes on from here.
    lost: Vec<LostFrames>,
}

/// The newest record of a kind for every group, with its frame.
pub(super) type Latest = BTreeMap<(u64, RecordKind), (Lsn, Vec<u8>)>;

#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Each with its number and the highest entry in the segment being read, 0 for none.
    groups: Vec<(u64, RecoveredGroup, u64)>,
    /// Where each is: small, since every record asks.
    places: BTreeMap<u64, usize>,
    latest: Latest,
    /// The lost frames, and whom each may have touched.
    holes: Vec<(LostFrames, Touched)>,
}

impl RecoveredGroup {
    /// The newest entry that is there, or covered by the snapshot.
    pub fn last(&self) -> u64 {
        match (self.entries.len() as u64, &self.snapshot) {
            (0, Some((mark, _))) => mark.index,
            (0, None) => 0,
            (entries, _) => self.first + entries - 1,
        }
    }

    fn entry(&mut self, header: &RecordHeader, record: Slice) -> Result<(), String> {
        if self.is_frozen() {
            if let Some(damage) = &mut self.damage {
                damage.seen.get_or_insert(header.index);
            }
            return Ok(());
        }
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
        if header.index == 0 {
            // Everything before was given up.
            self.entries.clear();
            self.snapshot = None;
            return;
        }
        while !self.entries.is_empty() && self.first <= header.index {
            self.entries.pop_front();
            self.first += 1;
        }
        if let Some(damage) = self.damage.as_mut().filter(|_| !self.lost.is_empty()) {
            damage.from = damage.from.max(header.index + 1);
        }
        self.snapshot = Some((header, payload));
    }

    fn vote(&mut self, mut state: HardState) {
        if let Some(damage) = self.damage.as_mut().filter(|_| !self.lost.is_empty()) {
            damage.vote_lost = false;
            // It was true of entries that aren't here.
            state.commit = self.hard_state.map_or(0, |before| before.commit);
        }
        self.hard_state = Some(state);
    }

    /// Frames that touched the group are lost.
    fn lose(&mut self, frames: LostFrames, vote_lost: bool) {
        let from = self.last() + 1;
        let damage =
            self.damage.get_or_insert(Damage { from, seen: None, vote_lost: false, given_up: false });
        damage.vote_lost |= vote_lost;
        if std::mem::take(&mut damage.given_up) {
            // What was given up is over; this is another loss.
            damage.from = from;
        }
        self.lost.push(frames);
    }

    fn is_frozen(&self) -> bool {
        !self.lost.is_empty()
    }

    /// A life of the owner began with damage, or has mended it.
    fn repair(&mut self, damage: Option<Damage>, known: &[LostFrames]) {
        if damage.is_some() {
            self.lost.retain(|frames| !known.contains(frames));
        }
        if !self.is_frozen() {
            self.damage = damage;
        }
    }

    /// The mark that the first entries attach to was lost: they are of no use.
    fn drop_unattached(&mut self) {
        let covered = self.snapshot.as_ref().map_or(0, |(mark, _)| mark.index);
        let Some(damage) = self.damage.as_mut().filter(|_| self.first > covered + 1) else { return };
        damage.from = damage.from.min(covered + 1);
        self.entries.clear();
    }

    /// The snapshot is gone, and with it all sense of what is behind it.
    pub(super) fn lose_all(&mut self) {
        let vote_lost = self.damage.is_some_and(|damage| damage.vote_lost);
        self.entries.clear();
        self.snapshot = None;
        self.damage = Some(Damage { from: 1, seen: None, vote_lost, given_up: false });
    }
}

impl Groups {
    fn place(&mut self, group: u64) -> usize {
        let Self { groups, places, holes, .. } = self;
        *places.entry(group).or_insert_with(|| {
            groups.push((group, unseen(group, holes), 0));
            groups.len() - 1
        })
    }

    /// Everything of a segment is taken: the highest entry in it of every group.
    pub(super) fn end_segment(&mut self, segment: &mut LiveSegment) {
        for (number, _, highest) in &mut self.groups {
            let highest = std::mem::take(highest);
            if highest > 0 {
                segment.entries.insert(*number, highest);
            }
        }
    }

    /// Takes the records of a good frame.
    pub(super) fn take(&mut self, frame: &FrameHeader, payload: &Slice) -> Result<(), String> {
        let mut at = 0;
        for _ in 0..frame.records {
            let rest = payload.get(at..).ok_or("a frame holds fewer records than it says")?;
            let (header, body) = RecordHeader::decode(rest).map_err(|error| error.to_string())?;
            if header.index > NUMBER_MAX || header.term > NUMBER_MAX {
                return Err(format!(
                    "a record of group {} with an index or a term that can't be",
                    header.group
                ));
            }
            let end = at + RECORD_HEADER_BYTES + body.len();
            let record = payload.subslice(at, end);
            if header.kind != RecordKind::Entry {
                self.latest.insert((header.group, header.kind), (frame.lsn, record.to_vec()));
            }
            let place = self.place(header.group);
            let (_, group, highest) = &mut self.groups[place];
            match header.kind {
                RecordKind::Entry => {
                    if !group.is_frozen() {
                        *highest = (*highest).max(header.index);
                    }
                    group.entry(&header, record)?;
                }
                RecordKind::HardState => group.vote(HardState::from_record(&header, body)),
                RecordKind::SnapshotMark => {
                    group.mark(header, record.subslice(RECORD_HEADER_BYTES, record.len()));
                }
                RecordKind::Repair => {
                    let (damage, known) = Damage::from_record(&header, body);
                    group.repair(damage, &known);
                }
                RecordKind::Membership => {
                    group.membership = Some((header, record.subslice(RECORD_HEADER_BYTES, record.len())));
                }
            }
            at += header.padded_len();
        }
        Ok(())
    }

    /// Frames that touched these groups are lost.
    pub(super) fn lose(&mut self, frames: LostFrames, touched: Touched) {
        self.holes.push((frames, touched));
        for (number, group, _) in &mut self.groups {
            if touched.has(*number) {
                group.lose(frames, touched.has_vote(*number));
            }
        }
    }

    /// Everything is read.
    pub(super) fn finish(mut self) -> (BTreeMap<u64, RecoveredGroup>, Latest) {
        for (_, group, _) in &mut self.groups {
            // A mark that was written again lies behind entries that it doesn't cover; they were kept.
            if let Some((mark, payload)) = group.snapshot.take() {
                group.mark(mark, payload);
            }
            group.drop_unattached();
        }
        (self.groups.into_iter().map(|(number, group, _)| (number, group)).collect(), self.latest)
    }
}

/// A group of which no record was read.
pub(super) fn unseen(group: u64, holes: &[(LostFrames, Touched)]) -> RecoveredGroup {
    let mut unseen = RecoveredGroup::default();
    for (frames, touched) in holes.iter().filter(|(_, touched)| touched.has(group)) {
        unseen.lose(*frames, touched.has_vote(group));
    }
    unseen
}

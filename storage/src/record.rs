//! The unit of meaning: a 32-byte header, then a payload that is read in place.
//!
//! Records start at multiples of 16 bytes, in the frame that is written and in the one that is read back, so an
//! rkyv archive can be used where it lies. The header is laid out by hand, little-endian, and knows enough for
//! Raft and for reclaiming space; nobody but the owner of the schema looks into the payload.

use flotilla_runtime::NodeId;

/// Bytes of a record's header.
pub const RECORD_HEADER_BYTES: usize = 32;
/// Records start at multiples of this.
pub const RECORD_ALIGNMENT: usize = 16;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// An entry of a group's log. It takes the place of any earlier one at its index and of all behind that.
    Entry,
    /// A group's term, vote and a commit index. The last one counts.
    HardState,
    /// Entries up to `index` (of `term`) are covered by a snapshot. The last one counts.
    SnapshotMark,
    /// The replica lost part of its log, from `index` on, and doesn't vote until it has got it back; or it has.
    /// The last one counts.
    Repair,
    /// Who is in the group as of `index`, and whose log this is. The last one counts.
    Membership,
}

impl RecordKind {
    fn byte(self) -> u8 {
        match self {
            Self::Entry => 1,
            Self::HardState => 2,
            Self::SnapshotMark => 3,
            Self::Repair => 4,
            Self::Membership => 5,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Entry,
            2 => Self::HardState,
            3 => Self::SnapshotMark,
            4 => Self::Repair,
            5 => Self::Membership,
            _ => return None,
        })
    }
}

/// What comes before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// The Raft group.
    pub group: u64,
    /// What the record is.
    pub kind: RecordKind,
    /// Which frozen type the payload is.
    pub schema: u16,
    /// Entry: its index. Hard state: the commit index. Mark: the last index covered.
    pub index: u64,
    /// Entry and mark: the entry's term. Hard state: the current term.
    pub term: u64,
    /// Bytes of the payload, without padding.
    pub length: u32,
}

/// Bytes that are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Fewer bytes than it says.
    #[error("a record is cut off after {0} bytes")]
    CutOff(usize),
    /// A kind that isn't known.
    #[error("a record of unknown kind {0}")]
    UnknownKind(u8),
}

impl RecordHeader {
    /// The bytes, as on disk and on the wire.
    pub fn encode(&self) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&self.group.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.index.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.term.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.length.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.schema.to_le_bytes());
        bytes[30] = self.kind.byte();
        bytes
    }

    /// Reads the record at the front of `bytes`: its header and its payload.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), RecordError> {
        let cut_off = RecordError::CutOff(bytes.len());
        let (header, rest) = bytes.split_at_checked(RECORD_HEADER_BYTES).ok_or(cut_off)?;
        let word = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes of 32"));
        let length = u32::from_le_bytes(header[24..28].try_into().expect("four bytes of 32"));
        let kind = RecordKind::from_byte(header[30]).ok_or(RecordError::UnknownKind(header[30]))?;
        let payload = rest.get(..length as usize).ok_or(cut_off)?;
        let schema = u16::from_le_bytes([header[28], header[29]]);
        Ok((Self { group: word(0), kind, schema, index: word(8), term: word(16), length }, payload))
    }

    /// Bytes of the whole record, padded to where the next one may start.
    pub fn padded_len(&self) -> usize {
        (RECORD_HEADER_BYTES + self.length as usize).next_multiple_of(RECORD_ALIGNMENT)
    }
}

/// What a replica may not forget besides its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The current term.
    pub term: u64,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
    /// A commit index that was true when this was written.
    pub commit: u64,
}

impl HardState {
    /// The record that holds it.
    pub fn record(&self, group: u64) -> (RecordHeader, [u8; 4]) {
        let payload = self.vote.map_or(0, |node| node.0).to_le_bytes();
        let header = RecordHeader {
            group,
            kind: RecordKind::HardState,
            schema: 0,
            index: self.commit,
            term: self.term,
            length: 4,
        };
        (header, payload)
    }

    /// Reads it back. A payload of another length holds no vote.
    pub fn from_record(header: &RecordHeader, payload: &[u8]) -> Self {
        let node = payload.try_into().map_or(0, u32::from_le_bytes);
        let vote = (node != 0).then_some(NodeId(node));
        Self { term: header.term, vote, commit: header.index }
    }
}

/// What a replica lost by damage to its log, and hasn't got back.
///
/// What it still has is its state of an earlier moment: true then, but since then it may have acknowledged and promised
/// more. So it may not vote, campaign, or have its acknowledgements counted (Alagappan et al., "Protocol-Aware Recovery
/// for Consensus-Based Storage", 2018).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Entries from here on may be lost.
    pub from: u64,
    /// An entry that was in the log behind the damage: those between `from` and this one are lost for certain.
    pub seen: Option<u64>,
    /// A term or a vote may be lost.
    pub vote_lost: bool,
    /// The operator has given up what is lost ([`crate::repair`]): if no other node has a replica, what is left is all
    /// there is. If others have, nothing changes: they give it back.
    pub given_up: bool,
}

/// Frames that are lost: the first and the last. Two are the same if both numbers are.
pub type LostFrames = (crate::Lsn, crate::Lsn);

impl Damage {
    const LOG: u8 = 1;
    const VOTE: u8 = 2;
    const GIVEN_UP: u8 = 4;

    /// The record that remembers it; `None`: that it is mended. `holes` are the frames that whoever writes it knows to be
    /// lost: what it appends from now on attaches to what is left without them.
    pub fn record(damage: Option<&Self>, group: u64, holes: &[LostFrames]) -> (RecordHeader, Vec<u8>) {
        let (index, flags) = match damage {
            Some(damage) => {
                let vote = if damage.vote_lost { Self::VOTE } else { 0 };
                let given_up = if damage.given_up { Self::GIVEN_UP } else { 0 };
                (damage.from, Self::LOG | vote | given_up)
            }
            None => (0, 0),
        };
        let mut payload = vec![flags, 0, 0, 0];
        for lsn in holes.iter().flat_map(|(first, last)| [first, last]) {
            payload.extend_from_slice(&lsn.0.to_le_bytes());
        }
        let length = u32::try_from(payload.len()).expect("holes are few");
        let header = RecordHeader { group, kind: RecordKind::Repair, schema: 0, index, term: 0, length };
        (header, payload)
    }

    /// Reads it back, with the lost frames that its writer knew. A payload of another length means the worst.
    pub fn from_record(header: &RecordHeader, payload: &[u8]) -> (Option<Self>, Vec<LostFrames>) {
        let (flags, holes) = match payload.split_at_checked(4) {
            Some((flags, holes)) if holes.len().is_multiple_of(16) => (flags[0], holes),
            _ => (Self::LOG | Self::VOTE, &[][..]),
        };
        let has = |flag: u8| flags & flag != 0;
        let (vote_lost, given_up) = (has(Self::VOTE), has(Self::GIVEN_UP));
        let damage = Self { from: header.index, seen: None, vote_lost, given_up };
        let lsn =
            |bytes: &[u8]| crate::Lsn(u64::from_le_bytes(bytes.try_into().expect("eight bytes of sixteen")));
        let holes = holes.chunks_exact(16).map(|pair| (lsn(&pair[..8]), lsn(&pair[8..]))).collect();
        ((flags != 0).then_some(damage), holes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_bytes() {
        let header =
            RecordHeader { group: 7, kind: RecordKind::Entry, schema: 3, index: 9, term: 2, length: 5 };
        let mut bytes = header.encode().to_vec();
        bytes.extend_from_slice(b"hello, and more");
        assert_eq!(RecordHeader::decode(&bytes), Ok((header, &b"hello"[..])));
        assert_eq!(header.padded_len(), 48);
        assert_eq!(RecordHeader::decode(&bytes[..36]), Err(RecordError::CutOff(36)));
        bytes[30] = 9;
        assert_eq!(RecordHeader::decode(&bytes), Err(RecordError::UnknownKind(9)));
    }

    #[test]
    fn a_hard_state_survives_its_record() {
        for vote in [None, Some(NodeId(3))] {
            let state = HardState { term: 5, vote, commit: 77 };
            let (header, payload) = state.record(1);
            assert_eq!(HardState::from_record(&header, &payload), state);
        }
    }

    #[test]
    fn damage_survives_its_record() {
        let holes = [(crate::Lsn(3), crate::Lsn(4)), (crate::Lsn(9), crate::Lsn(9))];
        for (vote_lost, given_up) in [(false, false), (true, false), (false, true), (true, true)] {
            let damage = Damage { from: 7, seen: None, vote_lost, given_up };
            let (header, payload) = Damage::record(Some(&damage), 3, &holes);
            assert_eq!(Damage::from_record(&header, &payload), (Some(damage), holes.to_vec()));
        }
        let (header, payload) = Damage::record(None, 3, &[]);
        assert_eq!(Damage::from_record(&header, &payload), (None, Vec::new()));
        for cut_off in [0, 3, 5, 19] {
            let (found, holes) = Damage::from_record(&header, &vec![0; cut_off]);
            assert!(found.is_some_and(|damage| damage.vote_lost && !damage.given_up) && holes.is_empty());
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = RecordHeader::decode(&bytes);
        }
    }
}

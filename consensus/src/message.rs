//! What replicas say to each other, byte by byte.
//!
//! A peer frame is a sequence of messages of any groups. A message is a fixed little-endian header of 56 bytes,
//! then its body: of appends and snapshots, and of the answers that tell a configuration. The entries of an append are
//! whole log records, each padded to 16 bytes: the receiver logs the bytes as they came. `docs/protocol.md` draws the
//! layout.

use flotilla_runtime::PeerId;
use flotilla_storage::NUMBER_MAX;

/// A Raft group's number, unique in the cluster. 0 is the controller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u64);

/// Room that a frame begins with: what the last one to the same peer took, within these.
const EXPECTED_BYTES_MIN: usize = 256;
const EXPECTED_BYTES_MAX: usize = 256 << 10;

/// Bytes of a message's header.
pub const HEADER_BYTES: usize = 56;

/// What a message says. The comments name the header fields that mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Would you vote for me? `term`: the term I would start; `index`, `log_term`: my last entry.
    PreVote,
    /// `flag`: yes; `term`: the term asked about if yes, else mine. To whoever isn't in the group as I know it: the body is the
    /// configuration in effect, and the entry that brought it.
    PreVoteReply,
    /// Vote for me. `term`; `index`, `log_term`: my last entry. With `flag`: the leader itself wants it, so never mind that
    /// it is alive.
    Vote,
    /// `flag`: granted; then `index` and `log_term` are the question's.
    VoteReply,
    /// Entries after (`index`, `log_term`); `commit`: how far the leader knows them committed; `aux`: for so many nanoseconds they
    /// may wait for a sync.
    Append,
    /// `index`: durable and matching up to here. With `flag` (refused): `index` is where the refused append
    /// attached, `commit` the first index of the term that the follower has there, `log_term` that term. Without: `aux`
    /// is 1 if I take no more than what is under way, for want of room; `log_term` is 1 if the leadership had better not be
    /// handed to me: I am about to stop, or have much to apply yet.
    AppendReply,
    /// I lead. `commit`: at most what this follower has acknowledged; `aux`: the newest read round.
    Heartbeat,
    /// `aux`: the read round being answered; `index`: durable and matching up to here; `commit`: as an append reply's `aux`.
    /// With `flag`: as its `log_term`.
    HeartbeatReply,
    /// Bytes of a snapshot file. `index`, `log_term`: what the snapshot covers; `commit`: where in the file they are;
    /// `aux`: the file's length. The body is the owner's.
    Snapshot,
    /// `index`: the snapshot's; `aux`: the file is durable, or on its way to be, up to here.
    SnapshotReply,
    /// I lost part of my log: who leads, and what must I have? `aux`: the question's number. With `flag`: I didn't, the group is
    /// new, and I am as ready to vote as `commit` says; are you?
    Repair,
    /// `aux`: the question's number; `term`: mine; `commit`: 0, I have voted or have entries; 1, neither, and I am not whole; 2,
    /// neither, and I may vote. With `flag`: a majority without you confirmed me as the leader after you had asked, and my log had
    /// `index` entries then.
    RepairReply,
    /// As an [`Self::AppendReply`], from a replica that lost part of its log: it doesn't count.
    RepairAck,
    /// You have everything: campaign at once, and lead instead of me.
    TimeoutNow,
    /// I have readers: how far must I have applied? `aux`: the question's number.
    ReadIndex,
    /// `aux`: the question's number; `index`: a read that came before it sees everything if this is applied; `commit`: what
    /// is committed.
    ReadIndexReply,
    /// Nothing is left to do: let us rest. `index`: my last entry; `commit`: the same; `aux`: my epoch towards you.
    Rest,
    /// I rest. `index`: the offer's; `aux`: my epoch towards you.
    RestReply,
    /// Of no group: my node is alive. `aux`: my epoch towards you, `index`: my core.
    Pulse,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::PreVote,
            2 => Self::PreVoteReply,
            3 => Self::Vote,
            4 => Self::VoteReply,
            5 => Self::Append,
            6 => Self::AppendReply,
            7 => Self::Heartbeat,
            8 => Self::HeartbeatReply,
            9 => Self::Snapshot,
            10 => Self::SnapshotReply,
            11 => Self::Repair,
            12 => Self::RepairReply,
            13 => Self::RepairAck,
            14 => Self::TimeoutNow,
            15 => Self::ReadIndex,
            16 => Self::ReadIndexReply,
            20 => Self::Rest,
            21 => Self::RestReply,
            22 => Self::Pulse,
            _ => return None,
        })
    }

    fn byte(self) -> u8 {
        match self {
            Self::PreVote => 1,
            Self::PreVoteReply => 2,
            Self::Vote => 3,
            Self::VoteReply => 4,
            Self::Append => 5,
            Self::AppendReply => 6,
            Self::Heartbeat => 7,
            Self::HeartbeatReply => 8,
            Self::Snapshot => 9,
            Self::SnapshotReply => 10,
            Self::Repair => 11,
            Self::RepairReply => 12,
            Self::RepairAck => 13,
            Self::TimeoutNow => 14,
            Self::ReadIndex => 15,
            Self::ReadIndexReply => 16,
            Self::Rest => 20,
            Self::RestReply => 21,
            Self::Pulse => 22,
        }
    }
}

/// The fixed part of every message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whose business it is.
    pub group: GroupId,
    /// What it says.
    pub kind: Kind,
    /// A yes or no, see [`Kind`].
    pub flag: bool,
    /// The sender's term (but see [`Kind::PreVote`]).
    pub term: u64,
    /// See [`Kind`].
    pub index: u64,
    /// See [`Kind`].
    pub log_term: u64,
    /// See [`Kind`].
    pub commit: u64,
    /// See [`Kind`].
    pub aux: u64,
}

/// Bytes from a peer that make no sense: dropped whole, with a warning; the link stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// Shorter than it says.
    #[error("a message at byte {at} of a peer frame of {frame} bytes is cut off")]
    CutOff {
        /// Where it starts.
        at: usize,
        /// The frame's length.
        frame: usize,
    },
    /// A kind of message that this version doesn't know.
    #[error(
        "a message of unknown kind {kind} at byte {at} of a peer frame: does the peer run a newer version?"
    )]
    UnknownKind {
        /// The byte found.
        kind: u8,
        /// Where the message starts.
        at: usize,
    },
    /// A number that no log can hold: whoever took it over couldn't read its own log again.
    #[error(
        "a message at byte {at} of a peer frame says {number}, which is no term or index: is the peer's memory broken?"
    )]
    BadNumber {
        /// What it says.
        number: u64,
        /// Where the message starts.
        at: usize,
    },
    /// An entry that isn't a whole log record of the right group, index and term order.
    #[error("an append to group {group} after index {after} carries a record that doesn't fit: {what}")]
    BadEntry {
        /// The group.
        group: u64,
        /// Where the append attached.
        after: u64,
        /// What is wrong with it.
        what: String,
    },
}

impl Header {
    /// A header with nothing but its kind, group and term.
    pub fn new(kind: Kind, group: GroupId, term: u64) -> Self {
        Self { group, kind, flag: false, term, index: 0, log_term: 0, commit: 0, aux: 0 }
    }

    fn encode(&self, body_bytes: u32, out: &mut Vec<u8>) {
        let mut bytes = [0; HEADER_BYTES];
        let words = [self.group.0, self.term, self.index, self.log_term, self.commit, self.aux];
        for (field, word) in bytes.chunks_exact_mut(8).zip(words) {
            field.copy_from_slice(&word.to_le_bytes());
        }
        bytes[48..50].copy_from_slice(&[self.kind.byte(), u8::from(self.flag)]);
        bytes[52..].copy_from_slice(&body_bytes.to_le_bytes());
        out.extend_from_slice(&bytes);
    }
}

/// One message, its body borrowed from the frame.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The fixed part.
    pub header: Header,
    /// The entries of an append, a part of a snapshot, a configuration; else empty.
    pub body: &'a [u8],
}

/// Reads the message at `at`; returns it with the position behind it.
///
/// # Errors
/// [`WireError`] for bytes that no version of Flotilla writes.
pub fn decode(frame: &[u8], at: usize) -> Result<(Message<'_>, usize), WireError> {
    let cut_off = WireError::CutOff { at, frame: frame.len() };
    let fixed = frame.get(at..at + HEADER_BYTES).ok_or_else(|| cut_off.clone())?;
    let word = |i: usize| {
        u64::from_le_bytes(fixed[i * 8..i * 8 + 8].try_into().expect("eight bytes of a fixed-size header"))
    };
    let kind = Kind::from_byte(fixed[48]).ok_or(WireError::UnknownKind { kind: fixed[48], at })?;
    let body_bytes = u32::from_le_bytes(fixed[52..56].try_into().expect("four bytes of a fixed-size header"));
    let start = at + HEADER_BYTES;
    let end = start.checked_add(body_bytes as usize).ok_or_else(|| cut_off.clone())?;
    let body = frame.get(start..end).ok_or(cut_off)?;
    let header = Header {
        group: GroupId(word(0)),
        kind,
        flag: fixed[49] != 0,
        term: word(1),
        index: word(2),
        log_term: word(3),
        commit: word(4),
        aux: word(5),
    };
    let numbers = [header.term, header.index, header.log_term, header.commit];
    match numbers.into_iter().find(|number| *number > NUMBER_MAX) {
        Some(number) => Err(WireError::BadNumber { number, at }),
        None => Ok((Message { header, body }, end)),
    }
}

/// The frames being gathered, one a peer: everything that a turn has to say to it leaves as one.
#[derive(Debug, Default)]
pub struct Outbox {
    prefix: Vec<u8>,
    /// By peer, ascending: they are few.
    frames: Vec<Gathering>,
}

#[derive(Debug)]
struct Gathering {
    to: PeerId,
    /// Empty: nothing to say yet.
    frame: Vec<u8>,
    /// Room for a frame like the last one.
    expected: usize,
}

impl Outbox {
    /// Frames will start with `prefix` (the service's channel byte).
    pub fn new(prefix: &[u8]) -> Self {
        Self { prefix: prefix.to_vec(), frames: Vec::new() }
    }

    fn frame(&mut self, to: PeerId) -> &mut Vec<u8> {
        let place = match self.frames.iter().position(|gathering| gathering.to >= to) {
            Some(place) if self.frames[place].to == to => place,
            found => {
                let place = found.unwrap_or(self.frames.len());
                let gathering = Gathering { to, frame: Vec::new(), expected: EXPECTED_BYTES_MIN };
                self.frames.insert(place, gathering);
                place
            }
        };
        let Gathering { frame, expected, .. } = &mut self.frames[place];
        if frame.is_empty() {
            frame.reserve(*expected);
            frame.extend_from_slice(&self.prefix);
        }
        frame
    }

    /// Adds a message without a body.
    pub fn send(&mut self, to: PeerId, header: &Header) {
        header.encode(0, self.frame(to));
    }

    /// Adds a message whose body is `records`, each padded to 16 bytes.
    pub fn send_records<'a>(
        &mut self,
        to: PeerId,
        header: &Header,
        bytes: usize,
        records: impl Iterator<Item = &'a [u8]>,
    ) {
        let frame = self.frame(to);
        frame.reserve(HEADER_BYTES + bytes);
        let length = u32::try_from(bytes).expect("an append is bounded far below 4 GiB");
        header.encode(length, frame);
        let start = frame.len();
        for record in records {
            frame.extend_from_slice(record);
            frame.resize(frame.len() + record.len().next_multiple_of(16) - record.len(), 0);
        }
        assert_eq!(frame.len() - start, bytes, "the body is as long as announced");
    }

    /// Adds a message with a body of the owner's.
    pub fn send_body(&mut self, to: PeerId, header: &Header, body: &[u8]) {
        let frame = self.frame(to);
        let length = u32::try_from(body.len()).expect("a body is bounded far below 4 GiB");
        header.encode(length, frame);
        frame.extend_from_slice(body);
    }

    /// Takes every frame out.
    pub fn drain(&mut self) -> impl Iterator<Item = (PeerId, Vec<u8>)> + '_ {
        let filled = self.frames.iter_mut().filter(|gathering| !gathering.frame.is_empty());
        filled.map(|gathering| {
            let bytes = gathering.frame.len();
            gathering.expected = bytes.next_power_of_two().clamp(EXPECTED_BYTES_MIN, EXPECTED_BYTES_MAX);
            (gathering.to, std::mem::take(&mut gathering.frame))
        })
    }

    /// Whether anything waits to be sent.
    pub fn is_empty(&self) -> bool {
        self.frames.iter().all(|gathering| gathering.frame.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_runtime::{CoreId, NodeId};

    const PEER: PeerId = PeerId { node: NodeId(2), core: CoreId(0) };

    #[test]
    fn messages_survive_the_wire_one_after_the_other() {
        let mut outbox = Outbox::new(&[9]);
        let vote = Header { index: 7, log_term: 3, ..Header::new(Kind::Vote, GroupId(5), 4) };
        let append = Header { commit: 6, ..Header::new(Kind::Append, GroupId(1), 4) };
        outbox.send(PEER, &vote);
        outbox.send_records(PEER, &append, 48, [&[1u8; 16][..], &[2; 20]].into_iter());
        let (peer, frame) = outbox.drain().next().unwrap();
        assert_eq!((peer, frame[0], outbox.is_empty()), (PEER, 9, true));
        let (first, at) = decode(&frame, 1).unwrap();
        let (second, end) = decode(&frame, at).unwrap();
        assert_eq!((first.header, first.body.len()), (vote, 0));
        assert_eq!((second.header, second.body.len(), end), (append, 48, frame.len()));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let mut at = 0;
            while let Ok((_, next)) = decode(&bytes, at) {
                at = next;
            }
        }
    }
}

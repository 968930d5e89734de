//! The codec between peers: what goes in comes out, all of it, and nothing else. COD-01 to COD-03.

use flotilla_consensus::message::{Header, Outbox, WireError, decode};
use flotilla_consensus::{GroupId, Kind};
use flotilla_runtime::{CoreId, NodeId, PeerId};
use flotilla_storage::NUMBER_MAX;
use proptest::prelude::*;

const PEER: PeerId = PeerId { node: NodeId(2), core: CoreId(0) };

const KINDS: [Kind; 16] = [
    Kind::PreVote,
    Kind::PreVoteReply,
    Kind::Vote,
    Kind::VoteReply,
    Kind::Append,
    Kind::AppendReply,
    Kind::Heartbeat,
    Kind::HeartbeatReply,
    Kind::Snapshot,
    Kind::SnapshotReply,
    Kind::Repair,
    Kind::RepairReply,
    Kind::RepairAck,
    Kind::TimeoutNow,
    Kind::ReadIndex,
    Kind::ReadIndexReply,
];

fn frame(messages: &[(Header, Vec<u8>)]) -> Vec<u8> {
    let mut outbox = Outbox::new(&[]);
    for (header, body) in messages {
        outbox.send_body(PEER, header, body);
    }
    outbox.drain().next().map(|(_, frame)| frame).unwrap_or_default()
}

fn header() -> impl Strategy<Value = Header> {
    let number = || 0..=NUMBER_MAX;
    let words = (any::<u64>(), number(), number(), number(), number(), any::<u64>());
    (0..KINDS.len(), any::<bool>(), words).prop_map(|(kind, flag, words)| {
        let (group, term, index, log_term, commit, aux) = words;
        Header { group: GroupId(group), kind: KINDS[kind], flag, term, index, log_term, commit, aux }
    })
}

proptest! {
    /// COD-01: messages of every kind, with any numbers and any bodies, survive the wire, one behind the other.
    #[test]
    fn every_message_survives_the_wire_cod_01(
        messages in prop::collection::vec((header(), prop::collection::vec(any::<u8>(), 0..200)), 0..8),
    ) {
        let frame = frame(&messages);
        let mut at = 0;
        for (header, body) in &messages {
            let (found, next) = decode(&frame, at).unwrap();
            prop_assert_eq!((&found.header, found.body), (header, &body[..]));
            at = next;
        }
        prop_assert_eq!(at, frame.len());
    }
}

/// COD-02: no field is forgotten on the way: each alone makes a difference in the bytes, and comes back. A new field
/// doesn't compile before it is here.
#[test]
fn every_field_is_encoded_cod_02() {
    let zero = Header::new(Kind::Vote, GroupId(0), 0);
    let Header { group: _, kind: _, flag: _, term: _, index: _, log_term: _, commit: _, aux: _ } = zero;
    let changed = [
        Header { group: GroupId(1), ..zero },
        Header { kind: Kind::Append, ..zero },
        Header { flag: true, ..zero },
        Header { term: 1, ..zero },
        Header { index: 1, ..zero },
        Header { log_term: 1, ..zero },
        Header { commit: 1, ..zero },
        Header { aux: 1, ..zero },
    ];
    let mut frames: Vec<Vec<u8>> = changed.iter().map(|header| frame(&[(*header, Vec::new())])).collect();
    for (header, frame) in changed.iter().zip(&frames) {
        assert_eq!(decode(frame, 0).unwrap().0.header, *header);
    }
    frames.push(frame(&[(zero, Vec::new())]));
    frames.sort();
    frames.dedup();
    assert_eq!(frames.len(), changed.len() + 1);
}

/// COD-03: nothing of an earlier message shows through in a later one: what isn't said is zero.
#[test]
fn nothing_shows_through_cod_03() {
    let full = Header {
        group: GroupId(NUMBER_MAX),
        kind: Kind::Snapshot,
        flag: true,
        term: NUMBER_MAX,
        index: NUMBER_MAX,
        log_term: NUMBER_MAX,
        commit: NUMBER_MAX,
        aux: NUMBER_MAX,
    };
    for kind in KINDS {
        let empty = Header::new(kind, GroupId(3), 0);
        let frame = frame(&[(full, vec![0xff; 100]), (empty, Vec::new()), (full, vec![0xff; 7])]);
        let (_, at) = decode(&frame, 0).unwrap();
        let (second, _) = decode(&frame, at).unwrap();
        assert_eq!((second.header, second.body.len()), (empty, 0));
    }
}

/// A term that is entered is logged, and a log that holds such a number can't be opened again.
#[test]
fn numbers_that_no_log_can_hold_are_refused() {
    let sound = Header::new(Kind::Vote, GroupId(1), NUMBER_MAX);
    assert!(decode(&frame(&[(sound, Vec::new())]), 0).is_ok());
    let number = NUMBER_MAX + 1;
    let broken = [
        Header { term: number, ..sound },
        Header { index: number, ..sound },
        Header { log_term: number, ..sound },
        Header { commit: number, ..sound },
    ];
    for header in broken {
        let found = decode(&frame(&[(header, Vec::new())]), 0).map(|_| ());
        assert_eq!(found, Err(WireError::BadNumber { number, at: 0 }));
    }
}

//! A configuration and where its replicas live: what a membership entry, a membership record and a snapshot hold.
//!
//! ```text
//! 0 flags u8 (1: left by the leader) │ 1 zeros │ 4 members u32 │ then of each, ascending by node:
//!   0 node u32 │ 4 core u16 │ 6 roles u8 (1 incoming voter, 2 outgoing voter, 4 learner, 8 learner next) │ 7 zero
//! ```
//!
//! Little-endian, frozen: `docs/format.md`.

use crate::confchange::Configuration;
use flotilla_runtime::{CoreId, NodeId, PeerId};
use std::collections::BTreeMap;

/// The schema of an entry that holds a [`Membership`]: it is in effect from the moment that it is known to be committed.
pub const SCHEMA_MEMBERSHIP: u16 = 2;
/// Members of one group at most: a table of places has as many bits.
pub const MEMBERS_MAX: usize = 32;

const HEADER_BYTES: usize = 8;
const MEMBER_BYTES: usize = 8;

/// Who is in a group, in which role, and on which core of its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The roles; numbers are nodes'.
    pub configuration: Configuration,
    /// Where each replica lives. Has everybody that the configuration has, and nobody else.
    pub peers: BTreeMap<u64, PeerId>,
}

impl Membership {
    /// A group as it is founded: all of them vote.
    pub fn of_voters(peers: impl IntoIterator<Item = PeerId>) -> Self {
        let peers: BTreeMap<u64, PeerId> =
            peers.into_iter().map(|peer| (u64::from(peer.node.0), peer)).collect();
        Self { configuration: Configuration::of_voters(peers.keys().copied()), peers }
    }

    /// Whether a node has a vote.
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.configuration.voters.contains(u64::from(node.0))
    }

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let Configuration { voters, learners, learners_next, auto_leave } = &self.configuration;
        let count = u32::try_from(self.peers.len()).expect("members are few");
        let mut bytes = Vec::with_capacity(HEADER_BYTES + MEMBER_BYTES * self.peers.len());
        bytes.extend_from_slice(&[u8::from(*auto_leave), 0, 0, 0]);
        bytes.extend_from_slice(&count.to_le_bytes());
        for (id, peer) in &self.peers {
            let sets = [&voters.incoming, &voters.outgoing, learners, learners_next];
            let roles = sets.iter().enumerate().map(|(bit, set)| u8::from(set.contains(*id)) << bit).sum();
            bytes.extend_from_slice(&peer.node.0.to_le_bytes());
            bytes.extend_from_slice(&peer.core.0.to_le_bytes());
            bytes.extend_from_slice(&[roles, 0]);
        }
        bytes
    }

    /// Reads it back; `None` if the bytes are none, or contradict themselves.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, members) = bytes.split_at_checked(HEADER_BYTES)?;
        let count = u32::from_le_bytes(header[4..8].try_into().ok()?) as usize;
        if count > MEMBERS_MAX || members.len() != count * MEMBER_BYTES {
            return None;
        }
        if header[0] > 1 || header[1..4] != [0; 3] {
            return None;
        }
        let mut membership = Self::default();
        let mut last = 0;
        for member in members.chunks_exact(MEMBER_BYTES) {
            let node = u32::from_le_bytes(member[0..4].try_into().ok()?);
            let core = CoreId(u16::from_le_bytes(member[4..6].try_into().ok()?));
            let (id, roles) = (u64::from(node), member[6]);
            // One of: votes now; voted, and leaves or learns next; learns.
            if id <= last || !matches!(roles, 1..=4 | 10) || member[7] != 0 {
                return None;
            }
            last = id;
            membership.peers.insert(id, PeerId { node: NodeId(node), core });
            let Configuration { voters, learners, learners_next, .. } = &mut membership.configuration;
            let sets = [&mut voters.incoming, &mut voters.outgoing, learners, learners_next];
            for (bit, set) in sets.into_iter().enumerate() {
                if roles >> bit & 1 == 1 {
                    set.insert(id);
                }
            }
        }
        membership.configuration.auto_leave = header[0] == 1;
        let voters = &membership.configuration.voters;
        let makes_sense =
            !voters.incoming.is_empty() && (voters.is_joint() || !membership.configuration.auto_leave);
        makes_sense.then_some(membership)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confchange::{Changer, Step};

    fn peer(node: u32) -> PeerId {
        PeerId { node: NodeId(node), core: CoreId(3) }
    }

    #[test]
    fn it_survives_its_bytes_in_every_state() {
        let settled = Membership::of_voters([1, 2, 3].map(peer));
        let steps = [Step::AddLearner(1), Step::Remove(2), Step::AddVoter(4), Step::AddLearner(5)];
        let joint = Changer(&settled.configuration).enter_joint(true, &steps).unwrap();
        let joint =
            Membership { configuration: joint, peers: (1..=5).map(|id| (id, peer(id as u32))).collect() };
        for membership in [settled, joint] {
            assert_eq!(Membership::decode(&membership.encode()), Some(membership));
        }
    }

    #[test]
    fn its_bytes_are_frozen() {
        let membership = Membership::of_voters([1, 258].map(peer));
        let expected = [0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 0, 1, 0, 2, 1, 0, 0, 3, 0, 1, 0];
        assert_eq!(membership.encode(), expected);
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            if let Some(membership) = Membership::decode(&bytes) {
                assert_eq!(membership.encode(), bytes);
            }
        }
    }
}

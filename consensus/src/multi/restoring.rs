//! What recovery found of the groups, as they begin with it.

use crate::log::RaftLog;
use crate::membership::{Membership, SCHEMA_MEMBERSHIP};
use crate::message::GroupId;
use crate::raft::{Member, Restored};
use flotilla_runtime::{NodeId, Slice, SplitMix64};
use flotilla_storage::{Damage, Log, LostFrames, RecordHeader, RecordKind, Recovered, RecoveredGroup};

/// Whose log this is: as any of its groups remembers, or drawn now.
pub(super) fn incarnation_of(recovered: &Recovered, seed: u64) -> u64 {
    let recorded = recovered.groups.values().filter_map(|found| found.membership.as_ref());
    let recorded = recorded.filter_map(|(_, payload)| payload.first_chunk()).next();
    recorded.map_or_else(|| SplitMix64::new(seed).next(), |bytes| u64::from_le_bytes(*bytes))
}

/// The group has no record at all: it is new, or the disk was wiped.
pub(super) fn is_blank(found: &RecoveredGroup) -> bool {
    let RecoveredGroup { hard_state, snapshot, entries, damage, membership, .. } = found;
    hard_state.is_none()
        && snapshot.is_none()
        && entries.is_empty()
        && damage.is_none()
        && membership.is_none()
}

/// What a replica begins with. `founders` are its members if its log names none.
pub(super) fn restore(mut found: RecoveredGroup, founders: &[Member], incarnation: u64) -> Restored {
    let recorded = found.membership.take();
    let recorded =
        recorded.and_then(|(header, payload)| Some((header.index, Membership::decode(payload.get(8..)?)?)));
    let assumed = || (0, Membership::of_voters(founders.iter().map(|member| member.peer)));
    let membership = recorded.unwrap_or_else(assumed);
    let (snapshot_index, snapshot_term) =
        found.snapshot.as_ref().map_or((0, 0), |mark| (mark.0.index, mark.0.term));
    let mut log = RaftLog::new(snapshot_index, snapshot_term);
    for record in found.entries {
        let (header, _) = RecordHeader::decode(&record).expect("recovery verified every record");
        if header.term < log.last_term() {
            // A snapshot was installed over entries that never became committed; these are the last of them.
            break;
        }
        if header.index > snapshot_index {
            assert_eq!(header.index, log.last_index() + 1, "recovery returns contiguous entries");
            log.push(header.term, record);
        }
    }
    let mut hard_state = found.hard_state.unwrap_or_default();
    if found.damage.is_some() {
        // Terms may be among what was lost.
        hard_state.term = hard_state.term.max(log.last_term());
    }
    Restored { hard_state, log, damage: found.damage, membership, incarnation }
}

/// If nothing of a damaged group can be used, nothing of it may come back.
pub(super) fn give_up_rest(wal: &mut Log, group: GroupId, found: &RecoveredGroup) {
    if found.damage.is_some() && found.snapshot.is_none() && found.entries.is_empty() {
        let kind = RecordKind::SnapshotMark;
        wal.append(
            &RecordHeader { group: group.0, kind, schema: 0, index: 0, term: 0, length: 8 },
            &0_u64.to_le_bytes(),
        );
        wal.forget(group.0);
    }
}

/// Whether a node's replica has left its group, as far as its log says: no configuration in effect has it, nor one that is to come.
/// A configuration is recorded when it comes into effect, which is when it is committed. What is left of such a replica is of use to nobody. It may be forgotten, and is then one that has lost everything: its votes and
/// acknowledgements count for nothing until it has everything again.
pub fn has_left(found: &RecoveredGroup, me: NodeId) -> bool {
    let Some((header, payload)) = &found.membership else { return false };
    let is_in =
        |membership: Option<Membership>| membership.is_none_or(|it| it.peers.contains_key(&u64::from(me.0)));
    let comes = |record: &Slice| match RecordHeader::decode(record) {
        Ok((entry, payload)) if entry.index > header.index && entry.schema == SCHEMA_MEMBERSHIP => {
            is_in(Membership::decode(payload))
        }
        _ => false,
    };
    !is_in(payload.get(8..).and_then(Membership::decode)) && !found.entries.iter().any(comes)
}

/// What a damaged group has is said in the log before anything is appended to it: its log goes on from there.
pub(super) fn log_damage(wal: &mut Log, group: GroupId, found: &RecoveredGroup, holes: &[LostFrames]) {
    let Some(damage) = &found.damage else { return };
    let (header, payload) = Damage::record(Some(damage), group.0, holes);
    wal.append(&header, &payload);
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_runtime::{BlockPool, CoreId, PeerId};

    fn membership(nodes: &[u32]) -> Vec<u8> {
        let peer = |node: &u32| PeerId { node: NodeId(*node), core: CoreId(0) };
        Membership::of_voters(nodes.iter().map(peer)).encode()
    }

    fn slice(bytes: &[u8]) -> Slice {
        // Without the padding.
        BlockPool::new().copy_of(bytes).subslice(0, bytes.len())
    }

    /// A group with one entry behind the configuration of entry 5.
    fn group(recorded: &[u32], schema: u16, entry: &[u8]) -> RecoveredGroup {
        let header = |kind, schema, index, length: usize| RecordHeader {
            group: 1,
            kind,
            schema,
            index,
            term: 1,
            length: u32::try_from(length).unwrap(),
        };
        let record = [&header(RecordKind::Entry, schema, 6, entry.len()).encode()[..], entry].concat();
        let payload = [&7_u64.to_le_bytes()[..], &membership(recorded)].concat();
        let recorded = (header(RecordKind::Membership, 0, 5, payload.len()), slice(&payload));
        let entries = [slice(&record)].into();
        let mut group = RecoveredGroup::default();
        (group.membership, group.entries) = (Some(recorded), entries);
        group
    }

    #[test]
    fn a_replica_has_left_if_no_configuration_has_it_nor_will() {
        let has_left = |found: &RecoveredGroup| has_left(found, NodeId(3));
        assert!(!has_left(&group(&[1, 2, 3], 0, b"entry")));
        assert!(has_left(&group(&[1, 2, 4], 0, b"entry")));
        assert!(has_left(&group(&[1, 2, 4], SCHEMA_MEMBERSHIP, &membership(&[1, 4]))));
        assert!(!has_left(&group(&[1, 2, 4], SCHEMA_MEMBERSHIP, &membership(&[1, 3, 4]))), "it comes back");
        let mut unknown = group(&[1, 2, 4], 0, b"entry");
        unknown.membership = None;
        assert!(!has_left(&unknown));
    }
}

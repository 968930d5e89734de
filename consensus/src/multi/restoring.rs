//! What recovery found of the groups, as they begin with it.

use crate::log::RaftLog;
use crate::membership::Membership;
use crate::message::GroupId;
use crate::raft::{Member, Restored};
use flotilla_runtime::SplitMix64;
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
    }
}

/// What a damaged group has is said in the log before anything is appended to it: its log goes on from there.
pub(super) fn log_damage(wal: &mut Log, group: GroupId, found: &RecoveredGroup, holes: &[LostFrames]) {
    let Some(damage) = &found.damage else { return };
    let (header, payload) = Damage::record(Some(damage), group.0, holes);
    wal.append(&header, &payload);
}

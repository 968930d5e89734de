//! Shards whose departure is in the leader's log and isn't applied yet.
//!
//! A write that was proposed behind the entry with which its shard goes would find nobody to execute it, and its client would
//! be sent elsewhere. So from the moment that the entry is in the log, whatever comes for the shard waits
//! ([`super::waiting`]) until the entry is applied, a commit's time, and goes on from there in its order.

use super::Core;
use crate::migration::{self, LEAVE, SCHEMA_STEP_V2};
use flotilla_consensus::{Raft, Role};
use flotilla_storage::RecordHeader;
use std::collections::BTreeMap;

/// What a leader knows of them.
#[derive(Debug, Default)]
pub(in crate::core) struct Departing {
    /// The term in which it was found out: a new leader looks at what it has in its log.
    term: u64,
    /// The index of the last such entry, by shard.
    shards: BTreeMap<u16, u64>,
}

impl Departing {
    /// What a leader has in its log behind what it has applied.
    fn find(raft: &Raft, applied: u64) -> Self {
        let departure = |index: u64| {
            let record = &raft.log().entry(index)?.record;
            let (header, payload) = RecordHeader::decode(record).ok()?;
            let step = (header.schema == SCHEMA_STEP_V2).then(|| migration::read(payload)).flatten()?;
            (step.kind == LEAVE).then(|| (step.shard.to_native(), index))
        };
        let shards = (applied + 1..=raft.log().last_index()).filter_map(departure).collect();
        Self { term: raft.term(), shards }
    }

    /// The entry at this index is applied.
    pub(in crate::core) fn applied(&mut self, shard: u16, index: u64) {
        if self.shards.get(&shard).is_some_and(|last| *last <= index) {
            self.shards.remove(&shard);
        }
    }
}

impl Core {
    /// Whether a shard of a group that this replica leads is about to go.
    pub(in crate::core) fn is_departing(&mut self, place: usize, shard: u16) -> bool {
        let raft = self.multi.raft(place);
        let group = &mut self.groups[place];
        if group.departing.term != raft.term() && raft.role() == Role::Leader {
            group.departing = Departing::find(raft, group.applied);
        }
        let departing = &group.departing.shards;
        !departing.is_empty() && departing.contains_key(&shard)
    }

    /// The last entry of the log, just proposed, is a shard's departure.
    pub(super) fn departs(&mut self, place: usize, shard: u16) {
        // Whatever else is in the log is found first.
        self.is_departing(place, shard);
        let index = self.multi.raft(place).log().last_index();
        self.groups[place].departing.shards.insert(shard, index);
    }
}

//! One configuration: who serves what.

use super::rebalance::rebalance;
use super::{Rejected, WEIGHT_MAX};
use std::collections::{BTreeMap, BTreeSet};

/// What a configuration says of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupEntry {
    /// The nodes that it was founded on, ascending.
    pub nodes: Vec<u32>,
    /// Of two groups, the one with twice the weight has twice the shards.
    pub weight: u32,
}

/// Who serves what, under a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Grows by one with each. 0 is the empty one before the first.
    pub number: u64,
    /// The group of every shard. `None` only while there is no group.
    pub shards: Vec<Option<u32>>,
    /// The groups that serve shards.
    pub groups: BTreeMap<u32, GroupEntry>,
}

impl Configuration {
    /// Number 0: nobody serves any of so many shards.
    pub fn empty(shards: u16) -> Self {
        Self { number: 0, shards: vec![None; usize::from(shards)], groups: BTreeMap::new() }
    }

    /// The group of a shard.
    pub fn group_of(&self, shard: u16) -> Option<u32> {
        self.shards.get(usize::from(shard)).copied().flatten()
    }

    /// The shards of a group, ascending.
    pub fn shards_of(&self, group: u32) -> impl Iterator<Item = u16> + '_ {
        let places = self.shards.iter().enumerate().filter(move |(_, of)| **of == Some(group));
        places.map(|(shard, _)| u16::try_from(shard).expect("shards are at most 16384"))
    }

    /// How many shards each group has.
    pub fn loads(&self) -> BTreeMap<u32, usize> {
        let mut loads: BTreeMap<u32, usize> = self.groups.keys().map(|group| (*group, 0)).collect();
        for group in self.shards.iter().flatten() {
            *loads.entry(*group).or_default() += 1;
        }
        loads
    }

    pub(super) fn join(&self, joining: &BTreeMap<u32, GroupEntry>) -> Result<Self, Rejected> {
        let bad = joining.iter().find(|(_, entry)| !(1..=WEIGHT_MAX).contains(&entry.weight));
        if let Some((group, entry)) = bad {
            return Err(Rejected::BadWeight { group: *group, weight: entry.weight });
        }
        let is_news = joining.iter().any(|(group, entry)| self.groups.get(group) != Some(entry));
        let mut next = self.clone();
        // Asked again: shards that were moved by hand since then stay where they are.
        if is_news {
            next.groups.extend(joining.iter().map(|(group, entry)| (*group, entry.clone())));
            next.rebalance();
        }
        Ok(next)
    }

    pub(super) fn leave(&self, leaving: &BTreeSet<u32>) -> Self {
        let mut next = self.clone();
        if leaving.iter().any(|group| self.groups.contains_key(group)) {
            next.groups.retain(|group, _| !leaving.contains(group));
            next.rebalance();
        }
        next
    }

    pub(super) fn with_shard_at(&self, shard: u16, to: u32) -> Result<Self, Rejected> {
        if !self.groups.contains_key(&to) {
            return Err(Rejected::NoSuchGroup { group: to });
        }
        let mut next = self.clone();
        let place = next.shards.get_mut(usize::from(shard));
        *place.ok_or(Rejected::NoSuchShard { shard, shards: self.shards.len() })? = Some(to);
        Ok(next)
    }

    fn rebalance(&mut self) {
        let weights = self.groups.iter().map(|(group, entry)| (*group, entry.weight)).collect();
        rebalance(&mut self.shards, &weights);
    }
}

//! All configurations since the first, as the differences between them: a cluster of 16384 shards that was changed ten thousand
//! times keeps what moved, not ten thousand tables.

use super::{Configuration, GroupEntry};
use std::collections::BTreeMap;

/// What one configuration changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) shards: BTreeMap<u16, Option<u32>>,
    pub(super) joined: BTreeMap<u32, GroupEntry>,
    pub(super) left: Vec<u32>,
}

/// Numbered configurations without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    pub(super) first: Configuration,
    pub(super) steps: Vec<Step>,
    newest: Configuration,
}

impl Step {
    fn between(before: &Configuration, after: &Configuration) -> Self {
        let pairs = (0_u16..).zip(before.shards.iter().zip(&after.shards));
        let moved = pairs.filter(|(_, (old, new))| old != new);
        let is_news = |(group, entry): &(&u32, &GroupEntry)| before.groups.get(group) != Some(*entry);
        let joined = after.groups.iter().filter(is_news);
        let left = before.groups.keys().filter(|group| !after.groups.contains_key(group));
        Self {
            shards: moved.map(|(shard, (_, new))| (shard, *new)).collect(),
            joined: joined.map(|(group, entry)| (*group, entry.clone())).collect(),
            left: left.copied().collect(),
        }
    }

    fn apply(&self, to: &mut Configuration) {
        to.number += 1;
        for (shard, group) in &self.shards {
            to.shards[usize::from(*shard)] = *group;
        }
        to.groups.extend(self.joined.iter().map(|(group, entry)| (*group, entry.clone())));
        to.groups.retain(|group, _| !self.left.contains(group));
    }
}

impl History {
    pub(super) fn new(first: Configuration) -> Self {
        Self { newest: first.clone(), first, steps: Vec::new() }
    }

    /// As it was put together: `None` if a step speaks of a shard that isn't there.
    pub(super) fn of(first: Configuration, steps: Vec<Step>) -> Option<Self> {
        let mut newest = first.clone();
        for step in &steps {
            let last = step.shards.keys().next_back().copied();
            if last.is_some_and(|shard| usize::from(shard) >= newest.shards.len()) {
                return None;
            }
            step.apply(&mut newest);
        }
        Some(Self { first, steps, newest })
    }

    /// The last one.
    pub fn newest(&self) -> &Configuration {
        &self.newest
    }

    /// The one of this number, if there is one.
    pub fn query(&self, number: u64) -> Option<Configuration> {
        if number == self.newest.number {
            return Some(self.newest.clone());
        }
        let steps = usize::try_from(number.checked_sub(self.first.number)?).ok()?;
        let mut found = self.first.clone();
        self.steps.get(..steps)?.iter().for_each(|step| step.apply(&mut found));
        Some(found)
    }

    pub(super) fn push(&mut self, next: Configuration) {
        assert_eq!(next.number, self.newest.number + 1, "configurations are numbered without a gap");
        assert_eq!(next.shards.len(), self.newest.shards.len(), "the number of shards is fixed");
        self.steps.push(Step::between(&self.newest, &next));
        self.newest = next;
    }
}

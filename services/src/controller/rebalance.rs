//! Loads even, and no shard moved that needn't be.
//!
//! A group's fair share is the shards times its weight over all weights; it gets that, rounded down or up. How many are
//! rounded up is given; *which* is free, and decides how many shards must move: a group that already has more than its share
//! rounded down keeps one more for nothing. So those come first, then the larger remainder, then the smaller number. With
//! equal weights loads differ by at most one.
//!
//! Everything is integers and ordered maps: the result is a function of the arguments, on every machine.

use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Gives every shard to one of the groups. `weights` are at least 1.
pub fn rebalance(shards: &mut [Option<u32>], weights: &BTreeMap<u32, u32>) {
    for shard in shards.iter_mut() {
        *shard = shard.filter(|group| weights.contains_key(group));
    }
    if weights.is_empty() {
        return;
    }
    let targets = targets(shards, weights);
    let mut have: BTreeMap<u32, usize> = weights.keys().map(|group| (*group, 0)).collect();
    // A group that has too many keeps the lowest: what is left is in one piece more often.
    for shard in shards.iter_mut() {
        let Some(group) = *shard else { continue };
        let count = have.get_mut(&group).expect("only shards of these groups are left");
        if *count < targets[&group] {
            *count += 1;
        } else {
            *shard = None;
        }
    }
    let mut wanting = targets.iter().flat_map(|(group, target)| {
        let lacks = target - have[group];
        std::iter::repeat_n(*group, lacks)
    });
    for shard in shards.iter_mut().filter(|shard| shard.is_none()) {
        *shard = wanting.next();
        assert!(shard.is_some(), "the targets add up to the number of shards");
    }
    assert!(wanting.next().is_none(), "the targets add up to the number of shards");
}

/// How many shards each group is to have.
fn targets(shards: &[Option<u32>], weights: &BTreeMap<u32, u32>) -> BTreeMap<u32, usize> {
    let total: u64 = weights.values().map(|weight| u64::from(*weight)).sum();
    let share = |weight: u32| shards.len() as u64 * u64::from(weight);
    let rounded_down = |weight: u32| usize::try_from(share(weight) / total).expect("at most all shards");
    let mut targets: BTreeMap<u32, usize> =
        weights.iter().map(|(group, weight)| (*group, rounded_down(*weight))).collect();
    let left = shards.len() - targets.values().sum::<usize>();
    let mut candidates: Vec<(bool, Reverse<u64>, u32)> = weights
        .iter()
        .map(|(group, weight)| (group, share(*weight) % total))
        .filter(|(_, remainder)| *remainder > 0)
        .map(|(group, remainder)| {
            let has = shards.iter().filter(|shard| **shard == Some(*group)).count();
            (has <= targets[group], Reverse(remainder), *group)
        })
        .collect();
    candidates.sort_unstable();
    for (_, _, group) in candidates.iter().take(left) {
        *targets.get_mut(group).expect("a candidate is a group") += 1;
    }
    targets
}

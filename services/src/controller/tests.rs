//! Rows CTL-01 to CTL-09, and what must hold of every rebalance.

use super::rebalance::rebalance;
use super::*;
use proptest::prelude::*;

fn entry(weight: u32) -> GroupEntry {
    GroupEntry { nodes: vec![1, 2, 3], weight }
}

fn join(groups: &[u32]) -> Change {
    Change::Join(groups.iter().map(|group| (*group, entry(1))).collect())
}

fn leave(groups: &[u32]) -> Change {
    Change::Leave(groups.iter().copied().collect())
}

/// A controller of ten shards, founded without a group.
fn founded(shards: u16) -> Controller {
    let mut controller = Controller::new(shards);
    let mut first = Configuration::empty(shards);
    // Something has to be different from configuration 0.
    first.groups.insert(9_999, entry(1));
    controller.apply(&Change::Found(first)).unwrap();
    controller.apply(&leave(&[9_999])).unwrap();
    controller
}

/// Every shard is on a group that is there, and loads differ by at most one.
fn is_even(configuration: &Configuration, groups: &[u32]) {
    assert!(configuration.groups.keys().eq(groups), "{configuration:?}");
    if groups.is_empty() {
        assert!(configuration.shards.iter().all(Option::is_none));
        return;
    }
    assert!(configuration.shards.iter().all(|of| of.is_some_and(|group| groups.contains(&group))));
    let loads = configuration.loads();
    let (least, most) = (loads.values().min().unwrap(), loads.values().max().unwrap());
    assert!(most - least <= 1, "{loads:?}");
}

fn moves(before: &Configuration, after: &Configuration) -> usize {
    let pairs = before.shards.iter().zip(&after.shards);
    pairs.filter(|(old, new)| old.is_some() && old != new).count()
}

#[test]
fn ctl_01_groups_join_and_leave() {
    let mut controller = founded(10);
    is_even(controller.newest(), &[]);
    controller.apply(&join(&[1])).unwrap();
    is_even(controller.newest(), &[1]);
    controller.apply(&join(&[2])).unwrap();
    is_even(controller.newest(), &[1, 2]);
    assert_eq!(controller.newest().groups[&2].nodes, [1, 2, 3]);
    controller.apply(&leave(&[1])).unwrap();
    is_even(controller.newest(), &[2]);
    controller.apply(&leave(&[2])).unwrap();
    is_even(controller.newest(), &[]);
}

#[test]
fn ctl_02_every_configuration_can_be_asked_for() {
    let mut controller = founded(10);
    let mut seen = vec![controller.newest().clone()];
    for step in 0..40 {
        let group = step % 7;
        let change = if step % 3 == 2 { leave(&[group]) } else { join(&[group]) };
        controller.apply(&change).unwrap();
        if controller.newest().number > seen.last().unwrap().number {
            seen.push(controller.newest().clone());
        }
    }
    assert!(seen.len() > 20);
    for configuration in &seen {
        assert_eq!(controller.query(configuration.number).as_ref(), Some(configuration));
    }
    assert_eq!(controller.query(controller.newest().number + 1), None);
    assert_eq!(controller.query(0), Some(Configuration::empty(10)));
}

#[test]
fn ctl_03_a_shard_is_moved_by_hand() {
    let mut controller = founded(10);
    controller.apply(&join(&[1, 2])).unwrap();
    for shard in 0..10_u16 {
        let to = if shard < 5 { 2 } else { 1 };
        let before = controller.newest().clone();
        controller.apply(&Change::Move { shard, to }).unwrap();
        let after = controller.newest();
        assert_eq!(after.group_of(shard), Some(to));
        assert_eq!(after.number, before.number + u64::from(before.group_of(shard) != Some(to)));
        assert!((0..10).all(|other| other == shard || after.group_of(other) == before.group_of(other)));
    }
    assert_eq!(controller.newest().loads().into_values().collect::<Vec<_>>(), [5, 5]);
    let there_is_none = |change| controller.clone().apply(&change).unwrap_err();
    assert_eq!(there_is_none(Change::Move { shard: 1, to: 3 }), Rejected::NoSuchGroup { group: 3 });
    let expected = Rejected::NoSuchShard { shard: 10, shards: 10 };
    assert_eq!(there_is_none(Change::Move { shard: 10, to: 1 }), expected);
}

/// Ten clients' changes in any order.
#[test]
fn ctl_04_changes_in_any_order() {
    for turn in 0..10_u32 {
        let mut controller = founded(10);
        let clients = (0..10).map(|client| (client * 7 + turn) % 10);
        for client in clients.clone() {
            controller.apply(&join(&[client + 1000])).unwrap();
        }
        for client in clients.clone() {
            controller.apply(&join(&[client])).unwrap();
        }
        for client in clients {
            controller.apply(&leave(&[client + 1000])).unwrap();
        }
        is_even(controller.newest(), &(0..10).collect::<Vec<_>>());
    }
}

#[test]
fn ctl_05_who_stays_keeps_what_it_had() {
    let mut controller = founded(10);
    let groups: Vec<u32> = (0..10).map(|it| 100 + 10 * it).collect();
    controller.apply(&join(&groups[..5])).unwrap();
    let before = controller.newest().clone();
    controller.apply(&join(&groups[5..])).unwrap();
    let after = controller.newest().clone();
    for group in &groups[5..] {
        assert_eq!(after.shards_of(*group).count(), 1);
    }
    // Whoever was there has nothing that it hadn't.
    for group in &groups[..5] {
        assert!(after.shards_of(*group).all(|shard| before.group_of(shard) == Some(*group)));
    }
    controller.apply(&leave(&groups[5..])).unwrap();
    for group in &groups[..5] {
        assert!(after.shards_of(*group).all(|shard| controller.newest().group_of(shard) == Some(*group)));
    }
}

#[test]
fn ctl_06_no_more_moves_than_must_be() {
    let mut controller = founded(10);
    controller.apply(&join(&[1, 2])).unwrap();
    let two = controller.newest().clone();
    controller.apply(&join(&[3])).unwrap();
    let three = controller.newest().clone();
    // H-19: the naive reshuffle moves 6.
    assert_eq!(moves(&two, &three), 3);
    assert!(two.shards.iter().zip(&three.shards).all(|(old, new)| old == new || *new == Some(3)));
    controller.apply(&leave(&[3])).unwrap();
    assert_eq!(moves(&three, controller.newest()), 3);
    let after = controller.newest();
    assert!(three.shards.iter().zip(&after.shards).all(|(old, new)| old == new || *old == Some(3)));
}

#[test]
fn ctl_07_several_groups_at_once() {
    let mut controller = founded(10);
    controller.apply(&join(&[1, 2])).unwrap();
    is_even(controller.newest(), &[1, 2]);
    let before = controller.newest().clone();
    controller.apply(&join(&[3, 4, 5])).unwrap();
    is_even(controller.newest(), &[1, 2, 3, 4, 5]);
    assert_eq!(moves(&before, controller.newest()), 6);
    let before = controller.newest().clone();
    controller.apply(&leave(&[1, 3])).unwrap();
    is_even(controller.newest(), &[2, 4, 5]);
    assert_eq!(moves(&before, controller.newest()), 4);
}

/// The rest of the row, that a new leader shows the same, is `sim/tests/labs/shards.rs`.
#[test]
fn ctl_08_all_replicas_compute_the_same() {
    let changes =
        [join(&[5, 3, 9]), join(&[1]), leave(&[3]), Change::Move { shard: 3, to: 9 }, join(&[7, 8])];
    let mut one = founded(16);
    let mut other = founded(16);
    for change in &changes {
        one.apply(change).unwrap();
        // Over the log and a snapshot.
        other = Controller::decode(&other.encode()).unwrap();
        other.apply(&Change::decode(&change.encode()).unwrap()).unwrap();
    }
    assert_eq!(one, other);
}

#[test]
fn ctl_09_the_pure_functions() {
    let mut shards = vec![None; 12];
    rebalance(&mut shards, &[(1, 1)].into());
    assert_eq!(shards, vec![Some(1); 12]);
    rebalance(&mut shards, &[(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)].into());
    let load = |group| shards.iter().filter(|of| **of == Some(group)).count();
    assert_eq!((1..=5).map(load).collect::<Vec<_>>(), [3, 3, 2, 2, 2]);
    rebalance(&mut shards, &[(4, 1)].into());
    assert_eq!(shards, vec![Some(4); 12]);
}

/// H-19: with more groups than shards nobody gets everything.
#[test]
fn h_19_more_groups_than_shards() {
    let mut controller = founded(10);
    let groups: Vec<u32> = (1..=11).collect();
    controller.apply(&join(&groups)).unwrap();
    is_even(controller.newest(), &groups);
}

/// H-20: what the history takes grows with what moved, not with the shards.
#[test]
fn h_20_a_long_history_is_small() {
    let mut controller = founded(16_384);
    controller.apply(&join(&[1, 2])).unwrap();
    let before = controller.encode().len();
    for turn in 0..1_000_u32 {
        controller.apply(&Change::Move { shard: 7, to: 1 + turn % 2 }).unwrap();
    }
    assert!(controller.newest().number > 900);
    let per_change = (controller.encode().len() - before) / 1_000;
    assert!(per_change <= 64, "{per_change} bytes a change");
}

#[test]
fn asking_twice_is_asking_once() {
    let mut controller = founded(10);
    let number = controller.apply(&join(&[1, 2])).unwrap();
    controller.apply(&Change::Move { shard: 0, to: 2 }).unwrap();
    assert_eq!(controller.apply(&join(&[1, 2])), Ok(number + 1));
    assert_eq!(controller.newest().group_of(0), Some(2), "what was moved by hand stays");
    assert_eq!(controller.apply(&leave(&[77])), Ok(number + 1));
    assert_eq!(Controller::new(4).apply(&join(&[1])), Err(Rejected::NotFounded));
    let again = Change::Found(Configuration::empty(10));
    assert_eq!(controller.apply(&again), Err(Rejected::Founded));
    let weightless = Change::Join([(8, entry(0))].into());
    assert_eq!(controller.apply(&weightless), Err(Rejected::BadWeight { group: 8, weight: 0 }));
}

/// The fewest shards that must move, by trying every assignment of loads within a shard of the fair share.
fn fewest_moves(shards: &[Option<u32>], weights: &BTreeMap<u32, u32>) -> usize {
    let total: u64 = weights.values().map(|weight| u64::from(*weight)).sum();
    let groups: Vec<(u32, u64)> =
        weights.iter().map(|(group, weight)| (*group, u64::from(*weight) * shards.len() as u64)).collect();
    let mut best = usize::MAX;
    // Every way of rounding each share down or up.
    for ups in 0..1_u32 << groups.len() {
        let loads: Vec<usize> = groups
            .iter()
            .enumerate()
            .map(|(place, (_, share))| {
                let up = ups >> place & 1 == 1 && share % total > 0;
                usize::try_from(share / total).unwrap() + usize::from(up)
            })
            .collect();
        if loads.iter().sum::<usize>() != shards.len() {
            continue;
        }
        best = best.min(fewest_moves_to(shards, &groups, loads));
    }
    best
}

/// The same for given loads, by trying every group for every shard.
fn fewest_moves_to(shards: &[Option<u32>], groups: &[(u32, u64)], loads: Vec<usize>) -> usize {
    let Some((first, rest)) = shards.split_first() else { return 0 };
    let mut best = usize::MAX;
    for (place, (group, _)) in groups.iter().enumerate().filter(|(place, _)| loads[*place] > 0) {
        let mut left = loads.clone();
        left[place] -= 1;
        let moved = usize::from(first.is_some() && *first != Some(*group));
        let others = fewest_moves_to(rest, groups, left);
        best = best.min(others.saturating_add(moved));
    }
    best
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn loads_are_fair_and_the_fewest_shards_move(
        before in prop::collection::vec(prop::option::of(0_u32..5), 1..8),
        weights in prop::collection::btree_map(0_u32..5, 1_u32..4, 1..4),
    ) {
        let mut after = before.clone();
        rebalance(&mut after, &weights);
        let total: u32 = weights.values().sum();
        for (group, weight) in &weights {
            let load = after.iter().filter(|of| **of == Some(*group)).count() as f64;
            let share = before.len() as f64 * f64::from(*weight) / f64::from(total);
            prop_assert!((load - share).abs() < 1.0, "group {} has {} and should have {}", group, load, share);
        }
        let moved = before.iter().zip(&after).filter(|(old, new)| old.is_some() && old != new).count();
        prop_assert_eq!(moved, fewest_moves(&before, &weights));
        let mut again = after.clone();
        rebalance(&mut again, &weights);
        prop_assert_eq!(again, after);
    }

    #[test]
    fn bytes_come_back_and_garbage_never_panics(
        groups in prop::collection::btree_map(any::<u32>(), (1_u32..9, prop::collection::vec(any::<u32>(), 0..4)), 0..4),
        garbage: Vec<u8>,
    ) {
        let groups: BTreeMap<u32, GroupEntry> =
            groups.into_iter().map(|(group, (weight, nodes))| (group, GroupEntry { nodes, weight })).collect();
        let change = Change::Join(groups);
        prop_assert_eq!(Change::decode(&change.encode()), Some(change.clone()));
        let mut controller = founded(9);
        controller.apply(&change).unwrap();
        let newest = controller.newest().clone();
        prop_assert_eq!(Configuration::decode(&newest.encode()), Some(newest));
        prop_assert_eq!(Controller::decode(&controller.encode()), Some(controller));
        let _ = (Change::decode(&garbage), Configuration::decode(&garbage), Controller::decode(&garbage));
    }
}

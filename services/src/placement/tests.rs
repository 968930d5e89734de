use super::*;
use proptest::prelude::*;

fn nodes(numbers: impl IntoIterator<Item = u32>) -> Nodes {
    numbers.into_iter().collect()
}

fn group(number: u32, voters: &[u32]) -> Group {
    let order = (0..6).map(|turn| (number + turn) % 6 + 1).collect();
    Group {
        number,
        serves: true,
        leader: voters[0],
        voters: nodes(voters.iter().copied()),
        order,
        ..Group::default()
    }
}

/// How many replicas every node has, of all groups and of those with shards.
fn loads(groups: &[Group], plan: &Plan, on: &Nodes) -> Vec<(usize, usize)> {
    let has = |group: &&Group, node: &u32| plan[&group.number].contains(node);
    let load = |node: &u32| {
        let all = groups.iter().filter(|group| has(group, node));
        (all.clone().count(), all.filter(|group| group.serves).count())
    };
    on.iter().map(load).collect()
}

fn is_even(loads: &[(usize, usize)]) -> bool {
    let within_one = |load: &dyn Fn(&(usize, usize)) -> usize| {
        let each = || loads.iter().map(load);
        each().max().unwrap_or(0) - each().min().unwrap_or(0) <= 1
    };
    within_one(&|load| load.0) && within_one(&|load| load.1)
}

fn moves_of(groups: &[Group], plan: &Plan) -> usize {
    groups.iter().map(|group| moves(group, &plan[&group.number])).sum()
}

/// All sets of so many of the nodes.
fn choices(of: &[u32], count: usize) -> Vec<Nodes> {
    match (count, of) {
        (0, _) => vec![Nodes::new()],
        (_, []) => Vec::new(),
        (_, [first, rest @ ..]) => {
            let with = choices(rest, count - 1).into_iter().map(|mut set| {
                set.insert(*first);
                set
            });
            with.chain(choices(rest, count)).collect()
        }
    }
}

/// The fewest moves of any even spread.
fn fewest(groups: &[Group], on: &Nodes, replicas: Option<usize>) -> usize {
    let of: Vec<u32> = on.iter().copied().collect();
    let mut plans = vec![Plan::new()];
    for group in groups {
        let sets = choices(&of, replicas.unwrap_or(group.voters.len()));
        let with = |plan: Plan| {
            let of = move |set: &Nodes| {
                let mut plan = plan.clone();
                plan.insert(group.number, set.clone());
                plan
            };
            sets.iter().map(of).collect::<Vec<_>>()
        };
        plans = plans.into_iter().flat_map(with).collect();
    }
    let even = plans.iter().filter(|plan| is_even(&loads(groups, plan, on)));
    even.map(|plan| moves_of(groups, plan)).min().expect("an even spread exists")
}

/// Groups with some voters among six nodes, and the nodes to spread them over.
fn cases(most: usize) -> impl Strategy<Value = (Vec<Group>, Nodes)> {
    let all = || proptest::sample::subsequence(vec![1, 2, 3, 4, 5, 6], 1..=3);
    let one = (all(), all(), any::<bool>());
    let groups = proptest::collection::vec(one, 1..=most).prop_map(|groups| {
        let make = |(number, (voters, learners, serves)): (usize, (Vec<u32>, Vec<u32>, bool))| {
            let group = group(u32::try_from(number).unwrap(), &voters);
            let learners = &nodes(learners) - &group.voters;
            Group { learners, serves, ..group }
        };
        groups.into_iter().enumerate().map(make).collect()
    });
    (groups, proptest::sample::subsequence(vec![1, 2, 3, 4, 5, 6], 3..=5).prop_map(nodes))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn no_even_spread_moves_less((groups, on) in cases(4)) {
        let plan = spread(&groups, &on, None).unwrap();
        prop_assert!(is_even(&loads(&groups, &plan, &on)), "{plan:?}");
        prop_assert_eq!(moves_of(&groups, &plan), fewest(&groups, &on, None));
    }
}

proptest! {
    #[test]
    fn it_is_even_complete_and_stays((groups, on) in cases(40), replicas in proptest::option::of(1_usize..=3)) {
        let plan = spread(&groups, &on, replicas).unwrap();
        prop_assert!(is_even(&loads(&groups, &plan, &on)), "{plan:?}");
        for group in &groups {
            let to = &plan[&group.number];
            prop_assert_eq!(to.len(), replicas.unwrap_or(group.voters.len()));
            prop_assert!(to.is_subset(&on));
        }
        prop_assert_eq!(&spread(&groups, &on, replicas).unwrap(), &plan, "equal for equal groups");
        let there: Vec<Group> =
            groups.iter().map(|group| Group { voters: plan[&group.number].clone(), ..group.clone() }).collect();
        prop_assert_eq!(moves_of(&there, &spread(&there, &on, replicas).unwrap()), 0);
    }

    /// Steps taken by a group that obeys, with a leader that may change at any time: it arrives, always with a leader that has a
    /// vote, and never with fewer voters than before and after.
    #[test]
    fn the_steps_lead_there((groups, on) in cases(1), seed: u64) {
        let plan = spread(&groups, &on, None).unwrap();
        let (mut group, target) = (groups[0].clone(), &plan[&0]);
        let (mut random, least) = (seed, group.voters.len().min(target.len()));
        let mut steps = 0;
        loop {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if random >> 60 == 0 && steps < 50 {
                group.leader = *group.voters.last().unwrap();
            }
            match next(&group, target) {
                Step::Done => break,
                Step::Wait => group.is_changing = false,
                Step::Learn(nodes) => group.learners.extend(nodes),
                Step::CatchUp(nodes) => group.ready.extend(nodes),
                Step::Transfer(to) => {
                    prop_assert!(to.iter().all(|node| group.voters.contains(node)));
                    group.leader = to[0];
                }
                Step::Vote(nodes) => {
                    prop_assert!(nodes.iter().all(|it| group.voters.contains(it) || group.ready.contains(it)));
                    prop_assert!(nodes.contains(&group.leader) || nodes.len() == 1);
                    group.learners.retain(|node| !nodes.contains(node));
                    group.leader = if nodes.contains(&group.leader) { group.leader } else { *nodes.first().unwrap() };
                    (group.voters, group.is_changing) = (nodes, true);
                }
                Step::Forget(nodes) => group.learners.retain(|node| !nodes.contains(node)),
            }
            prop_assert!(group.voters.len() >= least);
            group.ready.retain(|node| group.learners.contains(node));
            steps += 1;
            prop_assert!(steps < 200, "{group:?} doesn't become {target:?}");
        }
        prop_assert_eq!(&group.voters, target);
        prop_assert!(group.learners.is_empty());
    }
}

#[test]
fn growing_from_three_to_six_moves_half_and_each_node_leads_one_group() {
    let groups: Vec<Group> = (0..6).map(|number| group(number, &[1, 2, 3])).collect();
    let six = nodes(1..=6);
    let plan = spread(&groups, &six, None).unwrap();
    assert_eq!(moves_of(&groups, &plan), 9);
    assert_eq!(loads(&groups, &plan, &six), [(3, 3); 6]);
    assert_eq!(first_in(&groups, &plan), six);
}

/// The nodes that should lead groups.
fn first_in(groups: &[Group], plan: &Plan) -> Nodes {
    let leader = |group: &Group| group.order.iter().find(|node| plan[&group.number].contains(node)).copied();
    groups.iter().filter_map(leader).collect()
}

#[test]
fn groups_without_shards_don_t_stand_in_for_those_with() {
    let mut groups: Vec<Group> = (0..6).map(|number| group(number, &[1, 2, 3])).collect();
    groups.iter_mut().for_each(|group| group.serves = group.number < 2);
    let six = nodes(1..=6);
    let plan = spread(&groups, &six, None).unwrap();
    assert_eq!(loads(&groups, &plan, &six), [(3, 1); 6]);
    for with_shards in 0..6 {
        groups.iter_mut().for_each(|group| group.serves = group.number < with_shards);
        let plan = spread(&groups, &six, None).unwrap();
        assert_eq!((moves_of(&groups, &plan), first_in(&groups, &plan)), (9, six.clone()), "{with_shards}");
    }
}

#[test]
fn a_learner_that_is_there_is_used() {
    let mut groups: Vec<Group> = (0..2).map(|number| group(number, &[1, 2, 3])).collect();
    groups[1].learners = nodes([6]);
    let plan = spread(&groups, &nodes([1, 2, 3, 6]), None).unwrap();
    assert!(plan[&1].contains(&6), "{plan:?}");
}

#[test]
fn one_node_takes_another_s_place() {
    let groups = [group(0, &[1, 2, 3]), group(1, &[2, 3, 4]), group(2, &[1, 2, 5])];
    let plan = replace(&groups[..1], 3, 4).unwrap();
    assert_eq!(plan[&0], nodes([1, 2, 4]));
    let error = replace(&groups, 3, 4).unwrap_err();
    assert_eq!(error, PlacementError::AlreadyThere { group: 1, old: 3, new: 4 });
    assert!(error.to_string().contains("node 4 already has a replica of group 1"), "{error}");
    assert_eq!(replace(&groups, 3, 6).unwrap()[&2], nodes([1, 2, 5]), "it had none there");
}

#[test]
fn too_few_nodes_are_named() {
    let error = spread(&[group(0, &[1, 2, 3])], &nodes([1, 2]), None).unwrap_err();
    assert_eq!(error, PlacementError::TooFewNodes { group: 0, replicas: 3, nodes: 2 });
    assert!(spread(&[group(0, &[1, 2, 3])], &nodes([1, 2]), Some(2)).is_ok());
    assert!(spread(&[group(0, &[1])], &Nodes::new(), None).is_err());
}

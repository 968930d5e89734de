//! The group changes: who joins, who leaves, and what goes wrong meanwhile.

use crate::cluster::{Cluster, peer};
use flotilla_consensus::{Change, ChangeRefused, Kind, Refused, Role, Transition};
use flotilla_runtime::NodeId;

fn node(node: usize) -> NodeId {
    peer(node).node
}

fn learner(node: usize) -> Change {
    Change::AddLearner(peer(node))
}

fn promote(of: usize) -> Change {
    Change::Promote(node(of))
}

fn remove(of: usize) -> Change {
    Change::Remove(node(of))
}

/// Long enough for several elections, in steps of less than a heartbeat's silence.
fn let_time_pass(cluster: &mut Cluster) {
    for _ in 0..60 {
        cluster.pass(50);
        cluster.fire_due();
        cluster.deliver();
    }
}

/// Everything arrives, and a few heartbeats go by.
fn settle(cluster: &mut Cluster) {
    cluster.deliver();
    for _ in 0..6 {
        cluster.pass(60);
        cluster.fire_due();
        cluster.deliver();
    }
}

fn leader(cluster: &Cluster, of: impl IntoIterator<Item = usize>) -> Option<usize> {
    of.into_iter().find(|node| cluster.raft(*node).role() == Role::Leader)
}

fn agree(cluster: &Cluster, nodes: &[usize]) {
    let last = cluster.raft(nodes[0]).commit();
    for node in nodes {
        assert_eq!(cluster.raft(*node).commit(), last, "node {node}");
        assert_eq!(cluster.entries(*node, last), cluster.entries(nodes[0], last), "node {node}");
    }
}

/// Nodes 0 to 2 vote, 0 leads; the spares learn and have caught up.
fn with_learners(spares: usize) -> Cluster {
    let mut cluster = Cluster::with_spares(3, spares);
    cluster.elect(0);
    cluster.propose(0, b"before anybody came");
    cluster.deliver();
    let changes: Vec<Change> = (3..3 + spares).map(learner).collect();
    cluster.change(0, &changes, Transition::Auto).unwrap();
    settle(&mut cluster);
    cluster
}

#[test]
fn a_learner_gets_everything_and_has_no_say_until_it_is_promoted() {
    let mut cluster = Cluster::with_spares(3, 1);
    cluster.elect(0);
    cluster.propose(0, b"x");
    cluster.deliver();
    assert_eq!(cluster.raft(3).log().last_index(), 0, "it isn't in the group");
    assert_eq!(cluster.change(0, &[promote(3)], Transition::Auto), Err(ChangeRefused::NotCaughtUp(node(3))));
    cluster.change(0, &[learner(3)], Transition::Auto).unwrap();
    settle(&mut cluster);
    assert_eq!(cluster.configuration(3), "voters=(1 2 3) learners=(4)");
    agree(&cluster, &[0, 1, 2, 3]);
    // It neither counts nor campaigns.
    cluster.cut_off = [1, 2].into();
    let (commit, term) = (cluster.raft(0).commit(), cluster.raft(0).term());
    let last = cluster.propose(0, b"y");
    cluster.deliver();
    assert_eq!((cluster.raft(3).durable(), cluster.raft(0).commit()), (last, commit));
    cluster.cut_off = [0, 1, 2].into();
    let_time_pass(&mut cluster);
    assert_eq!((cluster.raft(3).role(), cluster.raft(3).term()), (Role::Follower, term));
    cluster.cut_off.clear();
    let_time_pass(&mut cluster);
    let leads = leader(&cluster, 0..3).unwrap();
    cluster.change(leads, &[promote(3)], Transition::Auto).unwrap();
    settle(&mut cluster);
    assert!((0..4).all(|node| cluster.configuration(node) == "voters=(1 2 3 4)"));
    // Now two of four are no majority, and three with it are.
    let others: Vec<usize> = (0..3).filter(|node| *node != leads).collect();
    cluster.cut_off = [others[0]].into();
    let last = cluster.propose(leads, b"z");
    cluster.deliver();
    assert_eq!(cluster.raft(leads).commit(), last);
    cluster.cut_off = others.iter().copied().collect();
    cluster.propose(leads, b"not enough");
    cluster.deliver();
    assert_eq!(cluster.raft(leads).commit(), last);
}

#[test]
fn two_voters_change_at_once_through_a_joint_configuration() {
    let mut cluster = with_learners(2);
    let simple = cluster.change(0, &[promote(3), promote(4), remove(1), remove(2)], Transition::Auto);
    assert!(simple.is_ok());
    assert_eq!(
        cluster.change(0, &[remove(1)], Transition::Auto),
        Err(ChangeRefused::Pending(simple.unwrap()))
    );
    // Until the old voters agree too, nothing is committed.
    settle(&mut cluster);
    for node in [0, 3, 4] {
        assert_eq!(cluster.configuration(node), "voters=(1 4 5)", "the leader left the joint one by itself");
    }
    agree(&cluster, &[0, 3, 4]);
    cluster.cut_off = [1, 2].into();
    let last = cluster.propose(0, b"without them");
    cluster.deliver();
    assert_eq!(cluster.raft(0).commit(), last);
}

#[test]
fn in_a_joint_configuration_both_sets_decide() {
    let mut cluster = with_learners(2);
    let joint = Transition::Joint { auto_leave: false };
    cluster.change(0, &[promote(3), promote(4), remove(1), remove(2)], joint).unwrap();
    settle(&mut cluster);
    assert_eq!(cluster.configuration(4), "voters=(1 4 5)&&(1 2 3)");
    for without in [[1, 2], [3, 4]] {
        let commit = cluster.raft(0).commit();
        cluster.cut_off = without.into();
        let last = cluster.propose(0, b"x");
        let ticket = cluster.read(0);
        cluster.deliver();
        assert_eq!(cluster.raft(0).commit(), commit, "one set alone commits nothing");
        assert!(cluster.raft(0).confirmed_round() < ticket.round, "and confirms nothing");
        cluster.cut_off.clear();
        settle(&mut cluster);
        assert_eq!(cluster.raft(0).commit(), last);
    }
    assert_eq!(
        cluster.change(0, &[learner(1)], Transition::Auto).map_err(|it| it.to_string()),
        Err("can't apply simple config change in joint config".to_owned())
    );
    // Nor elects it anybody.
    let commit = cluster.raft(0).commit();
    cluster.cut_off = [0, 1, 2].into();
    let_time_pass(&mut cluster);
    assert_eq!(leader(&cluster, 3..5), None);
    cluster.cut_off = [0, 3, 4].into();
    let_time_pass(&mut cluster);
    assert_eq!(leader(&cluster, 1..3), None);
    // A restart in the middle changes nothing.
    cluster.cut_off.clear();
    for node in 0..5 {
        cluster.restart(node);
        assert_eq!(cluster.configuration(node), "voters=(1 4 5)&&(1 2 3)");
    }
    let_time_pass(&mut cluster);
    let leads = leader(&cluster, 0..5).unwrap();
    assert!(cluster.raft(leads).commit() > commit);
    cluster.leave_joint(leads).unwrap();
    let_time_pass(&mut cluster);
    assert!([0, 3, 4].iter().all(|node| cluster.configuration(*node) == "voters=(1 4 5)"));
}

#[test]
fn a_leader_that_removes_itself_commits_that_and_steps_down() {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    let index = cluster.change(0, &[remove(0)], Transition::Auto).unwrap();
    cluster.deliver();
    assert!(cluster.raft(0).commit() >= index);
    assert_eq!((cluster.raft(0).role(), cluster.raft(0).is_voter()), (Role::Follower, false));
    assert_eq!(cluster.configuration(1), "voters=(2 3)", "it told them before it went");
    let term = cluster.raft(0).term();
    for _ in 0..3 {
        cluster.fire(0);
    }
    assert_eq!(
        (cluster.raft(0).role(), cluster.raft(0).term()),
        (Role::Follower, term),
        "it doesn't campaign"
    );
    let_time_pass(&mut cluster);
    let leads = leader(&cluster, 1..3).unwrap();
    let last = cluster.propose(leads, b"x");
    cluster.deliver();
    assert_eq!(cluster.raft(leads).commit(), last);
}

#[test]
fn a_removed_replica_disturbs_nobody_before_it_knows_and_learns_of_it_when_it_asks() {
    for (knows, is_forgotten) in [(true, false), (false, false), (false, true)] {
        let mut cluster = Cluster::new(3);
        cluster.elect(0);
        settle(&mut cluster);
        if !knows {
            cluster.cut_off = [2].into();
        }
        cluster.change(0, &[remove(2)], Transition::Auto).unwrap();
        // So long that the leader has stopped telling it.
        let_time_pass(&mut cluster);
        if is_forgotten {
            cluster.compact(0);
            cluster.compact(1);
        }
        assert_eq!(cluster.raft(2).role(), if knows { Role::Follower } else { Role::PreCandidate });
        assert_eq!(cluster.raft(2).is_voter(), !knows, "it hears of it, if it can");
        let term = cluster.raft(0).term();
        cluster.cut_off.clear();
        let_time_pass(&mut cluster);
        assert_eq!((cluster.raft(0).role(), cluster.raft(0).term()), (Role::Leader, term));
        assert_eq!((cluster.raft(2).role(), cluster.raft(2).is_voter()), (Role::Follower, false));
        assert_eq!(cluster.configuration(2), "voters=(1 2)");
        // It knows it after a restart, too, though it may not have the entry.
        cluster.restart(2);
        let_time_pass(&mut cluster);
        assert_eq!((cluster.raft(2).role(), cluster.raft(2).is_voter()), (Role::Follower, false));
        // It may come back.
        cluster.change(0, &[learner(2)], Transition::Auto).unwrap();
        settle(&mut cluster);
        if is_forgotten {
            cluster.install(0, 2);
            settle(&mut cluster);
        }
        cluster.change(0, &[promote(2)], Transition::Auto).unwrap();
        settle(&mut cluster);
        assert_eq!(cluster.configuration(2), "voters=(1 2 3)");
        assert_eq!(cluster.raft(2).commit(), cluster.raft(0).commit());
    }
}

#[test]
fn a_replica_finds_its_group_when_all_others_have_left_it() {
    let mut cluster = with_learners(2);
    cluster.cut_off = [2].into();
    cluster.change(0, &[promote(3), promote(4), remove(2)], Transition::Auto).unwrap();
    settle(&mut cluster);
    cluster.act(0, |multi, now| multi.transfer_to(now, 0, node(3))).unwrap();
    settle(&mut cluster);
    cluster.change(3, &[remove(0)], Transition::Auto).unwrap();
    settle(&mut cluster);
    cluster.change(3, &[remove(1)], Transition::Auto).unwrap();
    settle(&mut cluster);
    assert_eq!(cluster.configuration(3), "voters=(4 5)");
    // Those that it knew are gone for good.
    cluster.cut_off = [0, 1].into();
    assert!(cluster.raft(2).is_voter());
    let_time_pass(&mut cluster);
    assert_eq!(cluster.configuration(2), "voters=(4 5)");
    assert_eq!(cluster.raft(2).role(), Role::Follower);
}

/// The leader dies after so many messages of the change have arrived; somebody else finishes or forgets it.
#[test]
fn a_change_is_finished_or_forgotten_wherever_its_leader_dies() {
    for steps in 0..40 {
        let mut cluster = with_learners(2);
        let changes = [promote(3), promote(4), remove(0), remove(1)];
        cluster.change(0, &changes, Transition::Auto).unwrap();
        cluster.deliver_some(steps);
        cluster.cut_off = [0].into();
        cluster.wire.clear();
        let_time_pass(&mut cluster);
        let leads = leader(&cluster, 1..5).unwrap_or_else(|| panic!("nobody leads after {steps} messages"));
        let last = cluster.propose(leads, b"it goes on");
        let_time_pass(&mut cluster);
        assert!(cluster.raft(leads).commit() >= last, "after {steps} messages");
        let now = cluster.configuration(leads);
        assert!(
            ["voters=(1 2 3) learners=(4 5)", "voters=(3 4 5)"].contains(&now.as_str()),
            "after {steps} messages: {now}"
        );
        cluster.cut_off.clear();
        let_time_pass(&mut cluster);
        let leads = leader(&cluster, 0..5).unwrap();
        let in_group: Vec<usize> = (0..5)
            .filter(|it| cluster.raft(leads).membership().1.peers.contains_key(&(*it as u64 + 1)))
            .collect();
        agree(&cluster, &in_group);
    }
}

#[test]
fn a_change_that_isn_t_committed_is_forgotten_with_its_leader() {
    let mut cluster = with_learners(1);
    cluster.cut_off = [0].into();
    cluster.change(0, &[promote(3)], Transition::Auto).unwrap();
    cluster.deliver();
    let_time_pass(&mut cluster);
    let leads = leader(&cluster, 1..3).unwrap();
    assert_eq!(cluster.raft(leads).pending_change(), None);
    cluster.propose(leads, b"in its place");
    cluster.deliver();
    cluster.cut_off.clear();
    let_time_pass(&mut cluster);
    assert_eq!(cluster.configuration(0), "voters=(1 2 3) learners=(4)");
    assert_eq!(cluster.raft(0).pending_change(), None);
    assert_eq!(
        cluster.change(0, &[promote(3)], Transition::Auto),
        Err(Refused::NotLeader(Some(node(leads))).into())
    );
}

#[test]
fn a_snapshot_brings_a_joint_configuration() {
    let mut cluster = with_learners(1);
    cluster.cut_off = [2].into();
    let joint = Transition::Joint { auto_leave: false };
    cluster.change(0, &[promote(3), remove(1)], joint).unwrap();
    settle(&mut cluster);
    cluster.propose(0, b"behind it");
    settle(&mut cluster);
    cluster.compact(0);
    cluster.restart(0);
    assert_eq!(cluster.configuration(0), "voters=(1 3 4)&&(1 2 3)", "its log has forgotten the entry");
    cluster.elect(0);
    cluster.cut_off.clear();
    settle(&mut cluster);
    assert_eq!(cluster.configuration(2), "voters=(1 2 3) learners=(4)", "what it needs is gone");
    cluster.install(0, 2);
    assert_eq!(cluster.configuration(2), "voters=(1 3 4)&&(1 2 3)");
    settle(&mut cluster);
    cluster.restart(2);
    assert_eq!(cluster.configuration(2), "voters=(1 3 4)&&(1 2 3)");
    settle(&mut cluster);
    cluster.leave_joint(0).unwrap();
    settle(&mut cluster);
    assert_eq!(cluster.configuration(2), "voters=(1 3 4)");
}

#[test]
fn a_dead_node_is_replaced() {
    let mut cluster = Cluster::with_spares(3, 1);
    cluster.elect(0);
    for _ in 0..5 {
        cluster.propose(0, b"x");
    }
    cluster.deliver();
    cluster.cut_off = [2].into();
    cluster.change(0, &[learner(3)], Transition::Auto).unwrap();
    settle(&mut cluster);
    cluster.change(0, &[promote(3), remove(2)], Transition::Auto).unwrap();
    settle(&mut cluster);
    assert_eq!(cluster.configuration(3), "voters=(1 2 4)");
    cluster.cut_off = [2, 1].into();
    let last = cluster.propose(0, b"with the new one");
    cluster.deliver();
    assert_eq!(cluster.raft(0).commit(), last);
}

/// Replicas 0 and 1 have an entry that 2 lacks, and a client was told that it is safe. Then node 1's disk is another.
fn acknowledged_by_two_and_then(
    disk: impl Fn(&Cluster) -> std::collections::BTreeMap<flotilla_runtime::FileId, Vec<u8>>,
    as_new: bool,
) -> (Cluster, u64) {
    let mut cluster = Cluster::new(3);
    let disk = disk(&cluster);
    cluster.elect(0);
    cluster.cut_off = [2].into();
    let precious = cluster.propose(0, b"precious");
    cluster.deliver();
    assert!(cluster.raft(0).commit() >= precious);
    cluster.swap_disk(1, disk);
    assert_eq!(cluster.raft(1).is_repairing(), as_new);
    // The one that has it can't be asked for a while.
    cluster.cut_off = [0].into();
    let_time_pass(&mut cluster);
    (cluster, precious)
}

#[test]
fn a_wiped_node_doesn_t_vote_as_its_former_self() {
    let (mut cluster, precious) = acknowledged_by_two_and_then(|_| std::collections::BTreeMap::new(), true);
    assert_eq!(leader(&cluster, 1..3), None, "nobody leads without the one that remembers");
    cluster.cut_off.clear();
    let_time_pass(&mut cluster);
    assert!(!cluster.raft(1).is_repairing());
    let last = cluster.raft(0).commit();
    assert_eq!(cluster.entries(1, last)[usize::try_from(precious).unwrap() - 1].1, b"precious");
    // Now it may stand in for it.
    cluster.cut_off = [0].into();
    let_time_pass(&mut cluster);
    let leads = leader(&cluster, 1..3).unwrap();
    assert_eq!(cluster.entries(leads, last)[usize::try_from(precious).unwrap() - 1].1, b"precious");
}

/// What the test above would be like if a replica took an empty disk for a new group's: node 1 gets the disk that it had when
/// the group was founded.
#[test]
fn a_node_that_forgets_and_votes_all_the_same_loses_what_was_acknowledged() {
    let (cluster, precious) = acknowledged_by_two_and_then(|cluster| cluster.disk(1), false);
    let leads = leader(&cluster, 1..3).expect("two are a majority");
    let there = cluster.raft(leads).log().entry(precious);
    assert!(there.is_none_or(|entry| !entry.record.ends_with(b"precious")), "this is what mustn't happen");
}

#[test]
fn what_a_former_self_acknowledged_doesn_t_count_when_it_comes_late() {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    settle(&mut cluster);
    let commit = cluster.raft(0).commit();
    cluster.cut_off = [2].into();
    // The leader's own disk takes its time, so that it needs another one's word.
    cluster.slow_disks = [0].into();
    let last = cluster.propose(0, b"x");
    cluster.deliver_to(1);
    let late = std::mem::take(&mut cluster.wire);
    assert!(late.iter().any(|(from, to, _)| (*from, *to) == (1, 0)));
    cluster.swap_disk(1, std::collections::BTreeMap::new());
    cluster.deliver();
    cluster.wire = late;
    cluster.deliver();
    assert!(!cluster.raft(0).matched(node(1)).unwrap().1);
    cluster.sync(0);
    cluster.deliver();
    assert!(cluster.raft(0).durable() >= last && cluster.raft(0).commit() == commit, "one disk has it");
    cluster.cut_off.clear();
    cluster.slow_disks.clear();
    let_time_pass(&mut cluster);
    assert!(!cluster.raft(1).is_repairing() && cluster.raft(0).commit() >= last);
}

#[test]
fn a_group_is_founded_only_when_everybody_was_there() {
    let mut cluster = Cluster::new(3);
    for node in 0..3 {
        cluster.swap_disk(node, std::collections::BTreeMap::new());
    }
    cluster.wire.clear();
    cluster.cut_off = [2].into();
    let_time_pass(&mut cluster);
    assert_eq!(leader(&cluster, 0..3), None, "one of them may have been wiped, and the third know more");
    cluster.cut_off.clear();
    let_time_pass(&mut cluster);
    assert!(leader(&cluster, 0..3).is_some());
    assert!((0..3).all(|node| !cluster.raft(node).is_repairing()));
}

/// Alone it can't tell a new group from one that has grown since.
#[test]
fn the_only_founder_of_a_group_that_has_grown_doesn_t_begin_anew_on_an_empty_disk() {
    let mut cluster = Cluster::with_spares(1, 2);
    cluster.elect(0);
    cluster.change(0, &[learner(1), learner(2)], Transition::Auto).unwrap();
    settle(&mut cluster);
    cluster.change(0, &[promote(1), promote(2)], Transition::Auto).unwrap();
    settle(&mut cluster);
    cluster.cut_off = [2].into();
    let precious = cluster.propose(0, b"precious");
    settle(&mut cluster);
    cluster.act(0, |multi, now| multi.transfer_to(now, 0, node(1))).unwrap();
    settle(&mut cluster);
    assert_eq!(cluster.raft(1).role(), Role::Leader);
    cluster.swap_disk(0, std::collections::BTreeMap::new());
    // The one that has it can't be asked for a while.
    cluster.cut_off = [1].into();
    let_time_pass(&mut cluster);
    assert!(cluster.raft(0).is_repairing());
    assert_eq!(leader(&cluster, [0, 2]), None, "nobody leads without the one that remembers");
    cluster.cut_off.clear();
    let_time_pass(&mut cluster);
    assert!(!cluster.raft(0).is_repairing());
    let last = cluster.raft(1).commit();
    assert_eq!(cluster.entries(0, last)[usize::try_from(precious).unwrap() - 1].1, b"precious");
}

/// A new group has one founder, too, and others that it has heard of: it begins when all of them have been there.
#[test]
fn a_group_of_one_founder_begins_when_everybody_has_been_asked() {
    let mut alone = Cluster::new(1);
    alone.swap_disk(0, std::collections::BTreeMap::new());
    let_time_pass(&mut alone);
    assert_eq!(alone.raft(0).role(), Role::Leader);
    let mut cluster = Cluster::with_spares(1, 2);
    for node in 0..3 {
        cluster.swap_disk(node, std::collections::BTreeMap::new());
    }
    cluster.wire.clear();
    cluster.cut_off = [2].into();
    let_time_pass(&mut cluster);
    assert_eq!(leader(&cluster, 0..3), None, "the third may know more");
    cluster.cut_off.clear();
    let_time_pass(&mut cluster);
    assert_eq!(leader(&cluster, 0..3), Some(0));
}

#[test]
fn whoever_is_sent_a_snapshot_isn_t_taken_for_lost_by_its_next_heartbeat() {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    cluster.propose(0, b"everybody has this");
    settle(&mut cluster);
    cluster.cut_off = [2].into();
    cluster.propose(0, b"and this was snapshotted");
    settle(&mut cluster);
    cluster.compact(0);
    cluster.restart(2);
    cluster.cut_off.clear();
    let wants = |cluster: &Cluster| cluster.raft(0).wanting_snapshot().count();
    let_time_pass(&mut cluster);
    assert_eq!(wants(&cluster), 1);
    for _ in 0..10 {
        cluster.pass(60);
        cluster.fire_due();
        cluster.deliver_to(2);
        let (answers, others) =
            std::mem::take(&mut cluster.wire).into_iter().partition(|(from, ..)| *from == 2);
        cluster.wire = others;
        for (_, to, frame) in answers {
            cluster.act(to, |multi, now| {
                multi.receive(now, node(2), &frame[1..]).unwrap();
                // What the owner sees before the turn ends.
                assert_eq!(multi.raft(0).wanting_snapshot().count(), usize::from(to == 0));
            });
        }
        cluster.deliver();
    }
}

#[test]
fn learners_don_t_hold_up_reads_or_writes() {
    let mut cluster = with_learners(2);
    cluster.cut_off = [3, 4].into();
    let last = cluster.propose(0, b"x");
    let ticket = cluster.read(0);
    cluster.deliver();
    assert!(cluster.raft(0).commit() == last && cluster.raft(0).confirmed_round() >= ticket.round);
    cluster.withheld = Some((1, Kind::Append));
    let_time_pass(&mut cluster);
    assert_eq!(cluster.raft(0).role(), Role::Leader);
}

//! Groups with nothing to do, and many of them: who keeps still, and what rouses them.

use crate::cluster::{Cluster, GROUP, peer};
use flotilla_consensus::message::{Header, Outbox};
use flotilla_consensus::raft::LeaseConfig;
use flotilla_consensus::{Change, Kind, RaftConfig, ReadState, Refused, Role, Transition};

/// Three nodes whose groups are led by the first one and rest.
fn resting(groups: u64) -> Cluster {
    let mut cluster = Cluster::with_groups(3, groups);
    cluster.elect(0);
    cluster.run(1000);
    for node in 0..3 {
        assert!(are_resting(&cluster, node, groups), "node {node}");
    }
    cluster
}

fn are_resting(cluster: &Cluster, node: usize, groups: u64) -> bool {
    (0..usize::try_from(groups).unwrap()).all(|place| cluster.raft_at(node, place).is_resting())
}

fn leader(cluster: &Cluster, nodes: &[usize]) -> Option<usize> {
    nodes.iter().copied().find(|node| cluster.raft(*node).role() == Role::Leader)
}

#[test]
fn an_idle_group_says_nothing_and_keeps_its_leader() {
    let mut cluster = resting(50);
    let (term, sent) = (cluster.raft(0).term(), cluster.sent_messages);
    cluster.run(10_000);
    assert_eq!(
        (cluster.sent_messages, cluster.raft(0).term()),
        (sent, term),
        "pulses alone, for ten seconds"
    );
    assert!((0..3).all(|node| cluster.raft(node).leader().unwrap().0 == 1));
}

#[test]
fn a_proposal_rouses_its_group_and_no_other() {
    let mut cluster = resting(3);
    let index = cluster.propose(0, b"x");
    cluster.deliver();
    assert_eq!(cluster.raft(0).commit(), index);
    assert!(!cluster.raft(0).is_resting() && !cluster.raft(1).is_resting());
    assert!(cluster.raft_at(0, 1).is_resting() && cluster.raft_at(1, 2).is_resting());
    cluster.run(300);
    for node in 0..3 {
        assert!(cluster.raft(node).is_resting() && cluster.raft(node).commit() == index, "node {node}");
    }
}

#[test]
fn a_group_whose_owner_holds_it_has_its_heartbeats() {
    let mut cluster = resting(2);
    for holder in 0..3 {
        cluster.act(holder, |multi, now| multi.hold(now, 0, true));
        assert!(!cluster.raft(holder).is_resting());
        let sent = cluster.sent_messages;
        cluster.run(1000);
        assert!(!cluster.raft(holder).is_resting() && cluster.raft_at(holder, 1).is_resting());
        assert!(cluster.sent_messages > sent + 30, "heartbeats of the one group");
        cluster.act(holder, |multi, now| multi.hold(now, 0, false));
        cluster.run(1000);
        assert!((0..3).all(|node| are_resting(&cluster, node, 2)));
    }
}

#[test]
fn pulses_meet_so_that_cores_sleep_between() {
    let mut cluster = resting(1);
    // When they are sent, to the millisecond.
    let mut moments = std::collections::BTreeSet::new();
    for _ in 0..2_000 {
        cluster.pass(1);
        cluster.fire_due();
        if !cluster.wire.is_empty() {
            moments.insert(cluster.now / flotilla_runtime::machine::MILLISECOND);
        }
        cluster.deliver();
    }
    assert!((15..=25).contains(&moments.len()), "{moments:?}");
}

/// A pulse confirms no read: its round asks the followers by name (TiKV's reads after hibernation waited for ever, or
/// were served on a promise that nobody had given).
#[test]
fn a_read_rouses_its_group_and_asks_everybody() {
    let mut cluster = resting(2);
    let ticket = cluster.read(0);
    assert!(!cluster.raft(0).is_resting() && cluster.raft(0).confirmed_round() < ticket.round);
    cluster.deliver();
    assert!(cluster.raft(0).confirmed_round() >= ticket.round);
    cluster.run(300);
    cluster.withheld = Some((0, Kind::HeartbeatReply));
    let ticket = cluster.read(0);
    cluster.run(200);
    assert!(cluster.raft(0).confirmed_round() < ticket.round, "pulses come, and say nothing about terms");
}

#[test]
fn a_resting_leader_that_dies_is_followed_within_two_timeouts_raft_a2() {
    let mut cluster = resting(20);
    cluster.cut_off = [0].into();
    cluster.run(2 * 400 + 20);
    let next = leader(&cluster, &[1, 2]).unwrap();
    cluster.run(500);
    let index = cluster.propose(next, b"x");
    cluster.deliver();
    assert_eq!(cluster.raft(next).commit(), index);
}

#[test]
fn a_leader_without_pulses_steps_down() {
    let mut cluster = resting(5);
    cluster.cut_off = [1, 2].into();
    cluster.run(400 + 60);
    assert_ne!(cluster.raft(0).role(), Role::Leader, "check-quorum goes by pulses, and there are none");
}

#[test]
fn a_node_that_is_away_keeps_nobody_awake_and_catches_up() {
    let mut cluster = resting(4);
    cluster.cut_off = [2].into();
    cluster.run(2000);
    assert!(are_resting(&cluster, 0, 4) && are_resting(&cluster, 1, 4));
    let index = cluster.propose(0, b"x");
    cluster.run(1000);
    assert!(are_resting(&cluster, 0, 4) && cluster.raft(2).commit() < index);
    cluster.cut_off.clear();
    cluster.run(2000);
    for node in 0..3 {
        assert!(are_resting(&cluster, node, 4) && cluster.raft(node).commit() == index, "node {node}");
    }
}

/// Whoever rests under a leader that was deposed behind its back must hear of it, though that leader's node is alive.
#[test]
fn a_deposed_leader_s_pulses_hold_nobody_back() {
    let mut cluster = Cluster::new(5);
    cluster.elect(0);
    cluster.run(1000);
    assert!((0..5).all(|node| cluster.raft(node).is_resting()));
    // The old leader's side is a minority; the others elect their own.
    cluster.cut_off = [0, 1].into();
    cluster.run(3000);
    let next = leader(&cluster, &[2, 3, 4]).unwrap();
    // Now that one is gone, and its heirs need a vote of the old side.
    cluster.cut_off = [next].into();
    cluster.run(3000);
    let heir = (0..5).filter(|node| *node != next).find(|node| cluster.raft(*node).role() == Role::Leader);
    let index = cluster.propose(heir.unwrap(), b"x");
    cluster.run(1000);
    for node in (0..5).filter(|node| *node != next) {
        assert_eq!(
            (cluster.raft(node).commit(), cluster.raft(node).is_resting()),
            (index, true),
            "node {node}"
        );
    }
}

#[test]
fn a_restart_rouses_those_who_rested_with_it() {
    let mut cluster = resting(3);
    cluster.restart(0);
    cluster.run(3000);
    let next = leader(&cluster, &[0, 1, 2]).unwrap();
    let index = cluster.propose(next, b"x");
    cluster.run(500);
    for node in 0..3 {
        assert_eq!(
            (cluster.raft(node).commit(), cluster.raft(node).is_resting()),
            (index, true),
            "node {node}"
        );
    }
}

/// One group with more to do than the disk takes, a hundred with one write each.
#[test]
fn a_busy_group_leaves_room_for_the_others() {
    let mut cluster = resting(101);
    cluster.slow_disks = [0, 1, 2].into();
    let mut taken = 0_u64;
    while cluster.propose_at(0, 0, &[7; 1000]).is_ok() {
        taken += 1000;
    }
    assert_eq!(cluster.propose_at(0, 0, &[7; 1000]), Err(Refused::Busy));
    assert!((7 << 20..9 << 20).contains(&taken), "{taken} bytes");
    let indices: Vec<u64> = (1..101).map(|place| cluster.propose_at(0, place, b"x").unwrap()).collect();
    cluster.flush(0);
    cluster.deliver();
    // A sync at each node, and another that begins with what came meanwhile.
    for _ in 0..2 {
        (0..3).for_each(|node| cluster.sync(node));
        cluster.deliver();
    }
    for (place, index) in (1..101).zip(indices) {
        assert_eq!(
            cluster.raft_at(0, place).commit(),
            index,
            "group {place} waits for none of the first one"
        );
    }
    let raft = cluster.raft(0);
    assert!(raft.commit() < raft.log().last_index());
}

fn rest(cluster: &Cluster, nodes: &[usize]) -> bool {
    nodes.iter().all(|node| cluster.raft(*node).is_resting())
}

/// Whoever learns or leaves, or two sets of voters, keep a group awake; whoever joined is another pair.
#[test]
fn a_group_whose_members_change_keeps_awake() {
    let mut cluster = Cluster::with_spares(3, 1);
    cluster.elect(0);
    cluster.run(1000);
    assert!(rest(&cluster, &[0, 1, 2]) && !cluster.raft(3).is_resting());
    cluster.change(0, &[Change::AddLearner(peer(3))], Transition::Auto).unwrap();
    for _ in 0..20 {
        cluster.run(100);
        assert!((0..4).all(|node| !cluster.raft(node).is_resting()), "a learner only waits");
    }
    let promote = [Change::Promote(peer(3).node)];
    cluster.change(0, &promote, Transition::Joint { auto_leave: false }).unwrap();
    for _ in 0..20 {
        cluster.run(100);
        assert!((0..4).all(|node| !cluster.raft(node).is_resting()), "{}", cluster.configuration(0));
    }
    cluster.leave_joint(0).unwrap();
    cluster.run(1000);
    assert!(rest(&cluster, &[0, 1, 2, 3]), "the new one with its new pair, too");
    cluster.change(0, &[Change::Remove(peer(1).node)], Transition::Auto).unwrap();
    assert!(!cluster.raft(0).is_resting());
    cluster.run(2000);
    assert!(rest(&cluster, &[0, 2, 3]) && !cluster.raft(1).is_resting(), "it was told that it left");
    // Nobody goes by what was promised to the group of before.
    cluster.cut_off = [0].into();
    cluster.run(2 * 400 + 20);
    let next = leader(&cluster, &[2, 3]).unwrap();
    cluster.run(500);
    let index = cluster.propose(next, b"x");
    cluster.deliver();
    assert_eq!(cluster.raft(next).commit(), index);
}

/// It is removed and doesn't hear of it, whatever is said: the word that it rests on doesn't hold any more.
#[test]
fn whoever_was_removed_behind_its_back_is_roused() {
    let mut cluster = resting(2);
    cluster.withheld = Some((2, Kind::Append));
    cluster.change(0, &[Change::Remove(peer(2).node)], Transition::Auto).unwrap();
    cluster.run(3000);
    assert!(rest(&cluster, &[0, 1]) && !cluster.raft(2).is_resting());
    assert!(are_resting(&cluster, 0, 2), "the other group rests again");
}

/// A disk that was wiped under a resting group: nobody rests until the replica has everything, and its vote again.
#[test]
fn a_blank_replica_keeps_its_group_awake_until_it_is_whole() {
    let mut cluster = resting(1);
    let index = cluster.propose(0, b"x");
    cluster.run(500);
    cluster.withheld = Some((2, Kind::RepairReply));
    cluster.swap_disk(2, Default::default());
    for _ in 0..20 {
        cluster.run(100);
        assert!(cluster.raft(2).is_repairing() && (0..3).all(|node| !cluster.raft(node).is_resting()));
    }
    cluster.withheld = None;
    cluster.run(3000);
    assert!(rest(&cluster, &[0, 1, 2]) && cluster.raft(2).commit() == index);
}

#[test]
fn a_node_that_isn_t_in_the_group_keeps_nobody_awake_and_may_join() {
    let mut cluster = Cluster::with_spares(3, 1);
    cluster.elect(0);
    cluster.run(2000);
    assert!(cluster.raft(3).is_repairing() && rest(&cluster, &[0, 1, 2]));
    let sent = cluster.sent_messages;
    cluster.run(5000);
    assert_eq!(cluster.sent_messages, sent, "it has asked, and was told");
    cluster.change(0, &[Change::AddLearner(peer(3))], Transition::Auto).unwrap();
    cluster.run(2000);
    assert!(!cluster.raft(3).is_repairing(), "it asked again");
    assert_eq!(cluster.raft(3).log().last_index(), cluster.raft(0).log().last_index());
}

/// Leases live on real answers to heartbeats.
#[test]
fn a_group_with_leases_keeps_awake() {
    let lease = Some(LeaseConfig { clock_drift_max_ppm: 1000 });
    let mut cluster = Cluster::with(3, RaftConfig { lease, rests: true, ..RaftConfig::default() });
    cluster.elect(0);
    for _ in 0..20 {
        cluster.run(100);
        assert!((0..3).all(|node| !cluster.raft(node).is_resting()));
    }
}

/// Silence for the sake of rest isn't held against a successor; and a preferred one is handed the leadership, rest or not.
#[test]
fn a_resting_group_s_leadership_is_handed_over() {
    let mut cluster = resting(1);
    cluster.run(3000);
    cluster.act(0, |multi, now| multi.transfer_to(now, 0, peer(1).node)).unwrap();
    cluster.run(1000);
    assert_eq!(cluster.raft(1).role(), Role::Leader);
    assert!(rest(&cluster, &[0, 1, 2]));
    let order: Vec<_> = [2, 0, 1].map(|node| peer(node).node).to_vec();
    (0..3).for_each(|node| cluster.act(node, |multi, now| multi.prefer(now, 0, order.clone())));
    cluster.run(1000);
    assert!(!cluster.raft(1).is_resting(), "it waits to see whether the preferred one keeps well");
    cluster.run(5000);
    assert_eq!(cluster.raft(2).role(), Role::Leader);
    assert!(rest(&cluster, &[0, 1, 2]));
}

#[test]
fn a_follower_s_read_rouses_its_group() {
    let mut cluster = resting(2);
    let ticket = cluster.read(1);
    assert!(!cluster.raft(1).is_resting() && ticket.is_forwarded);
    cluster.deliver();
    assert!(matches!(cluster.raft(1).read_state(&ticket), ReadState::ServeAt(_)));
    cluster.run(500);
    cluster.withheld = Some((1, Kind::ReadIndexReply));
    let ticket = cluster.read(1);
    cluster.run(1000);
    assert!(!rest(&cluster, &[0, 1, 2]) && cluster.raft(1).read_state(&ticket) == ReadState::Waiting);
    cluster.withheld = None;
    cluster.run(1000);
    assert!(matches!(cluster.raft(1).read_state(&ticket), ReadState::ServeAt(_)));
    assert!(rest(&cluster, &[0, 1, 2]));
}

/// Nobody who goes by a leader's pulses votes within an election timeout of the last one, whatever it is asked.
#[test]
fn a_pulse_binds_whoever_rests_by_it() {
    let mut cluster = resting(1);
    cluster.run(3000);
    let term = cluster.raft(0).term();
    let last = cluster.raft(1).log().last_index();
    let vote = Header { index: last, log_term: term, ..Header::new(Kind::Vote, GROUP, term + 1) };
    let mut outbox = Outbox::new(&cluster.beginnings[&2]);
    outbox.send(peer(1), &vote);
    let frame = outbox.drain().next().unwrap().1;
    cluster.wire.push((2, 1, frame));
    cluster.deliver();
    assert_eq!((cluster.raft(1).term(), cluster.raft(0).term()), (term, term));
}

//! Replicas that lost part of their log: what they must not do until they have it back.

use crate::cluster::Cluster;
use flotilla_consensus::{Kind, Role};
use flotilla_storage::RecordKind;

/// Long enough for several elections, in steps of less than a heartbeat's silence.
fn let_time_pass(cluster: &mut Cluster) {
    for _ in 0..60 {
        cluster.pass(50);
        cluster.fire_due();
        cluster.deliver();
    }
}

/// Three replicas, the first leads; replicas 0 and 1 have an entry that 2 lacks, and 1 has lost it.
fn one_has_lost_what_two_lacks() -> (Cluster, u64) {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    cluster.propose(0, b"everywhere");
    cluster.deliver();
    cluster.cut_off = [2].into();
    let precious = cluster.propose(0, b"precious");
    cluster.deliver();
    cluster.propose(0, b"behind it");
    cluster.deliver();
    assert!(cluster.raft(0).commit() > precious);
    cluster.spoil(1, |record| record.kind == RecordKind::Entry && record.index == precious);
    cluster.restart(1);
    assert!(cluster.raft(1).is_repairing() && cluster.raft(1).log().last_index() == precious - 1);
    (cluster, precious)
}

#[test]
fn a_damaged_replica_doesn_t_vote_away_what_it_acknowledged() {
    let (mut cluster, precious) = one_has_lost_what_two_lacks();
    cluster.cut_off = [0].into();
    let_time_pass(&mut cluster);
    for node in [1, 2] {
        assert_ne!(cluster.raft(node).role(), Role::Leader, "{node} leads without a committed entry");
    }
    cluster.cut_off.clear();
    cluster.elect(0);
    let_time_pass(&mut cluster);
    assert!(!cluster.raft(1).is_repairing());
    // Now it may stand in for the others.
    cluster.cut_off = [0].into();
    cluster.elect(1);
    let last = cluster.raft(1).commit();
    assert_eq!(cluster.entries(1, last)[precious as usize - 1].1, b"precious");
    assert_eq!(cluster.entries(1, last), cluster.entries(2, last));
}

#[test]
fn it_is_whole_after_the_next_restart_too() {
    let (mut cluster, precious) = one_has_lost_what_two_lacks();
    // It hasn't yet got anything back.
    cluster.restart(1);
    assert!(cluster.raft(1).is_repairing());
    cluster.cut_off.clear();
    let_time_pass(&mut cluster);
    assert!(!cluster.raft(1).is_repairing());
    // The damaged frame is still there; what was written behind it tells that it is mended.
    cluster.restart(1);
    assert!(!cluster.raft(1).is_repairing() && cluster.raft(1).log().last_index() > precious);
}

#[test]
fn it_isn_t_whole_before_its_log_is() {
    let (mut cluster, precious) = one_has_lost_what_two_lacks();
    cluster.cut_off.clear();
    cluster.withheld = Some((1, Kind::Append));
    let_time_pass(&mut cluster);
    assert!(cluster.raft(1).is_repairing() && cluster.raft(1).log().last_index() < precious);
    cluster.withheld = None;
    let_time_pass(&mut cluster);
    assert!(!cluster.raft(1).is_repairing() && cluster.raft(1).log().last_index() > precious);
}

#[test]
fn its_acknowledgements_and_confirmations_don_t_count() {
    let (mut cluster, _) = one_has_lost_what_two_lacks();
    let committed = cluster.raft(0).commit();
    let written = cluster.propose(0, b"on one good disk");
    let ticket = cluster.read(0);
    for _ in 0..4 {
        // Not so long that the leader gives up.
        cluster.pass(60);
        cluster.fire_due();
        cluster.deliver();
    }
    assert_eq!(cluster.raft(1).log().last_index(), written, "it takes what it is given");
    assert_eq!(cluster.raft(0).commit(), committed, "and that makes no majority");
    assert!(cluster.raft(0).confirmed_round() < ticket.round, "nor do its answers to heartbeats");
    assert!(cluster.raft(1).is_repairing(), "a leader that no majority confirmed can't mend it");
    cluster.cut_off.clear();
    cluster.elect(0);
    let_time_pass(&mut cluster);
    assert!(cluster.raft(0).commit() >= written && !cluster.raft(1).is_repairing());
}

/// With it alone a leader can commit nothing: whoever waits for that must hear that nobody leads.
#[test]
fn a_leader_that_only_it_answers_steps_down() {
    let (mut cluster, _) = one_has_lost_what_two_lacks();
    let_time_pass(&mut cluster);
    assert!(cluster.raft(1).is_repairing());
    assert_ne!(cluster.raft(0).role(), Role::Leader);
    cluster.cut_off.clear();
    let_time_pass(&mut cluster);
    assert!((0..3).any(|node| cluster.raft(node).role() == Role::Leader), "and later somebody does");
    assert!(!cluster.raft(1).is_repairing());
}

#[test]
fn a_lost_vote_is_given_to_nobody_else() {
    let mut cluster = Cluster::new(5);
    cluster.elect(0);
    for payload in [b"one", b"two"] {
        cluster.propose(0, payload);
        cluster.deliver();
    }
    // All that 1 ever wrote about terms is lost, and 4 is away: it might hold a vote of 1's.
    cluster.cut_off = [4].into();
    cluster.spoil(1, |record| record.kind == RecordKind::HardState);
    cluster.restart(1);
    let_time_pass(&mut cluster);
    assert!(cluster.raft(1).is_repairing(), "replica 4 hasn't told its term");
    assert_eq!(cluster.raft(1).commit(), cluster.raft(0).commit(), "it follows all the same");
    cluster.cut_off.clear();
    let_time_pass(&mut cluster);
    assert!(!cluster.raft(1).is_repairing());
    let told = (0..5).map(|node| cluster.raft(node).term()).max().unwrap();
    assert!(cluster.raft(1).term() == told && cluster.raft(1).vote().is_some(), "its vote counts as given");
}

/// etcd's replicas die of this ("tocommit is out of range").
#[test]
fn a_leader_survives_a_follower_that_has_forgotten_what_it_acknowledged() {
    let (mut cluster, precious) = one_has_lost_what_two_lacks();
    cluster.cut_off.clear();
    for _ in 0..3 {
        cluster.propose(0, b"more");
        cluster.deliver();
    }
    let_time_pass(&mut cluster);
    let last = cluster.raft(0).commit();
    for node in 1..3 {
        assert_eq!(cluster.raft(node).commit(), last);
        assert_eq!(cluster.entries(node, last), cluster.entries(0, last));
    }
    assert!(last > precious);
}

/// A founder that isn't a voter yet when the others elect somebody could only be mended by that leader: if it dies first, two
/// of three are there, and no majority.
#[test]
fn a_new_group_elects_nobody_before_all_founders_are_voters() {
    let mut cluster = Cluster::with_slow_disks(3, [2]);
    let_time_pass(&mut cluster);
    assert!((0..2).all(|node| !cluster.raft(node).is_repairing()) && cluster.raft(2).is_repairing());
    assert!((0..3).all(|node| cluster.raft(node).role() == Role::Follower && cluster.raft(node).term() == 0));
    cluster.slow_disks.clear();
    cluster.sync(2);
    let leader = loop {
        cluster.deliver();
        if let Some(leader) = (0..3).find(|node| cluster.raft(*node).role() == Role::Leader) {
            break leader;
        }
        cluster.pass(10);
        cluster.fire_due();
    };
    cluster.cut_off = [leader].into();
    let_time_pass(&mut cluster);
    let mut others = (0..3).filter(|node| *node != leader);
    assert!(
        others.any(|node| cluster.raft(node).role() == Role::Leader),
        "a minority may be away from then on"
    );
}

/// What a founder hears from the others may get lost, and it may be restarted in between.
#[test]
fn founders_ask_each_other_until_they_know() {
    for lost in 0..12 {
        let mut cluster = Cluster::with_slow_disks(3, [0, 1, 2]);
        (0..3).for_each(|node| cluster.sync(node));
        cluster.slow_disks.clear();
        if lost < cluster.wire.len() {
            cluster.wire.remove(lost);
        }
        if lost % 4 == 3 {
            cluster.restart(lost / 4);
        }
        let_time_pass(&mut cluster);
        let leaders = (0..3).filter(|node| cluster.raft(*node).role() == Role::Leader).count();
        assert_eq!(leaders, 1, "without message {lost}");
    }
}

//! Who syncs at once, and what becomes of those who needn't.

use crate::cluster::Cluster;
use flotilla_consensus::{RaftConfig, Role};
use flotilla_runtime::machine::{MICROSECOND, MILLISECOND};
use flotilla_runtime::{Nanos, NodeId};

/// What a message takes.
const HOP: Nanos = 50 * MICROSECOND;

fn thrifty(nodes: usize) -> Cluster {
    let config = RaftConfig { spare_sync_wait: 4 * MILLISECOND, ..RaftConfig::default() };
    let mut cluster = Cluster::with(nodes, config);
    cluster.elect(0);
    cluster
}

/// An entry is proposed, and two hops later what can be committed is. Returns whether it is.
fn write(cluster: &mut Cluster) -> bool {
    let index = cluster.propose(0, b"x");
    for _ in 0..2 {
        cluster.now += HOP;
        cluster.hop();
        cluster.fire_due();
    }
    cluster.raft(0).commit() >= index
}

/// Syncs of every node during so many writes, each of which is committed after two hops.
fn syncs(cluster: &mut Cluster, writes: u32) -> Vec<u32> {
    let before = cluster.syncs.clone();
    for number in 0..writes {
        assert!(write(cluster), "write {number}");
    }
    cluster.syncs.iter().zip(before).map(|(now, before)| now - before).collect()
}

/// The follower of three that syncs at once, and the other.
fn quick_and_spare(cluster: &mut Cluster) -> (usize, usize) {
    let counts = syncs(cluster, 100);
    assert_eq!(counts[0], 100, "the leader's is one of the majority");
    let quick = if counts[1] > counts[2] { 1 } else { 2 };
    (quick, 3 - quick)
}

#[test]
fn a_write_takes_the_syncs_of_a_majority_and_the_others_sync_many_at_a_time() {
    for (nodes, few) in [(3, 2), (5, 3)] {
        let mut cluster = thrifty(nodes);
        let counts = syncs(&mut cluster, 320);
        let all = counts.iter().filter(|count| **count == 320).count();
        // Ten of them were for everybody, and one in eight is the end of somebody's patience.
        let some = counts.iter().filter(|count| (20..=80).contains(*count)).count();
        assert_eq!((all, some), (few, nodes - few), "{counts:?}");
        cluster.run(50);
        let last = cluster.raft(0).log().last_index();
        assert!((0..nodes).all(|node| cluster.raft(node).durable() == last), "all have it in the end");
    }
}

#[test]
fn without_the_wait_everybody_syncs_at_once() {
    let mut cluster = Cluster::with(3, RaftConfig::default());
    cluster.elect(0);
    assert_eq!(syncs(&mut cluster, 100), [100, 100, 100]);
}

#[test]
fn when_the_quick_one_is_silent_the_other_is_soon_enough_and_then_takes_its_place() {
    let mut cluster = thrifty(3);
    let (quick, spare) = quick_and_spare(&mut cluster);
    cluster.cut_off = [quick].into();
    let (index, begun) = (cluster.propose(0, b"x"), cluster.now);
    while cluster.raft(0).commit() < index {
        cluster.now += HOP;
        cluster.hop();
        cluster.fire_due();
        assert!(cluster.now < begun + 5 * MILLISECOND, "the other's patience is at most four");
    }
    while !write(&mut cluster) {
        assert!(cluster.now < begun + 10 * MILLISECOND, "it is missed after 32 times as long as it takes");
    }
    let counts = syncs(&mut cluster, 100);
    assert_eq!((counts[quick], counts[spare]), (0, 100));
}

#[test]
fn whoever_proves_to_be_faster_takes_the_place_of_a_slow_one() {
    let mut cluster = thrifty(3);
    let (quick, spare) = quick_and_spare(&mut cluster);
    cluster.slow_disks = [quick].into();
    for _ in 0..64 {
        write(&mut cluster);
        cluster.now += HOP;
        cluster.sync(quick);
        cluster.hop();
    }
    cluster.slow_disks.clear();
    let counts = syncs(&mut cluster, 100);
    assert!(counts[quick] < 30 && counts[spare] == 100, "{counts:?}");
}

#[test]
fn the_leadership_is_handed_to_one_who_waited_without_its_waiting_longer() {
    let mut cluster = thrifty(3);
    let (_, spare) = quick_and_spare(&mut cluster);
    // Not the race, nor the last moment of its patience.
    while cluster.raft(spare).durable() + 1 >= cluster.raft(spare).log().last_index() {
        write(&mut cluster);
    }
    let node = NodeId(u32::try_from(spare + 1).unwrap());
    cluster.act(0, |multi, now| multi.transfer_to(now, 0, node)).unwrap();
    cluster.deliver();
    assert_eq!(cluster.raft(spare).role(), Role::Leader, "no time has passed");
}

#[test]
fn a_vote_doesnt_wait() {
    let mut cluster = thrifty(3);
    let (quick, spare) = quick_and_spare(&mut cluster);
    write(&mut cluster);
    cluster.cut_off = [0].into();
    cluster.wire.clear();
    cluster.pass(1000);
    cluster.fire(quick);
    cluster.deliver();
    assert_eq!(cluster.raft(quick).role(), Role::Leader);
    assert_eq!(cluster.raft(spare).durable(), cluster.raft(spare).log().last_index());
}

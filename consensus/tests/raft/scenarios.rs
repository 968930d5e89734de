//! Scenarios that random runs hit rarely, each step by step. Numbers in names are rows of the labs' behaviours.

use crate::cluster::Cluster;
use flotilla_consensus::{Refused, Role};

#[test]
fn a_leader_is_elected_and_entries_are_committed_everywhere_raft_a1_b1() {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    assert_eq!(cluster.propose(0, b"one"), 2, "the first entry is the term's own");
    cluster.deliver();
    cluster.fire(0);
    cluster.deliver();
    for node in 0..3 {
        assert_eq!((cluster.raft(node).commit(), cluster.raft(node).leader().unwrap().0), (2, 1));
        assert_eq!(cluster.entries(node, 2)[1].1, b"one");
    }
}

#[test]
fn an_entry_is_acknowledged_only_from_the_disk() {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    let before = cluster.raft(0).commit();
    cluster.slow_disks = [0, 1, 2].into();
    cluster.propose(0, b"x");
    cluster.deliver();
    assert_eq!(cluster.raft(0).commit(), before, "it is in memory everywhere and on no disk");
    cluster.sync(1);
    cluster.deliver();
    assert_eq!(
        cluster.raft(0).commit(),
        before,
        "one disk is no majority, and the leader's memory doesn't count"
    );
    cluster.sync(2);
    cluster.deliver();
    assert_eq!(cluster.raft(0).commit(), before + 1, "two disks are one, also without the leader's own");
}

/// H-12: and the vote outlives the process: term, vote and entries are one stream, so nothing older is written over it.
#[test]
fn a_vote_isn_t_given_before_it_is_on_the_disk_and_never_twice_raft_c1() {
    let mut cluster = Cluster::new(3);
    cluster.slow_disks = [1].into();
    cluster.cut_off = [2].into();
    cluster.pass(1000);
    cluster.fire(0);
    cluster.deliver();
    assert_eq!((cluster.raft(0).role(), cluster.raft(1).term()), (Role::Candidate, 1));
    assert_eq!(cluster.raft(1).vote().unwrap().0, 1, "it has decided, and told nobody");
    cluster.sync(1);
    cluster.deliver();
    assert_eq!(cluster.raft(0).role(), Role::Leader);
    cluster.restart(1);
    assert_eq!((cluster.raft(1).term(), cluster.raft(1).vote().map(|node| node.0)), (1, Some(1)));
}

/// Figure 8 of the paper: an entry of an older term on a majority isn't committed by that.
#[test]
fn entries_of_older_terms_are_not_committed_by_counting_raft_c4() {
    let mut cluster = Cluster::new(5);
    // (a) The first leader brings an entry to one follower only.
    cluster.elect(0);
    cluster.cut_off = [2, 3, 4].into();
    // So large that it will travel alone, without the entry behind it.
    let old = cluster.propose(0, &[7; 300_000]);
    cluster.deliver();
    let committed = cluster.raft(0).commit();
    assert!(committed < old);
    // (b) Another leads, elected without those two, and writes on its own disk only.
    cluster.cut_off = [0, 1].into();
    cluster.wire.clear();
    cluster.slow_disks = [4].into();
    cluster.pass(3000);
    cluster.fire(4);
    cluster.deliver();
    cluster.cut_off = [0, 1, 2, 3].into();
    for _ in 0..3 {
        cluster.sync(4);
    }
    cluster.slow_disks.clear();
    assert_eq!(cluster.raft(4).role(), Role::Leader);
    cluster.propose(4, b"lost");
    cluster.deliver();
    while cluster.raft(0).role() == Role::Leader {
        cluster.fire(0);
    }
    cluster.wire.clear();
    // (c) The first leads again; its own entry of the new term doesn't get anywhere yet, the old one does.
    cluster.cut_off = [4].into();
    cluster.slow_disks = [0, 1, 2, 3].into();
    cluster.pass(3000);
    // Its first try tells it that there was a later term.
    'elected: for _ in 0..3 {
        cluster.fire(0);
        for _ in 0..20 {
            if cluster.raft(0).role() == Role::Leader {
                break 'elected;
            }
            (0..4).for_each(|node| cluster.sync(node));
            cluster.deliver();
        }
    }
    assert_eq!(cluster.raft(0).role(), Role::Leader);
    let term = cluster.raft(0).term();
    assert!(cluster.raft(0).log().term(old).unwrap() < term);
    assert_eq!(cluster.raft(0).commit(), committed, "nothing of this term is on a majority yet");
    cluster.deliver();
    cluster.sync(2);
    cluster.deliver();
    let durable: Vec<u64> = (0..3).map(|node| cluster.raft(node).durable()).collect();
    assert_eq!(durable, [old; 3], "the old entry is on a majority, and nothing else");
    assert_eq!(cluster.raft(0).commit(), committed, "which doesn't commit it");
    for _ in 0..3 {
        (0..4).for_each(|node| cluster.sync(node));
        cluster.deliver();
    }
    assert!(cluster.raft(0).commit() > old, "with an entry of its own term the old one is committed, too");
    // The other's entry is gone everywhere once it is heard.
    cluster.cut_off.clear();
    cluster.slow_disks.clear();
    for _ in 0..8 {
        cluster.fire(0);
        cluster.deliver();
    }
    let last = cluster.raft(0).commit();
    assert_eq!(cluster.entries(4, last), cluster.entries(0, last));
}

#[test]
fn a_leader_that_slept_through_its_replacement_answers_no_read() {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    // It sleeps; another leads and commits.
    cluster.cut_off = [0].into();
    cluster.elect(1);
    let newer = cluster.propose(1, b"newer");
    cluster.deliver();
    assert_eq!((cluster.raft(1).commit(), cluster.raft(0).role()), (newer, Role::Leader));
    // It wakes up, and the first thing it hears is a client.
    let ticket = cluster.read(0);
    assert!(cluster.raft(0).confirmed_round() < ticket.round, "nobody has confirmed that it leads");
    cluster.cut_off.clear();
    cluster.deliver();
    assert_eq!(cluster.raft(0).role(), Role::Follower);
    // The new one's reads wait for a round of its own, begun after they came.
    let ticket = cluster.read(1);
    assert!(cluster.raft(1).confirmed_round() < ticket.round && ticket.index >= newer);
    cluster.deliver();
    assert!(cluster.raft(1).confirmed_round() >= ticket.round);
}

#[test]
fn a_restarted_follower_learns_what_is_committed_without_a_write() {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    cluster.propose(0, b"x");
    cluster.deliver();
    cluster.fire(0);
    cluster.deliver();
    let commit = cluster.raft(0).commit();
    assert_eq!(cluster.raft(1).commit(), commit);
    cluster.restart(1);
    assert!(cluster.raft(1).commit() < commit);
    cluster.deliver();
    cluster.fire(0);
    cluster.deliver();
    assert_eq!(cluster.raft(1).commit(), commit);
}

#[test]
fn a_node_that_was_cut_off_disturbs_nobody_when_it_returns_raft_a2() {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    cluster.cut_off = [2].into();
    let term = cluster.raft(0).term();
    for _ in 0..200 {
        cluster.pass(20);
        cluster.fire_due();
        cluster.deliver();
    }
    assert_eq!((cluster.raft(2).role(), cluster.raft(2).term()), (Role::PreCandidate, term));
    // It asks again, while the leader is alive and heard.
    while !cluster.is_due(2) {
        cluster.fire_due();
        cluster.deliver();
        cluster.pass(20);
    }
    cluster.cut_off.clear();
    cluster.fire(2);
    cluster.deliver();
    assert_eq!((cluster.raft(0).role(), cluster.raft(0).term()), (Role::Leader, term));
    cluster.fire(0);
    cluster.deliver();
    assert_eq!(cluster.raft(2).leader().unwrap().0, 1);
}

#[test]
fn a_leader_without_a_majority_steps_down_and_its_entries_are_replaced_raft_b8() {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    cluster.cut_off = [0].into();
    for _ in 0..3 {
        cluster.propose(0, b"never");
    }
    cluster.deliver();
    cluster.elect(1);
    let index = cluster.propose(1, b"instead");
    cluster.deliver();
    while cluster.raft(0).role() == Role::Leader {
        cluster.fire(0);
    }
    cluster.wire.clear();
    cluster.cut_off.clear();
    for _ in 0..4 {
        cluster.fire(1);
        cluster.deliver();
    }
    assert_eq!((cluster.raft(0).commit(), cluster.entries(0, index)), (index, cluster.entries(1, index)));
    assert!(cluster.raft(0).log().last_index() == index, "what it alone had is gone");
}

/// Proposes at `leader` until something is refused, or the follower `short` takes no more; returns the last index.
fn fill(cluster: &mut Cluster, leader: usize, short: Option<usize>) -> u64 {
    let payload = [7; 16_000];
    let mut taken = 0;
    for _ in 0..400 {
        let proposed = cluster.try_to_propose(leader, &payload);
        cluster.deliver();
        match proposed {
            Ok(index) if short.is_some_and(|node| cluster.raft(node).log().last_index() < index) => {
                return index;
            }
            Ok(index) => taken = index,
            Err(refused) => {
                assert_eq!(refused, Refused::NoRoom);
                return taken;
            }
        }
    }
    panic!("a full disk takes everything");
}

/// The leader speaks for so long.
fn lead_on(cluster: &mut Cluster, leader: usize, heartbeats: u32) {
    for _ in 0..heartbeats {
        // Or rests as long.
        cluster.pass(if cluster.raft(leader).is_resting() { 50 } else { 0 });
        cluster.fire(leader);
        cluster.deliver();
    }
}

#[test]
fn a_follower_without_room_takes_nothing_in_and_is_not_sent_it_again_and_again_h18() {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    cluster.full_disks = [2].into();
    let index = fill(&mut cluster, 0, Some(2));
    assert_eq!(cluster.raft(0).commit(), index, "two disks are enough");
    let last = cluster.raft(2).log().last_index();
    lead_on(&mut cluster, 0, 10);
    // It isn't sent the same again and again, neither for what is written nor for what is read.
    cluster.sent_bytes = 0;
    for _ in 0..100 {
        cluster.read(0);
        cluster.deliver();
    }
    assert!(cluster.sent_bytes < 100_000, "{} bytes for nothing", cluster.sent_bytes);
    cluster.sent_bytes = 0;
    for _ in 0..40 {
        cluster.propose(0, b"small");
        cluster.deliver();
    }
    assert!(cluster.sent_bytes < 200_000, "{} bytes for nothing", cluster.sent_bytes);
    lead_on(&mut cluster, 0, 40);
    assert_eq!((cluster.raft(2).log().last_index(), cluster.raft(2).term()), (last, cluster.raft(0).term()));
    assert_eq!(cluster.raft(2).leader().unwrap().0, 1, "it follows nevertheless");
    cluster.full_disks.clear();
    lead_on(&mut cluster, 0, 40);
    let end = cluster.raft(0).log().last_index();
    assert_eq!((cluster.raft(2).durable(), cluster.raft(2).commit()), (end, end));
    assert_eq!(cluster.entries(2, end), cluster.entries(0, end));
}

#[test]
fn a_leader_refuses_what_no_majority_has_room_for() {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    cluster.full_disks = [1, 2].into();
    let mut taken = 0;
    let refused = loop {
        match cluster.try_to_propose(0, &[7; 3_000]) {
            Ok(index) => taken = index,
            Err(refused) => break refused,
        }
        cluster.deliver();
        assert!(taken < 10_000, "full disks take everything");
    };
    assert_eq!((refused, cluster.raft(0).commit()), (Refused::NoRoom, taken), "what was taken is committed");
    lead_on(&mut cluster, 0, 40);
    assert_eq!(cluster.try_to_propose(0, &[7; 3_000]), Err(Refused::NoRoom));
    cluster.full_disks = [2].into();
    cluster.run(3000);
    let index = cluster.propose(0, &[7; 3_000]);
    cluster.deliver();
    assert_eq!(cluster.raft(0).commit(), index, "with one that has room again there is a majority");
}

#[test]
fn a_leader_without_room_refuses_clients_and_leads_on() {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    cluster.full_disks = [0].into();
    let index = fill(&mut cluster, 0, None);
    assert_eq!(cluster.raft(0).commit(), index, "what was taken is committed");
    lead_on(&mut cluster, 0, 40);
    let ticket = cluster.read(0);
    cluster.deliver();
    assert!(cluster.raft(0).confirmed_round() >= ticket.round && ticket.index <= index, "reads are served");
    assert_eq!(cluster.try_to_propose(0, &[7; 16_000]), Err(Refused::NoRoom));
    cluster.full_disks.clear();
    lead_on(&mut cluster, 0, 40);
    assert_eq!(cluster.try_to_propose(0, &[7; 16_000]), Ok(index + 1));
}

#[test]
fn when_every_disk_is_full_a_leader_can_still_be_elected_and_serve_reads() {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    cluster.full_disks = [0, 1, 2].into();
    let index = fill(&mut cluster, 0, None);
    for leader in [1, 2, 1, 0] {
        cluster.elect(leader);
        lead_on(&mut cluster, leader, 3);
        let ticket = cluster.read(leader);
        cluster.deliver();
        let raft = cluster.raft(leader);
        assert!(
            raft.confirmed_round() >= ticket.round && raft.commit() >= ticket.index && ticket.index > index
        );
    }
    assert_eq!(cluster.try_to_propose(0, b"x"), Err(Refused::NoRoom));
}

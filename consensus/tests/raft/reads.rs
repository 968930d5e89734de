//! Linearizable reads step by step: on followers, and under a leader's lease.

use crate::cluster::Cluster;
use flotilla_consensus::raft::LeaseConfig;
use flotilla_consensus::{Kind, RaftConfig, ReadState, ReadTicket, Refused, Role};
use flotilla_runtime::NodeId;

/// The bound that the replicas are configured with: a twentieth.
const DRIFT_PPM: u32 = 50_000;

fn with_leases() -> Cluster {
    let lease = Some(LeaseConfig { clock_drift_max_ppm: DRIFT_PPM });
    Cluster::with(3, RaftConfig { lease, ..RaftConfig::default() })
}

fn state(cluster: &Cluster, node: usize, ticket: &ReadTicket) -> ReadState {
    cluster.raft(node).read_state(ticket)
}

/// The leader speaks, and is answered.
fn lead_on(cluster: &mut Cluster, leader: usize) {
    cluster.fire(leader);
    cluster.deliver();
}

#[test]
fn a_follower_s_read_sees_everything_that_was_committed_before_it_came() {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    lead_on(&mut cluster, 0);
    // The follower hears of neither the entry nor its commitment.
    cluster.cut_off = [2].into();
    let index = cluster.propose(0, b"x");
    cluster.deliver();
    assert_eq!((cluster.raft(0).commit(), cluster.raft(2).commit()), (index, index - 1));
    cluster.cut_off.clear();
    let ticket = cluster.read(2);
    assert_eq!(state(&cluster, 2, &ticket), ReadState::Waiting);
    cluster.deliver();
    assert_eq!(state(&cluster, 2, &ticket), ReadState::ServeAt(index));
    // It must wait for the entry: what it has is older.
    assert!(cluster.raft(2).commit() < index);
    for _ in 0..10 {
        lead_on(&mut cluster, 0);
    }
    assert_eq!(cluster.raft(2).commit(), index);
}

#[test]
fn all_reads_of_a_follower_s_turn_are_one_question_and_the_answer_says_what_is_committed() {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    let index = cluster.propose(0, b"x");
    cluster.deliver();
    assert!(cluster.raft(2).commit() < index, "no heartbeat has told it yet");
    let tickets = cluster
        .act(2, |multi, now| (0..100).map(|_| multi.read_at_follower(now, 0).unwrap()).collect::<Vec<_>>());
    assert_eq!(cluster.hop(), 1, "one question");
    assert_eq!(cluster.hop(), 2, "one round of heartbeats");
    assert_eq!(cluster.hop(), 2, "two answers to it");
    assert_eq!(cluster.hop(), 1, "one answer");
    for ticket in &tickets {
        assert_eq!(state(&cluster, 2, ticket), ReadState::ServeAt(index));
    }
    assert_eq!(cluster.raft(2).commit(), index);
    // A read that comes later needs an answer of its own.
    let later = cluster.read(2);
    assert_eq!(state(&cluster, 2, &later), ReadState::Waiting);
}

#[test]
fn a_question_that_was_lost_is_asked_again() {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    lead_on(&mut cluster, 0);
    for lost in [Kind::ReadIndex, Kind::ReadIndexReply] {
        let at = if lost == Kind::ReadIndex { 0 } else { 1 };
        cluster.withheld = Some((at, lost));
        let ticket = cluster.read(1);
        cluster.deliver();
        assert_eq!(state(&cluster, 1, &ticket), ReadState::Waiting);
        cluster.withheld = None;
        lead_on(&mut cluster, 0);
        lead_on(&mut cluster, 0);
        assert!(matches!(state(&cluster, 1, &ticket), ReadState::ServeAt(_)));
    }
}

#[test]
fn a_leader_s_read_and_a_follower_s_are_not_mistaken_for_each_other() {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    lead_on(&mut cluster, 0);
    let leader = cluster.raft(1).leader();
    assert_eq!(cluster.act(1, |multi, now| multi.read(now, 0)), Err(Refused::NotLeader(leader)));
    assert_eq!(cluster.act(0, |multi, now| multi.read_at_follower(now, 0)), Err(Refused::NotLeader(leader)));
}

#[test]
fn a_follower_s_read_is_void_when_the_leader_changes_and_refused_when_there_is_none() {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    lead_on(&mut cluster, 0);
    cluster.withheld = Some((0, Kind::ReadIndex));
    let ticket = cluster.read(1);
    cluster.deliver();
    cluster.elect(2);
    lead_on(&mut cluster, 2);
    assert_eq!(state(&cluster, 1, &ticket), ReadState::Void);
    cluster.cut_off = [1].into();
    cluster.fire(1);
    assert_eq!(cluster.act(1, |multi, now| multi.read_at_follower(now, 0)), Err(Refused::NotLeader(None)));
}

#[test]
fn a_leader_that_was_replaced_gives_a_follower_no_index() {
    let mut cluster = Cluster::new(5);
    cluster.elect(0);
    lead_on(&mut cluster, 0);
    // The leader and one follower are cut off together; the others go on.
    cluster.cut_off = [0, 1].into();
    cluster.elect(2);
    cluster.propose(2, b"newer");
    cluster.deliver();
    cluster.cut_off = [2, 3, 4].into();
    let ticket = cluster.read(1);
    cluster.deliver();
    assert_eq!((cluster.raft(0).role(), state(&cluster, 1, &ticket)), (Role::Leader, ReadState::Waiting));
}

#[test]
fn under_a_lease_a_read_needs_no_round_and_when_it_is_over_one_does() {
    let mut cluster = with_leases();
    cluster.elect(0);
    lead_on(&mut cluster, 0);
    let ticket = cluster.read(0);
    assert!(matches!(state(&cluster, 0, &ticket), ReadState::ServeAt(_)));
    assert!(cluster.wire.is_empty(), "nobody is asked");
    // Measured from the sending of the heartbeat: 400 ms, less a twentieth.
    cluster.pass(379);
    let ticket = cluster.read(0);
    assert!(matches!(state(&cluster, 0, &ticket), ReadState::ServeAt(_)));
    cluster.pass(3);
    let ticket = cluster.read(0);
    assert_eq!(state(&cluster, 0, &ticket), ReadState::Waiting);
    cluster.deliver();
    assert!(matches!(state(&cluster, 0, &ticket), ReadState::ServeAt(_)));
}

#[test]
fn a_lease_begins_when_the_heartbeat_leaves_not_when_it_is_answered() {
    let mut cluster = with_leases();
    cluster.elect(0);
    cluster.deliver();
    cluster.fire(0);
    cluster.pass(370);
    cluster.deliver();
    cluster.pass(11);
    let ticket = cluster.read(0);
    assert_eq!(state(&cluster, 0, &ticket), ReadState::Waiting);
}

#[test]
fn a_follower_that_restarts_honours_the_lease_of_a_leader_that_it_has_forgotten() {
    let mut cluster = with_leases();
    cluster.elect(0);
    lead_on(&mut cluster, 0);
    // The other one hasn't heard the leader for a while, and wants to campaign just now.
    cluster.cut_off = [2].into();
    while !cluster.is_due(2) {
        lead_on(&mut cluster, 0);
    }
    lead_on(&mut cluster, 0);
    cluster.restart(1);
    cluster.wire.clear();
    cluster.cut_off = [0].into();
    cluster.fire(2);
    cluster.deliver();
    assert_eq!((cluster.raft(2).role(), cluster.raft(1).vote()), (Role::PreCandidate, Some(NodeId(1))));
    let ticket = cluster.read(0);
    assert!(matches!(state(&cluster, 0, &ticket), ReadState::ServeAt(_)), "rightly: nobody else leads");
    cluster.elect(2);
    let ticket = cluster.read(0);
    assert_eq!(state(&cluster, 0, &ticket), ReadState::Waiting, "now that somebody does, it doesn't");
}

#[test]
fn handing_over_ends_the_lease_for_the_rest_of_the_term() {
    let mut cluster = with_leases();
    cluster.elect(0);
    lead_on(&mut cluster, 0);
    cluster.withheld = Some((1, Kind::TimeoutNow));
    cluster.act(0, |multi, now| multi.transfer_to(now, 0, NodeId(2))).unwrap();
    let invitation = cluster.wire.clone();
    let ticket = cluster.read(0);
    assert_eq!(state(&cluster, 0, &ticket), ReadState::Waiting);
    for _ in 0..20 {
        lead_on(&mut cluster, 0);
    }
    assert_eq!(cluster.raft(0).transferring_to(), None);
    // The old invitation arrives after all, and the leader doesn't hear of what follows.
    cluster.withheld = None;
    cluster.wire = invitation;
    cluster.hop();
    cluster.cut_off = [0].into();
    cluster.deliver();
    assert_eq!(cluster.raft(1).role(), Role::Leader);
    let ticket = cluster.read(0);
    assert_eq!(state(&cluster, 0, &ticket), ReadState::Waiting);
}

/// The leader's clock is slower than the others'; they elect another one as early as they may, and write. Whether the old
/// leader would serve a read then, which would be stale.
fn serves_a_stale_read(slower_ppm: u64) -> bool {
    let mut cluster = with_leases();
    cluster.slower_ppm[0] = slower_ppm;
    cluster.elect(0);
    lead_on(&mut cluster, 0);
    cluster.cut_off = [0].into();
    for _ in 0..900 {
        cluster.pass(1);
        (1..3).for_each(|node| cluster.fire_if_due(node));
        cluster.deliver();
        if let Some(leader) = (1..3).find(|node| cluster.raft(*node).role() == Role::Leader) {
            let index = cluster.propose(leader, b"newer");
            cluster.deliver();
            assert_eq!(cluster.raft(leader).commit(), index);
            let ticket = cluster.read(0);
            return matches!(state(&cluster, 0, &ticket), ReadState::ServeAt(at) if at < index);
        }
    }
    panic!("nobody else leads");
}

#[test]
fn leases_hold_within_the_bound_of_the_clocks_and_break_beyond_it() {
    assert!(!serves_a_stale_read(0));
    assert!(!serves_a_stale_read(u64::from(DRIFT_PPM) * 95 / 100));
    assert!(serves_a_stale_read(600_000), "a clock at two fifths of the others' speed");
}
